//! Rights that change while a session lives: its subscriptions, what waits for it, and what it is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use switchboard::auth::{Permission, Permissions, Users};
use switchboard::config::{AuthMode, Config};
use switchboard::router::{OutboxLimits, Reason, Session};
use wire::command::{Role, Subscribe};

use crate::support::core::{Core, WIDE, event};
use crate::support::rights::permissions;

fn core() -> Core {
    Core::new(&Config { auth: AuthMode::Tokens, ..Config::default() })
}

fn change(core: &Core, session: &Arc<Session>, permissions: Permissions) {
    core.router.change_permissions(core.now, session, permissions, Reason::Renewed);
}

/// What was taken: the notice of ended subscriptions, by pattern, and the triples of everything else.
fn taken(core: &Core, session: &Session, names: &BTreeMap<String, String>) -> (Value, Vec<String>) {
    let mut notice = Value::Null;
    let mut triples = Vec::new();
    for frame in core.take(session) {
        let triple = ["channel", "topic", "subtopic"].map(|key| frame[key].as_str().unwrap().to_owned()).join("/");
        if triple == "Broker/Subscription/Ended" {
            assert!(notice.is_null(), "one notice for one change");
            let named = |key: &str| -> Vec<_> {
                frame["data"][key].as_array().unwrap().iter().map(|id| names[id.as_str().unwrap()].clone()).collect()
            };
            notice = json!([named("SubscriptionIds"), named("Narrowed"), frame["data"]["Reason"]]);
        } else {
            triples.push(triple);
        }
    }
    (notice, triples)
}

/// The patterns of a session's subscriptions by their ids.
fn names(core: &Core, session: &Session) -> BTreeMap<String, String> {
    core.router.subscriptions(session).into_iter().map(|it| (it.id.to_string(), it.pattern.to_string())).collect()
}

fn handler(ordered: bool) -> Role {
    Role::Handler { answers: true, ordered, replies: Vec::new() }
}

#[test]
fn subscriptions_end_are_narrowed_and_become_wider() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    let app = core.attach_as("app", Some("alice"), Permissions::default());
    for pattern in ["Phone/*/*", "*/*/*", "Payroll/Run/*", "Broker/Application/*"] {
        core.subscribe(&app, pattern);
    }
    core.subscribe_as(&app, &Subscribe::new("Crm/*/*".parse().unwrap(), handler(false)));
    core.subscribe_as(&app, &Subscribe::new("Desk/*/*".parse().unwrap(), handler(false)));
    let names = names(&core, &app);
    let all_sent = || {
        for triple in ["Phone/Call/Ring", "Phone/Admin/Reset", "Payroll/Run/Start", "Sales/Lead/New"] {
            core.send(&sender, &event(triple, "")).unwrap();
        }
        taken(&core, &app, &names)
    };
    let all =
        ["Phone/Call/Ring", "Phone/Admin/Reset", "Payroll/Run/Start", "Sales/Lead/New"].map(str::to_owned).to_vec();
    assert_eq!(all_sent(), (Value::Null, all.clone()));

    let agent = "subscribe Phone/*/* Sales/*/*; deny subscribe Phone/Admin/*; handle Crm/*/*";
    change(&core, &app, permissions(agent));
    assert_eq!(
        all_sent(),
        (
            json!([["Payroll/Run/*", "Desk/*/*"], ["Phone/*/*", "*/*/*"], "RENEWED"]),
            vec!["Phone/Call/Ring".into(), "Sales/Lead/New".into()]
        )
    );
    change(&core, &app, permissions(agent));
    assert_eq!(all_sent().0, Value::Null, "nothing has changed");
    change(&core, &app, permissions("subscribe Phone/Call/* Sales/*/*; handle Crm/*/*"));
    assert_eq!(all_sent().0, json!([[], ["Phone/*/*", "*/*/*"], "RENEWED"]), "narrowed once more");
    change(&core, &app, permissions("subscribe Phone/Call/* Sales/Lead/New; handle Crm/*/*"));
    assert_eq!(all_sent().0, json!([[], ["*/*/*"], "RENEWED"]));
    change(&core, &app, permissions("subscribe */*/*; handle */*/*"));
    assert_eq!(all_sent(), (Value::Null, all.clone()), "wider again, and nothing to tell");
    change(&core, &app, permissions("handle */*/*"));
    assert_eq!(all_sent(), (json!([["Phone/*/*", "*/*/*"], [], "RENEWED"]), vec![]));
    assert_eq!(core.router.subscriptions(&app).len(), 2, "the broker's own events, and the handler");
}

