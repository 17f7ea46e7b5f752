//! `audit`: exports the decisions as evidence, and verifies that none was changed.

use std::fmt::Write as _;

use super::args::{AuditCommand, ExportArgs, ExportFormat};
use super::{Error, Exit, screen, wiring};
use crate::config::Config;
use crate::domain::clock::timestamp_text;
use crate::domain::{Timestamp, escape};
use crate::store::{DecisionRow, Store};

/// Decisions held in memory at a time.
const PAGE: u32 = 1000;

/// The columns of an export: those of the view `decisions`, and `id`, `why` and `policy`.
const COLUMNS: [&str; 17] = [
    "id",
    "at",
    "okta_user_id",
    "email",
    "auth0_user_id",
    "cause",
    "event_id",
    "actor",
    "status",
    "verdict",
    "before",
    "after",
    "outcome",
    "why",
    "request_id",
    "version",
    "policy",
];

/// Exports or verifies.
///
/// # Errors
/// If there is no state, it cannot be read, or a decision was changed.
pub(crate) async fn run(config: &Config, command: &AuditCommand, now: Timestamp) -> Result<Exit, Error> {
    let store = wiring::state(&config.store.path).await?;
    let done = match command {
        AuditCommand::Export(arguments) => export(&store, arguments, now).await,
        AuditCommand::Verify => verify(&store).await,
    };
    store.close().await;
    done.map(|()| Exit::Done)
}

async fn export(store: &Store, arguments: &ExportArgs, now: Timestamp) -> Result<(), Error> {
    let since = arguments.since.map(|since| timestamp_text(since.resolve(now)));
    if arguments.format == ExportFormat::Csv {
        screen::out_raw(line(COLUMNS.map(str::to_owned)).as_bytes()).map_err(Error::Output)?;
    }
    let mut after = 0;
    loop {
        let page = store.decisions(None, since.as_deref(), after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.id;
        let mut text = String::new();
        for decision in &page {
            match arguments.format {
                ExportFormat::Csv => text.push_str(&line(cells(decision))),
                ExportFormat::Jsonl => {
                    text.push_str(&screen::json(&serde_json::to_value(decision)?.to_string()));
                    text.push('\n');
                }
            }
        }
        screen::out_raw(text.as_bytes()).map_err(Error::Output)?;
    }
}

fn cells(decision: &DecisionRow) -> [String; COLUMNS.len()] {
    let shown = |value: &Option<String>| value.as_deref().map(cell).unwrap_or_default();
    [
        decision.id.to_string(),
        cell(&decision.at),
        shown(&decision.okta_user_id),
        shown(&decision.email),
        shown(&decision.auth0_user_id),
        cell(&decision.cause),
        shown(&decision.event_id),
        shown(&decision.actor),
        shown(&decision.status),
        shown(&decision.verdict),
        shown(&decision.before),
        shown(&decision.after),
        cell(&decision.outcome),
        shown(&decision.why),
        shown(&decision.request_id),
        cell(&decision.version),
        cell(&decision.policy),
    ]
}

/// A value that is safe in a spreadsheet: escapes control characters, and puts an apostrophe before a value that would be
/// a formula (starts with `=`, `+`, `-` or `@`). JSON lines contain every value unchanged.
fn cell(value: &str) -> String {
    let value = escape(value);
    if value.starts_with(['=', '+', '-', '@']) { format!("'{value}") } else { value }
}

/// An RFC 4180 record.
fn line(cells: [String; COLUMNS.len()]) -> String {
    let quoted = cells.map(|cell| {
        if cell.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell }
    });
    quoted.join(",") + "\r\n"
}

async fn verify(store: &Store) -> Result<(), Error> {
    // Read first, so that the verification covers the printed row.
    let (last, chain) = store.last_chain().await?;
    let verified = store.verify_decisions().await?;
    let mut proven = format!(
        "{} decisions are unchanged; {} more are anonymized, and the rest of them is unchanged",
        verified.rows, verified.forgotten
    );
    if verified.unproven > 0 {
        let _ = write!(
            proven,
            "; {} were anonymized by an older version, so only their place in the chain is proven",
            verified.unproven
        );
    }
    let advice =
        "Store the two lines above elsewhere: the row keeps its chain value unless it or an earlier row is changed.";
    let kept = store.kept_decisions().await?;
    let reach = match (kept.expired, kept.oldest_at) {
        (0, _) => "They go back to the first decision ever made.".to_owned(),
        (expired, Some(at)) => {
            format!("{expired} older ones were deleted after [store] retention; these go back to {at}.")
        }
        (expired, None) => format!("All {expired} earlier ones were deleted after [store] retention."),
    };
    let width = screen::terminal_width();
    // The lines to keep are not wrapped.
    let text = screen::paragraph("", &proven, width)
        + &screen::paragraph("", &reach, width)
        + &format!("row {last}\nchain {chain}\n")
        + &screen::paragraph("", advice, width);
    screen::out(&text).map_err(Error::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_escape_formulas_and_line_ends() {
        for (value, expected) in [
            ("ann@example.com", "ann@example.com"),
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("a\r\nb\u{1b}", "a\\r\\nb\\u{1b}"),
            ("\t=1", "\\t=1"),
            ("", ""),
        ] {
            assert_eq!(cell(value), expected);
        }
        let mut cells = COLUMNS.map(str::to_owned);
        cells[1] = "a \"b\", c".to_owned();
        let line = line(cells);
        assert!(line.starts_with("id,\"a \"\"b\"\", c\",okta_user_id,") && line.ends_with(",policy\r\n"), "{line}");
    }
}
