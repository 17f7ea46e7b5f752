//! A whole installation in one process: both stand-ins, the clients, the store on disk and the engine, wired as the
//! program wires them.
//!
//! Looks run one after the other in the order of the queue, and the clock does not move between them, so every run of a
//! test is the same. The tests of faults, which need concurrency and real limits, start it with other options.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use okta_auth0_sync::auth0::{self, ACTION_SOURCE, Auth0, Auth0Options};
use okta_auth0_sync::domain::clock::{Sleep, Waiting};
use okta_auth0_sync::domain::mark::MarkOptions;
use okta_auth0_sync::domain::mark::MetadataKeys;
use okta_auth0_sync::domain::{
    Clock, ManualClock, OktaUserId, Policy, Rules, SteadyClock, Timestamp, WatchMode, clock,
};
use okta_auth0_sync::engine::reconciler::Scope;
use okta_auth0_sync::engine::sync_user::Report;
use okta_auth0_sync::engine::{Engine, Note, Options};
use okta_auth0_sync::http::pacing::{Pacer, Shares};
use okta_auth0_sync::http::{Http, HttpOptions, Timeouts};
use okta_auth0_sync::okta::{self, Okta, OktaOptions};
use okta_auth0_sync::store::{Approval, Binding, GuardWindow, Store, StoreError, UserRow, Who};
use okta_auth0_sync_sandbox::{self as sandbox, Auth0Tenant, Bucket, Limits, NewUser, OktaTenant, Sandbox};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The queue must be empty after this many rounds.
const ROUNDS_MAX: usize = 400;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// The clock of the host. Unlike the clock of the tenants it can be wrong.
#[derive(Debug)]
pub(crate) struct HostClock {
    right: Arc<ManualClock>,
    ahead: Mutex<jiff::SignedDuration>,
}

impl HostClock {
    /// Sets it this far ahead of the tenants' clock, or behind it.
    pub(crate) fn set_ahead(&self, ahead: jiff::SignedDuration) {
        *self.ahead.lock().unwrap() = ahead;
    }
}

impl Clock for HostClock {
    fn now(&self) -> Timestamp {
        self.right.now().saturating_add(*self.ahead.lock().unwrap()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.right.monotonic()
    }

    fn sleep(&self, span: Duration) -> Sleep<'_> {
        self.right.sleep(span)
    }

    fn waiting(&self) -> Waiting {
        self.right.waiting()
    }
}

/// What a test can change about an installation.
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) sandbox: sandbox::Options,
    pub(crate) network: Network,
}

/// How the clients reach the tenants, where that differs from what the stand-ins offer.
#[derive(Default)]
pub(crate) struct Network {
    pub(crate) okta: Option<okta::Credentials>,
    pub(crate) auth0: Option<auth0::Credentials>,
    pub(crate) okta_url: Option<String>,
    pub(crate) auth0_url: Option<String>,
    pub(crate) auth0_audience: Option<String>,
    pub(crate) ca_file: Option<Vec<u8>>,
    pub(crate) timeouts: Option<Timeouts>,
    /// The shares of Okta's and Auth0's limits; everything, if not given.
    pub(crate) shares: Option<(Shares, Shares)>,
}

pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    /// The tenants' clock. The engine uses it too, unless the host's clock was set wrong.
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) host: Arc<HostClock>,
    pub(crate) options: Options,
    pub(crate) keys: MetadataKeys,
    pub(crate) folder: tempfile::TempDir,
    engine: Option<Arc<Engine>>,
    stop: CancellationToken,
    /// What the engine reports, where the event stream is watched.
    notes: Option<mpsc::UnboundedReceiver<Note>>,
}

