//! The mark: what we write on an account, who owns it, and when an account differs from its target state.
//!
//! ```json
//! { "app_metadata":  { "okta_sync": { "deactivated": "true", "okta_user_id": "00u…", "okta_org": "00o…",
//!                                     "status": "DEPROVISIONED", "at": "2026-11-23T10:00:00.000Z", "event_id": "…",
//!                                     "blocked": true } },
//!   "user_metadata": { "okta": { "deactivated": "true" } },
//!   "blocked": true }
//! ```
//!
//! The authority is `app_metadata`, which users cannot edit. Auth0 merges metadata on the first level only, so a PATCH
//! replaces the object `okta_sync` atomically, without read-modify-write. `user_metadata.okta.deactivated` is the mirror:
//! we write it for Actions that read it, and never trust it.
//!
//! Several installations, one for each Okta org, can deny accounts of one tenant. Each has a different metadata key,
//! and so a separate mark. The mirror and the block exist only once: an installation that lifts its mark leaves them in
//! place while another one still denies the account.

use super::account::Mirror;
use super::{Account, OktaUserId};

/// Our object in `app_metadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whether it denies the account.
    pub deactivated: bool,
    /// The user who is denied. Missing if another program changed the mark.
    pub okta_user_id: Option<OktaUserId>,
    /// The id of the Okta org that the user is in. Missing in marks of versions that did not write it.
    pub okta_org: Option<String>,
    /// The user's status at the time of the write.
    pub status: Option<String>,
    /// The time of the write, RFC 3339.
    pub at: Option<String>,
    /// The event that caused the write, if one did.
    pub event_id: Option<String>,
    /// Whether we set `blocked` too. Only then do we lift it.
    pub blocked: bool,
}

impl Mark {
    /// Whether the marks differ at most in their reason (time, event, status).
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        self.deactivated == other.deactivated
            && self.okta_user_id == other.okta_user_id
            && self.blocked == other.blocked
    }

    /// The other Okta org whose installation wrote this mark, if `org` is ours.
    pub fn other_org(&self, org: Option<&str>) -> Option<&str> {
        self.okta_org.as_deref().filter(|theirs| org.is_some_and(|ours| ours != *theirs))
    }
}

/// The changes of one PATCH. Never empty, and never a bare `{}`, which would wipe all metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The complete mark.
    pub mark: Mark,
    /// The new value of the mirror, if it changes.
    pub mirror: Option<bool>,
    /// The new value of `blocked`, if it changes.
    pub blocked: Option<bool>,
    /// The former metadata keys that are removed with their marks.
    pub removed_keys: Vec<String>,
    /// The former metadata keys under which the mark is written too.
    pub copy_keys: Vec<String>,
}

/// The optional parts of a mark that this installation writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkOptions {
    /// Also write `user_metadata.okta.deactivated`.
    pub mirror: bool,
    /// Also set `blocked`.
    pub block: bool,
}

/// Why a mark is written; part of the mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The user whom the mark names.
    pub okta_user_id: OktaUserId,
    /// The id of our Okta org, once it is known.
    pub okta_org: Option<String>,
    /// The user's current status.
    pub status: String,
    /// The current time, RFC 3339.
    pub at: String,
    /// The event that caused the look, if one did.
    pub event_id: Option<String>,
}

/// The keys in `app_metadata` under which this installation keeps its mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataKeys {
    /// The key of every mark that is written.
    pub current: String,
    /// Keys of earlier configurations. Marks under them count, and are rewritten under the current key.
    pub former: Vec<String>,
}

impl MetadataKeys {
    /// Without former keys.
    pub fn only(current: &str) -> Self {
        Self { current: current.to_owned(), former: Vec::new() }
    }

    /// The current key, then the former ones.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.current).chain(&self.former).map(String::as_str)
    }

    /// The part of a policy's fingerprint that identifies them.
    pub fn fingerprint(&self) -> String {
        format!("key={}", self.current)
    }

    /// The current key of the configuration that has this fingerprint; `None` if the fingerprint does not name one.
    pub fn current_of(fingerprint: &str) -> Option<&str> {
        fingerprint.rsplit_once(" key=").map(|(_, key)| key)
    }
}

/// What the store says about an account, for one user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// It was denied for this user.
    pub denied: bool,
    /// We blocked it.
    pub blocked: bool,
}

