//! Looks: begin, finish, hold and guard.

use super::*;

#[tokio::test]
async fn reason_during_look_stays_open() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "activate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    store.record_page(page(1, &[event(2, "u1", "deactivate")]), noon()).await.unwrap();
    let finished = store.finish_look(finish(&id("u1"), look.claimed_seq, &Outcome::Unchanged), noon()).await.unwrap();
    assert!(finished.due_again);
    assert_eq!(store.due(noon(), 10).await.unwrap().len(), 1);
    let outcomes: Vec<String> =
        store.recent_events(None, 10).await.unwrap().into_iter().map(|event| event.outcome).collect();
    assert_eq!(outcomes, ["pending", "unchanged"]);
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let finished = store.finish_look(finish(&id("u1"), look.claimed_seq, &Outcome::Applied), noon()).await.unwrap();
    assert!(!finished.due_again);
    assert_eq!(store.due(noon(), 10).await.unwrap(), []);
}

#[tokio::test]
async fn failed_look_is_due_at_its_retry_time() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "deactivate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let later = clock::add(noon(), Duration::from_secs(60));
    let outcome = Outcome::Retry { after: Duration::from_secs(60), why: "auth0 said 500".to_owned() };
    let end = LookFinish { conclusion: again_at(Some(later)), ..finish(&look.id, look.claimed_seq, &outcome) };
    store.finish_look(end, noon()).await.unwrap();
    assert_eq!(store.due(noon(), 10).await.unwrap(), []);
    assert_eq!(store.due(later, 10).await.unwrap().len(), 1);
    assert_eq!(user_row(&store, "u1").await.last_error.as_deref(), Some("auth0 said 500"));
    assert_eq!(store.begin_look(&look.id, later).await.unwrap().attempts, 1);
    // Setting the clock back by a day must not delay a user by a day.
    assert_eq!(store.due(at("2026-11-22T12:00:00Z"), 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn held_user_waits_for_approval() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[event(1, "u1", "deactivate")]), noon()).await.unwrap();
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    let outcome = Outcome::Held(crate::domain::Held::Guard);
    store.finish_look(finish(&look.id, look.claimed_seq, &outcome), noon()).await.unwrap();
    assert_eq!(store.due(at("2027-11-23T12:00:00Z"), 10).await.unwrap(), []);
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.held, status.needs_attention), (0, 1, true));
    let made = approve_held(&store, noon()).await;
    assert_eq!(made.len(), 1);
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    assert!(look.approved.is_some());
    store.finish_look(finish(&look.id, look.claimed_seq, &Outcome::Applied), noon()).await.unwrap();
    assert!(store.begin_look(&id("u1"), noon()).await.unwrap().approved.is_none());
    assert!(store.progress(&[id("u1")]).await.unwrap()[0].looked_seq >= made[0].due_seq);
}

#[tokio::test]
async fn guard_counts_user_once_per_window() {
    let (_dir, store) = store().await;
    let events: Vec<Event> = (1..=4).map(|n| event(n, &format!("u{n}"), "deactivate")).collect();
    store.record_page(page(0, &events), noon()).await.unwrap();
    let guard = looks::GuardWindow { denials_max: 1.into(), span: Duration::from_secs(3600) };
    let later = clock::add(noon(), Duration::from_secs(3601));
    assert_eq!(ask_guard(&store, "u1", false, false, guard, noon()).await, Admission::Admitted);
    assert_eq!(ask_guard(&store, "u1", false, false, guard, noon()).await, Admission::Admitted);
    assert_eq!(ask_guard(&store, "u2", false, false, guard, noon()).await, Admission::Refused(1));
    assert_eq!(
        ask_guard(&store, "u2", true, false, guard, noon()).await,
        Admission::Refused(0),
        "a held user stays held"
    );
    let reconciled = ask_guard(&store, "u4", true, false, guard, noon()).await;
    assert_eq!(reconciled, Admission::Admitted, "counted apart");
    assert_eq!(ask_guard(&store, "u3", false, true, guard, noon()).await, Admission::Admitted);
    assert_eq!(ask_guard(&store, "u3", false, false, guard, later).await, Admission::Admitted);
}

