//! The state's files in a folder that other users can write: planted links, hard links, empty files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A closed state with a due user.
async fn closed() -> (tempfile::TempDir, PathBuf) {
    let (dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let path = store.path().to_owned();
    store.close().await;
    (dir, path)
}

async fn refused(path: &Path) -> String {
    let error = Store::open(path, &binding(), noon()).await.unwrap_err();
    assert!(error.is_configuration(), "{error}");
    error.to_string()
}

#[tokio::test]
async fn planted_lock_link_is_not_followed() {
    let (dir, path) = closed().await;
    let victim = dir.path().join("victim");
    for plant in [|to: &Path, at: &Path| symlink(to, at), |to: &Path, at: &Path| fs::hard_link(to, at)] {
        for target in [&victim, &path] {
            fs::write(&victim, "a file of another program").unwrap();
            fs::set_permissions(&victim, Permissions::from_mode(0o644)).unwrap();
            let before = fs::read(target).unwrap();
            let _ = fs::remove_file(beside(&path, ".lock"));
            plant(target, &beside(&path, ".lock")).unwrap();
            let error = refused(&path).await;
            assert!(error.contains("state.db"), "{error}");
            assert_eq!(fs::read(target).unwrap(), before, "{}", target.display());
            assert_eq!(mode(&victim), 0o644);
        }
    }
    fs::remove_file(beside(&path, ".lock")).unwrap();
    let (store, _) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1, "the state is whole");
}

#[tokio::test]
async fn planted_sibling_link_is_not_followed() {
    let (dir, path) = closed().await;
    let victim = dir.path().join("victim");
    fs::write(&victim, "a file of another program").unwrap();
    fs::set_permissions(&victim, Permissions::from_mode(0o644)).unwrap();
    for suffix in ["-wal", "-shm", "-journal"] {
        symlink(&victim, beside(&path, suffix)).unwrap();
        let error = refused(&path).await;
        assert!(error.contains(&format!("state.db{suffix}")) && error.contains("link"), "{error}");
        assert_eq!(mode(&victim), 0o644, "{suffix}");
        assert_eq!(fs::read(&victim).unwrap(), b"a file of another program");
        fs::remove_file(beside(&path, suffix)).unwrap();
    }
}

#[tokio::test]
async fn state_through_a_link_is_refused() {
    let (dir, path) = closed().await;
    let (soft, hard) = (dir.path().join("soft.db"), dir.path().join("hard.db"));
    symlink(&path, &soft).unwrap();
    let error = refused(&soft).await;
    assert!(error.contains("symbolic link") && error.contains("state.db"), "{error}");
    let error = Store::open_beside(&soft, Access::Beside).await.unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    fs::hard_link(&path, &hard).unwrap();
    for path in [&path, &hard] {
        let error = refused(path).await;
        assert!(error.contains("hard link"), "{error}");
        let error = Store::open_beside(path, Access::Beside).await.unwrap_err().to_string();
        assert!(error.contains("hard link"), "{error}");
    }
    assert!(!beside(&hard, ".lock").exists() && !beside(&soft, ".lock").exists(), "no lock file is left");
}

/// A renamed state is still the same file.
#[tokio::test]
async fn lock_follows_the_file_not_its_name() {
    let (dir, store) = store().await;
    let moved = dir.path().join("moved.db");
    fs::rename(store.path(), &moved).unwrap();
    let error = Store::open(&moved, &binding(), noon()).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
}

#[tokio::test]
async fn empty_state_is_refused_with_its_wal() {
    let (_dir, path) = closed().await;
    for wal in [None, Some("frames of the lost state")] {
        fs::write(&path, "").unwrap();
        let _ = fs::remove_file(beside(&path, "-wal"));
        if let Some(wal) = wal {
            fs::write(beside(&path, "-wal"), wal).unwrap();
        }
        let error = refused(&path).await;
        assert!(error.contains("0 bytes") && error.contains("restore a backup"), "{error}");
        let error = Store::open_beside(&path, Access::Read).await.unwrap_err().to_string();
        assert!(error.contains("0 bytes"), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0, "it is unchanged");
        assert_eq!(beside(&path, "-wal").exists(), wal.is_some(), "the WAL is unchanged");
    }
    // The state is gone, and its WAL may hold the last writes.
    fs::remove_file(&path).unwrap();
    let error = refused(&path).await;
    assert!(error.contains("state.db-wal"), "{error}");
    assert!(!path.exists());
    fs::remove_file(beside(&path, "-wal")).unwrap();
    let (store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(opened.created);
    store.close().await;
}

#[tokio::test]
async fn world_writable_folder_is_refused() {
    let (dir, path) = closed().await;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    let error = refused(&path).await;
    assert!(error.contains("chmod") && error.contains("every local user"), "{error}");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o770)).unwrap();
    let (store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(opened.group_can_write, "a group that can write the folder is a warning");
    store.close().await;
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    let (_store, opened) = Store::open(&path, &binding(), noon()).await.unwrap();
    assert!(!opened.group_can_write);
}

/// Nothing waits for a pipe that another user planted.
#[tokio::test]
async fn planted_pipe_does_not_hang() {
    let (_dir, path) = closed().await;
    let lock = beside(&path, ".lock");
    fs::remove_file(&lock).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&lock).status().unwrap().success());
    assert!(refused(&path).await.contains("not a regular file"));
    assert!(is_in_use(&path).is_err() || !is_in_use(&path).unwrap());
}

/// Each copy holds the same data as the state.
#[tokio::test]
async fn copies_beside_the_state_are_found() {
    let (dir, path) = closed().await;
    let copies = [".new", ".new-wal", ".schema-1.bak", ".schema-12.bak"].map(|suffix| beside(&path, suffix));
    let others = ["state.db.bak", "state.db.newer", "state.db.schema-x.bak", "other.db.schema-1.bak"];
    for file in copies.iter().cloned().chain(others.map(|name| dir.path().join(name))) {
        fs::write(file, "u1@example.com").unwrap();
    }
    assert_eq!(copies_of(&path).unwrap(), copies);
}
