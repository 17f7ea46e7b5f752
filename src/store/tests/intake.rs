//! Pages, events and the checkpoint.

use super::*;

#[tokio::test]
async fn repeated_page_changes_nothing() {
    let (_dir, store) = store().await;
    let events = [
        event(1, "u1", "deactivate"),
        event(2, "u2", "activate"),
        event(3, "u1", "delete.initiated"),
        event(4, "u3", "create"),
    ];
    let recorded = store.record_page(page(0, &events), noon()).await.unwrap();
    assert_eq!((recorded.seq, recorded.new_events, recorded.made_due), (1, 4, 2));
    let again = store.record_page(page(1, &events), noon()).await.unwrap();
    assert_eq!((again.new_events, again.made_due), (0, 0));

    let due = store.due(noon(), 10).await.unwrap();
    assert_eq!(
        due,
        [DueUser { id: id("u1"), lane: Lane::Deactivation }, DueUser { id: id("u2"), lane: Lane::Reactivation }]
    );
    let look = store.begin_look(&id("u1"), noon()).await.unwrap();
    assert_eq!((look.claimed_seq, look.events.len(), look.cause, look.left_at), (2, 2, Cause::Event, Some(noon())));
    assert_eq!(look.addresses.len(), 1);
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed, status.needs_attention), (2, 0, false));
}

#[tokio::test]
async fn page_with_stale_checkpoint_is_rejected() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[]), noon()).await.unwrap();
    for outdated in [0, 5] {
        let error = store.record_page(page(outdated, &[event(1, "u1", "deactivate")]), noon()).await.unwrap_err();
        assert!(matches!(error, StoreError::CheckpointMoved { .. }), "{error}");
    }
    assert_eq!(store.due(noon(), 10).await.unwrap(), []);
    assert_eq!(store.checkpoint().await.unwrap().unwrap().seq, 1);
}

#[tokio::test]
async fn failed_page_keeps_the_checkpoint() {
    let (_dir, store) = store().await;
    store.record_page(page(0, &[]), noon()).await.unwrap();
    let before = store.checkpoint().await.unwrap();
    for table in ["events", "users", "event_users"] {
        let full = format!("CREATE TRIGGER full BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END");
        sqlx::query(sqlx::AssertSqlSafe(full)).execute(store.writer()).await.unwrap();
        let events = [event(1, "u1", "deactivate")];
        let next = Page { next: Some("/api/v1/logs?after=2"), ..page(1, &events) };
        let error = store.record_page(next, noon()).await.unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(store.checkpoint().await.unwrap(), before, "{table}");
        assert_eq!(store.due(noon(), 10).await.unwrap(), []);
        sqlx::query("DROP TRIGGER full").execute(store.writer()).await.unwrap();
    }
    assert_eq!(store.record_page(page(1, &[event(1, "u1", "deactivate")]), noon()).await.unwrap().new_events, 1);
}

fn quarantined(id: &str) -> QuarantinedEvent {
    QuarantinedEvent {
        event_id: id.to_owned(),
        event_type: None,
        published: None,
        raw: "{\"uuid\":7}".to_owned(),
        why: "no target".to_owned(),
    }
}

#[tokio::test]
async fn readable_duplicate_wins_within_page() {
    let (_dir, store) = store().await;
    let events = [event(1, "u1", "deactivate"), event(1, "u1", "deactivate")];
    let unreadable = [quarantined("event-1"), quarantined("event-2"), quarantined("event-2")];
    let page = Page { quarantined: &unreadable, ..page(0, &events) };
    let recorded = store.record_page(page, noon()).await.unwrap();
    assert_eq!((recorded.new_events, recorded.made_due, recorded.new_quarantined), (2, 1, 1));
    assert_eq!(store.begin_look(&id("u1"), noon()).await.unwrap().claimed_seq, 1);
    let outcomes: Vec<String> =
        store.recent_events(None, 10).await.unwrap().into_iter().map(|event| event.outcome).collect();
    assert_eq!(outcomes, ["quarantined", "pending"]);
}

#[tokio::test]
async fn quarantine_needs_attention_until_dismissed() {
    let (_dir, store) = store().await;
    let unreadable = [quarantined("x")];
    for expected_seq in 0..2 {
        store.record_page(Page { quarantined: &unreadable, ..page(expected_seq, &[]) }, noon()).await.unwrap();
    }
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.quarantined, status.needs_attention), (1, true));
    assert_eq!(store.expire(Timestamp::MAX, 10, noon()).await.unwrap(), 0, "retention keeps quarantined events");
    let rows = store.recent_events(Some("quarantined"), 10).await.unwrap();
    assert_eq!((rows.len(), rows[0].why.as_deref(), rows[0].okta_user_id.as_deref()), (1, Some("no target"), None));
    assert!(store.dismiss_event("x", noon()).await.unwrap().is_some());
    assert!(store.dismiss_event("x", noon()).await.unwrap().is_none());
    let raw: Option<String> = sqlx::query_scalar("SELECT raw FROM events").fetch_one(store.reader()).await.unwrap();
    assert_eq!(raw, None);
    assert!(!store.status().await.unwrap().unwrap().needs_attention);
}

