//! Catching up after an outage of an hour, of a week, and of more than Okta's log retention: of the process, of Okta, of
//! Auth0, and of both. No user is lost, the state names the problem during the outage, and after it the daemon catches up
//! within a probe and a poll.

use std::time::Duration;

use crate::world::{DAY, HOUR, MINUTE, World};
use okta_auth0_sync::domain::Clock;
use okta_auth0_sync_sandbox::{Effect, Fault};
use tokio_util::sync::CancellationToken;

/// A probe waits at most 30 s and a poll 15 s; twice that leaves time for the look.
const CATCH_UP_MAX: Duration = Duration::from_secs(90);
/// The poll period.
const PERIOD: Duration = Duration::from_secs(15);

/// What was unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    Process,
    Okta,
    Auth0,
    Both,
}

impl Gone {
    fn okta(self) -> bool {
        matches!(self, Self::Okta | Self::Both)
    }

    fn auth0(self) -> bool {
        matches!(self, Self::Auth0 | Self::Both)
    }
}

/// One iteration of the daemon: poll, reconcile if one is under way, process due users. The next one retries failures.
async fn turn(world: &World) {
    let stop = CancellationToken::new();
    let _ = world.engine().poll(&stop).await;
    if world.store().current_reconcile().await.unwrap().is_some() {
        let _ = world.engine().reconcile(&stop).await;
    }
    world.settle().await;
}

async fn drill(gone: Gone, span: Duration) {
    let what = format!("{gone:?} for {span:?}");
    let mut world = World::new().await;
    let (before, before_account) = (world.user("before@example.com"), world.account("before@example.com"));
    let (during, during_account) = (world.user("during@example.com"), world.account("during@example.com"));
    let (returns, returns_account) = (world.user("returns@example.com"), world.account("returns@example.com"));
    let stays = world.account("stays@example.com");
    world.user("stays@example.com");
    world.leaves(&before).await;
    world.leaves(&returns).await;
    world.assert_denied_for(&before_account, &before);
    world.assert_denied_for(&returns_account, &returns);

    let cut = Fault::everywhere(Effect::Drop);
    let okta_cut = gone.okta().then(|| world.okta().faults().add(cut.clone()));
    let auth0_cut = gone.auth0().then(|| world.auth0().faults().add(cut));
    world.passes(MINUTE);
    world.okta().deactivate(&during);
    world.okta().activate(&returns);

    if gone == Gone::Process {
        world.passes(span);
        world.restart(|_| ()).await;
    } else {
        // Long outages in long steps: the daemon does the same on every day of an outage.
        let step = if span > DAY { span / 50 } else { MINUTE };
        let end = world.clock.monotonic() + span;
        while world.clock.monotonic() < end {
            turn(&world).await;
            world.passes(step);
        }
        let status = world.store().status().await.unwrap().unwrap();
        assert!(status.needs_attention, "{what}");
        assert_eq!(status.last_okta_error.is_some(), gone.okta(), "{what}: {status:?}");
        assert_eq!(status.last_auth0_error.is_some(), gone == Gone::Auth0, "{what}: {status:?}");
        assert!(status.pending > 0, "{what}: no user is pending: {status:?}");
        let remote = if gone.okta() { "remote_down of okta" } else { "remote_down of auth0" };
        assert!(world.alarms().await.iter().any(|alarm| alarm == remote), "{what}: {:?}", world.alarms().await);
        assert!(world.lets_in(&during_account), "{what}: Auth0 was unreachable");
    }

    if let Some(cut) = okta_cut {
        world.okta().faults().remove(cut);
    }
    if let Some(cut) = auth0_cut {
        world.auth0().faults().remove(cut);
    }
    let back = world.clock.monotonic();
    while world.lets_in(&during_account) || !world.lets_in(&returns_account) {
        turn(&world).await;
        let late = world.clock.monotonic() - back;
        assert!(late <= CATCH_UP_MAX, "{what}: not caught up {late:?} after the outage");
        world.passes(PERIOD);
    }
    // The alarms of an outage end with it, and a second look writes nothing.
    world.let_pass(HOUR).await;
    turn(&world).await;
    let writes = world.writes();
    turn(&world).await;
    assert_eq!(world.writes(), writes, "{what}");
    world.assert_denied_for(&before_account, &before);
    world.assert_denied_for(&during_account, &during);
    world.assert_open(&returns_account);
    world.assert_open(&stays);
    let status = world.store().status().await.unwrap().unwrap();
    assert_eq!((status.pending, status.failed, status.held), (0, 0, 0), "{what}: {status:?}");
    assert_eq!(world.alarms().await, Vec::<String>::new(), "{what}");
    assert!(!status.needs_attention, "{what}");
}

#[tokio::test]
async fn catches_up_after_an_hour() {
    for gone in [Gone::Process, Gone::Okta, Gone::Auth0, Gone::Both] {
        drill(gone, HOUR).await;
    }
}

#[tokio::test]
async fn catches_up_after_a_week() {
    for gone in [Gone::Process, Gone::Okta, Gone::Auth0, Gone::Both] {
        drill(gone, 7 * DAY).await;
    }
}

#[tokio::test]
async fn catches_up_beyond_log_retention() {
    for gone in [Gone::Process, Gone::Okta, Gone::Auth0, Gone::Both] {
        drill(gone, 100 * DAY).await;
    }
}
