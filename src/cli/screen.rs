//! Formatting of command output: tables, times, colors. Results go to standard output; colors only to a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Effects, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::domain::{Timestamp, clock, escape};

/// Success.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// A warning.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// An error.
pub const BAD: Style = AnsiColor::Red.on_default();
/// Less important text.
pub const DIM: Style = Style::new().effects(Effects::DIMMED);
/// Headings.
pub const STRONG: Style = Style::new().effects(Effects::BOLD);

/// `text` in `style`. [`out`] strips colors where they are unwanted.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Does `$TERM` lack colors and cursor movement?
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// Disables colors on dumb terminals. anstream alone would enable them as soon as `$CI` is set; it already honors
/// `CLICOLOR_FORCE` and `NO_COLOR`.
pub fn choose_color() {
    let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    if is_dumb() && !forced {
        anstream::ColorChoice::Never.write_global();
    }
}

/// Writes a result to standard output; keeps colors only on a color terminal without `NO_COLOR`.
///
/// # Errors
/// If standard output cannot be written. A closed pipe (`| head`) is not an error.
pub fn out(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    ignore_broken_pipe(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Writes bytes to standard output unchanged.
///
/// # Errors
/// As [`out`].
pub fn out_raw(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    ignore_broken_pipe(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

fn ignore_broken_pipe(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Replaces terminal control and bidi characters in a JSON text with `\\u` escapes. Such characters occur only in
/// strings, so the value stays the same.
pub fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Keep line ends and indentation between values; JSON has already escaped them in strings.
        if (c.is_ascii() && c != '\u{7f}') || escape(c.encode_utf8(&mut [0; 4])).chars().eq([c]) {
            safe.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    safe
}

/// Writes a message to standard error, wrapped on a terminal. Keeps colors, so the caller has to escape remote text.
pub fn remark(text: &str) {
    let stderr = io::stderr();
    let width = stderr.is_terminal().then(|| terminal_size::terminal_size_of(&stderr).map_or(80, |(width, _)| width.0));
    // A closed standard error cannot be reported anywhere.
    let _ = write!(anstream::stderr().lock(), "{}", wrapped(text, width));
}

/// Minimum width of a prose column.
const PROSE_MIN: usize = 20;

/// A table without rulings, readable and greppable: as wide as the terminal, unwrapped without one. Escapes cells, which
/// may contain remote text. Never breaks an id, so that it can be copied: if the words of a row are too wide for the
/// terminal even with shortened addresses, the cells are stacked.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    table_of_width(head, rows, terminal_width())
}

/// Like [`table`], for a terminal of `width` columns; unwrapped if `None`.
pub fn table_of_width<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> String {
    let mut rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| escape(&cell))).collect();
    if let Some(width) = width {
        let mut short = rows.clone();
        shorten_addresses(head, &mut short, width);
        // Stacked cells have room for the whole address.
        if narrowest(head, &short).iter().sum::<usize>() <= usize::from(width) {
            rows = short;
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    match width {
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        Some(width) => {
            let narrowest = narrowest(head, &rows);
            if narrowest.iter().sum::<usize>() > usize::from(width) {
                return stacked(head, &rows, width);
            }
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            table.set_constraints(narrowest.map(|narrowest| {
                ColumnConstraint::LowerBoundary(Width::Fixed(u16::try_from(narrowest).unwrap_or(width)))
            }));
        }
    }
    for row in rows {
        table.add_row(row);
    }
    let mut text: String = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    if text.is_empty() {
        text.push('\n');
    }
    text
}

/// Spaces around a cell.
const CELL_PADDING: usize = 2;
/// Addresses are not shortened below this width.
const ADDRESS_MIN: usize = 18;

/// The width of each column, with its padding, below which a word would be broken.
fn narrowest<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> [usize; N] {
    std::array::from_fn(|column| {
        let cells = || rows.iter().map(|row| row[column].as_str()).chain([head[column]]);
        let word = cells().flat_map(|cell| cell.split(' ')).map(UnicodeWidthStr::width).max().unwrap_or(0);
        word.max(cells().map(UnicodeWidthStr::width).max().unwrap_or(0).min(PROSE_MIN)) + CELL_PADDING
    })
}

/// Shortens addresses in the middle if the table is too wide otherwise, the widest column first. Ids stay whole: unlike an
/// address they cannot be recognized by their ends.
fn shorten_addresses<const N: usize>(head: [&str; N], rows: &mut [[String; N]], width: u16) {
    let widths = narrowest(head, rows);
    let mut excess = widths.iter().sum::<usize>().saturating_sub(usize::from(width));
    let mut columns: Vec<usize> = (0..N).collect();
    columns.sort_by_key(|column| std::cmp::Reverse(widths[*column]));
    for column in columns {
        let most = (widths[column] - CELL_PADDING).saturating_sub(excess).max(ADDRESS_MIN);
        if excess == 0 || !rows.iter().any(|row| row[column].contains('@')) {
            continue;
        }
        for row in rows.iter_mut() {
            let words = row[column].split(' ').map(|word| match word.contains('@') && !word.contains('|') {
                true => shortened(word, most),
                false => word.to_owned(),
            });
            row[column] = words.collect::<Vec<_>>().join(" ");
        }
        excess = narrowest(head, rows).iter().sum::<usize>().saturating_sub(usize::from(width));
    }
}

/// `word`, or its two ends with `…` between them.
fn shortened(word: &str, columns_max: usize) -> String {
    if word.width() <= columns_max {
        return word.to_owned();
    }
    let take = |signs: &mut dyn Iterator<Item = char>, room: usize| {
        let mut used = 0;
        let part = signs.take_while(|sign| {
            used += sign.width().unwrap_or(0);
            used <= room
        });
        part.collect::<Vec<char>>()
    };
    let room = columns_max.saturating_sub(1);
    let end = take(&mut word.chars().rev(), room / 2);
    let start = take(&mut word.chars(), room - room / 2);
    start.into_iter().chain(['…']).chain(end.into_iter().rev()).collect()
}

/// The cells of each row below each other, after their headings; omits empty cells.
fn stacked<const N: usize>(head: [&str; N], rows: &[[String; N]], width: u16) -> String {
    let records = rows.iter().map(|row| {
        let cells = head.into_iter().zip(row).filter(|(_, cell)| !cell.is_empty() && *cell != "-");
        pairs(cells.map(|(head, cell)| (head, cell.clone())), Some(width))
    });
    records.collect::<Vec<_>>().join("\n")
}

/// Names and escaped values, one pair per line, for a terminal of `width` columns; unwrapped if `None`.
pub fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>, width: Option<u16>) -> String {
    let rows: Vec<(&str, String)> = rows.into_iter().collect();
    let names = rows.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        text.push_str(&paragraph(&format!("{name:names$}  "), &value, width));
    }
    text
}

/// `head` and the escaped `text`, with a hanging indent on a terminal of `width` columns; unwrapped if `None`. A word
/// that is too wide gets its own line. Ends with a line end.
pub fn paragraph(head: &str, text: &str, width: Option<u16>) -> String {
    flow(head, &escape(text), width)
}

/// Wraps each line of `text` at `width` columns, keeping its indentation and colors.
pub fn wrapped(text: &str, width: Option<u16>) -> String {
    let lines = text.lines().map(|line| {
        let rest = line.trim_start_matches(' ');
        flow(&line[..line.len() - rest.len()], rest, width)
    });
    lines.collect()
}

/// Display width of a text, without colors.
fn columns(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().width()
}

fn flow(head: &str, text: &str, width: Option<u16>) -> String {
    let indent = columns(head);
    let room = width.map_or(usize::MAX, |width| usize::from(width).saturating_sub(indent).max(20));
    let margin = " ".repeat(indent);
    let mut lines: Vec<String> = vec![head.to_owned()];
    let mut used = 0;
    for word in text.split(' ') {
        let taken = columns(word);
        if taken > room {
            // Unbroken, from the left edge: a broken id or address cannot be copied.
            lines.pop_if(|line| line.trim().is_empty());
            lines.push(word.to_owned());
            used = usize::MAX;
            continue;
        }
        if used > 0 && used.saturating_add(1 + taken) > room {
            lines.push(margin.clone());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            used += taken;
            line.push_str(word);
        }
    }
    let lines: Vec<&str> = lines.iter().map(|line| line.trim_end()).collect();
    lines.join("\n") + "\n"
}

/// Width of standard output; `None` if it is not a terminal.
pub fn terminal_width() -> Option<u16> {
    let stdout = io::stdout();
    stdout.is_terminal().then(|| terminal_size::terminal_size_of(&stdout).map_or(80, |(width, _)| width.0))
}

/// `1 account`, `2 accounts`.
pub fn count(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// A relative time: `just now`, `3 min ago`, `2 days ago`, `in 5 min`.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let (past, future) = (clock::since(now, at), clock::since(at, now));
    if past.max(future) < Duration::from_secs(1) {
        "just now".to_owned()
    } else if future.is_zero() {
        format!("{} ago", span(past))
    } else {
        format!("in {}", span(future))
    }
}

/// A stored time as a relative one, a dash if `None`; an invalid time is shown unchanged.
pub fn relative_text(at: Option<&str>, now: Timestamp) -> String {
    match at.map(|text| (text, clock::parse_timestamp(text))) {
        None => "-".to_owned(),
        Some((_, Ok(at))) => relative(at, now),
        Some((text, Err(_))) => text.to_owned(),
    }
}

/// A duration in its largest unit: `45 s`, `3 min`, `7 h`, `2 days`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_use_largest_unit() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        for (at, expected) in [
            ("2026-11-23T10:00:00Z", "just now"),
            ("2026-11-23T09:59:15Z", "45 s ago"),
            ("2026-11-23T09:56:30Z", "3 min ago"),
            ("2026-11-22T10:00:00Z", "24 h ago"),
            ("2026-11-20T10:00:00Z", "3 days ago"),
            ("2026-11-23T10:05:00Z", "in 5 min"),
        ] {
            assert_eq!(relative(at.parse().unwrap(), now), expected);
        }
    }

    #[test]
    fn paragraph_has_hanging_indent_and_fits() {
        assert_eq!(paragraph("why  ", "one two three four five", Some(25)), "why  one two three four\n     five\n");
        assert_eq!(paragraph("a ", "", Some(25)), "a\n");
        let word = "0".repeat(45);
        let long = paragraph("id  ", &format!("x {word} y\u{1b}"), Some(24));
        assert_eq!(long, format!("id  x\n{word}\n    y\\u{{1b}}\n"), "a word that is wider is whole");
        assert_eq!(paragraph("id  ", &word, Some(24)), format!("id\n{word}\n"));
        assert_eq!(paragraph("", &"w ".repeat(200), None).lines().count(), 1);
        assert_eq!(pairs([("a", "1".to_owned()), ("long", "2".to_owned())], Some(80)), "a     1\nlong  2\n");
    }

    #[test]
    fn json_escapes_control_characters_only() {
        let value = serde_json::json!({ "é": "a\u{9b}2J\u{202e}漢\u{1b}[2J\n\u{7f}" });
        let shown = json(&format!("{value:#}"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.contains("\\u009b2J\\u202e漢") && shown.contains('\n'), "{shown}");
    }

    #[test]
    fn table_wraps_on_terminal_only() {
        let rows = || [["00u1".to_owned(), "word ".repeat(30)], ["00u2".to_owned(), "a\u{1b}[2Jb\nc".to_owned()]];
        let piped = table_of_width(["id", "why"], rows(), None);
        assert_eq!(piped.lines().count(), 3, "{piped}");
        assert!(piped.contains("a\\u{1b}[2Jb\\nc"), "{piped}");
        let shown = table_of_width(["id", "why"], rows(), Some(40));
        assert!(shown.lines().count() > 4 && shown.lines().all(|line| line.width() <= 40), "{shown}");
    }

    #[test]
    fn table_keeps_words_whole_or_stacks() {
        let account = "samlp|a-connection-of-an-enterprise|0123456789";
        let row = || [[account.to_owned(), "漢字".repeat(8), "-".to_owned(), "one two three".to_owned()]];
        let heads = ["account", "name", "nothing", "why"];
        for (width, stacked) in [(60, true), (70, true), (120, false)] {
            let shown = table_of_width(heads, row(), Some(width));
            assert!(shown.contains(account) && shown.contains(&"漢字".repeat(8)), "{shown}");
            assert!(shown.lines().all(|line| line.width() <= usize::from(width)), "{shown}");
            assert_eq!(shown.starts_with("account  samlp"), stacked, "{shown}");
            assert_eq!(shown.contains("nothing"), !stacked, "{shown}");
        }
    }

    #[test]
    fn long_address_is_shortened_not_stacked() {
        let rows = || {
            [
                [
                    "a.rather.long.name.of.a.user@a.rather.long.domain.example.com",
                    "00ud384zryL1GFAg30h7",
                    "applied",
                    "by ann@example.com",
                ],
                ["ann@example.com", "00ubKraGXy1EavbGP045", "held", ""],
            ]
            .map(|row| row.map(str::to_owned))
        };
        let shown = table_of_width(["USER", "OKTA ID", "OUTCOME", "NOTE"], rows(), Some(80));
        assert_eq!(shown.lines().count(), 3, "{shown}");
        assert!(shown.contains(" a.rather.lo") && shown.contains("…") && shown.contains("example.com "), "{shown}");
        assert!(shown.contains("00ud384zryL1GFAg30h7") && shown.contains(" ann@example.com "), "{shown}");
        assert!(table_of_width(["USER", "", "", ""], rows(), None).contains("user@a.rather.long.domain"));
    }

    #[test]
    fn width_counts_wide_chars_not_colors() {
        for line in paragraph("", &"漢字 ".repeat(30), Some(25)).lines() {
            assert!(line.width() <= 25, "{line}");
        }
        let painted = wrapped(&format!("  {} {}", paint(BAD, "error"), "word ".repeat(9)), Some(30));
        assert_eq!(painted.lines().count(), 2, "{painted}");
        assert!(painted.lines().all(|line| columns(line) <= 30 && line.starts_with("  ")), "{painted}");
    }
}
