//! The decision: from what both tenants and the store say about a user to a plan. Pure: no I/O, no clock, no state.
//!
//! A look reads in rounds: exact lookups first, then accounts that already carry our mark, then the search, which lags. Each
//! round is one [`Evidence`] and one [`Plan`], so that accounts from an exact lookup are written before the search starts.
//! [`assess`] judges the user before any account is read; [`conclude`] decides what follows after the last round.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::account::Identifier;
use super::clock::{self, parse_timestamp};
use super::mark::{self, Difference, Known, Mark, Reason};
use super::policy::OutOfScope;
use super::{
    Account, AccountId, Address, Cause, DecisionOutcome, EventSeen, Held, KnownUser, MarkedAccount, OktaUser,
    OktaUserId, Outcome, Patch, Policy, Rules, Signal, Skipped, Status, Timestamp, UserRead, Verdict, Wake,
    timestamp_text,
};

/// When the log and Okta's response disagree, the response may be stale: Okta is asked again after these delays.
const RECHECKS: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(1800)];
/// How far `published` of related events can be out of order (recordings show up to 3.7 s).
const DISORDER: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);
/// How long an event can contradict Okta's response.
const CONTRADICTION_SPAN: Duration = Duration::from_secs(3600);
/// A user who is skipped because of another user gets one more look after this delay.
const SHARED_AGAIN: Duration = Duration::from_secs(60);
/// How often a failed user is retried.
const FAILED_AGAIN: Duration = Duration::from_secs(86_400);

/// A fact that operators need to know. The engine turns it into an alarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Okta reports a status that this version does not know.
    UnknownStatus(String),
    /// An exempt user left the org, with this status.
    ExemptLeft(Status),
    /// The user left, and Okta hides their login and e-mail from us: an account may stay open unseen.
    AddressHidden,
    /// The user is held.
    Held(Held),
}

/// What to do with a user's accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Okta no longer shows the user, and there is no evidence that they left.
    Vanished,
    /// Nothing is written, in either direction.
    Leave,
    /// Marks are lifted.
    Allow {
        /// The verdict is `Deny`, but the configuration exempts the user.
        exempt: bool,
    },
    /// Accounts that one of these identifies, and all accounts that carry our mark, are denied.
    Deny(Vec<Identifier>),
    /// No account is denied, for a legitimate reason.
    Skip(Skipped),
}

/// What is known about a user before any account is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment<'a> {
    /// What Okta says about the user; `None` if it does not show them and there is no evidence that they left.
    pub read: Option<UserRead>,
    /// The status is the one that the user is changing to.
    pub transitional: bool,
    /// The verdict on the status.
    pub verdict: Option<Verdict>,
    /// The event that caused the look, if one did.
    pub event: Option<&'a EventSeen>,
    /// What to do with the accounts.
    pub course: Course,
    /// Facts for operators.
    pub concerns: Vec<Concern>,
}

/// Judges a user by Okta's response, which is `None` if Okta does not show them.
pub fn assess<'a>(known: &'a KnownUser, okta: Option<OktaUser>, policy: &Policy) -> Assessment<'a> {
    let mut addresses = known.addresses.clone();
    // A former address says nothing about who the user is today.
    let present = okta.as_ref().map_or_else(|| known.present_addresses.clone(), OktaUser::addresses);
    let hidden = okta.as_ref().is_some_and(OktaUser::hides_addresses);
    let (login, email, status, transitional) = match okta {
        Some(user) => {
            for address in user.addresses() {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            (Some(user.login).filter(|login| !login.is_empty()), user.email, user.status, user.transitional)
        }
        None if is_known_to_have_left(known) => (None, None, Status::Deleted, false),
        None => {
            return Assessment {
                read: None,
                transitional: false,
                verdict: None,
                event: None,
                course: Course::Vanished,
                concerns: vec![Concern::Held(Held::Vanished)],
            };
        }
    };
    let verdict = policy.verdict(&status);
    let mut concerns = Vec::new();
    if let Status::Unknown(text) = &status {
        concerns.push(Concern::UnknownStatus(text.clone()));
    }
    if hidden && verdict == Verdict::Deny {
        concerns.push(Concern::AddressHidden);
    }
    let course = match verdict {
        Verdict::Leave => Course::Leave,
        Verdict::Allow => Course::Allow { exempt: false },
        Verdict::Deny if policy.is_exempt(&known.id, &present) => {
            concerns.push(Concern::ExemptLeft(status.clone()));
            Course::Allow { exempt: true }
        }
        Verdict::Deny => {
            let identifiers = policy.identifiers(&known.id, &addresses);
            if !identifiers.is_empty() || known.accounts.iter().any(|account| account.denied) {
                Course::Deny(identifiers)
            } else {
                Course::Skip(match (addresses.is_empty(), hidden) {
                    (true, true) => Skipped::AddressHidden,
                    (true, false) => Skipped::NoAddress,
                    (false, _) => Skipped::OutOfScope,
                })
            }
        }
    };
    Assessment {
        transitional,
        verdict: Some(verdict),
        event: event_behind(known, verdict),
        course,
        concerns,
        read: Some(UserRead { login, email, status, addresses, address_hidden: hidden }),
    }
}

