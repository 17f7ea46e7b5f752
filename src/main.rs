//! Runs the command line and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    okta_auth0_sync::cli::run(std::env::args_os()).into()
}
