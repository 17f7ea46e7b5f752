//! Which users a reconcile queues, its requests, and its log lines.

use std::future::{Future, poll_fn};
use std::task::Poll;

use serde_json::json;

use super::super::stage::{CapturedLogs, Harness};
use super::*;
use crate::domain::account::{Identifier, Identity, Mirror, OtherMarks};
use crate::domain::mark::MarkOptions;
use crate::domain::{Account, Mark, Policy, Rules};
use okta_auth0_sync_sandbox::{Effect, Fault, PathMatch};

const DAY: Duration = Duration::from_secs(86_400);

/// A deactivated user without an event in the log.
fn silent_leaver(harness: &Harness, email: &str) -> OktaUserId {
    let who = harness.user(email);
    harness.okta().deactivate_silently(&who);
    who
}

/// Finishes the reconcile in progress and returns the due users.
async fn finish(harness: &Harness) -> Vec<OktaUserId> {
    assert!(harness.engine().reconcile(&CancellationToken::new()).await.unwrap().done);
    harness.due().await
}

/// Runs a full reconcile and returns the due users.
async fn compare(harness: &Harness) -> Vec<OktaUserId> {
    // Listings lag by a second.
    harness.passes(Duration::from_secs(2)).await;
    harness.engine().begin_reconcile(Scope::All, "a test").await.unwrap();
    finish(harness).await
}

/// The queries of the searches in Auth0.
fn searches(harness: &Harness) -> Vec<String> {
    let requests = harness.auth0().journal().requests();
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
        identities: Vec::new(),
        blocked,
        mark: owner.map(|owner| Mark {
            deactivated: true,
            okta_user_id: Some(user(owner)),
            okta_org: None,
            status: None,
            at: None,
            event_id: None,
            blocked: false,
        }),
        unread: false,
        former_key: None,
        keeps_former: false,
        keyed: Vec::new(),
        other_marks: OtherMarks::default(),
        mirror,
    }
}

/// Whether `decide` finds these accounts of ann@example.com in order, if the store has `denied` as denied.
fn agrees(me: &OktaUserId, accounts: &[&Account], denied: &[AccountId], mirror: bool, block: bool) -> bool {
    let rules = Rules {
        policy: Policy::default(),
        mark: MarkOptions { mirror, block },
        connections: Vec::new(),
        require_verified_email: false,
        trusted_connections: Vec::new(),
        end_sessions: false,
    };
    let addresses: Vec<Address> = Address::parse("ann@example.com").into_iter().collect();
    let candidate = Candidate::new(me, addresses.clone(), denied);
    let accounts = accounts.iter().map(|account| (*account).clone()).collect();
    let identifiers: Vec<Identifier> = addresses.into_iter().map(Identifier::Address).collect();
    decide::agrees(&candidate.known, &identifiers, accounts, &rules, "2026-11-23T10:00:00Z".parse().unwrap())
}

#[test]
fn accounts_that_need_a_write_disagree() {
    let me = user("00u1");
    let ids = |list: &[&str]| list.iter().map(|id| AccountId::new(*id)).collect::<Vec<_>>();
    let marked = account("a|1", Some("00u1"), Mirror::On, false);
    assert!(agrees(&me, &[], &[], true, false), "no account, no mark");
    assert!(agrees(&me, &[&marked], &ids(&["a|1"]), true, false));
    assert!(!agrees(&me, &[&marked], &[], true, false), "the state does not know the mark");
    assert!(!agrees(&me, &[], &ids(&["a|1"]), true, false), "the search does not find a marked account");
    assert!(!agrees(&me, &[&marked], &ids(&["a|1"]), true, true), "the block is missing");
    let open = account("a|2", None, Mirror::Absent, false);
    assert!(!agrees(&me, &[&marked, &open], &ids(&["a|1"]), true, false));
    let theirs = account("a|3", Some("00u2"), Mirror::On, false);
    assert!(agrees(&me, &[&theirs], &[], true, false), "denied for another user is denied");
    let cleared = account("a|1", Some("00u1"), Mirror::Off, false);
    assert!(!agrees(&me, &[&cleared], &ids(&["a|1"]), true, false));
    assert!(agrees(&me, &[&cleared], &ids(&["a|1"]), false, false), "the mirror is off");
    let linked = Identity { email: Address::parse("bob@example.com"), ..Identity::default() };
    let linked = Account { identities: vec![Identity::default(), linked], ..marked };
    assert!(!agrees(&me, &[&linked], &ids(&["a|1"]), true, false), "another user may hold the linked account");
}

#[tokio::test]
async fn nightly_reconcile_spans_log_retention() {
    let harness = Harness::with(|_| ()).await;
    harness.account("ann@example.com");
    silent_leaver(&harness, "ann@example.com");
    harness.passes(20 * DAY).await;
    harness.account("bob@example.com");
    let bob = silent_leaver(&harness, "bob@example.com");
    harness.passes(80 * DAY).await;
    harness.engine().begin_nightly().await.unwrap();
    assert_eq!(finish(&harness).await, [bob]);
    // A full reconcile has no time limit.
    assert_eq!(compare(&harness).await.len(), 2);
}

#[tokio::test]
async fn account_created_much_later_is_denied() {
    let harness = Harness::with(|_| ()).await;
    let users = ["ann@example.com", "bob@example.com"].map(|email| harness.user(email));
    harness.passes(DAY).await;
    for who in &users {
        harness.okta().deactivate(who);
    }
    harness.poll().await;
    harness.engine().look_at(&users).await.unwrap();
    harness.passes(80 * DAY).await;
    let anns = harness.account("ann@example.com");
    compare(&harness).await;
    harness.settle().await;
    assert_eq!(harness.auth0().user(&anns).unwrap()["app_metadata"]["okta_sync"]["deactivated"], "true");
    harness.passes(20 * DAY).await;
    harness.account("bob@example.com");
    harness.passes(400 * DAY).await;
    assert_eq!(compare(&harness).await, std::slice::from_ref(&users[1]), "searched for without a limit");
}

