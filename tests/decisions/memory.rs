//! Random histories against `decide` alone: both tenants and the store are a few vectors, so that tens of thousands of
//! histories take seconds. At the end everything must be as the model says, and another look must write nothing.
//!
//! `OKTA_AUTH0_SYNC_SEED=… cargo test --test decisions memory_histories` tells one history again;
//! `OKTA_AUTH0_SYNC_HISTORIES=…` tells that many, from a seed of the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use okta_auth0_sync::domain::account::Mirror;
use okta_auth0_sync::domain::decide::{
    self, Action, Assessment, Course, Evidence, Found, FoundBy, Holders, Plan, Step,
};
use okta_auth0_sync::domain::mark::MarkOptions;
use okta_auth0_sync::domain::{
    Account, AccountId, Address, Cause, EventSeen, Held, KnownUser, MarkedAccount, OktaUser, OktaUserId, Outcome,
    Patch, Policy, Rules, Signal, Skipped, Status, Timestamp, Verdict, clock,
};
use serde_json::{Value, json};

use super::model::{self, Person};

const FIRST_SEED: u64 = 20_261_129;
const HISTORIES: u64 = 10_000;
const EMAILS: [&str; 4] = ["Ann@example.com", "ann@example.com", "bob@example.com", "team@example.com"];
const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn memory_histories_match_model() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("OKTA_AUTH0_SYNC_SEED") {
        return Memory::new(seed, true).run();
    }
    let (first, wanted) = match number("OKTA_AUTH0_SYNC_HISTORIES") {
        Some(wanted) => (fastrand::u64(..u64::MAX / 2), wanted),
        None => (FIRST_SEED, HISTORIES),
    };
    let looks: u64 = (first..first + wanted)
        .map(|seed| {
            let mut memory = Memory::new(seed, false);
            memory.run();
            memory.looks
        })
        .sum();
    println!("{wanted} histories, {looks} looks, seeds from {first}");
}

/// What the store has of a user.
#[derive(Debug, Default)]
struct UserRow {
    status: Option<Status>,
    left_seen: bool,
    approved: bool,
    recheck_step: u32,
    addresses: Vec<Address>,
    events: Vec<EventSeen>,
    outcome: Option<Outcome>,
    depends_on: Option<OktaUserId>,
    due: Option<Cause>,
}

/// What the store has of an account: one owner at a time.
#[derive(Clone, Debug)]
struct AccountRow {
    owner: OktaUserId,
    denied: bool,
    blocked: bool,
    /// 1: a mark was sent and the answer is not known; 2: with a block.
    unconfirmed: u8,
}

/// What goes wrong in a look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// The first PATCH is applied, and its answer is lost.
    LostAnswer,
    /// The first PATCH fails.
    FailedWrite,
}

struct Memory {
    seed: u64,
    /// Everything that changes is in the log: then the queue alone has to lead to the right end, without a reconcile.
    all_in_log: bool,
    rng: Rng,
    now: Timestamp,
    rules: Rules,
    /// In Okta; without those who are deleted.
    okta: Vec<OktaUser>,
    /// All users who ever were, with their address.
    people: Vec<(OktaUserId, Address)>,
    auth0: Vec<Account>,
    blocked_by_others: BTreeSet<AccountId>,
    users: BTreeMap<OktaUserId, UserRow>,
    accounts: BTreeMap<AccountId, AccountRow>,
    looks: u64,
    writes: u64,
    is_told: bool,
}

impl Memory {
    fn new(seed: u64, is_told: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rules = Rules {
            policy: Policy::default(),
            mark: MarkOptions { mirror: true, block: rng.bool() },
            connections: Vec::new(),
            require_verified_email: false,
            end_sessions: false,
        };
        Self {
            seed,
            all_in_log: rng.bool(),
            rng,
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
            rules,
            okta: Vec::new(),
            people: Vec::new(),
            auth0: Vec::new(),
            blocked_by_others: BTreeSet::new(),
            users: BTreeMap::new(),
            accounts: BTreeMap::new(),
            looks: 0,
            writes: 0,
            is_told,
        }
    }

