//! What operators can do about an error from Okta.

use crate::http::Kind;

/// The remedy for a classified error response, if one is known.
pub(crate) fn remedy(kind: Kind, code: Option<&str>, message: &str) -> Option<String> {
    let message = message.to_lowercase();
    let text = match code {
        Some("E0000011") => {
            "the API token is invalid, expired (30 days without use) or its administrator was deactivated; create a new one"
        }
        Some("E0000005") => "the credential's session is not valid; create another API token",
        Some("E0000015") => "this Okta org lacks the feature that this call needs",
        Some("E0000006") => {
            "give the credential an administrator role that may read users and the System Log (least standard role: \
             Read-only Administrator); a granted scope alone is not enough"
        }
        Some("invalid_dpop_proof") => {
            "the app requires DPoP: set okta.oauth.dpop to \"auto\" or \"always\", or switch off \"Require Demonstrating \
             Proof of Possession\" in the app's settings"
        }
        Some("invalid_client") if message.contains("already been used") => {
            "another process used the same assertion, or a proxy repeated the request; retry"
        }
        Some("invalid_client") => {
            "check client_id and key_id in okta.oauth, that the public key is registered with the app, and that the clock \
             of this host is right"
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
