//! Runs every fenced block of every page, verbatim and in order, in a shell on a terminal; prompts are answered with
//! yes.
//!
//! A block that cannot run here has `not-run` after its language, and must contain a command of [`ELSEWHERE`], which
//! gives the reason. A block ` ```text output ` must match the output of the block before it, as compared by [`form`].

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pty_process::blocking::Command;
use serde_json::json;

use crate::harness::Harness;
use crate::terminal::{Seen, on_terminal};

/// Commands that a test cannot run, and why.
const ELSEWHERE: [(&str, &str); 6] = [
    ("/_sandbox/", "talks to stand-ins that the reader has started"),
    ("setpriv", "needs the group of a proxy"),
    ("apt-get", "installs packages of the system, as root; `packaging/test-deb.sh` does"),
    ("cargo", "builds, or runs these tests; `.ci/run` does, and another test plays the drills"),
    ("litestream", "is another program"),
    ("podman", "needs a container engine"),
];
/// Languages of blocks that are not shell commands.
const NO_COMMANDS: [&str; 8] = ["dockerfile", "hcl", "json", "rust", "sql", "text", "toml", "yaml"];
/// System paths that a block may use, mapped into a folder of the test. Longer ones first.
const PLACES: [&str; 4] =
    ["/etc/okta-auth0-sync", "/var/backups", "/var/lib/private/okta-auth0-sync", "/var/lib/okta-auth0-sync"];
/// Pages that start before the first run; the others start after a pass.
const BEFORE_THE_FIRST_PASS: [&str; 3] = ["README.md", "getting-started.md", "install.md"];
/// Pages that deploy the Action; on the others it is deployed already.
const DEPLOYS_THE_ACTION: [&str; 2] = ["getting-started.md", "action.md"];
/// A replacement for the systemd commands on the pages, on machines without systemd.
const SYSTEMCTL: &str = r#"#!/bin/sh
set -e
log=$HOME/daemon.log
case $1 in
    enable | start)
        : >"$log"
        setsid okta-auth0-sync run </dev/null >>"$log" 2>&1 &
        echo $! >"$HOME/daemon.pid"
        until grep -q 'event=started' "$log"; do kill -0 $! || { cat "$log"; exit 1; }; sleep 0.05; done ;;
    disable | stop)
        if [ -e "$HOME/daemon.pid" ]; then
            kill "$(cat "$HOME/daemon.pid")"
            rm "$HOME/daemon.pid"
            until grep -q 'event=stopped' "$log"; do sleep 0.05; done
        fi ;;
    restart)
        "$0" stop okta-auth0-sync
        "$0" start okta-auth0-sync ;;
    status) grep -q 'event=started' "$log" ;;
    *) echo "systemctl $1 is not known here" >&2; exit 1 ;;
esac
"#;

/// A fenced block of a page.
#[derive(Debug)]
struct Block {
    /// Where it begins, for messages.
    place: String,
    language: String,
    tags: Vec<String>,
    text: String,
}

impl Block {
    fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|have| have == tag)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let folders = [root().to_owned(), root().join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()));
    let mut pages: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|one| one == "md")).collect();
    pages.sort();
    pages
}

