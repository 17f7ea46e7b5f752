//! Open alarms and pending notifications.

use super::*;

fn alarm(kind: AlarmKind, subject: &str) -> Alarm {
    Alarm {
        momentary: false,
        kind,
        subject: subject.to_owned(),
        detail: "it happened".to_owned(),
        remedy: "look".to_owned(),
    }
}

fn later(seconds: u64) -> Timestamp {
    clock::add(noon(), Duration::from_secs(seconds))
}

/// Delivers the next notification. Returns its kind, and whether it is for a clear.
async fn deliver_next(store: &Store) -> Option<(String, bool)> {
    let pending = store.pending_notification().await.unwrap()?;
    store.mark_delivered(&pending, later(100)).await.unwrap();
    Some((pending.alarm.kind, pending.over))
}

#[tokio::test]
async fn notifies_once_on_raise_and_once_on_clear() {
    let (_dir, store) = store().await;
    assert_eq!(deliver_next(&store).await, None);
    store.raise_alarm(&alarm(AlarmKind::Gap, ""), noon()).await.unwrap();
    store.raise_alarm(&alarm(AlarmKind::PollLate, ""), noon()).await.unwrap();
    let told = |kind: &str, over| Some((kind.to_owned(), over));
    assert_eq!(deliver_next(&store).await, told("gap", false));
    assert_eq!(deliver_next(&store).await, told("poll_late", false));
    assert_eq!(deliver_next(&store).await, None);
    store.clear_alarm(AlarmKind::PollLate, "", later(1)).await.unwrap();
    assert_eq!(deliver_next(&store).await, told("poll_late", true));
    assert_eq!(deliver_next(&store).await, None);
    // Cleared before the first delivery: both notifications are still sent.
    store.raise_alarm(&alarm(AlarmKind::PollLate, ""), later(2)).await.unwrap();
    store.clear_alarm(AlarmKind::PollLate, "", later(3)).await.unwrap();
    assert_eq!(deliver_next(&store).await, told("poll_late", false));
    assert_eq!(deliver_next(&store).await, told("poll_late", true));
    // A momentary alarm has only one notification.
    let momentary = Alarm { momentary: true, ..alarm(AlarmKind::Reanchored, "") };
    store.raise_alarm(&momentary, later(4)).await.unwrap();
    assert_eq!(deliver_next(&store).await, told("reanchored", false));
    assert_eq!(deliver_next(&store).await, None);
}

#[tokio::test]
async fn clear_alarms_clears_only_that_kind() {
    let (_dir, store) = store().await;
    for host in ["a.example", "b.example"] {
        store.raise_alarm(&alarm(AlarmKind::ForeignNext, host), noon()).await.unwrap();
    }
    store.raise_alarm(&alarm(AlarmKind::Gap, ""), noon()).await.unwrap();
    assert_eq!(store.clear_alarms(AlarmKind::ForeignNext, later(1)).await.unwrap(), 2);
    assert_eq!(store.clear_alarms(AlarmKind::ForeignNext, later(2)).await.unwrap(), 0);
    let open: Vec<String> = store.open_alarms().await.unwrap().into_iter().map(|alarm| alarm.kind).collect();
    assert_eq!(open, ["gap"]);
}

#[tokio::test]
async fn user_alarms_include_account_alarms() {
    let (_dir, store) = store().await;
    record_events(&store, &[event(1, "u1", "deactivate"), event(2, "u2", "deactivate")]).await;
    let u1 = id("u1");
    let accounts = [account("auth0|1", true)];
    store.finish_look(LookFinish { accounts: &accounts, ..finish(&u1, 1, &Outcome::Applied) }, noon()).await.unwrap();
    for subject in ["u1", "auth0|1", "u2", "auth0|2", ""] {
        store.raise_alarm(&alarm(AlarmKind::Held, subject), noon()).await.unwrap();
    }
    let subjects: Vec<String> =
        store.open_alarms_of(&u1).await.unwrap().into_iter().map(|alarm| alarm.subject).collect();
    assert_eq!(subjects, ["u1", "auth0|1"]);
}
