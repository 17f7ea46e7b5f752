//! What `forget` leaves, and that nothing brings it back.

use super::evidence::add_user_with_history;
use super::*;
use crate::domain::{Address, OktaUser};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn listed(name: &str) -> OktaUser {
    OktaUser {
        id: id(name),
        login: format!("{name}@example.com"),
        email: Some(address(&format!("{name}@example.com"))),
        status: Status::Deprovisioned,
        transitional: false,
    }
}

fn read_of(name: &str, status: Status) -> UserRead {
    UserRead {
        login: Some(format!("{name}@example.com")),
        email: Some(address(&format!("{name}@example.com"))),
        status,
        addresses: vec![address(&format!("{name}@example.com"))],
        address_hidden: false,
    }
}

async fn forget(store: &Store, name: &str) {
    store.forget(&id(name), "command (tests)", "p", noon()).await.unwrap();
}

/// Every place of the file in which the text occurs as a value.
async fn occurrences(store: &Store, needle: &str) -> i64 {
    let mut found = 0;
    for (table, columns) in [
        ("users", "concat_ws(' ', login, login_key, email, why, last_error)"),
        ("addresses", "address"),
        ("accounts", "email"),
        ("events", "concat_ws(' ', actor, raw)"),
        ("event_users", "login"),
        ("decision_log", "concat_ws(' ', email, actor, why)"),
    ] {
        let sql = format!("SELECT count(*) FROM {table} WHERE instr({columns}, ?)");
        let count: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(needle).fetch_one(store.reader()).await.unwrap();
        found += count;
    }
    found
}

#[tokio::test]
async fn directory_does_not_record_a_forgotten_user() {
    for denied in [false, true] {
        let (_dir, store) = store().await;
        add_user_with_history(&store, 1, "anna", denied).await;
        forget(&store, "anna").await;
        store.begin_directory(noon()).await.unwrap();
        store.record_directory_page(&[listed("anna"), listed("ben")], None, noon()).await.unwrap();
        assert_eq!(occurrences(&store, "anna").await, 0, "denied: {denied}");
        assert_eq!(store.find_users("ben@example.com").await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn look_at_a_forgotten_user_stores_no_name() {
    let (_dir, store) = store().await;
    add_user_with_history(&store, 1, "anna", true).await;
    forget(&store, "anna").await;
    store.queue_for_reconcile(&[id("anna")], noon()).await.unwrap();
    let look = store.begin_look(&id("anna"), noon()).await.unwrap();
    let read = read_of("anna", Status::Deprovisioned);
    let decisions = [Decision {
        okta_user_id: Some("anna".to_owned()),
        email: Some("anna@example.com".to_owned()),
        cause: "sweep".to_owned(),
        ..Decision::default()
    }];
    let accounts = [AccountChange { email: Some(address("anna@example.com")), ..account("auth0|anna", true) }];
    let end = LookFinish {
        read: Some(&read),
        decisions: &decisions,
        accounts: &accounts,
        ..finish(&look.id, look.claimed_seq, &Outcome::Unchanged)
    };
    store.finish_look(end, noon()).await.unwrap();
    assert_eq!(occurrences(&store, "anna@example.com").await, 0);
    let accounts = store.accounts_of(&id("anna")).await.unwrap();
    assert_eq!((accounts.len(), accounts[0].denied), (1, true), "the mark stays");
}

#[tokio::test]
async fn forget_ends_rechecks() {
    for denied in [false, true] {
        let (_dir, store) = store().await;
        add_user_with_history(&store, 1, "anna", denied).await;
        store.queue_for_reconcile(&[id("anna")], noon()).await.unwrap();
        let look = store.begin_look(&id("anna"), noon()).await.unwrap();
        let end = LookFinish {
            conclusion: again_at(Some(noon())),
            ..finish(&look.id, look.claimed_seq, &Outcome::Unchanged)
        };
        store.finish_look(end, noon()).await.unwrap();
        assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
        forget(&store, "anna").await;
        assert_eq!(store.due(noon(), 10).await.unwrap(), [], "denied: {denied}");
    }
}

#[tokio::test]
async fn forget_removes_the_actor_of_other_events() {
    let (_dir, store) = store().await;
    add_user_with_history(&store, 1, "anna", false).await;
    let mut by_anna = event(2, "ben", "deactivate");
    by_anna.actor = Some("Anna@Example.com".to_owned());
    record_events(&store, &[by_anna]).await;
    let look = store.begin_look(&id("ben"), noon()).await.unwrap();
    let decisions = [Decision {
        okta_user_id: Some("ben".to_owned()),
        cause: "event".to_owned(),
        actor: Some("Anna@Example.com".to_owned()),
        ..Decision::default()
    }];
    let end = LookFinish { decisions: &decisions, ..finish(&look.id, look.claimed_seq, &Outcome::Unchanged) };
    store.finish_look(end, noon()).await.unwrap();
    forget(&store, "anna").await;
    assert_eq!(occurrences(&store, "Anna").await, 0);
    let rows = store.decisions(Some(&id("ben")), None, 0, 10).await.unwrap();
    assert_eq!(rows.len(), 1, "the decision about the other user stays");
    store.verify_decisions().await.unwrap();
}

/// Three decisions about three users, the second one forgotten.
async fn log_with_a_forgotten_row() -> (tempfile::TempDir, Store) {
    let (dir, store) = store().await;
    for (n, name) in (1..).zip(["ann", "ben", "cay"]) {
        add_user_with_history(&store, n, name, false).await;
    }
    store.verify_decisions().await.unwrap();
    (dir, store)
}

async fn tamper(store: &Store, sql: &'static str) {
    execute(store, "UPDATE decision_log_gate SET open = 1").await.unwrap();
    execute(store, sql).await.unwrap();
}

#[tokio::test]
async fn forged_redaction_does_not_verify() {
    for forged in [
        "UPDATE decision_log SET forgotten_at = '2026-11-23T12:00:00.000Z' , outcome = 'skipped' WHERE id = 2",
        "UPDATE decision_log SET forgotten_at = '2026-11-23T12:00:00.000Z' , okta_user_id = 'other' WHERE id = 2",
        "UPDATE decision_log SET forgotten_at = '2026-11-23T12:00:00.000Z' , okta_user_id = NULL, email = NULL,
             auth0_user_id = NULL, actor = NULL, event_id = NULL, why = NULL, request_id = NULL WHERE id = 2",
    ] {
        let (_dir, store) = log_with_a_forgotten_row().await;
        tamper(&store, forged).await;
        let verified = store.verify_decisions().await;
        assert!(verified.is_err_and(|error| error.to_string().contains("row 2")), "{forged}");
    }
}

#[tokio::test]
async fn forgotten_row_proves_its_other_fields() {
    for changed in [
        "UPDATE decision_log SET outcome = 'skipped' WHERE id = 2",
        "UPDATE decision_log SET at = '2026-11-24T12:00:00.000Z' WHERE id = 2",
        "UPDATE decision_log SET okta_user_id = 'other' WHERE id = 2",
    ] {
        let (_dir, store) = log_with_a_forgotten_row().await;
        forget(&store, "ben").await;
        store.verify_decisions().await.unwrap();
        tamper(&store, changed).await;
        let verified = store.verify_decisions().await;
        assert!(verified.is_err_and(|error| error.to_string().contains("row 2")), "{changed}");
    }
}

#[tokio::test]
async fn log_cut_at_its_start_does_not_verify() {
    let (_dir, store) = log_with_a_forgotten_row().await;
    tamper(&store, "UPDATE decision_log_root SET last = 2, chain = (SELECT chain FROM decision_log WHERE id = 2)")
        .await;
    tamper(&store, "DELETE FROM decision_log WHERE id <= 2").await;
    let verified = store.verify_decisions().await;
    assert!(verified.as_ref().is_err_and(|error| error.to_string().contains("begins at row 3")), "{verified:?}");
}

#[tokio::test]
async fn unfinished_denial_is_not_forgotten() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "anna", "deactivate")]).await;
    let refused = store.forget(&id("anna"), "command", "p", noon()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unfinished(_)), "{refused}");
    assert!(occurrences(&store, "anna").await > 0, "nothing was deleted");
    look_at(&store, "anna", &Outcome::NoAccount, noon()).await;
    forget(&store, "anna").await;
    assert_eq!(store.find_users("anna").await.unwrap(), []);
}

