//! What the router records, and what it never does.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::{Config, LogBounds};
use switchboard::router::{Outbox, OutboxLimits, Registration};
use switchboard::telemetry::recorder::{Filter, Recorder, Row};
use wire::ErrorCode;
use wire::command::{Role, State, Subscribe};

use crate::support::core::{Core, event};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A router with a recorder. The channel `Board` has history.
pub(super) fn core() -> Core {
    let mut config = Config::default();
    let board = config.channels.entry("Board".into()).or_default();
    board.history = Some(LogBounds { size: 10, ttl: Duration::from_mins(1) });
    let core = Core::new(&config);
    let recorder = Recorder::for_workers(core.now, SystemTime::UNIX_EPOCH, 8 << 20, 2);
    Core { router: core.router.with_recorder(Arc::new(recorder)), now: core.now }
}

pub(super) fn rows(core: &Core) -> Vec<Row> {
    core.router.recorder().read(core.now, &Filter::default(), usize::MAX).items
}

/// The rows as JSON, without what differs from run to run.
fn shown(core: &Core) -> Vec<Value> {
    let rows = rows(core).into_iter().map(|row| serde_json::to_value(row).unwrap());
    let without = |mut row: Value| {
        let fields = row.as_object_mut().unwrap();
        for key in ["at", "session", "subscriptionId", "requestId", "handlerSession", "user", "handlerUser"] {
            fields.remove(key);
        }
        row
    };
    rows.map(without).collect()
}

pub(super) fn handler(core: &Core, session: &Arc<switchboard::router::Session>, pattern: &str) {
    let role = Role::Handler { answers: true, ordered: false, replies: vec![] };
    core.subscribe_as(session, &Subscribe::new(pattern.parse().unwrap(), role));
}

