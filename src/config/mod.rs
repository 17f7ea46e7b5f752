//! Configuration: TOML, environment variables and secret files, made into one validated [`Config`].
//!
//! What was typed is [`raw`]: every key, its type and its default. What the program needs is [`Config`]: nothing in it
//! can be wrong any more, except that a [`Secret`] is read only when it is used. `config.toml` at the top of the
//! repository documents every key; a test holds it and the defaults together.

mod environment;
mod excerpt;
mod problem;
mod raw;
mod resolve;
mod schedule;
mod secret;
#[cfg(test)]
mod tests;
mod value;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use url::Url;

pub use environment::{Environment, FILE_VARIABLE};
pub use problem::{Error, Problem};
pub use schedule::Schedule;
pub use secret::Secret;
pub use value::{Dpop, LogFormat};

use crate::domain::Policy;
use crate::domain::mark::MarkOptions;

/// Where a package puts the configuration.
const SYSTEM_FILE: &str = "/etc/okta-auth0-sync/config.toml";

/// Where somebody who tries the program has it.
const LOCAL_FILE: &str = "config.toml";

/// The largest file that is taken for a configuration, in bytes.
const LENGTH_MAX: u64 = 1024 * 1024;

/// Everything that is configured, validated. Its debug form shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from; `None` when only the environment was used.
    pub file: Option<PathBuf>,
    /// `[okta]`, without its `deny_statuses`, which are part of the policy.
    pub okta: OktaConfig,
    /// `[auth0]`
    pub auth0: Auth0Config,
    /// `okta.deny_statuses` and `[scope]`: who is denied, and who never is.
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
    /// What is allowed and yet looks like a mistake, one sentence each.
    pub warnings: Vec<Problem>,
}

/// The Okta org.
#[derive(Clone, Debug)]
pub struct OktaConfig {
    /// Its origin: scheme, host and port.
    pub url: Url,
    /// How we prove who we are.
    pub credentials: OktaCredentials,
    /// How far back the log is read at the first start. At most 179 days.
    pub initial_lookback: Duration,
}

/// How we prove to Okta who we are.
#[derive(Clone, Debug)]
pub enum OktaCredentials {
    /// An API token of an administrator (SSWS).
    ApiToken(Secret),
    /// A service app with a key of its own (`private_key_jwt`).
    PrivateKey {
        /// The app's id, `0oa…`.
        client_id: String,
        /// PEM or JWK.
        key: Secret,
        /// Which of the app's public keys belongs to it.
        key_id: Option<String>,
        /// Are tokens bound to a key?
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
    /// How we prove that we are it.
    pub credentials: Auth0Credentials,
    /// Only accounts with an identity in one of these connections. Empty: all.
    pub connections: Vec<String>,
    /// Only accounts whose address Auth0 has verified?
    pub require_verified_email: bool,
    /// Also use the case-insensitive search?
    pub search: bool,
    /// What is written on an account besides the authority in `app_metadata`.
    pub mark: MarkOptions,
    /// The name of our object in `app_metadata`.
    pub metadata_key: String,
    /// What applications are told of a denial by the Action.
    pub action_message: String,
    /// Also end sessions and refresh tokens?
    pub end_sessions: bool,
}

/// How we prove to Auth0 who we are.
#[derive(Clone, Debug)]
pub enum Auth0Credentials {
    /// The application's secret.
    ClientSecret(Secret),
    /// The application's key (`private_key_jwt`).
    PrivateKey {
        /// PEM or JWK.
        key: Secret,
        /// Which of the application's public keys belongs to it.
        key_id: Option<String>,
    },
}

/// When something runs by itself.
#[derive(Clone, Debug)]
pub struct ScheduleConfig {
    /// The log is read.
    pub poll: Schedule,
    /// Everything is compared.
    pub reconcile: Schedule,
}

/// How work is done.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Is anything written to Auth0?
    pub enforce: bool,
    /// Users looked at at the same time, 1 to 64.
    pub concurrency: usize,
    /// Attempts until a user counts as failed, 1 to 1000.
    pub max_attempts: u32,
}

