//! Random histories against `decide` alone: both tenants and the store are in memory, so that tens of thousands of
//! histories take seconds. The final state must match the model, and another look must write nothing.
//!
//! `OKTA_AUTH0_SYNC_SEED=… cargo test --test all memory_histories` replays one history and prints its steps;
//! `OKTA_AUTH0_SYNC_HISTORIES=…` runs that number of histories from a random first seed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use okta_auth0_sync::domain::account::{Identifier, Mirror, OtherMarks};
use okta_auth0_sync::domain::decide::{
    self, Action, Assessment, Course, Evidence, Found, FoundBy, Holders, Plan, Step,
};
use okta_auth0_sync::domain::mark::{self, Difference, Known, Mark, MarkOptions, Reason};
use okta_auth0_sync::domain::{
    Account, AccountId, Address, Cause, EventSeen, Held, KnownUser, MarkedAccount, OktaUser, OktaUserId, Outcome,
    Patch, Policy, Rules, Signal, Skipped, Status, Timestamp, Verdict, clock,
};
use serde_json::{Value, json};

use super::model::{self, FinalUser};

const FIRST_SEED: u64 = 20_261_129;
const HISTORIES: u64 = 10_000;
const EMAILS: [&str; 4] = ["Ann@example.com", "ann@example.com", "bob@example.com", "team@example.com"];
/// The id of our Okta org.
const ORG: &str = "00oours";
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

/// The stored row of a user.
#[derive(Debug, Default)]
struct UserRow {
    status: Option<Status>,
    status_at: Option<Timestamp>,
    left_at: Option<Timestamp>,
    returned_at: Option<Timestamp>,
    approved: Option<Held>,
    recheck_step: u32,
    addresses: Vec<Address>,
    events: Vec<EventSeen>,
    outcome: Option<Outcome>,
    depends_on: Option<OktaUserId>,
    due: Option<Cause>,
}

/// The stored row of an account; it has one owner at a time.
#[derive(Clone, Debug)]
struct AccountRow {
    owner: OktaUserId,
    denied: bool,
    blocked: bool,
    /// 1: a mark was sent and the response is unknown; 2: the mark included a block.
    unconfirmed: u8,
}

/// The fault that a look meets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookFault {
    None,
    /// Auth0 applies the first PATCH and its response is lost.
    LostResponse,
    /// The first PATCH fails.
    FailedWrite,
}

struct Memory {
    seed: u64,
    /// Each change has a log entry, so the due queue alone must reach the right state without a reconcile.
    all_in_log: bool,
    rng: Rng,
    now: Timestamp,
    rules: Rules,
    /// Users in Okta, without deleted ones.
    okta: Vec<OktaUser>,
    /// All users that ever existed, with their address.
    all_users: Vec<(OktaUserId, Address)>,
    auth0: Vec<Account>,
    /// The marks of another installation, which denies users of another Okta org under a metadata key of its own.
    other_marks: BTreeMap<AccountId, Mark>,
    other_options: MarkOptions,
    blocked_by_others: BTreeSet<AccountId>,
    /// Active users whom our role does not see any more, with the accounts that were marked for them at that time.
    hidden: BTreeMap<OktaUserId, BTreeSet<AccountId>>,
    /// Users whom an operator approved at some time.
    approved: BTreeSet<OktaUserId>,
    users: BTreeMap<OktaUserId, UserRow>,
    accounts: BTreeMap<AccountId, AccountRow>,
    looks: u64,
    writes: u64,
    verbose: bool,
}

