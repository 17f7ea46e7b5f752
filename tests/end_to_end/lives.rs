//! Life after life on one state: each dies at a named point, or by SIGKILL at any moment, while people leave and come
//! back; each is judged by what it left; and at the end both tenants agree, as if there had been one life.
//!
//! `OKTA_AUTH0_SYNC_LIVES` is how many lives come after those that visit the points once; `OKTA_AUTH0_SYNC_SEED` which.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use okta_auth0_sync::cli::failpoints;
use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync_sandbox::{Effect, Fault, PathMatch};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection};

use crate::harness::{Harness, patches, within};

const PEOPLE: usize = 30;
/// Random lives after every point was visited once, and in the usual run.
const LIVES: u32 = 40;
const FEW_LIVES: u32 = 8;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// Points that no life here passes, and why.
const NOT_PASSED: [(&str, &str); 3] = [
    (
        "store::intend_mark::",
        "a first denial notes the intent with the guard's leave; nobody here loses a mark to others",
    ),
    ("Okta::POST /oauth2/v1/token::", "the tenants are reached by an API token"),
    ("alert::heartbeat::", "no heartbeat is configured"),
];

/// Somebody, and what has become of them.
struct Person {
    id: OktaUserId,
    email: String,
    account: String,
    left: bool,
    ever_left: bool,
    /// Okta has no record any more: they cannot come back.
    deleted: bool,
    /// `forget` took their part out of the decisions; they are left alone since.
    forgotten: bool,
    /// Executed writes, and those of lives that did not end by themselves.
    writes: usize,
    writes_cut_off: usize,
    changes: usize,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    AtItsPoint,
    Killed,
    ByItself(i32),
}

/// When a life is to end.
#[derive(Clone, Debug)]
enum Doom {
    /// At this point, when it is passed for the n-th time.
    Point(String, u32),
    /// When so many calls have come in.
    Calls(u64),
    /// By itself.
    None,
}

/// What is tried in a life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    Sync,
    Daemon,
    /// A daemon whose Okta breaks off, and is back.
    Trouble,
    Reconcile,
    /// Of marks that the state does not know.
    Adopt,
    Look,
    Check,
    Deploy,
    /// The cursor is refused.
    Reanchor,
    /// Nothing was enforced, and now it is.
    Enforce,
    Approve,
    Dismiss,
    Forget,
}

/// The errand on which a point is passed.
fn errand_of(point: &str) -> Errand {
    let is = |names: &[&str]| names.iter().any(|name| point.contains(&format!("::{name}::")));
    if point.contains("/api/v2/actions/") {
        Errand::Deploy
    } else if point.contains("/api/v1/api-tokens/") {
        Errand::Check
    } else if is(&["adopt_account"]) {
        Errand::Adopt
    } else if is(&["begin_sweep", "move_sweep", "finish_sweep", "sweep_users", "GET /api/v1/users"]) {
        Errand::Reconcile
    } else if is(&["note_remote_error", "note_remote_ok", "note_poll"]) {
        Errand::Trouble
    } else if is(&["told", "webhook", "heartbeat", "clear_alarm", "note_enforcement", "expire"]) {
        Errand::Daemon
    } else if is(&["reanchor", "raise_alarm"]) {
        Errand::Reanchor
    } else if is(&["request_look"]) {
        Errand::Look
    } else if is(&["enforcement_switched_on"]) {
        Errand::Enforce
    } else if is(&["approve"]) {
        Errand::Approve
    } else if is(&["dismiss_event"]) {
        Errand::Dismiss
    } else if is(&["forget", "compact"]) {
        Errand::Forget
    } else {
        Errand::Sync
    }
}

/// A world that goes on while the lives come and go.
struct World {
    harness: Harness,
    webhook: String,
    people: Vec<Person>,
    random: fastrand::Rng,
    life: u32,
    reached: BTreeSet<String>,
    ends: BTreeMap<&'static str, u32>,
    writes: usize,
    /// Is the Action in the flow?
    bound: bool,
}

impl World {
    async fn begin(seed: u64) -> Self {
        let harness = Harness::start().await;
        harness.configure("end_sessions = true\n[engine]\nconcurrency = 4\n");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = format!("http://{}/hook", listener.local_addr().unwrap());
        let routes = axum::Router::new().fallback(|| async { StatusCode::NO_CONTENT });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let mut world = Self {
            harness,
            webhook,
            people: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            life: 0,
            reached: BTreeSet::new(),
            ends: BTreeMap::new(),
            writes: 0,
            bound: true,
        };
        for _ in 0..PEOPLE {
            world.join();
        }
        world
    }

