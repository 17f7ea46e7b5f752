//! The layers of the program: a module imports only modules below it, and the two remotes never name each other, nor the
//! store.
//!
//! The compiler enforces this between crates. Between the modules of `src`, this test reads the sources: every path that
//! starts with `crate::`, outside comments and tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of `src`, and the modules that it may import.
const LAYERS: [(&str, &[&str]); 15] = [
    ("main", &["cli"]),
    (
        "cli",
        &[
            "alert",
            "auth0",
            "config",
            "domain",
            "engine",
            "failpoint",
            "health",
            "http",
            "logging",
            "monitor",
            "okta",
            "store",
            "systemd",
        ],
    ),
    ("monitor", &["config", "engine", "health", "store", "http", "domain"]),
    ("engine", &["okta", "auth0", "health", "store", "alert", "http", "domain", "failpoint"]),
    ("health", &["config", "store", "domain"]),
    ("okta", &["http", "domain"]),
    ("auth0", &["http", "domain"]),
    ("alert", &["http", "domain", "failpoint"]),
    ("http", &["domain", "failpoint"]),
    ("store", &["domain", "failpoint"]),
    ("logging", &["config", "domain"]),
    ("config", &["domain"]),
    ("systemd", &["domain"]),
    ("domain", &[]),
    ("failpoint", &[]),
];

/// What `domain` may not use: it does no I/O.
const IO: [&str; 7] = ["tokio::", "reqwest::", "axum::", "std::fs", "std::net", "std::process", "std::env"];

fn may_import(module: &str) -> &'static [&'static str] {
    let layer = LAYERS.iter().find(|(name, _)| *name == module);
    layer.unwrap_or_else(|| panic!("src/{module} is not in LAYERS")).1
}

/// Removes comment lines and test items from a source. Also returns the names of its test modules.
fn program(source: &str) -> (String, BTreeSet<String>) {
    let (mut kept, mut tests) = (String::new(), BTreeSet::new());
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let bare = line.trim_start();
        if bare.starts_with("//") {
            continue;
        }
        if !["#[cfg(test)]", "#[cfg(all(test,"].iter().any(|start| bare.starts_with(start)) {
            kept.push_str(line);
            kept.push('\n');
            continue;
        }
        // An item ends at the line of the same indentation that closes it, or at a semicolon.
        let indent = line.len() - bare.len();
        for line in lines.by_ref() {
            let bare = line.trim_start();
            if let Some(name) = bare.trim_start_matches("pub(super) ").strip_prefix("mod ")
                && let Some(name) = name.strip_suffix(';')
            {
                tests.insert(name.to_owned());
            }
            let same = line.len() - bare.len() == indent;
            if same && (bare.ends_with(';') || bare.ends_with('}')) && !bare.starts_with("#[") {
                break;
            }
        }
    }
    (kept, tests)
}

/// The items that a path names after `::`: one, or those of the outer list of `{…}`.
fn heads(rest: &str) -> Vec<String> {
    let Some(list) = rest.strip_prefix('{') else {
        let end = rest.find(|next: char| !(next.is_alphanumeric() || next == '_' || next == ':'));
        return vec![rest[..end.unwrap_or(rest.len())].to_owned()];
    };
    let (mut depth, mut entry, mut entries) = (0_u32, String::new(), Vec::new());
    for next in list.chars() {
        match next {
            '}' if depth == 0 => break,
            ',' if depth == 0 => entries.push(std::mem::take(&mut entry)),
            '{' => depth += 1,
            '}' => depth -= 1,
            next if depth == 0 && !next.is_whitespace() => entry.push(next),
            _ => {}
        }
    }
    entries.push(entry);
    entries.retain(|entry| !entry.is_empty());
    entries
}

