//! Passes through a stand-in's System Log, with a manual clock.

use std::future::{Future, poll_fn};
use std::task::Poll;

use serde_json::json;

use super::super::stage::{CapturedLogs, Stage, soon, start_time};
use super::*;
use crate::domain::mark::MarkOptions;
use crate::domain::{Clock, ManualClock};
use crate::http::Remote;
use crate::store::EventRow;
use okta_auth0_sync_sandbox::{Effect, Fault, FaultId, NewUser};

const LOG: &str = "/api/v1/logs";
const DAY: Duration = Duration::from_secs(86_400);

async fn stage() -> Stage {
    let mark = MarkOptions { mirror: true, block: false };
    Stage::with(mark, ManualClock::new(start_time()), |engine, _| engine).await
}

impl Stage {
    async fn pass(&self) -> Result<Pass, PassError> {
        soon(self.engine.poll(&CancellationToken::new())).await
    }

    /// Replaces the responses of the System Log.
    fn log_answers(&self, effect: Effect) -> FaultId {
        self.sandbox.okta().faults().add(Fault::new("GET", LOG, effect))
    }

    fn asked(&self) -> usize {
        self.sandbox.okta().journal().count("GET", LOG)
    }

    fn moves_in(&self, many: usize) {
        for number in 0..many {
            let address = format!("{}-{number}@example.com", self.asked());
            self.sandbox.okta().create_user(&NewUser::new(&address, &address));
        }
    }

    async fn checkpoint(&self) -> Checkpoint {
        self.engine.store.checkpoint().await.unwrap().unwrap()
    }

    async fn events(&self) -> Vec<EventRow> {
        self.engine.store.recent_events(None, 5000).await.unwrap()
    }

    async fn alarms(&self) -> Vec<String> {
        self.engine.store.open_alarms().await.unwrap().into_iter().map(|alarm| alarm.kind).collect()
    }

    /// Was the applier woken since the last check?
    async fn wakes(&self) -> bool {
        let woken = self.engine.wakes.apply.notified();
        tokio::pin!(woken);
        poll_fn(|context| Poll::Ready(woken.as_mut().poll(context).is_ready())).await
    }
}

#[tokio::test]
async fn full_pages_continue_the_pass() {
    let stage = stage().await;
    // Each user has two events: created and activated.
    stage.moves_in(600);
    assert_eq!(stage.pass().await.unwrap(), Pass { pages: 3, events: 1200, made_due: 600, more: false });
    assert_eq!(stage.asked(), 3, "an empty page ends the pass");
    assert_eq!(stage.events().await.len(), 1200);
    assert!(stage.wakes().await);
    let quiet = stage.pass().await.unwrap();
    assert_eq!(quiet, Pass { pages: 1, ..Pass::default() });
    assert!(!stage.wakes().await, "nothing is new");
    assert_eq!(stage.asked(), 4);
}

#[tokio::test]
async fn page_that_leads_nowhere_keeps_the_cursor() {
    let stage = stage().await;
    for leads_where_it_came_from in [false, true] {
        stage.pass().await.unwrap();
        let before = stage.checkpoint().await;
        let next = before.next.clone().filter(|_| leads_where_it_came_from);
        let link = next.map(|next| format!("<{}{next}>; rel=\"next\"", stage.sandbox.okta().url()));
        stage.moves_in(500);
        let (asked, known) = (stage.asked(), stage.events().await.len());
        let fault = stage.log_answers(Effect::ReplaceHeader { name: "link".to_owned(), value: link.clone() });
        assert_eq!(stage.pass().await.is_ok(), leads_where_it_came_from, "a page without a link is an error");
        assert_eq!(stage.asked(), asked + 1, "{link:?}");
        let after = stage.checkpoint().await;
        assert_eq!((after.next, after.anchor_at), (before.next, before.anchor_at), "{link:?}");
        stage.sandbox.okta().faults().remove(fault);
        // Nothing is lost: the next pass resumes at the same cursor.
        stage.pass().await.unwrap();
        assert_eq!(stage.events().await.len(), known + 1000, "{link:?}");
    }
}

