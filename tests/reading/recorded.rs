//! `events`, `user`, `audit`, `forget` and requests that match no user: all without remotes.

use okta_auth0_sync::store::{Access, Store};
use serde_json::Value;

use super::filled::Folder;

#[test]
fn commands_without_state_exit_1() {
    let folder = Folder::empty();
    for arguments in [
        &["events"][..],
        &["user", "ann@example.com"],
        &["retry", "--failed"],
        &["approve", "--all"],
        &["audit", "export"],
        &["audit", "verify"],
        &["forget", "ann@example.com", "--yes"],
        &["backup", "copy.db"],
    ] {
        let ran = folder.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains("nothing has run yet"), "{arguments:?}: {}", ran.err);
    }
    assert!(!folder.state().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_by_state() {
    let folder = Folder::troubled().await;
    let ids = |arguments: &[&str]| -> Vec<String> {
        let ran = folder.run(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        ran.out
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["event_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&["events", "--json"]), ["q-1", "e-dan", "e-cyd2", "e-cyd", "e-bob", "e-ann"]);
    assert_eq!(ids(&["events", "--json", "--limit", "2"]), ["q-1", "e-dan"]);
    assert_eq!(ids(&["events", "--json", "--state", "settled"]), ["e-ann"]);
    assert_eq!(ids(&["events", "--json", "--state", "pending"]), ["e-dan", "e-cyd2", "e-cyd", "e-bob"]);
    assert_eq!(ids(&["events", "--json", "--state", "quarantined"]), ["q-1"]);
    assert!(ids(&["events", "--json", "--state", "ignored"]).is_empty());

    let ran = folder.run(&["events", "--state", "quarantined"]);
    assert!(ran.out.contains("no user in it: gone\\u{1b}[2J\\nbad (q-1)"), "{}", ran.out);
    assert!(!ran.out.contains("eve@example.com"), "its text is shown in JSON only");
    let ran = folder.run(&["events", "--state", "quarantined", "--json"]);
    let event: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(event["raw"].as_str().unwrap().contains("eve@example.com"));
    assert_eq!((event["raw"].as_str().unwrap().chars().count(), &event["raw_cut"]), (4001, &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn user_is_found_by_any_identifier() {
    let folder = Folder::troubled().await;
    for who in ["00uann", "ANN@example.com", "auth0|ann"] {
        let ran = folder.run(&["user", who]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{who}");
        for expected in
            ["DEPROVISIONED, read ", "applied: open → denied", "10.5 s", "auth0|ann", "said \"yes\",\\nthen no"]
        {
            assert!(ran.out.contains(expected), "{who}, expected: {expected}\n{}", ran.out);
        }
    }
    let ran = folder.run(&["user", "00ucyd"]);
    assert!(ran.out.contains("okta-auth0-sync approve 00ucyd"), "{}", ran.out);
    let ran = folder.run(&["user", "ann@example.com", "--json"]);
    let story: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(story["person"]["okta_user_id"], "00uann");
    assert_eq!(story["decisions"][0]["request_id"], "r-1");
    assert_eq!((&story["accounts"][0]["denied"], &story["events"][0]["outcome"]), (&true.into(), &"applied".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_match_and_ambiguous_match_differ() {
    let folder = Folder::troubled().await;
    for command in [&["user"][..], &["retry"], &["approve"], &["forget", "--yes"]] {
        let ran = folder.run(&[command, &["nobody\u{1b}[2J@example.com"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{command:?}");
        assert!(ran.err.contains("in the state") && !ran.err.contains('\u{1b}'), "{command:?}: {:?}", ran.err);
        let ran = folder.run(&[command, &["cyd@example.com"]].concat());
        assert_eq!(ran.code, 1, "{command:?}");
        assert!(ran.out.contains("00ucyd ") && ran.out.contains("00ucyd2 "), "{command:?}: {}", ran.out);
        assert!(ran.out.contains("name one by its Okta id"), "{command:?}: {}", ran.out);
    }
    let ran = folder.run(&["user", "cyd@example.com", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, json["matches"].as_array().map(Vec::len)), (1, Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_do_is_reported() {
    let folder = Folder::quiet().await;
    for (arguments, expected) in
        [(["retry", "--failed"], "no user has failed"), (["approve", "--all"], "no user is held")]
    {
        let ran = folder.run(&arguments);
        assert!(ran.code == 0 && ran.out.starts_with(expected), "{}{}", ran.out, ran.err);
    }
    let ran = Folder::troubled().await.run(&["approve", "ann@example.com"]);
    assert!(ran.code == 0 && ran.out.contains("is not held"), "{}{}", ran.out, ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantined_event_is_dismissed_once() {
    let folder = Folder::troubled().await;
    let ran = folder.run(&["approve", "q-1"]);
    assert!(ran.code == 0 && ran.out.contains("dismissed"), "{}{}", ran.out, ran.err);
    let ran = folder.run(&["approve", "q-1"]);
    assert!(ran.code == 1 && ran.err.contains("in the state"), "{}{}", ran.out, ran.err);
    assert!(!folder.run(&["status", "--check"]).out.contains("quarantined"));
}

#[tokio::test(flavor = "multi_thread")]
async fn export_verifies_and_detects_tampering() {
    let folder = Folder::troubled().await;
    let ran = folder.run(&["audit", "export"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let lines: Vec<&str> = ran.out.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 2, "{}", ran.out);
    assert!(lines[0].starts_with("id,at,okta_user_id,email,auth0_user_id,cause,"), "{}", lines[0]);
    assert!(
        lines[1].contains(",'=cmd|' /C calc'!A0,") && lines[1].contains("\"said \"\"yes\"\",\\nthen no\""),
        "{}",
        lines[1]
    );
    let ran = folder.run(&["audit", "export", "--format", "jsonl"]);
    let decision: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(decision["why"], "said \"yes\",\nthen no");
    let ran = folder.run(&["audit", "export", "--format", "jsonl", "--since", "2100-01-01T00:00:00Z"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));

    let ran = folder.run(&["audit", "verify"]);
    assert!(ran.code == 0 && ran.out.starts_with("1 decisions are unchanged; 0 more"), "{}", ran.out);
    let chain = ran.out.split_whitespace().find(|word| word.len() == 64).unwrap();
    assert!(chain.bytes().all(|byte| byte.is_ascii_hexdigit()), "{chain}");

    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", folder.state().display())).await.unwrap();
    for statement in [
        "UPDATE decision_log_gate SET open = 1",
        "UPDATE decision_log SET outcome = 'unchanged'",
        "UPDATE decision_log_gate SET open = 0",
    ] {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    pool.close().await;
    let ran = folder.run(&["audit", "verify"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(ran.err.contains("row 1 was changed after it was written"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn forget_asks_and_works_beside_daemon() {
    let folder = Folder::troubled().await;
    let ran = folder.run(&["forget", "bob@example.com"]);
    assert!(ran.code == 1 && ran.err.contains("use --yes"), "{}{}", ran.out, ran.err);
    assert_eq!(folder.run(&["user", "bob@example.com"]).code, 0, "nothing was forgotten");

    let ran = folder.run(&["forget", "bob@example.com", "--yes"]);
    assert!(ran.code == 1 && ran.err.contains("is not denied yet"), "{}{}", ran.out, ran.err);
    assert_eq!(folder.run(&["user", "bob@example.com"]).code, 0, "nothing was forgotten");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", folder.state().display())).await.unwrap();
    let settled = "UPDATE users SET outcome = 'no_account', why = NULL, settled_seq = due_seq, due_since = NULL";
    sqlx::query(settled).execute(&pool).await.unwrap();
    pool.close().await;

    let working = folder.open().await;
    let ran = folder.run(&["forget", "bob@example.com", "--yes"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
    assert_eq!(folder.run(&["user", "bob@example.com"]).code, 1);
    working.close().await;
    let copy = folder.state().with_extension("db.schema-1.bak");
    std::fs::write(&copy, "ann@example.com").unwrap();
    let ran = folder.run(&["forget", "ann@example.com", "--yes"]);
    assert!(ran.out.contains("schema-1.bak") && !copy.exists(), "{}{}", ran.out, ran.err);
    assert!(ran.code == 0 && ran.out.contains("Okta id only: 1"), "{}{}", ran.out, ran.err);
    let ran = folder.run(&["audit", "verify"]);
    assert!(ran.code == 0 && ran.out.contains("1 more are anonymized"), "{}", ran.out);
    let store = Store::open_beside(&folder.state(), Access::Read).await.unwrap();
    assert!(store.find_users("ann@example.com").await.unwrap().is_empty());
    assert_eq!(store.find_users("auth0|ann").await.unwrap().len(), 1, "the mark is still found");
    store.close().await;
    let file = std::fs::read(folder.state()).unwrap();
    assert!(!file.windows(15).any(|window| window == b"ann@example.com"));
}
