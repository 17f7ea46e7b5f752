//! The history of one user from the state: identity, events, decisions and reasons.

use serde::Serialize;
use serde_json::Value;

use super::{Error, events::short_type, screen, user_match};
use crate::domain::clock::{parse_timestamp, since};
use crate::domain::{OktaUserId, OutcomeKind, Timestamp};
use crate::store::{AccountRow, AlarmRow, DecisionRow, EventRow, KeptDecisions, Store, UserRow};

/// Maximum number of events to read, newest first.
const EVENTS_MAX: u32 = 1000;
/// Page size and maximum number of pages of decisions: enough for years of nightly looks.
const DECISIONS_PAGE: u32 = 1000;
const DECISION_PAGES_MAX: u32 = 20;
/// Rows shown per list, the newest; `--json` prints all rows read.
const SHOWN_MAX: usize = 50;

/// Everything that the state knows about a user.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Story {
    /// The name is part of the interface.
    #[serde(rename = "person")]
    pub(crate) user: UserRow,
    pub(crate) addresses: Vec<String>,
    pub(crate) accounts: Vec<AccountRow>,
    /// Newest first.
    pub(crate) events: Vec<EventRow>,
    /// Oldest first.
    pub(crate) decisions: Vec<DecisionRow>,
    /// How far back the decisions reach.
    pub(crate) decisions_kept: KeptDecisions,
    pub(crate) alarms: Vec<AlarmRow>,
}

