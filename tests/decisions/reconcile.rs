//! Reconcile: drift is found and repaired, foreign flags are left and reported; and its cost.

use okta_auth0_sync::domain::OktaUserId;
use okta_auth0_sync::engine::reconciler::Scope;
use okta_auth0_sync_sandbox::{Fault, PathMatch};
use serde_json::json;

use crate::world::{DAY, HOUR, World};

#[tokio::test]
async fn reconcile_repairs_ours_and_reports_foreign() {
    let world = World::with(|setup| setup.options.rules.mark.block = true).await;
    let users: Vec<(OktaUserId, String)> = ["user", "import", "tool", "scim", "fine"]
        .into_iter()
        .map(|name| {
            let address = format!("{name}@example.com");
            (world.user(&address), world.account(&address))
        })
        .collect();
    let active = world.account("active@example.com");
    world.user("active@example.com");
    world.sync().await;
    world.passes(DAY);
    let scim = users[3].1.clone();
    // Blocked by SCIM before our mark.
    world.auth0().set_user(&scim, |user| user["blocked"] = json!(true));
    for (who, _) in &users {
        world.okta().deactivate(who);
    }
    world.sync().await;
    users.iter().for_each(|(who, account)| world.assert_denied_for(account, who));

    // The user clears what they can edit, an import wipes all metadata, a tool sets the flag to false, SCIM blocks an
    // account without an Okta user, and the former flow flags another.
    let auth0 = world.auth0();
    auth0.set_user(&users[0].1, |user| user["user_metadata"] = json!({ "okta": { "deactivated": "false" } }));
    auth0.set_user(&users[1].1, |user| {
        user["app_metadata"] = json!({});
        user["user_metadata"] = json!({});
        user["blocked"] = json!(false);
    });
    auth0.set_user(&users[2].1, |user| user["app_metadata"]["okta_sync"]["deactivated"] = json!("false"));
    auth0.set_user(&active, |user| user["blocked"] = json!(true));
    let flagged = auth0.create_user(json!({
        "email": "flagged@example.com", "user_metadata": { "okta": { "deactivated": "true" } },
    }));
    world.passes(DAY);
    let repaired: Vec<OktaUserId> = world.reconcile().await.into_iter().map(|report| report.user).collect();
    let mut expected: Vec<OktaUserId> = users[..3].iter().map(|(who, _)| who.clone()).collect();
    expected.sort();
    assert_eq!(repaired, expected, "exactly those that drifted were looked at");
    users.iter().for_each(|(who, account)| world.assert_denied_for(account, who));
    let decisions = world.store().decisions(None, None, 0, 1000).await.unwrap();
    let restored: Vec<_> = decisions.iter().filter(|row| row.outcome == "restored").collect();
    assert_eq!(restored.len(), 2, "a lost mirror does not count as a lost mark");
    assert_eq!(world.alarms().await, ["foreign_flag"]);
    assert!(!world.lets_in(&flagged) && !world.lets_in(&active));

    for (who, _) in &users {
        world.okta().activate(who);
    }
    world.sync().await;
    for (_, account) in users.iter().filter(|(_, account)| *account != scim) {
        world.assert_open(account);
    }
    assert_eq!(world.auth0().user(&scim).unwrap()["blocked"], true, "SCIM's block is SCIM's");
    assert!(!world.lets_in(&flagged) && !world.lets_in(&active));
}

#[tokio::test]
async fn reconcile_resumes_after_stop() {
    let mut world = World::with(|setup| setup.options.guard.denials_max = 1000.into()).await;
    let users: Vec<_> = (0..120)
        .map(|number| {
            let address = format!("p{number}@example.com");
            world.account(&address);
            let who = world.user(&address);
            world.okta().deactivate_silently(&who);
            who
        })
        .collect();
    world.reconcile().await;
    assert_eq!(world.writes(), users.len());
    world.passes(DAY);
    for user in world.auth0().users() {
        world.auth0().set_user(user["user_id"].as_str().unwrap(), |user| user["app_metadata"] = json!({}));
    }
    world.passes(DAY);
    // The second page of the listing fails.
    world.engine().begin_reconcile(okta_auth0_sync::engine::reconciler::Scope::All, "a test").await.unwrap();
    let fault = okta_auth0_sync_sandbox::Fault::status("GET", "/api/v1/users", 403).skip(1).times(1);
    world.okta().faults().add(fault);
    let stop = tokio_util::sync::CancellationToken::new();
    world.engine().reconcile(&stop).await.unwrap_err();
    world.restart(|_| ()).await;
    world.clear_journals();
    world.engine().reconcile(&stop).await.unwrap();
    // Two of three pages by id, and the list of users who may be denied: the first page is not requested again.
    assert_eq!(world.okta().journal().count("GET", "/api/v1/users"), 3);
    world.settle().await;
    assert_eq!(world.writes(), users.len());
}

