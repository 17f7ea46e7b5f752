//! Caches an access token: one fetch serves all waiting calls, renewed before it expires, dropped when refused.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Failure, Kind};
use crate::domain::Clock;

/// The response of a token endpoint (RFC 6749 §5.1).
#[derive(Deserialize)]
pub struct TokenAnswer {
    /// The token itself.
    #[serde(deserialize_with = "secret")]
    pub access_token: SecretString,
    /// Its lifetime in seconds.
    #[serde(default, deserialize_with = "super::lenient::seconds")]
    pub expires_in: Option<u64>,
    /// The granted scopes, separated by spaces.
    pub scope: Option<String>,
    /// `Bearer` or `DPoP`.
    pub token_type: Option<String>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// The lifetime of a token if the response does not name one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);

/// The pause after a 429 of the token endpoint: the shortest, and the one if the response names no time.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_DEFAULT: Duration = Duration::from_secs(10);

/// A token with its metadata. Its `Debug` does not show the secret.
#[derive(Clone)]
pub struct Token {
    /// The token itself.
    pub secret: SecretString,
    /// The granted scopes.
    pub scopes: Vec<String>,
    /// Whether it is bound to our DPoP key.
    pub is_dpop: bool,
    /// When to stop using it, on the monotonic clock.
    renew_at: Duration,
    /// Identifies this token among those of its cache.
    serial: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("scopes", &self.scopes).field("is_dpop", &self.is_dpop).finish_non_exhaustive()
    }
}

/// The token of one client.
#[derive(Debug)]
pub struct TokenCache {
    /// How long before its expiry a token is renewed: at most a tenth of its lifetime.
    margin: Duration,
    /// Locked during a fetch, so that concurrent callers wait for the same token.
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    token: Option<Token>,
    fetched: u64,
    /// After a 429: when to call the endpoint again, on the monotonic clock, and the failure until then.
    backoff: Option<(Duration, Failure)>,
}

impl TokenCache {
    /// Creates an empty cache.
    pub fn new(margin: Duration) -> Self {
        Self { margin, slot: Mutex::new(Slot::default()) }
    }

