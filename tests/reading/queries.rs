//! Runs the queries of docs/sql.md verbatim.

use std::collections::BTreeMap;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Row};

use super::filled::Folder;

const PAGE: &str = include_str!("../../docs/sql.md");

/// Opens the state like `sqlite3 -readonly`.
async fn reader(folder: &Folder) -> SqliteConnection {
    SqliteConnectOptions::new().filename(folder.state()).read_only(true).connect().await.unwrap()
}

#[tokio::test]
async fn ten_documented_queries_answer() {
    let folder = Folder::troubled().await;
    let mut state = reader(&folder).await;
    let queries: Vec<&str> = PAGE.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(queries.len(), 10);
    for query in queries {
        let rows = sqlx::query(AssertSqlSafe(query))
            .fetch_all(&mut state)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        assert!(!rows.is_empty(), "answered by nothing: {query}");
    }
}

#[tokio::test]
async fn every_view_is_documented() {
    let folder = Folder::quiet().await;
    let mut state = reader(&folder).await;
    let mut listed = BTreeMap::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| `")) {
        let mut names = line.split('`').skip(1).step_by(2).map(str::to_owned);
        listed.insert(names.next().unwrap(), names.collect::<Vec<_>>());
    }
    let mut views = BTreeMap::new();
    let rows = sqlx::query("SELECT v.name AS name, c.name AS column FROM sqlite_schema v, pragma_table_info(v.name) c WHERE v.type = 'view' ORDER BY v.name, c.cid")
        .fetch_all(&mut state)
        .await
        .unwrap();
    for row in rows {
        views.entry(row.get::<String, _>("name")).or_insert_with(Vec::new).push(row.get::<String, _>("column"));
    }
    assert_eq!(listed, views);
}
