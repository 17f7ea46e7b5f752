//! Purges of the sandbox's tenant.

use serde_json::{Value, json};

use super::super::stage::Stage;
use super::*;
use crate::domain::mark::MarkOptions;
use crate::engine::applier::Until;
use okta_auth0_sync_sandbox::{Effect, Fault, NewUser, PathMatch};

const BLOCKING: MarkOptions = MarkOptions { mirror: true, block: true };

/// Deactivates users, lets the engine deny their accounts, and returns the accounts.
async fn denied(stage: &Stage, names: &[&str]) -> Vec<String> {
    let (okta, auth0) = (stage.sandbox.okta(), stage.sandbox.auth0());
    let stop = CancellationToken::new();
    let mut accounts = Vec::new();
    for name in names {
        let email = format!("{name}@example.com");
        let id = okta.create_user(&NewUser::new(&email, &email));
        accounts.push(auth0.create_user(json!({
            "email": email, "email_verified": true, "app_metadata": { "plan": "gold" },
            "user_metadata": { "okta": { "locale": "de" }, "color": "red" },
        })));
        okta.deactivate(&id);
    }
    stage.engine.poll(&stop).await.unwrap();
    stage.engine.apply(Until::Idle(Duration::from_secs(1)), &stop).await.unwrap();
    for account in &accounts {
        assert_eq!(auth0.user(account).unwrap()["app_metadata"]["okta_sync"]["deactivated"], "true");
    }
    accounts
}

async fn purge(stage: &Stage, dry_run: bool) -> Purge {
    stage.engine.purge(dry_run, &CancellationToken::new(), |_| ()).await.unwrap()
}

fn is_as_before(user: &Value) -> bool {
    user["app_metadata"] == json!({ "plan": "gold" })
        && user["user_metadata"] == json!({ "okta": { "locale": "de" }, "color": "red" })
        && user["blocked"] != json!(true)
}

