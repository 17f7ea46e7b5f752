//! Private CAs, refused connections, IPv6 and proxies.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use okta_auth0_sync::http::Timeouts;
use okta_auth0_sync_sandbox as sandbox;
use okta_auth0_sync_sandbox::{Effect, Fault};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::world::World;

use super::harness::{paused, s, start, start_with};
use super::relay::{PROXY_USER, Proxy, Relay, TENANT_HOST, private_ca, private_ca_with_http2};

#[tokio::test]
async fn private_ca_works_only_if_configured() {
    let (root, tls) = private_ca();
    let mut world = start().await;
    let (okta, auth0) = (Relay::tls(world.okta().url(), tls.clone()).await, Relay::tls(world.auth0().url(), tls).await);
    let user = world.leaver("ann");
    let [okta_url, auth0_url] = [&okta, &auth0].map(|relay| format!("https://localhost:{}", relay.port));
    let (another, _) = private_ca();
    for (roots, works) in [(None, false), (Some(another), false), (Some(root), true)] {
        let (okta_url, auth0_url) = (okta_url.clone(), auth0_url.clone());
        // A state is bound to its tenants' addresses.
        world.folder = tempfile::tempdir().unwrap();
        world
            .restart_network(|network| {
                network.okta_url = Some(okta_url);
                network.auth0_url = Some(auth0_url);
                network.ca_file = roots;
            })
            .await;
        if works {
            world.denies(std::slice::from_ref(&user)).await;
        } else {
            let why = paused(world.try_poll().await);
            assert!(why.contains("unreachable") && why.contains("certificate"), "{why}");
            assert!(why.contains("[tls] ca_file to the PEM file of its root certificate"), "{why}");
        }
    }
    assert_eq!(world.pages().len(), 2, "no request was sent to an untrusted server");
}

#[tokio::test]
async fn login_page_is_named_as_a_web_page() {
    let world = start().await;
    let page = b"<!DOCTYPE html><html><head><title>Sign in to Wi-Fi</title></head></html>".to_vec();
    world.okta().faults().add(Fault::new("GET", "/api/v1/logs", Effect::ReplaceBody(page)));
    let why = world.try_poll().await.unwrap_err().to_string();
    assert!(why.contains("the response is a web page (\"Sign in to Wi-Fi\"), not the API's"), "{why}");
    assert!(why.contains("is the URL right"), "{why}");
}

#[tokio::test]
async fn refused_connection_is_retried() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let world = start_with(|setup| setup.network.okta_url = Some(format!("http://{address}"))).await;
    let ann = world.leaver("ann");
    for _ in 0..5 {
        let why = paused(world.try_poll().await);
        assert!(why.contains("unreachable") && why.contains("check the network"), "{why}");
        world.clock.advance(s(31));
    }
    assert_eq!(world.alarms_of_kind("remote_down").await.len(), 1, "down for more than a minute");
    let listener = TcpListener::bind(address).await.unwrap();
    let _relay = Relay::start(listener, world.okta().url(), None).await;
    world.denies(&[ann]).await;
    assert!(world.alarms_of_kind("remote_down").await.is_empty(), "over");
}

#[tokio::test]
async fn ipv6_works() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        println!("this machine has no IPv6 loopback");
        return;
    };
    let port = listener.local_addr().unwrap().port();
    let mut world = start_with(|setup| setup.network.okta_url = Some(format!("http://[::1]:{port}"))).await;
    let relay = Relay::start(listener, world.okta().url(), None).await;
    let ann = world.leaver("ann");
    world.denies(&[ann]).await;
    assert!(relay.connections() > 0);
    world.restart_network(|network| network.okta_url = Some(format!("http://[::1]:{port}"))).await;
    world.try_poll().await.unwrap();
}

#[tokio::test]
async fn one_connection_no_cookies_user_agent() {
    let relayed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", relayed.local_addr().unwrap());
    let world = start_with(|setup| setup.network.okta_url = Some(url)).await;
    let relay = Relay::start(relayed, world.okta().url(), None).await;
    for _ in 0..10 {
        world.try_poll().await.unwrap();
    }
    assert_eq!(relay.connections(), 1, "kept alive");
    let (sent, received) = (relay.sent(), relay.received());
    assert!(received.matches("set-cookie: jsessionid=").count() >= 10);
    assert!(!sent.contains("\r\ncookie:"), "no cookie is sent back");
    let calls = sent.matches("get /").count();
    assert!(calls >= 10);
    assert_eq!(sent.matches("user-agent: okta-auth0-sync/test").count(), calls);
    assert_eq!(sent.matches("accept-encoding: gzip").count(), calls);
}

/// What the client sends first on an HTTP/2 connection (RFC 9113 §3.4), in lower case as the relay shows it.
const HTTP2_PREFACE: &str = "pri * http/2.0";
/// Longer than a test takes.
const NEVER: Duration = Duration::from_secs(900);
const QUICK: Duration = Duration::from_millis(500);

/// Okta behind a relay that speaks TLS with HTTP/2.
async fn behind_http2(timeouts: Timeouts) -> (World, Relay) {
    let (root, tls) = private_ca_with_http2();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = start_with(|setup| {
        setup.network.okta_url = Some(format!("https://localhost:{port}"));
        setup.network.ca_file = Some(root);
        setup.network.timeouts = Some(timeouts);
    })
    .await;
    let relay = Relay::start(listener, world.okta().url(), Some(tls)).await;
    (world, relay)
}

