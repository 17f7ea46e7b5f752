//! `POST /oauth2/v1/token` of the org's authorization server, and DPoP.
//!
//! Okta docs: "Implement OAuth for Okta with a service app", "Configure OAuth 2.0 Demonstrating Proof-of-Possession".
//! RFC 7523 (assertions), RFC 9449 (DPoP).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};

use crate::identifiers::Identifiers;
use crate::jose::{self, AssertionRules, Jws};
use crate::message::{Inbound, Reply};
use okta_auth0_sync_clock::{Clock, Timestamp};

/// Fixed by Okta for the org authorization server.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
const ASSERTION_LIFETIME_MAX_S: i64 = 3600;
/// How far a proof's `iat` may be from now.
const PROOF_AGE_MAX_S: i64 = 300;
/// A nonce is renewed after a day, and valid for three.
const NONCE_RENEWED: Duration = Duration::from_secs(24 * 60 * 60);
const NONCE_GOOD: Duration = Duration::from_secs(3 * 24 * 60 * 60);
const ALGORITHMS: [&str; 6] = ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"];

/// A service app that may request tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceApp {
    /// Its `client_id`, `0oa…`.
    pub client_id: String,
    /// Its public keys, as JWK.
    pub keys: Vec<Value>,
    /// The scopes granted to it.
    pub scopes: Vec<String>,
    /// "Require Demonstrating Proof of Possession (DPoP) header in token requests".
    pub require_dpop: bool,
    /// Whether it has an admin role. Without one, Okta issues tokens and refuses every call ("silent downscoping").
    pub has_role: bool,
}

impl ServiceApp {
    /// An app with one key, the scopes to read logs and users, and a role.
    pub fn new(client_id: &str, key: Value) -> Self {
        Self {
            client_id: client_id.to_owned(),
            keys: vec![key],
            scopes: vec!["okta.logs.read".to_owned(), "okta.users.read".to_owned()],
            require_dpop: false,
            has_role: true,
        }
    }
}

/// An issued token.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) scopes: Vec<String>,
    pub(super) has_role: bool,
    expires: Duration,
    /// The thumbprint of the DPoP key to which it is bound.
    bound_to: Option<String>,
}

/// The authorization server. Not `Debug`: it holds tokens.
#[derive(Default)]
pub(super) struct Authority {
    pub(super) apps: Vec<ServiceApp>,
    grants: HashMap<String, Grant>,
    /// Used assertions and proofs: each is accepted once.
    used: HashSet<String>,
    nonces: Vec<(Timestamp, String)>,
    /// Whether API calls need a nonce too.
    demand_nonce: bool,
}

/// Why a call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The token is invalid.
    Token,
    /// The `error` of RFC 9449, with the nonce if one is required.
    Proof { error: &'static str, description: &'static str, nonce: Option<String> },
}

impl Refused {
    fn proof(description: &'static str) -> Self {
        Self::Proof { error: "invalid_dpop_proof", description, nonce: None }
    }
}

fn oauth_error(status: u16, error: &str, description: &str) -> Reply {
    Reply::json(status, &json!({ "error": error, "error_description": description }))
}

impl Authority {
    /// A server with these apps.
    pub(super) fn new(apps: Vec<ServiceApp>, demand_nonce: bool) -> Self {
        Self { apps, demand_nonce, ..Self::default() }
    }

    /// Handles a token request.
    pub(super) fn token(&mut self, request: &Inbound, url: &str, ids: &mut Identifiers, clock: &dyn Clock) -> Reply {
        match self.issue(request, url, ids, clock) {
            Ok(answer) | Err(answer) => answer,
        }
    }

