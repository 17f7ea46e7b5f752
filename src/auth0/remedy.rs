//! What operators can do about an error from Auth0.

use crate::http::Kind;

/// The remedy for a classified error response, if one is known.
pub(crate) fn remedy(kind: Kind, code: Option<&str>, message: &str) -> Option<String> {
    let lower = message.to_lowercase();
    // A plan that lacks a feature can cause the error code of a missing scope (recorded in auth0-deploy-cli, "Akamai
    // Signals"), so the message decides.
    if code == Some("insufficient_entitlement") || (lower.contains("upgrade") && lower.contains("subscription")) {
        return Some(
            "the tenant's Auth0 plan does not include this feature, and no scope adds it: switch the option off"
                .to_owned(),
        );
    }
    if code == Some("insufficient_scope") {
        let scopes = message.split_once("expected any of:").map_or("", |(_, scopes)| scopes.trim());
        return Some(if scopes.is_empty() {
            "grant the application the missing Management API scope".to_owned()
        } else {
            format!("grant the application one of these Management API scopes: {scopes}")
        });
    }
    let text = match kind {
        Kind::Forbidden if lower.contains("service not found") => {
            "auth0.audience must be the Management API's identifier, https://TENANT.REGION.auth0.com/api/v2/"
        }
        Kind::Forbidden if lower.contains("client-grant") || lower.contains("not authorized to access") => {
            "authorize the application for the Auth0 Management API (Applications, APIs, Auth0 Management API, Machine to \
             Machine Applications), and check auth0.audience"
        }
        Kind::Unauthorized if lower.contains("bad audience") => {
            "auth0.audience must be the Management API's identifier, https://TENANT.REGION.auth0.com/api/v2/"
        }
        Kind::Unauthorized if lower.contains("signature") || lower == "invalid token" => {
            "the token and the API call must use the same domain: set auth0.url to either the tenant's domain or the \
             custom domain"
        }
        Kind::Unauthorized => {
            "check auth0.client_id, its secret or key, and that auth0.url is this application's tenant"
        }
        Kind::Forbidden => "check what the application is authorized for in the Auth0 Management API",
        Kind::RateLimited if lower.contains("quota") => {
            "the application's token quota is used up: raise it, or lengthen the API's token lifetime"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
