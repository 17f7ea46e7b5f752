//! Okta credentials: all kinds, DPoP, and all refusals.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
};
use okta_auth0_sync::domain::Outcome;
use okta_auth0_sync::http::jws::SigningKey;
use okta_auth0_sync::okta::{Credentials, DpopMode};
use okta_auth0_sync_sandbox::{Effect, ServiceApp};
use serde_json::{Value, json};

use super::harness::{LOGS, REFUSED_FOR, answer, paused, s, snoozed, start, start_with};
use super::keys;
use crate::world::World;

const CLIENT: &str = "0oaFaults";
const TOKEN: &str = "/oauth2/v1/token";

fn credentials(key: SigningKey, dpop: DpopMode) -> Credentials {
    Credentials::PrivateKeyJwt { client_id: CLIENT.to_owned(), key, key_id: None, dpop }
}

fn app(key: &SigningKey) -> ServiceApp {
    ServiceApp::new(CLIENT, serde_json::to_value(key.public_jwk()).unwrap())
}

/// A service app with a new key, modified by `change`.
async fn service(dpop: DpopMode, change: impl FnOnce(&mut ServiceApp)) -> World {
    let key = SigningKey::generate().unwrap();
    let mut app = app(&key);
    change(&mut app);
    let world = start_with(|setup| setup.network.okta = Some(credentials(key, dpop))).await;
    world.okta().register_app(app);
    world
}

fn statuses(world: &World, path: &str) -> Vec<u16> {
    let requests = world.okta().journal().requests();
    requests.iter().filter(|request| request.path == path).filter_map(|request| request.status).collect()
}

#[tokio::test]
async fn api_token_suffices() {
    let world = start().await;
    let ann = world.leaver("ann");
    world.denies(&[ann]).await;
    assert_eq!(world.okta_calls("POST", TOKEN), 0);
}

