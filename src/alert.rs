//! Sends notifications to a webhook, and heartbeats after good passes.
//!
//! Webhook URLs are secrets, because knowing one is enough to post to it. So errors never contain them.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use url::{Host, Url};

use crate::failpoint::{self, Phase};
use crate::http::Http;

pub(crate) const COMPONENT: &str = "alert";
const WEBHOOK: &str = "webhook";
const HEARTBEAT: &str = "heartbeat";
/// The endpoints, for failpoints.
#[cfg(feature = "failpoints")]
pub(crate) const TARGETS: [&str; 2] = [WEBHOOK, HEARTBEAT];
const TIMEOUT: Duration = Duration::from_secs(15);

/// The configured endpoints.
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

/// A notification. Slack and Teams get `text` in the form that they display; other URLs get all fields as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// The notification in a few lines.
    pub text: String,
    /// `raised`, or `over`.
    pub event: &'static str,
    /// The alarm's kind, a stable word.
    pub kind: String,
    /// The affected user or object; empty for the whole installation.
    pub subject: String,
    /// What happened.
    pub detail: String,
    /// The remedy.
    pub remedy: String,
    /// When the alarm was raised.
    pub raised_at: String,
    /// When the alarm was cleared.
    pub cleared_at: Option<String>,
    /// The Okta org, to identify the installation.
    pub okta_url: String,
}

/// Errors from delivery. They never contain the URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AlertError {
    /// The status was not 2xx.
    #[error("the endpoint responded with {0}")]
    Refused(StatusCode),
    /// No response.
    #[error("the endpoint is unreachable ({0})")]
    Unreachable(&'static str),
}

impl AlertError {
    /// Whether the endpoint would refuse this message every time.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused(status) => {
                status.is_client_error()
                    && !matches!(
                        *status,
                        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
                    )
            }
            Self::Unreachable(_) => false,
        }
    }
}

impl Alert {
    /// Sends to these URLs.
    pub fn new(http: Http, webhook: Option<SecretString>, heartbeat: Option<SecretString>) -> Self {
        Self { http, webhook, heartbeat }
    }

    /// Whether a webhook is configured.
    pub fn has_webhook(&self) -> bool {
        self.webhook.is_some()
    }

    /// Posts a message.
    ///
    /// # Errors
    /// If the delivery failed; retry later.
    pub async fn notify(&self, message: &Message) -> Result<(), AlertError> {
        let Some(webhook) = &self.webhook else { return Ok(()) };
        let address = webhook.expose_secret();
        let request = self.http.client().post(address).json(&Format::of(address).body(message));
        self.send(WEBHOOK, request).await
    }

    /// Sends a heartbeat after a good pass.
    ///
    /// # Errors
    /// If the delivery failed; the next pass sends another.
    pub async fn send_heartbeat(&self) -> Result<(), AlertError> {
        let Some(heartbeat) = &self.heartbeat else { return Ok(()) };
        self.send(HEARTBEAT, self.http.client().get(heartbeat.expose_secret())).await
    }

    async fn send(&self, target: &str, request: reqwest::RequestBuilder) -> Result<(), AlertError> {
        failpoint::pass(COMPONENT, target, Phase::Before);
        // The status is enough; the body is not read.
        let answer = async { self.http.execute(request.timeout(TIMEOUT).build()?).await }.await.map_err(|error| {
            AlertError::Unreachable(if error.is_timeout() {
                "no response in time"
            } else if error.is_connect() {
                "no connection"
            } else {
                "the connection was lost"
            })
        })?;
        failpoint::pass(COMPONENT, target, Phase::After);
        if answer.status().is_success() { Ok(()) } else { Err(AlertError::Refused(answer.status())) }
    }
}

/// The format that the webhook expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Any receiver of JSON.
    Plain,
    /// A Slack incoming webhook.
    Slack,
    /// A Teams workflow, which displays only Adaptive Cards.
    Teams,
}

/// Host suffixes of Teams workflows (Azure Logic Apps, Power Platform) and of the older connectors.
const TEAMS: [&str; 3] = [".logic.azure.com", ".api.powerplatform.com", ".webhook.office.com"];

impl Format {
    fn of(address: &str) -> Self {
        let url = Url::parse(address).ok();
        match url.as_ref().and_then(Url::host) {
            Some(Host::Domain("hooks.slack.com" | "hooks.slack-gov.com")) => Self::Slack,
            Some(Host::Domain(host)) if TEAMS.iter().any(|end| host.ends_with(end)) => Self::Teams,
            _ => Self::Plain,
        }
    }

    fn body(self, message: &Message) -> Value {
        match self {
            Self::Plain => json!(message),
            // Escaped, so that text from a remote cannot add a link or mention a channel.
            Self::Slack => {
                let text = message.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({ "text": text })
            }
            // TextRun, because a TextBlock would render text from a remote as Markdown.
            Self::Teams => {
                let lines: Vec<Value> = message
                    .text
                    .lines()
                    .map(|line| json!({ "type": "RichTextBlock", "inlines": [{ "type": "TextRun", "text": line }] }))
                    .collect();
                let card = json!({
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard",
                    "version": "1.4", "body": lines,
                });
                json!({
                    "type": "message",
                    "attachments": [{ "contentType": "application/vnd.microsoft.card.adaptive", "content": card }],
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_webhook_gets_its_format() {
        let message = Message {
            text: "org: held\n<!channel> [x](https://evil.example) & more".to_owned(),
            event: "raised",
            kind: "held".to_owned(),
            subject: "00u1".to_owned(),
            detail: "d".to_owned(),
            remedy: "r".to_owned(),
            raised_at: "2026-11-23T10:00:00.000Z".to_owned(),
            cleared_at: None,
            okta_url: "https://acme.okta.com".to_owned(),
        };
        let body = |address: &str| Format::of(address).body(&message);
        for other in ["https://example.com/hooks.slack.com", "http://127.0.0.1:1/x", "https://hooks.slack.com.example"]
        {
            assert_eq!(body(other)["kind"], "held", "{other}");
        }
        let slack = body("https://hooks.slack.com/services/T/B/x");
        assert_eq!(slack, json!({ "text": "org: held\n&lt;!channel&gt; [x](https://evil.example) &amp; more" }));
        for address in [
            "https://prod-1.westeurope.logic.azure.com:443/workflows/x",
            "https://x.environment.api.powerplatform.com:443/powerautomate/automations/direct/workflows/x",
            "https://acme.webhook.office.com/webhookb2/x",
        ] {
            let teams = body(address);
            let attachment = &teams["attachments"][0];
            assert_eq!((&teams["type"], &attachment["content"]["type"]), (&json!("message"), &json!("AdaptiveCard")));
            assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
            let lines = attachment["content"]["body"].as_array().unwrap();
            let said: Vec<&Value> = lines.iter().map(|line| &line["inlines"][0]["text"]).collect();
            assert_eq!(said, ["org: held", "<!channel> [x](https://evil.example) & more"], "{address}");
        }
    }
}
