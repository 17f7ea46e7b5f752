//! Schema versions and migration.

use std::fs;
use std::path::{Path, PathBuf};

use sqlx::migrate::Migrator;
use sqlx::sqlite::SqlitePool;

use super::StoreError;
use super::backup::copy_into;
use super::files::sibling;
use super::write::{COMPONENT, MIGRATE};
use crate::failpoint::{self, Phase};

/// All migrations of this version.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// The newest schema among `migrations`.
pub(super) fn known_schema(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The file's schema version; 0 for an empty file.
pub(super) async fn schema(pool: &SqlitePool, path: &Path) -> Result<i64, StoreError> {
    let error = StoreError::at(path);
    let exists: bool =
        sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_schema WHERE name = '_sqlx_migrations' AND type = 'table'")
            .fetch_one(pool)
            .await
            .map_err(error)?;
    if !exists {
        return Ok(0);
    }
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await
        .map_err(error)
}

/// Migrates the schema. Copies a state with data first; returns the copy's path.
pub(super) async fn migrate(
    pool: &SqlitePool,
    path: &Path,
    migrations: &Migrator,
) -> Result<Option<PathBuf>, StoreError> {
    let (found, known) = (schema(pool, path).await?, known_schema(migrations));
    let mut copy = None;
    if found > 0 && found < known {
        let target = sibling(path, &format!(".schema-{found}.bak"));
        // A copy from an earlier, failed attempt is older than the state: replace it.
        let _ = fs::remove_file(&target);
        copy_into(pool, path, &target).await?;
        copy = Some(target);
    }
    failpoint::pass(COMPONENT, MIGRATE, Phase::Before);
    migrations.run(pool).await.map_err(|source| StoreError::Migration {
        path: path.to_owned(),
        copy: copy.as_ref().map_or_else(|| "(none: it was empty)".to_owned(), |copy| copy.display().to_string()),
        source: Box::new(source),
    })?;
    failpoint::pass(COMPONENT, MIGRATE, Phase::After);
    Ok(copy)
}
