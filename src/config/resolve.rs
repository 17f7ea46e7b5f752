//! Turns the raw configuration into the validated one: the rules that involve more than one key.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use url::Url;

use super::environment::Environment;
use super::raw::{self, Raw, variable_of};
use super::secret::{Kind, Secret};
use super::value::{InlineSecret, MarkTarget, MatchName, OptionalPath, Origin, Span, Text};
use super::{
    AlertConfig, Auth0Config, Auth0Credentials, Config, EngineConfig, GuardConfig, HttpConfig, LimitsConfig, Listen,
    LogConfig, OktaConfig, OktaCredentials, Problem, Proxies, ScheduleConfig, StoreConfig, TlsConfig, excerpt,
};
use crate::domain::event::transitions_of;
use crate::domain::mark::{MarkOptions, MetadataKeys};
use crate::domain::{DenialsMax, MatchBy, Policy, Status};

/// Okta refuses a `since` older than 180 days (Okta docs: "System Log query", errors); one day of margin.
const LOOKBACK_MAX: Duration = Span::from_days(179).0;

/// Okta keeps its log for 90 days (Okta docs: "System Log query", data retention).
const LOG_RETENTION: Duration = Span::from_days(90).0;

/// Okta's smallest plan allows one credential ten System Log requests a minute; more are refused.
const POLL_PERIOD_MIN: Duration = Duration::from_secs(6);

/// Okta's domains, other than custom ones.
const OKTA_DOMAINS: &[&str] = &["okta.com", "oktapreview.com", "okta-emea.com", "okta-gov.com", "okta.mil"];

/// Auth0's domains, other than custom ones.
const AUTH0_DOMAINS: &[&str] = &["auth0.com", "auth0app.com"];

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Span::from_days(1).0;

/// Parses and validates the configuration.
pub(super) fn resolve(
    text: &str,
    source_name: &str,
    base: &Path,
    environment: &Environment,
) -> Result<Config, Vec<Problem>> {
    let mut raw = parse(text, source_name).map_err(|problem| vec![problem])?;
    let from_environment = raw.overlay(environment)?;
    Resolver { base, environment, from_environment, problems: Vec::new(), warnings: Vec::new() }.config(raw)
}

/// The keys of secrets that are inline in `text`.
pub(super) fn inline_secrets(text: &str) -> Vec<&'static str> {
    let Ok(raw) = parse(text, "") else { return Vec::new() };
    [
        ("okta.api_token", raw.okta.api_token.is_some()),
        ("okta.oauth.private_key", raw.okta.oauth.private_key.is_some()),
        ("auth0.client_secret", raw.auth0.client_secret.is_some()),
        ("auth0.private_key", raw.auth0.private_key.is_some()),
        ("alert.webhook_url", raw.alert.webhook_url.is_some()),
        ("alert.heartbeat_url", raw.alert.heartbeat_url.is_some()),
    ]
    .into_iter()
    .filter_map(|(key, inline)| inline.then_some(key))
    .collect()
}

/// Parses `text`; an error has its line, column, key and a caret.
pub(super) fn parse(text: &str, source_name: &str) -> Result<Raw, Problem> {
    let syntax = |error: &toml::de::Error, key: &str| excerpt::problem(text, source_name, error, key);
    let deserializer = toml::Deserializer::parse(text).map_err(|error| syntax(&error, ""))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let key = error.path().to_string();
        syntax(error.inner(), if key == "." { "" } else { &key })
    })
}