impl Story {
    /// Reads the history.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub(crate) async fn read(store: &Store, user: UserRow) -> Result<Self, Error> {
        let id: OktaUserId = user_match::id_of(&user)?;
        let mut decisions: Vec<DecisionRow> = Vec::new();
        for _ in 0..DECISION_PAGES_MAX {
            let after = decisions.last().map_or(0, |decision| decision.id);
            let page = store.decisions(Some(&id), None, after, DECISIONS_PAGE).await?;
            if page.is_empty() {
                break;
            }
            decisions.extend(page);
        }
        Ok(Self {
            addresses: store.addresses_of(&id).await?,
            accounts: store.accounts_of(&id).await?,
            events: store.events_of(&id, EVENTS_MAX).await?,
            alarms: store.open_alarms_of(&id).await?,
            decisions_kept: store.kept_decisions().await?,
            decisions,
            user,
        })
    }

    /// The members of `user --json`.
    ///
    /// # Errors
    /// When a row cannot be put into JSON.
    pub(crate) fn to_json(&self) -> Result<Value, Error> {
        Ok(serde_json::to_value(self)?)
    }

    /// Renders the history for a terminal of `width` columns.
    pub(crate) fn to_text(&self, now: Timestamp, width: Option<u16>) -> String {
        let name = screen::paragraph("", user_match::name_of(&self.user), width);
        let mut text = format!("{}\n\n", screen::paint(screen::STRONG, name.trim_end()));
        text.push_str(&screen::pairs(self.facts(now), width));
        let mut section = |head: &str, body: String| {
            text.push_str(&format!("\n{}\n{body}", screen::paint(screen::STRONG, head)));
        };
        if !self.accounts.is_empty() {
            section("Auth0 accounts, marked now or previously", self.accounts_text(now, width));
        }
        if !self.events.is_empty() {
            section("Events, oldest first", self.events_text(now, width));
        }
        if !self.decisions.is_empty() || self.decisions_kept.expired > 0 {
            section("Decisions, oldest first", self.decisions_text(now, width));
        }
        if !self.alarms.is_empty() {
            let alarms = self.alarms.iter().map(|alarm| {
                let since = screen::relative_text(Some(&alarm.raised_at), now);
                screen::paragraph("  ", &format!("{}  {}, {since}", alarm.kind, alarm.detail), width)
                    + &screen::paragraph("    → ", &alarm.remedy, width)
            });
            section("Open alarms", alarms.collect());
        }
        text
    }

    fn facts(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let user = &self.user;
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let status = match &user.status {
            Some(status) => format!("{status}, read {}", screen::relative_text(user.status_at.as_deref(), now)),
            None => "never read".to_owned(),
        };
        let mut facts = vec![
            ("Okta id", user.okta_user_id.clone()),
            ("login", shown(&user.login)),
            ("e-mail", shown(&user.email)),
            ("addresses", if self.addresses.is_empty() { "-".to_owned() } else { self.addresses.join(", ") }),
            ("status in Okta", status),
            ("last look", self.outcome(now)),
            ("next look", self.next_look(now)),
        ];
        if let Some(error) = &user.last_error {
            facts.push(("last error", error.clone()));
        }
        facts
    }

    fn outcome(&self, now: Timestamp) -> String {
        let user = &self.user;
        let Some(outcome) = &user.outcome else { return "not processed yet".to_owned() };
        let why = user.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        let since = screen::relative_text(Some(&user.since), now);
        format!("{} since {since}{why}", outcome.as_str().replace('_', " "))
    }

    /// When the next look is due, and why.
    fn next_look(&self, now: Timestamp) -> String {
        let user = &self.user;
        let id = &user.okta_user_id;
        let reason = match user.cause.as_str() {
            "event" => "an event",
            "recheck" => "a recheck, as Okta and its log disagreed or another user has the address",
            "sweep" => "a reconcile",
            "command" => "an operator's request",
            "neighbour" => "a look at another user with the same address",
            "policy" => "a configuration change",
            other => other,
        };
        let attempts = match user.attempts {
            0 => String::new(),
            1 => ", after 1 failed attempt".to_owned(),
            many => format!(", after {many} failed attempts"),
        };
        match (&user.due_at, user.outcome) {
            (None, Some(OutcomeKind::Held)) => {
                format!("none until an operator decides: okta-auth0-sync approve {id} (or retry {id})")
            }
            (None, _) => "not due; the next event or reconcile queues one".to_owned(),
            (Some(at), _) => {
                let due = match parse_timestamp(at) {
                    Ok(at) if at <= now => "now".to_owned(),
                    _ => screen::relative_text(Some(at), now),
                };
                format!("{due}, because of {reason}{attempts}")
            }
        }
    }

    fn accounts_text(&self, now: Timestamp, width: Option<u16>) -> String {
        screen::table_of_width(
            ["ACCOUNT", "ADDRESS", "CONNECTION", "MARK", "SINCE", "LAG"],
            self.accounts.iter().map(|account| {
                let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
                let mark = match (account.denied, account.blocked) {
                    (true, true) => "denied, blocked",
                    (true, false) => "denied",
                    (false, _) => "open",
                };
                [
                    account.auth0_user_id.clone(),
                    shown(&account.email),
                    shown(&account.connection),
                    mark.to_owned(),
                    screen::relative_text(self.state_since(account), now),
                    account.lag_s.map_or_else(|| "-".to_owned(), |lag| format!("{lag:.1} s")),
                ]
            }),
            width,
        )
    }

    /// Since when the account is denied or open. An open account still has the time of its last denial.
    fn state_since<'a>(&'a self, account: &'a AccountRow) -> Option<&'a str> {
        if account.denied {
            return account.denied_at.as_deref();
        }
        let opened = self.decisions.iter().rev().find(|decision| {
            decision.auth0_user_id.as_ref() == Some(&account.auth0_user_id)
                && decision.before != decision.after
                && decision.outcome == "applied"
        });
        opened.map(|decision| decision.at.as_str())
    }

    fn events_text(&self, now: Timestamp, width: Option<u16>) -> String {
        let rows = &self.events[..self.events.len().min(SHOWN_MAX)];
        earlier(self.events.len())
            + &screen::table_of_width(
                ["PUBLISHED", "EVENT", "BY", "OUTCOME", "SETTLED AFTER"],
                rows.iter().rev().map(|event| {
                    [
                        screen::relative_text(event.published.as_deref().or(Some(&event.received_at)), now),
                        short_type(&event.event_type).to_owned(),
                        event.actor.clone().unwrap_or_else(|| "-".to_owned()),
                        event.outcome.replace('_', " "),
                        settled_after(event).unwrap_or_else(|| "-".to_owned()),
                    ]
                }),
                width,
            )
    }

    fn decisions_text(&self, now: Timestamp, width: Option<u16>) -> String {
        let kept = &self.decisions_kept;
        let mut text = String::new();
        if kept.expired > 0 {
            let reach = match &kept.oldest_at {
                Some(at) => format!("the oldest one kept is from {at}"),
                None => "none are kept".to_owned(),
            };
            let told = format!("Earlier decisions (of all users) were deleted after [store] retention; {reach}.");
            text.push_str(&screen::paragraph("", &told, width));
        }
        if self.decisions.is_empty() {
            return text;
        }
        let folded = folded(&self.decisions);
        let rows = folded.len().saturating_sub(SHOWN_MAX);
        text + &earlier(folded.len())
            + &screen::table_of_width(
                ["WHEN", "CAUSE", "OKTA → VERDICT", "ACCOUNT", "OUTCOME", "WHY"],
                folded.into_iter().skip(rows).map(|(decision, times)| {
                    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
                    let verdict = match (&decision.status, &decision.verdict) {
                        (None, None) => "-".to_owned(),
                        (status, verdict) => format!("{} → {}", shown(status), shown(verdict)),
                    };
                    let cause = match (decision.cause.as_str(), &decision.actor) {
                        ("event", Some(actor)) => format!("event by {actor}"),
                        (cause, _) => cause.to_owned(),
                    };
                    let outcome = decision.outcome.replace('_', " ");
                    let change = match (&decision.before, &decision.after) {
                        (Some(before), Some(after)) if before != after => format!("{outcome}: {before} → {after}"),
                        _ => outcome,
                    };
                    [
                        screen::relative_text(Some(&decision.at), now),
                        cause,
                        verdict,
                        shown(&decision.auth0_user_id),
                        if times > 1 { format!("{change} ({times} times, latest shown)") } else { change },
                        decision.why.clone().unwrap_or_default(),
                    ]
                }),
                width,
            )
    }
}

