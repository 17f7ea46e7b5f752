//! Telling people: a webhook for what changed, and a heartbeat address for what did not.
//!
//! Addresses of webhooks are secrets: whoever knows one can post to it. So no error here names one.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::failpoint::{self, Moment};
use crate::http::Http;

pub(crate) const ROOM: &str = "alert";
const WEBHOOK: &str = "webhook";
const HEARTBEAT: &str = "heartbeat";
/// Whom it tells.
#[cfg(feature = "failpoints")]
pub(crate) const TOLD: [&str; 2] = [WEBHOOK, HEARTBEAT];
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where to tell.
pub struct Alert {
    http: Http,
    webhook: Option<SecretString>,
    heartbeat: Option<SecretString>,
}

impl fmt::Debug for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alert")
            .field("webhook", &self.webhook.is_some())
            .field("heartbeat", &self.heartbeat.is_some())
            .finish_non_exhaustive()
    }
}

/// What is posted: `text` is what Slack, Teams and most others show; the rest is for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// All of it in a few lines.
    pub text: String,
    /// `raised`, or `over`.
    pub event: &'static str,
    /// The alarm's kind: a stable word.
    pub kind: String,
    /// Whom or what it is about; empty: the installation.
    pub subject: String,
    /// What happened.
    pub detail: String,
    /// What to do.
    pub remedy: String,
    /// Since when.
    pub raised_at: String,
    /// Until when.
    pub cleared_at: Option<String>,
    /// Which installation says so: the Okta org.
    pub okta_url: String,
}

/// Why a message was not taken. Never holds the address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AlertError {
    /// It answered something else than success.
    #[error("the address answered {0}")]
    Refused(StatusCode),
    /// It did not answer.
    #[error("the address cannot be reached ({0})")]
    Unreachable(&'static str),
}

impl Alert {
    /// Tells these addresses.
    pub fn new(http: Http, webhook: Option<SecretString>, heartbeat: Option<SecretString>) -> Self {
        Self { http, webhook, heartbeat }
    }

    /// Is there anybody to tell of alarms?
    pub fn has_webhook(&self) -> bool {
        self.webhook.is_some()
    }

    /// Posts a message.
    ///
    /// # Errors
    /// When it was not taken: tell it again later.
    pub async fn tell(&self, message: &Message) -> Result<(), AlertError> {
        let Some(webhook) = &self.webhook else { return Ok(()) };
        let request = self.http.client().post(webhook.expose_secret()).json(message);
        send(WEBHOOK, request).await
    }

    /// Says that a pass went well.
    ///
    /// # Errors
    /// When nobody answered: the next pass says so again.
    pub async fn beat(&self) -> Result<(), AlertError> {
        let Some(heartbeat) = &self.heartbeat else { return Ok(()) };
        send(HEARTBEAT, self.http.client().get(heartbeat.expose_secret())).await
    }
}

async fn send(whom: &str, request: reqwest::RequestBuilder) -> Result<(), AlertError> {
    failpoint::pass(ROOM, whom, Moment::Before);
    // The body is not read: whatever it says, the status has said it.
    let answer = request.timeout(TIMEOUT).send().await.map_err(|error| {
        AlertError::Unreachable(if error.is_timeout() {
            "no answer in time"
        } else if error.is_connect() {
            "no connection"
        } else {
            "the connection broke"
        })
    })?;
    failpoint::pass(ROOM, whom, Moment::After);
    if answer.status().is_success() { Ok(()) } else { Err(AlertError::Refused(answer.status())) }
}
