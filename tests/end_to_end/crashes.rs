//! Many runs of the program on one state. Each ends at a named failpoint or by SIGKILL while users leave and return. After
//! each run the test checks what it left; at the end both tenants agree, as after a single run.
//!
//! `OKTA_AUTH0_SYNC_LIVES` sets the number of random runs after those that crash at each point once;
//! `OKTA_AUTH0_SYNC_SEED` sets the seed.

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

const USERS: usize = 30;
/// Random runs after a crash at every point, and in the usual test.
const RUNS: u32 = 40;
const FEW_RUNS: u32 = 8;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// Points that no run of this test passes, and why.
const NOT_PASSED: [(&str, &str); 4] = [
    (
        "store::intend_mark::",
        "a first denial stores its intent with the guard's permit; in this test no other tool removes a mark",
    ),
    ("Okta::POST /oauth2/v1/token::", "the program uses an API token"),
    ("alert::heartbeat::", "no heartbeat is configured"),
    ("store::resume_by_time::", "an offset of the event stream lives for a day, longer than this test"),
];

/// A user and their account.
struct User {
    id: OktaUserId,
    email: String,
    account: String,
    left: bool,
    ever_left: bool,
    /// Deleted in Okta: they cannot return.
    deleted: bool,
    /// `forget` removed them from the decisions; the test does not change them any more.
    forgotten: bool,
    /// Executed writes, and how many of them belong to runs that were cut off.
    writes: usize,
    writes_cut_off: usize,
    changes: usize,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    AtPoint,
    Killed,
    Exited(i32),
}

/// When to end a run.
#[derive(Clone, Debug)]
enum KillAt {
    /// When it passes this point for the n-th time.
    Point(String, u32),
    /// After this many calls to the tenants.
    Calls(u64),
    /// Never.
    None,
}

/// What a run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    Sync,
    Daemon,
    /// A daemon that loses Okta for a moment.
    Trouble,
    Reconcile,
    /// Adopts a mark that the state does not know.
    Adopt,
    Look,
    Check,
    Deploy,
    /// Okta refuses the cursor.
    Reanchor,
    /// Enforcement was off and is on now.
    Enforce,
    Approve,
    Dismiss,
    Forget,
}

/// The scenario that passes this point.
fn scenario_of(point: &str) -> Scenario {
    let is = |names: &[&str]| names.iter().any(|name| point.contains(&format!("::{name}::")));
    if point.contains("/api/v2/actions/") {
        Scenario::Deploy
    } else if point.contains("/api/v1/api-tokens/") {
        Scenario::Check
    } else if is(&["adopt_account"]) {
        Scenario::Adopt
    } else if is(&["begin_sweep", "move_sweep", "finish_sweep", "sweep_users", "GET /api/v1/users"]) {
        Scenario::Reconcile
    } else if is(&["note_remote_error", "note_remote_ok", "note_poll"]) {
        Scenario::Trouble
    } else if is(&[
        "told",
        "webhook",
        "heartbeat",
        "clear_alarm",
        "note_enforcement",
        "expire",
        "GET /api/v2/events",
        "record_account_events",
        "note_watcher",
    ]) {
        Scenario::Daemon
    } else if is(&["reanchor", "raise_alarm"]) {
        Scenario::Reanchor
    } else if is(&["request_look"]) {
        Scenario::Look
    } else if is(&["enforcement_switched_on"]) {
        Scenario::Enforce
    } else if is(&["approve"]) {
        Scenario::Approve
    } else if is(&["dismiss_event"]) {
        Scenario::Dismiss
    } else if is(&["forget", "compact"]) {
        Scenario::Forget
    } else {
        Scenario::Sync
    }
}

/// Both tenants, and what changed in them over all runs.
struct Tenants {
    harness: Harness,
    webhook: String,
    users: Vec<User>,
    random: fastrand::Rng,
    run: u32,
    reached: BTreeSet<String>,
    ends: BTreeMap<&'static str, u32>,
    writes: usize,
    /// Is the Action bound to the login flow?
    bound: bool,
}

