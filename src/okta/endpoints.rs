//! Every Okta endpoint that this program calls.

use super::remedy::remedy;
use crate::http::{Bucket, Endpoint, Limits, Remote};

const fn okta(name: &'static str, bucket: Bucket) -> Endpoint {
    Endpoint::new(Remote::Okta, name, bucket, remedy)
}

/// An access token. The org authorization server is the only one that grants Okta's own scopes.
pub const TOKEN: Endpoint = okta("POST /oauth2/v1/token", Bucket::OktaOther);
/// A page of the System Log.
pub const LOG: Endpoint = okta("GET /api/v1/logs", Bucket::OktaLog).with_limits(Limits::LOG_PAGE);
/// The org id.
pub const ORG: Endpoint = okta("GET /.well-known/okta-organization", Bucket::OktaOther);
/// The API token in use.
pub const OWN_TOKEN: Endpoint = okta("GET /api/v1/api-tokens/current", Bucket::OktaOther);
/// A user by id.
pub const USER: Endpoint = okta("GET /api/v1/users/{id}", Bucket::OktaUser);
/// Users by search.
pub const USERS: Endpoint = okta("GET /api/v1/users", Bucket::OktaUsers);

/// All endpoints.
pub const ALL: [Endpoint; 6] = [TOKEN, LOG, ORG, OWN_TOKEN, USER, USERS];
