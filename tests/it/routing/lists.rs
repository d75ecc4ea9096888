//! What an operator sees: each list, its filters, and its pages.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use switchboard::config::{Channel, Config, LogBounds, Scope};
use switchboard::router::{
    ApplicationState, End, Filter, OutboxLimits, Removal, RequestState, RetainedItem, SessionRow, SessionSort,
    Sessions, SubscriptionItem,
};
use wire::Triple;
use wire::command::{Role, State, Subscribe};

use crate::support::core::{Core, event};

fn with_channels(channels: &[(&str, Channel)]) -> Core {
    let mut config = Config::default();
    config.channels.extend(channels.iter().map(|(name, channel)| ((*name).to_owned(), *channel)));
    Core::new(&config)
}

fn history(size: usize) -> Channel {
    Channel { history: Some(LogBounds { size, ttl: Duration::from_mins(1) }), ..Channel::default() }
}

fn sessions(core: &Core, filter: &Filter) -> Vec<SessionRow> {
    core.router.list_sessions(filter).iter().map(|session| core.router.session_row(session)).collect()
}

#[test]
fn sessions_have_their_state_and_their_counts() {
    let core = Core::new(&Config::default());
    let phone = core.attach("phone", Some("alice"));
    let crm = core.attach("crm", Some("bob"));
    core.attach("cti", None);
    core.subscribe(&phone, "Phone/*/*");
    core.router.set_state(core.now, &crm, State::Asleep);
    core.send(&core.attach("dialer", Some("alice")), &event("Phone/Call/ringing", "")).unwrap();

    let rows = sessions(&core, &Filter::default());
    assert_eq!(rows.len(), 4);
    let row = |source: &str| rows.iter().find(|row| row.source == source).unwrap();
    let alice = row("phone");
    assert_eq!((alice.user.as_deref(), alice.subscriptions, alice.handlers), (Some("alice"), 1, 0));
    assert_eq!((alice.queue.messages, alice.state, &*alice.proof), (1, ApplicationState::Active, "open"));
    assert_eq!(row("crm").state, ApplicationState::Asleep);
    assert_eq!(row("cti").user, None);
    assert!(core.router.find_session(&phone.id().to_string()).is_some_and(|found| Arc::ptr_eq(&found, &phone)));
    assert!(core.router.find_session("unknown").is_none());
}

#[test]
fn each_filter_leaves_what_has_all_of_it() {
    let core = Core::new(&Config::default());
    for (source, user) in [("phone", Some("alice")), ("phone", Some("bob")), ("crm", Some("alice")), ("cti", None)] {
        core.attach(source, user);
    }
    let check = |filter: Filter, wanted: &[(&str, Option<&str>)]| {
        let rows = sessions(&core, &filter);
        let found: BTreeSet<_> = rows.iter().map(|row| (row.source.as_str(), row.user.as_deref())).collect();
        assert_eq!(found, wanted.iter().copied().collect(), "{filter:?}");
    };
    let text = |text: &str| Some(text.to_owned());
    check(Filter { source: text("phone"), ..Filter::default() }, &[("phone", Some("alice")), ("phone", Some("bob"))]);
    check(Filter { user: text("alice"), ..Filter::default() }, &[("phone", Some("alice")), ("crm", Some("alice"))]);
    check(Filter { source: text("phone"), user: text("bob"), ..Filter::default() }, &[("phone", Some("bob"))]);
    check(Filter { state: text("asleep"), ..Filter::default() }, &[]);
    check(Filter { source: text("Phone"), ..Filter::default() }, &[]);
}

#[test]
fn sessions_can_be_sorted_by_what_is_wrong_with_them() {
    let mut config = Config::default();
    config.channels.insert(
        "Lossy".to_owned(),
        Channel { overflow: switchboard::config::Overflow::DropOldest, ..Channel::default() },
    );
    let core = Core::new(&config);
    let narrow = OutboxLimits { messages: 2, bytes: 1 << 20, refuses: false };
    let idle = core.attach("idle", Some("alice"));
    let lossy = core.attach_with("lossy", Some("alice"), narrow);
    let slow = core.attach("slow", Some("alice"));
    let busy = core.attach("busy", Some("alice"));
    core.subscribe(&lossy, "Lossy/*/*");
    core.subscribe(&slow, "Phone/*/*");
    for _ in 0..5 {
        core.send(&busy, &event("Lossy/A/b", "")).unwrap();
        core.send(&busy, &event("Phone/A/b", "")).unwrap();
    }
    (0..10).for_each(|_| busy.count_received());
    let sample = core.router.sample_sessions(Duration::from_secs(5));
    assert_eq!((sample.sessions, sample.sum, sample.max), (4, 7, 5));

    let first = |sort| {
        let first = core.router.top_sessions(&Filter::default(), sort, 1).pop().unwrap();
        let row = core.router.session_row(&first);
        (row.source, row.dropped, row.rate)
    };
    assert_eq!(first(SessionSort::Since), ("idle".to_owned(), 0, 0.0));
    assert_eq!(first(SessionSort::Queue), ("slow".to_owned(), 0, 0.0));
    assert_eq!(first(SessionSort::Dropped), ("lossy".to_owned(), 3, 0.0));
    assert_eq!(first(SessionSort::Rate), ("busy".to_owned(), 0, 2.0));
    drop(idle);
}

