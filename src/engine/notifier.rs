//! Delivers alarms to the webhook, when raised and when cleared, and sends a heartbeat after each good pass.
//!
//! The store keeps a notification until the webhook accepts it, so neither a restart nor an outage of the webhook loses it.
//! No other task waits for deliveries.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Engine;
use crate::alert::{Alert, Message};
use crate::domain::backoff::Backoff;
use crate::domain::{Timestamp, clock};
use crate::store::{AlarmKind, PendingNotification, StoreError};

/// How often to poll the store for notifications.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A message that the webhook has refused this many times is skipped.
const REFUSALS_MAX: u32 = 3;
/// How long the notification about the guard waits for the looks that are due.
const GUARD_SETTLES: Duration = Duration::from_secs(30);
/// The waits while the webhook fails.
const AGAIN: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(600) };

impl Engine {
    /// Sends notifications and heartbeats until cancelled.
    pub(super) async fn notify_loop(&self, stop: &CancellationToken) {
        let Some(alert) = &self.alert else {
            stop.cancelled().await;
            return;
        };
        // Concurrent, so that a slow webhook does not delay the heartbeat, nor the other way round.
        tokio::join!(self.beat_loop(alert, stop), self.alarm_loop(stop));
    }

    async fn beat_loop(&self, alert: &Alert, stop: &CancellationToken) {
        let mut failing = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wakes.beat.notified() => {}
            }
            // The receiver reports a missing heartbeat; one line says why it is missing.
            match alert.send_heartbeat().await {
                Ok(()) if failing => {
                    failing = false;
                    info!(event = "heartbeat_back", "the heartbeat is delivered again");
                }
                Ok(()) => {}
                Err(error) if !failing => {
                    failing = true;
                    warn!(event = "heartbeat_failed", %error, "failed to send the heartbeat; will retry after each poll");
                }
                Err(_) => {}
            }
        }
    }

    async fn alarm_loop(&self, stop: &CancellationToken) {
        let (mut failures, mut wait) = (0_u32, Duration::ZERO);
        let mut refusals = Refusals::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
            match self.deliver_next(&mut refusals).await {
                Ok(Delivery::Nothing) => (failures, wait) = (0, ASK_EVERY),
                Ok(Delivery::One) => (failures, wait) = (0, Duration::ZERO),
                Ok(Delivery::Skipped(error)) => {
                    (failures, wait) = (0, Duration::ZERO);
                    warn!(event = "webhook_refused", %error, "the webhook refused a notification; skipping it");
                }
                Ok(Delivery::Failed(error)) => {
                    failures = failures.saturating_add(1);
                    wait = AGAIN.wait(failures, fastrand::f64());
                    if failures == 1 {
                        warn!(event = "webhook_failed", %error, "webhook delivery failed; will retry");
                    }
                }
                Err(error) => {
                    warn!(event = "store_failed", %error, "failed to read alarms; will retry");
                    wait = AGAIN.longest;
                }
            }
        }
    }

    /// Logs a new alarm of a kind without its own log line. `subject` is an id: addresses stay out of the log.
    pub(super) fn log_raised(&self, kind: AlarmKind, subject: &str) {
        if !self.is_dry_run {
            warn!(
                event = "alarm",
                kind = kind.as_str(),
                subject,
                "alarm raised; `status` shows the cause and the remedy"
            );
        }
    }

    /// The guard's notification has the numbers of the whole incident, so it waits for the looks in progress, but not long.
    async fn more_may_be_held(&self, untold: &PendingNotification) -> Result<bool, StoreError> {
        let raised_at = clock::parse_timestamp(&untold.alarm.raised_at).unwrap_or(Timestamp::MIN);
        let is_new = clock::since(self.now(), raised_at) < GUARD_SETTLES;
        Ok(is_new && self.store.denials_waiting().await? > 0)
    }

    async fn deliver_next(&self, refusals: &mut Refusals) -> Result<Delivery, StoreError> {
        let Some(alert) = self.alert.as_ref().filter(|alert| alert.has_webhook()) else { return Ok(Delivery::Nothing) };
        let Some(mut untold) = self.store.pending_notification().await? else { return Ok(Delivery::Nothing) };
        if untold.alarm.kind == AlarmKind::Guard.as_str() && !untold.over {
            if self.more_may_be_held(&untold).await? {
                return Ok(Delivery::Nothing);
            }
            let guard = self.store.guard_report(self.options.guard, self.now()).await?;
            if guard.held > 0 {
                (untold.alarm.detail, untold.alarm.remedy) = (guard.detail(), guard.remedy());
            }
        }
        match alert.notify(&message(&untold, &self.options.okta_url)).await {
            Ok(()) => {
                self.store.mark_delivered(&untold, self.clock.now()).await?;
                Ok(Delivery::One)
            }
            Err(error) if error.is_final() && refusals.count(&untold) >= REFUSALS_MAX => {
                let text = error.to_string();
                self.store.skip_notification(&untold, &text, self.clock.now()).await?;
                Ok(Delivery::Skipped(text))
            }
            Err(error) => Ok(Delivery::Failed(error.to_string())),
        }
    }
}

enum Delivery {
    Nothing,
    One,
    /// To be retried.
    Failed(String),
    /// The webhook refused it for good.
    Skipped(String),
}

/// How often the webhook has refused the current notification.
#[derive(Debug, Default)]
struct Refusals {
    of: Option<(i64, bool)>,
    count: u32,
}

impl Refusals {
    fn count(&mut self, pending: &PendingNotification) -> u32 {
        let of = Some((pending.alarm.id, pending.over));
        self.count = if self.of == of { self.count.saturating_add(1) } else { 1 };
        self.of = of;
        self.count
    }
}

fn message(untold: &PendingNotification, okta_url: &str) -> Message {
    let alarm = &untold.alarm;
    let about = if alarm.subject.is_empty() { String::new() } else { format!(" ({})", alarm.subject) };
    let text = if untold.over {
        format!("okta-auth0-sync {okta_url}: over: {}{about}\n{}", alarm.kind, alarm.detail)
    } else {
        format!("okta-auth0-sync {okta_url}: {}{about}\n{}\nWhat to do: {}", alarm.kind, alarm.detail, alarm.remedy)
    };
    Message {
        text,
        event: if untold.over { "over" } else { "raised" },
        kind: alarm.kind.clone(),
        subject: alarm.subject.clone(),
        detail: alarm.detail.clone(),
        remedy: alarm.remedy.clone(),
        raised_at: alarm.raised_at.clone(),
        cleared_at: alarm.cleared_at.clone(),
        okta_url: okta_url.to_owned(),
    }
}

#[cfg(test)]
mod tests;
