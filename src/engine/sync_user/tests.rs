//! The results of a look: decisions, queued users, log lines and alarms.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};

use super::*;
use crate::engine::inspect::Inspector;
use crate::engine::stage::{CapturedLogs, Harness, create_user};
use crate::http::pacing::{Pacer, Shares};
use crate::store::{UserRow, Who};
use okta_auth0_sync_sandbox::{Fault, Limit, Limits};

const SHARES: Shares = Shares { ours: 1.0, reconcile: 1.0 };
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

impl Harness {
    fn user_called(&self, login: &str, email: &str) -> OktaUserId {
        create_user(self.okta(), login, email)
    }

    /// Looks at all due users until the queue is empty, and returns them in order.
    async fn looks(&self) -> Vec<OktaUserId> {
        self.settle().await.into_iter().map(|report| report.user).collect()
    }

    /// Queues the user as a reconcile does, and looks.
    async fn reconcile_look(&self, who: &OktaUserId) -> Vec<OktaUserId> {
        self.engine().store.queue_for_reconcile(std::slice::from_ref(who), self.engine().now()).await.unwrap();
        self.looks().await
    }

    async fn row(&self, who: &OktaUserId) -> UserRow {
        self.engine().store.find_users(who.as_str()).await.unwrap().remove(0)
    }

    async fn outcome(&self, who: &OktaUserId) -> String {
        let row = self.row(who).await;
        [row.outcome.map(|outcome| outcome.as_str().to_owned()), row.why]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(": ")
    }

    async fn decisions(&self, who: &OktaUserId) -> Vec<crate::store::DecisionRow> {
        self.engine().store.decisions(Some(who), None, 0, 100).await.unwrap()
    }

    /// When and how the last deactivation was settled.
    async fn deactivation(&self, who: &OktaUserId) -> (Option<String>, String) {
        let events = self.engine().store.events_of(who, 10).await.unwrap();
        let left = events.into_iter().find(|event| event.event_type == "user.lifecycle.deactivate").unwrap();
        (left.settled_at, left.outcome)
    }

    /// The user that the account is denied for.
    fn denied_for(&self, account: &str) -> Value {
        self.auth0().user(account).unwrap()["app_metadata"]["okta_sync"]["okta_user_id"].clone()
    }

    /// Was the applier woken since the last check?
    fn is_applier_woken(&self) -> bool {
        let woken = std::pin::pin!(self.engine().wakes.apply.notified());
        matches!(woken.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
    }

    /// Two users with one address and its account. The first has left and is skipped because of the second.
    async fn skipped_sharer(&self) -> (OktaUserId, OktaUserId, String) {
        let (ann, bob) = (self.user_called("ann", "team@example.com"), self.user_called("bob", "TEAM@example.com"));
        let account = self.account("team@example.com");
        self.sync().await;
        // Long enough that the activation does not contradict the deactivation, and for the later looks.
        self.passes(DAY).await;
        self.okta().deactivate(&ann);
        self.sync().await;
        self.passes(DAY).await;
        self.settle().await;
        assert_eq!(self.outcome(&ann).await, format!("skipped: shared_address: {bob}"));
        (ann, bob, account)
    }
}

#[tokio::test]
async fn returned_then_deleted_user_is_denied() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.user_called("ann", "ann@example.com");
    let account = harness.account("ann@example.com");
    harness.sync().await;
    harness.okta().deactivate(&ann);
    harness.passes(60 * SECOND).await;
    harness.okta().activate(&ann);
    harness.poll().await;
    // The events of the deletion are on a page that is not polled yet: the newest evidence is the return.
    harness.okta().delete(&ann);
    harness.reconcile_look(&ann).await;
    assert_eq!(harness.outcome(&ann).await, "held: vanished");
    harness.poll().await;
    let engine = harness.engine();
    let (okta_pacer, auth0_pacer) = (Pacer::okta(SHARES), Pacer::auth0(SHARES));
    let inspector = Inspector {
        okta: (&engine.okta, &okta_pacer),
        auth0: (&engine.auth0, &auth0_pacer),
        rules: &engine.options.rules,
        search: true,
        clock: engine.clock.as_ref(),
    };
    // `user --live` once ignored the log.
    let before = inspector.inspect(&engine.store, &ann).await.unwrap();
    assert_eq!((before.status, before.verdict), (Some(Status::Deleted), Verdict::Deny));
    assert!(before.accounts[0].wrong, "a look would deny it");
    harness.settle().await;
    let after = inspector.inspect(&engine.store, &ann).await.unwrap();
    assert!(!after.accounts[0].wrong && after.accounts[0].believed);
    assert_eq!(harness.row(&ann).await.status.as_deref(), Some("DELETED"));
    assert_eq!(harness.denied_for(&account), ann.as_str());
}

