//! The first line of `status`: the worst true thing.

use super::{Health, Obligation, counted_users, display_name};
use crate::domain::{Timestamp, timestamp_text};
use crate::store::{LeftOpen, RemoteRow};

/// How bad the headline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every obligation is met and nothing waits.
    Good,
    /// Something waits within its deadline, or is not known yet.
    Working,
    /// An operator is needed.
    Bad,
}

/// The first line of `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline {
    /// Its sentence.
    pub text: String,
    /// How bad it is.
    pub level: Level,
}

impl Health {
    /// The worst true thing. It is bad only if `status --check` fails.
    pub fn headline(&self, now: Timestamp) -> Headline {
        let headline = self.worst(now);
        match headline.level {
            // A remote that fails inside its deadline.
            Level::Bad if self.violations().is_empty() => Headline { level: Level::Working, ..headline },
            _ => headline,
        }
    }

    fn worst(&self, now: Timestamp) -> Headline {
        let bad = |text: String| Headline { text, level: Level::Bad };
        let working = |text: String| Headline { text, level: Level::Working };
        let Some(status) = &self.status else { return working("Never ran".to_owned()) };
        let missed = |name: &str| self.missed().find(|one| one.name == name);
        if let Some(daemon) = missed("daemon") {
            let text = if daemon.detail.contains("not running") {
                "The daemon is not running".to_owned()
            } else {
                capitalized(&daemon.detail)
            };
            return bad(format!("{text}{}", self.waiting()));
        }
        if missed("enforcement").is_some() {
            return bad("Enforcement is OFF".to_owned());
        }
        let failing: Vec<String> =
            self.remotes.iter().filter(|remote| remote.is_failing()).map(|remote| outage(remote, now)).collect();
        if !failing.is_empty() {
            return bad(format!("{}{}", failing.join("; "), self.waiting()));
        }
        if status.last_poll_ok_at.is_none() {
            return working("No successful poll yet; nothing is being synced".to_owned());
        }
        let mut worst: Vec<&Obligation> = self.missed().collect();
        worst.sort_by_key(|one| severity(&one.name));
        if let Some(first) = worst.first() {
            return bad(self.missed_text(first, now));
        }
        match self.attention_count(&self.attention()) {
            0 => {}
            1 => return bad("1 issue needs attention".to_owned()),
            count => return bad(format!("{count} issues need attention")),
        }
        let unknown: Vec<&str> =
            self.obligations.iter().filter(|one| one.met.is_none()).map(|one| one.name.as_str()).collect();
        if !unknown.is_empty() {
            return working(format!("Not known yet: {}", unknown.join(", ")));
        }
        if status.pending > 0 {
            return working(format!("Working{}", self.waiting()));
        }
        match self.left_open_text() {
            Some(text) => working(format!("Nothing is overdue, but {text}")),
            None => Headline { text: "All well".to_owned(), level: Level::Good },
        }
    }

    /// `2 users who left have no matched account`; `None` if every user who left is denied.
    pub fn left_open_text(&self) -> Option<String> {
        let LeftOpen { unmatched, shared_address } = self.left_open;
        let mut parts = Vec::new();
        if unmatched > 0 {
            let have = if unmatched == 1 { "has" } else { "have" };
            parts.push(format!("{} who left {have} no matched account", counted_users(unmatched)));
        }
        if shared_address > 0 {
            let share = if shared_address == 1 { "shares" } else { "share" };
            parts.push(format!("{} who left {share} an address with an active user", counted_users(shared_address)));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// `, 3 denials waiting`, or empty.
    fn waiting(&self) -> String {
        let pending = self.status.as_ref().map_or(0, |status| status.pending);
        match (self.denials_waiting, pending) {
            (0, 0) => String::new(),
            (0, 1) => ", 1 user waiting".to_owned(),
            (0, users) => format!(", {users} users waiting"),
            (1, _) => ", 1 denial waiting".to_owned(),
            (denials, _) => format!(", {denials} denials waiting"),
        }
    }

    fn missed_text(&self, one: &Obligation, now: Timestamp) -> String {
        let since = one.since.as_deref().map_or_else(|| "the start".to_owned(), |at| moment(at, now));
        match one.name.as_str() {
            "poll" => format!("No successful poll since {since}{}", self.waiting()),
            "pending" => format!("{} since {since}", self.waiting().trim_start_matches(", ")),
            "reconcile" => format!("Reconcile is overdue: none has finished since {since}"),
            "action" => format!("The Action does not enforce the marks: {}", one.detail),
            _ => capitalized(&one.detail),
        }
    }
}

/// Lower is worse. What may let a user who left log in comes first.
fn severity(name: &str) -> usize {
    ["poll", "action", "pending", "state", "clock", "reconcile", "account_events", "notifications"]
        .iter()
        .position(|known| *known == name)
        .unwrap_or(usize::MAX)
}

/// `Auth0 unreachable since 20:46`.
fn outage(remote: &RemoteRow, now: Timestamp) -> String {
    let what = match remote.error_kind.as_deref() {
        Some("unauthorized" | "forbidden") => "refuses our calls",
        Some("rate limited") => "limits our calls",
        Some("unreachable" | "timed out") => "unreachable",
        _ => "answers with errors",
    };
    let since = remote.failing_since.as_deref().or(remote.error_at.as_deref()).unwrap_or_default();
    let next =
        remote.next_call_at.as_deref().map_or_else(String::new, |at| format!(", next call at {}", moment(at, now)));
    format!("{} {what} since {}{next}", display_name(&remote.remote), moment(since, now))
}

/// `20:46` today, `2026-11-23 20:46` otherwise; UTC.
fn moment(at: &str, now: Timestamp) -> String {
    match (at.get(..10), at.get(11..16)) {
        (Some(day), Some(time)) if timestamp_text(now).starts_with(day) => time.to_owned(),
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => at.to_owned(),
    }
}

fn capitalized(text: &str) -> String {
    let mut signs = text.chars();
    signs.next().map_or_else(String::new, |first| first.to_uppercase().chain(signs).collect())
}
