//! Both stand-ins, a state, and an engine wired to them as the program wires it.

use std::sync::Arc;
use std::time::Duration;

use okta_auth0_sync::auth0::{self, ACTION_SOURCE, Auth0, Auth0Options};
use okta_auth0_sync::domain::mark::MarkOptions;
use okta_auth0_sync::domain::{Clock, ManualClock, OktaUserId, Outcome, Policy, Timestamp};
use okta_auth0_sync::engine::applier::Until;
use okta_auth0_sync::engine::poller::{Pass, PassError};
use okta_auth0_sync::engine::{Engine, Options};
use okta_auth0_sync::http::pacing::{Pacer, Shares};
use okta_auth0_sync::http::{Http, HttpOptions};
use okta_auth0_sync::okta::{self, Okta, OktaOptions};
use okta_auth0_sync::store::{AlarmRow, Binding, GuardWindow, Store};
use okta_auth0_sync_sandbox::{self as sandbox, Effect, Fault, NewUser, Recorded, Sandbox};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) const START: &str = "2026-01-01T00:00:00Z";
/// How long a refusal of ours keeps a remote from being asked.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(61);

pub(crate) fn s(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What is not as usual.
pub(crate) struct Setup {
    pub(crate) sandbox: sandbox::Options,
    pub(crate) okta: Option<okta::Credentials>,
    pub(crate) auth0: Option<auth0::Credentials>,
    /// Where the org is reached, if not at the stand-in itself.
    pub(crate) okta_url: Option<String>,
    pub(crate) auth0_url: Option<String>,
    pub(crate) ca_file: Option<Vec<u8>>,
    pub(crate) concurrency: usize,
    /// Also the case-insensitive search.
    pub(crate) search: bool,
}

pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) engine: Arc<Engine>,
    folder: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::set(|_| ()).await
    }

    pub(crate) async fn set(change: impl FnOnce(&mut Setup)) -> Self {
        let clock = Arc::new(ManualClock::stepping(START.parse().unwrap()));
        let mut setup = Setup {
            sandbox: sandbox::Options::with_manual_clock(clock.clone()),
            okta: None,
            auth0: None,
            okta_url: None,
            auth0_url: None,
            ca_file: None,
            concurrency: 4,
            search: true,
        };
        change(&mut setup);
        let sandbox = Sandbox::start(setup.sandbox.clone(), ACTION_SOURCE).await.unwrap();
        let folder = in_memory();
        let engine = wire(&sandbox, &clock, &folder, setup).await;
        Self { sandbox, clock, engine, folder }
    }

    /// The next life, on the same state and the same tenants.
    pub(crate) async fn restart(&mut self, change: impl FnOnce(&mut Setup)) {
        self.engine.store().close().await;
        let mut setup = Setup {
            sandbox: sandbox::Options::default(),
            okta: None,
            auth0: None,
            okta_url: None,
            auth0_url: None,
            ca_file: None,
            concurrency: 4,
            search: true,
        };
        change(&mut setup);
        self.engine = wire(&self.sandbox, &self.clock, &self.folder, setup).await;
    }

    /// Another installation, with a state in this folder, of the same tenants.
    pub(crate) async fn restart_elsewhere(&mut self, folder: &std::path::Path, change: impl FnOnce(&mut Setup)) {
        self.folder = tempfile::tempdir_in(folder).unwrap();
        self.restart(change).await;
    }

    /// Somebody with an account in both tenants.
    pub(crate) fn person(&self, name: &str) -> Person {
        let email = format!("{name}@example.com");
        let okta = self.sandbox.okta().create_user(&NewUser::new(&email, &email));
        let okta = OktaUserId::parse(okta.as_str()).unwrap();
        let account = self.sandbox.auth0().create_user(json!({ "email": email }));
        Person { okta, account }
    }

    /// Somebody with an account in both tenants, who has just left.
    pub(crate) fn leaver(&self, name: &str) -> Person {
        let person = self.person(name);
        self.sandbox.okta().deactivate(&person.okta);
        person
    }

    pub(crate) async fn poll(&self) -> Result<Pass, PassError> {
        self.engine.poll(&CancellationToken::new()).await
    }

    /// Looks at everybody who is due, for as long as the next one is due within an hour.
    pub(crate) async fn work_off(&self) {
        self.engine.apply(Until::Idle(s(3600)), &CancellationToken::new()).await.unwrap();
    }

    pub(crate) async fn look(&self, person: &Person) -> Outcome {
        let ids = std::slice::from_ref(&person.okta);
        self.engine.look_at(ids).await.unwrap().remove(0).outcome
    }

    pub(crate) fn denied(&self, person: &Person) -> bool {
        let account = self.sandbox.auth0().user(&person.account).unwrap();
        account["app_metadata"]["okta_sync"]["deactivated"] == "true"
    }

    /// Polls and works off, and everybody is denied.
    pub(crate) async fn denies(&self, people: &[Person]) {
        self.poll().await.unwrap();
        self.work_off().await;
        for person in people {
            assert!(self.denied(person), "{} is not denied", person.account);
        }
    }

    pub(crate) async fn alarms(&self, kind: &str) -> Vec<AlarmRow> {
        let alarms = self.engine.store().open_alarms().await.unwrap();
        alarms.into_iter().filter(|alarm| alarm.kind == kind).collect()
    }

    pub(crate) fn okta_calls(&self, method: &str, path: &str) -> usize {
        self.sandbox.okta().journal().count(method, path)
    }

    pub(crate) fn auth0_calls(&self, method: &str, path: &str) -> usize {
        self.sandbox.auth0().journal().count(method, path)
    }

    pub(crate) fn calls(&self) -> u64 {
        self.sandbox.okta().journal().total() + self.sandbox.auth0().journal().total()
    }

    /// The requests for pages of the log.
    pub(crate) fn pages(&self) -> Vec<Recorded> {
        let requests = self.sandbox.okta().journal().requests();
        requests.into_iter().filter(|request| request.path == LOGS).collect()
    }

    /// An Okta fault: the next `times` requests of this method and path.
    pub(crate) fn okta_fault(&self, method: &str, path: &str, effect: Effect, times: u32) {
        self.sandbox.okta().faults().add(Fault::new(method, path, effect).times(times));
    }

    pub(crate) fn auth0_fault(&self, method: &str, path: &str, effect: Effect, times: u32) {
        self.sandbox.auth0().faults().add(Fault::new(method, path, effect).times(times));
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The weather is that of networks: a disk that others keep busy has no part in it, where the system has a folder in memory.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

pub(crate) const LOGS: &str = "/api/v1/logs";

pub(crate) struct Person {
    pub(crate) okta: OktaUserId,
    pub(crate) account: String,
}

/// An answer instead of the tenant's.
pub(crate) fn answer(code: u16, body: Value) -> Effect {
    Effect::Status { code, body, headers: Vec::new() }
}

pub(crate) fn header(name: &str, value: &str) -> Effect {
    Effect::ReplaceHeader { name: name.to_owned(), value: Some(value.to_owned()) }
}

/// The words of a pass that could not be made.
pub(crate) fn paused(result: Result<Pass, PassError>) -> String {
    match result {
        Err(PassError::Paused { why, .. }) => why,
        other => panic!("not paused: {other:?}"),
    }
}

pub(crate) fn snoozed(outcome: Outcome) -> String {
    match outcome {
        Outcome::Snooze { why, .. } => why,
        other => panic!("not snoozed: {other:?}"),
    }
}

async fn wire(sandbox: &Sandbox, clock: &Arc<ManualClock>, folder: &TempDir, setup: Setup) -> Arc<Engine> {
    let clock: Arc<dyn Clock> = clock.clone();
    let http = Http::new(&HttpOptions { ca_file: setup.ca_file, user_agent: "okta-auth0-sync/weather".to_owned() });
    let http = http.unwrap();
    let url = |other: Option<String>, own: &str| Url::parse(&other.unwrap_or_else(|| own.to_owned())).unwrap();
    let okta_url = url(setup.okta_url, sandbox.okta().url());
    let auth0_url = url(setup.auth0_url, sandbox.auth0().url());
    let origin = |url: &Url| url.origin().ascii_serialization();
    let policy = Policy::default();
    let binding = Binding {
        okta_url: origin(&okta_url),
        auth0_url: origin(&auth0_url),
        auth0_audience: sandbox.auth0().audience(),
        enforce: true,
        policy: policy.fingerprint(),
    };
    let (store, opened) = Store::open(&folder.path().join("state.db"), &binding, clock.now()).await.unwrap();
    let options = Options {
        action_code: okta_auth0_sync::auth0::action_code("account_deactivated", "okta_sync"),
        policy,
        mark: MarkOptions { mirror: true, block: false },
        connections: Vec::new(),
        require_verified_email: false,
        search: setup.search,
        end_sessions: false,
        enforce: true,
        concurrency: setup.concurrency,
        max_attempts: 12,
        guard: GuardWindow { denials_max: 10_000, span: s(3600) },
        initial_lookback: s(7 * 86_400),
        retention: s(400 * 86_400),
        okta_url: origin(&okta_url),
    };
    let okta_credentials = setup.okta.unwrap_or_else(|| okta::Credentials::ApiToken(sandbox.okta().api_token().into()));
    let auth0_credentials = setup.auth0.unwrap_or_else(|| auth0::Credentials::Secret {
        client_id: sandbox.auth0().client_id(),
        client_secret: sandbox.auth0().client_secret().into(),
    });
    let okta_pacer = Pacer::okta(Shares { ours: 0.9, sweeps: 0.25 });
    let auth0_pacer = Pacer::auth0(Shares { ours: 0.8, sweeps: 0.25 });
    let okta = Okta::new(
        OktaOptions { url: okta_url, credentials: okta_credentials },
        http.clone(),
        Arc::new(okta_pacer.clone()),
        clock.clone(),
    );
    let auth0 = Auth0::new(
        Auth0Options {
            url: auth0_url,
            audience: sandbox.auth0().audience(),
            credentials: auth0_credentials,
            metadata_key: "okta_sync".to_owned(),
        },
        http,
        Arc::new(auth0_pacer.clone()),
        clock.clone(),
    );
    let engine = Engine::new((okta, okta_pacer), (auth0, auth0_pacer), Arc::new(store), clock, options);
    engine.apply_config_changes(&opened).await.unwrap();
    Arc::new(engine)
}
