//! A terminal of a given width, and the operator who types on it.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;

use pty_process::Size;
use pty_process::blocking::{Command, open};
use tokio::signal::unix::{SignalKind, signal};

/// The screen, with line ends as `\n`, and the exit code.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) code: i32,
    /// With control sequences.
    pub(crate) raw: String,
    /// What an operator reads.
    pub(crate) text: String,
}

impl Seen {
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "\n{}", self.text);
        self
    }
}

/// Runs a command on a terminal of this width. Types the next of `answers` at each `[y/N]`, unchanged: a line needs its
/// end, `\x03` is Ctrl-C and `\x04` the end of the input.
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

/// Makes Ctrl-C reach the commands. A process that was started in the background (by `nohup`, by `&` in a script, by a test
/// runner) ignores SIGINT, and so do its children, which would wait forever. A signal that a process catches is reset to the
/// default in its children.
fn leave_interrupts_to_commands() {
    const INTERRUPT: u64 = 1 << 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    if ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & INTERRUPT != 0) {
        // A test without a runtime needs one to install the handler, and a test with one may not drop a second one: so it has
        // its own thread. The handler stays installed after the drop.
        let install = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _entered = runtime.enter();
            drop(signal(SignalKind::interrupt()).unwrap());
        };
        std::thread::spawn(install).join().unwrap();
    }
}

/// Without colors and cursor movements; of an overwritten line, the last text.
fn plain(raw: &str) -> String {
    let stripped = anstream::adapter::strip_str(raw).to_string();
    let lines = stripped.split('\n').map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}
