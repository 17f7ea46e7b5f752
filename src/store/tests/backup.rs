//! Copies of the state.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn backup_is_a_usable_state() {
    let (dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let u1 = id("u1");
    let decisions = [Decision {
        cause: "event".to_owned(),
        outcome: crate::domain::DecisionOutcome::Applied,
        ..Decision::default()
    }];
    store.finish_look(LookFinish { decisions: &decisions, ..finish(&u1, 1, &Outcome::Applied) }, noon()).await.unwrap();
    let target = dir.path().join("it's a \"copy\" ü.db");
    assert_eq!(store.backup(&target).await.unwrap().rows, 1);
    assert_eq!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("db-journal")), "{names:?}");

    let before = std::fs::read(&target).unwrap();
    let again = store.backup(&target).await.unwrap_err();
    assert!(again.to_string().contains("the file already exists"), "{again}");
    assert_eq!(std::fs::read(&target).unwrap(), before);
    let nowhere = store.backup(&dir.path().join("none").join("copy.db")).await.unwrap_err();
    assert!(matches!(nowhere, StoreError::Backup { .. }) && nowhere.to_string().contains("No such file"), "{nowhere}");

    let (copy, opened) = Store::open(&target, &binding(), noon()).await.unwrap();
    assert!(!opened.created && opened.migrated_from.is_none());
    assert_eq!(copy.begin_look(&u1, noon()).await.unwrap().claimed_seq, 1);
    assert_eq!(copy.recent_events(None, 10).await.unwrap(), store.recent_events(None, 10).await.unwrap());
}

#[tokio::test]
async fn backup_needs_an_intact_decision_chain() {
    let (dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let mut writing = store.begin(Write::FinishLook).await.unwrap();
    sqlx::query("DELETE FROM addresses").execute(&mut *writing).await.unwrap();
    let target = dir.path().join("copy.db");
    store.backup(&target).await.unwrap();
    store.commit(writing).await.unwrap();
    let copy = Store::open_beside(&target, Access::Read).await.unwrap();
    assert_eq!(copy.addresses_of(&id("u1")).await.unwrap().len(), 1);

    let u1 = id("u1");
    let decisions = [Decision {
        cause: "event".to_owned(),
        outcome: crate::domain::DecisionOutcome::Applied,
        ..Decision::default()
    }];
    store.finish_look(LookFinish { decisions: &decisions, ..finish(&u1, 1, &Outcome::Applied) }, noon()).await.unwrap();
    execute(&store, "UPDATE decision_log_gate SET open = 1").await.unwrap();
    execute(&store, "UPDATE decision_log SET outcome = 'x'").await.unwrap();
    let target = dir.path().join("second.db");
    assert!(matches!(store.backup(&target).await.unwrap_err(), StoreError::Tampered(_)));
    assert!(!target.exists(), "a copy that fails verification is removed");
}

#[tokio::test]
async fn backup_missing_rows_is_rejected() {
    let (dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate"), event(2, "u2", "deactivate")]).await;
    let target = dir.path().join("copy.db");
    store.backup(&target).await.unwrap();
    let whole = store.counts(store.reader()).await.unwrap();
    assert_eq!((whole.0, whole.1, whole.2, whole.3), (2, 2, 2, 2), "{whole:?}");
    store.prove(&target, whole, whole).await.unwrap();
    let (copy, _) = Store::open(&target, &binding(), noon()).await.unwrap();
    execute(&copy, "DELETE FROM addresses WHERE user_seq = 1").await.unwrap();
    copy.close().await;
    let error = store.prove(&target, whole, whole).await.unwrap_err().to_string();
    assert!(error.contains("the copy has 1 addresses; the state had 2 before and 2 after"), "{error}");
    // The copy may or may not include changes made between the two counts.
    let earlier = (2, 2, 2, 0, 0, 0);
    store.prove(&target, earlier, whole).await.unwrap();
    store.prove(&target, whole, earlier).await.unwrap();
    let more = store.prove(&target, earlier, earlier).await.unwrap_err().to_string();
    assert!(more.contains("the copy has 1 addresses; the state had 0 before and 0 after"), "{more}");
}
