//! Auth0 credentials: secret and key, audience and domain, and all refusals.

use okta_auth0_sync::auth0::Credentials;
use okta_auth0_sync::http::jws::SigningKey;
use okta_auth0_sync_sandbox::Effect;
use serde_json::json;

use super::harness::{REFUSED_FOR, answer, s, snoozed, start, start_with};
use super::keys;
use crate::world::World;

const TOKEN: &str = "/oauth/token";
const BY_EMAIL: &str = "/api/v2/users-by-email";
const USER: &str = "/api/v2/users/";

fn statuses(world: &World, path: &str) -> Vec<u16> {
    let requests = world.auth0().journal().requests();
    requests.iter().filter(|request| request.path.starts_with(path)).filter_map(|request| request.status).collect()
}

#[tokio::test]
async fn one_token_serves_all_with_secret_or_key() {
    let mut ways = vec![None];
    // Auth0 accepts RS256 and RS384 (Auth0 docs: Configure Private Key JWT).
    ways.extend(keys::rsa().into_iter().filter(|(algorithm, _)| *algorithm != "RS512").map(|(_, text)| Some(text)));
    for way in ways {
        let key = way.map(|text| SigningKey::parse(&text).unwrap());
        let world = start_with(|setup| {
            if let Some(key) = key {
                setup.sandbox.auth0.keys = vec![serde_json::to_value(key.public_jwk()).unwrap()];
                let client_id = setup.sandbox.auth0.client_id.clone();
                setup.network.auth0 = Some(Credentials::PrivateKeyJwt { client_id, key, key_id: None });
            }
        })
        .await;
        let users = [world.leaver("ann"), world.leaver("bob")];
        world.denies(&users).await;
        assert_eq!(statuses(&world, TOKEN), [200]);
    }
}

#[tokio::test]
async fn audience_may_differ_from_domain() {
    let audience = "https://acme.eu.auth0.com/api/v2/";
    let world = start_with(|setup| setup.sandbox.auth0.audience = Some(audience.to_owned())).await;
    let ann = world.leaver("ann");
    world.denies(&[ann]).await;
}

#[tokio::test]
async fn expired_or_revoked_token_costs_one_call() {
    let world = start().await;
    let ann = world.leaver("ann");
    world.denies(&[ann]).await;
    world.clock.advance(s(86_400 - 60));
    let bob = world.leaver("bob");
    world.denies(&[bob]).await;
    assert_eq!(statuses(&world, TOKEN), [200, 200], "renewed before it expires");
    assert!(!statuses(&world, "/").contains(&401), "and not used after it expired");

    world.auth0().journal().clear();
    world.auth0().revoke_tokens();
    let users = [world.leaver("cyd"), world.leaver("dan"), world.leaver("eve"), world.leaver("fay")];
    world.denies(&users).await;
    assert_eq!(statuses(&world, TOKEN), [200], "four concurrent looks fetch one token");
    let refused = statuses(&world, "/").into_iter().filter(|status| *status == 401).count();
    assert!((1..=4).contains(&refused), "{refused}");
    assert!(world.alarms_of_kind("remote_refuses").await.is_empty());
}

struct Refusal {
    name: &'static str,
    words: &'static [&'static str],
    begin: fn(&World),
    end: fn(&World),
}

fn problem(status: u16, code: &str, message: &str) -> Effect {
    let mut body = json!({ "statusCode": status, "error": "words", "message": message });
    if !code.is_empty() {
        body["errorCode"] = code.into();
    }
    let headers = vec![("x-auth0-requestid".to_owned(), "reqFaults".to_owned())];
    Effect::Status { code: status, body, headers }
}

fn always(world: &World, method: &str, path: &str, effect: Effect) {
    world.auth0_fault(method, path, effect, u32::MAX);
}

fn clear_faults(world: &World) {
    world.auth0().faults().clear();
}

const SCOPES: &str = "read:users update:users update:users_app_metadata";