/// A note about omitted earlier rows.
fn earlier(rows: usize) -> String {
    match rows.saturating_sub(SHOWN_MAX) {
        0 => String::new(),
        hidden => format!("… {hidden} earlier rows omitted; --json shows them\n"),
    }
}

/// Time from publication to the end of the look that settled the event.
fn settled_after(event: &EventRow) -> Option<String> {
    let published = parse_timestamp(event.published.as_deref()?).ok()?;
    let settled = parse_timestamp(event.settled_at.as_deref()?).ok()?;
    Some(screen::span(since(settled, published)))
}

/// Folds runs of identical "unchanged" decisions, as nightly reconciles make them, into the last one and their count.
fn folded(decisions: &[DecisionRow]) -> Vec<(&DecisionRow, usize)> {
    let same = |one: &DecisionRow, other: &DecisionRow| {
        one.outcome == "unchanged"
            && (&one.outcome, &one.auth0_user_id, &one.cause, &one.status, &one.verdict, &one.why)
                == (&other.outcome, &other.auth0_user_id, &other.cause, &other.status, &other.verdict, &other.why)
    };
    let mut folded: Vec<(&DecisionRow, usize)> = Vec::new();
    for decision in decisions {
        match folded.last_mut() {
            Some((last, times)) if same(last, decision) => {
                *last = decision;
                *times += 1;
            }
            _ => folded.push((decision, 1)),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(id: i64, outcome: &str, cause: &str) -> DecisionRow {
        DecisionRow {
            id,
            at: "2026-11-23T11:00:00.000Z".to_owned(),
            okta_user_id: Some("00u1".to_owned()),
            email: Some("ann@example.com".to_owned()),
            auth0_user_id: Some("auth0|65f0c0ffee0123456789abcd".to_owned()),
            cause: cause.to_owned(),
            event_id: None,
            actor: Some("admin\u{1b}[31m@example.com".to_owned()),
            status: Some("DEPROVISIONED".to_owned()),
            verdict: Some("deny".to_owned()),
            before: Some("open".to_owned()),
            after: Some("denied".to_owned()),
            outcome: outcome.to_owned(),
            why: None,
            request_id: None,
            version: "0.1.0".to_owned(),
            policy: "p".to_owned(),
        }
    }

    fn user() -> UserRow {
        UserRow {
            okta_user_id: "00ud384zryL1GFAg30h7".to_owned(),
            login: Some("ann@example.com".to_owned()),
            email: Some("ann@example.com".to_owned()),
            status: Some("DEPROVISIONED".to_owned()),
            status_at: Some("2026-11-23T11:59:00.000Z".to_owned()),
            outcome: Some(OutcomeKind::Applied),
            why: None,
            since: "2026-11-23T11:00:00.000Z".to_owned(),
            due_at: None,
            cause: "event".to_owned(),
            attempts: 0,
            last_error: None,
            open: false,
        }
    }

    #[test]
    fn folds_adjacent_unchanged_decisions_only() {
        let decisions = [
            decision(1, "applied", "event"),
            decision(2, "unchanged", "sweep"),
            decision(3, "unchanged", "sweep"),
            decision(4, "unchanged", "command"),
            decision(5, "restored", "sweep"),
            decision(6, "restored", "sweep"),
        ];
        let folded: Vec<(i64, usize)> = folded(&decisions).into_iter().map(|(row, times)| (row.id, times)).collect();
        assert_eq!(folded, [(1, 1), (3, 2), (4, 1), (5, 1), (6, 1)]);
    }

    #[test]
    fn story_fits_80_columns_and_escapes_text() {
        let story = Story {
            user: user(),
            addresses: vec!["ann@example.com".to_owned(), "ann.the.first@a.long.domain.example.com".to_owned()],
            accounts: Vec::new(),
            events: Vec::new(),
            decisions: vec![decision(1, "applied", "event"), decision(2, "unchanged", "sweep")],
            decisions_kept: KeptDecisions::default(),
            alarms: Vec::new(),
        };
        let now = parse_timestamp("2026-11-23T12:00:00Z").unwrap();
        let text = story.to_text(now, Some(80));
        let bold = screen::paint(screen::STRONG, "x");
        let (before, after) = bold.split_once('x').unwrap();
        let plain = text.replace(before, "").replace(after, "");
        assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
        assert!(!plain.contains('\u{1b}'), "{plain:?}");
    }

    #[test]
    fn story_screens() {
        let event = EventRow {
            event_id: "5e0e1c0a-6d5d-11ee-8c99-0242ac120002".to_owned(),
            event_type: "user.lifecycle.deactivate".to_owned(),
            okta_user_id: Some("00ud384zryL1GFAg30h7".to_owned()),
            login: Some("ann@example.com".to_owned()),
            actor: Some("administrator@example.com".to_owned()),
            published: Some("2026-11-23T10:59:58.000Z".to_owned()),
            received_at: "2026-11-23T11:00:00.000Z".to_owned(),
            settled_at: Some("2026-11-23T11:00:01.000Z".to_owned()),
            outcome: "applied".to_owned(),
            why: None,
        };
        let account = AccountRow {
            auth0_user_id: "auth0|65f0c0ffee0123456789abcd".to_owned(),
            email: Some("ann@example.com".to_owned()),
            connection: Some("Username-Password-Authentication".to_owned()),
            denied: true,
            blocked: false,
            denied_at: Some("2026-11-23T11:00:01.000Z".to_owned()),
            lag_s: Some(3.0),
            event_id: None,
        };
        let failing = UserRow {
            outcome: Some(OutcomeKind::Failed),
            why: Some("Auth0 PATCH /api/v2/users/{id}: server error (500)".to_owned()),
            due_at: Some("2026-11-24T11:00:00.000Z".to_owned()),
            attempts: 12,
            last_error: Some("Auth0 PATCH /api/v2/users/{id}: server error (500)".to_owned()),
            ..user()
        };
        let held = UserRow { outcome: Some(OutcomeKind::Held), why: Some("guard".to_owned()), ..user() };
        let fresh = UserRow { outcome: None, status: None, due_at: Some(user().since), ..user() };
        let alarm = AlarmRow {
            id: 1,
            kind: "failed".to_owned(),
            subject: "00ud384zryL1GFAg30h7".to_owned(),
            name: None,
            detail: "could not be settled".to_owned(),
            remedy: "okta-auth0-sync retry 00ud384zryL1GFAg30h7".to_owned(),
            raised_at: "2026-11-23T11:00:00.000Z".to_owned(),
            cleared_at: None,
        };
        let now = parse_timestamp("2026-11-23T12:00:00Z").unwrap();
        let whole = Story {
            user: failing,
            addresses: vec!["ann@example.com".to_owned(), "ann.the.first@example.com".to_owned()],
            accounts: vec![account],
            events: vec![event.clone(), EventRow { settled_at: None, outcome: "pending".to_owned(), ..event }],
            decisions: vec![
                decision(1, "applied", "event"),
                decision(2, "unchanged", "sweep"),
                decision(3, "unchanged", "sweep"),
            ],
            decisions_kept: KeptDecisions { expired: 3, oldest_at: Some("2026-11-01T00:00:00.000Z".to_owned()) },
            alarms: vec![alarm],
        };
        let bare = |user| Story {
            user,
            addresses: Vec::new(),
            accounts: Vec::new(),
            events: Vec::new(),
            decisions: Vec::new(),
            decisions_kept: KeptDecisions::default(),
            alarms: Vec::new(),
        };
        let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
        for width in [80, 200] {
            insta::assert_snapshot!(format!("whole@{width}"), plain(whole.to_text(now, Some(width))));
        }
        let others = [held, fresh].map(|user| plain(bare(user).to_text(now, Some(80))));
        insta::assert_snapshot!("held_and_never_looked_at", others.join("\n----\n"));
    }

    #[test]
    fn next_look_states_its_reason() {
        let now = parse_timestamp("2026-11-23T12:00:00Z").unwrap();
        let told = |change: fn(&mut UserRow)| {
            let mut user = user();
            change(&mut user);
            let story = Story {
                user,
                addresses: Vec::new(),
                accounts: Vec::new(),
                events: Vec::new(),
                decisions: Vec::new(),
                decisions_kept: KeptDecisions::default(),
                alarms: Vec::new(),
            };
            story.next_look(now)
        };
        assert!(told(|_| {}).starts_with("not due"));
        assert!(told(|user| user.outcome = Some(OutcomeKind::Held)).contains("approve 00ud384zryL1GFAg30h7"));
        assert_eq!(
            told(|user| {
                user.due_at = Some("2026-11-23T11:59:59.000Z".to_owned());
                user.attempts = 2;
            }),
            "now, because of an event, after 2 failed attempts"
        );
        assert!(told(|user| user.due_at = Some("2026-11-23T12:05:00.000Z".to_owned())).starts_with("in 5 min, "));
    }
}
