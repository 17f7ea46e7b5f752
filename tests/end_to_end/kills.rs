//! Ten lives that end by SIGKILL between their first and their last write, and one that finishes the work.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use okta_auth0_sync_sandbox::Matcher;

use crate::stage::{Daemon, Stage, patches};

const LIVES: usize = 10;
/// So many that after ten lives there are still over a hundred to be killed in front of.
const LEAVERS: usize = 700;
const STAYERS: usize = 200;
const CONCURRENCY: usize = 4;
/// Kills happen with over so many people pending.
const PENDING_MIN: i64 = 100;

/// What a life is doing when it ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Whatever it happens to do.
    Anywhere,
    /// A write is sent and not executed.
    BeforeWrite,
    /// A write is executed, and nobody has been told.
    AfterWrite,
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_lose_no_user() {
    let stage = Stage::set().await;
    stage.configure(&format!("[engine]\nconcurrency = {CONCURRENCY}\n"));
    let okta = stage.sandbox.okta();
    let mut expected = BTreeSet::new();
    for number in 0..LEAVERS {
        let (leaver, account) = stage.person(&format!("leaver{number}"));
        okta.deactivate(&leaver);
        expected.insert(account);
    }
    for number in 0..STAYERS {
        let (stayer, _) = stage.person(&format!("stayer{number}"));
        if number % 2 == 0 {
            okta.deactivate(&stayer);
            okta.activate(&stayer);
        }
    }
    let auth0 = stage.sandbox.auth0();

    for life in 0..LIVES {
        let end = [End::Anywhere, End::BeforeWrite, End::AfterWrite][life % 3];
        let before = stage.writes();
        let child = stage.program(&["sync"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut child = Daemon::from(child);
        // The first write has been answered, and a few more: another number in each life.
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

        let store = stage.store().await;
        let pending = store.status().await.unwrap().unwrap().pending;
        store.close().await;
        let left = expected.difference(&stage.shut_out()).count();
        assert!(pending > PENDING_MIN, "life {life}: only {pending} pending when it was killed");
        assert!(left > 0 && left < LEAVERS, "life {life}: {left} left: not between its first and its last write");
        assert!(stage.shut_out().is_subset(&expected), "life {life}: somebody is denied who must not be");
        eprintln!("life {life}, {end:?}: killed after {} writes, {pending} pending", stage.writes() - before);
    }

    stage.sync().await;
    assert_eq!(stage.shut_out(), expected, "denied are exactly those who left");
    let mut each = BTreeMap::new();
    for patch in patches(&auth0.journal().requests()) {
        *each.entry(patch.path.clone()).or_insert(0_usize) += 1;
    }
    assert_eq!(each.len(), LEAVERS, "nobody else was written");
    let again = each.values().sum::<usize>() - LEAVERS;
    assert!(
        again <= LIVES * CONCURRENCY,
        "{again} writes were repeated: more than can have been under way at the kills"
    );
    for (account, writes) in &each {
        assert!(*writes <= 1 + LIVES, "{account}: {writes} writes");
    }

    let store = stage.store().await;
    let verified = store.verify_decisions().await.unwrap();
    let status = store.status().await.unwrap().unwrap();
    store.close().await;
    eprintln!("{again} writes repeated; {verified:?}");
    assert_eq!((status.pending, status.failed, status.held, status.quarantined), (0, 0, 0, 0));
    assert_eq!(usize::try_from(status.denied).unwrap(), LEAVERS);

    let writes = stage.writes();
    stage.sync().await;
    assert_eq!(stage.writes(), writes, "nothing was left to do");
}
