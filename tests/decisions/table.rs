//! `docs/decision-table.md`, row by row.

use std::collections::BTreeSet;

use okta_auth0_sync::domain::{Policy, Status};
use serde_json::json;

use super::world::{DAY, World};

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

#[tokio::test]
async fn decision_table_rows_hold() {
    let rows = rows("verdict");
    let mut played = BTreeSet::new();
    for row in &rows {
        let [verdict, mark, held_by_another, outcome, then] = row[..] else { panic!("{row:?}") };
        played.insert((verdict, mark, held_by_another));
        let world = World::new().await;
        let ann = world.person_called("ann", "team@example.com");
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
            world.person_called("bob", "TEAM@example.com");
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
