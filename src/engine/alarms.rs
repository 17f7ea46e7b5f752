//! Every alarm that the engine raises: its kind, its subject and what an operator reads.
//!
//! The sentences are here and nowhere else, so that one reader can check them against each other. Each `detail` says what
//! happened, each `remedy` what the operator can do.

use super::breaker::Limit;
use crate::auth0::Standing;
use crate::domain::clock::timestamp_text;
use crate::domain::{AccountId, Held, OktaUserId, Timestamp};
use crate::health::{Obligation, counted};
use crate::http::{Failure, Remote};
use crate::store::{Alarm, AlarmKind, UnmovedMarks};

/// The subject of an alarm that concerns the whole installation.
const INSTALLATION: &str = "";
/// The subject of the alarm about users without login and e-mail.
pub(super) const ADDRESSES: &str = "addresses";
/// The subject of the alarm about an installation with the same metadata key.
pub(super) const OTHER_ORG: &str = "other org";
/// The subject of the alarm about a directory that is not listed.
pub(super) const DIRECTORY: &str = "directory";
/// The subject of the alarm about an empty list of users.
pub(super) const NO_USERS: &str = "users";

impl Alarm {
    fn new(kind: AlarmKind, subject: impl Into<String>, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { momentary: false, kind, subject: subject.into(), detail: detail.into(), remedy: remedy.into() }
    }

    /// Reports the alarm once without leaving it open.
    fn momentary(self) -> Self {
        Self { momentary: true, ..self }
    }

    /// A user is held. The guard raises one alarm for the installation, not one for each of ten thousand users.
    pub(super) fn held(user: &OktaUserId, why: &Held) -> Self {
        let (kind, subject, remedy) = match why {
            Held::Guard => {
                return Self::new(
                    AlarmKind::Guard,
                    INSTALLATION,
                    "more first denials than [guard] max_denials within its window; further denials are held",
                    "check what happened in Okta; `approve --all` (or `approve <who>`) denies the held users; users \
                     who are active again are released automatically",
                );
            }
            Held::Vanished => (
                AlarmKind::Held,
                user.to_string(),
                "if the user was deleted, `approve <who>` denies their accounts; if our credential lost access to the \
                 user, restore its role, then `retry <who>`",
            ),
            Held::AddressReused(_) => (
                AlarmKind::Held,
                user.to_string(),
                "the previous owner may know the account's password; reset or delete the account in Auth0, then `approve \
                 <who>` to lift the mark",
            ),
        };
        Self::new(kind, subject, format!("the user is held: {why}"), remedy)
    }

    /// A user has used up their attempts.
    pub(super) fn failed(user: &OktaUserId, attempts: u32, why: &str) -> Self {
        Self::new(
            AlarmKind::Failed,
            user.to_string(),
            format!("{} failed: {why}", counted(attempts.into(), "attempt")),
            format!("fix the cause, then `retry {user}`; the daemon also retries once a day"),
        )
    }

    /// Events of a page of the System Log are unreadable; `first` describes the first of them.
    pub(super) fn quarantined(count: u64, first: &str) -> Self {
        Self::new(
            AlarmKind::Quarantined,
            INSTALLATION,
            format!("{} of the System Log could not be read{first}", counted(count, "event")),
            "`events --state quarantined` lists them; `approve <event id>` dismisses one, looks at the users it names, and has the \
             others reconciled; please report the format",
        )
    }

    /// An exempt user left Okta.
    pub(super) fn exempt_left(user: &OktaUserId, status: &str) -> Self {
        Self::new(
            AlarmKind::ExemptLeft,
            user.to_string(),
            format!("the user left Okta ({status}) but is exempt from denial"),
            "deny the user by hand in Auth0 if you want that, or remove the user from [scope] exempt",
        )
    }

    /// Something keeps removing the mark of an account of `user`.
    pub(super) fn restored(user: &OktaUserId, account: &AccountId, times: u32) -> Self {
        Self::new(
            AlarmKind::Restored,
            user.to_string(),
            format!("the mark of {account} was removed and restored {times} times within a day"),
            "find out what else writes app_metadata of this account: an import, a Rule or Action, another tool",
        )
    }

    /// The poller gave up its cursor and resumes by timestamp.
    pub(super) fn reanchored(why: &str, since: Timestamp) -> Self {
        Self::new(
            AlarmKind::Reanchored,
            INSTALLATION,
            format!("{why}; reading the System Log again from {}", timestamp_text(since)),
            "everything before that time was read, so no event is lost and no action is needed; report it if it \
             happens often",
        )
        .momentary()
    }

