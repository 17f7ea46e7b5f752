//! Random sequences of store operations, compared with a small model without SQL.
//!
//! The model keeps each user's open reasons as a set; the store keeps two numbers. After each step both must agree, and
//! every open reason must have a scheduled look or wait for an operator.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::*;
use crate::domain::{Held, Skipped};

const USERS: u32 = 4;
const EVENTS: u32 = 24;
const DAY: Duration = Duration::from_secs(86_400);
const SEED: &str = "OKTA_AUTH0_SYNC_TEST_SEED";

#[derive(Clone, Debug)]
enum Step {
    /// A page with these events, which may include known and repeated ones.
    Page(Vec<u32>),
    Begin(u32),
    /// The n-th running look ends with this outcome; a settled one may schedule a re-check.
    Finish(usize, Outcome, bool),
    Request(u32),
    RetryFailed,
    Approve(Option<u32>),
    Reconcile(Vec<u32>),
    Wait(u64),
    /// The process is killed between two transactions.
    Crash,
    /// The process is killed inside a transaction.
    CrashInside,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Applied),
        1 => Just(Outcome::Unchanged),
        1 => Just(Outcome::NoAccount),
        1 => Just(Outcome::Skipped(Skipped::Exempt)),
        2 => Just(Outcome::Held(Held::Vanished)),
        2 => (1_u64..3600).prop_map(|s| Outcome::Retry { after: Duration::from_secs(s), why: "500".to_owned() }),
        1 => (1_u64..3600).prop_map(|s| Outcome::Snooze { until: clock::add(noon(), Duration::from_secs(s)), why: "429".to_owned() }),
        2 => Just(Outcome::Failed("gave up".to_owned())),
    ];
    let step = prop_oneof![
        4 => prop::collection::vec(0..EVENTS, 0..5).prop_map(Step::Page),
        6 => (0..USERS).prop_map(Step::Begin),
        6 => (0_usize..4, outcome, any::<bool>()).prop_map(|(slot, outcome, later)| Step::Finish(slot, outcome, later)),
        1 => (0..USERS).prop_map(Step::Request),
        1 => Just(Step::RetryFailed),
        1 => prop::option::of(0..USERS).prop_map(Step::Approve),
        1 => prop::collection::vec(0..USERS, 0..4).prop_map(Step::Reconcile),
        2 => (0_u64..3600).prop_map(Step::Wait),
        1 => Just(Step::Crash),
        1 => Just(Step::CrashInside),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Clone, Debug, Default)]
struct ModelUser {
    reasons: BTreeSet<u64>,
    events: BTreeSet<String>,
    due_at: Option<Timestamp>,
    outcome: Option<&'static str>,
    approved: bool,
    /// Events that no look has judged: an approval does not cover them.
    unjudged: BTreeSet<String>,
}

#[derive(Debug)]
struct Look {
    user: u32,
    claimed_seq: i64,
    reasons: BTreeSet<u64>,
    events: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Model {
    users: BTreeMap<u32, ModelUser>,
    seen: BTreeSet<u32>,
    last_reason: u64,
}

impl Model {
    fn give_reason(&mut self, user: u32, now: Timestamp, reconcile: bool) {
        self.last_reason += 1;
        let user = self.users.entry(user).or_default();
        user.reasons.insert(self.last_reason);
        user.due_at = Some(now);
        let fresh = match user.outcome {
            Some("retry" | "snooze") => true,
            Some("failed") => !reconcile,
            _ => false,
        };
        if fresh {
            user.outcome = None;
        }
    }

    fn record_events(&mut self, events: &[u32], now: Timestamp) {
        for &number in events {
            if !self.seen.insert(number) {
                continue;
            }
            for user in users_of(number) {
                if is_irrelevant(number) {
                    self.users.entry(user).or_default();
                    continue;
                }
                self.give_reason(user, now, false);
                let user = self.users.entry(user).or_default();
                user.events.insert(format!("event-{number}"));
                user.unjudged.insert(format!("event-{number}"));
                // The user left or returned after the approval.
                user.approved &= number % 3 == 2;
            }
        }
    }

