//! Several installations on one Auth0 tenant, and a metadata key that changes.

use okta_auth0_sync::auth0::ShippedAction;
use okta_auth0_sync::domain::mark::MetadataKeys;
use okta_auth0_sync::store::StoreError;
use okta_auth0_sync_sandbox::{Auth0Tenant, Fault};
use serde_json::{Value, json};

use okta_auth0_sync::domain::OktaUserId;

use crate::world::{DAY, HOUR, MINUTE, Network, World};

const OTHER_ORG: &str = "00oOtherOrg000000000";

/// Deploys the Action of a key and binds it beside those that are bound.
fn bind_action(tenant: &Auth0Tenant, key: &str) {
    let action = ShippedAction::new("account_deactivated", key);
    tenant.action().install(&action.name, &action.code);
    tenant.action().place(&action.name, Some(0));
}

/// A world with accounts of `ann`, and a second installation with this key, in which the same person is a user too.
async fn two(block: bool, key: &str) -> (World, World) {
    let ours = World::with(|setup| setup.options.rules.mark.block = block).await;
    let theirs = ours.other_installation(OTHER_ORG, key).await;
    // Each stand-in counts its ids from the start; real ids are unique across orgs.
    theirs.user("first@example.com");
    if key != "okta_sync" {
        bind_action(ours.auth0(), key);
    }
    (ours, theirs)
}

#[tokio::test]
async fn denied_by_two_orgs_until_both_admit() {
    for block in [false, true] {
        let (ours, theirs) = two(block, "other_sync").await;
        let account = ours.account("ann@example.com");
        let (here, there) = (ours.user("ann@example.com"), theirs.user("ann@example.com"));
        assert_ne!(here, there);
        ours.leaves(&here).await;
        theirs.leaves(&there).await;
        let user = ours.auth0().user(&account).unwrap();
        assert_eq!(user["app_metadata"]["okta_sync"]["okta_user_id"], here.as_str());
        assert_eq!(user["app_metadata"]["other_sync"]["okta_user_id"], there.as_str());
        assert_eq!(user["app_metadata"]["other_sync"]["okta_org"], OTHER_ORG);
        ours.returns(&here).await;
        assert!(!ours.lets_in(&account), "block {block}: the other org still denies the user");
        assert_eq!(ours.auth0().user(&account).unwrap()["user_metadata"]["okta"]["deactivated"], "true");
        ours.reconcile().await;
        theirs.reconcile().await;
        assert!(!ours.lets_in(&account), "block {block}");
        theirs.returns(&there).await;
        let user = ours.auth0().user(&account).unwrap();
        assert!(ours.lets_in(&account), "block {block}: {user}");
        assert_ne!(user["blocked"], json!(true));
        assert_eq!(user["user_metadata"]["okta"]["deactivated"], "false");
    }
}

#[tokio::test]
async fn purge_and_reconcile_leave_others_marks() {
    for key in ["other_sync", "okta_sync"] {
        let (ours, theirs) = two(true, key).await;
        let account = ours.account("zoe@example.com");
        let zoe = theirs.user("zoe@example.com");
        theirs.leaves(&zoe).await;
        assert!(!ours.lets_in(&account));
        ours.sync().await;
        ours.passes(MINUTE);
        ours.reconcile().await;
        assert!(ours.store().find_users(zoe.as_str()).await.unwrap().is_empty(), "{key}: a user of another org");
        let stop = tokio_util::sync::CancellationToken::new();
        let purge = ours.engine().purge(false, &stop, |_| ()).await.unwrap();
        assert_eq!((purge.freed, purge.incomplete, purge.left.len()), (0, None, 0), "{key}");
        assert!(!ours.lets_in(&account), "{key}: the other installation denies the account");
        assert_eq!(ours.auth0().user(&account).unwrap()["blocked"], json!(true));
    }
}

