//! The stand-in of an Auth0 tenant: users and their metadata, tokens, searches, Actions, logins, rate limits.

mod accounts;
mod actions;
mod control;
mod events;
mod limits;
mod login;
mod management;
mod patch;
mod problem;
mod search;
mod selection;
mod token;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Map, Value};

use super::faults::{Faults, RateLimited};
use super::journal::Journal;
use super::message::{Inbound, Reply};
use super::tenant::{Tenant, TenantContext};

use actions::ACTION_NAME;
use management::Tenancy;

pub use events::{EventOptions, EventStream};
pub use limits::Bucket;
pub use login::{ActionEffects, Login, LoginKind, run_action};

/// A source of users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its name, as in `identities[].connection`.
    pub name: String,
    /// Its strategy: `auth0` (an Auth0 database), `google-oauth2`, `samlp`, `okta`, …
    pub strategy: String,
    /// A PATCH that names one of these properties is refused, e.g. `family_name` where profiles are synchronized at
    /// each login.
    pub refuses: Vec<String>,
}

impl Connection {
    /// An Auth0 database: it stores addresses in lower case.
    pub fn database(name: &str) -> Self {
        Self::new(name, "auth0")
    }

    /// A connection of any strategy.
    pub fn new(name: &str, strategy: &str) -> Self {
        Self { name: name.to_owned(), strategy: strategy.to_owned(), refuses: Vec::new() }
    }

    /// Makes PATCH requests with these properties fail.
    pub fn refusing(self, properties: &[&str]) -> Self {
        Self { refuses: properties.iter().map(|&name| name.to_owned()).collect(), ..self }
    }

    fn is_database(&self) -> bool {
        self.strategy == "auth0"
    }
}

/// The largest profile that metadata can be added to. Auth0 documents a limit of 10 KB for metadata writes ("Metadata field
/// names and data types"), and nothing about writes that add none: those pass here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileLimit {
    /// The size of the profile as JSON.
    pub bytes: usize,
    /// The status of the error: 400 or 413.
    pub status: u16,
}

/// The options of a tenant.
#[derive(Clone)]
pub struct Auth0Options {
    /// The application's credential.
    pub client_id: String,
    /// The application's credential.
    pub client_secret: String,
    /// The application's public keys (JWK), for `private_key_jwt`.
    pub keys: Vec<Value>,
    /// The Management API's identifier; by default `…/api/v2/` at the tenant's URL.
    pub audience: Option<String>,
    /// Other APIs for which tokens are issued.
    pub other_audiences: Vec<String>,
    /// The scopes that the application was granted, separated by spaces. Empty: it has no grant.
    pub granted_scope: String,
    /// How long a token is valid; 24 h by default.
    pub token_lifetime: Duration,
    /// The rate limit of the Management API.
    pub bucket: Bucket,
    /// How far searches lag behind reads by id; one second by default.
    pub search_lag: Duration,
    /// The connections; the first is the default.
    pub connections: Vec<Connection>,
    /// The limit of profile sizes. None by default.
    pub profile_limit: Option<ProfileLimit>,
    /// Whether the plan has the endpoints for sessions and refresh tokens (Enterprise).
    pub has_session_api: bool,
    /// The event stream.
    pub events: EventOptions,
    /// Whether the Action is bound at the start.
    pub action_bound: bool,
    /// The seed of all ids.
    pub seed: u64,
}

/// Every scope that okta-auth0-sync can use.
const GRANTED_SCOPE: &str = "read:users create:users update:users update:users_app_metadata delete:users read:sessions \
                             delete:sessions read:refresh_tokens delete:refresh_tokens read:actions create:actions \
                             update:actions delete:actions read:client_grants read:events";

impl Default for Auth0Options {
    fn default() -> Self {
        Self {
            client_id: "sandbox-client".to_owned(),
            client_secret: "sandbox-client-secret-not-a-secret".to_owned(),
            keys: Vec::new(),
            audience: None,
            other_audiences: Vec::new(),
            granted_scope: GRANTED_SCOPE.to_owned(),
            token_lifetime: Duration::from_secs(86_400),
            bucket: Bucket::default(),
            search_lag: Duration::from_secs(1),
            connections: vec![
                Connection::database("Username-Password-Authentication"),
                Connection::new("google-oauth2", "google-oauth2"),
                Connection::new("acme-saml", "samlp").refusing(&[
                    "given_name",
                    "family_name",
                    "name",
                    "nickname",
                    "picture",
                ]),
                Connection::new("acme-okta", "okta").refusing(&[
                    "given_name",
                    "family_name",
                    "name",
                    "nickname",
                    "picture",
                ]),
            ],
            profile_limit: None,
            has_session_api: true,
            events: EventOptions::default(),
            action_bound: true,
            seed: 2,
        }
    }
}

