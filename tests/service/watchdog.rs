//! The notify protocol: ready, status, watchdog, stopping.

use std::time::Duration;

use super::daemon::{Service, WATCHDOG};

#[test]
fn outage_fails_neither_start_nor_watchdog() {
    let mut service = Service::start(&[]);
    service.wait_for("READY=1");
    let status = service.wait_for("STATUS=");
    assert!(status.starts_with("STATUS=0 denied, 0 pending; "), "{status}");
    assert!(status.contains("; failed to poll the System Log: "), "{status}");
    // More than fit into one interval, so the watchdog was fed after the first iteration of each loop.
    for _ in 0..20 {
        service.wait_for("WATCHDOG=1");
    }
    service.signal("TERM");
    service.wait_for("STOPPING=1");
    assert!(service.end().success());
    assert!(service.directory.path().join("state.db").exists());
    let log: Vec<String> = service.log.iter().collect();
    assert!(log.iter().any(|line| line.contains("\"stopped\"")), "{log:?}");
    // No poll succeeded, despite several attempts.
    assert!(log.iter().all(|line| !line.contains("\"wedged\"") && !line.contains("\"first_poll\"")), "{log:?}");
}

/// One hung loop is enough to starve the watchdog, and the log names the loop.
#[cfg(debug_assertions)]
fn starves_when_one_hangs(wedged: &str) {
    let service = Service::start(&[("OKTA_AUTH0_SYNC_TEST_WEDGE", wedged)]);
    service.wait_for("READY=1");
    service.wait_for("WATCHDOG=1");
    let line = service.logged("wedged");
    assert!(line.contains(&format!("the {wedged} makes no progress")), "{line}");
    // Messages sent before that line are still in the socket; afterwards the watchdog gets none.
    while service.message(Duration::from_millis(1)).is_some() {}
    let mut others = 0;
    while let Some(message) = service.message(WATCHDOG) {
        // The other loops continue and send only their status.
        assert!(message.starts_with("STATUS="), "{message} while the {wedged} hangs");
        others += 1;
        // At most one poll a second, so the watchdog interval has passed by then.
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

#[test]
fn hangup_is_logged_and_ignored() {
    let mut service = Service::start(&[]);
    service.wait_for("READY=1");
    for _ in 0..2 {
        service.signal("HUP");
        let line = service.logged("hangup_ignored");
        assert!(line.contains("restart to re-read the configuration"), "{line}");
    }
    service.wait_for("WATCHDOG=1");
    service.signal("TERM");
    assert!(service.end().success());
}

#[cfg(debug_assertions)]
#[test]
fn second_signal_stops_at_once() {
    let mut service = Service::start(&[("OKTA_AUTH0_SYNC_TEST_WEDGE", "poller")]);
    service.wait_for("READY=1");
    service.signal("TERM");
    service.wait_for("STOPPING=1");
    service.logged("stopping");
    service.signal("INT");
    assert_eq!(service.end().code(), Some(1));
}

/// The unit does not restart on exit code 78.
#[test]
fn invalid_config_exits_without_notify() {
    let mut service = Service::start(&[("OKTA_AUTH0_SYNC__ENGINE__CONCURRENCY", "0")]);
    assert_eq!(service.end().code(), Some(78));
    assert_eq!(service.message(Duration::from_millis(1)), None, "an invalid configuration must not report readiness");
}
