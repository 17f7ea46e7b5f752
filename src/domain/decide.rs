//! Deciding: from what both tenants and the store say of a user to what has to be done. Pure: no call, no clock, no state.
//!
//! A look asks in rounds: exact lookups first, then accounts that already carry our mark, then the search, which lags. Each
//! round is one [`Evidence`] and one [`Plan`], so that what an exact lookup found is written before the search is asked.
//! [`assess`] judges the user before any account is read, [`conclude`] says what follows when all rounds are done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clock::{self, parse_timestamp};
use super::mark::{self, Difference, Known, Mark, Reason};
use super::policy::OutOfScope;
use super::{
    Account, AccountId, Address, Cause, DecisionOutcome, EventSeen, Held, KnownUser, MarkedAccount, OktaUser,
    OktaUserId, Outcome, Patch, Policy, Rules, Signal, Skipped, Status, Timestamp, UserRead, Verdict, Wake,
    timestamp_text,
};

/// When the log and Okta's answer disagree, Okta's answer may be old: it is asked again after these.
const RECHECKS: [Duration; 4] =
    [Duration::from_secs(5), Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(1800)];
/// How far `published` of events that belong together can be out of order (3.7 s were seen in recordings).
const DISORDER: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);
/// How long an event speaks against what Okta answers.
const CONTRADICTION_SPAN: Duration = Duration::from_secs(3600);
/// A user who is skipped because of another one is looked at once more after this.
const SHARED_AGAIN: Duration = Duration::from_secs(60);
/// Failed users are still tried.
const FAILED_AGAIN: Duration = Duration::from_secs(86_400);

/// Something an operator has to know, as the decision sees it; the engine has the sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Okta reports a status that this version does not know.
    UnknownStatus(String),
    /// An exempt user left; the status.
    ExemptLeft(Status),
    /// The user is held.
    Held(Held),
}

/// What is to become of a user's accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Okta no longer shows the user, and nothing says that they left.
    Vanished,
    /// Nothing is written, in either direction.
    Leave,
    /// Marks are lifted. `exempt`: the verdict is to deny, but the user is never denied.
    Allow {
        /// By configuration.
        exempt: bool,
    },
    /// Accounts of these addresses, and all that carry our mark, are denied.
    Deny(Vec<Address>),
    /// Rightly not denied, whatever accounts there are.
    Skip(Skipped),
}

/// What is known of a user before an account is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment<'a> {
    /// What Okta says of the user; `None` if it does not show them and nothing says that they left.
    pub read: Option<UserRead>,
    /// Okta says where the user is going, not where they are.
    pub transitional: bool,
    /// The verdict on the status.
    pub verdict: Option<Verdict>,
    /// The event that is the reason, if one is.
    pub event: Option<&'a EventSeen>,
    /// What follows.
    pub course: Course,
    /// What an operator has to know.
    pub concerns: Vec<Concern>,
}

