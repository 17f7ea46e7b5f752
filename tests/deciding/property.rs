//! Random histories through the whole pipe, from the log to Auth0; at their end all must be as the model says.
//!
//! A history is its seed: `OKTA_AUTH0_SYNC_SEED=… cargo test --test deciding any_history` tells it again, step by step.
//! Without it the same hundred are told each time, so that a change is judged by what it changed.
//! `OKTA_AUTH0_SYNC_HISTORIES=…` tells so many others, from a seed of the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use okta_auth0_sync::domain::{Clock, OktaUserId};
use okta_auth0_sync::engine::poller::PassError;
use okta_auth0_sync::engine::reconciler::Scope;
use okta_auth0_sync::sandbox::{Effect, Fault, NewUser, RateLimited};
use okta_auth0_sync::store::Who;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::model::{self, Person};
use super::world::{DAY, HOUR, MINUTE, SECOND, World};

const FIRST_SEED: u64 = 20_261_123;
const HISTORIES: u64 = 100;
const STEPS: std::ops::Range<usize> = 10..45;

#[tokio::test]
async fn any_history_ends_as_the_model_says() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("OKTA_AUTH0_SYNC_SEED") {
        History::new(seed, true).await.run().await;
        return;
    }
    let (first, wanted) = match number("OKTA_AUTH0_SYNC_HISTORIES") {
        Some(wanted) => (fastrand::u64(..u64::MAX / 2), wanted),
        None => (FIRST_SEED, HISTORIES),
    };
    for told in 0..wanted {
        History::new(first + told, false).await.run().await;
    }
    println!("{wanted} histories, seeds from {first}");
}

struct History {
    seed: u64,
    rng: Rng,
    world: World,
    /// Everybody who ever was, with the address that they have all their life.
    people: Vec<(OktaUserId, String)>,
    accounts: Vec<String>,
    /// Accounts that another tool has blocked.
    blocked_by_others: BTreeSet<String>,
    trace: Vec<String>,
    aloud: bool,
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.trace.join("\n"));
            println!("again: OKTA_AUTH0_SYNC_SEED={} cargo test --test deciding any_history", self.seed);
        }
    }
}

impl History {
    async fn new(seed: u64, aloud: bool) -> Self {
        // The engine's own jitter comes from this thread's generator.
        fastrand::seed(seed);
        let mut rng = Rng::with_seed(seed);
        let (block, sessions, search, tight) = (rng.bool(), rng.u8(..4) == 0, rng.u8(..6) > 0, rng.u8(..4) == 0);
        let (lag_okta, lag_auth0) = (rng.bool(), rng.bool());
        let world = World::with(|setup| {
            setup.options.mark.block = block;
            setup.options.end_sessions = sessions;
            setup.options.search = search;
            setup.options.guard.denials_max = if tight { 2 } else { 200 };
            setup.sandbox.okta.search_lag = if lag_okta { SECOND } else { Duration::ZERO };
            setup.sandbox.auth0.search_lag = if lag_auth0 { 2 * SECOND } else { Duration::ZERO };
        })
        .await;
        let mut history = Self {
            seed,
            rng,
            world,
            people: Vec::new(),
            accounts: Vec::new(),
            blocked_by_others: BTreeSet::new(),
            trace: vec![format!("block={block} sessions={sessions} search={search} tight={tight}")],
            aloud,
        };
        history.populate();
        history
    }

    fn say(&mut self, text: String) {
        if self.aloud {
            println!("{} {text}", self.world.clock.now());
        }
        self.trace.push(format!("{} {text}", self.world.clock.now()));
    }

    /// Two to five people on one to three addresses, with up to three accounts each.
    fn populate(&mut self) {
        let addresses = self.rng.usize(1..=3);
        for number in 0..self.rng.usize(2..=5) {
            let address = self.rng.usize(..addresses);
            let email = if self.rng.bool() {
                format!("Shared{address}@Example.com")
            } else {
                format!("shared{address}@example.com")
            };
            let id = self.world.okta().create_user(&NewUser::new(&format!("login{number}"), &email));
            self.say(format!("{id} is {email}"));
            self.people.push((id, email));
        }
        for address in 0..addresses {
            for number in 0..self.rng.usize(0..=3) {
                let connection = ["Username-Password-Authentication", "google-oauth2", "acme-saml"][number];
                let blocked = self.rng.u8(..6) == 0;
                let id = self.world.auth0().create_user(json!({
                    "connection": connection, "email": format!("shared{address}@example.com"), "blocked": blocked,
                }));
                self.say(format!("account {id} of shared{address}, blocked: {blocked}"));
                if blocked {
                    self.blocked_by_others.insert(id.clone());
                }
                self.accounts.push(id);
            }
        }
    }

