//! The situations in which somebody asks why B did not get it. A is alice's gadget and sends; B is the session asked about,
//! alice's screenpop unless the situation says otherwise.

use std::sync::Arc;
use std::time::Duration;

use switchboard::auth::{Identity, Principal};
use switchboard::config::{Channel, Scope};
use switchboard::router::explain::{About, Explanation};
use switchboard::router::{Door, Ending, Given, Outbox, Registration, RequestId, Wanted};
use wire::command::{Resume, State};
use wire::{CloseCode, Refusal};

use super::desk::{Desk, config, handler, ordinary, supervisor};
use super::summary;
use crate::support::core::WIDE;
use crate::support::rights::permissions;

/// One situation, and what explain says in it.
pub(crate) struct Situation {
    pub(crate) name: &'static str,
    pub(crate) answer: Explanation,
    /// The source of B.
    pub(crate) b: &'static str,
    /// What the answer says of B.
    pub(crate) says: &'static str,
}

const RINGING: &str = "Phone/Call/Ringing";
const SCREENPOP: &str = "screenpop";

fn about(source: &str) -> About<'_> {
    About { source, user: None }
}

fn about_of<'a>(source: &'a str, user: &'a str) -> About<'a> {
    About { source, user: Some(user) }
}

/// A handler inside the process that takes everything.
struct Takes;

impl Door for Takes {
    fn offer(&self, _: Given) -> Result<(), Refusal> {
        Ok(())
    }

    fn withdraw(&self, _: RequestId, _: &Refusal) {}
}

/// Situations, in their order.
#[derive(Default)]
struct Situations(Vec<Situation>);

impl Situations {
    fn add(&mut self, name: &'static str, b: &'static str, answer: Explanation, says: &'static str) {
        self.0.push(Situation { name, answer, b, says });
    }
}

/// All situations, in order.
pub(crate) fn situations() -> Vec<Situation> {
    let mut all = Situations::default();
    for some in [absent, scopes, patterns, rights, handlers, senders, queues] {
        some(&mut all);
    }
    all.0
}

/// Nobody of that name is registered, or no longer.
fn absent(all: &mut Situations) {
    let desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Phone/*/*");
    all.add(
        "1 B was never registered: a misspelt source",
        "screnpop",
        desk.explain(RINGING, "", Some(about("screnpop"))),
        "EVENT 4.1; NOT_REGISTERED, nearest screenpop SPELLING",
    );

    let mut desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.pass(Duration::from_mins(12 * 60 + 3));
    desk.close(&b, CloseCode::Unauthenticated);
    desk.pass(Duration::from_mins(10));
    all.add(
        "2 B's proof ended ten minutes ago",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about("screenpop"))),
        "EVENT 4.1; NOT_REGISTERED, left 1970-01-01T12:03:00Z Some(4401) unauthenticated",
    );
}

/// Users and services.
fn scopes(all: &mut Situations) {
    let desk = Desk::new();
    let b = desk.core.attach_as("screenpop", Some("bob"), ordinary());
    desk.core.subscribe(&b, "*/*/*");
    all.add(
        "3 B is bob's, the channel is user-scoped",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about_of("screenpop", "bob"))),
        "EVENT 4.1; OTHER_USER",
    );
    all.add(
        "4 B is bob's, the channel is shared",
        SCREENPOP,
        desk.explain("Queue/Stats/Waiting", "", Some(about_of("screenpop", "bob"))),
        "EVENT 4.1; receives: */*/* active QUEUED",
    );

    let desk = Desk::new();
    let service = desk.core.attach_as("cti", None, ordinary());
    all.add(
        "5 a service publishes on a user-scoped channel without a user",
        SCREENPOP,
        desk.explain_of(&service, RINGING, "", Some(about("screenpop"))),
        "REFUSED Scope USER_REQUIRED",
    );

    let desk = Desk::new();
    let b = desk.core.attach_as("wallboard", Some("bob"), supervisor());
    desk.subscribe_with(&b, "Phone/*/*", |it| it.user = Some("carol".into()));
    all.add(
        "6 supervisor B observes carol",
        "wallboard",
        desk.explain(RINGING, "", Some(about("wallboard"))),
        "EVENT 4.1; USER_FILTER, carol",
    );
}

