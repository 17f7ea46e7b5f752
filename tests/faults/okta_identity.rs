//! Who we are in Okta: every kind of credential, DPoP, and every way in which it is refused.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
};
use okta_auth0_sync::domain::Outcome;
use okta_auth0_sync::http::jws::SigningKey;
use okta_auth0_sync::okta::{Credentials, DpopMode};
use okta_auth0_sync_sandbox::{Effect, ServiceApp};
use serde_json::{Value, json};

use super::keys;
use super::stage::{LOGS, REFUSED_FOR, Stage, answer, paused, s, snoozed};

const CLIENT: &str = "0oaWeather";
const TOKEN: &str = "/oauth2/v1/token";

fn credentials(key: SigningKey, dpop: DpopMode) -> Credentials {
    Credentials::PrivateKeyJwt { client_id: CLIENT.to_owned(), key, key_id: None, dpop }
}

fn app(key: &SigningKey) -> ServiceApp {
    ServiceApp::new(CLIENT, serde_json::to_value(key.public_jwk()).unwrap())
}

/// A service app with a key of its own, changed so.
async fn service(dpop: DpopMode, change: impl FnOnce(&mut ServiceApp)) -> Stage {
    let key = SigningKey::generate().unwrap();
    let mut app = app(&key);
    change(&mut app);
    let stage = Stage::set(|setup| setup.okta = Some(credentials(key, dpop))).await;
    stage.sandbox.okta().register_app(app);
    stage
}

fn statuses(stage: &Stage, path: &str) -> Vec<u16> {
    let requests = stage.sandbox.okta().journal().requests();
    requests.iter().filter(|request| request.path == path).filter_map(|request| request.status).collect()
}

#[tokio::test]
async fn api_token_suffices() {
    let stage = Stage::new().await;
    let ann = stage.leaver("ann");
    stage.denies(&[ann]).await;
    assert_eq!(stage.okta_calls("POST", TOKEN), 0);
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
        let stage = Stage::set(|setup| setup.okta = Some(credentials(key, DpopMode::Auto))).await;
        stage.sandbox.okta().register_app(app);
        let ann = stage.leaver("ann");
        stage.denies(&[ann]).await;
        assert_eq!(statuses(&stage, TOKEN), [200], "{algorithm}: one token for the log and the user");
    }
}

#[tokio::test]
async fn dpop_proof_is_sent_when_required() {
    // Without a proof, without a nonce, with both: three assertions, since each is used up even by a refusal.
    for (mode, required, expected) in [
        (DpopMode::Auto, false, &[200][..]),
        (DpopMode::Auto, true, &[400, 400, 200]),
        (DpopMode::Always, true, &[400, 200]),
        (DpopMode::Always, false, &[400, 200]),
        (DpopMode::Never, false, &[200]),
    ] {
        let stage = service(mode, |app| app.require_dpop = required).await;
        let ann = stage.leaver("ann");
        stage.denies(&[ann]).await;
        assert_eq!(statuses(&stage, TOKEN), expected, "{mode:?}, required: {required}");
        assert_eq!(statuses(&stage, LOGS), [200]);
    }
}

#[tokio::test]
async fn required_dpop_turned_off_names_setting() {
    let key = SigningKey::generate().unwrap();
    let mut wanting = app(&key);
    wanting.require_dpop = true;
    let relaxed = ServiceApp { require_dpop: false, ..wanting.clone() };
    let stage = Stage::set(|setup| setup.okta = Some(credentials(key, DpopMode::Never))).await;
    stage.sandbox.okta().register_app(wanting);
    let ann = stage.leaver("ann");
    let why = paused(stage.poll().await);
    assert!(why.contains("unauthorized (400 invalid_dpop_proof)") && why.contains("okta.oauth.dpop"), "{why}");
    stage.sandbox.okta().register_app(relaxed);
    stage.clock.advance(REFUSED_FOR);
    stage.denies(&[ann]).await;
}

#[tokio::test]
async fn expired_dpop_nonce_is_renewed() {
    let stage = service(DpopMode::Auto, |app| app.require_dpop = true).await;
    stage.poll().await.unwrap();
    // A day: Okta hands out another, and takes the old one for two days more. Four days: it does not.
    for (hours, attempts) in [(25, 1), (96, 2)] {
        stage.sandbox.okta().journal().clear();
        stage.clock.advance(s(hours * 3600));
        stage.poll().await.unwrap();
        assert_eq!(statuses(&stage, TOKEN).len(), attempts, "after {hours} hours");
        assert_eq!(statuses(&stage, LOGS), [200]);
    }
}

