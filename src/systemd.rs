//! What systemd is told of a `Type=notify` unit. Nothing here can fail the service: without systemd it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::domain::escape;

/// The longest status text, in characters: it is one line of `systemctl status`.
const STATUS_MAX: usize = 200;

/// Start-up is over: units ordered after this one may start.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The line that `systemctl status` shows. What a remote wrote is escaped; the rest beyond 200 characters is left out.
pub fn status(text: &str) {
    let line: String = escape(text).chars().take(STATUS_MAX).collect();
    send(&[NotifyState::Status(&line)]);
}

/// The service made progress.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// The service is on its way out, within its stop time-out.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Within how long systemd wants to hear of progress (`WatchdogSec=`); `None` if it does not ask this process.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

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
