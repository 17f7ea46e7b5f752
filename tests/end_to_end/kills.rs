//! Some runs that SIGKILL ends between their first and their last write, and one that finishes the work.
//!
//! `OKTA_AUTH0_SYNC_KILLS` sets how many; ten is the number to soak with.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use okta_auth0_sync_sandbox::Matcher;

use crate::harness::{Daemon, Harness, amount, patches};

const KILLS: usize = 3;
/// Users who leave for each kill, and a reserve: more than [`PENDING_MIN`] are pending at the last kill too.
const LEAVERS_PER_KILL: usize = 55;
const LEAVERS_RESERVE: usize = 150;
const STAYERS_PER_KILL: usize = 20;
const CONCURRENCY: usize = 4;
/// A kill counts only while more users than this are pending.
const PENDING_MIN: i64 = 100;

/// What the process is doing when it is killed.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Anything.
    Anywhere,
    /// Auth0 has received a write and not executed it.
    BeforeWrite,
    /// Auth0 has executed a write and not answered it.
    AfterWrite,
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_lose_no_user() {
    let kills = amount("OKTA_AUTH0_SYNC_KILLS", KILLS);
    let (leavers, stayers) = (LEAVERS_RESERVE + kills * LEAVERS_PER_KILL, kills * STAYERS_PER_KILL);
    let harness = Harness::start().await;
    harness.configure(&format!("[engine]\nconcurrency = {CONCURRENCY}\n"));
    let okta = harness.sandbox.okta();
    let mut expected = BTreeSet::new();
    for number in 0..leavers {
        let (leaver, account) = harness.user(&format!("leaver{number}"));
        okta.deactivate(&leaver);
        expected.insert(account);
    }
    for number in 0..stayers {
        let (stayer, _) = harness.user(&format!("stayer{number}"));
        if number % 2 == 0 {
            okta.deactivate(&stayer);
            okta.activate(&stayer);
        }
    }
    let auth0 = harness.sandbox.auth0();

    for life in 0..kills {
        let end = [End::Anywhere, End::BeforeWrite, End::AfterWrite][life % 3];
        let before = harness.writes();
        let child = harness.program(&["sync"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut child = Daemon::from(child);
        // Let it finish a few writes, a different number in each run.
        let some = 1 + life * 7 % 23;
        let written = auth0.journal().wait_for(|requests| {
            patches(requests).skip(before).filter(|patch| patch.status == Some(200)).count() >= some
        });
        child.until("some writes", written).await;
        let write = Matcher::new("PATCH", "/api/v2/users");
        let hold = match end {
            End::Anywhere => None,
            End::BeforeWrite => Some(auth0.faults().hold(write)),
            End::AfterWrite => Some(auth0.faults().hold_answer(write)),
        };
        if let Some(hold) = &hold {
            child.until("a write in the middle", hold.arrived()).await;
        }
        child.kill().await;
        drop(hold);

        let store = harness.store().await;
        let pending = store.status().await.unwrap().unwrap().pending;
        store.close().await;
        let left = expected.difference(&harness.shut_out()).count();
        assert!(pending > PENDING_MIN, "life {life}: only {pending} pending when it was killed");
        assert!(left > 0 && left < leavers, "life {life}: {left} left: not between its first and its last write");
        assert!(harness.shut_out().is_subset(&expected), "life {life}: denied a user who did not leave");
        eprintln!("life {life}, {end:?}: killed after {} writes, {pending} pending", harness.writes() - before);
    }

    harness.sync().await;
    assert_eq!(harness.shut_out(), expected, "exactly the users who left are denied");
    let mut each = BTreeMap::new();
    for patch in patches(&auth0.journal().requests()) {
        *each.entry(patch.path.clone()).or_insert(0_usize) += 1;
    }
    assert_eq!(each.len(), leavers, "no other account was written");
    let again = each.values().sum::<usize>() - leavers;
    assert!(again <= kills * CONCURRENCY, "{again} writes were repeated: more than were in flight at the kills");
    for (account, writes) in &each {
        assert!(*writes <= 1 + kills, "{account}: {writes} writes");
    }

    let store = harness.store().await;
    let verified = store.verify_decisions().await.unwrap();
    let status = store.status().await.unwrap().unwrap();
    store.close().await;
    eprintln!("{again} writes repeated; {verified:?}");
    assert_eq!((status.pending, status.failed, status.held, status.quarantined), (0, 0, 0, 0));
    assert_eq!(usize::try_from(status.denied).unwrap(), leavers);

    let writes = harness.writes();
    harness.sync().await;
    assert_eq!(harness.writes(), writes, "the last pass left nothing to do");
}
