//! One circuit: closed, open, or half-open.

use std::time::Duration;

/// Callers of an open circuit wait at least this long.
pub(super) const WAIT_MIN: Duration = Duration::from_secs(1);

/// The state of a circuit.
#[derive(Debug, Default)]
pub(super) enum Circuit {
    /// Calls pass.
    #[default]
    Closed,
    /// Calls are refused until the trip's time. The first call after it is the probe.
    Open(Trip),
    /// A probe is in flight; all other calls are refused.
    HalfOpen(Trip),
}

/// Why, and until when, a circuit is open.
#[derive(Debug)]
pub(super) struct Trip {
    /// By the monotonic clock.
    pub(super) until: Duration,
    /// Failures in a row that opened it, from the first to the last failed probe.
    pub(super) probes: u32,
    /// The last failure.
    pub(super) why: String,
}

impl Circuit {
    pub(super) fn trip(&self) -> Option<&Trip> {
        match self {
            Self::Closed => None,
            Self::Open(trip) | Self::HalfOpen(trip) => Some(trip),
        }
    }

    /// How long a caller has to wait, and why. `None`: the call may pass, as a probe unless the circuit is closed.
    pub(super) fn refusal(&self, now: Duration) -> Option<(Duration, String)> {
        let trip = match self {
            Self::Open(trip) if trip.until > now => trip,
            Self::HalfOpen(trip) => trip,
            Self::Closed | Self::Open(_) => return None,
        };
        Some((trip.until.saturating_sub(now).max(WAIT_MIN), trip.why.clone()))
    }

    /// Makes the passing call the probe of an open circuit.
    pub(super) fn begin_probe(&mut self) {
        *self = match std::mem::take(self) {
            Self::Open(trip) => Self::HalfOpen(trip),
            other => other,
        };
    }

    /// The probe ended without a result: the next call may be one.
    pub(super) fn abandon_probe(&mut self) {
        *self = match std::mem::take(self) {
            Self::HalfOpen(trip) => Self::Open(trip),
            other => other,
        };
    }

    /// Opens the circuit for the time that `wait` gives for this many failures in a row. A call that was already in
    /// flight when it opened does not lengthen the wait.
    pub(super) fn open(&mut self, now: Duration, why: String, wait: impl FnOnce(u32) -> Duration) -> Duration {
        let (until, probes) = match self {
            Self::Open(trip) | Self::HalfOpen(trip) if trip.until > now => (trip.until, trip.probes),
            Self::Open(trip) | Self::HalfOpen(trip) => (now + wait(trip.probes + 1), trip.probes + 1),
            Self::Closed => (now + wait(1), 1),
        };
        *self = Self::Open(Trip { until, probes, why });
        until.saturating_sub(now).max(WAIT_MIN)
    }
}