fn guard() -> GuardWindow {
    GuardWindow { denials_max: 1.into(), span: Duration::from_secs(3600) }
}

async fn ask_guard(
    store: &Store,
    user: &str,
    reconcile: bool,
    approved: bool,
    guard: GuardWindow,
    now: Timestamp,
) -> Admission {
    let read =
        UserRead { login: None, email: None, status: Status::Deprovisioned, addresses: vec![], address_hidden: false };
    let denial = looks::Denial { user: &id(user), read: &read, reconcile, approved, intent: None };
    store.prepare_denial(denial, guard, now).await.unwrap()
}

/// An operator sees one reason; by the time of the approval, or of the look, there is another.
#[tokio::test]
async fn approval_counts_for_its_reason_only() {
    use crate::domain::Held;
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    look_at(&store, "u1", &Outcome::Held(Held::Guard), noon()).await;
    let seen = store.held().await.unwrap();
    look_at(&store, "u1", &Outcome::Held(Held::Vanished), noon()).await;
    let approval = Approval { held: &seen, by: "command", reason: None, policy: "p" };
    assert_eq!(store.approve(approval, noon()).await.unwrap(), [], "the reason changed before the approval");
    assert_eq!(store.begin_look(&id("u1"), noon()).await.unwrap().approved, None);

    assert_eq!(approve_held(&store, noon()).await.len(), 1);
    assert_eq!(store.begin_look(&id("u1"), noon()).await.unwrap().approved, Some(Held::Vanished));
    look_at(&store, "u1", &Outcome::Held(Held::AddressReused(id("u2"))), noon()).await;
    assert_eq!(store.begin_look(&id("u1"), noon()).await.unwrap().approved, None, "another reason ends it");
}

#[tokio::test]
async fn guard_hold_needs_approval() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let full = GuardWindow { denials_max: 0.into(), ..guard() };
    assert_eq!(ask_guard(&store, "u1", false, false, full, noon()).await, Admission::Refused(0));
    look_at(&store, "u1", &Outcome::Held(crate::domain::Held::Guard), noon()).await;
    let tomorrow = clock::add(noon(), Duration::from_secs(86_400));
    assert_eq!(store.queue_for_reconcile(&[id("u1")], tomorrow).await.unwrap(), 1);
    let admission = ask_guard(&store, "u1", true, false, guard(), tomorrow).await;
    assert_eq!(admission, Admission::Refused(0));
    assert_eq!(approve_held(&store, tomorrow).await.len(), 1);
    let approved = store.begin_look(&id("u1"), tomorrow).await.unwrap().approved;
    let approved = approved == Some(crate::domain::Held::Guard);
    let admission = ask_guard(&store, "u1", true, approved, guard(), tomorrow).await;
    assert_eq!(admission, Admission::Admitted);
}

#[tokio::test]
async fn reconcile_keeps_failures_and_since() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate"), event(2, "u2", "deactivate")]).await;
    look_at(&store, "u1", &Outcome::Retry { after: Duration::from_secs(1), why: "500".to_owned() }, noon()).await;
    look_at(&store, "u1", &Outcome::Failed("500".to_owned()), noon()).await;
    look_at(&store, "u2", &Outcome::NoAccount, noon()).await;
    let tomorrow = clock::add(noon(), Duration::from_secs(86_400));
    assert_eq!(store.queue_for_reconcile(&[id("u1"), id("u2")], tomorrow).await.unwrap(), 2);
    assert_eq!(store.status().await.unwrap().unwrap().failed, 1);
    assert_eq!(store.begin_look(&id("u1"), tomorrow).await.unwrap().attempts, 1);
    look_at(&store, "u2", &Outcome::NoAccount, tomorrow).await;
    assert_eq!(user_row(&store, "u2").await.since, "2026-11-23T12:00:00.000Z");
    assert_eq!(
        store.users_to_compare(None, 10).await.unwrap(),
        [id("u1"), id("u2")],
        "users without an account are listed, however long ago they left"
    );
    record_events(&store, &[event(3, "u1", "deactivate")]).await;
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.failed, status.pending), (0, 1), "a new event resets the failure");
    assert_eq!(store.begin_look(&id("u1"), noon()).await.unwrap().attempts, 0);
}