/// The difference between an account and its target state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// None.
    None,
    /// The account is denied by a mark that names another user, and stays so.
    Theirs(OktaUserId),
    /// The account is denied by the installation of this Okta org, which writes its mark under our metadata key.
    OtherOrg(String),
    /// The PATCH that removes the difference.
    Patch(Patch),
}

/// Computes what to write so that `account` is denied for the user in `reason`.
///
/// A wrong `deactivated` (in the mark or the mirror), a missing owner and our missing block are differences; an older time
/// or another event alone is not. We do not claim a block that another program set. `known` is what the store says about
/// this account: if the mark was wiped, it still says whether a block is ours.
pub fn deny(account: &Account, reason: &Reason, options: MarkOptions, known: Known) -> Difference {
    let other_org = account.mark.as_ref().and_then(|mark| mark.other_org(reason.okta_org.as_deref()));
    let current = account.mark.as_ref().filter(|mark| mark.deactivated && other_org.is_none());
    if let (Some(org), None) = (other_org, &account.former_key)
        && account.mark.as_ref().is_some_and(|mark| mark.deactivated)
    {
        return Difference::OtherOrg(org.to_owned());
    }
    if let Some(owner) = current.and_then(|mark| mark.okta_user_id.as_ref())
        && *owner != reason.okta_user_id
    {
        return Difference::Theirs(owner.clone());
    }
    // Without the mark there is nothing to compare, so write it again. Auth0 merges the first level only, so the other
    // keys need not be known.
    let owned = current.is_some_and(|mark| mark.okta_user_id.is_some());
    let ours_blocked = if owned { current.is_some_and(|mark| mark.blocked) } else { known.blocked };
    let mirror = options.mirror && matches!(account.mirror, Mirror::Absent | Mirror::Off);
    let block = (options.block || ours_blocked) && !account.blocked;
    let rewrite = account.former_key.is_some() && other_org.is_none() && !account.keeps_former;
    if owned && !mirror && !block && !rewrite {
        return Difference::None;
    }
    // Otherwise the block would stay when both installations have lifted their marks.
    let shared_block = options.block && account.other_marks.blocked;
    Difference::Patch(Patch {
        mark: Mark {
            deactivated: true,
            okta_user_id: Some(reason.okta_user_id.clone()),
            okta_org: reason.okta_org.clone(),
            status: Some(reason.status.clone()),
            at: Some(reason.at.clone()),
            event_id: reason.event_id.clone(),
            blocked: block || ((ours_blocked || shared_block) && account.blocked),
        },
        mirror: mirror.then_some(true),
        blocked: block.then_some(true),
        removed_keys: if account.keeps_former { Vec::new() } else { account.former_keys(reason.okta_org.as_deref()) },
        copy_keys: account.copy_keys(reason.okta_org.as_deref()),
    })
}

/// Computes what to write so that `account` is no longer denied for the user in `reason`.
///
/// Lifts only a mark that names this user, and the block if the mark says that it is ours. A mirror without a mark belongs
/// to another program and stays, unless the store says that we denied the account: then the mark was wiped, and we undo
/// the rest.
pub fn allow(account: &Account, reason: &Reason, known: Known) -> Difference {
    if let Some(mark) = &account.mark
        && let Some(org) = mark.other_org(reason.okta_org.as_deref())
    {
        return if mark.deactivated { Difference::OtherOrg(org.to_owned()) } else { Difference::None };
    }
    let (deactivated, ours_blocked) = match &account.mark {
        Some(Mark { okta_user_id: Some(owner), deactivated, .. }) if *owner != reason.okta_user_id => {
            return if *deactivated { Difference::Theirs(owner.clone()) } else { Difference::None };
        }
        Some(mark) if mark.okta_user_id.is_some() => (mark.deactivated, mark.blocked),
        // A mark without an owner is lifted only if the store says that we denied the account for this user.
        Some(mark) if known.denied => (mark.deactivated, known.blocked),
        // A mark that cannot be read is in force if the store says so.
        None if known.denied => (account.unread, known.blocked),
        _ => return Difference::None,
    };
    // A lifted mark may have left its mirror on, if Auth0 refused the mirror.
    let mirror = account.mirror == Mirror::On && !account.other_marks.denied;
    let unblock = ours_blocked && account.blocked && !account.other_marks.blocked;
    if !deactivated && !mirror && !unblock {
        return Difference::None;
    }
    Difference::Patch(Patch {
        mark: Mark {
            deactivated: false,
            okta_user_id: Some(reason.okta_user_id.clone()),
            okta_org: reason.okta_org.clone(),
            status: Some(reason.status.clone()),
            at: Some(reason.at.clone()),
            event_id: reason.event_id.clone(),
            blocked: false,
        },
        mirror: mirror.then_some(false),
        blocked: unblock.then_some(false),
        removed_keys: account.former_keys(reason.okta_org.as_deref()),
        copy_keys: Vec::new(),
    })
}

