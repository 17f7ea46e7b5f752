//! The health rules: what must hold, which rules are violated, and what the operator does about it. Used by `status`,
//! `/readyz` and the metrics.

use std::time::Duration;

use serde::Serialize;

use crate::config::Schedule;
use crate::domain::{OutcomeKind, Timestamp, clock};
use crate::store::{AlarmRow, QuarantinedRow, RemoteRow, StatusRow, Store, StoreError, UserRow};

/// Users or events of one kind that are listed at most; their number is counted separately.
const LISTED_MAX: u32 = 1000;
/// A loop without progress for this long is stuck. Longer than the longest single call including its wait for a token.
pub const STUCK_AFTER: Duration = Duration::from_secs(120);
/// A poll is overdue after this many missed firings.
const MISSED_POLLS: usize = 3;

/// What the state knows about the health of the installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// The view `status`; `None` before the first run.
    pub status: Option<StatusRow>,
    /// Both remotes.
    pub remotes: Vec<RemoteRow>,
    /// Every open alarm, oldest first.
    pub alarms: Vec<AlarmRow>,
    /// Users whose looks failed, oldest first.
    pub failed: Vec<UserRow>,
    /// Users that are held, oldest first.
    pub held: Vec<UserRow>,
    /// System Log events that could not be parsed, newest first.
    pub quarantined: Vec<QuarantinedRow>,
}

/// A violated rule of `status --check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its stable name: `never_ran`, `poll_late`, `refused`, `alarm`, `failed`, `held`, `quarantined`.
    pub rule: &'static str,
    /// What is wrong, on one line.
    pub detail: String,
}

/// One issue that needs the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// `poll_late`, `refused`, `failed`, `held`, `quarantined`, or the kind of an alarm.
    pub kind: String,
    /// An Okta user id, an event id, a remote or an account; empty for the installation.
    pub subject: String,
    /// The subject's e-mail or login, if it has one.
    pub name: Option<String>,
    /// What happened.
    pub detail: String,
    /// When it began.
    pub since: Option<String>,
    /// What fixes it: a command or an instruction.
    pub remedy: String,
}

