//! Data that others size: no amount of it keeps an account open, stops a reconcile or makes a purge claim too much.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync::engine::purge::Purge;
use okta_auth0_sync_sandbox::ProfileLimit;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::world::{DAY, World};

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
    let ann = world.user("ann@example.com");
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
    let ann = world.user("ann@example.com");
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
    let ann = world.user("ann@example.com");
    let account = world.auth0().create_user(json!({ "email": "ann@example.com", "app_metadata": filler(TOO_MUCH) }));
    world.leaves(&ann).await;
    assert!(!world.lets_in(&account));
    assert_eq!(world.mark(&account)["okta_user_id"], ann.as_str());
    assert_eq!(world.outcome(&ann).await, "applied");
    assert!(world.store().accounts_of(&ann).await.unwrap()[0].denied);
    world.auth0().set_user(&account, |user| user["app_metadata"]["okta_sync"] = json!({}));
    world.reconcile().await;
    assert!(!world.lets_in(&account), "a mark that cannot be read is written again");
    world.returns(&ann).await;
    assert!(world.lets_in(&account));
    assert_eq!(world.mark(&account)["deactivated"], "false");
}

#[tokio::test]
async fn full_profile_gets_a_minimal_mark() {
    for status in [400, 413] {
        let world = with_limit(status).await;
        let ann = world.user("ann@example.com");
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
        let ann = world.user("ann@example.com");
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
    let ann = world.user("ann@example.com");
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
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.auth0().set_user(&account, |user| user["blocked"] = json!(true));
    fill(&world, &account, 40);
    world.leaves(&ann).await;
    assert!(world.outcome(&ann).await.starts_with("retry"), "{}", world.outcome(&ann).await);
    world.returns(&ann).await;
    assert_eq!(world.auth0().user(&account).unwrap()["blocked"], true, "we did not block it");
}

/// Accounts with a mark of a lost state, for users who are active.
fn stale_marks(world: &World, count: usize) -> Vec<String> {
    let one = |number: usize| {
        let who = world.user(&format!("active{number}@example.com"));
        world.auth0().create_user(marked(&who, &format!("active{number}@example.com")))
    };
    (0..count).map(one).collect()
}

fn marked(who: &OktaUserId, email: &str) -> Value {
    json!({
        "email": email,
        "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": who.as_str() } },
    })
}

#[tokio::test]
async fn oversized_account_does_not_stop_reconcile() {
    for field in ["user_metadata", "app_metadata"] {
        let world = World::new().await;
        let leavers: Vec<(OktaUserId, String)> = (0..6)
            .map(|number| {
                let address = format!("leaver{number}@example.com");
                (world.user(&address), world.account(&address))
            })
            .collect();
        for (who, _) in &leavers {
            world.okta().deactivate(who);
        }
        world.sync().await;
        world.auth0().set_user(&leavers[2].1, |user| user[field]["filler"] = json!("x".repeat(TOO_MUCH)));
        // Active, with a mark of a lost state.
        let stale = stale_marks(&world, 1).remove(0);
        world.passes(DAY);
        world.reconcile().await;
        assert!(world.lets_in(&stale), "{field}: the mark of an active user is lifted");
        assert!(leavers.iter().all(|(_, account)| !world.lets_in(account)), "{field}");
        assert_eq!(world.store().current_reconcile().await.unwrap(), None, "{field}: it finished");
    }
}

#[tokio::test]
async fn many_large_accounts_do_not_stop_reconcile() {
    let world = World::new().await;
    let accounts = stale_marks(&world, 110);
    for account in &accounts {
        world.auth0().set_user(account, |user| user["app_metadata"]["filler"] = json!("x".repeat(90 << 10)));
    }
    world.passes(DAY);
    world.reconcile().await;
    assert_eq!(accounts.iter().filter(|account| !world.lets_in(account)).count(), 0);
}

#[tokio::test]
async fn purge_clears_and_names_oversized_accounts() {
    let world = World::new().await;
    let users = ["ann", "bob", "carol"].map(|name| {
        let address = format!("{name}@example.com");
        (world.user(&address), world.account(&address))
    });
    for (who, _) in &users {
        world.okta().deactivate(who);
    }
    world.sync().await;
    // Found by the search only, beside an account of which nothing can be read.
    let lost = stale_marks(&world, 2);
    world.auth0().set_user(&users[1].1, |user| user["user_metadata"]["filler"] = json!("x".repeat(TOO_MUCH)));
    world.auth0().set_user(&lost[0], |user| user["app_metadata"]["filler"] = json!("x".repeat(TOO_MUCH)));
    world.passes(DAY);
    let done = purge(&world).await;
    for account in [&users[0].1, &users[2].1, &lost[0], &lost[1]] {
        assert!(world.lets_in(account), "{account}: {done:?}");
        assert_eq!(world.mark(account), Value::Null, "{account}");
    }
    assert_eq!(world.mark(&users[1].1), Value::Null, "the mark is removed");
    // A mirror that cannot be read may still deny.
    let left: Vec<&str> = done.left.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((left, done.incomplete), (vec![users[1].1.as_str(), lost[0].as_str()], None));
    assert!(done.left[0].1.contains("user_metadata"), "{:?}", done.left);
}

#[tokio::test]
async fn accountless_leaver_is_searched_without_limit() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    world.leaves(&ann).await;
    world.let_pass(2 * DAY).await;
    assert_eq!(world.outcome(&ann).await, "no_account");
    world.passes(200 * DAY);
    let account = world.account("ann@example.com");
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn returned_user_is_found_by_mark() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    world.okta().deactivate_silently(&ann);
    world.sync().await;
    // Marked before the backup that this state was restored from, and renamed since.
    let account = world.auth0().create_user(marked(&ann, "ann.old@example.com"));
    world.passes(DAY);
    world.returns(&ann).await;
    world.assert_open(&account);
}

#[tokio::test]
async fn reconcile_pages_1200_marks() {
    let world = World::with(|setup| setup.options.guard.denials_max = 10_000.into()).await;
    let accounts: Vec<String> = (0..1200)
        .map(|number| {
            let who = world.user(&format!("p{number}@example.com"));
            let mut account = marked(&who, &format!("p{number}@example.com"));
            // Some in the same millisecond, across a range's end too.
            let at = world.now() + jiff::SignedDuration::from_millis(i64::from(number / 7 * 3));
            account["created_at"] = json!(at.to_string());
            world.auth0().create_user(account)
        })
        .collect();
    world.passes(DAY);
    assert_eq!(world.compare(okta_auth0_sync::engine::reconciler::Scope::All).await, 1200);
    world.settle().await;
    assert_eq!(accounts.iter().filter(|account| !world.lets_in(account)).count(), 0);
}
