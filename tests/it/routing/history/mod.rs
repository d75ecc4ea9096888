//! The logs of channels with history (docs/protocol.md, History).

mod bounds;
mod reloads;
mod replays;
mod retry;

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
    let denied = core.send(&refused, &event("Phone/Call/Ring", r#","user":"bob""#)).err().unwrap();
    assert_eq!(denied.refusal.code.as_str(), "FORBIDDEN");
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
