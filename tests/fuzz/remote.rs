//! A remote that answers with arbitrary bytes, and the real clients that call it.

use std::sync::{Arc, Mutex};

use okta_auth0_sync::auth0::{self, Auth0, Auth0Options};
use okta_auth0_sync::domain::ManualClock;
use okta_auth0_sync::domain::mark::MetadataKeys;
use okta_auth0_sync::http::pacing::{Pacer, Shares};
use okta_auth0_sync::http::{Failure, Http, HttpOptions};
use okta_auth0_sync::okta::{self, Okta, OktaOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use url::Url;

/// A secret in our requests, which no output may contain.
pub const SECRET: &str = "canary-8Qw7rT2z";
/// The key of our object in `app_metadata`.
pub const METADATA_KEY: &str = "okta_sync";

const TOKEN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n\
    {\"access_token\":\"canary-8Qw7rT2z\",\"token_type\":\"Bearer\",\"expires_in\":86400,\"scope\":\"read:users\"}";

#[derive(Default)]
struct Wire {
    answer: Vec<u8>,
    asked: Vec<Asked>,
}

/// A received request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub head: String,
    pub body: String,
}

impl Asked {
    /// `GET /path?query`.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1")
    }
}

/// Both clients on one remote that answers each request with the same bytes.
pub struct Remote {
    pub runtime: Runtime,
    pub okta: Okta,
    pub auth0: Auth0,
    wire: Arc<Mutex<Wire>>,
    host: String,
}

impl Remote {
    pub fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let wire = Arc::new(Mutex::new(Wire::default()));
        runtime.spawn(serve(listener, wire.clone()));
        let url = Url::parse(&format!("http://{host}/")).unwrap();
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let http = Http::new(&HttpOptions { user_agent: "fuzz".to_owned(), ..HttpOptions::default() }).unwrap();
        let shares = Shares { ours: 0.8, reconcile: 0.5 };
        let okta = Okta::new(
            OktaOptions { url: url.clone(), credentials: okta::Credentials::ApiToken(SECRET.into()) },
            http.clone(),
            Arc::new(Pacer::okta(shares)),
            clock.clone(),
        );
        let auth0 = Auth0::new(
            Auth0Options {
                audience: url.join("api/v2/").unwrap().into(),
                url,
                credentials: auth0::Credentials::Secret { client_id: "client".into(), client_secret: SECRET.into() },
                keys: MetadataKeys::only(METADATA_KEY),
            },
            http,
            Arc::new(Pacer::auth0(shares)),
            clock,
        );
        Self { runtime, okta, auth0, wire, host }
    }

    /// Sets the response to every request except token requests.
    pub fn answers(&self, answer: &[u8]) {
        let mut wire = self.wire.lock().unwrap();
        wire.answer = answer.to_vec();
        wire.asked.clear();
    }

    /// The requests since the last call, without token requests. Checks that each is one request to this host.
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.wire.lock().unwrap().asked.clone();
        for Asked { head, .. } in &asked {
            let hosts: Vec<&str> =
                head.lines().filter_map(|line| line.strip_prefix("host: ")).map(str::trim_end).collect();
            assert_eq!(hosts, [self.host.as_str()], "a header was injected: {head:?}");
        }
        asked
    }
}

async fn serve(listener: TcpListener, wire: Arc<Mutex<Wire>>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, wire.clone()));
        }
    }
}

/// One request and one response per connection: only the end of the connection marks the end of arbitrary bytes.
async fn answer(mut stream: TcpStream, wire: Arc<Mutex<Wire>>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let bytes = if head.starts_with("POST /oauth/token ") {
        TOKEN.as_bytes().to_vec()
    } else {
        let mut wire = wire.lock().unwrap();
        wire.asked.push(Asked { head, body });
        wire.answer.clone()
    };
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// A failure message is printable, of bounded length, and without secrets of the request.
pub fn assert_tellable(failure: &Failure) {
    let detail = format!("{failure} {failure:?}");
    assert!(!detail.contains(SECRET), "a secret: {detail}");
    assert!(detail.len() < 16_000, "a message of {} bytes: {detail}", detail.len());
    assert!(!failure.to_string().chars().any(char::is_control), "not printable: {failure:?}");
}
