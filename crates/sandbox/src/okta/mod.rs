//! The stand-in of an Okta org: users and their lifecycle, the System Log, service apps, rate limits.

mod control;
mod directory;
mod entry;
mod lifecycle;
mod limits;
mod listing;
mod log;
mod oauth;
mod org;
mod problem;
mod user_id;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Map, Value, json};

use okta_auth0_sync_clock::Timestamp;

use super::faults::{Faults, RateLimited};
use super::journal::Journal;
use super::message::{Inbound, Reply};
use super::tenant::{Tenant, TenantContext};

use directory::View;
use entry::{Content, Entry};
use org::Org;

pub use lifecycle::DeleteOrder;
pub use limits::{Limit, Limits};
pub use oauth::ServiceApp;
pub use user_id::UserId;

/// The order of user lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PageOrder {
    /// By creation.
    #[default]
    Created,
    /// By creation, reversed.
    NewestFirst,
}

/// The options of an org.
#[derive(Clone)]
pub struct OktaOptions {
    /// The token for `Authorization: SSWS …`.
    pub api_token: String,
    /// The org's id, as in `/.well-known/okta-organization`.
    pub org_id: String,
    /// Rate limits.
    pub limits: Limits,
    /// The order of user lists.
    pub page_order: PageOrder,
    /// How long events stay in the log.
    pub log_retention: Duration,
    /// How far lists, `filter` and `search` lag behind a read by id; zero by default.
    pub search_lag: Duration,
    /// The order of the events of a deletion.
    pub delete_order: DeleteOrder,
    /// Service apps that may request access tokens.
    pub apps: Vec<ServiceApp>,
    /// Whether API calls need a DPoP nonce too. Okta announces that they may, one day.
    pub demand_dpop_nonce: bool,
    /// The seed of all ids.
    pub seed: u64,
}

impl Default for OktaOptions {
    fn default() -> Self {
        Self {
            api_token: "00SandboxApiToken-not-a-secret".to_owned(),
            org_id: "00oSandboxOrg0000000".to_owned(),
            limits: Limits::default(),
            page_order: PageOrder::default(),
            log_retention: Duration::from_secs(90 * 24 * 60 * 60),
            search_lag: Duration::ZERO,
            delete_order: DeleteOrder::default(),
            apps: Vec::new(),
            demand_dpop_nonce: false,
            seed: 1,
        }
    }
}

impl fmt::Debug for OktaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token: it may be in use elsewhere.
        f.debug_struct("OktaOptions")
            .field("org_id", &self.org_id)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// A user to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// `profile.login`: unique, ignoring case.
    pub login: String,
    /// `profile.email`.
    pub email: String,
    /// `profile.firstName`.
    pub first: String,
    /// `profile.lastName`.
    pub last: String,
    /// ACTIVE if true, otherwise STAGED.
    pub activate: bool,
}

impl NewUser {
    /// An active user.
    pub fn new(login: &str, email: &str) -> Self {
        Self {
            login: login.to_owned(),
            email: email.to_owned(),
            first: "Test".to_owned(),
            last: "User".to_owned(),
            activate: true,
        }
    }

    /// Sets first and last name.
    pub fn named(self, first: &str, last: &str) -> Self {
        Self { first: first.to_owned(), last: last.to_owned(), ..self }
    }

    /// Makes the user STAGED instead of ACTIVE.
    pub fn staged(self) -> Self {
        Self { activate: false, ..self }
    }

    fn profile(&self) -> Map<String, Value> {
        let text = |text: &str| Value::from(text);
        Map::from_iter([
            ("login".to_owned(), text(&self.login)),
            ("email".to_owned(), text(&self.email)),
            ("firstName".to_owned(), text(&self.first)),
            ("lastName".to_owned(), text(&self.last)),
        ])
    }
}

/// A running org. Clones are handles to the same one.
///
/// Operations on a user that does not exist or has the wrong status panic: a mistake of the calling test or
/// demo.
#[derive(Clone)]
pub struct OktaTenant {
    org: Arc<Mutex<Org>>,
    url: Arc<str>,
    context: TenantContext,
}

impl fmt::Debug for OktaTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the state: it holds tokens.
        f.debug_struct("OktaTenant").field("url", &self.url).finish_non_exhaustive()
    }
}

impl OktaTenant {
    pub(super) fn new(url: String, options: OktaOptions, context: TenantContext) -> Self {
        Self { url: url.as_str().into(), org: Arc::new(Mutex::new(Org::new(url, options))), context }
    }