/// Whether a 404 means that the user was deleted. With a narrowed admin role, Okta answers 404 too, so it does only if the
/// newest evidence says that the user left, or an operator approved it.
pub fn is_known_to_have_left(known: &KnownUser) -> bool {
    if known.approved == Some(Held::Vanished) {
        return true;
    }
    let has_left = known.status.as_ref().map(Status::has_left);
    let read_as = |left: bool| known.status_at.filter(|_| has_left == Some(left));
    let Some(left) = known.left_at.max(read_as(true)) else { return false };
    let has_returned = known.returned_at.is_some_and(|returned| returned.duration_since(left) > DISORDER);
    // Okta's response can be older than the log for a while, so a read shortly after the event is no evidence.
    let was_shown = read_as(false).is_some_and(|shown| clock::since(shown, left) > CONTRADICTION_SPAN);
    !has_returned && !was_shown
}

/// The event that explains a verdict: the first open one that agrees with it, otherwise the last one of this hour.
fn event_behind(known: &KnownUser, verdict: Verdict) -> Option<&EventSeen> {
    let events = &known.events;
    if !matches!(known.cause, Cause::Event | Cause::Recheck) && !events.iter().any(|event| event.open) {
        return None;
    }
    let says_so = |event: &&EventSeen| {
        matches!(
            (verdict, event.signal()),
            (Verdict::Deny, Signal::Left | Signal::Suspended)
                | (Verdict::Allow, Signal::Returned)
                | (Verdict::Leave, _)
        )
    };
    events.iter().filter(|event| event.open).find(says_so).or_else(|| events.iter().rev().find(says_so))
}

/// Whether the newest event of the last hour, or one close to it, contradicts Okta's response.
fn is_contradicted(known: &KnownUser, verdict: Verdict, policy: &Policy, now: Timestamp) -> bool {
    let Some(newest) = known.events.iter().map(|event| event.published).max() else { return false };
    known.events.iter().any(|event| {
        newest.duration_since(event.published) <= DISORDER
            && clock::since(now, event.received_at) <= CONTRADICTION_SPAN
            && policy.contradicts(event.signal(), verdict)
    })
}

/// How an account was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// By one of the user's identifiers: the configured scope applies.
    Identity,
    /// By the store, which says that it may carry our mark, whatever its address is now.
    Mark,
    /// An account with our mark was linked into it, and Auth0 discarded the mark.
    Link,
}

/// An account that a round found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Auth0's id.
    pub id: AccountId,
    /// `None` if it no longer exists.
    pub account: Option<Account>,
    /// How it was found.
    pub by: FoundBy,
    /// Whether the store says that its block is ours, for any user.
    pub blocked_by_us: bool,
}

/// Other users with the verdict `Allow` who hold an address now, by the address's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    holders: BTreeMap<String, OktaUserId>,
    /// Addresses whose holders could not be read: there is no decision about accounts with one of them.
    unclear: BTreeSet<String>,
}

