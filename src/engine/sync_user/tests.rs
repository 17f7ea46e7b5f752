//! What a look leaves behind: the evidence, who is looked at because of it, and what an operator is told.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};

use super::*;
use crate::engine::inspect::Inspector;
use crate::engine::stage::{CapturedLogs, Harness, create_user};
use crate::http::pacing::{Pacer, Shares};
use crate::store::{UserRow, Who};
use okta_auth0_sync_sandbox::{Fault, Limit, Limits};

const SHARES: Shares = Shares { ours: 1.0, sweeps: 1.0 };
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

impl Harness {
    fn person_called(&self, login: &str, email: &str) -> OktaUserId {
        create_user(self.okta(), login, email)
    }

    /// Looks at whoever is due now, until nobody is; answers who was looked at, in order.
    async fn looks(&self) -> Vec<OktaUserId> {
        self.settle().await.into_iter().map(|report| report.user).collect()
    }

    /// A comparison comes to this person.
    async fn sweep(&self, who: &OktaUserId) -> Vec<OktaUserId> {
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

    /// When the last deactivation was dealt with, and how.
    async fn deactivation(&self, who: &OktaUserId) -> (Option<String>, String) {
        let events = self.engine().store.events_of(who, 10).await.unwrap();
        let left = events.into_iter().find(|event| event.event_type == "user.lifecycle.deactivate").unwrap();
        (left.settled_at, left.outcome)
    }

    /// Whom the account is denied for.
    fn denied_for(&self, account: &str) -> Value {
        self.auth0().user(account).unwrap()["app_metadata"]["okta_sync"]["okta_user_id"].clone()
    }

    /// Was the applier woken since it was last asked?
    fn is_applier_woken(&self) -> bool {
        let woken = std::pin::pin!(self.engine().wakes.apply.notified());
        matches!(woken.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
    }

    /// Two with one address and its account, the first of whom has left: spared for the second.
    async fn spared(&self) -> (OktaUserId, OktaUserId, String) {
        let (ann, bob) = (self.person_called("ann", "team@example.com"), self.person_called("bob", "TEAM@example.com"));
        let account = self.account("team@example.com");
        self.sync().await;
        // Long enough for their activation not to speak against what comes, and for the later looks.
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
    let ann = harness.person_called("ann", "ann@example.com");
    let account = harness.account("ann@example.com");
    harness.sync().await;
    harness.okta().deactivate(&ann);
    harness.passes(60 * SECOND).await;
    harness.okta().activate(&ann);
    harness.poll().await;
    // The entries that tell of it come with a page that is not read yet.
    harness.okta().delete(&ann);
    let engine = harness.engine();
    let (okta_pacer, auth0_pacer) = (Pacer::okta(SHARES), Pacer::auth0(SHARES));
    let inspector = Inspector {
        okta: (&engine.okta, &okta_pacer),
        auth0: (&engine.auth0, &auth0_pacer),
        rules: &engine.options.rules,
        search: true,
        clock: engine.clock.as_ref(),
    };
    // `user --live` once knew only what Okta had said, not the log.
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
    let ann = harness.person_called("ann", "ann@example.com");
    let account = harness.account("ann@example.com");
    harness.okta().deactivate(&ann);
    harness.sync().await;
    harness.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    harness.sweep(&ann).await;
    let decisions = harness.decisions(&ann).await;
    let told: Vec<_> = decisions
        .iter()
        .map(|row| (row.outcome.as_str(), row.cause.as_str(), row.actor.as_deref(), row.event_id.is_some()))
        .collect();
    let somebody = decisions[0].actor.as_deref();
    assert_eq!(told, [("applied", "event", somebody, true), ("restored", "sweep", Some("sweep"), false)]);
}

#[tokio::test]
async fn guard_raises_one_alarm_without_names() {
    let harness = Harness::with(|options| options.guard.denials_max = 0).await;
    let logs = CapturedLogs::new();
    let people = ["ann", "bob"].map(|name| {
        let address = format!("{name}@example.com");
        harness.account(&address);
        harness.person_called(name, &address)
    });
    people.iter().for_each(|who| harness.okta().deactivate(who));
    harness.sync().await;
    let alarms = harness.engine().store.open_alarms().await.unwrap();
    assert_eq!(alarms.iter().map(|alarm| alarm.kind.as_str()).collect::<Vec<_>>(), ["guard"]);
    assert!(alarms[0].detail.contains("max_denials"), "{alarms:?}");
    for who in &people {
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
    let ann = harness.person_called("ann", "ann@example.com");
    harness.account("ann@example.com");
    let eve = harness.person_called("eve", exempt);
    harness.sync().await;
    assert_eq!(logs.text().matches(ann.as_str()).count(), 0, "nothing to tell of who stays: {}", logs.text());
    harness.okta().deactivate(&ann);
    harness.okta().deactivate(&eve);
    harness.sync().await;
    assert_eq!((logs.count("applied"), logs.count("skipped"), logs.count("alarm")), (1, 1, 1), "{}", logs.text());

    // Who cannot be found any more, though nothing says that they left.
    let gil = harness.person_called("gil", "gil@example.com");
    harness.sync().await;
    harness.okta().hide(&gil);
    harness.sweep(&gil).await;
    assert_eq!(harness.outcome(&gil).await, "held: vanished");
    // Who cannot be asked for.
    let fay = harness.person_called("fay", "fay@example.com");
    harness.okta().faults().add(Fault::status("GET", &format!("/api/v1/users/{fay}"), 500));
    harness.sync().await;
    harness.passes(DAY / 2).await;
    harness.settle().await;
    assert!(harness.outcome(&fay).await.starts_with("failed"));
    let told = ["held", "retry", "failed"].map(|event| logs.count(event));
    assert_eq!(told, [1, 1, 1], "{}", logs.text());
    assert_eq!(logs.count("alarm"), 1, "those have a line of their own: {}", logs.text());
    assert!(!logs.text().contains("@example.com"), "{}", logs.text());
}

#[tokio::test]
async fn each_look_but_a_snooze_records_a_decision() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.person_called("ann", "ann@example.com");
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
    let ann = harness.person_called("ann", "ann@example.com");
    harness.account("ann@example.com");
    harness.sync().await;
    harness.passes(DAY).await;
    harness.okta().deactivate(&ann);
    // Okta says where she is going, not where she is: so she is looked at again.
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
    let (ann, bob, account) = harness.spared().await;
    harness.okta().deactivate(&bob);
    harness.poll().await;
    let path = format!("/api/v2/users/{}", account.replace('|', "%7C"));
    harness.auth0().faults().add(Fault::status("PATCH", &path, 500).times(1));
    harness.is_applier_woken();
    assert_eq!(harness.looks().await, [bob.clone(), ann.clone()]);
    assert!(harness.outcome(&bob).await.starts_with("retry"));
    assert_eq!(harness.denied_for(&account), ann.as_str());
    assert!(harness.is_applier_woken(), "else sweeps that were fetched ahead would go first");
}

#[tokio::test]
async fn skipped_sharer_is_denied_when_holder_moves() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob, account) = harness.spared().await;
    // The log does not tell of it.
    harness.okta().change_profile(&bob, "bob", "bob@example.com");
    assert_eq!(harness.sweep(&bob).await, [bob.clone(), ann.clone()]);
    assert_eq!(harness.outcome(&bob).await, "unchanged");
    assert_eq!(harness.denied_for(&account), ann.as_str());
}

#[tokio::test]
async fn returning_holder_of_denied_account_is_held() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob, account) = harness.spared().await;
    harness.okta().deactivate(&bob);
    harness.engine().look_at(std::slice::from_ref(&ann)).await.unwrap();
    assert_eq!(harness.denied_for(&account), ann.as_str());
    harness.okta().activate(&bob);
    // The first look at Bob since then finds him as the last one did.
    harness.sync().await;
    assert_eq!(harness.outcome(&bob).await, "unchanged");
    assert_eq!(harness.outcome(&ann).await, format!("held: address_reused: {bob}"));
}

