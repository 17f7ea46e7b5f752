//! The schema: the views' contract and the constraints.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Column, Connection, Executor, SqliteConnection};

use super::*;

/// The documented contract.
const CONTRACT: &str = "
status: version, okta_url, auth0_url, enforce, first_run_at, last_poll_at, last_poll_ok_at, last_apply_ok_at, last_reconcile_ok_at, cursor_moved_at, pending, failed, held, quarantined, denied, lag_p50_s, lag_p99_s, lag_max_s, oldest_pending_at, last_okta_error, last_auth0_error, needs_attention, enforcement, enforcement_checked_at, all_well
obligations: name, met, deadline_s, age_s, since, detail, remedy
pending: okta_user_id, email, reason, due_at, attempts, outcome, last_error, since
failed: okta_user_id, email, why, since, attempts, last_error
held: okta_user_id, email, why, since, attempts, last_error
skipped: okta_user_id, email, why, since, attempts, last_error
denied: okta_user_id, email, auth0_user_id, connection, denied_at, event_id, published, lag_s
recent_events: event_id, event_type, okta_user_id, login, actor, published, received_at, settled_at, outcome
decisions: at, okta_user_id, email, auth0_user_id, cause, event_id, actor, status, verdict, before, after, outcome, request_id, version
runs: kind, started_at, finished_at, ok, pages, events, looks, writes, error
unmatched: okta_user_id, email, login, status, why, since, last_look_at";

#[tokio::test]
async fn views_match_contract_during_writes() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    // An open write transaction.
    let mut writing = store.begin(Write::FinishLook).await.unwrap();
    sqlx::query("UPDATE users SET outcome = 'held', why = 'x'").execute(&mut *writing).await.unwrap();

    let options = SqliteConnectOptions::new().filename(store.path()).read_only(true);
    let mut plain = SqliteConnection::connect_with(&options).await.unwrap();
    let mut found = Vec::new();
    for line in CONTRACT.trim().lines() {
        let (view, columns) = line.split_once(": ").unwrap();
        let query = || sqlx::AssertSqlSafe(format!("SELECT * FROM {view}"));
        let described = plain.describe(sqlx::SqlSafeStr::into_sql_str(query())).await.unwrap();
        let names: Vec<&str> = described.columns().iter().map(Column::name).collect();
        assert_eq!(names.join(", "), columns, "{view}");
        sqlx::query(query()).fetch_all(&mut plain).await.unwrap();
        found.push(view);
    }
    let mut views: Vec<String> =
        sqlx::query_scalar("SELECT name FROM sqlite_schema WHERE type = 'view'").fetch_all(&mut plain).await.unwrap();
    views.sort();
    found.sort_unstable();
    assert_eq!(views, found, "every view is part of the contract");
    let (pending, held): (i64, i64) =
        sqlx::query_as("SELECT pending, held FROM status").fetch_one(&mut plain).await.unwrap();
    assert_eq!((pending, held), (1, 0), "uncommitted changes are invisible");
    store.commit(writing).await.unwrap();
    let (pending, held): (i64, i64) =
        sqlx::query_as("SELECT pending, held FROM status").fetch_one(&mut plain).await.unwrap();
    assert_eq!((pending, held), (0, 1));
    for times in
        ["SELECT first_run_at FROM status", "SELECT received_at FROM recent_events", "SELECT since FROM pending"]
    {
        for text in sqlx::query_scalar::<_, String>(times).fetch_all(&mut plain).await.unwrap() {
            assert_eq!(text, "2026-11-23T12:00:00.000Z", "{times}");
        }
    }
}