    fn join(&mut self) -> usize {
        let name = format!("person{}", self.people.len());
        let (id, account) = self.harness.person(&name);
        self.people.push(Person {
            id,
            email: format!("{name}@example.com"),
            account,
            left: false,
            ever_left: false,
            deleted: false,
            forgotten: false,
            writes: 0,
            writes_cut_off: 0,
            changes: 0,
        });
        self.people.len() - 1
    }

    fn leave(&mut self, who: usize) {
        let person = &mut self.people[who];
        self.harness.sandbox.okta().deactivate(&person.id);
        (person.left, person.ever_left) = (true, true);
        person.changes += 1;
    }

    /// A few people leave, come back, or are deleted. Returns who.
    fn happen(&mut self, count: usize) -> Vec<usize> {
        let mut changed = Vec::new();
        for _ in 0..count {
            let who = self.random.usize(..self.people.len());
            let person = &mut self.people[who];
            if person.deleted || person.forgotten {
                continue;
            }
            if !person.left {
                self.leave(who);
            } else if self.random.u32(..20) == 0 {
                self.harness.sandbox.okta().delete(&person.id);
                person.deleted = true;
                // Their place is taken by somebody else.
                self.join();
            } else {
                self.harness.sandbox.okta().activate(&person.id);
                person.left = false;
                person.changes += 1;
            }
            changed.push(who);
        }
        changed
    }

    fn is_marked(&self, person: &Person) -> bool {
        self.harness.mark(&person.account)["deactivated"] == "true"
    }

