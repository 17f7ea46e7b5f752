//! "Was this person locked out, when, and how do you know?", from a copy of the state alone: no daemon, no tenants, no
//! secrets. The drill of docs/sql.md.

use std::fs;
use std::path::Path;
use std::process::Command;

use okta_auth0_sync::sandbox::{Effect, Fault};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Row};

use crate::stage::Stage;

/// A configuration that names no secret that exists.
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
async fn a_copy_of_the_state_answers_and_shows_when_it_was_edited() {
    let stage = Stage::set().await;
    let (ann, account) = stage.person("ann");
    let (gone, _) = stage.person("gone");
    stage.sync().await;
    // Auth0 names its answers.
    let (name, value) = ("x-auth0-requestid".to_owned(), Some("request-1".to_owned()));
    stage.sandbox.auth0().faults().add(Fault::new("PATCH", "/api/v2/users", Effect::ReplaceHeader { name, value }));
    stage.sandbox.okta().deactivate(&ann);
    stage.sandbox.okta().deactivate(&gone);
    stage.sync().await;
    stage.sandbox.okta().delete(&gone);
    stage.sync().await;
    let folder = stage.folder().to_owned();
    stage.run(&["backup", "copy.db"]).await.exits(0);
    fs::write(folder.join("auditor.toml"), AUDITOR).unwrap();
    // From here on there is the copy alone.
    drop(stage.sandbox);

    let (code, story) = asked(&folder, &["user", "ann@example.com"]);
    assert!(code == 0 && story.contains("denied") && story.contains(&account), "{story}");
    let (code, story) = asked(&folder, &["user", "gone@example.com", "--json"]);
    let story: Value = serde_json::from_str(&story).unwrap();
    assert_eq!((code, &story["person"]["status"]), (0, &"DELETED".into()), "somebody deleted is answered for: {story}");

    let (code, lines) = asked(&folder, &["audit", "export", "--format", "jsonl"]);
    assert_eq!(code, 0, "{lines}");
    let decisions: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let denied = decisions
        .iter()
        .find(|one| one["auth0_user_id"] == account.as_str() && one["outcome"] == "applied")
        .unwrap_or_else(|| panic!("{lines}"));
    for known in ["at", "event_id", "actor", "status", "request_id", "version", "policy"] {
        assert!(denied[known].as_str().is_some_and(|text| !text.is_empty()), "{known} is not told: {denied}");
    }
    let (code, csv) = asked(&folder, &["audit", "export"]);
    assert!(code == 0 && csv.lines().count() == decisions.len() + 1, "{csv}");
    let (code, proof) = asked(&folder, &["audit", "verify"]);
    assert!(code == 0 && proof.contains("as they were written"), "{proof}");

    // Somebody who can write the file edits a row, and takes away what forbids it.
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
