//! The state of the tenant: the Management API and logins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::faults::RateLimited;
use crate::identifiers::Identifiers;
use crate::message::{Inbound, Reply};
use okta_auth0_sync_clock::{Clock, timestamp_text};

use super::accounts::{Accounts, user_id};
use super::actions::{ACTION_NAME, Actions};
use super::events::{EventLog, Subscription};
use super::limits::{Level, Standing};
use super::login::{self, Login, LoginKind};
use super::problem::Problem;
use super::search::Query;
use super::selection::Selection;
use super::token::{Tokens, needed};
use super::{Auth0Options, Connection, patch};

const PER_PAGE_DEFAULT: usize = 50;
const PER_PAGE_MAX: usize = 100;
/// The most users that a search returns.
const FOUND_MAX: usize = 1000;

/// The sessions and refresh tokens of a user.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) sessions: Vec<Value>,
    pub(super) refresh_tokens: Vec<Value>,
}

/// The state of the tenant. All of it is under one lock, so a request sees a consistent state.
pub(super) struct Tenancy {
    pub(super) url: String,
    pub(super) options: Auth0Options,
    pub(super) ids: Identifiers,
    pub(super) accounts: Accounts,
    pub(super) tokens: Tokens,
    pub(super) actions: Actions,
    pub(super) open: HashMap<String, Open>,
    pub(super) level: Level,
    pub(super) events: EventLog,
    /// A stream that the request under way opens, and how long its token is valid.
    pub(super) opening: Option<(Subscription, Duration)>,
}

impl Tenancy {
    pub(super) fn new(url: String, options: Auth0Options, action_code: &str, clock: &dyn Clock) -> Self {
        let mut ids = Identifiers::new(options.seed);
        let mut actions = Actions::default();
        actions.install(ACTION_NAME, action_code, &mut ids, clock.now());
        if options.action_bound {
            actions.place(ACTION_NAME, Some(0), &mut ids, clock.now());
        }
        Self {
            url,
            ids,
            accounts: Accounts::new(options.search_lag),
            tokens: Tokens::default(),
            actions,
            open: HashMap::new(),
            level: Level::full(options.bucket, clock.monotonic()),
            events: EventLog::new(options.events, options.seed),
            opening: None,
            options,
        }
    }

    /// Handles a request of the Authentication or the Management API, headers included.
    pub(super) fn answer(&mut self, request: &Inbound, clock: &dyn Clock) -> Reply {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (request.method.as_str(), segments.as_slice()) {
            ("POST", ["oauth", "token"]) => {
                let url = self.url.clone();
                self.tokens.issue(request, &url, &self.options, &mut self.ids, clock)
            }
            (_, ["api", "v2", path @ ..]) => {
                let standing = self.level.take(clock);
                let answer = if standing.exceeded {
                    Problem::rate_limited().answer()
                } else {
                    self.manage(path, request, clock).unwrap_or_else(|problem| problem.answer())
                };
                dressed(answer, &mut self.ids, standing)
            }
            _ => Problem::not_found("Not Found").answer(),
        }
    }

    /// A 429 that a fault asked for.
    pub(super) fn rate_limited(&mut self, kind: RateLimited, clock: &dyn Clock) -> Reply {
        let answer = Problem::rate_limited().answer();
        let now = clock.now().as_second();
        let standing = |reset| Standing { limit: self.options.bucket.burst, remaining: 0, reset, exceeded: true };
        match kind {
            // Auth0 has no separate response for concurrency.
            RateLimited::Plain | RateLimited::Concurrency => dressed(answer, &mut self.ids, standing(now + 1)),
            RateLimited::ResetInThePast => dressed(answer, &mut self.ids, standing(now - 60)),
            RateLimited::RetryAfter(span) => {
                dressed(answer, &mut self.ids, standing(now + 1)).with("retry-after", span.as_secs().to_string())
            }
            RateLimited::WithoutHeaders => answer,
        }
    }