/// The imports of a module that are not allowed.
fn forbidden(module: &str, program: &str) -> Vec<String> {
    let allowed = |named: &str| {
        let head = named.split("::").next().unwrap_or(named);
        head == module || may_import(module).contains(&head)
    };
    let paths = ["crate::", "okta_auth0_sync::"];
    let named = paths.iter().flat_map(|root| {
        program.match_indices(root).filter_map(|(at, _)| {
            // Not `$crate`, and not the end of a longer word.
            let before = program[..at].chars().next_back();
            let own = !before.is_some_and(|before| before.is_alphanumeric() || before == '_');
            own.then(|| heads(&program[at + root.len()..]))
        })
    });
    named.flatten().filter(|named| !allowed(named)).collect()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The module path of a file below `src`: `engine/look.rs` → `engine`, `look`.
fn modules(file: &Path) -> Vec<String> {
    let mut names: Vec<String> = file.with_extension("").iter().map(|name| name.to_str().unwrap().to_owned()).collect();
    names.pop_if(|name| name == "mod");
    names
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let read: Vec<_> = files
        .iter()
        .map(|file| {
            let (program, tests) = program(&fs::read_to_string(file).unwrap());
            (modules(file.strip_prefix(&root).unwrap()), program, tests)
        })
        .collect();
    let tests: BTreeSet<Vec<String>> = read
        .iter()
        .flat_map(|(module, _, tests)| {
            tests.iter().map(|test| [module.as_slice(), std::slice::from_ref(test)].concat())
        })
        .collect();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (module, program, _) in &read {
        if module[0] == "lib" || (1..=module.len()).any(|depth| tests.contains(&module[..depth])) {
            continue;
        }
        seen.insert(module[0].as_str());
        let named = forbidden(&module[0], program);
        wrong.extend(named.into_iter().map(|named| format!("src/{}: crate::{named}", module.join("/"))));
    }
    let listed: BTreeSet<&str> = LAYERS.iter().map(|(module, _)| *module).collect();
    assert!(seen.is_subset(&listed), "not in LAYERS: {:?}", seen.difference(&listed));
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
}

#[test]
fn domain_does_no_io() {
    for (file, source) in module("domain") {
        let used: Vec<&str> = IO.into_iter().filter(|path| source.contains(path)).collect();
        assert!(used.is_empty(), "src/{file} uses {used:?}");
    }
}

#[test]
fn checker_finds_forbidden_imports() {
    for (module, source, expected) in [
        ("okta", "use crate::auth0::Auth0;", &["auth0::Auth0"][..]),
        ("okta", "use crate::domain::Status;\nuse crate::http::{Http, Failure};", &[]),
        ("store", "    let failure = crate::http::Failure::new();", &["http::Failure::new"]),
        ("engine", "use crate::{\n    config::{Config, Secret},\n    domain, store,\n};", &["config::"]),
        ("domain", "pub use crate::store::Store;", &["store::Store"]),
        ("domain", "use crate::domain::Status; // and nothing else", &[]),
        ("main", "okta_auth0_sync::cli::main()", &[]),
        ("main", "okta_auth0_sync::engine::Engine", &["engine::Engine"]),
        ("http", "//! See [`crate::engine`].\n    // crate::engine", &[]),
        ("http", "#[cfg(test)]\nmod tests {\n    use crate::engine::X;\n}\nuse crate::cli::Y;", &["cli::Y"]),
        ("http", "#[cfg(all(test, unix))]\nfn test() {\n    crate::engine::x();\n}\n", &[]),
        ("http", "#[cfg(test)]\nuse crate::engine::X;\nuse crate::cli::Y;", &["cli::Y"]),
    ] {
        assert_eq!(forbidden(module, &program(source).0), expected, "{module}: {source}");
    }
    let (_, tests) = program("#[cfg(test)]\nmod playback;\nmod token;\n#[cfg(test)]\npub(super) mod stage;\n");
    assert_eq!(tests, BTreeSet::from(["playback".to_owned(), "stage".to_owned()]));
    assert_eq!(modules(Path::new("store/looks/mod.rs")), ["store", "looks"]);
}

/// A file below `src` without comments and tests.
fn program_of(file: &str) -> String {
    program(&fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap()).0
}

/// The files of a module and their contents, without tests.
fn module(name: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root.join(name), &mut files);
    let names = files.iter().map(|file| file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
    names.filter(|file| !file.contains("tests")).map(|file| (file.clone(), program_of(&file))).collect()
}

/// `Store::begin` names a transaction, and with it its failpoints. No transaction may bypass it, and each call of a remote
/// must be in the list from which its failpoints get their names.
#[test]
fn every_write_and_call_has_failpoints() {
    for (file, source) in module("store") {
        // Where the connection is opened, lent and closed; and where `forget` rewrites the file between its own failpoints.
        let allowed: &[&str] = match file.as_str() {
            "store/write.rs" => &["self.writer().begin_with(\"BEGIN IMMEDIATE\")"],
            "store/open.rs" => &["&self.writer", "self.writer.close()", "pub(super) fn writer(&self)"],
            "store/forget.rs" => &["query(\"VACUUM\").execute(self.writer())", ".fetch_one(self.writer())"],
            // Copies pages of the log back into the file; it writes nothing new.
            "store/health.rs" => &["PRAGMA wal_checkpoint(PASSIVE)\").fetch_one(self.writer())"],
            _ => &[],
        };
        let rest = allowed.iter().fold(source, |rest, allowed| rest.replace(allowed, ""));
        assert!(!rest.contains(".writer") && !rest.contains("fn writer"), "{file} bypasses `Store::begin`");
        assert!(!rest.contains("begin_with("), "{file} begins a transaction without a name");
    }
    for (remote, endpoints) in
        [("okta", &okta_auth0_sync::okta::endpoints::ALL[..]), ("auth0", &okta_auth0_sync::auth0::endpoints::ALL)]
    {
        let mut named = BTreeSet::new();
        for (file, source) in module(remote) {
            assert!(!source.contains(".execute("), "{file} bypasses `Http::send`");
            let texts = source.split('"').skip(1).step_by(2).map(str::to_owned);
            let methods = ["GET /", "POST /", "PATCH /", "PUT /", "DELETE /", "HEAD /"];
            named.extend(texts.filter(|text| methods.iter().any(|method| text.starts_with(method))));
        }
        assert_eq!(named, endpoints.iter().map(|endpoint| endpoint.name.to_owned()).collect(), "the calls of {remote}");
    }
}
