//! Checks the units with systemd-analyze.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// Each unit file and the name under which it is checked: a template as an instance.
const UNITS: [(&str, &str); 6] = [
    ("okta-auth0-sync.service", "okta-auth0-sync.service"),
    ("okta-auth0-sync@.service", "okta-auth0-sync@acme.service"),
    ("okta-auth0-sync-check.service", "okta-auth0-sync-check.service"),
    ("okta-auth0-sync-check.timer", "okta-auth0-sync-check.timer"),
    ("okta-auth0-sync-check@.service", "okta-auth0-sync-check@acme.service"),
    ("okta-auth0-sync-check@.timer", "okta-auth0-sync-check@acme.timer"),
];

/// The largest exposure score, times ten: 0 is the best, 100 the worst.
const EXPOSURE_MAX: u32 = 15;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd"))
}

/// Copies the units to a temporary folder, with a program path that exists here.
fn installed() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (file, name) in UNITS {
        let text = fs::read_to_string(folder().join(file)).unwrap();
        let text = text.replace("/usr/bin/okta-auth0-sync", env!("CARGO_BIN_EXE_okta-auth0-sync"));
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// `None`, with a note on stderr, if systemd-analyze is not installed.
fn analyze(directory: &Path, arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).current_dir(directory).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT TESTED: systemd-analyze is not installed, nothing judges the units");
            None
        }
        Err(error) => panic!("systemd-analyze: {error}"),
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn systemd_analyze_accepts_units() {
    let directory = installed();
    for (_, name) in UNITS {
        let file = format!("./{name}");
        let Some(output) = analyze(directory.path(), &["verify", "--man=no", "--recursive-errors=yes", &file]) else {
            return;
        };
        assert_eq!(text(&output), "", "{name}");
        assert!(output.status.success(), "{name}");
    }
}

#[test]
fn units_have_low_exposure() {
    let directory = installed();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    for (_, name) in UNITS.iter().filter(|(_, name)| name.ends_with(".service")) {
        let file = format!("./{name}");
        let Some(output) = analyze(directory.path(), &["security", "--offline=true", "--no-pager", &threshold, &file])
        else {
            return;
        };
        assert!(text(&output).contains("Overall exposure level"), "{name}: {}", text(&output));
        assert!(output.status.success(), "{name} is exposed to more than {EXPOSURE_MAX} tenths: {}", text(&output));
    }
}

/// The settings of a unit, sorted and without comments.
fn settings(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[test]
fn template_differs_only_in_name() {
    for (file, template) in [
        ("okta-auth0-sync.service", "okta-auth0-sync@.service"),
        ("okta-auth0-sync-check.service", "okta-auth0-sync-check@.service"),
        ("okta-auth0-sync-check.timer", "okta-auth0-sync-check@.timer"),
    ] {
        let without_name: BTreeSet<String> = settings(template)
            .into_iter()
            // The plain unit uses the default path of the state.
            .filter(|line| !line.starts_with("Environment=OKTA_AUTH0_SYNC__STORE__PATH="))
            .map(|line| line.replace("/%i", "").replace(" (%i)", "").replace("-%i", ""))
            .collect();
        assert_eq!(without_name, settings(file), "{template}");
    }
}

#[test]
fn every_unit_is_tested() {
    let mut files: Vec<String> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    let mut judged: Vec<&str> = UNITS.iter().map(|(file, _)| *file).collect();
    judged.sort_unstable();
    assert_eq!(files, judged);
}

#[test]
fn daemon_restarts_after_every_exit_but_two() {
    let daemon = settings("okta-auth0-sync.service");
    for line in [
        // systemd counts an end by SIGHUP, SIGINT, SIGTERM or SIGPIPE, and the exit code 0, as a success.
        "Restart=always",
        "RestartPreventExitStatus=64 78",
        "StartLimitIntervalSec=0",
        // The clock is right before the first poll.
        "Wants=network-online.target time-sync.target",
        "After=network-online.target time-sync.target",
    ] {
        assert!(daemon.contains(line), "{line} is missing: {daemon:?}");
    }
}
