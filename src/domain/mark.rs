//! The mark: what we write on an account, whose it is, and when it differs from what it should be.
//!
//! ```json
//! { "app_metadata":  { "okta_sync": { "deactivated": "true", "okta_user_id": "00u…", "status": "DEPROVISIONED",
//!                                     "at": "2026-11-23T10:00:00.000Z", "event_id": "…", "blocked": true } },
//!   "user_metadata": { "okta": { "deactivated": "true" } },
//!   "blocked": true }
//! ```
//!
//! The authority is `app_metadata`, which a user cannot edit; Auth0 merges metadata on its first level only, so the
//! whole object `okta_sync` is replaced at once and needs no read-modify-write. `user_metadata.okta.deactivated` is the
//! mirror: it is written for Actions that read it, and never trusted.

use super::account::Mirror;
use super::{Account, OktaUserId};

/// Our object in `app_metadata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Is the account denied by it?
    pub deactivated: bool,
    /// For whom. Missing when somebody tampered with it.
    pub okta_user_id: Option<OktaUserId>,
    /// The user's status when it was written.
    pub status: Option<String>,
    /// When it was written, RFC 3339.
    pub at: Option<String>,
    /// The event that was the reason, if one was.
    pub event_id: Option<String>,
    /// Did we set `blocked` as well? Then, and only then, we lift it.
    pub blocked: bool,
}

impl Mark {
    /// Is nothing but the reason (its time, its event, the status) different?
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        self.deactivated == other.deactivated
            && self.okta_user_id == other.okta_user_id
            && self.blocked == other.blocked
    }
}

/// What one PATCH of an account changes. Never empty, never a whole `{}` (which would wipe all metadata).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The mark, whole.
    pub mark: Mark,
    /// The mirror, if it is to be written.
    pub mirror: Option<bool>,
    /// `blocked`, if it is to be set or lifted.
    pub blocked: Option<bool>,
}

/// Which parts of the contract's mark this installation writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkOptions {
    /// Also write `user_metadata.okta.deactivated`.
    pub mirror: bool,
    /// Also set `blocked`.
    pub block: bool,
}

/// Why a mark would be written: becomes part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The user whom the mark names.
    pub okta_user_id: OktaUserId,
    /// Their status now.
    pub status: String,
    /// Now, RFC 3339.
    pub at: String,
    /// The event that made us look, if one did.
    pub event_id: Option<String>,
}

/// What the state says of an account, for the user in question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// It was denied for this user.
    pub denied: bool,
    /// We blocked it.
    pub blocked: bool,
}

/// What a comparison of an account with a verdict came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The account is as it should be.
    None,
    /// The account is denied by a mark that names another user: it is theirs, and stays.
    Theirs(OktaUserId),
    /// This has to be written.
    Patch(Patch),
}

/// What has to be written so that `account` is denied for the user in `reason`.
///
/// Only a wrong `deactivated` (ours or the mirror's), a missing owner or a missing block of ours is a difference; an
/// older time or another event alone is none. A block that somebody else set is not claimed. `known` is what the state
/// says of this account: where the mark was wiped, it still knows that a block is ours.
pub fn deny(account: &Account, reason: &Reason, options: MarkOptions, known: Known) -> Difference {
    let current = account.mark.as_ref().filter(|mark| mark.deactivated);
    if let Some(owner) = current.and_then(|mark| mark.okta_user_id.as_ref())
        && *owner != reason.okta_user_id
    {
        return Difference::Theirs(owner.clone());
    }
    let owned = current.is_some_and(|mark| mark.okta_user_id.is_some());
    let ours_blocked = if owned { current.is_some_and(|mark| mark.blocked) } else { known.blocked };
    let mirror = options.mirror && matches!(account.mirror, Mirror::Absent | Mirror::Off);
    let block = (options.block || ours_blocked) && !account.blocked;
    if owned && !mirror && !block {
        return Difference::None;
    }
    Difference::Patch(Patch {
        mark: Mark {
            deactivated: true,
            okta_user_id: Some(reason.okta_user_id.clone()),
            status: Some(reason.status.clone()),
            at: Some(reason.at.clone()),
            event_id: reason.event_id.clone(),
            blocked: block || (ours_blocked && account.blocked),
        },
        mirror: mirror.then_some(true),
        blocked: block.then_some(true),
    })
}

