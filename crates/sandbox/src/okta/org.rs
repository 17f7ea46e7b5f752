//! The state of the org: authorization, endpoints and responses.

use serde_json::{Map, Value, json};

use crate::expression::Expression;
use crate::faults::RateLimited;
use crate::identifiers::Identifiers;
use crate::message::{Inbound, Reply};
use okta_auth0_sync_clock::{self as clock, Clock};

use super::directory::{Directory, View};
use super::limits::{Bucket, Standing, Windows};
use super::listing;
use super::log::{PAGE_MAX, Query, SystemLog};
use super::oauth::{Authority, Refused};
use super::problem::Problem;
use super::{OktaOptions, PageOrder};

/// The state of the org. All of it is under one lock, so a request sees a consistent state.
pub(super) struct Org {
    pub(super) url: String,
    pub(super) options: OktaOptions,
    pub(super) ids: Identifiers,
    pub(super) directory: Directory,
    pub(super) log: SystemLog,
    pub(super) windows: Windows,
    pub(super) authority: Authority,
    pub(super) token_revoked: bool,
    pub(super) may_read_log: bool,
    pub(super) may_read_users: bool,
    pub(super) names_hidden: bool,
}

impl Org {
    pub(super) fn new(url: String, options: OktaOptions) -> Self {
        Self {
            url,
            ids: Identifiers::new(options.seed),
            directory: Directory::new(options.search_lag),
            log: SystemLog::default(),
            windows: Windows::new(options.limits),
            authority: Authority::new(options.apps.clone(), options.demand_dpop_nonce),
            token_revoked: false,
            may_read_log: true,
            may_read_users: true,
            names_hidden: false,
            options,
        }
    }

    /// Handles a request of the API, headers included.
    pub(super) fn answer(&mut self, request: &Inbound, clock: &dyn Clock) -> Reply {
        let segments = request.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let standing = self.windows.count(Bucket::of(request.method.as_str(), &segments), clock);
        let answer = if standing.exceeded {
            Problem::rate_limited().answer(&mut self.ids)
        } else {
            self.route(request, &segments, clock)
        };
        self.dressed(answer, standing)
    }

    /// Adds the headers that every recorded response has.
    fn dressed(&mut self, answer: Reply, standing: Standing) -> Reply {
        answer
            .with("x-rate-limit-limit", standing.limit.to_string())
            .with("x-rate-limit-remaining", standing.remaining.to_string())
            .with("x-rate-limit-reset", standing.reset.to_string())
            .with("x-okta-request-id", self.ids.base62(27))
            .with("cache-control", "no-cache, no-store")
            .with("pragma", "no-cache")
            .with("expires", "0")
            .with("x-content-type-options", "nosniff")
            .with("set-cookie", format!("JSESSIONID={}; Path=/; HttpOnly", self.ids.hex(32).to_uppercase()))
    }

    /// A 429 that a fault asked for.
    pub(super) fn rate_limited(&mut self, kind: RateLimited, clock: &dyn Clock) -> Reply {
        let answer = Problem::rate_limited().answer(&mut self.ids);
        let now = clock.now().as_second();
        let standing = |limit, reset| Standing { limit, remaining: 0, reset, exceeded: true };
        match kind {
            RateLimited::Plain => self.dressed(answer, standing(600, now + 1)),
            RateLimited::Concurrency => self.dressed(answer, standing(0, now + 1)),
            RateLimited::ResetInThePast => self.dressed(answer, standing(600, now - 60)),
            RateLimited::RetryAfter(span) => {
                self.dressed(answer, standing(600, now + 1)).with("retry-after", span.as_secs().to_string())
            }
            RateLimited::WithoutHeaders => answer,
        }
    }

    fn route(&mut self, request: &Inbound, segments: &[&str], clock: &dyn Clock) -> Reply {
        match (request.method.as_str(), segments) {
            ("POST", ["oauth2", "v1", "token"]) => {
                let url = self.url.clone();
                return self.authority.token(request, &url, &mut self.ids, clock);
            }
            ("GET", [".well-known", "okta-organization"]) => {
                let links = json!({ "organization": { "href": self.url } });
                return Reply::json(200, &json!({ "id": self.options.org_id, "_links": links, "pipeline": "idx" }));
            }
            _ => {}
        }
        self.authorized(request, segments, clock).unwrap_or_else(|refused| match refused {
            Denied::Problem(problem) => problem.answer(&mut self.ids),
            Denied::Proof(answer) => answer,
        })
    }

