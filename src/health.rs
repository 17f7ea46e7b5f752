//! Health: the obligations of the installation, what violates them, and what the operator does about it. The one
//! definition for alarms, `status`, `/readyz`, the metrics and the line in `systemctl status`.

mod guard;
mod headline;
mod obligations;

use std::time::Duration;

use serde::Serialize;

use crate::domain::{OutcomeKind, Timestamp, clock};
use crate::store::{
    AlarmKind, AlarmRow, GuardReport, GuardWindow, LeftOpen, QuarantinedRow, RemoteRow, StatusRow, Store, StoreError,
    UserRow,
};

pub use headline::{Headline, Level};
pub use obligations::{Deadlines, Obligation, Stopwatches};

/// Users or events of one kind that are listed at most; their number is counted separately.
const LISTED_MAX: u32 = 1000;
/// A loop without progress for this long is stuck. Longer than the longest single call including its wait for a token.
pub const STUCK_AFTER: Duration = Duration::from_secs(120);

/// What the state knows about the health of the installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// The view `status`; `None` before the first run.
    pub status: Option<StatusRow>,
    /// Every obligation, the most general first; empty before the first run.
    pub obligations: Vec<Obligation>,
    /// Users that may have to be denied and wait for a look.
    pub denials_waiting: i64,
    /// Users who left and are not denied. They miss no obligation, but not all is well either.
    pub left_open: LeftOpen,
    /// Both remotes.
    pub remotes: Vec<RemoteRow>,
    /// Every open alarm, oldest first.
    pub alarms: Vec<AlarmRow>,
    /// Users whose looks failed, oldest first.
    pub failed: Vec<UserRow>,
    /// The guard; `None` if it was not read.
    pub guard: Option<GuardReport>,
    /// Users that are held for another reason than the guard, oldest first.
    pub held: Vec<UserRow>,
    /// System Log events that could not be parsed, newest first.
    pub quarantined: Vec<QuarantinedRow>,
}

/// A reason why `status --check` fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its stable name: `never_ran`, `poll_late`, the name of another obligation, `refused`, `alarm`, `failed`, `held` or
    /// `quarantined`.
    pub rule: &'static str,
    /// What is wrong, on one line.
    pub detail: String,
}

/// One issue that needs the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// The kind of an alarm, `refused`, `failed`, `held`, `quarantined`, `daemon` or `enforcement`.
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

/// The alarm of a missed obligation, and the rule of `status --check` that it violates. `daemon` has an alarm only while a
/// loop is stuck, and `enforcement` has none: switching it off is the operator's decision.
pub const ALARMS: [(&str, &str, Option<AlarmKind>); 10] = [
    ("daemon", "daemon", Some(AlarmKind::Stuck)),
    ("enforcement", "enforcement", None),
    ("poll", "poll_late", Some(AlarmKind::PollLate)),
    ("pending", "pending", Some(AlarmKind::PendingLate)),
    ("reconcile", "reconcile", Some(AlarmKind::ReconcileLate)),
    ("action", "action", Some(AlarmKind::ActionMissing)),
    ("notifications", "notifications", Some(AlarmKind::NotificationsLate)),
    ("clock", "clock", Some(AlarmKind::Clock)),
    ("state", "state", Some(AlarmKind::State)),
    ("account_events", "account_events", Some(AlarmKind::EventsLate)),
];