#[tokio::test]
async fn cancelled_poll_makes_no_call() {
    let stage = stage().await;
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(stage.engine.poll(&stop).await.unwrap(), Pass::default());
    assert_eq!(stage.asked(), 0);
}

#[tokio::test]
async fn cursor_refused_twice_is_replaced_by_timestamp() {
    let (stage, logs) = (stage().await, CapturedLogs::new());
    stage.pass().await.unwrap();
    let before = stage.checkpoint().await;
    assert!(before.next.is_some());
    for code in [404, 500, 403] {
        let fault = stage.log_answers(status(code));
        for _ in 0..3 {
            assert!(stage.pass().await.is_err(), "{code}");
            stage.clock.advance(Duration::from_secs(61));
        }
        assert_eq!(stage.checkpoint().await, before, "{code}");
        stage.sandbox.okta().faults().remove(fault);
    }
    assert_eq!(logs.count("reanchored"), 0);

    let once = stage.sandbox.okta().faults().add(Fault::new("GET", LOG, status(400)).times(1));
    stage.pass().await.unwrap();
    assert_eq!((logs.count("reanchored"), stage.asked()), (0, 12), "one refusal costs one more request");
    stage.sandbox.okta().faults().remove(once);

    stage.sandbox.okta().faults().add(Fault::new("GET", LOG, status(400)).times(2));
    let asked = stage.asked();
    stage.pass().await.unwrap();
    assert_eq!((logs.count("reanchored"), stage.asked()), (1, asked + 3));
    assert!(stage.alarms().await.is_empty(), "the alarm is momentary");

    // If Okta refuses the timestamp too, the pass fails.
    let asked = stage.asked();
    stage.sandbox.okta().faults().add(Fault::new("GET", LOG, status(400)));
    assert!(matches!(stage.pass().await.unwrap_err(), PassError::Failed(failure) if failure.kind == Kind::Rejected));
    assert_eq!((logs.count("reanchored"), stage.asked()), (2, asked + 4));
    assert_eq!(stage.checkpoint().await.next, None);
}

fn status(code: u16) -> Effect {
    Effect::Status { code, body: json!({ "errorCode": "E0000031", "errorSummary": "no" }), headers: Vec::new() }
}

#[tokio::test]
async fn failed_pass_records_the_attempt() {
    let stage = stage().await;
    stage.pass().await.unwrap();
    let tried = async || stage.engine.store.status().await.unwrap().unwrap().last_poll_at;
    let before = tried().await;
    stage.clock.advance(DAY);
    stage.log_answers(status(500));
    assert!(stage.pass().await.is_err());
    assert!(tried().await > before);
}

#[tokio::test]
async fn cursor_idle_for_a_month_is_replaced() {
    let stage = stage().await;
    let position =
        async |checkpoint: &Checkpoint| stage.engine.position(Some(checkpoint), &checkpoint.fingerprint).await.unwrap();
    let since = |time| Some(LogPosition::Since(time));
    let now = stage.clock.now();
    assert_eq!(
        stage.engine.position(None, "").await.unwrap(),
        Some((LogPosition::Since(clock::sub(now, 7 * DAY)), 0)),
        "as configured"
    );
    stage.pass().await.unwrap();
    let good = stage.checkpoint().await;
    let cursor = LogPosition::Next(good.next.clone().unwrap());
    stage.clock.advance(30 * DAY);
    let fresh = Checkpoint { anchor_at: stage.clock.now(), ..good.clone() };
    assert_eq!(position(&fresh).await, Some((cursor, good.seq)));

    let anchored =
        |days: u32| Checkpoint { next: None, anchor_at: clock::sub(stage.clock.now(), days * DAY), ..good.clone() };
    assert_eq!(
        position(&anchored(178)).await.map(|(position, _)| position),
        since(clock::sub(stage.clock.now(), 178 * DAY))
    );
    assert_eq!(
        position(&anchored(1000)).await.map(|(position, _)| position),
        since(clock::sub(stage.clock.now(), 179 * DAY)),
        "Okta refuses what is older"
    );

    stage.clock.advance(Duration::from_secs(1));
    let logs = CapturedLogs::new();
    assert_eq!(position(&fresh).await, None, "it is re-anchored");
    assert!(logs.text().contains("has not moved for 30 days"), "{}", logs.text());
    let again = stage.checkpoint().await;
    assert_eq!((again.next, again.anchor_at), (None, clock::sub(fresh.anchor_at, OVERLAP)));
}

