//! The log: one line per event, to standard error.
//!
//! Three formats: text (time, level, message, fields; in color on a terminal), journald (a syslog priority prefix `<N>`
//! as in sd-daemon(3), and no time, because journald adds it), and JSON (one object per line). Text from remotes is
//! escaped so that it can neither forge a line nor control a terminal, and the length of a line is limited.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use anstyle::{AnsiColor, Effects, Style};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogConfig, LogFormat};
use crate::domain::{Clock, escape, timestamp_text};

/// Libraries whose `info` lines do not help operators; the configured filter can enable them by name.
const QUIET: &str = "tokio_cron_scheduler=warn";

/// The longest line, in bytes. journald splits longer ones at 48 KiB, and most collectors at 8 or 16.
const LINE_MAX: usize = 8 * 1024;

/// The longest single field, in bytes, so that text from a remote cannot push the other fields out of the line.
const FIELD_MAX: usize = 2 * 1024;

/// The longest rendering of one span's fields, in bytes, and the largest number of spans shown.
const SPAN_MAX: usize = 200;
const SPANS_MAX: usize = 4;

/// Standard error; on a terminal, erases a progress line first.
fn stderr_on_a_new_line() -> io::Stderr {
    let mut stderr = io::stderr();
    if stderr.is_terminal() {
        // If standard error is gone, there is nowhere left to report it.
        let _ = io::Write::write_all(&mut stderr, b"\r\x1b[2K");
    }
    stderr
}

/// Starts the log, once per process. Times come from `clock`.
///
/// # Errors
/// When the filter is invalid (never in a validated [`LogConfig`]) or the log has already been started.
pub fn init(log: &LogConfig, clock: Arc<dyn Clock>) -> Result<(), Error> {
    let filter = EnvFilter::try_new(format!("{QUIET},{}", log.filter))?;
    let lines = Lines { form: Form::of_stderr(log.format), clock };
    let layer =
        tracing_subscriber::fmt::layer().event_format(lines).fmt_fields(Fields).with_writer(stderr_on_a_new_line);
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(())
}

/// Why the log failed to start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is invalid.
    #[error("log.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The log has already been started.
    #[error(transparent)]
    Started(#[from] TryInitError),
}

/// Truncates `text` to `bytes`, and marks the cut with `…`.
fn truncate(text: &mut String, bytes: usize) {
    const ELLIPSIS: &str = "…";
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - ELLIPSIS.len()));
        text.push_str(ELLIPSIS);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text { color: bool },
    Journal,
    Json,
}

impl Form {
    fn of_stderr(format: LogFormat) -> Self {
        let color = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Auto if journald_reads_stderr() => Self::Journal,
            LogFormat::Auto | LogFormat::Text => Self::Text { color },
        }
    }
}

/// Is standard error connected to journald? `$JOURNAL_STREAM` holds its device and inode
/// (systemd.exec(5)); the variable alone proves nothing, because child processes inherit it and may redirect stderr.
fn journald_reads_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    let metadata = io::stderr().as_fd().try_clone_to_owned().and_then(|fd| std::fs::File::from(fd).metadata());
    metadata.is_ok_and(|metadata| stream == format!("{}:{}", metadata.dev(), metadata.ino()))
}

/// Formats the final error message of a process: under journald, with the error priority on each line.
pub fn with_journald_priority(text: &str) -> String {
    if !journald_reads_stderr() {
        return text.to_owned();
    }
    text.lines().map(|line| format!("<3>{line}")).collect::<Vec<_>>().join("\n")
}

/// Writes events as lines.
struct Lines {
    form: Form,
    clock: Arc<dyn Clock>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Collected::default();
        event.record(&mut fields);
        let spans: Vec<String> = context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .take(SPANS_MAX)
            .map(|span| {
                let fields = span.extensions().get::<FormattedFields<N>>().map(|known| known.fields.clone());
                match fields.filter(|fields| !fields.is_empty()) {
                    Some(mut fields) => {
                        truncate(&mut fields, SPAN_MAX);
                        format!("{}{{{fields}}}", span.name())
                    }
                    None => span.name().to_owned(),
                }
            })
            .collect();
        let metadata = event.metadata();
        let line = match self.form {
            Form::Json => self.json(metadata, fields, spans),
            Form::Text { color } => self.text(metadata, &fields, &spans, color),
            Form::Journal => Self::journal(metadata, &fields, &spans),
        };
        writeln!(writer, "{line}")
    }
}

