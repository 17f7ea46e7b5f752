//! The requests that find a user's accounts and the other holders of their addresses.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::domain::mark::MarkOptions;
use crate::domain::{OktaUserId, Outcome, Skipped};
use crate::engine::applier::Until;
use crate::engine::stage::{Stage, create_user};
use okta_auth0_sync_sandbox::{Fault, Journal};

async fn sync(stage: &Stage) {
    let stop = CancellationToken::new();
    // Searches lag by a second.
    stage.engine.clock.sleep(Duration::from_secs(2)).await;
    stage.engine.poll(&stop).await.unwrap();
    stage.engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
}

/// Ann, whose login and e-mail differ, with an account for each.
fn ann_with_two_accounts(stage: &Stage) -> (OktaUserId, [String; 2]) {
    let ann = create_user(stage.sandbox.okta(), "ann@example.com", "team@example.com");
    let accounts = ["ann@example.com", "team@example.com"];
    (ann, accounts.map(|email| stage.sandbox.auth0().create_user(json!({ "email": email }))))
}

fn is_denied(stage: &Stage, account: &str) -> bool {
    !stage.sandbox.auth0().login(account).is_granted()
}

fn asked(journal: &Journal, path: &str) -> usize {
    journal.requests().iter().filter(|request| request.path == path).count()
}

#[tokio::test]
async fn look_searches_each_tenant_once() {
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
    let (okta, auth0) = (stage.sandbox.okta(), stage.sandbox.auth0());
    let ann = create_user(okta, "ann", "ann@example.com");
    // Only the search finds these spellings; later, the marks do.
    let spelled = |email| auth0.create_user(json!({ "connection": "google-oauth2", "email": email }));
    let accounts = ["Ann@example.com", "ANN@example.com", "ann@EXAMPLE.com"].map(spelled);
    // Long enough that the activation does not contradict the deactivation.
    stage.engine.clock.sleep(Duration::from_secs(3600)).await;
    okta.deactivate(&ann);
    for _ in 0..2 {
        okta.journal().clear();
        auth0.journal().clear();
        sync(&stage).await;
        assert_eq!(asked(okta.journal(), "/api/v1/users"), 1);
        assert_eq!(asked(auth0.journal(), "/api/v2/users"), 1);
        for account in &accounts {
            assert_eq!(auth0.user(account).unwrap()["app_metadata"]["okta_sync"]["okta_user_id"], ann.as_str());
        }
        stage.engine.store.queue_for_reconcile(std::slice::from_ref(&ann), stage.engine.now()).await.unwrap();
    }
}

#[tokio::test]
async fn departed_holders_are_not_read() {
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
    let (okta, auth0) = (stage.sandbox.okta(), stage.sandbox.auth0());
    let [ann, bob, gone] = ["ann", "bob", "gone"].map(|name| create_user(okta, name, "team@example.com"));
    auth0.create_user(json!({ "email": "team@example.com" }));
    okta.deactivate(&gone);
    sync(&stage).await;
    stage.engine.clock.sleep(Duration::from_secs(3600)).await;
    okta.deactivate(&ann);
    stage.engine.poll(&CancellationToken::new()).await.unwrap();
    okta.journal().clear();
    let report = stage.engine.look_at(std::slice::from_ref(&ann)).await.unwrap().remove(0);
    assert_eq!(report.outcome, Outcome::Skipped(Skipped::SharedAddress(bob.clone())));
    let by_id = [&bob, &gone].map(|who| asked(okta.journal(), &format!("/api/v1/users/{who}")));
    assert_eq!(by_id, [1, 0]);
}

#[tokio::test]
async fn crowded_address_keeps_no_other_open() {
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
    let okta = stage.sandbox.okta();
    let (ann, [own, team]) = ann_with_two_accounts(&stage);
    for number in 0..2_050 {
        create_user(okta, &format!("service{number}@example.com"), "team@example.com");
    }
    stage.engine.clock.sleep(Duration::from_secs(3600)).await;
    okta.deactivate(&ann);
    stage.engine.poll(&CancellationToken::new()).await.unwrap();
    let report = stage.engine.look_at(std::slice::from_ref(&ann)).await.unwrap().remove(0);
    assert!(matches!(report.outcome, Outcome::Skipped(Skipped::SharedAddress(_))), "{:?}", report.outcome);
    assert!(is_denied(&stage, &own), "the address that only Ann holds is clear");
    assert!(!is_denied(&stage, &team), "active users hold the other address");
}

#[tokio::test]
async fn crowd_of_leavers_is_reported_by_address() {
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
    let okta = stage.sandbox.okta();
    let (ann, [own, team]) = ann_with_two_accounts(&stage);
    for number in 0..2_050 {
        let service = create_user(okta, &format!("service{number}@example.com"), "team@example.com");
        okta.set_status(&service, "SUSPENDED", None);
    }
    stage.engine.clock.sleep(Duration::from_secs(3600)).await;
    okta.deactivate(&ann);
    stage.engine.poll(&CancellationToken::new()).await.unwrap();
    let report = stage.engine.look_at(std::slice::from_ref(&ann)).await.unwrap().remove(0);
    assert!(report.outcome.why().unwrap_or_default().contains("too many users"), "{:?}", report.outcome);
    assert!(is_denied(&stage, &own) && !is_denied(&stage, &team), "{:?}", report.outcome);
}

#[tokio::test]
async fn unreadable_holder_blocks_its_address_only() {
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
    let okta = stage.sandbox.okta();
    let (ann, [own, team]) = ann_with_two_accounts(&stage);
    let bob = create_user(okta, "bob@example.com", "team@example.com");
    okta.faults().add(Fault::status("GET", &format!("/api/v1/users/{bob}"), 500).times(100));
    stage.engine.clock.sleep(Duration::from_secs(3600)).await;
    okta.deactivate(&ann);
    stage.engine.poll(&CancellationToken::new()).await.unwrap();
    let report = stage.engine.look_at(std::slice::from_ref(&ann)).await.unwrap().remove(0);
    assert!(matches!(report.outcome, Outcome::Retry { .. }), "{:?}", report.outcome);
    assert!(is_denied(&stage, &own) && !is_denied(&stage, &team));
}

#[tokio::test]
async fn shared_address_costs_few_calls_per_leaver() {
    const LEAVERS: usize = 200;
    let stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
    let okta = stage.sandbox.okta();
    let leavers: Vec<OktaUserId> =
        (0..LEAVERS).map(|number| create_user(okta, &format!("p{number}@example.com"), "team@example.com")).collect();
    let team = stage.sandbox.auth0().create_user(json!({ "email": "team@example.com" }));
    sync(&stage).await;
    stage.engine.clock.sleep(Duration::from_secs(3600)).await;
    for leaver in &leavers {
        okta.deactivate(leaver);
    }
    okta.journal().clear();
    sync(&stage).await;
    assert!(is_denied(&stage, &team));
    let calls = okta.journal().requests().len();
    assert!(calls < 6 * LEAVERS, "{calls} calls to Okta for {LEAVERS} leavers");
}
