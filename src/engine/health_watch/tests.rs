//! Alarms of missed obligations, through the real engine on a clock that the test sets.

use super::super::reconciler::Scope;
use super::super::stage::{Stage, create_user, soon, start_time, until};
use super::*;
use crate::domain::ManualClock;
use crate::domain::mark::MarkOptions;
use okta_auth0_sync_sandbox::{Effect, Fault, RateLimited};
use serde_json::json;
use sqlx::Connection;

const PLAIN: MarkOptions = MarkOptions { mirror: true, block: false };
const MINUTE: Duration = Duration::from_secs(60);

fn deadlines() -> Deadlines {
    Deadlines::new("*/15 * * * * *".parse().unwrap(), "0 0 3 * * *".parse().unwrap())
}

/// The engine on a clock that only the test moves, and no running loop.
async fn stage() -> Stage {
    Stage::with(PLAIN, ManualClock::new(start_time()), |engine, _| engine).await
}

impl Stage {
    /// Evaluates, as if every loop made progress.
    async fn check(&self) -> bool {
        for (_, heartbeat) in self.engine.heartbeats.by_name() {
            heartbeat.stamp(self.clock.as_ref());
        }
        soon(self.engine.check_health(&deadlines())).await
    }

    /// Lets time pass with an evaluation every ten seconds.
    async fn passes(&self, span: Duration) {
        for _ in 0..span.as_secs() / 10 {
            self.clock.advance(Duration::from_secs(10));
            self.check().await;
        }
    }

    async fn poll_once(&self) {
        self.clock.advance(Duration::from_secs(2));
        soon(self.engine.poll(&CancellationToken::new())).await.unwrap();
    }

    /// A reconcile of all users, and of what it queues.
    async fn reconciled(&self) {
        self.engine.begin_reconcile(Scope::All, "the test").await.unwrap();
        assert!(soon(self.engine.reconcile(&CancellationToken::new())).await.unwrap().done);
    }

    async fn headline(&self) -> String {
        self.engine.health().await.unwrap().headline(self.engine.now()).text
    }

    async fn judged(&self, name: &str) -> Obligation {
        let health = self.engine.health().await.unwrap();
        health.obligations.into_iter().find(|one| one.name == name).unwrap()
    }

    /// Everything is met.
    async fn settled(&self) {
        self.poll_once().await;
        self.reconciled().await;
        self.engine.look_at_action().await.unwrap();
        assert!(self.check().await, "everything is known");
        assert_eq!(self.open().await, [""; 0]);
    }

    async fn open(&self) -> Vec<String> {
        self.engine.store().open_alarms().await.unwrap().into_iter().map(|alarm| alarm.kind).collect()
    }

    async fn detail(&self, kind: &str) -> String {
        let alarms = self.engine.store().open_alarms().await.unwrap();
        alarms.into_iter().find(|alarm| alarm.kind == kind).map(|alarm| alarm.detail).unwrap_or_default()
    }

    /// A user with an account who is deactivated; the event is stored.
    async fn leaver(&self, email: &str) {
        let user = create_user(self.sandbox.okta(), email, email);
        self.sandbox.auth0().create_user(json!({ "email": email, "email_verified": true }));
        self.sandbox.okta().deactivate(&user);
        self.poll_once().await;
    }
}

#[tokio::test]
async fn hung_poller_cannot_hide_a_late_poll() {
    let stage = stage().await;
    stage.settled().await;
    stage.passes(2 * MINUTE).await;
    assert_eq!(stage.open().await, [""; 0], "exactly at the deadline");
    stage.passes(Duration::from_secs(20)).await;
    assert_eq!(stage.open().await, ["poll_late"]);
    stage.poll_once().await;
    stage.check().await;
    assert_eq!(stage.open().await, [""; 0]);
}