impl Holders {
    /// Records that `user` holds `address`. The first record per address wins.
    pub fn note(&mut self, address: &Address, user: &OktaUserId) {
        self.holders.entry(address.key()).or_insert_with(|| user.clone());
    }

    /// Returns the other holder of an address.
    pub fn of(&self, address: &Address) -> Option<&OktaUserId> {
        self.holders.get(&address.key())
    }

    /// Whether an active user holds the address with this key.
    pub fn is_held(&self, key: &str) -> bool {
        self.holders.contains_key(key)
    }

    /// Records that the holders of the address with this key could not be read.
    pub fn note_unclear(&mut self, key: &str) {
        self.unclear.insert(key.to_owned());
    }

    /// Adds what is known about other addresses.
    pub fn extend(&mut self, others: Self) {
        self.unclear.extend(others.unclear);
        for (key, user) in others.holders {
            self.holders.entry(key).or_insert(user);
        }
    }

    fn is_unclear(&self, address: &Address) -> bool {
        !self.unclear.is_empty() && self.unclear.contains(&address.key())
    }
}

/// The input of one decision: what one round of a look found.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// What the store knows about the user.
    pub known: &'a KnownUser,
    /// What Okta says about the user.
    pub assessment: &'a Assessment<'a>,
    /// The accounts in the order they were found.
    pub accounts: Vec<Found>,
    /// Other holders of the accounts' addresses.
    pub holders: Holders,
    /// Accounts that earlier rounds have processed.
    pub done: &'a BTreeSet<AccountId>,
}

/// What to do with one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write our mark.
    Deny {
        /// What to write.
        patch: Patch,
        /// Another program removed our mark.
        restores: bool,
        /// The user has no denied account yet: the guard has to admit the denial.
        first: bool,
    },
    /// Lift our mark.
    Lift(Patch),
    /// The account carries our mark, and the store knows it.
    Keep,
    /// The account carries our mark, and the store learns it now.
    Confirm,
    /// The account is denied for another user, who keeps the mark.
    Theirs(OktaUserId),
    /// The account is denied by the installation of this Okta org, which keeps the mark.
    OtherOrg(String),
    /// The account carries no mark for the user and needs none.
    Open,
    /// The account is outside the configured scope.
    OutOfScope(OutOfScope),
    /// The account is not denied, for a legitimate reason.
    Skip(Skipped),
    /// An operator has to decide; the account stays as it is.
    Hold(Held),
    /// The account no longer exists.
    Gone,
}

/// The decision about one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Auth0's id of the account.
    pub id: AccountId,
    /// What to do.
    pub action: Action,
    /// Its contribution to the user's outcome, in addition to [`Outcome::Applied`] for a write.
    pub outcome: Option<Outcome>,
}

/// The decision of one round of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps in the order of execution.
    pub steps: Vec<Step>,
}

impl Action {
    /// Whether the action writes to Auth0.
    pub const fn writes(&self) -> bool {
        matches!(self, Self::Deny { .. } | Self::Lift(_))
    }

    /// Whether the account counts as one of the user's.
    pub const fn is_users(&self) -> bool {
        !matches!(self, Self::OutOfScope(_))
    }

    /// The recorded outcome if the action succeeds.
    pub const fn recorded_as(&self) -> DecisionOutcome {
        match self {
            Self::Deny { restores: true, .. } => DecisionOutcome::Restored,
            Self::Deny { .. } | Self::Lift(_) => DecisionOutcome::Applied,
            Self::Confirm => DecisionOutcome::Confirmed,
            Self::Keep | Self::Theirs(_) | Self::OtherOrg(_) | Self::Open | Self::Gone => DecisionOutcome::Unchanged,
            Self::OutOfScope(_) | Self::Skip(_) => DecisionOutcome::Skipped,
            Self::Hold(_) => DecisionOutcome::Held,
        }
    }
}