#[test]
fn applications_are_the_sessions_of_a_source_and_user() {
    let core = Core::new(&Config::default());
    for (source, user) in [("phone", Some("alice")), ("phone", Some("alice")), ("phone", Some("bob")), ("cti", None)] {
        core.attach(source, user);
    }
    let rows = core.router.list_applications(&Filter::default());
    let rows: BTreeSet<_> =
        rows.iter().map(|row| (&*row.source, row.user.as_deref(), row.sessions, row.state)).collect();
    let wanted =
        [("cti", None, 1, "active"), ("phone", Some("alice"), 2, "active"), ("phone", Some("bob"), 1, "active")];
    assert_eq!(rows, wanted.into());
}

#[test]
fn subscriptions_are_listed_as_they_were_written() {
    let core = Core::new(&Config::default());
    let phone = core.attach("phone", Some("alice"));
    core.subscribe(&phone, "Phone/*/ringing");
    core.subscribe(&phone, "*/*/*");
    let handler = Role::Handler { answers: true, ordered: true, replies: Vec::new() };
    core.subscribe_as(&phone, &Subscribe::new("Phone/Call/Dial".parse().unwrap(), handler));
    let mut in_group = Subscribe::new("Queue/*/*".parse().unwrap(), Role::Subscriber);
    in_group.group = Some("g".to_owned());
    core.subscribe_as(&phone, &in_group);

    let rows: Vec<_> = core.router.list_subscriptions(&Filter::default()).iter().map(SubscriptionItem::row).collect();
    let mut found: Vec<_> = rows
        .iter()
        .map(|row| (&*row.channel, &*row.topic, &*row.subtopic, row.role, row.group.as_deref(), row.ordered))
        .collect();
    found.sort_unstable();
    let wanted = [
        ("*", "*", "*", "subscriber", None, false),
        ("Phone", "*", "ringing", "subscriber", None, false),
        ("Phone", "Call", "Dial", "handler", None, true),
        ("Queue", "*", "*", "subscriber", Some("g"), false),
    ];
    assert_eq!(found, wanted);
    let of_phone = Filter { channel: Some("Phone".to_owned()), ..Filter::default() };
    assert_eq!(core.router.list_subscriptions(&of_phone).len(), 2);
}

fn handler() -> Role {
    Role::Handler { answers: true, ordered: false, replies: Vec::new() }
}

#[test]
fn pending_requests_say_who_has_them() {
    let core = Core::new(&Config::default());
    let (asker, phone) = (core.attach("crm", Some("alice")), core.attach("phone", Some("alice")));
    core.subscribe_as(&phone, &Subscribe::new("Phone/Call/Dial".parse().unwrap(), handler()));
    core.send(&asker, &event("Phone/Call/Dial", r#","id":"r1","timeout":5000"#)).unwrap();

    let [row] = core.router.list_requests(core.now, &Filter::default()).try_into().unwrap();
    assert_eq!((row.request_id.as_deref(), &*row.source, row.user.as_deref()), (Some("r1"), "crm", Some("alice")));
    assert_eq!((row.state, row.handler), (RequestState::Given, Some(("phone".to_owned(), phone.id()))));
    assert_eq!((row.remaining, row.gather), (Duration::from_secs(5), false));
    core.router.detach(core.now, &asker);
    assert_eq!(core.router.list_requests(core.now, &Filter::default()), []);
}

#[test]
fn channels_are_those_of_the_configuration_and_of_subscriptions() {
    let core = with_channels(&[("Queue", Channel { scope: Scope::Shared, ..history(7) })]);
    let phone = core.attach("phone", Some("alice"));
    core.subscribe(&phone, "Phone/*/*");
    core.subscribe(&phone, "*/*/*");
    core.subscribe_as(&phone, &Subscribe::new("Phone/Call/Dial".parse().unwrap(), handler()));
    let rows = core.router.list_channels(&Filter::default());
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            (&*row.name, row.configured, row.scope, row.history.map(|it| it.size), row.subscriptions, row.handlers)
        })
        .collect();
    assert_eq!(found, [("Phone", false, "user", None, 1, 1), ("Queue", true, "shared", Some(7), 0, 0)]);
}

