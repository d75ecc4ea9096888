//! The logs of channels with history: their bounds, who may have what of them, adapters' announcements, reloads
//! (docs/protocol.md, History).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use switchboard::config::{Channel, Config, History, LogBounds, Scope};
use switchboard::router::{Outbox, RecoverReason, Recovered, Session, Size, Subscribed};
use switchboard::websocket::FrameMemory;
use wire::command::{Recover, Retained, Role, Subscribe};
use wire::{DecodeLimits, decode};

use crate::support::core::{Core, WIDE, event};
use crate::support::rights::permissions;

const MINUTE: Duration = Duration::from_mins(1);
const ALICE: Option<&str> = Some("alice");

fn kept(size: usize, scope: Scope) -> Channel {
    Channel { scope, history: Some(LogBounds { size, ttl: 10 * MINUTE }), ..Channel::default() }
}

fn config(size: usize) -> Config {
    let mut config = Config::default();
    config.channels.insert("Phone".into(), kept(size, Scope::User));
    config.channels.insert("Queue".into(), kept(size, Scope::Shared));
    config
}

fn wanted(pattern: &str, recover: Recover) -> Subscribe {
    Subscribe { recover: Some(recover), ..Subscribe::new(pattern.parse().unwrap(), Role::Subscriber) }
}

fn subscribe(core: &Core, session: &Arc<Session>, wanted: &Subscribe) -> Subscribed {
    let mut told = None;
    core.router
        .subscribe(core.now, session, wanted, |subscribed| {
            told = Some(subscribed);
            None
        })
        .unwrap();
    told.unwrap()
}

/// Publishes numbered events on `Phone/Call/Ring` for alice.
fn publish(core: &Core, numbers: impl IntoIterator<Item = u64>) {
    let phone = core.attach("phone", ALICE);
    for number in numbers {
        core.send(&phone, &event("Phone/Call/Ring", &format!(r#","data":{number}"#))).map_err(|it| it.refusal).unwrap();
    }
    core.router.detach(core.now, &phone);
}

/// The payloads that a fresh session gets, and what it is told.
fn replayed(core: &Core, user: Option<&str>, wanted: &Subscribe) -> (Option<Recovered>, Vec<Value>) {
    let session = core.attach("crm", user);
    let told = subscribe(core, &session, wanted);
    let taken = core.take(&session);
    core.router.detach(core.now, &session);
    assert!(taken.iter().all(|it| it["replayed"] == true), "{taken:?}");
    if let Some(Recovered::Replayed(count)) = told.recovered {
        assert_eq!(count, taken.len(), "the reply says how many");
    }
    (told.recovered, taken.into_iter().map(|it| it["data"].clone()).collect())
}

fn last(core: &Core, most: u64) -> Vec<Value> {
    replayed(core, ALICE, &wanted("Phone/*/*", Recover::Last(most))).1
}

/// Lets time pass, and does what is due then.
fn pass(core: &mut Core, time: Duration) {
    let end = core.now + time;
    while let Some(due) = core.router.deadline().filter(|due| *due <= end) {
        core.now = core.now.max(due);
        core.router.expire(core.now);
    }
    core.now = end;
}

#[test]
fn a_log_keeps_its_last_events_by_number_and_age() {
    let mut core = Core::new(&config(3));
    publish(&core, 1..=5);
    assert_eq!(last(&core, 9), [3, 4, 5]);
    core.now += 6 * MINUTE;
    publish(&core, [6]);
    core.now += 4 * MINUTE;
    assert_eq!(last(&core, 9), [4, 5, 6], "as old as ttl");
    core.now += Duration::from_millis(1);
    // Nothing has dropped them yet.
    assert_eq!(core.router.size().log_entries, 3);
    assert_eq!(last(&core, 9), [6], "older than ttl");
    assert_eq!(last(&core, 1), [6]);
}

#[test]
fn what_is_too_old_is_dropped_and_a_log_that_stays_empty_is_forgotten() {
    let mut core = Core::new(&config(1_000_000));
    publish(&core, 1..=3_000);
    let size = core.router.size();
    assert_eq!((size.logs, size.log_entries), (1, 3_000));
    assert!(size.log_bytes > 3_000 * 300, "{size:?}");
    let crm = core.attach("crm", ALICE);
    let before = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1)));
    core.router.detach(core.now, &crm);
    pass(&mut core, 11 * MINUTE);
    let size = core.router.size();
    assert_eq!((size.logs, size.log_entries), (1, 0), "its epoch and offset are kept");
    assert!((500..700).contains(&size.log_bytes), "{size:?}");
    pass(&mut core, 58 * MINUTE);
    assert_eq!(core.router.size().logs, 1);
    pass(&mut core, 3 * MINUTE);
    assert_eq!(core.router.size(), Size::default());
    assert_eq!(core.router.deadline(), None);
    publish(&core, [1]);
    let crm = core.attach("crm", ALICE);
    let after = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1)));
    let (before, after) = (before.position.unwrap(), after.position.unwrap());
    assert_eq!((before.offset, after.offset), (3_000, 1));
    assert_ne!(before.epoch, after.epoch, "offsets begin again, so the epoch is another one");
}

