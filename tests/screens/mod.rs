//! Snapshots of everything that an operator or a program reads: screens at 80 and 200 columns, `--json`, metrics, log lines,
//! webhook messages, help and the manual page. A changed text shows in the diff of `tests/screens/snapshots`.
//!
//! After an intended change: `INSTA_UPDATE=always cargo test --test all screens::`, and review the diff.

mod commands;
mod help;
mod machine;

use std::path::Path;

use pty_process::blocking::Command;

use crate::terminal::{Seen, on_terminal};

/// What differs from run to run, and its replacement of the same length where columns depend on it.
const FILTERS: [(&str, &str); 15] = [
    (r"\d+ looks", "4 looks"),
    // Progress, which a slow machine has time to draw.
    (r"[\u{2800}-\u{28ff}] [a-z ]+: \d+ of about \d+ *\n?", ""),
    (r"127\.0\.0\.1:\d{5}", "127.0.0.1:50000"),
    (r"/tmp/\.tmp\w{6}", "/tmp/.tmpFOLDER"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "2026-11-23T12:00:00.000Z"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-11-23T12:00:00Z"),
    (r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "5e0e1c0a-6d5d-11ee-8c99-0242ac120002"),
    (r"\b[0-9a-f]{64}\b", "HASH"),
    (r"just now|\d+ (s|min) ago", "just now"),
    // Where this sentence is wrapped depends on the age before it.
    (
        r"no reconcile of all users\s+has\s+finished\s+yet,\s+so\s+users\s+who\s+left\s+before\s+the\s+first\s+start\s+looked\s+back\s+may\s+still\s+be\s+open",
        "no reconcile of all users has finished yet, so users who left before the first start looked back may still be open",
    ),
    (r"(p50|p99|max) [\d.]+ s", "$1 0.1 s"),
    (r"_s\x22: [\d.]+", "_s\": 0.1"),
    (r"in \d+ (ms|s)\b", "in 5 $1"),
    (r"in \d+ seconds?", "in 0 seconds"),
    (r"retrying in \d+ \w+", "retrying in 5 s"),
];

/// No poll is late while a test runs.
const POLL: (&str, &str) = ("OKTA_AUTH0_SYNC__SCHEDULE__POLL", "*/30 * * * * *");

/// Compares `text` with the snapshot of this name.
#[track_caller]
fn same(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/screens/snapshots"));
    settings.set_omit_expression(true);
    for (pattern, replacement) in FILTERS {
        settings.add_filter(pattern, replacement);
    }
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Runs the program on a terminal of `columns`.
fn shown(folder: &Path, columns: u16, arguments: &[&str], answers: &[&str]) -> Seen {
    let command = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
        .args(["--config", "config.toml"])
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TERM", "xterm")
        .env(POLL.0, POLL.1);
    on_terminal(command, columns, answers)
}

/// A file name for these arguments: `user_live`.
fn name(arguments: &[&str]) -> String {
    let words = arguments.iter().map(|word| word.trim_start_matches('-').replace(['@', '.', '-'], "_"));
    words.filter(|word| !word.contains("00u")).collect::<Vec<_>>().join("_")
}