    fn issue(
        &mut self,
        request: &Inbound,
        url: &str,
        ids: &mut Identifiers,
        clock: &dyn Clock,
    ) -> Result<Reply, Reply> {
        let token_url = format!("{url}/oauth2/v1/token");
        let app = self.authenticated(request, &token_url, clock)?;
        if request.field("grant_type").as_deref() != Some("client_credentials") {
            let why = "The authorization grant type is not supported by the authorization server.";
            return Err(oauth_error(400, "unsupported_grant_type", why));
        }
        let scopes: Vec<String> =
            request.field("scope").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        if scopes.is_empty() {
            return Err(oauth_error(400, "invalid_scope", "The 'scope' parameter must be provided."));
        }
        if !scopes.iter().all(|scope| app.scopes.contains(scope)) {
            let why = "One or more scopes are not configured for the authorization server resource.";
            return Err(oauth_error(400, "invalid_scope", why));
        }
        let bound_to = self.proof_of_token_request(request, &token_url, &app, ids, clock)?;
        let now = clock.now().as_second();
        let lifetime = TOKEN_LIFETIME.as_secs();
        let claims = json!({
            "ver": 1, "jti": ids.uuid(), "iss": url, "aud": url, "sub": app.client_id, "cid": app.client_id,
            "scp": scopes, "iat": now, "exp": now.saturating_add_unsigned(lifetime),
        });
        let token = jose::issued(&claims, &ids.hex(64));
        let token_type = if bound_to.is_some() { "DPoP" } else { "Bearer" };
        let body = json!({
            "token_type": token_type, "expires_in": lifetime, "access_token": token, "scope": scopes.join(" "),
        });
        let expires = clock.monotonic() + TOKEN_LIFETIME;
        self.grants.insert(token, Grant { scopes, has_role: app.has_role, expires, bound_to });
        Ok(Reply::json(200, &body))
    }

    /// The app that the client's assertion identifies. The assertion counts as used even if the request fails.
    fn authenticated(&mut self, request: &Inbound, token_url: &str, clock: &dyn Clock) -> Result<ServiceApp, Reply> {
        let refused = |why: &str| oauth_error(401, "invalid_client", why);
        let assertion = request
            .field("client_assertion")
            .filter(|_| {
                request.field("client_assertion_type").as_deref()
                    == Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            })
            .and_then(|text| Jws::read(&text))
            .ok_or_else(|| refused("Client authentication failed: a client_assertion is required."))?;
        let client_id = assertion.text("iss").unwrap_or_default().to_owned();
        let app = self
            .apps
            .iter()
            .find(|app| app.client_id == client_id)
            .ok_or_else(|| refused("Invalid value for 'client_id' parameter."))?
            .clone();
        if !app.keys.iter().any(|key| assertion.is_signed_by(key, &ALGORITHMS)) {
            return Err(refused("The client_assertion signature is invalid."));
        }
        let rules = AssertionRules {
            client_id: &client_id,
            audience: token_url,
            lifetime_max: ASSERTION_LIFETIME_MAX_S,
            now: clock.now().as_second(),
        };
        rules.check(&assertion).map_err(refused)?;
        if let Some(id) = assertion.text("jti")
            && !self.used.insert(format!("{client_id} {id}"))
        {
            return Err(refused("The client_assertion token has already been used."));
        }
        Ok(app)
    }

    /// The DPoP handshake: no proof, then no nonce, then both.
    fn proof_of_token_request(
        &mut self,
        request: &Inbound,
        token_url: &str,
        app: &ServiceApp,
        ids: &mut Identifiers,
        clock: &dyn Clock,
    ) -> Result<Option<String>, Reply> {
        let Some(proof) = request.header("dpop") else {
            if app.require_dpop {
                let why = "The DPoP proof JWT header is missing.";
                return Err(oauth_error(400, "invalid_dpop_proof", why));
            }
            return Ok(None);
        };
        let checked = self.check_proof(proof, "POST", token_url, None, true, ids, clock);
        checked.map(Some).map_err(|refused| match refused {
            Refused::Proof { error, description, nonce } => {
                let answer = oauth_error(400, error, description);
                nonce.map_or(answer.clone(), |nonce| answer.with("dpop-nonce", nonce))
            }
            Refused::Token => oauth_error(400, "invalid_request", "The token is invalid."),
        })
    }

