//! A response without a known end, read piece by piece.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Response, StatusCode};
use tracing::debug;

use super::client::{Call, Http};
use super::failure::{self, Failure, Kind};
use super::redact::RequestSecrets;
use super::remedy::Route;
use crate::domain::Clock;
use crate::failpoint::{self, Phase};

/// The longest body of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// A connection without any data for this long is dead, whatever the reader thinks: a backstop.
pub(super) const STALL: Duration = Duration::from_secs(180);

/// An open response. Its `Debug` shows neither headers nor data.
#[derive(Debug)]
pub struct StreamBody {
    call: Call,
    status: StatusCode,
    content_type: String,
    request_id: Option<String>,
    response: Response,
    secrets: RequestSecrets,
    route: Arc<Route>,
}

impl Http {
    /// Makes one call whose response has no known end. It has its own connection, so that neither waits for the other.
    ///
    /// # Errors
    /// Classified, as for a complete response.
    pub async fn open(&self, call: Call, request: RequestBuilder, clock: &dyn Clock) -> Result<StreamBody, Failure> {
        let Call { remote, endpoint, remedy, .. } = call;
        let route = self.route();
        let transport = |error: reqwest::Error| Failure::of_transport(remote, endpoint, error, &route);
        let request = request.build().map_err(transport)?;
        let secrets = RequestSecrets::of(&request);
        let client = self.streaming_client().map_err(|error| Failure::rejected(remote, endpoint, error.to_string()))?;
        failpoint::pass(remote, endpoint, Phase::Before);
        let mut response = client.execute(request).await.map_err(transport)?;
        failpoint::pass(remote, endpoint, Phase::After);
        let status = response.status();
        let request_id = failure::request_id(response.headers()).map(|id| secrets.redact_text(&id));
        debug!(status = status.as_u16(), request_id = request_id.as_deref().unwrap_or_default(), endpoint, "opened");
        if !status.is_success() {
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await.map_err(transport)? {
                body.extend_from_slice(&piece);
                if body.len() > ERROR_BYTES_MAX {
                    break;
                }
            }
            let body = secrets.redact(&body);
            let mut failure = Failure::of_answer(remote, endpoint, status, response.headers(), &body, clock.now());
            failure = failure.with_remedy(remedy);
            failure.request_id = request_id;
            return Err(failure);
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
        Ok(StreamBody { call, status, content_type, request_id, response, secrets, route })
    }
}

impl StreamBody {
    /// Whether the body has this media type.
    pub fn is_of_type(&self, media_type: &str) -> bool {
        self.content_type.split(';').next().is_some_and(|found| found.trim() == media_type)
    }

    /// The next piece; `None` at the end. If the future is dropped, nothing is lost.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let Call { remote, endpoint, .. } = self.call;
        match self.response.chunk().await {
            Ok(piece) => Ok(piece.map(Vec::from)),
            Err(error) => Err(Failure::of_transport(remote, endpoint, error, &self.route).partial()),
        }
    }

    /// A failure that the body reports.
    pub fn failure(&self, kind: Kind, code: Option<String>, message: &str) -> Failure {
        let message = self.secrets.redact_text(message);
        let mut failure = Failure::malformed(self.call.remote, self.call.endpoint, message).with_status(self.status);
        failure.kind = kind;
        failure.code = code.map(|code| self.secrets.redact_text(&code));
        failure.request_id.clone_from(&self.request_id);
        failure
    }
}