    fn run(&mut self) {
        for _ in 0..2 {
            self.joins();
            self.signs_up();
        }
        for _ in 0..self.rng.usize(10..45) {
            self.step();
        }
        self.tell(|| "the end".to_owned());
        if self.all_in_log {
            self.work_off();
        } else {
            self.reconcile();
            self.reconcile();
        }
        self.check();
    }

    /// Notes a step of a history that is told again.
    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.is_told {
            println!("{}", text());
        }
    }

    fn step(&mut self) {
        let seconds = self.rng.u64(0..2000);
        self.now = clock::add(self.now, Duration::from_secs(seconds));
        match self.rng.u8(0..20) {
            0 => self.joins(),
            1 if !self.all_in_log => self.signs_up(),
            2..=8 => self.changes_status(),
            9 => self.is_deleted(),
            10 | 11 if !self.all_in_log => self.account_is_edited(),
            12 => self.is_approved(),
            13 if !self.all_in_log => self.reconcile(),
            _ => self.look_at_due(),
        }
    }

    fn joins(&mut self) {
        let id = OktaUserId::parse(&format!("00u{}", self.people.len())).unwrap();
        let email = Address::parse(EMAILS[self.rng.usize(..EMAILS.len())]).unwrap();
        self.tell(|| format!("{id} joins as {email:?}"));
        self.okta.push(OktaUser {
            id: id.clone(),
            login: id.to_string(),
            email: Some(email.clone()),
            status: Status::Active,
            transitional: false,
        });
        self.people.push((id.clone(), email));
        self.happens(&id, "user.lifecycle.activate");
    }

    fn signs_up(&mut self) {
        let email = Address::parse(EMAILS[self.rng.usize(..EMAILS.len())]).unwrap();
        let id = AccountId::new(format!("auth0|{}", self.auth0.len()));
        self.tell(|| format!("{id} signs up as {email:?}"));
        self.auth0.push(Account {
            id,
            email: Some(email),
            email_verified: true,
            connections: vec!["db".to_owned()],
            blocked: false,
            mark: None,
            mirror: Mirror::Absent,
        });
    }

    fn anybody(&mut self) -> Option<usize> {
        (!self.okta.is_empty()).then(|| self.rng.usize(..self.okta.len()))
    }

    fn changes_status(&mut self) {
        let Some(index) = self.anybody() else { return };
        let (status, event) = match self.rng.u8(0..8) {
            0..=3 => (Status::Deprovisioned, "user.lifecycle.deactivate"),
            4 | 5 => (Status::Active, "user.lifecycle.reactivate"),
            6 => (Status::Suspended, "user.lifecycle.suspend"),
            _ => (Status::Staged, "user.lifecycle.unknown"),
        };
        let id = self.okta[index].id.clone();
        self.tell(|| format!("{id} is {status}"));
        self.okta[index].status = status;
        // Now and then only a reconcile finds out.
        if self.all_in_log || self.rng.u8(0..6) > 0 {
            self.happens(&id, event);
        }
    }

    fn is_deleted(&mut self) {
        let Some(index) = self.anybody() else { return };
        let id = self.okta.remove(index).id;
        self.tell(|| format!("{id} is deleted"));
        if self.all_in_log || self.rng.u8(0..4) > 0 {
            self.happens(&id, "user.lifecycle.delete.initiated");
        }
    }

    fn account_is_edited(&mut self) {
        if self.auth0.is_empty() {
            return;
        }
        let index = self.rng.usize(..self.auth0.len());
        let what = self.rng.u8(0..4);
        let account = &mut self.auth0[index];
        let by_others = self.blocked_by_others.contains(&account.id);
        // A block that we sent, and whose response was lost, looks like a block by others.
        let may_block = !account.blocked
            && account.mark.as_ref().is_none_or(|mark| !mark.blocked)
            && self.accounts.get(&account.id).is_none_or(|row| !row.blocked && row.unconfirmed < 2);
        let told = format!("edit {what} of {}", account.id);
        match what {
            0 => account.mark = None,
            1 if account.mirror == Mirror::On => account.mirror = Mirror::Off,
            2 if !by_others => account.blocked = false,
            3 if may_block => {
                account.blocked = true;
                self.blocked_by_others.insert(account.id.clone());
            }
            _ => {}
        }
        self.tell(|| told);
    }

    fn is_approved(&mut self) {
        let held = |row: &UserRow| matches!(row.outcome, Some(Outcome::Held(_)));
        let held: Vec<OktaUserId> = self.users.iter().filter(|(_, row)| held(row)).map(|(id, _)| id.clone()).collect();
        if let Some(id) = self.rng.choice(&held) {
            self.tell(|| format!("{id} is approved"));
            if let Some(row) = self.users.get_mut(id) {
                row.approved = true;
                row.due = Some(Cause::Command);
                row.recheck_step = 0;
            }
        }
    }

    /// An event of the log arrives.
    fn happens(&mut self, id: &OktaUserId, event_type: &str) {
        let now = self.now;
        let row = self.users.entry(id.clone()).or_default();
        row.left_seen |= Signal::of(event_type).is_evidence_of_leaving();
        row.due = Some(Cause::Event);
        row.recheck_step = 0;
        row.events.push(EventSeen {
            id: format!("{id}-{}", row.events.len()),
            event_type: event_type.to_owned(),
            published: now,
            received_at: now,
            actor: None,
            open: true,
        });
    }

    fn look_at_due(&mut self) {
        let due: Vec<OktaUserId> =
            self.users.iter().filter(|(_, row)| row.due.is_some()).map(|(id, _)| id.clone()).collect();
        let trouble = match self.rng.u8(0..8) {
            0 => Trouble::LostAnswer,
            1 => Trouble::FailedWrite,
            _ => Trouble::None,
        };
        if let Some(id) = self.rng.choice(&due).cloned() {
            self.look(&id, trouble);
        }
    }

    fn reconcile(&mut self) {
        let ids: Vec<OktaUserId> = self.users.keys().cloned().collect();
        for id in &ids {
            if let Some(row) = self.users.get_mut(id) {
                row.due.get_or_insert(Cause::Reconcile);
            }
        }
        self.work_off();
    }

    /// Looks at all users who are due, and at those whom that wakes.
    fn work_off(&mut self) {
        let mut left = self.users.len() * 40;
        while let Some(id) = self.users.iter().find(|(_, row)| row.due.is_some()).map(|(id, _)| id.clone()) {
            self.look(&id, Trouble::None);
            left -= 1;
            assert!(left > 0, "seed {}: users wake each other forever", self.seed);
        }
    }

    fn known(&self, id: &OktaUserId) -> KnownUser {
        let row = &self.users[id];
        let marked = |(account, of): (&AccountId, &AccountRow)| MarkedAccount {
            id: account.clone(),
            email: None,
            denied: of.denied,
            blocked: of.blocked || of.unconfirmed == 2,
            sessions_owed: false,
            unconfirmed: of.unconfirmed > 0,
        };
        KnownUser {
            id: id.clone(),
            cause: row.due.unwrap_or(Cause::Command),
            approved: row.approved,
            recheck_step: row.recheck_step,
            status: row.status.clone(),
            left_seen: row.left_seen,
            addresses: row.addresses.clone(),
            accounts: self.accounts.iter().filter(|(_, of)| of.owner == *id).map(marked).collect(),
            events: row
                .events
                .iter()
                .filter(|e| e.open || clock::since(self.now, e.received_at) < HOUR)
                .cloned()
                .collect(),
        }
    }

    fn look(&mut self, id: &OktaUserId, trouble: Trouble) {
        self.looks += 1;
        let known = self.known(id);
        let user = self.okta.iter().find(|user| user.id == *id).cloned();
        let policy = self.rules.policy.clone();
        let assessment = decide::assess(&known, user, &policy);
        let mut end = End { denies: matches!(assessment.course, Course::Deny(_)), ..End::default() };
        let done = match &assessment.course {
            Course::Vanished => {
                end.merge(Outcome::Held(Held::Vanished));
                true
            }
            Course::Leave => {
                end.merge(Outcome::Unchanged);
                true
            }
            Course::Skip(why) => {
                end.merge(Outcome::Skipped(why.clone()));
                true
            }
            Course::Allow { .. } => {
                end.merge(Outcome::Unchanged);
                self.rounds(&known, &assessment, &[], trouble, &mut end)
            }
            Course::Deny(addresses) => self.rounds(&known, &assessment, addresses, trouble, &mut end),
        };
        self.tell(|| format!("look at {id} for {:?}: {:?}", known.cause, end.outcome));
        // Without the answer nothing is stored: the next look finds out.
        if done {
            self.settle(&known, &assessment, end);
        }
    }

    /// The rounds of a look; `false` if it was cut off.
    fn rounds(
        &mut self,
        known: &KnownUser,
        assessment: &Assessment<'_>,
        addresses: &[Address],
        mut trouble: Trouble,
        end: &mut End,
    ) -> bool {
        let by_address = self.auth0.iter().filter(|account| decide::is_at(account, addresses));
        let first: Vec<AccountId> = by_address.map(|account| account.id.clone()).collect();
        let marked = decide::marked_accounts(known, &assessment.course);
        let second: Vec<AccountId> = marked.into_iter().map(|account| account.id.clone()).collect();
        let mut done = BTreeSet::new();
        for (ids, by) in [(first, FoundBy::Address), (second, FoundBy::Mark)] {
            let plan = self.plan(known, assessment, ids, by, &done);
            done.extend(plan.steps.iter().map(|step| step.id.clone()));
            for step in plan.steps {
                if !self.apply(known, step, &mut trouble, end) {
                    return false;
                }
            }
        }
        if done.is_empty() && matches!(assessment.course, Course::Deny(_)) {
            end.merge(Outcome::NoAccount);
        }
        true
    }

    fn plan(
        &self,
        known: &KnownUser,
        assessment: &Assessment<'_>,
        ids: Vec<AccountId>,
        by: FoundBy,
        done: &BTreeSet<AccountId>,
    ) -> Plan {
        let mut holders = Holders::default();
        for other in self.okta.iter().filter(|other| other.id != known.id) {
            for address in EMAILS.iter().filter_map(|email| Address::parse(email)) {
                if self.rules.policy.is_shared_with(&address, other) {
                    holders.note(&address, &other.id);
                }
            }
        }
        let found = |id: AccountId| Found {
            account: self.auth0.iter().find(|account| account.id == id).cloned(),
            blocked_by_us: self.accounts.get(&id).is_some_and(|row| row.blocked || row.unconfirmed == 2),
            id,
            by,
        };
        let accounts = ids.into_iter().map(found).collect();
        decide::decide(&Evidence { known, assessment, accounts, holders, done }, &self.rules, self.now)
    }

    /// Carries out a step; `false` if the look ends with it.
    fn apply(&mut self, known: &KnownUser, step: Step, trouble: &mut Trouble, end: &mut End) -> bool {
        let Some(account) = self.auth0.iter_mut().find(|account| account.id == step.id) else { return true };
        let row = |denied, blocked| AccountRow { owner: known.id.clone(), denied, blocked, unconfirmed: 0 };
        let stored = self.accounts.get(&step.id).cloned();
        let ours = stored.as_ref().filter(|stored| stored.owner == known.id);
        match &step.action {
            Action::Deny { patch, .. } | Action::Lift(patch) => {
                if patch.mark.deactivated {
                    intend(&mut self.accounts, known, &step.id, patch.mark.blocked);
                }
                let trouble = std::mem::replace(trouble, Trouble::None);
                if trouble == Trouble::FailedWrite {
                    end.merge(Outcome::Retry { after: Duration::from_secs(1), why: "500".to_owned() });
                } else {
                    patched(account, patch);
                    self.writes += 1;
                    if trouble == Trouble::LostAnswer {
                        return false;
                    }
                    end.lifted |= !patch.mark.deactivated;
                    end.merge(Outcome::Applied);
                    end.rows.push((step.id.clone(), row(patch.mark.deactivated, patch.mark.blocked)));
                }
            }
            Action::Keep | Action::Hold(_) => {
                let mark = account.mark.as_ref().filter(|mark| mark.okta_user_id.is_some());
                let blocked = mark.map_or(ours.is_some_and(|ours| ours.blocked), |mark| mark.blocked);
                end.rows.push((step.id.clone(), row(true, blocked)));
            }
            Action::Confirm => {
                let blocked = account.mark.as_ref().is_some_and(|mark| mark.blocked);
                end.rows.push((step.id.clone(), row(true, blocked)));
            }
            Action::Skip(_) if !ours.is_some_and(|ours| ours.denied || ours.unconfirmed > 0) => {}
            Action::Theirs(_) if end.denies => {}
            Action::Skip(_) | Action::Theirs(_) | Action::Open => {
                end.rows.push((step.id.clone(), row(false, false)));
            }
            Action::OutOfScope(_) | Action::Gone => {}
        }
        if let Some(outcome) = step.outcome {
            end.merge(outcome);
        }
        true
    }

    fn settle(&mut self, known: &KnownUser, assessment: &Assessment<'_>, end: End) {
        let outcome = end.outcome.unwrap_or(Outcome::Unchanged);
        let conclusion = decide::conclude(known, Some(assessment), &outcome, end.lifted, &self.rules, self.now);
        for (id, row) in end.rows {
            let stays = |old: &AccountRow| old.owner != row.owner && old.denied && !row.denied;
            if !self.accounts.get(&id).is_some_and(stays) {
                self.accounts.insert(id, row);
            }
        }
        let addresses = assessment.read.as_ref().map(|read| read.addresses.clone()).unwrap_or_default();
        let keys: BTreeSet<String> = addresses.iter().map(Address::key).collect();
        for (id, row) in self.users.iter_mut().filter(|(id, _)| **id != known.id) {
            let shares = row.addresses.iter().any(|address| keys.contains(&address.key()));
            let depends = row.depends_on.as_ref() == Some(&known.id);
            if (depends && conclusion.wake.includes_dependents()) || (shares && conclusion.wake.includes_sharers()) {
                if self.is_told {
                    println!("{id} is woken by {}", known.id);
                }
                row.due = Some(Cause::Neighbour);
                row.recheck_step = 0;
            }
        }
        let Some(row) = self.users.get_mut(&known.id) else { return };
        if let Some(read) = &assessment.read {
            row.status = Some(read.status.clone());
            row.left_seen = read.status.has_left();
            row.addresses.clone_from(&read.addresses);
        }
        let waits = matches!(outcome, Outcome::Retry { .. });
        row.due = waits.then_some(known.cause);
        row.recheck_step = conclusion.recheck_step;
        row.depends_on = match &outcome {
            Outcome::Skipped(Skipped::SharedAddress(other)) | Outcome::Held(Held::AddressReused(other)) => {
                Some(other.clone())
            }
            _ => None,
        };
        if outcome.settles() {
            row.approved = false;
            row.events.iter_mut().for_each(|event| event.open = false);
        }
        row.outcome = Some(outcome);
    }

    /// Of a user who is gone before a look ever read them, the address is not known: their accounts are left alone.
    fn status_of_gone(&self, id: &OktaUserId) -> &'static str {
        if self.users[id].addresses.is_empty() { "UNREAD" } else { "DELETED" }
    }

    fn check(&mut self) {
        let held: BTreeSet<String> = self
            .users
            .iter()
            .filter(|(_, row)| matches!(row.outcome, Some(Outcome::Held(_))))
            .map(|(id, _)| id.to_string())
            .collect();
        let people: Vec<Person> = self
            .people
            .iter()
            .map(|(id, email)| Person {
                id: id.to_string(),
                email: email.as_str().to_owned(),
                status: self
                    .okta
                    .iter()
                    .find(|user| user.id == *id)
                    .map_or_else(|| self.status_of_gone(id).to_owned(), |user| user.status.to_string()),
            })
            .collect();
        for account in &self.auth0 {
            let foreign = self.blocked_by_others.contains(&account.id);
            let wrongs = model::wrongs(&shown(account), &people, &held, foreign);
            assert!(wrongs.is_empty(), "seed {}: {wrongs:?}\n{account:#?}\n{people:#?}\nheld: {held:?}", self.seed);
        }
        for (id, row) in &self.users {
            let held = row.outcome == Some(Outcome::Held(Held::Vanished));
            assert!(!held || !self.all_in_log, "seed {}: {id} left by the log and counts as vanished", self.seed);
        }
        let before = self.writes;
        self.reconcile();
        assert_eq!(self.writes, before, "seed {}: another look writes", self.seed);
        for (id, row) in &self.users {
            if matches!(row.outcome, Some(Outcome::Unchanged | Outcome::NoAccount))
                && row.status.as_ref().is_some_and(|status| self.rules.policy.verdict(status) == Verdict::Deny)
            {
                let known = self.known(id);
                let at = |account: &&Account| decide::is_at(account, &known.addresses);
                let accounts = self.auth0.iter().filter(at).cloned().collect();
                let agrees = decide::agrees(&known, &known.addresses, accounts, &self.rules, self.now);
                assert!(agrees, "seed {}: a reconcile would not agree about {id}", self.seed);
            }
        }
    }
}

