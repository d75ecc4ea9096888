//! A reload that changes `protected.patterns`: what becomes of handlers, of requests and of events that wait.

use std::sync::Arc;

use serde_json::{Value, json};
use switchboard::auth::{Open, Permission, Permissions};
use switchboard::config::{AuthMode, Channel, Config, Scope};
use switchboard::router::{Reviewed, Session};
use wire::ErrorCode;
use wire::command::{Role, Subscribe};

use crate::support::core::{Core, event};

/// A shared channel `Board`, and these protected patterns.
fn config(protected: &[&str]) -> Config {
    let protected = protected.iter().map(|pattern| pattern.parse().unwrap()).collect();
    let mut config = Config { auth: AuthMode::Tokens, protected, ..Config::default() };
    config.channels.insert("Board".into(), Channel { scope: Scope::Shared, ..Channel::default() });
    config
}

fn core() -> Core {
    Core::new(&config(&[]))
}

/// Puts these protected patterns in force, and nothing else. Returns how many sessions may do more or less.
fn protect(core: &Core, patterns: &[&str]) -> usize {
    core.router.replace_policy(core.now, &config(patterns));
    let Reviewed { ended, changed, .. } = core.router.review(core.now, &Open);
    assert_eq!(ended, 0);
    changed
}

fn handle(core: &Core, session: &Arc<Session>, pattern: &str) {
    let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
    core.subscribe_as(session, &Subscribe::new(pattern.parse().unwrap(), role));
}

