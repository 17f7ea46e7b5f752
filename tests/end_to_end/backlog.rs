//! An outage's worth of events: ten thousand deactivations among as many others.

use std::collections::BTreeSet;

use crate::stage::Stage;

/// People who leave.
const LEAVERS: usize = 10_000;
/// People who stay, or come back; each with several entries.
const STAYERS: usize = 2_500;

const CONCURRENCY: &str = "[engine]\nconcurrency = 16\n";

#[tokio::test(flavor = "multi_thread")]
async fn backlog_marks_exactly_right_accounts() {
    let stage = Stage::set().await;
    stage.configure(CONCURRENCY);
    let okta = stage.sandbox.okta();
    let mut expected = BTreeSet::new();
    let mut others = 0_usize;
    for number in 0..LEAVERS {
        let leaver = stage.okta_user(&format!("leaver{number}@example.com"));
        others += 2;
        // Of ten, one has no account, one has two, and one is written otherwise in Auth0 than in Okta.
        match number % 10 {
            0 => {}
            1 => {
                expected.insert(stage.account(&format!("leaver{number}@example.com")));
                expected.insert(social(&stage, &format!("leaver{number}@example.com")));
            }
            2 => {
                expected.insert(social(&stage, &format!("Leaver{number}@Example.com")));
            }
            _ => {
                expected.insert(stage.account(&format!("leaver{number}@example.com")));
            }
        }
        okta.deactivate(&leaver);
        if number % 4 == 0 {
            let (stayer, _) = stage.person(&format!("stayer{number}"));
            others += 2;
            match number % 3 {
                0 => {
                    okta.suspend(&stayer);
                    okta.unsuspend(&stayer);
                    others += 2;
                }
                // The last word counts, however the first was.
                1 => {
                    okta.deactivate(&stayer);
                    okta.activate(&stayer);
                    others += 1;
                }
                _ => {}
            }
        }
    }
    assert!(others >= LEAVERS, "among as many other events: {others}");
    assert_eq!(stage.sandbox.auth0().users().len(), expected.len() + STAYERS);

    let ran = stage.sync().await;
    eprintln!("{}", ran.out);
    let shut_out = stage.shut_out();
    assert_eq!(shut_out.difference(&expected).collect::<Vec<_>>(), Vec::<&String>::new(), "denied, and should not be");
    assert_eq!(expected.difference(&shut_out).collect::<Vec<_>>(), Vec::<&String>::new(), "should be denied");
    let writes = stage.writes();
    assert_eq!(writes, expected.len(), "each account is written once");

    stage.sync().await;
    assert_eq!(stage.writes(), writes, "a second pass writes nothing to Auth0");
}

fn social(stage: &Stage, email: &str) -> String {
    let fields = serde_json::json!({ "email": email, "email_verified": true, "connection": "google-oauth2" });
    stage.sandbox.auth0().create_user(fields)
}