impl Lines {
    fn text(&self, metadata: &tracing::Metadata<'_>, fields: &Collected, spans: &[String], color: bool) -> String {
        let paint = |style: Style, text: &str| {
            if color { format!("{style}{text}{style:#}") } else { text.to_owned() }
        };
        let dim = Style::new().effects(Effects::DIMMED);
        let level = paint(style_of(*metadata.level()), &format!("{:>5}", metadata.level().as_str()));
        // Truncate before coloring, so that the reset sequence is never cut off.
        let mut rest = fields.to_text(spans);
        truncate(&mut rest, LINE_MAX - 200);
        format!("{} {level} {} {rest}", paint(dim, &timestamp_text(self.clock.now())), paint(dim, metadata.target()))
    }

    fn journal(metadata: &tracing::Metadata<'_>, fields: &Collected, spans: &[String]) -> String {
        // Priorities of syslog: 3 error, 4 warning, 6 informational, 7 debug.
        let priority = match *metadata.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        let mut line = format!("<{priority}>{}", fields.to_text(spans));
        truncate(&mut line, LINE_MAX);
        line
    }

    fn json(&self, metadata: &tracing::Metadata<'_>, mut fields: Collected, spans: Vec<String>) -> String {
        let mut line = Map::new();
        line.insert("time".to_owned(), timestamp_text(self.clock.now()).into());
        line.insert("level".to_owned(), metadata.level().as_str().to_ascii_lowercase().into());
        line.insert("target".to_owned(), metadata.target().into());
        line.insert("message".to_owned(), std::mem::take(&mut fields.message).into());
        if !spans.is_empty() {
            line.insert("spans".to_owned(), spans.into());
        }
        let mut left = LINE_MAX.saturating_sub(Value::Object(line.clone()).to_string().len() + 100);
        for (name, value) in fields.others {
            // Omit fields that do not fit: a truncated line would not be valid JSON.
            let size = value.to_string().len() + name.len() + "\"field_\":,".len();
            if size > left {
                line.insert("fields_left_out".to_owned(), true.into());
                break;
            }
            left -= size;
            let name = if line.contains_key(name) { format!("field_{name}") } else { name.to_owned() };
            line.insert(name, value);
        }
        Value::Object(line).to_string()
    }
}

fn style_of(level: Level) -> Style {
    let color = match level {
        Level::ERROR => AnsiColor::Red,
        Level::WARN => AnsiColor::Yellow,
        Level::INFO => AnsiColor::Green,
        Level::DEBUG => AnsiColor::Blue,
        Level::TRACE => AnsiColor::Magenta,
    };
    Style::new().fg_color(Some(color.into()))
}

/// The message and the other fields of an event, escaped and truncated.
#[derive(Default)]
struct Collected {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Collected {
    fn put(&mut self, field: &Field, text: &str) {
        let mut escaped = escape(text);
        truncate(&mut escaped, FIELD_MAX);
        if field.name() == "message" {
            self.message = escaped;
        } else {
            self.others.push((field.name(), escaped.into()));
        }
    }

    /// `message field=value field="a value" (span{field=value}: span)`
    fn to_text(&self, spans: &[String]) -> String {
        let mut text = self.message.clone();
        for (name, value) in &self.others {
            let gap = if text.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            let _ = write!(text, "{gap}{name}={}", plain(value));
        }
        if !spans.is_empty() {
            let _ = write!(text, " ({})", spans.join(": "));
        }
        text
    }
}

/// A value as text; quoted only if it contains a separator.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => format!("{text:?}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Visit for Collected {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.put(field, &text);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }
}

