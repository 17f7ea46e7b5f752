//! What programs read: `--json`, exports, metrics, log lines and webhook messages.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use super::commands::furnished;
use super::{POLL, name, same};
use crate::harness::{Harness, finish, within};

#[tokio::test(flavor = "multi_thread")]
async fn json_of_every_command() {
    let (harness, _) = furnished().await;
    for arguments in [
        &["status", "--json"][..],
        &["check", "--json"],
        &["check", "--offline", "--json"],
        &["user", "ann@example.com", "--json"],
        &["user", "zoe@example.com", "--live", "--json"],
        &["user", "zoe@example.com", "--sync", "--dry-run", "--json"],
        &["user", "nobody@example.com", "--json"],
        &["events", "--json"],
        &["audit", "export", "--format", "jsonl"],
        &["audit", "export"],
    ] {
        let mut program = harness.program(arguments);
        program.env(POLL.0, POLL.1);
        let ran = finish(program).await;
        // One member a line, so that a changed member is one changed line.
        let text = match arguments {
            ["events", ..] | ["audit", .., "jsonl"] => {
                let objects = ran.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
                objects.map(|object| format!("{object:#}\n")).collect()
            }
            _ => ran.out.clone(),
        };
        same(&format!("json_{}", name(arguments)), &text);
    }
}

/// One request over the socket of `[http] listen`.
fn get(harness: &Harness, path: &str) -> String {
    let mut stream = UnixStream::connect(harness.folder().join("http.sock")).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// The numbers of metrics and the order of a family's series differ; their names, labels and help do not.
fn without_numbers(metrics: &str) -> String {
    let (mut text, mut series) = (String::new(), Vec::new());
    for line in metrics.lines() {
        match line.rsplit_once(' ') {
            Some((name, _)) if !line.starts_with('#') => series.push(format!("{name} N\n")),
            _ => {
                series.sort();
                text.extend(series.drain(..));
                text.push_str(&format!("{line}\n"));
            }
        }
    }
    series.sort();
    text.extend(series);
    text
}

/// The messages of the daemon's log, each once, as text.
fn log_lines(log: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = format!("{} {}: {}", line["level"], line["event"], line["message"]).replace('"', "");
        if !lines.contains(&text) {
            lines.push(text);
        }
    }
    lines.sort();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_log_and_webhook_messages() {
    let (harness, [ann, ..]) = furnished().await;
    // Otherwise the daemon begins with a reconcile, which retries Zoe for minutes.
    harness.run(&["reconcile", "--all"]).await;
    let messages: Arc<Mutex<Vec<Value>>> = Arc::default();
    let taken = messages.clone();
    let hook = move |Json(message): Json<Value>| async move { taken.lock().unwrap().push(message) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/hook", post(hook))).await });
    // The logins that this test tries would make Zoe due once more.
    let tenants = harness.sandbox.config_toml().replace("[auth0]\n", "[auth0]\nevents = \"never\"\n");
    harness.write_config(&format!(
        "{tenants}\n[http]\nlisten = \"unix:{}\"\n[log]\nformat = \"json\"\n[alert]\nwebhook_url = \"{url}\"\n",
        harness.folder().join("http.sock").display()
    ));
    let mut daemon = harness.daemon();
    let ready = async {
        let socket = harness.folder().join("http.sock");
        // Bob and Zoe keep it from being ready.
        let is_open =
            |line: &str| ["alarm: ", "failed: ", "held: ", "quarantined: "].iter().any(|rule| line.starts_with(rule));
        while !socket.exists() || !get(&harness, "/readyz").lines().all(is_open) {
            tokio::task::yield_now().await;
        }
    };
    daemon.until("ready", ready).await;
    harness.sandbox.okta().activate(&ann);
    let both = async {
        let has = |event: &str| messages.lock().unwrap().iter().any(|message| message["event"] == event);
        while !has("raised") || !harness.shut_out().is_empty() || get(&harness, "/metrics").contains("oldest_pending") {
            tokio::task::yield_now().await;
        }
    };
    within("a message, and Ann's return", both).await;
    same("metrics", &without_numbers(&get(&harness, "/metrics")));
    daemon.stop().await;
    let mut texts: Vec<String> = messages.lock().unwrap().iter().map(|message| format!("{message:#}")).collect();
    texts.sort();
    texts.dedup();
    same("webhook", &texts.join("\n"));
    same("log", &log_lines(&fs::read_to_string(harness.folder().join("daemon.log")).unwrap()));
}
