//! What is written to Auth0, what the state and the operator are told of it, and what is owed besides.

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::domain::OktaUserId;
use crate::engine::reconciler::Scope;
use crate::engine::stage::{House, create_user};
use crate::engine::sync_user::Report;
use crate::store::{AccountRow, DecisionRow, Who};
use okta_auth0_sync_sandbox::{Effect, Fault, NewUser};

const SECOND: Duration = Duration::from_secs(1);
const PATCH: &str = "PATCH";
const USERS: &str = "/api/v2/users/";

/// Ann and her account, both known for a day.
async fn ann(house: &House) -> (OktaUserId, String) {
    let ann = (house.person("ann@example.com"), house.account("ann@example.com"));
    house.sync().await;
    house.passes(DAY).await;
    ann
}

async fn leaves(house: &House, who: &OktaUserId) -> Vec<Report> {
    house.okta().deactivate(who);
    house.sync().await
}

/// Somebody asks for a look.
async fn request(house: &House, who: &OktaUserId) -> Vec<Report> {
    house.engine().store().request_look(Who::User(who), house.engine().now()).await.unwrap();
    house.settle().await
}

async fn account_of(house: &House, who: &OktaUserId) -> AccountRow {
    house.engine().store().accounts_of(who).await.unwrap().remove(0)
}

async fn decisions(house: &House, outcome: &str) -> Vec<DecisionRow> {
    let mut rows = house.engine().store().decisions(None, None, 0, 100).await.unwrap();
    rows.retain(|row| row.outcome == outcome);
    rows
}

/// Is the end of sessions owed to one of their accounts?
async fn owes(house: &House, who: &OktaUserId) -> bool {
    house.engine().store().known(std::slice::from_ref(who)).await.unwrap()[who].owing
}

/// The alarms that an operator is told of, in order: what, and about whom.
async fn told(house: &House) -> Vec<(String, String)> {
    let store = house.engine().store();
    let mut told = Vec::new();
    while let Some(untold) = store.pending_notification().await.unwrap() {
        store.mark_delivered(&untold, house.engine().now()).await.unwrap();
        if !untold.over {
            told.push((untold.alarm.kind, untold.alarm.detail));
        }
    }
    told
}

fn wipe(house: &House, account: &str) {
    house.auth0().set_user(account, |user| {
        user["app_metadata"] = json!({});
        user["user_metadata"] = json!({});
    });
}

fn is_blocked(house: &House, account: &str) -> bool {
    house.auth0().user(account).unwrap()["blocked"] == true
}

fn mark(house: &House, account: &str) -> Value {
    house.auth0().user(account).unwrap()["app_metadata"]["okta_sync"].clone()
}

#[tokio::test]
async fn the_way_from_the_log_to_the_mark_is_timed_for_who_left_since_the_log_was_first_read() {
    let house = House::with(|_| ()).await;
    let people = ["ann", "bob", "carol"].map(|name| {
        let email = format!("{name}@example.com");
        house.account(&email);
        house.person(&email)
    });
    house.passes(DAY).await;
    house.okta().deactivate(&people[0]);
    house.poll().await;
    // At the very moment of it: nobody was there yet to be quick.
    house.okta().deactivate(&people[1]);
    house.passes(10 * SECOND).await;
    house.okta().deactivate(&people[2]);
    house.passes(5 * SECOND).await;
    let reports = house.sync().await;
    assert!(reports.len() == 3 && reports.iter().all(|report| report.writes == 1), "{reports:#?}");
    let mut lags = Vec::new();
    for who in &people {
        lags.push(account_of(&house, who).await.lag_s);
    }
    assert_eq!(lags, [None, None, Some(7.0)]);
}

