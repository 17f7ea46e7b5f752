//! The events of a long outage: deactivations among at least as many other events.
//!
//! `OKTA_AUTH0_SYNC_BACKLOG` sets how many users leave; 10,000 is the number to soak with.

use std::collections::BTreeSet;

use crate::harness::{Harness, amount};

const LEAVERS: usize = 1_000;
/// One user stays or comes back, with several events, for this many who leave.
const LEAVERS_PER_STAYER: usize = 4;

const CONCURRENCY: &str = "[engine]\nconcurrency = 16\n";

#[tokio::test(flavor = "multi_thread")]
async fn backlog_marks_exactly_right_accounts() {
    let leavers = amount("OKTA_AUTH0_SYNC_BACKLOG", LEAVERS);
    let harness = Harness::start().await;
    harness.configure(CONCURRENCY);
    let okta = harness.sandbox.okta();
    let mut expected = BTreeSet::new();
    let mut others = 0_usize;
    for number in 0..leavers {
        let leaver = harness.okta_user(&format!("leaver{number}@example.com"));
        others += 2;
        // Of ten users one has no account, one has two, and one has an address in other letter case in Auth0.
        match number % 10 {
            0 => {}
            1 => {
                expected.insert(harness.account(&format!("leaver{number}@example.com")));
                expected.insert(social(&harness, &format!("leaver{number}@example.com")));
            }
            2 => {
                expected.insert(social(&harness, &format!("Leaver{number}@Example.com")));
            }
            _ => {
                expected.insert(harness.account(&format!("leaver{number}@example.com")));
            }
        }
        okta.deactivate(&leaver);
        if number % LEAVERS_PER_STAYER == 0 {
            let (stayer, _) = harness.user(&format!("stayer{number}"));
            others += 2;
            match number % 3 {
                0 => {
                    okta.suspend(&stayer);
                    okta.unsuspend(&stayer);
                    others += 2;
                }
                // The last event counts.
                1 => {
                    okta.deactivate(&stayer);
                    okta.activate(&stayer);
                    others += 1;
                }
                _ => {}
            }
        }
    }
    assert!(others >= leavers, "among as many other events: {others}");
    assert_eq!(harness.sandbox.auth0().users().len(), expected.len() + leavers.div_ceil(LEAVERS_PER_STAYER));

    let ran = harness.sync().await;
    eprintln!("{}", ran.out);
    let shut_out = harness.shut_out();
    assert_eq!(shut_out.difference(&expected).collect::<Vec<_>>(), Vec::<&String>::new(), "denied by mistake");
    assert_eq!(expected.difference(&shut_out).collect::<Vec<_>>(), Vec::<&String>::new(), "not denied");
    let writes = harness.writes();
    assert_eq!(writes, expected.len(), "each account is written once");

    harness.sync().await;
    assert_eq!(harness.writes(), writes, "a second pass writes nothing to Auth0");
}

fn social(harness: &Harness, email: &str) -> String {
    let fields = serde_json::json!({ "email": email, "email_verified": true, "connection": "google-oauth2" });
    harness.sandbox.auth0().create_user(fields)
}