    fn finish(&mut self, look: &Look, outcome: &Outcome, next_look: Option<Timestamp>) {
        self.last_reason += 1;
        let user = self.users.entry(look.user).or_default();
        user.unjudged.retain(|event| !look.events.contains(event));
        let arrived = user.reasons.difference(&look.reasons).next().is_some();
        if outcome.settles() {
            user.reasons.retain(|reason| !look.reasons.contains(reason));
            user.events.retain(|event| !look.events.contains(event));
            user.approved = false;
        } else if user.reasons.is_empty() {
            user.reasons.insert(self.last_reason);
        }
        if !arrived && matches!(outcome, Outcome::Held(_)) {
            user.approved = false;
        }
        if !arrived {
            user.due_at = next_look;
        }
        let is_reset =
            arrived && matches!(outcome, Outcome::Retry { .. } | Outcome::Snooze { .. } | Outcome::Failed(_));
        user.outcome = (!is_reset).then_some(outcome.as_str());
    }
}

fn name(user: u32) -> String {
    format!("u{user}")
}

/// Events are a function of their number: every fifth is irrelevant, every seventh names two users.
fn is_irrelevant(number: u32) -> bool {
    number % 5 == 4
}

fn users_of(number: u32) -> BTreeSet<u32> {
    let second = if number.is_multiple_of(7) { number + 1 } else { number };
    [number % USERS, second % USERS].into()
}

fn event_of(number: u32) -> Event {
    let kind =
        if is_irrelevant(number) { "create" } else { ["deactivate", "activate", "suspend"][number as usize % 3] };
    let users = users_of(number).into_iter().map(|user| EventUser { id: id(&name(user)), login: None }).collect();
    Event { users, ..event(number, "u0", kind) }
}

/// What a kill leaves on disk: a copy of the file and its WAL.
fn copy_files(path: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let name = format!("state.db{suffix}");
        let file = path.with_file_name(&name);
        if file.exists() {
            std::fs::copy(file, dir.path().join(name)).unwrap();
        }
    }
    dir
}

struct World {
    dir: tempfile::TempDir,
    store: Store,
    model: Model,
    looks: Vec<Look>,
    now: Timestamp,
}

impl World {
    async fn new() -> Self {
        let (dir, store) = store().await;
        Self { dir, store, model: Model::default(), looks: Vec::new(), now: noon() }
    }

    /// Restarts on the file as it is; running looks are lost.
    async fn restart(&mut self) {
        let dir = copy_files(self.store.path());
        let (next, opened) = Store::open(&dir.path().join("state.db"), &binding(), self.now).await.unwrap();
        assert!(!opened.created);
        let before = std::mem::replace(&mut self.store, next);
        before.close().await;
        self.dir = dir;
        self.looks.clear();
    }

    async fn apply(&mut self, step: &Step) {
        match step {
            Step::Page(numbers) => {
                let events: Vec<Event> = numbers.iter().map(|&number| event_of(number)).collect();
                let seq = self.store.checkpoint().await.unwrap().map_or(0, |checkpoint| checkpoint.seq);
                self.store.record_page(page(seq, &events), self.now).await.unwrap();
                self.model.record_events(numbers, self.now);
            }
            Step::Begin(user) => {
                if self.looks.iter().any(|look| look.user == *user) || !self.model.users.contains_key(user) {
                    return;
                }
                let start = self.store.begin_look(&id(&name(*user)), self.now).await.unwrap();
                let known = &self.model.users[user];
                assert_eq!(start.approved.is_some(), known.approved);
                let open: BTreeSet<String> =
                    start.events.iter().filter(|event| event.open).map(|event| event.id.clone()).collect();
                assert_eq!(open, known.events);
                self.looks.push(Look {
                    user: *user,
                    claimed_seq: start.claimed_seq,
                    reasons: known.reasons.clone(),
                    events: known.events.clone(),
                });
            }
            Step::Finish(slot, outcome, later) => {
                if self.looks.is_empty() {
                    return;
                }
                let look = self.looks.swap_remove(slot % self.looks.len());
                let next_look = match outcome {
                    Outcome::Retry { after, .. } => Some(clock::add(self.now, *after)),
                    Outcome::Snooze { until, .. } => Some(*until),
                    Outcome::Failed(_) => Some(clock::add(self.now, DAY)),
                    Outcome::Held(_) => None,
                    _ => later.then(|| clock::add(self.now, Duration::from_secs(300))),
                };
                let user = id(&name(look.user));
                let end = LookFinish { conclusion: again_at(next_look), ..finish(&user, look.claimed_seq, outcome) };
                self.store.finish_look(end, self.now).await.unwrap();
                self.model.finish(&look, outcome, next_look);
            }
            Step::Request(user) => {
                let made = self.store.request_look(Who::User(&id(&name(*user))), self.now).await.unwrap();
                assert_eq!(made.len(), 1);
                self.model.give_reason(*user, self.now, false);
            }
            Step::RetryFailed => {
                let made = self.store.request_look(Who::Failed, self.now).await.unwrap();
                let failed = self.with_outcome("failed");
                assert_eq!(made.len(), failed.len());
                failed.into_iter().for_each(|user| self.model.give_reason(user, self.now, false));
            }
            Step::Approve(who) => {
                let one = who.map(|user| id(&name(user)));
                let mut shown = self.store.held().await.unwrap();
                shown.retain(|user| one.as_ref().is_none_or(|one| user.id == *one));
                let approval = Approval { held: &shown, by: "command", reason: None, policy: "p" };
                let made = self.store.approve(approval, self.now).await.unwrap();
                let mut held = self.with_outcome("held");
                held.retain(|user| who.is_none_or(|one| one == *user));
                held.retain(|user| self.model.users[user].unjudged.is_empty());
                assert_eq!(made.len(), held.len());
                for user in held {
                    self.model.give_reason(user, self.now, false);
                    self.model.users.get_mut(&user).unwrap().approved = true;
                }
            }
            Step::Reconcile(users) => {
                let ids: Vec<OktaUserId> = users.iter().map(|&user| id(&name(user))).collect();
                let made = self.store.queue_for_reconcile(&ids, self.now).await.unwrap();
                let mut expected = 0;
                for &user in &users.iter().copied().collect::<BTreeSet<u32>>() {
                    let known = self.model.users.entry(user).or_default();
                    if known.reasons.is_empty() || matches!(known.outcome, Some("held" | "failed")) {
                        self.model.give_reason(user, self.now, true);
                        expected += 1;
                    }
                }
                assert_eq!(made, expected);
            }
            Step::Wait(seconds) => self.now = clock::add(self.now, Duration::from_secs(*seconds)),
            Step::Crash => self.restart().await,
            Step::CrashInside => {
                let mut tx = self.store.begin(Write::FinishLook).await.unwrap();
                for statement in [
                    "UPDATE users SET settled_seq = due_seq, due_at = NULL, due_since = NULL, outcome = 'applied'",
                    "DELETE FROM events",
                    "UPDATE checkpoint SET seq = seq + 1",
                    // Enough to spill uncommitted pages into the WAL.
                    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
                     INSERT INTO run_log (kind, started_at, error) SELECT 'poll', 'x', hex(zeroblob(5000)) FROM n",
                ] {
                    sqlx::query(statement).execute(&mut *tx).await.unwrap();
                }
                let dir = copy_files(self.store.path());
                drop(tx);
                let (next, _) = Store::open(&dir.path().join("state.db"), &binding(), self.now).await.unwrap();
                std::mem::replace(&mut self.store, next).close().await;
                self.dir = dir;
                self.looks.clear();
            }
        }
    }