#[test]
fn retained_values_are_listed_without_their_payload_and_can_be_removed() {
    let core = with_channels(&[("Queue", Channel { scope: Scope::Shared, ..Channel::default() })]);
    let phone = core.attach("phone", Some("alice"));
    core.send(&phone, &event("Phone/Agent/State", r#","retain":true,"data":"ready""#)).unwrap();
    core.send(&phone, &event("Phone/Agent/State", r#","retain":true,"data":"ready","target":"crm""#)).unwrap();
    core.send(&phone, &event("Queue/Calls/Waiting", r#","retain":true,"data":3"#)).unwrap();

    let mut items = core.router.list_retained(&Filter::default());
    items.sort_unstable_by_key(RetainedItem::id);
    let rows: Vec<_> = items.iter().map(|item| core.router.retained_row(item)).collect();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.scope, row.user.as_deref(), row.triple.join("/"), row.source.as_deref(), row.target.as_deref()))
        .collect();
    let wanted = [
        ("shared", None, "Queue/Calls/Waiting".to_owned(), Some("phone"), None),
        ("user", Some("alice"), "Phone/Agent/State".to_owned(), Some("phone"), None),
        ("user", Some("alice"), "Phone/Agent/State".to_owned(), Some("phone"), Some("crm")),
    ];
    assert_eq!(found, wanted);
    assert!(rows.iter().all(|row| row.bytes > 0));

    let remove = |user: Option<&str>, triple: Triple<'_>| match core.router.remove_retained(core.now, user, &triple) {
        Ok(Removal::Removed(count)) => count,
        Ok(Removal::Waits(_)) | Err(_) => panic!("nothing has to be on disk"),
    };
    let state = || Triple::new("Phone", "Agent", "State");
    assert_eq!(remove(Some("bob"), state()), 0);
    assert_eq!(remove(None, state()), 0);
    assert_eq!(remove(Some("alice"), state()), 2);
    assert_eq!(remove(Some("alice"), state()), 0);
    assert_eq!(remove(None, Triple::new("Queue", "Calls", "Waiting")), 1);
    let size = core.router.size();
    assert_eq!((size.retained_values, size.retained_bytes), (0, 0));
}

#[test]
fn logs_have_their_bounds() {
    let core = with_channels(&[("Phone", history(3))]);
    let phone = core.attach("phone", Some("alice"));
    for _ in 0..5 {
        core.send(&phone, &event("Phone/Call/ringing", "")).unwrap();
    }
    let [log] = core.router.list_logs(core.now, &Filter::default()).try_into().unwrap();
    assert_eq!((&*log.channel, log.user.as_deref(), log.durable), ("Phone", Some("alice"), false));
    assert_eq!((log.first, log.last, log.entries), (Some(3), 5, 3));
    assert!(log.bytes > 0 && !log.epoch.is_empty());
    let others = Filter { user: Some("bob".to_owned()), ..Filter::default() };
    assert_eq!(core.router.list_logs(core.now, &others), []);
}

#[test]
fn an_operator_closes_the_sessions_that_have_all_of_what_is_given() {
    let core = Core::new(&Config::default());
    let sessions =
        [core.attach("phone", Some("alice")), core.attach("phone", Some("bob")), core.attach("crm", Some("alice"))];
    let which = Sessions { source: Some("phone".to_owned()), user: Some("alice".to_owned()), id: None };
    assert_eq!(core.router.kick(core.now, &which, "left the desk"), 1);
    let ends: Vec<_> = sessions.iter().map(|session| session.outbox().ended()).collect();
    assert_eq!(ends, [Some(End::Kicked), None, None]);
    assert_eq!(sessions[0].kicked_because().as_deref(), Some("left the desk"));
    // It is ending already.
    assert_eq!(core.router.kick(core.now, &which, "again"), 0);
    let by_id = Sessions { id: Some(sessions[1].id().to_string()), ..Sessions::default() };
    let spread = |count| vec![Duration::from_millis(40); count];
    assert_eq!(core.router.send_away(core.now, &by_id, "maintenance", spread), 1);
    assert_eq!(sessions[1].outbox().taker(0).ended(), Some(End::SentAway));
    let [draining] = core.take(&sessions[1]).try_into().unwrap();
    assert_eq!(draining["data"], json!({"ReconnectAfterMs": 40}));
}
