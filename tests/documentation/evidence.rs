//! "Was this person locked out, when, and how do you know?", from a copy of the state alone: no daemon, no tenants, no
//! secrets. The drill of docs/sql.md.

use std::fs;
use std::path::Path;
use std::process::Command;

use okta_auth0_sync::domain::{Clock, SystemClock};
use okta_auth0_sync::store::{Access, Store};
use okta_auth0_sync_sandbox::{Effect, Fault};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row};

use crate::harness::Harness;

/// A configuration whose secret files do not exist.
const AUDITOR: &str = "[okta]\nurl = \"https://nowhere.okta.com\"\napi_token_file = \"none\"\n\
                       [auth0]\nurl = \"https://nowhere.auth0.com\"\nclient_id = \"none\"\nclient_secret_file = \"none\"\n\
                       [store]\npath = \"copy.db\"\n";

fn asked(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
        .args(["--config", "auditor.toml"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_state_answers_and_shows_edits() {
    let harness = Harness::start().await;
    let (ann, account) = harness.user("ann");
    let (gone, _) = harness.user("gone");
    harness.sync().await;
    // Auth0 gives its responses an id.
    let (name, value) = ("x-auth0-requestid".to_owned(), Some("request-1".to_owned()));
    harness.sandbox.auth0().faults().add(Fault::new("PATCH", "/api/v2/users", Effect::ReplaceHeader { name, value }));
    harness.sandbox.okta().deactivate(&ann);
    harness.sandbox.okta().deactivate(&gone);
    harness.sync().await;
    harness.sandbox.okta().delete(&gone);
    harness.sync().await;
    let folder = harness.folder().to_owned();
    harness.run(&["backup", "copy.db"]).await.exits(0);
    fs::write(folder.join("auditor.toml"), AUDITOR).unwrap();
    // From here on only the copy exists.
    drop(harness.sandbox);

    let (code, story) = asked(&folder, &["user", "ann@example.com"]);
    assert!(code == 0 && story.contains("denied") && story.contains(&account), "{story}");
    let (code, story) = asked(&folder, &["user", "gone@example.com", "--json"]);
    let story: Value = serde_json::from_str(&story).unwrap();
    assert_eq!((code, &story["person"]["status"]), (0, &"DELETED".into()), "the history of a deleted user: {story}");

    let (code, lines) = asked(&folder, &["audit", "export", "--format", "jsonl"]);
    assert_eq!(code, 0, "{lines}");
    let decisions: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let denied = decisions
        .iter()
        .find(|one| one["auth0_user_id"] == account.as_str() && one["outcome"] == "applied")
        .unwrap_or_else(|| panic!("{lines}"));
    for known in ["at", "event_id", "actor", "status", "request_id", "version", "policy"] {
        assert!(denied[known].as_str().is_some_and(|text| !text.is_empty()), "{known} is missing: {denied}");
    }
    let (code, csv) = asked(&folder, &["audit", "export"]);
    assert!(code == 0 && csv.lines().count() == decisions.len() + 1, "{csv}");
    let (code, proof) = asked(&folder, &["audit", "verify"]);
    assert!(code == 0 && proof.contains("decisions are unchanged"), "{proof}");

    // An attacker with write access drops the triggers and edits a row.
    let row = denied["id"].as_i64().unwrap();
    let mut state = SqliteConnectOptions::new().filename(folder.join("copy.db")).connect().await.unwrap();
    let triggers = sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetch_all(&mut state).await;
    for trigger in triggers.unwrap() {
        let name: String = trigger.get("name");
        sqlx::query(sqlx::AssertSqlSafe(format!("DROP TRIGGER {name}"))).execute(&mut state).await.unwrap();
    }
    let table: String = sqlx::query(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%chain%' AND sql LIKE '%request_id%'",
    )
    .fetch_one(&mut state)
    .await
    .unwrap()
    .get("name");
    let edited = sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE {table} SET outcome = 'skipped' WHERE id = {row}")));
    assert_eq!(edited.execute(&mut state).await.unwrap().rows_affected(), 1);
    drop(state);
    let (code, found) = asked(&folder, &["audit", "verify"]);
    assert!(code == 1 && found.contains(&row.to_string()), "row {row}: {found}");
}

/// What the queries still answer after retention, for a deleted user, and after `forget`, and what they report as gone.
#[tokio::test(flavor = "multi_thread")]
async fn queries_survive_retention_and_forget() {
    let harness = Harness::start().await;
    let (ann, account) = harness.user("ann");
    let (gone, _) = harness.user("gone");
    let (bob, bobs) = harness.user("bob");
    harness.sync().await;
    for user in [&ann, &gone, &bob] {
        harness.sandbox.okta().deactivate(user);
    }
    harness.sync().await;
    harness.sandbox.okta().delete(&gone);
    harness.sync().await;
    harness.run(&["forget", "bob@example.com", "--yes"]).await.exits(0);
    let export = harness.run(&["audit", "export"]).await;
    assert!(export.exits(0).out.contains(&account), "{}", export.out);
    assert!(!export.out.contains("bob@example.com") && !export.out.contains(&bobs), "forgotten: {}", export.out);
    let proof = harness.run(&["audit", "verify"]).await;
    let anonymous = proof.exits(0).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!anonymous.contains("; 0 more are anonymized"), "that it was made is still proven: {anonymous}");
    assert!(anonymous.contains("They go back to the first"), "{anonymous}");

    // Apply retention as if two years had passed.
    let store = Store::open_beside(&harness.state(), Access::Beside).await.unwrap();
    while store.expire("2100-01-01T00:00:00Z".parse().unwrap(), 1000, SystemClock::new().now()).await.unwrap() > 0 {}
    store.close().await;
    assert_eq!(harness.run(&["events"]).await.exits(0).out, "no matching events\n");
    for (who, status) in [("ann@example.com", "DEPROVISIONED"), ("gone@example.com", "DELETED")] {
        let told = harness.run(&["user", who]).await;
        assert!(told.exits(0).out.contains(status), "{}", told.out);
        let row = told.out.lines().find(|line| line.contains(" denied ")).unwrap_or_else(|| panic!("{}", told.out));
        assert!(row.contains(" ago") || row.contains("just now"), "since when: {row}");
        assert!(told.out.contains("deleted after [store] retention; none are kept."), "{}", told.out);
        let json: Value = serde_json::from_str(&harness.run(&["user", who, "--json"]).await.out).unwrap();
        assert!(json["accounts"][0]["denied_at"].is_string() && json["accounts"][0]["event_id"].is_string(), "{json}");
        assert!(json["decisions_kept"]["expired"].as_i64() > Some(0), "{json}");
    }
    let proof = harness.run(&["audit", "verify"]).await;
    assert!(proof.exits(0).out.contains("earlier ones were deleted after [store] retention."), "{}", proof.out);

    // Later decisions are listed next to it.
    harness.sandbox.okta().activate(&ann);
    harness.sync().await;
    let told = harness.run(&["user", "ann@example.com"]).await;
    assert!(told.out.contains("retention; the oldest one kept is from 20"), "{}", told.out);
    assert!(told.out.contains("applied: "), "{}", told.out);
    let proof = harness.run(&["audit", "verify"]).await;
    assert!(proof.exits(0).out.contains("retention; these go back to 20"), "{}", proof.out);
}