/// What has to be written so that `account` is no longer denied for the user in `reason`.
///
/// Only a mark that names this user is lifted, with the block that it says is ours. A mirror that is on without a mark
/// of ours is somebody else's and stays, unless the state knows that we denied the account: then the mark was wiped, and
/// what is left of it is ours to undo.
pub fn allow(account: &Account, reason: &Reason, known: Known) -> Difference {
    let (deactivated, ours_blocked) = match &account.mark {
        Some(Mark { okta_user_id: Some(owner), deactivated, .. }) if *owner != reason.okta_user_id => {
            return if *deactivated { Difference::Theirs(owner.clone()) } else { Difference::None };
        }
        Some(mark) if mark.okta_user_id.is_some() => (mark.deactivated, mark.blocked),
        // A flag that names nobody is lifted only from what we know to have denied for this user.
        Some(mark) if known.denied => (mark.deactivated, known.blocked),
        None if known.denied => (false, known.blocked),
        _ => return Difference::None,
    };
    // A mark of ours that is already off may have left its mirror on, when the mirror was refused.
    let mirror = account.mirror == Mirror::On;
    let unblock = ours_blocked && account.blocked;
    if !deactivated && !mirror && !unblock {
        return Difference::None;
    }
    Difference::Patch(Patch {
        mark: Mark {
            deactivated: false,
            okta_user_id: Some(reason.okta_user_id.clone()),
            status: Some(reason.status.clone()),
            at: Some(reason.at.clone()),
            event_id: reason.event_id.clone(),
            blocked: false,
        },
        mirror: mirror.then_some(false),
        blocked: unblock.then_some(false),
    })
}

/// Did the answer to a PATCH come back with what was sent?
pub fn took_hold(account: &Account, patch: &Patch) -> bool {
    account.mark.as_ref().is_some_and(|mark| mark.says_the_same_as(&patch.mark))
        && patch.blocked.is_none_or(|blocked| account.blocked == blocked)
}

/// What taking everything of ours from an account changes, besides our object in `app_metadata`, which goes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Take `deactivated` out of `user_metadata.okta`.
    pub mirror: bool,
    /// Lift the block.
    pub unblock: bool,
}

/// What has to go so that nothing of ours is left on `account`; `None` if nothing is. `known_denied`: the state says that
/// we denied it, so that its mirror is ours even if the mark beside it has gone already.
///
/// A block goes only if our mark says that it is ours.
pub fn removal(account: &Account, known_denied: bool) -> Option<Removal> {
    match &account.mark {
        Some(mark) => Some(Removal {
            mirror: matches!(account.mirror, Mirror::On | Mirror::Off),
            unblock: mark.blocked && account.blocked,
        }),
        None => (known_denied && account.mirror == Mirror::On).then_some(Removal { mirror: true, unblock: false }),
    }
}

