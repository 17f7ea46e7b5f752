//! The environment variables that configure us, read once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Prefix of the variables that set a key; the rest is the key, with `__` for each dot.
pub(super) const PREFIX: &str = "OKTA_AUTH0_SYNC__";

/// Names the configuration file.
pub const FILE_VARIABLE: &str = "OKTA_AUTH0_SYNC_CONFIG";

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

    /// The value of a variable that is not one of ours.
    pub(super) fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name)
    }

    /// The variables with our prefix, whether or not they name a key.
    pub(super) fn settings(&self) -> impl Iterator<Item = (&str, &OsString)> {
        self.variables.iter().filter(|(name, _)| name.starts_with(PREFIX)).map(|(name, value)| (name.as_str(), value))
    }
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