    /// The poller gave up its cursor, and events between `from` and `until` may be missing. `from` may be unknown.
    pub(super) fn reanchored_with_gap(why: &str, since: Timestamp, from: Option<Timestamp>, until: Timestamp) -> Self {
        let until = timestamp_text(until);
        let range = from
            .map_or_else(|| format!("before {until}"), |from| format!("between {} and {until}", timestamp_text(from)));
        Self::new(
            AlarmKind::Reanchored,
            INSTALLATION,
            format!(
                "{why}; reading the System Log again from {}, and events {range} may have been missed",
                timestamp_text(since)
            ),
            "a full reconcile (`reconcile --all`) has started and finds the users of missed events",
        )
        .momentary()
    }

    /// An event is too large to read, and the poller stepped over it.
    pub(super) fn oversized_event(from: Timestamp, until: Timestamp) -> Self {
        Self::new(
            AlarmKind::Gap,
            INSTALLATION,
            format!(
                "an event of the System Log is too large to read, so the log between {} and {} was left out",
                timestamp_text(from),
                timestamp_text(until)
            ),
            "a full reconcile (`reconcile --all`) has started and finds the users of the events in it; the alarm clears \
             when it is done",
        )
    }

    /// Events may have expired before the poller read them.
    pub(super) fn gap(complete_until: Timestamp, kept_from: Timestamp) -> Self {
        Self::new(
            AlarmKind::Gap,
            INSTALLATION,
            format!(
                "the System Log was last read to its end at {}; Okta keeps it for 90 days, so events between then and {} \
                 may have been missed",
                timestamp_text(complete_until),
                timestamp_text(kept_from)
            ),
            "a full reconcile (`reconcile --all`) has started; the alarm clears when it is done",
        )
    }

    /// Okta reports a status that this version does not know.
    pub(super) fn unknown_status(user: &OktaUserId, status: &str) -> Self {
        Self::new(
            AlarmKind::UnknownStatus,
            user.to_string(),
            format!(
                "Okta reports the status {status} for {user}, which this version does not know; nothing was written"
            ),
            "install a newer version; until then, deny the user by hand in Auth0 if the user left",
        )
    }

    /// A remote refuses us, or has been unreachable for a while.
    pub(super) fn remote(kind: AlarmKind, remote: Remote, subject: &str, failure: &Failure) -> Self {
        let remedy = failure.remedy.clone().unwrap_or_else(|| {
            format!("check the network and the status page of {remote}; work resumes automatically when it is back")
        });
        Self::new(kind, subject, failure.to_string(), remedy)
    }

    /// A remote has refused a kind of call with 429 for minutes.
    pub(super) fn limited(remote: Remote, limit: &Limit, denials: i64) -> Self {
        let waiting = match denials {
            0 => "no denial is waiting for it yet".to_owned(),
            1 => "1 denial is waiting".to_owned(),
            count => format!("{count} denials are waiting"),
        };
        Self::new(
            AlarmKind::RemoteDown,
            limit.bucket.as_str(),
            format!(
                "{}; it has limited these calls since {}, the next call is made at {}; {waiting}",
                limit.why,
                timestamp_text(limit.since),
                timestamp_text(limit.next_call_at)
            ),
            format!(
                "find the client that uses up the limits of {remote}, or have them raised; a call tests the limit from time to \
                 time, and work resumes as soon as it is over"
            ),
        )
    }

    /// The `next` link of the System Log names a host other than the configured one.
    pub(super) fn foreign_next(host: &str, okta_url: &str) -> Self {
        Self::new(
            AlarmKind::ForeignNext,
            host,
            format!("Okta's next link names the host {host}; its query was sent to {okta_url} instead"),
            "if [okta] url is a custom domain, set it to the org's own URL; otherwise check for a proxy that rewrites \
             responses",
        )
    }

    /// No Action reads the marks.
    pub(super) fn action_missing(standing: &Standing) -> Self {
        let wrong: Vec<String> =
            standing.conditions().into_iter().filter(|one| !one.holds).map(|one| one.found).collect();
        Self::new(
            AlarmKind::ActionMissing,
            INSTALLATION,
            format!("marks have no effect because no Action reads them: {}", wrong.join("; ")),
            "run `okta-auth0-sync action deploy`, or bind the Action with the tool that manages the tenant's Actions; \
             `action check` shows what is missing",
        )
    }

    /// An obligation is missed, or has not been known for its whole deadline.
    pub(super) fn obligation(kind: AlarmKind, missed: &Obligation) -> Self {
        Self::new(kind, INSTALLATION, missed.detail.clone(), missed.remedy.clone())
    }

    /// A user was denied too long after Okta published the deactivation.
    pub(super) fn denial_late(user: &OktaUserId, lag_ms: i64) -> Self {
        Self::new(
            AlarmKind::DenialLate,
            user.to_string(),
            format!("the user was denied {} s after the deactivation was published", lag_ms / 1000),
            "`status` shows the cause: a remote that was down, a rate limit, or downtime of this daemon",
        )
        .momentary()
    }