/// The patch that moves a mark under a former key to the configured one, and changes nothing else; `None` if there is none, or
/// if it has to stay. It is not a decision about the user, so it is right whatever their status is.
pub fn moved(account: &Account, org: Option<&str>) -> Option<Patch> {
    let mark = account.mark.clone().filter(|mark| mark.deactivated && mark.other_org(org).is_none())?;
    (account.former_key.is_some() && !account.keeps_former).then(|| Patch {
        mark,
        mirror: None,
        blocked: None,
        removed_keys: account.former_keys(org),
        copy_keys: Vec::new(),
    })
}

/// One attempt to apply a patch: the whole patch, or what to send if Auth0 refuses that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The mark, and the other parts of the patch.
    Mark(Patch),
    /// `blocked` alone: it takes no space in the metadata.
    Block(bool),
    /// Our data is removed, which makes the profile smaller.
    Remove(Removal),
    /// No write: the account is already good enough.
    Nothing,
}

/// What to send for `patch`, in this order, until Auth0 accepts one. Each takes less space than the one before, and has
/// the same effect on logins: a profile that is filled to Auth0's limit must prevent neither a denial nor a return.
pub fn attempts(account: &Account, patch: &Patch) -> Vec<Write> {
    let mut attempts = vec![Write::Mark(patch.clone())];
    if patch.mirror.is_some() && !patch.mark.deactivated {
        // Removed with its mirror: a mirror that stays denies the account.
        attempts.push(Write::Remove(removal_instead_of(patch, true)));
    }
    if patch.mirror.is_some() {
        // Everything but the mirror is there, so another write would change nothing.
        if patch.blocked.is_none() && account.mark.as_ref().is_some_and(|mark| patch.mark.says_the_same_as(mark)) {
            attempts.push(Write::Nothing);
            return attempts;
        }
        attempts.push(Write::Mark(Patch { mirror: None, ..patch.clone() }));
    }
    let minimal = Mark { status: None, at: None, event_id: None, ..patch.mark.clone() };
    attempts.push(Write::Mark(Patch { mark: minimal, mirror: None, ..patch.clone() }));
    attempts.extend(if patch.mark.deactivated {
        deny_without_mark(account, patch)
    } else {
        lift_without_mark(account, patch)
    });
    attempts
}

/// The last resort of a denial. A block that another program set is not ours.
fn deny_without_mark(account: &Account, patch: &Patch) -> Option<Write> {
    let ours_stands = patch.mark.blocked && patch.blocked.is_none();
    match account.blocked {
        false => Some(Write::Block(true)),
        true => ours_stands.then_some(Write::Nothing),
    }
}

/// The last resort of a lifted mark.
fn lift_without_mark(account: &Account, patch: &Patch) -> Option<Write> {
    if account.mark.is_some() || account.unread {
        return Some(Write::Remove(removal_instead_of(patch, false)));
    }
    patch.blocked.map(Write::Block)
}

/// The removal with the same effect as a patch that lifts a mark.
fn removal_instead_of(patch: &Patch, mirror: bool) -> Removal {
    Removal { mirror, unblock: patch.blocked == Some(false), removed_keys: patch.removed_keys.clone() }
}

/// Whether the response to a write contains what was sent.
pub fn took_hold(account: &Account, write: &Write) -> bool {
    match write {
        Write::Mark(patch) => {
            account.mark.as_ref().map_or(account.unread, |mark| mark.says_the_same_as(&patch.mark))
                && patch.blocked.is_none_or(|blocked| account.blocked == blocked)
        }
        Write::Block(blocked) => account.blocked == *blocked,
        Write::Remove(removal) => is_removed(account, removal),
        Write::Nothing => true,
    }
}