#[tokio::test]
async fn shared_event_settles_per_user() {
    let (_dir, store) = store().await;
    let mut both = event(1, "u1", "deactivate");
    both.users.push(EventUser { id: id("u2"), login: None });
    // A user named twice in one event gets one reason.
    both.users.push(EventUser { id: id("u1"), login: None });
    assert_eq!(record_events(&store, &[both]).await.made_due, 2);
    look_at(&store, "u1", &Outcome::Applied, noon()).await;
    let mut rows = store.recent_events(None, 10).await.unwrap();
    rows.sort_by(|a, b| a.okta_user_id.cmp(&b.okta_user_id));
    let outcomes: Vec<&str> = rows.iter().map(|row| row.outcome.as_str()).collect();
    assert_eq!(outcomes, ["applied", "pending"]);
    assert_eq!(store.due(noon(), 10).await.unwrap(), [DueUser { id: id("u2"), lane: Lane::Deactivation }]);
    look_at(&store, "u2", &Outcome::NoAccount, noon()).await;
    assert_eq!(store.status().await.unwrap().unwrap().pending, 0);
}

#[tokio::test]
async fn ignored_events_still_record_their_users() {
    let (_dir, store) = store().await;
    let mut created = event(1, "u1", "create");
    created.users[0].login = Some("ann".to_owned());
    let recorded = record_events(&store, &[created]).await;
    assert_eq!((recorded.new_events, recorded.made_due), (1, 0));
    let ann = user_row(&store, "u1").await;
    assert_eq!((ann.login, ann.open, ann.due_at, ann.outcome), (None, false, None, None));
    assert_eq!(store.find_users("ann").await.unwrap(), []);
    let told = store.events_of(&id("u1"), 10).await.unwrap();
    assert_eq!((told.len(), told[0].outcome.as_str(), told[0].login.as_deref()), (1, "ignored", Some("ann")));
    assert_eq!(store.status().await.unwrap().unwrap().pending, 0);

    let mut activated = event(2, "u1", "activate");
    activated.users[0].login = Some("Ann".to_owned());
    assert_eq!(record_events(&store, &[activated]).await.made_due, 1);
    let ann = user_row(&store, "ANN").await;
    assert_eq!((ann.okta_user_id.as_str(), ann.login.as_deref(), ann.open), ("u1", Some("Ann"), true));
    assert_eq!(store.events_of(&id("u1"), 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn event_ids_of_any_form_are_deduplicated() {
    let (_dir, store) = store().await;
    // Two Okta ids with the same time part, random ids that share those characters, and other forms.
    let ids = [
        "dc9fd3c0-598c-11ef-8478-2b7584bf8d5a",
        "dc9fd3c0-598c-11ef-8478-2b7584bf8d5b",
        "dc9fd3c1-598c-11ef-8478-2b7584bf8d5a",
        "f63e673f-a618-499c-8dd9-31301e3357bd",
        "00000000-a618-499c-8dd9-31301e3357bd",
        "short",
        "",
        "ümläute-ümläute-ümläute",
    ];
    let of = |ids: &[&str]| -> Vec<Event> {
        ids.iter().map(|id| Event { id: (*id).to_owned(), ..event(1, "u1", "deactivate") }).collect()
    };
    assert_eq!(record_events(&store, &of(&ids)).await.new_events, 8);
    let mut again = ids;
    again.reverse();
    let recorded = record_events(&store, &of(&again)).await;
    assert_eq!((recorded.new_events, recorded.made_due), (0, 0));
    // Known and new events in one page: each new event has its own user.
    let mut mixed = of(&[ids[2], "new", ids[0], "newer"]);
    mixed[1].users[0].id = id("u2");
    mixed[3].users[0].id = id("u3");
    let recorded = record_events(&store, &mixed).await;
    assert_eq!((recorded.new_events, recorded.made_due), (2, 2));
    for (user, event) in [("u2", "new"), ("u3", "newer")] {
        let told = store.events_of(&id(user), 10).await.unwrap();
        assert_eq!(told.iter().map(|row| row.event_id.as_str()).collect::<Vec<_>>(), [event]);
    }
    assert_eq!(store.events_of(&id("u1"), 10).await.unwrap().len(), 8);
}

#[tokio::test]
async fn hostile_text_is_stored_verbatim() {
    let (_dir, store) = store().await;
    let odd = [
        "o'hara\"; DROP TABLE users; --@example.com".replace(' ', ""),
        "jörg.ÄÖÜ@exämple.de".to_owned(),
        "😀🧨@𝓮𝔁.example".to_owned(),
        "back\\slash\\u0000%_@example.com".to_owned(),
        format!("{}@example.com", "x".repeat(308)),
    ];
    for (n, login) in (1_u32..).zip(&odd) {
        let mut entry = event(n, &format!("u{n}"), "deactivate");
        entry.id = format!("uuid '\"{login}");
        entry.actor = Some(format!("{login}\n\t\0end"));
        entry.users[0].login = Some(login.clone());
        record_events(&store, &[entry]).await;
        assert_eq!(store.addresses_of(&id(&format!("u{n}"))).await.unwrap(), [login.as_str()]);
        let row = store.recent_events(None, 1).await.unwrap().remove(0);
        assert_eq!(row.event_id, format!("uuid '\"{login}"));
        assert_eq!(row.actor, Some(format!("{login}\n\t\0end")));
        assert_eq!(row.login.as_ref(), Some(login));
        assert_eq!(user_row(&store, &login.to_uppercase()).await.okta_user_id, format!("u{n}"), "in any case");
    }
    let mut long = event(9, "u9", "deactivate");
    long.users[0].login = Some("ÜBER".repeat(50_000));
    long.users[0].id = id(&"9".repeat(100));
    record_events(&store, &[long]).await;
    assert_eq!(
        user_row(&store, &"über".repeat(50_000)).await.okta_user_id,
        "9".repeat(100),
        "a login that is not an address"
    );
}

#[tokio::test]
async fn checkpoint_tracks_moves_and_reanchors() {
    let (_dir, store) = store().await;
    assert_eq!(store.checkpoint().await.unwrap(), None);
    record_events(&store, &[]).await;
    let later = clock::add(noon(), Duration::from_secs(60));
    let still = Page { anchor_at: later, ..page(1, &[]) };
    store.record_page(still, later).await.unwrap();
    let checkpoint = store.checkpoint().await.unwrap().unwrap();
    assert_eq!((checkpoint.seq, checkpoint.moved_at, checkpoint.anchor_at), (2, noon(), later));
    assert!(matches!(
        store.reanchor(1, "g", noon(), later).await.unwrap_err(),
        StoreError::CheckpointMoved { expected: 1 }
    ));
    assert_eq!(store.reanchor(2, "g", noon(), later).await.unwrap(), 3);
    let checkpoint = store.checkpoint().await.unwrap().unwrap();
    assert_eq!((checkpoint.next, checkpoint.fingerprint.as_str(), checkpoint.anchor_at), (None, "g", noon()));
    let foreign = Page { next: Some("https://evil.example/"), ..page(3, &[]) };
    store.record_page(foreign, later).await.unwrap_err();
    assert_eq!(store.checkpoint().await.unwrap().unwrap().seq, 3);
}

#[tokio::test]
async fn events_are_filtered_newest_first() {
    let (_dir, store) = store().await;
    let mut nobody = event(9, "u1", "create");
    nobody.users.clear();
    let events: Vec<Event> = (1..=6).map(|n| event(n, &format!("u{n}"), "deactivate")).chain([nobody]).collect();
    record_events(&store, &events).await;
    let retry = Outcome::Retry { after: Duration::from_secs(1), why: "500".to_owned() };
    let snooze = Outcome::Snooze { until: noon(), why: "429".to_owned() };
    for (user, outcome) in [
        ("u1", &Outcome::Applied),
        ("u2", &Outcome::Held(crate::domain::Held::Guard)),
        ("u3", &Outcome::Failed("x".to_owned())),
        ("u4", &retry),
        ("u5", &snooze),
    ] {
        look_at(&store, user, outcome, noon()).await;
    }
    // A second event of a user does not inherit the outcome of the settled first one.
    record_events(&store, &[event(7, "u1", "activate")]).await;
    for (outcome, expected) in [
        ("applied", &["event-1"][..]),
        ("held", &["event-2"]),
        ("failed", &["event-3"]),
        ("retry", &["event-4"]),
        ("snooze", &["event-5"]),
        ("pending", &["event-7", "event-6"]),
        ("ignored", &["event-9"]),
        ("quarantined", &[]),
    ] {
        let found: Vec<String> =
            store.recent_events(Some(outcome), 10).await.unwrap().into_iter().map(|row| row.event_id).collect();
        assert_eq!(found, expected, "{outcome}");
    }
    // Commands show the same as the view.
    let shown: Vec<EventRow> =
        sqlx::query_as("SELECT *, NULL AS why FROM recent_events").fetch_all(store.reader()).await.unwrap();
    assert_eq!(store.recent_events(None, 100).await.unwrap(), shown);
    assert_eq!(shown.len(), 8);
    let all: Vec<String> = store.recent_events(None, 3).await.unwrap().into_iter().map(|row| row.event_id).collect();
    assert_eq!(all, ["event-7", "event-9", "event-6"]);
    assert_eq!(store.events_of(&id("u1"), 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn crowd_of_one_event_waits_behind_live_work() {
    let (_dir, store) = store().await;
    let mut crowd = event(1, "u0", "deactivate");
    crowd.users = (0..10_000).map(|number| EventUser { id: id(&format!("u{number}")), login: None }).collect();
    let events = [crowd, event(2, "leaver", "deactivate")];
    assert_eq!(store.record_page(page(0, &events), noon()).await.unwrap().made_due, 10_001);
    let urgent = store.due(noon(), 20_000).await.unwrap();
    let urgent: Vec<&DueUser> = urgent.iter().filter(|due| due.lane == Lane::Deactivation).collect();
    assert_eq!(urgent.len(), 102, "the first of each event, and a hundred more");
    assert!(urgent.iter().any(|due| due.id == id("leaver")));
}
