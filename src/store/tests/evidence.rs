//! The decision log, retention and `forget`.

use super::*;

#[tokio::test]
async fn decisions_are_append_only() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "deactivate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let decisions: Vec<Decision> = (0..3)
        .map(|n| Decision {
            okta_user_id: Some("u1".to_owned()),
            cause: "event".to_owned(),
            auth0_user_id: Some(format!("auth0|{n}")),
            outcome: crate::domain::DecisionOutcome::Applied,
            lag_ms: Some(n),
            ..Decision::default()
        })
        .collect();
    let end = LookFinish { decisions: &decisions, ..finish(&look.id, look.claimed_seq, &Outcome::Applied) };
    store.finish_look(end, noon()).await.unwrap();
    assert_eq!(store.verify_decisions().await.unwrap().rows, 3);
    for tampering in ["UPDATE decision_log SET outcome = 'x' WHERE id = 2", "DELETE FROM decision_log WHERE id = 2"] {
        assert!(
            sqlx::query(tampering).execute(store.writer()).await.unwrap_err().to_string().contains("only appended")
        );
    }
    sqlx::query("UPDATE decision_log_gate SET open = 1").execute(store.writer()).await.unwrap();
    sqlx::query("UPDATE decision_log SET outcome = 'x' WHERE id = 2").execute(store.writer()).await.unwrap();
    assert!(store.verify_decisions().await.unwrap_err().to_string().contains("row 2"));
    sqlx::query("DELETE FROM decision_log WHERE id = 2").execute(store.writer()).await.unwrap();
    assert!(store.verify_decisions().await.unwrap_err().to_string().contains("row 3"));
    let status = store.status().await.unwrap().unwrap();
    assert_eq!(status.lag_max_s, Some(0.002));
}

fn decision(user: &str, n: i64) -> Decision {
    Decision {
        okta_user_id: Some(user.to_owned()),
        email: Some(format!("{user}@example.com")),
        auth0_user_id: Some(format!("auth0|{user}")),
        cause: "event".to_owned(),
        event_id: Some(format!("event-of-{user}")),
        actor: Some(format!("{user}@example.com")),
        outcome: crate::domain::DecisionOutcome::Applied,
        why: Some(format!("{user}@example.com left")),
        lag_ms: Some(n),
        ..Decision::default()
    }
}

#[tokio::test]
async fn missing_first_or_last_decision_is_detected() {
    for (taking, told) in [
        ("DELETE FROM decision_log WHERE id = 1", "row 2"),
        ("DELETE FROM decision_log WHERE id = 3", "rows 3 to 3"),
        ("DELETE FROM decision_log", "rows 1 to 3"),
        ("UPDATE decision_log SET lag_ms = NULL WHERE id = 3", "row 3"),
    ] {
        let (_dir, store) = store().await;
        record_events(&store, &[event(1, "u1", "deactivate")]).await;
        let decisions: Vec<Decision> = (0..3).map(|n| decision("u1", n)).collect();
        let u1 = id("u1");
        let end = LookFinish { decisions: &decisions, ..finish(&u1, 1, &Outcome::Applied) };
        store.finish_look(end, noon()).await.unwrap();
        execute(&store, "UPDATE decision_log_gate SET open = 1").await.unwrap();
        execute(&store, taking).await.unwrap();
        let error = store.verify_decisions().await.unwrap_err().to_string();
        assert!(error.contains(told), "{taking}: {error}");
    }
}