#[tokio::test]
async fn restored_mark_is_not_attributed_to_the_event() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.user_called("ann", "ann@example.com");
    let account = harness.account("ann@example.com");
    harness.okta().deactivate(&ann);
    harness.sync().await;
    harness.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    harness.reconcile_look(&ann).await;
    let decisions = harness.decisions(&ann).await;
    let seen: Vec<_> = decisions
        .iter()
        .map(|row| (row.outcome.as_str(), row.cause.as_str(), row.actor.as_deref(), row.event_id.is_some()))
        .collect();
    let actor = decisions[0].actor.as_deref();
    assert_eq!(seen, [("applied", "event", actor, true), ("restored", "sweep", Some("sweep"), false)]);
}

#[tokio::test]
async fn guard_raises_one_alarm_without_names() {
    let harness = Harness::with(|options| options.guard.denials_max = 0.into()).await;
    let logs = CapturedLogs::new();
    let users = ["ann", "bob"].map(|name| {
        let address = format!("{name}@example.com");
        harness.account(&address);
        harness.user_called(name, &address)
    });
    users.iter().for_each(|who| harness.okta().deactivate(who));
    harness.sync().await;
    let alarms = harness.engine().store.open_alarms().await.unwrap();
    assert_eq!(alarms.iter().map(|alarm| alarm.kind.as_str()).collect::<Vec<_>>(), ["guard"]);
    assert!(alarms[0].detail.contains("max_denials"), "{alarms:?}");
    for who in &users {
        assert_eq!(harness.outcome(who).await, "held: guard");
        assert!(!alarms[0].detail.contains(who.as_str()), "{alarms:?}");
    }
    assert_eq!((logs.count("held"), logs.count("alarm")), (2, 1));
}

#[tokio::test]
async fn look_logs_one_line_without_addresses() {
    let exempt = "eve@example.com";
    let harness = Harness::with(|options| {
        options.rules.policy.exempt = [exempt.to_owned()].into();
        options.max_attempts = 2;
    })
    .await;
    let logs = CapturedLogs::new();
    let ann = harness.user_called("ann", "ann@example.com");
    harness.account("ann@example.com");
    let eve = harness.user_called("eve", exempt);
    harness.sync().await;
    assert_eq!(logs.text().matches(ann.as_str()).count(), 0, "an active user is not logged: {}", logs.text());
    harness.okta().deactivate(&ann);
    harness.okta().deactivate(&eve);
    harness.sync().await;
    assert_eq!((logs.count("applied"), logs.count("skipped"), logs.count("alarm")), (1, 1, 1), "{}", logs.text());

    // Okta no longer finds the user, but the log does not say that they left.
    let gil = harness.user_called("gil", "gil@example.com");
    harness.sync().await;
    harness.okta().hide(&gil);
    harness.reconcile_look(&gil).await;
    assert_eq!(harness.outcome(&gil).await, "held: vanished");
    // Okta fails to return the user.
    let fay = harness.user_called("fay", "fay@example.com");
    harness.okta().faults().add(Fault::status("GET", &format!("/api/v1/users/{fay}"), 500));
    harness.sync().await;
    harness.passes(DAY / 2).await;
    harness.settle().await;
    assert!(harness.outcome(&fay).await.starts_with("failed"));
    let counts = ["held", "retry", "failed"].map(|event| logs.count(event));
    assert_eq!(counts, [1, 1, 1], "{}", logs.text());
    assert_eq!(logs.count("alarm"), 1, "those alarms have their own log line: {}", logs.text());
    assert!(!logs.text().contains("@example.com"), "{}", logs.text());
}

