//! `[http] listen`.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use super::daemon::Service;
use super::exposition::parse;

/// A daemon with a monitor, and its address.
fn monitored() -> (Service, SocketAddr) {
    let service = Service::start(&[LISTEN]);
    let address = address_of(&service);
    (service, address)
}

/// Port 0: the system chooses.
pub(crate) const LISTEN: (&str, &str) = ("OKTA_AUTH0_SYNC__HTTP__LISTEN", "127.0.0.1:0");

/// The address from its log line.
pub(crate) fn address_of(service: &Service) -> SocketAddr {
    let line = service.logged("monitoring");
    let from = line.find("127.0.0.1:").unwrap();
    line[from..].split([')', '"']).next().unwrap().parse().unwrap()
}

fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn get(address: SocketAddr, path: &str, host: &str) -> String {
    ask(TcpStream::connect(address).unwrap(), &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
}

pub(crate) fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap()
}

#[test]
fn outage_is_live_but_not_ready() {
    let (service, address) = monitored();
    service.wait_for("STATUS=");
    let alive = get(address, "/healthz", "localhost");
    assert_eq!((status(&alive), alive.ends_with("\r\nok\n")), ("200", true), "{alive}");
    let ready = get(address, "/readyz", &address.to_string());
    assert_eq!(status(&ready), "503");
    assert!(ready.contains("\r\n\r\nthe System Log has not been polled since the start\n"), "{ready}");
    assert!(ready.contains("\nnever_ran: never ran: the System Log has not been polled yet"), "{ready}");
    let figures = get(address, "/metrics", "[::1]:80");
    let (head, body) = figures.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
    let families = parse(body);
    let value = |family: &str, labels: &[(&str, &str)]| {
        // Families without series are omitted.
        let family = families.get(&format!("okta_auth0_sync_{family}"))?;
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        family.samples.iter().find(|((_, known), _)| *known == labels).map(|(_, value)| *value)
    };
    assert!(value("calls", &[("remote", "okta"), ("result", "unreachable")]).unwrap() >= 1.0);
    assert_eq!(value("pending_users", &[]), Some(0.0));
    assert_eq!(value("looks", &[("outcome", "applied")]), Some(0.0));
    assert_eq!(value("open_alarms", &[("kind", "guard")]), Some(0.0));
    assert_eq!(value("last_success_timestamp_seconds", &[("stage", "poll")]), Some(0.0), "alerts on its age fire");
    assert_eq!(value("obligation_met", &[("obligation", "poll")]), Some(0.0));
    assert_eq!(value("enforcing", &[]), Some(1.0));
    assert!(value("loop_progress_age_seconds", &[("loop", "poller")]).is_some());
    assert_eq!(families["okta_auth0_sync_denial_lag_seconds"].kind, "histogram");
    assert_eq!(value("build", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    for family in families.keys() {
        assert!(family.starts_with("okta_auth0_sync_"), "{family}");
    }
}

#[test]
fn foreign_host_header_is_refused() {
    let (_service, address) = monitored();
    for host in
        ["evil.example", "evil.example:9465", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example", ""]
    {
        for path in ["/metrics", "/healthz", "/readyz", "/none"] {
            assert_eq!(status(&get(address, path, host)), "421", "{host} {path}");
        }
    }
    assert_eq!(status(&get(address, "/none", "127.0.0.1")), "404");
    let post = ask(TcpStream::connect(address).unwrap(), "POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&post), "405");
}

#[test]
fn oversized_request_is_cut_off() {
    let (_service, address) = monitored();
    let mut stream = TcpStream::connect(address).unwrap();
    let long = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    // The server may close before it has read everything.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn silent_client_is_cut_off() {
    let (_service, address) = monitored();
    // More than the connection limit.
    let mut silent: Vec<TcpStream> = (0..24).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(status(&get(address, "/healthz", "localhost")), "200");
    for stream in &mut silent {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"));
    }
}

#[test]
fn listens_on_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    // The socket file of a dead process.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let service = Service::start(&[("OKTA_AUTH0_SYNC__HTTP__LISTEN", &format!("unix:{}", path.display()))]);
    service.wait_for("READY=1");
    let answer = ask(UnixStream::connect(&path).unwrap(), "GET /healthz HTTP/1.1\r\nHost: whatever\r\n\r\n");
    assert_eq!(status(&answer), "200", "{answer}");
}

/// As under the unit's `UMask=0077`.
#[test]
fn socket_admits_its_group() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let listen = format!("unix:{}", path.display());
    // A user other than root can name only a group of theirs.
    let mine = std::fs::metadata(folder.path()).unwrap();
    let group = if mine.uid() == 0 { 65_534 } else { mine.gid() };
    let service = Service::start(&[
        ("OKTA_AUTH0_SYNC__HTTP__LISTEN", &listen),
        ("OKTA_AUTH0_SYNC__HTTP__SOCKET_GROUP", &group.to_string()),
    ]);
    service.wait_for("READY=1");
    let socket = std::fs::metadata(&path).unwrap();
    assert_eq!((socket.permissions().mode() & 0o777, socket.gid()), (0o660, group));
}

/// A core contains the secrets.
#[test]
fn daemon_leaves_no_core() {
    let service = Service::start(&[]);
    service.wait_for("READY=1");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
}

#[test]
fn occupied_address_fails_at_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut service = Service::start(&[("OKTA_AUTH0_SYNC__HTTP__LISTEN", &address)]);
    assert_eq!(service.end().code(), Some(78));
}