/// A watcher at work, on a clock that the test moves.
pub(crate) struct Watch {
    notes: mpsc::UnboundedReceiver<Note>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Watch {
    /// Waits until the stream shows a sign of life.
    pub(crate) async fn opened(&mut self) {
        while !matches!(self.next().await, Note::Stream { is_open: true }) {}
    }

    /// Waits until the connection has ended.
    pub(crate) async fn closed(&mut self) {
        while !matches!(self.next().await, Note::Stream { is_open: false }) {}
    }

    /// Waits until this many events about accounts have been processed. Returns how many users they made due.
    pub(crate) async fn events(&mut self, count: u64) -> u64 {
        let (mut seen, mut due) = (0, 0);
        while seen < count {
            if let Note::Watched { events, made_due } = self.next().await {
                seen += events;
                due += made_due;
            }
        }
        due
    }

    /// The next report of the engine.
    pub(crate) async fn next(&mut self) -> Note {
        self.notes.recv().await.expect("the watcher ended")
    }

    /// Stops it, as the end of the daemon does.
    pub(crate) async fn stop(self) -> mpsc::UnboundedReceiver<Note> {
        self.stop.cancel();
        self.task.await.unwrap();
        self.notes
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// With other options or other tenants.
    pub(crate) async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        Self::at("2026-03-02T08:00:00Z", change).await
    }

    /// The same, from this moment on.
    pub(crate) async fn at(start: &str, change: impl FnOnce(&mut Setup)) -> Self {
        let clock = Arc::new(ManualClock::stepping(start.parse().unwrap()));
        Self::on_clock(clock, MetadataKeys::only("okta_sync"), change).await
    }

    /// With a watched event stream, on a clock that only the test moves.
    pub(crate) async fn watched(change: impl FnOnce(&mut Setup)) -> Self {
        let clock = Arc::new(ManualClock::new("2026-03-02T08:00:00Z".parse().unwrap()));
        Self::on_clock(clock, MetadataKeys::only("okta_sync"), |setup| {
            setup.options.events = WatchMode::Auto;
            change(setup);
        })
        .await
    }

    /// Starts the watcher.
    pub(crate) fn watch(&mut self) -> Watch {
        let notes = self.notes.take().expect("made by World::watched");
        let (engine, stop) = (self.engine().clone(), CancellationToken::new());
        let token = stop.clone();
        let task = tokio::spawn(async move { engine.watch_loop(&token).await.unwrap() });
        Watch { notes, stop, task }
    }

    /// Another installation: for an Okta org of its own, and the Auth0 tenant of this one.
    pub(crate) async fn other_installation(&self, org_id: &str, key: &str) -> Self {
        let auth0 = self.auth0();
        Self::on_clock(self.clock.clone(), MetadataKeys::only(key), |setup| {
            setup.options.rules.mark = self.options.rules.mark;
            setup.sandbox.okta.org_id = org_id.to_owned();
            setup.network.auth0_url = Some(auth0.url().to_owned());
            setup.network.auth0_audience = Some(auth0.audience());
            setup.network.auth0 = Some(auth0::Credentials::Secret {
                client_id: auth0.client_id(),
                client_secret: SecretString::from(auth0.client_secret()),
            });
        })
        .await
    }

    async fn on_clock(clock: Arc<ManualClock>, keys: MetadataKeys, change: impl FnOnce(&mut Setup)) -> Self {
        let mut sandbox = sandbox::Options::with_manual_clock(clock.clone());
        sandbox.okta.limits = Limits::unlimited();
        sandbox.auth0.bucket = Bucket::UNLIMITED;
        let options = Options {
            rules: Rules {
                policy: Policy::default(),
                mark: MarkOptions { mirror: true, block: false },
                connections: Vec::new(),
                require_verified_email: false,
                trusted_connections: Vec::new(),
                end_sessions: false,
            },
            action: okta_auth0_sync::auth0::ShippedAction::new("account_deactivated", "okta_sync"),
            search: true,
            enforce: true,
            concurrency: 1,
            max_attempts: 12,
            guard: GuardWindow { denials_max: 200.into(), span: HOUR },
            events: WatchMode::Never,
            initial_lookback: 7 * DAY,
            directory: true,
            retention: 400 * DAY,
            okta_url: String::new(),
        };
        let mut setup = Setup { options, sandbox, network: Network::default() };
        change(&mut setup);
        let mut world = Self {
            sandbox: Sandbox::start(setup.sandbox, ACTION_SOURCE).await.unwrap(),
            host: Arc::new(HostClock { right: clock.clone(), ahead: Mutex::default() }),
            clock,
            options: setup.options,
            keys,
            // In memory where possible: these tests are not about the disk.
            folder: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
            engine: None,
            stop: CancellationToken::new(),
            notes: None,
        };
        world.open(setup.network).await.unwrap();
        world
    }

    async fn open(&mut self, network: Network) -> Result<(), StoreError> {
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::new(self.host.clone()));
        let (okta, auth0) = (self.sandbox.okta(), self.sandbox.auth0());
        let url = |other: Option<String>, own: &str| Url::parse(&other.unwrap_or_else(|| own.to_owned())).unwrap();
        let (okta_url, auth0_url) = (url(network.okta_url, okta.url()), url(network.auth0_url, auth0.url()));
        self.options.okta_url = okta_url.origin().ascii_serialization();
        let binding = Binding {
            okta_url: self.options.okta_url.clone(),
            auth0_url: auth0_url.origin().ascii_serialization(),
            auth0_audience: network.auth0_audience.clone().unwrap_or_else(|| auth0.audience()),
            enforce: self.options.enforce,
            policy: format!("{} {}", self.options.rules.fingerprint(), self.keys.fingerprint()),
            former_keys: self.keys.former.clone(),
        };
        let everything = Shares { ours: 1.0, reconcile: 1.0 };
        let (okta_shares, auth0_shares) = network.shares.unwrap_or((everything, everything));
        let (okta_pacer, auth0_pacer) = (Pacer::okta(okta_shares), Pacer::auth0(auth0_shares));
        let okta_options = OktaOptions {
            url: okta_url,
            credentials: network
                .okta
                .unwrap_or_else(|| okta::Credentials::ApiToken(SecretString::from(okta.api_token()))),
        };
        let auth0_options = Auth0Options {
            url: auth0_url,
            audience: network.auth0_audience.unwrap_or_else(|| auth0.audience()),
            credentials: network.auth0.unwrap_or_else(|| auth0::Credentials::Secret {
                client_id: auth0.client_id(),
                client_secret: SecretString::from(auth0.client_secret()),
            }),
            keys: self.keys.clone(),
        };
        let http = HttpOptions {
            ca_file: network.ca_file,
            user_agent: "okta-auth0-sync/test".to_owned(),
            connections: self.options.concurrency,
            timeouts: network.timeouts.unwrap_or_default(),
            ..HttpOptions::default()
        };
        let http = Http::new(&http).unwrap();
        self.options.action = okta_auth0_sync::auth0::ShippedAction::new("account_deactivated", &self.keys.current);
        let (store, opened) = Store::open(&self.folder.path().join("state.db"), &binding, clock.now()).await?;
        let okta_client = Okta::new(okta_options, http.clone(), Arc::new(okta_pacer.clone()), clock.clone());
        let auth0_client = Auth0::new(auth0_options, http, Arc::new(auth0_pacer.clone()), clock.clone());
        let engine = Engine::new(
            (okta_client, okta_pacer),
            (auth0_client, auth0_pacer),
            Arc::new(store),
            clock,
            self.options.clone(),
        );
        let engine = if self.options.events == WatchMode::Never {
            engine
        } else {
            let (sender, notes) = mpsc::unbounded_channel();
            self.notes = Some(notes);
            engine.with_notes(sender)
        };
        engine.apply_config_changes(&opened).await.unwrap();
        self.engine = Some(Arc::new(engine));
        Ok(())
    }