/// Judges a user by what Okta answers: `None` if it does not show them.
pub fn assess<'a>(known: &'a KnownUser, okta: Option<OktaUser>, policy: &Policy) -> Assessment<'a> {
    let mut addresses = known.addresses.clone();
    let (login, email, status, transitional) = match okta {
        Some(user) => {
            for address in user.addresses() {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
            (Some(user.login), user.email, user.status, user.transitional)
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
    let course = match verdict {
        Verdict::Leave => Course::Leave,
        Verdict::Allow => Course::Allow { exempt: false },
        Verdict::Deny if policy.is_exempt(&known.id, &addresses) => {
            concerns.push(Concern::ExemptLeft(status.clone()));
            Course::Allow { exempt: true }
        }
        Verdict::Deny => {
            let in_scope: Vec<Address> = policy.in_scope(&addresses).into_iter().cloned().collect();
            if !in_scope.is_empty() || known.accounts.iter().any(|account| account.denied) {
                Course::Deny(in_scope)
            } else {
                Course::Skip(if addresses.is_empty() { Skipped::NoAddress } else { Skipped::OutOfScope })
            }
        }
    };
    Assessment {
        transitional,
        verdict: Some(verdict),
        event: event_behind(known, verdict),
        course,
        concerns,
        read: Some(UserRead { login, email, status, addresses }),
    }
}

/// A 404 is a deletion only for a user of whom the log or Okta said that they left, or whom an operator declared gone: a
/// narrowed admin role answers the same.
pub fn is_known_to_have_left(known: &KnownUser) -> bool {
    known.left_seen
        || known.status.as_ref().is_some_and(Status::has_left)
        || known.approved
        || log_says_left(&known.events)
}

/// Does the log of the last hour end with the user leaving? Okta may have shown them as active since: its answers can be
/// older than the log.
fn log_says_left(events: &[EventSeen]) -> bool {
    let last = |wanted: Signal| {
        let of = events.iter().filter(|event| Signal::of(&event.event_type) == wanted);
        of.map(|event| event.published).max()
    };
    match (last(Signal::Left), last(Signal::Returned)) {
        (Some(left), Some(returned)) => returned.duration_since(left) <= DISORDER,
        (left, _) => left.is_some(),
    }
}

/// The event that explains a verdict: the first one still open that says the same, else the last one of this hour.
fn event_behind(known: &KnownUser, verdict: Verdict) -> Option<&EventSeen> {
    let events = &known.events;
    if !matches!(known.cause, Cause::Event | Cause::Recheck) && !events.iter().any(|event| event.open) {
        return None;
    }
    let says_so = |event: &&EventSeen| {
        matches!(
            (verdict, Signal::of(&event.event_type)),
            (Verdict::Deny, Signal::Left | Signal::Suspended)
                | (Verdict::Allow, Signal::Returned)
                | (Verdict::Leave, _)
        )
    };
    events.iter().filter(|event| event.open).find(says_so).or_else(|| events.iter().rev().find(says_so))
}

/// Does the newest event of the last hour (or one that happened with it) say the opposite of Okta's answer?
fn is_contradicted(known: &KnownUser, verdict: Verdict, policy: &Policy, now: Timestamp) -> bool {
    let Some(newest) = known.events.iter().map(|event| event.published).max() else { return false };
    known.events.iter().any(|event| {
        newest.duration_since(event.published) <= DISORDER
            && clock::since(now, event.received_at) <= CONTRADICTION_SPAN
            && policy.contradicts(Signal::of(&event.event_type), verdict)
    })
}

/// How an account came to be considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// It has one of the user's addresses: scope applies.
    Address,
    /// The store says that it may carry our mark: whatever its address has become.
    Mark,
}

/// An account, as far as a round found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Auth0's id.
    pub id: AccountId,
    /// `None`: it does not exist any more.
    pub account: Option<Account>,
    /// How it was found.
    pub by: FoundBy,
    /// The store says that its block is ours, for whichever user.
    pub blocked_by_us: bool,
}

/// Who else, with the verdict `Allow`, holds an address now: by the address's key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders(BTreeMap<String, OktaUserId>);

impl Holders {
    /// Notes that `user` holds `address`; the first one noted counts.
    pub fn note(&mut self, address: &Address, user: &OktaUserId) {
        self.0.entry(address.key()).or_insert_with(|| user.clone());
    }

    /// The other holder of an address.
    pub fn of(&self, address: &Address) -> Option<&OktaUserId> {
        self.0.get(&address.key())
    }
}

/// What one round of a look found.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// What the store knows of the user.
    pub known: &'a KnownUser,
    /// What Okta says of them.
    pub assessment: &'a Assessment<'a>,
    /// The accounts, in the order in which they were found.
    pub accounts: Vec<Found>,
    /// Who else holds their addresses.
    pub holders: Holders,
    /// Accounts that earlier rounds dealt with.
    pub done: &'a BTreeSet<AccountId>,
}

/// What to do with one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write our mark.
    Deny {
        /// What to write.
        patch: Patch,
        /// Something removed a mark of ours.
        restores: bool,
        /// The user was not denied anywhere: the guard has to admit it.
        first: bool,
    },
    /// Lift our mark.
    Lift(Patch),
    /// It carries our mark, as the store says already.
    Keep,
    /// It carries our mark, which the store learns now.
    Confirm,
    /// It is denied for another user: theirs to keep.
    Theirs(OktaUserId),
    /// It carries no mark for the user, and need not.
    Open,
    /// The configuration leaves it alone.
    OutOfScope(OutOfScope),
    /// Not denied, for a reason that is in order.
    Skip(Skipped),
    /// An operator has to decide; it stays as it is.
    Hold(Held),
    /// It does not exist any more.
    Gone,
}

/// The decision about one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub id: AccountId,
    /// What to do.
    pub action: Action,
    /// What it adds to the user's outcome, besides [`Outcome::Applied`] of a write.
    pub outcome: Option<Outcome>,
}

/// What one round of a look decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are carried out.
    pub steps: Vec<Step>,
}

impl Action {
    /// Would anything be written?
    pub const fn writes(&self) -> bool {
        matches!(self, Self::Deny { .. } | Self::Lift(_))
    }