#[test]
fn retained_values_are_not_sent_again_when_a_subscription_becomes_wider() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    for triple in ["Phone/Call/State", "Payroll/Run/State"] {
        core.send(&sender, &event(triple, r#","retain":true"#)).unwrap();
    }
    let app = core.attach_as("app", Some("alice"), permissions("subscribe Phone/*/*"));
    core.subscribe(&app, "*/*/*");
    assert_eq!(core.take(&app).len(), 1);
    change(&core, &app, Permissions::default());
    assert_eq!(core.take(&app).len(), 0);
    core.send(&sender, &event("Payroll/Run/State", "")).unwrap();
    assert_eq!(core.take(&app).len(), 1);
}

#[test]
fn retained_values_on_their_way_are_only_those_that_are_still_allowed() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    for number in 0..50 {
        for channel in ["Phone", "Payroll"] {
            core.send(&sender, &event(&format!("{channel}/{number}/State"), r#","retain":true"#)).unwrap();
        }
    }
    let app = core.attach_as("app", Some("alice"), Permissions::default());
    core.subscribe(&app, "*/*/*");
    let mut frames = Vec::new();
    core.take_some(&app, 10, &mut frames);
    change(&core, &app, permissions("subscribe Phone/*/*"));
    let rest = core.take(&app);
    let channels: Vec<_> = rest.iter().filter_map(|it| it["channel"].as_str()).collect();
    assert_eq!(channels.iter().filter(|channel| **channel == "Phone").count(), 50);
    assert!(!channels.contains(&"Payroll"));
}

#[test]
fn events_that_wait_are_dropped_if_they_are_no_longer_allowed_and_replies_are_not() {
    let core = core();
    let (sender, desk) = (core.attach("sender", Some("alice")), core.attach("desk", Some("alice")));
    let app = core.attach_as("app", Some("alice"), Permissions::default());
    core.subscribe(&app, "*/*/*");
    core.subscribe_as(&desk, &Subscribe::new("Payroll/Run/Get".parse().unwrap(), handler(false)));
    let names = names(&core, &app);
    core.send(&sender, &event("Payroll/Run/Start", "")).unwrap();
    core.send(&sender, &event("Phone/Call/Ring", "")).unwrap();
    // Without an id, the reply looks like an event.
    core.send(&app, &event("Payroll/Run/Get", "")).unwrap();
    let given = core.take(&desk);
    core.send(&desk, &event("Payroll/Run/Got", &format!(r#","inReplyTo":{}"#, given[0]["id"]))).unwrap();
    core.send(&sender, &event("Payroll/Run/End", "")).unwrap();
    core.send(&sender, &event("Phone/Call/End", "")).unwrap();
    change(&core, &app, permissions("subscribe Phone/*/*"));
    let (notice, triples) = taken(&core, &app, &names);
    assert_eq!(triples, ["Phone/Call/Ring", "Payroll/Run/Got", "Phone/Call/End"]);
    assert_eq!(notice, json!([[], ["*/*/*"], "RENEWED"]));
}

#[test]
fn a_queue_that_becomes_short_relieves_its_publishers() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    let limits = OutboxLimits { messages: 10, ..WIDE };
    let app = core.attach_with("app", Some("alice"), limits);
    core.subscribe(&app, "*/*/*");
    for _ in 0..6 {
        core.send(&sender, &event("Payroll/Run/Start", "")).unwrap();
    }
    let (reliefs, _) = app.outbox().begin_wait(core.now);
    assert!(!app.outbox().is_relieved_since(reliefs));
    change(&core, &app, permissions("subscribe Phone/*/*"));
    assert!(app.outbox().is_relieved_since(reliefs));
    assert_eq!(app.outbox().depth().messages, 1, "the notice");
}

#[test]
fn the_notice_of_a_change_finds_room_in_a_queue_that_is_full_of_what_is_dropped() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    let app = core.attach_with("app", Some("alice"), OutboxLimits { messages: 10, ..WIDE });
    core.subscribe(&app, "*/*/*");
    let names = names(&core, &app);
    core.send(&sender, &event("Phone/Call/Ring", "")).unwrap();
    for _ in 1..10 {
        core.send(&sender, &event("Payroll/Run/Start", "")).unwrap();
    }
    assert_eq!(app.outbox().depth().messages, app.outbox().depth().messages_max);
    change(&core, &app, permissions("subscribe Phone/*/*"));
    assert_eq!(app.outbox().ended(), None);
    assert_eq!(taken(&core, &app, &names), (json!([[], ["*/*/*"], "RENEWED"]), vec!["Phone/Call/Ring".into()]));
}

#[test]
fn a_request_that_waits_is_given_to_another_handler_or_fails() {
    for ordered in [false, true] {
        let core = core();
        let asker = core.attach("asker", Some("alice"));
        let first = core.attach_as("first", Some("alice"), Permissions::default());
        core.subscribe_as(&first, &Subscribe::new("Crm/Case/Get".parse().unwrap(), handler(ordered)));
        let send = |more: &str| drop(core.send(&asker, &event("Crm/Case/Get", more)).unwrap());
        send(r#","id":"sent""#);
        let sent = core.take(&first);
        if ordered {
            // These wait for the turn, not in the queue.
            send(r#","id":"a""#);
        } else {
            send(r#","id":"a""#);
            send(r#","id":"b","idempotent":true"#);
        }
        let second = core.attach("second", Some("alice"));
        core.subscribe_as(&second, &Subscribe::new("Crm/Case/Get".parse().unwrap(), handler(false)));
        change(&core, &first, permissions("subscribe */*/*"));
        let failed = core.take(&asker);
        assert_eq!(failed.len(), 1);
        assert_eq!((&failed[0]["inReplyTo"], &failed[0]["data"]["ErrorCode"]), (&json!("a"), &json!("HANDLER_GONE")));
        let given: Vec<_> = core.take(&second).iter().map(|it| it["requestId"].clone()).collect();
        assert_eq!(given, if ordered { vec![] } else { vec![json!("b")] });
        let notices = core.take(&first);
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0]["subtopic"], "Ended");
        // What it was sent before, it may still answer.
        let id = &sent[0]["id"];
        core.send(&first, &event("Crm/Case/Got", &format!(r#","inReplyTo":{id}"#))).unwrap();
        assert_eq!(core.take(&asker)[0]["inReplyTo"], "sent");
        send(r#","id":"c""#);
        assert_eq!(core.take(&second).len(), 1);
    }
}

#[test]
fn a_handler_that_loses_a_grant_keeps_the_rest_of_its_pattern() {
    let core = core();
    let login: Permission = Permission::Patterns(Arc::from(["Cisco/Agent/Login".parse().unwrap()]));
    let granted = Permissions { handle: login, ..Permissions::default() };
    let asker = core.attach("asker", Some("alice"));
    let cti = core.attach_as("cti", Some("alice"), granted);
    core.subscribe_as(&cti, &Subscribe::new("Cisco/Agent/*".parse().unwrap(), handler(true)));
    let names = names(&core, &cti);
    let send = |triple: &str, id: &str| core.send(&asker, &event(triple, &format!(r#","id":"{id}""#))).map(|_| ());
    send("Cisco/Agent/Login", "a").unwrap();
    change(&core, &cti, Permissions::default());
    assert_eq!(core.take(&asker)[0]["data"]["ErrorCode"], "HANDLER_GONE");
    assert_eq!(taken(&core, &cti, &names), (json!([[], ["Cisco/Agent/*"], "RENEWED"]), vec![]));
    assert!(send("Cisco/Agent/Login", "b").is_err());
    // The request that it never saw does not keep its turn.
    send("Cisco/Agent/State", "c").unwrap();
    assert_eq!(core.take(&cti).len(), 1);
}

#[test]
fn an_observer_whose_list_becomes_shorter_sees_no_more_of_the_others() {
    let core = core();
    let [ann, ben] = ["ann", "ben"].map(|user| core.attach("phone", Some(user)));
    let observing =
        |users: &[&str]| Permissions { observe: Users::of(users.iter().copied()), ..Permissions::default() };
    let limits = OutboxLimits { messages: 10, ..WIDE };
    let boss = core.attach_with("wall", Some("boss"), limits);
    change(&core, &boss, observing(&["ann", "ben"]));
    let mut wanted = Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber);
    for (pattern, user) in [("Phone/*/*", "*"), ("Phone/Call/*", "ben"), ("Phone/Call/*", "ann"), ("Broker/*/*", "*")] {
        wanted.pattern = pattern.parse().unwrap();
        wanted.user = Some(user.into());
        core.subscribe_as(&boss, &wanted);
    }
    let names = names(&core, &boss);
    for agent in [&ann, &ben] {
        core.send(agent, &event("Phone/Call/Ring", r#","data":"waits""#)).unwrap();
    }
    // The last ones are held back, because the queue is over half.
    let joined: Vec<_> = ["ann", "ben"].repeat(4).iter().map(|user| core.attach("visitor", Some(user))).collect();
    change(&core, &boss, observing(&["ann"]));
    for agent in [&ann, &ben] {
        core.send(agent, &event("Phone/Call/Ring", r#","data":"live""#)).unwrap();
    }
    let frames = core.take(&boss);
    let ended: Vec<_> = frames.iter().filter(|it| it["subtopic"] == "Ended").collect();
    assert_eq!(ended.len(), 1);
    let of = |key: &str| -> Vec<&str> {
        ended[0]["data"][key].as_array().unwrap().iter().map(|id| names[id.as_str().unwrap()].as_str()).collect()
    };
    assert_eq!((of("SubscriptionIds"), of("Narrowed")), (vec!["Phone/Call/*"], vec!["Phone/*/*", "Broker/*/*"]));
    let rings: Vec<_> =
        frames.iter().filter(|it| it["subtopic"] == "Ring").map(|it| (&it["user"], &it["data"])).collect();
    assert_eq!(rings, [(&json!("ann"), &json!("waits")), (&json!("ann"), &json!("live"))]);
    let seen: Vec<_> = frames.iter().filter(|it| it["subtopic"] == "Joined").map(|it| &it["data"]["User"]).collect();
    assert_eq!(seen, [&json!("ann"); 4]);
    drop(joined);
}

#[test]
fn a_service_whose_users_become_fewer_gets_nothing_of_the_others() {
    let core = core();
    let [ann, ben] = ["ann", "ben"].map(|user| core.attach("phone", Some(user)));
    let service = core.attach_as("recorder", None, Permissions::default());
    core.subscribe(&service, "*/*/*");
    core.subscribe_as(&service, &Subscribe::new("Crm/Case/Get".parse().unwrap(), handler(false)));
    let names = names(&core, &service);
    let send = |agent, triple: &str| core.send(agent, &event(triple, r#","id":"a""#)).map(|_| ());
    for agent in [&ann, &ben] {
        send(agent, "Phone/Call/Ring").unwrap();
        send(agent, "Crm/Case/Get").unwrap();
    }
    change(&core, &service, Permissions { users: Users::of(["ann"]), ..Permissions::default() });
    let frames = core.take(&service);
    let users: Vec<_> = frames.iter().filter_map(|it| it["user"].as_str()).collect();
    assert_eq!(users, ["ann", "ann"]);
    let notice = frames.iter().find(|it| it["subtopic"] == "Ended").unwrap();
    assert_eq!(notice["data"]["Narrowed"].as_array().unwrap().len(), names.len());
    assert_eq!(core.take(&ben)[0]["data"]["ErrorCode"], "HANDLER_GONE");
    assert!(send(&ann, "Crm/Case/Get").is_ok());
    // Nobody handles it for this user, so it is an event.
    assert!(send(&ben, "Crm/Case/Get").is_ok());
    assert_eq!(core.take(&service).len(), 1);
}

#[test]
fn a_sender_has_its_new_rights_at_once() {
    let core = core();
    let app = core.attach_as("app", Some("alice"), Permissions::default());
    let sends = || core.send(&app, &event("Phone/Call/Ring", "")).is_ok();
    assert!(sends());
    change(&core, &app, permissions("publish Sales/*/*"));
    assert!(!sends());
    change(&core, &app, Permissions::default());
    assert!(sends());
}
