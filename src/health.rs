//! The health rules: what must hold for all to be well, what does not hold, and what an operator does about it. `status`,
//! `/readyz` and the metrics ask here.

use std::time::Duration;

use serde::Serialize;

use crate::config::Schedule;
use crate::domain::{OutcomeKind, Timestamp, clock};
use crate::store::{AlarmRow, QuarantinedRow, RemoteRow, StatusRow, Store, StoreError, UserRow};

/// The most people or events of a kind that are read; how many there are is counted apart.
const LISTED_MAX: u32 = 1000;
/// A loop that made no progress for this long is stuck: more than the longest single call with the tokens before it.
pub const STUCK_AFTER: Duration = Duration::from_secs(120);
/// This many missed polls in a row are late.
const PERIODS_LATE: usize = 3;

/// What the state knows about the health of the installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// The view `status`; `None` when nothing ever ran.
    pub status: Option<StatusRow>,
    /// Both remotes.
    pub remotes: Vec<RemoteRow>,
    /// Every open alarm, oldest first.
    pub alarms: Vec<AlarmRow>,
    /// People whose looks failed, the longest first.
    pub failed: Vec<UserRow>,
    /// People who wait for a decision, the longest first.
    pub held: Vec<UserRow>,
    /// Entries of the log that could not be read, newest first.
    pub quarantined: Vec<QuarantinedRow>,
}

/// A rule of `status --check` that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its stable name: `never_ran`, `poll_late`, `refused`, `alarm`, `failed`, `held`, `quarantined`.
    pub rule: &'static str,
    /// What is wrong, in one line.
    pub detail: String,
}

/// Something that a person has to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// `poll_late`, `refused`, `failed`, `held`, `quarantined`, or the kind of an alarm.
    pub kind: String,
    /// Okta's id, an event's id, a remote, an account; empty: the installation.
    pub subject: String,
    /// By what a person knows the subject: an e-mail, a login.
    pub name: Option<String>,
    /// What happened.
    pub detail: String,
    /// Since when.
    pub since: Option<String>,
    /// What mends it: a command, or what to do.
    pub remedy: String,
}

impl Health {
    /// Reads what the rules need, and counts failed and held users and quarantined events without listing them.
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

    /// Reads all of it.
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

    /// Has a poll ended well since `start`? The state has times to the millisecond, so a poll in the millisecond of the
    /// start counts.
    pub fn has_polled_since(&self, start: Timestamp) -> bool {
        let polled_at = self.last_poll_ok_at().and_then(|at| clock::parse_timestamp(at).ok());
        polled_at.is_some_and(|at| at.as_millisecond() >= start.as_millisecond())
    }

    /// The last good poll; `None` if there never was one.
    pub fn last_poll_ok_at(&self) -> Option<&str> {
        self.status.as_ref().and_then(|status| status.last_poll_ok_at.as_deref())
    }

    /// The remotes whose last word is that they do not let us.
    pub fn refusing(&self) -> impl Iterator<Item = &RemoteRow> {
        self.remotes.iter().filter(|remote| {
            remote.is_failing() && matches!(remote.error_kind.as_deref(), Some("unauthorized" | "forbidden"))
        })
    }

    /// Is the last good poll older than three firings of the schedule? Not asked of a state that never had one.
    fn is_late(&self, poll: &Schedule, now: Timestamp) -> bool {
        let Some(last) = self.last_poll_ok_at() else { return false };
        // A time that cannot be read proves no good poll.
        let Ok(last) = clock::parse_timestamp(last) else { return true };
        let runs = poll.next_runs(last, PERIODS_LATE);
        runs.len() == PERIODS_LATE && runs.last().is_some_and(|last_due| *last_due <= now)
    }

