//! What both stand-ins do with a request before and after the tenant handles it: journal, faults, barriers, control.

use std::future::IntoFuture;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Response};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::control;
use super::faults::Effect;
use super::message::{Inbound, Reply};
use super::tenant::{Tenant, TenantContext};
use super::wire::{Loopback, ResponseFault, Wire};

/// The longest request body; the real APIs accept less.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

struct Front<T> {
    tenant: Arc<T>,
    context: TenantContext,
}

/// A running stand-in.
#[derive(Debug)]
pub(super) struct Served {
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl Served {
    pub(super) fn start<T: Tenant>(
        listener: Loopback,
        stop: CancellationToken,
        tenant: Arc<T>,
        context: TenantContext,
    ) -> Self {
        let front = Arc::new(Front { tenant, context });
        let service =
            Router::new().fallback(serve::<T>).with_state(front).into_make_service_with_connect_info::<Wire>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
        Self { stop, server: tokio::spawn(serving.into_future()) }
    }

    /// Ends the listener and every connection.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        // The connections end by `stop`, so this returns.
        if let Err(error) = (&mut self.server).await {
            tracing::debug!(%error, "the stand-in's server ended badly");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve<T: Tenant>(
    State(front): State<Arc<Front<T>>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return Reply::json(413, &json!({"error": "Payload Too Large"})).into_response();
    };
    let request = Inbound {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        body,
    };
    if let Some(path) = request.path.strip_prefix("/_sandbox/") {
        let path: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        return control::answer(&*front.tenant, &front.context, &path, &request).into_response();
    }
    front.answer(&wire, &request).await.into_response()
}

impl<T: Tenant> Front<T> {
    async fn answer(&self, wire: &Wire, request: &Inbound) -> Reply {
        let TenantContext { clock, faults, journal, .. } = &self.context;
        let number = journal.arrived(request, clock.now());
        let effects = faults.take_effects(request);
        for effect in &effects {
            if let Effect::Delay(span) = effect {
                clock.sleep(*span).await;
            }
        }
        faults.wait(request, false).await;

        let mut answer = None;
        for effect in &effects {
            if answer.is_none() {
                answer = self.instead(effect);
            }
        }
        let mut answer = answer.unwrap_or_else(|| self.tenant.answer(request));
        let mut fault = ResponseFault::None;
        for effect in &effects {
            match effect {
                Effect::AfterEffect(late) => {
                    if let Some(other) = self.instead(late) {
                        answer = other;
                    }
                    fault = self.change(late, &mut answer).unwrap_or(fault);
                }
                effect => fault = self.change(effect, &mut answer).unwrap_or(fault),
            }
        }
        if !answer.headers.contains_key("date") {
            answer.set("date", &http_date(clock.now()));
        }
        faults.wait(request, true).await;
        wire.set(fault);
        if fault != ResponseFault::Dropped {
            journal.answered(number, &answer);
        }
        answer
    }

    /// The response that an effect gives instead of the tenant's.
    fn instead(&self, effect: &Effect) -> Option<Reply> {
        match effect {
            Effect::Status { code, body, headers } => {
                let mut answer = if body.is_null() { Reply::empty(*code) } else { Reply::json(*code, body) };
                for (name, value) in headers {
                    answer.set(name, value);
                }
                Some(answer)
            }
            Effect::RateLimited(kind) => Some(self.tenant.rate_limited(*kind)),
            // Without effect on the state: the tenant does not see the request.
            Effect::Drop => Some(Reply::empty(503)),
            _ => None,
        }
    }

    /// Applies an effect to the response, and returns the fault of the connection.
    fn change(&self, effect: &Effect, answer: &mut Reply) -> Option<ResponseFault> {
        match effect {
            Effect::Drop => return Some(ResponseFault::Dropped),
            Effect::CutBody => return Some(ResponseFault::Cut { body_bytes: answer.body.len() / 2 }),
            Effect::CutBodyOver(bytes) if answer.body.len() > *bytes => {
                return Some(ResponseFault::Cut { body_bytes: *bytes });
            }
            Effect::StallBody => return Some(ResponseFault::Stalled { body_bytes: answer.body.len() / 2 }),
            Effect::ReplaceBody(body) => answer.body = Bytes::from(body.clone()),
            Effect::ReplaceHeader { name, value: Some(value) } => answer.set(name, value),
            Effect::ReplaceHeader { name, value: None } => {
                answer.headers.remove(name.as_str());
            }
            Effect::NextLinkOrigin(origin) => redirect_links(&mut answer.headers, origin),
            _ => {}
        }
        None
    }
}

/// Replaces the origin of every `rel="next"` link.
fn redirect_links(headers: &mut HeaderMap, origin: &str) {
    let links: Vec<String> =
        headers.get_all("link").iter().filter_map(|line| line.to_str().ok()).map(str::to_owned).collect();
    headers.remove("link");
    for line in links {
        let target = line.find("://").and_then(|at| line[at + 3..].find('/').map(|slash| at + 3 + slash));
        let line = match target {
            Some(path) if line.contains("rel=\"next\"") => format!("<{origin}{}", &line[path..]),
            _ => line,
        };
        if let Ok(line) = line.parse() {
            headers.append("link", line);
        }
    }
}

/// The form of the `Date` header, RFC 9110 §5.6.7.
pub(super) fn http_date(at: okta_auth0_sync_clock::Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_form_of_http() {
        assert_eq!(http_date("2020-08-27T18:19:50Z".parse().unwrap()), "Thu, 27 Aug 2020 18:19:50 GMT");
    }

    #[test]
    fn only_the_next_link_is_redirected() {
        let mut headers = HeaderMap::new();
        headers.append("link", "<http://127.0.0.1:1/api/v1/logs?a=1>; rel=\"self\"".parse().unwrap());
        headers.append("link", "<http://127.0.0.1:1/api/v1/logs?a=2>; rel=\"next\"".parse().unwrap());
        redirect_links(&mut headers, "https://elsewhere.example");
        let links: Vec<_> = headers.get_all("link").iter().map(|line| line.to_str().unwrap()).collect();
        assert_eq!(
            links,
            [
                "<http://127.0.0.1:1/api/v1/logs?a=1>; rel=\"self\"",
                "<https://elsewhere.example/api/v1/logs?a=2>; rel=\"next\""
            ]
        );
    }
}
