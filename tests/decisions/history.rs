//! One random history: each step changes users, accounts, the network or the program. The final state is checked against
//! the model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use okta_auth0_sync::domain::{OktaUserId, Status};
use okta_auth0_sync::engine::PassError;
use okta_auth0_sync::engine::reconciler::Scope;
use okta_auth0_sync_sandbox::{Bucket, Effect, Fault, Limits, RateLimited};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::model::{self, FinalUser};
use crate::world::{DAY, HOUR, MINUTE, SECOND, World};

/// The length of a history and the range of faults in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A few hours: users join and leave, responses are lost, other tools edit accounts.
    Hours,
    /// Several weeks with all kinds of faults at once; see [`super::weeks`].
    Weeks,
}

impl Kind {
    /// The test that runs histories of this kind.
    const fn test(self) -> &'static str {
        match self {
            Self::Hours => "random_histories",
            Self::Weeks => "fault_weeks",
        }
    }

    const fn steps(self) -> std::ops::Range<usize> {
        match self {
            Self::Hours => 10..45,
            Self::Weeks => 60..160,
        }
    }
}

/// A copy of the state, and what the model has to know about it.
pub(crate) struct Copy {
    pub(crate) file: std::path::PathBuf,
    pub(crate) forgotten: BTreeSet<OktaUserId>,
    pub(crate) unread: BTreeSet<OktaUserId>,
    /// How many users there were.
    pub(crate) users: usize,
}

pub(crate) struct History {
    pub(crate) kind: Kind,
    seed: u64,
    pub(crate) rng: Rng,
    pub(crate) world: World,
    /// All users that ever existed, each with an address that never changes.
    pub(crate) users: Vec<(OktaUserId, String)>,
    /// All accounts that ever existed, each with its address.
    pub(crate) accounts: Vec<(String, String)>,
    /// Accounts that another tool blocked.
    pub(crate) blocked_by_others: BTreeSet<String>,
    /// Users that an operator removed from the state with `forget`.
    pub(crate) forgotten: BTreeSet<OktaUserId>,
    /// Users whose address the daemon may not have read yet.
    pub(crate) unread: BTreeSet<OktaUserId>,
    /// Users outside the scope of our Okta role.
    pub(crate) hidden: BTreeSet<OktaUserId>,
    /// The simulated time that long steps have used up.
    pub(crate) elapsed: Duration,
    /// A copy of the state.
    pub(crate) copy: Option<Copy>,
    /// A copy of the state took its place.
    pub(crate) restored: bool,
    /// Accounts that another tool edited.
    edited: BTreeSet<String>,
    trace: Vec<String>,
    verbose: bool,
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.trace.join("\n"));
            println!("replay with OKTA_AUTH0_SYNC_SEED={} cargo test --test all {}", self.seed, self.kind.test());
        }
    }
}

impl History {
    pub(crate) async fn new(kind: Kind, seed: u64, verbose: bool) -> Self {
        // The engine's own jitter comes from this thread's generator.
        fastrand::seed(seed);
        let mut rng = Rng::with_seed(seed);
        let (block, sessions, search, tight) = (rng.bool(), rng.u8(..4) == 0, rng.u8(..6) > 0, rng.u8(..4) == 0);
        let (lag_okta, lag_auth0) = (rng.bool(), rng.bool());
        // Rate limits of the small plans, or none.
        let limited = kind == Kind::Weeks && rng.bool();
        let world = World::with(|setup| {
            setup.options.rules.mark.block = block;
            setup.options.rules.end_sessions = sessions;
            setup.options.search = search;
            setup.options.guard.denials_max = if tight { 2 } else { 200 }.into();
            setup.sandbox.okta.search_lag = if lag_okta { SECOND } else { Duration::ZERO };
            setup.sandbox.auth0.search_lag = if lag_auth0 { 2 * SECOND } else { Duration::ZERO };
            if limited {
                setup.sandbox.okta.limits = Limits::default();
                setup.sandbox.auth0.bucket = Bucket::FREE;
            }
        })
        .await;
        let mut history = Self {
            kind,
            seed,
            rng,
            world,
            users: Vec::new(),
            accounts: Vec::new(),
            blocked_by_others: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            unread: BTreeSet::new(),
            hidden: BTreeSet::new(),
            elapsed: Duration::ZERO,
            copy: None,
            restored: false,
            edited: BTreeSet::new(),
            trace: vec![format!("block={block} sessions={sessions} search={search} tight={tight} limited={limited}")],
            verbose,
        };
        history.populate();
        history
    }