impl Tenants {
    async fn begin(seed: u64) -> Self {
        let harness = Harness::start().await;
        harness.configure("end_sessions = true\n[engine]\nconcurrency = 4\n");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = format!("http://{}/hook", listener.local_addr().unwrap());
        let routes = axum::Router::new().fallback(|| async { StatusCode::NO_CONTENT });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let mut tenants = Self {
            harness,
            webhook,
            users: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            run: 0,
            reached: BTreeSet::new(),
            ends: BTreeMap::new(),
            writes: 0,
            bound: true,
        };
        for _ in 0..USERS {
            tenants.join();
        }
        tenants
    }

    fn join(&mut self) -> usize {
        let name = format!("person{}", self.users.len());
        let (id, account) = self.harness.user(&name);
        self.users.push(User {
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
        self.users.len() - 1
    }

    fn leave(&mut self, who: usize) {
        let user = &mut self.users[who];
        self.harness.sandbox.okta().deactivate(&user.id);
        (user.left, user.ever_left) = (true, true);
        user.changes += 1;
    }

    /// Lets a few users leave, return or be deleted. Returns which.
    fn change_users(&mut self, count: usize) -> Vec<usize> {
        let mut changed = Vec::new();
        for _ in 0..count {
            let who = self.random.usize(..self.users.len());
            let user = &mut self.users[who];
            if user.deleted || user.forgotten {
                continue;
            }
            if !user.left {
                self.leave(who);
            } else if self.random.u32(..20) == 0 {
                self.harness.sandbox.okta().delete(&user.id);
                user.deleted = true;
                // Another user takes their place.
                self.join();
            } else {
                self.harness.sandbox.okta().activate(&user.id);
                user.left = false;
                user.changes += 1;
            }
            changed.push(who);
        }
        changed
    }

    fn is_marked(&self, user: &User) -> bool {
        self.harness.mark(&user.account)["deactivated"] == "true"
    }

    /// Runs the program once, ends it, and checks what it left.
    async fn run_program(&mut self, arguments: &[&str], environment: &[(&str, &str)], kill_at: &KillAt) -> End {
        self.run += 1;
        let is_daemon = arguments[0] == "run";
        let (okta, auth0) = (self.harness.sandbox.okta().clone(), self.harness.sandbox.auth0().clone());
        okta.journal().clear();
        auth0.journal().clear();
        let may_write: BTreeMap<String, usize> = self
            .users
            .iter()
            // A purge removes even marks that deny no user.
            .map(|user| (user.account.clone(), arguments[0] == "purge" || self.is_marked(user) != user.left))
            .map(|(account, may)| (account, usize::from(may)))
            .collect();
        let log = fs::File::create(self.harness.folder().join("run.log")).unwrap();
        let mut command = self.harness.program(arguments);
        command.stdout(Stdio::null()).stderr(log).env("OKTA_AUTH0_SYNC__ALERT__WEBHOOK_URL", &self.webhook);
        command.envs(environment.iter().copied());
        if let KillAt::Point(name, count) = kill_at {
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
                // Users change while the daemon works.
                tokio::select! {
                    () = within("the first calls", come(5)) => changed = self.change_users(3),
                    _ = child.wait() => {}
                }
            }
            let polls = |requests: &[okta_auth0_sync_sandbox::Recorded]| {
                requests.iter().filter(|request| request.path == "/api/v1/logs").count() >= 7
            };
            let end = async {
                match kill_at {
                    KillAt::Calls(many) => come(*many).await,
                    // After a few polls the daemon will not reach its point any more.
                    _ if is_daemon => okta.journal().wait_for(polls).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                status = within("the end of a run", child.wait()) => status.unwrap(),
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
            (Some(SIGABRT), _) => End::AtPoint,
            (Some(SIGKILL), _) => End::Killed,
            (_, Some(code)) => End::Exited(code),
            _ => panic!("{status}"),
        };
        let log = fs::read_to_string(self.harness.folder().join("run.log")).unwrap();
        let context = format!("run {} {arguments:?} {environment:?} {kill_at:?}: {end:?}\n{log}", self.run);
        eprintln!("run {} {} {kill_at:?}: {end:?}", self.run, arguments[0]);
        assert!(!log.contains("panicked"), "{context}");
        assert!(matches!(end, End::AtPoint | End::Killed | End::Exited(0 | 1)), "{context}");
        if let (End::AtPoint, KillAt::Point(name, _)) = (end, kill_at) {
            self.reached.insert(name.clone());
        }
        let word = match end {
            End::AtPoint => "died at a point",
            End::Killed => "killed",
            End::Exited(_) => "exited",
        };
        *self.ends.entry(word).or_default() += 1;
        self.check_writes(may_write, &changed, end, &context);
        self.check_state(&context).await;
        end
    }

    /// No write was needless, and no user who never left has a mark.
    fn check_writes(&mut self, mut may_write: BTreeMap<String, usize>, changed: &[usize], end: End, context: &str) {
        for who in changed {
            *may_write.entry(self.users[*who].account.clone()).or_default() += 1;
        }
        let mut written: BTreeMap<String, usize> = BTreeMap::new();
        for patch in patches(&self.harness.sandbox.auth0().journal().requests()) {
            if let Some(account) = patch.path.strip_prefix("/api/v2/users/") {
                *written.entry(account.replace("%7C", "|")).or_default() += 1;
            }
        }
        for (account, count) in &written {
            let user = self.users.iter_mut().find(|user| user.account == *account);
            let user = user.unwrap_or_else(|| panic!("{account} belongs to no user"));
            let may = may_write.get(account).copied().unwrap_or(0);
            assert!(*count <= may, "{account} was written {count} times for {may} changes\n{context}");
            user.writes += count;
            if !matches!(end, End::Exited(_)) {
                user.writes_cut_off += count;
            }
            self.writes += count;
        }
        for user in &self.users {
            assert!(user.ever_left || !self.is_marked(user), "{} never left\n{context}", user.email);
        }
    }

    /// The file is intact, the decisions verify, and every event before the cursor is stored.
    async fn check_state(&self, context: &str) {
        let path = self.harness.state();
        if !path.exists() || fs::metadata(&path).unwrap().len() == 0 {
            return;
        }
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).read_only(true);
        let mut state = options.connect().await.unwrap();
        let whole: String = sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut state).await.unwrap();
        assert_eq!(whole, "ok", "{context}");
        let broken: Option<(String,)> =
            sqlx::query_as("PRAGMA foreign_key_check").fetch_optional(&mut state).await.unwrap();
        assert_eq!(broken, None, "{context}");
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
        store.verify_decisions().await.unwrap_or_else(|error| panic!("{error}\n{context}"));
        store.close().await;
        let Some(Some(next)) = next else { return };
        let to_come = self.log_from(next).await;
        for entry in self.harness.sandbox.okta().log_entries() {
            let uuid = entry["uuid"].as_str().unwrap();
            let mut forgotten = self.users.iter().filter(|user| user.forgotten);
            let is_asked_for = entry["eventType"].as_str().unwrap().starts_with("user.lifecycle.")
                && !forgotten.any(|user| entry.to_string().contains(user.id.as_str()));
            assert!(
                !is_asked_for || recorded.contains(uuid) || to_come.contains(uuid),
                "the cursor has passed {uuid}, which is not stored\n{context}"
            );
        }
    }

    /// The events that Okta returns from this cursor on.
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

    /// A run that is not cut off.
    async fn run_to_end(&mut self, arguments: &[&str], environment: &[(&str, &str)]) -> End {
        self.run_program(arguments, environment, &KillAt::None).await
    }

    /// Runs a scenario, with what it needs before and what must be repaired after it.
    async fn run_scenario(&mut self, scenario: Scenario, kill_at: &KillAt) {
        let okta = self.harness.sandbox.okta().clone();
        let auth0 = self.harness.sandbox.auth0().clone();
        match scenario {
            Scenario::Sync => {
                self.run_program(&["sync"], &[], kill_at).await;
            }
            Scenario::Daemon => {
                // Each time the other way round, so that each run raises or clears an alarm.
                self.bound = !self.bound;
                auth0.action().set_bound(self.bound);
                let often = [("OKTA_AUTH0_SYNC__SCHEDULE__RECONCILE", "*/2 * * * * *")];
                self.run_program(&["run"], &often, kill_at).await;
            }
            Scenario::Trouble => {
                okta.faults().add(Fault::new("GET", "/api/v1/", Effect::Drop).skip(1).times(2));
                self.run_program(&["run"], &[], kill_at).await;
            }
            Scenario::Reconcile => {
                self.run_program(&["reconcile", "--all"], &[], kill_at).await;
            }
            Scenario::Adopt => {
                // The mark of a user whom the state does not know: the log has no event about them.
                let who = self.join();
                let user = &mut self.users[who];
                okta.deactivate_silently(&user.id);
                (user.left, user.ever_left, user.changes) = (true, true, 1);
                let mark = json!({ "deactivated": "true", "okta_user_id": user.id.as_str(), "status": "DEPROVISIONED",
                                   "at": "2026-01-01T00:00:00.000Z" });
                auth0.set_user(&user.account, |user| {
                    user["app_metadata"] = json!({ "okta_sync": mark });
                    user["user_metadata"] = json!({ "okta": { "deactivated": "true" } });
                });
                self.run_program(&["reconcile", "--all"], &[], kill_at).await;
            }
            Scenario::Look => {
                let email = self.users[0].email.clone();
                self.run_program(&["user", &email, "--sync"], &[], kill_at).await;
            }
            Scenario::Check => {
                self.run_program(&["check"], &[], kill_at).await;
            }
            Scenario::Deploy => {
                match kill_at {
                    KillAt::Point(point, _) if point.contains("::PATCH /api/v2/actions/actions/") => {
                        auth0.action().set_code("exports.onExecutePostLogin = async () => {};");
                    }
                    _ => drop(auth0.action().remove(okta_auth0_sync::auth0::ACTION_NAME)),
                }
                self.run_program(&["action", "deploy", "--yes"], &[], kill_at).await;
                let end = self.run_to_end(&["action", "deploy", "--yes"], &[]).await;
                self.bound = true;
                assert_eq!(end, End::Exited(0), "the next run finishes the deployment");
            }
            Scenario::Reanchor => {
                // There must be a cursor to refuse.
                self.run_to_end(&["sync"], &[]).await;
                let body = json!({ "errorCode": "E0000001", "errorSummary": "Api validation failed: after" });
                let refused = Effect::Status { code: 400, body, headers: Vec::new() };
                let path = PathMatch::Contains("after=".to_owned());
                okta.faults().add(Fault { path, ..Fault::new("GET", "/api/v1/logs", refused).times(2) });
                self.run_program(&["sync"], &[], kill_at).await;
            }
            Scenario::Enforce => {
                self.run_to_end(&["sync"], &[("OKTA_AUTH0_SYNC__ENGINE__ENFORCE", "false")]).await;
                self.run_program(&["sync"], &[], kill_at).await;
            }
            Scenario::Approve => {
                let who = self.join();
                self.leave(who);
                self.run_to_end(&["sync"], &[("OKTA_AUTH0_SYNC__GUARD__MAX_DENIALS", "1")]).await;
                let who = self.join();
                self.leave(who);
                self.run_to_end(&["sync"], &[("OKTA_AUTH0_SYNC__GUARD__MAX_DENIALS", "1")]).await;
                self.run_program(&["approve", "--all", "--yes"], &[], kill_at).await;
                self.run_to_end(&["approve", "--all", "--yes"], &[]).await;
            }
            Scenario::Dismiss => {
                let uuid = format!("unreadable-{}", self.run);
                okta.push_log_entry(json!({ "uuid": uuid, "eventType": "user.lifecycle.deactivate", "target": 7,
                                            "published": "2026-01-01T00:00:00.000Z" }));
                self.run_to_end(&["sync"], &[]).await;
                self.run_program(&["approve", &uuid], &[], kill_at).await;
                self.run_to_end(&["approve", &uuid], &[]).await;
            }
            Scenario::Forget => {
                let who = self.join();
                self.leave(who);
                self.run_to_end(&["sync"], &[]).await;
                self.users[who].forgotten = true;
                let email = self.users[who].email.clone();
                self.run_program(&["forget", &email, "--yes"], &[], kill_at).await;
            }
        }
    }

    /// What both tenants hold at the end, and what the state says about it.
    async fn check_the_end(&mut self) {
        self.run_to_end(&["sync"], &[]).await;
        // A user who returned at the moment of a kill gets their look later; that is not a failure.
        self.harness.sandbox.auth0().action().set_bound(true);
        let end = self.run_to_end(&["reconcile", "--all"], &[]).await;
        assert_eq!(end, End::Exited(0), "{}", fs::read_to_string(self.harness.folder().join("run.log")).unwrap());
        let denied: BTreeSet<String> =
            self.users.iter().filter(|user| user.left).map(|user| user.account.clone()).collect();
        assert_eq!(self.harness.shut_out(), denied, "exactly the users who left are denied");

        let store = self.harness.store().await;
        let decisions = store.decisions(None, None, 0, 1_000_000).await.unwrap();
        let verified = store.verify_decisions().await.unwrap();
        let status = store.status().await.unwrap().unwrap();
        store.close().await;
        assert_eq!((status.pending, status.failed, status.held, status.quarantined), (0, 0, 0, 0));
        assert_eq!(usize::try_from(status.denied).unwrap(), denied.len());
        for user in self.users.iter().filter(|user| !user.forgotten) {
            // Without enforcement a decision says what would have been written.
            let mine: Vec<_> = decisions
                .iter()
                .filter(|decision| decision.auth0_user_id.as_deref() == Some(user.account.as_str()))
                .filter(|decision| decision.outcome != "not_enforced")
                .collect();
            let last = mine.last().and_then(|decision| decision.after.as_deref()).unwrap_or("open");
            assert_eq!(last == "denied", user.left, "{}: the last decision says {last}", user.email);
            // A decision starts from what the one before it left, unless a run was cut off between a write and its decision.
            let gaps = mine.windows(2).filter(|pair| pair[0].after != pair[1].before).count();
            assert!(
                gaps <= user.writes_cut_off,
                "{}: {gaps} writes have no decision, but only {} were cut off: {mine:#?}",
                user.email,
                user.writes_cut_off
            );
            assert!(user.writes <= user.changes + user.writes_cut_off, "{}", user.email);
        }
        let cut_off = self.users.iter().map(|user| user.writes_cut_off).sum::<usize>();
        eprintln!(
            "{} runs ({:?}), {} people, {} changes, {} writes ({cut_off} in runs that were cut off), {} decisions proven",
            self.run,
            self.ends,
            self.users.len(),
            self.users.iter().map(|user| user.changes).sum::<usize>(),
            self.writes,
            verified.rows
        );
    }

    /// A purge lifts every mark, wherever it is cut off.
    async fn purge(&mut self) {
        for point in failpoints().iter().filter(|point| point.contains("::purged::")) {
            self.purge_until(&KillAt::Point(point.clone(), 1)).await;
        }
        let left: Vec<String> = self.users.iter().map(|user| user.account.clone()).collect();
        self.purge_until(&KillAt::None).await;
        for account in left {
            assert_ne!(self.harness.mark(&account)["deactivated"], "true", "{account}");
        }
    }

    async fn purge_until(&mut self, kill_at: &KillAt) {
        // From now on no mark may deny a user.
        self.users.iter_mut().for_each(|user| user.left = false);
        self.run_program(&["purge", "--yes"], &[], kill_at).await;
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}: no number")))
}

/// The points in order. The file is created once and the org bound once, so those come first.
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

/// Prints the seed and the number of runs, so that a failure can be repeated.
fn seeded(runs: u32) -> (u64, u32) {
    let seed = number("OKTA_AUTH0_SYNC_SEED").unwrap_or(7);
    let runs = number("OKTA_AUTH0_SYNC_LIVES").map_or(runs, |runs| u32::try_from(runs).unwrap());
    eprintln!("OKTA_AUTH0_SYNC_SEED={seed} OKTA_AUTH0_SYNC_LIVES={runs}");
    (seed, runs)
}

impl Tenants {
    async fn visit(&mut self, point: &str) {
        self.change_users(3);
        self.run_scenario(scenario_of(point), &KillAt::Point(point.to_owned(), 1)).await;
    }

