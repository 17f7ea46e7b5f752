//! `POST /oauth/token` with client credentials, and the scopes of tokens.
//!
//! Auth0 docs: "Get Management API Access Tokens for Production", "Authenticate with Private Key JWT". The error bodies
//! come from recordings and forum threads; the Authentication API's shape is `{"error","error_description"}`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::identifiers::Identifiers;
use crate::jose::{self, AssertionRules, Jws};
use crate::message::{Inbound, Reply};
use okta_auth0_sync_clock::Clock;

use super::Auth0Options;
use super::problem::Problem;

/// The longest lifetime of an assertion: five minutes.
const ASSERTION_LIFETIME_MAX_S: i64 = 300;
const ASSERTION_BYTES_MAX: usize = 2048;
const ALGORITHMS: [&str; 3] = ["RS256", "RS384", "PS256"];

/// Issued tokens and used assertions. Not `Debug`: they are credentials.
#[derive(Default)]
pub(super) struct Tokens {
    issued: HashMap<String, Grant>,
    used: HashSet<String>,
}

struct Grant {
    expires: Duration,
    audience: String,
    scopes: Vec<String>,
}

fn refused(status: u16, error: &str, description: impl Into<String>) -> Reply {
    Reply::json(status, &json!({ "error": error, "error_description": description.into() }))
}

impl Tokens {
    /// Handles a token request.
    pub(super) fn issue(
        &mut self,
        request: &Inbound,
        url: &str,
        options: &Auth0Options,
        ids: &mut Identifiers,
        clock: &dyn Clock,
    ) -> Reply {
        match self.try_issue(request, url, options, ids, clock) {
            Ok(answer) | Err(answer) => answer,
        }
    }

    fn try_issue(
        &mut self,
        request: &Inbound,
        url: &str,
        options: &Auth0Options,
        ids: &mut Identifiers,
        clock: &dyn Clock,
    ) -> Result<Reply, Reply> {
        let Some(grant_type) = request.field("grant_type") else {
            return Err(refused(400, "invalid_request", "Missing required parameter: grant_type"));
        };
        self.authenticate(request, url, options, clock)?;
        if grant_type != "client_credentials" {
            let why = format!("Grant type '{grant_type}' not allowed for the client.");
            return Err(refused(403, "unauthorized_client", why));
        }
        let Some(audience) = request.field("audience") else {
            return Err(refused(
                403,
                "access_denied",
                "No audience parameter was provided, and no default audience has been configured",
            ));
        };
        if audience != options.audience_at(url) {
            if !options.other_audiences.contains(&audience) {
                return Err(refused(403, "access_denied", format!("Service not found: {audience}")));
            }
        } else if options.granted_scope.is_empty() {
            let why = format!(
                "Client is not authorized to access \"{audience}\". You need to create a \"client-grant\" associated \
                 to this API. See: https://auth0.com/docs/api/v2#!/Client_Grants/post_client_grants"
            );
            return Err(refused(403, "access_denied", why));
        }
        let now = clock.now().as_second();
        let lifetime = options.token_lifetime.as_secs();
        let claims = json!({
            "iss": format!("{url}/"), "sub": format!("{}@clients", options.client_id), "aud": audience, "iat": now,
            "exp": now.saturating_add_unsigned(lifetime), "gty": "client-credentials", "azp": options.client_id,
            "scope": options.granted_scope,
        });
        let token = jose::issued(&claims, &ids.hex(64));
        let scopes = options.granted_scope.split_whitespace().map(str::to_owned).collect();
        let grant = Grant { expires: clock.monotonic() + options.token_lifetime, audience, scopes };
        self.issued.insert(token.clone(), grant);
        let body = json!({
            "access_token": token, "scope": options.granted_scope, "expires_in": lifetime, "token_type": "Bearer",
        });
        Ok(Reply::json(200, &body).with("cache-control", "no-store"))
    }

    fn authenticate(
        &mut self,
        request: &Inbound,
        url: &str,
        options: &Auth0Options,
        clock: &dyn Clock,
    ) -> Result<(), Reply> {
        if let Some(text) = request.field("client_assertion") {
            return self.check_assertion(&text, request, url, options, clock);
        }
        let right = request.field("client_id").as_ref() == Some(&options.client_id)
            && request.field("client_secret").as_ref() == Some(&options.client_secret);
        // Auth0 has one message for an unknown client and a wrong secret.
        if right { Ok(()) } else { Err(refused(401, "access_denied", "Unauthorized")) }
    }

