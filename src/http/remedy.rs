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

/// How messages name what lies between us and the remotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The proxy and the variable that sets it, without its password.
    pub proxy: Option<String>,
    /// The file with additional root certificates.
    pub ca_file: Option<String>,
}

/// The remedy for a connection without a response.
pub(super) fn of_transport(kind: Kind, message: &str, route: &Route) -> Option<String> {
    let message = message.to_lowercase();
    let unreachable = kind == Kind::Unreachable;
    let proxy = route.proxy.as_deref();
    if unreachable && message.contains("certificate") {
        return Some(of_certificate(&message, route));
    }
    Some(match proxy {
        Some(proxy) if unreachable && message.contains("tunnel") => {
            let hint = if message.contains("407") || message.contains("authorization") {
                "requires credentials: add user and password to its URL"
            } else {
                "refused the connection: allow the host in the proxy, or add the host to NO_PROXY"
            };
            format!("the proxy {proxy} {hint}")
        }
        Some(proxy) if unreachable && message.contains("dns") => {
            format!("check the name of the proxy {proxy}, and this machine's name resolution")
        }
        Some(proxy) if unreachable || kind == Kind::Timeout => {
            format!("check the network and the proxy {proxy}")
        }
        None if unreachable && (message.contains("dns") || message.contains("resolve")) => {
            "check the url and this machine's name resolution; behind a proxy, set HTTPS_PROXY".to_owned()
        }
        None if unreachable || kind == Kind::Timeout => {
            "check the network; behind a proxy, set HTTPS_PROXY (systemd units do not inherit it from a shell)"
                .to_owned()
        }
        _ => return None,
    })
}

fn of_certificate(message: &str, route: &Route) -> String {
    if message.contains("expired") || message.contains("notvalidyet") || message.contains("not valid yet") {
        return "the server's certificate is not valid at this time: check this machine's clock, then the certificate"
            .to_owned();
    }
    if message.contains("not valid for name") || message.contains("notvalidforname") {
        return "the server's certificate is for another host: check the url, and what answers at this address"
            .to_owned();
    }
    let proxy =
        route.proxy.as_deref().map_or("a proxy that inspects TLS".to_owned(), |proxy| format!("the proxy {proxy}"));
    match &route.ca_file {
        Some(file) => format!(
            "neither this machine's root certificates nor {file} ([tls] ca_file) have issued it: is {proxy} in between, \
                               add its root certificate to that file"
        ),
        None => format!(
            "this machine does not trust who issued it: if {proxy} is in between, set [tls] ca_file to the PEM file of its \
                         root certificate"
        ),
    }
}