/// Formats the fields of spans as [`Lines`] shows them.
struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut collected = Collected::default();
        fields.record(&mut collected);
        writer.write_str(&collected.to_text(&[]))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::ManualClock;

    /// The output of `log` in `form`.
    fn written(form: Form, log: impl FnOnce()) -> String {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let clock = Arc::new(ManualClock::new("2026-11-23T10:00:00.0625Z".parse().unwrap()));
        let layer =
            tracing_subscriber::fmt::layer().event_format(Lines { form, clock }).fmt_fields(Fields).with_writer({
                let bytes = bytes.clone();
                move || Sink(bytes.clone())
            });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let written = bytes.lock().unwrap().clone();
        String::from_utf8(written).unwrap()
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn an_event() {
        let span = tracing::info_span!("look", user = "00u1");
        let _inside = span.enter();
        tracing::warn!(status = 503_u64, why = "two words", ok = false, "Auth0 is away");
    }

    #[test]
    fn text_format() {
        assert_eq!(
            written(Form::Text { color: false }, an_event),
            "2026-11-23T10:00:00.062Z  WARN okta_auth0_sync::logging::tests Auth0 is away status=503 \
             why=\"two words\" ok=false (look{user=00u1})\n"
        );
        assert!(written(Form::Text { color: true }, an_event).contains("\u{1b}[33m WARN\u{1b}[0m"));
    }

    #[test]
    fn journald_format() {
        assert_eq!(
            written(Form::Journal, an_event),
            "<4>Auth0 is away status=503 why=\"two words\" ok=false (look{user=00u1})\n"
        );
        assert_eq!(written(Form::Journal, || tracing::error!("x")), "<3>x\n");
        assert_eq!(written(Form::Journal, || tracing::info!("x")), "<6>x\n");
        assert_eq!(written(Form::Journal, || tracing::debug!("x")), "<7>x\n");
    }

    #[test]
    fn json_format() {
        let line: Value = serde_json::from_str(&written(Form::Json, an_event)).unwrap();
        assert_eq!(
            line,
            serde_json::json!({
                "time": "2026-11-23T10:00:00.062Z", "level": "warn", "target": "okta_auth0_sync::logging::tests",
                "message": "Auth0 is away", "status": 503, "why": "two words", "ok": false, "spans": ["look{user=00u1}"],
            })
        );
        let clash = written(Form::Json, || tracing::info!(level = "mine", "x"));
        let clash: Value = serde_json::from_str(&clash).unwrap();
        assert_eq!((clash["level"].as_str(), clash["field_level"].as_str()), (Some("info"), Some("mine")));
    }

    #[test]
    fn control_characters_from_remotes_are_escaped() {
        let evil = "a\n<0>forged\r\u{1b}[2J\u{9b}\u{202e}z";
        for form in [Form::Text { color: true }, Form::Journal, Form::Json] {
            let line = written(form, || tracing::info!(evil, debug = ?evil, display = %evil, "{evil}"));
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(!line.contains("\u{1b}[2J") && !line.contains(['\r', '\u{9b}', '\u{202e}']), "{line:?}");
        }
    }

    #[test]
    fn long_lines_are_truncated_but_stay_json() {
        let long = "é\"".repeat(10_000);
        for form in [Form::Text { color: false }, Form::Journal, Form::Json] {
            let line = written(form, || {
                tracing::info!(a = %long, b = %long, c = %long, d = %long, e = %long, f = %long, g = %long, "{long}");
            });
            assert!(line.len() <= LINE_MAX + 1, "{}", line.len());
            if form == Form::Json {
                let line: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(line["fields_left_out"], true);
            } else {
                assert!(line.contains('…'), "{line}");
            }
        }
    }

    #[test]
    fn errors_are_logged_with_their_causes() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        let error = Outer(io::Error::other("inner"));
        let line = written(Form::Journal, || tracing::error!(error = &error as &dyn std::error::Error, "no"));
        assert_eq!(line, "<3>no error=\"outer: inner\"\n");
    }
}
