use super::*;

const NOON: &str = "2026-11-23T12:00:00.000Z";

fn noon() -> Timestamp {
    clock::parse_timestamp(NOON).unwrap()
}

fn obligation(name: &str, met: Option<bool>) -> Obligation {
    Obligation {
        name: name.to_owned(),
        met,
        deadline_s: Some(120),
        age_s: Some(1.0),
        since: Some("2026-11-23T11:46:00.000Z".to_owned()),
        detail: format!("{name} detail"),
        remedy: "r".to_owned(),
    }
}

fn healthy() -> Health {
    Health {
        status: Some(StatusRow {
            version: "0.1.0".to_owned(),
            okta_url: "https://acme.okta.com".to_owned(),
            auth0_url: "https://acme.eu.auth0.com".to_owned(),
            enforce: true,
            first_run_at: "2026-11-01T00:00:00.000Z".to_owned(),
            last_poll_at: Some(NOON.to_owned()),
            last_poll_ok_at: Some(NOON.to_owned()),
            last_apply_ok_at: None,
            last_reconcile_ok_at: None,
            cursor_moved_at: None,
            pending: 0,
            failed: 0,
            held: 0,
            quarantined: 0,
            denied: 7,
            lag_p50_s: None,
            lag_p99_s: None,
            lag_max_s: None,
            oldest_pending_at: None,
            last_okta_error: None,
            last_auth0_error: None,
            needs_attention: false,
            enforcement: None,
            enforcement_checked_at: None,
            all_well: true,
        }),
        obligations: ALARMS.map(|(name, ..)| obligation(name, Some(true))).to_vec(),
        remotes: vec![remote("okta", None), remote("auth0", None)],
        ..Health::default()
    }
}

fn remote(name: &str, error_kind: Option<&str>) -> RemoteRow {
    RemoteRow {
        remote: name.to_owned(),
        ok_at: Some("2026-11-23T11:00:00.000Z".to_owned()),
        error_at: error_kind.map(|_| NOON.to_owned()),
        error_kind: error_kind.map(str::to_owned),
        error: error_kind.map(|_| "no".to_owned()),
        failing_since: error_kind.map(|_| "2026-11-23T11:46:30.000Z".to_owned()),
        next_call_at: None,
    }
}

fn alarm(kind: &str, subject: &str) -> AlarmRow {
    AlarmRow {
        id: 1,
        kind: kind.to_owned(),
        subject: subject.to_owned(),
        name: None,
        detail: "d".to_owned(),
        remedy: "r".to_owned(),
        raised_at: NOON.to_owned(),
        cleared_at: None,
    }
}

fn user(id: &str, why: &str) -> UserRow {
    UserRow {
        okta_user_id: id.to_owned(),
        login: None,
        email: Some(format!("{id}@example.com")),
        status: None,
        status_at: None,
        outcome: None,
        why: Some(why.to_owned()),
        since: NOON.to_owned(),
        due_at: None,
        cause: "event".to_owned(),
        attempts: 0,
        last_error: None,
        open: true,
    }
}

fn rules(health: &Health) -> Vec<&'static str> {
    health.violations().iter().map(|violation| violation.rule).collect()
}

/// The healthy installation with one obligation changed.
fn with(name: &str, met: Option<bool>) -> Health {
    let mut health = healthy();
    health.obligations.iter_mut().filter(|one| one.name == name).for_each(|one| one.met = met);
    health
}

fn headline(health: &Health) -> (String, Level) {
    let headline = health.headline(noon());
    (headline.text, headline.level)
}

#[test]
fn all_well_needs_every_obligation() {
    assert_eq!(headline(&healthy()), ("All well".to_owned(), Level::Good));
    let left_open = LeftOpen { unmatched: 2, shared_address: 1 };
    assert_eq!(
        headline(&Health { left_open, ..healthy() }),
        (
            "Nothing is overdue, but 2 users who left have no matched account; 1 user who left shares an address with an \
             active user"
                .to_owned(),
            Level::Working
        )
    );
    assert_eq!((rules(&healthy()), healthy().attention()), (vec![], vec![]));
    for (name, rule, _) in ALARMS {
        for met in [Some(false), None] {
            let health = with(name, met);
            assert_ne!(headline(&health).1, Level::Good, "{name} {met:?}");
            assert_eq!(rules(&health), [rule], "{met:?}");
        }
    }
}

#[test]
fn headline_is_the_worst_true_thing() {
    let mut health = healthy();
    health.status.as_mut().unwrap().pending = 3;
    health.denials_waiting = 3;
    assert_eq!(headline(&health), ("Working, 3 denials waiting".to_owned(), Level::Working));
    let down = Health { remotes: vec![remote("okta", None), remote("auth0", Some("unreachable"))], ..health };
    assert_eq!(headline(&down).0, "Auth0 unreachable since 11:46, 3 denials waiting");
    let limited = Health { remotes: vec![remote("okta", Some("rate limited"))], denials_waiting: 1, ..down };
    assert_eq!(headline(&limited).0, "Okta limits our calls since 11:46, 1 denial waiting");
    assert_eq!(headline(&with("enforcement", Some(false))).0, "Enforcement is OFF");
    let mut stopped = with("daemon", None);
    stopped.daemon_is_gone();
    assert_eq!(headline(&stopped).0, "The daemon is not running");
    let mut first = with("poll", None);
    first.status.as_mut().unwrap().last_poll_ok_at = None;
    assert_eq!(headline(&first).0, "No successful poll yet; nothing is being synced");
    assert_eq!(headline(&with("poll", Some(false))).0, "No successful poll since 11:46");
    assert_eq!(headline(&with("action", None)), ("Not known yet: action".to_owned(), Level::Working));
    assert_eq!(headline(&with("clock", Some(false))).0, "Clock detail");
    let gap = Health { alarms: vec![alarm("gap", "")], ..healthy() };
    assert_eq!(headline(&gap).0, "1 issue needs attention");
}

