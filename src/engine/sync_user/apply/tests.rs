//! Writes to Auth0, their records in the state, alarms, and pending session ends.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::OktaUserId;
use crate::engine::reconciler::Scope;
use crate::engine::stage::{Harness, create_user};
use crate::engine::sync_user::Report;
use crate::store::{AccountRow, Approval, DecisionRow, Who};
use okta_auth0_sync_sandbox::{Effect, Fault, NewUser};

const SECOND: Duration = Duration::from_secs(1);
const PATCH: &str = "PATCH";
const USERS: &str = "/api/v2/users/";

/// Creates Ann and her account, a day ago.
async fn ann(harness: &Harness) -> (OktaUserId, String) {
    let ann = (harness.user("ann@example.com"), harness.account("ann@example.com"));
    harness.sync().await;
    harness.passes(DAY).await;
    ann
}

async fn leaves(harness: &Harness, who: &OktaUserId) -> Vec<Report> {
    harness.okta().deactivate(who);
    harness.sync().await
}

/// Requests a look and runs it.
async fn request(harness: &Harness, who: &OktaUserId) -> Vec<Report> {
    harness.engine().store().request_look(Who::User(who), harness.engine().now()).await.unwrap();
    harness.settle().await
}

async fn account_of(harness: &Harness, who: &OktaUserId) -> AccountRow {
    harness.engine().store().accounts_of(who).await.unwrap().remove(0)
}

async fn decisions(harness: &Harness, outcome: &str) -> Vec<DecisionRow> {
    let mut rows = harness.engine().store().decisions(None, None, 0, 100).await.unwrap();
    rows.retain(|row| row.outcome == outcome);
    rows
}

/// Is the end of sessions pending for one of their accounts?
async fn owes(harness: &Harness, who: &OktaUserId) -> bool {
    harness.engine().store().known(std::slice::from_ref(who)).await.unwrap()[who].owing
}

/// Delivers all notifications and returns the raised alarms: kind and detail.
async fn raised(harness: &Harness) -> Vec<(String, String)> {
    let store = harness.engine().store();
    let mut raised = Vec::new();
    while let Some(pending) = store.pending_notification().await.unwrap() {
        store.mark_delivered(&pending, harness.engine().now()).await.unwrap();
        if !pending.over {
            raised.push((pending.alarm.kind, pending.alarm.detail));
        }
    }
    raised
}

fn wipe(harness: &Harness, account: &str) {
    harness.auth0().set_user(account, |user| {
        user["app_metadata"] = json!({});
        user["user_metadata"] = json!({});
    });
}

fn is_blocked(harness: &Harness, account: &str) -> bool {
    harness.auth0().user(account).unwrap()["blocked"] == true
}

fn mark(harness: &Harness, account: &str) -> Value {
    harness.auth0().user(account).unwrap()["app_metadata"]["okta_sync"].clone()
}

#[tokio::test]
async fn lag_is_recorded_after_first_poll_only() {
    let harness = Harness::with(|_| ()).await;
    let users = ["ann", "bob", "carol"].map(|name| {
        let email = format!("{name}@example.com");
        harness.account(&email);
        harness.user(&email)
    });
    harness.passes(DAY).await;
    harness.okta().deactivate(&users[0]);
    harness.poll().await;
    // In the moment of the first poll: no lag is recorded.
    harness.okta().deactivate(&users[1]);
    harness.passes(10 * SECOND).await;
    harness.okta().deactivate(&users[2]);
    harness.passes(5 * SECOND).await;
    let reports = harness.sync().await;
    assert!(reports.len() == 3 && reports.iter().all(|report| report.writes == 1), "{reports:#?}");
    let mut lags = Vec::new();
    for who in &users {
        lags.push(account_of(&harness, who).await.lag_s);
    }
    assert_eq!(lags, [None, None, Some(7.0)]);
}

#[tokio::test]
async fn late_denial_raises_momentary_alarm() {
    let harness = Harness::with(|_| ()).await;
    let users = ["ann@example.com", "bob@example.com"].map(|email| {
        harness.account(email);
        harness.user(email)
    });
    harness.sync().await;
    harness.passes(DAY).await;
    harness.okta().deactivate(&users[0]);
    harness.passes(SECOND).await;
    harness.okta().deactivate(&users[1]);
    harness.passes(298 * SECOND).await;
    harness.sync().await;
    assert_eq!(account_of(&harness, &users[1]).await.lag_s, Some(300.0));
    let late = "the user was denied 301 s after the deactivation was published".to_owned();
    assert_eq!(raised(&harness).await, [("denial_late".to_owned(), late)]);
    assert!(harness.engine().store().open_alarms().await.unwrap().is_empty());
}