/// The changes that remove all of our data from an account. Our object in `app_metadata` is always removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Remove `deactivated` from `user_metadata.okta`.
    pub mirror: bool,
    /// Lift the block.
    pub unblock: bool,
    /// The former metadata keys that are removed with their marks.
    pub removed_keys: Vec<String>,
}

/// Computes what to remove so that none of our data is left on `account`; `None` if there is none. If `known` says that
/// we denied the account, the mirror is ours even without a mark, and a mark that cannot be read counts as present.
///
/// A block is lifted only if our mark says that it is ours, or, without a mark, the store. A mark of another Okta org than
/// `org` is not ours, and the mirror and the block stay if another installation denies the account.
pub fn removal(account: &Account, known: Known, org: Option<&str>) -> Option<Removal> {
    let others = account.other_marks;
    let removed_keys = account.former_keys(org);
    match &account.mark {
        Some(mark) if mark.other_org(org).is_some() => None,
        Some(mark) => Some(Removal {
            mirror: matches!(account.mirror, Mirror::On | Mirror::Off) && !others.denied,
            unblock: mark.blocked && account.blocked && !others.blocked,
            removed_keys,
        }),
        None => {
            let removal = Removal {
                mirror: known.denied && account.mirror == Mirror::On && !others.denied,
                unblock: known.denied && known.blocked && account.blocked && !others.blocked,
                removed_keys,
            };
            let takes = removal.mirror || removal.unblock || !removal.removed_keys.is_empty();
            (takes || (known.denied && account.unread)).then_some(removal)
        }
    }
}