    /// One life of the program, and what it left.
    async fn live(&mut self, arguments: &[&str], environment: &[(&str, &str)], doom: &Doom) -> End {
        self.life += 1;
        let is_daemon = arguments[0] == "run";
        let (okta, auth0) = (self.harness.sandbox.okta().clone(), self.harness.sandbox.auth0().clone());
        okta.journal().clear();
        auth0.journal().clear();
        let may_write: BTreeMap<String, usize> = self
            .people
            .iter()
            // The end takes away even marks that deny nobody.
            .map(|person| (person.account.clone(), arguments[0] == "purge" || self.is_marked(person) != person.left))
            .map(|(account, may)| (account, usize::from(may)))
            .collect();
        let log = fs::File::create(self.harness.folder().join("life.log")).unwrap();
        let mut command = self.harness.program(arguments);
        command.stdout(Stdio::null()).stderr(log).env("OKTA_AUTH0_SYNC__ALERT__WEBHOOK_URL", &self.webhook);
        command.envs(environment.iter().copied());
        if let Doom::Point(name, count) = doom {
            command.env("OKTA_AUTH0_SYNC_TEST_DIE_AT", format!("{name}={count}"));
        }
        let mut child = command.spawn().unwrap();
        let mut changed = Vec::new();
        let status = {
            let come = |many: u64| {
                let (okta, auth0) = (okta.clone(), auth0.clone());
                async move {
                    let (of_okta, of_auth0) = (AtomicU64::new(0), AtomicU64::new(0));
                    let come = |count: &AtomicU64, now: usize| {
                        count.store(now as u64, Ordering::SeqCst);
                        of_okta.load(Ordering::SeqCst) + of_auth0.load(Ordering::SeqCst) >= many
                    };
                    tokio::select! {
                        () = okta.journal().wait_for(|requests| come(&of_okta, requests.len())) => {}
                        () = auth0.journal().wait_for(|requests| come(&of_auth0, requests.len())) => {}
                    }
                }
            };
            if is_daemon {
                // In the middle of its work the world goes on.
                tokio::select! {
                    () = within("the first calls", come(5)) => changed = self.happen(3),
                    _ = child.wait() => {}
                }
            }
            let polls = |requests: &[okta_auth0_sync_sandbox::Recorded]| {
                requests.iter().filter(|request| request.path == "/api/v1/logs").count() >= 7
            };
            let end = async {
                match doom {
                    Doom::Calls(many) => come(*many).await,
                    // Whoever does not come to their point has had every chance after a few polls.
                    _ if is_daemon => okta.journal().wait_for(polls).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                status = within("the end of a life", child.wait()) => status.unwrap(),
                () = end => {
                    for _ in 0..self.random.u32(..2000) {
                        tokio::task::yield_now().await;
                    }
                    child.start_kill().unwrap();
                    child.wait().await.unwrap()
                }
            }
        };
        okta.faults().clear();
        let end = match (status.signal(), status.code()) {
            (Some(SIGABRT), _) => End::AtItsPoint,
            (Some(SIGKILL), _) => End::Killed,
            (_, Some(code)) => End::ByItself(code),
            _ => panic!("{status}"),
        };
        let told = fs::read_to_string(self.harness.folder().join("life.log")).unwrap();
        let story = format!("life {} {arguments:?} {environment:?} {doom:?}: {end:?}\n{told}", self.life);
        eprintln!("life {} {} {doom:?}: {end:?}", self.life, arguments[0]);
        assert!(!told.contains("panicked"), "{story}");
        assert!(matches!(end, End::AtItsPoint | End::Killed | End::ByItself(0 | 1)), "{story}");
        if let (End::AtItsPoint, Doom::Point(name, _)) = (end, doom) {
            self.reached.insert(name.clone());
        }
        let word = match end {
            End::AtItsPoint => "died at a point",
            End::Killed => "killed",
            End::ByItself(_) => "ended by itself",
        };
        *self.ends.entry(word).or_default() += 1;
        self.judge_writes(may_write, &changed, end, &story);
        self.judge_state(&story).await;
        end
    }

    /// Nobody is written to without need, and nobody is denied who has never left.
    fn judge_writes(&mut self, mut may_write: BTreeMap<String, usize>, changed: &[usize], end: End, story: &str) {
        for who in changed {
            *may_write.entry(self.people[*who].account.clone()).or_default() += 1;
        }
        let mut written: BTreeMap<String, usize> = BTreeMap::new();
        for patch in patches(&self.harness.sandbox.auth0().journal().requests()) {
            if let Some(account) = patch.path.strip_prefix("/api/v2/users/") {
                *written.entry(account.replace("%7C", "|")).or_default() += 1;
            }
        }
        for (account, count) in &written {
            let person = self.people.iter_mut().find(|person| person.account == *account);
            let person = person.unwrap_or_else(|| panic!("{account} is nobody's"));
            let may = may_write.get(account).copied().unwrap_or(0);
            assert!(*count <= may, "{account} was written {count} times for {may} changes\n{story}");
            person.writes += count;
            if !matches!(end, End::ByItself(_)) {
                person.writes_cut_off += count;
            }
            self.writes += count;
        }
        for person in &self.people {
            assert!(person.ever_left || !self.is_marked(person), "{} never left\n{story}", person.email);
        }
    }

    /// The file is whole, the decisions are proven, and whatever lies before the cursor is recorded.
    async fn judge_state(&self, story: &str) {
        let path = self.harness.state();
        if !path.exists() || fs::metadata(&path).unwrap().len() == 0 {
            return;
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).read_only(true);
        let mut state = options.connect().await.unwrap();
        let whole: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut state).await.unwrap();
        assert_eq!(whole, "ok", "{story}");
        let broken: Option<(String,)> =
            sqlx::query_as("PRAGMA foreign_key_check").fetch_optional(&mut state).await.unwrap();
        assert_eq!(broken, None, "{story}");
        let made: bool = sqlx::query_scalar("SELECT count(*) > 0 FROM sqlite_schema WHERE name = 'checkpoint'")
            .fetch_one(&mut state)
            .await
            .unwrap();
        if !made {
            return;
        }
        let next: Option<Option<String>> =
            sqlx::query_scalar("SELECT next FROM checkpoint").fetch_optional(&mut state).await.unwrap();
        let recorded: BTreeSet<String> = sqlx::query_scalar("SELECT event_id FROM events")
            .fetch_all(&mut state)
            .await
            .unwrap()
            .into_iter()
            .collect();
        state.close().await.unwrap();
        let store = self.harness.store().await;
        store.verify_decisions().await.unwrap_or_else(|error| panic!("{error}\n{story}"));
        store.close().await;
        let Some(Some(next)) = next else { return };
        let to_come = self.log_from(next).await;
        for entry in self.harness.sandbox.okta().log_entries() {
            let uuid = entry["uuid"].as_str().unwrap();
            let mut forgotten = self.people.iter().filter(|person| person.forgotten);
            let is_asked_for = entry["eventType"].as_str().unwrap().starts_with("user.lifecycle.")
                && !forgotten.any(|person| entry.to_string().contains(person.id.as_str()));
            assert!(
                !is_asked_for || recorded.contains(uuid) || to_come.contains(uuid),
                "the cursor has passed {uuid}, which is not recorded\n{story}"
            );
        }
    }

