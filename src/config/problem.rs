//! Configuration errors, each with its location and remedy.

use std::fmt;
use std::path::Path;

/// One problem: where, what, and how to fix it. Never repeats a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key (`okta.url`), environment variable or file.
    pub subject: String,
    /// What is wrong and how to fix it. May have several lines.
    pub message: String,
}

impl Problem {
    pub(super) fn new(subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

/// An invalid configuration, with all its problems.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    /// Where it came from: a path, or a description when there was no file.
    pub source_name: String,
    /// At least one.
    pub problems: Vec<Problem>,
}

impl Error {
    /// The problem of the file at `path`.
    pub(super) fn of(path: &Path, problem: Problem) -> Self {
        Self { source_name: path.display().to_string(), problems: vec![problem] }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid configuration ({})", self.source_name)?;
        for problem in &self.problems {
            for (number, line) in problem.to_string().lines().enumerate() {
                write!(f, "\n  {}{line}", if number == 0 { "" } else { "  " })?;
            }
        }
        Ok(())
    }
}
