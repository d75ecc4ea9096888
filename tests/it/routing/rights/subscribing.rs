//! What a subscription brings to a session with a restricted right to subscribe.

use std::sync::Arc;

use switchboard::auth::Permissions;
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::Session;
use wire::command::{Role, Subscribe, SubscriptionFilter};
use wire::{DecodeLimits, ErrorCode, decode};

use crate::support::core::{Core, event};
use crate::support::rights::permissions;

/// A shared channel `Board`, a channel `Fold` that ignores case, and every other one scoped to a user.
fn core() -> Core {
    let mut config = Config::default();
    config.channels.insert("Board".into(), Channel { scope: Scope::Shared, ..Channel::default() });
    config.channels.insert("Fold".into(), Channel { fold_case: true, ..Channel::default() });
    Core::new(&config)
}

/// Subscribes; whether the subscription is narrowed, or the refusal.
fn subscribe(core: &Core, session: &Arc<Session>, wanted: &Subscribe) -> Result<bool, String> {
    let mut narrowed = None;
    let made = core.router.subscribe(core.now, session, wanted, |it| {
        narrowed = Some(it.is_narrowed);
        None
    });
    made.map(|()| narrowed.unwrap()).map_err(|refusal| {
        assert_eq!(refusal.code, ErrorCode::Forbidden);
        refusal.message.into_owned()
    })
}

fn pattern(text: &str) -> Subscribe {
    Subscribe::new(text.parse().unwrap(), Role::Subscriber)
}

/// The triples of what waits for a session.
fn triples(core: &Core, session: &Session) -> Vec<String> {
    let part = |event: &serde_json::Value, key: &str| event[key].as_str().unwrap().to_owned();
    let event = |it| ["channel", "topic", "subtopic"].map(|key| part(it, key)).join("/");
    core.take(session).iter().map(event).collect()
}

const AGENT: &str = "subscribe Phone/*/* Board/Queue/* Fold/*/*; deny subscribe Phone/Admin/* */*/Secret";

#[test]
fn a_subscription_is_accepted_whole_or_narrowed_or_refused() {
    let core = core();
    let made = |wanted: &str| {
        let session = core.attach_as("app", Some("alice"), permissions(AGENT));
        subscribe(&core, &session, &pattern(wanted))
    };
    assert_eq!(made("Phone/Call/Ring"), Ok(false));
    assert_eq!(made("PHONE/call/Ring"), Ok(false));
    assert_eq!(made("Phone/*/Ring"), Ok(true), "Phone/Admin/Ring is cut off");
    assert_eq!(made("*/*/*"), Ok(true));
    assert_eq!(made("Board/*/Depth"), Ok(true));
    assert_eq!(made("Payroll/*/*"), Err("subscribe Payroll/*/*: no pattern of role 'agent' allows it".into()));
    let denied = "the pattern Phone/Admin/* in 'deny' of role 'agent' denies it";
    assert_eq!(made("Phone/Admin/*"), Err(format!("subscribe Phone/Admin/*: {denied}")));
    assert_eq!(made("Broker/Application/*"), Ok(false), "the broker's own events need no right");
    let again = core.attach_as("app", Some("alice"), permissions(AGENT));
    assert_eq!(subscribe(&core, &again, &pattern("*/*/*")), subscribe(&core, &again, &pattern("*/*/*")));
}

#[test]
fn a_handler_needs_its_whole_pattern_and_only_the_right_to_handle() {
    let core = core();
    let made = |rights: &str, wanted: &str| {
        let session = core.attach_as("app", Some("alice"), permissions(rights));
        let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
        subscribe(&core, &session, &Subscribe::new(wanted.parse().unwrap(), role))
    };
    let none = |pattern: &str| Err(format!("handle {pattern}: no pattern of role 'agent' allows it"));
    assert_eq!(made("handle Phone/*/*", "phone/Call/*"), Ok(false));
    assert_eq!(made("handle Phone/Call/*", "Phone/*/*"), none("Phone/*/*"));
    assert_eq!(made("subscribe */*/*", "Phone/Call/*"), none("Phone/Call/*"));
    let denied = "the pattern */Admin/* in 'deny' of role 'agent' denies it";
    assert_eq!(
        made("handle Phone/*/*; deny handle */Admin/*", "Phone/*/*"),
        Err(format!("handle Phone/*/*: {denied}"))
    );
    assert_eq!(made("handle Phone/*/*; deny handle */Admin/*", "Phone/Call/*"), Ok(false));
}