    fn manage(&mut self, path: &[&str], request: &Inbound, clock: &dyn Clock) -> Result<Reply, Problem> {
        let method = request.method.as_str();
        let body = request.json();
        let scopes = self.tokens.scopes(request, &self.options.audience_at(&self.url), clock)?;
        let needed = needed(method, path, body.as_ref()).ok_or_else(|| Problem::not_found("Not Found"))?;
        if !needed.iter().any(|scope| scopes.iter().any(|have| have == scope)) {
            return Err(Problem::insufficient_scope(needed));
        }
        let body = body.ok_or_else(|| Problem::new(400, "invalid_body", "Invalid request payload JSON format"))?;
        Ok(match (method, path) {
            ("GET", ["users-by-email"]) => self.by_email(request)?,
            ("GET", ["users"]) => self.search(request, clock)?,
            ("GET", ["users", id]) => {
                let user = self.accounts.get(id).ok_or_else(Problem::no_such_user)?;
                Reply::json(200, &Selection::of(request)?.apply(user))
            }
            ("POST", ["users"]) => self.post(&body, clock)?,
            ("PATCH", ["users", id]) => self.patch(id, &body, clock)?,
            ("DELETE", ["users", id]) => {
                self.delete(id, clock);
                Reply::empty(204)
            }
            ("POST", ["users", id, "identities"]) => {
                let secondary = match (body["provider"].as_str(), body["user_id"].as_str()) {
                    (_, Some(full)) if full.contains('|') => full.to_owned(),
                    (Some(provider), Some(bare)) => format!("{provider}|{bare}"),
                    _ => return Err(Problem::invalid_body("'Missing required property: user_id'.")),
                };
                Reply::json(201, &self.link(id, &secondary, clock)?)
            }
            (_, ["users", id, what @ ("sessions" | "refresh-tokens" | "revoke-access")]) => {
                self.open_things(method, id, what, &body)?
            }
            ("GET", ["events"]) => self.open_events(request, clock),
            ("GET", ["client-grants"]) => self.client_grants(request),
            (_, ["actions", rest @ ..]) => self.actions.answer(rest, request, &body, &mut self.ids, clock.now())?,
            _ => return Err(Problem::not_found("Not Found")),
        })
    }

    fn by_email(&self, request: &Inbound) -> Result<Reply, Problem> {
        let missing = || Problem::invalid_query("'Missing required property: email'.");
        let email = request.param("email").filter(|email| !email.is_empty()).ok_or_else(missing)?;
        let selection = Selection::of(request)?;
        let found: Vec<Value> = self.accounts.with_email(&email).map(|user| selection.apply(user)).collect();
        Ok(Reply::json(200, &Value::Array(found)))
    }