    /// Does the round count the account as one of the user's?
    pub const fn is_users(&self) -> bool {
        !matches!(self, Self::OutOfScope(_))
    }

    /// How the decision is recorded, if the action is carried out as planned.
    pub const fn recorded_as(&self) -> DecisionOutcome {
        match self {
            Self::Deny { restores: true, .. } => DecisionOutcome::Restored,
            Self::Deny { .. } | Self::Lift(_) => DecisionOutcome::Applied,
            Self::Confirm => DecisionOutcome::Confirmed,
            Self::Keep | Self::Theirs(_) | Self::Open | Self::Gone => DecisionOutcome::Unchanged,
            Self::OutOfScope(_) | Self::Skip(_) => DecisionOutcome::Skipped,
            Self::Hold(_) => DecisionOutcome::Held,
        }
    }
}

/// Decides about the accounts that a round found.
pub fn decide(evidence: &Evidence<'_>, rules: &Rules, now: Timestamp) -> Plan {
    let case = Case { evidence, rules, reason: reason(evidence.known, evidence.assessment, now) };
    let steps = match &evidence.assessment.course {
        Course::Vanished | Course::Leave | Course::Skip(_) => Vec::new(),
        Course::Allow { .. } => evidence.accounts.iter().map(|found| case.allow(found)).collect(),
        Course::Deny(addresses) => case.deny_all(addresses),
    };
    Plan { steps }
}

/// Is the user denied already, as far as these accounts show? Then a look would write nothing, and no look is needed.
/// `addresses` are those in scope; `accounts` were found by them.
pub fn agrees(known: &KnownUser, addresses: &[Address], accounts: Vec<Account>, rules: &Rules, now: Timestamp) -> bool {
    let assessment = Assessment {
        read: None,
        transitional: false,
        verdict: Some(Verdict::Deny),
        event: None,
        course: Course::Deny(addresses.to_vec()),
        concerns: Vec::new(),
    };
    let found = |account: Account| Found {
        id: account.id.clone(),
        account: Some(account),
        by: FoundBy::Address,
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
    let is_settled = |step: &Step| matches!(step.action, Action::Keep | Action::Theirs(_) | Action::OutOfScope(_));
    let mut denied = known.accounts.iter().filter(|account| account.denied);
    plan.steps.iter().all(is_settled) && denied.all(|account| plan.steps.iter().any(|step| step.id == account.id))
}

/// What a mark says of its reason.
fn reason(known: &KnownUser, assessment: &Assessment<'_>, now: Timestamp) -> Reason {
    Reason {
        okta_user_id: known.id.clone(),
        status: assessment.read.as_ref().map_or_else(|| "unknown".to_owned(), |read| read.status.to_string()),
        at: timestamp_text(now),
        event_id: assessment.event.map(|event| event.id.clone()),
    }
}

/// The accounts that an earlier look marked, or may have, and that this course has to read.
pub fn marked_accounts<'a>(known: &'a KnownUser, course: &Course) -> Vec<&'a MarkedAccount> {
    let wanted = |account: &&MarkedAccount| match course {
        Course::Allow { .. } => account.denied || account.blocked || account.unconfirmed,
        Course::Deny(_) => account.denied || account.unconfirmed || account.sessions_owed,
        Course::Vanished | Course::Leave | Course::Skip(_) => false,
    };
    known.accounts.iter().filter(wanted).collect()
}

/// Has the account one of these addresses?
pub fn is_at(account: &Account, addresses: &[Address]) -> bool {
    account.email.as_ref().is_some_and(|email| addresses.iter().any(|address| address.same(email.as_str())))
}

/// Does the decision about an account that was found by address depend on who else holds the address?
pub fn is_candidate(account: &Account, addresses: &[Address], known: &KnownUser, rules: &Rules) -> bool {
    is_at(account, addresses) && (rules.accepts(account).is_ok() || is_denied(known, &account.id))
}

/// May a block on the account be ours although its mark does not say so? Then the store has to be asked.
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

/// What the store says of an account.
fn known_of(known: &KnownUser, id: &AccountId) -> Known {
    let account = stored(known, id);
    Known {
        denied: account.is_some_and(|account| account.denied || account.unconfirmed),
        blocked: account.is_some_and(|account| account.blocked),
    }
}

/// The evidence with the rules that judge it.
struct Case<'a> {
    evidence: &'a Evidence<'a>,
    rules: &'a Rules,
    reason: Reason,
}

