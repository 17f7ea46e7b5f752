use super::*;

const NOON: &str = "2026-11-23T12:00:00.000Z";

fn at(text: &str) -> Timestamp {
    clock::parse_timestamp(text).unwrap()
}

fn fact(since: &str, late: &str) -> ObligationFact {
    ObligationFact {
        name: "poll".to_owned(),
        deadline_s: Some(120),
        late_since: None,
        since: Some(since.to_owned()),
        judged: "timed".to_owned(),
        late: late.to_owned(),
        detail: "d".to_owned(),
        remedy: "r".to_owned(),
    }
}

fn met(fact: ObligationFact, now: &str) -> Option<bool> {
    Obligation::judge_all(vec![fact], at(now))[0].met
}

#[test]
fn future_is_never_fresh() {
    for (now, expected) in [
        ("2026-11-23T12:02:00Z", Some(true)),
        ("2026-11-23T12:02:00.001Z", Some(false)),
        ("2026-11-23T11:59:58Z", Some(true)),
        ("2026-11-23T11:00:00Z", Some(false)),
    ] {
        assert_eq!(met(fact(NOON, "failed"), now), expected, "{now}");
    }
    assert_eq!(met(fact(NOON, "unknown"), "2026-11-23T13:00:00Z"), None);
    assert_eq!(met(fact("yesterday", "failed"), NOON), Some(false));
    let late = ObligationFact { late_since: Some(NOON.to_owned()), ..fact(NOON, "failed") };
    assert_eq!(met(late, NOON), Some(false), "the daemon found it late by its monotonic clock");
}

#[test]
fn clock_steps_do_not_change_monotonic_ages() {
    let mut watches = Stopwatches::default();
    let mut judge = |since: &str, now: &str, elapsed: u64| {
        let judged = watches.judge_all(vec![fact(since, "failed")], at(now), Duration::from_secs(elapsed));
        (judged[0].met, judged[0].age_s)
    };
    assert_eq!(judge(NOON, "2026-11-23T12:00:10Z", 100), (Some(true), Some(10.0)));
    assert_eq!(judge(NOON, "2026-11-23T13:00:00Z", 110), (Some(true), Some(20.0)), "set forward by an hour");
    assert_eq!(judge(NOON, "2026-11-23T11:00:00Z", 220), (Some(false), Some(130.0)), "set back, and late");
    assert_eq!(judge("2026-11-23T14:00:00Z", "2026-11-23T11:00:00Z", 230).0, Some(false), "first seen in the future");
}

#[test]
fn deadlines_follow_schedules_with_pauses() {
    let deadlines = |poll: &str| Deadlines::new(poll.parse().unwrap(), "0 0 3 * * *".parse().unwrap());
    let of = |poll: &str, since: &str| deadlines(poll).of(&fact(since, "failed"), at("2026-11-23T12:00:00Z"));
    assert_eq!(of("*/15 * * * * *", "2026-11-23T11:00:00Z"), Some(120));
    assert_eq!(of("0 * * * * *", "2026-11-23T11:00:00Z"), Some(180));
    let office = "0 0 9-17 * * *";
    assert_eq!(of(office, "2026-11-22T17:00:00Z"), Some(18 * 3600), "until 11:00 of the next day");
    assert_eq!(of(office, "2026-11-22T10:00:00Z"), Some(3 * 3600));
    let reconcile = ObligationFact { name: "reconcile".to_owned(), ..fact("2026-11-23T03:20:00Z", "failed") };
    assert_eq!(deadlines(office).of(&reconcile, at("2026-11-23T12:00:00Z")), Some(2 * 86_400));
}
