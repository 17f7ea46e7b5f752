//! Marks, mirrors and blocks: what is written, what is restored, what is left alone.

use okta_auth0_sync_sandbox::{Effect, Fault, ProfileLimit};
use serde_json::{Value, json};

use crate::world::{DAY, HOUR, World};

#[tokio::test]
async fn our_block_follows_the_mark() {
    let mut world = World::with(|setup| setup.options.rules.mark.block = true).await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.auth0().user(&account).unwrap()["blocked"], true);
    assert_eq!(world.mark(&account)["blocked"], true);
    // Unblocked by hand while denied, and blocking is no longer configured: the block is restored.
    world.restart(|options| options.rules.mark.block = false).await;
    world.auth0().set_user(&account, |user| user["blocked"] = json!(false));
    world.request(&ann).await;
    assert_eq!(world.auth0().user(&account).unwrap()["blocked"], true);
    world.returns(&ann).await;
    world.assert_open(&account);
    assert_ne!(world.auth0().user(&account).unwrap()["blocked"], true);
}

#[tokio::test]
async fn enabling_block_updates_denied_accounts() {
    let mut world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.restart(|options| options.rules.mark.block = true).await;
    world.reconcile().await;
    assert_eq!(world.mark(&account)["blocked"], true);
    world.returns(&ann).await;
    world.assert_open(&account);
}

#[tokio::test]
async fn foreign_block_is_kept() {
    let world = World::with(|setup| setup.options.rules.mark.block = true).await;
    let ann = world.user("ann@example.com");
    let before = world.auth0().create_user(json!({ "email": "ann@example.com", "blocked": true }));
    world.leaves(&ann).await;
    assert_eq!(world.mark(&before)["blocked"], Value::Null);
    world.returns(&ann).await;
    assert_eq!(world.auth0().user(&before).unwrap()["blocked"], true);
    assert_eq!(world.mark(&before)["deactivated"], "false");
    // Blocked by another tool after we lifted the mark.
    world.auth0().set_user(&before, |user| user["blocked"] = json!(false));
    world.leaves(&ann).await;
    world.returns(&ann).await;
    world.assert_open(&before);
    world.auth0().set_user(&before, |user| user["blocked"] = json!(true));
    world.request(&ann).await;
    world.reconcile().await;
    assert_eq!(world.auth0().user(&before).unwrap()["blocked"], true);
}

#[tokio::test]
async fn our_block_is_lifted_after_metadata_wipe() {
    for restored_first in [true, false] {
        let world = World::with(|setup| setup.options.rules.mark.block = true).await;
        let ann = world.user("ann@example.com");
        let account = world.account("ann@example.com");
        world.leaves(&ann).await;
        world.auth0().set_user(&account, |user| {
            user["app_metadata"] = json!({});
            user["user_metadata"] = json!({});
        });
        if restored_first {
            world.reconcile().await;
            world.assert_denied_for(&account, &ann);
        }
        world.returns(&ann).await;
        world.assert_open(&account);
    }
}

#[tokio::test]
async fn our_block_survives_owner_change() {
    let world = World::with(|setup| setup.options.rules.mark.block = true).await;
    let ann = world.user_called("ann", "team@example.com");
    let bob = world.user_called("bob", "team@example.com");
    let account = world.account("team@example.com");
    world.sync().await;
    world.passes(HOUR);
    world.leaves(&ann).await;
    world.passes(HOUR);
    world.leaves(&bob).await;
    let owner = world.mark(&account)["okta_user_id"].as_str().unwrap().to_owned();
    let other = if owner == ann.as_str() { &bob } else { &ann };
    assert_eq!(world.auth0().user(&account).unwrap()["blocked"], true);
    // All metadata is wiped, and the first look is at another user than the one the block was for.
    world.auth0().set_user(&account, |user| {
        user["app_metadata"] = json!({});
        user["user_metadata"] = json!({});
    });
    world.request(other).await;
    world.assert_denied_for(&account, other);
    assert_eq!(world.mark(&account)["blocked"], true, "it was we who blocked it");
    world.passes(HOUR);
    world.okta().activate(&ann);
    world.okta().activate(&bob);
    world.sync().await;
    world.let_pass(HOUR).await;
    if !world.lets_in(&account) {
        world.approve(other).await;
    }
    world.assert_open(&account);
}

#[tokio::test]
async fn sibling_metadata_is_kept() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.auth0().create_user(json!({
        "email": "ann@example.com",
        "app_metadata": { "plan": "gold", "roles": ["a", "b"] },
        "user_metadata": { "lang": "de", "okta": { "team": { "id": 7 }, "deactivated": "false" } },
    }));
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
    world.returns(&ann).await;
    let user = world.auth0().user(&account).unwrap();
    assert_eq!((&user["app_metadata"]["plan"], &user["app_metadata"]["roles"]), (&json!("gold"), &json!(["a", "b"])));
    assert_eq!(user["user_metadata"], json!({ "lang": "de", "okta": { "team": { "id": 7 }, "deactivated": "false" } }));
}

