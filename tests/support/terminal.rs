//! A terminal of a given width, and somebody who sits before it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;

use pty_process::Size;
use pty_process::blocking::{Command, open};
use tokio::signal::unix::{SignalKind, signal};

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
    leave_interrupts_to_commands();
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

/// Ctrl-C reaches what is started on a terminal. Whoever is started in the background (by `nohup`, by `&` of a script, by a
/// runner of tests) has it ignored, and so has whatever they start, which then waits for an answer for ever. What a process
/// catches instead is as usual in those that it starts.
fn leave_interrupts_to_commands() {
    const INTERRUPT: u64 = 1 << 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    if ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & INTERRUPT != 0) {
        // Caught from here on, also when this has gone.
        drop(signal(SignalKind::interrupt()).unwrap());
    }
}

/// Without colours and cursor movements; of a line that was written over, the last.
fn plain(raw: &str) -> String {
    let stripped = anstream::adapter::strip_str(raw).to_string();
    let lines = stripped.split('\n').map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}
