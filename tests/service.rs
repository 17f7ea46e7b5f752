//! The daemon as systemd sees it: a child with a notify socket and a watchdog, told to stop by a signal.
//!
//! Nobody answers at the addresses of its two remotes: an outage must fail neither the start nor the watchdog.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// `WATCHDOG_USEC`. Every second each loop stamps; half of this is the limit.
const WATCHDOG: Duration = Duration::from_secs(6);
/// Nothing here takes so long, on the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon, and systemd's end of the notify socket.
struct Service {
    directory: TempDir,
    notify: UnixDatagram,
    child: Child,
    log: std::sync::mpsc::Receiver<String>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

impl Service {
    fn start(environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        let (okta, auth0) = (nobody(), nobody());
        fs::write(
            &config,
            format!(
                "[okta]\nurl = \"{okta}\"\napi_token = \"t0k\"\n[auth0]\nurl = \"{auth0}\"\nclient_id = \"c\"\n\
                 client_secret = \"s\"\n[schedule]\npoll = \"* * * * * *\"\n[store]\npath = \"state.db\"\n\
                 [log]\nformat = \"json\"\n"
            ),
        )
        .unwrap();
        let socket = directory.path().join("notify");
        let notify = UnixDatagram::bind(&socket).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
            .arg("--config")
            .arg(&config)
            .arg("run")
            .env_clear()
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines, log) = std::sync::mpsc::channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Self { directory, notify, child, log }
    }

    /// The next message, or nothing within `wait`.
    fn message(&self, wait: Duration) -> Option<String> {
        self.notify.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 4096];
        match self.notify.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The first message that begins so.
    fn heard(&self, beginning: &str) -> String {
        loop {
            let message = self.message(PATIENCE).unwrap_or_else(|| panic!("never heard {beginning}"));
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    /// The first line of the log with this event.
    fn logged(&self, event: &str) -> String {
        let wanted = format!("\"{event}\"");
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never logged {event}"));
            if line.contains(&wanted) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

#[test]
fn an_outage_neither_fails_the_start_nor_starves_the_watchdog() {
    let mut service = Service::start(&[]);
    service.heard("READY=1");
    assert!(service.heard("STATUS=").contains("cannot read the log"));
    // More than fit into one interval, so it was fed after its first loops had gone round.
    for _ in 0..20 {
        service.heard("WATCHDOG=1");
    }
    service.signal("TERM");
    service.heard("STOPPING=1");
    assert!(service.end().success());
    assert!(service.directory.path().join("state.db").exists());
    assert!(service.log.try_iter().all(|line| !line.contains("\"wedged\"")));
}

/// Hanging in one loop is enough, and the log says which one it is.
#[cfg(debug_assertions)]
fn starves_when_one_hangs(wedged: &str) {
    let service = Service::start(&[("OKTA_AUTH0_SYNC_TEST_WEDGE", wedged)]);
    service.heard("READY=1");
    service.heard("WATCHDOG=1");
    let line = service.logged("wedged");
    assert!(line.contains(&format!("the {wedged} makes no progress")), "{line}");
    // What was sent before that line lies in the socket; nothing comes after it, for as long as systemd would wait.
    while service.message(Duration::from_millis(1)).is_some() {}
    let mut others = 0;
    while let Some(message) = service.message(WATCHDOG) {
        // The other loops work on, and only tell how they are.
        assert!(message.starts_with("STATUS="), "{message} while the {wedged} hangs");
        others += 1;
        // Polled at most once a second, so that the time of a watchdog is over by then.
        if others > WATCHDOG.as_secs() {
            break;
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn a_poller_that_hangs_starves_the_watchdog() {
    starves_when_one_hangs("poller");
}

#[cfg(debug_assertions)]
#[test]
fn an_applier_that_hangs_starves_the_watchdog() {
    starves_when_one_hangs("applier");
}

#[cfg(debug_assertions)]
#[test]
fn a_reconciler_that_hangs_starves_the_watchdog() {
    starves_when_one_hangs("reconciler");
}

#[cfg(debug_assertions)]
#[test]
fn a_second_signal_stops_at_once() {
    let mut service = Service::start(&[("OKTA_AUTH0_SYNC_TEST_WEDGE", "poller")]);
    service.heard("READY=1");
    service.signal("TERM");
    service.heard("STOPPING=1");
    service.logged("stopping");
    service.signal("INT");
    assert_eq!(service.end().code(), Some(1));
}

/// Exit code 78 is what the unit does not restart on.
#[test]
fn a_wrong_configuration_is_told_by_the_exit_code_alone() {
    let mut service = Service::start(&[("OKTA_AUTH0_SYNC__ENGINE__CONCURRENCY", "0")]);
    assert_eq!(service.end().code(), Some(78));
    assert_eq!(service.message(Duration::from_millis(1)), None, "was never ready");
}
