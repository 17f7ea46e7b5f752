//! The guard as one incident: however many users it holds, an operator has one decision to make.

use std::time::Duration;

use super::{Attention, Health, counted};
use crate::store::{AlarmKind, GuardReport};

impl GuardReport {
    /// What it holds, why, and who caused it.
    pub fn detail(&self) -> String {
        let since = self.held_since.as_deref().map_or_else(String::new, |at| format!(", the first since {at}"));
        let names = self.names.join(", ");
        let more = usize::try_from(self.held).unwrap_or(usize::MAX).saturating_sub(self.names.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(
            "the guard holds {}{since}: {names}{more}; {}{}",
            counted(self.held.unsigned_abs(), "user"),
            self.usage(),
            self.caused_by()
        )
    }

    /// `3 of 10 first denials in 1h are used`.
    pub fn usage(&self) -> String {
        let Self { limit, configured, .. } = self;
        let limit = if configured.ends_with('%') { format!("{limit} ({configured})") } else { limit.to_string() };
        let window = humantime::format_duration(Duration::from_secs(self.window_s));
        let reconcile = match self.used_by_reconcile {
            0 => String::new(),
            used => format!(", and {used} of {limit} by a reconcile"),
        };
        let until = self.full_until.as_deref().map_or_else(String::new, |at| format!(" until {at}"));
        format!("{} of {limit} first denials in {window} are used{reconcile}{until}", self.used)
    }

    fn caused_by(&self) -> String {
        let actors: Vec<String> = self
            .actors
            .iter()
            .map(|one| match &one.actor {
                Some(actor) => format!("in Okta by {actor} ({})", one.users),
                None => format!("found without an event ({})", one.users),
            })
            .collect();
        if actors.is_empty() { String::new() } else { format!("; deactivated {}", actors.join(", ")) }
    }

    /// The commands to look and to decide.
    pub fn remedy(&self) -> String {
        let since = self.oldest_at.as_deref().or(self.held_since.as_deref()).unwrap_or_default();
        format!(
            "check in Okta whether they left. If they did: `okta-auth0-sync approve --all` lists them, asks and denies them \
             (`approve <who>…` only some). If not: activate them in Okta, which releases them. `okta-auth0-sync audit export \
             --since {since}` lists who was denied before"
        )
    }
}

impl Health {
    /// The one entry about all users that the guard holds.
    pub(super) fn guard_incident(&self) -> Option<Attention> {
        let guard = self.guard.as_ref().filter(|guard| guard.held > 0)?;
        Some(Attention {
            kind: AlarmKind::Guard.as_str().to_owned(),
            subject: String::new(),
            name: None,
            detail: guard.detail(),
            since: guard.held_since.clone(),
            remedy: guard.remedy(),
        })
    }

    /// Held users that are listed one by one.
    pub(super) fn held_individually(&self, held: i64) -> i64 {
        held.saturating_sub(self.guard.as_ref().map_or(0, |guard| guard.held))
    }
}