#[tokio::test]
async fn service_app_signs_with_every_key_type() {
    let all = [
        keys::rsa(),
        keys::ec("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        keys::ec("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        keys::ec("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    for (algorithm, text) in all.concat() {
        let key = SigningKey::parse(&text).unwrap();
        assert_eq!(keys::algorithm_of(&key.sign(&json!({}), &json!({})).unwrap()), algorithm);
        let app = app(&key);
        let world = start_with(|setup| setup.network.okta = Some(credentials(key, DpopMode::Auto))).await;
        world.okta().register_app(app);
        let ann = world.leaver("ann");
        world.denies(&[ann]).await;
        assert_eq!(statuses(&world, TOKEN), [200], "{algorithm}: one token for the log and the user");
    }
}

#[tokio::test]
async fn dpop_proof_is_sent_when_required() {
    // Without a proof, without a nonce, with both: three assertions, since even a refusal uses one up.
    for (mode, required, expected) in [
        (DpopMode::Auto, false, &[200][..]),
        (DpopMode::Auto, true, &[400, 400, 200]),
        (DpopMode::Always, true, &[400, 200]),
        (DpopMode::Always, false, &[400, 200]),
        (DpopMode::Never, false, &[200]),
    ] {
        let world = service(mode, |app| app.require_dpop = required).await;
        let ann = world.leaver("ann");
        world.denies(&[ann]).await;
        assert_eq!(statuses(&world, TOKEN), expected, "{mode:?}, required: {required}");
        assert_eq!(statuses(&world, LOGS), [200, 200]);
    }
}

#[tokio::test]
async fn required_dpop_turned_off_names_setting() {
    let key = SigningKey::generate().unwrap();
    let mut wanting = app(&key);
    wanting.require_dpop = true;
    let relaxed = ServiceApp { require_dpop: false, ..wanting.clone() };
    let world = start_with(|setup| setup.network.okta = Some(credentials(key, DpopMode::Never))).await;
    world.okta().register_app(wanting);
    let ann = world.leaver("ann");
    let why = paused(world.try_poll().await);
    assert!(why.contains("unauthorized (400 invalid_dpop_proof)") && why.contains("okta.oauth.dpop"), "{why}");
    world.okta().register_app(relaxed);
    world.clock.advance(REFUSED_FOR);
    world.denies(&[ann]).await;
}

#[tokio::test]
async fn expired_dpop_nonce_is_renewed() {
    let world = service(DpopMode::Auto, |app| app.require_dpop = true).await;
    world.try_poll().await.unwrap();
    // After a day Okta issues another nonce and accepts the old one for two more days. After four days it refuses it.
    for (hours, attempts) in [(25, 1), (96, 2)] {
        world.okta().journal().clear();
        world.clock.advance(s(hours * 3600));
        world.try_poll().await.unwrap();
        assert_eq!(statuses(&world, TOKEN).len(), attempts, "after {hours} hours");
        assert_eq!(statuses(&world, LOGS), [200]);
    }
}

#[tokio::test]
async fn api_dpop_nonce_is_retried_then_kept() {
    let key = SigningKey::generate().unwrap();
    let mut wanting = app(&key);
    wanting.require_dpop = true;
    let world = start_with(|setup| {
        setup.network.okta = Some(credentials(key, DpopMode::Auto));
        setup.sandbox.okta.demand_dpop_nonce = true;
    })
    .await;
    world.okta().register_app(wanting);
    world.try_poll().await.unwrap();
    assert_eq!(statuses(&world, LOGS), [200], "the API accepts the nonce of the token request");
    // A token is fetched 15 minutes before the nonce expires; 15 minutes after, the API requires another nonce.
    world.clock.advance(s(3 * 86_400 - 900));
    world.try_poll().await.unwrap();
    world.clock.advance(s(1800));
    let ann = world.leaver("ann");
    world.denies(&[ann]).await;
    assert_eq!(statuses(&world, LOGS), [200, 200, 400, 200, 200]);
    assert_eq!(statuses(&world, TOKEN), [400, 400, 200, 200], "and the token was kept");
}

#[tokio::test]
async fn expired_or_revoked_token_costs_one_call() {
    let world = service(DpopMode::Auto, |_| ()).await;
    world.try_poll().await.unwrap();
    world.clock.advance(s(3500));
    world.try_poll().await.unwrap();
    assert_eq!(statuses(&world, TOKEN), [200, 200], "renewed before it expires");
    assert_eq!(statuses(&world, LOGS), [200, 200], "and not used after it expired");

    let ann = world.leaver("ann");
    world.okta().journal().clear();
    world.okta().revoke_token();
    world.try_poll().await.unwrap();
    assert_eq!(world.look(&ann).await, Outcome::Applied);
    assert_eq!(statuses(&world, TOKEN), [200]);
    assert_eq!(statuses(&world, LOGS), [401, 200, 200]);
    assert!(world.alarms_of_kind("remote_refuses").await.is_empty());
}

/// A refusal, the words that its message must contain, and its fix.
struct Refusal {
    name: &'static str,
    words: &'static [&'static str],
    begin: fn(&World),
    end: fn(&World),
}

fn oauth_error(code: u16, error: &str, description: &str) -> Effect {
    answer(code, json!({ "error": error, "error_description": description }))
}

fn always(world: &World, method: &str, path: &str, effect: Effect) {
    world.okta_fault(method, path, effect, u32::MAX);
}

fn okta_error(status: u16, code: &str, summary: &str) -> Effect {
    let body = json!({ "errorCode": code, "errorSummary": summary, "errorCauses": [] });
    let headers = vec![("x-okta-request-id".to_owned(), "reqFaults".to_owned())];
    Effect::Status { code: status, body, headers }
}

fn clear_faults(world: &World) {
    world.okta().faults().clear();
}

/// Checks that work waits, one alarm is raised, no calls are made, and work resumes automatically.
async fn assert_waits_then_resumes(world: &World, refusal: &Refusal) {
    let name = refusal.name;
    let ann = world.leaver("ann");
    (refusal.begin)(world);
    let why = paused(world.try_poll().await);
    for word in refusal.words {
        assert!(why.contains(word), "{name}: {word:?} is not in {why}");
    }
    let alarms = world.alarms_of_kind("remote_refuses").await;
    assert_eq!(alarms.len(), 1, "{name}");
    assert_eq!(alarms[0].subject, "okta");
    assert!(why.contains(&alarms[0].remedy), "{name}: {}", alarms[0].remedy);
    let calls = world.calls_total();
    for _ in 0..20 {
        paused(world.try_poll().await);
    }
    assert_eq!(world.calls_total(), calls, "{name}: no calls during the pause");
    for _ in 0..5 {
        world.clock.advance(REFUSED_FOR);
        paused(world.try_poll().await);
    }
    assert!(world.calls_total() - calls <= 15, "{name}: one probe a minute (a probe may be a token and a call)");
    (refusal.end)(world);
    world.clock.advance(REFUSED_FOR);
    world.denies(&[ann]).await;
    assert!(world.alarms_of_kind("remote_refuses").await.is_empty(), "{name}: the alarm is cleared");
    let status = world.store().status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed), (0, 0), "{name}");
    let remotes = world.store().remotes().await.unwrap();
    assert!(!remotes.iter().any(|remote| remote.is_failing()), "{name}: {remotes:?}");
}