#[tokio::test]
async fn odd_metadata_is_denied_and_preserved() {
    for (number, (app, user)) in [
        (json!({ "okta_sync": "text" }), json!({ "okta": "text" })),
        (json!({ "okta_sync": ["list"] }), json!({ "okta": ["list"] })),
        (json!({ "okta_sync": null }), json!({ "okta": null })),
        (json!({ "okta_sync": { "deactivated": true } }), json!({ "okta": { "deactivated": true } })),
        (json!({ "okta_sync": { "deactivated": "true" } }), json!({ "okta": {} })),
        (json!({ "okta_sync": { "deactivated": 1, "okta_user_id": 5 } }), json!({ "okta": { "deactivated": 0 } })),
        (json!({ "okta_sync": { "deactivated": { "a": 1 } } }), json!({ "okta": { "deactivated": [] } })),
        (json!(null), json!(null)),
        (json!({}), json!({ "okta": 3.5 })),
    ]
    .into_iter()
    .enumerate()
    {
        let world = World::new().await;
        let ann = world.user("ann@example.com");
        let account = world.auth0().create_user(json!({
            "email": "ann@example.com", "app_metadata": app, "user_metadata": user,
        }));
        world.leaves(&ann).await;
        assert!(!world.lets_in(&account), "shape {number}");
        assert_eq!(world.mark(&account)["okta_user_id"], ann.as_str(), "shape {number}");
        let after = world.auth0().user(&account).unwrap();
        if !matches!(user["okta"], Value::Object(_) | Value::Null) {
            assert_eq!(after["user_metadata"]["okta"], user["okta"], "another tool's, shape {number}");
        }
        world.auth0().journal().clear();
        world.request(&ann).await;
        world.reconcile().await;
        assert_eq!(world.writes(), 0, "shape {number}");
        world.returns(&ann).await;
        assert!(world.lets_in(&account), "shape {number}");
    }
}

#[tokio::test]
async fn refused_mirror_falls_back_to_mark_only() {
    for status in [400, 413] {
        let world =
            World::with(|setup| setup.sandbox.auth0.profile_limit = Some(ProfileLimit { bytes: 1200, status })).await;
        let ann = world.user("ann@example.com");
        let account = world.auth0().create_user(json!({ "email": "ann@example.com" }));
        let fault = Effect::Status {
            code: status,
            body: json!({ "statusCode": status, "message": "too much" }),
            headers: vec![],
        };
        // Auth0 refuses each write of `user_metadata`: the first of each two.
        world.auth0().faults().add(Fault::new("PATCH", "/api/v2/users/", fault.clone()).times(1));
        world.leaves(&ann).await;
        assert_eq!(world.mark(&account)["deactivated"], "true");
        assert!(!world.lets_in(&account));
        assert_eq!(world.outcome(&ann).await, "applied");
        assert_eq!(world.alarms().await, [format!("mirror_refused of {ann}")]);
        assert_eq!(world.writes(), 2);
        // Later only the mirror is tried again, and nothing else is written.
        world.auth0().faults().add(Fault::new("PATCH", "/api/v2/users/", fault.clone()).times(1));
        world.auth0().journal().clear();
        assert!(world.reconcile().await.iter().all(|report| report.writes == 0));
        assert_eq!(world.writes(), 1);
        assert_eq!(world.alarms().await, [format!("mirror_refused of {ann}")]);
        // When Auth0 accepts it, the alarm ends.
        world.reconcile().await;
        world.assert_denied_for(&account, &ann);
        assert!(world.alarms().await.is_empty());
    }
}

#[tokio::test]
async fn refused_update_does_not_stop_other_accounts() {
    let world = World::with(|setup| setup.options.max_attempts = 3).await;
    let ann = world.user("ann@example.com");
    let good = [
        world.account("ann@example.com"),
        world.auth0().create_user(
            json!({ "user_id": "google-oauth2|9", "connection": "google-oauth2", "email": "ann@example.com" }),
        ),
    ];
    let bad = world
        .auth0()
        .create_user(json!({ "user_id": "acme-saml|bad", "connection": "acme-saml", "email": "ann@example.com" }));
    let path = "/api/v2/users/acme-saml%7Cbad";
    let body = json!({ "statusCode": 400, "errorCode": "operation_not_supported", "message": "cannot be updated" });
    world.auth0().faults().add(Fault::new("PATCH", path, Effect::Status { code: 400, body, headers: vec![] }));
    world.leaves(&ann).await;
    good.iter().for_each(|account| world.assert_denied_for(account, &ann));
    world.assert_open(&bad);
    world.let_pass(HOUR).await;
    assert!(world.outcome(&ann).await.starts_with("failed"));
    world.auth0().faults().clear();
    world.let_pass(DAY + HOUR).await;
    world.assert_denied_for(&bad, &ann);
    assert_eq!(world.outcome(&ann).await, "applied");
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn response_without_mark_is_not_trusted() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    let other = world.auth0().create_user(
        json!({ "user_id": "google-oauth2|9", "connection": "google-oauth2", "email": "ann@example.com" }),
    );
    let before = json!({ "user_id": account, "email": "ann@example.com", "app_metadata": {} });
    let path = format!("/api/v2/users/{}", account.replace('|', "%7C"));
    let lost = Effect::ReplaceBody(before.to_string().into_bytes());
    world.auth0().faults().add(Fault::new("PATCH", &path, lost).times(1));
    world.leaves(&ann).await;
    assert!(world.outcome(&ann).await.starts_with("retry"));
    world.assert_denied_for(&other, &ann);
    world.let_pass(10 * crate::world::SECOND).await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.outcome(&ann).await, "unchanged");
}