impl Memory {
    fn new(seed: u64, verbose: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rules = Rules {
            policy: Policy::default(),
            mark: MarkOptions { mirror: true, block: rng.bool() },
            connections: Vec::new(),
            require_verified_email: false,
            trusted_connections: Vec::new(),
            end_sessions: false,
        };
        let other_options = MarkOptions { mirror: rng.bool(), block: rng.bool() };
        Self {
            seed,
            all_in_log: rng.bool(),
            rng,
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
            rules,
            okta: Vec::new(),
            all_users: Vec::new(),
            auth0: Vec::new(),
            other_marks: BTreeMap::new(),
            other_options,
            blocked_by_others: BTreeSet::new(),
            hidden: BTreeMap::new(),
            approved: BTreeSet::new(),
            users: BTreeMap::new(),
            accounts: BTreeMap::new(),
            looks: 0,
            writes: 0,
            verbose,
        }
    }

    fn run(&mut self) {
        for _ in 0..2 {
            self.add_user();
            self.add_account();
        }
        for _ in 0..self.rng.usize(10..45) {
            self.step();
        }
        self.trace(|| "finishing the work".to_owned());
        self.check_others_denials();
        // The final state without another installation: nothing of what it did may be left.
        for index in 0..self.auth0.len() {
            self.other_installation(index, false);
        }
        if self.all_in_log {
            self.drain_queue();
        } else {
            self.reconcile();
            self.reconcile();
        }
        self.check();
    }

