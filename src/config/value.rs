//! The types of single settings; each rejects invalid values.
//!
//! A text setting implements [`FromStr`], so TOML and environment variables are parsed the same way.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::{Deserialize, Deserializer, Visitor};
use tracing_subscriber::filter::Targets;
use url::{Host, Url};

use super::Listen;
use crate::domain::{Address, DenialsMax, OktaUserId, Status, WatchMode};

/// A setting that an environment variable can hold.
pub(super) trait Setting: Sized {
    /// Parses the value of a variable. The error describes the problem without repeating the value.
    fn from_variable(text: &str) -> Result<Self, String>;
}

/// Parses a TOML string with `T`'s [`FromStr`], so that the caret of an error points at it.
fn text<'de, T, D>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    T: FromStr<Err = String>,
    D: Deserializer<'de>,
{
    struct Text<T>(&'static str, PhantomData<T>);
    impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expecting, PhantomData))
}

/// Implements [`Deserialize`] and [`Setting`] for a [`FromStr`] type.
macro_rules! text_setting {
    ($($type:ty: $expecting:literal;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text(deserializer, $expecting)
            }
        }

        impl Setting for $type {
            fn from_variable(text: &str) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}

text_setting! {
    Origin: "a URL such as \"https://acme.okta.com\"";
    Text: "a string";
    OptionalPath: "a path, or \"\" for none";
    OptionalGroup: "the name of a group, or \"\" for none";
    OptionalListen: "an address and port such as \"127.0.0.1:9465\", or \"\" for none";
    InlineSecret: "a string";
    Span: "a time span such as \"30s\" or \"7days\"";
    StatusName: "a status of Okta";
    DomainName: "a mail domain such as \"example.com\"";
    Exempt: "an e-mail address or an Okta user id";
    MarkTarget: "\"app_metadata\" or \"user_metadata\"";
    MatchName: "\"email\" or \"okta_id\"";
    MetadataKey: "a string";
    ActionMessage: "a string";
    Dpop: "\"auto\", \"always\" or \"never\"";
    Events: "\"auto\", \"always\" or \"never\"";
    LogFormat: "\"auto\", \"text\" or \"json\"";
    LogFilter: "a log filter such as \"info\"";
    super::Schedule: "a schedule such as \"*/15 * * * * *\"";
}

/// The origin of a remote: scheme, host and port, nothing else. `https`, or `http` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin(pub(super) Url);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let url = Url::parse(text).map_err(|error| {
            let full = Url::parse(&format!("https://{text}")).ok().filter(|_| !text.contains("://"));
            let example = full.map_or("https://acme.okta.com".to_owned(), |url| url.origin().ascii_serialization());
            format!("is not a URL ({error}): write it with its scheme, such as \"{example}\"")
        })?;
        require_private_transport(&url)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not contain a user name or password: use the settings for credentials".to_owned());
        }
        if url.host_str() == Some("manage.auth0.com") {
            return Err("is the address of Auth0's dashboard: set it to the tenant's domain, such as \"https://acme.eu.auth0.com\" \
                        (dashboard: Applications, Settings, Domain)"
                .to_owned());
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "must end after the host: write \"{}\", without a path, query or fragment",
                url.origin().ascii_serialization().replace("-admin.okta", ".okta")
            ));
        }
        Ok(Self(url))
    }
}

/// Requires `https://`, or `http://` on loopback: credentials must not cross a network in the clear.
///
/// # Errors
/// Describes the problem and the fix.
pub(super) fn require_private_transport(url: &Url) -> Result<(), String> {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    match (url.scheme(), loopback) {
        ("https", _) | ("http", true) => Ok(()),
        ("http", false) => {
            Err("would send credentials in the clear: use https:// (http:// is for loopback hosts only)".to_owned())
        }
        (other, _) => Err(format!("has the scheme `{other}`: use https://")),
    }
}

/// A string that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl FromStr for Text {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty: set a value or remove the key".to_owned());
        }
        if text.chars().any(char::is_control) {
            return Err("contains a control character".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A path; the empty string means none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionalPath(pub(super) Option<PathBuf>);

impl OptionalPath {
    /// Is a path set?
    pub(super) const fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl FromStr for OptionalPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self((!text.is_empty()).then(|| Path::new(text).to_owned())))
    }
}

