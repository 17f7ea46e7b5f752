//! Notifications to systemd for a `Type=notify` unit. Never fails the service; does nothing without systemd.

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

/// Sets the line that `systemctl status` shows. Escapes text from remotes and truncates it to 200 characters.
pub fn status(text: &str) {
    let line: String = escape(text).chars().take(STATUS_MAX).collect();
    notify(&NotifyState::Status(&line));
}

/// Reports progress to the watchdog.
pub fn watchdog() {
    notify(&NotifyState::Watchdog);
}

/// The service is shutting down, within its stop timeout.
pub fn stopping() {
    notify_or_queue(NotifyState::Stopping);
}

/// The watchdog interval (`WatchdogSec=`); `None` if the watchdog is not enabled for this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

/// Sends a message that will soon be repeated, and drops it if the socket is full: blocking would stall a thread that
/// all loops need.
fn notify(state: &NotifyState<'_>) {
    if let Err(error) = send(state) {
        tracing::debug!(%error, "failed to notify systemd");
    }
}

/// Sends a message that is sent only once. If the socket is full, a separate thread waits for it.
fn notify_or_queue(state: NotifyState<'static>) {
    match send(&state) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            std::thread::spawn(move || sd_notify::notify(&[state]));
        }
        Err(error) => tracing::debug!(%error, "failed to notify systemd"),
        Ok(()) => {}
    }
}

/// Like `sd_notify::notify`, but never blocks.
fn send(state: &NotifyState<'_>) -> io::Result<()> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match socket.as_bytes() {
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

    /// An environment variable names the socket, so the tests send from a child process.
    const SENDER: &str = "OKTA_AUTH0_SYNC_TEST_NOTIFY";

    #[test]
    fn messages_reach_the_notify_socket() {
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
            .args(["--exact", "systemd::tests::messages_reach_the_notify_socket"])
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

    /// A socket without a reader accepts only a few messages.
    #[test]
    fn full_notify_socket_does_not_block() {
        if std::env::var_os(SENDER).is_some() {
            for _ in 0..10_000 {
                watchdog();
                status("busy");
            }
            stopping();
            // The parent reads the socket after this line. Stay alive until the waiting thread has sent its message.
            println!("sent");
            std::io::read_to_string(std::io::stdin()).unwrap();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut sender = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("systemd::tests::full_notify_socket_does_not_block")
            .env(SENDER, "1")
            .env("NOTIFY_SOCKET", &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(sender.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("sent")));
        let mut buffer = [0; 1024];
        let mut received_count = 0;
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            received_count += 1;
            if &buffer[..length] == b"STOPPING=1\n" {
                break;
            }
        }
        assert!(received_count < 20_001, "some messages were dropped because the queue was full");
        drop(sender.stdin.take());
        assert!(sender.wait().unwrap().success());
    }

    #[test]
    fn without_systemd_does_nothing() {
        let sender = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "systemd::tests::sends_without_systemd"])
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .output()
            .unwrap();
        assert!(sender.status.success());
    }

    #[test]
    fn sends_without_systemd() {
        ready();
        status("no listener");
        watchdog();
        stopping();
    }
}