    fn check_assertion(
        &mut self,
        text: &str,
        request: &Inbound,
        url: &str,
        options: &Auth0Options,
        clock: &dyn Clock,
    ) -> Result<(), Reply> {
        let wrong = |why: &str| refused(401, "invalid_client", why);
        if request.field("client_assertion_type").as_deref()
            != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
        {
            return Err(refused(400, "invalid_request", "client_assertion_type is not supported"));
        }
        let assertion = Jws::read(text)
            .filter(|_| text.len() <= ASSERTION_BYTES_MAX)
            .ok_or_else(|| wrong("Client assertion is not a JWT"))?;
        if !options.keys.iter().any(|key| assertion.is_signed_by(key, &ALGORITHMS)) {
            return Err(wrong("Client assertion signature is invalid"));
        }
        let rules = AssertionRules {
            client_id: &options.client_id,
            audience: &format!("{url}/"),
            lifetime_max: ASSERTION_LIFETIME_MAX_S,
            now: clock.now().as_second(),
        };
        rules.check(&assertion).map_err(wrong)?;
        match assertion.text("jti") {
            Some(id) if id.len() > 64 => Err(wrong("Client assertion jti is too long")),
            Some(id) if self.used.insert(id.to_owned()) => Ok(()),
            Some(_) => Err(wrong("Client assertion jti has already been used")),
            None => Err(wrong("Client assertion has no jti")),
        }
    }

    /// The scopes of the caller.
    pub(super) fn scopes(&self, request: &Inbound, audience: &str, clock: &dyn Clock) -> Result<Vec<String>, Problem> {
        let header = request.header("authorization").ok_or_else(Problem::missing_authentication)?;
        let token = header.strip_prefix("Bearer ").ok_or_else(Problem::malformed_token)?;
        if token.split('.').filter(|segment| !segment.is_empty()).count() != 3 {
            return Err(Problem::malformed_token());
        }
        let grant = self.issued.get(token).ok_or_else(|| Problem::bad_token("Invalid token"))?;
        if clock.monotonic() >= grant.expires {
            return Err(Problem::bad_token("Expired token received for JSON Web Token validation"));
        }
        if grant.audience != audience {
            return Err(Problem::bad_token(&format!("Bad audience: {}", grant.audience)));
        }
        Ok(grant.scopes.clone())
    }

    /// How long the caller's token is still valid.
    pub(super) fn time_left(&self, request: &Inbound, clock: &dyn Clock) -> Duration {
        let token = request.header("authorization").and_then(|header| header.strip_prefix("Bearer "));
        let grant = token.and_then(|token| self.issued.get(token));
        grant.map_or(Duration::ZERO, |grant| grant.expires.saturating_sub(clock.monotonic()))
    }

    /// Revokes every token. (Real ones cannot be revoked; a rotated signing key has the same effect.)
    pub(super) fn revoke(&mut self) {
        self.issued.clear();
    }

    /// Narrows every issued token to these scopes.
    pub(super) fn narrow(&mut self, to: &str) {
        for grant in self.issued.values_mut() {
            grant.scopes = to.split_whitespace().map(str::to_owned).collect();
        }
    }
}

/// The scopes of which a request needs at least one. `None`: no such endpoint.
pub(super) fn needed(method: &str, path: &[&str], body: Option<&Value>) -> Option<&'static [&'static str]> {
    Some(match (method, path) {
        ("GET", ["users" | "users-by-email"] | ["users", _]) => &["read:users"],
        ("POST", ["users"]) => &["create:users"],
        ("PATCH", ["users", _]) => {
            let only_app_metadata = body
                .and_then(Value::as_object)
                .is_some_and(|body| !body.is_empty() && body.keys().all(|name| name == "app_metadata"));
            if only_app_metadata { &["update:users", "update:users_app_metadata"] } else { &["update:users"] }
        }
        ("DELETE", ["users", _]) => &["delete:users"],
        ("POST", ["users", _, "identities"]) => &["update:users"],
        ("GET", ["users", _, "sessions"]) => &["read:sessions"],
        ("DELETE", ["users", _, "sessions"]) | ("POST", ["users", _, "revoke-access"]) => &["delete:sessions"],
        ("GET", ["users", _, "refresh-tokens"]) => &["read:refresh_tokens"],
        ("DELETE", ["users", _, "refresh-tokens"]) => &["delete:refresh_tokens"],
        ("GET", ["events"]) => &["read:events"],
        ("GET", ["client-grants"]) => &["read:client_grants"],
        ("GET", ["actions", ..]) => &["read:actions"],
        ("POST", ["actions", "actions"] | ["actions", "actions", _, "deploy"]) => &["create:actions"],
        ("PATCH", ["actions", "actions", _] | ["actions", "triggers", _, "bindings"]) => &["update:actions"],
        ("DELETE", ["actions", "actions", _]) => &["delete:actions"],
        _ => return None,
    })
}
