//! Shows where in the file an error is: line, column, key and a caret, but never a secret.

use super::problem::Problem;
use super::raw::{self, Raw};
use super::wording;
use crate::domain;

/// The longest part of a line that is shown, in characters.
const SHOWN_MAX: usize = 160;

/// Describes `error` with its location in `text`.
pub(super) fn problem(text: &str, source_name: &str, error: &toml::de::Error, key: &str) -> Problem {
    // Both repeat names from the file, and TOML allows any character in them: escape what would control the terminal.
    let key = domain::escape(key);
    let escaped = |message: &str| message.lines().map(domain::escape).collect::<Vec<_>>().join("\n");
    let Some(span) = error.span() else {
        let subject = if key.is_empty() { source_name } else { &key };
        return Problem::new(subject, escaped(error.message()));
    };
    let start = floor(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let message =
        wording::misplaced(error.message(), raw::KEYS).unwrap_or_else(|| wording::plain(error.message(), line));
    let message = escaped(&message);
    let number = text[..line_start].matches('\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    let location = format!("{source_name}, line {number}, column {column}");
    let subject = if key.is_empty() { location } else { format!("{location}, {key}") };
    let shown = presentable(line);
    if column > shown.chars().count() + 1 {
        return Problem::new(subject, message);
    }
    let width = text[start..floor(text, span.end.max(start))].lines().next().map_or(0, |part| part.chars().count());
    let room = shown.chars().count() + 1 - (column - 1);
    let carets = "^".repeat(width.clamp(1, room.max(1)));
    let gutter = " ".repeat(number.to_string().len());
    let indent = " ".repeat(column - 1);
    Problem::new(subject, format!("{message}\n{gutter} |\n{number} | {shown}\n{gutter} | {indent}{carets}"))
}

/// The part of a line that cannot be a secret: a table header, or a key with its value if the key is known not to be
/// a secret. Omits the value of any other key (perhaps a misspelt secret) and lines without a key.
fn presentable(line: &str) -> String {
    let shown = match line.split_once('=') {
        // A second `=` or a secret's name means that a line break may be missing.
        Some((key, value)) if Raw::is_open(key.trim()) && !value.contains('=') && !Raw::names_secret(value) => line,
        Some((key, _)) if is_bare(key.trim()) => return format!("{}= …", clean(key)),
        None if line.starts_with('[') && is_bare(line.trim_matches(['[', ']', ' '])) => line,
        _ => return String::new(),
    };
    clean(shown)
}

/// Could this be a key, perhaps misspelt? A line of a PEM is longer and has capitals.
fn is_bare(key: &str) -> bool {
    key.len() <= 40 && key.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-' | b'.' | b'0'..=b'9'))
}

fn clean(text: &str) -> String {
    text.chars().take(SHOWN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}
