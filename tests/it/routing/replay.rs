//! The replay of retained values, for whom they count, and when it ends (protocol.md, Retained values).

use serde_json::Value;
use switchboard::config::{Channel, Config, Scope};
use wire::command::{Retained, Role, Subscribe};

use crate::support::core::{Core, WIDE, event};

fn config() -> Config {
    let mut config = Config::default();
    config.channels.insert("Queue".into(), Channel { scope: Scope::Shared, ..Channel::default() });
    config.channels.insert("Memo".into(), Channel { fold_case: true, ..Channel::default() });
    config
}

/// Publishes a retained event. Returns the code of the refusal, if it is refused.
fn retain(core: &Core, source: &str, user: Option<&str>, triple: &str, more: &str) -> Option<&'static str> {
    let session = core.attach(source, user);
    let routed = core.send(&session, &event(triple, &format!(r#","retain":true{more}"#)));
    core.router.detach(core.now, &session);
    routed.err().map(|denied| denied.refusal.code.as_str())
}

fn wanted(pattern: &str) -> Subscribe {
    Subscribe::new(pattern.parse().unwrap(), Role::Subscriber)
}

/// The texts of a field, of what a fresh subscriber finds.
fn found(core: &Core, (source, user): (&str, Option<&str>), wanted: &Subscribe, field: &str) -> Vec<String> {
    let session = core.attach(source, user);
    core.subscribe_as(&session, wanted);
    let found = core.take(&session);
    core.router.detach(core.now, &session);
    assert!(found.iter().all(|it| it["retained"] == true), "{found:?}");
    found.iter().map(|it| it[field].as_str().unwrap_or("-").to_owned()).collect()
}

#[test]
fn a_pull_looks_at_a_bounded_number_of_values() {
    let core = Core::new(&config());
    for user in 0..20 {
        for value in 0..200 {
            let triple = format!("Phone/{}/{value}", if value == 199 { "Rare" } else { "Common" });
            assert_eq!(retain(&core, "phone", Some(&format!("user-{user:02}")), &triple, ""), None);
        }
    }
    let service = core.attach("recorder", None);
    for (pattern, expected, pulls) in
        [("Phone/*/*", 4_000, 16..40), ("*/Rare/*", 20, 16..25), ("Phone/Rare/*", 20, 1..3)]
    {
        core.subscribe(&service, pattern);
        let (mut frames, mut turns) = (Vec::new(), 0);
        while !service.outbox().is_empty() {
            let before = frames.len();
            core.take_some(&service, 256, &mut frames);
            assert!(frames.len() - before <= 256);
            turns += 1;
        }
        assert_eq!(frames.len(), expected, "{pattern}");
        assert!(pulls.contains(&turns), "{pattern}: {turns} pulls");
        let users: Vec<Value> =
            frames.iter().map(|it| serde_json::from_str::<Value>(it.text()).unwrap()["user"].clone()).collect();
        assert!(users.is_sorted_by_key(|user| user.as_str().unwrap().to_owned()), "in the order of the users");
    }
}

#[test]
fn a_replay_ends_with_its_subscription() {
    let core = Core::new(&config());
    for value in 0..1_000 {
        retain(&core, "phone", Some("alice"), &format!("Phone/Agent/{value}"), "");
    }
    let gadget = core.attach("gadget", Some("alice"));
    core.subscribe(&gadget, "Phone/*/*");
    let mut frames = Vec::new();
    core.take_some(&gadget, 100, &mut frames);
    assert_eq!(frames.len(), 100);
    core.unsubscribe_all(&gadget);
    assert_eq!(core.take(&gadget), Vec::<Value>::new());
    // Another subscription's replay is not concerned.
    core.subscribe(&gadget, "Phone/*/*");
    core.subscribe(&gadget, "Phone/Agent/7");
    let first = core.router.subscriptions(&gadget)[0].id.to_string();
    core.router.unsubscribe(core.now, &gadget, &first).unwrap();
    assert_eq!(core.take(&gadget).len(), 1);
}

#[test]
fn a_value_that_is_replaced_before_it_is_pulled_comes_once_as_a_live_event() {
    let core = Core::new(&config());
    retain(&core, "phone", Some("alice"), "Phone/Agent/State", r#","data":1"#);
    retain(&core, "phone", Some("alice"), "Phone/Agent/Zone", r#","data":2"#);
    retain(&core, "phone", Some("alice"), "Phone/Agent/Old", r#","data":3"#);
    let gadget = core.attach("gadget", Some("alice"));
    core.subscribe(&gadget, "Phone/*/*");
    retain(&core, "phone", Some("alice"), "Phone/Agent/State", r#","data":4"#);
    retain(&core, "phone", Some("alice"), "Phone/Agent/Old", r#","data":null"#);
    let taken = core.take(&gadget);
    let brief: Vec<_> = taken.iter().map(|it| (it["data"].as_i64(), it.get("retained").is_some())).collect();
    assert_eq!(brief, [(Some(2), true), (Some(4), false), (None, false)]);
}

#[test]
fn the_option_retained_decides_about_the_replay() {
    let core = Core::new(&config());
    retain(&core, "phone", Some("alice"), "Phone/Agent/State", "");
    let gadget = core.attach("gadget", Some("alice"));
    for (retained, expected) in
        [(Retained::Never, 0), (Retained::WhenNew, 0), (Retained::Again, 1), (Retained::Again, 1), (Retained::Never, 0)]
    {
        core.subscribe_as(&gadget, &Subscribe { retained, ..wanted("Phone/*/*") });
        assert_eq!(core.take(&gadget).len(), expected, "{retained:?}");
    }
    assert_eq!(core.router.subscriptions(&gadget).len(), 1);
}

#[test]
fn who_sees_whose_values_and_the_user_beside_them() {
    let core = Core::new(&config());
    let quoted = "o\"neil\\";
    retain(&core, "phone", Some("alice"), "Phone/Agent/State", "");
    retain(&core, "phone", Some(quoted), "Phone/Agent/State", "");
    retain(&core, "phone", Some("alice"), "Queue/Note/1", "");
    retain(&core, "stats", None, "Queue/Note/2", "");
    retain(&core, "stats", None, "Queue/Note/3", r#","user":"alice""#);
    retain(&core, "phone", Some("alice"), "Memo/Agent/STATE", "");
    let seen = |user: Option<&str>, of: Option<&str>, pattern: &str| {
        found(&core, ("gadget", user), &Subscribe { user: of.map(str::to_owned), ..wanted(pattern) }, "user")
    };
    // In shared channels everyone sees the user.
    assert_eq!(seen(Some("alice"), None, "*/*/*"), ["-", "-", "alice", "-", "alice"]);
    assert_eq!(seen(Some("bob"), None, "*/*/*"), ["alice", "-", "alice"]);
    assert_eq!(seen(Some("bob"), None, "Queue/Note/*"), ["alice", "-", "alice"]);
    assert_eq!(seen(None, None, "Phone/*/*"), ["alice", quoted]);
    assert_eq!(seen(None, None, "memo/*/*"), Vec::<String>::new());
    assert_eq!(seen(None, None, "Memo/agent/*"), ["alice"]);
    assert_eq!(seen(Some("olga"), Some("*"), "Phone/Agent/State"), ["alice", quoted]);
    assert_eq!(seen(Some("olga"), Some(quoted), "*/*/*"), [quoted, "alice", "-", "alice"]);
    // A service that names a user wants that user's only.
    assert_eq!(seen(None, Some("alice"), "*/*/*"), ["alice", "alice", "alice", "alice"]);
    assert_eq!(seen(None, Some(quoted), "*/*/*"), [quoted]);
}

#[test]
fn a_value_with_a_target_is_beside_the_one_without() {
    let core = Core::new(&config());
    retain(&core, "phone", Some("alice"), "Phone/Agent/State", r#","target":"crm","data":"crm""#);
    retain(&core, "phone", Some("alice"), "Phone/Agent/State", r#","data":"all""#);
    assert_eq!(found(&core, ("crm", Some("alice")), &wanted("Phone/*/*"), "data"), ["all", "crm"]);
    assert_eq!(found(&core, ("other", Some("alice")), &wanted("Phone/*/*"), "data"), ["all"]);
    retain(&core, "phone", Some("alice"), "Phone/Agent/State", r#","target":"crm","data":null"#);
    assert_eq!(found(&core, ("crm", Some("alice")), &wanted("Phone/*/*"), "data"), ["all"]);
}

#[test]
fn values_count_for_their_user_or_for_who_sent_them_last() {
    let mut config = config();
    config.limits.retained_values = 2;
    let core = Core::new(&config);
    let (alice, bob) = (Some("alice"), Some("bob"));
    let (kept, refused) = (None, Some("TOO_LARGE"));
    for (source, user, triple, more, expected) in [
        ("phone", alice, "Phone/Agent/1", "", kept),
        ("phone", alice, "Queue/Note/1", "", kept),
        ("phone", alice, "Queue/Note/2", "", refused),
        ("phone", alice, "Phone/Agent/2", "", refused),
        // What a service sends for alice is alice's.
        ("stats", None, "Phone/Agent/2", r#","user":"alice""#, refused),
        ("stats", None, "Queue/Note/3", r#","user":"alice""#, kept),
        ("stats", None, "Queue/Note/4", "", kept),
        ("stats", None, "Queue/Note/5", "", refused),
        ("other", None, "Queue/Note/5", "", kept),
        ("phone", bob, "Queue/Note/1", "", kept),
        ("phone", alice, "Queue/Note/2", "", kept),
        // Taking over another one's value counts as a new one.
        ("phone", alice, "Queue/Note/1", "", refused),
        ("phone", bob, "Queue/Note/1", r#","data":2"#, kept),
        ("phone", bob, "Queue/Note/2", r#","data":null"#, kept),
        ("phone", alice, "Queue/Note/1", "", kept),
    ] {
        assert_eq!(retain(&core, source, user, triple, more), expected, "{source} {user:?} {triple} {more}");
    }
    assert_eq!(core.router.size().retained_values, 5);
    // What was refused was not sent, either.
    let gadget = core.attach("gadget", alice);
    core.subscribe_as(&gadget, &Subscribe { retained: Retained::Never, ..wanted("*/*/*") });
    assert_eq!(retain(&core, "phone", alice, "Phone/Agent/2", ""), refused);
    assert_eq!(core.take(&gadget), Vec::<Value>::new());
    for (user, triple) in
        [(alice, "Phone/Agent/1"), (bob, "Queue/Note/1"), (bob, "Queue/Note/3"), (bob, "Queue/Note/4")]
    {
        retain(&core, "phone", user, triple, r#","data":null"#);
    }
    retain(&core, "phone", bob, "Queue/Note/5", r#","data":null"#);
    assert_eq!((core.router.size().retained_values, core.router.size().retained_bytes), (0, 0));
}

#[test]
fn a_value_counts_at_least_256_bytes_and_its_texts() {
    let mut config = config();
    config.limits.retained_bytes = 1_000;
    config.limits.retained_total_bytes = 3_300;
    let core = Core::new(&config);
    let mut kept = 0;
    for user in ["alice", "bob", "carol", "dora"] {
        let before = kept;
        while retain(&core, "phone", Some(user), &format!("P/A/{}", kept - before), "").is_none() {
            kept += 1;
        }
        assert!((0..=3).contains(&(kept - before)), "{user}: {}", kept - before);
    }
    let size = core.router.size();
    assert_eq!(size.retained_values, kept);
    assert!(size.retained_bytes >= 256 * kept && size.retained_bytes <= 3_300, "{size:?}");
    assert!((6..=12).contains(&kept), "{kept} values");
    let long = format!(r#","data":"{}""#, "x".repeat(1_000));
    assert_eq!(retain(&core, "phone", Some("erik"), "P/A/1", &long), Some("TOO_LARGE"));
}

#[test]
fn a_session_that_ends_takes_its_replays_with_it() {
    let core = Core::new(&config());
    for value in 0..1_000 {
        retain(&core, "phone", Some("alice"), &format!("Phone/Agent/{value}"), "");
    }
    let gadget = core.attach_with("gadget", Some("alice"), WIDE);
    core.subscribe(&gadget, "Phone/*/*");
    core.subscribe(&gadget, "Phone/Agent/*");
    core.router.detach(core.now, &gadget);
    let weak = std::sync::Arc::downgrade(&gadget);
    drop(gadget);
    assert!(weak.upgrade().is_none(), "a replay must not keep its session");
}