    pub(crate) fn log_step(&mut self, text: String) {
        let line = format!("{} {text}", self.world.now());
        if self.verbose {
            println!("{line}");
        }
        self.trace.push(line);
    }

    /// Creates two to five users on one to three addresses, with up to three accounts per address.
    fn populate(&mut self) {
        let addresses = self.rng.usize(1..=3);
        for number in 0..self.rng.usize(2..=5) {
            let address = self.rng.usize(..addresses);
            let email = if self.rng.bool() {
                format!("Shared{address}@Example.com")
            } else {
                format!("shared{address}@example.com")
            };
            let id = self.world.user_called(&format!("login{number}"), &email);
            self.log_step(format!("{id} is {email}"));
            self.users.push((id, email));
        }
        for address in 0..addresses {
            for number in 0..self.rng.usize(0..=3) {
                let connection = ["Username-Password-Authentication", "google-oauth2", "acme-saml"][number];
                let blocked = self.rng.u8(..6) == 0;
                let id = self.world.auth0().create_user(json!({
                    "connection": connection, "email": format!("shared{address}@example.com"), "blocked": blocked,
                }));
                self.log_step(format!("account {id} of shared{address}, blocked: {blocked}"));
                if blocked {
                    self.blocked_by_others.insert(id.clone());
                }
                self.accounts.push((id, format!("shared{address}@example.com")));
            }
        }
    }

    /// Runs the history and returns its decisions, to compare with another run of the same seed.
    pub(crate) async fn run(mut self) -> Vec<String> {
        // The daemon can't match accounts to a deleted user whose address it never read, so it reads all users once.
        self.world.sync().await;
        for _ in 0..self.rng.usize(self.kind.steps()) {
            match self.kind {
                Kind::Hours => self.step().await,
                Kind::Weeks => self.long_step().await,
            }
        }
        self.finish_all_work().await;
        self.check(true).await;
        // Then an operator approves all held users until none remains, so that no difference can be excused.
        for _ in 0..6 {
            if self.world.approve_without_a_look(None).await == 0 {
                break;
            }
            self.world.let_pass(2 * HOUR).await;
        }
        self.world.reconcile().await;
        self.world.let_pass(2 * HOUR).await;
        self.check(false).await;
        self.check_idle().await;
        if self.kind == Kind::Weeks && self.rng.u8(..4) == 0 {
            self.check_purge().await;
        }
        let decisions = self.world.store().decisions(None, None, 0, 100_000).await.unwrap();
        // Leaves out error texts because they contain port numbers.
        let summary = |row: okta_auth0_sync::store::DecisionRow| {
            format!(
                "{} {:?} {:?} {} {:?} {:?}",
                row.at, row.okta_user_id, row.auth0_user_id, row.outcome, row.before, row.after
            )
        };
        decisions.into_iter().map(summary).collect()
    }