#[tokio::test]
async fn purge_finds_ours_behind_many_of_another_org() {
    let world = World::new().await;
    let marked = |name: &str, org: &str| {
        world.auth0().create_user(json!({
            "email": format!("{name}@example.com"),
            "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": "00uLost", "okta_org": org } },
        }))
    };
    for number in 0..1100 {
        marked(&format!("p{number}"), OTHER_ORG);
        if number % 100 == 0 {
            world.passes(MINUTE);
        }
    }
    world.sync().await;
    let org = world.store().okta_org().await.unwrap().unwrap();
    let ours = marked("ours", &org);
    world.passes(MINUTE);
    let stop = tokio_util::sync::CancellationToken::new();
    for dry_run in [true, false] {
        let purge = world.engine().purge(dry_run, &stop, |_| ()).await.unwrap();
        assert_eq!((purge.freed, purge.incomplete, purge.left.len()), (1, None, 0), "dry run {dry_run}");
    }
    assert!(world.lets_in(&ours));
}

#[tokio::test]
async fn shared_metadata_key_is_an_alarm() {
    let (ours, theirs) = two(false, "okta_sync").await;
    let account = ours.account("ann@example.com");
    let (here, there) = (ours.user("ann@example.com"), theirs.user("ann@example.com"));
    theirs.leaves(&there).await;
    ours.leaves(&here).await;
    assert_eq!(ours.outcome(&here).await, "unchanged");
    assert_eq!(ours.mark(&account)["okta_org"], OTHER_ORG, "an account has room for one mark under a key");
    ours.passes(MINUTE);
    ours.reconcile().await;
    assert!(ours.alarms().await.iter().any(|alarm| alarm.starts_with("foreign_flag")), "{:?}", ours.alarms().await);
    ours.returns(&here).await;
    assert!(!ours.lets_in(&account), "the other org denies the user");
    ours.leaves(&here).await;
    theirs.returns(&there).await;
    ours.passes(MINUTE);
    ours.reconcile().await;
    ours.assert_denied_for(&account, &here);
    assert!(!ours.alarms().await.iter().any(|alarm| alarm.starts_with("foreign_flag")));
}

/// The keys after a change from `okta_sync` to `acme_sync`.
fn changed() -> MetadataKeys {
    MetadataKeys { current: "acme_sync".to_owned(), former: vec!["okta_sync".to_owned()] }
}

#[tokio::test]
async fn changed_key_denies_throughout_and_is_rewritten() {
    let mut world = World::new().await;
    let emails = ["ann", "bob", "eve"].map(|name| format!("{name}@example.com"));
    let users: Vec<_> = emails.iter().map(|email| (world.user(email), world.account(email))).collect();
    for (user, _) in &users {
        world.leaves(user).await;
    }
    // The order that the documentation gives: the Action for the new key beside the old one, then the restart.
    bind_action(world.auth0(), "acme_sync");
    world.keys = changed();
    world.restart_with(Network::default()).await;
    // Before the reconcile: a user who returns is admitted, whatever key the mark is under.
    let (bob, account) = &users[1];
    world.returns(bob).await;
    assert!(world.lets_in(account));
    world.reconcile().await;
    for (_, account) in [&users[0], &users[2]] {
        let metadata = world.auth0().user(account).unwrap()["app_metadata"].clone();
        assert_eq!((&metadata["okta_sync"], &metadata["acme_sync"]["deactivated"]), (&Value::Null, &json!("true")));
    }
    assert!(world.auth0().action().remove("okta-auth0-sync"));
    world.keys = MetadataKeys::only("acme_sync");
    world.restart_with(Network::default()).await;
    for (index, (_, account)) in users.iter().enumerate() {
        assert_eq!(world.lets_in(account), index == 1, "{account}");
    }
    let (ann, account) = &users[0];
    world.returns(ann).await;
    assert!(world.lets_in(account));
}

#[tokio::test]
async fn purge_removes_marks_under_former_keys() {
    let mut world = World::new().await;
    let (ann, account) = (world.user("ann@example.com"), world.account("ann@example.com"));
    world.leaves(&ann).await;
    world.keys = changed();
    world.restart_with(Network::default()).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let purge = world.engine().purge(false, &stop, |_| ()).await.unwrap();
    assert_eq!((purge.freed, purge.incomplete), (1, None));
    let metadata = world.auth0().user(&account).unwrap()["app_metadata"].clone();
    assert_eq!((&metadata["okta_sync"], &metadata["acme_sync"]), (&Value::Null, &Value::Null));
    assert!(world.lets_in(&account));
}