#[tokio::test]
async fn account_deleted_before_write_does_not_fail() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    let other = world.auth0().create_user(
        json!({ "user_id": "google-oauth2|9", "connection": "google-oauth2", "email": "ann@example.com" }),
    );
    world.okta().deactivate(&ann);
    world.poll().await;
    let hold = world.auth0().faults().hold(okta_auth0_sync_sandbox::Matcher::new(
        "PATCH",
        &format!("/api/v2/users/{}", account.replace('|', "%7C")),
    ));
    let (looked, ()) = tokio::join!(world.settle(), async {
        hold.arrived().await;
        world.auth0().delete_user(&account);
        hold.release();
    });
    assert_eq!(crate::world::outcomes(&looked), ["retry"]);
    world.assert_denied_for(&other, &ann);
    world.let_pass(10 * crate::world::SECOND).await;
    assert_eq!(world.outcome(&ann).await, "unchanged");
    assert!(
        world.store().accounts_of(&ann).await.unwrap().iter().all(|row| row.auth0_user_id != account || !row.denied)
    );
}

#[tokio::test]
async fn lost_response_is_undone_when_user_returns() {
    for enforced_sessions in [false, true] {
        let mut world = World::with(|setup| setup.options.rules.end_sessions = enforced_sessions).await;
        let ann = world.user("ann@example.com");
        let account = world.account("ann@example.com");
        world.sync().await;
        let dropped = Effect::AfterEffect(Box::new(Effect::Drop));
        world.auth0().faults().add(Fault::new("PATCH", "/api/v2/users/", dropped).times(1));
        world.leaves(&ann).await;
        assert!(!world.lets_in(&account), "it was executed");
        world.restart(|_| ()).await;
        world.okta().activate(&ann);
        world.sync().await;
        world.let_pass(2 * crate::world::MINUTE).await;
        world.assert_open(&account);
        assert!(world.reconcile().await.iter().all(|report| report.writes == 0));
    }
}

#[tokio::test]
async fn ownerless_mark_is_adopted_never_lifted() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann@example.com"), world.user("bob@example.com"));
    let seed = |email: &str| {
        world.auth0().create_user(json!({ "email": email, "user_metadata": { "okta": { "deactivated": "true" } } }))
    };
    let (anns, bobs) = (seed("ann@example.com"), seed("bob@example.com"));
    world.sync().await;
    world.request(&bob).await;
    world.reconcile().await;
    assert_eq!(world.alarms().await, ["foreign_flag"]);
    let detail = world.store().open_alarms().await.unwrap().remove(0).detail;
    assert!(detail.contains(": 2;"), "{detail}");
    world.leaves(&ann).await;
    world.assert_denied_for(&anns, &ann);
    world.reconcile().await;
    let detail = world.store().open_alarms().await.unwrap().remove(0).detail;
    assert!(detail.contains(": 1;"), "{detail}");
    world.returns(&ann).await;
    world.assert_open(&anns);
    assert!(!world.lets_in(&bobs), "Bob is active, and the flag is not ours to lift");
    world.auth0().set_user(&bobs, |user| user["user_metadata"]["okta"]["deactivated"] = json!("false"));
    world.reconcile().await;
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn removed_mark_is_restored_then_alarms() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    for round in 1..=3 {
        world.passes(HOUR);
        world.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
        world.reconcile().await;
        world.assert_denied_for(&account, &ann);
        let alarms = world.alarms().await;
        assert_eq!(alarms.len(), usize::from(round == 3), "round {round}: {alarms:?}");
    }
    world.passes(2 * DAY);
    world.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    world.reconcile().await;
    assert!(world.alarms().await.is_empty(), "one restoration a day raises no alarm");
}

#[tokio::test]
async fn correct_account_gets_no_write() {
    let world = World::with(|setup| setup.options.rules.mark.block = true).await;
    let ann = world.user("ann@example.com");
    world.account("ann@example.com");
    world.leaves(&ann).await;
    assert_eq!(world.writes(), 1);
    for _ in 0..3 {
        world.passes(DAY);
        world.request(&ann).await;
        assert!(world.reconcile().await.is_empty());
    }
    assert_eq!(world.writes(), 1);
    world.returns(&ann).await;
    world.request(&ann).await;
    world.reconcile().await;
    assert_eq!(world.writes(), 2);
}

#[tokio::test]
async fn forgotten_user_mark_is_kept_then_lifted() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    let policy = world.options.rules.fingerprint();
    world.store().forget(&ann, "a test", &policy, world.now()).await.unwrap();
    world.assert_denied_for(&account, &ann);
    world.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
    world.returns(&ann).await;
    world.assert_open(&account);
}