    pub(crate) async fn step(&mut self) {
        match self.rng.u8(..100) {
            0..=34 => self.change_user(),
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
            48..=57 => self.add_fault(),
            58..=61 => {
                self.log_step("faults end".to_owned());
                self.world.okta().faults().clear();
                self.world.auth0().faults().clear();
            }
            62..=76 => {
                self.log_step("poll and look".to_owned());
                self.poll().await;
                self.look().await;
            }
            77..=82 => {
                let span = *self.rng.choice(&[SECOND, 5 * SECOND, MINUTE, 10 * MINUTE, HOUR, 3 * HOUR]).unwrap();
                self.log_step(format!("{span:?} pass"));
                self.world.passes(span);
                self.look().await;
            }
            83..=86 => {
                self.log_step("restart".to_owned());
                self.world.restart(|_| ()).await;
            }
            87..=89 => {
                self.log_step("approve all".to_owned());
                self.world.approve_without_a_look(None).await;
            }
            90..=92 => {
                self.log_step("reconcile".to_owned());
                self.reconcile(Scope::All).await;
            }
            93..=96 => self.edit_account(),
            97 => self.link_accounts(),
            98 => self.copy_or_restore().await,
            _ => self.give_up_cursor().await,
        }
    }

    /// Reconciles; remote failures may end it early.
    pub(crate) async fn reconcile(&mut self, scope: Scope) {
        self.world.engine().begin_reconcile(scope, "a history").await.unwrap();
        if let Err(PassError::Store(error)) = self.world.engine().reconcile(&CancellationToken::new()).await {
            panic!("{error}");
        }
    }