impl Health {
    /// Reads what the rules need; counts failed users, held users and quarantined events without listing them. Judges the
    /// obligations by the wall clock.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn counts(store: &Store, guard: GuardWindow, now: Timestamp) -> Result<Self, StoreError> {
        let obligations = Obligation::judge_all(store.obligation_facts().await?, now);
        Self::with(store, obligations, guard, now).await
    }

    /// The same, with obligations that were judged already.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn with(
        store: &Store,
        obligations: Vec<Obligation>,
        guard: GuardWindow,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            guard: Some(store.guard_report(guard, now).await?),
            status: store.status().await?,
            obligations,
            denials_waiting: store.denials_waiting().await?,
            left_open: store.left_open().await?,
            remotes: store.remotes().await?,
            alarms: store.open_alarms().await?,
            ..Self::default()
        })
    }

    /// Reads everything, including the lists.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn read(store: &Store, guard: GuardWindow, now: Timestamp) -> Result<Self, StoreError> {
        Ok(Self {
            failed: store.users_with_outcome(OutcomeKind::Failed, LISTED_MAX).await?,
            held: store.held_individually(LISTED_MAX).await?,
            quarantined: store.quarantined(LISTED_MAX).await?,
            ..Self::counts(store, guard, now).await?
        })
    }

    /// No process has the state open: the daemon was killed, whatever it last wrote.
    pub fn daemon_is_gone(&mut self) {
        let daemon = self.obligations.iter_mut().find(|one| one.name == "daemon");
        if let Some(daemon) = daemon.filter(|daemon| daemon.met != Some(false)) {
            daemon.met = Some(false);
            daemon.detail = match &daemon.since {
                Some(at) => format!("the daemon is not running; its last sign of life was at {at}"),
                None => "the daemon is not running".to_owned(),
            };
        }
    }

    /// A process holds the state, so a daemon without a recent sign of life runs, and cannot store one.
    pub fn daemon_is_silent(&mut self) {
        let daemon = self.obligations.iter_mut().find(|one| one.name == "daemon");
        if let Some(daemon) = daemon.filter(|one| one.met == Some(false) && one.detail.starts_with("last sign")) {
            daemon.detail = format!(
                "a process holds the state and has stored no sign of life since {}: it cannot write the state, or it hangs",
                daemon.since.as_deref().unwrap_or("its start")
            );
            "check free space and permissions in the folder of the state, and read the log (`journalctl -u okta-auth0-sync`)"
                .clone_into(&mut daemon.remedy);
        }
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

    /// The obligations that are known to be missed.
    pub fn missed(&self) -> impl Iterator<Item = &Obligation> {
        self.obligations.iter().filter(|one| one.met == Some(false))
    }

    /// The open alarms that are not the alarm of a missed obligation, which says more.
    fn other_alarms(&self) -> impl Iterator<Item = &AlarmRow> {
        self.alarms.iter().filter(|alarm| {
            !self.missed().any(|one| alarm_of(&one.name).is_some_and(|(_, kind)| kind == Some(alarm.kind.as_str())))
        })
    }

    /// Why the installation is not well; empty when it is.
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut violated = |rule, detail| violations.push(Violation { rule, detail });
        let Some(status) = &self.status else {
            violated("never_ran", "never ran: this state is empty".to_owned());
            return violations;
        };
        for one in self.obligations.iter().filter(|one| !one.is_met()) {
            match alarm_of(&one.name) {
                Some(("poll_late", _)) if status.last_poll_ok_at.is_none() => {
                    violated("never_ran", "never ran: the System Log has not been polled yet".to_owned());
                }
                Some((rule, _)) => violated(rule, one.detail.clone()),
                None => {}
            }
        }
        for remote in self.refusing() {
            let error = remote.error.as_deref().unwrap_or_default();
            violated("refused", format!("{} refuses our calls: {error}", display_name(&remote.remote)));
        }
        let mut kinds: Vec<&str> = self.other_alarms().map(|alarm| alarm.kind.as_str()).collect();
        if !kinds.is_empty() {
            let count = kinds.len() as u64;
            kinds.sort_unstable();
            kinds.dedup();
            violated("alarm", format!("{}: {}", counted(count, "open alarm"), kinds.join(", ")));
        }
        for (rule, count, what) in
            [("failed", status.failed, "failed repeatedly"), ("held", status.held, "held until an operator approves")]
        {
            if count > 0 {
                violated(rule, format!("{} {what}", counted_users(count)));
            }
        }
        if status.quarantined > 0 {
            let count = status.quarantined.unsigned_abs();
            violated("quarantined", format!("{} could not be parsed", counted(count, "System Log event")));
        }
        violations
    }

    /// What the operator has to do, the most general issues first.
    pub fn attention(&self) -> Vec<Attention> {
        let mut list: Vec<Attention> = self.missed().filter_map(missed_obligation).collect();
        let has_alarm =
            |kind: &str, subject: &str| self.alarms.iter().any(|alarm| alarm.kind == kind && alarm.subject == subject);
        for remote in self.refusing().filter(|remote| !has_alarm("remote_refuses", &remote.remote)) {
            list.push(Attention {
                kind: "refused".to_owned(),
                subject: remote.remote.clone(),
                name: Some(display_name(&remote.remote).to_owned()),
                detail: remote.error.clone().unwrap_or_default(),
                since: remote.failing_since.clone().or_else(|| remote.error_at.clone()),
                remedy: "okta-auth0-sync check".to_owned(),
            });
        }
        // Alarms about users and events that are listed below would repeat them.
        let incident = self.guard_incident();
        let listed_below = |alarm: &AlarmRow| match alarm.kind.as_str() {
            "guard" => incident.is_some(),
            "failed" => self.failed.iter().any(|user| user.okta_user_id == alarm.subject),
            "held" => self.held.iter().any(|user| user.okta_user_id == alarm.subject),
            "quarantined" => !self.quarantined.is_empty(),
            _ => false,
        };
        list.extend(self.other_alarms().filter(|alarm| !listed_below(alarm)).map(|alarm| Attention {
            kind: alarm.kind.clone(),
            subject: alarm.subject.clone(),
            name: alarm.name.clone(),
            detail: alarm.detail.clone(),
            since: Some(self.began_at(alarm)),
            remedy: alarm.remedy.clone(),
        }));
        list.extend(self.guard_incident());
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

    /// An outage began before its alarm was raised.
    fn began_at(&self, alarm: &AlarmRow) -> String {
        let remote = self.remotes.iter().find(|remote| remote.remote == alarm.subject);
        match remote.and_then(|remote| remote.failing_since.clone()) {
            Some(since) if alarm.kind.starts_with("remote_") => since.min(alarm.raised_at.clone()),
            _ => alarm.raised_at.clone(),
        }
    }

    /// How many issues [`Health::attention`] would list without [`LISTED_MAX`].
    pub fn attention_count(&self, listed: &[Attention]) -> usize {
        let beyond = |count: i64, listed: usize| usize::try_from(count).unwrap_or(0).saturating_sub(listed);
        let more = self.status.as_ref().map_or(0, |status| {
            beyond(status.failed, self.failed.len())
                + beyond(self.held_individually(status.held), self.held.len())
                + beyond(status.quarantined, self.quarantined.len())
        });
        listed.len() + more
    }
}

