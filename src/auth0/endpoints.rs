//! Every Auth0 endpoint that this program calls.

use super::remedy::remedy;
use crate::http::{Bucket, Endpoint, Remote};

const fn auth0(name: &'static str, bucket: Bucket) -> Endpoint {
    Endpoint::new(Remote::Auth0, name, bucket, remedy)
}

/// An access token.
pub const TOKEN: Endpoint = auth0("POST /oauth/token", Bucket::Auth0Other);
/// Accounts by exact e-mail.
pub const BY_EMAIL: Endpoint = auth0("GET /api/v2/users-by-email", Bucket::Auth0Read);
/// An account by id.
pub const ACCOUNT: Endpoint = auth0("GET /api/v2/users/{id}", Bucket::Auth0Read);
/// Accounts by search.
pub const SEARCH: Endpoint = auth0("GET /api/v2/users", Bucket::Auth0Read);
/// A write to an account.
pub const PATCH: Endpoint = auth0("PATCH /api/v2/users/{id}", Bucket::Auth0Write);
/// An account's sessions. For the circuit breaker it also stands for [`REFRESH_TOKENS`]: a
/// tenant offers both or neither.
pub const SESSIONS: Endpoint = auth0("DELETE /api/v2/users/{id}/sessions", Bucket::Auth0Other);
/// An account's refresh tokens.
pub const REFRESH_TOKENS: Endpoint = auth0("DELETE /api/v2/users/{id}/refresh-tokens", Bucket::Auth0Other);
/// The tenant's Actions.
pub const ACTIONS: Endpoint = auth0("GET /api/v2/actions/actions", Bucket::Auth0Other);
/// A new Action.
pub const CREATE_ACTION: Endpoint = auth0("POST /api/v2/actions/actions", Bucket::Auth0Other);
/// One Action.
pub const ACTION: Endpoint = auth0("GET /api/v2/actions/actions/{id}", Bucket::Auth0Other);
/// A change of an Action.
pub const UPDATE_ACTION: Endpoint = auth0("PATCH /api/v2/actions/actions/{id}", Bucket::Auth0Other);
/// The deployment of an Action.
pub const DEPLOY_ACTION: Endpoint = auth0("POST /api/v2/actions/actions/{id}/deploy", Bucket::Auth0Other);
/// The triggers that the tenant supports.
pub const TRIGGERS: Endpoint = auth0("GET /api/v2/actions/triggers", Bucket::Auth0Other);
/// The post-login flow.
pub const BINDINGS: Endpoint = auth0("GET /api/v2/actions/triggers/post-login/bindings", Bucket::Auth0Other);
/// A change of the post-login flow.
pub const BIND: Endpoint = auth0("PATCH /api/v2/actions/triggers/post-login/bindings", Bucket::Auth0Other);
/// The event stream.
pub const EVENTS: Endpoint = auth0("GET /api/v2/events", Bucket::Auth0Other);

/// All of them.
pub const ALL: [Endpoint; 16] = [
    TOKEN,
    BY_EMAIL,
    ACCOUNT,
    SEARCH,
    PATCH,
    SESSIONS,
    REFRESH_TOKENS,
    ACTIONS,
    CREATE_ACTION,
    ACTION,
    UPDATE_ACTION,
    DEPLOY_ACTION,
    TRIGGERS,
    BINDINGS,
    BIND,
    EVENTS,
];
