//! The configuration as typed: every key with its type and default. Rules about several keys are in `resolve`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use serde::Deserialize;

use super::Schedule;
use super::environment::{Environment, PREFIX, nearest};
use super::problem::Problem;
use super::value::{
    ActionMessage, DomainName, Dpop, Events, Exempt, InlineSecret, List, LogFilter, LogFormat, MarkTarget, MatchName,
    MaxDenials, MetadataKey, OptionalGroup, OptionalListen, OptionalPath, Origin, Setting, Share, Span, StatusName,
    Text, Whole,
};
use crate::domain::{DenialsMax, Status, WatchMode};

/// The name of a key in the file.
macro_rules! name {
    (r#match) => {
        "match"
    };
    ($key:ident) => {
        stringify!($key)
    };
}

/// Defines tables of keys. Each key has a type and a default; a key that must be given is an `Option` without one.
macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident at $path:literal {
        $($key:ident: $type:ty = $default:expr;)*
        $([$sub:ident: $subtable:ident])?
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $table {
            $(pub(super) $key: $type,)*
            $(pub(super) $sub: $subtable,)?
        }

        impl Default for $table {
            fn default() -> Self {
                Self { $($key: $default,)* $($sub: $subtable::default(),)? }
            }
        }

        impl $table {
            fn overlay(&mut self, variables: &mut Variables<'_>) {
                $(variables.set(concat!($path, ".", name!($key)), &mut self.$key);)*
                $(self.$sub.overlay(variables);)?
            }

            /// Every key with its value, in debug form.
            #[cfg(test)]
            fn list(&self, into: &mut Vec<(&'static str, String)>) {
                $(into.push((concat!($path, ".", name!($key)), format!("{:?}", self.$key)));)*
                $(self.$sub.list(into);)?
            }
        }
        )*

        /// Every key.
        pub(super) const KEYS: &[&str] = &[$($(concat!($path, ".", name!($key)),)*)*];
        /// The last part of every key.
        const NAMES: &[&str] = &[$($(name!($key),)*)*];
    };
}

tables! {
    /// `[okta]`
    Okta at "okta" {
        url: Option<Origin> = None;
        deny_statuses: List<StatusName> = List(vec![StatusName(Status::Deprovisioned), StatusName(Status::Deleted)]);
        initial_lookback: Span = Span::from_days(7);
        directory: bool = true;
        api_token: Option<InlineSecret> = None;
        api_token_file: OptionalPath = OptionalPath::default();
        [oauth: Oauth]
    }

    /// `[okta.oauth]`
    Oauth at "okta.oauth" {
        client_id: Option<Text> = None;
        private_key: Option<InlineSecret> = None;
        private_key_file: OptionalPath = OptionalPath::default();
        key_id: Option<Text> = None;
        dpop: Dpop = Dpop::Auto;
    }

    /// `[auth0]`
    Auth0 at "auth0" {
        url: Option<Origin> = None;
        audience: Option<Text> = None;
        client_id: Option<Text> = None;
        client_secret: Option<InlineSecret> = None;
        client_secret_file: OptionalPath = OptionalPath::default();
        private_key: Option<InlineSecret> = None;
        private_key_file: OptionalPath = OptionalPath::default();
        key_id: Option<Text> = None;
        r#match: List<MatchName> = List(vec![MatchName::Email, MatchName::OktaId]);
        connections: List<Text> = List(Vec::new());
        require_verified_email: bool = false;
        trusted_connections: List<Text> = List(Vec::new());
        search: bool = true;
        write_to: List<MarkTarget> = List(vec![MarkTarget::AppMetadata, MarkTarget::UserMetadata]);
        metadata_key: MetadataKey = MetadataKey("okta_sync".to_owned());
        former_metadata_keys: List<MetadataKey> = List(Vec::new());
        action_message: ActionMessage = ActionMessage("account_deactivated".to_owned());
        block: bool = false;
        end_sessions: bool = false;
        events: Events = Events(WatchMode::Auto);
    }

    /// `[scope]`
    Scope at "scope" {
        email_domains: List<DomainName> = List(Vec::new());
        exempt: List<Exempt> = List(Vec::new());
    }

    /// `[schedule]`
    Schedules at "schedule" {
        poll: Schedule = Schedule::built_in("*/15 * * * * *");
        reconcile: Schedule = Schedule::built_in("0 0 3 * * *");
    }

    /// `[engine]`
    Engine at "engine" {
        enforce: bool = true;
        concurrency: Whole<1, 64> = Whole(4);
        max_attempts: Whole<1, 1000> = Whole(12);
    }

    /// `[limits]`
    Limits at "limits" {
        okta_share: Share = Share(0.9);
        auth0_share: Share = Share(0.8);
        reconcile_share: Share = Share(0.25);
    }

    /// `[guard]`
    Guard at "guard" {
        max_denials: MaxDenials = MaxDenials(DenialsMax::Users(200));
        window: Span = Span::from_hours(1);
    }

    /// `[store]`
    Store at "store" {
        path: Text = Text("/var/lib/okta-auth0-sync/state.db".to_owned());
        retention: Span = Span::from_days(400);
    }

    /// `[log]`
    Log at "log" {
        format: LogFormat = LogFormat::Auto;
        filter: LogFilter = LogFilter("info".to_owned());
    }

    /// `[tls]`
    Tls at "tls" {
        ca_file: OptionalPath = OptionalPath::default();
    }

    /// `[alert]`
    Alert at "alert" {
        webhook_url: Option<InlineSecret> = None;
        webhook_url_file: OptionalPath = OptionalPath::default();
        heartbeat_url: Option<InlineSecret> = None;
        heartbeat_url_file: OptionalPath = OptionalPath::default();
    }

    /// `[http]`
    Http at "http" {
        listen: OptionalListen = OptionalListen::default();
        socket_group: OptionalGroup = OptionalGroup::default();
    }
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) okta: Okta,
    pub(super) auth0: Auth0,
    pub(super) scope: Scope,
    pub(super) schedule: Schedules,
    pub(super) engine: Engine,
    pub(super) limits: Limits,
    pub(super) guard: Guard,
    pub(super) store: Store,
    pub(super) log: Log,
    pub(super) tls: Tls,
    pub(super) alert: Alert,
    pub(super) http: Http,
}