fn ask(core: &Core, asker: &Arc<Session>, triple: &str) -> Result<(), ErrorCode> {
    let sent = core.send(asker, &event(triple, &format!(r#","id":"{triple}","timeout":1000"#)));
    sent.map(|_| ()).map_err(|denied| denied.refusal.code)
}

/// The codes of the failures that wait for a requester, each with the request that it ends.
fn failures(core: &Core, asker: &Session) -> Vec<(Value, Value)> {
    let failures = core.take(asker).into_iter();
    failures.map(|it| (it["inReplyTo"].clone(), it["data"]["ErrorCode"].clone())).collect()
}

/// The triples of what waits for a session; of a notice of ended subscriptions also how many ended and were narrowed.
fn triples(core: &Core, session: &Session) -> Vec<String> {
    let triple = |it: Value| {
        let triple = ["channel", "topic", "subtopic"].map(|key| it[key].as_str().unwrap().to_owned()).join("/");
        match &it["data"]["Reason"] {
            Value::String(reason) => {
                let count = |key: &str| it["data"][key].as_array().unwrap().len();
                format!("{triple} {reason} {} {}", count("SubscriptionIds"), count("Narrowed"))
            }
            _ => triple,
        }
    };
    core.take(session).into_iter().map(triple).collect()
}

#[test]
fn a_handler_of_a_triple_that_becomes_protected_ends_without_a_grant() {
    let core = core();
    let asker = core.attach("asker", Some("alice"));
    let desk = core.attach_as("desk", Some("alice"), Permissions::default());
    handle(&core, &desk, "Desk/Get/Pin");
    ask(&core, &asker, "Desk/Get/Pin").unwrap();
    assert_eq!(protect(&core, &["*/Get/pin"]), 1);
    assert_eq!(failures(&core, &asker), [(json!("Desk/Get/Pin"), json!("HANDLER_GONE"))]);
    assert_eq!(triples(&core, &desk), ["Broker/Subscription/Ended RELOADED 1 0"]);
    assert_eq!(core.router.subscriptions(&desk), []);
    assert_eq!(ask(&core, &asker, "Desk/Get/Pin"), Err(ErrorCode::NoHandler));
}

#[test]
fn a_handler_of_a_wider_pattern_loses_what_becomes_protected_and_gets_it_back() {
    let core = core();
    let asker = core.attach("asker", Some("alice"));
    let desk = core.attach_as("desk", Some("alice"), Permissions::default());
    let other = core.attach_as("other", Some("alice"), Permissions::default());
    handle(&core, &desk, "Desk/*/*");
    handle(&core, &other, "Other/*/*");
    ask(&core, &asker, "Desk/Get/Pin").unwrap();
    ask(&core, &asker, "Desk/Get/Name").unwrap();
    assert_eq!(protect(&core, &["Desk/*/Pin"]), 1);
    assert_eq!(failures(&core, &asker), [(json!("Desk/Get/Pin"), json!("HANDLER_GONE"))]);
    assert_eq!(triples(&core, &desk), ["Desk/Get/Name", "Broker/Subscription/Ended RELOADED 0 1"]);
    assert_eq!(ask(&core, &asker, "Desk/Get/Pin"), Err(ErrorCode::NoHandler));

    assert_eq!(protect(&core, &["Desk/*/Pin"]), 0, "nothing has changed");
    assert_eq!(protect(&core, &["Desk/*/Pin", "Desk/Get/Pin"]), 0, "it was protected before");
    assert_eq!(protect(&core, &["*/*/Pin"]), 1, "the other handler alone");
    assert_eq!(triples(&core, &other), ["Broker/Subscription/Ended RELOADED 0 1"]);
    assert_eq!(protect(&core, &[]), 0);
    ask(&core, &asker, "Desk/Get/Pin").unwrap();
    assert_eq!(triples(&core, &desk), ["Desk/Get/Pin"], "without a notice");
}

#[test]
fn a_handler_with_a_grant_stays() {
    let core = core();
    let asker = core.attach("asker", Some("alice"));
    let handle_pins = Permission::Patterns(Arc::from(["*/*/Pin".parse().unwrap()]));
    let granted = || Permissions { handle: handle_pins.clone(), ..Permissions::default() };
    let (desk, service) = (core.attach_as("desk", Some("alice"), granted()), core.attach_as("desk", None, granted()));
    handle(&core, &desk, "Desk/*/*");
    handle(&core, &service, "Crm/Get/Pin");
    ask(&core, &asker, "Desk/Get/Pin").unwrap();
    ask(&core, &asker, "Crm/Get/Pin").unwrap();
    assert_eq!(protect(&core, &["*/*/Pin"]), 0);
    assert_eq!(
        (triples(&core, &desk), triples(&core, &service)),
        (vec!["Desk/Get/Pin".into()], vec!["Crm/Get/Pin".into()])
    );
    ask(&core, &asker, "Desk/Get/Pin").unwrap();
    assert_eq!(triples(&core, &desk), ["Desk/Get/Pin"]);
}

#[test]
fn a_request_that_becomes_protected_waits_for_no_other_user() {
    let core = core();
    let asker = core.attach("asker", Some("alice"));
    let desk = core.attach("desk", Some("bob"));
    handle(&core, &desk, "Board/*/*");
    ask(&core, &asker, "Board/Get/Pin").unwrap();
    ask(&core, &asker, "Board/Get/Name").unwrap();
    protect(&core, &["*/*/Pin"]);
    assert_eq!(failures(&core, &asker), [(json!("Board/Get/Pin"), json!("HANDLER_GONE"))]);
    assert_eq!(triples(&core, &desk), ["Board/Get/Name"]);
}

#[test]
fn a_request_that_becomes_protected_gets_no_turn_of_another_user() {
    let core = core();
    let asker = core.attach("asker", Some("alice"));
    let desk = core.attach("desk", Some("bob"));
    let role = Role::Handler { answers: true, ordered: true, replies: Vec::new() };
    core.subscribe_as(&desk, &Subscribe::new("Board/*/*".parse().unwrap(), role));
    for triple in ["Board/Get/Name", "Board/Get/Pin", "Board/Get/Mail"] {
        ask(&core, &asker, triple).unwrap();
    }
    assert_eq!(triples(&core, &desk), ["Board/Get/Name"], "the others wait for their turn");
    protect(&core, &["*/*/Pin"]);
    core.send(&desk, &event("Board/Get/Name", "")).unwrap();
    assert_eq!(core.take(&asker)[0]["inReplyTo"], "Board/Get/Name");
    assert_eq!(triples(&core, &desk), ["Board/Get/Mail"]);
}

#[test]
fn events_that_wait_are_dropped_if_their_triple_becomes_protected() {
    let core = core();
    let sender = core.attach("sender", Some("alice"));
    let app = core.attach("app", Some("alice"));
    core.subscribe(&app, "*/*/*");
    for triple in ["Desk/Get/Pin", "Desk/Get/Name", "Desk/Get/PIN"] {
        core.send(&sender, &event(triple, "")).unwrap();
    }
    assert_eq!(protect(&core, &["*/Get/Pin"]), 0, "its rights are the same");
    assert_eq!(triples(&core, &app), ["Desk/Get/Name"]);
    core.send(&sender, &event("Desk/Get/Name", "")).unwrap();
    assert_eq!(triples(&core, &app), ["Desk/Get/Name"]);
}