impl Health {
    /// Reads what the rules need; counts failed users, held users and quarantined events without listing them.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn counts(store: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            status: store.status().await?,
            remotes: store.remotes().await?,
            alarms: store.open_alarms().await?,
            ..Self::default()
        })
    }

    /// Reads everything, including the lists.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn read(store: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            failed: store.users_with_outcome(OutcomeKind::Failed, LISTED_MAX).await?,
            held: store.users_with_outcome(OutcomeKind::Held, LISTED_MAX).await?,
            quarantined: store.quarantined(LISTED_MAX).await?,
            ..Self::counts(store).await?
        })
    }

    /// Has a poll succeeded since `start`? The state stores milliseconds, so a poll within the millisecond of `start`
    /// counts.
    pub fn has_polled_since(&self, start: Timestamp) -> bool {
        let polled_at = self.last_poll_ok_at().and_then(|at| clock::parse_timestamp(at).ok());
        polled_at.is_some_and(|at| at.as_millisecond() >= start.as_millisecond())
    }

    /// When the last poll succeeded; `None` if none has.
    pub fn last_poll_ok_at(&self) -> Option<&str> {
        self.status.as_ref().and_then(|status| status.last_poll_ok_at.as_deref())
    }

    /// The remotes that refused our credential at the last call.
    pub fn refusing(&self) -> impl Iterator<Item = &RemoteRow> {
        self.remotes.iter().filter(|remote| {
            remote.is_failing() && matches!(remote.error_kind.as_deref(), Some("unauthorized" | "forbidden"))
        })
    }

    /// Have [`MISSED_POLLS`] firings passed since the last successful poll? `false` if no poll has ever succeeded.
    fn is_overdue(&self, poll: &Schedule, now: Timestamp) -> bool {
        let Some(last) = self.last_poll_ok_at() else { return false };
        // A time that cannot be parsed does not prove a successful poll.
        let Ok(last) = clock::parse_timestamp(last) else { return true };
        let runs = poll.next_runs(last, MISSED_POLLS);
        runs.len() == MISSED_POLLS && runs.last().is_some_and(|last_due| *last_due <= now)
    }

    /// The violated rules; empty when the installation is healthy.
    pub fn violations(&self, poll: &Schedule, now: Timestamp) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut violated = |rule, detail| violations.push(Violation { rule, detail });
        let Some(status) = &self.status else {
            violated("never_ran", "never ran: this state is empty".to_owned());
            return violations;
        };
        match &status.last_poll_ok_at {
            None => violated("never_ran", "never ran: the System Log has not been polled yet".to_owned()),
            Some(at) if self.is_overdue(poll, now) => {
                violated("poll_late", format!("the last successful poll was at {at}; three polls were due since then"));
            }
            Some(_) => {}
        }
        for remote in self.refusing() {
            let error = remote.error.as_deref().unwrap_or_default();
            violated("refused", format!("{} refuses our calls: {error}", display_name(&remote.remote)));
        }
        if !self.alarms.is_empty() {
            let mut kinds: Vec<&str> = self.alarms.iter().map(|alarm| alarm.kind.as_str()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            violated("alarm", format!("{}: {}", counted(self.alarms.len(), "open alarm"), kinds.join(", ")));
        }
        for (rule, count, what) in
            [("failed", status.failed, "failed repeatedly"), ("held", status.held, "held until an operator approves")]
        {
            if count > 0 {
                violated(rule, format!("{} {what}", counted_users(count)));
            }
        }
        if status.quarantined > 0 {
            let count = usize::try_from(status.quarantined).unwrap_or(usize::MAX);
            violated("quarantined", format!("{} could not be parsed", counted(count, "System Log event")));
        }
        violations
    }

    /// What the operator has to do, the most general issues first.
    pub fn attention(&self, poll: &Schedule, now: Timestamp) -> Vec<Attention> {
        let mut list = Vec::new();
        if self.is_overdue(poll, now) {
            list.push(Attention {
                kind: "poll_late".to_owned(),
                subject: String::new(),
                name: None,
                detail: "three polls were due since the last successful one".to_owned(),
                since: self.last_poll_ok_at().map(str::to_owned),
                remedy: "check the service (`systemctl status okta-auth0-sync`) and its log \
                         (`journalctl -u okta-auth0-sync`)"
                    .to_owned(),
            });
        }
        let has_alarm =
            |kind: &str, subject: &str| self.alarms.iter().any(|alarm| alarm.kind == kind && alarm.subject == subject);
        for remote in self.refusing().filter(|remote| !has_alarm("remote_refuses", &remote.remote)) {
            list.push(Attention {
                kind: "refused".to_owned(),
                subject: remote.remote.clone(),
                name: Some(display_name(&remote.remote).to_owned()),
                detail: remote.error.clone().unwrap_or_default(),
                since: remote.error_at.clone(),
                remedy: "okta-auth0-sync check".to_owned(),
            });
        }
        // Alarms about users and events that are listed below would repeat them.
        let listed_below = |alarm: &AlarmRow| match alarm.kind.as_str() {
            "failed" => self.failed.iter().any(|user| user.okta_user_id == alarm.subject),
            "held" => self.held.iter().any(|user| user.okta_user_id == alarm.subject),
            "quarantined" => !self.quarantined.is_empty(),
            _ => false,
        };
        list.extend(self.alarms.iter().filter(|alarm| !listed_below(alarm)).map(|alarm| Attention {
            kind: alarm.kind.clone(),
            subject: alarm.subject.clone(),
            name: None,
            detail: alarm.detail.clone(),
            since: Some(alarm.raised_at.clone()),
            remedy: alarm.remedy.clone(),
        }));
        for (kind, users) in [("failed", &self.failed), ("held", &self.held)] {
            list.extend(users.iter().map(|user| Attention {
                kind: kind.to_owned(),
                subject: user.okta_user_id.clone(),
                name: user.email.clone().or_else(|| user.login.clone()),
                detail: user.why.clone().unwrap_or_default(),
                since: Some(user.since.clone()),
                remedy: remedy_for(kind, user),
            }));
        }
        list.extend(self.quarantined.iter().map(|event| Attention {
            kind: "quarantined".to_owned(),
            subject: event.event_id.clone(),
            name: Some(event.event_type.clone()),
            detail: event.why.clone(),
            since: Some(event.received_at.clone()),
            remedy: format!("okta-auth0-sync approve {} dismisses it", event.event_id),
        }));
        list
    }

    /// How many issues [`Health::attention`] would list without [`LISTED_MAX`].
    pub fn attention_count(&self, listed: &[Attention]) -> usize {
        let beyond = |count: i64, listed: usize| usize::try_from(count).unwrap_or(0).saturating_sub(listed);
        let more = self.status.as_ref().map_or(0, |status| {
            beyond(status.failed, self.failed.len())
                + beyond(status.held, self.held.len())
                + beyond(status.quarantined, self.quarantined.len())
        });
        listed.len() + more
    }
}

