//! Output on a terminal of 80 columns: no line is wider, no id is broken, and text from remotes is escaped.

use std::path::Path;

use okta_auth0_sync_sandbox::{Auth0Options, Connection, NewUser, OktaOptions};
use pty_process::blocking::Command;
use serde_json::json;
use unicode_width::UnicodeWidthStr;

use crate::harness::Harness;
use crate::terminal::{Seen, on_terminal};

const CONNECTION: &str = "an-enterprise-connection-with-a-name-of-sixty-characters-or-so";
const LONG: &str = "a.person.with.a.rather.long.name@a.department.of.a.company.example.com";

fn shown(folder: &Path, columns: u16, arguments: &[&str], answers: &[&str]) -> Seen {
    let command = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
        .args(["--config", "config.toml"])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm");
    on_terminal(command, columns, answers)
}

#[track_caller]
fn fits(seen: &Seen, columns: u16, what: &[&str]) {
    // Log lines are also for programs and are not wrapped.
    let told = seen.text.lines().filter(|line| !line.contains(" okta_auth0_sync::"));
    // A word wider than its column gets a separate line: the terminal wraps it, and it can be copied as one word.
    for line in told.filter(|line| line.starts_with(' ') || line.contains(' ')) {
        assert!(line.width() <= usize::from(columns), "{what:?} is wider than {columns}: {line}\n{}", seen.text);
    }
    assert!(!seen.raw.contains("\u{1b}]0;"), "{what:?} lets a name set the title: {:?}", seen.raw);
}

