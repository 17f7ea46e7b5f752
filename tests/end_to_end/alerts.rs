//! Alarm webhooks and heartbeats: one notification when an alarm is raised, with the remedy, and one when it clears; retries
//! when the receiver refuses; and the secret addresses appear nowhere.

use std::fs;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;
use tokio::sync::watch;

use crate::harness::{Daemon, Harness, finish};

/// The secret parts of the addresses.
const WEBHOOK: &str = "T0Canary-hook-4f1d9a";
const HEARTBEAT: &str = "T0Canary-beat-77c2e0";

/// What the receiver got.
#[derive(Clone, Debug, Default)]
struct Received {
    refused: Vec<Value>,
    taken: Vec<Value>,
    beats: u32,
}

/// A webhook that refuses the first messages and accepts all others, and a heartbeat address.
struct Receiver {
    url: String,
    heard: watch::Receiver<Received>,
}

impl Receiver {
    async fn listen(refusals: usize) -> Self {
        let (sender, heard) = watch::channel(Received::default());
        let hook = move |State(sender): State<Arc<watch::Sender<Received>>>, Json(message): Json<Value>| async move {
            let mut code = StatusCode::NO_CONTENT;
            sender.send_modify(|heard| {
                if heard.refused.len() < refusals {
                    heard.refused.push(message);
                    code = StatusCode::INTERNAL_SERVER_ERROR;
                } else {
                    heard.taken.push(message);
                }
            });
            code
        };
        let beat = |State(sender): State<Arc<watch::Sender<Received>>>| async move {
            sender.send_modify(|heard| heard.beats += 1);
        };
        let routes = Router::new()
            .route(&format!("/hook/{WEBHOOK}"), post(hook))
            .route(&format!("/beat/{HEARTBEAT}"), get(beat))
            .with_state(Arc::new(sender));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, heard }
    }

    async fn hears(&mut self, condition: impl FnMut(&Received) -> bool) {
        self.heard.wait_for(condition).await.unwrap();
    }
}

/// The daemon at trace level with both addresses and a guard that allows no denial.
fn daemon(harness: &Harness, receiver: &Receiver) -> Daemon {
    let url = &receiver.url;
    harness.configure(&format!(
        "[log]\nfilter = \"trace\"\n[alert]\nwebhook_url = \"{url}/hook/{WEBHOOK}\"\nheartbeat_url = \
         \"{url}/beat/{HEARTBEAT}\"\n"
    ));
    let log = fs::File::create(harness.folder().join("daemon.log")).unwrap();
    let mut command = harness.program(&["run"]);
    command.env("OKTA_AUTH0_SYNC__GUARD__MAX_DENIALS", "0").stderr(log);
    command.spawn().unwrap().into()
}

fn about_the_guard<'a>(messages: &'a [Value], event: &str) -> Vec<&'a Value> {
    messages.iter().filter(|message| message["kind"] == "guard" && message["event"] == event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn alarm_webhook_retries_and_delivers_once() {
    let harness = Harness::start().await;
    let (ann, account) = harness.user("ann");
    let mut receiver = Receiver::listen(2).await;
    harness.sandbox.okta().deactivate(&ann);
    let mut daemon = daemon(&harness, &receiver);

    daemon.until("a message", receiver.hears(|heard| !about_the_guard(&heard.taken, "raised").is_empty())).await;
    let heard = receiver.heard.borrow().clone();
    assert_eq!(heard.refused.len(), 2, "retried until the receiver accepted it");
    let told = about_the_guard(&heard.taken, "raised")[0];
    assert!(told["detail"].as_str().unwrap().contains("the guard holds 1 user"), "{told}");
    let remedy = told["remedy"].as_str().unwrap();
    assert!(remedy.contains("approve --all"), "{told}");
    let text = told["text"].as_str().unwrap();
    assert!(text.contains(remedy) && text.contains(harness.sandbox.okta().url()), "{told}");
    assert!(harness.mark(&account).is_null(), "held");

    // Beside the daemon and with the same guard, so that only the approved user passes.
    let mut approve = harness.program(&["approve", "ann@example.com"]);
    approve.env("OKTA_AUTH0_SYNC__GUARD__MAX_DENIALS", "0");
    let approved = finish(approve).await;
    approved.exits(0);
    assert!(!harness.sandbox.auth0().login(&account).is_granted(), "{}", approved.all());
    daemon.until("its end", receiver.hears(|heard| !about_the_guard(&heard.taken, "over").is_empty())).await;
    let beats = receiver.heard.borrow().beats;
    daemon.until("more heartbeats", receiver.hears(|heard| heard.beats > beats + 1)).await;
    daemon.stop().await;

    let taken = receiver.heard.borrow().taken.clone();
    for event in ["raised", "over"] {
        assert_eq!(about_the_guard(&taken, event).len(), 1, "{event}: {taken:#?}");
    }
    let log = fs::read_to_string(harness.folder().join("daemon.log")).unwrap();
    assert!(
        log.contains("TRACE") && log.contains("webhook_failed"),
        "the log is at trace level and mentions the refusal"
    );
    for secret in [WEBHOOK, HEARTBEAT] {
        let at = log.lines().find(|line| line.contains(secret));
        assert_eq!(at, None, "an address is in the log");
        for file in ["state.db", "state.db-wal"] {
            let bytes = fs::read(harness.folder().join(file)).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{file} holds an address");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeat_follows_only_good_passes() {
    let harness = Harness::start().await;
    let mut receiver = Receiver::listen(0).await;
    harness.sandbox.okta().revoke_token();
    let mut daemon = daemon(&harness, &receiver);
    // An alarm about a refusal proves that the daemon tried.
    let told = |heard: &Received| heard.taken.iter().any(|message| message["kind"] == "remote_refuses");
    daemon.until("an alarm", receiver.hears(told)).await;
    assert_eq!(receiver.heard.borrow().beats, 0, "no pass was good yet");
    harness.sandbox.okta().restore_token();
    daemon.until("a heartbeat", receiver.hears(|heard| heard.beats > 0)).await;
    daemon.stop().await;
}
