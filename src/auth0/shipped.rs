//! The Action that this program ships: its code, with the configured values filled in.

#[cfg(test)]
mod behavior;

use serde_json::Value;

/// The Action's name for the default metadata key.
pub const ACTION_NAME: &str = "okta-auth0-sync";
/// The code for the default configuration.
pub const ACTION_SOURCE: &str = include_str!("action.js");
const DEFAULT_KEY: &str = "okta_sync";
const MESSAGE: &str = "const MESSAGE = \"account_deactivated\";";
const METADATA_KEY: &str = "const METADATA_KEY = \"okta_sync\";";

/// The Action of one configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShippedAction {
    /// The name under which it is deployed.
    pub name: String,
    /// Its code.
    pub code: String,
}

impl ShippedAction {
    /// Applications receive `message` as `error_description`; `metadata_key` is the key of the mark. Each key has its own
    /// Action, so that the Actions of several installations, and those for a former and a new key, are bound side by side.
    pub fn new(message: &str, metadata_key: &str) -> Self {
        let name = match metadata_key {
            DEFAULT_KEY => ACTION_NAME.to_owned(),
            key => format!("{ACTION_NAME} {}", key.replace('_', "-")),
        };
        // Both are inserted as JSON literals, which JavaScript understands, so no text can break out of its quotes.
        let literal = |text: &str| Value::from(text).to_string();
        // The second replacement cannot match text that the first one inserted: in a literal, each quote has a backslash
        // before it.
        let code = ACTION_SOURCE.replacen(MESSAGE, &format!("const MESSAGE = {};", literal(message)), 1).replacen(
            METADATA_KEY,
            &format!("const METADATA_KEY = {};", literal(metadata_key)),
            1,
        );
        Self { name, code }
    }
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
        let action = ShippedAction::new("account_deactivated", "okta_sync");
        assert_eq!((action.name.as_str(), action.code.as_str()), ("okta-auth0-sync", ACTION_SOURCE));
        assert_eq!((ACTION_SOURCE.matches(MESSAGE).count(), ACTION_SOURCE.matches(METADATA_KEY).count()), (1, 1));
    }

    #[test]
    fn texts_stay_within_their_quotes() {
        let hostile = "\"; throw 1; // \\ const METADATA_KEY = \"okta_sync\";";
        let ShippedAction { name, code } = ShippedAction::new(hostile, "a_b");
        assert_eq!(name, "okta-auth0-sync a-b");
        let line = code.lines().find(|line| line.starts_with("const MESSAGE")).unwrap();
        let literal = line.strip_prefix("const MESSAGE = ").unwrap().strip_suffix(';').unwrap();
        assert_eq!(serde_json::from_str::<String>(literal).unwrap(), hostile);
        assert!(code.contains("const METADATA_KEY = \"a_b\";"));
        assert_eq!(code.lines().count(), ACTION_SOURCE.lines().count());
    }

    #[test]
    fn only_line_ends_may_differ() {
        assert!(is_same_code(ACTION_SOURCE, &format!("{}\r\n\r\n", ACTION_SOURCE.replace('\n', " \r\n"))));
        assert!(!is_same_code(ACTION_SOURCE, &ACTION_SOURCE.replacen("true", "yes", 1)));
        assert!(!is_same_code(ACTION_SOURCE, &ACTION_SOURCE.replacen("  api", "api", 1)));
    }
}