    async fn run(mut self) {
        // An address that was never read, of somebody who is gone, is nobody's: so everybody is read once.
        self.world.sync().await;
        for _ in 0..self.rng.usize(STEPS) {
            self.step().await;
        }
        self.come_to_rest().await;
        self.check(true).await;
        // Then a person lets through whatever waits, again and again: nothing is left that could excuse anything.
        for _ in 0..6 {
            let now = self.world.clock.now();
            if self.world.store().approve(Who::Held, now).await.unwrap().is_empty() {
                break;
            }
            self.world.let_pass(2 * HOUR).await;
        }
        self.world.reconcile().await;
        self.world.let_pass(2 * HOUR).await;
        self.check(false).await;
        self.check_that_it_rests().await;
    }

    async fn step(&mut self) {
        match self.rng.u8(..100) {
            0..=34 => self.live(),
            35..=39 => self.world.okta().hold_log(),
            40..=44 => {
                let reversed = self.rng.bool();
                self.world.okta().release_log(reversed);
            }
            45..=47 => {
                let entries = self.world.okta().log_entries();
                if let Some(entry) = self.rng.choice(&entries) {
                    self.world.okta().repeat_log_entry(entry["uuid"].as_str().unwrap());
                }
            }
            48..=57 => self.break_something(),
            58..=61 => {
                self.say("faults end".to_owned());
                self.world.okta().faults().clear();
                self.world.auth0().faults().clear();
            }
            62..=76 => {
                self.say("poll and look".to_owned());
                self.poll().await;
                self.look().await;
            }
            77..=82 => {
                let span = *self.rng.choice(&[SECOND, 5 * SECOND, MINUTE, 10 * MINUTE, HOUR, 3 * HOUR]).unwrap();
                self.say(format!("{span:?} pass"));
                self.world.passes(span);
                self.look().await;
            }
            83..=86 => {
                self.say("restart".to_owned());
                self.world.restart(|_| ()).await;
            }
            87..=89 => {
                self.say("approve all".to_owned());
                self.world.store().approve(Who::Held, self.world.clock.now()).await.unwrap();
            }
            90..=92 => {
                self.say("reconcile".to_owned());
                self.world.engine().begin_reconcile(Scope::All, "a history").await.unwrap();
                let _ = self.world.engine().reconcile(&CancellationToken::new()).await;
            }
            _ => self.edit(),
        }
    }

    /// Something happens to somebody in Okta.
    fn live(&mut self) {
        let Some((id, _)) = self.rng.choice(&self.people).cloned() else { return };
        let Some(user) = self.world.okta().user(&id) else { return };
        let okta = self.world.okta();
        let (what, choice) = (user["status"].as_str().unwrap_or_default(), self.rng.u8(..10));
        let done = match (what, choice) {
            ("ACTIVE", 0..=5) => {
                okta.deactivate(&id);
                "deactivated"
            }
            ("ACTIVE", 6) => {
                okta.suspend(&id);
                "suspended"
            }
            ("ACTIVE", 7) => {
                okta.deactivate_silently(&id);
                "deactivated, and the log says nothing"
            }
            ("SUSPENDED", 0..=6) => {
                okta.unsuspend(&id);
                "unsuspended"
            }
            ("SUSPENDED", _) => {
                okta.deactivate(&id);
                "deactivated"
            }
            ("DEPROVISIONED", 0..=4) => {
                okta.activate(&id);
                "activated"
            }
            ("DEPROVISIONED", 5) => {
                okta.import_activate(&id);
                "activated by an import"
            }
            (_, 9) => {
                okta.delete(&id);
                "deleted"
            }
            _ => return,
        };
        self.say(format!("{id} {done}"));
    }

    fn break_something(&mut self) {
        let times = self.rng.u32(1..=4);
        let code = *self.rng.choice(&[500, 502, 503]).unwrap();
        let effect = match self.rng.u8(..7) {
            0 | 1 => Effect::Status { code, body: json!({}), headers: Vec::new() },
            2 => Effect::RateLimited(RateLimited::Plain),
            3 => Effect::CutBody,
            4 => Effect::Drop,
            _ => Effect::AfterEffect(Box::new(Effect::Drop)),
        };
        let (okta, method, path) = *self
            .rng
            .choice(&[
                (true, "GET", "/api/v1/users"),
                (true, "GET", "/api/v1/logs"),
                (false, "GET", "/api/v2/users"),
                (false, "PATCH", "/api/v2/users"),
                (false, "PATCH", "/api/v2/users"),
                (false, "POST", "/oauth/token"),
            ])
            .unwrap();
        self.say(format!("{method} {path} {times} times: {effect:?}"));
        let faults = if okta { self.world.okta().faults() } else { self.world.auth0().faults() };
        faults.add(Fault::new(method, path, effect).times(times));
    }

    /// Somebody else edits an account.
    fn edit(&mut self) {
        let Some(account) = self.rng.choice(&self.accounts).cloned() else { return };
        let foreign = self.blocked_by_others.contains(&account);
        let choice = self.rng.u8(..5);
        self.say(format!("somebody edits {account}: {choice}"));
        self.world.auth0().set_user(&account, |user| match choice {
            0 => user["app_metadata"] = json!({}),
            1 => {
                user["app_metadata"] = json!({});
                user["user_metadata"] = json!({});
            }
            2 => user["user_metadata"] = json!({ "okta": { "deactivated": "false" }, "lang": "de" }),
            3 if !foreign => user["blocked"] = json!(false),
            _ => user["app_metadata"]["plan"] = json!("gold"),
        });
    }

