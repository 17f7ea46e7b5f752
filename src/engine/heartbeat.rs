//! Heartbeats of the loops: health is progress, not the ticking of a timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::Clock;

/// When a loop last made progress.
#[derive(Debug, Default)]
pub struct Heartbeat(AtomicU64);

impl Heartbeat {
    pub(super) fn stamp(&self, clock: &dyn Clock) {
        self.0.store(millis(clock.monotonic()), Ordering::Relaxed);
    }

    /// The time since the last stamp.
    pub fn age(&self, clock: &dyn Clock) -> Duration {
        Duration::from_millis(millis(clock.monotonic()).saturating_sub(self.0.load(Ordering::Relaxed)))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The heartbeats of all loops.
#[derive(Debug, Default)]
pub struct Heartbeats {
    /// The loop that polls the System Log.
    pub poller: Heartbeat,
    /// The loop that runs looks.
    pub applier: Heartbeat,
    /// The loop that reconciles.
    pub reconciler: Heartbeat,
    /// The loop that reads Auth0's event stream.
    pub watcher: Heartbeat,
    /// The loop that evaluates the health.
    pub health: Heartbeat,
}

impl Heartbeats {
    /// All loops count as alive at the start.
    pub(super) fn new(clock: &dyn Clock) -> Self {
        let heartbeats = Self::default();
        for (_, heartbeat) in heartbeats.by_name() {
            heartbeat.stamp(clock);
        }
        heartbeats
    }

    /// The loops by name.
    pub fn by_name(&self) -> [(&'static str, &Heartbeat); 5] {
        [
            ("poller", &self.poller),
            ("applier", &self.applier),
            ("reconciler", &self.reconciler),
            ("watcher", &self.watcher),
            ("health check", &self.health),
        ]
    }

    /// Whether a loop has this name.
    pub(super) fn is_loop(&self, name: &str) -> bool {
        self.by_name().iter().any(|(known, _)| *known == name)
    }

    /// Stamps the loop of this name. Any other name belongs to a call for a user, which no loop waits for.
    pub(super) fn stamp(&self, name: &str, clock: &dyn Clock) {
        if let Some((_, heartbeat)) = self.by_name().into_iter().find(|(known, _)| *known == name) {
            heartbeat.stamp(clock);
        }
    }

    /// The loop without progress for the longest time, and that time.
    pub fn slowest(&self, clock: &dyn Clock) -> (&'static str, Duration) {
        self.by_name()
            .map(|(name, heartbeat)| (name, heartbeat.age(clock)))
            .into_iter()
            .max_by_key(|(_, age)| *age)
            .unwrap_or(("poller", Duration::ZERO))
    }
}