/// Decides what to do with the accounts that a round found.
pub fn decide(evidence: &Evidence<'_>, rules: &Rules, now: Timestamp) -> Plan {
    let case = Case { evidence, rules, reason: reason(evidence.known, evidence.assessment, now) };
    let steps = match &evidence.assessment.course {
        Course::Vanished | Course::Leave | Course::Skip(_) => {
            evidence.accounts.iter().filter_map(|found| case.move_mark(found)).collect()
        }
        Course::Allow { .. } => {
            let clear = evidence.accounts.iter().filter(|found| !case.is_unclear(found));
            clear.map(|found| case.allow(found)).collect()
        }
        Course::Deny(identifiers) => case.deny_all(identifiers),
    };
    Plan { steps }
}

/// Whether the user is already denied, as far as these accounts show: a look would write nothing and is not needed.
/// `identifiers` are those in scope; `accounts` were found by them.
pub fn agrees(
    known: &KnownUser,
    identifiers: &[Identifier],
    mut accounts: Vec<Account>,
    rules: &Rules,
    now: Timestamp,
) -> bool {
    accounts.iter_mut().for_each(|account| account.claim_marks(known.okta_org.as_deref(), !known.may_move_marks));
    let assessment = Assessment {
        read: None,
        transitional: false,
        verdict: Some(Verdict::Deny),
        event: None,
        course: Course::Deny(identifiers.to_vec()),
        concerns: Vec::new(),
    };
    if accounts.iter().any(|account| may_be_shared(account, known)) {
        return false;
    }
    let found = |account: Account| Found {
        id: account.id.clone(),
        account: Some(account),
        by: FoundBy::Identity,
        blocked_by_us: false,
    };
    let evidence = Evidence {
        known,
        assessment: &assessment,
        accounts: accounts.into_iter().map(found).collect(),
        holders: Holders::default(),
        done: &BTreeSet::new(),
    };
    let plan = decide(&evidence, rules, now);
    let is_settled = |step: &Step| {
        matches!(step.action, Action::Keep | Action::Theirs(_) | Action::OtherOrg(_) | Action::OutOfScope(_))
    };
    let mut denied = known.accounts.iter().filter(|account| account.denied);
    plan.steps.iter().all(is_settled) && denied.all(|account| plan.steps.iter().any(|step| step.id == account.id))
}

/// Whether the account is denied for the user and has an address that was never theirs, as after another account was linked
/// into it: its holder may be active, which only a look finds out.
fn may_be_shared(account: &Account, known: &KnownUser) -> bool {
    let is_denied = known.accounts.iter().any(|marked| marked.denied && marked.id == account.id);
    let theirs: BTreeSet<String> = known.addresses.iter().map(Address::key).collect();
    is_denied && account.addresses_beside(&known.id).iter().any(|address| !theirs.contains(&address.key()))
}

/// The reason that a mark records.
fn reason(known: &KnownUser, assessment: &Assessment<'_>, now: Timestamp) -> Reason {
    Reason {
        okta_user_id: known.id.clone(),
        okta_org: known.okta_org.clone(),
        status: assessment.read.as_ref().map_or_else(|| "unknown".to_owned(), |read| read.status.to_string()),
        at: timestamp_text(now),
        event_id: assessment.event.map(|event| event.id.clone()),
    }
}

/// The accounts that an earlier look marked, or may have marked, and that this course has to read.
pub fn marked_accounts<'a>(known: &'a KnownUser, course: &Course) -> Vec<&'a MarkedAccount> {
    let wanted = |account: &&MarkedAccount| match course {
        Course::Allow { .. } => account.denied || account.blocked || account.unconfirmed,
        Course::Deny(_) => account.denied || account.unconfirmed || account.sessions_owed,
        Course::Vanished | Course::Leave | Course::Skip(_) => account.denied && account.unmoved && known.may_move_marks,
    };
    known.accounts.iter().filter(wanted).collect()
}

/// Whether an account may carry a mark for this user that the store does not know: the user has just returned.
pub fn may_have_unknown_mark(known: &KnownUser) -> bool {
    known.events.iter().any(|event| event.open && Signal::of(&event.event_type) == Signal::Returned)
}

/// Whether the account carries our mark for this user, or one of ours without an owner.
pub fn is_marked_for(account: &Account, user: &KnownUser) -> bool {
    account.mark.as_ref().is_some_and(|mark| {
        mark.deactivated
            && mark.other_org(user.okta_org.as_deref()).is_none()
            && mark.okta_user_id.as_ref().is_none_or(|owner| *owner == user.id)
    })
}

