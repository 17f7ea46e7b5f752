//! Builds the engine from the configuration: the one place that connects the modules.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use super::{Error, dry_run};
use crate::alert::Alert;
use crate::auth0::{self, Auth0, Auth0Options, ShippedAction};
use crate::config::{self, Auth0Credentials, Config, Dpop, Listen, OktaCredentials};
use crate::domain::{Clock, Rules};
use crate::engine::{Engine, Options};
use crate::http::jws::SigningKey;
use crate::http::pacing::{Pacer, Shares};
use crate::http::{Http, HttpOptions, ProxyOptions, Route, Timeouts};
use crate::monitor::{ListenAddress, Monitor};
use crate::okta::{self, DpopMode, Okta, OktaOptions};
use crate::store::{Access, Binding, GuardWindow, Opened, Store, StoreError};

/// The `User-Agent` header of every request.
pub(crate) const USER_AGENT: &str = concat!("okta-auth0-sync/", env!("CARGO_PKG_VERSION"));

/// Loops that make calls in addition to the concurrent looks: poller, reconciler, Action watch, and a token request.
const LOOPS: usize = 5;

/// Both clients and their pacers.
pub(crate) struct Clients {
    /// The Okta org.
    pub(crate) okta: (Okta, Pacer),
    /// The Auth0 tenant.
    pub(crate) auth0: (Auth0, Pacer),
}

/// The notifier, if a webhook or heartbeat is configured.
///
/// # Errors
/// When a URL cannot be read.
pub(crate) fn alert(config: &Config) -> Result<Option<Alert>, Error> {
    let read =
        |address: &Option<config::Secret>| address.as_ref().map(config::Secret::read).transpose().map_err(secret);
    let (webhook, heartbeat) = (read(&config.alert.webhook_url)?, read(&config.alert.heartbeat_url)?);
    if webhook.is_none() && heartbeat.is_none() {
        return Ok(None);
    }
    Ok(Some(Alert::new(http(config)?, webhook, heartbeat)))
}

/// Reads the secrets and creates the clients. Sends no request yet.
///
/// # Errors
/// When a secret or a certificate cannot be used.
pub(crate) fn clients(config: &Config, clock: &Arc<dyn Clock>) -> Result<Clients, Error> {
    Ok(Clients { okta: okta(config, clock)?, auth0: auth0(config, clock)? })
}

/// A client for the org, and its pacer.
///
/// # Errors
/// As [`clients`].
pub(crate) fn okta(config: &Config, clock: &Arc<dyn Clock>) -> Result<(Okta, Pacer), Error> {
    let limits = config.limits;
    let pacer = Pacer::okta(Shares { ours: limits.okta_share, reconcile: limits.reconcile_share });
    let options = OktaOptions { url: config.okta.url.clone(), credentials: okta_credentials(config)? };
    Ok((Okta::new(options, http(config)?, Arc::new(pacer.clone()), clock.clone()), pacer))
}

/// A client for the tenant, and its pacer.
///
/// # Errors
/// As [`clients`].
pub(crate) fn auth0(config: &Config, clock: &Arc<dyn Clock>) -> Result<(Auth0, Pacer), Error> {
    let limits = config.limits;
    let pacer = Pacer::auth0(Shares { ours: limits.auth0_share, reconcile: limits.reconcile_share });
    let options = Auth0Options {
        url: config.auth0.url.clone(),
        audience: config.auth0.audience.clone(),
        credentials: auth0_credentials(config)?,
        keys: config.auth0.keys.clone(),
    };
    Ok((Auth0::new(options, http(config)?, Arc::new(pacer.clone()), clock.clone()), pacer))
}

