//! Data that others size: no amount of it keeps an account open, stops a reconcile or makes a purge claim too much.

use okta_auth0_sync::engine::purge::Purge;
use okta_auth0_sync_sandbox::ProfileLimit;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::world::{DAY, World};

/// More than the client reads of any response.
const TOO_MUCH: usize = 9 << 20;
/// The largest profile in the tests of a full profile.
const LIMIT: usize = 3000;

fn filler(bytes: usize) -> Value {
    json!({ "filler": "x".repeat(bytes) })
}

async fn purge(world: &World) -> Purge {
    world.engine().purge(false, &CancellationToken::new(), |_| ()).await.unwrap()
}

/// Fills the profile so that `room` bytes are left below the limit.
fn fill(world: &World, account: &str, room: usize) {
    let set = |bytes: usize| {
        world.auth0().set_user(account, |user| user["user_metadata"]["filler"] = json!("x".repeat(bytes)))
    };
    set(0);
    let used = world.auth0().user(account).unwrap().to_string().len();
    set(LIMIT - room - used);
}

async fn with_limit(status: u16) -> World {
    World::with(|setup| setup.sandbox.auth0.profile_limit = Some(ProfileLimit { bytes: LIMIT, status })).await
}

#[tokio::test]
async fn own_oversized_metadata_does_not_prevent_denial() {
    let world = World::new().await;
    let ann = world.person("ann@example.com");
    let account = world.account("ann@example.com");
    world.auth0().set_user(&account, |user| user["user_metadata"] = filler(TOO_MUCH));
    world.leaves(&ann).await;
    assert!(!world.lets_in(&account));
    assert_eq!(world.mark(&account)["okta_user_id"], ann.as_str());
    assert_eq!(world.outcome(&ann).await, "applied");
    let user = world.auth0().user(&account).unwrap();
    assert_eq!(user["user_metadata"]["filler"].as_str().unwrap().len(), TOO_MUCH, "the user's data is kept");
    world.auth0().journal().clear();
    world.request(&ann).await;
    assert_eq!(world.writes(), 0, "the mark is read without the metadata");
    world.returns(&ann).await;
    assert!(world.lets_in(&account));
}

#[tokio::test]
async fn oversized_neighbour_account_does_not_prevent_denial() {
    let world = World::new().await;
    let ann = world.person("ann@example.com");
    let account = world.account("ann@example.com");
    let second = world.auth0().create_user(json!({
        "email": "ann@example.com", "connection": "google-oauth2", "user_metadata": filler(TOO_MUCH),
    }));
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
    assert!(!world.lets_in(&second));
    assert_eq!(world.outcome(&ann).await, "applied");
    world.returns(&ann).await;
    assert!(world.lets_in(&account) && world.lets_in(&second));
}

#[tokio::test]
async fn oversized_app_metadata_is_denied_unread() {
    let world = World::new().await;
    let ann = world.person("ann@example.com");
    let account = world.auth0().create_user(json!({ "email": "ann@example.com", "app_metadata": filler(TOO_MUCH) }));
    world.leaves(&ann).await;
    assert!(!world.lets_in(&account));
    assert_eq!(world.mark(&account)["okta_user_id"], ann.as_str());
    assert_eq!(world.outcome(&ann).await, "applied");
    assert!(world.store().accounts_of(&ann).await.unwrap()[0].denied);
    world.auth0().set_user(&account, |user| user["app_metadata"]["okta_sync"] = json!({}));
    world.request(&ann).await;
    assert!(!world.lets_in(&account), "a mark that cannot be read is written again");
    world.returns(&ann).await;
    assert!(world.lets_in(&account));
    assert_eq!(world.mark(&account)["deactivated"], "false");
}

#[tokio::test]
async fn full_profile_gets_a_minimal_mark() {
    for status in [400, 413] {
        let world = with_limit(status).await;
        let ann = world.person("ann@example.com");
        let account = world.account("ann@example.com");
        fill(&world, &account, 180);
        world.leaves(&ann).await;
        assert!(!world.lets_in(&account), "{status}");
        assert_eq!(world.mark(&account)["okta_user_id"], ann.as_str());
        assert_eq!(world.auth0().user(&account).unwrap()["blocked"], Value::Null);
        assert_eq!(world.outcome(&ann).await, "applied");
        // The user fills what is left: not even `false` in the place of `true` fits.
        fill(&world, &account, 0);
        world.returns(&ann).await;
        assert!(world.lets_in(&account), "{status}: the mark is lifted");
        assert!(!world.store().accounts_of(&ann).await.unwrap().iter().any(|account| account.denied));
    }
}

#[tokio::test]
async fn full_profile_is_blocked_alone_and_undone() {
    for status in [400, 413] {
        let world = with_limit(status).await;
        let ann = world.person("ann@example.com");
        let account = world.account("ann@example.com");
        fill(&world, &account, 40);
        world.leaves(&ann).await;
        assert!(!world.lets_in(&account), "{status}: blocked");
        assert_eq!(world.outcome(&ann).await, "applied");
        let row = world.store().accounts_of(&ann).await.unwrap().remove(0);
        assert!(row.denied && row.blocked);
        let decisions = world.store().decisions(None, None, 0, 100).await.unwrap();
        let applied = decisions.iter().find(|row| row.outcome == "applied").unwrap();
        assert_eq!(applied.after.as_deref(), Some("denied by block only"));
        assert_eq!(applied.why.as_deref(), Some("mark_refused"));
        // Later looks try the mark again, and say that nothing changed.
        world.passes(DAY);
        world.reconcile().await;
        assert_eq!(world.outcome(&ann).await, "unchanged");
        assert!(!world.alarms().await.iter().any(|alarm| alarm.starts_with("restored")));
        // A block that another program lifts is restored.
        world.auth0().set_user(&account, |user| user["blocked"] = json!(false));
        world.reconcile().await;
        assert!(!world.lets_in(&account), "{status}: blocked again");
        world.returns(&ann).await;
        assert!(world.lets_in(&account), "{status}: unblocked");
        assert!(!world.store().accounts_of(&ann).await.unwrap().iter().any(|account| account.denied));
    }
}

#[tokio::test]
async fn block_alone_is_purged() {
    let world = with_limit(413).await;
    let ann = world.person("ann@example.com");
    let account = world.account("ann@example.com");
    fill(&world, &account, 40);
    world.leaves(&ann).await;
    assert!(!world.lets_in(&account));
    let done = purge(&world).await;
    assert_eq!((done.freed, done.left.len(), done.incomplete), (1, 0, None));
    assert!(world.lets_in(&account));
}

#[tokio::test]
async fn block_of_others_is_kept_on_full_profile() {
    let world = with_limit(413).await;
    let ann = world.person("ann@example.com");
    let account = world.account("ann@example.com");
    world.auth0().set_user(&account, |user| user["blocked"] = json!(true));
    fill(&world, &account, 40);
    world.leaves(&ann).await;
    assert!(world.outcome(&ann).await.starts_with("retry"), "{}", world.outcome(&ann).await);
    world.returns(&ann).await;
    assert_eq!(world.auth0().user(&account).unwrap()["blocked"], true, "we did not block it");
}

#[tokio::test]
async fn accountless_leaver_is_searched_without_limit() {
    let world = World::new().await;
    let ann = world.person("ann@example.com");
    world.leaves(&ann).await;
    world.let_pass(2 * DAY).await;
    assert_eq!(world.outcome(&ann).await, "no_account");
    world.passes(200 * DAY);
    let account = world.account("ann@example.com");
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
}