#[test]
fn the_life_of_a_session_is_recorded() {
    let core = core();
    let phone = core.attach("phone", Some("alice"));
    core.subscribe(&phone, "Sales/*/*");
    handler(&core, &phone, "Phone/Call/Dial");
    core.router.set_state(core.now, &phone, State::Asleep);
    core.unsubscribe_all(&phone);
    core.router.detach(core.now, &phone);
    let pattern = |channel: &str, topic: &str, subtopic: &str, what: &str, more: Value| {
        let mut row =
            json!({"what": what, "source": "phone", "channel": channel, "topic": topic, "subtopic": subtopic});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let expected = [
        json!({"what": "registered", "source": "phone"}),
        pattern("Sales", "*", "*", "subscribed", json!({"role": "subscriber"})),
        pattern("Phone", "Call", "Dial", "subscribed", json!({"role": "handler"})),
        json!({"what": "state", "source": "phone", "state": "asleep"}),
        pattern("Sales", "*", "*", "unsubscribed", json!({"reason": "unsubscribed"})),
        pattern("Phone", "Call", "Dial", "unsubscribed", json!({"reason": "unsubscribed"})),
        json!({"what": "closed", "source": "phone", "reason": "unregistered"}),
    ];
    assert_eq!(shown(&core), expected);
    assert!(rows(&core).iter().all(|row| row.user.as_deref() == Some("alice") && row.session.is_some()));
}

#[test]
fn a_call_over_http_is_recorded_by_what_it_sends_alone() {
    let core = core();
    let identity = Identity::unproved(Principal::Service, Permissions::all());
    let (source, outbox) = ("crm".to_owned(), Outbox::refusing());
    let registration = Registration { source, identity, echo: false, address: None, outbox, will: None };
    let limits = OutboxLimits { messages: 1, bytes: 1, refuses: true };
    let call = core.router.attach_call(core.now, registration, limits, core.router.reloads()).unwrap().unwrap();
    core.send(&call, &event("Sales/Call/Ring", r#","user":"alice""#)).unwrap();
    core.router.detach(core.now, &call);
    assert_eq!(rows(&core).iter().map(|row| row.what).collect::<Vec<_>>(), ["event"]);
}

#[test]
fn a_request_is_recorded_when_it_ends_with_its_outcome_and_latency() {
    let mut core = core();
    let (phone, crm) = (core.attach("phone", Some("alice")), core.attach("crm", Some("alice")));
    handler(&core, &crm, "Crm/Contact/Find");
    let ask = |core: &Core, id: &str| {
        let more = format!(r#","id":"{id}","timeout":1000,"traceparent":"{TRACE}","data":"hunter2""#);
        core.send(&phone, &event("Crm/Contact/Find", &more)).unwrap();
        core.take(&crm).pop().unwrap()["id"].as_str().unwrap().to_owned()
    };
    let given = ask(&core, "one");
    assert!(!rows(&core).iter().any(|row| row.what == "request"), "it has not ended");
    core.now += Duration::from_millis(12);
    core.send(&crm, &event("Crm/Contact/Find", &format!(r#","inReplyTo":"{given}""#))).unwrap();
    ask(&core, "two");
    core.now += Duration::from_secs(1);
    core.router.expire(core.now);
    ask(&core, "three");
    core.router.cancel(core.now, &phone, "three").unwrap();
    ask(&core, "four");
    core.router.detach(core.now, &crm);

    let requests: Vec<_> = rows(&core).into_iter().filter(|row| row.what == "request").collect();
    let facts: Vec<_> = requests.iter().map(|it| (it.id.as_deref(), it.outcome, it.latency_ms, it.code)).collect();
    let expected = [
        (Some("one"), Some("answered"), Some(12.0), None),
        (Some("two"), Some("timeout"), Some(1000.0), Some("REQUEST_TIMEOUT")),
        (Some("three"), Some("cancelled"), Some(0.0), Some("REQUEST_CANCELLED")),
        (Some("four"), Some("handler_gone"), Some(0.0), Some("HANDLER_GONE")),
    ];
    assert_eq!(facts, expected);
    for request in &requests {
        assert_eq!((request.handler.as_deref(), request.traceparent.as_deref()), (Some("crm"), Some(TRACE)));
    }
    assert_eq!(requests[0].request_id.as_deref(), Some(&*given));
    let by_id = |id: &str| {
        let filter = Filter { id: Some(id.to_owned()), ..Filter::default() };
        core.router.recorder().read(core.now, &filter, 10).items
    };
    assert_eq!(by_id("one"), by_id(&given), "the sender's id and the broker's find the same");
    assert_eq!(by_id("one").len(), 1);
}

#[test]
fn an_event_is_recorded_with_its_receivers_size_and_place_in_the_log() {
    let core = core();
    let (phone, wall) = (core.attach("phone", Some("alice")), core.attach("wall", Some("alice")));
    core.subscribe(&wall, "Board/*/*");
    let (first, second) = (event("Board/Queue/Depth", r#","id":"a","once":true"#), event("Sales/Call/Ring", ""));
    for text in [&first, &first, &second] {
        core.send(&phone, text).unwrap();
    }
    let rows: Vec<_> = rows(&core).into_iter().filter(|row| row.what == "event").collect();
    let facts: Vec<_> = rows.iter().map(|it| (it.receivers, it.bytes, it.offset, it.duplicate)).collect();
    let (bytes, other) = (u32::try_from(first.len()).ok(), u32::try_from(second.len()).ok());
    assert_eq!(
        facts,
        [(Some(1), bytes, Some(1), false), (Some(1), bytes, Some(1), true), (Some(0), other, None, false)]
    );
}

#[test]
fn an_event_is_recorded_on_its_triple_as_it_was_sent_whatever_its_receivers_name() {
    let mut config = Config::default();
    config.channels.entry("Desk".into()).or_default().fold_case = true;
    let core = Core::new(&config);
    let recorder = Recorder::for_workers(core.now, SystemTime::UNIX_EPOCH, 8 << 20, 2);
    let core = Core { router: core.router.with_recorder(Arc::new(recorder)), now: core.now };
    let [alice, bob] = ["alice", "bob"].map(|user| core.attach("phone", Some(user)));
    for pattern in ["Sales/Call/Ring", "Sales/*/*", "Desk/Lamp/On", "*/Lamp/Off"] {
        core.subscribe(&alice, pattern);
    }
    // Named by alice's subscription, by nobody's of bob's, and in a channel that compares without regard to case.
    let sent = ["Sales/Call/Ring", "Sales/Call/Held", "Desk/Lamp/On", "Desk/LAMP/on", "Desk/lamp/OFF"];
    for triple in sent {
        for sender in [&alice, &bob, &alice] {
            core.send(sender, &event(triple, "")).unwrap();
        }
    }
    let rows = rows(&core).into_iter().filter(|row| row.what == "event");
    let triple = |row: Row| [row.channel, row.topic, row.subtopic].map(Option::unwrap).join("/");
    let expected: Vec<_> = sent.iter().flat_map(|triple| [*triple; 3]).collect();
    assert_eq!(rows.map(triple).collect::<Vec<_>>(), expected);
}

#[test]
fn a_refusal_is_recorded_with_its_code_and_of_a_flood_the_number() {
    let mut core = core();
    let phone = core.attach("phone", Some("alice"));
    for _ in 0..100 {
        let denied = core.send(&phone, &event("Sales/Call/Ring", r#","id":"x","user":"bob""#));
        assert!(denied.is_err_and(|denied| denied.refusal.code == ErrorCode::Forbidden));
    }
    core.now += Duration::from_secs(1);
    let rows = rows(&core);
    let refused: Vec<_> = rows.iter().filter(|row| row.code == Some("FORBIDDEN")).collect();
    assert_eq!(refused.len(), 64);
    assert!(refused.iter().all(|row| row.id.as_deref() == Some("x") && row.channel.as_deref() == Some("Sales")));
    assert_eq!(rows.iter().filter_map(|row| row.count).collect::<Vec<_>>(), [36]);
}

#[test]
fn nothing_of_a_payload_and_no_size_of_a_protected_message_is_recorded() {
    let core = core();
    let phone = core.attach("phone", Some("alice"));
    let cisco = core.attach_as("cisco", Some("alice"), Permissions::all());
    core.subscribe(&cisco, "Sales/*/*");
    handler(&core, &cisco, "Cisco/Agent/Login");
    core.send(&phone, &event("Sales/Call/Ring", r#","data":"hunter2""#)).unwrap();
    core.send(&phone, &event("Cisco/Agent/Login", r#","id":"p","data":{"Password":"hunter2"}"#)).unwrap();
    let request = core.take(&cisco).pop().unwrap();
    let reply = |id: &str| event("Cisco/Agent/Login", &format!(r#","inReplyTo":"{id}","data":"hunter2""#));
    core.send(&cisco, &reply(request["id"].as_str().unwrap())).unwrap();
    core.send(&cisco, &reply("rAAAAAAAA")).err().unwrap();
    core.send(&phone, &event("Cisco/Agent/Login", r#","retain":true,"data":"hunter2""#)).err().unwrap();
    let rows = rows(&core);
    let text = serde_json::to_string(&rows).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let sized = rows.iter().filter(|row| row.bytes.is_some()).map(|row| row.channel.as_deref().unwrap());
    assert_eq!(sized.collect::<Vec<_>>(), ["Sales"]);
    assert!(rows.iter().any(|row| row.outcome == Some("answered")), "{text}");
}
