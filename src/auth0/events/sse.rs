//! Server-Sent Events (WHATWG HTML, "Server-sent events"), read incrementally within a bound.
//!
//! A parser of our own: the established crates for this format document no bound on the length of a line or a message, and
//! these messages are as large as other people make an account.

/// One message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// Its `event` field; empty if it has none.
    pub(super) kind: String,
    /// Its `id` field.
    pub(super) id: Option<String>,
    /// Its `data` lines, joined by line feeds.
    pub(super) data: Vec<u8>,
    /// It was larger than the bound: `data` is empty.
    pub(super) is_oversized: bool,
}

/// The state between two pieces of the stream. Half a message at the end of the stream is dropped with it.
#[derive(Debug)]
pub(super) struct Parser {
    bytes_max: usize,
    line: Vec<u8>,
    message: Message,
    has_fields: bool,
    has_data: bool,
    /// The last byte was a carriage return: a line feed after it belongs to it.
    after_cr: bool,
    /// Nothing was read yet, so a byte order mark may come.
    at_start: bool,
}

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

impl Parser {
    /// A parser for messages of at most this size.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            message: Message::default(),
            has_fields: false,
            has_data: false,
            after_cr: false,
            at_start: true,
        }
    }

    /// Reads a piece of the stream, and appends the messages that it completes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], messages: &mut Vec<Message>) {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.extend_line(bytes);
                return;
            };
            self.extend_line(&bytes[..end]);
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line(messages);
        }
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        if self.line.len() + self.message.data.len() + bytes.len() <= self.bytes_max {
            self.line.extend_from_slice(bytes);
        } else {
            // The start of the line is kept: it tells what the line is.
            self.message.is_oversized = true;
            self.message.data = Vec::new();
            self.line.truncate(LINE_KEPT);
            let room = LINE_KEPT - self.line.len();
            self.line.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
    }

    fn end_line(&mut self, messages: &mut Vec<Message>) {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.at_start) && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            let message = std::mem::take(&mut self.message);
            self.has_data = false;
            // A browser ignores a message without data. Here its id alone is worth keeping.
            if std::mem::take(&mut self.has_fields) {
                messages.push(message);
            }
            return;
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..])),
            None => (line.as_slice(), &[][..]),
        };
        match field {
            b"event" => self.message.kind = String::from_utf8_lossy(value).into_owned(),
            // An id with a null is ignored, as in browsers.
            b"id" if !value.contains(&0) => self.message.id = Some(String::from_utf8_lossy(value).into_owned()),
            b"data" => {
                if !self.message.is_oversized {
                    if std::mem::replace(&mut self.has_data, true) {
                        self.message.data.push(b'\n');
                    }
                    self.message.data.extend_from_slice(value);
                }
            }
            // Comments have an empty name; `retry` and unknown fields do not matter here.
            _ => return,
        }
        self.has_fields = true;
        // The buffer of a long line is given back.
        line.clear();
        if line.capacity() <= BUFFER_KEPT {
            self.line = line;
        }
    }
}

/// How much of an oversized line is kept: more than the names of the fields.
const LINE_KEPT: usize = 64;
/// A larger buffer is given back after its line.
const BUFFER_KEPT: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        Parser::new(1000).feed(text, &mut messages);
        messages
    }

    fn message(kind: &str, id: Option<&str>, data: &str) -> Message {
        Message { kind: kind.to_owned(), id: id.map(str::to_owned), data: data.into(), is_oversized: false }
    }

    #[test]
    fn every_line_ending_ends_a_line() {
        for text in
            ["event: a\nid: 1\ndata: x\n\n", "event: a\r\nid: 1\r\ndata: x\r\n\r\n", "event: a\rid: 1\rdata: x\r\r"]
        {
            assert_eq!(parsed(text.as_bytes()), [message("a", Some("1"), "x")], "{text:?}");
        }
    }

    #[test]
    fn fields_are_read_as_browsers_read_them() {
        let text = "\u{feff}: a comment\nretry: 3000\nunknown: x\n\ndata:one\ndata: two\ndata\ndata:  three\n\nid: a\0b\nevent:e\n\n";
        assert_eq!(parsed(text.as_bytes()), [message("", None, "one\ntwo\n\n three"), message("e", None, "")]);
    }

    #[test]
    fn message_with_only_an_id_is_kept() {
        assert_eq!(parsed(b"event: offset-only\nid: 7\n\n"), [message("offset-only", Some("7"), "")]);
    }

    #[test]
    fn half_a_message_is_not_delivered() {
        assert_eq!(parsed(b"id: 1\ndata: x\n\nid: 2\ndata: {\"of"), [message("", Some("1"), "x")]);
    }

    #[test]
    fn oversized_message_keeps_its_id_and_no_data() {
        for text in [
            format!("id: 1\nevent: a\ndata: {}\n\ndata: next\n\n", "x".repeat(5000)),
            format!("id: 1\nevent: a\n{}\ndata: next\n\n", "data: xxxxxxxxxxxxx\n".repeat(500)),
            format!("data: {}\nid: 1\nevent: a\n\ndata: next\n\n", "x".repeat(5000)),
        ] {
            let mut parser = Parser::new(1000);
            let mut messages = Vec::new();
            for piece in text.as_bytes().chunks(100) {
                parser.feed(piece, &mut messages);
                assert!(parser.line.capacity() + parser.message.data.capacity() <= 4096, "memory is bounded");
            }
            assert_eq!(messages.len(), 2);
            assert!(messages[0].is_oversized && messages[0].data.is_empty());
            assert_eq!((messages[0].kind.as_str(), messages[0].id.as_deref()), ("a", Some("1")));
            assert_eq!(messages[1], message("", None, "next"));
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "(event|id|data|: |:|x|\r|\n|\u{feff}|é){0,60}", cuts: Vec<prop::sample::Index>) {
            let whole = parsed(text.as_bytes());
            let mut parser = Parser::new(1000);
            let mut messages = Vec::new();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut from = 0;
            for cut in cuts {
                parser.feed(&text.as_bytes()[from..cut], &mut messages);
                from = cut;
            }
            parser.feed(&text.as_bytes()[from..], &mut messages);
            prop_assert_eq!(messages, whole);
        }
    }
}
