//! Replays: what they have, keep in memory, and who may have it.

use super::*;

#[test]
fn a_replay_has_what_was_kept_when_it_began_whatever_happens_meanwhile() {
    let memory = FrameMemory::new(usize::MAX);
    let mut config = config(500);
    config.history.bytes = 300_000;
    let mut core = Core::new(&config);
    publish(&core, 1..=500);
    let crm = core.attach_in("crm", ALICE, Outbox::new(WIDE).with_memory(Arc::clone(&memory)));
    let told = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(400)));
    assert_eq!(told.recovered, Some(Recovered::Replayed(400)));
    assert_eq!(memory.bytes(), 0, "the log has all of them");
    publish(&core, 501..=2_000);
    let live = memory.bytes();
    assert!(live > 400 * 100, "what only the replay has counts as memory of messages that wait: {live}");
    core.now += 11 * MINUTE;
    core.router.expire(core.now);
    let taken = core.take(&crm);
    let numbers: Vec<u64> = taken.iter().map(|it| it["data"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (101..=2_000).collect::<Vec<_>>());
    assert_eq!(taken.iter().filter(|it| it["replayed"] == true).count(), 400);
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn a_replay_that_keeps_what_its_log_has_dropped_counts_as_a_long_queue() {
    let memory = FrameMemory::new(usize::MAX);
    let core = Core::new(&config(100));
    let reader = |source: &str| core.attach_in(source, ALICE, Outbox::new(WIDE).with_memory(Arc::clone(&memory)));
    let (slow, other) = (reader("slow"), reader("other"));
    core.subscribe(&other, "Phone/*/*");
    publish(&core, 1..=100);
    subscribe(&core, &slow, &wanted("Phone/*/*", Recover::Last(100)));
    core.take(&other);
    publish(&core, 101..=300);
    core.take(&other);
    publish(&core, [301]);
    let before = memory.bytes();
    assert!(core.router.end_longest_queue());
    assert!(slow.outbox().ended().is_some() && other.outbox().ended().is_none());
    assert!(memory.bytes() < before / 2, "{} of {before}", memory.bytes());
}

#[test]
fn a_pull_looks_at_a_bounded_number_of_events() {
    let core = Core::new(&config(10_000));
    publish(&core, 1..=5_000);
    let crm = core.attach("crm", ALICE);
    subscribe(&core, &crm, &wanted("Phone/Call/Ring", Recover::Last(4_000)));
    let (mut frames, mut pulls) = (Vec::new(), 0);
    while !crm.outbox().is_empty() {
        let before = frames.len();
        core.take_some(&crm, 100, &mut frames);
        assert!(frames.len() - before <= 100);
        pulls += 1;
    }
    assert_eq!((frames.len(), pulls), (4_000, 40));
    subscribe(&core, &crm, &wanted("Phone/Rare/*", Recover::Last(1)));
    publish(&core, [1]);
    let rare = core.attach("phone", ALICE);
    core.send(&rare, &event("Phone/Rare/Event", "")).ok().unwrap();
    assert_eq!(core.take(&crm).len(), 2);
}

#[test]
fn a_replay_ends_with_its_subscription_and_its_session() {
    let core = Core::new(&config(1_000));
    publish(&core, 1..=1_000);
    let crm = core.attach("crm", ALICE);
    subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1_000)));
    let mut frames = Vec::new();
    core.take_some(&crm, 100, &mut frames);
    assert!(crm.outbox().is_replaying());
    // A publisher that has looked its receivers up knows the subscription still.
    let (phone, text) = (core.attach("phone", ALICE), event("Phone/Call/Ring", ""));
    let envelope = decode(&text, DecodeLimits::default()).unwrap();
    let decision = core.router.decide(&phone, &envelope);
    core.unsubscribe_all(&crm);
    assert_eq!(core.take(&crm), Vec::<Value>::new());
    drop(decision);
    assert!(!crm.outbox().is_replaying());
    subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1_000)));
    core.router.detach(core.now, &crm);
    let weak = Arc::downgrade(&crm);
    drop(crm);
    assert!(weak.upgrade().is_none(), "a replay must not keep its session");
}

#[test]
fn a_replay_has_only_what_the_session_may_receive_now() {
    let core = Core::new(&config(100));
    let phone = core.attach("phone", ALICE);
    for triple in ["Phone/Call/Ring", "Phone/Secret/Note", "Phone/Call/End"] {
        core.send(&phone, &event(triple, &format!(r#","data":"{triple}""#))).ok().unwrap();
    }
    let narrow = permissions("subscribe */*/*; deny subscribe Phone/Secret/*");
    let crm = core.attach_as("crm", ALICE, narrow);
    let told = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(2)));
    assert_eq!((told.recovered, told.is_narrowed), (Some(Recovered::Replayed(2)), true));
    let subtopics =
        |taken: &[Value]| taken.iter().map(|it| it["subtopic"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(subtopics(&core.take(&crm)), ["Ring", "End"]);
    // Rights that change while a replay is under way hold for what is not sent yet.
    let late = core.attach("late", ALICE);
    subscribe(&core, &late, &wanted("Phone/*/*", Recover::Last(3)));
    let less = permissions("subscribe Phone/*/End");
    core.router.change_permissions(core.now, &late, less, switchboard::router::Reason::Reloaded);
    let taken: Vec<Value> = core.take(&late).into_iter().filter(|it| it["channel"] == "Phone").collect();
    assert_eq!(subtopics(&taken), ["End"]);
}

#[test]
fn a_triple_that_becomes_protected_is_replayed_to_nobody() {
    let mut config = config(100);
    let core = Core::new(&config);
    publish(&core, [1]);
    config.protected.push("*/Call/Ring".parse().unwrap());
    core.router.replace_policy(core.now, &config);
    assert_eq!(last(&core, 9), Vec::<Value>::new());
    let phone = core.attach("phone", ALICE);
    let denied = core.send(&phone, &event("Phone/Call/Ring", "")).err().unwrap();
    assert_eq!(denied.refusal.code.as_str(), "NO_HANDLER");
    assert_eq!(core.router.size().log_entries, 1);
}

#[test]
fn retained_values_are_not_doubled_by_a_replay() {
    let core = Core::new(&config(3));
    let phone = core.attach("phone", ALICE);
    for number in 1..=5 {
        let text = event(&format!("Phone/State/{number}"), &format!(r#","retain":true,"data":{number}"#));
        core.send(&phone, &text).ok().unwrap();
    }
    let crm = core.attach("crm", ALICE);
    let brief = |wanted: &Subscribe| {
        subscribe(&core, &crm, wanted);
        let taken = core.take(&crm);
        taken.iter().map(|it| (it["data"].as_u64().unwrap(), it["replayed"] == true)).collect::<Vec<_>>()
    };
    let all = |recover| Subscribe { retained: Retained::Again, ..wanted("Phone/*/*", recover) };
    assert_eq!(brief(&all(Recover::Last(2))), [(1, false), (2, false), (3, false), (4, true), (5, true)]);
    assert_eq!(brief(&all(Recover::Last(99))), [(1, false), (2, false), (3, true), (4, true), (5, true)]);
    let (lost, after) = ("another".to_owned(), core.router.size().logs);
    let told = brief(&all(Recover::After { epoch: lost, offset: 3 }));
    assert_eq!((told.len(), after), (5, 1), "nothing is replayed, so all values are sent");
    let none = Subscribe { retained: Retained::Never, ..wanted("Phone/State/5", Recover::Last(1)) };
    assert_eq!(brief(&none), [(5, true)]);
}
