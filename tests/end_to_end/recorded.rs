//! Events that a real org wrote (the recordings of okta-sdk-java, in the folder `OKTA_REFERENCE`), through the whole
//! program. Without the recordings the test uses events of the same order and shape.
//!
//! Log order is not causal order: in the recordings the activation comes before the creation, and the change of the login
//! (published last) before the deactivation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::{Effect, Fault};
use serde_json::{Value, json};

use crate::harness::Harness;

/// Created, activated, deactivated and deleted within three seconds.
const JOE: &str = "00ud384zuth7mRcv30h7";
const JOE_EMAIL: &str = "joe.coder+4c5e49bc-7282-4708-a91d-06df37fa9530@example.com";
/// Deactivated and deleted; his login was changed in between.
const JOHN: &str = "00ud384zryL1GFAg30h7";
const JOHN_EMAIL: &str = "john-with-group@example.com";
/// Created and activated.
const NEWCOMER: &str = "00ud383huafXoOAKo0h7";
const NEWCOMER_EMAIL: &str = "joe.coder+537ed993-b49f-4c4d-b067-569d20f8aae3@example.com";

/// What matters in the recordings, for when they are not available: the same order and shape.
fn rewritten(name: &str) -> Value {
    let joe = (JOE, JOE_EMAIL);
    let renamed = (JOE, "00ud384zuth7mRcv30h7@deleted.invalid");
    match name {
        "okta-sdk-java_one_user_lifecycle_in_log_order.json" => json!([
            entry("user.authentication.auth_via_mfa", "2017-11-30T21:15:51.406Z", "life-1", Some(joe)),
            entry("user.account.update_password", "2017-11-30T21:15:50.977Z", "life-2", Some(joe)),
            entry("user.mfa.factor.activate", "2017-11-30T21:15:51.348Z", "life-3", Some(joe)),
            entry("user.lifecycle.activate", "2017-11-30T21:15:51.086Z", "life-4", Some(joe)),
            entry("user.lifecycle.create", "2017-11-30T21:15:50.636Z", "life-5", Some(joe)),
            entry("user.account.update_profile", "2017-11-30T21:15:53.454Z", "life-6", Some(renamed)),
            entry("user.account.privilege.revoke", "2017-11-30T21:15:53.416Z", "life-7", None),
            entry("user.lifecycle.deactivate", "2017-11-30T21:15:53.249Z", "life-8", Some(joe)),
            entry("user.lifecycle.delete.initiated", "2017-11-30T21:15:53.431Z", "life-9", Some(joe)),
        ]),
        "okta-sdk-java_create.json" => {
            entry("user.lifecycle.create", "2017-11-30T21:15:19.421Z", "create", Some((NEWCOMER, NEWCOMER_EMAIL)))
        }
        "okta-sdk-java_activate.json" => {
            entry("user.lifecycle.activate", "2017-11-30T21:15:19.856Z", "activate", Some((NEWCOMER, NEWCOMER_EMAIL)))
        }
        "okta-sdk-java_update_profile_on_delete_login_renamed.json" => entry(
            "user.account.update_profile",
            "2017-11-30T21:15:17.036Z",
            "rename",
            Some((JOHN, "00ud384zryL1GFAg30h7@deleted.invalid")),
        ),
        "okta-sdk-java_deactivate_api.json" => {
            entry("user.lifecycle.deactivate", "2017-11-30T21:15:16.838Z", "deactivate", Some((JOHN, JOHN_EMAIL)))
        }
        "okta-sdk-java_delete_initiated.json" => {
            entry("user.lifecycle.delete.initiated", "2017-11-30T21:15:16.997Z", "delete", Some((JOHN, JOHN_EMAIL)))
        }
        "get_user_deprovisioned.json" => json!({
            "id": "00uDeprovisioned0000", "status": "DEPROVISIONED", "activated": null, "lastLogin": null,
            "created": "2025-03-13T23:45:57.000Z", "statusChanged": "2025-03-13T23:45:59.000Z",
            "lastUpdated": "2025-03-13T23:45:59.000Z", "passwordChanged": null,
            "profile": { "firstName": "Test", "lastName": "Smith", "mobilePhone": null, "secondEmail": null,
                "login": "test.smith@example.com", "email": "test.smith@example.com" },
            "credentials": { "provider": { "type": "OKTA", "name": "OKTA" } },
        }),
        other => panic!("{other}: no recording of this name"),
    }
}