/// The HTTP client.
///
/// # Errors
/// When `[tls] ca_file` cannot be read or holds no certificate.
pub(crate) fn http(config: &Config) -> Result<Http, Error> {
    let ca_file = config.tls.certificates().map_err(secret)?.map(String::into_bytes);
    let proxies = &config.proxies;
    let address = |proxy: &Option<config::Proxy>| proxy.as_ref().map(|proxy| proxy.url().as_str().to_owned().into());
    let options = HttpOptions {
        ca_file,
        user_agent: USER_AGENT.to_owned(),
        connections: config.engine.concurrency + LOOPS,
        timeouts: Timeouts::default(),
        proxies: ProxyOptions {
            https: address(&proxies.https),
            http: address(&proxies.http),
            bypass: proxies.bypass.clone(),
        },
        route: Route {
            proxy: proxies.https.as_ref().map(ToString::to_string),
            ca_file: config.tls.ca_file.as_ref().map(|file| file.display().to_string()),
        },
    };
    Http::new(&options).map_err(|error| Error::Setup(chain(&error)))
}

fn okta_credentials(config: &Config) -> Result<okta::Credentials, Error> {
    Ok(match &config.okta.credentials {
        OktaCredentials::ApiToken(token) => okta::Credentials::ApiToken(token.read().map_err(secret)?),
        OktaCredentials::PrivateKey { client_id, key, key_id, dpop } => okta::Credentials::PrivateKeyJwt {
            client_id: client_id.clone(),
            key: signing_key(key)?,
            key_id: key_id.clone(),
            dpop: match dpop {
                Dpop::Auto => DpopMode::Auto,
                Dpop::Always => DpopMode::Always,
                Dpop::Never => DpopMode::Never,
            },
        },
    })
}

fn auth0_credentials(config: &Config) -> Result<auth0::Credentials, Error> {
    let client_id = config.auth0.client_id.clone();
    Ok(match &config.auth0.credentials {
        Auth0Credentials::ClientSecret(client_secret) => {
            if let Some(oddity) = client_secret.oddity() {
                warn!(event = "secret_odd", "{oddity}");
            }
            auth0::Credentials::Secret { client_id, client_secret: client_secret.read().map_err(secret)? }
        }
        Auth0Credentials::PrivateKey { key, key_id } => {
            auth0::Credentials::PrivateKeyJwt { client_id, key: signing_key(key)?, key_id: key_id.clone() }
        }
    })
}

/// Reads a private key.
///
/// # Errors
/// When the secret cannot be read, or is not a key that we can sign with.
pub(crate) fn signing_key(key: &config::Secret) -> Result<SigningKey, Error> {
    use secrecy::ExposeSecret;
    let text = key.read().map_err(secret)?;
    SigningKey::parse(text.expose_secret()).map_err(|error| Error::Setup(format!("{}: {error}", key.origin())))
}

fn secret(problem: config::Problem) -> Error {
    Error::Setup(problem.to_string())
}

/// An error with its chain of causes.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// The Action for this configuration.
pub(crate) fn shipped_action(config: &Config) -> ShippedAction {
    ShippedAction::new(&config.auth0.action_message, &config.auth0.keys.current)
}

/// The tenants that the state is bound to.
pub(crate) fn binding(config: &Config) -> Binding {
    let origin = |url: &url::Url| url.origin().ascii_serialization();
    Binding {
        okta_url: origin(&config.okta.url),
        auth0_url: origin(&config.auth0.url),
        auth0_audience: config.auth0.audience.clone(),
        enforce: config.engine.enforce,
        policy: policy_fingerprint(config),
        former_keys: config.auth0.keys.former.clone(),
    }
}

/// What decisions depend on.
fn rules(config: &Config) -> Rules {
    Rules {
        policy: config.policy.clone(),
        mark: config.auth0.mark,
        connections: config.auth0.connections.clone(),
        require_verified_email: config.auth0.require_verified_email,
        trusted_connections: config.auth0.trusted_connections.clone(),
        end_sessions: config.auth0.end_sessions,
    }
}

/// Identifies everything that determines which accounts are denied and what a mark contains.
pub(crate) fn policy_fingerprint(config: &Config) -> String {
    format!("{} {}", rules(config).fingerprint(), config.auth0.keys.fingerprint())
}

/// The guard of the configuration.
pub(crate) fn guard(config: &Config) -> GuardWindow {
    GuardWindow { denials_max: config.guard.max_denials, span: config.guard.window }
}

