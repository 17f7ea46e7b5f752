//! What a look leaves behind: the evidence, who is looked at because of it, and what an operator is told.

use std::future::Future;
use std::task::{Context, Poll, Waker};

use serde_json::{Value, json};

use super::*;
use crate::engine::inspect::Inspector;
use crate::engine::stage::{Heard, House, create_user};
use crate::http::pacing::{Pacer, Shares};
use crate::store::{UserRow, Who};
use okta_auth0_sync_sandbox::{Fault, Limit, Limits};

const SHARES: Shares = Shares { ours: 1.0, sweeps: 1.0 };
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

impl House {
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
async fn who_left_came_back_and_is_gone_before_they_were_looked_at_is_denied_and_not_held() {
    let house = House::with(|_| ()).await;
    let ann = house.person_called("ann", "ann@example.com");
    let account = house.account("ann@example.com");
    house.sync().await;
    house.okta().deactivate(&ann);
    house.passes(60 * SECOND).await;
    house.okta().activate(&ann);
    house.poll().await;
    // The entries that tell of it come with a page that is not read yet.
    house.okta().delete(&ann);
    let engine = house.engine();
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
    house.settle().await;
    let after = inspector.inspect(&engine.store, &ann).await.unwrap();
    assert!(!after.accounts[0].wrong && after.accounts[0].believed);
    assert_eq!(house.row(&ann).await.status.as_deref(), Some("DELETED"));
    assert_eq!(house.denied_for(&account), ann.as_str());
}

#[tokio::test]
async fn a_mark_that_a_comparison_restores_is_not_put_down_to_the_deactivation_before() {
    let house = House::with(|_| ()).await;
    let ann = house.person_called("ann", "ann@example.com");
    let account = house.account("ann@example.com");
    house.okta().deactivate(&ann);
    house.sync().await;
    house.auth0().set_user(&account, |user| user["app_metadata"] = json!({}));
    house.sweep(&ann).await;
    let decisions = house.decisions(&ann).await;
    let told: Vec<_> = decisions
        .iter()
        .map(|row| (row.outcome.as_str(), row.cause.as_str(), row.actor.as_deref(), row.event_id.is_some()))
        .collect();
    let somebody = decisions[0].actor.as_deref();
    assert_eq!(told, [("applied", "event", somebody, true), ("restored", "sweep", Some("sweep"), false)]);
}

#[tokio::test]
async fn what_is_held_by_the_guard_is_one_alarm_that_names_nobody() {
    let house = House::with(|options| options.guard.denials_max = 0).await;
    let heard = Heard::new();
    let people = ["ann", "bob"].map(|name| {
        let address = format!("{name}@example.com");
        house.account(&address);
        house.person_called(name, &address)
    });
    people.iter().for_each(|who| house.okta().deactivate(who));
    house.sync().await;
    let alarms = house.engine().store.open_alarms().await.unwrap();
    assert_eq!(alarms.iter().map(|alarm| alarm.kind.as_str()).collect::<Vec<_>>(), ["guard"]);
    assert!(alarms[0].detail.contains("max_denials"), "{alarms:?}");
    for who in &people {
        assert_eq!(house.outcome(who).await, "held: guard");
        assert!(!alarms[0].detail.contains(who.as_str()), "{alarms:?}");
    }
    assert_eq!((heard.count("held"), heard.count("alarm")), (2, 1));
}

#[tokio::test]
async fn a_look_leaves_one_line_that_is_as_loud_as_it_is_important_and_no_address() {
    let exempt = "eve@example.com";
    let house = House::with(|options| {
        options.rules.policy.exempt = [exempt.to_owned()].into();
        options.max_attempts = 2;
    })
    .await;
    let heard = Heard::new();
    let ann = house.person_called("ann", "ann@example.com");
    house.account("ann@example.com");
    let eve = house.person_called("eve", exempt);
    house.sync().await;
    assert_eq!(heard.text().matches(ann.as_str()).count(), 0, "nothing to tell of who stays: {}", heard.text());
    house.okta().deactivate(&ann);
    house.okta().deactivate(&eve);
    house.sync().await;
    assert_eq!((heard.count("applied"), heard.count("skipped"), heard.count("alarm")), (1, 1, 1), "{}", heard.text());

    // Who cannot be found any more, though nothing says that they left.
    let gil = house.person_called("gil", "gil@example.com");
    house.sync().await;
    house.okta().hide(&gil);
    house.sweep(&gil).await;
    assert_eq!(house.outcome(&gil).await, "held: vanished");
    // Who cannot be asked for.
    let fay = house.person_called("fay", "fay@example.com");
    house.okta().faults().add(Fault::status("GET", &format!("/api/v1/users/{fay}"), 500));
    house.sync().await;
    house.passes(DAY / 2).await;
    house.settle().await;
    assert!(house.outcome(&fay).await.starts_with("failed"));
    let told = ["held", "retry", "failed"].map(|event| heard.count(event));
    assert_eq!(told, [1, 1, 1], "{}", heard.text());
    assert_eq!(heard.count("alarm"), 1, "those have a line of their own: {}", heard.text());
    assert!(!heard.text().contains("@example.com"), "{}", heard.text());
}

#[tokio::test]
async fn every_look_leaves_a_row_of_evidence_unless_it_could_not_be_tried() {
    let house = House::with(|_| ()).await;
    let ann = house.person_called("ann", "ann@example.com");
    house.poll().await;
    house.okta().revoke_token();
    let outcomes = async || house.decisions(&ann).await.into_iter().map(|row| row.outcome).collect::<Vec<_>>();
    house.engine().look_at(std::slice::from_ref(&ann)).await.unwrap();
    assert_eq!(house.row(&ann).await.outcome.map(|outcome| outcome.as_str()), Some("snooze"));
    assert_eq!(outcomes().await, Vec::<String>::new(), "nothing was decided");
    house.okta().restore_token();
    house.passes(120 * SECOND).await;
    house.settle().await;
    assert_eq!(outcomes().await, ["unchanged"]);
    house.okta().deactivate(&ann);
    house.sync().await;
    assert_eq!(outcomes().await, ["unchanged", "no_account"]);
}

#[tokio::test]
async fn a_later_look_that_changes_nothing_leaves_the_event_as_it_was_dealt_with() {
    let house = House::with(|_| ()).await;
    let ann = house.person_called("ann", "ann@example.com");
    house.account("ann@example.com");
    house.sync().await;
    house.passes(DAY).await;
    house.okta().deactivate(&ann);
    // Okta says where she is going, not where she is: so she is looked at again.
    house.okta().set_status(&ann, "ACTIVE", Some("DEPROVISIONED"));
    house.sync().await;
    let dealt_with = house.deactivation(&ann).await;
    assert_eq!(dealt_with.1, "applied");
    house.passes(5 * SECOND).await;
    assert_eq!(house.looks().await, std::slice::from_ref(&ann));
    assert_eq!(house.row(&ann).await.cause, "recheck");
    assert_eq!(house.outcome(&ann).await, "unchanged");
    assert_eq!(house.deactivation(&ann).await, dealt_with);
}

#[tokio::test]
async fn who_was_spared_for_a_colleague_is_denied_at_once_when_the_colleague_left_whatever_becomes_of_their_look() {
    let house = House::with(|_| ()).await;
    let (ann, bob, account) = house.spared().await;
    house.okta().deactivate(&bob);
    house.poll().await;
    let path = format!("/api/v2/users/{}", account.replace('|', "%7C"));
    house.auth0().faults().add(Fault::status("PATCH", &path, 500).times(1));
    house.is_applier_woken();
    assert_eq!(house.looks().await, [bob.clone(), ann.clone()]);
    assert!(house.outcome(&bob).await.starts_with("retry"));
    assert_eq!(house.denied_for(&account), ann.as_str());
    assert!(house.is_applier_woken(), "else sweeps that were fetched ahead would go first");
}

#[tokio::test]
async fn who_was_spared_for_a_colleague_is_denied_when_a_look_finds_that_the_colleague_goes_by_another_address() {
    let house = House::with(|_| ()).await;
    let (ann, bob, account) = house.spared().await;
    // The log does not tell of it.
    house.okta().change_profile(&bob, "bob", "bob@example.com");
    assert_eq!(house.sweep(&bob).await, [bob.clone(), ann.clone()]);
    assert_eq!(house.outcome(&bob).await, "unchanged");
    assert_eq!(house.denied_for(&account), ann.as_str());
}

#[tokio::test]
async fn a_colleague_who_was_away_for_a_moment_is_let_in_by_a_person_if_the_account_was_denied_just_then() {
    let house = House::with(|_| ()).await;
    let (ann, bob, account) = house.spared().await;
    house.okta().deactivate(&bob);
    house.engine().look_at(std::slice::from_ref(&ann)).await.unwrap();
    assert_eq!(house.denied_for(&account), ann.as_str());
    house.okta().activate(&bob);
    // The first look at Bob since then finds him as the last one did.
    house.sync().await;
    assert_eq!(house.outcome(&bob).await, "unchanged");
    assert_eq!(house.outcome(&ann).await, format!("held: address_reused: {bob}"));
}

#[tokio::test]
async fn a_look_that_finds_no_news_wakes_only_those_who_wait_for_this_person() {
    let house = House::with(|_| ()).await;
    let (ann, bob, _) = house.spared().await;
    let carl = house.person_called("carl", "Team@Example.com");
    house.sync().await;
    house.passes(DAY).await;
    house.settle().await;
    house.is_applier_woken();
    // Ann waits for Bob, nobody for Carl; and what they find wakes nobody again.
    assert_eq!(house.sweep(&carl).await, std::slice::from_ref(&carl));
    assert!(!house.is_applier_woken());
    assert_eq!(house.sweep(&bob).await, [bob.clone(), ann.clone()]);
    // Who comes back is news to everybody who shares the address, and what Bob's look finds then is none to Ann.
    house.okta().suspend(&carl);
    house.sync().await;
    house.okta().unsuspend(&carl);
    house.poll().await;
    house.engine().look_at(&[carl, ann, bob]).await.unwrap();
    assert_eq!(house.looks().await, []);
}

#[tokio::test]
async fn a_reason_that_arrives_during_a_look_wakes_the_applier_when_it_is_over() {
    let house = House::with(|_| ()).await;
    let ann = house.person_called("ann", "ann@example.com");
    house.sync().await;
    house.is_applier_woken();
    let engine = house.engine();
    let look = async |reason: bool| {
        let start = engine.store.begin_look(&ann, engine.now()).await.unwrap();
        let claim = engine.claims.claim(&start.id, &start.addresses).unwrap();
        if reason {
            engine.store.request_look(Who::User(&ann), engine.now()).await.unwrap();
        }
        engine.look(&start, claim).await.unwrap();
        house.is_applier_woken()
    };
    assert!(look(true).await);
    assert!(!look(false).await, "there is nothing more to do");
}

#[tokio::test]
async fn a_comparison_leaves_to_others_what_is_not_its_share_of_the_limits() {
    for (sweeps, waits) in [(false, false), (true, true)] {
        let house = House::with(|_| ()).await;
        let user = Limit::per_minute(20);
        house.okta().set_limits(Limits { user, ..Limits::unlimited() });
        let people: Vec<_> =
            (0..12).map(|number| house.person_called(&format!("p{number}"), "list@example.com")).collect();
        let (store, began) = (&house.engine().store, house.engine().clock.monotonic());
        for who in &people {
            if sweeps {
                store.queue_for_reconcile(std::slice::from_ref(who), house.engine().now()).await.unwrap();
            } else {
                store.request_look(Who::User(who), house.engine().now()).await.unwrap();
            }
        }
        house.engine().look_at(&people).await.unwrap();
        let took = house.engine().clock.monotonic() - began;
        assert_eq!(took > 30 * SECOND, waits, "{took:?}");
    }
}

#[tokio::test]
async fn of_several_colleagues_for_whom_somebody_is_spared_each_is_missed_when_they_go() {
    let house = House::with(|_| ()).await;
    let ann = house.person_called("ann@example.com", "team@example.com");
    let accounts = [house.account("ann@example.com"), house.account("team@example.com")];
    let others = [house.person_called("bob", "ann@example.com"), house.person_called("carl", "team@example.com")];
    house.sync().await;
    house.passes(DAY).await;
    house.okta().deactivate(&ann);
    house.sync().await;
    assert_eq!(house.outcome(&ann).await, format!("skipped: shared_address: {}", others[0]), "the first one is told");
    house.passes(DAY).await;
    house.settle().await;
    for (other, account) in others.iter().zip(&accounts) {
        assert_eq!(house.denied_for(account), Value::Null);
        house.okta().suspend(other);
        house.sync().await;
        assert_eq!(house.denied_for(account), ann.as_str(), "nobody who is to be let in holds its address any more");
    }
}