#[tokio::test]
async fn status_view_shows_lag_and_attention() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let decisions: Vec<Decision> = (1..=100)
        .map(|n| Decision {
            cause: "event".to_owned(),
            outcome: crate::domain::DecisionOutcome::Applied,
            lag_ms: Some(n * 1000),
            ..Decision::default()
        })
        .collect();
    let u1 = id("u1");
    let end = LookFinish { decisions: &decisions, ..finish(&u1, 1, &Outcome::Applied) };
    store.finish_look(end, noon()).await.unwrap();
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.lag_p50_s, status.lag_p99_s, status.lag_max_s), (Some(50.0), Some(99.0), Some(100.0)));
    assert!(!status.needs_attention);

    let refused = RemoteError { remote: "okta", kind: "forbidden", text: "E0000006", next_call_at: None };
    store.note_remote_error(refused, noon()).await.unwrap();
    let status = store.status().await.unwrap().unwrap();
    assert!(status.needs_attention);
    assert_eq!(status.last_okta_error.as_deref(), Some("E0000006"));
    store.note_remote_ok("okta", clock::add(noon(), Duration::from_millis(1))).await.unwrap();
    assert!(!store.status().await.unwrap().unwrap().needs_attention);

    let alarm = Alarm {
        momentary: false,
        kind: AlarmKind::Gap,
        subject: String::new(),
        detail: "a".to_owned(),
        remedy: "b".to_owned(),
    };
    assert!(store.raise_alarm(&alarm, noon()).await.unwrap());
    assert!(!store.raise_alarm(&alarm, noon()).await.unwrap(), "one alarm, however often");
    assert!(store.status().await.unwrap().unwrap().needs_attention);
    assert!(store.clear_alarm(AlarmKind::Gap, "", noon()).await.unwrap());
    assert!(!store.clear_alarm(AlarmKind::Gap, "", noon()).await.unwrap());
    assert!(!store.status().await.unwrap().unwrap().needs_attention);
    assert!(store.raise_alarm(&alarm, noon()).await.unwrap(), "raising it again creates a new alarm");
}