#[tokio::test]
async fn api_dpop_nonce_is_retried_then_kept() {
    let key = SigningKey::generate().unwrap();
    let mut wanting = app(&key);
    wanting.require_dpop = true;
    let stage = Stage::set(|setup| {
        setup.okta = Some(credentials(key, DpopMode::Auto));
        setup.sandbox.okta.demand_dpop_nonce = true;
    })
    .await;
    stage.sandbox.okta().register_app(wanting);
    stage.poll().await.unwrap();
    assert_eq!(statuses(&stage, LOGS), [200], "the nonce of the token request is good for the API");
    // A quarter of an hour before the nonce ends, a token is had with it; a quarter after, the API wants another.
    stage.clock.advance(s(3 * 86_400 - 900));
    stage.poll().await.unwrap();
    stage.clock.advance(s(1800));
    let ann = stage.leaver("ann");
    stage.denies(&[ann]).await;
    assert_eq!(statuses(&stage, LOGS), [200, 200, 400, 200]);
    assert_eq!(statuses(&stage, TOKEN), [400, 400, 200, 200], "and no token was dropped for it");
}

#[tokio::test]
async fn expired_or_revoked_token_costs_one_call() {
    let stage = service(DpopMode::Auto, |_| ()).await;
    stage.poll().await.unwrap();
    stage.clock.advance(s(3500));
    stage.poll().await.unwrap();
    assert_eq!(statuses(&stage, TOKEN), [200, 200], "renewed before its end");
    assert_eq!(statuses(&stage, LOGS), [200, 200], "and never used after it");

    let ann = stage.leaver("ann");
    stage.sandbox.okta().journal().clear();
    stage.sandbox.okta().revoke_token();
    stage.poll().await.unwrap();
    assert_eq!(stage.look(&ann).await, Outcome::Applied);
    assert_eq!(statuses(&stage, TOKEN), [200]);
    assert_eq!(statuses(&stage, LOGS), [401, 200]);
    assert!(stage.alarms("remote_refuses").await.is_empty());
}

/// How it is refused, the words that must be said of it, and how it is mended.
struct Trouble {
    name: &'static str,
    words: &'static [&'static str],
    begin: fn(&Stage),
    end: fn(&Stage),
}

fn oauth_error(code: u16, error: &str, description: &str) -> Effect {
    answer(code, json!({ "error": error, "error_description": description }))
}

fn forever(stage: &Stage, method: &str, path: &str, effect: Effect) {
    stage.okta_fault(method, path, effect, u32::MAX);
}

fn okta_error(status: u16, code: &str, summary: &str) -> Effect {
    let body = json!({ "errorCode": code, "errorSummary": summary, "errorCauses": [] });
    let headers = vec![("x-okta-request-id".to_owned(), "reqWeather".to_owned())];
    Effect::Status { code: status, body, headers }
}

fn mended(stage: &Stage) {
    stage.sandbox.okta().faults().clear();
}

/// Everything waits, says why once, asks nobody meanwhile, and goes on by itself.
async fn waits_and_goes_on(stage: &Stage, trouble: &Trouble) {
    let name = trouble.name;
    let ann = stage.leaver("ann");
    (trouble.begin)(stage);
    let why = paused(stage.poll().await);
    for word in trouble.words {
        assert!(why.contains(word), "{name}: {word:?} is not in {why}");
    }
    let alarms = stage.alarms("remote_refuses").await;
    assert_eq!(alarms.len(), 1, "{name}");
    assert_eq!(alarms[0].subject, "okta");
    assert!(why.contains(&alarms[0].remedy), "{name}: {}", alarms[0].remedy);
    let calls = stage.calls();
    for _ in 0..20 {
        paused(stage.poll().await);
    }
    assert_eq!(stage.calls(), calls, "{name}: nobody is asked during a pause");
    for _ in 0..5 {
        stage.clock.advance(REFUSED_FOR);
        paused(stage.poll().await);
    }
    assert!(stage.calls() - calls <= 15, "{name}: one probe a minute (a probe may be a token and a call)");
    (trouble.end)(stage);
    stage.clock.advance(REFUSED_FOR);
    stage.denies(&[ann]).await;
    assert!(stage.alarms("remote_refuses").await.is_empty(), "{name}: over");
    let status = stage.engine.store().status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed), (0, 0), "{name}");
    let remotes = stage.engine.store().remotes().await.unwrap();
    assert!(!remotes.iter().any(|remote| remote.is_failing()), "{name}: {remotes:?}");
}

