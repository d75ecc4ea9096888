//! What a session is told that asks about itself as the sender: nothing that it may not know.

use serde_json::Value;
use switchboard::auth::{Permission, Permissions};
use switchboard::router::Reason;
use switchboard::router::explain::{About, Explanation};
use wire::CloseCode;

use super::desk::{Desk, handler, ordinary, supervisor};
use super::summary;
use crate::support::rights::permissions;

fn text(answer: &Explanation) -> String {
    answer.on_the_wire().to_string()
}

/// Checks the keys of all objects in a value.
fn check_keys(value: &Value) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| {
            assert!(key.starts_with(|first: char| first.is_ascii_uppercase()), "{key}");
            check_keys(value);
        }),
        Value::Array(items) => items.iter().for_each(check_keys),
        _ => {}
    }
}

#[test]
fn the_wire_has_keys_in_pascal_case() {
    let desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Phone/call/*");
    let answer = desk.explain_to(&desk.a, "Phone/Call/Ringing", "", None).on_the_wire();
    check_keys(&answer);
    assert_eq!(answer["Others"][1]["Nearest"]["Name"], "Phone/call/*");
}

#[test]
fn sessions_of_other_users_are_not_shown() {
    let desk = Desk::new();
    let bobs = desk.core.attach_as("bobs-screenpop", Some("bob"), supervisor());
    desk.core.subscribe(&bobs, "*/*/*");
    desk.subscribe_with(&bobs, "*/*/*", |it| it.user = Some("alice".into()));
    let carols = desk.core.attach_as("carols-screenpop", Some("carol"), ordinary());
    desk.close(&carols, CloseCode::Unauthenticated);

    let event = desk.explain_to(&desk.a, "Phone/Call/Ringing", "", None);
    assert!(!text(&event).contains("bob"), "{}", text(&event));
    assert_eq!(event.more_receivers, 0, "nobody learns that an observer watches");
    let shared = desk.explain_to(&desk.a, "Queue/Stats/Waiting", "", None);
    assert!(!text(&shared).contains("bob"), "{}", text(&shared));
    assert_eq!((shared.receives.len(), shared.more_receivers), (0, 1), "on a shared channel the rest is a number");

    // One that is there cannot be told from one that is not, nor from one that has left.
    let asked = |source, user| {
        let answer = desk.explain_to(&desk.a, "Phone/Call/Ringing", "", Some(About { source, user: Some(user) }));
        text(&answer).replace(source, "S").replace(user, "U")
    };
    let nobody = asked("nobody", "dave");
    assert_eq!(asked("bobs-screenpop", "bob"), nobody);
    assert_eq!(asked("carols-screenpop", "carol"), nobody);
    let nearest =
        desk.explain_to(&desk.a, "Phone/Call/Ringing", "", Some(About { source: "bobs-screnpop", user: None }));
    assert_eq!(summary(&nearest, "bobs-screnpop"), "EVENT 4.1; NOT_REGISTERED");

    // An observer is shown what Application/List shows it.
    let answer = desk.explain_to(&bobs, "Queue/Stats/Waiting", "", None);
    assert!(text(&answer).contains("gadget"), "{}", text(&answer));
}

#[test]
fn a_session_is_told_of_nobodys_permissions_but_its_own() {
    let desk = Desk::with(permissions("publish Payroll/*/*; subscribe Phone/*/*"));
    desk.core.subscribe(&desk.a, "*/*/*");
    let b = desk.core.attach_as("screenpop", Some("alice"), permissions("subscribe Phone/*/*"));
    desk.core.subscribe(&b, "*/*/*");
    let answer = desk.explain_to(&desk.a, "Payroll/Run/Start", "", None);
    assert_eq!(summary(&answer, "screenpop"), "EVENT 4.1; PERMISSION");
    let own = "EVENT 4.1; IS_SENDER also PERMISSION, subscribe, no pattern of role 'agent' allows it";
    assert_eq!(summary(&answer, "gadget"), own);

    // What changed permissions ended is theirs, too.
    desk.core.router.change_permissions(desk.core.now, &b, permissions("subscribe Mail/*/*"), Reason::Reloaded);
    desk.core.subscribe(&b, "Mail/*/*");
    desk.core.unsubscribe_all(&b);
    let told = desk.explain_to(&desk.a, "Payroll/Run/Start", "", None);
    assert_eq!(summary(&told, "screenpop"), "EVENT 4.1; NO_MATCH");
}

#[test]
fn a_session_learns_nothing_about_a_triple_that_it_may_neither_publish_nor_request() {
    let desk = Desk::with(permissions("publish Phone/*/*; request Phone/*/*; subscribe Phone/*/*"));
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Payroll/Run/*");
    desk.handle(&b, "Payroll/Run/Start");
    for more in
        ["", r#","timeout":100"#, r#","gather":true"#, r#","retain":true"#, r#","once":true"#, r#","user":"bob""#]
    {
        let [handled, free] = ["Payroll/Run/Start", "Payroll/Run/Ended"].map(|triple| {
            let answer = desk.explain_to(&desk.a, triple, more, Some(About { source: "screenpop", user: None }));
            assert!(answer.receives.is_empty() && answer.others.is_empty(), "{more}: {}", text(&answer));
            text(&answer).replace(triple, "T")
        });
        assert_eq!(handled, free, "{more}");
    }
    // Nor is a pattern named that it may not know.
    let near = desk.explain_to(&desk.a, "Phone/Run/Start", "", None);
    assert!(!text(&near).contains("Payroll"), "{}", text(&near));
}

#[test]
fn names_of_other_users_are_not_told() {
    let desk = Desk::new();
    let recorder = desk.core.attach_as("recorder", None, ordinary());
    desk.subscribe_with(&recorder, "Phone/*/*", |it| it.user = Some("carol".into()));
    let answer = desk.explain_to(&desk.a, "Phone/Call/Ringing", "", None);
    assert_eq!(summary(&answer, "recorder"), "EVENT 4.1; USER_FILTER");
    assert_eq!(summary(&desk.explain("Phone/Call/Ringing", "", None), "recorder"), "EVENT 4.1; USER_FILTER, carol");

    // A handler of another user on a shared channel is not named either.
    let granted = Permissions { handle: Permission::All, ..ordinary() };
    let bobs = desk.core.attach_as("bobs-desk", Some("bob"), granted);
    desk.handle_as(&bobs, "Queue/Call/Take", handler(true, false));
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Queue/*/*");
    let answer = desk.explain_to(&desk.a, "Queue/Call/Take", "", None);
    assert_eq!(summary(&answer, "screenpop"), "REQUEST 2.2; IS_REQUEST");
    assert_eq!((answer.receives.len(), answer.more_receivers), (0, 1));
}