    fn authorized(&mut self, request: &Inbound, segments: &[&str], clock: &dyn Clock) -> Result<Reply, Denied> {
        self.check_caller(request, segments, clock)?;
        Ok(match (request.method.as_str(), segments) {
            ("GET", ["api", "v1", "logs"]) => self.logs(request, clock)?,
            ("GET", ["api", "v1", "users"]) => self.list(request, clock)?,
            ("POST", ["api", "v1", "users"]) => self.post_user(request, clock)?,
            ("GET", ["api", "v1", "users", id]) => {
                let user = self.visible(id)?;
                Reply::json(200, &user.json(&self.url, self.view(request, false)))
            }
            (method @ ("POST" | "PUT"), ["api", "v1", "users", id]) => {
                let user = self.visible(id)?;
                let body = body_object(request)?;
                let profile = body.get("profile").and_then(Value::as_object).cloned().unwrap_or_default();
                let user = self.update_profile(clock, &user.id, &profile, method == "PUT")?;
                Reply::json(200, &user.json(&self.url, self.view(request, false)))
            }
            ("DELETE", ["api", "v1", "users", id]) => {
                let user = self.visible(id)?;
                if &*user.status == "DEPROVISIONED" {
                    let order = self.options.delete_order;
                    self.delete(clock, &user.id, order)?;
                } else {
                    self.deactivate(clock, &user.id)?;
                }
                Reply::empty(204)
            }
            ("POST", ["api", "v1", "users", id, "lifecycle", operation]) => {
                let user = self.visible(id)?;
                self.lifecycle(operation, &user.id, clock)?
            }
            ("GET", ["api", "v1", "api-tokens", "current"]) => self.current_token(clock),
            ("DELETE", ["api", "v1", "api-tokens", "current"]) => {
                self.token_revoked = true;
                Reply::empty(204)
            }
            (_, ["api", "v1", "logs" | "users" | "api-tokens", ..]) => return Err(Problem::wrong_method().into()),
            _ => return Err(Problem::no_such_endpoint(&request.path).into()),
        })
    }

    fn check_caller(&mut self, request: &Inbound, segments: &[&str], clock: &dyn Clock) -> Result<(), Denied> {
        let credential = request.header("authorization").and_then(|value| match value.strip_prefix("SSWS") {
            // okta-sdk-python 3.4.6 sends no space here, and works.
            Some(token) => Some(("SSWS", token.trim_start())),
            None => value.split_once(' '),
        });
        let area = segments.get(2).copied().unwrap_or_default();
        match credential {
            Some(("SSWS", token)) if token == self.options.api_token && !self.token_revoked => {}
            Some((scheme @ ("Bearer" | "DPoP"), token)) => {
                let url = self.url.clone();
                let grant = self
                    .authority
                    .authorize(request, &url, scheme, token, &mut self.ids, clock)
                    .map_err(|refused| Denied::of_token(refused, &url))?;
                let needed = match (area, request.method.as_str()) {
                    ("logs", _) => &["okta.logs.read"][..],
                    ("users", "GET") => &["okta.users.read", "okta.users.manage"],
                    ("users", _) => &["okta.users.manage"],
                    _ => &["okta.apiTokens.read"],
                };
                if !grant.has_role || !needed.iter().any(|scope| grant.scopes.iter().any(|have| have == scope)) {
                    return Err(Problem::no_permission().into());
                }
            }
            _ => return Err(Problem::invalid_token().into()),
        }
        if area == "logs" && !self.may_read_log || area == "users" && !self.may_read_users {
            return Err(Problem::no_permission().into());
        }
        Ok(())
    }

    fn current_token(&self, clock: &dyn Clock) -> Reply {
        let now = okta_auth0_sync_clock::timestamp_text(clock.now());
        let expires = clock::add(clock.now(), std::time::Duration::from_secs(30 * 24 * 60 * 60));
        Reply::json(
            200,
            &json!({
                "id": "00TSandboxToken00000", "name": "sandbox", "userId": "00uSandboxAdmin00000",
                "clientName": "Okta API", "tokenWindow": "P30D", "network": { "connection": "ANYWHERE" },
                "created": now, "lastUpdated": now, "expiresAt": okta_auth0_sync_clock::timestamp_text(expires),
            }),
        )
    }

    fn lifecycle(&mut self, operation: &str, id: &str, clock: &dyn Clock) -> Result<Reply, Problem> {
        match operation {
            "activate" => self.activate(clock, id)?,
            "reactivate" => self.reactivate(clock, id)?,
            "deactivate" => self.deactivate(clock, id)?,
            "suspend" => self.suspend(clock, id)?,
            "unsuspend" => self.unsuspend(clock, id)?,
            _ => return Err(Problem::wrong_method()),
        }
        // Only activation and reactivation return a body: how the user can finish it.
        if !operation.ends_with("activate") || operation == "deactivate" {
            return Ok(Reply::json(200, &json!({})));
        }
        let token = self.ids.base62(20);
        let url = format!("{}/welcome/{token}", self.url);
        Ok(Reply::json(200, &json!({ "activationUrl": url, "activationToken": token })))
    }

    fn post_user(&mut self, request: &Inbound, clock: &dyn Clock) -> Result<Reply, Problem> {
        let body = body_object(request)?;
        let profile = body.get("profile").and_then(Value::as_object).cloned().unwrap_or_default();
        let has_password = body.get("credentials").is_some_and(|credentials| !credentials["password"].is_null());
        let activate = request.param("activate").as_deref() != Some("false");
        let user = self.create(clock, &profile, activate, has_password)?;
        Ok(Reply::json(200, &user.json(&self.url, self.view(request, false))))
    }

