//! How many deactivations per minute the observed rate limits allow.

use crate::config::Config;
use crate::http::pacing::{Bucket, BucketSnapshot};

/// Calls to each Okta endpoint per deactivation: the user by id, and the search for other users with the address.
const OKTA_CALLS: u32 = 1;

/// Auth0 calls per deactivation of a user with one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cost {
    reads: u32,
    writes: u32,
    others: u32,
}

impl Cost {
    /// Two exact look-ups (as written and in lower case), the search, and a read of its hit; one PATCH; ending sessions and
    /// refresh tokens.
    pub(super) fn of(config: &Config) -> Self {
        Self {
            reads: 2 + if config.auth0.search { 2 } else { 0 },
            writes: 1,
            others: if config.auth0.end_sessions { 2 } else { 0 },
        }
    }
}

/// Deactivations per minute that Auth0 allows. Its headers show the bucket size but not the refill rate, which Auth0
/// publishes per plan (Auth0 docs: Rate Limit Configurations). For an unknown size, assumes one bucket per minute.
pub(super) fn auth0_a_minute(limit: u32, share: f64, cost: Cost) -> u32 {
    let together = cost.reads + cost.writes + cost.others;
    let allowed = |a_minute: u32, calls: u32| f64::from(a_minute) * share / f64::from(calls.max(1));
    let least = match limit {
        // Free, and Enterprise other than production: two calls a second in all.
        2 | 10 => allowed(120, together),
        // Enterprise production: 16 a second in all.
        50 => allowed(960, together),
        // Essentials and Professional: reading users, writing users, and everything else have separate limits.
        40 => {
            let others = if cost.others == 0 { f64::INFINITY } else { allowed(150, cost.others) };
            allowed(500, cost.reads).min(allowed(200, cost.writes)).min(others)
        }
        other => allowed(other, together),
    };
    whole(least)
}

/// Deactivations per minute that Okta allows, by the smaller of its two limits.
pub(super) fn okta_a_minute(user: u32, users: u32, share: f64) -> u32 {
    whole(f64::from(user.min(users) / OKTA_CALLS) * share)
}

/// The limit of a bucket and our share of it, if the limit is known.
pub(super) fn ours(snapshots: &[BucketSnapshot], bucket: Bucket, share: f64) -> Option<(u32, u32)> {
    let limit = snapshots.iter().find(|snapshot| snapshot.bucket == bucket)?.limit?;
    Some((limit, whole(f64::from(limit) * share)))
}

fn whole(number: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
    let whole = number.floor().clamp(0.0, f64::from(u32::MAX)) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smallest_limit_decides() {
        let cost = Cost { reads: 4, writes: 1, others: 0 };
        for (limit, expected) in [(2, 19), (10, 19), (50, 153), (40, 100), (7, 1), (0, 0)] {
            assert_eq!(auth0_a_minute(limit, 0.8, cost), expected, "{limit}");
        }
        assert_eq!(auth0_a_minute(40, 0.8, Cost { others: 2, ..cost }), 60);
        assert_eq!(okta_a_minute(100, 50, 0.9), 45);
    }
}
