//! What systemd is told of a `Type=notify` unit. Nothing here can fail the service: without systemd it does nothing.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::domain::escape;

/// The longest status text, in characters: it is one line of `systemctl status`.
const STATUS_MAX: usize = 200;

/// Start-up is over: units ordered after this one may start.
pub fn ready() {
    notify_or_queue(NotifyState::Ready);
}

/// The line that `systemctl status` shows. What a remote wrote is escaped; the rest beyond 200 characters is left out.
pub fn status(text: &str) {
    let line: String = escape(text).chars().take(STATUS_MAX).collect();
    notify(&NotifyState::Status(&line));
}

/// The service made progress.
pub fn watchdog() {
    notify(&NotifyState::Watchdog);
}

/// The service is on its way out, within its stop time-out.
pub fn stopping() {
    notify_or_queue(NotifyState::Stopping);
}

/// Within how long systemd wants to hear of progress (`WatchdogSec=`); `None` if it does not ask this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Tells what will soon be told again. If systemd does not read just now, its queue fills up, and whoever went on writing
/// would wait for it: here, a thread that all loops need.
fn notify(state: &NotifyState<'_>) {
    if let Err(error) = send(state) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

/// Tells what is told once: a thread of its own waits if systemd does not read just now.
fn notify_or_queue(state: NotifyState<'static>) {
    match send(&state) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            std::thread::spawn(move || sd_notify::notify(&[state]));
        }
        Err(error) => tracing::debug!(%error, "systemd cannot be told"),
        Ok(()) => {}
    }
}

/// As `sd_notify::notify` does, but never waits.
fn send(state: &NotifyState<'_>) -> io::Result<()> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match place.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(format!("{state}\n").as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// The messages go to a socket that an environment variable names, so a process of its own sends them.
    const SENDER: &str = "OKTA_AUTH0_SYNC_TEST_NOTIFY";

    #[test]
    fn messages_reach_the_socket_of_systemd_as_sd_notify_has_them() {
        if std::env::var_os(SENDER).is_some() {
            assert_eq!(watchdog_interval(), Some(Duration::from_secs(30)));
            ready();
            status("3 pending\nREADY=0");
            watchdog();
            stopping();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let sender = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "systemd::tests::messages_reach_the_socket_of_systemd_as_sd_notify_has_them"])
            .env(SENDER, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000000")
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(sender.status.success(), "{}", String::from_utf8_lossy(&sender.stdout));
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 1024];
        let mut received = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            received.push(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned());
        }
        assert_eq!(received, ["READY=1", "STATUS=3 pending\\nREADY=0", "WATCHDOG=1", "STOPPING=1"]);
    }

    /// A socket that nobody reads takes a few messages, and then no more.
    #[test]
    fn a_systemd_that_does_not_read_holds_nothing_up_and_hears_at_last_what_counts() {
        if std::env::var_os(SENDER).is_some() {
            for _ in 0..10_000 {
                watchdog();
                status("busy");
            }
            stopping();
            // Whoever reads does so once this line is there. The process stays until the thread that waits has written.
            println!("told");
            std::io::read_to_string(std::io::stdin()).unwrap();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut sender = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("systemd::tests::a_systemd_that_does_not_read_holds_nothing_up_and_hears_at_last_what_counts")
            .env(SENDER, "1")
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(sender.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("told")));
        let mut buffer = [0; 1024];
        let mut heard = 0;
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            heard += 1;
            if &buffer[..length] == b"STOPPING=1\n" {
                break;
            }
        }
        assert!(heard < 20_001, "the queue was full");
        drop(sender.stdin.take());
        assert!(sender.wait().unwrap().success());
    }

    #[test]
    fn without_systemd_nothing_happens() {
        let quiet = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "systemd::tests::sends_to_nobody"])
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .output()
            .unwrap();
        assert!(quiet.status.success());
    }

    #[test]
    fn sends_to_nobody() {
        ready();
        status("nobody listens");
        watchdog();
        stopping();
    }
}
