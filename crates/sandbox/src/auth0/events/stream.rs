//! One open connection of the event stream.

use std::io;
use std::time::Duration;

use axum::body::Bytes;
use tokio::sync::{mpsc, watch};

use crate::message::Feed;

use super::super::Auth0Tenant;
use super::{Ending, offset_of};

/// Messages that are sent ahead of the client.
const AHEAD: usize = 64;

/// A request that was accepted.
#[derive(Debug)]
pub(in crate::auth0) struct Subscription {
    pub(super) after: u64,
    pub(super) types: Vec<String>,
    pub(super) changed: watch::Receiver<u64>,
}

impl Subscription {
    /// Starts to send. The token that opened the stream is valid for `token_left`.
    pub(in crate::auth0) fn start(self, tenant: Auth0Tenant, token_left: Duration) -> Feed {
        let (sender, feed) = Feed::new(AHEAD);
        let opened_at = tenant.context.clock.monotonic();
        tokio::spawn(async move {
            // A client that goes away ends it.
            let _ = self.run(&tenant, &sender, opened_at, token_left).await;
            tenant.events().release();
        });
        feed
    }

    async fn run(
        mut self,
        tenant: &Auth0Tenant,
        sender: &mpsc::Sender<io::Result<Bytes>>,
        opened_at: Duration,
        token_left: Duration,
    ) -> Option<()> {
        let clock = tenant.context.clock.clone();
        let ends_at = opened_at + tenant.events().log(|log, _| log.options.lifetime).min(token_left);
        let source = format!("urn:auth0:{}", tenant.url());
        if !tenant.events().log(|log, _| log.is_silent) {
            sender.send(Ok(Bytes::from_static(b":connected\n\nretry: 3000\n\n"))).await.ok()?;
        }
        let mut position = self.after;
        let mut beats = 0_u64;
        let mut beat_at = opened_at + tenant.events().log(|log, _| log.options.heartbeat);
        loop {
            self.changed.mark_unchanged();
            while let Some((bytes, at, ending)) = tenant.events().log(|log, _| log.next(position, &self.types, &source))
            {
                position = at;
                if !bytes.is_empty() {
                    sender.send(Ok(bytes)).await.ok()?;
                }
                match ending {
                    Some(Ending::Closed) => return None,
                    Some(Ending::Cut) => sender.send(Err(io::ErrorKind::ConnectionReset.into())).await.ok()?,
                    None => {}
                }
            }
            let now = clock.monotonic();
            if now >= ends_at {
                return None;
            }
            if now >= beat_at {
                beat_at = now + tenant.events().log(|log, _| log.options.heartbeat);
                beats += 1;
                let beat = if beats.is_multiple_of(2) {
                    let offset = offset_of(position);
                    format!("event: offset-only\nid: {offset}\ndata: {{\"offset\":\"{offset}\"}}\n\n")
                } else {
                    ":heartbeat\n\n".to_owned()
                };
                if !tenant.events().log(|log, _| log.is_silent) {
                    sender.send(Ok(Bytes::from(beat))).await.ok()?;
                }
            }
            tokio::select! {
                () = sender.closed() => return None,
                changed = self.changed.changed() => changed.ok()?,
                () = clock.sleep(beat_at.min(ends_at).saturating_sub(now)) => {}
            }
        }
    }
}