#[tokio::test]
async fn retention_keeps_the_chain_verifiable() {
    let (_dir, store) = store().await;
    let u1 = id("u1");
    let day = |n: u64| clock::add(noon(), Duration::from_secs(n * 86_400));
    for n in 0..10_u32 {
        let seq = i64::from(n);
        let events = [event(n, "u1", "deactivate"), event(100 + n, "u2", "create")];
        store.record_page(page(seq, &events), day(n.into())).await.unwrap();
        let decisions = [decision("u1", seq)];
        let end = LookFinish { decisions: &decisions, ..finish(&u1, seq + 1, &Outcome::Applied) };
        store.finish_look(end, day(n.into())).await.unwrap();
        let run = store.begin_run(RunKind::Poll, day(n.into())).await.unwrap();
        store.finish_run(run, RunCounts::default(), None, day(n.into())).await.unwrap();
    }
    // An unsettled event of the first day.
    store.record_page(page(10, &[event(50, "u3", "deactivate")]), day(0)).await.unwrap();
    let alarm = |subject: &str| Alarm {
        momentary: false,
        kind: AlarmKind::Restored,
        subject: subject.to_owned(),
        detail: "it was".to_owned(),
        remedy: "look".to_owned(),
    };
    for subject in ["over", "open"] {
        store.raise_alarm(&alarm(subject), day(0)).await.unwrap();
    }
    store.clear_alarm(AlarmKind::Restored, "over", day(1)).await.unwrap();
    let mut steps = 0;
    let mut gone = 0;
    loop {
        let rows = store.expire(day(5), 2, day(10)).await.unwrap();
        assert!(rows <= 8, "at most two of each kind");
        assert_eq!(store.verify_decisions().await.unwrap().forgotten, 0);
        if rows == 0 {
            break;
        }
        (steps, gone) = (steps + 1, gone + rows);
    }
    assert_eq!((steps, gone), (5, 10 + 5 + 5 + 1), "ten events, five decisions, five runs, the cleared alarm");
    assert_eq!(store.open_alarms().await.unwrap().len(), 1, "open alarms stay");
    assert_eq!(store.verify_decisions().await.unwrap().rows, 5 + 3, "and a record of each removal");
    assert_eq!(store.due(day(5), 10).await.unwrap(), [DueUser { id: id("u3"), lane: Lane::Deactivation }]);
    assert!(store.recent_events(None, 100).await.unwrap().iter().any(|row| row.event_id == "event-50"));
    store.expire(Timestamp::MAX, 100, day(10)).await.unwrap();
    assert_eq!(store.verify_decisions().await.unwrap(), Verified { rows: 4, ..Verified::default() });
    record_events(&store, &[event(60, "u1", "deactivate")]).await;
    let claimed = store.begin_look(&u1, day(11)).await.unwrap().claimed_seq;
    let decisions = [decision("u1", 1)];
    let end = LookFinish { decisions: &decisions, ..finish(&u1, claimed, &Outcome::Applied) };
    store.finish_look(end, day(11)).await.unwrap();
    assert_eq!(store.verify_decisions().await.unwrap().rows, 5, "the chain continues from its root");
}

/// Stores a user with every kind of data. Ids and addresses begin with `name`.
pub(super) async fn add_user_with_history(store: &Store, n: u32, name: &str, denied: bool) {
    let user = id(name);
    let mut entry = event(n, name, "deactivate");
    entry.id = format!("event-of-{name}");
    entry.actor = Some(format!("{name}@example.com"));
    record_events(store, &[entry]).await;
    let address = crate::domain::Address::parse(&format!("{name}.Second@example.com"));
    let read = UserRead {
        login: Some(format!("{name}-login")),
        email: address.clone(),
        status: Status::Deprovisioned,
        addresses: address.iter().cloned().collect(),
        address_hidden: false,
    };
    let guard = GuardWindow { denials_max: u64::MAX.into(), span: Duration::from_secs(3600) };
    let denial = Denial { user: &user, read: &read, reconcile: false, approved: false, intent: None };
    store.prepare_denial(denial, guard, noon()).await.unwrap();
    let accounts = [AccountChange {
        email: address,
        connection: Some("db".to_owned()),
        event_id: Some(format!("event-of-{name}")),
        ..account(&format!("auth0|{name}"), denied)
    }];
    let alarms = [Alarm {
        momentary: false,
        kind: AlarmKind::Restored,
        subject: format!("auth0|{name}"),
        detail: format!("{name}@example.com was opened"),
        remedy: "look".to_owned(),
    }];
    let decisions = [decision(name, 1)];
    let claimed = store.begin_look(&user, noon()).await.unwrap().claimed_seq;
    let end = LookFinish {
        read: Some(&read),
        accounts: &accounts,
        alarms: &alarms,
        decisions: &decisions,
        ..finish(&user, claimed, &Outcome::Applied)
    };
    store.finish_look(end, noon()).await.unwrap();
}

fn occurs_in_files(dir: &std::path::Path, needle: &str) -> bool {
    std::fs::read_dir(dir).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
    })
}

