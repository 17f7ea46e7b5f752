//! Configuration: TOML, environment variables and secret files, resolved into one validated [`Config`].
//!
//! [`raw`] defines every key with its type and default. [`Config`] is what the program uses; it is fully validated,
//! except that a [`Secret`] is read only when it is used. `config.toml` at the top of the repository documents every
//! key; a test compares it with the defaults.

mod environment;
mod excerpt;
mod files;
mod group;
mod problem;
mod proxy;
mod raw;
mod resolve;
mod schedule;
mod secret;
#[cfg(test)]
mod tests;
mod value;
mod wording;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use url::Url;

pub use environment::{Environment, FILE_VARIABLE};
pub use problem::{Error, Problem};
pub use proxy::{Proxies, Proxy};
pub use schedule::Schedule;
pub use secret::Secret;
pub use value::{Dpop, LogFormat};

use crate::domain::mark::{MarkOptions, MetadataKeys};
use crate::domain::{DenialsMax, Policy, WatchMode};

/// Where a package puts the configuration.
const SYSTEM_FILE: &str = "/etc/okta-auth0-sync/config.toml";

/// The configuration in the working directory, for trying the program out.
const LOCAL_FILE: &str = "config.toml";

/// The largest configuration file that is read, in bytes.
const LENGTH_MAX: u64 = 1024 * 1024;

/// The largest file of certificates that is read, in bytes. The system's bundle has a quarter of a megabyte.
const CERTIFICATES_MAX: u64 = 8 * 1024 * 1024;

/// The validated configuration. Its debug form never shows a secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` when only the environment was used.
    pub file: Option<PathBuf>,
    /// `[okta]`, without its `deny_statuses`, which are part of the policy.
    pub okta: OktaConfig,
    /// `[auth0]`
    pub auth0: Auth0Config,
    /// `okta.deny_statuses` and `[scope]`: which users are denied, and which never are.
    pub policy: Policy,
    /// `[schedule]`
    pub schedule: ScheduleConfig,
    /// `[engine]`
    pub engine: EngineConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[guard]`
    pub guard: GuardConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[tls]`
    pub tls: TlsConfig,
    /// `[alert]`
    pub alert: AlertConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// The proxies that the environment names.
    pub proxies: Proxies,
    /// Settings that are valid but look like mistakes.
    pub warnings: Vec<Problem>,
}

/// The Okta org.
#[derive(Clone, Debug)]
pub struct OktaConfig {
    /// Its origin: scheme, host and port.
    pub url: Url,
    /// How we authenticate.
    pub credentials: OktaCredentials,
    /// How far back the first poll reads the System Log. At most 179 days.
    pub initial_lookback: Duration,
    /// Whether every user of the org is listed, at the first start and nightly.
    pub directory: bool,
}

/// How we authenticate to Okta.
#[derive(Clone, Debug)]
pub enum OktaCredentials {
    /// An API token of an administrator (SSWS).
    ApiToken(Secret),
    /// A service app with a private key (`private_key_jwt`).
    PrivateKey {
        /// The app's id, `0oa…`.
        client_id: String,
        /// PEM or JWK.
        key: Secret,
        /// The id of the matching public key.
        key_id: Option<String>,
        /// When access tokens are bound to a key.
        dpop: Dpop,
    },
}

/// The Auth0 tenant.
#[derive(Clone, Debug)]
pub struct Auth0Config {
    /// Its origin: scheme, host and port.
    pub url: Url,
    /// The identifier of its Management API.
    pub audience: String,
    /// The machine-to-machine application.
    pub client_id: String,
    /// How we authenticate as that application.
    pub credentials: Auth0Credentials,
    /// Only accounts with an identity in one of these connections. Empty: all.
    pub connections: Vec<String>,
    /// Only accounts with a verified e-mail address?
    pub require_verified_email: bool,
    /// Connections whose addresses count as verified.
    pub trusted_connections: Vec<String>,
    /// Whether its event stream is watched.
    pub events: WatchMode,
    /// Also use the case-insensitive search?
    pub search: bool,
    /// What is written on an account in addition to `app_metadata`.
    pub mark: MarkOptions,
    /// The key of our object in `app_metadata`.
    pub keys: MetadataKeys,
    /// The error description that applications receive when the Action denies a login.
    pub action_message: String,
    /// Also revoke sessions and refresh tokens?
    pub end_sessions: bool,
}