/// The fenced blocks of a page, including those in lists, without indentation.
fn blocks(page: &Path) -> Vec<Block> {
    let name = page.strip_prefix(root()).unwrap().display().to_string();
    let text = fs::read_to_string(page).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    for (number, line) in text.lines().enumerate() {
        let inner = line.trim_start();
        match (&mut open, inner.strip_prefix("```")) {
            (None, Some(info)) => {
                let mut words = info.split_whitespace().map(str::to_owned);
                let language = words.next().unwrap_or_default();
                let place = format!("{name}:{}", number + 1);
                let block = Block { place, language, tags: words.collect(), text: String::new() };
                open = Some((line.len() - inner.len(), block));
            }
            (Some(_), Some("")) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{name}: a block does not end");
    blocks
}

/// Puts the commands on the path, maps the system paths, and fills the tenants: Ann and a test user are deactivated, Bob
/// is active, and each has an account.
fn furnish(harness: &Harness) -> PathBuf {
    let home = harness.folder().to_owned();
    let bin = home.join("bin");
    fs::create_dir(&bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_okta-auth0-sync"), bin.join("okta-auth0-sync")).unwrap();
    fs::write(bin.join("systemctl"), SYSTEMCTL).unwrap();
    fs::set_permissions(bin.join("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let state = home.join("var/lib/private/okta-auth0-sync");
    // The files of the package, and those that a reader saves on the way.
    for folder in [&state, &home.join("etc/okta-auth0-sync/credentials"), &home.join("var/backups")] {
        fs::create_dir_all(folder).unwrap();
    }
    for secret in ["okta-api-token", "auth0-client-secret"] {
        fs::write(home.join(secret), "saved by hand").unwrap();
    }
    symlink(&state, home.join("var/lib/okta-auth0-sync")).unwrap();
    let config = format!(
        "{}\n[schedule]\npoll = \"* * * * * *\"\n[store]\npath = {:?}\n",
        harness.sandbox.config_toml(),
        state.join("state.db")
    );
    let file = home.join("etc/okta-auth0-sync/config.toml");
    fs::write(&file, config).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    harness.user("bob");
    for name in ["ann", "test.person"] {
        let (user, _) = harness.user(name);
        harness.sandbox.okta().deactivate(&user);
    }
    harness.sandbox.auth0().create_user(json!({ "email": "ann@example.com", "connection": "google-oauth2" }));
    home
}

/// Stops a daemon that a page started when its test ends, even on a panic.
struct Ending(PathBuf);

impl Drop for Ending {
    fn drop(&mut self) {
        // The page or `systemctl stop` may have stopped it already.
        let Ok(id) = fs::read_to_string(self.0.join("daemon.pid")) else { return };
        let _ = std::process::Command::new("kill").arg("-KILL").arg(id.trim()).status();
    }
}

/// Runs a block.
fn typed(home: &Path, text: &str) -> Seen {
    let mut text = text.to_owned();
    for place in PLACES {
        text = text.replace(place, &format!("{}{place}", home.display()));
    }
    let command = Command::new("timeout")
        .args(["--foreground", "120", "bash", "-e", "-o", "pipefail", "-c", &text])
        .current_dir(home)
        .env_clear()
        .env("HOME", home)
        .env("PATH", format!("{}:/usr/bin:/bin", home.join("bin").display()))
        .env("TERM", "xterm")
        .env("OKTA_AUTH0_SYNC_CONFIG", home.join("etc/okta-auth0-sync/config.toml"));
    on_terminal(command, 120, &["y\n"; 5])
}

/// The form of a line without what varies between runs: column widths, words with a digit or an ellipsis, and relative
/// times.
fn form(line: &str) -> String {
    let line = line.replace("just now", "1 s ago");
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let digit = word.chars().any(|sign| sign.is_ascii_digit() || sign == '…');
        let unit = matches!(word.trim_end_matches(','), "s" | "min" | "h" | "days" | "ms");
        match words.last_mut() {
            Some(last) if unit && last == "#" => {}
            _ if digit => words.push("#".to_owned()),
            _ => words.push(word.to_owned()),
        }
    }
    words.join(" ")
}

/// Does the output have the claimed lines, in this order? A line `…` matches any number of lines.
fn check_form(place: &str, claimed: &str, printed: &str) {
    let lines = |text: &str| -> Vec<String> { text.lines().map(form).filter(|line| !line.is_empty()).collect() };
    let (claimed, printed) = (claimed.lines(), lines(printed));
    let (mut at, mut gap) = (0, false);
    for line in claimed.filter(|line| !line.trim().is_empty()) {
        if line.trim() == "…" {
            gap = true;
            continue;
        }
        let wanted = form(line);
        let found = match gap {
            true => printed[at..].iter().position(|have| *have == wanted).map(|skipped| at + skipped),
            false => (printed.get(at) == Some(&wanted)).then_some(at),
        };
        let Some(found) = found else {
            panic!("{place} claims\n  {wanted}\nwhich is not what is printed from line {at} on:\n{printed:#?}")
        };
        (at, gap) = (found + 1, false);
    }
    assert!(gap || at == printed.len(), "{place} does not claim the end: {:#?}", &printed[at..]);
}

#[test]
fn every_code_block_has_a_known_kind() {
    let mut shells = 0;
    for page in pages() {
        for block in blocks(&page) {
            let Block { place, language, tags, text } = &block;
            if language != "sh" {
                assert!(NO_COMMANDS.contains(&language.as_str()), "{place}: of what kind is a block `{language}`?");
                assert!(tags.is_empty() || (language == "text" && tags[..] == ["output"]), "{place}: {tags:?}");
                continue;
            }
            shells += 1;
            assert!(tags.iter().all(|tag| matches!(tag.as_str(), "not-run" | "needs-sqlite3")), "{place}: {tags:?}");
            let reason = ELSEWHERE.iter().find(|(command, _)| text.contains(command));
            match (block.has("not-run"), reason) {
                (true, None) => panic!("{place} could be run here: take out `not-run`, or say in ELSEWHERE what not"),
                (true, Some((command, reason))) => eprintln!("{place} is not run: `{command}` {reason}"),
                (false, Some((command, reason))) => panic!("{place} cannot be run: `{command}` {reason}"),
                (false, None) => {}
            }
        }
    }
    assert!(shells > 20, "the reader of the pages finds next to nothing: {shells}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_runs_as_typed() {
    let mut run = 0;
    for page in pages() {
        let blocks = blocks(&page);
        if !blocks.iter().any(|block| block.language == "sh" && !block.has("not-run")) {
            continue;
        }
        let harness = Harness::start().await;
        let home = furnish(&harness);
        let _ending = Ending(home.clone());
        if DEPLOYS_THE_ACTION.iter().any(|name| page.ends_with(name)) {
            harness.sandbox.auth0().action().set_bound(false);
        }
        if !BEFORE_THE_FIRST_PASS.iter().any(|name| page.ends_with(name)) {
            let folder = home.clone();
            tokio::task::spawn_blocking(move || typed(&folder, "okta-auth0-sync sync")).await.unwrap().exits(0);
        }
        let mut printed: Option<String> = None;
        for block in &blocks {
            if block.has("output") {
                let printed = printed.as_ref().unwrap_or_else(|| panic!("{}: nothing was typed before", block.place));
                check_form(&block.place, &block.text, printed);
            }
            if block.language != "sh" || block.has("not-run") {
                continue;
            }
            if block.has("needs-sqlite3") && !Path::new("/usr/bin/sqlite3").exists() {
                eprintln!("{} is not run: sqlite3 is not installed", block.place);
                printed = None;
                continue;
            }
            let (folder, text) = (home.clone(), block.text.clone());
            let seen = tokio::task::spawn_blocking(move || typed(&folder, &text)).await.unwrap();
            eprintln!("--- {}\n{}--- printed\n{}", block.place, block.text, seen.text);
            assert_eq!(seen.code, 0, "{}", block.place);
            printed = Some(seen.text);
            run += 1;
        }
        let stopped =
            tokio::task::spawn_blocking(move || typed(&home, "systemctl stop okta-auth0-sync")).await.unwrap();
        stopped.exits(0);
    }
    assert!(run > 10, "next to nothing was typed: {run}");
}