#[tokio::test]
async fn key_once_shared_keeps_marks_of_other_org() {
    // This installation once shared its key with another one, and moved away from it.
    let (theirs, mut ours) = two(false, "okta_sync").await;
    let (shared, own) = (ours.keys.clone(), theirs.account("ann@example.com"));
    assert_eq!(shared, MetadataKeys::only("okta_sync"));
    let (there, here) = (theirs.user("ann@example.com"), ours.user("ann@example.com"));
    theirs.leaves(&there).await;
    ours.leaves(&here).await;
    ours.keys = changed();
    let auth0 = theirs.auth0();
    ours.restart_with(Network {
        auth0_url: Some(auth0.url().to_owned()),
        auth0_audience: Some(auth0.audience()),
        auth0: Some(okta_auth0_sync::auth0::Credentials::Secret {
            client_id: auth0.client_id(),
            client_secret: auth0.client_secret().into(),
        }),
        ..Network::default()
    })
    .await;
    ours.reconcile().await;
    let metadata = auth0.user(&own).unwrap()["app_metadata"].clone();
    assert_eq!(metadata["okta_sync"]["okta_user_id"], there.as_str(), "{metadata}");
    assert_eq!(metadata["acme_sync"]["okta_user_id"], here.as_str(), "{metadata}");
}

#[tokio::test]
async fn changed_key_without_the_former_one_is_refused() {
    let mut world = World::new().await;
    let (ann, _) = (world.user("ann@example.com"), world.account("ann@example.com"));
    world.leaves(&ann).await;
    world.keys = MetadataKeys::only("acme_sync");
    let error = world.try_restart().await.unwrap_err();
    assert!(matches!(error, StoreError::KeyChanged { .. }) && error.is_configuration(), "{error}");
    world.keys = changed();
    world.try_restart().await.unwrap();
}

/// A world in which `ann` left and was marked under a key that the configuration does not name: with a mirror, or without.
async fn marked_under_an_unnamed_key(mirror: bool) -> (World, OktaUserId, String) {
    let mut world = World::with(|setup| setup.options.rules.mark.mirror = mirror).await;
    world.keys = MetadataKeys::only("acme_sync");
    bind_action(world.auth0(), "acme_sync");
    world.restart_with(Network::default()).await;
    let (ann, account) = (world.user("ann@example.com"), world.account("ann@example.com"));
    world.leaves(&ann).await;
    assert!(!world.lets_in(&account));
    // The state is lost, and the key is set back.
    world.engine().store().close().await;
    world.folder = tempfile::tempdir().unwrap();
    world.keys = MetadataKeys::only("okta_sync");
    (world, ann, account)
}

#[tokio::test]
async fn unnamed_key_of_our_org_is_lifted_on_return() {
    for mirror in [true, false] {
        let (mut world, ann, account) = marked_under_an_unnamed_key(mirror).await;
        world.restart_with(Network::default()).await;
        world.returns(&ann).await;
        let metadata = world.auth0().user(&account).unwrap()["app_metadata"].clone();
        assert!(world.lets_in(&account), "mirror {mirror}: {metadata}");
        assert_eq!(metadata["acme_sync"], Value::Null);
    }
}

#[tokio::test]
async fn reconcile_finds_unnamed_key_by_the_mirror() {
    let (mut world, ann, account) = marked_under_an_unnamed_key(true).await;
    world.restart_with(Network::default()).await;
    // The return happened before the state begins.
    world.okta().activate(&ann);
    world.passes(30 * DAY);
    world.sync().await;
    world.reconcile().await;
    assert!(world.lets_in(&account), "{:?}", world.alarms().await);
    assert_eq!(world.alarms().await, [""; 0]);
}

