//! Relays, TLS termination and proxies between the engine and the tenants.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The traffic of a relay.
#[derive(Default)]
pub(crate) struct Seen {
    /// Accepted connections.
    pub(crate) connections: usize,
    /// Connections that were silenced, beginning with the first one.
    silenced: usize,
    /// Silenced connections that the client has closed.
    given_up: usize,
    /// All bytes sent to the target, and all bytes received from it.
    pub(crate) sent: Vec<u8>,
    pub(crate) received: Vec<u8>,
}

/// Forwards bytes between its clients and a target.
pub(crate) struct Relay {
    pub(crate) port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Relay {
    pub(crate) async fn start(listener: TcpListener, target: &str, tls: Option<TlsAcceptor>) -> Self {
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (shared, target) = (seen.clone(), authority(target));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut seen = shared.lock().unwrap();
                    seen.connections += 1;
                    seen.connections
                };
                let (shared, target, tls) = (shared.clone(), target.clone(), tls.clone());
                tokio::spawn(async move {
                    let Ok(there) = TcpStream::connect(target).await else { return };
                    match tls {
                        None => forward(number, stream, there, &shared).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                forward(number, stream, there, &shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, seen }
    }

    pub(crate) async fn tls(target: &str, tls: TlsAcceptor) -> Self {
        Self::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), target, Some(tls)).await
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// From now on nothing passes through the connections that exist. They stay open, as after a firewall lost them.
    pub(crate) fn silence(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.silenced = seen.connections;
    }

    /// How many silenced connections the client has closed.
    pub(crate) fn given_up(&self) -> usize {
        self.seen.lock().unwrap().given_up
    }

    pub(crate) fn sent(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().sent).to_lowercase()
    }

    pub(crate) fn received(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().received).to_lowercase()
    }
}

/// `host:port` of an origin.
fn authority(origin: &str) -> String {
    origin.split_once("://").map_or(origin, |(_, rest)| rest).to_owned()
}

impl Seen {
    fn is_silenced(&self, number: usize) -> bool {
        number <= self.silenced
    }
}

async fn forward(number: usize, here: impl AsyncRead + AsyncWrite, there: TcpStream, seen: &Mutex<Seen>) {
    let (mut from, mut to) = tokio::io::split(here);
    let (mut back, mut forth) = there.into_split();
    let sending = async {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if seen.lock().unwrap().is_silenced(number) {
                continue;
            }
            seen.lock().unwrap().sent.extend_from_slice(&bytes[..count]);
            if forth.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
        let mut seen = seen.lock().unwrap();
        if seen.is_silenced(number) {
            seen.given_up += 1;
        }
    };
    let receiving = async {
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = back.read(&mut bytes).await {
            if seen.lock().unwrap().is_silenced(number) {
                continue;
            }
            seen.lock().unwrap().received.extend_from_slice(&bytes[..count]);
            if to.write_all(&bytes[..count]).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
        if seen.lock().unwrap().is_silenced(number) {
            std::future::pending::<()>().await;
        }
    };
    // Close both sides when either closes.
    tokio::select! {
        () = sending => {}
        () = receiving => {}
    }
}

/// A private root certificate, and a TLS acceptor with a certificate for `localhost` that it signed.
pub(crate) fn private_ca() -> (Vec<u8>, TlsAcceptor) {
    private_ca_with(&[])
}

/// The same, offering HTTP/2, as the real tenants do.
pub(crate) fn private_ca_with_http2() -> (Vec<u8>, TlsAcceptor) {
    private_ca_with(&[b"h2", b"http/1.1"])
}

fn private_ca_with(protocols: &[&[u8]]) -> (Vec<u8>, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap().pem().into_bytes();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned(), TENANT_HOST.to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    (root, TlsAcceptor::from(Arc::new(config)))
}

/// An HTTP proxy that requires a password.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    /// The request line of each proxied request, and whether its password was correct.
    asked: Arc<Mutex<Vec<(String, bool)>>>,
}

/// A name that only the test's proxy resolves, to loopback.
pub(crate) const TENANT_HOST: &str = "tenant.example";
pub(crate) const PROXY_USER: &str = "mallory:s3cret";

impl Proxy {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked: Arc<Mutex<Vec<(String, bool)>>> = Arc::default();
        let shared = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn asked(&self) -> Vec<(String, bool)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, asked: Arc<Mutex<Vec<(String, bool)>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let text = String::from_utf8(head.clone()).unwrap();
    let line = text.lines().next().unwrap().to_owned();
    let wanted = format!("proxy-authorization: basic {}", STANDARD.encode(PROXY_USER)).to_lowercase();
    let allowed = text.to_lowercase().contains(&wanted);
    asked.lock().unwrap().push((line.clone(), allowed));
    if !allowed {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\
                       Connection: close\r\n\r\n";
        let _ = stream.write_all(refusal.as_bytes()).await;
        return;
    }
    let target = line.split(' ').nth(1).unwrap();
    let connects = line.starts_with("CONNECT ");
    let host = authority(target).split('/').next().unwrap().replace(TENANT_HOST, "127.0.0.1");
    let Ok(mut there) = TcpStream::connect(host).await else { return };
    let began = if connects {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await
    } else {
        there.write_all(&head).await
    };
    if began.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
    }
}