#[tokio::test]
async fn request_returns_only_its_users() {
    let (_dir, store) = store().await;
    let one = store.request_look(Who::User(&id("u1")), noon()).await.unwrap();
    assert_eq!(one, [Requested { id: id("u1"), due_seq: 1 }]);
    // Two requests in the same millisecond.
    assert_eq!(store.request_look(Who::Failed, noon()).await.unwrap(), []);
    look_at(&store, "u1", &Outcome::Failed("x".to_owned()), noon()).await;
    assert_eq!(store.request_look(Who::Failed, noon()).await.unwrap(), [Requested { id: id("u1"), due_seq: 2 }]);
    assert_eq!(store.progress(&[id("u1")]).await.unwrap()[0].looked_seq, 1);
}

#[tokio::test]
async fn retry_and_snooze_set_their_due_time() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let minute = clock::add(noon(), Duration::from_secs(60));
    look_at(&store, "u1", &Outcome::Retry { after: Duration::from_secs(60), why: "x".to_owned() }, noon()).await;
    assert_eq!(user_row(&store, "u1").await.due_at.as_deref(), Some("2026-11-23T12:01:00.000Z"));
    look_at(
        &store,
        "u1",
        &Outcome::Snooze { until: clock::add(minute, Duration::from_secs(60)), why: "x".to_owned() },
        minute,
    )
    .await;
    let row = user_row(&store, "u1").await;
    assert_eq!(
        (row.due_at.as_deref(), row.attempts),
        (Some("2026-11-23T12:02:00.000Z"), 1),
        "a snooze does not count as an attempt"
    );
}

#[tokio::test]
async fn repeated_denial_gets_new_time_and_cause() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate")]).await;
    let u1 = id("u1");
    let change = |denied, event: Option<&str>| AccountChange {
        connection: Some("db".to_owned()),
        event_id: event.map(str::to_owned),
        ..account("auth0|'1", denied)
    };
    let mut now = noon();
    for (denied, event, denied_at, event_id) in [
        (true, Some("e1"), "2026-11-23T12:00:00.000Z", Some("e1")),
        (true, None, "2026-11-23T12:00:00.000Z", Some("e1")),
        (false, None, "2026-11-23T12:00:00.000Z", Some("e1")),
        (true, None, "2026-11-23T12:03:00.000Z", None),
    ] {
        let accounts = [change(denied, event)];
        store.finish_look(LookFinish { accounts: &accounts, ..finish(&u1, 1, &Outcome::Applied) }, now).await.unwrap();
        let row = store.accounts_of(&u1).await.unwrap().remove(0);
        assert_eq!((row.denied_at.as_deref(), row.event_id.as_deref()), (Some(denied_at), event_id));
        now = clock::add(now, Duration::from_secs(60));
    }
    let account = crate::domain::AccountId::new("auth0|open");
    let intent = looks::Intent { account: &account, email: None, with_block: false, owe_sessions: true };
    let missing = store.intend_mark(&id("u9"), intent, noon()).await.unwrap_err();
    assert!(matches!(missing, StoreError::Gone { .. }), "{missing}");
    store.request_look(Who::User(&id("u2")), noon()).await.unwrap();
    store.intend_mark(&u1, intent, noon()).await.unwrap();
    store.intend_mark(&id("u2"), intent, noon()).await.unwrap();
    assert!(store.begin_look(&id("u2"), noon()).await.unwrap().accounts[0].sessions_owed, "the next look must find it");
}

