//! Whom a comparison makes due, what it asks for that, and what it tells.

use std::future::{Future, poll_fn};
use std::task::Poll;

use serde_json::json;

use super::super::stage::{Heard, House};
use super::*;
use crate::domain::account::Mirror;
use crate::domain::mark::MarkOptions;
use crate::domain::{Mark, Policy, Rules};
use okta_auth0_sync_sandbox::{Effect, Fault, PathMatch};

const DAY: Duration = Duration::from_secs(86_400);

/// Somebody who has left, and nothing in the log says so.
fn silent_leaver(house: &House, email: &str) -> OktaUserId {
    let who = house.person(email);
    house.okta().deactivate_silently(&who);
    who
}

/// Who is due when the comparison has come to its end.
async fn go_on(house: &House) -> Vec<OktaUserId> {
    assert!(house.engine().reconcile(&CancellationToken::new()).await.unwrap().done);
    house.due().await
}

/// Who is due when everybody has been compared.
async fn compare(house: &House) -> Vec<OktaUserId> {
    // Listings lag by a second.
    house.passes(Duration::from_secs(2)).await;
    house.engine().begin_reconcile(Scope::All, "a test").await.unwrap();
    go_on(house).await
}

/// What was searched for in Auth0, request by request.
fn searches(house: &House) -> Vec<String> {
    let requests = house.auth0().journal().requests();
    requests.into_iter().filter(|request| request.path == "/api/v2/users").map(|request| request.query).collect()
}

fn user(text: &str) -> OktaUserId {
    OktaUserId::parse(text).unwrap()
}

fn account(id: &str, owner: Option<&str>, mirror: Mirror, blocked: bool) -> Account {
    Account {
        id: AccountId::new(id),
        email: Address::parse("ann@example.com"),
        email_verified: true,
        connections: vec!["db".to_owned()],
        blocked,
        mark: owner.map(|owner| Mark {
            deactivated: true,
            okta_user_id: Some(user(owner)),
            status: None,
            at: None,
            event_id: None,
            blocked: false,
        }),
        mirror,
    }
}

/// What `decide` says of these accounts of ann@example.com, of which the store knows `denied` as denied.
fn agrees(me: &OktaUserId, accounts: &[&Account], denied: &[AccountId], mirror: bool, block: bool) -> bool {
    let rules = Rules {
        policy: Policy::default(),
        mark: MarkOptions { mirror, block },
        connections: Vec::new(),
        require_verified_email: false,
        end_sessions: false,
    };
    let addresses: Vec<Address> = Address::parse("ann@example.com").into_iter().collect();
    let candidate = Candidate::new(me, addresses.clone(), denied);
    let accounts = accounts.iter().map(|account| (*account).clone()).collect();
    decide::agrees(&candidate.known, &addresses, accounts, &rules, "2026-11-23T10:00:00Z".parse().unwrap())
}

#[test]
fn only_what_needs_no_write_and_is_known_agrees() {
    let me = user("00u1");
    let ids = |list: &[&str]| list.iter().map(|id| AccountId::new(*id)).collect::<Vec<_>>();
    let marked = account("a|1", Some("00u1"), Mirror::On, false);
    assert!(agrees(&me, &[], &[], true, false), "nobody there, nothing marked");
    assert!(agrees(&me, &[&marked], &ids(&["a|1"]), true, false));
    assert!(!agrees(&me, &[&marked], &[], true, false), "the state does not know of the mark");
    assert!(!agrees(&me, &[], &ids(&["a|1"]), true, false), "a marked account is not shown");
    assert!(!agrees(&me, &[&marked], &ids(&["a|1"]), true, true), "the block is missing");
    let open = account("a|2", None, Mirror::Absent, false);
    assert!(!agrees(&me, &[&marked, &open], &ids(&["a|1"]), true, false));
    let theirs = account("a|3", Some("00u2"), Mirror::On, false);
    assert!(agrees(&me, &[&theirs], &[], true, false), "denied for somebody else is denied");
    let cleared = account("a|1", Some("00u1"), Mirror::Off, false);
    assert!(!agrees(&me, &[&cleared], &ids(&["a|1"]), true, false));
    assert!(agrees(&me, &[&cleared], &ids(&["a|1"]), false, false), "no mirror is asked for");
}