#[tokio::test]
async fn adopts_lost_marks_lifts_active_users() {
    let world = World::new().await;
    let (ann, bob) = (world.user("ann@example.com"), world.user("bob@example.com"));
    let marked = |who: &OktaUserId, email: &str| {
        world.auth0().create_user(json!({
            "email": email,
            "app_metadata": { "okta_sync": { "deactivated": "true", "okta_user_id": who.as_str() } },
            "user_metadata": { "okta": { "deactivated": "true" } },
        }))
    };
    let (anns, bobs) = (marked(&ann, "ann@example.com"), marked(&bob, "bob@example.com"));
    world.okta().deactivate_silently(&bob);
    world.reconcile().await;
    world.assert_open(&anns);
    world.assert_denied_for(&bobs, &bob);
    world.passes(DAY);
    assert!(world.reconcile().await.is_empty());
}

#[tokio::test]
async fn ownerless_marks_raise_one_alarm() {
    // The search is an hour behind.
    let world = World::with(|setup| setup.sandbox.auth0.search_lag = HOUR).await;
    let bob = world.user("bob@example.com");
    let marked = |email: &str, owner: Option<&OktaUserId>| {
        let mark = json!({ "deactivated": "true", "okta_user_id": owner.map(OktaUserId::as_str) });
        world.auth0().create_user(json!({ "email": email, "app_metadata": { "okta_sync": mark } }))
    };
    let bobs = marked("bob@example.com", Some(&bob));
    marked("one@example.com", None);
    marked("two@example.com", None);
    world.passes(2 * HOUR);
    world.auth0().set_user(&bobs, |user| user["app_metadata"]["okta_sync"]["deactivated"] = json!("false"));
    assert_eq!(world.compare(Scope::All).await, 0);
    assert!(world.store().known(&[bob]).await.unwrap().is_empty(), "nothing is his business");
    let alarms = world.store().open_alarms().await.unwrap();
    assert!(alarms.len() == 1 && alarms[0].kind == "foreign_flag" && alarms[0].detail.contains(": 2;"), "{alarms:?}");
}

/// Numbers of users, of denied users and of drifted accounts: `OKTA_AUTH0_SYNC_SCALE=100000,5000,50 cargo test --release
/// --test all at_scale -- --nocapture` prints the cost for a large tenant.
#[tokio::test]
async fn reconcile_at_scale_repairs_only_drift() {
    let scale = std::env::var("OKTA_AUTH0_SYNC_SCALE").unwrap_or_else(|_| "2000,100,5".to_owned());
    let scale: Vec<usize> = scale.split(',').map(|number| number.parse().unwrap()).collect();
    let [everybody, denied, drifted] = scale[..] else { panic!("three numbers: people, denied, drifted") };
    let world = World::with(|setup| setup.options.guard.denials_max = u64::MAX.into()).await;
    let mut leavers = Vec::new();
    for number in 0..everybody {
        let address = format!("p{number}@example.com");
        let who = world.user(&address);
        let account = world.account(&address);
        if leavers.len() < denied {
            world.okta().deactivate_silently(&who);
            leavers.push((who, account));
        }
    }
    world.reconcile().await;
    assert_eq!(world.writes(), denied);
    let wiped: Vec<_> = leavers.iter().step_by(denied / drifted).take(drifted).collect();
    for (_, account) in &wiped {
        world.auth0().set_user(account, |user| {
            user["app_metadata"] = json!({});
            user["user_metadata"] = json!({});
        });
    }
    world.passes(DAY);
    world.clear_journals();
    let repaired: Vec<OktaUserId> = world.reconcile().await.into_iter().map(|report| report.user).collect();
    let mut expected: Vec<OktaUserId> = wiped.iter().map(|(who, _)| who.clone()).collect();
    expected.sort();
    assert_eq!(repaired, expected);
    leavers.iter().for_each(|(who, account)| world.assert_denied_for(account, who));

    // Known users by id, 50 a call; then users who may be denied, 200 a call; for each drifted one a read by id, and for each
    // twenty a search for other holders of the address.
    let okta = denied.div_ceil(50) + denied.div_ceil(200) + drifted + drifted.div_ceil(20);
    // Accounts of known users, 20 users a search, so three for each 50 users; marked accounts, 100 a call and at most ten
    // calls; foreign flags; for each drifted one a read by address and a write, for each twenty a search.
    let marked = (denied - drifted).div_ceil(100).min(10);
    let last_page = (denied % 50).div_ceil(20);
    let auth0 = 3 * (denied / 50) + last_page + marked + 1 + 2 * drifted + drifted.div_ceil(20);
    println!("{everybody} users, {denied} denied, {drifted} drifted: {okta} calls to Okta, {auth0} to Auth0");
    assert_eq!(world.calls(), (okta, auth0));
}