    /// Ends the process and starts another, which may refuse the state.
    pub(crate) async fn try_restart(&mut self) -> Result<(), StoreError> {
        if let Some(engine) = self.engine.take() {
            engine.store().close().await;
        }
        self.open(Network::default()).await
    }

    /// Ends the process and starts another, perhaps with other options.
    pub(crate) async fn restart(&mut self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options);
        self.restart_with(Network::default()).await;
    }

    /// Ends the process, puts a copy of the state in place of the state, and starts another.
    pub(crate) async fn restore(&mut self, copy: &std::path::Path) {
        if let Some(engine) = self.engine.take() {
            engine.store().close().await;
        }
        let state = self.folder.path().join("state.db");
        for beside in ["state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(self.folder.path().join(beside));
        }
        std::fs::copy(copy, state).unwrap();
        self.open(Network::default()).await.unwrap();
    }

    /// Ends the process and starts another that reaches the tenants like this.
    pub(crate) async fn restart_with(&mut self, network: Network) {
        if let Some(engine) = self.engine.take() {
            engine.store().close().await;
        }
        self.open(network).await.unwrap();
    }

    pub(crate) fn okta(&self) -> &OktaTenant {
        self.sandbox.okta()
    }

    pub(crate) fn auth0(&self) -> &Auth0Tenant {
        self.sandbox.auth0()
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        self.engine.as_ref().unwrap()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        self.engine().store()
    }

    /// An active user whose login is their e-mail address.
    pub(crate) fn user(&self, email: &str) -> OktaUserId {
        self.user_called(email, email)
    }

    /// An active user with this login.
    pub(crate) fn user_called(&self, login: &str, email: &str) -> OktaUserId {
        let id = self.okta().create_user(&NewUser::new(login, email));
        OktaUserId::parse(id.as_str()).unwrap()
    }

    /// An account in the database connection.
    pub(crate) fn account(&self, email: &str) -> String {
        self.auth0().create_user(json!({ "email": email, "email_verified": true }))
    }

    /// The time of the host's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.host.now()
    }

    pub(crate) fn passes(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// Reads the log to its end.
    pub(crate) async fn poll(&self) {
        // Okta stores events a moment after they were published; searches lag by a second.
        self.passes(2 * SECOND);
        while self.engine().poll(&self.stop).await.unwrap().more {}
    }

    /// Looks at every user who is due until none is. Returns the reports in order.
    pub(crate) async fn settle(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let due = self.store().due(self.now(), 1000).await.unwrap();
            if due.is_empty() {
                return reports;
            }
            for user in due {
                reports.extend(self.engine().look_at(&[user.id]).await.unwrap());
            }
        }
        panic!("the queue does not become empty; the last looks: {:#?}", &reports[reports.len() - 5..]);
    }

    /// Polls, then settles.
    pub(crate) async fn sync(&self) -> Vec<Report> {
        self.poll().await;
        self.settle().await
    }

    /// Lets this time pass and looks at each user when they are due.
    pub(crate) async fn let_pass(&self, span: Duration) -> Vec<Report> {
        let end = clock::add(self.now(), span);
        let mut reports = self.settle().await;
        while self.now() < end {
            let mut next = end;
            for user in self.store().due(end, 1000).await.unwrap() {
                let due_at = self.row(&user.id).await.due_at.unwrap().parse().unwrap();
                next = next.min(due_at);
            }
            self.passes(clock::since(next, self.now()).max(Duration::from_millis(1)));
            reports.extend(self.settle().await);
        }
        reports
    }

    /// Lists every user of the org.
    pub(crate) async fn list_directory(&self) -> u64 {
        self.passes(2 * SECOND);
        let listed = self.engine().list_directory(&self.stop).await.unwrap();
        assert!(listed.done);
        listed.users
    }

    /// Reconciles without the looks. Returns how many users it queued.
    pub(crate) async fn compare(&self, scope: Scope) -> u64 {
        self.passes(2 * SECOND);
        self.engine().begin_reconcile(scope, "a test").await.unwrap();
        self.engine().reconcile(&self.stop).await.unwrap().made_due
    }

    /// Reconciles all users and looks at those that it queued.
    pub(crate) async fn reconcile(&self) -> Vec<Report> {
        self.compare(Scope::All).await;
        self.settle().await
    }

    pub(crate) async fn approve(&self, who: &OktaUserId) -> Vec<Report> {
        assert_eq!(self.approve_without_a_look(Some(who)).await, 1, "{who} was not held");
        self.settle().await
    }

    /// Approves this user, or all held users, for the present reason. Returns how many were held.
    pub(crate) async fn approve_without_a_look(&self, who: Option<&OktaUserId>) -> usize {
        let mut held = self.store().held().await.unwrap();
        held.retain(|user| who.is_none_or(|who| user.id == *who));
        let approval = Approval { held: &held, by: "command", reason: None, policy: "p" };
        self.store().approve(approval, self.now()).await.unwrap().len()
    }

    pub(crate) async fn request(&self, who: &OktaUserId) -> Vec<Report> {
        self.store().request_look(Who::User(who), self.now()).await.unwrap();
        self.settle().await
    }

    /// Deactivates and syncs.
    pub(crate) async fn leaves(&self, who: &OktaUserId) -> Vec<Report> {
        self.okta().deactivate(who);
        self.sync().await
    }

    /// Activates and syncs.
    pub(crate) async fn returns(&self, who: &OktaUserId) -> Vec<Report> {
        self.okta().activate(who);
        self.sync().await
    }

    pub(crate) async fn row(&self, who: &OktaUserId) -> UserRow {
        self.store().find_users(who.as_str()).await.unwrap().remove(0)
    }

    /// The outcome and its reason, e.g. `held: guard`.
    pub(crate) async fn outcome(&self, who: &OktaUserId) -> String {
        let row = self.row(who).await;
        match (row.outcome.map(|outcome| outcome.as_str()), row.why) {
            (Some(outcome), Some(why)) => format!("{outcome}: {why}"),
            (outcome, _) => outcome.unwrap_or("none").to_owned(),
        }
    }

    /// The open alarms, as `kind` or `kind of subject`.
    pub(crate) async fn alarms(&self) -> Vec<String> {
        let alarms = self.store().open_alarms().await.unwrap();
        let mut names: Vec<String> = alarms
            .into_iter()
            .map(|alarm| match alarm.subject.is_empty() {
                true => alarm.kind,
                false => format!("{} of {}", alarm.kind, alarm.subject),
            })
            .collect();
        names.sort();
        names
    }

    pub(crate) fn writes(&self) -> usize {
        self.auth0().journal().count("PATCH", "/api/v2/users/")
    }

    /// How many API calls Okta and Auth0 received since the journals were cleared.
    pub(crate) fn calls(&self) -> (usize, usize) {
        let asked = |journal: &sandbox::Journal| {
            journal.requests().iter().filter(|request| request.path.starts_with("/api/v")).count()
        };
        (asked(self.okta().journal()), asked(self.auth0().journal()))
    }

    pub(crate) fn clear_journals(&self) {
        self.okta().journal().clear();
        self.auth0().journal().clear();
    }

    pub(crate) fn mark(&self, account: &str) -> Value {
        self.auth0().user(account).unwrap()["app_metadata"]["okta_sync"].clone()
    }

    /// Whether this account can log in.
    pub(crate) fn lets_in(&self, account: &str) -> bool {
        self.auth0().login(account).is_granted()
    }

    /// Denied by a mark for this user, mirror included.
    #[track_caller]
    pub(crate) fn assert_denied_for(&self, account: &str, who: &OktaUserId) {
        let user = self.auth0().user(account).unwrap();
        assert_eq!(user["app_metadata"]["okta_sync"]["deactivated"], "true", "{user:#}");
        assert_eq!(user["app_metadata"]["okta_sync"]["okta_user_id"], who.as_str(), "{user:#}");
        assert_eq!(user["user_metadata"]["okta"]["deactivated"], "true", "{user:#}");
        assert!(!self.lets_in(account));
    }

    /// No mark denies it, no block, no mirror.
    #[track_caller]
    pub(crate) fn assert_open(&self, account: &str) {
        let user = self.auth0().user(account).unwrap();
        assert_ne!(user["app_metadata"]["okta_sync"]["deactivated"], "true", "{user:#}");
        assert_ne!(user["user_metadata"]["okta"]["deactivated"], "true", "{user:#}");
        assert!(self.lets_in(account), "{user:#}");
    }
}

/// The outcomes of these looks.
pub(crate) fn outcomes(reports: &[Report]) -> Vec<&'static str> {
    reports.iter().map(|report| report.outcome.as_str()).collect()
}
