//! Telling people: a webhook for what changed, and a heartbeat address for what did not.
//!
//! Addresses of webhooks are secrets: whoever knows one can post to it. So no error here names one.

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

/// What is told. Slack and Teams are sent `text` in the form that they show; every other address all of it as JSON.
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
        let address = webhook.expose_secret();
        let request = self.http.client().post(address).json(&Form::of(address).body(message));
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

/// Who shows the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Anything that takes JSON.
    Plain,
    /// An incoming webhook of Slack.
    Slack,
    /// A workflow of Teams: it shows Adaptive Cards only.
    Teams,
}

/// Hosts of workflows: those of Azure Logic Apps and the Power Platform, and of the connectors before them.
const TEAMS: [&str; 3] = [".logic.azure.com", ".api.powerplatform.com", ".webhook.office.com"];

impl Form {
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
            // What a remote wrote must neither be a link nor call a whole channel.
            Self::Slack => {
                let text = message.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({ "text": text })
            }
            // Runs of text, for a TextBlock would take what a remote wrote for Markdown.
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

async fn send(whom: &str, request: reqwest::RequestBuilder) -> Result<(), AlertError> {
    failpoint::pass(COMPONENT, whom, Phase::Before);
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
    failpoint::pass(COMPONENT, whom, Phase::After);
    if answer.status().is_success() { Ok(()) } else { Err(AlertError::Refused(answer.status())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_sent_the_form_that_it_shows() {
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
        let body = |address: &str| Form::of(address).body(&message);
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