/// Where to listen; the empty string means nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionalListen(pub(super) Option<Listen>);

impl FromStr for OptionalListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = Path::new(path);
            return if path.is_absolute() && path.file_name().is_some() {
                Ok(Self(Some(Listen::Unix { path: path.to_owned(), group: None })))
            } else {
                Err("is not the absolute path of a socket: write it like \"unix:/run/okta-auth0-sync/http.sock\""
                    .to_owned())
            };
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            "is not an IP address and a port: write it like \"127.0.0.1:9465\", \"[::1]:9465\" or \"unix:/path\""
                .to_owned()
        })?;
        if !address.ip().is_loopback() {
            return Err(format!(
                "{address} can be reached from other machines, and this server has no authentication: listen on 127.0.0.1, \
                 [::1] or unix:/path, behind a proxy that authenticates"
            ));
        }
        Ok(Self(Some(Listen::Tcp(address))))
    }
}

/// A group of the system, by name or number; the empty string means none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OptionalGroup(pub(super) Option<String>);

impl FromStr for OptionalGroup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains(|c: char| c == ':' || c == ',' || c.is_whitespace() || c.is_control()) {
            return Err("is not the name of a group: write it as in /etc/group, such as \"www-data\"".to_owned());
        }
        Ok(Self((!text.is_empty()).then(|| text.to_owned())))
    }
}

/// An inline secret.
#[derive(Clone, Debug)]
pub(super) struct InlineSecret(pub(super) SecretString);

impl FromStr for InlineSecret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(SecretString::from(text)))
    }
}

/// A duration in the format of humantime: `30s`, `7days`, `1h 30min`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl Span {
    pub(super) const fn from_hours(hours: u64) -> Self {
        Self(Duration::from_secs(hours * 3600))
    }

    pub(super) const fn from_days(days: u64) -> Self {
        Self::from_hours(days * 24)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text.trim()).map(Self).map_err(|error| {
            format!(
                "is not a time span ({error}): write a number and its unit, such as \"30s\", \"15min\" or \"7days\""
            )
        })
    }
}

/// The name of an Okta status, or `DELETED`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusName(pub(super) Status);

impl FromStr for StatusName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Status::parse(&text.trim().to_ascii_uppercase()) {
            Status::Unknown(_) => {
                let known: Vec<&str> = Status::KNOWN.iter().map(Status::as_str).collect();
                Err(format!("`{}` is not an Okta status: use one of {}", text.escape_debug(), known.join(", ")))
            }
            known => Ok(Self(known)),
        }
    }
}

/// A mail domain, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DomainName(pub(super) String);

impl FromStr for DomainName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.trim().to_lowercase();
        let shaped = !name.is_empty()
            && !name.contains(['@', '/', '*'])
            && !name.chars().any(|c| c.is_whitespace() || c.is_control())
            && !name.starts_with('.')
            && !name.ends_with('.');
        if shaped {
            return Ok(Self(name));
        }
        Err(format!(
            "`{}` is not a mail domain: write what follows the @, such as \"example.com\" (list sub-domains separately)",
            text.escape_debug()
        ))
    }
}

/// A user that is never denied: a lower-case address, or an Okta user id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exempt(pub(super) String);

impl FromStr for Exempt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains('*') || text.starts_with(['@', '%']) {
            return Err(format!(
                "`{}` looks like a pattern, which would exempt no user: list each user by e-mail address or Okta user id \
                 (00u…); to deny only some domains, use scope.email_domains",
                text.escape_debug()
            ));
        }
        if let Some(address) = Address::parse(text) {
            return Ok(Self(address.key()));
        }
        OktaUserId::parse(text)
            .filter(|id| id.as_str().starts_with("00u"))
            .map(|id| Self(id.as_str().to_owned()))
            .ok_or_else(|| format!("`{}` is neither an e-mail address nor an Okta user id (00u…)", text.escape_debug()))
    }
}

/// Where the mark is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkTarget {
    AppMetadata,
    UserMetadata,
}