#[test]
fn subscribing_creates_no_log() {
    let core = Core::new(&config(10));
    let crm = core.attach("crm", ALICE);
    let told = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(5)));
    let position = told.position.unwrap();
    assert_eq!((position.offset, core.router.size().logs, core.router.deadline()), (0, 0, None));
    let again = wanted("Phone/*/*", Recover::After { epoch: position.epoch.to_string(), offset: 0 });
    assert_eq!(subscribe(&core, &crm, &again).recovered, Some(Recovered::Replayed(0)));
    publish(&core, [1]);
    assert_eq!(subscribe(&core, &crm, &again).recovered, Some(Recovered::Replayed(1)));
    let refused = core.attach("phone", ALICE);
    assert!(core.send(&refused, &event("Phone/Call/Ring", r#","user":"bob""#)).is_err());
    assert_eq!(core.router.size().logs, 1);
}

#[test]
fn an_event_that_is_too_large_to_retain_is_in_no_log_and_takes_no_offset() {
    let mut config = config(10);
    config.limits.retained_values = 1;
    let core = Core::new(&config);
    let phone = core.attach("phone", ALICE);
    let retain =
        |subtopic: &str| core.send(&phone, &event(&format!("Phone/A/{subtopic}"), r#","retain":true,"data":1"#));
    assert_eq!(retain("1").map_err(|_| ()).unwrap().receipt.unwrap().kept.unwrap().position.offset, 1);
    assert_eq!(retain("2").err().unwrap().refusal.code.as_str(), "TOO_LARGE");
    publish(&core, [7]);
    assert_eq!(last(&core, 9), [1, 7]);
    let routed = core.send(&phone, &event("Phone/A/1", r#","data":2"#)).map_err(|_| ()).unwrap();
    assert_eq!(routed.receipt.unwrap().kept.unwrap().position.offset, 3);
}

#[test]
fn beyond_the_memory_of_all_logs_the_largest_loses_its_oldest() {
    let mut config = config(1_000_000);
    config.history.bytes = 400_000;
    let core = Core::new(&config);
    let bob = core.attach("phone", Some("bob"));
    for number in 0..20 {
        core.send(&bob, &event("Phone/Call/Ring", &format!(r#","data":{number}"#))).ok().unwrap();
    }
    let small = core.router.size().log_bytes;
    for number in 0..3_000_u64 {
        publish(&core, [number]);
        assert!(core.router.size().log_bytes <= 400_000);
    }
    assert!(core.router.size().log_bytes > 300_000, "no more is dropped than needed");
    let of_bob = replayed(&core, Some("bob"), &wanted("Phone/*/*", Recover::Last(1_000))).1;
    assert_eq!((of_bob.len(), small > 0), (20, true), "the small log loses nothing");
    let left = last(&core, 1_000_000);
    assert_eq!(left.last(), Some(&Value::from(2_999)));
    assert!((800..1_400).contains(&left.len()), "{}", left.len());
    // One event that is larger than all memory is not kept, and is delivered.
    let crm = core.attach("crm", ALICE);
    core.subscribe(&crm, "Phone/*/*");
    let phone = core.attach("phone", ALICE);
    let huge = "x".repeat(500_000);
    core.send(&phone, &event("Phone/Call/Ring", &format!(r#","data":"{huge}""#))).ok().unwrap();
    assert_eq!(core.take(&crm).len(), 1);
    assert!(core.router.size().log_bytes <= 400_000);
}

#[test]
fn a_service_that_names_many_users_cannot_use_up_the_memory() {
    let mut config = config(10);
    config.history.bytes = 200_000;
    let core = Core::new(&config);
    publish(&core, 1..=10);
    let before = replayed(&core, ALICE, &wanted("Phone/*/*", Recover::Last(99))).1.len();
    let service = core.attach("cti", None);
    for user in 0..2_000 {
        let text = event("Phone/Call/Ring", &format!(r#","user":"user-{user}","data":{user}"#));
        core.send(&service, &text).map_err(|it| it.refusal).unwrap();
        let size = core.router.size();
        assert!(size.log_bytes <= 200_000 && size.logs <= 400, "{size:?}");
    }
    let left = replayed(&core, ALICE, &wanted("Phone/*/*", Recover::Last(99))).1;
    assert!(left.len() < before, "the log that held most lost its oldest: {left:?}");
    let latest = replayed(&core, Some("user-1999"), &wanted("Phone/*/*", Recover::Last(9))).1;
    assert_eq!(latest, [1_999]);
}

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
    assert!(core.send(&phone, &event("Phone/Call/Ring", "")).is_err());
    assert_eq!(core.router.size().log_entries, 1);
}

#[test]
fn an_adapters_event_for_all_enters_the_log_of_each_user_who_has_a_session_or_a_log() {
    let core = Core::new(&config(10));
    let bob = core.attach("phone", Some("bob"));
    core.send(&bob, &event("Phone/Call/Ring", r#","data":0"#)).ok().unwrap();
    core.router.detach(core.now, &bob);
    let (alice, recorder) = (core.attach("crm", ALICE), core.attach("recorder", None));
    let watcher = core.attach("watcher", Some("olga"));
    core.subscribe(&alice, "Phone/*/*");
    core.subscribe(&recorder, "Phone/*/*");
    for user in ["*", "alice"] {
        let wanted =
            Subscribe { user: Some(user.into()), ..Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber) };
        core.subscribe_as(&watcher, &wanted);
    }
    let adapter = core.router.attach_adapter(core.now, Outbox::new(WIDE));
    let text = event("Phone/Notice/New", r#","data":1"#);
    let announce = |user: Option<&str>| {
        let envelope = decode(&text, DecodeLimits::OWN).unwrap();
        core.router.announce(core.now, &adapter, &envelope, user).unwrap().receipt.unwrap()
    };
    // In three queues, once in each.
    assert_eq!(announce(None).receivers, 3);
    let brief = |session: &Session| {
        let taken = core.take(session);
        taken.iter().map(|it| (it["offset"].as_u64(), it["user"].as_str().map(str::to_owned))).collect::<Vec<_>>()
    };
    assert_eq!(brief(&alice), [(Some(1), None)]);
    assert_eq!(brief(&watcher), [(Some(1), None)]);
    assert_eq!(brief(&recorder), [(None, None)], "it is of many logs");
    assert_eq!(core.router.size().logs, 3, "alice's, olga's, and that of bob, who is away");
    let kept = announce(ALICE).kept.unwrap();
    assert_eq!(kept.position.offset, 2);
    assert_eq!(brief(&recorder), [(Some(2), Some("alice".into()))]);
    assert_eq!(replayed(&core, Some("bob"), &wanted("Phone/*/*", Recover::Last(9))).1, [0, 1]);
    assert_eq!(replayed(&core, Some("carol"), &wanted("Phone/*/*", Recover::Last(9))).1, Vec::<Value>::new());
    let of_bob = Subscribe { user: Some("bob".into()), ..wanted("Phone/*/*", Recover::Last(9)) };
    subscribe(&core, &recorder, &of_bob);
    // As it was sent: what was for all has no user.
    assert_eq!(brief(&recorder), [(Some(1), Some("bob".into())), (Some(2), None)]);
}

#[test]
fn a_channel_that_loses_its_history_loses_its_past() {
    let with = config(10);
    let core = Core::new(&with);
    publish(&core, 1..=2);
    let crm = core.attach("crm", ALICE);
    let before = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1))).position.unwrap();
    let never = core.attach("crm", Some("carol"));
    let of_carol = subscribe(&core, &never, &wanted("Phone/*/*", Recover::Last(1))).position.unwrap();
    let mut without = with.clone();
    without.channels.remove("Phone");
    core.router.replace_policy(core.now, &without);
    assert_eq!((core.router.size().logs, core.router.size().log_bytes), (0, 0));
    core.take(&crm);
    let phone = core.attach("phone", ALICE);
    core.send(&phone, &event("Phone/Call/Ring", "")).ok().unwrap();
    assert_eq!(core.take(&crm)[0].get("offset"), None);
    core.router.replace_policy(core.now, &with);
    publish(&core, [4]);
    for (session, position) in [(&crm, &before), (&never, &of_carol)] {
        let after = Recover::After { epoch: position.epoch.to_string(), offset: position.offset };
        let told = subscribe(&core, session, &wanted("Phone/*/*", after));
        assert_eq!(told.recovered, Some(Recovered::Lost(RecoverReason::Epoch)), "what was sent meanwhile is in no log");
    }
}

#[test]
fn a_channel_that_gets_another_scope_loses_its_past() {
    let mut config = config(10);
    let core = Core::new(&config);
    publish(&core, 1..=2);
    let crm = core.attach("crm", ALICE);
    let before = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1))).position.unwrap();
    config.channels.get_mut("Phone").unwrap().scope = Scope::Shared;
    core.router.replace_policy(core.now, &config);
    assert_eq!(core.router.size().logs, 0);
    core.take(&crm);
    publish(&core, 3..=5);
    let after = Recover::After { epoch: before.epoch.to_string(), offset: before.offset };
    let told = subscribe(&core, &crm, &wanted("Phone/*/*", after));
    assert_eq!(told.recovered, Some(Recovered::Lost(RecoverReason::Epoch)));
    assert_eq!(told.position.unwrap().offset, 3);
    assert_eq!(replayed(&core, Some("bob"), &wanted("Phone/*/*", Recover::Last(9))).1, [3, 4, 5]);
}

#[test]
fn a_reload_changes_the_bounds_of_logs_that_exist() {
    let mut config = config(10);
    let mut core = Core::new(&config);
    publish(&core, 1..=10);
    config.channels.get_mut("Phone").unwrap().history = Some(LogBounds { size: 4, ttl: 10 * MINUTE });
    core.router.replace_policy(core.now, &config);
    assert_eq!(last(&core, 99), [7, 8, 9, 10]);
    pass(&mut core, Duration::ZERO);
    assert_eq!(core.router.size().log_entries, 4);
    config.channels.get_mut("Phone").unwrap().history = Some(LogBounds { size: 4, ttl: MINUTE });
    core.router.replace_policy(core.now, &config);
    pass(&mut core, 2 * MINUTE);
    assert_eq!((last(&core, 99), core.router.size().log_entries), (vec![], 0));
}

#[test]
fn known_ids_are_bounded_in_number_and_time() {
    let mut config = config(10);
    config.history = History { retry: 2 * MINUTE, ids: 3, ..History::default() };
    let mut core = Core::new(&config);
    let phone = core.attach("phone", ALICE);
    let send = |core: &Core, id: &str| {
        let routed = core.send(&phone, &event("Phone/Call/Ring", &format!(r#","id":"{id}","once":true"#)));
        routed.map_err(|it| it.refusal).unwrap().receipt.unwrap().kept.unwrap().is_duplicate
    };
    for (id, is_duplicate) in
        [("a", false), ("b", false), ("c", false), ("a", true), ("d", false), ("b", true), ("a", false)]
    {
        assert_eq!(send(&core, id), is_duplicate, "{id}: the oldest of four is forgotten");
    }
    assert_eq!(core.router.size().known_ids, 3);
    pass(&mut core, 2 * MINUTE);
    assert!(send(&core, "a"), "just in time");
    core.now += Duration::from_millis(1);
    assert!(!send(&core, "a"));
    assert_eq!(core.router.size().known_ids, 1);
}

#[test]
fn one_id_is_known_for_each_log_source_and_user() {
    let core = Core::new(&config(10));
    let service = core.attach("cti", None);
    let send = |session: &Arc<Session>, triple: &str, more: &str| {
        let routed = core.send(session, &event(triple, &format!(r#","id":"1","once":true{more}"#)));
        routed.map_err(|it| it.refusal).unwrap().receipt.unwrap().kept.unwrap().is_duplicate
    };
    for (expected, triple, more) in [
        (false, "Phone/Call/Ring", r#","user":"alice""#),
        (true, "Phone/Call/End", r#","user":"alice""#),
        (false, "Phone/Call/Ring", r#","user":"bob""#),
        (false, "Queue/Note/New", ""),
        (false, "Queue/Note/New", r#","user":"bob""#),
        (true, "Queue/Note/New", ""),
    ] {
        assert_eq!(send(&service, triple, more), expected, "{triple} {more}");
    }
    let (first, second) = (core.attach("phone", ALICE), core.attach("phone", ALICE));
    assert!(!send(&first, "Phone/Call/Ring", ""));
    assert!(send(&second, "Phone/Call/Ring", ""), "another session of the same source and user");
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
