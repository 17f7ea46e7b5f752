//! The notify protocol: ready, how it is, alive, stopping.

use std::time::Duration;

use super::daemon::{Service, WATCHDOG};

#[test]
fn outage_fails_neither_start_nor_watchdog() {
    let mut service = Service::start(&[]);
    service.heard("READY=1");
    let status = service.heard("STATUS=");
    assert!(status.starts_with("STATUS=0 denied, 0 pending; cannot read the log: "), "{status}");
    // More than fit into one interval, so it was fed after its first loops had gone round.
    for _ in 0..20 {
        service.heard("WATCHDOG=1");
    }
    service.signal("TERM");
    service.heard("STOPPING=1");
    assert!(service.end().success());
    assert!(service.directory.path().join("state.db").exists());
    let log: Vec<String> = service.log.try_iter().collect();
    assert!(log.iter().any(|line| line.contains("\"stopped\"")), "{log:?}");
    // The log was not read, however often that was tried.
    assert!(log.iter().all(|line| !line.contains("\"wedged\"") && !line.contains("\"first_poll\"")), "{log:?}");
}

/// Hanging in one loop is enough, and the log says which one it is.
#[cfg(debug_assertions)]
fn starves_when_one_hangs(wedged: &str) {
    let service = Service::start(&[("OKTA_AUTH0_SYNC_TEST_WEDGE", wedged)]);
    service.heard("READY=1");
    service.heard("WATCHDOG=1");
    let line = service.logged("wedged");
    assert!(line.contains(&format!("the {wedged} makes no progress")), "{line}");
    // What was sent before that line lies in the socket; nothing comes after it, for as long as systemd would wait.
    while service.message(Duration::from_millis(1)).is_some() {}
    let mut others = 0;
    while let Some(message) = service.message(WATCHDOG) {
        // The other loops work on, and only tell how they are.
        assert!(message.starts_with("STATUS="), "{message} while the {wedged} hangs");
        others += 1;
        // Polled at most once a second, so that the time of a watchdog is over by then.
        if others > WATCHDOG.as_secs() {
            break;
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn hung_poller_starves_watchdog() {
    starves_when_one_hangs("poller");
}

#[cfg(debug_assertions)]
#[test]
fn hung_applier_starves_watchdog() {
    starves_when_one_hangs("applier");
}

#[cfg(debug_assertions)]
#[test]
fn hung_reconciler_starves_watchdog() {
    starves_when_one_hangs("reconciler");
}

#[cfg(debug_assertions)]
#[test]
fn second_signal_stops_at_once() {
    let mut service = Service::start(&[("OKTA_AUTH0_SYNC_TEST_WEDGE", "poller")]);
    service.heard("READY=1");
    service.signal("TERM");
    service.heard("STOPPING=1");
    service.logged("stopping");
    service.signal("INT");
    assert_eq!(service.end().code(), Some(1));
}

/// Exit code 78 is what the unit does not restart on.
#[test]
fn invalid_config_exits_without_notify() {
    let mut service = Service::start(&[("OKTA_AUTH0_SYNC__ENGINE__CONCURRENCY", "0")]);
    assert_eq!(service.end().code(), Some(78));
    assert_eq!(service.message(Duration::from_millis(1)), None, "was never ready");
}