    pub(super) fn context(&self) -> &TenantContext {
        &self.context
    }

    fn org(&self) -> MutexGuard<'_, Org> {
        super::lock(&self.org)
    }

    /// Its URL, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The token for `Authorization: SSWS …`.
    pub fn api_token(&self) -> String {
        self.org().options.api_token.clone()
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.context.faults
    }

    /// The requests that it received.
    pub fn journal(&self) -> &Journal {
        &self.context.journal
    }

    /// Creates a user and logs the events.
    ///
    /// # Panics
    /// If the login is taken.
    #[expect(clippy::panic, reason = "documented: the caller reuses a login")]
    pub fn create_user(&self, user: &NewUser) -> UserId {
        self.try_create_user(user).unwrap_or_else(|why| panic!("{}: {why}", user.login))
    }

    /// Creates a user that is older than the log.
    ///
    /// # Panics
    /// If the login is taken.
    #[expect(clippy::panic, reason = "documented: the caller reuses a login")]
    pub(super) fn create_preexisting_user(&self, user: &NewUser) -> UserId {
        let added = self.org().add(&*self.context.clock, &user.profile(), user.activate, true);
        let user = added.unwrap_or_else(|_| panic!("{}: the login is taken", user.login));
        UserId::new(&user.id)
    }

    /// Logs another activation of the user.
    pub(super) fn remember_activation(&self, id: impl AsRef<str>) {
        self.operate(id, Org::remember_activation);
    }

    fn try_create_user(&self, user: &NewUser) -> Result<UserId, String> {
        let created = self.org().create(&*self.context.clock, &user.profile(), user.activate, true);
        created.map(|user| UserId::new(&user.id)).map_err(|problem| problem.summary)
    }

    /// Applies an operation to a user.
    #[expect(clippy::panic, reason = "documented at the type: the caller's story does not hold together")]
    fn operate<T>(
        &self,
        id: impl AsRef<str>,
        operation: impl FnOnce(&mut Org, &dyn okta_auth0_sync_clock::Clock, &str) -> Result<T, problem::Problem>,
    ) -> T {
        let id = id.as_ref();
        let done = operation(&mut self.org(), &*self.context.clock, id);
        done.unwrap_or_else(|problem| panic!("{id}: {} {:?}", problem.summary, problem.causes))
    }

    /// Activates a STAGED or DEPROVISIONED user as an administrator does: the event is `activate`.
    pub fn activate(&self, id: impl AsRef<str>) {
        self.operate(id, Org::activate);
    }

    /// Activates a user as an import does: the events are `reactivate` and `activate`.
    pub fn import_activate(&self, id: impl AsRef<str>) {
        self.operate(id, Org::import_activate);
    }

    /// Deactivates a user.
    pub fn deactivate(&self, id: impl AsRef<str>) {
        self.operate(id, Org::deactivate);
    }

    /// Deactivates a user without an event.
    pub fn deactivate_silently(&self, id: impl AsRef<str>) {
        self.set_status(id, "DEPROVISIONED", None);
    }

    /// Suspends an active user.
    pub fn suspend(&self, id: impl AsRef<str>) {
        self.operate(id, Org::suspend);
    }

    /// Unsuspends a suspended user.
    pub fn unsuspend(&self, id: impl AsRef<str>) {
        self.operate(id, Org::unsuspend);
    }

    /// Deactivates a user if necessary and deletes it, with the events in the recorded order: the rename of the login
    /// first. After that, Okta answers 404.
    pub fn delete(&self, id: impl AsRef<str>) {
        let order = self.org().options.delete_order;
        self.operate(id, |org, clock, id| org.delete(clock, id, order));
    }

    /// Changes login and e-mail, and logs `user.account.update_profile`.
    pub fn change_profile(&self, id: impl AsRef<str>, login: &str, email: &str) {
        let profile = json!({ "login": login, "email": email });
        self.merge_profile(id, &profile.as_object().cloned().unwrap_or_default());
    }

    fn merge_profile(&self, id: impl AsRef<str>, profile: &Map<String, Value>) {
        self.operate(id, |org, clock, id| org.update_profile(clock, id, profile, false));
    }

    /// Sets the status and the status that it transitions to, without an event.
    pub fn set_status(&self, id: impl AsRef<str>, status: &str, transitioning_to: Option<&str>) {
        self.operate(id, |org, clock, id| {
            let now = clock.now();
            let changed = org.directory.change(id, clock.monotonic(), |user| {
                user.status = status.into();
                user.transitioning = transitioning_to.map(Into::into);
                user.status_changed = Some(now);
                user.last_updated = now;
            });
            changed.ok_or_else(|| problem::Problem::not_found(id))
        });
    }

    /// Makes Okta answer 404 for this user, as if outside the caller's resource set.
    pub fn hide(&self, id: impl AsRef<str>) {
        self.set_hidden(id, true);
    }

    /// Undoes [`OktaTenant::hide`].
    pub fn show(&self, id: impl AsRef<str>) {
        self.set_hidden(id, false);
    }

    fn set_hidden(&self, id: impl AsRef<str>, hidden: bool) {
        self.operate(id, |org, clock, id| {
            org.directory
                .change(id, clock.monotonic(), |user| user.hidden = hidden)
                .ok_or_else(|| problem::Problem::not_found(id))
        });
    }

    /// The user as the API returns it; `None` if deleted.
    pub fn user(&self, id: impl AsRef<str>) -> Option<Value> {
        let org = self.org();
        let view = View { credentials: true, links: true, listed: false, names_hidden: false };
        org.directory.get(id.as_ref()).map(|user| user.json(&org.url, view))
    }

    /// All users of any status in order of creation.
    pub fn users(&self) -> Vec<Value> {
        let org = self.org();
        let view = View { credentials: true, links: true, listed: true, names_hidden: false };
        org.directory.current().map(|user| user.json(&org.url, view)).collect()
    }

    /// Appends an event to the log verbatim: late if its `published` is in the past, a duplicate if its `uuid` is
    /// known, malformed if it is malformed.
    pub fn push_log_entry(&self, entry: Value) {
        let now = self.context.clock.now();
        let published = entry["published"].as_str().and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or(now);
        let content = Content::Raw(entry.to_string().into());
        self.org().log.append(Entry { persisted_ms: 0, published, content }, now);
    }

    /// Stops persisting events. They still happen and get their `published`.
    pub fn hold_log(&self) {
        self.org().log.hold();
    }

    /// Persists the held events in order of occurrence, or reversed.
    pub fn release_log(&self, reversed: bool) {
        self.org().log.release(reversed, self.context.clock.now());
    }

    /// Limits the pages of a polled log to this many events, although more follow. `None`: pages are as full as the
    /// request's limit allows.
    pub fn set_log_page_max(&self, events: Option<usize>) {
        self.org().log.polled_page_max = events;
    }

    /// Persists the event with this uuid again. Returns whether there is one.
    pub fn repeat_log_entry(&self, uuid: &str) -> bool {
        self.org().log.repeat(uuid, self.context.clock.now())
    }

    /// The whole log in order of persistence.
    pub fn log_entries(&self) -> Vec<Value> {
        let org = self.org();
        org.log.entries().iter().map(|entry| serde_json::from_str(&entry.json()).unwrap_or(Value::Null)).collect()
    }

    /// Revokes the API token and every access token.
    pub fn revoke_token(&self) {
        let mut org = self.org();
        org.token_revoked = true;
        org.authority.revoke_tokens();
    }

    /// Makes the API token valid again.
    pub fn restore_token(&self) {
        self.org().token_revoked = false;
    }

    /// Sets the permissions of the caller's admin role. Without them, Okta answers 403.
    pub fn set_role(&self, logs: bool, users: bool) {
        let mut org = self.org();
        org.may_read_log = logs;
        org.may_read_users = users;
    }

    /// Sets whether a condition of the caller's admin role hides `login` and `email` of every user (help.okta.com,
    /// "Permission conditions").
    pub fn hide_names(&self, hidden: bool) {
        self.org().names_hidden = hidden;
    }

    /// Registers a service app, replacing one of the same `client_id`.
    pub fn register_app(&self, app: ServiceApp) {
        let mut org = self.org();
        org.authority.apps.retain(|other| other.client_id != app.client_id);
        org.authority.apps.push(app);
    }

    /// Changes the rate limits and starts new windows.
    pub fn set_limits(&self, limits: Limits) {
        let mut org = self.org();
        org.windows.limits = limits;
        org.windows.clear();
    }
}

impl Tenant for OktaTenant {
    fn answer(&self, request: &Inbound) -> Reply {
        self.org().answer(request, &*self.context.clock)
    }

    fn control(&self, path: &[&str], request: &Inbound) -> Option<Reply> {
        control::answer(self, path, request)
    }

    fn control_source(&self) -> &'static str {
        include_str!("control.rs")
    }

    fn rate_limited(&self, kind: RateLimited) -> Reply {
        self.org().rate_limited(kind, &*self.context.clock)
    }
}
