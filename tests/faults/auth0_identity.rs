//! Who we are in Auth0: secret and key, audience and domain, and every way in which it is refused.

use okta_auth0_sync::auth0::Credentials;
use okta_auth0_sync::http::jws::SigningKey;
use okta_auth0_sync_sandbox::Effect;
use serde_json::json;

use super::keys;
use super::stage::{REFUSED_FOR, Stage, answer, s, snoozed};

const TOKEN: &str = "/oauth/token";
const BY_EMAIL: &str = "/api/v2/users-by-email";
const USER: &str = "/api/v2/users/";

fn statuses(stage: &Stage, path: &str) -> Vec<u16> {
    let requests = stage.sandbox.auth0().journal().requests();
    requests.iter().filter(|request| request.path.starts_with(path)).filter_map(|request| request.status).collect()
}

#[tokio::test]
async fn one_token_serves_all_with_secret_or_key() {
    let mut ways = vec![None];
    // RS256 and RS384 are what Auth0 takes (Auth0 docs: Configure Private Key JWT).
    ways.extend(keys::rsa().into_iter().filter(|(algorithm, _)| *algorithm != "RS512").map(|(_, text)| Some(text)));
    for way in ways {
        let key = way.map(|text| SigningKey::parse(&text).unwrap());
        let stage = Stage::set(|setup| {
            if let Some(key) = key {
                setup.sandbox.auth0.keys = vec![serde_json::to_value(key.public_jwk()).unwrap()];
                let client_id = setup.sandbox.auth0.client_id.clone();
                setup.auth0 = Some(Credentials::PrivateKeyJwt { client_id, key, key_id: None });
            }
        })
        .await;
        let people = [stage.leaver("ann"), stage.leaver("bob")];
        stage.denies(&people).await;
        assert_eq!(statuses(&stage, TOKEN), [200]);
    }
}

#[tokio::test]
async fn audience_may_differ_from_domain() {
    let audience = "https://acme.eu.auth0.com/api/v2/";
    let stage = Stage::set(|setup| setup.sandbox.auth0.audience = Some(audience.to_owned())).await;
    let ann = stage.leaver("ann");
    stage.denies(&[ann]).await;
}

#[tokio::test]
async fn expired_or_revoked_token_costs_one_call() {
    let stage = Stage::new().await;
    let ann = stage.leaver("ann");
    stage.denies(&[ann]).await;
    stage.clock.advance(s(86_400 - 60));
    let bob = stage.leaver("bob");
    stage.denies(&[bob]).await;
    assert_eq!(statuses(&stage, TOKEN), [200, 200], "renewed before its end");
    assert!(!statuses(&stage, "/").contains(&401), "and never used after it");

    stage.sandbox.auth0().journal().clear();
    stage.sandbox.auth0().revoke_tokens();
    let people = [stage.leaver("cyd"), stage.leaver("dan"), stage.leaver("eve"), stage.leaver("fay")];
    stage.denies(&people).await;
    assert_eq!(statuses(&stage, TOKEN), [200], "four looks at once ask for one token");
    let refused = statuses(&stage, "/").into_iter().filter(|status| *status == 401).count();
    assert!((1..=4).contains(&refused), "{refused}");
    assert!(stage.alarms("remote_refuses").await.is_empty());
}

struct Trouble {
    name: &'static str,
    words: &'static [&'static str],
    begin: fn(&Stage),
    end: fn(&Stage),
}

fn problem(status: u16, code: &str, message: &str) -> Effect {
    let mut body = json!({ "statusCode": status, "error": "words", "message": message });
    if !code.is_empty() {
        body["errorCode"] = code.into();
    }
    let headers = vec![("x-auth0-requestid".to_owned(), "reqWeather".to_owned())];
    Effect::Status { code: status, body, headers }
}

fn forever(stage: &Stage, method: &str, path: &str, effect: Effect) {
    stage.auth0_fault(method, path, effect, u32::MAX);
}

fn mended(stage: &Stage) {
    stage.sandbox.auth0().faults().clear();
}

const SCOPES: &str = "read:users update:users update:users_app_metadata";