/// Whether a reconcile was missed: the last good one (or else the first poll) is older than two periods. A time in the future
/// says nothing, so it counts as old.
pub fn is_reconcile_overdue(last: Option<Timestamp>, period: Duration, now: Timestamp) -> bool {
    last.is_some_and(|last| last > now || clock::since(now, last) > period.saturating_mul(2))
}

/// Whether the decision about an account that was found by an identifier depends on other holders of its addresses.
pub fn is_candidate(account: &Account, identifiers: &[Identifier], known: &KnownUser, rules: &Rules) -> bool {
    account.is_identified_by(identifiers)
        && (rules.accepts(account, identifiers).is_ok() || is_denied(known, &account.id))
}

/// Whether a block on the account may be ours although its mark does not say so. If so, the store has to be asked.
pub fn may_hide_our_block(account: &Account, known: &KnownUser) -> bool {
    account.blocked
        && !known_of(known, &account.id).blocked
        && account.mark.as_ref().is_none_or(|mark| mark.okta_user_id.is_none())
}

fn stored<'a>(known: &'a KnownUser, id: &AccountId) -> Option<&'a MarkedAccount> {
    known.accounts.iter().find(|account| account.id == *id)
}

fn is_denied(known: &KnownUser, id: &AccountId) -> bool {
    stored(known, id).is_some_and(|account| account.denied)
}

/// What the store says about an account.
fn known_of(known: &KnownUser, id: &AccountId) -> Known {
    let account = stored(known, id);
    Known {
        denied: account.is_some_and(|account| account.denied || account.unconfirmed),
        blocked: account.is_some_and(|account| account.blocked),
    }
}

/// Evidence and rules of one decision.
struct Case<'a> {
    evidence: &'a Evidence<'a>,
    rules: &'a Rules,
    reason: Reason,
}