    /// What Okta gives to whoever asks on from this cursor.
    async fn log_from(&self, next: String) -> BTreeSet<String> {
        let okta = self.harness.sandbox.okta();
        let (client, mut next, mut uuids) = (reqwest::Client::new(), next, BTreeSet::new());
        loop {
            let url = format!("{}{next}", okta.url().trim_end_matches('/'));
            let authorization = format!("SSWS {}", okta.api_token());
            let answer = client.get(url).header("authorization", authorization).send().await.unwrap();
            let link = |value: &reqwest::header::HeaderValue| {
                let (url, rel) = value.to_str().ok()?.split_once('>')?;
                let url = url::Url::parse(url.trim_start_matches('<')).ok()?;
                rel.contains("next").then(|| format!("{}?{}", url.path(), url.query().unwrap_or_default()))
            };
            let linked = answer.headers().get_all("link").iter().find_map(link);
            let page: Vec<Value> = answer.json().await.unwrap();
            uuids.extend(page.iter().map(|entry| entry["uuid"].as_str().unwrap().to_owned()));
            match linked {
                Some(linked) if !page.is_empty() => next = linked,
                _ => return uuids,
            }
        }
    }

    /// A life that is cut off by nothing.
    async fn quietly(&mut self, arguments: &[&str], environment: &[(&str, &str)]) -> End {
        self.live(arguments, environment, &Doom::None).await
    }

    /// Goes on an errand, with what must be so before, and what has to be put right behind it.
    async fn go(&mut self, errand: Errand, doom: &Doom) {
        let okta = self.harness.sandbox.okta().clone();
        let auth0 = self.harness.sandbox.auth0().clone();
        match errand {
            Errand::Sync => {
                self.live(&["sync"], &[], doom).await;
            }
            Errand::Daemon => {
                // Each time it is otherwise than it was: an alarm is raised, or over, and told.
                self.bound = !self.bound;
                auth0.action().set_bound(self.bound);
                let often = [("OKTA_AUTH0_SYNC__SCHEDULE__RECONCILE", "*/2 * * * * *")];
                self.live(&["run"], &often, doom).await;
            }
            Errand::Trouble => {
                okta.faults().add(Fault::new("GET", "/api/v1/", Effect::Drop).skip(1).times(2));
                self.live(&["run"], &[], doom).await;
            }
            Errand::Reconcile => {
                self.live(&["reconcile", "--all"], &[], doom).await;
            }
            Errand::Adopt => {
                // A mark of somebody whom the state does not know: the log says nothing of them.
                let who = self.join();
                let person = &mut self.people[who];
                okta.deactivate_silently(&person.id);
                (person.left, person.ever_left, person.changes) = (true, true, 1);
                let mark = json!({ "deactivated": "true", "okta_user_id": person.id.as_str(), "status": "DEPROVISIONED",
                                   "at": "2026-01-01T00:00:00.000Z" });
                auth0.set_user(&person.account, |user| {
                    user["app_metadata"] = json!({ "okta_sync": mark });
                    user["user_metadata"] = json!({ "okta": { "deactivated": "true" } });
                });
                self.live(&["reconcile", "--all"], &[], doom).await;
            }
            Errand::Look => {
                let email = self.people[0].email.clone();
                self.live(&["user", &email, "--sync"], &[], doom).await;
            }
            Errand::Check => {
                self.live(&["check"], &[], doom).await;
            }
            Errand::Deploy => {
                match doom {
                    Doom::Point(point, _) if point.contains("::PATCH /api/v2/actions/actions/") => {
                        auth0.action().set_code("exports.onExecutePostLogin = async () => {};");
                    }
                    _ => drop(auth0.action().remove(okta_auth0_sync::auth0::ACTION_NAME)),
                }
                self.live(&["action", "deploy", "--yes"], &[], doom).await;
                let end = self.quietly(&["action", "deploy", "--yes"], &[]).await;
                self.bound = true;
                assert_eq!(end, End::ByItself(0), "deploying goes on where it was cut off");
            }
            Errand::Reanchor => {
                // So that there is a cursor to refuse.
                self.quietly(&["sync"], &[]).await;
                let body = json!({ "errorCode": "E0000001", "errorSummary": "Api validation failed: after" });
                let refused = Effect::Status { code: 400, body, headers: Vec::new() };
                let path = PathMatch::Contains("after=".to_owned());
                okta.faults().add(Fault { path, ..Fault::new("GET", "/api/v1/logs", refused).times(2) });
                self.live(&["sync"], &[], doom).await;
            }
            Errand::Enforce => {
                self.quietly(&["sync"], &[("OKTA_AUTH0_SYNC__ENGINE__ENFORCE", "false")]).await;
                self.live(&["sync"], &[], doom).await;
            }
            Errand::Approve => {
                let who = self.join();
                self.leave(who);
                self.quietly(&["sync"], &[("OKTA_AUTH0_SYNC__GUARD__MAX_DENIALS", "1")]).await;
                let who = self.join();
                self.leave(who);
                self.quietly(&["sync"], &[("OKTA_AUTH0_SYNC__GUARD__MAX_DENIALS", "1")]).await;
                self.live(&["approve", "--all"], &[], doom).await;
                self.quietly(&["approve", "--all"], &[]).await;
            }
            Errand::Dismiss => {
                let uuid = format!("unreadable-{}", self.life);
                okta.push_log_entry(json!({ "uuid": uuid, "eventType": "user.lifecycle.deactivate", "target": 7,
                                            "published": "2026-01-01T00:00:00.000Z" }));
                self.quietly(&["sync"], &[]).await;
                self.live(&["approve", &uuid], &[], doom).await;
                self.quietly(&["approve", &uuid], &[]).await;
            }
            Errand::Forget => {
                let who = self.join();
                self.leave(who);
                self.quietly(&["sync"], &[]).await;
                self.people[who].forgotten = true;
                let email = self.people[who].email.clone();
                self.live(&["forget", &email, "--yes"], &[], doom).await;
            }
        }
    }

