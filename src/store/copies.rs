//! The copies of the state that this program left beside it. They hold the same personal data.

use std::fs;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::files::{NEW, folder};

/// The copies beside the state: those that a migration made, and what a process left that died while it created the state.
///
/// # Errors
/// When the folder cannot be read.
pub fn copies_of(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let place = |source| StoreError::Place { path: path.to_owned(), source };
    let Some(state) = path.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let is_copy = |name: &str| {
        let Some(rest) = name.strip_prefix(state) else { return false };
        let rest = ["-wal", "-shm", "-journal"].iter().find_map(|suffix| rest.strip_suffix(suffix)).unwrap_or(rest);
        let schema = rest.strip_prefix(".schema-").and_then(|rest| rest.strip_suffix(".bak"));
        rest == NEW || schema.is_some_and(|schema| schema.parse::<u64>().is_ok())
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path)).map_err(place)? {
        let entry = entry.map_err(place)?;
        if entry.file_name().to_str().is_some_and(is_copy) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes a copy. A link is removed, not followed.
///
/// # Errors
/// When the copy cannot be removed.
pub fn remove_copy(copy: &Path) -> Result<(), StoreError> {
    fs::remove_file(copy).map_err(|source| StoreError::Place { path: copy.to_owned(), source })
}