#[tokio::test]
async fn refused_auth0_credential_waits_then_resumes() {
    let refusals = [
        Refusal {
            name: "a wrong secret",
            words: &["POST /oauth/token: unauthorized (401 access_denied)", "auth0.client_id"],
            begin: |world| world.auth0().set_client_secret("another"),
            end: |world| world.auth0().set_client_secret("sandbox-client-secret-not-a-secret"),
        },
        Refusal {
            name: "no grant for the API",
            words: &["POST /oauth/token: forbidden (403 access_denied)", "authorize the application"],
            begin: |world| world.auth0().set_granted_scope(""),
            end: |world| world.auth0().set_granted_scope(SCOPES),
        },
        Refusal {
            name: "an unknown audience",
            words: &["forbidden (403 access_denied): Service not found"],
            begin: |world| {
                let body = json!({ "error": "access_denied", "error_description": "Service not found: https://x/" });
                always(world, "POST", TOKEN, answer(403, body));
            },
            end: clear_faults,
        },
        Refusal {
            name: "a token for another audience",
            words: &["unauthorized (401): Bad audience", "auth0.audience", "[request reqFaults]"],
            begin: |world| always(world, "GET", "/api/", problem(401, "", "Bad audience: https://x/")),
            end: clear_faults,
        },
        Refusal {
            name: "a token of another domain",
            words: &["unauthorized (401): Invalid token", "set auth0.url", "[request reqFaults]"],
            begin: |world| always(world, "GET", "/api/", problem(401, "", "Invalid token")),
            end: clear_faults,
        },
        Refusal {
            name: "an expired token each time",
            words: &["unauthorized (401): Expired token", "[request reqFaults]"],
            begin: |world| {
                let message = "Expired token received for JSON Web Token validation";
                always(world, "GET", "/api/", problem(401, "", message));
            },
            end: clear_faults,
        },
        Refusal {
            name: "a malformed token",
            words: &["unauthorized (400 Bearer)", "[request reqFaults]"],
            begin: |world| {
                let message = "Bad HTTP authentication header format";
                always(world, "GET", "/api/", problem(400, "Bearer", message));
            },
            end: clear_faults,
        },
        Refusal {
            name: "a scope for reading is missing",
            words: &["forbidden (403 insufficient_scope)", "Management API scopes: read:users"],
            begin: |world| world.auth0().set_granted_scope("update:users"),
            end: |world| world.auth0().set_granted_scope(SCOPES),
        },
        Refusal {
            name: "a scope for writing is missing",
            words: &["PATCH /api/v2/users/{id}: forbidden (403 insufficient_scope)", "update:users"],
            begin: |world| world.auth0().set_granted_scope("read:users"),
            end: |world| world.auth0().set_granted_scope(SCOPES),
        },
        Refusal {
            name: "the plan does not include it",
            words: &["forbidden (403 insufficient_scope): Please upgrade", "plan", "[request reqFaults]"],
            begin: |world| {
                let message = "Please upgrade your subscription to use this feature";
                always(world, "PATCH", USER, problem(403, "insufficient_scope", message));
            },
            end: clear_faults,
        },
    ];
    for refusal in &refusals {
        assert_waits_then_resumes(refusal).await;
    }
}

async fn assert_waits_then_resumes(refusal: &Refusal) {
    let (name, world) = (refusal.name, start().await);
    let (ann, bob) = (world.leaver("ann"), world.leaver("bob"));
    (refusal.begin)(&world);
    assert_eq!(world.try_poll().await.unwrap().made_due, 2, "{name}: the log does not wait for Auth0");
    let why = snoozed(world.look(&ann).await);
    for word in refusal.words {
        assert!(why.contains(word), "{name}: {word:?} is not in {why}");
    }
    let alarms = world.alarms_of_kind("remote_refuses").await;
    assert_eq!(alarms.len(), 1, "{name}");
    assert_eq!(alarms[0].subject, "auth0");
    assert!(why.contains(&alarms[0].remedy), "{name}: {}", alarms[0].remedy);
    let calls = world.auth0().journal().total();
    for _ in 0..10 {
        snoozed(world.look(&bob).await);
    }
    // A refused write does not stop reads; a refused token stops all calls.
    let asked = world.auth0().journal().total() - calls;
    assert!(asked <= if name.contains("writing") || name.contains("plan") { 30 } else { 0 }, "{name}: {asked}");
    assert_eq!(world.auth0_calls("PATCH", USER), usize::from(asked > 0), "{name}: no write during a pause");
    let status = world.store().status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed), (2, 0), "{name}: no user fails because of it");
    (refusal.end)(&world);
    world.clock.advance(REFUSED_FOR);
    world.denies(&[ann, bob]).await;
    assert!(world.alarms_of_kind("remote_refuses").await.is_empty(), "{name}: the alarm is cleared");
    let status = world.store().status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed), (0, 0), "{name}");
}

#[tokio::test]
async fn long_refusal_probes_once_a_minute() {
    let world = start().await;
    let users: Vec<_> = ["ann", "bob", "cyd"].map(|name| world.leaver(name)).into();
    always(
        &world,
        "POST",
        TOKEN,
        answer(401, json!({ "error": "access_denied", "error_description": "Unauthorized" })),
    );
    world.try_poll().await.unwrap();
    for _ in 0..6 * 60 {
        world.clock.advance(s(60));
        snoozed(world.look(&users[0]).await);
    }
    assert!(statuses(&world, TOKEN).len() <= 6 * 60, "{}", statuses(&world, TOKEN).len());
    assert_eq!(statuses(&world, BY_EMAIL).len(), 0);
    clear_faults(&world);
    world.clock.advance(REFUSED_FOR);
    world.denies(&users).await;
}