/// Tenants with awkward users: long ids and addresses, wide characters, control characters in names; one denied, one
/// held, one failed, and an event that cannot be parsed.
async fn awkward() -> (Harness, String) {
    let auth0 = Auth0Options::default();
    let connections = [auth0.connections.clone(), vec![Connection::new(CONNECTION, "samlp")]].concat();
    let harness = Harness::with(OktaOptions::default(), Auth0Options { connections, ..auth0 }).await;
    let okta = harness.sandbox.okta();
    let long = okta.create_user(&NewUser::new(LONG, LONG));
    harness.account(LONG);
    let id = harness.sandbox.auth0().create_user(json!({ "email": LONG, "connection": CONNECTION }));
    let wide = okta.create_user(&NewUser::new("漢字漢字漢字@例え.example.com", "漢字漢字漢字@例え.example.com"));
    harness.account("漢字漢字漢字@例え.example.com");
    let hostile = okta.create_user(&NewUser::new("\u{1b}]0;t\u{7}@example.com", "plain@example.com"));
    harness.account("plain@example.com");
    for user in [&long, &wide, &hostile] {
        okta.deactivate(user);
    }
    okta.push_log_entry(json!({ "uuid": "\u{1b}]0;t\u{7}", "published": "never", "eventType":
        "user.lifecycle.deactivate", "displayMessage": "\u{1b}]0;t\u{7}", "target": null }));
    (harness, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn screens_fit_width_without_breaking_ids() {
    let (harness, id) = awkward().await;
    let folder = harness.folder().to_owned();
    tokio::task::spawn_blocking(move || {
        let screens: [&[&str]; 26] = [
            &["status"],
            &["sync", "--dry-run"],
            &["purge", "--dry-run"],
            &["sync"],
            &["status"],
            &["status", "--check"],
            &["events"],
            &["events", "--state", "quarantined"],
            &["events", "--state", "pending"],
            &["user", LONG],
            &["user", LONG, "--live"],
            &["user", LONG, "--sync"],
            &["user", LONG, "--sync", "--dry-run"],
            &["user", "漢字漢字漢字@例え.example.com", "--live"],
            &["user", "plain@example.com"],
            &["user", "nobody.of.this.rather.long.name@nowhere.in.particular.example.com"],
            &["retry", LONG],
            &["retry", "--failed"],
            &["approve", "--all"],
            &["reconcile", "--all", "--dry-run"],
            &["reconcile", "--all"],
            &["check"],
            &["check", "--offline"],
            &["action", "check"],
            &["action", "deploy", "--dry-run"],
            &["audit", "verify"],
        ];
        for arguments in screens {
            for columns in [80, 200] {
                fits(&shown(&folder, columns, arguments, &[]), columns, arguments);
            }
        }
        let story = shown(&folder, 80, &["user", LONG], &[]);
        assert!(story.text.contains(&id) && story.text.contains(CONNECTION), "{}", story.text);
        let retried = shown(&folder, 80, &["retry", LONG], &[]);
        // In a table a long address is shortened in the middle; the id beside it is whole.
        let who = |text: &str| text.contains(LONG) || (text.contains(" a.person.") && text.contains(".com "));
        assert!(who(&retried.text) && retried.text.contains("00u"), "who it was: {}", retried.text);
        // The text is the same with and without color.
        let plain = std::process::Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
            .args(["--config", "config.toml", "user", LONG])
            .current_dir(&folder)
            .env_clear()
            .env("CI", "true")
            .output()
            .unwrap();
        let plain = String::from_utf8(plain.stdout).unwrap();
        assert!(plain.contains(&id) && !plain.contains('\u{1b}'), "{plain}");
    })
    .await
    .unwrap();
}

#[test]
fn help_fits_eighty_columns() {
    let folder = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 20] = [
        &[],
        &["run"],
        &["sync"],
        &["reconcile"],
        &["user"],
        &["check"],
        &["status"],
        &["events"],
        &["retry"],
        &["approve"],
        &["action"],
        &["action", "deploy"],
        &["audit"],
        &["audit", "export"],
        &["forget"],
        &["purge"],
        &["backup"],
        &["demo"],
        &["sandbox"],
        &["man"],
    ];
    for command in commands {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let seen = shown(folder.path(), 80, &arguments, &[]);
        fits(seen.exits(0), 80, &arguments);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_accept_no_eof_and_interrupt() {
    let (harness, _) = awkward().await;
    harness.sandbox.auth0().action().set_bound(false);
    let folder = harness.folder().to_owned();
    tokio::task::spawn_blocking(move || {
        shown(&folder, 80, &["sync"], &[]);
        for arguments in [&["forget", LONG][..], &["purge"], &["action", "deploy"]] {
            for (answer, code) in [("no\n", 1), ("\n", 1), ("\u{4}", 1), ("\u{3}", 130)] {
                let seen = shown(&folder, 80, arguments, &[answer]);
                fits(seen.exits(code), 80, arguments);
                assert_eq!(seen.text.contains("nothing was changed"), code == 1, "{arguments:?}: {}", seen.text);
            }
        }
        let story = shown(&folder, 80, &["user", LONG], &[]);
        assert!(story.text.contains("denied"), "nothing was forgotten or lifted: {}", story.text);
        shown(&folder, 80, &["action", "check"], &[]).exits(1);
        shown(&folder, 80, &["forget", LONG], &["yes\n"]).exits(0);
    })
    .await
    .unwrap();
}

/// Progress of long commands: drawn and erased on a terminal, printed line by line elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn progress_bar_only_on_terminal() {
    let harness = Harness::start().await;
    let users: Vec<_> = (0..6).map(|number| harness.user(&format!("p{number}")).0).collect();
    harness.sync().await;
    for user in &users[..3] {
        harness.sandbox.okta().deactivate(user);
    }
    let told = harness.sync().await;
    for line in [
        "reading the System Log, new events\n",
        "reading the System Log, new events: done, 3 in ",
        "processing users, about 3\n",
        "processing users: done, 3 in ",
    ] {
        assert!(told.err.contains(line), "{line:?} is missing:\n{}", told.err);
    }
    assert!(!told.out.contains("looking at") && !told.err.contains(['\r', '\u{1b}', '⠁']), "{told:?}");
    for user in &users[3..] {
        harness.sandbox.okta().deactivate(user);
    }
    let folder = harness.folder().to_owned();
    tokio::task::spawn_blocking(move || {
        let drawn = shown(&folder, 80, &["sync"], &[]);
        assert!(drawn.raw.contains("processing users: 0 of about 3"), "{:?}", drawn.raw);
        assert!(!drawn.text.contains("processing users"), "taken away before the result: {}", drawn.text);
        let compared = shown(&folder, 200, &["reconcile", "--all"], &[]);
        assert!(compared.raw.contains("comparing users: ") && !compared.text.contains("comparing"), "{compared:?}");
        let dumb = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
            .args(["--config", "config.toml", "purge", "--yes"])
            .current_dir(&folder)
            .env_clear()
            .env("TERM", "dumb")
            .env("CI", "true");
        let dumb = on_terminal(dumb, 80, &[]);
        assert!(dumb.text.contains("removing marks: done, 6 in ") && !dumb.raw.contains('\u{1b}'), "{:?}", dumb.raw);
        fits(dumb.exits(0), 80, &["purge"]);
    })
    .await
    .unwrap();
}

/// With more rows than a screen has, shows the newest rows and a notice.
#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_truncated_with_notice() {
    let harness = Harness::start().await;
    let (ann, _) = harness.user("ann");
    harness.sync().await;
    for _ in 0..30 {
        harness.sandbox.okta().deactivate(&ann);
        harness.sandbox.okta().activate(&ann);
    }
    harness.sync().await;
    for (arguments, rows, more) in [
        (&["events"][..], 50, "… older events omitted; --limit shows more than 50\n"),
        (&["events", "--limit", "7"], 7, "… older events omitted; --limit shows more than 7\n"),
    ] {
        let piped = harness.run(arguments).await;
        assert!(piped.exits(0).out.ends_with(more), "{}", piped.out);
        assert_eq!(piped.out.lines().count(), 1 + rows + 1, "{}", piped.out);
    }
    let all = harness.run(&["events", "--limit", "1000"]).await;
    assert!(all.out.lines().count() > 60 && !all.out.contains('…'), "{}", all.out);
    assert_eq!(harness.run(&["events", "--json"]).await.out.lines().count(), 50);
    let story = harness.run(&["user", "ann@example.com"]).await;
    assert!(story.out.contains(" earlier rows omitted; --json shows them\n"), "{}", story.out);
    let folder = harness.folder().to_owned();
    tokio::task::spawn_blocking(move || {
        for columns in [80, 200] {
            for arguments in [&["events"][..], &["user", "ann@example.com"], &["status"]] {
                fits(shown(&folder, columns, arguments, &[]).exits(0), columns, arguments);
            }
        }
    })
    .await
    .unwrap();
}

/// Before the first run, and after a run that had nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn empty_state_message_of_every_command() {
    /// The expected exit code and text.
    type Ends = (i32, &'static str);
    const NO_STATE: &str = "there is no state at";
    let harness = Harness::start().await;
    let folder = harness.folder().to_owned();
    let commands: [(&[&str], Ends, Ends); 12] = [
        (&["status"], (0, "Never ran"), (0, "The daemon is not running")),
        (&["status", "--check"], (1, "never_ran"), (1, "daemon: the daemon is not running")),
        (&["events"], (1, NO_STATE), (0, "no matching events")),
        (&["user", "ann@example.com"], (1, NO_STATE), (1, "in the state")),
        (&["retry", "--failed"], (1, NO_STATE), (0, "no user has failed")),
        (&["retry", "ann@example.com"], (1, NO_STATE), (1, "in the state")),
        (&["approve", "--all"], (1, NO_STATE), (0, "")),
        (&["approve", "ann@example.com"], (1, NO_STATE), (1, "in the state")),
        (&["forget", "ann@example.com"], (1, NO_STATE), (1, "in the state")),
        (&["audit", "export"], (1, NO_STATE), (0, "id,at,")),
        (&["audit", "verify"], (1, NO_STATE), (0, "0 decisions are unchanged")),
        (&["purge", "--dry-run"], (0, "0 accounts"), (0, "0 accounts")),
    ];
    let typed = move |run: bool, columns: u16| {
        for (arguments, never, ran) in &commands {
            let seen = shown(&folder, columns, arguments, &[]);
            let (code, words) = if run { ran } else { never };
            assert!(seen.code == *code && seen.text.contains(words), "{arguments:?}: {} {}", seen.code, seen.text);
            fits(&seen, columns, arguments);
        }
    };
    let typed = std::sync::Arc::new(typed);
    let first = typed.clone();
    tokio::task::spawn_blocking(move || [80, 200].map(|columns| first(false, columns))).await.unwrap();
    harness.sync().await.exits(0);
    tokio::task::spawn_blocking(move || [80, 200].map(|columns| typed(true, columns))).await.unwrap();
}

/// `NO_COLOR` disables colors on a terminal in every command; without it there are colors.
#[tokio::test(flavor = "multi_thread")]
async fn no_color_disables_colors() {
    let (harness, _) = awkward().await;
    let folder = harness.folder().to_owned();
    tokio::task::spawn_blocking(move || {
        let typed = |arguments: &[&str], colorless: bool| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
                .args(["--config", "config.toml"])
                .args(arguments)
                .current_dir(&folder)
                .env_clear()
                .env("TERM", "xterm");
            if colorless {
                command = command.env("NO_COLOR", "1");
            }
            on_terminal(command, 80, &[]).raw
        };
        typed(&["sync"], true);
        assert!(typed(&["status"], false).contains("\u{1b}[1m"), "there is a color to be left out");
        for arguments in [
            &["status"][..],
            &["user", LONG],
            &["user", LONG, "--live"],
            &["events"],
            &["check"],
            &["action", "check"],
            &["approve", "--all"],
            &["sync"],
            &["reconcile"],
            &["purge", "--dry-run"],
            &["user", "nobody@example.com"],
            &["--help"],
            &["sync", "--nonsense"],
        ] {
            let raw = typed(arguments, true);
            // Sequences that end with `m` are colors; redrawn lines use other sequences.
            let colors = raw.split("\u{1b}[").skip(1).filter(|rest| {
                rest.trim_start_matches(|sign: char| sign.is_ascii_digit() || sign == ';').starts_with('m')
            });
            assert_eq!(colors.count(), 0, "{arguments:?}: {raw:?}");
        }
    })
    .await
    .unwrap();
}