    /// Checks a proof, and returns the thumbprint of its key.
    #[expect(clippy::too_many_arguments, reason = "each is one thing that RFC 9449 §4.3 compares")]
    fn check_proof(
        &mut self,
        proof: &str,
        method: &str,
        url: &str,
        token: Option<&str>,
        demand_nonce: bool,
        ids: &mut Identifiers,
        clock: &dyn Clock,
    ) -> Result<String, Refused> {
        let proof = Jws::read(proof).ok_or(Refused::proof("The DPoP proof is not a JWT."))?;
        let key = &proof.header["jwk"];
        if proof.header["typ"] != "dpop+jwt" || key.get("d").is_some() || !proof.is_signed_by(key, &ALGORITHMS) {
            return Err(Refused::proof("The DPoP proof JWT is not signed by its own key."));
        }
        let thumbprint = jose::thumbprint(key).ok_or(Refused::proof("The DPoP proof JWT has no key."))?;
        if proof.text("htm") != Some(method) {
            return Err(Refused::proof("The DPoP proof's htm is not the method of the request."));
        }
        // The URL without its query: SDKs have had bugs here.
        if proof.text("htu") != Some(url) {
            return Err(Refused::proof("The DPoP proof's htu is not the URL of the request."));
        }
        let age = proof.seconds("iat").map(|iat| (clock.now().as_second() - iat).abs());
        if age.is_none_or(|age| age > PROOF_AGE_MAX_S) {
            return Err(Refused::proof("The DPoP proof's iat is too old or in the future."));
        }
        if token.is_some_and(|token| proof.text("ath") != Some(jose::sha256(token).as_str())) {
            return Err(Refused::proof("The DPoP proof's ath is not the hash of the access token."));
        }
        if demand_nonce && !self.is_good_nonce(proof.text("nonce"), clock.now()) {
            return Err(Refused::Proof {
                error: "use_dpop_nonce",
                description: "Authorization server requires nonce in DPoP proof.",
                nonce: Some(self.nonce(ids, clock.now())),
            });
        }
        match proof.text("jti") {
            Some(id) if self.used.insert(format!("{thumbprint} {id}")) => Ok(thumbprint),
            _ => Err(Refused::proof("The DPoP proof has no jti, or one that has been used.")),
        }
    }

    fn is_good_nonce(&self, nonce: Option<&str>, now: Timestamp) -> bool {
        self.nonces
            .iter()
            .any(|(at, known)| Some(known.as_str()) == nonce && okta_auth0_sync_clock::since(now, *at) < NONCE_GOOD)
    }

    fn nonce(&mut self, ids: &mut Identifiers, now: Timestamp) -> String {
        match self.nonces.last() {
            Some((at, nonce)) if okta_auth0_sync_clock::since(now, *at) < NONCE_RENEWED => nonce.clone(),
            _ => {
                let nonce = ids.base62(32);
                self.nonces.push((now, nonce.clone()));
                nonce
            }
        }
    }

    /// Checks the token of an API call and its proof.
    pub(super) fn authorize(
        &mut self,
        request: &Inbound,
        url: &str,
        scheme: &str,
        token: &str,
        ids: &mut Identifiers,
        clock: &dyn Clock,
    ) -> Result<Grant, Refused> {
        let grant = self.grants.get(token).filter(|grant| clock.monotonic() < grant.expires).cloned();
        let grant = grant.ok_or(Refused::Token)?;
        let Some(bound_to) = &grant.bound_to else {
            return if scheme == "Bearer" { Ok(grant) } else { Err(Refused::Token) };
        };
        if scheme != "DPoP" {
            return Err(Refused::Token);
        }
        let proof = request.header("dpop").ok_or(Refused::proof("The DPoP proof JWT header is missing."))?;
        let called = format!("{url}{}", request.path);
        let demand = self.demand_nonce;
        let key = self.check_proof(proof, request.method.as_str(), &called, Some(token), demand, ids, clock)?;
        if key != *bound_to {
            return Err(Refused::proof("The DPoP proof's key is not the one that the token is bound to."));
        }
        Ok(grant)
    }

    /// Revokes every issued token.
    pub(super) fn revoke_tokens(&mut self) {
        self.grants.clear();
    }
}
