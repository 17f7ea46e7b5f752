//! Calls to servers that disconnect, stall, drip or send too much.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::Kind;
use super::super::playback::{Playback, Reply};
use super::*;
use crate::domain::ManualClock;

const CALL: Call = Call::plain(Remote::Okta, "GET /x");

fn http() -> Http {
    Http::new(&HttpOptions { user_agent: "test".to_owned(), ..HttpOptions::default() }).unwrap()
}

async fn get(call: Call, url: &str) -> Result<Answer, Failure> {
    let http = http();
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    http.send(call, http.client().get(url), None, &clock).await
}

/// Sends `answer` to the first client, then disconnects if `hang_up` is set.
async fn raw(answer: &'static str, hang_up: bool) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/canary?email=canary", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        if !hang_up {
            std::future::pending::<()>().await;
        }
    });
    (url, server)
}

#[tokio::test]
async fn cut_body_is_unreachable_stalled_times_out() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[";
    let (url, _server) = raw(answer, true).await;
    let failure = get(CALL, &url).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Unreachable, "{failure}");
    assert!(!failure.to_string().contains("canary"), "{failure}");

    let (url, _server) = raw(answer, false).await;
    let limits = Limits { timeout: Duration::from_millis(50), ..Limits::PLAIN };
    let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Timeout, "{failure}");
    assert!(!failure.to_string().contains("canary"), "{failure}");
}

/// Sends `head` to the first client, then `piece` repeatedly until the client disconnects.
async fn endless_body(head: &'static str, piece: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut drip = tokio::time::interval(Duration::from_millis(5));
        while stream.write_all(&piece).await.is_ok() {
            drip.tick().await;
        }
    });
    url
}

#[tokio::test]
async fn slow_and_endless_bodies_are_bounded() {
    // Each byte arrives before the stall timeout, so only the total timeout applies.
    let limits = Limits { timeout: Duration::from_millis(100), ..Limits::PLAIN };
    let url = endless_body("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[", b" ".to_vec()).await;
    let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Timeout, "{failure}");
    // Headers drip as well.
    let url = endless_body("HTTP/1.1 200 OK\r\n", b"X-Drip: 1\r\n".to_vec()).await;
    let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
    assert_eq!((failure.kind, failure.status), (Kind::Timeout, None), "{failure}");

    let limits = Limits { body_bytes_max: 1 << 16, ..Limits::PLAIN };
    let chunks = b"8\r\n[[[[[[[[\r\n".repeat(1000);
    let url = endless_body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunks).await;
    let failure = get(Call { limits, ..CALL }, &url).await.unwrap_err();
    assert_eq!((failure.kind, failure.status), (Kind::TooLarge, Some(200)), "{failure}");
}

/// Responds to requests once `count` of them have arrived. Returns its URL, and the number of its connections.
async fn responds_to_all_at_once(count: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let (all, accepted) = (Arc::new(tokio::sync::Barrier::new(count)), connections.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            accepted.fetch_add(1, Ordering::SeqCst);
            let all = all.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while let Ok(1..) = stream.read(&mut request).await {
                    all.wait().await;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]").await.unwrap();
                }
            });
        }
    });
    (url, connections)
}

#[tokio::test]
async fn connections_of_concurrent_calls_are_kept() {
    const CONCURRENT: usize = 20;
    let (url, connections) = responds_to_all_at_once(CONCURRENT).await;
    let http = Http::new(&HttpOptions { connections: CONCURRENT, ..HttpOptions::default() }).unwrap();
    let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
    for _ in 0..3 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..CONCURRENT {
            let (http, url, clock) = (http.clone(), url.clone(), clock.clone());
            calls.spawn(async move { http.send(CALL, http.client().get(url), None, clock.as_ref()).await.unwrap() });
        }
        calls.join_all().await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), CONCURRENT);
}

#[tokio::test]
async fn refused_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let failure = get(CALL, &url).await.unwrap_err();
    assert_eq!((failure.kind, failure.status), (Kind::Unreachable, None), "{failure}");
}

#[tokio::test]
async fn body_limit_applies_after_decompression() {
    // 4 MiB of zeros as 4 KiB of gzip.
    let limits = Limits { body_bytes_max: 1 << 20, ..Limits::PLAIN };
    let bomb = Reply::bytes(200, gzip_of_zeros(64)).with("content-encoding", "gzip");
    let server = Playback::start([bomb.clone(), bomb]).await;
    let failure = get(Call { limits, ..CALL }, server.url.as_str()).await.unwrap_err();
    assert_eq!((failure.kind, failure.status), (Kind::TooLarge, Some(200)), "{failure}");
    assert_eq!(get(CALL, server.url.as_str()).await.unwrap().body.len(), 64 * 65_535);
}

#[tokio::test]
async fn bad_compression_is_malformed() {
    let mut bytes = gzip_of_zeros(1);
    let middle = bytes.len() / 2;
    bytes[10..middle].fill(0xff);
    let server = Playback::start([Reply::bytes(200, bytes).with("content-encoding", "gzip")]).await;
    let failure = get(CALL, server.url.as_str()).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Malformed, "{failure}");
}

/// Gzipped zeros, 64 KiB per block.
fn gzip_of_zeros(blocks: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; blocks * 65_535]).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Playback::start([]).await;
    let server = Playback::start([Reply::json(302, "").with("location", &elsewhere.url)]).await;
    let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
    let answer = get(CALL, server.url.as_str()).await.unwrap();
    let failure = answer.success(&clock).unwrap_err();
    assert_eq!((failure.kind, failure.status), (Kind::Malformed, Some(302)));
    assert!(failure.remedy.unwrap().contains("redirected"));
    assert!(elsewhere.seen().is_empty());
}

#[test]
fn invalid_root_certificates_are_rejected() {
    for pem in ["", "canary", "-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n"] {
        let options = HttpOptions { ca_file: Some(pem.into()), ..HttpOptions::default() };
        let error = Http::new(&options).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
}
