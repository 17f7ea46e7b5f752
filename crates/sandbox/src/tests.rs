//! Both tenants as a client sees them, over real HTTP.

mod auth0;
mod events;
mod network;
mod okta;

use std::sync::Arc;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::Value;

use okta_auth0_sync_clock::ManualClock;

use super::{Options, Sandbox};

/// The Action that the tests of a login need: like the shipped one, it denies marked users.
const ACTION: &str = include_str!("../../../src/auth0/action.js");

/// A response.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The target of the link with this relation.
    fn link(&self, relation: &str) -> Option<String> {
        self.headers.get_all("link").iter().find_map(|line| {
            let (target, rest) = line.to_str().unwrap().strip_prefix('<')?.split_once('>')?;
            (rest == format!("; rel=\"{relation}\"")).then(|| target.to_owned())
        })
    }
}

/// A sandbox whose clock starts at 2026-01-01, and a client.
struct Stage {
    sandbox: Sandbox,
    clock: Arc<ManualClock>,
    client: Client,
}

impl Stage {
    async fn set(change: impl FnOnce(&mut Options)) -> Self {
        let clock = Arc::new(ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let mut options = Options::with_manual_clock(clock.clone());
        change(&mut options);
        let sandbox = Sandbox::start(options, ACTION).await.unwrap();
        Self { sandbox, clock, client: Client::builder().no_proxy().build().unwrap() }
    }

    /// A request with this `Authorization`; `body` goes as JSON unless it is null.
    async fn ask(&self, method: Method, url: &str, authorization: &str, body: &Value) -> Reply {
        let mut request = self.client.request(method, url);
        if !authorization.is_empty() {
            request = request.header("authorization", authorization);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        reply(request.send().await.unwrap()).await
    }

    /// A request to Okta with the API token.
    async fn okta(&self, method: Method, path: &str, body: Value) -> Reply {
        let okta = self.sandbox.okta();
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", okta.url()) };
        self.ask(method, &url, &format!("SSWS {}", okta.api_token()), &body).await
    }

    /// A request to Auth0's token endpoint.
    async fn token(&self, form: &[(&str, &str)]) -> Reply {
        let url = format!("{}/oauth/token", self.sandbox.auth0().url());
        reply(self.client.post(url).form(form).send().await.unwrap()).await
    }

    /// An access token for Auth0's Management API.
    async fn bearer(&self) -> String {
        let auth0 = self.sandbox.auth0();
        let (id, secret, audience) = (auth0.client_id(), auth0.client_secret(), auth0.audience());
        let granted = self
            .token(&[
                ("grant_type", "client_credentials"),
                ("client_id", &id),
                ("client_secret", &secret),
                ("audience", &audience),
            ])
            .await;
        assert_eq!(granted.status, 200, "{granted:?}");
        format!("Bearer {}", granted.body["access_token"].as_str().unwrap())
    }

    /// A request to Auth0's Management API with a token.
    async fn auth0(&self, bearer: &str, method: Method, path: &str, body: Value) -> Reply {
        let url = format!("{}/api/v2{path}", self.sandbox.auth0().url());
        self.ask(method, &url, bearer, &body).await
    }
}

async fn reply(response: reqwest::Response) -> Reply {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.unwrap();
    Reply { status, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
}