/// How much of what the remotes allow is used: each more than 0, at most 1.
#[derive(Clone, Copy, Debug)]
pub struct LimitsConfig {
    /// Of Okta's limits.
    pub okta_share: f64,
    /// Of Auth0's limits.
    pub auth0_share: f64,
    /// Of the above, by sweeps.
    pub reconcile_share: f64,
}

/// What keeps a mistake in Okta from locking everybody out.
#[derive(Clone, Copy, Debug)]
pub struct GuardConfig {
    /// First denials per window; more are held. 0: each is held.
    pub max_denials: u32,
    /// From a minute to 30 days.
    pub window: Duration,
}

/// The state.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long what is over and done with is kept. At least a day.
    pub retention: Duration,
}

/// The log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Valid directives of tracing's `EnvFilter`.
    pub filter: String,
}

/// Transport security.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// PEM certificates that are trusted besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// Who is told.
#[derive(Clone, Debug)]
pub struct AlertConfig {
    /// Changes of state are posted here. Reads as an address, `https` or loopback.
    pub webhook_url: Option<Secret>,
    /// Asked after each good pass. Reads as an address, `https` or loopback.
    pub heartbeat_url: Option<Secret>,
}

/// Our own HTTP server.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where it listens; nowhere if `None`.
    pub listen: Option<Listen>,
}

/// Where our own HTTP server listens: nowhere that another machine can reach, for it asks nobody who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On a loopback address.
    Tcp(SocketAddr),
    /// On a socket in the file system, whose permissions say who may connect.
    Unix(PathBuf),
}

impl Config {
    /// Reads the configuration: `explicit`, else the file that [`FILE_VARIABLE`] names, else
    /// `/etc/okta-auth0-sync/config.toml`, else `./config.toml`; then the environment over it. Without any file the
    /// environment alone may do.
    ///
    /// # Errors
    /// With everything that is wrong, as far as it can be known without reading secrets.
    pub fn load(explicit: Option<&Path>, environment: &Environment) -> Result<Self, Error> {
        let named = explicit.map(Path::to_owned).or_else(|| environment.config_file());
        let (path, text) = match named {
            Some(path) => match read(&path) {
                Ok(text) => (path, text),
                Err(error) => return Err(unreadable(&path, &error)),
            },
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
                                "there is neither {SYSTEM_FILE} nor ./{LOCAL_FILE}: name one by --config FILE or \
                                 {FILE_VARIABLE}, or set every key by environment variables"
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

    /// Reads the configuration from a text. Relative paths in it are taken from `base`.
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

    /// Every secret, by what it is for.
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

    /// What keeps a secret from being used, for each that cannot be.
    pub fn unusable_secrets(&self) -> Vec<Problem> {
        self.secrets().into_iter().filter_map(|(_, secret)| secret.read().err()).collect()
    }
}

/// Reads at most [`LENGTH_MAX`] bytes of text.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, LENGTH_MAX + 1), &mut text)?;
    if text.len() as u64 > LENGTH_MAX {
        return Err(io::Error::other("it is larger than 1 MiB: no configuration is"));
    }
    Ok(text)
}

fn first_existing(paths: &[&Path]) -> Result<Option<(PathBuf, String)>, Error> {
    for path in paths {
        match read(path) {
            Ok(text) => return Ok(Some(((*path).to_owned(), text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
    Ok(None)
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "name the file by --config FILE or OKTA_AUTH0_SYNC_CONFIG",
        io::ErrorKind::PermissionDenied => "let this user read it",
        _ => "it must be a text file",
    };
    let name = path.display().to_string();
    let problem = Problem::new(&name, format!("cannot be read: {error}; {remedy}"));
    Error { source_name: name, problems: vec![problem] }
}

/// A warning if `text` holds secrets and everybody can read it.
fn exposed_secrets(path: &Path, text: &str) -> Option<Problem> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let keys = resolve::inline_secrets(text);
    (mode & 0o004 != 0 && !keys.is_empty()).then(|| {
        Problem::new(
            keys.join(", "),
            format!(
                "stands in a file that everybody can read: chmod 600 '{}', or keep the secret in a file of its own",
                path.display()
            ),
        )
    })
}
