//! Arguments → command → exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    okta_auth0_sync::cli::run(std::env::args_os()).into()
}
