//! A folder with a configuration and a state that has an example of every case.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use assert_cmd::Command;
use okta_auth0_sync::domain::decide::Conclusion;
use okta_auth0_sync::domain::event::EventUser;
use okta_auth0_sync::domain::{
    AccountId, Address, Clock, Event, Held, OktaUserId, Outcome, Status, SystemClock, Timestamp, UserRead, Verdict,
    clock,
};
use okta_auth0_sync::store::{
    AccountChange, ActionState, Alarm, AlarmKind, Binding, Decision, Evaluation, LookFinish, Page, QuarantinedEvent,
    Store,
};
use tempfile::TempDir;

/// Text from a remote with terminal escape sequences.
pub(crate) const HOSTILE: &str = "gone\u{1b}[2J\nbad";

pub(crate) struct Folder {
    pub(crate) directory: TempDir,
}

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn now() -> Timestamp {
    SystemClock::new().now()
}

pub(crate) fn ago(seconds: u64) -> Timestamp {
    clock::sub(now(), Duration::from_secs(seconds))
}

pub(crate) fn id(text: &str) -> OktaUserId {
    OktaUserId::parse(text).unwrap()
}

impl Folder {
    /// A valid configuration without secret files, and no state.
    pub(crate) fn empty() -> Self {
        Self::with(
            "[okta]\nurl = \"https://example.okta.com\"\napi_token_file = \"nowhere-okta\"\n\
             [auth0]\nurl = \"https://example.auth0.com\"\nclient_id = \"abc\"\nclient_secret_file = \"nowhere-auth0\"\n\
             [store]\npath = \"state.db\"\n",
        )
    }

    /// This configuration, and no state.
    pub(crate) fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.toml"), config).unwrap();
        Self { directory }
    }

    /// Appends to the configuration.
    pub(crate) fn configure(&self, more: &str) {
        let path = self.directory.path().join("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, format!("{text}\n{more}")).unwrap();
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state.db")
    }

    pub(crate) async fn open(&self) -> Store {
        let binding = Binding {
            okta_url: "https://example.okta.com".to_owned(),
            auth0_url: "https://example.auth0.com".to_owned(),
            auth0_audience: "https://example.auth0.com/api/v2/".to_owned(),
            enforce: true,
            policy: "deny=DEPROVISIONED".to_owned(),
            former_keys: Vec::new(),
        };
        Store::open(&self.state(), &binding, ago(7200)).await.unwrap().0
    }

    /// The state open as a running daemon has it, which knows all about itself.
    pub(crate) async fn daemon(&self) -> Store {
        let store = self.open().await;
        let found = Evaluation { clock: Some((0.0, now())), ..Evaluation::default() };
        store.note_action(ActionState::Verified, "", now()).await.unwrap();
        store.note_evaluation(&found, now()).await.unwrap();
        store
    }

    /// A state with one successful poll and one reconcile of all users just now.
    pub(crate) async fn quiet() -> Self {
        let folder = Self::empty();
        let store = folder.open().await;
        page(&store, &[], &[], now()).await;
        store.begin_reconcile("all", "the test", "known", now()).await.unwrap();
        store.finish_reconcile(true, now()).await.unwrap();
        store.close().await;
        folder
    }

    /// Ann is denied, Bob failed, Cyd and her namesake are held, Dan is pending; one event is quarantined, one alarm open.
    pub(crate) async fn troubled() -> Self {
        let folder = Self::empty();
        let store = folder.open().await;
        let events = [
            event("e-ann", "00uann", "ann@example.com", 3600),
            event("e-bob", "00ubob", "bob@example.com", 3000),
            event("e-cyd", "00ucyd", "cyd@example.com", 2400),
            event("e-cyd2", "00ucyd2", "cyd@example.com", 2300),
            event("e-dan", "00udan", "dan@example.com", 60),
        ];
        let quarantined = [QuarantinedEvent {
            event_id: "q-1".to_owned(),
            event_type: Some("user.lifecycle.deactivate".to_owned()),
            published: None,
            raw: format!("{{\"uuid\":\"q-1\",\"who\":\"eve@example.com\",\"x\":\"{}\"}}", "y".repeat(5000)),
            why: format!("no user in it: {HOSTILE}"),
        }];
        page(&store, &events, &quarantined, now()).await;

        let account = AccountChange {
            id: AccountId::new("auth0|ann"),
            email: Address::parse("ann@example.com"),
            connection: Some("db".to_owned()),
            denied: true,
            blocked: false,
            denied_at: Some(ago(3590)),
            event_id: Some("e-ann".to_owned()),
            published: Some(ago(3600)),
            lag_ms: Some(10_500),
            sessions_owed: false,
            former_key: None,
        };
        let decision = Decision {
            okta_user_id: Some("00uann".to_owned()),
            email: Some("ann@example.com".to_owned()),
            auth0_user_id: Some("auth0|ann".to_owned()),
            cause: "event".to_owned(),
            event_id: Some("e-ann".to_owned()),
            actor: Some("=cmd|' /C calc'!A0".to_owned()),
            status: Some("DEPROVISIONED".to_owned()),
            verdict: Some(Verdict::Deny),
            before: Some("open".to_owned()),
            after: Some("denied".to_owned()),
            outcome: okta_auth0_sync::domain::DecisionOutcome::Applied,
            why: Some("said \"yes\",\nthen no".to_owned()),
            request_id: Some("r-1".to_owned()),
            lag_ms: Some(10_500),
        };
        let failed = Outcome::Failed(format!("Auth0 said 500: {HOSTILE}"));
        let held = Outcome::Held(Held::Guard);
        look(&store, "00uann", "ann@example.com", &Outcome::Applied, &[decision], &[account]).await;
        look(&store, "00ubob", "bob@example.com", &failed, &[], &[]).await;
        look(&store, "00ucyd", "cyd@example.com", &held, &[], &[]).await;
        look(&store, "00ucyd2", "cyd@example.com", &held, &[], &[]).await;
        let alarm = Alarm {
            momentary: false,
            kind: AlarmKind::Gap,
            subject: String::new(),
            detail: format!("the log may have a gap {HOSTILE}"),
            remedy: "all users are reconciled automatically now (`reconcile --all`)".to_owned(),
        };
        store.raise_alarm(&alarm, ago(600)).await.unwrap();
        store.close().await;
        folder
    }

    /// Runs the binary with a clean environment and checks that it prints no terminal escape sequences.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"));
        command.current_dir(self.directory.path()).env_clear().env("PATH", "/usr/bin:/bin").args(arguments);
        let output = command.output().unwrap();
        let ran = Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        assert!(!ran.out.contains('\u{1b}'), "{arguments:?}: {:?}", ran.out);
        ran
    }
}

