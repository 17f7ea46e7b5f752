//! `docs/decision-table.md`, row by row.

use std::collections::BTreeSet;

use okta_auth0_sync::domain::account::{Mirror, OtherMarks};
use okta_auth0_sync::domain::decide::{self, Action, Course, Evidence, Found, FoundBy, Holders};
use okta_auth0_sync::domain::mark::{Mark, MarkOptions};
use okta_auth0_sync::domain::{
    Account, AccountId, Address, Cause, KnownUser, MarkedAccount, OktaUser, OktaUserId, Policy, Rules, Status,
};
use serde_json::json;

use crate::world::{DAY, World};

const PAGE: &str = include_str!("../../docs/decision-table.md");

/// The rows of the tables whose header begins with `first`, cell by cell.
fn rows(first: &str) -> Vec<Vec<&'static str>> {
    let header = format!("| {first} |");
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(&header)).skip(2);
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn page_lists_every_status_with_its_verdict() {
    let mut named = BTreeSet::new();
    for row in rows("status") {
        let [status, verdict] = row[..] else { panic!("{row:?}") };
        let status = status.trim_matches('`');
        let parsed = Status::parse(if status == "any other" { "HIBERNATING" } else { status });
        assert_eq!(Policy::default().verdict(&parsed).as_str(), verdict, "{status}");
        named.insert(status);
    }
    assert!(Status::KNOWN.iter().all(|status| named.contains(status.as_str())));
}

fn user(id: &str) -> OktaUserId {
    OktaUserId::parse(id).unwrap()
}

/// What `decide` says of a row: the outcome, and how the account is afterwards.
fn decided(verdict: &str, mark: &str, is_held: bool) -> (String, String) {
    let (ann, bob, other) = (user("00uann"), user("00ubob"), user("00uSomebodyElse000000"));
    let email = Address::parse("team@example.com").unwrap();
    let owner = match mark {
        "for this user" => Some(ann.clone()),
        "for another user" => Some(other.clone()),
        _ => None,
    };
    let account = Account {
        id: AccountId::new("auth0|team"),
        email: Some(email.clone()),
        email_verified: true,
        identities: Vec::new(),
        blocked: false,
        unread: false,
        former_key: None,
        keeps_former: false,
        keyed: Vec::new(),
        other_marks: OtherMarks::default(),
        mirror: if mark == "none" { Mirror::Absent } else { Mirror::On },
        mark: owner.map(|owner| Mark {
            deactivated: true,
            okta_user_id: Some(owner),
            okta_org: None,
            status: None,
            at: None,
            event_id: None,
            blocked: false,
        }),
    };
    let marked = MarkedAccount {
        id: account.id.clone(),
        email: Some(email.clone()),
        denied: true,
        blocked: false,
        sessions_owed: false,
        unconfirmed: false,
        unmoved: false,
    };
    let known = KnownUser {
        id: ann.clone(),
        okta_org: None,
        may_move_marks: true,
        cause: Cause::Command,
        approved: None,
        recheck_step: 0,
        status: None,
        status_at: None,
        left_at: None,
        returned_at: None,
        addresses: vec![email.clone()],
        present_addresses: vec![email.clone()],
        accounts: if mark == "for this user" { vec![marked] } else { Vec::new() },
        events: Vec::new(),
    };
    let rules = Rules {
        policy: Policy::default(),
        mark: MarkOptions { mirror: true, block: false },
        connections: Vec::new(),
        require_verified_email: false,
        trusted_connections: Vec::new(),
        end_sessions: false,
    };
    let status = match verdict {
        "deny" => Status::Deprovisioned,
        "allow" => Status::Active,
        _ => Status::Suspended,
    };
    let okta =
        OktaUser { id: ann.clone(), login: "ann".to_owned(), email: Some(email.clone()), status, transitional: false };
    let assessment = decide::assess(&known, Some(okta), &rules.policy);
    let is_read = match assessment.course {
        Course::Deny(_) => true,
        _ => !decide::marked_accounts(&known, &assessment.course).is_empty(),
    };
    let mut holders = Holders::default();
    if is_held {
        holders.note(&email, &bob);
    }
    let by = if matches!(assessment.course, Course::Deny(_)) { FoundBy::Identity } else { FoundBy::Mark };
    let found = Found { id: account.id.clone(), account: Some(account.clone()), by, blocked_by_us: false };
    let accounts = if is_read { vec![found] } else { Vec::new() };
    let done = BTreeSet::new();
    let evidence = Evidence { known: &known, assessment: &assessment, accounts, holders, done: &done };
    let plan = decide::decide(&evidence, &rules, "2026-11-23T10:00:00Z".parse().unwrap());
    let mut outcome = "unchanged".to_owned();
    let mut after = account;
    for step in plan.steps {
        if let Action::Deny { patch, .. } | Action::Lift(patch) = &step.action {
            after.mark = Some(patch.mark.clone());
            after.mirror = match patch.mirror {
                Some(true) => Mirror::On,
                Some(false) => Mirror::Off,
                None => after.mirror,
            };
            outcome = "applied".to_owned();
        }
        if let Some(said) = step.outcome {
            let why = said.why().map_or_else(String::new, |why| format!(": {why}"));
            outcome = format!("{}{why}", said.as_str());
        }
    }
    let owner = after.mark.filter(|mark| mark.deactivated).map(|mark| mark.okta_user_id);
    let is = match (owner, after.mirror) {
        (Some(owner), _) if owner == Some(ann) => "denied, mark for this user",
        (Some(owner), _) if owner == Some(other) => "denied, mark for another user",
        (None, Mirror::On) => "denied, a flag that names no user",
        _ => "open",
    };
    (outcome.split(": 00u").next().unwrap_or_default().to_owned(), is.to_owned())
}