#[tokio::test]
async fn refused_api_token_waits_then_resumes() {
    let refusals = [
        Refusal {
            name: "revoked",
            words: &["unauthorized (401 E0000011)", "30 days without use", "[request "],
            begin: |world| world.okta().revoke_token(),
            end: |world| world.okta().restore_token(),
        },
        Refusal {
            name: "no role",
            words: &["forbidden (403 E0000006)", "administrator role", "[request "],
            begin: |world| world.okta().set_role(false, true),
            end: |world| world.okta().set_role(true, true),
        },
        Refusal {
            name: "outside its network zone",
            words: &["forbidden (403)", "network zone", "[request reqFaults]"],
            begin: |world| {
                let body = json!({ "errorSummary": "Access from this network zone is not allowed" });
                let headers = vec![("x-okta-request-id".to_owned(), "reqFaults".to_owned())];
                always(world, "GET", "/api/", Effect::Status { code: 403, body, headers });
            },
            end: clear_faults,
        },
        Refusal {
            name: "a session that is not valid",
            words: &["forbidden (403 E0000005)", "otherwise create another one", "[request reqFaults]"],
            begin: |world| always(world, "GET", "/api/", okta_error(403, "E0000005", "Invalid session")),
            end: clear_faults,
        },
        Refusal {
            name: "a feature that the org lacks",
            words: &["unauthorized (401 E0000015)", "lacks the feature", "[request reqFaults]"],
            begin: |world| {
                let summary = "You do not have permission to access the feature you are requesting";
                always(world, "GET", "/api/", okta_error(401, "E0000015", summary));
            },
            end: clear_faults,
        },
    ];
    for refusal in &refusals {
        assert_waits_then_resumes(&start().await, refusal).await;
    }
}

#[tokio::test]
async fn refused_service_app_waits_then_resumes() {
    let refusals = [
        Refusal {
            name: "bound to a network zone",
            words: &["forbidden (400 access_denied)", "network zone"],
            begin: |world| always(world, "POST", TOKEN, oauth_error(400, "access_denied", "Policy evaluation failed")),
            end: clear_faults,
        },
        Refusal {
            name: "a clock that is off",
            words: &["unauthorized (401 invalid_client)", "clock"],
            begin: |world| {
                let why = "The client_assertion token is expired.";
                always(world, "POST", TOKEN, oauth_error(401, "invalid_client", why));
            },
            end: clear_faults,
        },
        Refusal {
            name: "no scope was ever granted",
            words: &["forbidden (400 no_scope_allowed)", "okta.logs.read"],
            begin: |world| always(world, "POST", TOKEN, oauth_error(400, "no_scope_allowed", "None granted")),
            end: clear_faults,
        },
    ];
    for refusal in &refusals {
        assert_waits_then_resumes(&service(DpopMode::Auto, |_| ()).await, refusal).await;
    }
}

/// An app that lacks something is refused with its name, and admitted once it has it.
#[tokio::test]
async fn missing_scope_is_named_then_used() {
    type Change = fn(&mut ServiceApp);
    let cases: [(&str, Change, &[&str]); 3] = [
        (
            "a scope",
            |app| {
                app.scopes.pop();
            },
            &["forbidden (400 invalid_scope)", "okta.users.read", "[request "],
        ),
        ("a role", |app| app.has_role = false, &["forbidden (403 E0000006)", "granted scope alone", "[request "]),
        ("this key", |app| app.keys = vec![Value::Null], &["unauthorized (401 invalid_client)", "key_id", "[request "]),
    ];
    for (name, lacks, words) in cases {
        let key = SigningKey::generate().unwrap();
        let whole = app(&key);
        let mut lacking = whole.clone();
        lacks(&mut lacking);
        let world = start_with(|setup| setup.network.okta = Some(credentials(key, DpopMode::Auto))).await;
        world.okta().register_app(lacking);
        let ann = world.leaver("ann");
        let why = paused(world.try_poll().await);
        for word in words {
            assert!(why.contains(word), "{name}: {word:?} is not in {why}");
        }
        assert_eq!(world.alarms_of_kind("remote_refuses").await.len(), 1, "{name}");
        world.okta().register_app(whole);
        // A role applies to new tokens only; the current one is valid for an hour.
        world.clock.advance(s(3600));
        world.denies(&[ann]).await;
        assert!(world.alarms_of_kind("remote_refuses").await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn role_without_users_delays_looks_not_log() {
    let world = start().await;
    let (ann, bob) = (world.leaver("ann"), world.leaver("bob"));
    let others = ["cyd", "dan"].map(|name| world.leaver(name));
    world.okta().set_role(true, false);
    assert_eq!(world.try_poll().await.unwrap().made_due, 4);
    for other in &others {
        assert!(matches!(world.look(other).await, Outcome::Retry { .. }), "their own attempts");
    }
    assert!(world.alarms_of_kind("remote_refuses").await.is_empty());
    let why = snoozed(world.look(&ann).await);
    assert!(why.contains("forbidden (403 E0000006)") && why.contains("administrator role"), "{why}");
    let users = world.okta_calls("GET", "/api/v1/users/");
    snoozed(world.look(&bob).await);
    assert_eq!(world.okta_calls("GET", "/api/v1/users/"), users, "the endpoint is paused for all users");
    world.try_poll().await.unwrap();
    assert_eq!(world.alarms_of_kind("remote_refuses").await.len(), 1, "a successful poll does not clear it");
    world.okta().set_role(true, true);
    world.clock.advance(REFUSED_FOR);
    world.denies(&[ann, bob]).await;
    assert!(world.alarms_of_kind("remote_refuses").await.is_empty());
}
