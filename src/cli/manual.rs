//! `man`: manual pages, generated from the argument definitions.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::Cli;
use super::screen;

/// Prints the page of the program, or writes the pages of all commands into `directory`.
pub(super) fn run(directory: Option<&Path>) -> io::Result<()> {
    match directory {
        Some(directory) => clap_mangen::generate_to(Cli::command(), directory),
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).manual("okta-auth0-sync").render(&mut page)?;
            screen::out_raw(&page)
        }
    }
}