/// The rule that a missed obligation violates, and the kind of its alarm.
fn alarm_of(name: &str) -> Option<(&'static str, Option<&'static str>)> {
    let found = ALARMS.iter().find(|(obligation, ..)| *obligation == name);
    found.map(|(_, rule, kind)| (*rule, kind.map(AlarmKind::as_str)))
}

fn missed_obligation(one: &Obligation) -> Option<Attention> {
    let (rule, kind) = alarm_of(&one.name)?;
    Some(Attention {
        kind: if one.name == "daemon" { rule } else { kind.unwrap_or(rule) }.to_owned(),
        subject: String::new(),
        name: None,
        detail: one.detail.clone(),
        since: one.since.clone(),
        remedy: one.remedy.clone(),
    })
}

/// The command that fixes it. [`crate::domain::Held`] has the reasons.
fn remedy_for(kind: &str, user: &UserRow) -> String {
    let id = &user.okta_user_id;
    match (kind, user.why.as_deref().unwrap_or_default()) {
        ("failed", _) => format!("okta-auth0-sync retry {id}"),
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

/// `1 event`, `2 events`.
pub(crate) fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn counted_users(count: i64) -> String {
    if count == 1 { "1 user".to_owned() } else { format!("{count} users") }
}

#[cfg(test)]
mod tests;