#[tokio::test]
async fn unnamed_key_moves_while_denied_and_is_purged() {
    let (mut world, ann, account) = marked_under_an_unnamed_key(false).await;
    world.restart_with(Network::default()).await;
    world.sync().await;
    world.reconcile().await;
    let metadata = world.auth0().user(&account).unwrap()["app_metadata"].clone();
    assert_eq!(metadata["okta_sync"]["okta_user_id"], ann.as_str());
    assert_eq!(metadata["acme_sync"], Value::Null, "{metadata}");

    let (mut world, _, account) = marked_under_an_unnamed_key(true).await;
    world.restart_with(Network::default()).await;
    world.poll().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let purge = world.engine().purge(false, &stop, |_| ()).await.unwrap();
    assert_eq!((purge.freed, purge.incomplete), (1, None));
    assert!(world.lets_in(&account));
}

#[tokio::test]
async fn marks_wait_for_the_action_of_the_new_key() {
    let mut world = World::with(|setup| setup.options.rules.mark.mirror = false).await;
    let emails = ["ann", "bob", "eve"].map(|name| format!("{name}@example.com"));
    let users: Vec<_> = emails.iter().map(|email| (world.user(email), world.account(email))).collect();
    let (ann, bob, eve) = (&users[0], &users[1], &users[2]);
    world.leaves(&ann.0).await;
    world.leaves(&eve.0).await;
    // Restarted before `action deploy`: only the Action for the old key is bound.
    world.keys = changed();
    world.restart_with(Network::default()).await;
    world.sync().await;
    world.reconcile().await;
    world.leaves(&bob.0).await;
    for (_, account) in &users {
        let metadata = world.auth0().user(account).unwrap()["app_metadata"].clone();
        assert!(!world.lets_in(account), "{account}: {metadata}");
    }
    world.engine().update_key_change().await.unwrap();
    let open = world.store().open_alarms().await.unwrap();
    let waits = open.iter().find(|alarm| alarm.kind == "key_change").expect("status says what it waits for");
    assert!(waits.detail.contains("under the former metadata key okta_sync: 3"), "{waits:?}");
    assert!(waits.remedy.contains("okta-auth0-sync action deploy"), "{waits:?}");

    // Both keys are lifted, and written again.
    world.returns(&bob.0).await;
    assert!(world.lets_in(&bob.1));
    world.leaves(&bob.0).await;

    // The former key cannot be dropped while marks are under it.
    world.keys = MetadataKeys::only("acme_sync");
    let error = world.try_restart().await.unwrap_err();
    assert!(matches!(error, StoreError::KeyChanged { .. }) && error.is_configuration(), "{error}");
    world.keys = changed();
    world.restart_with(Network::default()).await;

    // Nothing is decided about a suspended user, but the mark moves too.
    world.okta().activate(&eve.0);
    world.okta().suspend(&eve.0);
    world.sync().await;
    assert!(!world.lets_in(&eve.1));
    bind_action(world.auth0(), "acme_sync");
    world.reconcile().await;
    world.engine().update_key_change().await.unwrap();
    assert!(world.auth0().action().remove("okta-auth0-sync"));
    for (who, account) in &users {
        let metadata = world.auth0().user(account).unwrap()["app_metadata"].clone();
        assert!(!world.lets_in(account), "{metadata}");
        assert_eq!(
            (&metadata["okta_sync"], &metadata["acme_sync"]["okta_user_id"]),
            (&Value::Null, &json!(who.as_str()))
        );
    }
    assert_eq!(world.alarms().await, [""; 0]);
    world.keys = MetadataKeys::only("acme_sync");
    world.try_restart().await.unwrap();
}

#[tokio::test]
async fn mark_that_does_not_move_is_an_alarm() {
    let mut world = World::new().await;
    let (ann, account) = (world.user("ann@example.com"), world.account("ann@example.com"));
    world.leaves(&ann).await;
    bind_action(world.auth0(), "acme_sync");
    world.keys = changed();
    world.restart_with(Network::default()).await;
    let fault = world.auth0().faults().add(Fault::status("PATCH", "/api/v2/users", 500));
    world.reconcile().await;
    assert!(world.alarms().await.contains(&"key_change".to_owned()), "{:?}", world.alarms().await);
    world.auth0().faults().remove(fault);
    world.let_pass(HOUR).await;
    world.engine().update_key_change().await.unwrap();
    assert!(!world.alarms().await.contains(&"key_change".to_owned()));
    assert_eq!(world.auth0().user(&account).unwrap()["app_metadata"]["okta_sync"], Value::Null);
}
