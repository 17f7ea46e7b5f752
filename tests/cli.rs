//! The binary, from the outside: exit codes, what goes where, and how errors read.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// The binary in an empty directory, with a separate environment.
fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"));
    command.current_dir(directory).env_clear().env("PATH", "/usr/bin:/bin");
    command
}

struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory with a sound configuration, and its secrets in files.
fn configured() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("config.toml"),
        "[okta]\nurl = \"https://example.okta.com\"\n[okta.oauth]\nclient_id = \"0oa1\"\nprivate_key_file = \"okta\"\n\
         [auth0]\nurl = \"https://example.auth0.com\"\nclient_id = \"abc\"\nclient_secret_file = \"auth0\"\n\
         [store]\npath = \"state/state.db\"\n",
    )
    .unwrap();
    fs::create_dir(directory.path().join("state")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let credentials = directory.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    for (name, text) in [("okta", key.as_str()), ("auth0", "t0psecret\n")] {
        fs::write(credentials.join(name), text).unwrap();
        fs::set_permissions(credentials.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    directory
}

/// `journalctl -p err` shows why a unit failed.
#[test]
fn final_error_has_journald_priority() {
    use std::os::unix::fs::MetadataExt;

    let directory = configured();
    fs::write(directory.path().join("config.toml"), "[okta]\nurl = 1\nstray = 2\n").unwrap();
    let journal = fs::File::create(directory.path().join("journal")).unwrap();
    let metadata = journal.metadata().unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
        .arg("run")
        .current_dir(directory.path())
        .env_clear()
        .env("JOURNAL_STREAM", format!("{}:{}", metadata.dev(), metadata.ino()))
        .stderr(journal)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(78));
    let said = fs::read_to_string(directory.path().join("journal")).unwrap();
    assert!(said.starts_with("<3>error: invalid configuration") && said.lines().count() > 1, "{said}");
    assert!(said.lines().all(|line| line.starts_with("<3>")), "{said}");
    assert!(!run(program(directory.path()).arg("run")).err.contains("<3>"));
}

#[test]
fn usage_error_exits_64_help_0() {
    let directory = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&[][..], "Usage: okta-auth0-sync"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["sync", "--wet-run"], "unexpected argument"),
        (&["retry"], "required"),
        (&["retry", "ann", "--failed"], "cannot be used with"),
        (&["user", "ann", "--dry-run"], "--sync"),
        (&["reconcile", "--since", "yesterday"], "90days"),
        (&["reconcile", "--since", "1day", "--all"], "cannot be used with"),
        (&["events", "--limit", "0"], "0 is not in"),
    ] {
        let ran = run(program(directory.path()).args(arguments));
        assert_eq!((ran.code, ran.out.as_str()), (64, ""), "{arguments:?}: {}", ran.err);
        assert!(ran.err.contains(expected), "{arguments:?}: {}", ran.err);
    }
    for arguments in [&["--help"][..], &["--version"], &["help", "reconcile"], &["action", "deploy", "--help"]] {
        let ran = run(program(directory.path()).args(arguments));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{arguments:?}");
        assert!(ran.out.contains("okta-auth0-sync"), "{}", ran.out);
    }
}

#[test]
fn config_check_prints_sources_and_next_runs() {
    let directory = configured();
    let ran = run(program(directory.path()).args(["check", "--offline"]));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(ran.err, "");
    for expected in [
        "pass  configuration",
        "https://example.okta.com/",
        "okta.oauth.private_key_file: ./credentials/okta (service app 0oa1)",
        "auth0.client_secret_file: ./credentials/auth0 (application abc)",
        "0 0 3 * * *  next: ",
        "T03:00:00.000Z, ",
        "No problems found.",
    ] {
        assert!(ran.out.contains(expected), "expected: {expected}\n{}", ran.out);
    }
    assert!(!ran.out.contains("t0psecret") && !ran.out.contains('\u{1b}'), "{}", ran.out);
}