#[tokio::test]
async fn lasting_log_limit_is_named_in_the_alarm() {
    let stage = stage().await;
    stage.settled().await;
    let limit = Effect::RateLimited(RateLimited::RetryAfter(15 * MINUTE));
    stage.sandbox.okta().faults().add(Fault::new("GET", "/api/v1/logs", limit));
    let engine = stage.engine.clone();
    let polling = tokio::spawn(async move { engine.poll(&CancellationToken::new()).await });
    while stage.sandbox.okta().journal().count("GET", "/api/v1/logs") < 2 {
        tokio::task::yield_now().await;
    }
    soon(async {
        while stage.engine.store().status().await.unwrap().unwrap().last_okta_error.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stage.passes(3 * MINUTE).await;
    assert!(stage.detail("poll_late").await.contains("429"), "{}", stage.detail("poll_late").await);
    polling.abort();
}

#[tokio::test]
async fn limit_on_everything_names_waiting_denials() {
    let stage = stage().await;
    stage.settled().await;
    stage.leaver("ann@example.com").await;
    stage.leaver("bob@example.com").await;
    let limit = Effect::RateLimited(RateLimited::RetryAfter(15 * MINUTE));
    stage.sandbox.auth0().faults().add(Fault::everywhere(limit));
    let (engine, stop) = (stage.engine.clone(), CancellationToken::new());
    let token = stop.clone();
    let applying = tokio::spawn(async move { engine.apply(super::super::applier::Until::Stopped, &token).await });
    soon(async {
        while stage.engine.store().status().await.unwrap().unwrap().last_auth0_error.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..30 {
        stage.passes(Duration::from_secs(10)).await;
        stage.poll_once().await;
    }
    let detail = stage.detail("pending_late").await;
    assert!(
        detail.contains("2 users are waiting, 2 denials among them, the oldest since 2026-11-23T10:00"),
        "{detail}"
    );
    assert!(detail.contains("Auth0") && detail.contains("429"), "{detail}");
    let health = stage.engine.health().await.unwrap();
    let headline = health.headline(stage.engine.now()).text;
    assert!(headline.starts_with("Auth0 limits our calls since 10:00, next call at 10:0"), "{headline}");
    assert!(headline.ends_with(", 2 denials waiting"), "{headline}");
    applying.abort();
}

#[tokio::test]
async fn wrong_clock_is_missed_until_it_is_set() {
    let stage = stage().await;
    stage.settled().await;
    let store = stage.engine.store();
    let wrong = Evaluation { clock: Some((-75.0, stage.engine.now())), ..Evaluation::default() };
    store.note_evaluation(&wrong, stage.engine.now()).await.unwrap();
    let health = stage.engine.health().await.unwrap();
    assert_eq!(health.headline(stage.engine.now()).text, "This machine's clock is 75 s behind the tenants' clock");
    stage.check().await;
    let health = stage.engine.health().await.unwrap();
    assert_eq!(health.missed().count(), 0, "the tenants' responses say that it is right");
}

#[tokio::test]
async fn unbound_action_and_other_code_are_missed() {
    let stage = stage().await;
    stage.settled().await;
    let met = async || {
        soon(stage.engine.look_at_action()).await.unwrap();
        stage.check().await;
        let health = stage.engine.health().await.unwrap();
        health.obligations.iter().find(|one| one.name == "action").map(|one| (one.met, one.detail.clone())).unwrap()
    };
    assert_eq!(met().await.0, Some(true));
    stage.sandbox.auth0().action().install(crate::auth0::ACTION_NAME, "exports.onExecutePostLogin = async () => {};");
    let (state, detail) = met().await;
    assert_eq!(state, Some(false));
    assert!(detail.contains("the code that runs differs"), "{detail}");
    assert_eq!(stage.open().await, ["action_missing"]);
}

#[tokio::test]
async fn action_not_checked_for_three_hours_is_unknown() {
    let stage = stage().await;
    stage.settled().await;
    stage.clock.advance(3 * 60 * MINUTE);
    stage.poll_once().await;
    stage.check().await;
    let health = stage.engine.health().await.unwrap();
    assert_eq!(health.headline(stage.engine.now()).text, "1 issue needs attention");
    assert_eq!(stage.open().await, ["action_unknown"]);
    stage.engine.look_at_action().await.unwrap();
    stage.check().await;
    assert_eq!(stage.open().await, [""; 0]);
}

#[tokio::test]
async fn reconcile_is_late_after_two_periods() {
    let stage = stage().await;
    stage.settled().await;
    stage.clock.advance(2 * 24 * 60 * MINUTE);
    create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
    stage.poll_once().await;
    stage.engine.list_directory(&CancellationToken::new()).await.unwrap();
    stage.engine.look_at_action().await.unwrap();
    stage.check().await;
    assert_eq!(stage.open().await, ["reconcile_late"]);
}

#[tokio::test]
async fn stuck_loop_is_named() {
    let stage = stage().await;
    stage.settled().await;
    stage.clock.advance(STUCK_AFTER);
    for name in ["poller", "reconciler", "watcher", "health check"] {
        stage.engine.heartbeats.stamp(name, stage.clock.as_ref());
    }
    soon(stage.engine.check_health(&deadlines())).await;
    assert!(stage.detail("stuck").await.contains("the applier has made no progress"), "{:?}", stage.open().await);
    stage.check().await;
    assert!(!stage.open().await.contains(&"stuck".to_owned()));
}

#[tokio::test]
async fn wal_that_only_grows_is_named() {
    let stage = stage().await;
    stage.settled().await;
    let path = stage.engine.store().path().to_owned();
    let url = format!("sqlite://{}", path.display());
    let mut reader = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let mut writer = sqlx::SqliteConnection::connect(&url).await.unwrap();
    // A shell that was left in a transaction.
    sqlx::query("BEGIN").execute(&mut reader).await.unwrap();
    sqlx::query("SELECT count(*) FROM users").fetch_one(&mut reader).await.unwrap();
    sqlx::query("CREATE TABLE filler (bytes BLOB)").execute(&mut writer).await.unwrap();
    for _ in 0..9 {
        sqlx::query("INSERT INTO filler VALUES (zeroblob(8000000))").execute(&mut writer).await.unwrap();
    }
    for _ in 0..2 {
        stage.check().await;
    }
    let held = stage.engine.store().held_wal_bytes().await;
    let health = stage.engine.health().await.unwrap();
    assert!(stage.detail("state").await.contains("write-ahead log"), "{held:?} {:?}", health.obligations);
    sqlx::query("COMMIT").execute(&mut reader).await.unwrap();
    stage.poll_once().await;
    stage.check().await;
    assert_eq!(stage.open().await, [""; 0]);
}

#[tokio::test]
async fn unlisted_directory_is_an_alarm() {
    let stage = stage().await;
    stage.settled().await;
    let late = async || {
        let alarms = stage.engine.store().open_alarms().await.unwrap();
        alarms.iter().any(|alarm| alarm.kind == "reconcile_late" && alarm.subject == "directory")
    };
    assert!(!late().await);
    stage.clock.advance(2 * 24 * 60 * MINUTE);
    stage.poll_once().await;
    stage.check().await;
    assert!(late().await, "no listing was ever complete");
    create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
    stage.clock.advance(Duration::from_secs(2));
    assert!(stage.engine.list_directory(&CancellationToken::new()).await.unwrap().done);
    stage.check().await;
    assert!(!late().await);
}

#[tokio::test]
async fn lasting_limit_of_writes_is_not_hidden() {
    let stage = stage().await;
    stage.settled().await;
    stage.leaver("ann@example.com").await;
    // As from Auth0's quota of a client: without the headers of the tenant's limits.
    let body = json!({ "statusCode": 429, "error": "Too Many Requests", "errorCode": "too_many_requests" });
    let headers = vec![("retry-after".to_owned(), "3600".to_owned())];
    stage.sandbox.auth0().faults().add(Fault::new(
        "PATCH",
        "/api/v2/users/",
        Effect::Status { code: 429, body, headers },
    ));
    let (engine, stop) = (stage.engine.clone(), CancellationToken::new());
    let token = stop.clone();
    let applying = tokio::spawn(async move { engine.apply(super::super::applier::Until::Stopped, &token).await });
    let writes = || stage.sandbox.auth0().journal().count("PATCH", "/api/v2/users/");
    until(|| writes() > 0).await;
    stage.passes(MINUTE / 2).await;
    // Other endpoints answer all the time.
    stage.engine.look_at_action().await.unwrap();
    assert_eq!(stage.headline().await, "Auth0 limits our calls since 10:00, next call at 10:01, 1 denial waiting");
    for _ in 0..10 {
        stage.passes(MINUTE / 2).await;
        stage.poll_once().await;
        stage.engine.look_at_action().await.unwrap();
    }
    let pending = stage.judged("pending").await;
    assert!(pending.detail.contains("429") && pending.detail.contains("next call at"), "{}", pending.detail);
    assert_eq!(stage.open().await, ["remote_down", "pending_late"]);
    let detail = stage.detail("remote_down").await;
    assert!(detail.contains("PATCH /api/v2/users/{id}") && detail.contains("1 denial is waiting"), "{detail}");
    let probes = writes();
    assert!((3..=4).contains(&probes), "after one, three and seven minutes: {probes}");

    stage.sandbox.auth0().faults().clear();
    for _ in 0..10 {
        stage.passes(MINUTE / 2).await;
        stage.poll_once().await;
    }
    assert_eq!(stage.open().await, [""; 0], "a probe found out long before the hour was over");
    assert_eq!(stage.headline().await, "All well");
    applying.abort();
}

#[tokio::test]
async fn limit_that_nothing_waits_for_ends() {
    let stage = stage().await;
    stage.settled().await;
    let limit = Effect::RateLimited(RateLimited::RetryAfter(MINUTE));
    stage.sandbox.okta().faults().add(Fault::new("GET", "/api/v1/users/00u", limit));
    let user = create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
    let engine = stage.engine.clone();
    engine.store().request_look(crate::store::Who::User(&user), engine.now()).await.unwrap();
    let looking = tokio::spawn(async move { engine.look_at(std::slice::from_ref(&user)).await });
    until(|| stage.sandbox.okta().journal().count("GET", "/api/v1/users/00u") > 0).await;
    stage.passes(MINUTE / 6).await;
    assert!(stage.headline().await.starts_with("Okta limits our calls since"), "{}", stage.headline().await);
    looking.abort();
    for _ in 0..20 {
        stage.passes(MINUTE / 6).await;
        stage.poll_once().await;
    }
    assert!(!stage.headline().await.contains("limits"), "{}", stage.headline().await);
}

#[tokio::test]
async fn first_start_is_unknown_until_reconciled() {
    let stage = stage().await;
    stage.poll_once().await;
    stage.engine.look_at_action().await.unwrap();
    assert!(!stage.check().await);
    assert_eq!(stage.headline().await, "Not known yet: reconcile");
    let reconcile = stage.judged("reconcile").await;
    assert!(reconcile.detail.contains("no reconcile of all users has finished yet"), "{}", reconcile.detail);
    let rules: Vec<&str> = stage.engine.health().await.unwrap().violations().iter().map(|one| one.rule).collect();
    assert_eq!(rules, ["reconcile"]);

    let recent = crate::domain::clock::sub(stage.engine.now(), Duration::from_secs(86_400));
    stage.engine.begin_reconcile(Scope::Since(recent), "the test").await.unwrap();
    soon(stage.engine.reconcile(&CancellationToken::new())).await.unwrap();
    assert_eq!(stage.headline().await, "Not known yet: reconcile", "it listed the changes of a day");
    stage.reconciled().await;
    assert!(stage.check().await);
    assert_eq!(stage.headline().await, "All well");
}

#[tokio::test]
async fn moved_or_deleted_state_is_missed() {
    let stage = stage().await;
    stage.settled().await;
    let path = stage.engine.store().path().to_owned();
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    stage.check().await;
    let state = stage.judged("state").await;
    assert_eq!(state.met, Some(false), "{}", state.detail);
    assert!(state.detail.contains("moved or deleted") && state.remedy.contains("put the file back"), "{state:?}");
    assert_eq!(stage.open().await, ["state"]);
    assert!(stage.engine.store().pending_notification().await.unwrap().is_some(), "it is delivered");

    std::fs::write(&path, "another file").unwrap();
    stage.check().await;
    assert!(stage.detail("state").await.contains("replaced"), "{}", stage.detail("state").await);
    std::fs::rename(&aside, &path).unwrap();
    stage.check().await;
    assert_eq!(stage.open().await, [""; 0]);
}

#[tokio::test]
async fn dismissed_event_is_unknown_until_reconciled() {
    let stage = stage().await;
    stage.settled().await;
    let ann = create_user(stage.sandbox.okta(), "ann@example.com", "ann@example.com");
    let bob = create_user(stage.sandbox.okta(), "bob@example.com", "bob@example.com");
    for email in ["ann@example.com", "bob@example.com"] {
        stage.sandbox.auth0().create_user(json!({ "email": email, "email_verified": true }));
    }
    stage.poll_once().await;
    for (user, uuid, target) in
        [(&ann, "named", json!([{ "type": "User", "id": ann.as_str() }])), (&bob, "unnamed", json!(null))]
    {
        stage.sandbox.okta().set_status(user, "DEPROVISIONED", None);
        stage.sandbox.okta().push_log_entry(json!({ "uuid": uuid, "published": "never", "target": target,
            "eventType": "user.lifecycle.deactivate" }));
    }
    stage.poll_once().await;
    let store = stage.engine.store();
    assert_eq!(store.dismiss_event("named", stage.engine.now()).await.unwrap(), Some(vec![ann.clone()]));
    assert_eq!(store.dismiss_event("unnamed", stage.engine.now()).await.unwrap(), Some(Vec::new()));
    assert_eq!(store.dismiss_event("unnamed", stage.engine.now()).await.unwrap(), None);
    soon(stage.engine.look_at(std::slice::from_ref(&ann))).await.unwrap();
    assert_eq!(store.status().await.unwrap().unwrap().denied, 1, "the one that it names is looked at");
    stage.check().await;
    let reconcile = stage.judged("reconcile").await;
    assert_eq!(reconcile.met, None);
    assert!(reconcile.detail.contains("unnamed was dismissed unread"), "{}", reconcile.detail);

    assert!(stage.engine.begin_missing(None).await.unwrap().is_some(), "the daemon begins it");
    assert!(soon(stage.engine.reconcile(&CancellationToken::new())).await.unwrap().done);
    assert_eq!(stage.judged("reconcile").await.met, Some(true));
    soon(stage.engine.look_at(&[bob])).await.unwrap();
    assert_eq!(store.status().await.unwrap().unwrap().denied, 2);
}