/// How we authenticate to Auth0.
#[derive(Clone, Debug)]
pub enum Auth0Credentials {
    /// The application's secret.
    ClientSecret(Secret),
    /// The application's key (`private_key_jwt`).
    PrivateKey {
        /// PEM or JWK.
        key: Secret,
        /// The id of the matching public key.
        key_id: Option<String>,
    },
}

/// When the scheduled passes run.
#[derive(Clone, Debug)]
pub struct ScheduleConfig {
    /// Polls of the System Log.
    pub poll: Schedule,
    /// Full reconciles.
    pub reconcile: Schedule,
}

/// How work is done.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Is anything written to Auth0?
    pub enforce: bool,
    /// Concurrent looks, 1 to 64.
    pub concurrency: usize,
    /// Attempts before a look counts as failed, 1 to 1000.
    pub max_attempts: u32,
}

/// Shares of the remotes' rate limits that we use: each more than 0, at most 1.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Of Okta's limits.
    pub okta_share: f64,
    /// Of Auth0's limits.
    pub auth0_share: f64,
    /// Of the above, for reconciles.
    pub reconcile_share: f64,
}

/// The mass-denial limit: keeps a mistake in Okta from locking all users out.
#[derive(Clone, Copy, Debug)]
pub struct GuardConfig {
    /// New denials per window; further ones are held. 0 holds every denial.
    pub max_denials: DenialsMax,
    /// From a minute to 30 days.
    pub window: Duration,
}

/// The state.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long finished records are kept. At least a day.
    pub retention: Duration,
}

/// The log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The format of lines.
    pub format: LogFormat,
    /// Valid directives of tracing's `EnvFilter`.
    pub filter: String,
}

/// Transport security.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// PEM certificates trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

impl TlsConfig {
    /// The certificates of `ca_file`.
    ///
    /// # Errors
    /// When the file cannot be read, is not text, or can be changed by other users, who could add a certificate.
    pub fn certificates(&self) -> Result<Option<String>, Problem> {
        let Some(path) = &self.ca_file else { return Ok(None) };
        let name = path.display();
        let wrong = |message: String| Problem::new("tls.ca_file", message);
        let file = files::open(path).map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
        let metadata = file.metadata().map_err(|error| wrong(format!("cannot read {name}: {error}")))?;
        if let Some(exposure) = files::exposure(path, &metadata) {
            return Err(wrong(format!("{name} {exposure}")));
        }
        files::read_text(file, CERTIFICATES_MAX).map(Some).map_err(|message| wrong(format!("{name} {message}")))
    }
}

/// Where notifications and heartbeats are sent.
#[derive(Clone, Debug)]
pub struct AlertConfig {
    /// Alarms are posted here. A URL, `https` or loopback.
    pub webhook_url: Option<Secret>,
    /// Called after each good pass. A URL, `https` or loopback.
    pub heartbeat_url: Option<Secret>,
}

/// Our HTTP server.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where it listens; `None` disables it.
    pub listen: Option<Listen>,
}

/// Where our HTTP server listens. Never reachable from another machine, because it has no authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A Unix socket, whose file permissions control access.
    Unix {
        /// Its path.
        path: PathBuf,
        /// The group that can use it; `None`: the owner only.
        group: Option<String>,
    },
}

impl Listen {
    /// The number of the socket's group, if one is configured.
    ///
    /// # Errors
    /// When there is no such group.
    pub fn group_id(&self) -> Result<Option<u32>, Problem> {
        let Self::Unix { group: Some(group), .. } = self else { return Ok(None) };
        group::id_of(group).map(Some).map_err(|message| Problem::new("http.socket_group", message))
    }
}

