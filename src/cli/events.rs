//! `events`: lists recorded events and their outcomes.

use std::collections::HashMap;

use serde_json::Value;

use super::args::{EventState, EventsArgs};
use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::Timestamp;
use crate::store::{EventRow, EventSelection};

/// Maximum characters shown of a quarantined event's text.
const RAW_CHARS_MAX: usize = 4000;

/// Lists the events, newest first.
///
/// # Errors
/// If there is no state, or it cannot be read.
pub(crate) async fn run(config: &Config, arguments: &EventsArgs, now: Timestamp) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let limit = arguments.limit;
    // Read one more than shown, to know whether there are more.
    let mut events = match arguments.state {
        None => store.recent_events(None, limit.saturating_add(1)).await?,
        Some(state) => store.events(selection(state), limit.saturating_add(1)).await?,
    };
    let shown = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = events.len() > shown;
    events.truncate(shown);
    let text = if arguments.json {
        // The newest `limit` quarantined events include all that the list can contain.
        let texts: HashMap<String, String> =
            store.quarantined(limit).await?.into_iter().map(|event| (event.event_id, event.raw)).collect();
        to_json_lines(&events, &texts)?
    } else if events.is_empty() {
        "no matching events\n".to_owned()
    } else {
        let mut text = to_text(&events, now, screen::terminal_width());
        if more {
            text.push_str(&format!("… older events omitted; --limit shows more than {limit}\n"));
        }
        text
    };
    store.close().await;
    screen::out(&text).map_err(Error::Output)?;
    Ok(Exit::Done)
}

const fn selection(state: EventState) -> EventSelection {
    match state {
        EventState::Pending => EventSelection::Pending,
        EventState::Settled => EventSelection::Settled,
        EventState::Ignored => EventSelection::Ignored,
        EventState::Quarantined => EventSelection::Quarantined,
    }
}

/// The columns of the view `recent_events`, `why`, and the (truncated) text of quarantined events.
fn to_json_lines(events: &[EventRow], texts: &HashMap<String, String>) -> Result<String, serde_json::Error> {
    let mut lines = String::new();
    for event in events {
        let mut object = serde_json::to_value(event)?;
        if let (Value::Object(members), Some(raw)) = (&mut object, texts.get(&event.event_id)) {
            let mut shown: String = raw.chars().take(RAW_CHARS_MAX).collect();
            let cut = shown.len() < raw.len();
            if cut {
                shown.push('…');
            }
            members.insert("raw".to_owned(), shown.into());
            members.insert("raw_cut".to_owned(), cut.into());
        }
        lines.push_str(&screen::json(&object.to_string()));
        lines.push('\n');
    }
    Ok(lines)
}

fn to_text(events: &[EventRow], now: Timestamp, width: Option<u16>) -> String {
    screen::table_of_width(
        ["PUBLISHED", "EVENT", "USER", "OUTCOME", "NOTE"],
        events.iter().map(|event| {
            let user = event.login.as_ref().or(event.okta_user_id.as_ref());
            [
                screen::relative_text(event.published.as_deref().or(Some(&event.received_at)), now),
                short_type(&event.event_type).to_owned(),
                user.cloned().unwrap_or_else(|| "-".to_owned()),
                event.outcome.replace('_', " "),
                note(event),
            ]
        }),
        width,
    )
}

/// The event type without the common prefix.
pub(super) fn short_type(event_type: &str) -> &str {
    event_type.strip_prefix("user.lifecycle.").unwrap_or(event_type)
}

/// The reason and the event id of a problem, else the actor.
fn note(event: &EventRow) -> String {
    match (&event.why, &event.actor) {
        (Some(why), _) => format!("{} ({})", why, event.event_id),
        (None, Some(actor)) => format!("by {actor}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_raw_text_is_truncated() {
        let event = |id: &str| EventRow {
            event_id: id.to_owned(),
            event_type: "user.lifecycle.deactivate".to_owned(),
            okta_user_id: None,
            login: None,
            actor: None,
            published: None,
            received_at: "2026-11-23T12:00:00.000Z".to_owned(),
            settled_at: None,
            outcome: "quarantined".to_owned(),
            why: Some("no user in it".to_owned()),
        };
        let texts = [("long".to_owned(), "ä".repeat(RAW_CHARS_MAX + 1)), ("short".to_owned(), "{}".to_owned())].into();
        let lines = to_json_lines(&[event("long"), event("short")], &texts).unwrap();
        let objects: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0]["raw"].as_str().unwrap().chars().count(), RAW_CHARS_MAX + 1);
        assert_eq!((&objects[0]["raw_cut"], &objects[1]["raw_cut"]), (&true.into(), &false.into()));
        assert_eq!(objects[1]["raw"], "{}");
    }

    #[test]
    fn table_fits_80_columns() {
        let event = EventRow {
            event_id: "5e0e1c0a-6d5d-11ee-8c99-0242ac120002".to_owned(),
            event_type: "user.lifecycle.delete.initiated".to_owned(),
            okta_user_id: Some("00ud384zryL1GFAg30h7".to_owned()),
            login: Some("a.rather.long.name.of.a.person@a.rather.long.domain.example.com".to_owned()),
            actor: Some("administrator@example.com".to_owned()),
            published: Some("2026-11-23T12:00:00.000Z".to_owned()),
            received_at: "2026-11-23T12:00:00.000Z".to_owned(),
            settled_at: None,
            outcome: "no_account".to_owned(),
            why: None,
        };
        let now = "2026-11-23T12:05:00Z".parse().unwrap();
        let quarantined = EventRow { why: Some("no user in it".to_owned()), ..event.clone() };
        let text = to_text(&[event.clone(), quarantined.clone()], now, Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("delete.initiated") && text.contains("no account"), "{text}");
        insta::assert_snapshot!("events@80", text);
        insta::assert_snapshot!("events@200", to_text(&[event, quarantined], now, Some(200)));
    }
}
