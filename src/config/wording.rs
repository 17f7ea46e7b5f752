//! The TOML parser's messages in the operator's words: what to write, without names of Rust types.

/// Where a key that is not in this section belongs, if another section has it.
pub(super) fn misplaced(message: &str, keys: &[&str]) -> Option<String> {
    let name = message.strip_prefix("unknown field `")?.split('`').next()?;
    let sections: Vec<String> = keys
        .iter()
        .filter_map(|key| key.rsplit_once('.'))
        .filter(|(_, last)| *last == name)
        .map(|(section, _)| format!("[{section}]"))
        .collect();
    (!sections.is_empty()).then(|| format!("`{name}` belongs in the section {}", sections.join(" or ")))
}

/// Rewrites a message about the value that ends `line`. Never repeats the value, which may be a secret, unless it is a number,
/// a percentage or a word for yes or no.
pub(super) fn plain(message: &str, line: &str) -> String {
    let value = line.split_once('=').map_or("", |(_, value)| value.split('#').next().unwrap_or_default().trim());
    if line.trim_start().starts_with("[[") {
        return "a section has its name in single brackets, such as [engine]".to_owned();
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        return mistyped(found, expected, value);
    }
    if message.starts_with("unexpected key or value, expected newline") {
        return "there is something after the value: write one key per line, and text in one pair of quotes".to_owned();
    }
    let unquoted = [
        "unexpected leading zero",
        "invalid float, expected",
        "invalid boolean, expected",
        "string values must be quoted",
    ];
    if unquoted.iter().any(|start| message.starts_with(start)) {
        return bare(value);
    }
    message.to_owned()
}

fn mistyped(found: &str, expected: &str, value: &str) -> String {
    let (expected, quoted) = match expected {
        "a boolean" => ("true or false", false),
        "a sequence" => ("a list in brackets, such as [\"first\", \"second\"]", false),
        "a string" => ("text in quotes", true),
        other if is_number(other) => (other, false),
        other => (other, true),
    };
    let text = value.trim_matches(['"', '\'']);
    if found.starts_with("string") {
        if let Some(fraction) = fraction(text).filter(|_| is_number(expected)) {
            return format!("must be {expected}: write {fraction}");
        }
        if (is_number(expected) && text.parse::<f64>().is_ok()) || (!quoted && matches!(text, "true" | "false")) {
            return format!("must be {expected}, without quotes: write {text}");
        }
        return match (expected, truth(text)) {
            ("true or false", Some(truth)) => format!("must be true or false, without quotes: write {truth}"),
            _ => format!("must be {expected}"),
        };
    }
    if quoted && (found.starts_with("integer") || found.starts_with("floating") || found.starts_with("boolean")) {
        return format!("must be {}, in quotes", expected.trim_end_matches(" in quotes"));
    }
    match (expected, text) {
        ("true or false", "1") => "must be true or false: write true".to_owned(),
        ("true or false", "0") => "must be true or false: write false".to_owned(),
        _ => format!("must be {expected}"),
    }
}

/// A value without quotes that is no number, `true` or `false`.
fn bare(value: &str) -> String {
    if let Some(truth) = truth(value) {
        return format!("must be true or false: write {truth}");
    }
    if let Some(fraction) = fraction(value) {
        return format!("must be a number: write {fraction}");
    }
    "this value is not a number, true or false: write text in quotes (\"…\"), also a time span such as \"1h\""
        .to_owned()
}

fn is_number(expected: &str) -> bool {
    expected.starts_with("a number") || expected.starts_with("a whole number from")
}

/// `true` or `false` for the words of other configuration languages.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" | "y" => Some(true),
        "no" | "off" | "false" | "n" => Some(false),
        _ => None,
    }
}

/// `0.9` for `90%`.
fn fraction(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
    (percent > 0.0 && percent <= 100.0).then_some(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misplaced_key_leads_to_its_section() {
        let keys = ["guard.max_denials", "okta.oauth.client_id", "auth0.client_id"];
        let of = |name: &str| misplaced(&format!("unknown field `{name}`, expected one of `a`"), &keys);
        assert_eq!(of("max_denials").unwrap(), "`max_denials` belongs in the section [guard]");
        assert_eq!(of("client_id").unwrap(), "`client_id` belongs in the section [okta.oauth] or [auth0]");
        assert_eq!((of("max"), misplaced("duplicate key", &keys)), (None, None));
    }

    #[test]
    fn messages_name_what_to_write() {
        let number = "invalid type: string \"8\", expected a whole number from 1 to 64";
        let share = "invalid type: string \"90%\", expected a number of more than 0 and at most 1, such as 0.8";
        for (message, line, expected) in [
            (number, "concurrency = \"8\"", "must be a whole number from 1 to 64, without quotes: write 8"),
            (number, "concurrency = \"many\"", "must be a whole number from 1 to 64"),
            (share, "okta_share = \"90%\"", "must be a number of more than 0 and at most 1, such as 0.8: write 0.9"),
            (
                "invalid type: string \"no\", expected a boolean",
                "x = \"no\"",
                "must be true or false, without quotes: write false",
            ),
            ("invalid type: integer `1`, expected a boolean", "x = 1", "must be true or false: write true"),
            (
                "invalid type: string \"a\", expected a sequence",
                "x = \"a\"",
                "must be a list in brackets, such as [\"first\", \"second\"]",
            ),
            (
                "invalid type: integer `3`, expected a time span such as \"30s\" or \"7days\"",
                "x = 3",
                "must be a time span such as \"30s\" or \"7days\", in quotes",
            ),
            ("invalid type: integer `3`, expected a string", "x = 3", "must be text, in quotes"),
            ("invalid float, expected `nan`", "enforce = no # for now", "must be true or false: write false"),
            ("invalid boolean, expected `true`", "enforce = True", "must be true or false: write true"),
            ("string values must be quoted, expected literal string", "x = 90%", "must be a number: write 0.9"),
            (
                "invalid type: map, expected a boolean",
                "[[engine]]",
                "a section has its name in single brackets, such as [engine]",
            ),
            (
                "unexpected leading zero, expected nothing",
                "x = 00a",
                "this value is not a number, true or false: write text in quotes (\"…\"), also a time span such as \"1h\"",
            ),
            (
                "unexpected key or value, expected newline, `#`",
                "x = \"a\" b",
                "there is something after the value: write one key per line, and text in one pair of quotes",
            ),
            ("unclosed table, expected `]`", "[engine", "unclosed table, expected `]`"),
        ] {
            assert_eq!(plain(message, line), expected, "{message}");
        }
        let secret = plain("string values must be quoted, expected literal string", "api_token = 00canary");
        assert!(secret.contains("in quotes") && !secret.contains("00canary"), "{secret}");
    }
}