/// Subscriptions that do not match.
fn patterns(all: &mut Situations) {
    for (name, pattern, says) in [
        ("7 B subscribed in another case", "Phone/call/*", "EVENT 4.1; NO_MATCH, nearest Phone/call/* CASE"),
        ("8 B subscribed with swapped parts", "Call/Phone/*", "EVENT 4.1; NO_MATCH, nearest Call/Phone/* SWAPPED"),
    ] {
        let desk = Desk::new();
        let b = desk.alice("screenpop");
        desk.core.subscribe(&b, pattern);
        all.add(name, SCREENPOP, desk.explain(RINGING, "", Some(about("screenpop"))), says);
    }

    let mut desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Phone/*/*");
    desk.pass(Duration::from_mins(12 * 60 + 1));
    let mut changed = config();
    changed.channels.insert("Phone".into(), Channel { scope: Scope::Shared, ..Channel::default() });
    desk.core.router.replace_policy(desk.core.now, &changed);
    all.add(
        "9 B's subscription was ended by a reload",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about("screenpop"))),
        "EVENT 4.1; NO_MATCH, subscriber Phone/*/* ended 1970-01-01T12:01:00Z scope of Phone changed",
    );
}

/// Permissions, targets and groups.
fn rights(all: &mut Situations) {
    let desk = Desk::new();
    let b = desk.core.attach_as("screenpop", Some("alice"), permissions("subscribe Phone/*/*"));
    desk.core.subscribe(&b, "*/*/*");
    all.add(
        "10 B's role reads Phone only, the event is Payroll",
        SCREENPOP,
        desk.explain("Payroll/Run/Start", "", Some(about("screenpop"))),
        "EVENT 4.1; PERMISSION, subscribe, no pattern of role 'agent' allows it",
    );

    let desk = Desk::with(permissions("publish Phone/*/*; subscribe */*/*"));
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "*/*/*");
    all.add(
        "11 A may not publish Payroll",
        SCREENPOP,
        desk.explain("Payroll/Run/Start", "", Some(about("screenpop"))),
        "REFUSED Rights FORBIDDEN (publish: no pattern of role 'agent' allows it)",
    );

    let desk = Desk::new();
    let (b, softphone) = (desk.alice("screenpop"), desk.alice("softphone"));
    desk.core.subscribe(&b, "*/*/*");
    desk.core.subscribe(&softphone, "*/*/*");
    all.add(
        "12 the target is softphone",
        SCREENPOP,
        desk.explain(RINGING, r#","target":"softphone""#, Some(about("screenpop"))),
        "EVENT 4.1; TARGET",
    );

    let desk = Desk::new();
    let [b, c] = ["screenpop", "softphone"].map(|source| {
        let session = desk.alice(source);
        desk.subscribe_with(&session, "Phone/*/*", |it| it.group = Some("desk".into()));
        session
    });
    desk.send(&desk.a, RINGING, "");
    assert_eq!((desk.core.take(&b).len(), desk.core.take(&c).len()), (1, 0));
    all.add(
        "13 B and C are in a group, it is C's turn",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about("screenpop"))),
        "EVENT 4.1; GROUP, softphone",
    );
}