fn entry(event_type: &str, published: &str, uuid: &str, user: Option<(&str, &str)>) -> Value {
    let target = user.map(|(id, login)| {
        json!([{ "id": id, "type": "User", "alternateId": login, "displayName": "Joe Coder", "detailEntry": null }])
    });
    json!({
        "actor": { "id": "0000222244448888000", "type": "User", "alternateId": "joe.coder@example.com",
            "displayName": "Joe Coder", "detailEntry": null },
        "displayMessage": event_type, "eventType": event_type, "published": published, "uuid": uuid,
        "outcome": { "result": "SUCCESS", "reason": null }, "severity": "INFO", "version": "0",
        "transaction": { "type": "WEB", "id": "WiB05PV4MgacZHWciQq8kAAADik", "detail": {} },
        "debugContext": { "debugData": { "requestUri": "/api/v1/users" } },
        "target": target,
    })
}

fn reference(name: &str) -> Value {
    let beside: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/okta");
    // A checkout elsewhere sets the variable.
    let folder = std::env::var_os("OKTA_REFERENCE").map_or(beside, PathBuf::from);
    let file = folder.join(name);
    match fs::read_to_string(&file) {
        Ok(text) => {
            eprintln!("{name}: as recorded");
            serde_json::from_str(&text).unwrap()
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{name}: rewritten, no recording available");
            rewritten(name)
        }
        Err(error) => panic!("{}: {error}", file.display()),
    }
}

fn life() -> Vec<Value> {
    reference("okta-sdk-java_one_user_lifecycle_in_log_order.json").as_array().unwrap().clone()
}

/// Okta answers for this id with the recorded user in this status.
fn answers(harness: &Harness, id: &str, email: &str, status: &str) {
    let mut body = reference("get_user_deprovisioned.json");
    body["id"] = id.into();
    body["status"] = status.into();
    body["profile"]["login"] = email.into();
    body["profile"]["email"] = email.into();
    let effect = Effect::Status { code: 200, body, headers: Vec::new() };
    harness.sandbox.okta().faults().add(Fault::new("GET", &format!("/api/v1/users/{id}"), effect));
}

fn parsed(id: &str) -> OktaUserId {
    OktaUserId::parse(id).unwrap()
}