    /// Prints a step if the history is a replay.
    fn trace(&mut self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", text());
        }
    }

    fn step(&mut self) {
        let seconds = self.rng.u64(0..2000);
        self.now = clock::add(self.now, Duration::from_secs(seconds));
        match self.rng.u8(0..26) {
            0 => self.add_user(),
            1 if !self.all_in_log => self.add_account(),
            2..=8 => self.change_status(),
            9 => self.delete_user(),
            10 | 11 if !self.all_in_log => self.edit_account(),
            12 => self.approve_one(),
            13 if !self.all_in_log => self.reconcile(),
            20 | 21 => self.fail_to_change(),
            // A hidden user wakes no other, so the users who share the address need a reconcile.
            22 if !self.all_in_log => self.hide_user(),
            // Our queue does not learn what another installation writes, so a reconcile has to follow.
            23..=25 if !self.all_in_log => self.other_installation_writes(),
            _ => self.look_at_due(),
        }
    }

    fn add_user(&mut self) {
        let id = OktaUserId::parse(&format!("00u{}", self.all_users.len())).unwrap();
        let email = Address::parse(EMAILS[self.rng.usize(..EMAILS.len())]).unwrap();
        self.trace(|| format!("{id} joins as {email:?}"));
        self.okta.push(OktaUser {
            id: id.clone(),
            login: id.to_string(),
            email: Some(email.clone()),
            status: Status::Active,
            transitional: false,
        });
        self.all_users.push((id.clone(), email));
        self.record_event(&id, "user.lifecycle.activate");
    }

    fn add_account(&mut self) {
        let email = Address::parse(EMAILS[self.rng.usize(..EMAILS.len())]).unwrap();
        let id = AccountId::new(format!("auth0|{}", self.auth0.len()));
        self.trace(|| format!("{id} signs up as {email:?}"));
        self.auth0.push(Account {
            id,
            email: Some(email),
            email_verified: true,
            identities: Vec::new(),
            blocked: false,
            mark: None,
            former_key: None,
            keeps_former: false,
            keyed: Vec::new(),
            other_marks: OtherMarks::default(),
            unread: false,
            mirror: Mirror::Absent,
        });
    }

    fn random_user(&mut self) -> Option<usize> {
        (!self.okta.is_empty()).then(|| self.rng.usize(..self.okta.len()))
    }

    fn change_status(&mut self) {
        let Some(index) = self.random_user() else { return };
        let (status, event) = match self.rng.u8(0..8) {
            0..=3 => (Status::Deprovisioned, "user.lifecycle.deactivate"),
            4 | 5 => (Status::Active, "user.lifecycle.reactivate"),
            6 => (Status::Suspended, "user.lifecycle.suspend"),
            _ => (Status::Staged, "user.lifecycle.unknown"),
        };
        let id = self.okta[index].id.clone();
        self.trace(|| format!("{id} is {status}"));
        self.okta[index].status = status;
        // Some changes have no log entry; only a reconcile finds them.
        if self.all_in_log || self.rng.u8(0..6) > 0 {
            self.record_event(&id, event);
        }
    }

    fn delete_user(&mut self) {
        let Some(index) = self.random_user() else { return };
        let id = self.okta.remove(index).id;
        self.trace(|| format!("{id} is deleted"));
        if self.all_in_log || self.rng.u8(0..4) > 0 {
            self.record_event(&id, "user.lifecycle.delete.initiated");
        }
    }

    fn edit_account(&mut self) {
        if self.auth0.is_empty() {
            return;
        }
        let index = self.rng.usize(..self.auth0.len());
        let what = self.rng.u8(0..4);
        let account = &mut self.auth0[index];
        let by_others = self.blocked_by_others.contains(&account.id);
        // Skip accounts with a block that we sent and whose response was lost: it looks like a block by another tool.
        let may_block = !account.blocked
            && account.mark.as_ref().is_none_or(|mark| !mark.blocked)
            && !account.other_marks.blocked
            && self.accounts.get(&account.id).is_none_or(|row| !row.blocked && row.unconfirmed < 2);
        let step = format!("edit {what} of {}", account.id);
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
        self.trace(|| step);
    }

    fn other_installation_writes(&mut self) {
        if self.auth0.is_empty() {
            return;
        }
        let index = self.rng.usize(..self.auth0.len());
        let denies = self.rng.bool();
        self.other_installation(index, denies);
    }

    /// Another installation denies or admits an account, by the same rules as ours.
    fn other_installation(&mut self, index: usize, denies: bool) {
        let account = &mut self.auth0[index];
        let ours = account.mark.as_ref().filter(|mark| mark.deactivated);
        let seen_by_it = Account {
            mark: self.other_marks.get(&account.id).cloned(),
            other_marks: OtherMarks { denied: ours.is_some(), blocked: ours.is_some_and(|mark| mark.blocked) },
            ..account.clone()
        };
        let reason = Reason {
            okta_user_id: OktaUserId::parse("00utheirs").unwrap(),
            okta_org: Some("00otheirs".to_owned()),
            status: "DEPROVISIONED".to_owned(),
            at: "2026-11-23T10:00:00.000Z".to_owned(),
            event_id: None,
        };
        let known = Known::default();
        let difference = if denies {
            mark::deny(&seen_by_it, &reason, self.other_options, known)
        } else {
            mark::allow(&seen_by_it, &reason, known)
        };
        let Difference::Patch(patch) = difference else { return };
        let mut after = seen_by_it;
        apply_patch(&mut after, &patch);
        (account.mirror, account.blocked) = (after.mirror, after.blocked);
        account.other_marks =
            OtherMarks { denied: patch.mark.deactivated, blocked: patch.mark.deactivated && patch.mark.blocked };
        let id = account.id.clone();
        self.trace(|| format!("another installation {} {id}", if denies { "denies" } else { "admits" }));
        self.other_marks.insert(id, patch.mark);
    }

    /// Whatever we did, an account that the other installation denies and blocks is blocked, unless an edit unblocked it.
    fn check_others_denials(&mut self) {
        let indexes: Vec<usize> = (0..self.auth0.len()).filter(|index| self.auth0[*index].other_marks.denied).collect();
        for index in indexes {
            self.other_installation(index, true);
        }
        self.reconcile();
        for account in self.auth0.iter().filter(|account| account.other_marks.denied) {
            assert!(
                (account.blocked || !account.other_marks.blocked)
                    && (account.mirror == Mirror::On || !self.other_options.mirror),
                "seed {}: we lifted a denial of another installation: {account:#?}",
                self.seed
            );
        }
    }

    fn approve_one(&mut self) {
        let held = |row: &UserRow| matches!(row.outcome, Some(Outcome::Held(_)));
        let held: Vec<OktaUserId> = self.users.iter().filter(|(_, row)| held(row)).map(|(id, _)| id.clone()).collect();
        if let Some(id) = self.rng.choice(&held) {
            self.trace(|| format!("{id} is approved"));
            if let Some(row) = self.users.get_mut(id) {
                row.approved = match &row.outcome {
                    Some(Outcome::Held(why)) => Some(why.clone()),
                    _ => None,
                };
                if row.approved == Some(Held::Vanished) {
                    self.approved.insert(id.clone());
                }
                row.due = Some(Cause::Command);
                row.recheck_step = 0;
            }
        }
    }

    /// Stores an event and queues its user.
    fn record_event(&mut self, id: &OktaUserId, event_type: &str) {
        self.record(id, event_type, true);
    }

    fn record(&mut self, id: &OktaUserId, event_type: &str, succeeded: bool) {
        let now = self.now;
        let row = self.users.entry(id.clone()).or_default();
        let event = EventSeen {
            id: format!("{id}-{}", row.events.len()),
            event_type: event_type.to_owned(),
            published: now,
            received_at: now,
            actor: None,
            open: true,
            succeeded,
        };
        match event.signal() {
            Signal::Left => row.left_at = Some(now),
            Signal::Returned => row.returned_at = Some(now),
            _ => {}
        }
        row.due = Some(Cause::Event);
        row.recheck_step = 0;
        row.events.push(event);
    }

    /// Somebody tries to change a user, and Okta refuses.
    fn fail_to_change(&mut self) {
        let known: Vec<OktaUserId> = self.users.keys().cloned().collect();
        let Some(id) = self.rng.choice(&known).cloned() else { return };
        let event_type = ["user.lifecycle.deactivate", "user.lifecycle.delete.initiated", "user.lifecycle.activate"]
            [self.rng.usize(..3)];
        self.trace(|| format!("{event_type} of {id} fails"));
        self.record(&id, event_type, false);
    }

    /// Our role loses sight of an active user: Okta answers 404 from now on.
    fn hide_user(&mut self) {
        let Some(index) = self.random_user() else { return };
        let id = self.okta[index].id.clone();
        if self.okta[index].status != Status::Active || decide::is_known_to_have_left(&self.known(&id)) {
            return;
        }
        self.trace(|| format!("{id} is hidden"));
        self.okta.remove(index);
        let marked = self.accounts_marked_for(&id);
        self.hidden.insert(id, marked);
    }

    fn accounts_marked_for(&self, id: &OktaUserId) -> BTreeSet<AccountId> {
        let is_theirs = |account: &&Account| {
            account.mark.as_ref().is_some_and(|mark| mark.deactivated && mark.okta_user_id.as_ref() == Some(id))
        };
        self.auth0.iter().filter(is_theirs).map(|account| account.id.clone()).collect()
    }

    fn look_at_due(&mut self) {
        let due: Vec<OktaUserId> =
            self.users.iter().filter(|(_, row)| row.due.is_some()).map(|(id, _)| id.clone()).collect();
        let fault = match self.rng.u8(0..8) {
            0 => LookFault::LostResponse,
            1 => LookFault::FailedWrite,
            _ => LookFault::None,
        };
        if let Some(id) = self.rng.choice(&due).cloned() {
            self.look(&id, fault);
        }
    }

    fn reconcile(&mut self) {
        let ids: Vec<OktaUserId> = self.users.keys().cloned().collect();
        for id in &ids {
            if let Some(row) = self.users.get_mut(id) {
                row.due.get_or_insert(Cause::Reconcile);
            }
        }
        self.adopt_marks();
        self.drain_queue();
    }

    /// The last stage of a reconcile: marks that the store does not know, because the response to their write was lost.
    fn adopt_marks(&mut self) {
        for account in &self.auth0 {
            let Some(mark) = account.mark.as_ref().filter(|mark| mark.deactivated) else { continue };
            let Some(owner) = mark.okta_user_id.clone().filter(|owner| self.users.contains_key(owner)) else {
                continue;
            };
            if self.accounts.get(&account.id).is_some_and(|row| row.denied && row.owner == owner) {
                continue;
            }
            let row = AccountRow { owner, denied: true, blocked: mark.blocked, unconfirmed: 0 };
            self.accounts.insert(account.id.clone(), row);
        }
    }

    /// Looks at all due users, including those that these looks queue.
    fn drain_queue(&mut self) {
        let mut left = self.users.len() * 40;
        while let Some(id) = self.users.iter().find(|(_, row)| row.due.is_some()).map(|(id, _)| id.clone()) {
            self.look(&id, LookFault::None);
            left -= 1;
            assert!(left > 0, "seed {}: users keep requeueing each other", self.seed);
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
            unmoved: false,
        };
        KnownUser {
            id: id.clone(),
            may_move_marks: true,
            okta_org: Some(ORG.to_owned()),
            cause: row.due.unwrap_or(Cause::Command),
            approved: row.approved.clone(),
            recheck_step: row.recheck_step,
            status: row.status.clone(),
            status_at: row.status_at,
            left_at: row.left_at,
            returned_at: row.returned_at,
            addresses: row.addresses.clone(),
            present_addresses: row.addresses.clone(),
            accounts: self.accounts.iter().filter(|(_, of)| of.owner == *id).map(marked).collect(),
            events: row
                .events
                .iter()
                .filter(|e| e.open || clock::since(self.now, e.received_at) < HOUR)
                .cloned()
                .collect(),
        }
    }

    fn look(&mut self, id: &OktaUserId, fault: LookFault) {
        self.looks += 1;
        let known = self.known(id);
        let user = self.okta.iter().find(|user| user.id == *id).cloned();
        let policy = self.rules.policy.clone();
        let assessment = decide::assess(&known, user, &policy);
        let mut result = LookResult { denies: matches!(assessment.course, Course::Deny(_)), ..LookResult::default() };
        let done = match &assessment.course {
            Course::Vanished => {
                result.merge(Outcome::Held(Held::Vanished));
                true
            }
            Course::Leave => {
                result.merge(Outcome::Unchanged);
                true
            }
            Course::Skip(why) => {
                result.merge(Outcome::Skipped(why.clone()));
                true
            }
            Course::Allow { .. } => {
                result.merge(Outcome::Unchanged);
                self.rounds(&known, &assessment, &[], fault, &mut result)
            }
            Course::Deny(addresses) => self.rounds(&known, &assessment, addresses, fault, &mut result),
        };
        self.trace(|| format!("look at {id} for {:?}: {:?}", known.cause, result.outcome));
        // An interrupted look stores nothing; the next look finds out what was applied.
        if done {
            self.settle(&known, &assessment, result);
        }
    }

    /// Runs the rounds of a look; returns `false` if it was interrupted.
    fn rounds(
        &mut self,
        known: &KnownUser,
        assessment: &Assessment<'_>,
        identifiers: &[Identifier],
        mut fault: LookFault,
        result: &mut LookResult,
    ) -> bool {
        let by_address = self.auth0.iter().filter(|account| account.is_identified_by(identifiers));
        let first: Vec<AccountId> = by_address.map(|account| account.id.clone()).collect();
        let marked = decide::marked_accounts(known, &assessment.course);
        let second: Vec<AccountId> = marked.into_iter().map(|account| account.id.clone()).collect();
        let mut done = BTreeSet::new();
        for (ids, by) in [(first, FoundBy::Identity), (second, FoundBy::Mark)] {
            let plan = self.plan(known, assessment, ids, by, &done);
            done.extend(plan.steps.iter().map(|step| step.id.clone()));
            for step in plan.steps {
                if !self.apply(known, step, &mut fault, result) {
                    return false;
                }
            }
        }
        if done.is_empty() && matches!(assessment.course, Course::Deny(_)) {
            let unknown = assessment.read.as_ref().is_some_and(|read| read.addresses.is_empty());
            result.merge(if unknown { Outcome::Skipped(Skipped::NoAddress) } else { Outcome::NoAccount });
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

    /// Applies a step; returns `false` if it interrupts the look.
    fn apply(&mut self, known: &KnownUser, step: Step, fault: &mut LookFault, result: &mut LookResult) -> bool {
        let Some(account) = self.auth0.iter_mut().find(|account| account.id == step.id) else { return true };
        let row = |denied, blocked| AccountRow { owner: known.id.clone(), denied, blocked, unconfirmed: 0 };
        let stored = self.accounts.get(&step.id).cloned();
        let ours = stored.as_ref().filter(|stored| stored.owner == known.id);
        match &step.action {
            Action::Deny { patch, .. } | Action::Lift(patch) => {
                if patch.mark.deactivated {
                    store_intent(&mut self.accounts, known, &step.id, patch.mark.blocked);
                }
                let fault = std::mem::replace(fault, LookFault::None);
                if fault == LookFault::FailedWrite {
                    result.merge(Outcome::Retry { after: Duration::from_secs(1), why: "500".to_owned() });
                } else {
                    apply_patch(account, patch);
                    self.writes += 1;
                    if fault == LookFault::LostResponse {
                        return false;
                    }
                    result.lifted |= !patch.mark.deactivated;
                    result.merge(Outcome::Applied);
                    result.rows.push((step.id.clone(), row(patch.mark.deactivated, patch.mark.blocked)));
                }
            }
            Action::Keep | Action::Hold(_) => {
                let mark = account.mark.as_ref().filter(|mark| mark.okta_user_id.is_some());
                let blocked = mark.map_or(ours.is_some_and(|ours| ours.blocked), |mark| mark.blocked);
                result.rows.push((step.id.clone(), row(true, blocked)));
            }
            Action::Confirm => {
                let blocked = account.mark.as_ref().is_some_and(|mark| mark.blocked);
                result.rows.push((step.id.clone(), row(true, blocked)));
            }
            Action::Skip(_) if !ours.is_some_and(|ours| ours.denied || ours.unconfirmed > 0) => {}
            Action::Theirs(_) if result.denies => {}
            Action::Skip(_) | Action::Theirs(_) | Action::Open => {
                result.rows.push((step.id.clone(), row(false, false)));
            }
            Action::OtherOrg(_) | Action::OutOfScope(_) | Action::Gone => {}
        }
        if let Some(outcome) = step.outcome {
            result.merge(outcome);
        }
        true
    }

    fn settle(&mut self, known: &KnownUser, assessment: &Assessment<'_>, result: LookResult) {
        let outcome = result.outcome.unwrap_or(Outcome::Unchanged);
        let conclusion = decide::conclude(known, Some(assessment), &outcome, result.lifted, &self.rules, self.now);
        for (id, row) in result.rows {
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
                if self.verbose {
                    println!("{id} is requeued by {}", known.id);
                }
                row.due = Some(Cause::Neighbour);
                row.recheck_step = 0;
            }
        }
        let Some(row) = self.users.get_mut(&known.id) else { return };
        if let Some(read) = &assessment.read {
            row.status = Some(read.status.clone());
            row.status_at = Some(self.now);
            row.addresses.clone_from(&read.addresses);
        }
        let is_retry = matches!(outcome, Outcome::Retry { .. });
        row.due = is_retry.then_some(known.cause);
        row.recheck_step = conclusion.recheck_step;
        row.depends_on = match &outcome {
            Outcome::Skipped(Skipped::SharedAddress(other)) | Outcome::Held(Held::AddressReused(other)) => {
                Some(other.clone())
            }
            _ => None,
        };
        if outcome.settles() {
            row.approved = None;
            row.events.iter_mut().for_each(|event| event.open = false);
        }
        if matches!(outcome, Outcome::Held(_)) {
            row.approved = None;
        }
        row.outcome = Some(outcome);
    }

    /// The status of a deleted user. If no look ever read the user, the address is unknown and the accounts stay untouched.
    fn status_of_gone(&self, id: &OktaUserId) -> &'static str {
        if self.hidden.contains_key(id) && !self.approved.contains(id) {
            return "HIDDEN";
        }
        if self.users[id].addresses.is_empty() { "UNREAD" } else { "DELETED" }
    }

    fn check(&mut self) {
        let held: BTreeSet<String> = self
            .users
            .iter()
            .filter(|(_, row)| matches!(row.outcome, Some(Outcome::Held(_))))
            .map(|(id, _)| id.to_string())
            .collect();
        let final_users: Vec<FinalUser> = self
            .all_users
            .iter()
            .map(|(id, email)| FinalUser {
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
            let violations = model::violations(&auth0_json(account), &final_users, &held, foreign);
            assert!(
                violations.is_empty(),
                "seed {}: {violations:?}\n{account:#?}\n{final_users:#?}\nheld: {held:?}",
                self.seed
            );
        }
        for (id, row) in &self.users {
            let held = row.outcome == Some(Outcome::Held(Held::Vanished));
            assert!(
                !held || !self.all_in_log || self.hidden.contains_key(id),
                "seed {}: {id} left according to the log but is held as vanished",
                self.seed
            );
        }
        for (id, before) in self.hidden.iter().filter(|(id, _)| !self.approved.contains(id)) {
            let marked = self.accounts_marked_for(id);
            assert!(
                marked.is_subset(before),
                "seed {}: {id} is denied although nothing shows that they left",
                self.seed
            );
        }
        let before = self.writes;
        self.reconcile();
        assert_eq!(self.writes, before, "seed {}: another look wrote something", self.seed);
        for (id, row) in &self.users {
            if matches!(row.outcome, Some(Outcome::Unchanged | Outcome::NoAccount))
                && row.status.as_ref().is_some_and(|status| self.rules.policy.verdict(status) == Verdict::Deny)
            {
                let known = self.known(id);
                // No search finds the marked accounts of a user without an address: the reconcile looks at them.
                if known.addresses.is_empty() {
                    continue;
                }
                let identifiers = self.rules.policy.identifiers(id, &known.addresses);
                let at = |account: &&Account| account.is_identified_by(&identifiers);
                let accounts = self.auth0.iter().filter(at).cloned().collect();
                let agrees = decide::agrees(&known, &identifiers, accounts, &self.rules, self.now);
                assert!(agrees, "seed {}: a reconcile would not agree about {id}", self.seed);
            }
        }
    }
}

/// The result of a look.
#[derive(Default)]
struct LookResult {
    outcome: Option<Outcome>,
    rows: Vec<(AccountId, AccountRow)>,
    lifted: bool,
    denies: bool,
}

impl LookResult {
    fn merge(&mut self, outcome: Outcome) {
        self.outcome = Some(match self.outcome.take() {
            Some(known) => known.merge(outcome),
            None => outcome,
        });
    }
}

/// Stores the intent to send a mark, as the store does before the request.
fn store_intent(accounts: &mut BTreeMap<AccountId, AccountRow>, known: &KnownUser, id: &AccountId, block: bool) {
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

fn apply_patch(account: &mut Account, patch: &Patch) {
    account.mark = Some(patch.mark.clone());
    match patch.mirror {
        Some(true) => account.mirror = Mirror::On,
        Some(false) => account.mirror = Mirror::Off,
        None => {}
    }
    account.blocked = patch.blocked.unwrap_or(account.blocked);
}

/// The account as Auth0 returns it.
fn auth0_json(account: &Account) -> Value {
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
