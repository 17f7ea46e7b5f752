//! Asking before something that reaches far.

use std::io::{self, BufRead, IsTerminal};

use super::{Error, screen};

/// Asks on the terminal. Without one there is nobody to ask, and the answer is no, with the way to say yes.
///
/// # Errors
/// When standard input cannot be read.
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