#[tokio::test]
async fn purge_removes_only_our_data() {
    let stage = Stage::new(BLOCKING).await;
    let auth0 = stage.sandbox.auth0();
    let accounts = denied(&stage, &["ann", "bob"]).await;
    // Marked by a lost state, so only the search finds it. Another program set its block.
    let lost = auth0.create_user(json!({
        "email": "lost@example.com", "blocked": true,
        "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": "00uLost" } },
        "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    // Marked by another flow only.
    let theirs = auth0.create_user(json!({
        "email": "theirs@example.com", "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    stage.engine.clock().sleep(Duration::from_secs(5)).await;

    let asked = || {
        let requests = auth0.journal().requests();
        let written = requests.iter().filter(|request| request.method == "PATCH").count();
        (written, requests.iter().filter(|request| request.path == "/api/v2/users").count())
    };
    let (written, searched) = asked();
    let run = |dry_run| {
        let stage = &stage;
        async move {
            let cleared = std::sync::Mutex::new(Vec::new());
            let note = |one: &ClearedAccount| cleared.lock().unwrap().push((one.account.clone(), one.after.clone()));
            let purge = stage.engine.purge(dry_run, &CancellationToken::new(), note).await.unwrap();
            let mut cleared = cleared.into_inner().unwrap();
            cleared.sort();
            (purge, cleared)
        }
    };
    let (plan, planned) = run(true).await;
    assert_eq!((plan.freed, plan.clean, plan.incomplete), (3, 0, None));
    // One search for the account that the state does not know, and one that finds no more.
    assert_eq!(asked(), (written, searched + 2));

    let (done, freed) = run(false).await;
    assert_eq!((done.freed, &done.left, &done.incomplete), (3, &vec![], &None));
    assert_eq!(planned, freed, "the dry run predicted the purge");
    for account in &accounts {
        let user = auth0.user(account).unwrap();
        assert!(is_as_before(&user), "{user}");
    }
    let user = auth0.user(&lost).unwrap();
    assert_eq!((&user["blocked"], user["app_metadata"].get("okta_sync")), (&json!(true), None), "{user}");
    assert!(user["user_metadata"].get("okta").is_none_or(Value::is_null), "{user}");
    assert_eq!(auth0.user(&theirs).unwrap()["user_metadata"]["okta"]["deactivated"], "true");

    let store = stage.engine.store();
    assert_eq!(store.status().await.unwrap().unwrap().denied, 0);
    let decisions = store.decisions(None, None, 0, 100).await.unwrap();
    let purged: Vec<_> = decisions.iter().filter(|row| row.outcome == "purged").collect();
    assert_eq!(purged.len(), 3);
    assert!(purged.iter().all(|row| row.cause == "command" && row.after.as_deref() != Some("denied")), "{purged:?}");
    let lost = purged.iter().find(|row| row.okta_user_id.as_deref() == Some("00uLost")).unwrap();
    assert_eq!(lost.email.as_deref(), Some("lost@example.com"));
    for (account, states) in [(&accounts[0], ("denied, blocked", "open")), (&accounts[1], ("denied, blocked", "open"))]
    {
        let row = purged.iter().find(|row| row.auth0_user_id.as_deref() == Some(account)).unwrap();
        assert_eq!((row.before.as_deref(), row.after.as_deref()), (Some(states.0), Some(states.1)), "{row:?}");
        assert_eq!(row.actor.as_deref(), Some("command"), "{row:?}");
        let answered = auth0
            .journal()
            .requests()
            .into_iter()
            .rev()
            .find(|request| request.method == "PATCH" && request.path.ends_with(&account.replace('|', "%7C")));
        let answered = answered.unwrap();
        assert!(row.request_id.is_some() && row.request_id == answered.request_id, "{row:?}");
        assert_eq!(answered.correlation_id, row.okta_user_id, "{row:?}");
    }
    store.verify_decisions().await.unwrap();

    stage.engine.clock().sleep(Duration::from_secs(5)).await;
    let again = purge(&stage, false).await;
    assert_eq!((again.freed, again.left, again.incomplete), (0, vec![], None));
}

#[tokio::test]
async fn failed_account_is_listed_and_purged_later() {
    let stage = Stage::new(BLOCKING).await;
    let auth0 = stage.sandbox.auth0();
    let accounts = denied(&stage, &["ann", "bob", "carol"]).await;
    let gone = accounts[2].clone();
    assert!(auth0.delete_user(&gone));
    let path = format!("/api/v2/users/{}", accounts[0].replace('|', "%7C"));
    let fault = auth0.faults().add(Fault::status("PATCH", &path, 400));
    let known = async || {
        let known = stage.engine.store().marked_by_us(None, 10).await.unwrap();
        known.into_iter().map(|known| known.account.as_str().to_owned()).collect::<Vec<_>>()
    };
    let plan = purge(&stage, true).await;
    assert_eq!((plan.freed, plan.clean), (2, 1), "{plan:?}");
    assert_eq!(known().await.len(), 3, "a dry run removes nothing from the state");
    let first = purge(&stage, false).await;
    assert_eq!((first.freed, first.clean), (1, 1), "{first:?}");
    assert_eq!(known().await, [accounts[0].clone()], "the state keeps only the failed account");
    assert_eq!(first.left.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), [accounts[0].as_str()]);
    assert!(first.left[0].1.contains("400"), "{first:?}");
    auth0.faults().remove(fault);
    let second = purge(&stage, false).await;
    assert_eq!((second.freed, second.left), (1, vec![]));
    assert!(is_as_before(&auth0.user(&accounts[0]).unwrap()));
}

#[tokio::test]
async fn purge_retries_brief_failures_only() {
    let stage = Stage::new(BLOCKING).await;
    let faults = stage.sandbox.auth0().faults();
    let accounts = denied(&stage, &["ann"]).await;
    faults.add(Fault::status("GET", "/api/v2/users", 503).times(2));
    faults.add(Fault::status("PATCH", "/api/v2/users", 429).times(1));
    assert_eq!(purge(&stage, false).await.freed, 1);
    assert!(is_as_before(&stage.sandbox.auth0().user(&accounts[0]).unwrap()));

    let stage = Stage::new(BLOCKING).await;
    denied(&stage, &["ann"]).await;
    stage.sandbox.auth0().faults().add(Fault::status("PATCH", "/api/v2/users", 403));
    let done = purge(&stage, false).await;
    let [(_, why)] = done.left.as_slice() else { panic!("one account is left: {done:?}") };
    assert!(why.contains("403"), "{why}");
    let asked = stage.sandbox.auth0().journal().count("PATCH", "/api/v2/users");
    assert_eq!(asked, 2, "the mark, and then one attempt: a refusal is not repeated");
}

#[tokio::test]
async fn stale_search_ends_the_purge() {
    let stage = Stage::new(BLOCKING).await;
    let auth0 = stage.sandbox.auth0();
    let accounts = denied(&stage, &["ann"]).await;
    let shown = json!({ "users": [auth0.user(&accounts[0]).unwrap()], "total": 5000 }).to_string().into_bytes();
    let search = PathMatch::Exact("/api/v2/users".to_owned());
    auth0.faults().add(Fault { path: search, ..Fault::new("GET", "", Effect::ReplaceBody(shown)) });
    // The first range, and the next one, which is no smaller.
    for (dry_run, rounds) in [(true, 2), (false, STALE_ROUNDS_MAX + 2)] {
        auth0.journal().clear();
        let done = purge(&stage, dry_run).await;
        let why = done.incomplete.unwrap();
        assert!(done.freed == 1 && why.contains("10 of 5000"), "{why}");
        let searches = auth0.journal().requests().iter().filter(|request| request.path == "/api/v2/users").count();
        assert_eq!(searches, (rounds * SEARCH_PAGES_MAX) as usize, "dry run: {dry_run}");
    }
}

#[tokio::test]
async fn purge_repeats_searches_beyond_the_limit() {
    let stage = Stage::new(BLOCKING).await;
    let auth0 = stage.sandbox.auth0();
    auth0.set_bucket(okta_auth0_sync_sandbox::Bucket::UNLIMITED);
    for number in 0..1015 {
        auth0.create_user(json!({
            "email": format!("p{number}@example.com"), "app_metadata": { "okta_sync": { "deactivated": "true" } },
        }));
    }
    stage.engine.clock().sleep(Duration::from_secs(5)).await;
    let done = purge(&stage, false).await;
    assert_eq!((done.freed, done.left.len(), done.incomplete), (1015, 0, None));
    assert!(auth0.users().iter().all(|user| user["app_metadata"].get("okta_sync").is_none()));
}

#[tokio::test]
async fn cancelled_purge_resumes_next_time() {
    let stage = Stage::new(BLOCKING).await;
    let accounts = denied(&stage, &["ann", "bob"]).await;
    let stop = CancellationToken::new();
    let first = stage.engine.purge(false, &stop, |_| stop.cancel()).await.unwrap();
    assert_eq!(
        (first.freed, first.incomplete.as_deref()),
        (1, Some("cancelled; run `purge` again for the rest")),
        "{first:?}"
    );
    let marked =
        |account: &&String| stage.sandbox.auth0().user(account).unwrap()["app_metadata"].get("okta_sync").is_some();
    assert_eq!(accounts.iter().filter(marked).count(), 1);
    assert_eq!(purge(&stage, false).await.freed, 1);
    assert_eq!(accounts.iter().filter(marked).count(), 0);
}
