//! A daemon, and systemd's end of its notify socket.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// `WATCHDOG_USEC`. Every second each loop stamps; half of this is the limit.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(6);
/// Longer than any wait here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A daemon, and systemd's end of the notify socket.
pub(crate) struct Service {
    pub(crate) directory: TempDir,
    notify: UnixDatagram,
    child: Child,
    pub(crate) log: std::sync::mpsc::Receiver<String>,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A URL without a listener.
fn unreachable_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

impl Service {
    /// Starts the daemon with unreachable remotes.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Self {
        let (okta, auth0) = (unreachable_url(), unreachable_url());
        Self::start_on(
            &format!(
                "[okta]\nurl = \"{okta}\"\napi_token = \"t0k\"\n[auth0]\nurl = \"{auth0}\"\nclient_id = \"c\"\n\
                 client_secret = \"s\"\n"
            ),
            environment,
        )
    }

    /// Starts the daemon with these remotes; it polls every second.
    pub(crate) fn start_on(remotes: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        let rest = "[schedule]\npoll = \"* * * * * *\"\n[store]\npath = \"state.db\"\n[log]\nformat = \"json\"\n";
        fs::write(&config, format!("{remotes}\n{rest}")).unwrap();
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

    /// The next message; `None` if none arrives within `wait`.
    pub(crate) fn message(&self, wait: Duration) -> Option<String> {
        self.notify.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 4096];
        match self.notify.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Waits for a message with this prefix.
    pub(crate) fn wait_for(&self, beginning: &str) -> String {
        loop {
            let message = self.message(PATIENCE).unwrap_or_else(|| panic!("no message starts with {beginning}"));
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    /// Waits for a log line with this event.
    pub(crate) fn logged(&self, event: &str) -> String {
        let wanted = format!("\"{event}\"");
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the event {event} was not logged"));
            if line.contains(&wanted) {
                return line;
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    pub(crate) fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}
