//! What explain remembers of sessions and subscriptions that have ended, and its bounds.

use std::time::Duration;

use switchboard::router::explain::{About, Details};
use wire::CloseCode;

use super::desk::{Desk, config, ordinary};

fn details(desk: &Desk, source: &str, user: Option<&str>) -> Details {
    let answer = desk.explain("Phone/Call/Ringing", "", Some(About { source, user }));
    answer.others.into_iter().find(|row| row.who.source == source).unwrap().details
}

fn left(desk: &Desk, source: &str, user: Option<&str>) -> Option<u16> {
    details(desk, source, user).left.and_then(|left| left.code)
}

#[test]
fn the_last_session_of_an_application_is_remembered() {
    let mut desk = Desk::new();
    for code in [CloseCode::SlowConsumer, CloseCode::HeartbeatMissed] {
        let b = desk.alice("screenpop");
        desk.pass(Duration::from_mins(1));
        desk.close(&b, code);
    }
    let bobs = desk.core.attach_as("screenpop", Some("bob"), ordinary());
    desk.close(&bobs, CloseCode::Unauthenticated);
    assert_eq!(left(&desk, "screenpop", None), Some(4408), "of the sender's user, although bob's ended later");
    assert_eq!(left(&desk, "screenpop", Some("bob")), Some(4401));
    assert_eq!(left(&desk, "screenpop", Some("carol")), None);
}

#[test]
fn the_oldest_applications_are_forgotten_beyond_the_limit() {
    let desk = Desk::new();
    let mut limited = config();
    limited.limits.ended_sessions = 2;
    desk.core.router.replace_policy(desk.core.now, &limited);
    for source in ["one", "two", "one", "three"] {
        let session = desk.alice(source);
        desk.close(&session, CloseCode::HeartbeatMissed);
    }
    let known = ["one", "two", "three"].map(|source| left(&desk, source, None).is_some());
    assert_eq!(known, [true, false, true], "`one` ended again after `two`");
}

#[test]
fn the_last_subscriptions_that_ended_are_remembered() {
    let desk = Desk::new();
    let b = desk.alice("screenpop");
    for number in 0..20 {
        desk.core.subscribe(&b, "Phone/*/*");
        desk.core.subscribe(&b, &format!("Mail/Box/Item{number}"));
        if number % 2 == 0 {
            desk.core.unsubscribe_all(&b);
        }
    }
    desk.core.unsubscribe_all(&b);
    let ended = details(&desk, "screenpop", None).ended;
    // The last sixteen, of which those are named whose pattern matches the triple.
    assert!((2..16).contains(&ended.len()), "{ended:?}");
    assert!(ended.iter().all(|it| it.pattern == "Phone/*/*" && it.reason == "unsubscribed"), "{ended:?}");
}
