//! `check` against both tenants: makes every kind of read that the daemon needs, and writes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use url::Url;

use super::super::{Error, Exit, action, wiring};
use super::limits::{self, Cost};
use super::{Report, of_config, state};
use crate::auth0::{self, AccountQuery, Auth0, Fields};
use crate::config::{Config, Environment, OktaCredentials};
use crate::domain::account::Identifier;
use crate::domain::clock::{parse_timestamp, since};
use crate::domain::{Address, Clock, OktaUser, WatchMode, clock};
use crate::engine::calls::paced;
use crate::engine::deploy::Deployment;
use crate::http::pacing::{Bucket, Pacer};
use crate::http::{Call, Failure, Http, Kind, Remote, headers};
use crate::okta::{self, CredentialReport, LogFilter, LogPosition, Okta, SCOPES};

/// Timeout of name resolution.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Clock skew up to which nothing fails: Auth0 refuses signed assertions from more than 10 s ahead of its clock.
const SKEW_WARNED: Duration = Duration::from_secs(10);
/// Clock skew beyond which assertions and DPoP proofs are refused.
const SKEW_MAX: Duration = Duration::from_secs(300);
/// Warn about an API token that expires within this time.
const TOKEN_ENDS_SOON: Duration = Duration::from_secs(7 * 86_400);
/// Scopes needed to find and deny accounts.
const REQUIRED: [&str; 3] = ["read:users", "update:users", "update:users_app_metadata"];
/// Scopes that let the application grant itself any other.
const DANGEROUS_SCOPES: [&str; 2] = ["create:client_grants", "update:client_grants"];
const TO_END_SESSIONS: [&str; 2] = ["delete:sessions", "delete:refresh_tokens"];
/// An address without an account: `.invalid` is reserved (RFC 2606).
const PROBE_EMAIL: &str = "okta-auth0-sync-check@example.invalid";

/// Checks everything and prints the report.
///
/// # Errors
/// If the report cannot be printed.
pub(crate) async fn run(
    file: Option<&Path>,
    environment: &Environment,
    clock: &Arc<dyn Clock>,
    as_json: bool,
) -> Result<Exit, Error> {
    let config = match Config::load(file, environment) {
        Ok(config) => config,
        Err(error) => {
            let mut report = Report::default();
            for problem in error.problems {
                report.fail("configuration", problem.to_string());
            }
            return finish(&report, as_json, Exit::Config);
        }
    };
    let mut report = of_config(&config, clock.now());
    if report.failed() {
        return finish(&report, as_json, Exit::Config);
    }
    let (clients, http) =
        match wiring::clients(&config, clock).and_then(|clients| Ok((clients, wiring::http(&config)?))) {
            Ok(made) => made,
            Err(error) => {
                report.fail("credentials", error.to_string());
                return finish(&report, as_json, Exit::Config);
            }
        };
    let mut check = Online {
        config: &config,
        clock: clock.as_ref(),
        http,
        report,
        behind_proxy: config.proxies.https.is_some(),
        wrong_clock: None,
    };
    let mut org = None;
    if check.reach(Remote::Okta, "Okta", &config.okta.url, "/.well-known/okta-organization").await {
        org = check.okta(&clients.okta.0, &clients.okta.1).await;
    }
    if check.reach(Remote::Auth0, "Auth0", &config.auth0.url, "/.well-known/openid-configuration").await {
        check.auth0(&clients.auth0.0, &clients.auth0.1).await;
    }
    check.promise(&clients.okta.1, &clients.auth0.1);
    state::check(&mut check.report, &config, org.as_deref()).await;
    finish(&check.report, as_json, Exit::Failed)
}

fn finish(report: &Report, as_json: bool, failed: Exit) -> Result<Exit, Error> {
    report.print(as_json).map_err(Error::Output)?;
    Ok(if report.failed() { failed } else { Exit::Done })
}

struct Online<'a> {
    config: &'a Config,
    clock: &'a dyn Clock,
    http: Http,
    report: Report,
    behind_proxy: bool,
    /// By how much our clock differs from that of the remote being checked, if it is too much.
    wrong_clock: Option<String>,
}

