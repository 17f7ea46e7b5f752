//! Confirmation prompts, and the operator who answers them.

use std::io::{self, BufRead, IsTerminal};

use super::{Error, screen};

/// The operator, for the audit trail: the user who called `sudo`, else the current one.
pub(crate) fn operator() -> String {
    let name = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok().filter(|name| !name.is_empty()));
    name.map_or_else(|| "command".to_owned(), |name| format!("command ({name})"))
}

/// Prompts on the terminal. Without a terminal it refuses, with a hint to use `--yes`.
///
/// # Errors
/// If standard input cannot be read.
pub(crate) fn confirmed(question: &str) -> Result<bool, Error> {
    if !io::stdin().is_terminal() {
        screen::remark(&format!(
            "{}: nothing was changed: cannot prompt, as standard input is not a terminal; use --yes",
            screen::paint(screen::BAD, "error")
        ));
        return Ok(false);
    }
    screen::remark(&format!("{question} [y/N]"));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(Error::Output)?;
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !yes {
        screen::remark("nothing was changed");
    }
    Ok(yes)
}