    /// Returns the token; fetches one if it is missing or about to expire. Concurrent callers share one fetch.
    ///
    /// # Errors
    /// The failure of `fetch`. A 429 is returned again without a call until its pause has passed, because no pacer covers
    /// token endpoints.
    pub async fn get<F>(&self, clock: &dyn Clock, fetch: impl FnOnce() -> F) -> Result<Token, Failure>
    where
        F: Future<Output = Result<TokenAnswer, Failure>>,
    {
        let mut slot = self.slot.lock().await;
        if let Some(token) = slot.token.as_ref().filter(|token| clock.monotonic() < token.renew_at) {
            return Ok(token.clone());
        }
        slot.token = None;
        // Taken before the call: the token's lifetime starts during it.
        let requested_at = clock.monotonic();
        if let Some((until, failure)) = &slot.backoff {
            if requested_at < *until {
                return Err(Failure { retry_after: Some(*until - requested_at), ..failure.clone() });
            }
            slot.backoff = None;
        }
        let answer = match fetch().await {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.kind == Kind::RateLimited {
                    let span = failure.retry_after.unwrap_or(BACKOFF_DEFAULT).max(BACKOFF_MIN);
                    slot.backoff = Some((clock.monotonic().saturating_add(span), failure.clone()));
                }
                return Err(failure);
            }
        };
        let lifetime = answer.expires_in.map_or(DEFAULT_LIFETIME, Duration::from_secs);
        let renew_at = requested_at.saturating_add(lifetime.saturating_sub(self.margin.min(lifetime / 10)));
        slot.fetched += 1;
        let token = Token {
            secret: answer.access_token,
            scopes: answer.scope.unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            is_dpop: answer.token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("DPoP")),
            renew_at,
            serial: slot.fetched,
        };
        slot.token = Some(token.clone());
        Ok(token)
    }

    /// Drops `refused`, unless it was already replaced.
    pub async fn forget(&self, refused: &Token) {
        let mut slot = self.slot.lock().await;
        if slot.token.as_ref().is_some_and(|token| token.serial == refused.serial) {
            slot.token = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use secrecy::ExposeSecret;

    use super::*;
    use crate::domain::ManualClock;

    struct Mint(AtomicU64);

    impl Mint {
        async fn token(&self, life_s: u64) -> Result<TokenAnswer, Failure> {
            tokio::task::yield_now().await;
            let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(TokenAnswer {
                access_token: format!("canary-{number}").into(),
                expires_in: Some(life_s),
                scope: Some("a b".to_owned()),
                token_type: None,
            })
        }
    }

    fn setup() -> (ManualClock, TokenCache, Mint) {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        (clock, TokenCache::new(Duration::from_secs(300)), Mint(AtomicU64::new(0)))
    }

    #[tokio::test]
    async fn one_fetch_serves_all_until_near_expiry() {
        let (clock, cache, mint) = setup();
        let get = || cache.get(&clock, || mint.token(3600));
        let (a, b, c) = tokio::join!(get(), get(), get());
        for token in [a.unwrap(), b.unwrap(), c.unwrap()] {
            assert_eq!(token.secret.expose_secret(), "canary-1");
            assert_eq!(token.scopes, ["a", "b"]);
            assert!(!format!("{token:?} {cache:?}").contains("canary"));
        }
        clock.advance(Duration::from_secs(3299));
        assert_eq!(get().await.unwrap().secret.expose_secret(), "canary-1");
        clock.advance(Duration::from_secs(1));
        assert_eq!(get().await.unwrap().secret.expose_secret(), "canary-2");
    }

    #[tokio::test]
    async fn short_lifetime_does_not_fetch_on_each_call() {
        let (clock, cache, mint) = setup();
        for _ in 0..3 {
            cache.get(&clock, || mint.token(60)).await.unwrap();
            clock.advance(Duration::from_secs(17));
        }
        assert_eq!(mint.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn lifetime_is_read_in_any_form() {
        for (text, expected) in [
            ("3600", Some(3600)),
            ("3600.0", Some(3600)),
            ("\"3600\"", Some(3600)),
            ("null", None),
            ("\"soon\"", None),
            ("-1", None),
        ] {
            let body = format!("{{\"access_token\":\"canary\",\"expires_in\":{text}}}");
            let answer: TokenAnswer = serde_json::from_str(&body).unwrap();
            assert_eq!(answer.expires_in, expected, "{text}");
        }
        assert_eq!(serde_json::from_str::<TokenAnswer>("{\"access_token\":\"canary\"}").unwrap().expires_in, None);
    }

    #[tokio::test]
    async fn token_endpoint_is_paused_after_429() {
        let (clock, cache, mint) = setup();
        let calls = AtomicU64::new(0);
        let refuse = || async {
            calls.fetch_add(1, Ordering::Relaxed);
            let failure = Failure::rejected(crate::http::Remote::Auth0, "POST /oauth/token", "too many");
            Err(Failure { kind: Kind::RateLimited, retry_after: Some(Duration::from_secs(30)), ..failure })
        };
        for (passed, left) in [(0, 30), (0, 30), (12, 18)] {
            clock.advance(Duration::from_secs(passed));
            let failure = cache.get(&clock, refuse).await.unwrap_err();
            assert_eq!(failure.retry_after, Some(Duration::from_secs(left)));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        clock.advance(Duration::from_secs(18));
        cache.get(&clock, || mint.token(3600)).await.unwrap();
    }

    #[tokio::test]
    async fn forget_drops_only_the_refused_token() {
        let (clock, cache, mint) = setup();
        let first = cache.get(&clock, || mint.token(3600)).await.unwrap();
        cache.forget(&first).await;
        cache.get(&clock, || mint.token(3600)).await.unwrap();
        cache.forget(&first).await;
        assert_eq!(cache.get(&clock, || mint.token(3600)).await.unwrap().secret.expose_secret(), "canary-2");
    }
}