#[tokio::test]
async fn each_look_but_a_snooze_records_a_decision() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.user_called("ann", "ann@example.com");
    harness.poll().await;
    harness.okta().revoke_token();
    let outcomes = async || harness.decisions(&ann).await.into_iter().map(|row| row.outcome).collect::<Vec<_>>();
    harness.engine().look_at(std::slice::from_ref(&ann)).await.unwrap();
    assert_eq!(harness.row(&ann).await.outcome.map(|outcome| outcome.as_str()), Some("snooze"));
    assert_eq!(outcomes().await, Vec::<String>::new(), "nothing was decided");
    harness.okta().restore_token();
    harness.passes(120 * SECOND).await;
    harness.settle().await;
    assert_eq!(outcomes().await, ["unchanged"]);
    harness.okta().deactivate(&ann);
    harness.sync().await;
    assert_eq!(outcomes().await, ["unchanged", "no_account"]);
}

#[tokio::test]
async fn unchanged_recheck_keeps_event_outcome() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.user_called("ann", "ann@example.com");
    harness.account("ann@example.com");
    harness.sync().await;
    harness.passes(DAY).await;
    harness.okta().deactivate(&ann);
    // Okta is still in transition, so the look is repeated.
    harness.okta().set_status(&ann, "ACTIVE", Some("DEPROVISIONED"));
    harness.sync().await;
    let dealt_with = harness.deactivation(&ann).await;
    assert_eq!(dealt_with.1, "applied");
    harness.passes(5 * SECOND).await;
    assert_eq!(harness.looks().await, std::slice::from_ref(&ann));
    assert_eq!(harness.row(&ann).await.cause, "recheck");
    assert_eq!(harness.outcome(&ann).await, "unchanged");
    assert_eq!(harness.deactivation(&ann).await, dealt_with);
}

#[tokio::test]
async fn skipped_sharer_is_requeued_when_holder_leaves() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob, account) = harness.skipped_sharer().await;
    harness.okta().deactivate(&bob);
    harness.poll().await;
    let path = format!("/api/v2/users/{}", account.replace('|', "%7C"));
    harness.auth0().faults().add(Fault::status("PATCH", &path, 500).times(1));
    harness.is_applier_woken();
    assert_eq!(harness.looks().await, [bob.clone(), ann.clone()]);
    assert!(harness.outcome(&bob).await.starts_with("retry"));
    assert_eq!(harness.denied_for(&account), ann.as_str());
    assert!(harness.is_applier_woken(), "or reconcile looks fetched ahead would go first");
}

#[tokio::test]
async fn skipped_sharer_is_denied_when_holder_moves() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob, account) = harness.skipped_sharer().await;
    // The log has no event for it.
    harness.okta().change_profile(&bob, "bob", "bob@example.com");
    assert_eq!(harness.reconcile_look(&bob).await, [bob.clone(), ann.clone()]);
    assert_eq!(harness.outcome(&bob).await, "unchanged");
    assert_eq!(harness.denied_for(&account), ann.as_str());
}

#[tokio::test]
async fn returning_holder_of_denied_account_is_held() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob, account) = harness.skipped_sharer().await;
    harness.okta().deactivate(&bob);
    // Bob was read a moment ago.
    harness.passes(60 * SECOND).await;
    harness.engine().look_at(std::slice::from_ref(&ann)).await.unwrap();
    assert_eq!(harness.denied_for(&account), ann.as_str());
    harness.okta().activate(&bob);
    // The next look finds Bob's status unchanged.
    harness.sync().await;
    assert_eq!(harness.outcome(&bob).await, "unchanged");
    assert_eq!(harness.outcome(&ann).await, format!("held: address_reused: {bob}"));
}

