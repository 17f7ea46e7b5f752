//! Escaping of foreign text, so that it is safe to show.

/// Replaces control characters (including line ends and terminal escapes) and invisible formatting characters (direction
/// marks, zero-width characters) by escapes such as `\n` and `\u{1b}`.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    text.chars().for_each(|c| push(&mut escaped, c));
    escaped
}

/// Like [`escape`], with an ellipsis after `chars_max` characters of `text`.
pub fn escape_bounded(text: &str, chars_max: usize) -> String {
    let text = text.trim();
    let mut chars = text.chars();
    let mut escaped = String::with_capacity(text.len().min(chars_max));
    chars.by_ref().take(chars_max).for_each(|c| push(&mut escaped, c));
    if chars.next().is_some() {
        escaped.push('…');
    }
    escaped
}

fn push(escaped: &mut String, c: char) {
    if c.is_control() || is_invisible(c) {
        escaped.extend(c.escape_default());
    } else {
        escaped.push(c);
    }
}

/// Direction overrides, line separators, zero-width characters.
const fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deceptive_characters_are_escaped() {
        assert_eq!(escape("é\t\u{1b}[2J\u{9b}\u{202e}漢"), "é\\t\\u{1b}[2J\\u{9b}\\u{202e}漢");
    }
}