/// The engine's options from the configuration.
pub(crate) fn options(config: &Config) -> Options {
    Options {
        rules: rules(config),
        action: shipped_action(config),
        search: config.auth0.search,
        enforce: config.engine.enforce,
        concurrency: config.engine.concurrency,
        max_attempts: config.engine.max_attempts,
        guard: guard(config),
        initial_lookback: config.okta.initial_lookback,
        events: config.auth0.events,
        directory: config.okta.directory,
        retention: config.store.retention,
        okta_url: config.okta.url.origin().ascii_serialization(),
    }
}

/// Opens and locks the state, and builds the engine on it.
///
/// # Errors
/// When the state is in use, belongs to other tenants or cannot be used, or when a secret cannot be used.
pub(crate) async fn engine(config: &Config, clock: &Arc<dyn Clock>) -> Result<Engine, Error> {
    let clients = clients(config, clock)?;
    let (store, opened) = Store::open(&config.store.path, &binding(config), clock.now()).await?;
    log_opened(config, &store, &opened);
    let engine = Engine::new(clients.okta, clients.auth0, Arc::new(store), clock.clone(), options(config));
    engine.apply_config_changes(&opened).await?;
    Ok(engine)
}

/// An engine on a copy of the state that writes nothing to Auth0, for `--dry-run`. Dropping the folder deletes the copy.
///
/// # Errors
/// As [`engine`], but a state in use is allowed.
pub(crate) async fn dry_run_engine(
    config: &Config,
    clock: &Arc<dyn Clock>,
) -> Result<(Engine, dry_run::Folder), Error> {
    let clients = clients(config, clock)?;
    let folder = dry_run::Folder::create(&config.store.path)?;
    let copy = folder.state();
    match Store::open_beside(&config.store.path, Access::Read).await {
        Ok(state) => {
            state.backup(&copy).await?;
            state.close().await;
        }
        Err(StoreError::Missing { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let (store, opened) = Store::open(&copy, &binding(config), clock.now()).await?;
    // A dry run does not list the whole org, since it could not store the result.
    let options = Options { enforce: false, directory: false, ..options(config) };
    let engine = Engine::new(clients.okta, clients.auth0, Arc::new(store), clock.clone(), options).for_dry_run();
    engine.apply_config_changes(&opened).await?;
    Ok((engine, folder))
}

/// Opens the state read-only.
///
/// # Errors
/// If there is no state yet, or it has another schema version.
pub(crate) async fn state(path: &Path) -> Result<Store, Error> {
    Ok(Store::open_beside(path, Access::Read).await?)
}

fn log_opened(config: &Config, store: &Store, opened: &Opened) {
    if opened.created {
        info!(event = "state_created", path = %store.path().display(), "created a new state; reading the System Log from {} ago",
            humantime::format_duration(config.okta.initial_lookback));
    }
    if let Some(copy) = &opened.migrated_from {
        info!(event = "migrated", copy = %copy.display(), "migrated the state; kept a copy of the previous version");
    }
    if opened.group_can_write {
        warn!(event = "folder_writable", path = %store.path().display(), "a group can write the state's folder: `chmod g-w` it, so that no other user can replace the state");
    }
    if opened.tightened {
        warn!(event = "tightened", path = %store.path().display(), "the state was readable by other users; changed its mode to 0600");
    }
}

/// Binds the server of `[http] listen`.
///
/// # Errors
/// When the place is taken or cannot be used.
pub(crate) async fn monitor(listen: &Listen) -> Result<Monitor, Error> {
    let (place, address) = match listen {
        Listen::Tcp(address) => (address.to_string(), ListenAddress::Tcp(*address)),
        Listen::Unix { path, .. } => {
            let group = listen.group_id().map_err(secret)?;
            (path.display().to_string(), ListenAddress::Unix { path: path.clone(), group })
        }
    };
    Monitor::bind(&address)
        .await
        .map_err(|error| Error::Setup(format!("[http] listen: cannot listen on {place}: {error}")))
}