impl Case<'_> {
    fn deny_all(&self, identifiers: &[Identifier]) -> Vec<Step> {
        let mut done = self.evidence.done.clone();
        let mut steps = Vec::new();
        for found in &self.evidence.accounts {
            let is_identified = |account: &Account| account.is_identified_by(identifiers);
            if found.by == FoundBy::Identity && !found.account.as_ref().is_some_and(is_identified) {
                continue;
            }
            // A denial that was decided earlier is kept and restored.
            if self.is_unclear(found) && !is_denied(self.evidence.known, &found.id) {
                continue;
            }
            if !done.insert(found.id.clone()) {
                continue;
            }
            steps.push(self.deny(found, identifiers));
        }
        steps
    }

    fn deny(&self, found: &Found, identifiers: &[Identifier]) -> Step {
        let Some(account) = &found.account else { return gone(&found.id) };
        let known = self.evidence.known;
        let was_denied = is_denied(known, &account.id);
        if found.by == FoundBy::Identity
            && !was_denied
            && let Err(why) = self.rules.accepts(account, identifiers)
        {
            return step(account, Action::OutOfScope(why), None);
        }
        if let Some(other) = self.other_holder(account) {
            return self.deny_shared(account, other);
        }
        let mut ours = known_of(known, &account.id);
        if may_hide_our_block(account, known) {
            ours.blocked = found.blocked_by_us;
        }
        let action = match mark::deny(account, &self.reason, self.rules.mark, ours) {
            Difference::None if was_denied => Action::Keep,
            // A process died after the write and before the commit, or the state is newer than the mark.
            Difference::None => Action::Confirm,
            Difference::Theirs(owner) => Action::Theirs(owner),
            Difference::OtherOrg(org) => Action::OtherOrg(org),
            Difference::Patch(patch) => {
                let restores =
                    was_denied && !account.unread && !account.mark.as_ref().is_some_and(|mark| mark.deactivated);
                let first = !known.accounts.iter().any(|account| account.denied);
                return step(account, Action::Deny { patch, restores, first }, None);
            }
        };
        step(account, action, Some(Outcome::Unchanged))
    }

    /// An active user holds the account's address: the account is not denied, and our own mark on it is lifted or held.
    fn deny_shared(&self, account: &Account, other: OktaUserId) -> Step {
        let known = self.evidence.known;
        // Also if the mark was wiped and our block or the mirror is left.
        let Difference::Patch(patch) = mark::allow(account, &self.reason, known_of(known, &account.id)) else {
            let skipped = Skipped::SharedAddress(other);
            return step(account, Action::Skip(skipped.clone()), Some(Outcome::Skipped(skipped)));
        };
        let held = Held::AddressReused(other.clone());
        if self.is_approved(&held) {
            return step(account, Action::Lift(patch), Some(Outcome::Skipped(Skipped::SharedAddress(other))));
        }
        hold(account, held)
    }

    fn allow(&self, found: &Found) -> Step {
        let Some(account) = &found.account else { return gone(&found.id) };
        let known = self.evidence.known;
        if let Some(held) = self.other_holder(account).map(Held::AddressReused)
            && !self.is_approved(&held)
        {
            return hold(account, held);
        }
        let action = match mark::allow(account, &self.reason, known_of(known, &account.id)) {
            Difference::None => Action::Open,
            Difference::Theirs(owner) => Action::Theirs(owner),
            Difference::OtherOrg(org) => Action::OtherOrg(org),
            Difference::Patch(patch) => Action::Lift(patch),
        };
        step(account, action, None)
    }

    /// Moves a mark under a former metadata key, although nothing is decided about the user.
    fn move_mark(&self, found: &Found) -> Option<Step> {
        let account = found.account.as_ref()?;
        let patch = mark::moved(account, self.reason.okta_org.as_deref())?;
        is_marked_for(account, self.evidence.known)
            .then(|| step(account, Action::Deny { patch, restores: false, first: false }, None))
    }

    /// Whether an operator approved that this opens an account, and the verdict is still the one that they saw.
    fn is_approved(&self, held: &Held) -> bool {
        let known = self.evidence.known;
        let seen = known.status.as_ref().map(|status| self.rules.policy.verdict(status));
        known.approved.as_ref() == Some(held) && seen == self.evidence.assessment.verdict
    }

    /// Whether it could not be read who else holds one of the account's addresses, and no other holder is known.
    fn is_unclear(&self, found: &Found) -> bool {
        let Some(account) = &found.account else { return false };
        self.other_holder(account).is_none()
            && account
                .addresses_beside(&self.evidence.known.id)
                .iter()
                .any(|address| self.evidence.holders.is_unclear(address))
    }

    /// Another active user who holds one of the account's addresses. The address of an identity with the user's Okta id is
    /// the user's own: no other user logs in by it.
    fn other_holder(&self, account: &Account) -> Option<OktaUserId> {
        let addresses = account.addresses_beside(&self.evidence.known.id);
        addresses.into_iter().find_map(|address| self.evidence.holders.of(address)).cloned()
    }
}

fn step(account: &Account, action: Action, outcome: Option<Outcome>) -> Step {
    Step { id: account.id.clone(), action, outcome }
}

fn hold(account: &Account, held: Held) -> Step {
    step(account, Action::Hold(held.clone()), Some(Outcome::Held(held)))
}

fn gone(id: &AccountId) -> Step {
    Step { id: id.clone(), action: Action::Gone, outcome: None }
}

/// The history of a denial as its mark records it, for a store that does not know it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// When it was written.
    pub denied_at: Timestamp,
    /// The event that it names.
    pub event_id: Option<String>,
    /// When that event was published.
    pub published: Option<Timestamp>,
    /// From the event's publication to the mark.
    pub lag_ms: Option<i64>,
}

/// Reads the history of a denial from its mark.
pub fn confirmation(mark: &Mark, known: &KnownUser, now: Timestamp) -> Confirmation {
    let event = known.events.iter().find(|event| Some(&event.id) == mark.event_id.as_ref());
    let denied_at = mark.at.as_deref().and_then(|at| parse_timestamp(at).ok()).unwrap_or(now);
    Confirmation {
        denied_at,
        event_id: mark.event_id.clone(),
        published: event.map(|event| event.published),
        lag_ms: event.and_then(|event| i64::try_from(clock::since(denied_at, event.published).as_millis()).ok()),
    }
}

