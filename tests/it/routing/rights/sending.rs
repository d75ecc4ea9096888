//! The right that an envelope needs, and what a refusal says.

use std::sync::Arc;

use switchboard::auth::{Permission, Permissions};
use switchboard::config::{AuthMode, Config, Requests};
use switchboard::router::{Denied, Routed, Session};
use wire::ErrorCode;
use wire::command::{Role, Subscribe};

use crate::support::core::{Core, event};
use crate::support::rights::permissions;

fn handler(answers: bool) -> Role {
    Role::Handler { answers, ordered: false, replies: Vec::new() }
}

/// A router with a user's desk, which handles two triples, and a subscriber to everything.
struct Desk {
    core: Core,
    handler: Arc<Session>,
    all: Arc<Session>,
}

impl Desk {
    fn new() -> Self {
        let only = vec!["Only/*/*".parse().unwrap()];
        let requests = Requests { only, ..Requests::default() };
        let core = Core::new(&Config { requests, auth: AuthMode::Tokens, ..Config::default() });
        let (desk, all) = (core.attach("desk", Some("alice")), core.attach("all", Some("alice")));
        core.subscribe_as(&desk, &Subscribe::new("Phone/Call/Dial".parse().unwrap(), handler(true)));
        core.subscribe_as(&desk, &Subscribe::new("Phone/Call/Beep".parse().unwrap(), handler(false)));
        core.subscribe_as(&desk, &Subscribe::new("Cisco/Agent/Login".parse().unwrap(), handler(true)));
        core.subscribe(&all, "*/*/*");
        Self { core, handler: desk, all }
    }

    fn attach(&self, permissions: Permissions) -> Arc<Session> {
        self.core.attach_as("app", Some("alice"), permissions)
    }

    fn send(&self, session: &Arc<Session>, triple: &str, more: &str) -> Result<Routed, Denied> {
        self.core.send(session, &event(triple, more))
    }

    /// Sends, and says what became of it.
    fn outcome(&self, session: &Arc<Session>, triple: &str, more: &str) -> String {
        match self.send(session, triple, more) {
            Ok(_) => match (self.core.take(&self.handler).len(), self.core.take(&self.all).len()) {
                (1, 0) => "request".to_owned(),
                (0, 1) => "event".to_owned(),
                other => format!("{other:?}"),
            },
            Err(Denied { refusal, is_request }) => {
                assert_eq!((self.core.take(&self.handler).len(), self.core.take(&self.all).len()), (0, 0));
                let arrives = if is_request { "own triple" } else { "Message/Error" };
                format!("{} on {arrives}: {}", refusal.code, refusal.message)
            }
        }
    }
}

const NO_RULE: &str = "no pattern of role 'agent' allows it";

