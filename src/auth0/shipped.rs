//! The Action that this program ships: its code, with the configured values filled in.

#[cfg(test)]
mod behavior;

use serde_json::Value;

/// The Action's name in the tenant, unless it was deployed under another name.
pub const ACTION_NAME: &str = "okta-auth0-sync";

/// Its code for the default configuration.
pub const ACTION_SOURCE: &str = include_str!("action.js");
const MESSAGE: &str = "const MESSAGE = \"account_deactivated\";";
const METADATA_KEY: &str = "const METADATA_KEY = \"okta_sync\";";

/// The code. Applications receive `message` as `error_description`; `metadata_key` names our object in `app_metadata`.
/// Both are inserted as JSON literals, which JavaScript understands, so no text can break out of its quotes.
pub fn action_code(message: &str, metadata_key: &str) -> String {
    let literal = |text: &str| Value::from(text).to_string();
    // The second replacement cannot match text that the first one inserted: in a literal, each quote has a backslash
    // before it.
    ACTION_SOURCE.replacen(MESSAGE, &format!("const MESSAGE = {};", literal(message)), 1).replacen(
        METADATA_KEY,
        &format!("const METADATA_KEY = {};", literal(metadata_key)),
        1,
    )
}

/// Whether both are the same code. Ignores line ends and trailing blanks, which editors and dashboards change.
pub fn is_same_code(one: &str, other: &str) -> bool {
    let lines = |code: &str| -> Vec<String> {
        let mut lines: Vec<String> = code.lines().map(|line| line.trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    };
    lines(one) == lines(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_give_the_file_as_it_is() {
        assert_eq!(action_code("account_deactivated", "okta_sync"), ACTION_SOURCE);
        assert_eq!((ACTION_SOURCE.matches(MESSAGE).count(), ACTION_SOURCE.matches(METADATA_KEY).count()), (1, 1));
    }

    #[test]
    fn texts_stay_within_their_quotes() {
        let hostile = "\"; throw 1; // \\ const METADATA_KEY = \"okta_sync\";";
        let code = action_code(hostile, "a-b");
        let line = code.lines().find(|line| line.starts_with("const MESSAGE")).unwrap();
        let literal = line.strip_prefix("const MESSAGE = ").unwrap().strip_suffix(';').unwrap();
        assert_eq!(serde_json::from_str::<String>(literal).unwrap(), hostile);
        assert!(code.contains("const METADATA_KEY = \"a-b\";"));
        assert_eq!(code.lines().count(), ACTION_SOURCE.lines().count());
    }

    #[test]
    fn only_line_ends_are_overlooked() {
        assert!(is_same_code(ACTION_SOURCE, &format!("{}\r\n\r\n", ACTION_SOURCE.replace('\n', " \r\n"))));
        assert!(!is_same_code(ACTION_SOURCE, &ACTION_SOURCE.replacen("true", "yes", 1)));
        assert!(!is_same_code(ACTION_SOURCE, &ACTION_SOURCE.replacen("  api", "api", 1)));
    }
}
