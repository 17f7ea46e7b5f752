//! What commands print: tables, times, colour. Results go to standard output; colour only to a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Effects, Style};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use unicode_width::UnicodeWidthStr;

use crate::domain::{Timestamp, clock, escape};

/// For what is in order.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// For what a person should know.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// For what is wrong.
pub const BAD: Style = AnsiColor::Red.on_default();
/// For what matters less.
pub const DIM: Style = Style::new().effects(Effects::DIMMED);
/// For heads.
pub const STRONG: Style = Style::new().effects(Effects::BOLD);

/// `text` in `style`. Where colour is not wanted, [`out`] takes it out again.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Can a terminal with this `$TERM` draw a line again, and colour it?
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// Takes colour from every output of this process where the terminal has none. anstream alone would colour it as soon as
/// `$CI` is set. Who forces colour (`CLICOLOR_FORCE`) or wants none (`NO_COLOR`) is heard there.
pub fn choose_colour() {
    let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    if is_dumb() && !forced {
        anstream::ColorChoice::Never.write_global();
    }
}

/// Writes a result to standard output: without colour unless that is a terminal that has it and `NO_COLOR` is unset.
///
/// # Errors
/// When standard output does not take it. A reader that has seen enough (`| head`) is no error.
pub fn out(text: &str) -> io::Result<()> {
    let mut stdout = anstream::stdout().lock();
    ignore_broken_pipe(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// Writes bytes to standard output just as they are.
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

/// A JSON text with characters that a terminal acts on, or that change how others are seen, as `\\u` escapes: the same value,
/// safe to show. (Such characters stand in strings only.)
pub fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        // Line ends and indentation between values stay; in strings JSON has escaped them already.
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

/// Writes a remark to standard error, wrapped if that is a terminal. Colours in it are kept; what a remote wrote has to
/// be escaped before.
pub fn remark(text: &str) {
    let stderr = io::stderr();
    let width = stderr.is_terminal().then(|| terminal_size::terminal_size_of(&stderr).map_or(80, |(width, _)| width.0));
    // There is nowhere left to tell of a standard error that is gone.
    let _ = write!(anstream::stderr().lock(), "{}", wrapped(text, width));
}

/// A prose column is not made narrower than this, as long as the table fits otherwise.
const PROSE_MIN: usize = 20;

/// A table without lines, for people and for `grep`: as wide as the terminal, and unwrapped where there is none. Cells
/// are escaped: they may hold what a remote wrote. No word is broken, for an id in two pieces cannot be copied: where
/// the words of a row are too wide for the screen, its cells stand below each other.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    table_of_width(head, rows, terminal_width())
}

/// As [`table`], for a screen of `width` columns; unwrapped if that is `None`.
pub fn table_of_width<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| escape(&cell))).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head);
    match width {
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        Some(width) => {
            let narrowest: [usize; N] = std::array::from_fn(|column| {
                let cells = || rows.iter().map(|row| row[column].as_str()).chain([head[column]]);
                let word = cells().flat_map(|cell| cell.split(' ')).map(UnicodeWidthStr::width).max().unwrap_or(0);
                word.max(cells().map(UnicodeWidthStr::width).max().unwrap_or(0).min(PROSE_MIN)) + CELL_PADDING
            });
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

/// The blanks beside a cell.
const CELL_PADDING: usize = 2;

/// The cells of each row below each other, with the heads before them; what is empty is left out.
fn stacked<const N: usize>(head: [&str; N], rows: &[[String; N]], width: u16) -> String {
    let records = rows.iter().map(|row| {
        let cells = head.into_iter().zip(row).filter(|(_, cell)| !cell.is_empty() && *cell != "-");
        pairs(cells.map(|(head, cell)| (head, cell.clone())), Some(width))
    });
    records.collect::<Vec<_>>().join("\n")
}

/// Names and what they stand for, below each other: for a screen of `width` columns, unwrapped if that is `None`. What
/// they stand for is escaped.
pub fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, String)>, width: Option<u16>) -> String {
    let rows: Vec<(&str, String)> = rows.into_iter().collect();
    let names = rows.iter().map(|(name, _)| name.width()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        text.push_str(&paragraph(&format!("{name:names$}  "), &value, width));
    }
    text
}

