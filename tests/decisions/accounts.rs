//! Which accounts a user's denial covers, and which it leaves alone.

use std::collections::BTreeSet;

use okta_auth0_sync::domain::Policy;
use serde_json::json;

use crate::world::{DAY, World};

#[tokio::test]
async fn denies_and_restores_every_account() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let accounts: Vec<String> = ["Username-Password-Authentication", "google-oauth2", "acme-saml", "acme-okta"]
        .into_iter()
        .map(|connection| world.auth0().create_user(json!({ "connection": connection, "email": "ann@example.com" })))
        .collect();
    world.leaves(&ann).await;
    accounts.iter().for_each(|account| world.assert_denied_for(account, &ann));
    assert_eq!(world.writes(), 4);
    world.returns(&ann).await;
    accounts.iter().for_each(|account| world.assert_open(account));
    assert_eq!(world.writes(), 8);
}

#[tokio::test]
async fn marks_primary_of_linked_accounts() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let primary = world.account("ann@example.com");
    let social = world.auth0().create_user(json!({ "connection": "google-oauth2", "email": "ann@example.com" }));
    assert!(world.auth0().link(&primary, &social));
    world.leaves(&ann).await;
    world.assert_denied_for(&primary, &ann);
    assert_eq!(world.writes(), 1);
}

#[tokio::test]
async fn denied_account_linked_later_moves_to_primary() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    let primary = world.account("ann@example.com");
    let social = world.auth0().create_user(json!({ "connection": "google-oauth2", "email": "ann@example.com" }));
    world.leaves(&ann).await;
    assert!(world.auth0().link(&primary, &social));
    world.reconcile().await;
    world.assert_denied_for(&primary, &ann);
    world.returns(&ann).await;
    world.assert_open(&primary);
    assert!(world.store().accounts_of(&ann).await.unwrap().iter().all(|account| !account.denied));
}

#[tokio::test]
async fn only_configured_connections() {
    let world = World::with(|setup| setup.options.rules.connections = vec!["acme-okta".to_owned()]).await;
    let ann = world.user("ann@example.com");
    let inside = world.auth0().create_user(json!({ "connection": "acme-okta", "email": "ann@example.com" }));
    let outside = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.assert_denied_for(&inside, &ann);
    world.assert_open(&outside);
    assert!(world.reconcile().await.is_empty(), "an account out of scope is not a difference");
    // One denied account of hers does not make another one ours.
    world.request(&ann).await;
    world.assert_open(&outside);
}

#[tokio::test]
async fn narrowed_connections_keep_denials() {
    let mut world = World::new().await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.leaves(&ann).await;
    world.restart(|options| options.rules.connections = vec!["acme-okta".to_owned()]).await;
    world.reconcile().await;
    world.request(&ann).await;
    world.assert_denied_for(&account, &ann);
    world.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
    world.returns(&ann).await;
    world.assert_open(&account);
}

#[tokio::test]
async fn only_verified_addresses_if_required() {
    let world = World::with(|setup| setup.options.rules.require_verified_email = true).await;
    let ann = world.user("ann@example.com");
    let verified = world.account("ann@example.com");
    let squatter = world.auth0().create_user(json!({
        "connection": "google-oauth2", "email": "ann@example.com", "email_verified": false,
    }));
    world.leaves(&ann).await;
    world.assert_denied_for(&verified, &ann);
    world.assert_open(&squatter);
}

#[tokio::test]
async fn trusted_connection_needs_no_verified_address() {
    let world = World::with(|setup| {
        setup.options.rules.require_verified_email = true;
        setup.options.rules.trusted_connections = vec!["acme-saml".to_owned()];
    })
    .await;
    let ann = world.user("ann@example.com");
    // Auth0 does not verify addresses of enterprise connections.
    let unverified = |connection: &str| {
        let account = json!({ "connection": connection, "email": "ann@example.com", "email_verified": false });
        world.auth0().create_user(account)
    };
    let (enterprise, squatter) = (unverified("acme-saml"), unverified("google-oauth2"));
    world.leaves(&ann).await;
    world.assert_denied_for(&enterprise, &ann);
    world.assert_open(&squatter);
}

#[tokio::test]
async fn only_configured_domains() {
    let world = World::with(|setup| {
        setup.options.rules.policy.email_domains = BTreeSet::from(["example.com".to_owned()]);
    })
    .await;
    let (ann, eve) = (world.user("ann@EXAMPLE.com"), world.user("eve@example.com.evil.example"));
    let (anns, eves) = (world.account("ann@example.com"), world.account("eve@example.com.evil.example"));
    world.leaves(&ann).await;
    world.leaves(&eve).await;
    world.assert_denied_for(&anns, &ann);
    world.assert_open(&eves);
    assert_eq!(world.outcome(&eve).await, "skipped: out_of_scope");
}

