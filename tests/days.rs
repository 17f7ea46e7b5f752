//! A series of normal days: files, tasks, memory and state of the process do not grow. In a separate process, because it
//! counts the resources of the process.
//!
//! `OKTA_AUTH0_SYNC_DAYS=31 cargo test --release --test days -- --nocapture` simulates a month with a poll each minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "these are tests")]

use std::path::Path;
use std::time::Duration;

use okta_auth0_sync::domain::{OktaUserId, clock};
use okta_auth0_sync::store::{Access, Store};
use serde_json::json;
use world::{DAY, MINUTE, World};

#[allow(dead_code, reason = "it serves other tests too")]
#[path = "support/world.rs"]
mod world;

/// Users in the tenant, active or deactivated.
const USERS: usize = 300;
/// Users who leave each day; as many return.
const LEAVERS: u32 = 36;
/// SQLite restarts its write-ahead log after 1,000 pages of 4 KiB; an open transaction may delay that.
const WAL_MAX: u64 = 16 << 20;
/// Allowance for half-full pages; days before the retention sets in add more.
const STATE_MORE_MAX: u64 = 32 << 10;
/// Includes the data of the stand-ins, whose logs are never shortened.
const MEMORY_MAX_KIB: u64 = 48 << 10;

/// The resources of the process.
#[derive(Clone, Copy, Debug)]
struct Held {
    files: usize,
    tasks: usize,
    memory_kib: u64,
    wal: u64,
    state: u64,
}

impl Held {
    fn now(state: &Path) -> Self {
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        Self {
            files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            memory_kib: memory.map_or(0, |text| text.trim_end_matches("kB").trim().parse().unwrap()),
            wal: size(&state.with_extension("db-wal")),
            state: size(state),
        }
    }
}

struct User {
    id: OktaUserId,
    account: String,
    left: bool,
}

#[tokio::test]
async fn resources_stay_flat_over_days() {
    let (days, polls) = match std::env::var("OKTA_AUTH0_SYNC_DAYS") {
        Ok(days) => (days.parse::<usize>().unwrap(), 1440),
        Err(_) => (9, 72),
    };
    // A third of the days: the state stops growing in the second third.
    let retention = DAY * u32::try_from(days / 3).unwrap();
    let world = World::with(|setup| setup.options.rules.end_sessions = true).await;
    let mut users: Vec<User> = (0..USERS)
        .map(|number| {
            let address = format!("p{number}@example.com");
            User { id: world.user(&address), account: world.account(&address), left: false }
        })
        .collect();
    world.sync().await;
    let path = world.store().path().to_owned();
    let interval = DAY / polls;
    let mut turn = 0;
    let mut samples: Vec<Held> = Vec::new();
    for day in 0..days {
        for poll in 0..polls {
            if poll % (polls / (2 * LEAVERS)) == 0 {
                // The users leave in turn, and each returns ten users later.
                let (leaves, leaver) = (turn % 2 == 0, turn / 2);
                let user = &mut users[if leaves { leaver } else { leaver + USERS - 10 } % USERS];
                turn += 1;
                if user.left != leaves {
                    match leaves {
                        true => world.okta().deactivate(&user.id),
                        false => world.okta().activate(&user.id),
                    }
                    user.left = leaves;
                }
            }
            world.sync().await;
            world.passes(interval - Duration::from_secs(2));
        }
        // At night an import removes unknown metadata, a reconcile runs, and old rows expire.
        if let Some(user) = users.iter().find(|user| user.left) {
            world.auth0().set_user(&user.account, |user| user["app_metadata"] = json!({}));
        }
        world.let_pass(MINUTE).await;
        world.reconcile().await;
        while world.store().expire(clock::sub(world.now(), retention), 5000, world.now()).await.unwrap() > 0 {}
        world.clear_journals();

        let beside = Store::open_beside(&path, Access::Read).await.unwrap();
        let status = beside.status().await.unwrap().unwrap();
        let left = users.iter().filter(|user| user.left).count();
        assert_eq!(status.denied, i64::try_from(left).unwrap(), "day {day}");
        beside.close().await;
        samples.push(Held::now(&path));
        println!("day {day}: {left} denied, {:?}", samples[day]);
    }
    for user in &users {
        assert_eq!(world.lets_in(&user.account), !user.left, "{}", user.id);
    }
    world.store().verify_decisions().await.unwrap();

    let (early, late) = (&samples[..days / 3], &samples[days / 3..]);
    let most = |of: fn(&Held) -> u64, held: &[Held]| held.iter().map(of).max().unwrap();
    let files = |held: &Held| held.files as u64;
    let tasks = |held: &Held| held.tasks as u64;
    assert!(most(files, late) <= most(files, early) + 4, "files: {samples:#?}");
    assert!(most(tasks, late) <= most(tasks, early) + 8, "tasks: {samples:#?}");
    assert!(most(|held| held.wal, &samples) <= WAL_MAX, "write-ahead log: {samples:#?}");
    assert!(
        most(|held| held.memory_kib, late) <= most(|held| held.memory_kib, early) + MEMORY_MAX_KIB,
        "memory: {samples:#?}"
    );
    let (second, third) = (&samples[days / 3..2 * days / 3], &samples[2 * days / 3..]);
    assert!(
        most(|held| held.state, third) <= most(|held| held.state, second) + STATE_MORE_MAX,
        "the state: {samples:#?}"
    );
}
