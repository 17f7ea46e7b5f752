//! A reason that arrives in the middle of a look is not lost, wherever in the look it arrives.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::{Hold, Matcher};

use crate::harness::{Daemon, Harness};

const LOGS: &str = "/api/v1/logs";

/// Completes when whatever is in the log now is in the state: two more requests for the log have come in, of which the
/// first is answered with it, and the second is only sent after that page was recorded.
async fn recorded(harness: &Harness) {
    let journal = harness.sandbox.okta().journal();
    let before = journal.count("GET", LOGS);
    journal
        .wait_for(|requests| {
            requests.iter().filter(|request| request.method == "GET" && request.path == LOGS).count() >= before + 2
        })
        .await;
}

/// The verdicts on a person, in the order in which looks came to them.
async fn verdicts(harness: &Harness, id: &OktaUserId) -> Vec<String> {
    let store = harness.store().await;
    let decisions = store.decisions(Some(id), None, 0, 1000).await.unwrap();
    store.close().await;
    decisions.into_iter().filter_map(|decision| decision.verdict).collect()
}

/// Where a look is stopped in the middle.
#[derive(Clone, Copy, Debug)]
enum Middle {
    /// Okta has read the user, and its answer is on the way.
    Read,
    /// The write has been sent and not executed.
    BeforeWrite,
    /// The write has been executed, and its answer is on the way.
    AfterWrite,
}

fn hold(harness: &Harness, middle: Middle, id: &OktaUserId) -> Hold {
    let write = Matcher::new("PATCH", "/api/v2/users");
    match middle {
        Middle::Read => {
            let read = Matcher::new("GET", &format!("/api/v1/users/{id}"));
            harness.sandbox.okta().faults().hold_answer(read)
        }
        Middle::BeforeWrite => harness.sandbox.auth0().faults().hold(write),
        Middle::AfterWrite => harness.sandbox.auth0().faults().hold_answer(write),
    }
}

/// Waits until Auth0 lets exactly those in whom Okta does, as seen by logging in after each write.
async fn settled(harness: &Harness, daemon: &mut Daemon, account: &str, denied: bool) {
    let auth0 = harness.sandbox.auth0();
    let come = auth0.journal().wait_for(|_| auth0.login(account).is_granted() != denied);
    daemon.until("Auth0 agrees with Okta", come).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deactivation_during_look_is_not_lost() {
    let harness = Harness::start().await;
    let (ann, account) = harness.person("ann");
    let held = hold(&harness, Middle::Read, &ann);
    let mut daemon = harness.daemon();
    daemon.until("the look at a user who is active", held.arrived()).await;

    harness.sandbox.okta().deactivate(&ann);
    daemon.until("the deactivation is recorded", recorded(&harness)).await;
    assert!(harness.shut_out().is_empty(), "the look is still held, and nobody else may look");
    held.release();

    settled(&harness, &mut daemon, &account, true).await;
    daemon.stop().await;
    let verdicts = verdicts(&harness, &ann).await;
    assert_eq!(verdicts.first().map(String::as_str), Some("allow"), "the held look saw her active: {verdicts:?}");
    assert_eq!(verdicts.last().map(String::as_str), Some("deny"), "{verdicts:?}");
    assert_eq!(harness.mark(&account)["deactivated"], "true");
    assert_eq!(harness.writes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reactivation_during_denial_is_not_lost() {
    for middle in [Middle::Read, Middle::BeforeWrite, Middle::AfterWrite] {
        let harness = Harness::start().await;
        let (ann, account) = harness.person("ann");
        harness.sandbox.okta().deactivate(&ann);
        let held = hold(&harness, middle, &ann);
        let mut daemon = harness.daemon();
        daemon.until("the look at a user who has left", held.arrived()).await;

        harness.sandbox.okta().activate(&ann);
        daemon.until("the reactivation is recorded", recorded(&harness)).await;
        held.release();

        // Denied for a moment by the held look, and let in by the next.
        let auth0 = harness.sandbox.auth0();
        let lifted = auth0.journal().wait_for(|_| harness.mark(&account)["deactivated"] == "false");
        daemon.until("the mark is set and lifted", lifted).await;
        daemon.stop().await;
        assert!(auth0.login(&account).is_granted(), "{middle:?}");
        assert_eq!(harness.writes(), 2, "{middle:?}: one write to deny, one to let in");
        harness.sync().await;
        assert_eq!(harness.writes(), 2, "{middle:?}: nothing was left to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_deactivation_during_lift_is_not_lost() {
    for middle in [Middle::Read, Middle::BeforeWrite, Middle::AfterWrite] {
        let harness = Harness::start().await;
        let (ann, account) = harness.person("ann");
        harness.sandbox.okta().deactivate(&ann);
        harness.sync().await;
        harness.sandbox.okta().activate(&ann);
        let held = hold(&harness, middle, &ann);
        let mut daemon = harness.daemon();
        daemon.until("the look at a user who is back", held.arrived()).await;

        harness.sandbox.okta().deactivate(&ann);
        daemon.until("the second deactivation is recorded", recorded(&harness)).await;
        held.release();

        // Whether the held look still let her in is its own affair; how it ends is not.
        let auth0 = harness.sandbox.auth0();
        let again = auth0.journal().wait_for(|requests| {
            crate::harness::patches(requests).filter(|patch| patch.status == Some(200)).count() >= 3
        });
        daemon.until("the mark is lifted and set again", again).await;
        daemon.stop().await;
        assert!(!auth0.login(&account).is_granted(), "{middle:?}");
        harness.sync().await;
        assert_eq!(harness.writes(), 3, "{middle:?}: to deny, to let in, to deny");
    }
}
