//! Help of every command, and the manual page.

use super::{name, same, shown};

#[test]
fn help_of_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 22] = [
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
        &["audit", "verify"],
        &["forget"],
        &["purge"],
        &["backup"],
        &["demo"],
        &["sandbox"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let arguments: Vec<&str> = command.iter().copied().chain(["--help"]).collect();
        let seen = shown(folder.path(), 80, &arguments, &[]);
        same(&name(&arguments), &seen.exits(0).text);
    }
}

#[test]
fn manual_page() {
    let page = assert_cmd::Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync")).arg("man").output().unwrap();
    same("manual", &String::from_utf8(page.stdout).unwrap());
}

#[test]
fn usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let lines =
        [&["frobnicate"][..], &["retry"], &["retry", "ann", "--failed"], &["reconcile", "--since", "yesterday"]]
            .map(|arguments| format!("$ {}\n{}", arguments.join(" "), shown(folder.path(), 80, arguments, &[]).text));
    same("usage", &lines.join("\n"));
}