#[tokio::test]
async fn the_nightly_comparison_goes_back_as_far_as_oktas_log() {
    let house = House::with(|_| ()).await;
    house.account("ann@example.com");
    silent_leaver(&house, "ann@example.com");
    house.passes(20 * DAY).await;
    house.account("bob@example.com");
    let bob = silent_leaver(&house, "bob@example.com");
    house.passes(80 * DAY).await;
    house.engine().begin_nightly().await.unwrap();
    assert_eq!(go_on(&house).await, [bob]);
    // Nothing is too old for one that was asked for all.
    assert_eq!(compare(&house).await.len(), 2);
}

#[tokio::test]
async fn who_left_without_an_account_is_denied_if_one_appears_within_ninety_days() {
    let house = House::with(|_| ()).await;
    let people = ["ann@example.com", "bob@example.com"].map(|email| house.person(email));
    house.passes(DAY).await;
    for who in &people {
        house.okta().deactivate(who);
    }
    house.poll().await;
    house.engine().look_at(&people).await.unwrap();
    house.passes(80 * DAY).await;
    let anns = house.account("ann@example.com");
    compare(&house).await;
    house.settle().await;
    assert_eq!(house.auth0().user(&anns).unwrap()["app_metadata"]["okta_sync"]["deactivated"], "true");
    house.passes(20 * DAY).await;
    house.account("bob@example.com");
    assert!(compare(&house).await.is_empty(), "he is looked for no longer");
}

#[tokio::test]
async fn it_asks_for_forty_addresses_at_a_time_and_for_no_page_that_shows_nothing_more() {
    let house = House::with(|_| ()).await;
    for number in 0..45 {
        silent_leaver(&house, &format!("p{number}@example.com"));
    }
    for number in [7, 39, 40, 44] {
        house.account(&format!("p{number}@example.com"));
    }
    house.passes(DAY).await;
    assert_eq!(compare(&house).await.len(), 4);
    let addresses = |query: &String| query.matches("example.com").count();
    let asked: Vec<usize> = searches(&house).iter().map(addresses).filter(|count| *count > 0).collect();
    assert_eq!(asked, [40, 5]);
}

#[tokio::test]
async fn marks_are_taken_up_from_every_page_that_a_search_has() {
    let house = House::with(|_| ()).await;
    let heard = Heard::new();
    for number in 0..150 {
        let who = silent_leaver(&house, &format!("p{number}@example.com"));
        house.auth0().create_user(json!({
            // Another address than the one that Okta has: it is found by its mark alone.
            "email": format!("old{number}@example.com"),
            "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": who.as_str() } },
        }));
    }
    house.passes(DAY).await;
    assert_eq!(compare(&house).await.len(), 150);
    assert_eq!(heard.count("marks_beyond_search"), 0, "it saw all of them");
}

#[tokio::test]
async fn what_it_could_not_see_is_told() {
    let house = House::with(|_| ()).await;
    let heard = Heard::new();
    silent_leaver(&house, "ann@example.com");
    house.account("ann@example.com");
    house.passes(DAY).await;
    assert_eq!(compare(&house).await.len(), 1);
    assert_eq!((heard.count("unreadable_users"), heard.count("marks_beyond_search")), (0, 0));

    let (okta, auth0) = (house.okta(), house.auth0());
    let listed = json!([{ "id": "00uOdd", "status": 7 }]).to_string().into_bytes();
    okta.faults().add(Fault {
        path: PathMatch::Contains("DEPROVISIONED".to_owned()),
        ..Fault::new("GET", "", Effect::ReplaceBody(listed))
    });
    let shown = json!({ "users": [], "total": 1200 }).to_string().into_bytes();
    auth0.faults().add(Fault {
        path: PathMatch::Contains("q=app_metadata".to_owned()),
        ..Fault::new("GET", "", Effect::ReplaceBody(shown))
    });
    auth0.journal().clear();
    compare(&house).await;
    assert_eq!((heard.count("unreadable_users"), heard.count("marks_beyond_search")), (1, 1), "{}", heard.text());
    let asked = searches(&house).iter().filter(|query| query.contains("q=app_metadata")).count();
    assert_eq!(asked, 1, "after a page without anything there is none with more");
}

