//! Checks what the pages claim: their lists are complete, and everything that they name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use okta_auth0_sync::store::AlarmKind;

const LOGS: &str = include_str!("../docs/logs.md");
const OPERATIONS: &str = include_str!("../docs/operations.md");

/// Log events: name → levels and fields.
type Events = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// Collects every Rust file under `folder`.
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

/// The arguments of a macro call, starting after its opening bracket. Commas in strings and brackets do not separate.
fn arguments(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    for sign in text.chars() {
        if quoted {
            quoted = escaped || sign != '"';
            escaped = !escaped && sign == '\\';
        } else {
            match sign {
                '"' => quoted = true,
                '(' | '[' | '{' => depth += 1,
                ')' if depth == 0 => break,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    all.push(String::new());
                    continue;
                }
                _ => {}
            }
        }
        all.last_mut().unwrap().push(sign);
    }
    all.into_iter().map(|argument| argument.trim().to_owned()).filter(|argument| !argument.is_empty()).collect()
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|sign| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '_')
}

/// The string literals of an expression: `if x { "a" } else { "b" }` names two events.
fn texts(expression: &str) -> Vec<String> {
    expression.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

fn logged() -> Events {
    let mut files = Vec::new();
    sources(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut files);
    let mut events = Events::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        for level in ["error", "warn", "info", "debug", "trace"] {
            for (at, _) in source.match_indices(&format!("{level}!(")) {
                let arguments = arguments(&source[at + level.len() + 2..]);
                let Some(names) = arguments.iter().find_map(|argument| argument.strip_prefix("event = ")) else {
                    continue;
                };
                let fields: BTreeSet<String> = arguments
                    .iter()
                    .map(|argument| {
                        argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned()
                    })
                    .filter(|name| is_name(name) && name != "event")
                    .collect();
                for name in texts(names) {
                    let event = events.entry(name).or_default();
                    event.0.insert(level.to_owned());
                    event.1.extend(fields.iter().cloned());
                }
            }
        }
    }
    events
}

#[test]
fn logs_page_lists_exactly_the_log_events() {
    let mut listed = Events::new();
    for line in LOGS.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, levels, fields, says] = cells[..] else { panic!("not four cells: {line}") };
        assert!(says.ends_with(['.', ':']), "{line}");
        let levels = levels.split(", ").map(str::to_owned).collect();
        let fields = fields.split_whitespace().map(|field| field.trim_matches('`').to_owned()).collect();
        let name = name.trim_matches('`').to_owned();
        assert!(listed.insert(name, (levels, fields)).is_none(), "twice: {line}");
    }
    let logged = logged();
    assert!(logged.len() > 30, "found too few log events in the sources");
    assert_eq!(listed, logged);
}

#[test]
fn every_alarm_kind_has_a_section() {
    let (_, alarms) = OPERATIONS.split_once("\n## Alarms\n").unwrap();
    let sections: Vec<&str> = alarms.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let kinds: Vec<&str> = AlarmKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let sorted = |list: &[&str]| {
        let mut list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
        list.sort();
        list
    };
    assert_eq!(sorted(&sections), sorted(&kinds));
    for section in alarms.split("\n### ").skip(1) {
        let (name, text) = section.split_once('\n').unwrap();
        assert!(text.trim().len() > 80, "the section {name} is nearly empty");
    }
    for link in LOGS.split("(operations.md#").skip(1) {
        let name = link.split(')').next().unwrap();
        assert!(kinds.contains(&name), "no section {name}");
    }
}

/// The pages in the root folder, in docs/ and in docs/decisions/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages: Vec<PathBuf> = [root.to_owned(), root.join("docs"), root.join("docs/decisions")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    assert!(pages.contains(&root.join("README.md")) && pages.len() > 10, "{pages:?}");
    pages
}

/// The targets of a page's links, `](…)`, except those to other hosts.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// The anchor of a heading: lower-case letters, digits, `_` and `-`; spaces become `-`, everything else is dropped.
fn anchor(heading: &str) -> String {
    let small = heading.trim().to_lowercase().replace(' ', "-");
    small.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, '-' | '_')).collect()
}

#[test]
fn every_relative_link_has_a_target() {
    let mut followed = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{} links to {link}, which does not exist", page.display());
            if let Some(heading) = heading {
                let text = fs::read_to_string(&target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{} links to {link}, which has no such heading", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 20, "found too few links on the pages: {followed}");
}

#[test]
fn readme_has_one_row_per_page() {
    let rows: Vec<&str> = include_str!("../README.md").lines().filter(|line| line.starts_with("| [docs/")).collect();
    let mut listed: Vec<String> =
        rows.iter().map(|row| row.split(']').next().unwrap().trim_start_matches("| [").to_owned()).collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut there: Vec<String> = pages()
        .iter()
        .filter(|page| page.parent().unwrap() == folder)
        .map(|page| format!("docs/{}", page.file_name().unwrap().to_str().unwrap()))
        .collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there);
}

#[test]
fn every_named_test_exists() {
    let page = include_str!("../docs/reliability.md");
    let mut named = 0;
    for name in page.split('`').skip(1).step_by(2).filter(|text| text.contains(".rs::")) {
        let (file, test) = name.split_once("::").unwrap();
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap_or_default();
        assert!(source.contains(&format!("fn {test}(")), "no test {name}");
        named += 1;
    }
    assert!(named > 20, "found too few tests on the page: {named}");
}

/// The paths that a page names in backticks: they begin with a folder or are a Rust file, and have no pattern in them.
fn paths(page: &str) -> impl Iterator<Item = &str> {
    let folders = ["benches/", "crates/", "docs/", "fuzz/", "migrations/", "packaging/", "src/", "systemd/", "tests/"];
    page.split('`').skip(1).step_by(2).map(|text| text.split("::").next().unwrap_or(text)).filter(move |text| {
        let is_path = folders.iter().any(|folder| text.starts_with(folder)) || text.ends_with(".rs");
        is_path && !text.contains([' ', '*', '{', '$'])
    })
}

#[test]
fn every_named_path_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named = 0;
    for page in pages() {
        for path in paths(&fs::read_to_string(&page).unwrap()) {
            // The page on the architecture names modules by their path under src/.
            let exists = root.join(path).exists() || root.join("src").join(path).exists();
            assert!(exists, "{} names {path}, which does not exist", page.display());
            named += 1;
        }
    }
    assert!(named > 50, "found too few paths on the pages: {named}");
}