impl Online<'_> {
    /// Returns a success, and reports a failure.
    fn expect<T>(&mut self, name: &str, answer: Result<T, Failure>) -> Option<T> {
        answer.map_err(|failure| self.report.fail(name, self.explain(&failure))).ok()
    }

    /// The failure, with the clock as its probable cause.
    fn explain(&self, failure: &Failure) -> String {
        match &self.wrong_clock {
            Some(clock) if matches!(failure.kind, Kind::Unauthorized | Kind::Forbidden | Kind::Rejected) => {
                format!("{failure}; {clock}, which alone makes signed requests fail: correct the clock first")
            }
            _ => failure.to_string(),
        }
    }

    /// Checks name, connection, certificate and clock. Returns `false` if the remote is unreachable.
    async fn reach(&mut self, remote: Remote, name: &str, url: &Url, path: &str) -> bool {
        self.resolve(name, url).await;
        let mut address = url.clone();
        address.set_path(path);
        let call = Call::plain(remote, "connection");
        let before = self.clock.monotonic();
        let answer = self.http.send(call, self.http.client().get(address), None, self.clock).await;
        let took = self.clock.monotonic().saturating_sub(before);
        // The failure includes the TLS library's reason for rejecting a certificate.
        let Some(answer) = self.expect(&format!("{name} connection"), answer) else { return false };
        let tls = match (url.scheme(), &self.config.tls.ca_file) {
            ("http", _) => "plain http on loopback".to_owned(),
            (_, None) => "TLS, trusted by the system's roots".to_owned(),
            (_, Some(file)) => format!("TLS, trusted by the system's roots or {}", file.display()),
        };
        self.report.pass(format!("{name} connection"), format!("{tls}; answered in {} ms", took.as_millis()));
        self.skew(name, &answer.headers, took);
        true
    }

    async fn resolve(&mut self, name: &str, url: &Url) {
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return };
        let line = format!("{name} name");
        let bare = host.trim_matches(['[', ']']);
        let found = tokio::select! {
            found = tokio::net::lookup_host((bare, port)) => found.map(Iterator::count).map_err(|error| error.to_string()),
            () = self.clock.sleep(RESOLVE_TIMEOUT) => Err("timed out".to_owned()),
        };
        match found {
            Ok(count) if count > 0 => self.report.pass(
                line,
                format!("{host}: {}", if count == 1 { "one address".to_owned() } else { format!("{count} addresses") }),
            ),
            _ if self.behind_proxy => {
                self.report.pass(line, format!("{host}: resolved by the proxy"));
            }
            Ok(_) => self.report.fail(line, format!("{host} has no address; check the url")),
            Err(error) => self
                .report
                .fail(line, format!("cannot resolve {host}: {error}; check the url and this machine's DNS settings")),
        }
    }

    fn skew(&mut self, name: &str, headers: &HeaderMap, took: Duration) {
        let line = format!("{name} clock");
        self.wrong_clock = None;
        let Some(theirs) = headers::date(headers) else {
            self.report.warn(line, "the response has no Date header; cannot compare the clocks");
            return;
        };
        let now = self.clock.now();
        let apart = since(now, theirs).max(since(theirs, now));
        // The Date header has whole seconds and was set at some point during the call.
        let skew = apart.saturating_sub(took).saturating_sub(Duration::from_secs(1));
        let detail = format!("this machine's clock differs from {name}'s by {} s", skew.as_secs());
        self.wrong_clock = (skew > SKEW_WARNED).then(|| detail.clone());
        if skew > SKEW_MAX {
            self.report
                .fail(line, format!("{detail}; signed requests are refused: enable NTP (timedatectl set-ntp true)"));
        } else if skew > SKEW_WARNED {
            self.report.warn(line, format!("{detail}; enable NTP (timedatectl set-ntp true)"));
        } else {
            self.report.pass(line, detail);
        }
    }

    /// Makes the daemon's reads in Okta. Returns the org's id.
    async fn okta(&mut self, okta: &Okta, pacer: &Pacer) -> Option<String> {
        let clock = self.clock;
        let org = paced(pacer, okta::endpoints::ORG, clock, || okta.org_id()).await;
        let org = self.expect("Okta org", org);
        if let Some(org) = &org {
            self.report.pass("Okta org", org.clone());
        }
        let credential = paced(pacer, okta::endpoints::OWN_TOKEN, clock, || okta.credential()).await;
        if !self.okta_credential(credential) {
            return org;
        }
        let position = LogPosition::Since(clock::sub(clock.now(), Duration::from_secs(3600)));
        let filter = LogFilter::default();
        let page = paced(pacer, okta::endpoints::LOG, clock, || okta.log_page(&position, &filter, 1)).await;
        if self.expect("Okta System Log", page).is_some() {
            self.report.pass("Okta System Log", "can be read");
        }
        let anybody = paced(pacer, okta::endpoints::USERS, clock, || okta.any_active_user()).await;
        match self.expect("Okta users", anybody) {
            None => {}
            // A service app without an admin role gets an empty list, not a refusal.
            Some(None) => self.report.fail(
                "Okta users",
                "Okta lists no active user: assign the service app an admin role (read-only administrator) over all \
                 users",
            ),
            Some(Some(user)) => {
                self.okta_addresses(&user);
                let read = paced(pacer, okta::endpoints::USER, clock, || okta.user(&user.id)).await;
                match self.expect("Okta user by id", read) {
                    None => {}
                    Some(None) => self.report.fail(
                        "Okta user by id",
                        format!(
                            "search returns {}, but reading it fails; grant the credential a role over all users",
                            user.id
                        ),
                    ),
                    Some(Some(_)) => self.report.pass("Okta user by id", "can be read"),
                }
            }
        }
        org
    }

    /// Checks that Okta shows the addresses by which accounts are found.
    fn okta_addresses(&mut self, user: &OktaUser) {
        let line = "Okta users";
        if user.hides_addresses() {
            self.report.fail(
                line,
                format!(
                    "Okta hides login and e-mail of {}: remove the condition on profile attributes from the admin role, \
                     or no account is found",
                    user.id
                ),
            );
        } else if user.email.is_none() {
            self.report.warn(
                line,
                format!("Okta shows no e-mail of {}; if other users have one, the admin role hides it", user.id),
            );
        } else {
            self.report.pass(line, "can be searched");
        }
    }

    /// Returns `false` without a usable credential.
    fn okta_credential(&mut self, credential: Result<CredentialReport, Failure>) -> bool {
        let line = "Okta credential";
        match credential {
            Ok(CredentialReport::ApiToken { name, user_id, expires_at }) => {
                let name = name.unwrap_or_else(|| "(unnamed)".to_owned());
                let owner = user_id.map_or_else(String::new, |id| format!(" of {id}"));
                let rule = "expires 30 days after its last use, or with its administrator's account";
                let left =
                    expires_at.as_deref().and_then(|at| parse_timestamp(at).ok()).map(|at| since(at, self.clock.now()));
                match left {
                    Some(left) if left < TOKEN_ENDS_SOON => self.report.warn(
                        line,
                        format!(
                            "API token {name}{owner} expires in {} h ({rule}); check that the daemon is running",
                            left.as_secs() / 3600
                        ),
                    ),
                    _ => self.report.pass(line, format!("API token {name}{owner}; {rule}")),
                }
                true
            }
            Ok(CredentialReport::OAuth { scopes, dpop }) => {
                let missing = action::missing(&scopes, &SCOPES);
                if missing.is_empty() {
                    let bound = if dpop { ", tokens bound by DPoP" } else { "" };
                    self.report.pass(line, format!("service app, granted {}{bound}", scopes.join(" ")));
                } else {
                    self.report.fail(
                        line,
                        format!("grant the app {} (Admin Console: Applications, API Scopes)", missing.join(" ")),
                    );
                }
                true
            }
            // A token may have every needed permission and still not be allowed to read its own record.
            Err(failure)
                if matches!(self.config.okta.credentials, OktaCredentials::ApiToken(_))
                    && matches!(failure.kind, Kind::Forbidden | Kind::NotFound) =>
            {
                self.report
                    .warn(line, format!("cannot read the API token's own record, so its expiry is unknown: {failure}"));
                true
            }
            Err(failure) => {
                self.report.fail(line, self.explain(&failure));
                false
            }
        }
    }

    /// Makes the daemon's reads in Auth0.
    async fn auth0(&mut self, auth0: &Auth0, pacer: &Pacer) {
        let clock = self.clock;
        let Some(scopes) = self.expect("Auth0 token", auth0.granted_scopes().await) else { return };
        self.report.pass("Auth0 token", format!("application {}", self.config.auth0.client_id));
        self.scopes(&scopes);
        let found =
            paced(pacer, auth0::endpoints::BY_EMAIL, clock, || auth0.accounts_by_email(PROBE_EMAIL, Fields::Id)).await;
        if self.expect("Auth0 look-up by e-mail", found).is_some() {
            self.report.pass("Auth0 look-up by e-mail", "works");
        }
        let mut anybody = None;
        if let Some(address) = Address::parse(PROBE_EMAIL).filter(|_| self.config.auth0.search) {
            let emails = [Identifier::Address(address)];
            let query = AccountQuery::Identities { identifiers: &emails, connections: &[] };
            let found = paced(pacer, auth0::endpoints::SEARCH, clock, || auth0.search(&query, 0, Fields::Id)).await;
            if self.expect("Auth0 search", found).is_some() {
                self.report.pass("Auth0 search", "works");
                let marked = paced(pacer, auth0::endpoints::SEARCH, clock, || {
                    auth0.search(&AccountQuery::Marked { since: None }, 0, Fields::Id)
                })
                .await;
                let marked = self.expect("Auth0 marked accounts", marked);
                anybody = marked.and_then(|page| page.accounts.into_iter().next());
            }
        }
        if let Some(record) = anybody {
            let id = record.account.id;
            let read = paced(pacer, auth0::endpoints::ACCOUNT, clock, || auth0.account(&id, Fields::Id)).await;
            match self.expect("Auth0 account by id", read) {
                None => {}
                Some(None) => {
                    self.report.warn("Auth0 account by id", format!("search returned {id}, but it no longer exists"))
                }
                Some(Some(_)) => self.report.pass("Auth0 account by id", "can be read"),
            }
        }
        self.former_keys(auth0, pacer).await;
        self.action(auth0, pacer, &scopes).await;
    }

    /// After a change of auth0.metadata_key: whether every mark has been rewritten under the new one.
    async fn former_keys(&mut self, auth0: &Auth0, pacer: &Pacer) {
        let former = &self.config.auth0.keys.former;
        if former.is_empty() {
            return;
        }
        let line = "Auth0 former metadata keys";
        let found = paced(pacer, auth0::endpoints::SEARCH, self.clock, || {
            auth0.search(&AccountQuery::MarkedUnderFormerKeys, 0, Fields::Id)
        });
        let Some(page) = self.expect(line, found.await) else { return };
        let keys = former.join(", ");
        match page.total {
            0 => self.report.pass(
                line,
                format!(
                    "no mark is left under {keys}: remove auth0.former_metadata_keys, then delete the Action for the \
                     former key in Auth0"
                ),
            ),
            total => self.report.warn(
                line,
                format!(
                    "{total} accounts still have their mark under {keys}; the daemon's next reconcile rewrites them; with \
                     the daemon stopped, `reconcile --all` does so at once. Keep the Action for the former key bound until then"
                ),
            ),
        }
    }

    fn scopes(&mut self, scopes: &[String]) {
        let mut needed = REQUIRED.to_vec();
        if self.config.auth0.end_sessions {
            needed.extend(TO_END_SESSIONS);
        }
        let missing = action::missing(scopes, &needed);
        if scopes.is_empty() {
            self.report
                .warn("Auth0 scopes", format!("not listed in the token response; required: {}", needed.join(" ")));
        } else if missing.is_empty() {
            self.report.pass("Auth0 scopes", needed.join(" "));
        } else {
            self.report.fail(
                "Auth0 scopes",
                format!(
                    "grant the application {} (Applications, APIs, Auth0 Management API, Machine to Machine Applications)",
                    missing.join(" ")
                ),
            );
        }
        self.events(scopes);
        let dangerous: Vec<&str> =
            DANGEROUS_SCOPES.into_iter().filter(|scope| scopes.iter().any(|have| have == scope)).collect();
        if !dangerous.is_empty() {
            self.report.warn(
                "Auth0 scopes",
                format!("revoke {}: it lets the application grant itself any scope", dangerous.join(" ")),
            );
        }
    }

    /// Whether the daemon can watch the event stream, and what that adds.
    fn events(&mut self, scopes: &[String]) {
        let line = "Auth0 events";
        let adds = "late sign-ups and removed marks are handled within seconds";
        if self.config.auth0.events == WatchMode::Never {
            self.report.pass(line, "not watched: [auth0] events = \"never\"");
        } else if scopes.is_empty() || action::missing(scopes, &["read:events"]).is_empty() {
            self.report.pass(line, adds);
        } else if self.config.auth0.events == WatchMode::Always {
            self.report.fail(line, "grant the application read:events, or set [auth0] events = \"auto\"");
        } else {
            let what = format!("not watched; grant read:events, so that {adds}, not at the next reconcile");
            self.report.warn(line, what);
        }
    }

    async fn action(&mut self, auth0: &Auth0, pacer: &Pacer, scopes: &[String]) {
        let line = "Auth0 Action";
        if !action::missing(scopes, &["read:actions"]).is_empty() {
            self.report.warn(line, "not checked; grant read:actions, so that an unbound Action raises an alarm");
            return;
        }
        let shipped = wiring::shipped_action(self.config);
        let standing = match Deployment::new(auth0, pacer, self.clock, &shipped).look().await {
            Ok(standing) => standing,
            Err(failure) => {
                self.report.warn(line, failure.to_string());
                return;
            }
        };
        if action::holds(&standing) {
            self.report.pass(line, "deployed, up to date, first in the post-login flow");
            return;
        }
        for condition in standing.conditions().into_iter().filter(|condition| !condition.holds) {
            let detail = format!("{}: {}: {}", condition.name, condition.found, condition.remedy);
            // Users are still denied by blocks, or while a version of our Action is in force.
            if standing.is_in_force() || self.config.auth0.mark.block {
                self.report.warn(line, detail);
            } else {
                self.report.fail(line, detail);
            }
        }
    }

    /// The observed rate limits, and how many deactivations they allow.
    fn promise(&mut self, okta: &Pacer, auth0: &Pacer) {
        let shares = self.config.limits;
        let (okta, auth0) = (okta.snapshot(self.clock), auth0.snapshot(self.clock));
        let okta_ours = |bucket| limits::ours(&okta, bucket, shares.okta_share);
        let period = self.config.schedule.poll.period();
        if let Some((limit, ours)) = okta_ours(Bucket::OktaLog) {
            let polls = (60.0 / period.as_secs_f64().max(1.0)).ceil();
            let detail = format!("System Log: {limit} calls per minute, our share {ours}; schedule.poll uses {polls}");
            if polls > f64::from(ours) {
                self.report.warn("Okta limits", format!("{detail}; poll less often, or raise the credential's limit"));
            } else {
                self.report.pass("Okta limits", detail);
            }
        }
        // If no user could be read by id, use the search limit, which is never the larger one, for both.
        let okta_allows = okta_ours(Bucket::OktaUsers).map(|(users, _)| {
            let user = okta_ours(Bucket::OktaUser).map_or(users, |(user, _)| user);
            self.report.pass("Okta limits", format!("users by id: {user}, user searches: {users} calls per minute"));
            limits::okta_a_minute(user, users, shares.okta_share)
        });
        let auth0_allows = limits::ours(&auth0, Bucket::Auth0Read, shares.auth0_share).map(|(limit, ours)| {
            self.report.pass("Auth0 limits", format!("burst of {limit} calls, our share {ours}"));
            limits::auth0_a_minute(limit, shares.auth0_share, Cost::of(self.config))
        });
        let (Some(okta_allows), Some(auth0_allows)) = (okta_allows, auth0_allows) else { return };
        let users = okta_allows.min(auth0_allows);
        let detail = format!(
            "up to {users} users deactivated in the same minute are denied within a minute; beyond that, denials take \
             longer"
        );
        if period > Duration::from_secs(45) {
            let every = humantime::format_duration(period);
            self.report.warn(
                "promise",
                format!("schedule.poll fires only every {every}; denial within a minute is not guaranteed"),
            );
        } else if users == 0 {
            self.report
                .warn("promise", "the rate limits are too low for one user per minute; raise the limits or our shares");
        } else {
            self.report.pass("promise", detail);
        }
    }
}