#[tokio::test]
async fn an_account_that_the_configuration_leaves_alone_brings_no_looks_and_any_other_does() {
    let other = |connection: &str, verified: bool| json!({ "email": "ann@example.com", "connection": connection, "email_verified": verified });
    let database = "Username-Password-Authentication";
    for (connections, verified_only, appeared, is_ours) in [
        (vec![], false, other("google-oauth2", false), true),
        (vec![], false, other(database, true), true),
        (vec![database], false, other("google-oauth2", true), false),
        (vec![database], false, other(database, false), true),
        (vec![], true, other("google-oauth2", false), false),
        (vec![], true, other("google-oauth2", true), true),
        (vec![database], true, other("google-oauth2", true), false),
        (vec![database], true, other(database, false), false),
    ] {
        let case = format!("{connections:?}, verified only: {verified_only}: {appeared}");
        let house = House::with(|options| {
            options.rules.connections = connections.into_iter().map(str::to_owned).collect();
            options.rules.require_verified_email = verified_only;
        })
        .await;
        let ann = silent_leaver(&house, "ann@example.com");
        house.account("ann@example.com");
        house.passes(DAY).await;
        compare(&house).await;
        house.settle().await;
        assert!(compare(&house).await.is_empty(), "{case}");
        house.auth0().create_user(appeared);
        let due = compare(&house).await;
        assert_eq!(due, if is_ours { vec![ann] } else { vec![] }, "{case}");
    }
}

#[tokio::test]
async fn who_went_from_one_status_that_is_denied_to_another_is_looked_at_once() {
    let house = House::with(|options| _ = options.rules.policy.deny_statuses.insert(Status::Suspended)).await;
    let ann = house.person("ann@example.com");
    house.account("ann@example.com");
    house.okta().suspend(&ann);
    house.passes(DAY).await;
    compare(&house).await;
    house.settle().await;
    house.okta().deactivate_silently(&ann);
    assert_eq!(compare(&house).await, std::slice::from_ref(&ann));
    house.settle().await;
    let known = house.engine().store().known(std::slice::from_ref(&ann)).await.unwrap();
    assert_eq!(known[&ann].status, Some(Status::Deprovisioned));
    assert!(compare(&house).await.is_empty());
}

#[tokio::test]
async fn only_when_somebody_is_due_the_looks_are_woken_and_then_at_once() {
    let house = House::with(|_| ()).await;
    let woken = async || {
        let notified = house.engine().wakes.apply.notified();
        tokio::pin!(notified);
        poll_fn(|context| Poll::Ready(notified.as_mut().poll(context).is_ready())).await
    };
    silent_leaver(&house, "ann@example.com");
    house.passes(DAY).await;
    assert!(compare(&house).await.is_empty() && !woken().await);
    house.account("ann@example.com");
    assert!(compare(&house).await.len() == 1 && woken().await);
}

#[tokio::test]
async fn an_alarm_about_something_else_lets_nobody_wait_for_the_end_of_their_sessions() {
    let house = House::with(|options| options.rules.end_sessions = true).await;
    house.auth0().set_has_session_api(false);
    for name in ["ann", "bob", "carol"] {
        silent_leaver(&house, &format!("{name}@example.com"));
        house.account(&format!("{name}@example.com"));
    }
    // A flag of the flow that was there before is told for as long as it is there.
    house.auth0().create_user(json!({
        "email": "dave@example.com", "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    house.passes(DAY).await;
    assert_eq!(compare(&house).await.len(), 3);
    house.settle().await;
    house.passes(DAY).await;
    assert_eq!(compare(&house).await.len(), 1, "one finds out whether it is refused still");
    house.auth0().set_has_session_api(true);
    house.settle().await;
    let alarms = house.engine().store().open_alarms().await.unwrap();
    assert_eq!(alarms.iter().map(|alarm| alarm.kind.as_str()).collect::<Vec<_>>(), ["foreign_flag"]);
    house.passes(DAY).await;
    assert_eq!(compare(&house).await.len(), 2, "and it is not");
}
