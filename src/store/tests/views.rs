//! Queries beside the SQL views.

use super::*;

#[tokio::test]
async fn org_id_is_known_once_bound() {
    let (_dir, store) = store().await;
    assert_eq!(store.okta_org().await.unwrap(), None);
    store.bind_org("00o1").await.unwrap();
    assert_eq!(store.okta_org().await.unwrap().as_deref(), Some("00o1"));
}

#[tokio::test]
async fn remote_fails_until_later_answer() {
    let (_dir, store) = store().await;
    let failing = async || {
        let remotes = store.remotes().await.unwrap();
        assert_eq!(remotes.iter().map(|row| row.remote.as_str()).collect::<Vec<_>>(), ["okta", "auth0"]);
        remotes.iter().map(RemoteRow::is_failing).collect::<Vec<_>>()
    };
    assert_eq!(failing().await, [false, false]);
    let error = RemoteError { remote: "auth0", kind: "timed out", text: "no answer", next_call_at: None };
    store.note_remote_error(error, noon()).await.unwrap();
    assert_eq!(failing().await, [false, true]);
    // An answer within the same millisecond counts too.
    store.note_remote_ok("auth0", noon()).await.unwrap();
    assert_eq!(failing().await, [false, false]);
    store.note_remote_error(error, clock::add(noon(), Duration::from_millis(1))).await.unwrap();
    assert_eq!(failing().await, [false, true]);
}

#[tokio::test]
async fn poll_attempt_is_recorded() {
    let (_dir, store) = store().await;
    store.note_poll(noon()).await.unwrap();
    let status = store.status().await.unwrap().unwrap();
    assert_eq!(status.last_poll_at, Some(crate::domain::timestamp_text(noon())));
}