    fn search(&self, request: &Inbound, clock: &dyn Clock) -> Result<Reply, Problem> {
        let number = |name: &str, default: usize| match request.param(name) {
            None => Ok(default),
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| Problem::invalid_query(format!("'Expected type integer' on property {name}."))),
        };
        let (page, per_page) = (number("page", 0)?, number("per_page", PER_PAGE_DEFAULT)?);
        if per_page > PER_PAGE_MAX {
            let why = format!("'Value {per_page} is greater than maximum {PER_PAGE_MAX}' on property per_page.");
            return Err(Problem::invalid_query(why));
        }
        if request.param("search_engine").is_some_and(|engine| engine != "v3") {
            return Err(Problem::invalid_query("'No enum match' on property search_engine."));
        }
        let start = page.saturating_mul(per_page);
        if start.saturating_add(per_page) > FOUND_MAX {
            let why = "You can only page through the first 1000 records. See \
                       https://auth0.com/docs/users/search/v3/view-search-results-by-page#limitation";
            return Err(Problem::new(400, "invalid_paging", why));
        }
        let query = Query::parse(&request.param("q").unwrap_or_default())
            .map_err(|why| Problem::new(400, "invalid_query_string", format!("Failed to parse query: {why}")))?;
        let selection = Selection::of(request)?;
        let mut found = self.accounts.search(&query, clock.monotonic());
        if let Some(sort) = request.param("sort") {
            let (field, order) = sort.split_once(':').unwrap_or((&sort, "1"));
            found.sort_by_key(|user| user[field].to_string());
            if order == "-1" {
                found.reverse();
            }
        }
        let total = found.len();
        let users: Vec<Value> =
            found.into_iter().skip(start).take(per_page).map(|user| selection.apply(user)).collect();
        Ok(if request.param("include_totals").as_deref() == Some("true") {
            let length = users.len();
            Reply::json(
                200,
                &json!({ "start": start, "limit": per_page, "length": length, "total": total, "users": users }),
            )
        } else {
            Reply::json(200, &Value::Array(users))
        })
    }

    fn connection(&self, name: &str) -> Option<&Connection> {
        self.options.connections.iter().find(|connection| connection.name == name)
    }

    fn post(&mut self, body: &Value, clock: &dyn Clock) -> Result<Reply, Problem> {
        let name = body["connection"].as_str();
        let name = name.ok_or_else(|| Problem::invalid_body("'Missing required property: connection'."))?;
        let connection = self
            .connection(name)
            .ok_or_else(|| Problem::new(400, "inexistent_connection", "The connection does not exist."))?;
        if connection.is_database() {
            let email = body["email"].as_str().unwrap_or_default().to_lowercase();
            let taken = self.accounts.with_email(&email).any(|user| user["identities"][0]["connection"] == name);
            if email.is_empty() {
                return Err(Problem::invalid_body("'Missing required property: email'."));
            }
            if taken {
                return Err(Problem::new(409, "auth0_idp_error", "The user already exists."));
            }
        }
        let mut writable = body.as_object().cloned().unwrap_or_default();
        let id = writable.remove("user_id");
        patch::check(&writable)?;
        writable.insert("user_id".to_owned(), id.unwrap_or(Value::Null));
        let id = self.create(&Value::Object(writable), clock)?;
        let user = self.accounts.get(&id).ok_or_else(Problem::no_such_user)?;
        Ok(Reply::json(201, user))
    }

    /// Creates a user. Any root attribute may be given; `connection` determines the identity.
    pub(super) fn create(&mut self, fields: &Value, clock: &dyn Clock) -> Result<String, Problem> {
        let first = &self.options.connections.first().map_or("Users".to_owned(), |first| first.name.clone());
        let connection_name = fields["connection"].as_str().unwrap_or(first).to_owned();
        let connection =
            self.connection(&connection_name).cloned().unwrap_or_else(|| Connection::database(&connection_name));
        let given = fields["user_id"].as_str().map(str::to_owned);
        let id = match given {
            Some(full) if full.contains('|') => full,
            Some(bare) => format!("{}|{bare}", connection.strategy),
            None => format!("{}|{}", connection.strategy, self.ids.hex(24)),
        };
        if self.accounts.get(&id).is_some() {
            return Err(Problem::new(409, "auth0_idp_error", "The user already exists."));
        }
        let now = timestamp_text(clock.now());
        let email = fields["email"].as_str().map(|email| {
            // "If Auth0 is the identity provider, the email … is saved in lower case"; otherwise it is unchanged.
            if connection.is_database() { email.to_lowercase() } else { email.to_owned() }
        });
        let nickname = email.as_deref().and_then(|email| email.split('@').next()).unwrap_or_default();
        let mut user = Map::from_iter([
            ("user_id".to_owned(), json!(id)),
            ("created_at".to_owned(), json!(now)),
            ("updated_at".to_owned(), json!(now)),
            ("email_verified".to_owned(), json!(false)),
            ("name".to_owned(), json!(email)),
            ("nickname".to_owned(), json!(nickname)),
            (
                "identities".to_owned(),
                json!([{
                    "connection": connection.name,
                    "provider": connection.strategy,
                    "user_id": id.split_once('|').map_or("", |(_, own)| own),
                    "isSocial": connection.strategy == "google-oauth2",
                }]),
            ),
        ]);
        for (name, value) in fields.as_object().into_iter().flatten() {
            if !["connection", "password", "verify_email", "user_id", "email"].contains(&name.as_str()) {
                user.insert(name.clone(), value.clone());
            }
        }
        if let Some(email) = email {
            user.insert("email".to_owned(), json!(email));
        }
        self.accounts.insert(Value::Object(user), clock.monotonic());
        if let Some(user) = self.accounts.get(&id).cloned() {
            self.events.record("user.created", user, None, clock);
        }
        Ok(id)
    }

    fn patch(&mut self, id: &str, body: &Value, clock: &dyn Clock) -> Result<Reply, Problem> {
        let body = body.as_object().ok_or_else(|| Problem::invalid_body("'Expected type object'."))?;
        if body.is_empty() {
            return Err(Problem::invalid_body("'Too few properties defined (0), minimum 1'."));
        }
        patch::check(body)?;
        let user = self.accounts.get(id).ok_or_else(Problem::no_such_user)?;
        let connection = user["identities"][0]["connection"].as_str().and_then(|name| self.connection(name));
        if let Some(connection) = connection {
            let refused: Vec<&str> =
                connection.refuses.iter().map(String::as_str).filter(|name| body.contains_key(*name)).collect();
            if !refused.is_empty() {
                let why = format!(
                    "The following user attributes cannot be updated: {}. The connection ({}) must either be a \
                     database connection (using the Auth0 store), a passwordless connection (email or sms) or has \
                     disabled 'Sync user profile attributes at each login'.",
                    refused.join(", "),
                    connection.name
                );
                return Err(Problem::new(400, None, why));
            }
        }
        let mut after = user.as_object().cloned().unwrap_or_default();
        let mut body = body.clone();
        if connection.is_some_and(Connection::is_database)
            && let Some(Value::String(email)) = body.get_mut("email")
        {
            *email = email.to_lowercase();
        }
        patch::merge(&mut after, &body);
        if let Some(limit) = self.options.profile_limit
            && metadata_bytes(&after) > user.as_object().map_or(0, metadata_bytes)
            && Value::Object(after.clone()).to_string().len() > limit.bytes
        {
            return Err(Problem::new(limit.status, None, "The user profile exceeds the maximum size."));
        }
        after.insert("updated_at".to_owned(), json!(timestamp_text(clock.now())));
        let user = self.change(id, clock, |fields| *fields = after);
        Ok(Reply::json(200, &*user.ok_or_else(Problem::no_such_user)?))
    }

    /// Deletes a user. The API answers 204 whether or not the user existed.
    pub(super) fn delete(&mut self, id: &str, clock: &dyn Clock) -> bool {
        self.open.remove(id);
        let Some(gone) = self.accounts.remove(id, clock.monotonic()) else { return false };
        self.events.record("user.deleted", gone, None, clock);
        true
    }

    /// Links `secondary` into `primary`: its profile vanishes, its metadata and block with it. Auth0 docs: "User account
    /// linking".
    pub(super) fn link(&mut self, primary: &str, secondary: &str, clock: &dyn Clock) -> Result<Value, Problem> {
        if self.accounts.get(primary).is_none() || self.accounts.get(secondary).is_none() || primary == secondary {
            return Err(Problem::no_such_user());
        }
        let gone = self.accounts.remove(secondary, clock.monotonic()).ok_or_else(Problem::no_such_user)?;
        self.open.remove(secondary);
        let mut identities = gone["identities"].as_array().cloned().unwrap_or_default();
        if let Some(first) = identities.first_mut() {
            first["profileData"] = json!({
                "email": gone["email"], "email_verified": gone["email_verified"], "name": gone["name"],
            });
        }
        let user = self.change(primary, clock, |fields| {
            if let Some(Value::Array(own)) = fields.get_mut("identities") {
                own.extend(identities);
            }
            fields.insert("updated_at".to_owned(), json!(timestamp_text(clock.now())));
        });
        Ok(user.ok_or_else(Problem::no_such_user)?["identities"].clone())
    }

    fn open_things(&mut self, method: &str, id: &str, what: &str, body: &Value) -> Result<Reply, Problem> {
        if !self.options.has_session_api {
            return Err(Problem::insufficient_entitlement());
        }
        if self.accounts.get(id).is_none() {
            return Err(Problem::no_such_user());
        }
        let open = self.open.entry(id.to_owned()).or_default();
        Ok(match (method, what) {
            ("GET", "sessions") => Reply::json(200, &json!({ "sessions": open.sessions })),
            ("GET", _) => Reply::json(200, &json!({ "tokens": open.refresh_tokens })),
            (_, "sessions") => {
                open.sessions.clear();
                Reply::json(202, &json!({}))
            }
            (_, "refresh-tokens") => {
                open.refresh_tokens.clear();
                Reply::json(202, &json!({}))
            }
            _ => {
                open.sessions.clear();
                if body["preserve_refresh_tokens"] != json!(true) {
                    open.refresh_tokens.clear();
                }
                Reply::json(202, &json!({}))
            }
        })
    }

    fn open_events(&mut self, request: &Inbound, clock: &dyn Clock) -> Reply {
        match self.events.subscribe(request, clock) {
            Ok(subscription) => {
                self.opening = Some((subscription, self.tokens.time_left(request, clock)));
                Reply::text(200, "text/event-stream", "")
            }
            Err(refused) => refused,
        }
    }

    /// Changes an account, and records the change.
    pub(super) fn change(
        &mut self,
        id: &str,
        clock: &dyn Clock,
        change: impl FnOnce(&mut Map<String, Value>),
    ) -> Option<Arc<Value>> {
        let before = self.accounts.get(id).cloned();
        let after = self.accounts.change(id, clock.monotonic(), change)?;
        self.events.record("user.updated", after.clone(), before, clock);
        Some(after)
    }

    fn client_grants(&self, request: &Inbound) -> Reply {
        let audience = self.options.audience_at(&self.url);
        let scope: Vec<&str> = self.options.granted_scope.split_whitespace().collect();
        let fits = |name: &str, value: &str| request.param(name).is_none_or(|wanted| wanted == value);
        let grants: Vec<Value> = Some(json!({
            "id": "cgr_sandbox000000000", "client_id": self.options.client_id, "audience": audience, "scope": scope,
            "subject_type": "client",
        }))
        .filter(|_| fits("client_id", &self.options.client_id) && fits("audience", &audience))
        .into_iter()
        .collect();
        Reply::json(200, &Value::Array(grants))
    }

    /// A login of this user. The session is created before the Actions run, so a denied user has one too.
    pub(super) fn login(&mut self, id: &str, kind: LoginKind, clock: &dyn Clock) -> Login {
        let now = timestamp_text(clock.now());
        let count = |user: &mut Map<String, Value>| {
            let logins = user.get("logins_count").and_then(Value::as_u64).unwrap_or(0) + 1;
            user.insert("logins_count".to_owned(), json!(logins));
            user.insert("last_login".to_owned(), json!(now));
        };
        let user = if self.events.login_updates() {
            self.change(id, clock, count)
        } else {
            self.accounts.change(id, clock.monotonic(), count)
        };
        let Some(user) = user else {
            return Login::denied("Wrong email or password.");
        };
        if user["blocked"] == json!(true) {
            self.open.remove(id);
            return Login::denied("user is blocked");
        }
        let interactive = kind == LoginKind::Interactive;
        if interactive {
            let session = json!({ "id": self.ids.base62(32), "user_id": id, "created_at": now, "updated_at": now });
            self.open.entry(id.to_owned()).or_default().sessions.push(session);
        }
        let login = self.run_actions(&user, kind, clock);
        if interactive && login.is_granted() {
            let token = json!({
                "id": self.ids.base62(18), "user_id": id, "client_id": self.options.client_id, "created_at": now,
                "rotating": false,
            });
            self.open.entry(id.to_owned()).or_default().refresh_tokens.push(token);
        }
        login
    }

    fn run_actions(&mut self, user: &Arc<Value>, kind: LoginKind, clock: &dyn Clock) -> Login {
        let id = user_id(user);
        for code in self.actions.flow() {
            let current = self.accounts.get(id).cloned().unwrap_or_else(|| user.clone());
            let spoken = match login::run_action(&code, &login::event(&current, &self.options.client_id, kind)) {
                Ok(spoken) => spoken,
                // An Action that throws denies everyone.
                Err(threw) => return Login::denied(threw),
            };
            let changes = json!({ "app_metadata": spoken.app_metadata, "user_metadata": spoken.user_metadata });
            let changes: Map<String, Value> = changes
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, metadata)| metadata.as_object().is_some_and(|metadata| !metadata.is_empty()))
                .map(|(name, metadata)| (name.clone(), metadata.clone()))
                .collect();
            if !changes.is_empty() {
                self.change(id, clock, |user| patch::merge(user, &changes));
            }
            if let Some(reason) = spoken.denied {
                return Login::denied(reason);
            }
        }
        Login::Granted
    }
}

/// The size of a user's metadata. Only a write that adds to it can exceed the limit of profiles.
fn metadata_bytes(user: &Map<String, Value>) -> usize {
    let filled = ["user_metadata", "app_metadata"].into_iter().filter_map(|name| user.get(name)?.as_object());
    filled.filter(|metadata| !metadata.is_empty()).map(|metadata| json!(metadata).to_string().len()).sum()
}

/// Adds the headers that every recorded response of the Management API has.
fn dressed(answer: Reply, ids: &mut Identifiers, standing: Standing) -> Reply {
    let exchange = ids.hex(16);
    answer
        .with("cf-ray", format!("{exchange}-FRA"))
        .with("ot-baggage-auth0-request-id", exchange)
        .with("x-ratelimit-limit", standing.limit.to_string())
        .with("x-ratelimit-remaining", standing.remaining.to_string())
        .with("x-ratelimit-reset", standing.reset.to_string())
        .with("cache-control", "private, no-store, no-cache, must-revalidate, post-check=0, pre-check=0")
}