#[tokio::test]
async fn foreign_cursor_is_not_used() {
    let (stage, logs) = (stage().await, CapturedLogs::new());
    stage.pass().await.unwrap();
    let checkpoint = stage.checkpoint().await;
    assert_eq!(stage.engine.position(Some(&checkpoint), "another").await.unwrap(), None);
    assert!(logs.text().contains("another org address or event filter"), "{}", logs.text());
    assert_eq!(stage.checkpoint().await.next, None);
}

#[tokio::test]
async fn eighty_days_without_poll_is_a_gap() {
    let (stage, logs) = (stage().await, CapturedLogs::new());
    stage.pass().await.unwrap();
    let checkpoint = stage.checkpoint().await;
    let old =
        |by: Duration| Checkpoint { next: None, anchor_at: clock::sub(stage.clock.now(), by), ..checkpoint.clone() };
    stage.engine.position(Some(&old(80 * DAY)), "").await.unwrap();
    assert!(stage.alarms().await.is_empty());
    let longer = 80 * DAY + Duration::from_secs(1);
    for _ in 0..2 {
        stage.engine.position(Some(&old(longer)), "").await.unwrap();
    }
    assert_eq!(stage.alarms().await, ["gap"]);
    assert_eq!(logs.count("gap"), 1);
    let run = stage.engine.store.current_reconcile().await.unwrap().unwrap();
    assert_eq!(run.scope, "all");
}

#[tokio::test]
async fn unreadable_event_is_quarantined_once() {
    let stage = stage().await;
    stage.moves_in(1);
    stage.pass().await.unwrap();
    assert!(stage.alarms().await.is_empty());
    let before = stage.events().await.len();
    let odd = json!([{ "odd": 1 }, { "odd": 2 }, { "odd": 1 }]);
    for new in [2, 0] {
        let fault = stage.log_answers(Effect::ReplaceBody(odd.to_string().into_bytes()));
        assert_eq!(stage.pass().await.unwrap().events, new);
        stage.sandbox.okta().faults().remove(fault);
    }
    assert_eq!(stage.events().await.len(), before + 2);
    assert_eq!(stage.alarms().await, ["quarantined"]);
    assert!(stage.engine.store.open_alarms().await.unwrap()[0].detail.starts_with("2 events"));
}

#[tokio::test]
async fn foreign_next_link_raises_alarm() {
    let (stage, logs) = (stage().await, CapturedLogs::new());
    let elsewhere = stage.log_answers(Effect::NextLinkOrigin("https://elsewhere.example".to_owned()));
    for _ in 0..2 {
        stage.pass().await.unwrap();
    }
    assert_eq!((stage.alarms().await, logs.count("foreign_next")), (vec!["foreign_next".to_owned()], 1));
    stage.sandbox.okta().faults().remove(elsewhere);
    // A page without a link does not clear the alarm.
    let none = stage.log_answers(Effect::ReplaceHeader { name: "link".to_owned(), value: None });
    stage.pass().await.unwrap();
    assert_eq!(stage.alarms().await, ["foreign_next"]);
    stage.sandbox.okta().faults().remove(none);
    stage.pass().await.unwrap();
    assert!(stage.alarms().await.is_empty());
}

#[tokio::test]
async fn org_is_checked_once_and_must_match() {
    let first = stage().await;
    for _ in 0..3 {
        first.pass().await.unwrap();
    }
    assert_eq!(first.sandbox.okta().journal().count("GET", "/.well-known/okta-organization"), 1);
    let stage = stage().await;
    stage.engine.store.bind_org("00oanother").await.unwrap();
    assert!(matches!(stage.pass().await.unwrap_err(), PassError::Store(_)));
    assert_eq!(stage.asked(), 0);
    assert_eq!(stage.engine.breaker(Remote::Okta).open_for(&[]), None);
}