#[tokio::test]
async fn illegal_rows_are_rejected() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    // Each statement violates exactly one CHECK, key or type.
    for illegal in [
        "UPDATE users SET due_at = NULL",
        "UPDATE users SET due_at = NULL, outcome = 'snooze'",
        "UPDATE users SET due_since = NULL",
        "UPDATE users SET settled_seq = due_seq",
        "UPDATE users SET settled_seq = due_seq + 1",
        "UPDATE users SET looked_seq = due_seq + 1",
        "UPDATE users SET due_seq = -1, settled_seq = -2",
        "UPDATE users SET lane = 3",
        "UPDATE users SET cause = 'whim'",
        "UPDATE users SET outcome = 'lost'",
        "UPDATE users SET outcome = 'held', why = NULL",
        "UPDATE users SET outcome = 'failed', why = NULL",
        "UPDATE users SET outcome = 'failed', why = 'x', settled_seq = due_seq, due_since = NULL, due_at = NULL",
        "UPDATE users SET outcome = 'retry', attempts = 0",
        "UPDATE users SET outcome = 'retry', attempts = 1, settled_seq = due_seq, due_since = NULL, due_at = NULL",
        "UPDATE users SET attempts = -1",
        "UPDATE users SET recheck_step = -1",
        "UPDATE users SET approved = 2",
        "UPDATE users SET left_seen = 2",
        "UPDATE users SET login = NULL, login_key = 'ann'",
        "UPDATE users SET login = 'ann', login_key = NULL",
        "UPDATE users SET since = NULL",
        "UPDATE users SET due_seq = 'many'",
        "UPDATE users SET okta_user_id = ''",
        "INSERT INTO users (okta_user_id, cause, since) VALUES ('u1', 'event', 'now')",
        "UPDATE events SET published = NULL",
        "UPDATE events SET state = 'quarantined', why = 'x'",
        "UPDATE events SET state = 'quarantined', raw = 'x'",
        "UPDATE events SET state = 'dismissed'",
        "UPDATE events SET raw = 'x'",
        "UPDATE events SET state = 'seen'",
        "INSERT INTO events (event_id, event_type, published, received_at, state) VALUES ('event-1', 't', 'p', 'r', 'recorded')",
        "UPDATE event_users SET settled_at = 'now'",
        "UPDATE event_users SET outcome = 'applied'",
        "UPDATE event_users SET due_seq = -1",
        "INSERT INTO event_users (event_seq, user_seq, due_seq) VALUES (99, 1, 1)",
        "UPDATE event_users SET user_seq = 99",
        "INSERT INTO checkpoint VALUES (2, 1, NULL, 'f', 'a', 'm')",
        "UPDATE checkpoint SET seq = 0",
        "UPDATE checkpoint SET next = 'https://evil.example/api/v1/logs?after=1'",
        "INSERT INTO addresses VALUES (99, 'a@b', 'a@b', 'now', NULL)",
        "INSERT INTO addresses VALUES (1, 'ab', 'ab', 'now', NULL)",
        "INSERT INTO accounts (auth0_user_id, okta_user_id, denied, changed_at) VALUES ('a', 'u9', 0, 'now')",
        "INSERT INTO accounts (auth0_user_id, okta_user_id, denied, changed_at) VALUES ('a', 'u1', 1, 'now')",
        "INSERT INTO accounts (auth0_user_id, okta_user_id, denied, blocked, changed_at) VALUES ('a', 'u1', 0, 1, 'now')",
        "INSERT INTO accounts (auth0_user_id, okta_user_id, denied, changed_at) VALUES ('a', 'u1', 2, 'now')",
        "INSERT INTO decision_log (at, cause, outcome, version, policy, digest, chain) VALUES ('a', 'c', 'o', 'v', 'p', x'00', zeroblob(32))",
        "INSERT INTO decision_log (at, cause, verdict, outcome, version, policy, digest, chain) VALUES ('a', 'c', 'maybe', 'o', 'v', 'p', zeroblob(32), zeroblob(32))",
        "INSERT INTO decision_log_gate VALUES (2, 1)",
        "INSERT INTO decision_log_root VALUES (2, 0, zeroblob(32))",
        "UPDATE decision_log_root SET chain = x'00'",
        "INSERT INTO first_denials VALUES ('u1', 'now', 2)",
        "INSERT INTO run_log (kind, started_at) VALUES ('walk', 'now')",
        "INSERT INTO run_log (kind, started_at, finished_at) VALUES ('run', 'now', 'now')",
        "INSERT INTO run_log (kind, started_at, ok) VALUES ('run', 'now', 1)",
        "INSERT INTO remotes (remote) VALUES ('github')",
        "UPDATE remotes SET error_at = 'now'",
        "INSERT INTO installation SELECT 2, okta_url, okta_org_id, auth0_url, auth0_audience, enforce, policy, swept_policy, seq_floor, version, first_run_at, first_poll_at, last_poll_at, last_poll_ok_at, last_apply_ok_at, last_reconcile_ok_at, enforcement, enforcement_checked_at, NULL, NULL, 0 FROM installation",
        "UPDATE installation SET enforcement = 'perhaps', enforcement_checked_at = 'now'",
        "UPDATE installation SET enforcement = 'missing'",
        "UPDATE installation SET enforce = 2",
        "INSERT INTO sweep (id, scope, reason, stage, started_at) VALUES (2, 'all', 'r', 's', 'now')",
    ] {
        let mut tx = store.begin(Write::FinishLook).await.unwrap();
        let error = sqlx::query(illegal).execute(&mut *tx).await.expect_err(illegal);
        assert!(
            error.to_string().contains("constraint") || error.to_string().contains("cannot store"),
            "{illegal}: {error}"
        );
        drop(tx);
    }
    execute(
        &store,
        "INSERT INTO alarms (kind, subject, detail, remedy, raised_at) VALUES ('gap', '', 'd', 'r', 'now')",
    )
    .await
    .unwrap();
    execute(
        &store,
        "INSERT INTO alarms (kind, subject, detail, remedy, raised_at) VALUES ('gap', '', 'd', 'r', 'now')",
    )
    .await
    .unwrap_err();
}