/// What a look comes to.
#[derive(Default)]
struct End {
    outcome: Option<Outcome>,
    rows: Vec<(AccountId, AccountRow)>,
    lifted: bool,
    denies: bool,
}

impl End {
    fn merge(&mut self, outcome: Outcome) {
        self.outcome = Some(match self.outcome.take() {
            Some(known) => known.merge(outcome),
            None => outcome,
        });
    }
}

/// As the store notes a mark before it is sent.
fn intend(accounts: &mut BTreeMap<AccountId, AccountRow>, known: &KnownUser, id: &AccountId, block: bool) {
    let unconfirmed = if block { 2 } else { 1 };
    let row = accounts.entry(id.clone()).or_insert_with(|| AccountRow {
        owner: known.id.clone(),
        denied: false,
        blocked: false,
        unconfirmed,
    });
    if !row.denied {
        row.owner = known.id.clone();
    }
    row.unconfirmed = row.unconfirmed.max(unconfirmed);
}

fn patched(account: &mut Account, patch: &Patch) {
    account.mark = Some(patch.mark.clone());
    match patch.mirror {
        Some(true) => account.mirror = Mirror::On,
        Some(false) => account.mirror = Mirror::Off,
        None => {}
    }
    account.blocked = patch.blocked.unwrap_or(account.blocked);
}

/// The account as Auth0 shows it.
fn shown(account: &Account) -> Value {
    let mut user = json!({ "email": account.email.as_ref().map(Address::as_str), "blocked": account.blocked });
    if let Some(mark) = &account.mark {
        user["app_metadata"]["okta_sync"] = json!({
            "deactivated": mark.deactivated.to_string(), "blocked": mark.blocked,
            "okta_user_id": mark.okta_user_id.as_ref().map(OktaUserId::as_str),
        });
    }
    if account.mirror == Mirror::On {
        user["user_metadata"]["okta"]["deactivated"] = json!("true");
    }
    user
}
