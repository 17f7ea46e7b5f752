//! What each command prints on a terminal, at 80 and 200 columns, for an installation with users of each kind.

use std::fs;
use std::path::Path;

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::Fault;
use serde_json::json;

use super::{name, same, shown};
use crate::harness::Harness;

/// Ann is denied, Bob fails, Eve shares an address with a colleague, Max has no account, and Zoe is held; one entry of the
/// log cannot be read.
pub(crate) async fn furnished() -> (Harness, [OktaUserId; 5]) {
    let harness = Harness::start().await;
    // Looks end in the order in which they began, so that the rows of the evidence are the same each time.
    harness.configure("[engine]\nconcurrency = 1\n");
    let okta = harness.sandbox.okta();
    let users = ["ann", "bob", "zoe"].map(|name| harness.user(name));
    let eve = harness.okta_user_called("eve@example.com", "shared@example.com");
    harness.okta_user_called("kim@example.com", "shared@example.com");
    harness.account("shared@example.com");
    let max = harness.okta_user("max@example.com");
    harness.sync().await;
    let [(ann, _), (bob, account), (zoe, _)] = users;
    for user in [&ann, &bob, &eve, &max] {
        okta.deactivate(user);
    }
    okta.push_log_entry(json!({ "uuid": "odd-entry", "published": "never", "eventType": "user.lifecycle.deactivate",
        "displayMessage": "odd", "target": null }));
    let path = format!("/api/v2/users/{}", account.replace('|', "%7C"));
    harness.sandbox.auth0().faults().add(Fault::status("PATCH", &path, 500).times(100));
    harness.configure("[engine]\nconcurrency = 1\nmax_attempts = 1\n");
    harness.run(&["sync"]).await;
    okta.deactivate(&zoe);
    let mut held = harness.program(&["sync"]);
    held.env("OKTA_AUTH0_SYNC__GUARD__MAX_DENIALS", "0");
    crate::harness::finish(held).await;
    (harness, [ann, bob, eve, max, zoe])
}

fn at_both_widths(folder: &Path, arguments: &[&str]) {
    for columns in [80, 200] {
        let seen = shown(folder, columns, arguments, &[]);
        same(&format!("{}@{columns}", name(arguments)), &format!("{}exit code {}\n", seen.text, seen.code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn screens_that_only_read() {
    let (harness, _) = furnished().await;
    let folder = harness.folder().to_owned();
    let commands: [&[&str]; 19] = [
        // First, as users whose recheck becomes due after a minute would be on the screen.
        &["sync", "--dry-run"],
        &["status"],
        &["status", "--check"],
        &["check"],
        &["check", "--offline"],
        &["action", "check"],
        &["action", "deploy", "--dry-run"],
        &["audit", "verify"],
        &["reconcile", "--all", "--dry-run"],
        &["purge", "--dry-run"],
        &["user", "nobody@example.com"],
        &["user", "nobody@example.com", "--live"],
        &["user", "zoe@example.com", "--sync", "--dry-run"],
        &["events", "--state", "ignored"],
        &["retry", "ann"],
        &["approve", "ann@example.com"],
        &["forget", "nobody@example.com"],
        &["backup", "copy.db"],
        &["run", "--config", "nothing.toml"],
    ];
    tokio::task::spawn_blocking(move || {
        for arguments in commands {
            at_both_widths(&folder, arguments);
            // The second copy would be refused for the first.
            let _ = fs::remove_file(folder.join("copy.db"));
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn screens_that_write() {
    let (harness, _) = furnished().await;
    let folder = harness.folder().to_owned();
    harness.sandbox.auth0().action().set_bound(false);
    let commands: [(&[&str], &[&str]); 9] = [
        (&["user", "zoe@example.com", "--sync"], &[]),
        (&["approve", "--all"], &["yes\n"]),
        (&["retry", "--failed"], &[]),
        (&["sync"], &[]),
        (&["reconcile", "--all"], &[]),
        (&["action", "deploy"], &["no\n"]),
        (&["action", "deploy", "--yes"], &[]),
        (&["forget", "ann@example.com"], &["yes\n"]),
        (&["purge"], &["yes\n"]),
    ];
    tokio::task::spawn_blocking(move || {
        for (arguments, answers) in commands {
            let seen = shown(&folder, 200, arguments, answers);
            // The story's table is as wide as its relative times: it has a snapshot with a fixed time.
            let text = match arguments {
                ["user", ..] => seen.text.rsplit("\n\n").next().unwrap_or_default(),
                _ => &seen.text,
            };
            same(&format!("write_{}", name(arguments)), &format!("{text}exit code {}\n", seen.code));
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn screens_before_the_first_run() {
    let harness = Harness::start().await;
    let folder = harness.folder().to_owned();
    let commands: [&[&str]; 10] = [
        &["status"],
        &["status", "--check"],
        &["events"],
        &["user", "ann@example.com"],
        &["retry", "--failed"],
        &["approve", "--all"],
        &["forget", "ann@example.com"],
        &["audit", "verify"],
        &["purge", "--dry-run"],
        &["backup", "copy.db"],
    ];
    let typed = move |when: &str| {
        let lines = commands.map(|arguments| {
            let seen = shown(&folder, 80, arguments, &[]);
            format!("$ {}\n{}exit code {}\n", arguments.join(" "), seen.text, seen.code)
        });
        same(&format!("nothing_{when}"), &lines.join("\n"));
    };
    let typed = std::sync::Arc::new(typed);
    let before = typed.clone();
    tokio::task::spawn_blocking(move || before("before_the_first_run")).await.unwrap();
    harness.sync().await.exits(0);
    tokio::task::spawn_blocking(move || typed("after_an_empty_run")).await.unwrap();
}