impl Auth0Options {
    fn audience_at(&self, url: &str) -> String {
        self.audience.clone().unwrap_or_else(|| format!("{url}/api/v2/"))
    }
}

impl fmt::Debug for Auth0Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the secret: it may be in use elsewhere.
        f.debug_struct("Auth0Options")
            .field("client_id", &self.client_id)
            .field("bucket", &self.bucket)
            .field("search_lag", &self.search_lag)
            .finish_non_exhaustive()
    }
}

/// A running tenant. Clones are handles to the same one.
#[derive(Clone)]
pub struct Auth0Tenant {
    tenancy: Arc<Mutex<Tenancy>>,
    url: Arc<str>,
    context: TenantContext,
}

impl fmt::Debug for Auth0Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the state: it holds tokens.
        f.debug_struct("Auth0Tenant").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Auth0Tenant {
    pub(super) fn new(url: String, options: Auth0Options, action_code: &str, context: TenantContext) -> Self {
        let tenancy = Tenancy::new(url.clone(), options, action_code, &*context.clock);
        Self { tenancy: Arc::new(Mutex::new(tenancy)), url: url.into(), context }
    }

    pub(super) fn context(&self) -> &TenantContext {
        &self.context
    }

    fn tenancy(&self) -> MutexGuard<'_, Tenancy> {
        super::lock(&self.tenancy)
    }

    /// Its URL, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The Management API's identifier.
    pub fn audience(&self) -> String {
        self.tenancy().options.audience_at(&self.url)
    }

    /// The application's id.
    pub fn client_id(&self) -> String {
        self.tenancy().options.client_id.clone()
    }

    /// The application's secret.
    pub fn client_secret(&self) -> String {
        self.tenancy().options.client_secret.clone()
    }

    /// Its faults.
    pub fn faults(&self) -> &Faults {
        &self.context.faults
    }

    /// The requests that it received.
    pub fn journal(&self) -> &Journal {
        &self.context.journal
    }

    /// Creates a user and returns the `user_id`.
    ///
    /// `fields` may hold any root attribute (`email`, `email_verified`, `app_metadata`, `user_metadata`, `blocked`, …),
    /// a `user_id`, and the name of the `connection`. A database connection turns the address into lower case.
    ///
    /// # Panics
    /// If the `user_id` is taken: a mistake of the calling test or demo.
    #[expect(clippy::panic, reason = "documented: the caller's story does not hold together")]
    #[expect(clippy::needless_pass_by_value, reason = "called with json!({…})")]
    pub fn create_user(&self, fields: Value) -> String {
        self.try_create_user(&fields).unwrap_or_else(|why| panic!("{fields}: {}", String::from_utf8_lossy(&why.body)))
    }

    fn try_create_user(&self, fields: &Value) -> Result<String, Reply> {
        self.tenancy().create(fields, &*self.context.clock).map_err(|problem| problem.answer())
    }

    /// The user as the API returns it.
    pub fn user(&self, id: &str) -> Option<Value> {
        self.tenancy().accounts.get(id).map(|user| (**user).clone())
    }

    /// All users in order of creation.
    pub fn users(&self) -> Vec<Value> {
        self.tenancy().accounts.current().map(|user| (**user).clone()).collect()
    }

    /// Edits a user, as another administrator would. Returns whether the user exists. `user_id` cannot be changed.
    pub fn set_user(&self, id: &str, edit: impl FnOnce(&mut Value)) -> bool {
        let changed = self.tenancy().change(id, &*self.context.clock, |fields| {
            let mut user = Value::Object(std::mem::take(fields));
            edit(&mut user);
            *fields = match user {
                Value::Object(fields) => fields,
                _ => Map::new(),
            };
        });
        changed.is_some()
    }

    /// Deletes a user. Returns whether the user existed.
    pub fn delete_user(&self, id: &str) -> bool {
        self.tenancy().delete(id, &*self.context.clock)
    }

    /// Links `secondary` into `primary`. Returns whether both existed.
    pub fn link(&self, primary: &str, secondary: &str) -> bool {
        self.try_link(primary, secondary).is_ok()
    }

    fn try_link(&self, primary: &str, secondary: &str) -> Result<Value, Reply> {
        self.tenancy().link(primary, secondary, &*self.context.clock).map_err(|problem| problem.answer())
    }

    /// Logs the user in with the login page, and runs the Actions of the flow.
    pub fn login(&self, user_id: &str) -> Login {
        self.login_by(user_id, LoginKind::Interactive)
    }

    /// Requests tokens for the user in this way, and runs the Actions of the flow.
    pub fn login_by(&self, user_id: &str, kind: LoginKind) -> Login {
        self.tenancy().login(user_id, kind, &*self.context.clock)
    }

    /// The numbers of sessions and refresh tokens of the user.
    pub fn open_sessions(&self, user_id: &str) -> (usize, usize) {
        let tenancy = self.tenancy();
        tenancy.open.get(user_id).map_or((0, 0), |open| (open.sessions.len(), open.refresh_tokens.len()))
    }

    /// The event stream.
    pub fn events(&self) -> EventStream<'_> {
        EventStream(self)
    }

    /// The post-login flow.
    pub fn action(&self) -> Flow<'_> {
        Flow(self)
    }

    /// Revokes every access token, as a rotation of the signing key does.
    pub fn revoke_tokens(&self) {
        self.tenancy().tokens.revoke();
    }

    /// Changes the granted scopes, also of existing tokens.
    pub fn set_granted_scope(&self, scope: &str) {
        let mut tenancy = self.tenancy();
        scope.clone_into(&mut tenancy.options.granted_scope);
        tenancy.tokens.narrow(scope);
    }

    /// Changes the client secret. Issued tokens stay valid.
    pub fn set_client_secret(&self, secret: &str) {
        secret.clone_into(&mut self.tenancy().options.client_secret);
    }

    /// Sets whether the plan has the endpoints for sessions and refresh tokens.
    pub fn set_has_session_api(&self, has: bool) {
        self.tenancy().options.has_session_api = has;
    }

    /// Changes the rate limit, and fills the bucket.
    pub fn set_bucket(&self, bucket: Bucket) {
        let now = self.context.clock.monotonic();
        let mut tenancy = self.tenancy();
        tenancy.options.bucket = bucket;
        tenancy.level = limits::Level::full(bucket, now);
    }
}