impl FromStr for MarkTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "app_metadata" => Ok(Self::AppMetadata),
            "user_metadata" => Ok(Self::UserMetadata),
            other => Err(format!(
                "`{}` cannot hold the mark: use \"app_metadata\", optionally with \"user_metadata\"",
                other.escape_debug()
            )),
        }
    }
}

/// How accounts are matched to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MatchName {
    Email,
    OktaId,
}

impl FromStr for MatchName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "email" => Ok(Self::Email),
            "okta_id" => Ok(Self::OktaId),
            other => {
                Err(format!("`{}` is not a way to match accounts: use \"email\", \"okta_id\"", other.escape_debug()))
            }
        }
    }
}

/// The key of our object in `app_metadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MetadataKey(pub(super) String);

/// Keys with another meaning in Auth0: root attributes of a profile, over which Actions merge `app_metadata`, and
/// names that Auth0 forbids there (Auth0 docs: "Metadata field names and data types", "User profile
/// structure").
const RESERVED: [&str; 45] = [
    "__tenant",
    "_id",
    "app_metadata",
    "blocked",
    "blocked_for",
    "client_id",
    "clientID",
    "connection",
    "created_at",
    "email",
    "email_verified",
    "family_name",
    "given_name",
    "globalClientID",
    "global_client_id",
    "guardian_authenticators",
    "guardian_enrollments",
    "identities",
    "last_ip",
    "last_login",
    "last_password_reset",
    "lastIP",
    "lastLogin",
    "logins_count",
    "loginsCount",
    "metadata",
    "multifactor",
    "multifactor_last_modified",
    "name",
    "nickname",
    "okta",
    "password",
    "persona",
    "phone_number",
    "phone_verified",
    "picture",
    "provider",
    "sub",
    "tenant",
    "updated_at",
    "user_id",
    "user_metadata",
    "username",
    "verify_email",
    "verify_phone_number",
];

impl FromStr for MetadataKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shaped = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            && !text.starts_with('-');
        if !shaped {
            return Err(
                "must be 1 to 64 letters, digits, `_` or `-`: Auth0 forbids `.` and `$`, and searches by this \
                        name"
                    .to_owned(),
            );
        }
        if RESERVED.contains(&text) {
            return Err(format!(
                "`{text}` means something else in an Auth0 profile: use another name, such as \
                                \"okta_sync\""
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The error description that an application receives when the Action denies a login: a code, or a sentence for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ActionMessage(pub(super) String);

impl FromStr for ActionMessage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text.chars().count() > 200 || text.chars().any(char::is_control) {
            return Err("must be one line of 1 to 200 characters".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// When Okta's access tokens are bound to a key that we hold (RFC 9449).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dpop {
    /// When Okta requires it.
    #[default]
    Auto,
    /// From the first request on.
    Always,
    /// Not even when Okta requires it.
    Never,
}

impl FromStr for Dpop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("must be \"auto\", \"always\" or \"never\"".to_owned()),
        }
    }
}

/// Whether Auth0's event stream is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Events(pub(super) WatchMode);

impl FromStr for Events {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = [WatchMode::Auto, WatchMode::Always, WatchMode::Never];
        let mode = modes.into_iter().find(|mode| mode.as_str() == text.trim());
        mode.map(Self).ok_or_else(|| "must be \"auto\", \"always\" or \"never\"".to_owned())
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Under journald, a priority and no time; otherwise `Text`.
    #[default]
    Auto,
    /// Human-readable: time, level, message, fields; in color on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("must be \"auto\", \"text\" or \"json\"".to_owned()),
        }
    }
}