    fn with_outcome(&self, outcome: &str) -> Vec<u32> {
        self.model.users.iter().filter(|(_, user)| user.outcome == Some(outcome)).map(|(&user, _)| user).collect()
    }

    async fn compare(&self) {
        type Row = (String, i64, i64, Option<String>, Option<String>);
        let rows: Vec<Row> =
            sqlx::query_as("SELECT okta_user_id, due_seq, settled_seq, due_at, outcome FROM users ORDER BY 1")
                .fetch_all(self.store.reader())
                .await
                .unwrap();
        assert_eq!(rows.len(), self.model.users.len());
        let mut open_events: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let open: Vec<(String, String)> = sqlx::query_as(
            "SELECT okta_user_id, event_id FROM event_users JOIN users USING (user_seq) JOIN events ON seq = event_seq
             WHERE settled_at IS NULL",
        )
        .fetch_all(self.store.reader())
        .await
        .unwrap();
        for (user, event) in open {
            open_events.entry(user).or_default().insert(event);
        }
        for ((user, due_seq, settled_seq, due_at, outcome), (number, known)) in rows.into_iter().zip(&self.model.users)
        {
            assert_eq!(user, name(*number));
            assert_eq!(due_seq > settled_seq, !known.reasons.is_empty(), "{user}: reasons");
            assert!(settled_seq <= due_seq, "{user}");
            assert_eq!(due_at, known.due_at.map(crate::domain::timestamp_text), "{user}: due_at");
            assert_eq!(outcome.as_deref(), known.outcome, "{user}: outcome");
            assert_eq!(open_events.remove(&user).unwrap_or_default(), known.events, "{user}: events");
            // The property: no reason is lost.
            assert!(known.reasons.is_empty() || due_at.is_some() || outcome.as_deref() == Some("held"), "{user}: lost");
        }
        let due: Vec<String> =
            self.store.due(self.now, 100).await.unwrap().into_iter().map(|due| due.id.to_string()).collect();
        let distinct: BTreeSet<String> = due.iter().cloned().collect();
        assert_eq!(due.len(), distinct.len(), "a user is due twice: {due:?}");
        let expected: BTreeSet<String> = self
            .model
            .users
            .iter()
            .filter(|(_, user)| user.due_at.is_some_and(|due_at| due_at <= self.now))
            .map(|(&user, _)| name(user))
            .collect();
        assert_eq!(distinct, expected);
        let pending = self
            .model
            .users
            .values()
            .filter(|user| !user.reasons.is_empty() && !matches!(user.outcome, Some("held" | "failed")))
            .count();
        let status = self.store.status().await.unwrap().unwrap();
        assert_eq!(status.pending, i64::try_from(pending).unwrap());
        assert_eq!(status.held, i64::try_from(self.with_outcome("held").len()).unwrap());
        assert_eq!(status.failed, i64::try_from(self.with_outcome("failed").len()).unwrap());
    }
}

#[test]
fn no_reason_is_ever_lost() {
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
    println!("{SEED}={seed}");
    let config = Config { cases: 32, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    TestRunner::new(config)
        .run(&steps(), |steps| {
            runtime.block_on(async {
                let mut world = World::new().await;
                for step in &steps {
                    world.apply(step).await;
                    world.compare().await;
                }
            });
            Ok(())
        })
        .unwrap();
}
