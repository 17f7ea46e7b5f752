//! A cached access token: fetched once for all who wait for it, renewed before it ends, dropped when it is refused.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Failure, Kind};
use crate::domain::Clock;

/// The answer of a token endpoint (RFC 6749 §5.1).
#[derive(Deserialize)]
pub struct TokenAnswer {
    /// The token itself.
    #[serde(deserialize_with = "secret")]
    pub access_token: SecretString,
    /// Its life in seconds.
    pub expires_in: Option<u64>,
    /// What was granted, separated by spaces.
    pub scope: Option<String>,
    /// `Bearer` or `DPoP`.
    pub token_type: Option<String>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// The life of a token whose answer names none: short enough to be safe, long enough to be of use.
const LIFE_UNNAMED: Duration = Duration::from_secs(300);

/// How long a token endpoint that refused us for our rate is left alone.
const HOLD_OFF_MIN: Duration = Duration::from_secs(1);
const HOLD_OFF_UNNAMED: Duration = Duration::from_secs(10);

/// A token and what is known of it. Its `Debug` does not show it.
#[derive(Clone)]
pub struct Token {
    /// The token itself.
    pub secret: SecretString,
    /// What was granted.
    pub scopes: Vec<String>,
    /// Is it bound to our DPoP key?
    pub is_dpop: bool,
    /// When to stop using it, on the monotonic clock.
    renew_at: Duration,
    /// Tells it from the token before and the one after.
    serial: u64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("scopes", &self.scopes).field("is_dpop", &self.is_dpop).finish_non_exhaustive()
    }
}

/// Where one client keeps its token.
#[derive(Debug)]
pub struct TokenCache {
    /// How long before its end a token is no longer used. Never more than a tenth of its life.
    early: Duration,
    /// Locked while a token is fetched: whoever needs one meanwhile waits for that one.
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    token: Option<Token>,
    fetched: u64,
    /// The endpoint refused us for our rate: it is not asked again before this moment on the monotonic clock.
    held_off: Option<(Duration, Failure)>,
}

impl TokenCache {
    /// An empty one.
    pub fn new(early: Duration) -> Self {
        Self { early, slot: Mutex::new(Slot::default()) }
    }

    /// The token, fetched if there is none or it is about to end. Nobody fetches while another does.
    ///
    /// # Errors
    /// What `fetch` failed with. A refusal for the rate is repeated, without asking, for as long as it says: no pacer
    /// looks after token endpoints.
    pub async fn get<F>(&self, clock: &dyn Clock, fetch: impl FnOnce() -> F) -> Result<Token, Failure>
    where
        F: Future<Output = Result<TokenAnswer, Failure>>,
    {
        let mut slot = self.slot.lock().await;
        if let Some(token) = slot.token.as_ref().filter(|token| clock.monotonic() < token.renew_at) {
            return Ok(token.clone());
        }
        slot.token = None;
        // Counted from before the call: the token's life began somewhere during it.
        let asked_at = clock.monotonic();
        if let Some((until, failure)) = &slot.held_off {
            if asked_at < *until {
                return Err(Failure { retry_after: Some(*until - asked_at), ..failure.clone() });
            }
            slot.held_off = None;
        }
        let answer = match fetch().await {
            Ok(answer) => answer,
            Err(failure) => {
                if failure.kind == Kind::RateLimited {
                    let span = failure.retry_after.unwrap_or(HOLD_OFF_UNNAMED).max(HOLD_OFF_MIN);
                    slot.held_off = Some((clock.monotonic().saturating_add(span), failure.clone()));
                }
                return Err(failure);
            }
        };
        let life = answer.expires_in.map_or(LIFE_UNNAMED, Duration::from_secs);
        let renew_at = asked_at.saturating_add(life.saturating_sub(self.early.min(life / 10)));
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

    /// Forgets `refused`, unless somebody has replaced it already.
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
    async fn one_fetch_serves_all_until_shortly_before_the_end() {
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
    async fn a_short_life_does_not_make_every_call_fetch() {
        let (clock, cache, mint) = setup();
        for _ in 0..3 {
            cache.get(&clock, || mint.token(60)).await.unwrap();
            clock.advance(Duration::from_secs(17));
        }
        assert_eq!(mint.0.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_endpoint_that_refuses_for_its_rate_is_left_alone_for_as_long_as_it_says() {
        let (clock, cache, mint) = setup();
        let asked = AtomicU64::new(0);
        let refuse = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            let failure = Failure::rejected(crate::http::Remote::Auth0, "POST /oauth/token", "too many");
            Err(Failure { kind: Kind::RateLimited, retry_after: Some(Duration::from_secs(30)), ..failure })
        };
        for (passed, left) in [(0, 30), (0, 30), (12, 18)] {
            clock.advance(Duration::from_secs(passed));
            let failure = cache.get(&clock, refuse).await.unwrap_err();
            assert_eq!(failure.retry_after, Some(Duration::from_secs(left)));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        clock.advance(Duration::from_secs(18));
        cache.get(&clock, || mint.token(3600)).await.unwrap();
    }

    #[tokio::test]
    async fn only_the_refused_token_is_forgotten() {
        let (clock, cache, mint) = setup();
        let first = cache.get(&clock, || mint.token(3600)).await.unwrap();
        cache.forget(&first).await;
        cache.get(&clock, || mint.token(3600)).await.unwrap();
        cache.forget(&first).await;
        assert_eq!(cache.get(&clock, || mint.token(3600)).await.unwrap().secret.expose_secret(), "canary-2");
    }
}