/// What is logged: the directives of tracing's `EnvFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogFilter(pub(super) String);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty: use \"off\" to log nothing".to_owned());
        }
        tracing_subscriber::EnvFilter::try_new(text).map_err(|error| {
            format!(
                "is not a log filter ({error}): write a level, or levels by module such as \"info,okta_auth0_sync=debug\""
            )
        })?;
        if hides_us(text) {
            return Err(format!(
                "`{}` would log nothing: a word that is not a level counts as the name of a module; write error, warn, \
                 info, debug or trace, or \"off\" to log nothing",
                text.escape_debug()
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Does this filter have neither a level for everything nor one for a module of this program?
fn hides_us(filter: &str) -> bool {
    const US: &str = "okta_auth0_sync";
    // Directives for spans and fields (`[look]=debug`) are not understood here, and are not typos either.
    if filter.contains(['[', '{']) {
        return false;
    }
    let Ok(targets) = filter.parse::<Targets>() else { return false };
    let is_ours = |target: &str| target.starts_with(US) || US.starts_with(target);
    targets.default_level().is_none() && !targets.iter().any(|(target, _)| is_ours(target))
}

impl<T: Setting> Setting for Option<T> {
    fn from_variable(text: &str) -> Result<Self, String> {
        T::from_variable(text).map(Some)
    }
}

impl Setting for bool {
    fn from_variable(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "must be `true` or `false`".to_owned())
    }
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Whole<const MIN: u32, const MAX: u32>(pub(super) u32);

impl<const MIN: u32, const MAX: u32> Whole<MIN, MAX> {
    fn new(number: i64) -> Result<Self, String> {
        u32::try_from(number)
            .ok()
            .filter(|number| (MIN..=MAX).contains(number))
            .map(Self)
            .ok_or_else(|| format!("must be a whole number from {MIN} to {MAX}"))
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number<const MIN: u32, const MAX: u32>;
        impl<const MIN: u32, const MAX: u32> Visitor<'_> for Number<MIN, MAX> {
            type Value = Whole<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Whole::new(number).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl<const MIN: u32, const MAX: u32> Setting for Whole<MIN, MAX> {
    fn from_variable(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| format!("must be a whole number from {MIN} to {MAX}")).and_then(Self::new)
    }
}

/// The guard's limit: a whole number, or a percentage in quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MaxDenials(pub(super) DenialsMax);

impl MaxDenials {
    const EXPECTED: &'static str = "a whole number from 0 to 1000000, or a share of the known users such as \"2%\"";

    fn new(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(DenialsMax::Users(1_000_001..)) | Err(()) => Err(format!("must be {}", Self::EXPECTED)),
            Ok(limit) => Ok(Self(limit)),
        }
    }
}

impl<'de> Deserialize<'de> for MaxDenials {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Limit;
        impl Visitor<'_> for Limit {
            type Value = MaxDenials;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(MaxDenials::EXPECTED)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<MaxDenials, E> {
                MaxDenials::new(&number.to_string()).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<MaxDenials, E> {
                MaxDenials::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Limit)
    }
}

impl Setting for MaxDenials {
    fn from_variable(text: &str) -> Result<Self, String> {
        Self::new(text)
    }
}

/// A fraction: more than 0, at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share(pub(super) f64);

impl Share {
    fn new(number: f64) -> Result<Self, String> {
        if number > 0.0 && number <= 1.0 {
            return Ok(Self(number));
        }
        Err("must be more than 0 and at most 1, such as 0.8".to_owned())
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fraction;
        impl Visitor<'_> for Fraction {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of more than 0 and at most 1, such as 0.8")
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Share, E> {
                Share::new(number).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Share, E> {
                // Only 1 is a share.
                Share::new(if number == 1 { 1.0 } else { 0.0 }).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Fraction)
    }
}

impl Setting for Share {
    fn from_variable(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| "must be a number such as 0.8".to_owned()).and_then(Self::new)
    }
}

/// A list of settings; in a variable, a TOML array or separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

impl<T: FromStr<Err = String>> Setting for List<T> {
    fn from_variable(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let items: Vec<String> = if text.starts_with('[') {
            let array: toml::Table = format!("list = {text}")
                .parse()
                .map_err(|_| "starts with `[` but is not a TOML array such as [\"a\", \"b\"]".to_owned())?;
            let items = array.get("list").and_then(toml::Value::as_array).cloned().unwrap_or_default();
            items
                .into_iter()
                .map(|item| {
                    item.as_str().map(str::to_owned).ok_or("must be an array of strings such as [\"a\", \"b\"]")
                })
                .collect::<Result<_, _>>()?
        } else if text.is_empty() {
            Vec::new()
        } else {
            text.split(',').map(|item| item.trim().to_owned()).collect()
        };
        items.iter().map(|item| item.parse()).collect::<Result<_, _>>().map(Self)
    }
}
