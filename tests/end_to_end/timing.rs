//! A reason that arrives during a look is not lost, wherever in the look it arrives.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::{Hold, Matcher};

use crate::harness::{Daemon, Harness};

const LOGS: &str = "/api/v1/logs";

/// Waits until the state has everything that is in the log now: the first of two more log requests returns it, and the
/// second starts only after the page was stored.
async fn recorded(harness: &Harness) {
    let journal = harness.sandbox.okta().journal();
    let before = journal.count("GET", LOGS);
    journal
        .wait_for(|requests| {
            requests.iter().filter(|request| request.method == "GET" && request.path == LOGS).count() >= before + 2
        })
        .await;
}

/// The verdicts on a user, in order.
async fn verdicts(harness: &Harness, id: &OktaUserId) -> Vec<String> {
    let store = harness.store().await;
    let decisions = store.decisions(Some(id), None, 0, 1000).await.unwrap();
    store.close().await;
    decisions.into_iter().filter_map(|decision| decision.verdict).collect()
}

/// Where to stop a look.
#[derive(Clone, Copy, Debug)]
enum Middle {
    /// Okta has read the user and not answered yet.
    Read,
    /// Auth0 has received the write and not executed it.
    BeforeWrite,
    /// Auth0 has executed the write and not answered yet.
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

/// Waits until the account is denied or open, as tried by a login after each write.
async fn settled(harness: &Harness, daemon: &mut Daemon, account: &str, denied: bool) {
    let auth0 = harness.sandbox.auth0();
    let come = auth0.journal().wait_for(|_| auth0.login(account).is_granted() != denied);
    daemon.until("Auth0 agrees with Okta", come).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deactivation_during_look_is_not_lost() {
    let harness = Harness::start().await;
    let (ann, account) = harness.user("ann");
    let held = hold(&harness, Middle::Read, &ann);
    let mut daemon = harness.daemon();
    daemon.until("the look at a user who is active", held.arrived()).await;

    harness.sandbox.okta().deactivate(&ann);
    daemon.until("the deactivation is recorded", recorded(&harness)).await;
    assert!(harness.shut_out().is_empty(), "the look is still stopped, and no other look may start");
    held.release();

    settled(&harness, &mut daemon, &account, true).await;
    daemon.stop().await;
    let verdicts = verdicts(&harness, &ann).await;
    assert_eq!(verdicts.first().map(String::as_str), Some("allow"), "the stopped look saw her active: {verdicts:?}");
    assert_eq!(verdicts.last().map(String::as_str), Some("deny"), "{verdicts:?}");
    assert_eq!(harness.mark(&account)["deactivated"], "true");
    assert_eq!(harness.writes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reactivation_during_denial_is_not_lost() {
    for middle in [Middle::Read, Middle::BeforeWrite, Middle::AfterWrite] {
        let harness = Harness::start().await;
        let (ann, account) = harness.user("ann");
        harness.sandbox.okta().deactivate(&ann);
        let held = hold(&harness, middle, &ann);
        let mut daemon = harness.daemon();
        daemon.until("the look at a user who has left", held.arrived()).await;

        harness.sandbox.okta().activate(&ann);
        daemon.until("the reactivation is recorded", recorded(&harness)).await;
        held.release();

        // The stopped look denies her, and the next one lifts the denial.
        let auth0 = harness.sandbox.auth0();
        let lifted = auth0.journal().wait_for(|_| harness.mark(&account)["deactivated"] == "false");
        daemon.until("the mark is set and lifted", lifted).await;
        daemon.stop().await;
        assert!(auth0.login(&account).is_granted(), "{middle:?}");
        assert_eq!(harness.writes(), 2, "{middle:?}: one write to deny, one to lift");
        harness.sync().await;
        assert_eq!(harness.writes(), 2, "{middle:?}: the last pass left nothing to do");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_deactivation_during_lift_is_not_lost() {
    for middle in [Middle::Read, Middle::BeforeWrite, Middle::AfterWrite] {
        let harness = Harness::start().await;
        let (ann, account) = harness.user("ann");
        harness.sandbox.okta().deactivate(&ann);
        harness.sync().await;
        harness.sandbox.okta().activate(&ann);
        let held = hold(&harness, middle, &ann);
        let mut daemon = harness.daemon();
        daemon.until("the look at a user who is back", held.arrived()).await;

        harness.sandbox.okta().deactivate(&ann);
        daemon.until("the second deactivation is recorded", recorded(&harness)).await;
        held.release();

        // The stopped look may still lift the denial; only the final state counts.
        let auth0 = harness.sandbox.auth0();
        let again = auth0.journal().wait_for(|requests| {
            crate::harness::patches(requests).filter(|patch| patch.status == Some(200)).count() >= 3
        });
        daemon.until("the mark is lifted and set again", again).await;
        daemon.stop().await;
        assert!(!auth0.login(&account).is_granted(), "{middle:?}");
        harness.sync().await;
        assert_eq!(harness.writes(), 3, "{middle:?}: deny, lift, deny");
    }
}
