//! The proxies that the environment names, as curl reads them.

use std::fmt;

use url::Url;

use super::{Environment, Problem};

const HTTPS: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const HTTP: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Never reached through a proxy: the proxy would connect to its own machine.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

/// A proxy. Its text and debug forms hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    variable: &'static str,
    url: Url,
}

impl Proxy {
    /// Its address, with user and password.
    pub const fn url(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        if shown.password().is_some() {
            // Fails only for a URL without a host.
            let _ = shown.set_password(Some("***"));
        }
        write!(f, "{} ({})", shown.as_str().trim_end_matches('/'), self.variable)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Which requests go through which proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `https://` addresses: both tenants.
    pub https: Option<Proxy>,
    /// For `http://` addresses.
    pub http: Option<Proxy>,
    /// The hosts reached without a proxy, separated by commas: `NO_PROXY` and loopback.
    pub bypass: String,
}

impl Proxies {
    pub(super) fn read(environment: &Environment, problems: &mut Vec<Problem>) -> Self {
        let mut read = |names: [&'static str; 2]| match proxy(environment, names) {
            Ok(proxy) => proxy,
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        let all = read(ALL);
        let (https, http) = (read(HTTPS).or_else(|| all.clone()), read(HTTP).or(all));
        let excepted = text(environment, NO_PROXY).ok().flatten().filter(|(_, hosts)| !hosts.is_empty());
        let excepted = excepted.map_or(String::new(), |(_, hosts)| hosts + ",");
        Self { https, http, bypass: excepted + LOOPBACK }
    }
}

/// The first of these variables that is set.
fn text(environment: &Environment, names: [&'static str; 2]) -> Result<Option<(&'static str, String)>, Problem> {
    let found = names.into_iter().find_map(|name| Some((name, environment.variable(name)?)));
    let Some((name, value)) = found else { return Ok(None) };
    let value = value.to_str().ok_or_else(|| wrong(name, "is not valid UTF-8"))?;
    Ok(Some((name, value.trim().to_owned())))
}

fn proxy(environment: &Environment, names: [&'static str; 2]) -> Result<Option<Proxy>, Problem> {
    let Some((variable, value)) = text(environment, names)?.filter(|(_, value)| !value.is_empty()) else {
        return Ok(None);
    };
    let address = if value.contains("://") { value } else { format!("http://{value}") };
    // The value may contain a password, so no message shows it.
    let url = Url::parse(&address).map_err(|error| wrong(variable, &format!("is not a proxy URL: {error}")))?;
    if url.scheme().starts_with("socks") {
        return Err(wrong(variable, "names a SOCKS proxy, which is not supported"));
    }
    let is_address = matches!(url.scheme(), "http" | "https") && url.has_host() && matches!(url.path(), "" | "/");
    if !is_address || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(variable, "is not a proxy URL"));
    }
    Ok(Some(Proxy { variable, url }))
}

fn wrong(variable: &str, what: &str) -> Problem {
    Problem::new(
        format!("environment variable {variable}"),
        format!("{what}: set it to http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, or unset it"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Proxies, Vec<String>) {
        let environment: Environment = pairs.iter().copied().collect();
        let mut problems = Vec::new();
        let proxies = Proxies::read(&environment, &mut problems);
        (proxies, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_are_read_as_curl_reads_them() {
        for (pairs, https) in [
            (&[][..], None),
            (&[("HTTPS_PROXY", "")], None),
            (&[("https_proxy", "proxy:3128")], Some("http://proxy:3128 (https_proxy)")),
            (&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:2")], Some("http://a:1 (HTTPS_PROXY)")),
            (&[("ALL_PROXY", " https://all:8443/ ")], Some("https://all:8443 (ALL_PROXY)")),
            (&[("HTTP_PROXY", "http://plain:1")], None),
        ] {
            let (proxies, problems) = read(pairs);
            assert_eq!(proxies.https.map(|proxy| proxy.to_string()).as_deref(), https, "{pairs:?}");
            assert_eq!(problems, [""; 0], "{pairs:?}");
        }
    }

    #[test]
    fn malformed_variable_is_refused_without_its_value() {
        for value in [
            "http://mallory:s3cret@proxy:port",
            "http//mallory:s3cret@proxy:3128",
            "socks5://mallory:s3cret@proxy:1080",
            "http://mallory:s3cret@proxy:3128/pac",
            "http://mallory:s3cret@",
            "ftp://mallory:s3cret@proxy",
        ] {
            let (_, problems) = read(&[("HTTP_PROXY", value)]);
            assert_eq!(problems.len(), 1, "{value}");
            let problem = &problems[0];
            assert!(problem.contains("HTTP_PROXY") && problem.contains("http://HOST:PORT"), "{problem}");
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }

    #[test]
    fn password_is_hidden_and_loopback_bypassed() {
        let (proxies, _) = read(&[("HTTPS_PROXY", "http://mallory:s3cret@proxy:3128"), ("no_proxy", "intern.example")]);
        assert_eq!(proxies.bypass, "intern.example,localhost,127.0.0.0/8,::1");
        let proxy = proxies.https.clone().unwrap();
        assert_eq!(proxy.to_string(), "http://mallory:***@proxy:3128 (HTTPS_PROXY)");
        assert!(!format!("{proxies:?}").contains("s3cret"));
        assert_eq!(proxy.url().password(), Some("s3cret"));
    }
}