/// The post-login flow, and the Action in it.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a>(&'a Auth0Tenant);

impl Flow<'_> {
    /// Binds the Action as the first of the flow, or unbinds it.
    pub fn set_bound(self, bound: bool) {
        self.place(ACTION_NAME, bound.then_some(0));
    }

    /// Deploys other code in the Action, bound or not.
    pub fn set_code(self, code: &str) {
        self.install(ACTION_NAME, code);
    }

    /// Creates or replaces an Action of this name and deploys it, without binding it.
    pub fn install(self, name: &str, code: &str) {
        let now = self.0.context.clock.now();
        let tenancy = &mut *self.0.tenancy();
        tenancy.actions.install(name, code, &mut tenancy.ids, now);
    }

    /// Binds an Action at this position of the flow, or unbinds it.
    pub fn place(self, name: &str, at: Option<usize>) {
        let now = self.0.context.clock.now();
        let tenancy = &mut *self.0.tenancy();
        tenancy.actions.place(name, at, &mut tenancy.ids, now);
    }

    /// Deletes an Action, bound or not. Returns whether it existed.
    pub fn remove(self, name: &str) -> bool {
        self.0.tenancy().actions.remove(name)
    }

    /// The names of the Actions in the flow, in order.
    pub fn flow(self) -> Vec<String> {
        self.0.tenancy().actions.flow_names()
    }
}

impl Tenant for Auth0Tenant {
    fn answer(&self, request: &Inbound) -> Reply {
        let (mut answer, opening) = {
            let mut tenancy = self.tenancy();
            let answer = tenancy.answer(request, &*self.context.clock);
            (answer, tenancy.opening.take())
        };
        answer.feed = opening.map(|(subscription, token_left)| subscription.start(self.clone(), token_left));
        answer
    }

    fn control(&self, path: &[&str], request: &Inbound) -> Option<Reply> {
        control::answer(self, path, request)
    }

    fn control_source(&self) -> &'static str {
        include_str!("control.rs")
    }

    fn rate_limited(&self, kind: RateLimited) -> Reply {
        self.tenancy().rate_limited(kind, &*self.context.clock)
    }
}