/// Did the answer to a PATCH come back without what was to go?
pub fn is_removed(account: &Account, removal: Removal) -> bool {
    account.mark.is_none()
        && !(removal.mirror && matches!(account.mirror, Mirror::On | Mirror::Off))
        && !(removal.unblock && account.blocked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::AccountId;

    const BOTH: MarkOptions = MarkOptions { mirror: true, block: false };
    const BLOCK: MarkOptions = MarkOptions { mirror: true, block: true };

    const NEW: Known = Known { denied: false, blocked: false };

    fn account() -> Account {
        Account {
            id: AccountId::new("auth0|1"),
            email: None,
            email_verified: true,
            connections: vec!["db".to_owned()],
            blocked: false,
            mark: None,
            mirror: Mirror::Absent,
        }
    }

    fn reason(user: &str) -> Reason {
        Reason {
            okta_user_id: OktaUserId::parse(user).unwrap(),
            status: "DEPROVISIONED".to_owned(),
            at: "2026-11-23T10:00:00.000Z".to_owned(),
            event_id: Some("e1".to_owned()),
        }
    }

    /// What Auth0 would show after the patch.
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

    #[test]
    fn denying_twice_writes_once() {
        for options in [BOTH, BLOCK, MarkOptions { mirror: false, block: false }] {
            let denied = after(&account(), deny(&account(), &reason("00u1"), options, NEW));
            assert!(denied.is_denied());
            let later = Reason { at: "2027-01-01T00:00:00.000Z".to_owned(), event_id: None, ..reason("00u1") };
            assert_eq!(
                deny(&denied, &later, options, NEW),
                Difference::None,
                "a changed time or event is no difference"
            );
        }
    }

    #[test]
    fn allowing_undoes_what_denying_did_and_no_more() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        assert!(denied.blocked);
        let allowed = after(&denied, allow(&denied, &reason("00u1"), NEW));
        assert!(!allowed.is_denied() && !allowed.blocked);
        assert_eq!(allow(&allowed, &reason("00u1"), NEW), Difference::None);
    }

    #[test]
    fn a_block_by_somebody_else_is_neither_claimed_nor_lifted() {
        let blocked = Account { blocked: true, ..account() };
        let Difference::Patch(patch) = deny(&blocked, &reason("00u1"), BLOCK, NEW) else { panic!("must differ") };
        assert_eq!((patch.blocked, patch.mark.blocked), (None, false));
        let denied = after(&blocked, Difference::Patch(patch));
        let allowed = after(&denied, allow(&denied, &reason("00u1"), NEW));
        assert!(allowed.blocked, "it was not ours");
    }

    #[test]
    fn our_block_is_restored_while_denied_even_if_blocking_was_switched_off() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        let unblocked = Account { blocked: false, ..denied };
        let restored = after(&unblocked, deny(&unblocked, &reason("00u1"), BOTH, NEW));
        assert!(restored.blocked);
    }

    #[test]
    fn what_is_left_of_a_wiped_mark_is_ours_to_undo() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        let wiped = Account { mark: None, ..denied };
        let ours = Known { denied: true, blocked: true };
        assert_eq!(allow(&wiped, &reason("00u1"), NEW), Difference::None, "nobody knows of it");
        let allowed = after(&wiped, allow(&wiped, &reason("00u1"), ours));
        assert!(!allowed.is_denied() && !allowed.blocked);
        let restored = after(&wiped, deny(&wiped, &reason("00u1"), BOTH, ours));
        assert!(restored.mark.as_ref().unwrap().blocked, "the block stays ours");
        assert!(!after(&restored, allow(&restored, &reason("00u1"), ours)).blocked);
    }

    #[test]
    fn a_mark_belongs_to_the_user_it_names() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BOTH, NEW));
        let other = OktaUserId::parse("00u1").unwrap();
        assert_eq!(deny(&denied, &reason("00u2"), BOTH, NEW), Difference::Theirs(other.clone()));
        assert_eq!(allow(&denied, &reason("00u2"), NEW), Difference::Theirs(other));
    }

    #[test]
    fn a_mark_without_an_owner_is_adopted_by_denying_and_never_lifted_silently() {
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
    fn a_mirror_that_the_user_cleared_is_restored_and_a_foreign_one_is_left_alone() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BOTH, NEW));
        let cleared = Account { mirror: Mirror::Off, ..denied.clone() };
        assert!(matches!(deny(&cleared, &reason("00u1"), BOTH, NEW), Difference::Patch(_)));
        let foreign = Account { mirror: Mirror::Foreign, ..denied };
        assert_eq!(deny(&foreign, &reason("00u1"), BOTH, NEW), Difference::None);
    }

    #[test]
    fn an_answer_without_the_mark_did_not_take_hold() {
        let Difference::Patch(patch) = deny(&account(), &reason("00u1"), BLOCK, NEW) else { panic!("must differ") };
        assert!(!took_hold(&account(), &patch));
        let held = after(&account(), Difference::Patch(patch.clone()));
        assert!(took_hold(&held, &patch));
        let Some(mark) = held.mark.clone() else { panic!("it is marked") };
        for other in [
            Mark { deactivated: false, ..mark.clone() },
            Mark { okta_user_id: OktaUserId::parse("00u2"), ..mark.clone() },
            Mark { blocked: false, ..mark },
        ] {
            assert!(!took_hold(&Account { mark: Some(other.clone()), ..held.clone() }, &patch), "{other:?}");
        }
        assert!(!took_hold(&Account { blocked: false, ..held }, &patch), "not blocked after all");
    }

    #[test]
    fn a_flag_that_names_nobody_is_lifted_from_what_is_known_to_be_ours_alone() {
        let mut orphan = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        orphan.mark = orphan.mark.map(|mark| Mark { okta_user_id: None, ..mark });
        assert_eq!(allow(&orphan, &reason("00u1"), NEW), Difference::None);
        let lifted = after(&orphan, allow(&orphan, &reason("00u1"), Known { denied: true, blocked: true }));
        assert!(!lifted.is_denied() && !lifted.blocked, "{lifted:?}");
        let kept = after(&orphan, allow(&orphan, &reason("00u1"), Known { denied: true, blocked: false }));
        assert!(!kept.is_denied() && kept.blocked, "a block that is not known to be ours: {kept:?}");
    }

    #[test]
    fn removing_takes_what_is_ours_and_is_done_when_all_of_it_is_gone() {
        let denied = after(&account(), deny(&account(), &reason("00u1"), BLOCK, NEW));
        let both = Removal { mirror: true, unblock: true };
        assert_eq!(removal(&denied, false), Some(both));
        let open = Account { mark: None, mirror: Mirror::Absent, blocked: false, ..denied.clone() };
        assert!(is_removed(&open, both));
        for left in [
            Account { mark: denied.mark.clone(), ..open.clone() },
            Account { mirror: Mirror::On, ..open.clone() },
            Account { mirror: Mirror::Off, ..open.clone() },
            Account { blocked: true, ..open.clone() },
        ] {
            assert!(!is_removed(&left, both), "{left:?}");
        }
        // What was not to go may stay: it is somebody else's.
        let theirs = Account { mirror: Mirror::Foreign, blocked: true, ..open.clone() };
        assert!(is_removed(&theirs, Removal { mirror: false, unblock: false }));

        let unblocked = Account { blocked: false, ..denied.clone() };
        assert_eq!(removal(&unblocked, false), Some(Removal { mirror: true, unblock: false }));
        let wiped = Account { mark: None, ..denied };
        assert_eq!(
            removal(&wiped, true),
            Some(Removal { mirror: true, unblock: false }),
            "whose block it is, is not known"
        );
        assert_eq!(removal(&wiped, false), None, "a mirror of somebody else");
        assert_eq!(removal(&open, true), None);
    }
}