#[tokio::test]
async fn wakes_dependents_and_address_sharers() {
    let (_dir, store) = store().await;
    let mut entry = event(1, "u1", "deactivate");
    entry.users[0].login = Some("Shared@Example.com".to_owned());
    let mut other = event(2, "u2", "activate");
    other.users[0].login = Some("shared@example.com".to_owned());
    record_events(&store, &[entry, other]).await;
    let (u1, u2) = (id("u1"), id("u2"));
    let outcome = Outcome::Skipped(crate::domain::Skipped::SharedAddress(u2.clone()));
    store.finish_look(LookFinish { depends_on: Some(&u2), ..finish(&u1, 1, &outcome) }, noon()).await.unwrap();
    let holders =
        store.known_holders(&[crate::domain::Address::parse("SHARED@example.com").unwrap()], &u1).await.unwrap();
    assert_eq!(holders, [(u2.clone(), None, "shared@example.com".to_owned())]);
    let finished = store
        .finish_look(
            LookFinish {
                conclusion: Conclusion { wake: Wake::Dependents, ..Conclusion::default() },
                ..finish(&u2, 1, &Outcome::Unchanged)
            },
            noon(),
        )
        .await
        .unwrap();
    assert_eq!(finished.woken, 1);
    let row = user_row(&store, "u1").await;
    assert_eq!(
        (row.cause.as_str(), row.open, row.outcome.map(|outcome| outcome.as_str())),
        ("neighbour", true, Some("skipped"))
    );
    let finished = store
        .finish_look(
            LookFinish {
                conclusion: Conclusion { wake: Wake::Sharers, ..Conclusion::default() },
                ..finish(&u2, 1, &Outcome::Unchanged)
            },
            noon(),
        )
        .await
        .unwrap();
    assert_eq!(finished.woken, 1);
}

#[tokio::test]
async fn intent_requires_guard_admission() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate"), event(2, "u2", "deactivate")]).await;
    let read =
        UserRead { login: None, email: None, status: Status::Deprovisioned, addresses: vec![], address_hidden: false };
    let account = crate::domain::AccountId::new("auth0|open");
    let intent = looks::Intent { account: &account, email: None, with_block: true, owe_sessions: false };
    for (user, admitted) in [("u1", true), ("u2", false)] {
        let user = id(user);
        let denial =
            looks::Denial { user: &user, read: &read, reconcile: false, approved: false, intent: Some(intent) };
        let admission = store.prepare_denial(denial, guard(), noon()).await.unwrap();
        assert_eq!(admission == Admission::Admitted, admitted);
        let accounts = store.begin_look(&user, noon()).await.unwrap().accounts;
        assert_eq!(
            accounts.iter().filter(|account| account.unconfirmed && account.blocked).count(),
            usize::from(admitted)
        );
    }
}

#[tokio::test]
async fn look_reads_open_and_recent_events() {
    let (_dir, store) = store().await;
    let many: Vec<Event> = (0..40).map(|number| event(number, "u1", "activate")).collect();
    record_events(&store, &many).await;
    assert_eq!(store.begin_look(&id("u1"), noon()).await.unwrap().events.len(), 40, "all are open");
    look_at(&store, "u1", &Outcome::Applied, noon()).await;
    record_events(&store, &[event(40, "u1", "deactivate")]).await;
    let seen = store.begin_look(&id("u1"), noon()).await.unwrap().events;
    let numbers: Vec<String> = seen.iter().map(|event| event.id.clone()).collect();
    assert_eq!(numbers, (11..=40).map(|number| format!("event-{number}")).collect::<Vec<_>>());
    assert!(seen.iter().all(|event| event.open == (event.id == "event-40")), "{seen:?}");
    // Open events still count much later, however many events follow.
    let later = clock::add(noon(), Duration::from_secs(7200));
    let others: Vec<Event> = (50..90).map(|number| event(number, "u2", "activate")).collect();
    record_events(&store, &others).await;
    let seen = store.begin_look(&id("u1"), later).await.unwrap().events;
    assert_eq!(seen.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["event-40"]);
}

#[tokio::test]
async fn unknown_mark_is_adopted_once() {
    let (_dir, store) = store().await;
    let account = crate::domain::AccountId::new("auth0|1");
    let adopt = async |owner: &str| store.adopt_account(&id(owner), &account, None, noon(), noon()).await.unwrap();
    assert!(adopt("u1").await);
    assert!(!adopt("u1").await, "already known");
    assert!(adopt("u2").await, "another owner is new");
    let known = store.known(&[id("u1"), id("u2")]).await.unwrap();
    assert_eq!((&known[&id("u1")].denied, &known[&id("u2")].denied), (&vec![], &vec![account]));
}