/// What follows from a look after its last round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conclusion {
    /// The next look, if one is due without a new reason.
    pub next_look: Option<Timestamp>,
    /// The number of that recheck.
    pub recheck_step: u32,
    /// Other users that become due.
    pub wake: Wake,
    /// Whether the guard forgets the user, because they are allowed.
    pub forget_guard: bool,
    /// Whether an event that an earlier look settled as `unchanged` took effect only now.
    pub belated_event: bool,
}

/// Concludes a look that ended with `outcome`. `lifted` says whether it lifted a mark.
pub fn conclude(
    known: &KnownUser,
    assessment: Option<&Assessment<'_>>,
    outcome: &Outcome,
    lifted: bool,
    rules: &Rules,
    now: Timestamp,
) -> Conclusion {
    let (next_look, recheck_step) = next_look(known, assessment, outcome, &rules.policy, now);
    let verdict = assessment.and_then(|assessment| assessment.verdict);
    Conclusion {
        next_look,
        recheck_step,
        wake: wake(known, assessment, outcome, lifted),
        forget_guard: verdict == Some(Verdict::Allow) && outcome.settles(),
        belated_event: known.cause == Cause::Recheck && *outcome == Outcome::Applied,
    }
}

/// The time of the next look without a new reason, and the number of that recheck.
fn next_look(
    known: &KnownUser,
    assessment: Option<&Assessment<'_>>,
    outcome: &Outcome,
    policy: &Policy,
    now: Timestamp,
) -> (Option<Timestamp>, u32) {
    // A new reason resets it to 0.
    let step = known.recheck_step;
    match outcome {
        Outcome::Retry { after, .. } => return (Some(clock::add(now, *after)), step),
        Outcome::Snooze { until, .. } => return (Some(*until), step),
        Outcome::Failed(_) => return (Some(clock::add(now, FAILED_AGAIN)), step),
        Outcome::Applied | Outcome::Unchanged | Outcome::NoAccount | Outcome::Skipped(_) | Outcome::Held(_) => {}
    }
    let index = usize::try_from(step).unwrap_or(usize::MAX);
    if assessment.is_some_and(|assessment| assessment.transitional) {
        let wait = RECHECKS.get(index).or(RECHECKS.last()).copied().unwrap_or(SHARED_AGAIN);
        return (Some(clock::add(now, wait)), step.saturating_add(1));
    }
    let verdict = assessment.and_then(|assessment| assessment.verdict);
    let contradicted = verdict.is_some_and(|verdict| is_contradicted(known, verdict, policy, now));
    if contradicted && let Some(wait) = RECHECKS.get(index) {
        return (Some(clock::add(now, *wait)), step + 1);
    }
    if matches!(outcome, Outcome::Skipped(Skipped::SharedAddress(_))) && step == 0 {
        return (Some(clock::add(now, SHARED_AGAIN)), 1);
    }
    (None, 0)
}

fn wake(known: &KnownUser, assessment: Option<&Assessment<'_>>, outcome: &Outcome, lifted: bool) -> Wake {
    let read = assessment.and_then(|assessment| assessment.read.as_ref());
    let verdict = assessment.and_then(|assessment| assessment.verdict);
    // A look that a neighbour caused and that finds nothing new queues no other user, or two users would queue each other
    // forever. Success does not matter: others depend on what Okta says about this user.
    let changed = *outcome == Outcome::Applied || read.is_some_and(|read| Some(&read.status) != known.status.as_ref());
    let dependents = read.is_some() && (changed || (outcome.settles() && known.cause != Cause::Neighbour));
    // A changed status is not the only news: the user may have left and returned between two looks, and a user who shares
    // the address may have been denied in between.
    let news = changed || known.events.iter().any(|event| event.open);
    // Also for the verdict `Leave`: a user who is skipped because of several holders waits for one of them. A look that
    // denies handles the shared accounts itself.
    let came_or_went = dependents && news && verdict != Some(Verdict::Deny);
    Wake::new(dependents, lifted || came_or_went)
}