#[test]
fn an_envelope_needs_the_right_for_what_it_is() {
    let desk = Desk::new();
    let both = desk.attach(permissions("publish */*/*; request */*/*"));
    let publish = desk.attach(permissions("publish */*/*"));
    let request = desk.attach(permissions("request */*/*"));
    let neither = desk.attach(permissions("subscribe */*/*; handle */*/*"));
    let refused = |right: &str, triple: &str, arrives| format!("FORBIDDEN on {arrives}: {right} {triple}: {NO_RULE}");
    let (own, error) = ("own triple", "Message/Error");
    let no_handler =
        "NO_HANDLER on own triple: no handler of this triple is connected for this user; letter case counts";
    for (triple, more, by_both, by_publish, by_request, by_neither) in [
        // What only its handler makes a request.
        (
            "Phone/Call/Dial",
            "",
            "request".to_owned(),
            format!(
                "FORBIDDEN on own triple: request Phone/Call/Dial: a handler serves it, so it is a request, and {NO_RULE}"
            ),
            "request".to_owned(),
            refused("publish", "Phone/Call/Dial", error),
        ),
        // A handler that does not answer.
        (
            "Phone/Call/Beep",
            "",
            "request".to_owned(),
            "request".to_owned(),
            refused("publish", "Phone/Call/Beep", own),
            refused("publish", "Phone/Call/Beep", error),
        ),
        // An event.
        (
            "Phone/Call/Ring",
            "",
            "event".to_owned(),
            "event".to_owned(),
            format!("{no_handler}; without a handler it is an event, and publish Phone/Call/Ring: {NO_RULE}"),
            refused("publish", "Phone/Call/Ring", error),
        ),
        (
            "Phone/Call/Ring",
            r#","retain":true"#,
            "event".to_owned(),
            "event".to_owned(),
            refused("publish", "Phone/Call/Ring", error),
            refused("publish", "Phone/Call/Ring", error),
        ),
        // A request whether there is a handler or not.
        (
            "Phone/Call/Ring",
            r#","timeout":100"#,
            no_handler.to_owned(),
            refused("request", "Phone/Call/Ring", own),
            no_handler.to_owned(),
            refused("request", "Phone/Call/Ring", own),
        ),
        (
            "Phone/Call/Beep",
            r#","timeout":100"#,
            "request".to_owned(),
            refused("request", "Phone/Call/Beep", own),
            "request".to_owned(),
            refused("request", "Phone/Call/Beep", own),
        ),
        (
            "Only/Queue/Get",
            "",
            no_handler.to_owned(),
            refused("request", "Only/Queue/Get", own),
            no_handler.to_owned(),
            refused("request", "Only/Queue/Get", own),
        ),
    ] {
        for (session, expected) in
            [(&both, &by_both), (&publish, &by_publish), (&request, &by_request), (&neither, &by_neither)]
        {
            assert_eq!(desk.outcome(session, triple, more), *expected, "{triple} {more}");
        }
    }
}