#[tokio::test]
async fn refused_api_token_waits_then_resumes() {
    let troubles = [
        Trouble {
            name: "revoked",
            words: &["unauthorized (401 E0000011)", "30 days without use", "[request "],
            begin: |stage| stage.sandbox.okta().revoke_token(),
            end: |stage| stage.sandbox.okta().restore_token(),
        },
        Trouble {
            name: "no role",
            words: &["forbidden (403 E0000006)", "administrator role", "[request "],
            begin: |stage| stage.sandbox.okta().set_role(false, true),
            end: |stage| stage.sandbox.okta().set_role(true, true),
        },
        Trouble {
            name: "outside its network zone",
            words: &["forbidden (403)", "network zone", "[request reqWeather]"],
            begin: |stage| {
                let body = json!({ "errorSummary": "Access from this network zone is not allowed" });
                let headers = vec![("x-okta-request-id".to_owned(), "reqWeather".to_owned())];
                forever(stage, "GET", "/api/", Effect::Status { code: 403, body, headers });
            },
            end: mended,
        },
        Trouble {
            name: "a session that is not valid",
            words: &["forbidden (403 E0000005)", "create another API token", "[request reqWeather]"],
            begin: |stage| forever(stage, "GET", "/api/", okta_error(403, "E0000005", "Invalid session")),
            end: mended,
        },
        Trouble {
            name: "a feature that the org lacks",
            words: &["unauthorized (401 E0000015)", "lacks the feature", "[request reqWeather]"],
            begin: |stage| {
                let summary = "You do not have permission to access the feature you are requesting";
                forever(stage, "GET", "/api/", okta_error(401, "E0000015", summary));
            },
            end: mended,
        },
    ];
    for trouble in &troubles {
        waits_and_goes_on(&Stage::new().await, trouble).await;
    }
}

#[tokio::test]
async fn refused_service_app_waits_then_resumes() {
    let troubles = [
        Trouble {
            name: "bound to a network zone",
            words: &["forbidden (400 access_denied)", "network zone"],
            begin: |stage| forever(stage, "POST", TOKEN, oauth_error(400, "access_denied", "Policy evaluation failed")),
            end: mended,
        },
        Trouble {
            name: "a clock that is off",
            words: &["unauthorized (401 invalid_client)", "clock"],
            begin: |stage| {
                let why = "The client_assertion token is expired.";
                forever(stage, "POST", TOKEN, oauth_error(401, "invalid_client", why));
            },
            end: mended,
        },
        Trouble {
            name: "no scope was ever granted",
            words: &["forbidden (400 no_scope_allowed)", "okta.logs.read"],
            begin: |stage| forever(stage, "POST", TOKEN, oauth_error(400, "no_scope_allowed", "None granted")),
            end: mended,
        },
    ];
    for trouble in &troubles {
        waits_and_goes_on(&service(DpopMode::Auto, |_| ()).await, trouble).await;
    }
}

/// The app as it is registered: refused for what is missing, and let in when it is there.
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
        let stage = Stage::set(|setup| setup.okta = Some(credentials(key, DpopMode::Auto))).await;
        stage.sandbox.okta().register_app(lacking);
        let ann = stage.leaver("ann");
        let why = paused(stage.poll().await);
        for word in words {
            assert!(why.contains(word), "{name}: {word:?} is not in {why}");
        }
        assert_eq!(stage.alarms("remote_refuses").await.len(), 1, "{name}");
        stage.sandbox.okta().register_app(whole);
        // A role takes effect in new tokens; the present one is good for an hour.
        stage.clock.advance(s(3600));
        stage.denies(&[ann]).await;
        assert!(stage.alarms("remote_refuses").await.is_empty(), "{name}");
    }
}

#[tokio::test]
async fn role_without_users_delays_looks_not_log() {
    let stage = Stage::new().await;
    let (ann, bob) = (stage.leaver("ann"), stage.leaver("bob"));
    stage.sandbox.okta().set_role(true, false);
    assert_eq!(stage.poll().await.unwrap().made_due, 2);
    let why = snoozed(stage.look(&ann).await);
    assert!(why.contains("forbidden (403 E0000006)") && why.contains("administrator role"), "{why}");
    let users = stage.okta_calls("GET", "/api/v1/users/");
    snoozed(stage.look(&bob).await);
    assert_eq!(stage.okta_calls("GET", "/api/v1/users/"), users, "the endpoint is paused for everybody");
    stage.poll().await.unwrap();
    assert_eq!(stage.alarms("remote_refuses").await.len(), 1, "the log's success does not end it");
    stage.sandbox.okta().set_role(true, true);
    stage.clock.advance(REFUSED_FOR);
    stage.denies(&[ann, bob]).await;
    assert!(stage.alarms("remote_refuses").await.is_empty());
}