    async fn poll(&self) {
        self.world.passes(2 * SECOND);
        // Remotes may fail; the state may not.
        if let Err(PassError::Store(error)) = self.world.engine().poll(&CancellationToken::new()).await {
            panic!("{error}");
        }
    }

    /// Looks at some of those who are due, two at a time or one after the other.
    async fn look(&mut self) {
        let due = self.world.store().due(self.world.clock.now(), 100).await.unwrap();
        let wanted = self.rng.usize(..=due.len());
        let together = self.rng.bool();
        for pair in due[..wanted].chunks(if together { 2 } else { 1 }) {
            let engine = self.world.engine();
            match pair {
                [one, other] => {
                    let (one, other) = ([one.id.clone()], [other.id.clone()]);
                    let (first, second) = tokio::join!(engine.look_at(&one), engine.look_at(&other));
                    first.unwrap();
                    second.unwrap();
                }
                pair => {
                    engine.look_at(&[pair[0].id.clone()]).await.unwrap();
                }
            }
        }
    }

    /// All faults end, the log is complete, and time passes.
    async fn come_to_rest(&mut self) {
        self.say("quiet".to_owned());
        self.world.okta().faults().clear();
        self.world.auth0().faults().clear();
        self.world.okta().release_log(false);
        for _ in 0..3 {
            self.world.passes(MINUTE);
            self.poll().await;
        }
        self.world.let_pass(3 * HOUR).await;
        self.world.reconcile().await;
        self.world.let_pass(DAY + HOUR).await;
        self.world.reconcile().await;
    }

    async fn held(&self) -> BTreeSet<String> {
        let held = self.world.store().people_with_outcome("held", 100).await.unwrap();
        held.into_iter().map(|person| person.okta_user_id).collect()
    }

    async fn check(&self, some_may_be_held: bool) {
        let people: Vec<Person> = self
            .people
            .iter()
            .map(|(id, email)| {
                let user = self.world.okta().user(id);
                let status = user.and_then(|user| user["status"].as_str().map(str::to_owned));
                Person {
                    id: id.to_string(),
                    email: email.clone(),
                    status: status.unwrap_or_else(|| "DELETED".to_owned()),
                }
            })
            .collect();
        let held = self.held().await;
        assert!(some_may_be_held || held.is_empty(), "still held after approval: {held:?}");
        let mut wrongs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for id in &self.accounts {
            let account = self.world.auth0().user(id).unwrap();
            let found = model::wrongs(&account, &people, &held, self.blocked_by_others.contains(id));
            if !found.is_empty() {
                wrongs.insert(format!("{account:#}"), found);
            }
        }
        assert!(wrongs.is_empty(), "{wrongs:#?}\n{people:#?}\nheld: {held:?}");
    }

    /// No reason is open, the state agrees with Auth0, the decisions are whole, and a second pass writes nothing.
    async fn check_that_it_rests(&mut self) {
        let status = self.world.store().status().await.unwrap().unwrap();
        assert_eq!((status.pending, status.failed, status.held, status.quarantined), (0, 0, 0, 0));
        let mut known = BTreeSet::new();
        for (id, _) in &self.people {
            let accounts = self.world.store().accounts_of(id).await.unwrap();
            known.extend(accounts.into_iter().filter(|account| account.denied).map(|account| account.auth0_user_id));
        }
        let is_marked = |id: &&String| self.world.mark(id)["deactivated"] == "true";
        let marked: BTreeSet<String> = self.accounts.iter().filter(is_marked).cloned().collect();
        // Accounts of somebody who is left alone (suspended, never activated) are not read: a mark that others removed
        // there is believed until there is a verdict again.
        let left_alone: BTreeSet<String> = self
            .people
            .iter()
            .filter(|(id, _)| {
                let user = self.world.okta().user(id);
                user.is_some_and(|user| matches!(user["status"].as_str(), Some("SUSPENDED" | "STAGED")))
            })
            .map(|(_, email)| email.to_lowercase())
            .collect();
        let is_read = |id: &&String| {
            let account = self.world.auth0().user(id).unwrap();
            !left_alone.contains(&account["email"].as_str().unwrap_or_default().to_lowercase())
        };
        let (known, marked): (BTreeSet<_>, BTreeSet<_>) =
            (known.iter().filter(is_read).collect(), marked.iter().filter(is_read).collect());
        assert_eq!(known, marked, "the state and Auth0 differ");
        let before: Vec<Value> = self.world.auth0().users();
        self.world.auth0().journal().clear();
        for (id, _) in self.people.clone() {
            self.world.request(&id).await;
        }
        self.world.reconcile().await;
        assert_eq!(self.world.writes(), 0, "a second pass wrote something");
        assert_eq!(before, self.world.auth0().users());
        self.world.store().verify_decisions().await.unwrap();
    }
}