#[tokio::test]
async fn unchanged_look_queues_dependants_only() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob, _) = harness.skipped_sharer().await;
    let carl = harness.user_called("carl", "Team@Example.com");
    harness.sync().await;
    harness.passes(DAY).await;
    harness.settle().await;
    harness.is_applier_woken();
    // Ann depends on Bob, no user depends on Carl, and an unchanged look queues no further user.
    assert_eq!(harness.reconcile_look(&carl).await, std::slice::from_ref(&carl));
    assert!(!harness.is_applier_woken());
    assert_eq!(harness.reconcile_look(&bob).await, [bob.clone(), ann.clone()]);
    // A reactivation queues all users who share the address; Bob's look after it does not queue Ann again.
    harness.okta().suspend(&carl);
    harness.sync().await;
    harness.okta().unsuspend(&carl);
    harness.poll().await;
    harness.engine().look_at(&[carl, ann, bob]).await.unwrap();
    assert_eq!(harness.looks().await, []);
}

#[tokio::test]
async fn reason_during_look_wakes_applier() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.user_called("ann", "ann@example.com");
    harness.sync().await;
    harness.is_applier_woken();
    let engine = harness.engine();
    let look = async |reason: bool| {
        let start = engine.store.begin_look(&ann, engine.now()).await.unwrap();
        let claim = engine.claims.claim(&start.id, &start.addresses).unwrap();
        if reason {
            engine.store.request_look(Who::User(&ann), engine.now()).await.unwrap();
        }
        engine.look(&start, claim).await.unwrap();
        harness.is_applier_woken()
    };
    assert!(look(true).await);
    assert!(!look(false).await, "no work is left");
}

#[tokio::test]
async fn reconcile_keeps_to_its_share_of_the_limits() {
    for (reconciles, waits) in [(false, false), (true, true)] {
        let harness = Harness::with(|_| ()).await;
        let user = Limit::per_minute(20);
        harness.okta().set_limits(Limits { user, ..Limits::unlimited() });
        let users: Vec<_> =
            (0..12).map(|number| harness.user_called(&format!("p{number}"), "list@example.com")).collect();
        let (store, began) = (&harness.engine().store, harness.engine().clock.monotonic());
        for who in &users {
            if reconciles {
                store.queue_for_reconcile(std::slice::from_ref(who), harness.engine().now()).await.unwrap();
            } else {
                store.request_look(Who::User(who), harness.engine().now()).await.unwrap();
            }
        }
        harness.engine().look_at(&users).await.unwrap();
        let took = harness.engine().clock.monotonic() - began;
        assert_eq!(took > 30 * SECOND, waits, "{took:?}");
    }
}

#[tokio::test]
async fn any_departing_holder_requeues_skipped_users() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.user_called("ann@example.com", "team@example.com");
    let accounts = [harness.account("ann@example.com"), harness.account("team@example.com")];
    let others = [harness.user_called("bob", "ann@example.com"), harness.user_called("carl", "team@example.com")];
    harness.sync().await;
    harness.passes(DAY).await;
    harness.okta().deactivate(&ann);
    harness.sync().await;
    assert_eq!(
        harness.outcome(&ann).await,
        format!("skipped: shared_address: {}", others[0]),
        "reports the first holder"
    );
    harness.passes(DAY).await;
    harness.settle().await;
    for (other, account) in others.iter().zip(&accounts) {
        assert_eq!(harness.denied_for(account), Value::Null);
        harness.okta().suspend(other);
        harness.sync().await;
        assert_eq!(harness.denied_for(account), ann.as_str(), "no active user holds its address any more");
    }
}