#[tokio::test]
async fn forget_leaves_no_byte_in_the_files() {
    let (dir, store) = store().await;
    // Other users before and after in every index, so that SQLite splits pages and moves rows.
    for n in 0..60 {
        add_user_with_history(&store, n, &format!("other{n}"), true).await;
    }
    add_user_with_history(&store, 1000, "other5anna", false).await;
    let raw = QuarantinedEvent {
        event_id: "q".to_owned(),
        event_type: None,
        published: None,
        raw: "{\"target\": \"other5anna@example.com\"}".to_owned(),
        why: "x".to_owned(),
    };
    let seq = store.checkpoint().await.unwrap().unwrap().seq;
    store.record_page(Page { quarantined: &[raw], ..page(seq, &[]) }, noon()).await.unwrap();
    let said = RemoteError { remote: "okta", kind: "x", text: "GET /api/v1/users/other5anna: 500", next_call_at: None };
    store.note_remote_error(said, noon()).await.unwrap();
    for n in 60..120 {
        add_user_with_history(&store, n, &format!("other{n}"), true).await;
    }
    assert!(occurs_in_files(dir.path(), "anna"));
    store.forget(&id("other5anna"), "ops@example.com", "p", noon()).await.unwrap();
    let last = store.decisions(None, None, 0, 1000).await.unwrap().pop().unwrap();
    assert_eq!(
        (last.outcome.as_str(), last.cause.as_str(), last.actor.as_deref(), last.okta_user_id),
        ("forgotten", "command", Some("ops@example.com"), None),
        "the log shows that a user was forgotten and by whom, but not which user"
    );
    store.compact().await.unwrap();
    assert!(!occurs_in_files(dir.path(), "anna"));
    assert!(occurs_in_files(dir.path(), "other7@example.com"));
    assert_eq!(store.verify_decisions().await.unwrap(), Verified { rows: 121, forgotten: 1, unproven: 0 });
    assert_eq!(store.find_users("other5anna").await.unwrap(), []);
    assert!(matches!(
        store.forget(&id("other5anna"), "command", "p", noon()).await.unwrap_err(),
        StoreError::Gone { .. }
    ));
    store.close().await;
    assert!(!occurs_in_files(dir.path(), "anna"));
}

#[tokio::test]
async fn forgotten_users_mark_is_found_by_id() {
    let (_dir, store) = store().await;
    add_user_with_history(&store, 1, "anna", true).await;
    store.forget(&id("anna"), "command", "p", noon()).await.unwrap();
    let row = user_row(&store, "anna").await;
    assert_eq!((row.login, row.email), (None, None));
    let accounts = store.accounts_of(&id("anna")).await.unwrap();
    assert_eq!((accounts.len(), accounts[0].email.as_deref(), accounts[0].denied), (1, None, true));
    assert_eq!(store.addresses_of(&id("anna")).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.recent_events(None, 10).await.unwrap(), []);
    assert_eq!(store.verify_decisions().await.unwrap(), Verified { rows: 1, forgotten: 1, unproven: 0 });
}

#[tokio::test]
async fn forget_keeps_events_of_other_users() {
    let (_dir, store) = store().await;
    let mut both = event(1, "anna", "deactivate");
    both.users.push(EventUser { id: id("ben"), login: None });
    record_events(&store, &[both]).await;
    look_at(&store, "anna", &Outcome::NoAccount, noon()).await;
    store.forget(&id("anna"), "command", "p", noon()).await.unwrap();
    let rows = store.recent_events(None, 10).await.unwrap();
    assert_eq!((rows.len(), rows[0].okta_user_id.as_deref(), rows[0].outcome.as_str()), (1, Some("ben"), "pending"));
}

#[tokio::test]
async fn look_overtaken_by_forget_stores_nothing() {
    for denied in [false, true] {
        let (_dir, store) = store().await;
        add_user_with_history(&store, 1, "anna", denied).await;
        let look = store.begin_look(&id("anna"), noon()).await.unwrap();
        store.forget(&id("anna"), "command", "p", noon()).await.unwrap();
        let read = UserRead {
            login: Some("anna".to_owned()),
            email: None,
            status: Status::Active,
            addresses: crate::domain::Address::parse("anna@example.com").into_iter().collect(),
            address_hidden: false,
        };
        let end = || LookFinish { read: Some(&read), ..finish(&look.id, look.claimed_seq, &Outcome::Applied) };
        assert!(matches!(store.finish_look(end(), noon()).await.unwrap_err(), StoreError::Gone { .. }));
        // Nor when the user is known again by then.
        let later = clock::add(noon(), Duration::from_secs(1));
        record_events(&store, &[Event { published: later, ..event(2, "anna", "activate") }]).await;
        assert!(matches!(store.finish_look(end(), noon()).await.unwrap_err(), StoreError::Gone { .. }));
        assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
        assert!(user_row(&store, "anna").await.open);
        look_at(&store, "anna", &Outcome::Unchanged, noon()).await;
        assert_eq!(store.due(noon(), 10).await.unwrap(), []);
    }
}

#[tokio::test]
async fn overtaken_look_ignores_readopted_user() {
    let (_dir, store) = store().await;
    add_user_with_history(&store, 1, "anna", false).await;
    let look = store.begin_look(&id("anna"), noon()).await.unwrap();
    store.forget(&id("anna"), "command", "p", noon()).await.unwrap();
    // A reconcile finds the remaining mark and makes its user due.
    assert!(
        store
            .adopt_account(&id("anna"), &crate::domain::AccountId::new("auth0|anna"), None, noon(), noon())
            .await
            .unwrap()
    );
    store.queue_for_reconcile(&[id("anna")], noon()).await.unwrap();
    let end = finish(&look.id, look.claimed_seq, &Outcome::Applied);
    assert!(matches!(store.finish_look(end, noon()).await.unwrap_err(), StoreError::Gone { .. }));
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
}
