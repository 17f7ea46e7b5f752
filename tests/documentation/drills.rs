//! Runs the drills on the pages, and checks that alarms clear after a restart.

use std::path::Path;
use std::process::Command;

use okta_auth0_sync::domain::{Clock, SystemClock};
use okta_auth0_sync::store::{Access, Alarm, AlarmKind, Store};

use crate::harness::Harness;

const ALARMS: &str = include_str!("../../docs/drill-alarms.sh");

/// Alarms that need minutes to days, and the test that provokes each on a clock that it sets.
const SIMULATED: [(AlarmKind, &str); 11] = [
    (AlarmKind::Gap, "eighty_days_without_poll_is_a_gap"),
    (AlarmKind::RoleTooNarrow, "hidden_addresses_raise_alarm_and_are_unmatched"),
    (AlarmKind::PendingLate, "limit_on_everything_names_waiting_denials"),
    (AlarmKind::ReconcileLate, "reconcile_is_late_after_two_periods"),
    (AlarmKind::ActionUnknown, "action_not_checked_for_three_hours_is_unknown"),
    (AlarmKind::NotificationsLate, "refused_message_is_skipped_and_shown"),
    (AlarmKind::Clock, "wrong_clock_is_missed_until_it_is_set"),
    (AlarmKind::State, "wal_that_only_grows_is_named"),
    (AlarmKind::KeyChange, "marks_wait_for_the_action_of_the_new_key"),
    (AlarmKind::Stuck, "stuck_loop_is_named"),
    (AlarmKind::EventsLate, "silent_stream_raises_alarm_after_five_minutes"),
];

#[test]
fn alarm_drill_covers_every_kind() {
    let tests = [
        include_str!("../../src/engine/health_watch/tests.rs"),
        include_str!("../../src/engine/notifier/tests.rs"),
        include_str!("../../src/engine/poller/tests.rs"),
        include_str!("../decisions/directory.rs"),
        include_str!("../decisions/orgs.rs"),
        include_str!("../decisions/account_events.rs"),
    ]
    .concat();
    for (kind, test) in SIMULATED {
        assert!(tests.contains(&format!("fn {test}(")), "{}: no test {test}", kind.as_str());
    }
    let is_played = |kind: &AlarmKind| SIMULATED.iter().all(|(simulated, _)| simulated != kind);
    for kind in AlarmKind::ALL.into_iter().filter(is_played) {
        let name = kind.as_str();
        let plays = |verb: &str| ALARMS.lines().any(|line| line.trim_start().starts_with(&format!("{verb} {name}")));
        assert!(plays("is_momentary") || (plays("is_raised") && plays("is_cleared")), "{name} is not played");
    }
}

/// Runs a drill if `curl` is installed.
fn plays(arguments: &[&str]) {
    if !Path::new("/usr/bin/curl").exists() {
        eprintln!("{arguments:?} skipped: curl is not installed");
        return;
    }
    let drill = Command::new("bash")
        .args(arguments)
        .arg(env!("CARGO_BIN_EXE_okta-auth0-sync"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(drill.status.success(), "{}\n{}", said(&drill.stdout), said(&drill.stderr));
}

#[test]
fn quick_alarms_raise_and_clear() {
    plays(&["docs/drill-alarms.sh", "--quick"]);
}

#[test]
fn each_status_check_rule_reports() {
    plays(&["docs/drill-status.sh"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn alarm_clears_after_restart() {
    let harness = Harness::start().await;
    harness.sync().await.exits(0);
    let now = SystemClock::new().now();
    let store = Store::open_beside(&harness.state(), Access::Beside).await.unwrap();
    for kind in [AlarmKind::PollLate, AlarmKind::SessionsUnavailable] {
        let (detail, remedy) = ("it was so".to_owned(), "start it again".to_owned());
        let alarm = Alarm { momentary: false, kind, subject: String::new(), detail, remedy };
        assert!(store.raise_alarm(&alarm, now).await.unwrap());
    }
    let mut daemon = harness.daemon();
    let over = async {
        while !store.open_alarms().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    daemon.until("the end of both alarms", over).await;
    daemon.stop().await;
    store.close().await;
}
