//! The requests that find a user's accounts and the other holders of their addresses.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::domain::mark::MarkOptions;
use crate::domain::{Outcome, Skipped};
use crate::engine::applier::Until;
use crate::engine::stage::{Stage, create_user};
use okta_auth0_sync_sandbox::Journal;

async fn sync(stage: &Stage) {
    let stop = CancellationToken::new();
    // Searches lag by a second.
    stage.engine.clock.sleep(Duration::from_secs(2)).await;
    stage.engine.poll(&stop).await.unwrap();
    stage.engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
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
