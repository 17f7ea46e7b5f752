//! Ending sessions: recorded before the mark, done after it, and never a reason to fail.

use okta_auth0_sync_sandbox::{Effect, Fault};

use crate::world::{DAY, MINUTE, World};

const SESSIONS: &str = "DELETE";

async fn logged_in(world: &World) -> (okta_auth0_sync::domain::OktaUserId, String) {
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    assert!(world.lets_in(&account));
    assert_ne!(world.auth0().open_sessions(&account), (0, 0));
    world.sync().await;
    world.passes(DAY);
    (ann, account)
}

fn asked(world: &World) -> usize {
    world.auth0().journal().count(SESSIONS, "/api/v2/users/")
}

#[tokio::test]
async fn denial_revokes_sessions_once() {
    let world = World::with(|setup| setup.options.rules.end_sessions = true).await;
    let (ann, account) = logged_in(&world).await;
    world.leaves(&ann).await;
    assert_eq!(world.auth0().open_sessions(&account), (0, 0));
    let before = asked(&world);
    world.reconcile().await;
    world.request(&ann).await;
    assert_eq!(asked(&world), before);
}

#[tokio::test]
async fn pending_revocation_survives_restart() {
    let mut world = World::with(|setup| setup.options.rules.end_sessions = true).await;
    let (ann, account) = logged_in(&world).await;
    world.auth0().faults().add(Fault::new(SESSIONS, "/api/v2/users/", Effect::Drop).times(1));
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
    assert_ne!(world.auth0().open_sessions(&account), (0, 0));
    world.restart(|_| ()).await;
    world.let_pass(2 * MINUTE).await;
    assert_eq!(world.auth0().open_sessions(&account), (0, 0));
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn refused_revocation_alarms_once() {
    let world = World::with(|setup| {
        setup.options.rules.end_sessions = true;
        setup.sandbox.auth0.has_session_api = false;
    })
    .await;
    let users: Vec<_> = (0..20)
        .map(|number| {
            let address = format!("p{number}@example.com");
            (world.user(&address), world.account(&address))
        })
        .collect();
    world.sync().await;
    world.passes(DAY);
    for (who, _) in &users {
        world.okta().deactivate(who);
    }
    world.sync().await;
    for (who, account) in &users {
        world.assert_denied_for(account, who);
        assert_eq!(world.outcome(who).await, "applied");
    }
    assert!(world.alarms().await.contains(&"sessions_unavailable".to_owned()));
    for _ in 0..3 {
        world.passes(DAY);
        let before = asked(&world);
        let looks = world.reconcile().await;
        assert_eq!(looks.len(), 1, "one finds out for all");
        assert!(looks.iter().all(|look| look.outcome.settles()));
        assert!(asked(&world) - before <= 2);
    }
    // The scope is granted: the next reconcile ends one user's sessions, the one after it all others.
    world.auth0().set_has_session_api(true);
    world.passes(DAY);
    world.reconcile().await;
    assert!(!world.alarms().await.contains(&"sessions_unavailable".to_owned()));
    world.passes(DAY);
    assert_eq!(world.reconcile().await.len(), users.len() - 1);
    world.passes(DAY);
    assert!(world.reconcile().await.is_empty());
}

#[tokio::test]
async fn missing_endpoint_leaves_nothing_pending() {
    let world = World::with(|setup| setup.options.rules.end_sessions = true).await;
    let (ann, account) = logged_in(&world).await;
    world.auth0().faults().add(Fault::status(SESSIONS, "/api/v2/users/", 404));
    world.leaves(&ann).await;
    world.assert_denied_for(&account, &ann);
    assert_eq!(world.outcome(&ann).await, "applied");
    assert_eq!(world.alarms().await, ["sessions_unavailable"]);
    world.passes(DAY);
    assert!(world.reconcile().await.is_empty());
}

#[tokio::test]
async fn disabling_revocation_clears_alarm() {
    let mut world = World::with(|setup| setup.options.rules.end_sessions = true).await;
    let (ann, _) = logged_in(&world).await;
    world.auth0().set_has_session_api(false);
    world.leaves(&ann).await;
    assert!(world.alarms().await.contains(&"sessions_unavailable".to_owned()));
    world.restart(|_| ()).await;
    assert!(world.alarms().await.contains(&"sessions_unavailable".to_owned()), "it is asked for still");
    world.restart(|options| options.rules.end_sessions = false).await;
    assert!(!world.alarms().await.contains(&"sessions_unavailable".to_owned()));
    let before = asked(&world);
    world.reconcile().await;
    assert_eq!(asked(&world), before);
    assert!(world.reconcile().await.is_empty());
}