    /// Auth0 refuses the mirror in `user_metadata`; the mark is in force.
    pub(super) fn mirror_refused(user: &OktaUserId, account: &AccountId, why: &str) -> Self {
        Self::new(
            AlarmKind::MirrorRefused,
            user.to_string(),
            format!("user_metadata of {account} could not be written: {why}"),
            "the mark in app_metadata is in force; make sure that the Action reads it (`action check`), or remove \
             user_metadata from [auth0] write_to",
        )
    }

    /// A mark is lifted, and whether a mirror still denies the account cannot be read.
    pub(super) fn mirror_not_lifted(user: &OktaUserId, account: &AccountId) -> Self {
        Self::new(
            AlarmKind::MirrorRefused,
            user.to_string(),
            format!(
                "the mark of {account} is lifted, but its user_metadata is too large to read: if it holds the \
                     mirror, that still denies logins"
            ),
            "remove okta.deactivated from the account's user_metadata in Auth0 if it is there",
        )
        .momentary()
    }

    /// Auth0 does not let us end sessions.
    pub(super) fn sessions_unavailable(why: &str) -> Self {
        Self::new(
            AlarmKind::SessionsUnavailable,
            INSTALLATION,
            format!("failed to end sessions or refresh tokens: {why}"),
            "the marks are in force; grant delete:sessions and delete:refresh_tokens, or set [auth0] end_sessions = false \
             if the tenant's plan has no such endpoint",
        )
    }

    /// Okta shows users without login and e-mail.
    pub(super) fn addresses_hidden() -> Self {
        Self::new(
            AlarmKind::RoleTooNarrow,
            ADDRESSES,
            "Okta hides login and e-mail of users from our credential, so accounts of users who left are not found",
            "let the admin role of our credential read login and email of all users, without a condition on profile \
             attributes; `check` says whether it works. The view `unmatched` lists the affected users. The alarm ends \
             when all of them were read again, at the latest after the next nightly listing",
        )
    }

    /// The directory was not listed to its end for too long.
    pub(super) fn directory_late(since: Timestamp) -> Self {
        Self::new(
            AlarmKind::ReconcileLate,
            DIRECTORY,
            format!(
                "no listing of the org's users has finished since {}, so a user who is renamed before they leave may \
                 be missed",
                timestamp_text(since)
            ),
            "find the cause in the log (`directory_failed`) and fix it; the listing is retried every minute",
        )
    }

    /// Okta lists no user at all.
    pub(super) fn no_users_listed() -> Self {
        Self::new(
            AlarmKind::RoleTooNarrow,
            NO_USERS,
            "Okta lists no users for our credential, so users who leave are not found",
            "assign the service app an admin role that covers all users (read-only administrator); `check` says whether \
             it works",
        )
    }

    /// Marks are still under a former metadata key.
    pub(super) fn key_change(unmoved: &UnmovedMarks) -> Self {
        let UnmovedMarks { accounts, former, current, .. } = unmoved;
        let waits = format!("marks still under the former metadata key {former}: {accounts}");
        let (detail, remedy) = if unmoved.may_move {
            (
                format!("{waits}; the daemon moves them to {current}"),
                format!(
                    "keep {former} in auth0.former_metadata_keys and its Action bound until this alarm ends; the log says \
                     why a mark does not move, and `reconcile --all` tries again"
                ),
            )
        } else if unmoved.lacks_scope {
            (
                format!(
                    "{waits}; they stay there, because the daemon may not check that the Action for {current} is bound"
                ),
                "grant read:actions to our credential in Auth0, then run `okta-auth0-sync action deploy`".to_owned(),
            )
        } else {
            (
                format!("{waits}; they stay there until the Action for {current} is deployed and bound"),
                "run `okta-auth0-sync action deploy`, and leave the Action for the former key bound".to_owned(),
            )
        };
        Self::new(AlarmKind::KeyChange, INSTALLATION, detail, remedy)
    }

    /// Another installation writes its marks under our metadata key.
    pub(super) fn other_org(count: u64) -> Self {
        Self::new(
            AlarmKind::ForeignFlag,
            OTHER_ORG,
            format!(
                "an installation for another Okta org writes its marks under our metadata key (accounts: {count}); an \
                 account has room for only one mark, so a user who left both orgs is admitted when the other \
                 installation lifts its mark, until our next reconcile"
            ),
            "give each installation a different auth0.metadata_key, list the previous one in \
             auth0.former_metadata_keys, and run `action deploy` (docs/several-orgs.md)",
        )
    }

    /// Accounts carry a mark that names no Okta user.
    pub(super) fn foreign_flag(count: u64) -> Self {
        Self::new(
            AlarmKind::ForeignFlag,
            INSTALLATION,
            format!(
                "accounts denied by a flag that names no Okta user: {count}; this program did not set the flag and does \
                 not lift it"
            ),
            "to lift the flag, set user_metadata.okta.deactivated to \"false\" by hand; if the user left Okta, `user \
             <e-mail> --sync` takes the account over",
        )
    }
}