    /// Changes a random user in Okta.
    fn change_user(&mut self) {
        let Some((id, _)) = self.rng.choice(&self.users).cloned() else { return };
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
                "deactivated without a log entry"
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
            // The daemon can't match accounts to a user who is deleted before their address was read.
            (_, 9) if !self.unread.contains(&id) => {
                okta.delete(&id);
                "deleted"
            }
            _ => return,
        };
        self.log_step(format!("{id} {done}"));
    }

    fn add_fault(&mut self) {
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
        self.log_step(format!("{method} {path} {times} times: {effect:?}"));
        let faults = if okta { self.world.okta().faults() } else { self.world.auth0().faults() };
        faults.add(Fault::new(method, path, effect).times(times));
    }

    /// Edits an account as another tool would.
    fn edit_account(&mut self) {
        let Some((account, _)) = self.rng.choice(&self.accounts).cloned() else { return };
        let foreign = self.blocked_by_others.contains(&account);
        let choice = self.rng.u8(..5);
        self.log_step(format!("another tool edits {account}: {choice}"));
        self.edited.insert(account.clone());
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

    pub(crate) async fn poll(&self) {
        self.world.passes(2 * SECOND);
        // Remotes may fail here, but the store must not.
        if let Err(PassError::Store(error)) = self.world.engine().poll(&CancellationToken::new()).await {
            panic!("{error}");
        }
    }

    /// Looks at some of the due users, two at a time or one after the other.
    pub(crate) async fn look(&mut self) {
        let due = self.world.store().due(self.world.now(), 100).await.unwrap();
        let wanted = self.rng.usize(..=due.len());
        // The order of two concurrent looks depends on the machine, and a long history must be reproducible.
        let concurrently = self.kind == Kind::Hours && self.rng.bool();
        for pair in due[..wanted].chunks(if concurrently { 2 } else { 1 }) {
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

    /// Ends all faults, completes the log and lets the daemon finish its work.
    async fn finish_all_work(&mut self) {
        self.log_step("all faults end; finishing the work".to_owned());
        if self.kind == Kind::Weeks {
            self.restore_access().await;
        }
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

    fn suspension_denies(&self) -> bool {
        self.world.options.rules.policy.deny_statuses.contains(&Status::Suspended)
    }

    async fn held(&self) -> BTreeSet<String> {
        let held =
            self.world.store().users_with_outcome(okta_auth0_sync::domain::OutcomeKind::Held, 100).await.unwrap();
        held.into_iter().map(|user| user.okta_user_id).collect()
    }

    async fn check(&self, allow_held: bool) {
        let users: Vec<FinalUser> = self
            .users
            .iter()
            .map(|(id, email)| {
                let user = self.world.okta().user(id);
                let mut status = user.and_then(|user| user["status"].as_str().map(str::to_owned));
                if status.as_deref() == Some("SUSPENDED") && self.suspension_denies() {
                    status = Some("SUSPENDED, which denies".to_owned());
                }
                // The address of a user whom neither Okta nor the state has any more is unknown.
                let gone = if self.forgotten.contains(id) { "FORGOTTEN" } else { "DELETED" };
                FinalUser {
                    id: id.to_string(),
                    email: email.clone(),
                    status: status.unwrap_or_else(|| gone.to_owned()),
                }
            })
            .collect();
        let held = self.held().await;
        assert!(allow_held || held.is_empty(), "still held after approval: {held:?}");
        let mut violations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, _) in &self.accounts {
            let Some(account) = self.world.auth0().user(id) else { continue };
            let mut found = model::violations(&account, &users, &held, self.blocked_by_others.contains(id));
            if self.restored && self.edited.contains(id) {
                // Neither the state nor the mark says any more that the rest is ours: an alarm reports it as another flow's.
                found.retain(|violation| !model::LEFTOVERS.contains(&violation.as_str()));
            }
            if !found.is_empty() {
                violations.insert(format!("{account:#}"), found);
            }
        }
        assert!(violations.is_empty(), "{violations:#?}\n{users:#?}\nheld: {held:?}");
    }

    /// Checks that no work is pending, that the state matches Auth0, that the decision log is intact, and that a second pass
    /// writes nothing.
    async fn check_idle(&mut self) {
        let status = self.world.store().status().await.unwrap().unwrap();
        assert_eq!((status.pending, status.failed, status.held, status.quarantined), (0, 0, 0, 0));
        let mut known = BTreeSet::new();
        for (id, _) in &self.users {
            let accounts = self.world.store().accounts_of(id).await.unwrap();
            known.extend(accounts.into_iter().filter(|account| account.denied).map(|account| account.auth0_user_id));
        }
        let accounts = self.world.auth0().users();
        let is_marked = |user: &&Value| user["app_metadata"]["okta_sync"]["deactivated"] == "true";
        let marked: BTreeSet<String> =
            accounts.iter().filter(is_marked).map(|user| user["user_id"].as_str().unwrap().to_owned()).collect();
        let linked: BTreeMap<&str, BTreeSet<String>> =
            accounts.iter().map(|user| (user["user_id"].as_str().unwrap(), model::addresses_of(user))).collect();
        // With the verdict Leave (suspended, never activated) accounts are not read, so the state still lists marks that
        // other tools removed.
        let unread_addresses: BTreeSet<String> = self
            .users
            .iter()
            .filter(|(id, _)| {
                self.world.okta().user(id).map_or(self.forgotten.contains(id), |user| {
                    user["status"] == "STAGED" || (user["status"] == "SUSPENDED" && !self.suspension_denies())
                })
            })
            .map(|(_, email)| email.to_lowercase())
            .collect();
        let is_read = |id: &&String| {
            // An account that was linked into another one is gone.
            let address = self.accounts.iter().find(|(account, _)| account == *id).map(|(_, address)| address);
            let own = BTreeSet::from([address.unwrap().clone()]);
            linked.get(id.as_str()).unwrap_or(&own).is_disjoint(&unread_addresses)
        };
        let (known, marked): (BTreeSet<_>, BTreeSet<_>) =
            (known.iter().filter(is_read).collect(), marked.iter().filter(is_read).collect());
        assert_eq!(known, marked, "the state and Auth0 list different marks");
        let before: Vec<Value> = self.world.auth0().users();
        self.world.auth0().journal().clear();
        for (id, _) in self.users.clone() {
            self.world.request(&id).await;
        }
        self.world.reconcile().await;
        assert_eq!(self.world.writes(), 0, "a second pass wrote something");
        assert_eq!(before, self.world.auth0().users());
        self.world.store().verify_decisions().await.unwrap();
    }
}
