//! Auth0's event stream: accounts created later, removed marks, and a stream that fails in every way.

use std::time::Duration;

use okta_auth0_sync::domain::{OktaUserId, WatchMode};
use okta_auth0_sync::health::{Deadlines, Health};
use serde_json::{Value, json};

use crate::world::{Watch, World};

const SECOND: Duration = Duration::from_secs(1);
const ANN: &str = "ann@example.com";

/// A world in which Ann has left, and a watcher whose stream is open.
async fn ann_left() -> (World, Watch, OktaUserId) {
    let mut world = World::watched(|_| ()).await;
    let ann = world.user(ANN);
    world.leaves(&ann).await;
    let mut watch = world.watch();
    watch.opened().await;
    (world, watch, ann)
}

/// Removes our mark, as an import does.
fn import_over(world: &World, account: &str) {
    assert!(world.auth0().set_user(account, |user| {
        user["app_metadata"] = json!({});
        user["user_metadata"] = json!({});
    }));
}

/// The obligation about the stream: whether it is met, and what is known.
async fn obligation(world: &World) -> (Option<bool>, String) {
    let health = Health::counts(world.store(), world.options.guard, world.now()).await.unwrap();
    let one = health.obligations.into_iter().find(|one| one.name == "account_events").unwrap();
    (one.met, one.detail)
}

/// Why a reconcile is missing.
async fn missing(world: &World) -> String {
    world.store().unchecked().await.unwrap().map_or_else(String::new, |unchecked| unchecked.why)
}

/// Ends what a first start leaves to the reconcile.
async fn reconciled(world: &World) {
    world.passes(SECOND);
    world.reconcile().await;
    assert_eq!(missing(world).await, "");
}

#[tokio::test]
async fn late_sign_ups_are_denied() {
    let (world, mut watch, ann) = ann_left().await;
    let okta_id = format!("acme-okta|{ann}");
    for (fields, by) in [
        (json!({ "email": ANN, "email_verified": true }), "database"),
        (json!({ "email": "Ann@Example.com", "connection": "google-oauth2", "email_verified": true }), "social"),
        (json!({ "connection": "acme-okta", "user_id": okta_id, "email": "other@home.example" }), "Okta id"),
    ] {
        let account = world.auth0().create_user(fields);
        assert_eq!(watch.events(1).await, 1, "{by}");
        world.settle().await;
        world.assert_denied_for(&account, &ann);
        assert_eq!(watch.events(2).await, 0, "our own write and her refused login, {by}");
    }
    assert!(world.settle().await.is_empty(), "no look follows from our own writes");
}

#[tokio::test]
async fn account_linked_later_is_denied_at_once() {
    let (world, mut watch, ann) = ann_left().await;
    let private = world.auth0().create_user(json!({ "email": "ann@home.example", "connection": "google-oauth2" }));
    let corporate = world.account(ANN);
    assert_eq!(watch.events(2).await, 1, "only the corporate one is Ann's");
    world.settle().await;
    assert_eq!(watch.events(1).await, 0, "the mark on it");
    // The link discards the mark, and the search does not know of it yet.
    assert!(world.auth0().link(&private, &corporate));
    assert_eq!(watch.events(1).await, 1);
    world.settle().await;
    world.assert_denied_for(&private, &ann);
}

#[tokio::test]
async fn removed_mark_is_restored_each_time() {
    let mut world = World::watched(|_| ()).await;
    let ann = world.user(ANN);
    let account = world.account(ANN);
    world.leaves(&ann).await;
    let mut watch = world.watch();
    watch.opened().await;
    for round in 0..2 {
        import_over(&world, &account);
        assert!(world.lets_in(&account));
        // Her login attempt changes the account, too.
        watch.events(2).await;
        world.settle().await;
        world.assert_denied_for(&account, &ann);
        watch.events(2).await;
        assert!(world.settle().await.is_empty(), "round {round}: our own write and a refused login are no news");
    }
}