#[tokio::test]
async fn unchanged_look_queues_dependants_only() {
    let harness = Harness::with(|_| ()).await;
    let (ann, bob, _) = harness.spared().await;
    let carl = harness.person_called("carl", "Team@Example.com");
    harness.sync().await;
    harness.passes(DAY).await;
    harness.settle().await;
    harness.is_applier_woken();
    // Ann waits for Bob, nobody for Carl; and what they find wakes nobody again.
    assert_eq!(harness.sweep(&carl).await, std::slice::from_ref(&carl));
    assert!(!harness.is_applier_woken());
    assert_eq!(harness.sweep(&bob).await, [bob.clone(), ann.clone()]);
    // Who comes back is news to everybody who shares the address, and what Bob's look finds then is none to Ann.
    harness.okta().suspend(&carl);
    harness.sync().await;
    harness.okta().unsuspend(&carl);
    harness.poll().await;
    harness.engine().look_at(&[carl, ann, bob]).await.unwrap();
    assert_eq!(harness.looks().await, []);
}

#[tokio::test]
async fn reason_during_look_wakes_applier_after() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.person_called("ann", "ann@example.com");
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
    assert!(!look(false).await, "there is nothing more to do");
}

#[tokio::test]
async fn reconcile_keeps_to_its_share_of_the_limits() {
    for (sweeps, waits) in [(false, false), (true, true)] {
        let harness = Harness::with(|_| ()).await;
        let user = Limit::per_minute(20);
        harness.okta().set_limits(Limits { user, ..Limits::unlimited() });
        let people: Vec<_> =
            (0..12).map(|number| harness.person_called(&format!("p{number}"), "list@example.com")).collect();
        let (store, began) = (&harness.engine().store, harness.engine().clock.monotonic());
        for who in &people {
            if sweeps {
                store.queue_for_reconcile(std::slice::from_ref(who), harness.engine().now()).await.unwrap();
            } else {
                store.request_look(Who::User(who), harness.engine().now()).await.unwrap();
            }
        }
        harness.engine().look_at(&people).await.unwrap();
        let took = harness.engine().clock.monotonic() - began;
        assert_eq!(took > 30 * SECOND, waits, "{took:?}");
    }
}

#[tokio::test]
async fn any_departing_holder_requeues_skipped_users() {
    let harness = Harness::with(|_| ()).await;
    let ann = harness.person_called("ann@example.com", "team@example.com");
    let accounts = [harness.account("ann@example.com"), harness.account("team@example.com")];
    let others = [harness.person_called("bob", "ann@example.com"), harness.person_called("carl", "team@example.com")];
    harness.sync().await;
    harness.passes(DAY).await;
    harness.okta().deactivate(&ann);
    harness.sync().await;
    assert_eq!(harness.outcome(&ann).await, format!("skipped: shared_address: {}", others[0]), "the first one is told");
    harness.passes(DAY).await;
    harness.settle().await;
    for (other, account) in others.iter().zip(&accounts) {
        assert_eq!(harness.denied_for(account), Value::Null);
        harness.okta().suspend(other);
        harness.sync().await;
        assert_eq!(harness.denied_for(account), ann.as_str(), "nobody who is to be let in holds its address any more");
    }
}