#[tokio::test]
async fn restored_mark_keeps_its_time() {
    let harness = Harness::with(|_| ()).await;
    let (ann, account) = ann(&harness).await;
    leaves(&harness, &ann).await;
    let first = account_of(&harness, &ann).await;
    assert!(first.denied_at.is_some());
    harness.passes(DAY).await;
    wipe(&harness, &account);
    let restored = request(&harness, &ann).await;
    assert_eq!((restored[0].writes, restored[0].changes[0].outcome.as_str()), (1, "restored"));
    let row = account_of(&harness, &ann).await;
    assert_eq!((&row.denied_at, &row.event_id, row.lag_s), (&first.denied_at, &first.event_id, first.lag_s));
    harness.passes(DAY).await;
    harness.okta().activate(&ann);
    let lifted = harness.sync().await;
    assert_eq!((lifted[0].writes, lifted[0].changes[0].outcome.as_str()), (1, "applied"));
}

#[tokio::test]
async fn failed_write_stores_reason_and_request_id() {
    for (code, why) in [(500, "500"), (404, "was deleted or linked between the lookup and the write")] {
        let harness = Harness::with(|_| ()).await;
        let (ann, account) = ann(&harness).await;
        harness.auth0().faults().add(Fault::status(PATCH, USERS, code).times(1));
        leaves(&harness, &ann).await;
        let row = decisions(&harness, "retry").await.pop().unwrap();
        assert!(row.why.as_deref().is_some_and(|stored| stored.contains(why)), "{row:?}");
        assert_eq!(row.auth0_user_id.as_deref(), Some(account.as_str()));
        let waits = harness.engine().store().find_users(ann.as_str()).await.unwrap().remove(0);
        assert!(waits.why.is_some_and(|stored| stored.contains(why)));
    }
}

#[tokio::test]
async fn dry_run_reports_the_planned_account() {
    let mut harness = Harness::with(|options| options.rules.mark.block = true).await;
    let (ann, account) = ann(&harness).await;
    harness.change(|options| options.enforce = false);
    leaves(&harness, &ann).await;
    harness.change(|options| options.enforce = true);
    request(&harness, &ann).await;
    harness.change(|options| options.enforce = false);
    harness.passes(DAY).await;
    harness.okta().activate(&ann);
    harness.sync().await;
    let planned: Vec<_> = decisions(&harness, "not_enforced")
        .await
        .into_iter()
        .map(|row| (row.before.unwrap(), row.after.unwrap()))
        .collect();
    let (open, denied) = ("open".to_owned(), "denied, blocked".to_owned());
    assert_eq!(planned, [(open.clone(), denied.clone()), (denied, open)]);
    assert!(is_blocked(&harness, &account) && mark(&harness, &account)["deactivated"] == "true", "nothing was written");
}

#[tokio::test]
async fn lost_answer_to_denial_is_confirmed_later() {
    let harness = Harness::with(|_| ()).await;
    let (ann, account) = ann(&harness).await;
    harness.okta().deactivate(&ann);
    harness.passes(5 * SECOND).await;
    harness.auth0().faults().add(Fault::new(PATCH, USERS, Effect::AfterEffect(Box::new(Effect::Drop))).times(1));
    harness.sync().await;
    harness.passes(600 * SECOND).await;
    harness.settle().await;
    assert_eq!(decisions(&harness, "confirmed").await.len(), 1);
    let (row, mark) = (account_of(&harness, &ann).await, mark(&harness, &account));
    assert_eq!(row.denied_at.as_deref(), mark["at"].as_str());
    assert_eq!(row.event_id.as_deref(), mark["event_id"].as_str());
    assert_eq!(row.lag_s, Some(7.0), "the lag until the mark was written, not until it was confirmed");
    assert!(!owes(&harness, &ann).await, "end_sessions is off");
}

#[tokio::test]
async fn failed_session_end_is_retried_by_next_look() {
    for failure in [Effect::Drop, Effect::Status { code: 500, body: json!({}), headers: Vec::new() }] {
        let harness = Harness::with(|options| options.rules.end_sessions = true).await;
        let (ann, account) = ann(&harness).await;
        assert!(harness.auth0().login(&account).is_granted());
        harness.auth0().faults().add(Fault::new("DELETE", USERS, failure.clone()).times(1));
        leaves(&harness, &ann).await;
        assert_eq!(mark(&harness, &account)["deactivated"], "true");
        assert!(owes(&harness, &ann).await, "{failure:?}");
        harness.passes(600 * SECOND).await;
        harness.settle().await;
        assert_eq!(harness.auth0().open_sessions(&account), (0, 0), "{failure:?}");
        assert!(!owes(&harness, &ann).await);
        assert_eq!(raised(&harness).await, [], "{failure:?}");
    }
}

