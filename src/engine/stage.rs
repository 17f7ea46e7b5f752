//! For tests: an engine with its own state, both stand-ins, and a manual clock.

use std::io;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

use super::sync_user::Report;
use super::{Engine, Options};
use crate::auth0::{self, ACTION_SOURCE, Auth0, Auth0Options, ShippedAction};
use crate::domain::mark::MarkOptions;
use crate::domain::mark::MetadataKeys;
use crate::domain::{ManualClock, OktaUserId, Policy, Rules, Timestamp, WatchMode};
use crate::http::pacing::{Pacer, Shares};
use crate::http::{Http, HttpOptions};
use crate::okta::{self, Okta, OktaOptions};
use crate::store::{Binding, GuardWindow, Store};
use okta_auth0_sync_sandbox::{self as sandbox, Auth0Tenant, Bucket, NewUser, OktaTenant, Sandbox};

/// Creates a user in Okta, and returns their id as the engine knows it.
pub(super) fn create_user(okta: &OktaTenant, login: &str, email: &str) -> OktaUserId {
    let id = okta.create_user(&NewUser::new(login, email));
    OktaUserId::parse(id.as_str()).unwrap()
}

pub(super) struct Stage {
    pub(super) sandbox: Sandbox,
    pub(super) engine: Arc<Engine>,
    pub(super) clock: Arc<ManualClock>,
    _folder: TempDir,
}

/// The start time of every stage.
pub(super) fn start_time() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

impl Stage {
    /// With a clock that each sleep advances.
    pub(super) async fn new(mark: MarkOptions) -> Self {
        Self::with(mark, ManualClock::stepping(start_time()), |engine, _| engine).await
    }

    /// `customize` may change the engine before it is shared.
    pub(super) async fn with(
        mark: MarkOptions,
        clock: ManualClock,
        customize: impl FnOnce(Engine, &Sandbox) -> Engine,
    ) -> Self {
        let clock = Arc::new(clock);
        let sandbox = Sandbox::start(sandbox::Options::with_manual_clock(clock.clone()), ACTION_SOURCE).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (okta_tenant, auth0_tenant) = (sandbox.okta(), sandbox.auth0());
        let policy = Policy::default();
        let binding = Binding {
            okta_url: okta_tenant.url().to_owned(),
            auth0_url: auth0_tenant.url().to_owned(),
            auth0_audience: auth0_tenant.audience(),
            enforce: true,
            policy: policy.fingerprint(),
            former_keys: Vec::new(),
        };
        let now = crate::domain::Clock::now(clock.as_ref());
        let (store, _) = Store::open(&folder.path().join("state.db"), &binding, now).await.unwrap();
        let http = Http::new(&HttpOptions { user_agent: "test".to_owned(), ..HttpOptions::default() }).unwrap();
        let shares = Shares { ours: 0.9, reconcile: 0.5 };
        let (okta_pacer, auth0_pacer) = (Pacer::okta(shares), Pacer::auth0(shares));
        let okta = Okta::new(
            OktaOptions {
                url: okta_tenant.url().parse().unwrap(),
                credentials: okta::Credentials::ApiToken(okta_tenant.api_token().into()),
            },
            http.clone(),
            Arc::new(okta_pacer.clone()),
            clock.clone(),
        );
        let auth0 = Auth0::new(
            Auth0Options {
                url: auth0_tenant.url().parse().unwrap(),
                audience: auth0_tenant.audience(),
                credentials: auth0::Credentials::Secret {
                    client_id: auth0_tenant.client_id(),
                    client_secret: auth0_tenant.client_secret().into(),
                },
                keys: MetadataKeys::only("okta_sync"),
            },
            http,
            Arc::new(auth0_pacer.clone()),
            clock.clone(),
        );
        let options = Options {
            rules: Rules {
                policy,
                mark,
                connections: Vec::new(),
                require_verified_email: false,
                trusted_connections: Vec::new(),
                end_sessions: false,
            },
            action: ShippedAction::new("account_deactivated", "okta_sync"),
            search: true,
            enforce: true,
            concurrency: 4,
            max_attempts: 12,
            guard: GuardWindow { denials_max: 10_000.into(), span: Duration::from_secs(3600) },
            events: WatchMode::Never,
            initial_lookback: Duration::from_secs(7 * 86_400),
            directory: true,
            retention: Duration::from_secs(400 * 86_400),
            okta_url: okta_tenant.url().to_owned(),
        };
        let engine = Engine::new((okta, okta_pacer), (auth0, auth0_pacer), Arc::new(store), clock.clone(), options);
        let engine = customize(engine, &sandbox);
        Self { sandbox, engine: Arc::new(engine), clock, _folder: folder }
    }
}

