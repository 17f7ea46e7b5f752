//! What an operator can do about a failure that either remote can cause.

use super::Kind;

/// Finds the remedy for a remote's error by kind, code and message.
pub type Remedy = fn(Kind, Option<&str>, &str) -> Option<String>;

/// For calls without specific remedies.
pub fn none(_kind: Kind, _code: Option<&str>, _message: &str) -> Option<String> {
    None
}

/// The remedy for a status that a proxy or gateway sent.
pub(super) fn of_status(status: u16) -> Option<String> {
    match status {
        407 => Some("the proxy requires credentials: add them to HTTPS_PROXY".to_owned()),
        300..400 => Some("the url is redirected: configure its target instead".to_owned()),
        _ => None,
    }
}

/// The remedy for a connection without a response.
pub(super) fn of_transport(kind: Kind, message: &str) -> Option<String> {
    let message = message.to_lowercase();
    let text = match kind {
        Kind::Unreachable if message.contains("certificate") || message.contains("unknownissuer") => {
            "behind a TLS-inspecting proxy, set tls.ca_file to its root certificate"
        }
        Kind::Unreachable if message.contains("dns") || message.contains("resolve") => {
            "check the url and this machine's name resolution"
        }
        Kind::Unreachable | Kind::Timeout => {
            "check the network and HTTPS_PROXY; systemd units do not inherit proxy variables"
        }
        _ => return None,
    };
    Some(text.to_owned())
}