struct Resolver<'a> {
    base: &'a Path,
    environment: &'a Environment,
    from_environment: Vec<&'static str>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Resolver<'_> {
    fn config(mut self, raw: Raw) -> Result<Config, Vec<Problem>> {
        let policy = Policy {
            match_by: self.match_by(&raw.auth0.r#match.0),
            deny_statuses: raw.okta.deny_statuses.0.iter().map(|name| name.0.clone()).collect(),
            email_domains: raw.scope.email_domains.0.into_iter().map(|name| name.0).collect(),
            exempt: raw.scope.exempt.0.into_iter().map(|exempt| exempt.0).collect(),
        };
        self.check_statuses(&policy.deny_statuses);
        if matches!(raw.guard.max_denials.0, DenialsMax::Share(_)) && !raw.okta.directory {
            self.wrong(
                "guard.max_denials",
                "a share of the known users needs okta.directory = true, which lists all users; give a number instead",
            );
        }
        let okta = self.okta(raw.okta);
        let auth0 = self.auth0(raw.auth0);
        if raw.schedule.poll.period() < POLL_PERIOD_MIN {
            self.warn("schedule.poll", "polls more often than Okta's smallest plan allows (ten times a minute)");
        }
        self.within("guard.window", raw.guard.window.0, MINUTE, DAY * 30);
        self.within("store.retention", raw.store.retention.0, DAY, DAY * 36_500);
        let proxies = Proxies::read(self.environment, &mut self.problems);
        let alert = AlertConfig {
            webhook_url: self.secret(
                "alert.webhook_url",
                Kind::Address,
                raw.alert.webhook_url,
                &raw.alert.webhook_url_file,
            ),
            heartbeat_url: self.secret(
                "alert.heartbeat_url",
                Kind::Address,
                raw.alert.heartbeat_url,
                &raw.alert.heartbeat_url_file,
            ),
        };
        let listen = self.listen(raw.http);
        self.check_path("store.path", &raw.store.path.0);
        let (Some(okta), Some(auth0), true) = (okta, auth0, self.problems.is_empty()) else {
            return Err(self.problems);
        };
        Ok(Config {
            file: None,
            okta,
            auth0,
            policy,
            schedule: ScheduleConfig { poll: raw.schedule.poll, reconcile: raw.schedule.reconcile },
            engine: EngineConfig {
                enforce: raw.engine.enforce,
                concurrency: raw.engine.concurrency.0 as usize,
                max_attempts: raw.engine.max_attempts.0,
            },
            limits: LimitsConfig {
                okta_share: raw.limits.okta_share.0,
                auth0_share: raw.limits.auth0_share.0,
                reconcile_share: raw.limits.reconcile_share.0,
            },
            guard: GuardConfig { max_denials: raw.guard.max_denials.0, window: raw.guard.window.0 },
            store: StoreConfig { path: self.base.join(raw.store.path.0), retention: raw.store.retention.0 },
            log: LogConfig { format: raw.log.format, filter: raw.log.filter.0 },
            tls: TlsConfig { ca_file: raw.tls.ca_file.0.map(|path| self.base.join(path)) },
            alert,
            http: HttpConfig { listen },
            proxies,
            warnings: self.warnings,
        })
    }

    fn okta(&mut self, raw: raw::Okta) -> Option<OktaConfig> {
        self.within("okta.initial_lookback", raw.initial_lookback.0, Duration::ZERO, LOOKBACK_MAX);
        if raw.initial_lookback.0 > LOG_RETENTION {
            self.warn("okta.initial_lookback", "reaches further back than Okta keeps its log (90 days)");
        }
        if !raw.directory {
            self.warn(
                "okta.directory",
                "is false: an account of a user who is renamed before they leave stays open if it has the old address",
            );
        }
        let url = self.origin("okta.url", raw.url, "https://acme.okta.com");
        if let Some(url) = &url
            && let Some(host) = url.host_str().filter(|host| host.contains("-admin.okta"))
        {
            self.wrong("okta.url", format!("`{host}` is the host of the admin console: leave out `-admin`"));
        }
        self.check_host("okta.url", url.as_ref(), AUTH0_DOMAINS, "of an Auth0 tenant");
        let token = self.secret("okta.api_token", Kind::Token, raw.api_token, &raw.api_token_file);
        let raw::Oauth { client_id, private_key, private_key_file, key_id, dpop } = raw.oauth;
        let oauth = client_id.is_some() || key_id.is_some() || private_key.is_some() || private_key_file.is_some();
        let key = self.secret("okta.oauth.private_key", Kind::PrivateKey, private_key, &private_key_file);
        let credentials = match (token, oauth) {
            (Some(token), false) => OktaCredentials::ApiToken(token),
            (None, true) => {
                let client_id =
                    self.required("okta.oauth.client_id", client_id, "the client id of the service app, 0oa…");
                if key.is_none() {
                    self.wrong(
                        "okta.oauth.private_key",
                        "is missing: set okta.oauth.private_key_file to the app's private key (PEM or JWK)",
                    );
                }
                OktaCredentials::PrivateKey { client_id: client_id?, key: key?, key_id: key_id.map(|id| id.0), dpop }
            }
            (Some(_), true) => {
                self.wrong("okta", "has two credentials, api_token and [okta.oauth]: keep one (better: [okta.oauth])");
                return None;
            }
            (None, false) => {
                // An invalid secret has been reported already.
                if !self.problems.iter().any(|problem| problem.subject.contains("okta.api_token")) {
                    self.wrong(
                        "okta",
                        "has no credential: set one of api_token_file or api_token (an API token), or client_id and \
                         private_key_file in [okta.oauth] (a service app)",
                    );
                }
                return None;
            }
        };
        Some(OktaConfig { url: url?, credentials, initial_lookback: raw.initial_lookback.0, directory: raw.directory })
    }

    fn match_by(&mut self, names: &[MatchName]) -> MatchBy {
        if names.is_empty() {
            self.wrong("auth0.match", "must contain \"email\" or \"okta_id\": otherwise no account is found");
        }
        MatchBy { email: names.contains(&MatchName::Email), okta_id: names.contains(&MatchName::OktaId) }
    }

    fn auth0(&mut self, raw: raw::Auth0) -> Option<Auth0Config> {
        let url = self.origin("auth0.url", raw.url, "https://acme.eu.auth0.com");
        self.check_host("auth0.url", url.as_ref(), OKTA_DOMAINS, "of an Okta org");
        let client_id =
            self.required("auth0.client_id", raw.client_id, "the client id of the machine-to-machine application");
        let secret = self.secret("auth0.client_secret", Kind::Password, raw.client_secret, &raw.client_secret_file);
        let key = self.secret("auth0.private_key", Kind::PrivateKey, raw.private_key, &raw.private_key_file);
        if key.is_none() && raw.key_id.is_some() {
            self.wrong(
                "auth0.key_id",
                "belongs to a private key, but none is set: set private_key_file, or remove key_id",
            );
        }
        let credentials = match (secret, key) {
            (Some(secret), None) => Some(Auth0Credentials::ClientSecret(secret)),
            (None, Some(key)) => Some(Auth0Credentials::PrivateKey { key, key_id: raw.key_id.map(|id| id.0) }),
            (Some(_), Some(_)) => {
                self.wrong("auth0", "has two credentials, client_secret and private_key: keep one");
                None
            }
            (None, None) => {
                let reported = |problem: &Problem| {
                    problem.subject.contains("auth0.client_secret") || problem.subject.contains("auth0.private_key")
                };
                if !self.problems.iter().any(reported) {
                    self.wrong(
                        "auth0",
                        "has no credential: set one of client_secret_file or client_secret (the application's secret), \
                         or private_key_file or private_key (its key)",
                    );
                }
                None
            }
        };
        if !raw.write_to.0.contains(&MarkTarget::AppMetadata) {
            self.wrong(
                "auth0.write_to",
                "must contain \"app_metadata\": users can edit user_metadata, so it alone cannot deny them",
            );
        }
        match (raw.require_verified_email, raw.trusted_connections.0.is_empty()) {
            (true, true) => self.warn(
                "auth0.require_verified_email",
                "leaves accounts of enterprise connections (SAML, OIDC, …) open: Auth0 does not verify their addresses; \
                 list the connections whose identity provider you trust in auth0.trusted_connections",
            ),
            (false, false) => {
                self.warn("auth0.trusted_connections", "has no effect without auth0.require_verified_email = true");
            }
            _ => {}
        }
        let former: Vec<String> = raw.former_metadata_keys.0.into_iter().map(|key| key.0).collect();
        if former.contains(&raw.metadata_key.0) {
            self.wrong(
                "auth0.former_metadata_keys",
                "contains auth0.metadata_key: list only keys that you used before",
            );
        }
        let url = url?;
        let audience = raw.audience.map_or_else(|| format!("{url}api/v2/"), |text| text.0);
        if !audience.ends_with("/api/v2/") {
            self.warn(
                "auth0.audience",
                "does not end with `/api/v2/`, as the identifier of Auth0's Management API does",
            );
        }
        Some(Auth0Config {
            url,
            audience,
            client_id: client_id?,
            credentials: credentials?,
            connections: raw.connections.0.into_iter().map(|name| name.0).collect(),
            require_verified_email: raw.require_verified_email,
            trusted_connections: raw.trusted_connections.0.into_iter().map(|name| name.0).collect(),
            events: raw.events.0,
            search: raw.search,
            mark: MarkOptions { mirror: raw.write_to.0.contains(&MarkTarget::UserMetadata), block: raw.block },
            keys: MetadataKeys { current: raw.metadata_key.0, former },
            action_message: raw.action_message.0,
            end_sessions: raw.end_sessions,
        })
    }

    fn listen(&mut self, raw: raw::Http) -> Option<Listen> {
        let mut listen = raw.listen.0;
        match (&mut listen, raw.socket_group.0) {
            (_, None) => {}
            (Some(Listen::Unix { group, .. }), name) => *group = name,
            (Some(Listen::Tcp(_)) | None, Some(_)) => {
                self.warn("http.socket_group", "has no effect: http.listen is not a socket (\"unix:/path\")");
            }
        }
        listen
    }

    /// Only a shell expands `~` and variables; here they would name a folder.
    fn check_path(&mut self, key: &str, path: &str) {
        if path.starts_with('~') || path.contains('$') {
            self.wrong(key, "contains `~` or `$`, which only a shell expands: write the whole path");
        }
    }

    fn check_statuses(&mut self, statuses: &BTreeSet<Status>) {
        if statuses.is_empty() {
            self.wrong("okta.deny_statuses", "is empty: no user would ever be denied");
        }
        if statuses.contains(&Status::Active) {
            self.wrong("okta.deny_statuses", "contains ACTIVE: all users would be denied");
        }
        for status in statuses.iter().filter(|status| **status != Status::Active) {
            if transitions_of(status).is_none() {
                let message =
                    format!("contains {status}: the System Log does not report when a user enters or leaves it");
                self.wrong("okta.deny_statuses", message);
            }
        }
        if statuses.contains(&Status::PasswordExpired) {
            self.warn(
                "okta.deny_statuses",
                "contains PASSWORD_EXPIRED: Okta logs no event when a password expires by its age; such users are denied by \
                 the next reconcile",
            );
        }
        if !statuses.is_empty() && !statuses.contains(&Status::Deprovisioned) {
            self.warn("okta.deny_statuses", "lacks DEPROVISIONED: deactivated users are not denied");
        }
    }

    /// How messages name `key`: with the environment variable if that set it.
    fn subject(&self, key: &str) -> String {
        if self.from_environment.contains(&key) {
            format!("{key} (environment variable {})", variable_of(key))
        } else {
            key.to_owned()
        }
    }

    fn wrong(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(self.subject(key), message));
    }

    fn warn(&mut self, key: &str, message: impl Into<String>) {
        self.warnings.push(Problem::new(self.subject(key), message));
    }

    fn within(&mut self, key: &str, span: Duration, least: Duration, most: Duration) {
        if span < least {
            self.wrong(key, format!("must be at least {}", humantime::format_duration(least)));
        } else if span > most {
            self.wrong(key, format!("must be at most {} days", most.as_secs() / DAY.as_secs()));
        }
    }

    fn origin(&mut self, key: &str, origin: Option<Origin>, example: &str) -> Option<Url> {
        if origin.is_none() {
            self.wrong(key, format!("is missing: set it to the origin of your tenant, such as \"{example}\""));
        }
        origin.map(|origin| origin.0)
    }

    /// Refuses the address of the other kind of tenant.
    fn check_host(&mut self, key: &str, url: Option<&Url>, domains: &[&str], what: &str) {
        let Some(host) = url.and_then(Url::host_str) else { return };
        let within = |domain: &&str| host.strip_suffix(*domain).is_some_and(|rest| rest.ends_with('.'));
        if domains.iter().any(within) {
            self.wrong(key, format!("`{host}` is the address {what}: are okta.url and auth0.url swapped?"));
        }
    }

    fn required(&mut self, key: &str, text: Option<Text>, what: &str) -> Option<String> {
        if text.is_none() {
            self.wrong(key, format!("is missing: set it to {what}"));
        }
        text.map(|text| text.0)
    }

    /// The secret `key`, given inline or as `key_file`.
    fn secret(
        &mut self,
        key: &'static str,
        kind: Kind,
        value: Option<InlineSecret>,
        file: &OptionalPath,
    ) -> Option<Secret> {
        let file_key = format!("{key}_file");
        match (value, &file.0) {
            (Some(_), Some(_)) => {
                self.wrong(key, format!("is given twice, inline and by {file_key}: keep one"));
                None
            }
            (Some(value), None) => {
                let secret = Secret::inline(self.subject(key), kind, value.0);
                // An inline secret can be validated right away.
                match secret.read() {
                    Ok(_) => Some(secret),
                    Err(problem) => {
                        self.problems.push(problem);
                        None
                    }
                }
            }
            (None, Some(file)) => Some(Secret::in_file(
                self.subject(&file_key),
                kind,
                file,
                self.base,
                self.environment.credentials_directory(),
            )),
            (None, None) => None,
        }
    }
}
