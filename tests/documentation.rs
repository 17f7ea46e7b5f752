//! The pages that name what the program says: complete, and naming nothing else.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use okta_auth0_sync::store::AlarmKind;

const LOGS: &str = include_str!("../docs/logs.md");
const OPERATIONS: &str = include_str!("../docs/operations.md");

/// An event: at which levels it is logged, and with which fields.
type Events = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// Every file of Rust below.
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

/// The arguments of a call, from behind its opening bracket; commas inside of texts and brackets divide nothing.
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

/// The texts in an expression: `if x { "a" } else { "b" }` names two events.
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
fn every_event_of_the_log_is_on_its_page_and_no_other_is() {
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
    assert!(logged.len() > 30, "the reader of the sources finds next to nothing");
    assert_eq!(listed, logged);
}

#[test]
fn every_kind_of_alarm_has_a_section_and_every_link_leads_to_one() {
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
        assert!(text.trim().len() > 80, "{name} says next to nothing");
    }
    for link in LOGS.split("(operations.md#").skip(1) {
        let name = link.split(')').next().unwrap();
        assert!(kinds.contains(&name), "no section {name}");
    }
}