#[test]
fn config_check_prints_json() {
    let directory = configured();
    let ran = run(program(directory.path()).args(["check", "--offline", "--json"]));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["ok"]), (0, &Value::Bool(true)));
    assert!(report["findings"].as_array().unwrap().iter().all(|finding| finding["verdict"] == "pass"), "{report}");

    fs::remove_file(directory.path().join("credentials/okta")).unwrap();
    let ran = run(program(directory.path()).args(["check", "--offline", "--json"]));
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["ok"]), (78, &Value::Bool(false)));
}

#[test]
fn invalid_config_exits_78() {
    for (from, to, expected) in [
        ("https://example.okta.com", "http://example.okta.com", "in the clear: use https://"),
        ("client_id = \"abc\"", "client_id = \"YOUR_CLIENT_ID\"", "still has the example value"),
        ("https://example.okta.com", "https://acme.okta.com", "is the example value"),
        ("client_id = \"abc\"\n", "", "auth0.client_id: is missing"),
        ("\"auth0\"", "\"nothing\"", "file not found: ./credentials/nothing"),
        ("[auth0]", "[auth0", "config.toml, line 6, column 7"),
        ("[auth0]\n", "[auth0]\ncolor = 1\n", "unknown field `color`"),
    ] {
        let directory = configured();
        let file = directory.path().join("config.toml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let ran = run(program(directory.path()).args(["check", "--offline"]));
        assert_eq!(ran.code, 78, "{to}: {}{}", ran.out, ran.err);
        assert!(ran.out.contains(expected), "{to}: expected: {expected}\n{}", ran.out);
        assert!(!ran.out.contains("t0psecret"), "{}", ran.out);
    }
}

#[test]
fn world_readable_secret_is_refused() {
    let directory = configured();
    let secret = directory.path().join("credentials/auth0");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let ran = run(program(directory.path()).args(["check", "--offline"]));
    assert_eq!(ran.code, 78);
    assert!(ran.out.contains("chmod 600 './credentials/auth0'"), "{}", ran.out);
    let given = directory.path().join("credentials");
    let ran = run(program(directory.path()).args(["check", "--offline"]).env("CREDENTIALS_DIRECTORY", given));
    assert_eq!(ran.code, 0, "systemd sees to its own credentials: {}", ran.out);
}

/// `run` would refuse these too, after it has opened its log.
#[test]
fn offline_check_refuses_unusable_state() {
    fn state(directory: &Path) -> std::path::PathBuf {
        directory.join("state/state.db")
    }
    type Case = (fn(&Path), &'static str);
    let cases: [Case; 5] = [
        (|it| fs::remove_dir(it.join("state")).unwrap(), "cannot open the state at ./state/state.db: No such file"),
        (|it| fs::write(state(it), "dear diary").unwrap(), "is not a state of okta-auth0-sync"),
        (|it| fs::create_dir(state(it)).unwrap(), "is not a state of okta-auth0-sync (not a regular file)"),
        (|it| std::os::unix::fs::symlink("/dev/null", state(it)).unwrap(), "it is a symbolic link to /dev/null"),
        (
            |it| fs::set_permissions(it.join("state"), fs::Permissions::from_mode(0o777)).unwrap(),
            "every local user can write to its folder ./state",
        ),
    ];
    for (breaks, expected) in cases {
        let directory = configured();
        breaks(directory.path());
        for arguments in [&["check", "--offline"][..], &["run"]] {
            let ran = run(program(directory.path()).args(arguments));
            let printed = ran.out + &ran.err;
            assert_eq!(ran.code, 78, "{arguments:?}: {printed}");
            assert!(printed.contains(expected), "{arguments:?}: expected {expected}\n{printed}");
        }
    }
}

/// The unit creates this folder, so a check before the first start passes.
#[test]
fn missing_folder_of_unit_is_a_warning() {
    let directory = configured();
    let path = ("OKTA_AUTH0_SYNC__STORE__PATH", "/var/lib/okta-auth0-sync/no-such-instance/state.db");
    let ran = run(program(directory.path()).args(["check", "--offline"]).env(path.0, path.1));
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("the systemd unit creates it"), "{}", ran.out);
}

#[test]
fn offline_check_reads_private_keys() {
    let directory = configured();
    fs::write(directory.path().join("credentials/okta"), "{\"kty\":\"t0psecret\"}\n").unwrap();
    let ran = run(program(directory.path()).args(["check", "--offline"]));
    assert_eq!(ran.code, 78);
    assert!(ran.out.contains("./credentials/okta: "), "{}", ran.out);
    assert!(!ran.out.contains("t0psecret"), "{}", ran.out);
}

#[test]
fn misspelt_variable_is_refused_by_every_command() {
    let directory = configured();
    for arguments in [&["check", "--offline"][..], &["run"], &["sync"], &["status"]] {
        let ran = run(program(directory.path()).args(arguments).env("OKTA_AUTH0_SYNC_ENGINE_ENFORCE", "false"));
        let printed = ran.out + &ran.err;
        assert_eq!(ran.code, 78, "{arguments:?}: {printed}");
        assert!(printed.contains("did you mean OKTA_AUTH0_SYNC__ENGINE__ENFORCE?"), "{printed}");
    }
}

#[test]
fn config_that_others_can_write_is_refused() {
    let directory = configured();
    fs::set_permissions(directory.path().join("config.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    for arguments in [&["check", "--offline"][..], &["run"], &["sync"]] {
        let ran = run(program(directory.path()).args(arguments));
        let printed = ran.out + &ran.err;
        assert_eq!(ran.code, 78, "{arguments:?}: {printed}");
        assert!(printed.contains("can be written by other users (mode 0666): chmod go-w 'config.toml'"), "{printed}");
    }
}

#[test]
fn config_search_order() {
    let directory = configured();
    let elsewhere = tempfile::tempdir().unwrap();
    let named = directory.path().join("config.toml");
    let by_variable = run(program(elsewhere.path())
        .args(["check", "--offline"])
        .env("OKTA_AUTH0_SYNC_CONFIG", &named)
        .env("OKTA_AUTH0_SYNC__SCHEDULE__POLL", "*/30 * * * * *"));
    assert_eq!(by_variable.code, 0, "{}", by_variable.out);
    assert!(by_variable.out.contains(&named.display().to_string()));
    assert!(by_variable.out.contains("*/30 * * * * *  next: "));
    let explicit = run(program(elsewhere.path())
        .args(["check", "--offline", "--config"])
        .arg(&named)
        .env("OKTA_AUTH0_SYNC_CONFIG", "/nowhere"));
    assert_eq!(explicit.code, 0, "{}", explicit.out);
    if !Path::new("/etc/okta-auth0-sync/config.toml").exists() {
        let none = run(program(elsewhere.path()).args(["check", "--offline"]));
        assert_eq!(none.code, 78);
        assert!(none.out.contains("name a file with --config FILE or OKTA_AUTH0_SYNC_CONFIG"), "{}", none.out);
    }
}

#[test]
fn prints_completions_and_manual_pages() {
    let directory = tempfile::tempdir().unwrap();
    for (shell, expected) in [("bash", "complete -F"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let ran = run(program(directory.path()).args(["completions", shell]));
        assert_eq!(ran.code, 0);
        assert!(ran.out.contains(expected), "{shell}");
    }
    let ran = run(program(directory.path()).arg("man"));
    assert!(ran.code == 0 && ran.out.contains(".TH okta-auth0-sync 1"), "{}", ran.out);
    let ran = run(program(directory.path()).args(["man", "--dir", "."]));
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    for page in ["okta-auth0-sync.1", "okta-auth0-sync-check.1", "okta-auth0-sync-action-deploy.1"] {
        assert!(directory.path().join(page).exists(), "{page}");
    }
    let ran = run(program(directory.path()).args(["man", "--dir", "nowhere"]));
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("error: cannot write: "), "{}", ran.err);
}
