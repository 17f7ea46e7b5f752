//! What an operator can do about a failure, whichever remote it concerns.

use super::Kind;

/// Finds the remedy for an error of one remote: by its kind, the remote's own code and its message.
pub type Remedy = fn(Kind, Option<&str>, &str) -> Option<String>;

/// For calls whose errors need no remedy of their own.
pub fn none(_kind: Kind, _code: Option<&str>, _message: &str) -> Option<String> {
    None
}

/// The remedy for a status that does not come from the remote itself.
pub(super) fn of_status(status: u16) -> Option<String> {
    match status {
        407 => Some("the proxy wants credentials: put them into HTTPS_PROXY".to_owned()),
        300..400 => Some("the url is redirected: configure the one it leads to".to_owned()),
        _ => None,
    }
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