#[tokio::test]
async fn who_is_denied_more_than_five_minutes_after_they_left_is_an_alarm_that_is_over_at_once() {
    let house = House::with(|_| ()).await;
    let people = ["ann@example.com", "bob@example.com"].map(|email| {
        house.account(email);
        house.person(email)
    });
    house.sync().await;
    house.passes(DAY).await;
    house.okta().deactivate(&people[0]);
    house.passes(SECOND).await;
    house.okta().deactivate(&people[1]);
    house.passes(298 * SECOND).await;
    house.sync().await;
    assert_eq!(account_of(&house, &people[1]).await.lag_s, Some(300.0));
    let late = format!("{} was denied 301 s after the deactivation was published", people[0]);
    assert_eq!(told(&house).await, [("denial_late".to_owned(), late)]);
    assert!(house.engine().store().open_alarms().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_mark_that_is_restored_is_as_old_as_it_was_and_lifting_it_is_a_write() {
    let house = House::with(|_| ()).await;
    let (ann, account) = ann(&house).await;
    leaves(&house, &ann).await;
    let first = account_of(&house, &ann).await;
    assert!(first.denied_at.is_some());
    house.passes(DAY).await;
    wipe(&house, &account);
    let restored = request(&house, &ann).await;
    assert_eq!((restored[0].writes, restored[0].changes[0].outcome.as_str()), (1, "restored"));
    let row = account_of(&house, &ann).await;
    assert_eq!((&row.denied_at, &row.event_id, row.lag_s), (&first.denied_at, &first.event_id, first.lag_s));
    house.passes(DAY).await;
    house.okta().activate(&ann);
    let lifted = house.sync().await;
    assert_eq!((lifted[0].writes, lifted[0].changes[0].outcome.as_str()), (1, "applied"));
}

#[tokio::test]
async fn a_write_that_failed_says_what_auth0_said_and_one_that_came_too_late_says_so() {
    for (code, why) in [(500, "500"), (404, "was deleted or linked between the look-up and the write")] {
        let house = House::with(|_| ()).await;
        let (ann, account) = ann(&house).await;
        house.auth0().faults().add(Fault::status(PATCH, USERS, code).times(1));
        leaves(&house, &ann).await;
        let row = decisions(&house, "retry").await.pop().unwrap();
        assert!(row.why.as_deref().is_some_and(|told| told.contains(why)), "{row:?}");
        assert_eq!(row.auth0_user_id.as_deref(), Some(account.as_str()));
        let waits = house.engine().store().find_users(ann.as_str()).await.unwrap().remove(0);
        assert!(waits.why.is_some_and(|told| told.contains(why)));
    }
}

#[tokio::test]
async fn a_rehearsal_says_what_a_write_would_make_of_an_account() {
    let mut house = House::with(|options| options.rules.mark.block = true).await;
    let (ann, account) = ann(&house).await;
    house.change(|options| options.enforce = false);
    leaves(&house, &ann).await;
    house.change(|options| options.enforce = true);
    request(&house, &ann).await;
    house.change(|options| options.enforce = false);
    house.passes(DAY).await;
    house.okta().activate(&ann);
    house.sync().await;
    let planned: Vec<_> = decisions(&house, "not_enforced")
        .await
        .into_iter()
        .map(|row| (row.before.unwrap(), row.after.unwrap()))
        .collect();
    let (open, denied) = ("open".to_owned(), "denied, blocked".to_owned());
    assert_eq!(planned, [(open.clone(), denied.clone()), (denied, open)]);
    assert!(is_blocked(&house, &account) && mark(&house, &account)["deactivated"] == "true", "nothing was written");
}

#[tokio::test]
async fn a_denial_whose_answer_was_lost_is_taken_up_as_it_was_made() {
    let house = House::with(|_| ()).await;
    let (ann, account) = ann(&house).await;
    house.okta().deactivate(&ann);
    house.passes(5 * SECOND).await;
    house.auth0().faults().add(Fault::new(PATCH, USERS, Effect::AfterEffect(Box::new(Effect::Drop))).times(1));
    house.sync().await;
    house.passes(600 * SECOND).await;
    house.settle().await;
    assert_eq!(decisions(&house, "confirmed").await.len(), 1);
    let (row, mark) = (account_of(&house, &ann).await, mark(&house, &account));
    assert_eq!(row.denied_at.as_deref(), mark["at"].as_str());
    assert_eq!(row.event_id.as_deref(), mark["event_id"].as_str());
    assert_eq!(row.lag_s, Some(7.0), "what it took until the mark was there, not until somebody saw it");
    assert!(!owes(&house, &ann).await, "nobody asked for the end of sessions");
}

#[tokio::test]
async fn sessions_that_auth0_failed_to_end_are_ended_by_the_next_look_and_no_plan_is_blamed() {
    for failure in [Effect::Drop, Effect::Status { code: 500, body: json!({}), headers: Vec::new() }] {
        let house = House::with(|options| options.rules.end_sessions = true).await;
        let (ann, account) = ann(&house).await;
        assert!(house.auth0().login(&account).is_granted());
        house.auth0().faults().add(Fault::new("DELETE", USERS, failure.clone()).times(1));
        leaves(&house, &ann).await;
        assert_eq!(mark(&house, &account)["deactivated"], "true");
        assert!(owes(&house, &ann).await, "{failure:?}");
        house.passes(600 * SECOND).await;
        house.settle().await;
        assert_eq!(house.auth0().open_sessions(&account), (0, 0), "{failure:?}");
        assert!(!owes(&house, &ann).await);
        assert_eq!(told(&house).await, [], "{failure:?}");
    }
}

#[tokio::test]
async fn that_a_tenant_has_no_such_endpoint_is_told_once_for_all_who_leave() {
    let house = House::with(|options| options.rules.end_sessions = true).await;
    let (ann, _) = ann(&house).await;
    let bob = house.person("bob@example.com");
    house.account("bob@example.com");
    house.auth0().faults().add(Fault::status("DELETE", USERS, 404));
    leaves(&house, &ann).await;
    house.passes(DAY).await;
    leaves(&house, &bob).await;
    let told = told(&house).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "sessions_unavailable");
}

#[tokio::test]
async fn what_is_owed_to_one_account_is_not_owed_to_another() {
    let house = House::with(|options| options.rules.end_sessions = true).await;
    let (ann, account) = ann(&house).await;
    house.auth0().set_has_session_api(false);
    leaves(&house, &ann).await;
    assert!(owes(&house, &ann).await);
    // Marked by a life whose state was lost.
    let other = house.auth0().create_user(json!({
        "user_id": "google-oauth2|9", "connection": "google-oauth2", "email": "ann@example.com", "email_verified": true,
        "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": ann.as_str() } },
        "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    house.passes(DAY).await;
    request(&house, &ann).await;
    house.auth0().set_has_session_api(true);
    house.passes(DAY).await;
    house.auth0().journal().clear();
    request(&house, &ann).await;
    assert!(!owes(&house, &ann).await);
    let requests = house.auth0().journal().requests();
    let ended: Vec<_> =
        requests.iter().filter(|request| request.method == "DELETE").map(|request| &request.path).collect();
    let encoded = |account: &str| account.replace('|', "%7C");
    assert!(!ended.is_empty() && ended.iter().all(|path| path.contains(&encoded(&account))), "{other}: {ended:?}");
}

#[tokio::test]
async fn what_somebody_unblocked_is_not_blocked_again_for_the_next_one_where_nobody_asks_for_blocks() {
    let mut house = House::with(|options| options.rules.mark.block = true).await;
    let people = ["ann", "bob"].map(|login| create_user(house.okta(), login, "team@example.com"));
    let account = house.account("team@example.com");
    house.sync().await;
    house.passes(DAY).await;
    people.iter().for_each(|who| house.okta().deactivate(who));
    house.sync().await;
    assert!(is_blocked(&house, &account));
    let owner = mark(&house, &account)["okta_user_id"].clone();
    let other = people.iter().find(|who| owner != who.as_str()).unwrap();
    house.change(|options| options.rules.mark.block = false);
    wipe(&house, &account);
    house.auth0().set_user(&account, |user| user["blocked"] = json!(false));
    request(&house, other).await;
    assert_eq!(mark(&house, &account)["okta_user_id"], other.as_str());
    assert!(!is_blocked(&house, &account));
}

#[tokio::test]
async fn a_block_of_ours_is_lifted_even_if_only_a_lost_state_knew_of_it_and_the_mark_is_gone() {
    let house = House::with(|options| options.rules.mark.block = true).await;
    let ann = house.person("ann@example.com");
    house.sync().await;
    house.passes(DAY).await;
    house.okta().deactivate_silently(&ann);
    let account = house.auth0().create_user(json!({
        "email": "ann@example.com", "email_verified": true, "blocked": true,
        "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": ann.as_str(), "blocked": true } },
        "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    house.passes(DAY).await;
    house.engine().begin_reconcile(Scope::All, "a test").await.unwrap();
    house.engine().reconcile(&CancellationToken::new()).await.unwrap();
    house.settle().await;
    assert_eq!(house.auth0().journal().count(PATCH, USERS), 0, "it is as it should be");
    wipe(&house, &account);
    house.okta().activate(&ann);
    house.sync().await;
    assert!(!is_blocked(&house, &account));
}

#[tokio::test]
async fn while_an_account_is_held_the_state_knows_whose_its_block_is_though_its_mark_does_not() {
    let house = House::with(|options| options.rules.mark.block = true).await;
    let (ann, account) = ann(&house).await;
    leaves(&house, &ann).await;
    house.passes(DAY).await;
    house.okta().create_user(&NewUser::new("bob", "ann@example.com"));
    house.auth0().set_user(&account, |user| user["app_metadata"]["okta_sync"] = json!({ "deactivated": "true" }));
    house.sync().await;
    let held = request(&house, &ann).await;
    assert_eq!(held[0].outcome.as_str(), "held", "{held:?}");
    house.engine().store().approve(Who::User(&ann), house.engine().now()).await.unwrap();
    house.settle().await;
    assert!(!is_blocked(&house, &account) && mark(&house, &account)["deactivated"] == "false");
}