#[test]
fn headline_readiness_and_check_agree() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..2000 {
        let mut health = healthy();
        for one in &mut health.obligations {
            one.met = random.choice([Some(true), Some(true), Some(true), Some(true), Some(false), None]).unwrap();
        }
        let kinds = [None, None, Some("unreachable"), Some("rate limited"), Some("forbidden")];
        health.remotes = vec![remote("okta", None), remote("auth0", random.choice(kinds).unwrap())];
        if random.u8(0..4) == 0 {
            health.alarms.push(alarm(random.choice(["gap", "exempt_left", "poll_late"]).unwrap(), ""));
        }
        let mut some = || i64::from(random.u8(0..8) == 0);
        let counts = (some(), some(), some(), some());
        let status = health.status.as_mut().unwrap();
        (status.failed, status.held, status.quarantined, status.pending) = counts;
        let (passes, shown) = (health.violations().is_empty(), health.headline(NOON.parse().unwrap()));
        match shown.level {
            Level::Good => assert!(passes && shown.text == "All well" && counts.3 == 0, "{health:#?}"),
            Level::Working => {
                let is_unknown = health.obligations.iter().any(|one| one.met.is_none());
                assert!(passes || is_unknown, "{shown:?} {health:#?}");
            }
            Level::Bad => assert!(!passes, "{shown:?} {health:#?}"),
        }
    }
}

#[test]
fn running_daemon_that_cannot_write_is_not_gone() {
    let mut health = with("daemon", Some(false));
    health.obligations[0].detail = format!("last sign of the daemon at {NOON}");
    health.obligations[0].since = Some(NOON.to_owned());
    health.daemon_is_silent();
    let text = headline(&health).0;
    assert!(text.contains("cannot write the state") && !text.contains("not running"), "{text}");
    assert!(health.attention()[0].remedy.contains("free space"), "{:?}", health.attention());
}

#[test]
fn outage_is_dated_from_its_beginning() {
    let health = Health {
        remotes: vec![remote("auth0", Some("unreachable"))],
        alarms: vec![alarm("remote_down", "auth0")],
        ..healthy()
    };
    assert_eq!(health.attention()[0].since.as_deref(), Some("2026-11-23T11:46:30.000Z"));
}

#[test]
fn missed_obligation_replaces_its_alarm() {
    let health = Health { alarms: vec![alarm("poll_late", "")], ..with("poll", Some(false)) };
    assert_eq!(rules(&health), ["poll_late"]);
    assert_eq!(health.attention().len(), 1);
}

#[test]
fn missing_first_poll_is_a_violation() {
    assert_eq!(rules(&Health::default()), ["never_ran"]);
    let mut health = with("poll", None);
    health.status.as_mut().unwrap().last_poll_ok_at = None;
    assert_eq!(rules(&health), ["never_ran"]);
}

#[test]
fn refusal_counts_until_a_call_succeeds() {
    for (kind, expected) in
        [("unauthorized", true), ("forbidden", true), ("unreachable", false), ("server error", false)]
    {
        let health = Health { remotes: vec![remote("okta", Some(kind))], ..healthy() };
        assert_eq!(rules(&health) == ["refused"], expected, "{kind}");
    }
    let over = RemoteRow { failing_since: None, ..remote("okta", Some("forbidden")) };
    assert_eq!(rules(&Health { remotes: vec![over], ..healthy() }), [""; 0]);
}

#[test]
fn each_open_issue_is_a_violation() {
    for rule in ["failed", "held", "quarantined"] {
        let mut health = healthy();
        let status = health.status.as_mut().unwrap();
        match rule {
            "failed" => status.failed = 1,
            "held" => status.held = 2,
            _ => status.quarantined = 3,
        }
        assert_eq!(rules(&health), [rule]);
    }
    let health = Health { alarms: vec![alarm("gap", ""), alarm("gap", "x")], ..healthy() };
    let violations = health.violations();
    assert_eq!((violations[0].rule, violations[0].detail.as_str()), ("alarm", "2 open alarms: gap"));
}

#[test]
fn each_issue_is_listed_once_with_its_remedy() {
    let mut health = Health {
        remotes: vec![remote("okta", Some("unauthorized")), remote("auth0", Some("forbidden"))],
        alarms: vec![alarm("remote_refuses", "okta"), alarm("failed", "u1"), alarm("held", "u2"), alarm("gap", "")],
        failed: vec![user("u1", "500")],
        held: vec![user("u2", "vanished"), user("u3", "guard"), user("u4", "address_reused: u9")],
        ..healthy()
    };
    health.status.as_mut().unwrap().failed = 5;
    let list = health.attention();
    let listed: Vec<(&str, &str)> = list.iter().map(|item| (item.kind.as_str(), item.subject.as_str())).collect();
    assert_eq!(
        listed,
        [
            ("refused", "auth0"),
            ("remote_refuses", "okta"),
            ("gap", ""),
            ("failed", "u1"),
            ("held", "u2"),
            ("held", "u3"),
            ("held", "u4")
        ]
    );
    assert_eq!(health.attention_count(&list), 7 + 4, "four failed users are counted but not listed");
    assert!(list[3].remedy.contains("okta-auth0-sync retry u1"));
    assert!(list[4..].iter().all(|item| item.remedy.contains("okta-auth0-sync approve u")));
}