#[test]
fn a_sender_with_neither_right_cannot_tell_whether_there_is_a_handler() {
    let desk = Desk::new();
    let neither = desk.attach(permissions("subscribe */*/*; publish Sales/*/*; request Sales/*/*"));
    let service = desk.core.attach_as("service", None, permissions("publish Sales/*/*; request Sales/*/*"));
    for (session, more) in [
        (&neither, ""),
        (&neither, r#","id":"a""#),
        (&neither, r#","retain":true"#),
        (&neither, r#","target":"desk""#),
        (&neither, r#","user":"bob""#),
        (&neither, r#","source":"other""#),
        (&neither, r#","once":true,"id":"a""#),
        (&service, ""),
        (&service, r#","user":"alice""#),
    ] {
        let [handled, command, free] = ["Phone/Call/Dial", "Phone/Call/Beep", "Phone/Call/Hold"]
            .map(|triple| desk.outcome(session, triple, more).replace(triple, "T"));
        assert_eq!(handled, free, "{more}");
        assert_eq!(command, free, "{more}");
        assert!(free.contains("on Message/Error"), "{free}");
    }
}

#[test]
fn a_refusal_names_the_pattern_that_denies() {
    let desk = Desk::new();
    let app = desk.attach(permissions("publish Phone/*/*; deny publish phone/Admin/*"));
    assert_eq!(desk.outcome(&app, "PHONE/Call/Ring", ""), "event");
    let words = "the pattern phone/Admin/* in 'deny' of role 'agent' denies it";
    assert_eq!(
        desk.outcome(&app, "Phone/ADMIN/Reset", ""),
        format!("FORBIDDEN on Message/Error: publish Phone/ADMIN/Reset: {words}")
    );
}

#[test]
fn a_reply_needs_no_right() {
    let desk = Desk::new();
    let handlers = [false, true].map(|ordered| {
        let app = desk.attach(permissions("handle Sales/*/*"));
        let role = Role::Handler { answers: true, ordered, replies: Vec::new() };
        let pattern = if ordered { "Sales/Offer/Sign" } else { "Sales/Offer/Make" };
        desk.core.subscribe_as(&app, &Subscribe::new(pattern.parse().unwrap(), role));
        app
    });
    let asker = desk.attach(permissions("request Sales/*/*"));
    for (handler, triple) in handlers.iter().zip(["Sales/Offer/Make", "Sales/Offer/Sign"]) {
        desk.send(&asker, triple, r#","id":"a""#).unwrap();
        let given = desk.core.take(handler);
        let id = given[0]["id"].as_str().unwrap();
        let reply = if triple.ends_with("Make") { format!(r#","inReplyTo":"{id}""#) } else { String::new() };
        desk.send(handler, triple, &reply).unwrap();
        assert_eq!(desk.core.take(&asker)[0]["inReplyTo"], "a", "{triple}");
        let Err(Denied { refusal, .. }) = desk.send(handler, triple, "") else { panic!("an event needs the right") };
        assert_eq!(refusal.code, ErrorCode::Forbidden);
    }
}

#[test]
fn a_protected_triple_needs_the_right_and_the_grant() {
    let desk = Desk::new();
    let login = "Cisco/Agent/Login";
    let granted = |text: &str| Permissions { request: Permission::All, ..permissions(text) };
    let (right, grant) = (desk.attach(permissions("request */*/*")), desk.attach(granted("publish */*/*")));
    let both = desk.attach(granted("request Cisco/*/*"));
    let needs_grant = desk.outcome(&right, login, "");
    assert!(needs_grant.starts_with("FORBIDDEN on own triple: this application may not request"), "{needs_grant}");
    let words = format!("FORBIDDEN on own triple: request {login}: {NO_RULE}");
    assert_eq!(desk.outcome(&grant, login, ""), words);
    assert_eq!(desk.outcome(&both, login, ""), "request");

    let handles = |permissions: Permissions| {
        let app = desk.attach(permissions);
        let wanted = Subscribe::new("Cisco/Agent/*".parse().unwrap(), handler(true));
        let mut narrowed = None;
        let made = desk.core.router.subscribe(desk.core.now, &app, &wanted, |it| {
            narrowed = Some(it.is_narrowed);
            None
        });
        made.map(|()| narrowed.unwrap()).map_err(|refusal| refusal.message.into_owned())
    };
    let may_handle = |text: &str| Permissions {
        handle: Permission::Patterns(Arc::from(["Cisco/*/*".parse().unwrap()])),
        ..permissions(text)
    };
    assert_eq!(handles(permissions("handle Cisco/*/*")), Ok(true), "it handles what is not protected");
    assert_eq!(handles(may_handle("handle Cisco/*/*")), Ok(false));
    assert_eq!(
        handles(may_handle("handle */*/*; deny handle */*/Login")).unwrap_err().split(':').next(),
        Some("handle Cisco/Agent/*")
    );
    assert_eq!(handles(may_handle("subscribe */*/*")), Err(format!("handle Cisco/Agent/*: {NO_RULE}")));
}

#[test]
fn hints_name_only_what_the_sender_may_publish_request_or_subscribe_to() {
    let desk = Desk::new();
    let hint = |permissions: Permissions, triple: &str| {
        let app = desk.attach(permissions);
        match desk.send(&app, triple, r#","id":"a""#) {
            Ok(routed) => routed.receipt.unwrap().hint,
            Err(denied) => {
                assert_eq!(denied.refusal.code, ErrorCode::NoHandler);
                denied.refusal.details().find(|(key, _)| *key == "Hint").map(|(_, hint)| hint.to_string())
            }
        }
    };
    let names_dial = |hint: Option<String>| hint.is_some_and(|hint| hint.contains("Phone/Call/Dial"));
    assert!(names_dial(hint(permissions("publish */*/*"), "Phone/Call/Dail")));
    assert!(names_dial(hint(permissions("publish Phone/Call/Dail; subscribe Phone/*/*"), "Phone/Call/Dail")));
    assert!(names_dial(hint(permissions("request */*/*"), "Phone/Call/Dail")));
    assert!(!names_dial(hint(permissions("publish Phone/Call/Dail; handle */*/*"), "Phone/Call/Dail")));
    assert!(!names_dial(hint(permissions("request */*/*; deny request Phone/Call/Dial"), "Phone/Call/Dail")));
}
