//! Alarms: what is open, and of what somebody has still to be told.

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

/// What is told next, and that it was; `true`: that it is over.
async fn tell(store: &Store) -> Option<(String, bool)> {
    let untold = store.pending_notification().await.unwrap()?;
    store.mark_delivered(&untold, later(100)).await.unwrap();
    Some((untold.alarm.kind, untold.over))
}

#[tokio::test]
async fn each_alarm_is_told_once_when_it_is_raised_and_once_when_it_is_over() {
    let (_dir, store) = store().await;
    assert_eq!(tell(&store).await, None);
    store.raise_alarm(&alarm(AlarmKind::Gap, ""), noon()).await.unwrap();
    store.raise_alarm(&alarm(AlarmKind::PollLate, ""), noon()).await.unwrap();
    let told = |kind: &str, over| Some((kind.to_owned(), over));
    assert_eq!(tell(&store).await, told("gap", false));
    assert_eq!(tell(&store).await, told("poll_late", false));
    assert_eq!(tell(&store).await, None);
    store.clear_alarm(AlarmKind::PollLate, "", later(1)).await.unwrap();
    assert_eq!(tell(&store).await, told("poll_late", true));
    assert_eq!(tell(&store).await, None);
    // Over before anybody was told: still both, or it would look as if it had never been.
    store.raise_alarm(&alarm(AlarmKind::PollLate, ""), later(2)).await.unwrap();
    store.clear_alarm(AlarmKind::PollLate, "", later(3)).await.unwrap();
    assert_eq!(tell(&store).await, told("poll_late", false));
    assert_eq!(tell(&store).await, told("poll_late", true));
    // Over at once: only that it happened.
    let momentary = Alarm { momentary: true, ..alarm(AlarmKind::Reanchored, "") };
    store.raise_alarm(&momentary, later(4)).await.unwrap();
    assert_eq!(tell(&store).await, told("reanchored", false));
    assert_eq!(tell(&store).await, None);
}

#[tokio::test]
async fn every_alarm_of_a_kind_can_be_ended_and_no_other() {
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
async fn the_alarms_of_a_person_are_theirs_and_those_of_their_accounts() {
    let (_dir, store) = store().await;
    take_in(&store, &[event(1, "u1", "deactivate"), event(2, "u2", "deactivate")]).await;
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
