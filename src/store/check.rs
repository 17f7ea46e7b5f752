//! Finds out whether [`Store::open`] would accept a state, without changing anything.

use std::fs;
use std::io;
use std::path::Path;

use super::connect::{connect, reading};
use super::files::{check_folder, folder, require_log_of_state, require_plain};
use super::migrate::{MIGRATIONS, known_schema, schema};
use super::open::{Binding, inspect_with, require_present};
use super::{Store, StoreError};

/// What [`Store::check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckedState {
    /// The state exists.
    pub exists: bool,
    /// A group can write the folder.
    pub group_can_write: bool,
    /// The schema that the next start migrates, with the one of this version.
    pub migrates: Option<(i64, i64)>,
    /// The org that the state belongs to.
    pub org_id: Option<String>,
}

impl Store {
    /// Checks what [`Store::open`] checks, as far as that is possible beside a running daemon.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub async fn check(path: &Path, binding: &Binding) -> Result<CheckedState, StoreError> {
        require_plain(path)?;
        let group_can_write = check_folder(path)?;
        require_writable(path)?;
        if matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound) {
            require_log_of_state(path)?;
            return Ok(CheckedState { group_can_write, ..CheckedState::default() });
        }
        require_present(path)?;
        let pool = connect(path, reading(path), 1).await?;
        let checked = async {
            let org_id = inspect_with(&pool, path, binding, &MIGRATIONS).await?;
            let (found, known) = (schema(&pool, path).await?, known_schema(&MIGRATIONS));
            let migrates = (found < known).then_some((found, known));
            Ok(CheckedState { exists: true, group_can_write, migrates, org_id })
        }
        .await;
        pool.close().await;
        checked
    }
}

/// Refuses a folder in which this user cannot create the lock and SQLite's files.
fn require_writable(path: &Path) -> Result<(), StoreError> {
    use rustix::fs::{Access, access};
    access(folder(path), Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| StoreError::Place { path: path.to_owned(), source: error.into() })
}