    /// The end: what both tenants hold, and what the state says of it.
    async fn judge_the_end(&mut self) {
        self.quietly(&["sync"], &[]).await;
        // Somebody who came back in the moment of a kill is looked at again later; that is no failure.
        self.harness.sandbox.auth0().action().set_bound(true);
        let end = self.quietly(&["reconcile", "--all"], &[]).await;
        assert_eq!(end, End::ByItself(0), "{}", fs::read_to_string(self.harness.folder().join("life.log")).unwrap());
        let denied: BTreeSet<String> =
            self.people.iter().filter(|person| person.left).map(|person| person.account.clone()).collect();
        assert_eq!(self.harness.shut_out(), denied, "denied are exactly those who left");

        let store = self.harness.store().await;
        let decisions = store.decisions(None, None, 0, 1_000_000).await.unwrap();
        let verified = store.verify_decisions().await.unwrap();
        let status = store.status().await.unwrap().unwrap();
        store.close().await;
        assert_eq!((status.pending, status.failed, status.held, status.quarantined), (0, 0, 0, 0));
        assert_eq!(usize::try_from(status.denied).unwrap(), denied.len());
        for person in self.people.iter().filter(|person| !person.forgotten) {
            // Where marks are not enforced, a decision tells what would have been written.
            let mine: Vec<_> = decisions
                .iter()
                .filter(|decision| decision.auth0_user_id.as_deref() == Some(person.account.as_str()))
                .filter(|decision| decision.outcome != "not_enforced")
                .collect();
            let told = mine.last().and_then(|decision| decision.after.as_deref()).unwrap_or("open");
            assert_eq!(told == "denied", person.left, "{}: the last decision says {told}", person.email);
            // What one decision left, the next one finds; unless a life was cut off between a write and its decision.
            let gaps = mine.windows(2).filter(|pair| pair[0].after != pair[1].before).count();
            assert!(
                gaps <= person.writes_cut_off,
                "{}: {gaps} writes have no decision, and {} were cut off: {mine:#?}",
                person.email,
                person.writes_cut_off
            );
            assert!(person.writes <= person.changes + person.writes_cut_off, "{}", person.email);
        }
        let cut_off = self.people.iter().map(|person| person.writes_cut_off).sum::<usize>();
        eprintln!(
            "{} lives ({:?}), {} people, {} changes, {} writes ({cut_off} in lives that were cut off), {} decisions proven",
            self.life,
            self.ends,
            self.people.len(),
            self.people.iter().map(|person| person.changes).sum::<usize>(),
            self.writes,
            verified.rows
        );
    }

    /// Every mark is lifted in the end, wherever that is cut off.
    async fn purge(&mut self) {
        for point in failpoints().iter().filter(|point| point.contains("::purged::")) {
            self.cut_off_purge(&Doom::Point(point.clone(), 1)).await;
        }
        let left: Vec<String> = self.people.iter().map(|person| person.account.clone()).collect();
        self.cut_off_purge(&Doom::None).await;
        for account in left {
            assert_ne!(self.harness.mark(&account)["deactivated"], "true", "{account}");
        }
    }