/// The last outcome of a user, and the last verdict.
async fn ending(harness: &Harness, id: &str) -> (Option<String>, Option<String>) {
    let store = harness.store().await;
    let user = store.find_users(id).await.unwrap().into_iter().next().expect("the user is known");
    let decisions = store.decisions(Some(&parsed(id)), None, 0, 1000).await.unwrap();
    store.close().await;
    (
        user.outcome.map(|outcome| outcome.as_str().to_owned()),
        decisions.last().and_then(|decision| decision.verdict.clone()),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_events_reach_right_verdicts() {
    let harness = Harness::start().await;
    let joe = harness.account(JOE_EMAIL);
    let john = harness.account(JOHN_EMAIL);
    let newcomer = harness.account(NEWCOMER_EMAIL);
    let bystander = harness.account("joe.coder@example.com");
    answers(&harness, NEWCOMER, NEWCOMER_EMAIL, "ACTIVE");
    let okta = harness.sandbox.okta();
    for entry in life() {
        okta.push_log_entry(entry);
    }
    for name in ["create", "activate", "update_profile_on_delete_login_renamed", "deactivate_api", "delete_initiated"] {
        okta.push_log_entry(reference(&format!("okta-sdk-java_{name}.json")));
    }

    harness.sync().await;
    assert_eq!(harness.shut_out(), BTreeSet::from([joe.clone(), john.clone()]));
    for (account, id) in [(&joe, JOE), (&john, JOHN)] {
        let mark = harness.mark(account);
        assert_eq!((&mark["okta_user_id"], &mark["status"]), (&json!(id), &json!("DELETED")), "{mark}");
    }
    assert!(harness.mark(&newcomer).is_null() && harness.mark(&bystander).is_null());
    assert_eq!(ending(&harness, NEWCOMER).await.1.as_deref(), Some("allow"));

    let store = harness.store().await;
    let status = store.status().await.unwrap().unwrap();
    assert_eq!((status.quarantined, status.pending, status.denied), (0, 0, 2));
    let events = store.recent_events(None, 1000).await.unwrap();
    assert!(events.iter().all(|event| event.settled_at.is_some()), "{events:#?}");
    for id in [JOE, JOHN] {
        let addresses = store.addresses_of(&parsed(id)).await.unwrap();
        assert!(addresses.iter().all(|address| !address.ends_with("@deleted.invalid")), "{addresses:?}");
    }
    store.close().await;

    let writes = harness.writes();
    harness.sync().await;
    assert_eq!(harness.writes(), writes, "a second pass writes nothing");
}

/// A look can happen after any event, in either order of the log: the user is not denied before they left, and denied
/// once after it.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_life_in_any_page_size_or_order() {
    for backwards in [false, true] {
        let harness = Harness::start().await;
        let account = harness.account(JOE_EMAIL);
        let mut entries = life();
        if backwards {
            entries.reverse();
        }
        let leaves = |entry: &Value| {
            ["user.lifecycle.deactivate", "user.lifecycle.delete.initiated"]
                .contains(&entry["eventType"].as_str().unwrap())
        };
        let mut left = false;
        for entry in entries {
            left |= leaves(&entry);
            let what = entry["eventType"].as_str().unwrap().to_owned();
            harness.sandbox.okta().push_log_entry(entry);
            // Okta has deleted him: 404 from the first look on. Without evidence that he left, the denial is held.
            let ran = harness.run(&["sync"]).await;
            assert!(matches!(ran.code, Some(0 | 1)), "{}", ran.all());
            assert_eq!(!harness.shut_out().is_empty(), left, "backwards: {backwards}, after {what}\n{}", ran.all());
        }
        assert_eq!(harness.mark(&account)["okta_user_id"], JOE);
        assert_eq!(harness.writes(), 1, "backwards: {backwards}");
        harness.sync().await;
    }
}

/// The recorded response for a deactivated user, unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn recorded_deactivated_user_is_denied() {
    let harness = Harness::start().await;
    let body = reference("get_user_deprovisioned.json");
    let (id, email) = (body["id"].as_str().unwrap().to_owned(), body["profile"]["email"].as_str().unwrap().to_owned());
    let account = harness.account(&email);
    let mut entry = reference("okta-sdk-java_deactivate_api.json");
    entry["target"][0]["id"] = id.as_str().into();
    entry["target"][0]["alternateId"] = email.as_str().into();
    let uuid = entry["uuid"].clone();
    let effect = Effect::Status { code: 200, body, headers: Vec::new() };
    harness.sandbox.okta().faults().add(Fault::new("GET", &format!("/api/v1/users/{id}"), effect));
    harness.sandbox.okta().push_log_entry(entry);

    harness.sync().await;
    assert_eq!(harness.shut_out(), BTreeSet::from([account.clone()]));
    let mark = harness.mark(&account);
    assert_eq!((&mark["status"], &mark["event_id"]), (&json!("DEPROVISIONED"), &uuid), "{mark}");
}