/// Requests, and which handler gets them.
fn handlers(all: &mut Situations) {
    let desk = Desk::new();
    let (b, c) = (desk.alice("screenpop"), desk.alice("softphone"));
    desk.core.subscribe(&b, "Phone/*/*");
    desk.handle(&c, "Phone/Call/*");
    all.add(
        "14 C handles the triple, B subscribes to it",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about("screenpop"))),
        "REQUEST 2.2; IS_REQUEST, softphone",
    );

    let desk = Desk::new();
    let (b, c) = (desk.alice("screenpop"), desk.alice("softphone"));
    desk.handle(&b, "Phone/Call/*");
    desk.send(&desk.a, "Phone/Call/Dial", "");
    desk.handle(&c, "Phone/Call/*");
    all.add(
        "15 B and C handle it, C is less busy",
        SCREENPOP,
        desk.explain("Phone/Call/Dial", "", Some(about("screenpop"))),
        "REQUEST 2.2; NOT_CHOSEN, load",
    );
    desk.core.router.set_state(desk.core.now, &c, State::Asleep);
    desk.core.router.set_state(desk.core.now, &b, State::Asleep);
    desk.core.router.set_state(desk.core.now, &c, State::Active);
    all.add(
        "16 B's tab is frozen, C handles it",
        SCREENPOP,
        desk.explain("Phone/Call/Dial", "", Some(about("screenpop"))),
        "REQUEST 2.2; NOT_CHOSEN, asleep",
    );

    let mut desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.handle_as(&b, "Phone/Call/*", handler(true, true));
    desk.send(&desk.a, "Phone/Call/Dial", r#","timeout":1000"#);
    desk.pass(Duration::from_secs(2));
    all.add(
        "17 ordered handler B has not sent its late reply, alone",
        SCREENPOP,
        desk.explain("Phone/Call/Dial", "", Some(about("screenpop"))),
        "REQUEST 2.2; receives: Phone/Call/* active WAITS",
    );
    let c = desk.alice("softphone");
    desk.handle(&c, "Phone/Call/*");
    all.add(
        "17 ordered handler B has not sent its late reply, with another handler",
        SCREENPOP,
        desk.explain("Phone/Call/Dial", "", Some(about("screenpop"))),
        "REQUEST 2.2; NOT_CHOSEN, turn",
    );
}

/// The sender itself, and protected triples.
fn senders(all: &mut Situations) {
    let desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.handle(&b, "Phone/Agent/*");
    desk.handle(&desk.a, "Phone/Agent/State");
    all.add(
        "18 A and B both handle the triple, A sends it",
        SCREENPOP,
        desk.explain("Phone/Agent/State", "", Some(about("screenpop"))),
        "EVENT 4.1; IS_EVENT, the sender handles the triple too",
    );

    let desk = Desk::new();
    desk.core.subscribe(&desk.a, "Phone/*/*");
    all.add(
        "19 B is A, subscribed, without echo",
        "gadget",
        desk.explain(RINGING, "", Some(about("gadget"))),
        "EVENT 4.1; IS_SENDER",
    );

    let desk = Desk::new();
    let adapter = desk.core.router.attach_handler(desk.core.now, Arc::new(Takes));
    desk.handle(&adapter, "Salesforce/User/FetchCredentials");
    let b = desk.alice("screenpop");
    desk.handle(&b, "Salesforce/*/*");
    all.add(
        "20 a protected triple, gadget B handles all of the channel",
        SCREENPOP,
        desk.explain("Salesforce/User/FetchCredentials", "", Some(about("screenpop"))),
        "REQUEST 2.2; PROTECTED, */User/FetchCredentials",
    );

    let desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Salesforce/*/*");
    all.add(
        "21 a protected triple, nobody handles it, B subscribes",
        SCREENPOP,
        desk.explain("Salesforce/User/FetchCredentials", "", Some(about("screenpop"))),
        "REFUSED 3.1 NO_HANDLER; IS_REQUEST also PROTECTED, */User/FetchCredentials",
    );
}