#[tokio::test]
async fn only_news_ends_a_tombstone() {
    let later = |kind: &str, n: u32| {
        let published = clock::add(noon(), Duration::from_secs(60));
        Event { published, event_type: kind.to_owned(), ..event(n, "anna", "deactivate") }
    };
    for (entry, ends) in [
        (event(1, "anna", "deactivate"), false),
        (later("user.account.update_profile", 2), false),
        (later("user.lifecycle.deactivate", 3), true),
        (later("user.lifecycle.reactivate", 4), true),
        (later("user.lifecycle.suspend", 5), true),
    ] {
        let (_dir, store) = store().await;
        record_events(&store, &[event(1, "anna", "deactivate")]).await;
        look_at(&store, "anna", &Outcome::NoAccount, noon()).await;
        forget(&store, "anna").await;
        record_events(&store, std::slice::from_ref(&entry)).await;
        assert_eq!(!store.find_users("anna").await.unwrap().is_empty(), ends, "{entry:?}");
        assert_eq!(!store.due(noon(), 10).await.unwrap().is_empty(), ends, "{entry:?}");
        store.record_directory_page(&[listed("anna")], None, noon()).await.unwrap();
        assert_eq!(!store.find_users("anna@example.com").await.unwrap().is_empty(), ends, "{entry:?}");
    }
}

#[tokio::test]
async fn tombstones_end_with_the_retention() {
    let (_dir, store) = store().await;
    add_user_with_history(&store, 1, "anna", false).await;
    forget(&store, "anna").await;
    let day = |n: u64| clock::add(noon(), Duration::from_secs(n * 86_400));
    for (before, known) in [(noon(), 0), (day(1), 1)] {
        while store.expire(before, 100, day(400)).await.unwrap() > 0 {}
        store.record_directory_page(&[listed("anna")], None, noon()).await.unwrap();
        assert_eq!(store.find_users("anna@example.com").await.unwrap().len(), known);
    }
    store.verify_decisions().await.unwrap();
}