impl Config {
    /// Reads the configuration: `explicit`, else the file that [`FILE_VARIABLE`] names, else
    /// `/etc/okta-auth0-sync/config.toml`, else `./config.toml`; then environment variables override it. Without a file
    /// the environment alone can configure everything.
    ///
    /// # Errors
    /// Lists all problems that can be found without reading secret files.
    pub fn load(explicit: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        let named = explicit.map(Path::to_owned).or_else(|| environment.config_file());
        let (path, text) = match named {
            Some(path) => {
                let text = read(&path).and_then(|text| text.ok_or_else(|| missing(&path)));
                let text = text.map_err(|problem| Error::of(&path, problem))?;
                (path, text)
            }
            None => match first_existing(&[Path::new(SYSTEM_FILE), Path::new(LOCAL_FILE)])? {
                Some(found) => found,
                None if environment.settings().next().is_some() => {
                    return Self::resolve("", None, Path::new("."), environment);
                }
                None => {
                    return Err(Error {
                        source_name: "no file".to_owned(),
                        problems: vec![Problem::new(
                            "configuration",
                            format!(
                                "neither {SYSTEM_FILE} nor ./{LOCAL_FILE} exists: name a file with --config FILE or \
                                 {FILE_VARIABLE}, or set every key with environment variables"
                            ),
                        )],
                    });
                }
            },
        };
        let base = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut config = Self::resolve(&text, Some(&path), base, environment)?;
        config.warnings.extend(exposed_secrets(&path, &text));
        Ok(config)
    }

    /// Reads the configuration from `text`. Relative paths are resolved against `base`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml_str(text: &str, base: &Path, environment: &Environment) -> Result<Self, Error> {
        Self::resolve(text, None, base, environment)
    }

    fn resolve(text: &str, file: Option<&Path>, base: &Path, environment: &Environment) -> Result<Self, Error> {
        let source_name = file.map_or_else(|| "environment".to_owned(), |file| file.display().to_string());
        resolve::resolve(text, &source_name, base, environment)
            .map(|config| Self { file: file.map(Path::to_owned), ..config })
            .map_err(|problems| Error { source_name, problems })
    }

    /// Every secret with its purpose.
    pub fn secrets(&self) -> Vec<(&'static str, &Secret)> {
        let okta = match &self.okta.credentials {
            OktaCredentials::ApiToken(secret) => ("Okta API token", secret),
            OktaCredentials::PrivateKey { key, .. } => ("Okta private key", key),
        };
        let auth0 = match &self.auth0.credentials {
            Auth0Credentials::ClientSecret(secret) => ("Auth0 client secret", secret),
            Auth0Credentials::PrivateKey { key, .. } => ("Auth0 private key", key),
        };
        let webhook = self.alert.webhook_url.as_ref().map(|secret| ("webhook address", secret));
        let heartbeat = self.alert.heartbeat_url.as_ref().map(|secret| ("heartbeat address", secret));
        [Some(okta), Some(auth0), webhook, heartbeat].into_iter().flatten().collect()
    }

    /// A problem for each secret that cannot be used.
    pub fn unusable_secrets(&self) -> Vec<Problem> {
        self.secrets().into_iter().filter_map(|(_, secret)| secret.read().err()).collect()
    }
}

/// Reads the configuration file at `path`. `None`: there is none.
fn read(path: &Path) -> Result<Option<String>, Problem> {
    let name = path.display().to_string();
    let file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "let this user read it",
                _ => "it must be a text file",
            };
            return Err(Problem::new(name, format!("cannot be read: {error}; {remedy}")));
        }
    };
    // It says which users are denied, and where the secrets are.
    match file.metadata().map(|metadata| files::exposure(path, &metadata)) {
        Ok(None) => {}
        Ok(Some(exposure)) => return Err(Problem::new(name, exposure)),
        Err(error) => return Err(Problem::new(name, format!("cannot be read: {error}"))),
    }
    match files::read_text(file, LENGTH_MAX) {
        Ok(text) => Ok(Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))),
        Err(message) => Err(Problem::new(name, message)),
    }
}

fn first_existing(paths: &[&Path]) -> Result<Option<(PathBuf, String)>, Error> {
    for path in paths {
        if let Some(text) = read(path).map_err(|problem| Error::of(path, problem))? {
            return Ok(Some(((*path).to_owned(), text)));
        }
    }
    Ok(None)
}

fn missing(path: &Path) -> Problem {
    let error = io::Error::from(rustix::io::Errno::NOENT);
    let message = format!("cannot be read: {error}; name the file with --config FILE or {FILE_VARIABLE}");
    Problem::new(path.display().to_string(), message)
}

/// Warns if `text` contains secrets and the file is world-readable.
fn exposed_secrets(path: &Path, text: &str) -> Option<Problem> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let keys = resolve::inline_secrets(text);
    (mode & 0o004 != 0 && !keys.is_empty()).then(|| {
        Problem::new(
            keys.join(", "),
            format!(
                "is in a world-readable file: chmod 600 '{}', or move the secret to a separate file",
                path.display()
            ),
        )
    })
}