#[tokio::test]
async fn missing_session_endpoint_raises_one_alarm() {
    let harness = Harness::with(|options| options.rules.end_sessions = true).await;
    let (ann, _) = ann(&harness).await;
    let bob = harness.user("bob@example.com");
    harness.account("bob@example.com");
    harness.auth0().faults().add(Fault::status("DELETE", USERS, 404));
    leaves(&harness, &ann).await;
    harness.passes(DAY).await;
    leaves(&harness, &bob).await;
    let raised = raised(&harness).await;
    assert_eq!(raised.len(), 1, "{raised:?}");
    assert_eq!(raised[0].0, "sessions_unavailable");
}

#[tokio::test]
async fn pending_session_end_is_per_account() {
    let harness = Harness::with(|options| options.rules.end_sessions = true).await;
    let (ann, account) = ann(&harness).await;
    harness.auth0().set_has_session_api(false);
    leaves(&harness, &ann).await;
    assert!(owes(&harness, &ann).await);
    // Marked by an earlier installation whose state was lost.
    let other = harness.auth0().create_user(json!({
        "user_id": "google-oauth2|9", "connection": "google-oauth2", "email": "ann@example.com", "email_verified": true,
        "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": ann.as_str() } },
        "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    harness.passes(DAY).await;
    request(&harness, &ann).await;
    harness.auth0().set_has_session_api(true);
    harness.passes(DAY).await;
    harness.auth0().journal().clear();
    request(&harness, &ann).await;
    assert!(!owes(&harness, &ann).await);
    let requests = harness.auth0().journal().requests();
    let ended: Vec<_> =
        requests.iter().filter(|request| request.method == "DELETE").map(|request| &request.path).collect();
    let encoded = |account: &str| account.replace('|', "%7C");
    assert!(!ended.is_empty() && ended.iter().all(|path| path.contains(&encoded(&account))), "{other}: {ended:?}");
}

#[tokio::test]
async fn unblocked_account_stays_unblocked_for_next_owner() {
    let mut harness = Harness::with(|options| options.rules.mark.block = true).await;
    let users = ["ann", "bob"].map(|login| create_user(harness.okta(), login, "team@example.com"));
    let account = harness.account("team@example.com");
    harness.sync().await;
    harness.passes(DAY).await;
    users.iter().for_each(|who| harness.okta().deactivate(who));
    harness.sync().await;
    assert!(is_blocked(&harness, &account));
    let owner = mark(&harness, &account)["okta_user_id"].clone();
    let other = users.iter().find(|who| owner != who.as_str()).unwrap();
    harness.change(|options| options.rules.mark.block = false);
    wipe(&harness, &account);
    harness.auth0().set_user(&account, |user| user["blocked"] = json!(false));
    request(&harness, other).await;
    assert_eq!(mark(&harness, &account)["okta_user_id"], other.as_str());
    assert!(!is_blocked(&harness, &account));
}

#[tokio::test]
async fn our_block_is_lifted_though_mark_and_state_are_lost() {
    let harness = Harness::with(|options| options.rules.mark.block = true).await;
    let ann = harness.user("ann@example.com");
    harness.sync().await;
    harness.passes(DAY).await;
    harness.okta().deactivate_silently(&ann);
    let account = harness.auth0().create_user(json!({
        "email": "ann@example.com", "email_verified": true, "blocked": true,
        "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": ann.as_str(), "blocked": true } },
        "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    harness.passes(DAY).await;
    harness.engine().begin_reconcile(Scope::All, "a test").await.unwrap();
    harness.engine().reconcile(&CancellationToken::new()).await.unwrap();
    harness.settle().await;
    assert_eq!(harness.auth0().journal().count(PATCH, USERS), 0, "the account needs no write");
    wipe(&harness, &account);
    harness.okta().activate(&ann);
    harness.sync().await;
    assert!(!is_blocked(&harness, &account));
}

#[tokio::test]
async fn held_account_keeps_block_ownership() {
    let harness = Harness::with(|options| options.rules.mark.block = true).await;
    let (ann, account) = ann(&harness).await;
    leaves(&harness, &ann).await;
    harness.passes(DAY).await;
    harness.okta().create_user(&NewUser::new("bob", "ann@example.com"));
    harness.auth0().set_user(&account, |user| user["app_metadata"]["okta_sync"] = json!({ "deactivated": "true" }));
    harness.sync().await;
    let held = request(&harness, &ann).await;
    assert_eq!(held[0].outcome.as_str(), "held", "{held:?}");
    let store = harness.engine().store();
    let held = store.held().await.unwrap();
    let approval = Approval { held: &held, by: "command", reason: None, policy: "p" };
    store.approve(approval, harness.engine().now()).await.unwrap();
    harness.settle().await;
    assert!(!is_blocked(&harness, &account) && mark(&harness, &account)["deactivated"] == "false");
}