/// `text`, escaped, after `head`; where it is longer than the screen of `width` columns its next lines begin below its
/// first. A word that has no room there is a line of its own. Unwrapped if `width` is `None`. Ends with a line end.
pub fn paragraph(head: &str, text: &str, width: Option<u16>) -> String {
    flow(head, &escape(text), width)
}

/// Each line of `text` wrapped at a screen of `width` columns, below its own beginning; colours are kept.
pub fn wrapped(text: &str, width: Option<u16>) -> String {
    let lines = text.lines().map(|line| {
        let rest = line.trim_start_matches(' ');
        flow(&line[..line.len() - rest.len()], rest, width)
    });
    lines.collect()
}

/// How many columns a text takes on a screen; colours take none.
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
            // Whole, from the edge of the screen: half an id or half an address is none, and cannot be copied.
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

/// How many columns standard output shows; `None` if it is no terminal.
pub fn terminal_width() -> Option<u16> {
    let stdout = io::stdout();
    stdout.is_terminal().then(|| terminal_size::terminal_size_of(&stdout).map_or(80, |(width, _)| width.0))
}

/// `1 account`, `2 accounts`: `word` takes an `s` for any other number than one.
pub fn count(number: u64, word: &str) -> String {
    if number == 1 { format!("1 {word}") } else { format!("{number} {word}s") }
}

/// How long ago, for people: `just now`, `3 min ago`, `2 days ago`, `in 5 min`.
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

/// A stored time for people, or a dash for none; what is no time is shown as it is.
pub fn relative_text(at: Option<&str>, now: Timestamp) -> String {
    match at.map(|text| (text, clock::parse_timestamp(text))) {
        None => "-".to_owned(),
        Some((_, Ok(at))) => relative(at, now),
        Some((text, Err(_))) => text.to_owned(),
    }
}

/// A length of time in its largest unit, for people: `45 s`, `3 min`, `7 h`, `2 days`.
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
    fn times_are_told_in_their_largest_unit() {
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
    fn a_paragraph_is_wrapped_below_its_head_and_never_wider_than_the_screen() {
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
    fn json_is_the_same_value_without_what_deceives() {
        let value = serde_json::json!({ "é": "a\u{9b}2J\u{202e}漢\u{1b}[2J\n\u{7f}" });
        let shown = json(&format!("{value:#}"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.contains("\\u009b2J\\u202e漢") && shown.contains('\n'), "{shown}");
    }

    #[test]
    fn a_table_fits_its_terminal_and_is_not_wrapped_elsewhere() {
        let rows = || [["00u1".to_owned(), "word ".repeat(30)], ["00u2".to_owned(), "a\u{1b}[2Jb\nc".to_owned()]];
        let piped = table_of_width(["id", "why"], rows(), None);
        assert_eq!(piped.lines().count(), 3, "{piped}");
        assert!(piped.contains("a\\u{1b}[2Jb\\nc"), "{piped}");
        let shown = table_of_width(["id", "why"], rows(), Some(40));
        assert!(shown.lines().count() > 4 && shown.lines().all(|line| line.width() <= 40), "{shown}");
    }

    #[test]
    fn a_table_breaks_no_word_and_is_stacked_where_words_are_too_wide() {
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
    fn wide_signs_and_colours_are_counted_as_a_screen_does() {
        for line in paragraph("", &"漢字 ".repeat(30), Some(25)).lines() {
            assert!(line.width() <= 25, "{line}");
        }
        let painted = wrapped(&format!("  {} {}", paint(BAD, "error"), "word ".repeat(9)), Some(30));
        assert_eq!(painted.lines().count(), 2, "{painted}");
        assert!(painted.lines().all(|line| columns(line) <= 30 && line.starts_with("  ")), "{painted}");
    }
}