fn exempting(names: &[&str]) -> Policy {
    Policy { exempt: names.iter().map(|&name| name.to_owned()).collect(), ..Policy::default() }
}

#[tokio::test]
async fn exempt_users_are_reported_never_denied() {
    let mut world = World::with(|setup| setup.options.rules.policy = exempting(&["boss@example.com"])).await;
    let (boss, deputy) = (world.user("Boss@Example.com"), world.user("deputy@example.com"));
    let (bosses, deputies) = (world.account("boss@example.com"), world.account("deputy@example.com"));
    world.leaves(&boss).await;
    world.leaves(&deputy).await;
    world.assert_open(&bosses);
    world.assert_denied_for(&deputies, &deputy);
    assert_eq!(world.outcome(&boss).await, "skipped: exempt");
    assert_eq!(world.alarms().await, [format!("exempt_left of {boss}")]);
    // Exempted by id after the denial: the denial is undone.
    let id = deputy.to_string();
    world.restart(|options| options.rules.policy = exempting(&["boss@example.com", &id])).await;
    world.reconcile().await;
    world.assert_open(&deputies);
    assert_eq!(world.outcome(&deputy).await, "skipped: exempt");
    assert_eq!(world.alarms().await.len(), 2);
    // No longer exempt.
    world.restart(|options| options.rules.policy = exempting(&[])).await;
    world.reconcile().await;
    world.assert_denied_for(&bosses, &boss);
    world.assert_denied_for(&deputies, &deputy);
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn former_address_does_not_exempt() {
    let world = World::with(|setup| setup.options.rules.policy = exempting(&["boss@example.com"])).await;
    let former = world.user("boss@example.com");
    let account = world.account("former@example.com");
    world.sync().await;
    world.okta().change_profile(&former, "former@example.com", "former@example.com");
    world.sync().await;
    // The address is the new boss's now.
    let boss = world.user("boss@example.com");
    let bosses = world.account("boss@example.com");
    world.sync().await;
    world.leaves(&former).await;
    world.assert_denied_for(&account, &former);
    world.okta().delete(&former);
    world.sync().await;
    world.reconcile().await;
    world.assert_denied_for(&account, &former);
    world.leaves(&boss).await;
    world.assert_open(&bosses);
    assert_eq!(world.outcome(&boss).await, "skipped: exempt");
}

#[tokio::test]
async fn policy_change_reconciles_at_next_start() {
    let mut world = World::with(|setup| setup.options.rules.policy = exempting(&["boss@example.com"])).await;
    let ann = world.user("ann@example.com");
    world.account("ann@example.com");
    world.leaves(&ann).await;
    let decisions = world.store().decisions(None, None, 0, 100).await.unwrap();
    assert!(!decisions.is_empty() && decisions.iter().all(|decision| !decision.policy.contains("boss")));
    assert!(world.store().current_reconcile().await.unwrap().is_none());
    world.restart(|options| options.rules.policy = exempting(&["chief@example.com"])).await;
    assert_eq!(world.store().current_reconcile().await.unwrap().unwrap().scope, "all");
}

#[tokio::test]
async fn account_created_later_is_denied() {
    let world = World::new().await;
    let ann = world.user("ann@example.com");
    world.leaves(&ann).await;
    assert_eq!(world.outcome(&ann).await, "no_account");
    world.passes(30 * DAY);
    let account = world.account("ann@example.com");
    world.reconcile().await;
    world.assert_denied_for(&account, &ann);
}

#[tokio::test]
async fn enforcement_off_only_delays_writes() {
    let mut world = World::with(|setup| setup.options.enforce = false).await;
    let (ann, bob) = (world.user("ann@example.com"), world.user("bob@example.com"));
    let (anns, bobs) = (world.account("ann@example.com"), world.account("bob@example.com"));
    let reports = world.leaves(&ann).await;
    world.leaves(&bob).await;
    world.assert_open(&anns);
    assert_eq!(world.outcome(&ann).await, "skipped: not_enforced");
    assert!(reports.iter().any(|report| report.changes.iter().any(|change| change.after == "denied")));
    world.returns(&bob).await;
    assert_eq!(world.writes(), 0);
    world.restart(|options| options.enforce = true).await;
    world.settle().await;
    world.assert_denied_for(&anns, &ann);
    world.assert_open(&bobs);
    assert_eq!(world.writes(), 1);
    world.restart(|options| options.enforce = false).await;
    world.returns(&ann).await;
    world.assert_denied_for(&anns, &ann);
    world.restart(|options| options.enforce = true).await;
    world.settle().await;
    world.assert_open(&anns);
}