/// B receives, and what becomes of the message there.
fn queues(all: &mut Situations) {
    let desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Phone/*/*");
    desk.core.router.set_state(desk.core.now, &b, State::Asleep);
    all.add(
        "22 B subscribes, its tab is frozen",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about("screenpop"))),
        "EVENT 4.1; receives: Phone/*/* asleep QUEUED",
    );

    let desk = Desk::new();
    let identity = Identity::unproved(Principal::User("alice".into()), ordinary());
    let registration = Registration {
        source: "screenpop".into(),
        identity,
        echo: false,
        address: None,
        outbox: Outbox::new(WIDE),
        will: None,
    };
    let wanted =
        Wanted { resume: &Resume::Begin, echo: None, keeps_will: false, reloads: 0, lease: None, elsewhere: None };
    let registered = desk.core.router.register(desk.core.now, registration, &wanted).unwrap().unwrap();
    desk.core.subscribe(&registered.session, "Phone/*/*");
    desk.core.router.leave(desk.core.now, &registered.session, registered.attachment, Ending::Lost, None);
    all.add(
        "23 B is away, in its grace period",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about("screenpop"))),
        "EVENT 4.1; receives: Phone/*/* away QUEUED",
    );

    let desk = Desk::new();
    let b = desk.narrow("screenpop", 2);
    desk.core.subscribe(&b, "*/*/*");
    for triple in ["Phone/Call/Held", "Phone/Call/Held"] {
        desk.send(&desk.a, triple, "");
    }
    all.add(
        "24 B's queue is full, on a channel that closes",
        SCREENPOP,
        desk.explain(RINGING, "", Some(about("screenpop"))),
        "EVENT 4.1; receives: */*/* active CLOSES",
    );
    let desk = Desk::new();
    let b = desk.narrow("screenpop", 2);
    desk.core.subscribe(&b, "*/*/*");
    for triple in ["Ticker/Price/Changed", "Phone/Call/Held"] {
        desk.send(&desk.a, triple, "");
    }
    all.add(
        "24 B's queue is full, on a channel that drops the oldest",
        SCREENPOP,
        desk.explain("Ticker/Price/Changed", "", Some(about("screenpop"))),
        "EVENT 4.1; receives: */*/* active DROPS_OLDEST",
    );

    let mut desk = Desk::new();
    let b = desk.alice("screenpop");
    desk.core.subscribe(&b, "Log/*/*");
    desk.send(&desk.a, "Log/Call/Ended", r#","id":"e1","once":true"#);
    desk.pass(Duration::from_secs(90));
    all.add(
        "25 A repeats an id with once",
        SCREENPOP,
        desk.explain("Log/Call/Ended", r#","id":"e1","once":true"#, Some(about("screenpop"))),
        "DUPLICATE Publisher retry",
    );
}

#[test]
fn every_situation_is_explained() {
    let wrong = situations().into_iter().filter_map(|Situation { name, answer, b, says }| {
        let said = summary(&answer, b);
        (said != says).then(|| format!("{name}\n  expected {says}\n  said     {said}\n"))
    });
    let wrong: String = wrong.collect();
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn explaining_changes_nothing() {
    let desk = Desk::new();
    let [b, c] = ["screenpop", "softphone"].map(|source| desk.alice(source));
    for session in [&b, &c] {
        desk.subscribe_with(session, "Phone/*/*", |it| it.group = Some("desk".into()));
        desk.handle(session, "Desk/*/*");
    }
    for _ in 0..3 {
        let first = desk.explain(RINGING, "", None);
        let handler = desk.explain("Desk/Lamp/On", "", None);
        assert_eq!(desk.explain(RINGING, "", None), first, "no turn of the group moves");
        assert_eq!(desk.explain("Desk/Lamp/On", "", None), handler, "no turn of a handler moves");
        assert!(desk.core.take(&b).is_empty() && desk.core.take(&c).is_empty());
        desk.send(&desk.a, RINGING, "");
        let receivers = [&b, &c].map(|session| desk.core.take(session).len());
        let expected =
            ["screenpop", "softphone"].map(|it| first.receives.iter().filter(|row| row.who.source == it).count());
        assert_eq!(receivers, expected);
    }
    let once = r#","id":"e1","once":true"#;
    assert_eq!(summary(&desk.explain("Log/Call/Ended", once, None), ""), "EVENT 4.1");
    desk.send(&desk.a, "Log/Call/Ended", once);
    assert_eq!(summary(&desk.explain("Log/Call/Ended", once, None), ""), "DUPLICATE Publisher retry");
}
