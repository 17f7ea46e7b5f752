//! A full disk, simulated by SQLite's page limit: it returns the same error and rolls back the same way.

use super::*;

#[tokio::test]
async fn writes_resume_after_full_disk() {
    let (_dir, store) = store().await;
    let events: Vec<Event> = (0..2000).map(|number| event(number, &format!("u{number}"), "deactivate")).collect();
    for _ in 0..2 {
        // The limit is per connection, and there is one write connection.
        execute(&store, "PRAGMA max_page_count = 1").await.unwrap();
        let error = store.record_page(page(0, &events), noon()).await.unwrap_err();
        assert!(error.to_string().ends_with("nothing is lost and work resumes automatically"), "{error}");
        execute(&store, "PRAGMA max_page_count = 1000000").await.unwrap();
        assert!(store.checkpoint().await.unwrap().is_none(), "half a page was stored");
    }
    assert_eq!(store.record_page(page(0, &events), noon()).await.unwrap().made_due, 2000);
    look_at(&store, "u7", &Outcome::Applied, noon()).await;
    assert_eq!(store.due(noon(), 5000).await.unwrap().len(), 1999);
}
