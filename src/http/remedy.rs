//! What a person can do about a failure, in plain words.

use super::{Kind, Remote};

/// The remedy for a classified answer, if there is one that fits.
pub(super) fn of(remote: Remote, kind: Kind, status: u16, code: Option<&str>, message: &str) -> Option<String> {
    match remote {
        _ if status == 407 => Some("the proxy wants credentials: put them into HTTPS_PROXY".to_owned()),
        _ if (300..400).contains(&status) => Some("the url is redirected: configure the one it leads to".to_owned()),
        Remote::Okta => of_okta(kind, code, message),
        Remote::Auth0 => of_auth0(kind, code, message),
    }
}

fn of_okta(kind: Kind, code: Option<&str>, message: &str) -> Option<String> {
    let message = message.to_lowercase();
    let text = match code {
        Some("E0000011") => {
            "the API token is invalid, expired (30 days without use) or its administrator was deactivated: create another"
        }
        Some("E0000005") => "the credential's session is not valid: create another API token",
        Some("E0000015") => "this Okta org lacks the feature that the call needs",
        Some("E0000006") => {
            "give the credential an administrator role that may read users and the System Log (least standard role: \
             Read-only Administrator); a granted scope alone is not enough"
        }
        Some("invalid_dpop_proof") => {
            "the app requires DPoP: set okta.oauth.dpop to \"auto\" or \"always\", or switch off \"Require Demonstrating \
             Proof of Possession\" in the app's settings"
        }
        Some("invalid_client") if message.contains("already been used") => {
            "another process uses the same assertion, or a proxy repeated the call: try again"
        }
        Some("invalid_client") => {
            "check okta.oauth client_id, key_id, and that the app knows this key's public half; a machine clock that is \
             minutes off has the same effect"
        }
        Some("invalid_scope" | "no_scope_allowed") => {
            "grant the app the scopes okta.logs.read and okta.users.read (Admin Console: Applications, API Scopes)"
        }
        Some("access_denied") => {
            "allow this machine's address in the network zone that the credential is bound to, or grant the app its scopes"
        }
        Some("insufficient_scope") => "grant the app the scopes okta.logs.read and okta.users.read",
        _ if message.contains("network zone") || message.contains("zone") && kind == Kind::Forbidden => {
            "allow this machine's address in the network zone that the credential is bound to"
        }
        _ if kind == Kind::Unauthorized => "check the Okta credential",
        _ if kind == Kind::Forbidden => "check the role and the scopes of the Okta credential",
        _ => return None,
    };
    Some(text.to_owned())
}

fn of_auth0(kind: Kind, code: Option<&str>, message: &str) -> Option<String> {
    let lower = message.to_lowercase();
    // One plan gate answers with the code of a missing scope (recorded in auth0-deploy-cli, "Akamai Signals"): the
    // message decides.
    if code == Some("insufficient_entitlement") || (lower.contains("upgrade") && lower.contains("subscription")) {
        return Some(
            "the tenant's Auth0 plan does not include this: no scope will help; switch the option off".to_owned(),
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
        Kind::Forbidden if lower.contains("client-grant") || lower.contains("not authorized to access") => {
            "authorize the application for the Auth0 Management API (Applications, APIs, Auth0 Management API, Machine to \
             Machine Applications), and check auth0.audience"
        }
        Kind::Unauthorized if lower.contains("bad audience") => {
            "auth0.audience must be the Management API's identifier, https://TENANT.REGION.auth0.com/api/v2/"
        }
        Kind::Unauthorized if lower.contains("signature") || lower == "invalid token" => {
            "ask for the token and call the API at the same domain: set auth0.url to one of them"
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

/// The remedy for a connection that gave no answer.
pub(super) fn of_transport(kind: Kind, message: &str) -> Option<String> {
    let message = message.to_lowercase();
    let text = match kind {
        Kind::Unreachable if message.contains("certificate") || message.contains("unknownissuer") => {
            "if a proxy inspects TLS here, give its root certificate as tls.ca_file"
        }
        Kind::Unreachable if message.contains("dns") || message.contains("resolve") => {
            "check the url, and this machine's name resolution"
        }
        Kind::Unreachable | Kind::Timeout => {
            "check the network and HTTPS_PROXY; systemd units inherit no proxy variables"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
