//! Runs the shipped Action on every shape of metadata.

use std::process::Command;

use serde_json::{Value, json};

use okta_auth0_sync_sandbox::run_action;

use super::{ACTION_SOURCE, ShippedAction};

/// The Action for two configurations: its code, the key that it reads and its message.
fn filled() -> [(String, &'static str, &'static str); 2] {
    const HOSTILE: &str = "Gone: \"bye\" \\ '; throw 1; // \u{2028}\u{1f44b}";
    [("okta_sync", "account_deactivated"), ("acme-sync_2", HOSTILE)]
        .map(|(key, message)| (ShippedAction::new(message, key).code, key, message))
}

/// Shapes of `okta_sync` or `okta`, and whether they deny.
fn marks() -> Vec<(Option<Value>, bool)> {
    let holding = |value: Value| Some(json!({ "deactivated": value }));
    vec![
        (None, false),
        (Some(json!(null)), false),
        (Some(json!("true")), false),
        (Some(json!(true)), false),
        (Some(json!(1)), false),
        (Some(json!([])), false),
        (Some(json!([{ "deactivated": "true" }])), false),
        (Some(json!({})), false),
        (holding(json!("true")), true),
        (holding(json!(true)), true),
        (holding(json!("false")), false),
        (holding(json!(false)), false),
        (holding(json!("TRUE")), false),
        (holding(json!(1)), false),
        (holding(json!(null)), false),
        (holding(json!(["true"])), false),
        (holding(json!({ "deactivated": "true" })), false),
    ]
}

/// Shapes of a whole metadata object: every mark under `key`, and values that are not objects.
fn metadata(key: &str) -> Vec<(Option<Value>, bool)> {
    let mut all: Vec<(Option<Value>, bool)> =
        [None, Some(json!(null)), Some(json!("x")), Some(json!([1])), Some(json!(7)), Some(json!(true))]
            .into_iter()
            .map(|shape| (shape, false))
            .collect();
    for (mark, denies) in marks() {
        let mut object = json!({ "other": { "deactivated": "true" } });
        if let Some(mark) = mark {
            object[key] = mark;
        }
        all.push((Some(object), denies));
    }
    all
}

/// Every event with these shapes, and whether it is denied.
fn events(key: &str) -> Vec<(Value, bool)> {
    let mut events = vec![(json!({}), false), (json!({ "user": null }), false), (json!({ "user": "x" }), false)];
    for (app, denied_by_app) in metadata(key) {
        for (user, denied_by_user) in metadata("okta") {
            let mut event = json!({ "user": { "user_id": "auth0|1" } });
            if let Some(app) = &app {
                event["user"]["app_metadata"] = app.clone();
            }
            if let Some(user) = user {
                event["user"]["user_metadata"] = user;
            }
            events.push((event, denied_by_app || denied_by_user));
        }
    }
    events
}

#[test]
fn action_denies_marked_users_only() {
    assert_eq!(filled()[0].0, ACTION_SOURCE);
    for (code, key, message) in filled() {
        for (event, denied) in events(key) {
            let spoken = run_action(&code, &event).unwrap_or_else(|threw| panic!("{event}: {threw}"));
            assert_eq!(spoken.denied.as_deref(), denied.then_some(message), "{event}");
            assert!(spoken.app_metadata.is_empty() && spoken.user_metadata.is_empty(), "the Action writes no metadata");
        }
    }
}

/// The same in Node.js, the runtime of Auth0, if it is installed.
#[test]
fn action_does_the_same_in_node() {
    if Command::new("node").arg("--version").output().is_err() {
        eprintln!("not run: node is not installed");
        return;
    }
    for (code, key, message) in filled() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("action.js"), code).unwrap();
        let all: Vec<Value> = events(key).into_iter().map(|(event, denied)| json!([event, denied])).collect();
        std::fs::write(folder.path().join("events.json"), Value::Array(all).to_string()).unwrap();
        std::fs::write(folder.path().join("message.json"), json!(message).to_string()).unwrap();
        let script = r#"
            const action = require("./action.js");
            const message = require("./message.json");
            (async () => {
              for (const [event, denied] of require("./events.json")) {
                const reasons = [];
                await action.onExecutePostLogin(event, { access: { deny: (...args) => reasons.push(args) } });
                const expected = denied ? [[message]] : [];
                if (JSON.stringify(reasons) !== JSON.stringify(expected)) throw new Error(JSON.stringify(event));
              }
            })().catch((error) => { console.error(error); process.exit(1); });
        "#;
        let output = Command::new("node").args(["-e", script]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