    /// The rules that do not hold: none of them, and all is well.
    pub fn violations(&self, poll: &Schedule, now: Timestamp) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut violated = |rule, detail| violations.push(Violation { rule, detail });
        let Some(status) = &self.status else {
            violated("never_ran", "never ran: nothing has run yet with this state".to_owned());
            return violations;
        };
        match &status.last_poll_ok_at {
            None => violated("never_ran", "never ran: the log has not been read yet".to_owned()),
            Some(at) if self.is_late(poll, now) => {
                violated("poll_late", format!("the last good poll was at {at}, and three were due since then"));
            }
            Some(_) => {}
        }
        for remote in self.refusing() {
            let error = remote.error.as_deref().unwrap_or_default();
            violated("refused", format!("{} refuses us: {error}", display_name(&remote.remote)));
        }
        if !self.alarms.is_empty() {
            let mut kinds: Vec<&str> = self.alarms.iter().map(|alarm| alarm.kind.as_str()).collect();
            kinds.sort_unstable();
            kinds.dedup();
            violated("alarm", format!("{}: {}", counted(self.alarms.len(), "open alarm"), kinds.join(", ")));
        }
        for (rule, count, what) in
            [("failed", status.failed, "could not be settled"), ("held", status.held, "held until a person decides")]
        {
            if count > 0 {
                violated(rule, format!("{} {what}", counted_people(count)));
            }
        }
        if status.quarantined > 0 {
            let count = usize::try_from(status.quarantined).unwrap_or(usize::MAX);
            violated("quarantined", format!("{} of the log could not be read", counted(count, "event")));
        }
        violations
    }

    /// What a person has to do, the most general first.
    pub fn attention(&self, poll: &Schedule, now: Timestamp) -> Vec<Attention> {
        let mut list = Vec::new();
        if self.is_late(poll, now) {
            list.push(Attention {
                kind: "poll_late".to_owned(),
                subject: String::new(),
                name: None,
                detail: "three polls were due since the last good one".to_owned(),
                since: self.last_poll_ok_at().map(str::to_owned),
                remedy: "see that the service runs (`systemctl status okta-auth0-sync`) and what it says \
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
        // What is told of person by person below is not told twice.
        let listed_below = |alarm: &AlarmRow| match alarm.kind.as_str() {
            "failed" => self.failed.iter().any(|person| person.okta_user_id == alarm.subject),
            "held" => self.held.iter().any(|person| person.okta_user_id == alarm.subject),
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
        for (kind, people) in [("failed", &self.failed), ("held", &self.held)] {
            list.extend(people.iter().map(|person| Attention {
                kind: kind.to_owned(),
                subject: person.okta_user_id.clone(),
                name: person.email.clone().or_else(|| person.login.clone()),
                detail: person.why.clone().unwrap_or_default(),
                since: Some(person.since.clone()),
                remedy: remedy_for(kind, person),
            }));
        }
        list.extend(self.quarantined.iter().map(|event| Attention {
            kind: "quarantined".to_owned(),
            subject: event.event_id.clone(),
            name: Some(event.event_type.clone()),
            detail: event.why.clone(),
            since: Some(event.received_at.clone()),
            remedy: format!("okta-auth0-sync approve {} puts it aside", event.event_id),
        }));
        list
    }

    /// How many things [`Health::attention`] would name if it named everything.
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

/// The command that mends it. Which people are held for which reason: [`crate::domain::Held`].
fn remedy_for(kind: &str, person: &UserRow) -> String {
    let id = &person.okta_user_id;
    match (kind, person.why.as_deref().unwrap_or_default()) {
        ("failed", _) => format!("okta-auth0-sync retry {id}"),
        (_, "guard") => format!("okta-auth0-sync approve {id} (or --all)"),
        (_, "vanished") => format!("okta-auth0-sync approve {id} if they were deleted, else widen our role and retry"),
        (_, why) if why.starts_with("address_reused") => {
            format!("reset or delete the account in Auth0, then okta-auth0-sync approve {id}")
        }
        _ => format!("okta-auth0-sync approve {id}"),
    }
}

/// `okta`, `auth0` as they call themselves.
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

fn counted_people(count: i64) -> String {
    if count == 1 { "1 person".to_owned() } else { format!("{count} people") }
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

    fn well() -> Health {
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

    fn person(id: &str, why: &str) -> UserRow {
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
    fn pending_people_alone_are_no_violation() {
        assert_eq!(rules(&well(), NOON), [""; 0]);
        assert_eq!(well().attention(&poll(), noon()), []);
    }

    #[test]
    fn nothing_ran_is_a_violation_and_so_is_a_run_without_a_poll() {
        assert_eq!(rules(&Health::default(), NOON), ["never_ran"]);
        let mut health = well();
        health.status.as_mut().unwrap().last_poll_ok_at = None;
        assert_eq!(rules(&health, NOON), ["never_ran"]);
    }

    #[test]
    fn a_poll_is_late_when_the_third_one_since_then_was_due() {
        for (now, late) in [
            ("2026-11-23T12:00:44.999Z", false),
            ("2026-11-23T12:00:45Z", true),
            ("2026-11-24T00:00:00Z", true),
            // The clock was set back.
            ("2026-11-22T00:00:00Z", false),
        ] {
            assert_eq!(rules(&well(), now) == ["poll_late"], late, "{now}");
        }
        let mut unreadable = well();
        unreadable.status.as_mut().unwrap().last_poll_ok_at = Some("yesterday".to_owned());
        assert_eq!(rules(&unreadable, NOON), ["poll_late"]);
        // Nights without polls are no lateness.
        let office: Schedule = "0 0 9-17 * * *".parse().unwrap();
        let mut health = well();
        health.status.as_mut().unwrap().last_poll_ok_at = Some("2026-11-22T17:00:00.000Z".to_owned());
        for (now, late) in [("2026-11-23T10:59:59Z", false), ("2026-11-23T11:00:00Z", true)] {
            let now = clock::parse_timestamp(now).unwrap();
            assert_eq!(!health.violations(&office, now).is_empty(), late, "{now}");
        }
    }

    #[test]
    fn a_refusal_counts_while_it_is_the_last_word() {
        for (kind, expected) in
            [("unauthorized", true), ("forbidden", true), ("unreachable", false), ("server error", false)]
        {
            let health = Health { remotes: vec![remote("okta", Some(kind))], ..well() };
            assert_eq!(rules(&health, NOON) == ["refused"], expected, "{kind}");
        }
        let over =
            RemoteRow { ok_at: Some("2026-11-23T12:00:01.000Z".to_owned()), ..remote("okta", Some("forbidden")) };
        assert_eq!(rules(&Health { remotes: vec![over], ..well() }, NOON), [""; 0]);
    }

    #[test]
    fn failed_held_quarantined_and_alarms_are_violations_each() {
        for rule in ["failed", "held", "quarantined"] {
            let mut health = well();
            let status = health.status.as_mut().unwrap();
            match rule {
                "failed" => status.failed = 1,
                "held" => status.held = 2,
                _ => status.quarantined = 3,
            }
            assert_eq!(rules(&health, NOON), [rule]);
        }
        let health = Health { alarms: vec![alarm("gap", ""), alarm("gap", "x")], ..well() };
        let violations = health.violations(&poll(), noon());
        assert_eq!((violations[0].rule, violations[0].detail.as_str()), ("alarm", "2 open alarms: gap"));
    }

    #[test]
    fn each_thing_is_told_once_with_what_mends_it() {
        let mut health = Health {
            remotes: vec![remote("okta", Some("unauthorized")), remote("auth0", Some("forbidden"))],
            alarms: vec![alarm("remote_refuses", "okta"), alarm("failed", "u1"), alarm("held", "u2"), alarm("gap", "")],
            failed: vec![person("u1", "500")],
            held: vec![person("u2", "vanished"), person("u3", "guard"), person("u4", "address_reused: u9")],
            ..well()
        };
        health.status.as_mut().unwrap().failed = 5;
        let list = health.attention(&poll(), noon());
        let told: Vec<(&str, &str)> = list.iter().map(|item| (item.kind.as_str(), item.subject.as_str())).collect();
        assert_eq!(
            told,
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
        assert_eq!(health.attention_count(&list), 7 + 4, "four more have failed than were read");
        assert!(list[3].remedy.contains("okta-auth0-sync retry u1"));
        assert!(list[4..].iter().all(|item| item.remedy.contains("okta-auth0-sync approve u")));
    }
}
