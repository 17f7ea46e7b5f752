//! Failures: whose they are, how long they last, and whom they stop.

use okta_auth0_sync_sandbox::{Effect, Fault};

use crate::world::{DAY, HOUR, MINUTE, World};

#[tokio::test]
async fn failing_user_does_not_stop_others() {
    let world = World::new().await;
    let poison = world.user("poison@example.com");
    world.account("poison@example.com");
    let others: Vec<_> = (0..5)
        .map(|number| {
            let address = format!("p{number}@example.com");
            (world.user(&address), world.account(&address))
        })
        .collect();
    world.sync().await;
    world.okta().faults().add(Fault::status("GET", &format!("/api/v1/users/{poison}"), 500));
    world.okta().deactivate(&poison);
    for (who, _) in &others {
        world.okta().deactivate(who);
    }
    world.sync().await;
    for (who, account) in &others {
        world.assert_denied_for(account, who);
    }
    assert!(world.outcome(&poison).await.starts_with("retry"));
}

#[tokio::test]
async fn failed_user_retries_daily_or_on_event() {
    let mut world = World::with(|setup| setup.options.max_attempts = 4).await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    let path = format!("/api/v1/users/{ann}");
    world.okta().faults().add(Fault::status("GET", &path, 500));
    world.okta().deactivate(&ann);
    world.poll().await;
    let tried = world.let_pass(HOUR).await.len();
    assert_eq!(tried, 4);
    assert!(world.outcome(&ann).await.starts_with("failed"));
    assert_eq!(world.alarms().await, [format!("failed of {ann}")]);
    world.restart(|_| ()).await;
    assert_eq!(world.let_pass(2 * DAY + HOUR).await.len(), 2, "once a day");
    // A new event gives it all its attempts again.
    world.okta().activate(&ann);
    world.okta().deactivate(&ann);
    world.sync().await;
    assert!(world.outcome(&ann).await.starts_with("retry"));
    world.okta().faults().clear();
    world.let_pass(HOUR).await;
    world.assert_denied_for(&account, &ann);
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn waiting_for_remote_is_not_an_attempt() {
    let world = World::with(|setup| setup.options.max_attempts = 2).await;
    let ann = world.user("ann@example.com");
    let account = world.account("ann@example.com");
    world.sync().await;
    world.auth0().faults().add(Fault::everywhere(Effect::Drop));
    world.leaves(&ann).await;
    world.let_pass(HOUR).await;
    assert!(world.outcome(&ann).await.starts_with("snooze"), "{}", world.outcome(&ann).await);
    assert_eq!(world.row(&ann).await.attempts, 0);
    assert!(world.alarms().await.contains(&"remote_down of auth0".to_owned()));
    world.auth0().faults().clear();
    world.let_pass(MINUTE).await;
    world.assert_denied_for(&account, &ann);
    assert!(world.alarms().await.is_empty());
}

#[tokio::test]
async fn failing_address_does_not_block_others() {
    let world = World::new().await;
    let ann = world.user_called("a@example.com", "b@example.com");
    let account = world.account("a@example.com");
    let other = world.account("b@example.com");
    world.sync().await;
    for (broken, open) in [("b%40", &account), ("a%40", &other)] {
        let mut fault = Fault::status("GET", "", 500);
        fault.path = okta_auth0_sync_sandbox::PathMatch::Contains(format!("users-by-email?email={broken}"));
        world.auth0().faults().add(fault);
        world.leaves(&ann).await;
        world.assert_denied_for(open, &ann);
        assert!(world.outcome(&ann).await.starts_with("retry"));
        world.auth0().faults().clear();
        world.let_pass(HOUR).await;
        world.assert_denied_for(&account, &ann);
        world.assert_denied_for(&other, &ann);
        world.returns(&ann).await;
    }
}