#[tokio::test]
async fn user_missing_from_listing_is_rechecked() {
    let world = World::new().await;
    let users: Vec<(OktaUserId, String)> = ["deleted", "hidden", "there"]
        .into_iter()
        .map(|name| {
            let address = format!("{name}@example.com");
            (world.user(&address), world.account(&address))
        })
        .collect();
    world.sync().await;
    world.passes(DAY);
    for (who, _) in &users {
        world.okta().deactivate(who);
    }
    world.sync().await;
    world.passes(DAY);
    world.okta().delete(&users[0].0);
    world.sync().await;
    assert!(world.reconcile().await.is_empty(), "all of it is known");
    world.okta().hide(&users[1].0);
    let looked: Vec<OktaUserId> = world.reconcile().await.into_iter().map(|report| report.user).collect();
    assert_eq!(looked, [users[1].0.clone()]);
    users.iter().for_each(|(who, account)| world.assert_denied_for(account, who));
}

/// Leavers without an event in the log, each with an account.
fn silent_leavers(world: &World, count: usize) -> Vec<String> {
    let one = |number: usize| {
        let address = format!("p{number}@example.com");
        let who = world.user(&address);
        world.okta().deactivate_silently(&who);
        world.account(&address)
    };
    (0..count).map(one).collect()
}

fn fault(path: PathMatch, code: u16) -> Fault {
    Fault { path, ..Fault::status("GET", "", code) }
}

async fn last_good(world: &World) -> bool {
    world.store().last_reconcile_ok_at().await.unwrap().is_some()
}

#[tokio::test]
async fn failing_long_search_is_split() {
    let world = World::new().await;
    let accounts = silent_leavers(&world, 30);
    // Auth0 gives a search two seconds, and answers 503 to a longer one.
    world.auth0().faults().add(fault(PathMatch::Contains("+OR+email".to_owned()), 503));
    world.reconcile().await;
    assert!(accounts.iter().all(|account| !world.lets_in(account)));
    assert!(last_good(&world).await);
}

#[tokio::test]
async fn dead_search_ends_an_incomplete_reconcile() {
    let world = World::new().await;
    let accounts = silent_leavers(&world, 30);
    let id = world.auth0().faults().add(fault(PathMatch::Exact("/api/v2/users".to_owned()), 503));
    world.compare(Scope::All).await;
    assert_eq!(world.store().current_reconcile().await.unwrap(), None, "it ends");
    assert!(!last_good(&world).await, "and does not count");
    let asked = world.auth0().journal().count("GET", "/api/v2/users");
    assert!(asked < 40, "a remote that does not answer is not asked about each user: {asked}");
    assert!(world.auth0().faults().remove(id));
    world.reconcile().await;
    assert!(accounts.iter().all(|account| !world.lets_in(account)));
    assert!(last_good(&world).await);
}

#[tokio::test]
async fn refused_listing_cursor_restarts_the_listing() {
    let world = World::with(|setup| setup.options.guard.denials_max = 1000.into()).await;
    let accounts = silent_leavers(&world, 250);
    world.okta().faults().add(fault(PathMatch::Contains("after=".to_owned()), 400).times(1));
    world.reconcile().await;
    assert!(accounts.iter().all(|account| !world.lets_in(account)));
    assert!(last_good(&world).await);

    let world = World::with(|setup| setup.options.guard.denials_max = 1000.into()).await;
    silent_leavers(&world, 250);
    world.okta().faults().add(fault(PathMatch::Contains("after=".to_owned()), 400));
    world.reconcile().await;
    assert_eq!(world.store().current_reconcile().await.unwrap(), None, "the other stages still run");
    assert!(!last_good(&world).await);
}