/// Fails the test if `work` does not finish in time.
pub(super) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("finishes in time")
}

/// Yields to other tasks until the condition holds.
pub(super) async fn until(mut condition: impl FnMut() -> bool) {
    soon(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A stage with changed options, and helpers for users and accounts.
pub(super) struct Harness {
    pub(super) stage: Stage,
}

impl Harness {
    pub(super) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut stage = Stage::new(MarkOptions { mirror: true, block: false }).await;
        stage.sandbox.auth0().set_bucket(Bucket::UNLIMITED);
        change(&mut Arc::get_mut(&mut stage.engine).unwrap().options);
        Self { stage }
    }

    /// Changes the configuration, as if the process had restarted.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut Arc::get_mut(&mut self.stage.engine).unwrap().options);
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.stage.engine
    }

    pub(super) fn okta(&self) -> &OktaTenant {
        self.stage.sandbox.okta()
    }

    pub(super) fn auth0(&self) -> &Auth0Tenant {
        self.stage.sandbox.auth0()
    }

    /// Creates a user whose login is their e-mail.
    pub(super) fn user(&self, email: &str) -> OktaUserId {
        create_user(self.okta(), email, email)
    }

    pub(super) fn account(&self, email: &str) -> String {
        self.auth0().create_user(json!({ "email": email, "email_verified": true }))
    }

    pub(super) async fn passes(&self, span: Duration) {
        self.engine().clock().sleep(span).await;
    }

    /// Polls after the lag of the tenants' indexes.
    pub(super) async fn poll(&self) {
        self.passes(Duration::from_secs(2)).await;
        self.engine().poll(&CancellationToken::new()).await.unwrap();
    }

    /// Looks at all users who are due now, until the queue is empty.
    pub(super) async fn settle(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        for _ in 0..100 {
            let due = self.due().await;
            if due.is_empty() {
                return reports;
            }
            reports.extend(self.engine().look_at(&due).await.unwrap());
        }
        panic!("the queue does not drain: {reports:#?}");
    }

    pub(super) async fn sync(&self) -> Vec<Report> {
        self.poll().await;
        self.settle().await
    }

    /// The users who are due now.
    pub(super) async fn due(&self) -> Vec<OktaUserId> {
        let due = self.engine().store().due(self.engine().now(), 1000).await.unwrap();
        due.into_iter().map(|due| due.id).collect()
    }
}

/// A new state in its own folder.
pub(super) async fn a_store(now: Timestamp) -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let binding = Binding {
        okta_url: "https://acme.okta.com".to_owned(),
        auth0_url: "https://acme.eu.auth0.com".to_owned(),
        auth0_audience: "https://acme.eu.auth0.com/api/v2/".to_owned(),
        enforce: true,
        policy: Policy::default().fingerprint(),
        former_keys: Vec::new(),
    };
    let (store, _) = Store::open(&folder.path().join("state.db"), &binding, now).await.unwrap();
    (folder, store)
}

/// Captures the log lines of this thread until dropped.
pub(super) struct CapturedLogs {
    bytes: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

impl CapturedLogs {
    pub(super) fn new() -> Self {
        // `tracing` caches each callsite's interest for all threads, as the first thread to reach it sees it. A global
        // subscriber keeps a thread without one from disabling the callsite.
        static EVERYWHERE: Once = Once::new();
        EVERYWHERE.call_once(|| {
            let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(LevelFilter::INFO));
        });
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let writer = {
            let bytes = bytes.clone();
            move || Buffer(bytes.clone())
        };
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
        Self { bytes, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }

    /// How often this event was logged.
    pub(super) fn count(&self, event: &str) -> usize {
        self.text().matches(&format!("event=\"{event}\"")).count()
    }
}

struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