    /// Runs that end at a random point or moment.
    async fn crash_at_random(&mut self, points: &[String], runs: u32) {
        for _ in 0..runs {
            let count = self.random.usize(..5);
            self.change_users(count);
            let (kill_at, scenario) = if self.random.bool() {
                let point = points[self.random.usize(..points.len())].clone();
                let scenario = scenario_of(&point);
                (KillAt::Point(point, self.random.u32(1..8)), scenario)
            } else {
                let scenario =
                    [Scenario::Sync, Scenario::Sync, Scenario::Daemon, Scenario::Reconcile][self.random.usize(..4)];
                (KillAt::Calls(self.random.u64(1..40)), scenario)
            };
            self.run_scenario(scenario, &kill_at).await;
        }
    }
}

/// Crashes at each point of the writes of a pass, and a few random runs.
#[tokio::test(flavor = "multi_thread")]
async fn some_crashes_lose_no_user() {
    let (seed, runs) = seeded(FEW_RUNS);
    let mut tenants = Tenants::begin(seed).await;
    let points = failpoints();
    let passes = ["create", "migrate", "open", "bind_org", "record_page", "prepare_denial", "finish_look"];
    let of_a_pass = |point: &str| passes.iter().any(|name| point.starts_with(&format!("store::{name}::")));
    for point in in_order(&points) {
        if of_a_pass(point) {
            tenants.visit(point).await;
        }
    }
    assert!(
        points.iter().filter(|point| of_a_pass(point)).all(|point| tenants.reached.contains(point)),
        "no run died at one of them: {:?}",
        tenants.reached
    );
    tenants.crash_at_random(&points, runs).await;
    tenants.check_the_end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "visits every point and takes minutes; docs/reliability.md has the command"]
async fn many_crashes_lose_no_user() {
    let (seed, runs) = seeded(RUNS);
    let mut tenants = Tenants::begin(seed).await;
    let points = failpoints();
    for point in in_order(&points) {
        tenants.visit(point).await;
    }
    // A daemon that was idle may have been killed before it reached its point: once more.
    for _ in 0..3 {
        for point in points.iter().filter(|point| is_passed(point) && !point.contains("::purged::")) {
            if !tenants.reached.contains(point) {
                tenants.visit(point).await;
            }
        }
    }
    tenants.crash_at_random(&points, runs).await;
    tenants.check_the_end().await;
    tenants.purge().await;
    let missed: Vec<_> = points.iter().filter(|point| is_passed(point) && !tenants.reached.contains(*point)).collect();
    assert!(missed.is_empty(), "no run died at {missed:#?}");
    let passed: Vec<_> = tenants.reached.iter().filter(|point| !is_passed(point)).collect();
    assert!(passed.is_empty(), "NOT_PASSED lists points that were passed: {passed:?}");
    eprintln!("{} points", tenants.reached.len());
}