#[tokio::test]
async fn refused_auth0_credential_waits_then_resumes() {
    let troubles = [
        Trouble {
            name: "a wrong secret",
            words: &["POST /oauth/token: unauthorized (401 access_denied)", "auth0.client_id"],
            begin: |stage| stage.sandbox.auth0().set_client_secret("another"),
            end: |stage| stage.sandbox.auth0().set_client_secret("sandbox-client-secret-not-a-secret"),
        },
        Trouble {
            name: "no grant for the API",
            words: &["POST /oauth/token: forbidden (403 access_denied)", "authorize the application"],
            begin: |stage| stage.sandbox.auth0().set_granted_scope(""),
            end: |stage| stage.sandbox.auth0().set_granted_scope(SCOPES),
        },
        Trouble {
            name: "an audience that is none",
            words: &["forbidden (403 access_denied): Service not found"],
            begin: |stage| {
                let body = json!({ "error": "access_denied", "error_description": "Service not found: https://x/" });
                forever(stage, "POST", TOKEN, answer(403, body));
            },
            end: mended,
        },
        Trouble {
            name: "a token for another audience",
            words: &["unauthorized (401): Bad audience", "auth0.audience", "[request reqWeather]"],
            begin: |stage| forever(stage, "GET", "/api/", problem(401, "", "Bad audience: https://x/")),
            end: mended,
        },
        Trouble {
            name: "a token of another domain",
            words: &["unauthorized (401): Invalid token", "set auth0.url", "[request reqWeather]"],
            begin: |stage| forever(stage, "GET", "/api/", problem(401, "", "Invalid token")),
            end: mended,
        },
        Trouble {
            name: "an expired token, again and again",
            words: &["unauthorized (401): Expired token", "[request reqWeather]"],
            begin: |stage| {
                let message = "Expired token received for JSON Web Token validation";
                forever(stage, "GET", "/api/", problem(401, "", message));
            },
            end: mended,
        },
        Trouble {
            name: "a malformed token",
            words: &["unauthorized (400 Bearer)", "[request reqWeather]"],
            begin: |stage| {
                let message = "Bad HTTP authentication header format";
                forever(stage, "GET", "/api/", problem(400, "Bearer", message));
            },
            end: mended,
        },
        Trouble {
            name: "a scope for reading is missing",
            words: &["forbidden (403 insufficient_scope)", "Management API scopes: read:users"],
            begin: |stage| stage.sandbox.auth0().set_granted_scope("update:users"),
            end: |stage| stage.sandbox.auth0().set_granted_scope(SCOPES),
        },
        Trouble {
            name: "a scope for writing is missing",
            words: &["PATCH /api/v2/users/{id}: forbidden (403 insufficient_scope)", "update:users"],
            begin: |stage| stage.sandbox.auth0().set_granted_scope("read:users"),
            end: |stage| stage.sandbox.auth0().set_granted_scope(SCOPES),
        },
        Trouble {
            name: "the plan does not include it",
            words: &["forbidden (403 insufficient_scope): Please upgrade", "plan", "[request reqWeather]"],
            begin: |stage| {
                let message = "Please upgrade your subscription to use this feature";
                forever(stage, "PATCH", USER, problem(403, "insufficient_scope", message));
            },
            end: mended,
        },
    ];
    for trouble in &troubles {
        waits_and_goes_on(trouble).await;
    }
}

async fn waits_and_goes_on(trouble: &Trouble) {
    let (name, stage) = (trouble.name, Stage::new().await);
    let (ann, bob) = (stage.leaver("ann"), stage.leaver("bob"));
    (trouble.begin)(&stage);
    assert_eq!(stage.poll().await.unwrap().made_due, 2, "{name}: the log does not wait for Auth0");
    let why = snoozed(stage.look(&ann).await);
    for word in trouble.words {
        assert!(why.contains(word), "{name}: {word:?} is not in {why}");
    }
    let alarms = stage.alarms("remote_refuses").await;
    assert_eq!(alarms.len(), 1, "{name}");
    assert_eq!(alarms[0].subject, "auth0");
    assert!(why.contains(&alarms[0].remedy), "{name}: {}", alarms[0].remedy);
    let calls = stage.sandbox.auth0().journal().total();
    for _ in 0..10 {
        snoozed(stage.look(&bob).await);
    }
    // A refused write stops nobody from reading; a refused token, everybody.
    let asked = stage.sandbox.auth0().journal().total() - calls;
    assert!(asked <= if name.contains("writing") || name.contains("plan") { 30 } else { 0 }, "{name}: {asked}");
    assert_eq!(stage.auth0_calls("PATCH", USER), usize::from(asked > 0), "{name}: no write during a pause");
    let status = stage.engine.store().status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed), (2, 0), "{name}: nobody is failed by it");
    (trouble.end)(&stage);
    stage.clock.advance(REFUSED_FOR);
    stage.denies(&[ann, bob]).await;
    assert!(stage.alarms("remote_refuses").await.is_empty(), "{name}: over");
    let status = stage.engine.store().status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed), (0, 0), "{name}");
}

#[tokio::test]
async fn long_refusal_probes_once_a_minute() {
    let stage = Stage::new().await;
    let people: Vec<_> = ["ann", "bob", "cyd"].map(|name| stage.leaver(name)).into();
    forever(
        &stage,
        "POST",
        TOKEN,
        answer(401, json!({ "error": "access_denied", "error_description": "Unauthorized" })),
    );
    stage.poll().await.unwrap();
    for _ in 0..6 * 60 {
        stage.clock.advance(s(60));
        snoozed(stage.look(&people[0]).await);
    }
    assert!(statuses(&stage, TOKEN).len() <= 6 * 60, "{}", statuses(&stage, TOKEN).len());
    assert_eq!(statuses(&stage, BY_EMAIL).len(), 0);
    mended(&stage);
    stage.clock.advance(REFUSED_FOR);
    stage.denies(&people).await;
}