impl Raw {
    /// Overrides the file with the environment. Returns the keys that came from the environment.
    ///
    /// # Errors
    /// Lists each variable with our prefix that does not name a key or has an invalid value.
    pub(super) fn overlay(&mut self, environment: &Environment) -> Result<Vec<&'static str>, Vec<Problem>> {
        let mut variables = Variables {
            left: environment.settings().collect(),
            known: Vec::new(),
            set: Vec::new(),
            problems: Vec::new(),
        };
        self.okta.overlay(&mut variables);
        self.auth0.overlay(&mut variables);
        self.scope.overlay(&mut variables);
        self.schedule.overlay(&mut variables);
        self.engine.overlay(&mut variables);
        self.limits.overlay(&mut variables);
        self.guard.overlay(&mut variables);
        self.store.overlay(&mut variables);
        self.log.overlay(&mut variables);
        self.tls.overlay(&mut variables);
        self.alert.overlay(&mut variables);
        self.http.overlay(&mut variables);
        let Variables { left, known, set, mut problems } = variables;
        problems.extend(left.into_keys().map(|name| unknown_variable(name, &known)));
        self.displace(&set);
        if problems.is_empty() { Ok(set) } else { Err(problems) }
    }

    /// A secret from the environment replaces the other form of the same secret in the file.
    fn displace(&mut self, set: &[&'static str]) {
        let Self { okta: Okta { api_token, api_token_file, oauth, .. }, auth0, alert, .. } = self;
        for (key, value, file) in [
            ("okta.api_token", api_token, api_token_file),
            ("okta.oauth.private_key", &mut oauth.private_key, &mut oauth.private_key_file),
            ("auth0.client_secret", &mut auth0.client_secret, &mut auth0.client_secret_file),
            ("auth0.private_key", &mut auth0.private_key, &mut auth0.private_key_file),
            ("alert.webhook_url", &mut alert.webhook_url, &mut alert.webhook_url_file),
            ("alert.heartbeat_url", &mut alert.heartbeat_url, &mut alert.heartbeat_url_file),
        ] {
            let from_environment = |key: &str| set.contains(&key);
            match (from_environment(key), from_environment(&format!("{key}_file"))) {
                (true, false) => *file = OptionalPath::default(),
                (false, true) => *value = None,
                (true, true) | (false, false) => {}
            }
        }
    }

    /// Does `text` contain the key of a secret?
    pub(super) fn names_secret(text: &str) -> bool {
        NAMES.iter().filter_map(|name| name.strip_suffix("_file")).any(|secret| secret != "ca" && text.contains(secret))
    }

    /// May the value of the key that ends in `name` be shown? Not if it is a secret or the key is unknown: it may be a
    /// misspelt secret.
    pub(super) fn is_open(name: &str) -> bool {
        NAMES.contains(&name) && !NAMES.contains(&format!("{name}_file").as_str())
    }

    /// Every key with its value, in debug form.
    #[cfg(test)]
    pub(super) fn list(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        self.okta.list(&mut all);
        self.auth0.list(&mut all);
        self.scope.list(&mut all);
        self.schedule.list(&mut all);
        self.engine.list(&mut all);
        self.limits.list(&mut all);
        self.guard.list(&mut all);
        self.store.list(&mut all);
        self.log.list(&mut all);
        self.tls.list(&mut all);
        self.alert.list(&mut all);
        self.http.list(&mut all);
        all
    }
}

/// The environment variable of a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

/// Refuses a variable that sets no key. Its value may be a secret.
fn unknown_variable(name: &str, known: &[String]) -> Problem {
    let remedy = match nearest(name, known.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean {meant}?"),
        None => "derive the name from the key, such as OKTA_AUTH0_SYNC__OKTA__API_TOKEN for api_token in [okta], or \
                 unset it"
            .to_owned(),
    };
    Problem::new(
        format!("environment variable {}", name.escape_debug()),
        format!("does not name a setting, so it would have no effect: {remedy}"),
    )
}

/// The variables that no key has consumed yet, and the results of the others.
struct Variables<'a> {
    left: BTreeMap<&'a str, &'a OsString>,
    /// The variables of all keys.
    known: Vec<String>,
    set: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Variables<'_> {
    fn set<T: Setting>(&mut self, key: &'static str, setting: &mut T) {
        let name = variable_of(key);
        let value = self.left.remove(name.as_str());
        self.known.push(name);
        let (Some(value), Some(name)) = (value, self.known.last()) else { return };
        let read = value.to_str().ok_or_else(|| "is not valid UTF-8".to_owned()).and_then(T::from_variable);
        match read {
            Ok(value) => {
                *setting = value;
                self.set.push(key);
            }
            Err(message) => self.problems.push(Problem::new(format!("environment variable {name}"), message)),
        }
    }
}