#[tokio::test]
async fn deleted_and_recreated_account_is_denied() {
    let mut world = World::watched(|_| ()).await;
    let ann = world.user(ANN);
    let account = world.account(ANN);
    world.leaves(&ann).await;
    let mut watch = world.watch();
    watch.opened().await;
    assert!(world.auth0().delete_user(&account));
    assert_eq!(watch.events(1).await, 1);
    world.settle().await;
    let again = world.account(ANN);
    assert_eq!(watch.events(1).await, 1);
    world.settle().await;
    world.assert_denied_for(&again, &ann);
}

#[tokio::test]
async fn account_of_an_active_holder_is_not_looked_at_again() {
    let (world, mut watch, _ann) = ann_left().await;
    let bob = world.user_called("bob@example.com", ANN);
    world.sync().await;
    let account = world.account(ANN);
    watch.events(1).await;
    world.settle().await;
    world.assert_open(&account);
    world.clear_journals();
    for _ in 0..20 {
        assert!(world.lets_in(&account), "{bob} is active");
    }
    watch.events(20).await;
    world.settle().await;
    assert!(world.calls().0 <= 3, "at most one look for all logins: {:?}", world.calls());
}

#[tokio::test]
async fn irrelevant_events_cost_no_call_and_few_writes() {
    let (world, mut watch, ann) = ann_left().await;
    let before = world.store().stream_position().await.unwrap().seq;
    world.clear_journals();
    for number in 0..3000 {
        world.account(&format!("user{number}@example.org"));
    }
    let account = world.account(ANN);
    assert_eq!(watch.events(3001).await, 1, "one among thousands");
    assert_eq!(world.calls(), (0, 0), "before the look");
    let writes = world.store().stream_position().await.unwrap().seq - before;
    assert!(writes <= 2, "{writes} writes while no second passed");
    world.settle().await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn cycling_for_hours_leaves_no_gap() {
    let (world, mut watch, ann) = ann_left().await;
    reconciled(&world).await;
    for hour in 0..30 {
        // Auth0 closes the connection; the account is created while none is open.
        world.passes(300 * SECOND);
        watch.closed().await;
        let account = world.account(ANN);
        world.passes(2 * SECOND);
        watch.opened().await;
        assert_eq!(watch.events(1).await, 1, "connection {hour}");
        world.settle().await;
        world.assert_denied_for(&account, &ann);
        watch.events(1).await;
        assert!(world.auth0().delete_user(&account));
        watch.events(1).await;
        world.settle().await;
    }
    assert_eq!(missing(&world).await, "", "an offset never expired");
    assert_eq!(world.alarms().await, Vec::<String>::new());
}

#[tokio::test]
async fn day_of_silence_is_noticed_and_leaves_no_gap() {
    let (world, mut watch, ann) = ann_left().await;
    world.auth0().events().configure(|options| options.retention = 30 * 86_400 * SECOND);
    world.auth0().events().set_silent(true);
    let account = world.account(ANN);
    let before = world.auth0().events().accepted();
    for round in 1..=100 {
        world.passes(900 * SECOND);
        watch.closed().await;
        // The wait may begin after the clock was moved. Once it is over, the clock stands while the daemon connects.
        while world.auth0().events().accepted() < before + round {
            world.passes(61 * SECOND);
            for _ in 0..100_000 {
                if world.auth0().events().accepted() >= before + round {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    let (met, detail) = obligation(&world).await;
    assert_eq!(met, Some(false), "{detail}");
    assert!(detail.contains("was last alive at"), "{detail}");
    world.auth0().events().set_silent(false);
    watch.opened().await;
    assert_eq!(watch.events(1).await, 1);
    world.settle().await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(obligation(&world).await.0, Some(true));
}

#[tokio::test]
async fn silent_stream_raises_alarm_after_five_minutes() {
    let (world, mut watch, _ann) = ann_left().await;
    let deadlines = Deadlines::new("*/15 * * * * *".parse().unwrap(), "0 0 3 * * *".parse().unwrap());
    world.engine().check_health(&deadlines).await;
    assert!(!world.alarms().await.contains(&"events_late".to_owned()));
    world.auth0().events().set_silent(true);
    world.passes(301 * SECOND);
    watch.closed().await;
    world.engine().check_health(&deadlines).await;
    assert!(world.alarms().await.contains(&"events_late".to_owned()), "{:?}", world.alarms().await);
    world.auth0().events().set_silent(false);
    world.passes(61 * SECOND);
    watch.opened().await;
    // Its first message is stored before the next one is processed.
    world.account("bob@example.org");
    watch.events(1).await;
    world.engine().check_health(&deadlines).await;
    assert!(!world.alarms().await.contains(&"events_late".to_owned()));
}

#[tokio::test]
async fn expired_offset_resumes_by_time_and_reconciles() {
    let (mut world, mut watch, ann) = ann_left().await;
    reconciled(&world).await;
    world.account("bob@example.org");
    assert_eq!(watch.events(1).await, 0);
    drop(watch.stop().await);
    world.auth0().events().expire_offsets();
    let account = world.account(ANN);
    world.restart(|_| ()).await;
    let mut watch = world.watch();
    watch.opened().await;
    assert_eq!(watch.events(1).await, 1, "from the last complete moment on");
    assert!(missing(&world).await.contains("refused the offset"), "{}", missing(&world).await);
    world.settle().await;
    world.assert_denied_for(&account, &ann);
    reconciled(&world).await;
}

#[tokio::test]
async fn restart_resumes_after_the_stored_offset() {
    let (mut world, watch, ann) = ann_left().await;
    drop(watch.stop().await);
    let account = world.account(ANN);
    world.restart(|_| ()).await;
    let mut watch = world.watch();
    watch.opened().await;
    assert_eq!(watch.events(1).await, 1, "created while no daemon ran");
    world.settle().await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn repeated_events_are_looked_at_once() {
    let (world, mut watch, _ann) = ann_left().await;
    world.account(ANN);
    assert_eq!(watch.events(1).await, 1);
    world.settle().await;
    watch.events(1).await;
    for back in 0..2 {
        world.auth0().events().redeliver(back);
    }
    assert_eq!(watch.events(2).await, 0, "delivered again, in another order");
    assert!(world.settle().await.is_empty());
}

#[tokio::test]
async fn odd_messages_neither_stop_nor_lose_the_stream() {
    let (world, mut watch, ann) = ann_left().await;
    reconciled(&world).await;
    let user = |id: &str, kind: &str| {
        json!({ "offset": id, "event": { "id": id, "type": kind, "time": "2026-03-02T08:00:00.000Z", "data": { "object": {
            "user_id": format!("auth0|{id}"), "email": ANN, "identities": [] } } } })
        .to_string()
    };
    let stream = world.auth0().events();
    stream.inject("retry: soon\nsurprise: yes\n\nevent: tenant.renamed\nid: x\ndata: [1]\n\n");
    stream.inject(format!(
        "event: com.auth0.user.created\r\nid: a\r\ndata: {}\r\n\r\n",
        user("a", "com.auth0.user.created")
    ));
    // Several lines of data, and no name but the one inside.
    let text = user("b", "user.created").replacen(',', ",\ndata: ", 1);
    stream.inject(format!("id: b\ndata: {text}\n\n"));
    assert_eq!(watch.events(2).await, 2, "both are Ann's");
    assert_eq!(missing(&world).await, "");
    stream.inject("event: user.updated\nid: c\ndata: {\"offset\": \"c\", \"event\": {\"id\": 7}}\n\n");
    stream.inject(format!("event: user.created\nid: d\ndata: {}\n\n", "x".repeat(2 << 20)));
    let account = world.account(ANN);
    assert_eq!(watch.events(1).await, 1, "the stream goes on");
    assert!(missing(&world).await.contains("cannot be read"), "what was unreadable is reconciled");
    world.settle().await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn broken_streams_are_resumed() {
    let (world, mut watch, ann) = ann_left().await;
    for how in ["cut", "error", "token revoked"] {
        match how {
            "cut" => world.auth0().events().cut(),
            "error" => world.auth0().events().fail("internal_error"),
            _ => {
                world.auth0().revoke_tokens();
                world.auth0().events().close();
            }
        }
        watch.closed().await;
        let account = world.account(ANN);
        world.passes(61 * SECOND);
        watch.opened().await;
        assert_eq!(watch.events(1).await, 1, "{how}");
        world.settle().await;
        world.assert_denied_for(&account, &ann);
        watch.events(1).await;
        world.auth0().delete_user(&account);
        watch.events(1).await;
        world.settle().await;
    }
    assert_eq!(world.alarms().await, Vec::<String>::new());
}

#[tokio::test]
async fn without_the_scope_everything_else_works() {
    let mut world = World::watched(|setup| {
        setup.sandbox.auth0.granted_scope = "read:users update:users".to_owned();
    })
    .await;
    let ann = world.user(ANN);
    let account = world.account(ANN);
    let watch = world.watch();
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
    while !obligation(&world).await.1.contains("read:events") {
        tokio::task::yield_now().await;
    }
    assert_eq!(obligation(&world).await.0, Some(true), "the next reconcile covers it, and the detail says so");
    assert_eq!(world.auth0().journal().count("GET", "/api/v2/events"), 0, "the token says that the scope is missing");
    assert_eq!(world.alarms().await, Vec::<String>::new());
    drop(watch.stop().await);
}

#[tokio::test]
async fn occupied_connection_is_named_and_tried_again() {
    let mut world = World::watched(|setup| setup.sandbox.auth0.events.connections_max = 1).await;
    let ann = world.user(ANN);
    world.leaves(&ann).await;
    world.auth0().events().occupy();
    let mut watch = world.watch();
    while !obligation(&world).await.1.contains("concurrent connections") {
        tokio::task::yield_now().await;
    }
    assert_eq!(obligation(&world).await.0, Some(true), "another consumer may have it");
    assert!(
        world.alarms().await.is_empty() && world.store().remotes().await.unwrap().iter().all(|one| !one.is_failing())
    );
    let account = world.account(ANN);
    world.auth0().events().release();
    world.passes(31 * SECOND);
    watch.opened().await;
    // The stream begins now; only the reconcile finds what came before.
    let later = world.auth0().create_user(json!({ "email": ANN, "connection": "google-oauth2" }));
    assert_eq!(watch.events(1).await, 1);
    world.settle().await;
    world.assert_denied_for(&account, &ann);
    world.assert_denied_for(&later, &ann);
}

#[tokio::test]
async fn always_without_the_scope_is_a_failure() {
    let mut world = World::watched(|setup| {
        setup.options.events = WatchMode::Always;
        setup.sandbox.auth0.granted_scope = "read:users update:users".to_owned();
    })
    .await;
    let watch = world.watch();
    while !obligation(&world).await.1.contains("read:events") {
        tokio::task::yield_now().await;
    }
    assert_eq!(obligation(&world).await.0, Some(false));
    drop(watch.stop().await);
}

#[tokio::test]
async fn mark_of_an_active_user_is_lifted() {
    let mut world = World::watched(|_| ()).await;
    let ann = world.user(ANN);
    let account = world.account(ANN);
    world.leaves(&ann).await;
    let marked: Value = world.auth0().user(&account).unwrap()["app_metadata"].clone();
    world.returns(&ann).await;
    let mut watch = world.watch();
    watch.opened().await;
    // An import brings an old profile back.
    world.auth0().set_user(&account, |user| user["app_metadata"] = marked);
    assert_eq!(watch.events(1).await, 1);
    world.settle().await;
    world.assert_open(&account);
}