#[tokio::test]
async fn quarantined_entries_keep_their_text() {
    let (_dir, store) = store().await;
    let unreadable: Vec<QuarantinedEvent> = ["x", "y"]
        .map(|event_id| QuarantinedEvent {
            event_id: event_id.to_owned(),
            event_type: None,
            published: None,
            raw: format!("{{\"uuid\":\"{event_id}\"}}"),
            why: "no target".to_owned(),
        })
        .into();
    store.record_page(Page { quarantined: &unreadable, ..page(0, &[]) }, noon()).await.unwrap();
    let rows = store.quarantined(10).await.unwrap();
    let told: Vec<(&str, &str)> = rows.iter().map(|row| (row.event_id.as_str(), row.raw.as_str())).collect();
    assert_eq!(told, [("y", "{\"uuid\":\"y\"}"), ("x", "{\"uuid\":\"x\"}")], "newest first");
    assert_eq!(store.quarantined(1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn last_chain_and_oldest_decision_are_reported() {
    let (_dir, store) = store().await;
    let (none, root) = store.last_chain().await.unwrap();
    assert_eq!((none, store.kept_decisions().await.unwrap()), (0, KeptDecisions { expired: 0, oldest_at: None }));
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let decision =
        Decision { cause: "event".to_owned(), outcome: crate::domain::DecisionOutcome::Applied, ..Decision::default() };
    let (u1, decisions) = (id("u1"), [decision.clone(), decision]);
    let end = LookFinish { decisions: &decisions, ..finish(&u1, 1, &Outcome::Applied) };
    store.finish_look(end, noon()).await.unwrap();
    let (last, chain) = store.last_chain().await.unwrap();
    assert_eq!(last, 2);
    assert!(chain.len() == 64 && chain != root, "the chain value is a new digest: {chain}");
    let noon_text = Some(crate::domain::timestamp_text(noon()));
    assert_eq!(store.kept_decisions().await.unwrap(), KeptDecisions { expired: 0, oldest_at: noon_text });
    while store.expire(Timestamp::MAX, 1, noon()).await.unwrap() > 0 {}
    assert_eq!(store.kept_decisions().await.unwrap(), KeptDecisions { expired: 2, oldest_at: None });
    let records = store.decisions(None, None, 0, 10).await.unwrap();
    let noted = format!("removed the decisions up to row 2, chain {chain}");
    assert!(records.iter().any(|record| record.why.as_ref() == Some(&noted)), "a value noted elsewhere is still found");
}

#[tokio::test]
async fn users_are_listed_by_outcome_longest_first() {
    let (_dir, store) = store().await;
    let events: Vec<Event> = (1..=3).map(|number| event(number, &format!("u{number}"), "deactivate")).collect();
    record_events(&store, &events).await;
    let later = clock::add(noon(), Duration::from_secs(1));
    look_at(&store, "u2", &Outcome::NoAccount, noon()).await;
    look_at(&store, "u1", &Outcome::NoAccount, later).await;
    look_at(&store, "u3", &Outcome::Applied, noon()).await;
    let ids = async |limit| {
        let users = store.users_with_outcome(crate::domain::OutcomeKind::NoAccount, limit).await.unwrap();
        users.into_iter().map(|row| row.okta_user_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(10).await, ["u2", "u1"]);
    assert_eq!(ids(1).await, ["u2"]);
}

#[tokio::test]
async fn enabling_enforcement_queues_skipped_users() {
    let (_dir, store) = store().await;
    let events: Vec<Event> = (1..=3).map(|number| event(number, &format!("u{number}"), "deactivate")).collect();
    record_events(&store, &events).await;
    let left_out = Outcome::Skipped(crate::domain::Skipped::NotEnforced);
    look_at(&store, "u1", &left_out, noon()).await;
    look_at(&store, "u2", &left_out, noon()).await;
    look_at(&store, "u3", &Outcome::Applied, noon()).await;
    assert_eq!(store.enforcement_switched_on(noon()).await.unwrap(), 2);
    let due: Vec<OktaUserId> = store.due(noon(), 10).await.unwrap().into_iter().map(|due| due.id).collect();
    assert_eq!(due, [id("u1"), id("u2")]);
}

#[tokio::test]
async fn next_due_ignores_settled_rechecks() {
    let (_dir, store) = store().await;
    assert_eq!(store.next_open_due().await.unwrap(), None);
    record_events(&store, &[event(1, "u1", "deactivate"), event(2, "u2", "deactivate")]).await;
    assert_eq!(store.next_open_due().await.unwrap(), Some(noon()));
    let minute = clock::add(noon(), Duration::from_secs(60));
    let (u1, u2) = (id("u1"), id("u2"));
    let retry = Outcome::Retry { after: Duration::from_secs(60), why: "no answer".to_owned() };
    store
        .finish_look(LookFinish { conclusion: again_at(Some(minute)), ..finish(&u1, 1, &retry) }, noon())
        .await
        .unwrap();
    let settled = LookFinish { conclusion: again_at(Some(noon())), ..finish(&u2, 1, &Outcome::Applied) };
    store.finish_look(settled, noon()).await.unwrap();
    assert_eq!(store.next_open_due().await.unwrap(), Some(minute));
}

#[tokio::test]
async fn due_time_after_clock_step_is_due_now() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate"), event(2, "u2", "deactivate")]).await;
    let hours = |hours: u64| clock::add(noon(), Duration::from_secs(hours * 3600));
    let (u1, u2) = (id("u1"), id("u2"));
    let retry = Outcome::Retry { after: Duration::from_secs(3600), why: "no answer".to_owned() };
    store
        .finish_look(LookFinish { conclusion: again_at(Some(hours(2))), ..finish(&u1, 1, &retry) }, noon())
        .await
        .unwrap();
    let failed = Outcome::Failed("no answer".to_owned());
    store
        .finish_look(LookFinish { conclusion: again_at(Some(hours(25))), ..finish(&u2, 1, &failed) }, noon())
        .await
        .unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap(), []);
    let before = clock::sub(noon(), Duration::from_secs(1));
    let due: Vec<OktaUserId> = store.due(before, 10).await.unwrap().into_iter().map(|due| due.id).collect();
    assert_eq!(due, [u1, u2]);
}