#[tokio::test]
async fn timed_out_http2_connection_is_replaced() {
    // Pings would notice the silence too. Here they do not: like a gateway that answers pings for a dead server.
    let (world, relay) = behind_http2(Timeouts { stall: QUICK, ping_every: NEVER, ..Timeouts::default() }).await;
    // A busy machine may exceed the short timeout on a healthy connection.
    while world.try_poll().await.is_err() {
        world.clock.advance(s(31));
    }
    assert!(relay.sent().starts_with(HTTP2_PREFACE), "the relay speaks HTTP/2");
    relay.silence();
    let before = relay.connections();
    let mut recovered = false;
    for _ in 0..10 {
        recovered = world.try_poll().await.is_ok();
        if recovered {
            break;
        }
        world.clock.advance(s(31));
    }
    assert!(recovered, "every poll used the silent connection");
    assert!(relay.connections() > before);
}

#[tokio::test]
async fn silent_http2_connection_is_closed_while_idle() {
    let timeouts = Timeouts { ping_every: QUICK, ping_answer: QUICK, idle: NEVER, ..Timeouts::default() };
    let (world, relay) = behind_http2(timeouts).await;
    world.try_poll().await.unwrap();
    let before = relay.connections();
    relay.silence();
    tokio::time::timeout(NEVER, async {
        while relay.given_up() < before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the client never closes the silent connection");
    world.try_poll().await.unwrap();
    assert_eq!(relay.connections(), before + 1, "the next poll uses a new connection, and none fails");
}

/// Runs a command as a separate process in this environment.
async fn command(folder: &Path, config: &str, arguments: &[&str], environment: &[(&str, String)]) -> Output {
    let file = folder.join("config.toml");
    std::fs::write(&file, config).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_okta-auth0-sync"))
        .current_dir(folder)
        .args(["--config", "config.toml"])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(environment.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn proxy_with_password_is_used_and_named() {
    let (root, tls) = private_ca();
    // The child process uses the system clock.
    let world = start_with(|setup| setup.sandbox = sandbox::Options::default()).await;
    let okta = Relay::tls(world.okta().url(), tls.clone()).await;
    let auth0 = Relay::tls(world.auth0().url(), tls).await;
    let proxy = Proxy::start().await;
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("root.pem");
    std::fs::write(&ca, &root).unwrap();
    let tenants = world.sandbox.config_toml();
    let tenants =
        [(world.okta().url(), &okta), (world.auth0().url(), &auth0)].iter().fold(tenants, |text, (url, relay)| {
            text.replace(&format!("url = \"{url}"), &format!("url = \"https://{TENANT_HOST}:{}", relay.port))
        });
    let text = format!("{tenants}\n[store]\npath = \"state.db\"\n[tls]\nca_file = \"{}\"\n", ca.display());
    let at = |user: &str| vec![("HTTPS_PROXY", format!("http://{user}127.0.0.1:{}", proxy.port))];

    let ann = world.leaver("ann");
    let ran = command(folder.path(), &text, &["sync"], &at(&format!("{PROXY_USER}@"))).await;
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{err}");
    assert!(world.denied(&ann));
    assert!(!err.contains("s3cret") && !String::from_utf8_lossy(&ran.stdout).contains("s3cret"));
    let asked = proxy.asked();
    assert!(asked.iter().all(|(_, allowed)| *allowed), "{asked:?}");
    for relay in [&okta, &auth0] {
        let line = format!("CONNECT {TENANT_HOST}:{} ", relay.port);
        assert!(asked.iter().any(|(asked, _)| asked.starts_with(&line)), "{line} {asked:?}");
    }

    let ran = command(folder.path(), &text, &["check", "--offline"], &at(&format!("{PROXY_USER}@"))).await;
    let out = String::from_utf8_lossy(&ran.stdout);
    assert!(out.contains(&format!("http://mallory:***@127.0.0.1:{} (HTTPS_PROXY)", proxy.port)), "{out}");
    assert!(!out.contains("s3cret"), "{out}");

    world.leaver("bob");
    let ran = command(folder.path(), &text, &["sync"], &at("")).await;
    let err = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{err}");
    assert!(err.contains("unreachable") && err.contains("HTTPS_PROXY"), "{err}");
}

#[tokio::test]
async fn loopback_never_uses_a_proxy() {
    let world = start_with(|setup| setup.sandbox = sandbox::Options::default()).await;
    let proxy = Proxy::start().await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}\n[store]\npath = \"state.db\"\n", world.sandbox.config_toml());
    let address = format!("http://127.0.0.1:{}", proxy.port);
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let ann = world.leaver("ann");
    let ran = command(folder.path(), &text, &["sync"], &names.map(|name| (name, address.clone()))).await;
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(world.denied(&ann));
    assert_eq!(proxy.asked(), []);
}

#[tokio::test]
async fn malformed_proxy_variable_is_refused_at_start() {
    let world = start_with(|setup| setup.sandbox = sandbox::Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{}\n[store]\npath = \"state.db\"\n", world.sandbox.config_toml());
    let malformed = [("https_proxy", "http://mallory:s3cret@proxy:port".to_owned())];
    for arguments in [&["run"][..], &["check", "--offline"]] {
        let ran = command(folder.path(), &text, arguments, &malformed).await;
        let all = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(78), "{all}");
        assert!(all.contains("https_proxy") && !all.contains("s3cret"), "{all}");
    }
}
