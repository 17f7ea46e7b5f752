//! The view `obligations` gives plain `sqlite3` the answer that the program gives.

use okta_auth0_sync::domain::{Timestamp, clock, timestamp_text};
use okta_auth0_sync::health::Obligation;
use okta_auth0_sync::store::{Access, Store};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::filled::{Folder, now};

/// A row of the view.
type Row = (String, Option<bool>, Option<i64>, Option<f64>, Option<String>, String, String);

/// The view's own statement, with another current time.
async fn rows_at(connection: &mut SqliteConnection, now: Timestamp) -> Vec<Row> {
    let view: String = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = 'obligations'")
        .fetch_one(&mut *connection)
        .await
        .unwrap();
    let select = view.replace("CREATE VIEW obligations AS", "");
    assert!(select.contains("julianday('now')"), "{select}");
    let select = select.replace("julianday('now')", &format!("julianday('{}')", timestamp_text(now)));
    sqlx::query_as(AssertSqlSafe(select)).fetch_all(connection).await.unwrap()
}

/// Some value for this column, as SQL.
fn value(random: &mut fastrand::Rng, column: &str, now: Timestamp) -> String {
    let time = |random: &mut fastrand::Rng| {
        let seconds = random.choice([-600, -4, 0, 30, 119, 121, 299, 1000, 4000, 200_000]).unwrap();
        let at = clock::sub(now, std::time::Duration::from_secs(1_000_000));
        let at = clock::add(at, std::time::Duration::from_secs(u64::try_from(1_000_000 - seconds).unwrap()));
        format!("'{}'", timestamp_text(at))
    };
    match column {
        "running" | "webhook" | "enforce" => random.u8(0..2).to_string(),
        "refused" => random.choice(["0", "1", "3"]).unwrap().to_owned(),
        "refusal" | "action_detail" => "'because'".to_owned(),
        "stuck" => random.choice(["NULL", "NULL", "'the poller is stuck'"]).unwrap().to_owned(),
        "wal_bytes" => random.choice(["NULL", "NULL", "99000000"]).unwrap().to_owned(),
        "clock_ahead_s" => random.choice(["0.0", "59.5", "-60.5", "3600.0"]).unwrap().to_owned(),
        "action" => {
            let states =
                ["NULL", "'verified'", "'not_first'", "'other_code'", "'missing'", "'no_scope'", "'not_needed'"];
            random.choice(states).unwrap().to_owned()
        }
        "unchecked" => random.choice(["NULL", "NULL", "'not known'"]).unwrap().to_owned(),
        "last_poll_ok_at" | "last_reconcile_ok_at" | "unchecked_since" if random.u8(0..3) == 0 => "NULL".to_owned(),
        "evaluated_at" | "clock_checked_at" if random.u8(0..5) == 0 => "NULL".to_owned(),
        _ => time(random),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn view_agrees_with_the_program() {
    let seed = std::env::var("OKTA_AUTH0_SYNC_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("OKTA_AUTH0_SYNC_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = Folder::troubled().await;
    let options = SqliteConnectOptions::new().filename(folder.state());
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let store = Store::open_beside(&folder.state(), Access::Read).await.unwrap();
    let now = now();
    for _ in 0..200 {
        for (table, columns) in [
            (
                "health",
                &[
                    "running",
                    "stopped_at",
                    "evaluated_at",
                    "stuck",
                    "clock_ahead_s",
                    "clock_checked_at",
                    "wal_bytes",
                    "webhook",
                    "refused",
                    "refused_at",
                    "refusal",
                    "action",
                    "action_at",
                    "action_detail",
                ][..],
            ),
            (
                "installation",
                &["enforce", "last_poll_ok_at", "last_reconcile_ok_at", "first_run_at", "unchecked", "unchecked_since"],
            ),
            ("users", &["due_since"]),
            ("remotes", &["failing_since", "next_call_at"]),
        ] {
            let column = random.choice(columns).unwrap();
            let condition = match *column {
                "due_since" => "due_since IS NOT NULL",
                "failing_since" => "error IS NOT NULL",
                _ => "true",
            };
            let value = value(&mut random, column, now);
            let change = format!("UPDATE {table} SET {column} = {value} WHERE {condition}");
            sqlx::query(AssertSqlSafe(change)).execute(&mut connection).await.unwrap();
        }
        let late = "UPDATE obligation_deadlines SET late_since =
                        iif(abs(random()) % 3 = 0, (SELECT last_poll_ok_at FROM installation), NULL) WHERE name = 'poll'";
        sqlx::query(late).execute(&mut connection).await.unwrap();
        let program = Obligation::judge_all(store.obligation_facts().await.unwrap(), now);
        let view = rows_at(&mut connection, now).await;
        assert_eq!(view.len(), 10);
        for (one, (name, met, deadline_s, age_s, since, detail, remedy)) in program.into_iter().zip(view) {
            let age = one.age_s.zip(age_s);
            assert!(age.is_none_or(|(ours, views)| (ours - views).abs() < 0.01), "{name}: {age:?}");
            assert_eq!(one.age_s.is_some(), age_s.is_some(), "{name}");
            assert_eq!(
                (one.name, one.met, one.deadline_s, one.since, one.detail, one.remedy),
                (name, met, deadline_s, since, detail, remedy)
            );
        }
    }
}
