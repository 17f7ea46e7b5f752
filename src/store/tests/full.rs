//! A disk without room. SQLite's own limit of pages stands for it: it is the same error, and ends transactions the same way.

use super::*;

#[tokio::test]
async fn when_there_is_room_again_everything_can_be_written_again() {
    let (_dir, store) = store().await;
    let events: Vec<Event> = (0..2000).map(|number| event(number, &format!("u{number}"), "deactivate")).collect();
    for _ in 0..2 {
        // Each connection has a limit of its own, and there is one that writes.
        execute(&store, "PRAGMA max_page_count = 1").await.unwrap();
        let error = store.record_page(page(0, &events), noon()).await.unwrap_err();
        assert!(error.to_string().ends_with("nothing is lost and work goes on by itself"), "{error}");
        execute(&store, "PRAGMA max_page_count = 1000000").await.unwrap();
        assert!(store.checkpoint().await.unwrap().is_none(), "half a page was kept");
    }
    assert_eq!(store.record_page(page(0, &events), noon()).await.unwrap().made_due, 2000);
    look_at(&store, "u7", &Outcome::Applied, noon()).await;
    assert_eq!(store.due(noon(), 5000).await.unwrap().len(), 1999);
}