/// The command that fixes it. [`crate::domain::Held`] has the reasons.
fn remedy_for(kind: &str, user: &UserRow) -> String {
    let id = &user.okta_user_id;
    match (kind, user.why.as_deref().unwrap_or_default()) {
        ("failed", _) => format!("okta-auth0-sync retry {id}"),
        (_, "guard") => format!("okta-auth0-sync approve {id} (or --all)"),
        (_, "vanished") => {
            format!("okta-auth0-sync approve {id} if the user was deleted; otherwise widen our role in Okta and retry")
        }
        (_, why) if why.starts_with("address_reused") => {
            format!("reset or delete the account in Auth0, then okta-auth0-sync approve {id}")
        }
        _ => format!("okta-auth0-sync approve {id}"),
    }
}

/// The remote's name as its vendor spells it.
pub fn display_name(remote: &str) -> &str {
    match remote {
        "okta" => "Okta",
        "auth0" => "Auth0",
        other => other,
    }
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn counted_users(count: i64) -> String {
    if count == 1 { "1 user".to_owned() } else { format!("{count} users") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "2026-11-23T12:00:00.000Z";

    fn noon() -> Timestamp {
        clock::parse_timestamp(NOON).unwrap()
    }

    fn poll() -> Schedule {
        "*/15 * * * * *".parse().unwrap()
    }

    fn healthy() -> Health {
        Health {
            status: Some(StatusRow {
                version: "0.1.0".to_owned(),
                okta_url: "https://acme.okta.com".to_owned(),
                auth0_url: "https://acme.eu.auth0.com".to_owned(),
                enforce: true,
                first_run_at: "2026-11-01T00:00:00.000Z".to_owned(),
                last_poll_at: Some(NOON.to_owned()),
                last_poll_ok_at: Some(NOON.to_owned()),
                last_apply_ok_at: None,
                last_reconcile_ok_at: None,
                cursor_moved_at: None,
                pending: 3,
                failed: 0,
                held: 0,
                quarantined: 0,
                denied: 7,
                lag_p50_s: None,
                lag_p99_s: None,
                lag_max_s: None,
                oldest_pending_at: None,
                last_okta_error: None,
                last_auth0_error: None,
                needs_attention: false,
                enforcement: None,
                enforcement_checked_at: None,
            }),
            remotes: vec![remote("okta", None), remote("auth0", None)],
            ..Health::default()
        }
    }

    fn remote(name: &str, error_kind: Option<&str>) -> RemoteRow {
        RemoteRow {
            remote: name.to_owned(),
            ok_at: Some("2026-11-23T11:00:00.000Z".to_owned()),
            error_at: error_kind.map(|_| NOON.to_owned()),
            error_kind: error_kind.map(str::to_owned),
            error: error_kind.map(|_| "no".to_owned()),
        }
    }

    fn alarm(kind: &str, subject: &str) -> AlarmRow {
        AlarmRow {
            id: 1,
            kind: kind.to_owned(),
            subject: subject.to_owned(),
            detail: "d".to_owned(),
            remedy: "r".to_owned(),
            raised_at: NOON.to_owned(),
            cleared_at: None,
        }
    }

    fn user(id: &str, why: &str) -> UserRow {
        UserRow {
            okta_user_id: id.to_owned(),
            login: None,
            email: Some(format!("{id}@example.com")),
            status: None,
            status_at: None,
            outcome: None,
            why: Some(why.to_owned()),
            since: NOON.to_owned(),
            due_at: None,
            cause: "event".to_owned(),
            attempts: 0,
            last_error: None,
            open: true,
        }
    }

    fn rules(health: &Health, now: &str) -> Vec<&'static str> {
        let now = clock::parse_timestamp(now).unwrap();
        health.violations(&poll(), now).iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn pending_users_are_not_a_violation() {
        assert_eq!(rules(&healthy(), NOON), [""; 0]);
        assert_eq!(healthy().attention(&poll(), noon()), []);
    }

    #[test]
    fn missing_first_poll_is_a_violation() {
        assert_eq!(rules(&Health::default(), NOON), ["never_ran"]);
        let mut health = healthy();
        health.status.as_mut().unwrap().last_poll_ok_at = None;
        assert_eq!(rules(&health, NOON), ["never_ran"]);
    }

    #[test]
    fn poll_is_overdue_after_three_missed_firings() {
        for (now, late) in [
            ("2026-11-23T12:00:44.999Z", false),
            ("2026-11-23T12:00:45Z", true),
            ("2026-11-24T00:00:00Z", true),
            // The clock was set back.
            ("2026-11-22T00:00:00Z", false),
        ] {
            assert_eq!(rules(&healthy(), now) == ["poll_late"], late, "{now}");
        }
        let mut unreadable = healthy();
        unreadable.status.as_mut().unwrap().last_poll_ok_at = Some("yesterday".to_owned());
        assert_eq!(rules(&unreadable, NOON), ["poll_late"]);
        // Nights without scheduled polls do not count.
        let office: Schedule = "0 0 9-17 * * *".parse().unwrap();
        let mut health = healthy();
        health.status.as_mut().unwrap().last_poll_ok_at = Some("2026-11-22T17:00:00.000Z".to_owned());
        for (now, late) in [("2026-11-23T10:59:59Z", false), ("2026-11-23T11:00:00Z", true)] {
            let now = clock::parse_timestamp(now).unwrap();
            assert_eq!(!health.violations(&office, now).is_empty(), late, "{now}");
        }
    }

    #[test]
    fn refusal_counts_until_a_call_succeeds() {
        for (kind, expected) in
            [("unauthorized", true), ("forbidden", true), ("unreachable", false), ("server error", false)]
        {
            let health = Health { remotes: vec![remote("okta", Some(kind))], ..healthy() };
            assert_eq!(rules(&health, NOON) == ["refused"], expected, "{kind}");
        }
        let over =
            RemoteRow { ok_at: Some("2026-11-23T12:00:01.000Z".to_owned()), ..remote("okta", Some("forbidden")) };
        assert_eq!(rules(&Health { remotes: vec![over], ..healthy() }, NOON), [""; 0]);
    }

    #[test]
    fn each_open_issue_is_a_violation() {
        for rule in ["failed", "held", "quarantined"] {
            let mut health = healthy();
            let status = health.status.as_mut().unwrap();
            match rule {
                "failed" => status.failed = 1,
                "held" => status.held = 2,
                _ => status.quarantined = 3,
            }
            assert_eq!(rules(&health, NOON), [rule]);
        }
        let health = Health { alarms: vec![alarm("gap", ""), alarm("gap", "x")], ..healthy() };
        let violations = health.violations(&poll(), noon());
        assert_eq!((violations[0].rule, violations[0].detail.as_str()), ("alarm", "2 open alarms: gap"));
    }

    #[test]
    fn each_issue_is_listed_once_with_its_remedy() {
        let mut health = Health {
            remotes: vec![remote("okta", Some("unauthorized")), remote("auth0", Some("forbidden"))],
            alarms: vec![alarm("remote_refuses", "okta"), alarm("failed", "u1"), alarm("held", "u2"), alarm("gap", "")],
            failed: vec![user("u1", "500")],
            held: vec![user("u2", "vanished"), user("u3", "guard"), user("u4", "address_reused: u9")],
            ..healthy()
        };
        health.status.as_mut().unwrap().failed = 5;
        let list = health.attention(&poll(), noon());
        let listed: Vec<(&str, &str)> = list.iter().map(|item| (item.kind.as_str(), item.subject.as_str())).collect();
        assert_eq!(
            listed,
            [
                ("refused", "auth0"),
                ("remote_refuses", "okta"),
                ("gap", ""),
                ("failed", "u1"),
                ("held", "u2"),
                ("held", "u3"),
                ("held", "u4")
            ]
        );
        assert_eq!(health.attention_count(&list), 7 + 4, "four failed users are counted but not listed");
        assert!(list[3].remedy.contains("okta-auth0-sync retry u1"));
        assert!(list[4..].iter().all(|item| item.remedy.contains("okta-auth0-sync approve u")));
    }
}