#[tokio::test]
async fn search_takes_twenty_users_and_stops_early() {
    let harness = Harness::with(|_| ()).await;
    for number in 0..45 {
        silent_leaver(&harness, &format!("p{number}@example.com"));
    }
    for number in [7, 39, 40, 44] {
        harness.account(&format!("p{number}@example.com"));
    }
    harness.passes(DAY).await;
    assert_eq!(compare(&harness).await.len(), 4);
    let addresses = |query: &String| query.matches("example.com").count();
    let asked: Vec<usize> = searches(&harness).iter().map(addresses).filter(|count| *count > 0).collect();
    assert_eq!(asked, [40, 40, 10], "an address is asked for on primary and linked identities");
}

#[tokio::test]
async fn marks_are_adopted_from_all_search_pages() {
    let harness = Harness::with(|_| ()).await;
    let logs = CapturedLogs::new();
    for number in 0..150 {
        let who = silent_leaver(&harness, &format!("p{number}@example.com"));
        harness.auth0().create_user(json!({
            // Its address differs from the user's, so only the mark finds it.
            "email": format!("old{number}@example.com"),
            "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": who.as_str() } },
        }));
    }
    harness.passes(DAY).await;
    assert_eq!(compare(&harness).await.len(), 150);
    assert_eq!(logs.count("marks_beyond_search"), 0, "all hits were read");
}

#[tokio::test]
async fn unreadable_users_and_marks_are_logged() {
    let harness = Harness::with(|_| ()).await;
    let logs = CapturedLogs::new();
    silent_leaver(&harness, "ann@example.com");
    harness.account("ann@example.com");
    harness.passes(DAY).await;
    assert_eq!(compare(&harness).await.len(), 1);
    assert_eq!((logs.count("unreadable_users"), logs.count("marks_beyond_search")), (0, 0));

    let (okta, auth0) = (harness.okta(), harness.auth0());
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
    compare(&harness).await;
    assert_eq!((logs.count("unreadable_users"), logs.count("marks_beyond_search")), (1, 1), "{}", logs.text());
    let asked = searches(&harness).iter().filter(|query| query.contains("q=app_metadata")).count();
    assert_eq!(asked, 1, "an empty page ends the search");
}

#[tokio::test]
async fn out_of_scope_accounts_queue_no_looks() {
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
        let harness = Harness::with(|options| {
            options.rules.connections = connections.into_iter().map(str::to_owned).collect();
            options.rules.require_verified_email = verified_only;
        })
        .await;
        let ann = silent_leaver(&harness, "ann@example.com");
        harness.account("ann@example.com");
        harness.passes(DAY).await;
        compare(&harness).await;
        harness.settle().await;
        assert!(compare(&harness).await.is_empty(), "{case}");
        harness.auth0().create_user(appeared);
        let due = compare(&harness).await;
        assert_eq!(due, if is_ours { vec![ann] } else { vec![] }, "{case}");
    }
}

#[tokio::test]
async fn changed_denying_status_queues_one_look() {
    let harness = Harness::with(|options| _ = options.rules.policy.deny_statuses.insert(Status::Suspended)).await;
    let ann = harness.user("ann@example.com");
    harness.account("ann@example.com");
    harness.okta().suspend(&ann);
    harness.passes(DAY).await;
    compare(&harness).await;
    harness.settle().await;
    harness.okta().deactivate_silently(&ann);
    assert_eq!(compare(&harness).await, std::slice::from_ref(&ann));
    harness.settle().await;
    let known = harness.engine().store().known(std::slice::from_ref(&ann)).await.unwrap();
    assert_eq!(known[&ann].status, Some(Status::Deprovisioned));
    assert!(compare(&harness).await.is_empty());
}

#[tokio::test]
async fn queued_users_wake_the_applier() {
    let harness = Harness::with(|_| ()).await;
    let woken = async || {
        let notified = harness.engine().wakes.apply.notified();
        tokio::pin!(notified);
        poll_fn(|context| Poll::Ready(notified.as_mut().poll(context).is_ready())).await
    };
    silent_leaver(&harness, "ann@example.com");
    harness.passes(DAY).await;
    assert!(compare(&harness).await.is_empty() && !woken().await);
    harness.account("ann@example.com");
    assert!(compare(&harness).await.len() == 1 && woken().await);
}

#[tokio::test]
async fn unrelated_alarm_does_not_defer_sessions() {
    let harness = Harness::with(|options| options.rules.end_sessions = true).await;
    harness.auth0().set_has_session_api(false);
    for name in ["ann", "bob", "carol"] {
        silent_leaver(&harness, &format!("{name}@example.com"));
        harness.account(&format!("{name}@example.com"));
    }
    // A flag of an earlier flow keeps its alarm open.
    harness.auth0().create_user(json!({
        "email": "dave@example.com", "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    harness.passes(DAY).await;
    assert_eq!(compare(&harness).await.len(), 3);
    harness.settle().await;
    harness.passes(DAY).await;
    assert_eq!(compare(&harness).await.len(), 1, "one user tests whether Auth0 still refuses");
    harness.auth0().set_has_session_api(true);
    harness.settle().await;
    let alarms = harness.engine().store().open_alarms().await.unwrap();
    assert_eq!(alarms.iter().map(|alarm| alarm.kind.as_str()).collect::<Vec<_>>(), ["foreign_flag"]);
    harness.passes(DAY).await;
    assert_eq!(compare(&harness).await.len(), 2, "Auth0 does not refuse any more");
}
