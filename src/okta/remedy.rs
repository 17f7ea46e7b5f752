//! What operators can do about an error from Okta.

use crate::http::Kind;

/// The same for a call with an access token of a service app: no API token is involved.
pub(crate) fn of_service_app(kind: Kind, code: Option<&str>, message: &str) -> Option<String> {
    match code {
        Some("E0000011" | "E0000005") => Some(
            "Okta refuses the access token of the service app: check that okta.url is the org of okta.oauth.client_id, that the app \
             is active, and that the clock of this host is right"
                .to_owned(),
        ),
        _ => remedy(kind, code, message),
    }
}

/// The remedy for a classified error response, if one is known.
pub(crate) fn remedy(kind: Kind, code: Option<&str>, message: &str) -> Option<String> {
    let message = message.to_lowercase();
    let text = match code {
        Some("E0000011") => {
            "check that the API token was pasted completely and belongs to this org; a token also ends after 30 days without \
             use, and with its administrator's account: create a new one then"
        }
        Some("E0000005") => {
            "the API token has no valid session: check that its administrator is active; otherwise create another one"
        }
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
