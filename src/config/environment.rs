//! The environment variables that configure the program, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Prefix of the variables that set a key; the rest is the key, with `__` for each dot.
pub(super) const PREFIX: &str = "OKTA_AUTH0_SYNC__";

/// Prefix of all our variables. A variable that has it and is unknown is refused: a key with one underscore too few
/// would silently have no effect.
const FAMILY: &str = "OKTA_AUTH0_SYNC_";

/// Names the configuration file.
pub const FILE_VARIABLE: &str = "OKTA_AUTH0_SYNC_CONFIG";

/// The variables with our prefix that do not set a key.
#[cfg(not(feature = "failpoints"))]
const OTHERS: [&str; 1] = [FILE_VARIABLE];
#[cfg(feature = "failpoints")]
const OTHERS: [&str; 3] = [FILE_VARIABLE, "OKTA_AUTH0_SYNC_TEST_DIE_AT", "OKTA_AUTH0_SYNC_TEST_WEDGE"];

/// Where systemd puts a unit's credentials (`LoadCredential=`).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Environment variables of the process, or of a test.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// The directory of the credentials that systemd passes to the unit.
    pub(super) fn credentials_directory(&self) -> Option<&Path> {
        self.variables.get(CREDENTIALS_VARIABLE).filter(|value| !value.is_empty()).map(Path::new)
    }

    /// The file that [`FILE_VARIABLE`] names.
    pub(super) fn config_file(&self) -> Option<PathBuf> {
        self.variables.get(FILE_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The value of a variable without our prefix.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name)
    }

    /// The variables with our prefix, in any case, whether or not they name a key.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &OsString)> {
        let is_ours = |name: &str| {
            let prefix = name.get(..FAMILY.len()).unwrap_or_default();
            prefix.eq_ignore_ascii_case(FAMILY) && !OTHERS.contains(&name) && !is_service_link(&name[FAMILY.len()..])
        };
        self.variables.iter().filter(move |(name, _)| is_ours(name)).map(|(name, value)| (name.as_str(), value))
    }
}

/// Kubernetes sets `OKTA_AUTH0_SYNC_SERVICE_HOST`, `OKTA_AUTH0_SYNC_PORT_9465_TCP` and more in every pod beside a Service
/// called `okta-auth0-sync…`.
fn is_service_link(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('_').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    parts
        .windows(2)
        .any(|pair| matches!(pair, ["SERVICE", "HOST" | "PORT"]) || (pair[0] == "PORT" && is_number(&pair[1])))
        || parts.last() == Some(&"PORT")
}

/// The closest name in `known` to `typed`, if one is close enough.
pub(super) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const DISTANCE_MAX: usize = 3;
    let plain = |name: &str| name.to_ascii_uppercase().split('_').filter(|part| !part.is_empty()).collect::<String>();
    let typed = plain(typed);
    known
        .map(|name| (distance(&typed, &plain(name)), name))
        .filter(|(distance, _)| *distance <= DISTANCE_MAX)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The number of letters to insert, remove or replace (Levenshtein distance).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, against) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *against);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

impl<K: Into<String>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self { variables: pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl std::fmt::Debug for Environment {
    /// Names only: the values may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