#[test]
fn live_events_reach_a_subscription_only_where_the_right_allows_them() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    let app = core.attach_as("app", Some("alice"), permissions(AGENT));
    assert_eq!(subscribe(&core, &app, &pattern("*/*/*")), Ok(true));
    let sent = [
        "Phone/Call/Ring",
        "PHONE/Call/Ring",
        "Phone/admin/Reset",
        "Phone/Call/SECRET",
        "Payroll/Run/Start",
        "Board/Queue/Depth",
        "board/queue/Depth",
        "Board/Note/Added",
        "Fold/a/B",
        "fold/A/b",
        "Fold/A/secret",
    ];
    for triple in sent {
        core.send(&sender, &event(triple, "")).unwrap();
    }
    let received =
        ["Phone/Call/Ring", "PHONE/Call/Ring", "Board/Queue/Depth", "board/queue/Depth", "Fold/a/B", "fold/A/b"];
    assert_eq!(triples(&core, &app), received);
}

#[test]
fn a_receipt_does_not_count_receivers_that_may_not_receive() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    let app = core.attach_as("app", Some("alice"), permissions(AGENT));
    core.subscribe(&app, "*/*/*");
    let receivers = |triple| core.send(&sender, &event(triple, r#","id":"a""#)).unwrap().receipt.unwrap().receivers;
    assert_eq!((receivers("Phone/Call/Ring"), receivers("Phone/Admin/Reset")), (1, 0));
}

#[test]
fn retained_values_reach_a_subscription_only_where_the_right_allows_them() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    for triple in ["Phone/Call/State", "Phone/Admin/State", "Payroll/Run/State", "Board/Queue/State", "Fold/A/Secret"] {
        core.send(&sender, &event(triple, r#","retain":true"#)).unwrap();
    }
    let app = core.attach_as("app", Some("alice"), permissions(AGENT));
    core.subscribe(&app, "*/*/*");
    assert_eq!(triples(&core, &app), ["Phone/Call/State", "Board/Queue/State"]);
}

#[test]
fn a_group_chooses_among_the_members_that_may_receive() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    let member = |permissions: Permissions| {
        let session = core.attach_as("worker", Some("alice"), permissions);
        let mut wanted = pattern("*/*/*");
        wanted.group = Some("workers".into());
        core.subscribe_as(&session, &wanted);
        session
    };
    let (agent, other) = (member(permissions(AGENT)), member(permissions("subscribe Payroll/*/*")));
    for triple in ["Phone/Call/Ring", "Payroll/Run/Start", "Phone/Call/End", "Sales/Lead/New"].repeat(3) {
        core.send(&sender, &event(triple, "")).unwrap();
    }
    assert_eq!(triples(&core, &agent), ["Phone/Call/Ring", "Phone/Call/End"].repeat(3));
    assert_eq!(triples(&core, &other), ["Payroll/Run/Start"].repeat(3));
}

#[test]
fn a_subscription_that_ends_takes_no_event_from_another_one() {
    for ends in ["Phone/*/*", "*/*/*", "*/Call/Ring"] {
        let core = core();
        let sender = core.attach("sender", Some("alice"));
        let app = core.attach_as("app", Some("alice"), permissions(AGENT));
        // All are narrowed, so each delivery is checked.
        for pattern in ["Phone/*/*", "*/*/*", "*/Call/Ring"] {
            core.subscribe(&app, pattern);
        }
        let text = event("Phone/Call/Ring", "");
        let envelope = decode(&text, DecodeLimits::default()).unwrap();
        let decision = core.router.decide(&sender, &envelope);
        let filter = SubscriptionFilter { pattern: ends.parse().unwrap(), role: None, group: None, user: None };
        core.router.unsubscribe_matching(core.now, &app, &filter).unwrap();
        let routed = core.router.deliver(core.now, &sender, &envelope, decision).unwrap();
        assert_eq!((triples(&core, &app).len(), routed.receipt.map(|it| it.receivers)), (1, Some(1)), "{ends}");
    }
}