impl Case<'_> {
    fn deny_all(&self, addresses: &[Address]) -> Vec<Step> {
        let mut done = self.evidence.done.clone();
        let mut steps = Vec::new();
        for found in &self.evidence.accounts {
            let by_address = found.by == FoundBy::Address;
            if by_address && !found.account.as_ref().is_some_and(|account| is_at(account, addresses)) {
                continue;
            }
            if !done.insert(found.id.clone()) {
                continue;
            }
            steps.push(self.deny(found));
        }
        steps
    }

    fn deny(&self, found: &Found) -> Step {
        let Some(account) = &found.account else { return gone(&found.id) };
        let known = self.evidence.known;
        let was_denied = is_denied(known, &account.id);
        if found.by == FoundBy::Address
            && !was_denied
            && let Err(why) = self.rules.accepts(account)
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
            // Written by a process that died before it could say so, or the state is younger than the mark.
            Difference::None => Action::Confirm,
            Difference::Theirs(owner) => Action::Theirs(owner),
            Difference::Patch(patch) => {
                let restores = was_denied && !account.mark.as_ref().is_some_and(|mark| mark.deactivated);
                let first = !known.accounts.iter().any(|account| account.denied);
                return step(account, Action::Deny { patch, restores, first }, None);
            }
        };
        step(account, action, Some(Outcome::Unchanged))
    }

    /// Another user who may log in holds the account's address: it is not denied, and what is ours of it is not left alone.
    fn deny_shared(&self, account: &Account, other: OktaUserId) -> Step {
        let known = self.evidence.known;
        // Also where the mark was wiped and something of ours is left: a block, the mirror.
        let Difference::Patch(patch) = mark::allow(account, &self.reason, known_of(known, &account.id)) else {
            let skipped = Skipped::SharedAddress(other);
            return step(account, Action::Skip(skipped.clone()), Some(Outcome::Skipped(skipped)));
        };
        if known.approved {
            return step(account, Action::Lift(patch), Some(Outcome::Skipped(Skipped::SharedAddress(other))));
        }
        hold(account, Held::AddressReused(other))
    }

    fn allow(&self, found: &Found) -> Step {
        let Some(account) = &found.account else { return gone(&found.id) };
        let known = self.evidence.known;
        if !known.approved
            && let Some(other) = self.other_holder(account)
        {
            return hold(account, Held::AddressReused(other));
        }
        let action = match mark::allow(account, &self.reason, known_of(known, &account.id)) {
            Difference::None => Action::Open,
            Difference::Theirs(owner) => Action::Theirs(owner),
            Difference::Patch(patch) => Action::Lift(patch),
        };
        step(account, action, None)
    }

    fn other_holder(&self, account: &Account) -> Option<OktaUserId> {
        account.email.as_ref().and_then(|email| self.evidence.holders.of(email)).cloned()
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

/// What a mark that the store learns of now says of its denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation {
    /// When it was written.
    pub denied_at: Timestamp,
    /// The event that it names.
    pub event_id: Option<String>,
    /// When that was published.
    pub published: Option<Timestamp>,
    /// From then to the mark.
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

/// What follows from a look whose rounds are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conclusion {
    /// The next look, if one comes without a new reason.
    pub next_look: Option<Timestamp>,
    /// Which recheck that is.
    pub recheck_step: u32,
    /// Which other users become due.
    pub wake: Wake,
    /// The user is allowed: the guard forgets them.
    pub forget_guard: bool,
    /// An event that an earlier look settled as `unchanged` has its effect only now.
    pub belated_event: bool,
}

/// Concludes a look that ended with `outcome`. `lifted`: it lifted a mark.
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

/// When the user is looked at again without a new reason, and which recheck that is.
fn next_look(
    known: &KnownUser,
    assessment: Option<&Assessment<'_>>,
    outcome: &Outcome,
    policy: &Policy,
    now: Timestamp,
) -> (Option<Timestamp>, u32) {
    // A new reason has set it back to 0.
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
    // What a neighbour's look finds unchanged wakes nobody, or two users would wake each other forever. Whether the look
    // succeeded does not matter: what others depend on is what Okta says of this user.
    let changed = *outcome == Outcome::Applied || read.is_some_and(|read| Some(&read.status) != known.status.as_ref());
    let dependents = read.is_some() && (changed || (outcome.settles() && known.cause != Cause::Neighbour));
    // Not only when the status read before was another one: the user may have left and come back between two looks, and a
    // user who shares the address may have been denied in between.
    let news = changed || known.events.iter().any(|event| event.open);
    // Also of users with the verdict `Leave`: a user who is skipped for several holders waits for one of them. A look that
    // denies closes what is shared itself.
    let came_or_went = dependents && news && verdict != Some(Verdict::Deny);
    Wake::new(dependents, lifted || came_or_went)
}