#[test]
fn decide_agrees_with_the_decision_table() {
    let rows = rows("verdict");
    for row in &rows {
        let [verdict, mark, held_by_another, outcome, then] = row[..] else { panic!("{row:?}") };
        let (said, is) = decided(verdict, mark, held_by_another == "yes");
        assert_eq!((said.as_str(), is.as_str()), (outcome, then), "{row:?}");
    }
    assert_eq!(rows.len(), 24);
}

#[tokio::test]
async fn decision_table_rows_hold() {
    let rows = rows("verdict");
    let mut played = BTreeSet::new();
    for row in &rows {
        let [verdict, mark, held_by_another, outcome, then] = row[..] else { panic!("{row:?}") };
        played.insert((verdict, mark, held_by_another));
        let world = World::new().await;
        let ann = world.user_called("ann", "team@example.com");
        let account = world.account("team@example.com");
        world.sync().await;
        world.passes(DAY);
        if mark == "for this user" {
            world.leaves(&ann).await;
            world.passes(DAY);
        }
        let somebody = "00uSomebodyElse000000";
        world.auth0().set_user(&account, |user| match mark {
            "for another user" => {
                user["app_metadata"]["okta_sync"] = json!({ "deactivated": "true", "okta_user_id": somebody });
                user["user_metadata"]["okta"]["deactivated"] = json!("true");
            }
            "a flag that names no user" => user["user_metadata"]["okta"]["deactivated"] = json!("true"),
            _ => {}
        });
        if held_by_another == "yes" {
            world.user_called("bob", "TEAM@example.com");
        }
        let status = match verdict {
            "deny" => "DEPROVISIONED",
            "allow" => "ACTIVE",
            _ => "SUSPENDED",
        };
        world.okta().set_status(&ann, status, None);
        let reports = world.request(&ann).await;
        assert!(!reports.is_empty());
        let said = world.outcome(&ann).await;
        let said = said.split(": 00u").next().unwrap();
        assert_eq!(said, outcome, "{row:?}");
        let user = world.auth0().user(&account).unwrap();
        let owner = &user["app_metadata"]["okta_sync"];
        let is = match (world.lets_in(&account), owner["deactivated"] == "true") {
            (true, false) => "open",
            (false, false) => "denied, a flag that names no user",
            (false, true) if owner["okta_user_id"] == ann.as_str() => "denied, mark for this user",
            (false, true) if owner["okta_user_id"] == somebody => "denied, mark for another user",
            _ => panic!("{user:#}"),
        };
        assert_eq!(is, then, "{row:?}");
    }
    assert_eq!((rows.len(), played.len()), (24, 24), "three verdicts, four marks, with and without another holder");
}