    /// The parts of a user that the caller asks for and may see.
    fn view(&self, request: &Inbound, listed: bool) -> View {
        let wish = request.header("content-type").unwrap_or_default();
        let asks = |what: &str| wish.split(['=', ',', '"', ' ', ';']).any(|word| word == what);
        View {
            credentials: !asks("omitCredentials"),
            links: !asks("omitCredentialsLinks"),
            listed,
            names_hidden: self.names_hidden,
        }
    }

    fn list(&mut self, request: &Inbound, clock: &dyn Clock) -> Result<Reply, Problem> {
        let newest_first = self.options.page_order == PageOrder::NewestFirst;
        let page = listing::page(&self.directory, request, newest_first, clock.monotonic())?;
        let users: Vec<Value> = page.users.iter().map(|p| p.json(&self.url, self.view(request, true))).collect();
        let mut answer = Reply::json(200, &Value::Array(users));
        self.link(&mut answer, "self", &request.target());
        if let Some(after) = page.after {
            self.link(&mut answer, "next", &with_params(request, &[], &[("after", &after)]));
        }
        Ok(answer)
    }

    fn logs(&mut self, request: &Inbound, clock: &dyn Clock) -> Result<Reply, Problem> {
        let query = log_query(request)?;
        let page = self.log.page(&query, self.options.log_retention, clock.now())?;
        let mut answer = Reply::text(200, "application/json", page.json);
        self.link(&mut answer, "self", &request.target());
        match (page.after, query.polls()) {
            (Some(after), true) => {
                self.link(&mut answer, "next", &with_params(request, &["since"], &[("after", &after)]));
            }
            (Some(after), false) => self.link(&mut answer, "next", &with_params(request, &[], &[("after", &after)])),
            // Nothing new: the same cursor. A polling request always has a next link.
            (None, true) => self.link(&mut answer, "next", &request.target()),
            (None, false) => {}
        }
        Ok(answer)
    }

    /// Adds a `Link` line: Okta sends each relation in a separate line.
    fn link(&self, answer: &mut Reply, relation: &str, target: &str) {
        answer.add("link", &format!("<{}{target}>; rel=\"{relation}\"", self.url));
    }
}

/// Why a request fails.
#[derive(Debug)]
enum Denied {
    Problem(Problem),
    Proof(Reply),
}

impl From<Problem> for Denied {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Denied {
    fn of_token(refused: Refused, url: &str) -> Self {
        match refused {
            Refused::Token => Self::Problem(Problem::invalid_token()),
            Refused::Proof { error, description, nonce } => {
                let challenge = format!(
                    "DPoP authorization_uri=\"{url}/oauth2/v1/authorize\", error=\"{error}\", \
                     error_description=\"{description}\""
                );
                let body = json!({ "error": error, "error_description": description });
                let answer = Reply::json(400, &body).with("www-authenticate", challenge);
                Self::Proof(nonce.map_or(answer.clone(), |nonce| answer.with("dpop-nonce", nonce)))
            }
        }
    }
}

/// `Content-Type: application/json; okta-response=omitCredentials,omitCredentialsLinks` trims the response.
fn body_object(request: &Inbound) -> Result<Map<String, Value>, Problem> {
    match request.json() {
        Some(Value::Object(body)) => Ok(body),
        _ => Err(Problem {
            status: 400,
            code: "E0000003",
            summary: "The request body was not well-formed.".to_owned(),
            causes: Vec::new(),
        }),
    }
}

/// Path and query of the request, with some parameters replaced.
fn with_params(request: &Inbound, without: &[&str], with: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(request.query.as_bytes()) {
        if !without.contains(&&*name) && !with.iter().any(|(other, _)| *other == name) {
            query.append_pair(&name, &value);
        }
    }
    query.extend_pairs(with);
    format!("{}?{}", request.path, query.finish())
}

fn log_query(request: &Inbound) -> Result<Query, Problem> {
    let time = |name: &str| match request.param(name) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| Problem::bad_date(name)),
    };
    let limit = match request.param("limit") {
        None => 100,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| *limit <= PAGE_MAX)
            .ok_or_else(|| Problem::validation("limit", format!("limit: must be between 0 and {PAGE_MAX}")))?,
    };
    let filter = request.param("filter").filter(|text| !text.is_empty());
    let filter = filter.map(|text| Expression::parse(&text).map_err(|_| Problem::bad_search())).transpose()?;
    if filter.as_ref().is_some_and(|filter| filter.mentions().iter().any(|(name, _)| *name == "published")) {
        return Err(Problem::bad_search());
    }
    let keywords: Vec<String> = request.param("q").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    if keywords.len() > 10 || keywords.iter().any(|keyword| keyword.chars().count() > 40) {
        return Err(Problem::validation("q", "q: at most 10 keywords of at most 40 characters"));
    }
    let descending = match request.param("sortOrder").as_deref() {
        None | Some("ASCENDING") => false,
        Some("DESCENDING") => true,
        Some(_) => return Err(Problem::validation("sortOrder", "sortOrder: ASCENDING or DESCENDING")),
    };
    Ok(Query {
        since: time("since")?,
        until: time("until")?,
        after: request.param("after"),
        limit,
        filter,
        keywords,
        descending,
    })
}
