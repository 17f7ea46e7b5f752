//! A terminal of a given width, and somebody who sits before it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;

use pty_process::Size;
use pty_process::blocking::{Command, open};

/// What stood on the screen, line ends as `\n`, and how the command ended.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) code: i32,
    /// With whatever a terminal acts on.
    pub(crate) raw: String,
    /// What a person reads.
    pub(crate) text: String,
}

impl Seen {
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "\n{}", self.text);
        self
    }
}

/// Runs a command on a terminal of so many columns. At each `[y/N]` the next of `answers` is typed, as it is: a line
/// needs its end, `\x03` is Ctrl-C and `\x04` the end of the input.
pub(crate) fn on_terminal(command: Command, columns: u16, answers: &[&str]) -> Seen {
    let (mut terminal, end) = open().unwrap();
    terminal.resize(Size::new(50, columns)).unwrap();
    let mut child = command.spawn(end).unwrap();
    let mut answers = answers.iter();
    let (mut bytes, mut asked) = (Vec::new(), 0);
    let mut chunk = [0_u8; 4096];
    // Linux answers EIO when the last process has closed its end.
    while let Ok(count) = terminal.read(&mut chunk) {
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&chunk[..count]);
        let questions = String::from_utf8_lossy(&bytes).matches("[y/N]").count();
        for _ in asked..questions {
            let answer = answers.next().expect("more questions than answers");
            terminal.write_all(answer.as_bytes()).unwrap();
        }
        asked = questions;
    }
    let status = child.wait().unwrap();
    let raw = String::from_utf8(bytes).unwrap().replace("\r\n", "\n");
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap());
    Seen { code, text: plain(&raw), raw }
}

/// Without colours and cursor movements; of a line that was written over, the last.
fn plain(raw: &str) -> String {
    let stripped = anstream::adapter::strip_str(raw).to_string();
    let lines = stripped.split('\n').map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}