    async fn cut_off_purge(&mut self, doom: &Doom) {
        // From now on everybody is to be open, as far as marks go.
        self.people.iter_mut().for_each(|person| person.left = false);
        self.live(&["purge", "--yes"], &[], doom).await;
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: no number")))
}

/// The file is made once, and the org bound once: those come first, in their order.
fn in_order(points: &[String]) -> Vec<&String> {
    let first = ["store::create::", "store::migrate::", "store::open::", "store::bind_org::"];
    let rank = |point: &&String| first.iter().position(|name| point.starts_with(name)).unwrap_or(first.len());
    let mut visits: Vec<&String> = points.iter().filter(|point| !point.contains("::purged::")).collect();
    visits.sort_by_key(rank);
    visits
}

fn is_passed(point: &str) -> bool {
    !NOT_PASSED.iter().any(|(name, _)| point.starts_with(name))
}

/// Which world, told so that it can be had again.
fn seeded(lives: u32) -> (u64, u32) {
    let seed = number("OKTA_AUTH0_SYNC_SEED").unwrap_or(7);
    let lives = number("OKTA_AUTH0_SYNC_LIVES").map_or(lives, |lives| u32::try_from(lives).unwrap());
    eprintln!("OKTA_AUTH0_SYNC_SEED={seed} OKTA_AUTH0_SYNC_LIVES={lives}");
    (seed, lives)
}

impl World {
    async fn visit(&mut self, point: &str) {
        self.happen(3);
        self.go(errand_of(point), &Doom::Point(point.to_owned(), 1)).await;
    }

    /// Lives that end at any point, or at any moment.
    async fn wander(&mut self, points: &[String], lives: u32) {
        for _ in 0..lives {
            let count = self.random.usize(..5);
            self.happen(count);
            let (doom, errand) = if self.random.bool() {
                let point = points[self.random.usize(..points.len())].clone();
                let errand = errand_of(&point);
                (Doom::Point(point, self.random.u32(1..8)), errand)
            } else {
                let errand = [Errand::Sync, Errand::Sync, Errand::Daemon, Errand::Reconcile][self.random.usize(..4)];
                (Doom::Calls(self.random.u64(1..40)), errand)
            };
            self.go(errand, &doom).await;
        }
    }
}

/// The usual run: each point of the writes that a pass makes, a few of the others, and a few lives besides.
#[tokio::test(flavor = "multi_thread")]
async fn some_crashes_lose_no_user() {
    let (seed, lives) = seeded(FEW_LIVES);
    let mut world = World::begin(seed).await;
    let points = failpoints();
    let passes = ["create", "migrate", "open", "bind_org", "record_page", "prepare_denial", "finish_look"];
    let of_a_pass = |point: &str| passes.iter().any(|name| point.starts_with(&format!("store::{name}::")));
    for point in in_order(&points) {
        if of_a_pass(point) {
            world.visit(point).await;
        }
    }
    assert!(
        points.iter().filter(|point| of_a_pass(point)).all(|point| world.reached.contains(point)),
        "no life died at one of them: {:?}",
        world.reached
    );
    world.wander(&points, lives).await;
    world.judge_the_end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "every point there is takes minutes: a command of its own, told in docs/reliability.md"]
async fn many_crashes_lose_no_user() {
    let (seed, lives) = seeded(LIVES);
    let mut world = World::begin(seed).await;
    let points = failpoints();
    for point in in_order(&points) {
        world.visit(point).await;
    }
    // A daemon may have been killed, for it was idle, before it came to its point: once more.
    for _ in 0..3 {
        for point in points.iter().filter(|point| is_passed(point) && !point.contains("::purged::")) {
            if !world.reached.contains(point) {
                world.visit(point).await;
            }
        }
    }
    world.wander(&points, lives).await;
    world.judge_the_end().await;
    world.purge().await;
    let missed: Vec<_> = points.iter().filter(|point| is_passed(point) && !world.reached.contains(*point)).collect();
    assert!(missed.is_empty(), "no life died at {missed:#?}");
    let passed: Vec<_> = world.reached.iter().filter(|point| !is_passed(point)).collect();
    assert!(passed.is_empty(), "these are passed after all: {passed:?}");
    eprintln!("{} points", world.reached.len());
}