/// Whether the response to a PATCH no longer contains what was removed.
pub fn is_removed(account: &Account, removal: &Removal) -> bool {
    let is_ours = |key: &String| removal.removed_keys.contains(key);
    let has_mark = account.mark.is_some() || account.keyed.iter().any(|at| at.mark.is_some() && is_ours(&at.key));
    let has_mirror = removal.mirror && matches!(account.mirror, Mirror::On | Mirror::Off);
    let has_block = removal.unblock && account.blocked;
    !(has_mark || has_mirror || has_block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AccountId;
    use crate::domain::account::{KeyedMark, OtherMarks};

    const BOTH: MarkOptions = MarkOptions { mirror: true, block: false };
    const BLOCK: MarkOptions = MarkOptions { mirror: true, block: true };

    const NEW: Known = Known { denied: false, blocked: false };

    fn account() -> Account {
        Account {
            id: AccountId::new("auth0|1"),
            email: None,
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
        }
    }

    fn reason(user: &str) -> Reason {
        Reason {
            okta_user_id: OktaUserId::parse(user).unwrap(),
            okta_org: Some("00o1".to_owned()),
            status: "DEPROVISIONED".to_owned(),
            at: "2026-11-23T10:00:00.000Z".to_owned(),
            event_id: Some("e1".to_owned()),
        }
    }

    /// The account as Auth0 would return it after the patch.
    fn after(account: &Account, difference: Difference) -> Account {
        let Difference::Patch(patch) = difference else { return account.clone() };
        Account {
            mark: Some(patch.mark),
            mirror: match patch.mirror {
                Some(true) => Mirror::On,
                Some(false) => Mirror::Off,
                None => account.mirror,
            },
            blocked: patch.blocked.unwrap_or(account.blocked),
            ..account.clone()
        }
    }

    fn removing(mirror: bool, unblock: bool) -> Removal {
        Removal { mirror, unblock, removed_keys: Vec::new() }
    }

    /// An account with a mark of this org under another key.
    fn keyed(key: &str, listed: bool, org: &str) -> Account {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BOTH, NEW));
        let mark = denied.mark.map(|mark| Mark { okta_org: Some(org.to_owned()), ..mark });
        Account { keyed: vec![KeyedMark { key: key.to_owned(), listed, mark }], mirror: Mirror::On, ..account() }
    }

    #[test]
    fn unlisted_key_with_our_org_is_a_former_key() {
        for (listed, org, ours) in
            [(true, "00o1", true), (false, "00o1", true), (true, "00o2", false), (false, "00o2", false)]
        {
            let mut account = keyed("acme", listed, org);
            account.claim_marks(Some("00o1"), false);
            let case = format!("listed {listed}, {org}");
            assert_eq!((account.former_key.is_some(), account.other_marks.denied), (ours, !ours), "{case}");
            let removed = if ours { vec!["acme".to_owned()] } else { Vec::new() };
            let Difference::Patch(patch) = deny(&account, &reason("00u1"), BOTH, NEW) else { panic!("{case}") };
            assert_eq!(patch.removed_keys, removed, "{case}");
            match allow(&account, &reason("00u1"), NEW) {
                Difference::Patch(patch) => assert_eq!((ours, patch.removed_keys), (true, removed.clone()), "{case}"),
                other => assert_eq!((ours, other), (false, Difference::None), "{case}"),
            }
            let taken = removal(&account, NEW, Some("00o1")).map(|removal| removal.removed_keys);
            assert_eq!(taken, ours.then_some(removed), "{case}");
        }
        let mut unknown = keyed("acme", false, "00o1");
        unknown.claim_marks(None, false);
        assert!(unknown.former_key.is_none() && unknown.other_marks.denied, "our org is not known yet");
    }

    #[test]
    fn marks_stay_and_are_copied_until_the_action_is_bound() {
        let mut account = keyed("acme", true, "00o1");
        account.claim_marks(Some("00o1"), true);
        assert_eq!(deny(&account, &reason("00u1"), BOTH, NEW), Difference::None, "it stays where it is");
        assert_eq!(moved(&account, Some("00o1")), None);
        let Difference::Patch(patch) = allow(&account, &reason("00u1"), NEW) else { panic!("must differ") };
        assert_eq!((patch.removed_keys, patch.copy_keys), (vec!["acme".to_owned()], Vec::new()));
        account.keyed[0].mark = None;
        account.mark = None;
        let Difference::Patch(patch) = deny(&account, &reason("00u1"), BOTH, NEW) else { panic!("must differ") };
        assert_eq!((patch.removed_keys, patch.copy_keys), (Vec::new(), vec!["acme".to_owned()]));
        let mut account = keyed("acme", true, "00o1");
        account.claim_marks(Some("00o1"), false);
        let patch = moved(&account, Some("00o1")).unwrap();
        assert_eq!((Some(&patch.mark), patch.mirror, patch.blocked), (account.mark.as_ref(), None, None));
        assert_eq!(patch.removed_keys, ["acme"]);
    }

    #[test]
    fn unread_account_loses_listed_former_keys() {
        let slot = KeyedMark { key: "acme".to_owned(), listed: true, mark: None };
        let unread = Account { unread: true, mirror: Mirror::Unread, keyed: vec![slot], ..account() };
        let known = Known { denied: true, blocked: false };
        let Difference::Patch(patch) = allow(&unread, &reason("00u1"), known) else { panic!("must differ") };
        assert_eq!(patch.removed_keys, ["acme"]);
        assert_eq!(removal(&unread, known, Some("00o1")).unwrap().removed_keys, ["acme"]);
    }

    #[test]
    fn denying_twice_writes_once() {
        for options in [BOTH, BLOCK, MarkOptions { mirror: false, block: false }] {
            let denied = after(&account(), deny(&account(), &reason("00u1"), options, NEW));
            assert!(denied.is_denied());
            let later = Reason { at: "2027-01-01T00:00:00.000Z".to_owned(), event_id: None, ..reason("00u1") };
            assert_eq!(
                deny(&denied, &later, options, NEW),
                Difference::None,
                "a changed time or event is not a difference"
            );
        }
    }

    #[test]
    fn allow_undoes_exactly_what_deny_did() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        assert!(denied.blocked);
        let allowed = after(&denied, allow(&denied, &reason("00u1"), NEW));
        assert!(!allowed.is_denied() && !allowed.blocked);
        assert_eq!(allow(&allowed, &reason("00u1"), NEW), Difference::None);
    }

    #[test]
    fn foreign_block_is_not_claimed_or_lifted() {
        let blocked = Account { blocked: true, ..account() };
        let Difference::Patch(patch) = deny(&blocked, &reason("00u1"), BLOCK, NEW) else { panic!("must differ") };
        assert_eq!((patch.blocked, patch.mark.blocked), (None, false));
        let denied = after(&blocked, Difference::Patch(patch));
        let allowed = after(&denied, allow(&denied, &reason("00u1"), NEW));
        assert!(allowed.blocked, "it was not ours");
    }

    #[test]
    fn our_block_is_restored_without_block_option() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        let unblocked = Account { blocked: false, ..denied };
        let restored = after(&unblocked, deny(&unblocked, &reason("00u1"), BOTH, NEW));
        assert!(restored.blocked);
    }

    #[test]
    fn rest_of_wiped_mark_is_undone() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        let wiped = Account { mark: None, ..denied };
        let ours = Known { denied: true, blocked: true };
        assert_eq!(allow(&wiped, &reason("00u1"), NEW), Difference::None, "the store does not know the account");
        let allowed = after(&wiped, allow(&wiped, &reason("00u1"), ours));
        assert!(!allowed.is_denied() && !allowed.blocked);
        let restored = after(&wiped, deny(&wiped, &reason("00u1"), BOTH, ours));
        assert!(restored.mark.as_ref().unwrap().blocked, "the block stays ours");
        assert!(!after(&restored, allow(&restored, &reason("00u1"), ours)).blocked);
    }

    #[test]
    fn mark_belongs_to_the_user_it_names() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BOTH, NEW));
        let other = OktaUserId::parse("00u1").unwrap();
        assert_eq!(deny(&denied, &reason("00u2"), BOTH, NEW), Difference::Theirs(other.clone()));
        assert_eq!(allow(&denied, &reason("00u2"), NEW), Difference::Theirs(other));
    }

    #[test]
    fn ownerless_mark_is_adopted_not_lifted() {
        let mut orphan = after(&account(), deny(&account(), &reason("00u1"), BOTH, NEW));
        if let Some(mark) = &mut orphan.mark {
            mark.okta_user_id = None;
        }
        assert_eq!(allow(&orphan, &reason("00u1"), NEW), Difference::None);
        assert!(matches!(deny(&orphan, &reason("00u1"), BOTH, NEW), Difference::Patch(_)));
        let seed_flag = Account { mirror: Mirror::On, ..account() };
        assert_eq!(allow(&seed_flag, &reason("00u1"), NEW), Difference::None);
        assert!(matches!(deny(&seed_flag, &reason("00u1"), BOTH, NEW), Difference::Patch(_)));
    }

    #[test]
    fn cleared_mirror_is_restored_foreign_one_left() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BOTH, NEW));
        let cleared = Account { mirror: Mirror::Off, ..denied.clone() };
        assert!(matches!(deny(&cleared, &reason("00u1"), BOTH, NEW), Difference::Patch(_)));
        let foreign = Account { mirror: Mirror::Foreign, ..denied };
        assert_eq!(deny(&foreign, &reason("00u1"), BOTH, NEW), Difference::None);
    }

    #[test]
    fn response_without_mark_was_not_applied() {
        let Difference::Patch(patch) = deny(&account(), &reason("00u1"), BLOCK, NEW) else { panic!("must differ") };
        let write = Write::Mark(patch.clone());
        assert!(!took_hold(&account(), &write));
        let held = after(&account(), Difference::Patch(patch));
        assert!(took_hold(&held, &write));
        let Some(mark) = held.mark.clone() else { panic!("it is marked") };
        for other in [
            Mark { deactivated: false, ..mark.clone() },
            Mark { okta_user_id: OktaUserId::parse("00u2"), ..mark.clone() },
            Mark { blocked: false, ..mark },
        ] {
            assert!(!took_hold(&Account { mark: Some(other.clone()), ..held.clone() }, &write), "{other:?}");
        }
        assert!(!took_hold(&Account { blocked: false, ..held }, &write), "the block is missing");
    }

    #[test]
    fn ownerless_flag_is_lifted_only_if_known() {
        let mut orphan = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        orphan.mark = orphan.mark.map(|mark| Mark { okta_user_id: None, ..mark });
        assert_eq!(allow(&orphan, &reason("00u1"), NEW), Difference::None);
        let lifted = after(&orphan, allow(&orphan, &reason("00u1"), Known { denied: true, blocked: true }));
        assert!(!lifted.is_denied() && !lifted.blocked, "{lifted:?}");
        let kept = after(&orphan, allow(&orphan, &reason("00u1"), Known { denied: true, blocked: false }));
        assert!(!kept.is_denied() && kept.blocked, "the block may belong to another program: {kept:?}");
    }

    #[test]
    fn removal_takes_all_of_ours_and_only_ours() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        let both = removing(true, true);
        assert_eq!(removal(&denied, NEW, None), Some(both.clone()));
        let open = Account { mark: None, mirror: Mirror::Absent, blocked: false, ..denied.clone() };
        assert!(is_removed(&open, &both));
        for left in [
            Account { mark: denied.mark.clone(), ..open.clone() },
            Account { mirror: Mirror::On, ..open.clone() },
            Account { mirror: Mirror::Off, ..open.clone() },
            Account { blocked: true, ..open.clone() },
        ] {
            assert!(!is_removed(&left, &both), "{left:?}");
        }
        // The rest belongs to another program and may stay.
        let theirs = Account { mirror: Mirror::Foreign, blocked: true, ..open.clone() };
        assert!(is_removed(&theirs, &removing(false, false)));

        let unblocked = Account { blocked: false, ..denied.clone() };
        assert_eq!(removal(&unblocked, NEW, None), Some(removing(true, false)));
        let wiped = Account { mark: None, ..denied };
        assert_eq!(
            removal(&wiped, Known { denied: true, blocked: false }, None),
            Some(removing(true, false)),
            "the owner of the block is unknown"
        );
        assert_eq!(removal(&wiped, NEW, None), None, "the mirror of another program");
        assert_eq!(removal(&open, Known { denied: true, blocked: true }, None), None);
    }

    #[test]
    fn refused_denial_shrinks_to_block_alone() {
        let Difference::Patch(patch) = deny(&account(), &reason("00u1"), BOTH, NEW) else { panic!("must differ") };
        let writes = attempts(&account(), &patch);
        assert_eq!(writes.len(), 4, "{writes:?}");
        let Write::Mark(minimal) = &writes[2] else { panic!("{writes:?}") };
        assert!(minimal.mark.says_the_same_as(&patch.mark) && minimal.mirror.is_none());
        assert_eq!((&minimal.mark.status, &minimal.mark.at, &minimal.mark.event_id), (&None, &None, &None));
        assert_eq!(writes[3], Write::Block(true));
        // A block that another program set denies for its reasons, and may be lifted for them.
        let theirs = Account { blocked: true, ..account() };
        let Difference::Patch(patch) = deny(&theirs, &reason("00u1"), BLOCK, NEW) else { panic!("must differ") };
        assert_eq!(attempts(&theirs, &patch).len(), 3);
        // Our block alone stands for the mark that Auth0 refused.
        let ours = Known { denied: true, blocked: true };
        let Difference::Patch(patch) = deny(&theirs, &reason("00u1"), BLOCK, ours) else { panic!("must differ") };
        assert_eq!(attempts(&theirs, &patch).last(), Some(&Write::Nothing));
        let Difference::Patch(patch) = allow(&theirs, &reason("00u1"), ours) else { panic!("must differ") };
        assert_eq!(attempts(&theirs, &patch).last(), Some(&Write::Block(false)));
    }

    #[test]
    fn refused_lift_removes_the_mark() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        let Difference::Patch(patch) = allow(&denied, &reason("00u1"), NEW) else { panic!("must differ") };
        let last = attempts(&denied, &patch).pop();
        assert_eq!(last, Some(Write::Remove(removing(false, true))));
    }

    #[test]
    fn unread_mark_is_written_and_lifted() {
        let unread = Account { unread: true, mirror: Mirror::Unread, ..account() };
        let Difference::Patch(patch) = deny(&unread, &reason("00u1"), BOTH, NEW) else { panic!("must differ") };
        assert_eq!(patch.mirror, None, "what is beside the mirror is unknown");
        assert!(took_hold(&unread, &Write::Mark(patch)), "as far as it can be read");
        let known = Known { denied: true, blocked: false };
        let Difference::Patch(patch) = allow(&unread, &reason("00u1"), known) else { panic!("must differ") };
        assert!(!patch.mark.deactivated);
        assert_eq!(allow(&unread, &reason("00u1"), NEW), Difference::None, "nothing says that it is ours");
        assert!(removal(&unread, known, None).is_some() && removal(&unread, NEW, None).is_none());
    }
}