/// The first page.
pub(crate) async fn page(store: &Store, events: &[Event], quarantined: &[QuarantinedEvent], at: Timestamp) {
    let page = Page {
        expected_seq: 0,
        events,
        quarantined,
        next: Some("/api/v1/logs?after=1"),
        fingerprint: "f",
        anchor_at: at,
        creation_matters: false,
        is_good: true,
    };
    store.record_page(page, at).await.unwrap();
}

fn event(event_id: &str, user: &str, login: &str, seconds_ago: u64) -> Event {
    Event {
        id: event_id.to_owned(),
        event_type: "user.lifecycle.deactivate".to_owned(),
        published: ago(seconds_ago),
        actor: Some("admin@example.com".to_owned()),
        users: vec![EventUser { id: id(user), login: Some(login.to_owned()) }],
        succeeded: true,
    }
}

async fn look(
    store: &Store,
    user: &str,
    login: &str,
    outcome: &Outcome,
    decisions: &[Decision],
    accounts: &[AccountChange],
) {
    let user = id(user);
    let start = store.begin_look(&user, now()).await.unwrap();
    let address = Address::parse(login).unwrap();
    let read = UserRead {
        login: Some(login.to_owned()),
        email: Some(address.clone()),
        status: Status::Deprovisioned,
        addresses: vec![address],
        address_hidden: false,
    };
    let next_look = matches!(outcome, Outcome::Failed(_)).then(|| clock::add(now(), Duration::from_secs(86_400)));
    let finish = LookFinish {
        user: &user,
        claimed_seq: start.claimed_seq,
        read: Some(&read),
        outcome,
        depends_on: None,
        decisions,
        accounts,
        belated_event: None,
        conclusion: Conclusion { next_look, ..Conclusion::default() },
        alarms: &[],
        policy: "p",
    };
    store.finish_look(finish, now()).await.unwrap();
}
