//! Explain against delivery: for random sessions, permissions, subscriptions and envelopes, the sessions that receive are those
//! that explain names, and every other session has one reason.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use switchboard::auth::{Permission, Permissions, Right, Rights, Rule, Rules, Users};
use switchboard::config::{AuthMode, Channel, Config, Scope};
use switchboard::router::explain::{About, Effect, Explanation, Verdict};
use switchboard::router::{OutboxLimits, Session};
use wire::command::{Role, State, Subscribe};
use wire::{DecodeLimits, Pattern, decode};

use crate::support::core::{Core, event};

/// The parts of the triples. `S` is a shared channel, `F` ignores case, and `A/x/p` and `S/x/p` are protected.
const PARTS: [&[&str]; 3] = [&["A", "S", "F"], &["x", "X"], &["s", "p"]];
const USERS: [Option<&str>; 7] = [Some("alice"), Some("alice"), Some("alice"), Some("bob"), Some("bob"), None, None];

fn triple() -> impl Strategy<Value = String> {
    let part = |at: usize| prop::sample::select(PARTS[at]);
    (part(0), part(1), part(2)).prop_map(|(channel, topic, subtopic)| format!("{channel}/{topic}/{subtopic}"))
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let part = |at: usize| prop::option::weighted(0.6, prop::sample::select(PARTS[at]));
    (part(0), part(1), part(2))
        .prop_map(|(channel, topic, subtopic)| Pattern::from_parts(channel, topic, subtopic).unwrap())
}

fn permissions() -> impl Strategy<Value = Permissions> {
    let rules = |size| {
        let rule = |pattern| Rule { pattern, from: "r".into() };
        prop::collection::vec(pattern(), size).prop_map(move |all| all.into_iter().map(rule).collect::<Rules>())
    };
    let right = move || (rules(1..4), rules(0..2)).prop_map(|(allow, deny)| Right { allow, deny, from: "r".into() });
    let rights = (right(), right(), right(), right())
        .prop_map(|(publish, subscribe, request, handle)| Arc::new(Rights { publish, subscribe, request, handle }));
    let users = || prop::sample::select(vec![vec![], vec!["*"], vec!["alice"], vec!["bob"]]).prop_map(Users::of);
    (prop::option::weighted(0.3, rights), users(), users(), any::<bool>(), any::<bool>()).prop_map(
        |(rights, observe, users, handles, requests)| {
            let grant = |is_granted| if is_granted { Permission::All } else { Permission::none() };
            let (handle, request) = (grant(handles), grant(requests));
            Permissions { rights, observe, users, handle, request, ..Permissions::default() }
        },
    )
}

#[derive(Clone, Debug)]
enum Act {
    Subscribe { by: usize, pattern: Pattern, user: Option<&'static str>, group: bool },
    Handle { by: usize, pattern: Pattern, answers: bool, ordered: bool, group: bool },
    Unsubscribe(usize),
    Change(usize, Permissions),
    SetState(usize, State),
    Take(usize),
    Pass,
    Send { by: usize, triple: String, more: &'static str },
}

fn act() -> impl Strategy<Value = Act> {
    let by = || 0..USERS.len();
    let user = prop::sample::select(vec![None, None, Some("*"), Some("alice"), Some("bob")]);
    let more = prop::sample::select(vec![
        "",
        "",
        "",
        r#","user":"alice""#,
        r#","target":"s1""#,
        r#","timeout":50"#,
        r#","gather":true,"user":"alice""#,
        r#","retain":true"#,
    ]);
    let state = prop::sample::select(vec![State::Active, State::Asleep]);
    prop_oneof![
        4 => (by(), pattern(), user, any::<bool>())
            .prop_map(|(by, pattern, user, group)| Act::Subscribe { by, pattern, user, group }),
        3 => (by(), pattern(), any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(by, pattern, answers, ordered, group)| Act::Handle { by, pattern, answers, ordered, group }),
        1 => by().prop_map(Act::Unsubscribe),
        1 => (by(), permissions()).prop_map(|(by, permissions)| Act::Change(by, permissions)),
        1 => (by(), state).prop_map(|(by, state)| Act::SetState(by, state)),
        2 => by().prop_map(Act::Take),
        1 => Just(Act::Pass),
        8 => (by(), triple(), more).prop_map(|(by, triple, more)| Act::Send { by, triple, more }),
    ]
}

struct World {
    core: Core,
    sessions: Vec<Arc<Session>>,
}

impl World {
    fn new(permissions: Vec<Permissions>, queue: usize) -> Self {
        let protected = vec!["*/x/p".parse().unwrap()];
        let mut config = Config { auth: AuthMode::Tokens, protected, ..Config::default() };
        config.channels.insert("S".into(), Channel { scope: Scope::Shared, ..Channel::default() });
        config.channels.insert("F".into(), Channel { fold_case: true, ..Channel::default() });
        let core = Core::new(&config);
        let limits = OutboxLimits { messages: queue, bytes: 1 << 20, refuses: false };
        let attach = |(at, (user, permissions)): (usize, (Option<&str>, Permissions))| {
            let session = core.attach_with(&format!("s{at}"), user, limits);
            core.router.change_permissions(core.now, &session, permissions, switchboard::router::Reason::Renewed);
            session
        };
        let sessions = USERS.into_iter().zip(permissions).enumerate().map(attach).collect();
        Self { core, sessions }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Subscribe { by, pattern, user, group } => {
                let mut wanted = Subscribe::new(pattern, Role::Subscriber);
                wanted.user = user.map(str::to_owned);
                wanted.group = group.then(|| "g".to_owned());
                self.subscribe(by, &wanted);
            }
            Act::Handle { by, pattern, answers, ordered, group } => {
                let mut wanted = Subscribe::new(pattern, Role::Handler { answers, ordered, replies: Vec::new() });
                wanted.group = group.then(|| "g".to_owned());
                self.subscribe(by, &wanted);
            }
            Act::Unsubscribe(by) => self.core.unsubscribe_all(&self.sessions[by]),
            Act::Change(of, permissions) => {
                let reason = switchboard::router::Reason::Reloaded;
                self.core.router.change_permissions(self.core.now, &self.sessions[of], permissions, reason);
            }
            Act::SetState(of, state) => self.core.router.set_state(self.core.now, &self.sessions[of], state),
            Act::Take(by) => drop(self.core.take(&self.sessions[by])),
            Act::Pass => {
                self.core.now += Duration::from_millis(60);
                self.core.router.expire(self.core.now);
            }
            Act::Send { by, triple, more } => self.send(by, &triple, more),
        }
        // A session whose queue overflowed is about to end.
        for session in &self.sessions {
            if session.outbox().ended().is_some() && !self.core.router.subscriptions(session).is_empty() {
                self.core.router.detach(self.core.now, session);
            }
        }
    }

    /// A subscription that is not allowed is not made.
    fn subscribe(&self, by: usize, wanted: &Subscribe) {
        self.core.router.subscribe(self.core.now, &self.sessions[by], wanted, |_| None).ok();
    }

    fn send(&self, by: usize, triple: &str, more: &str) {
        let (sender, now) = (&self.sessions[by], self.core.now);
        if sender.outbox().ended().is_some() {
            return;
        }
        let text = event(triple, more);
        let envelope = decode(&text, DecodeLimits::default()).unwrap();
        let explain = |about: Option<&About<'_>>| self.core.router.explain(now, sender, &envelope, about);
        let answer = explain(None);
        let alive: Vec<_> = self.sessions.iter().filter(|it| it.outbox().ended().is_none()).collect();
        for session in &alive {
            let about = About { source: session.source(), user: session.user() };
            check_one_place(&answer, &explain(Some(&about)), session);
        }
        let queued = |session: &&&Arc<Session>| session.outbox().depth().messages;
        let before: Vec<usize> = alive.iter().map(|it| queued(&it)).collect();
        let sent = self.core.send(sender, &text);
        let is_placed = matches!(answer.verdict, Verdict::Event | Verdict::Gather | Verdict::Reply)
            || answer.receives.iter().any(|it| it.effect != Effect::Closes);
        let code = sent.as_ref().err().map(|denied| denied.refusal.code.as_str());
        match (&answer.code, is_placed) {
            (refused, true) => assert_eq!(code, refused.as_deref(), "{answer:?}"),
            // No handler has room for the request, which is found out when it is given to them.
            (refused, false) => assert_eq!(code, refused.as_deref().or(Some("NO_HANDLER")), "{answer:?}"),
        }
        if matches!(answer.verdict, Verdict::Reply | Verdict::Refused) {
            return;
        }
        let mut received = BTreeSet::new();
        let mut closed = BTreeSet::new();
        for (session, before) in alive.iter().zip(before) {
            let id = session.id().to_string();
            if session.outbox().ended().is_some() {
                // The end of a gather may have been too much for its sender.
                if answer_to_gather(&answer, session, sender) == 0 {
                    closed.insert(id);
                }
            } else if queued(&session) > before + answer_to_gather(&answer, session, sender) {
                received.insert(id);
            }
        }
        assert_eq!(of_effect(&answer, Effect::Queued), received, "{triple} {more}: {answer:?}");
        assert_eq!(of_effect(&answer, Effect::Closes), closed, "{triple} {more}: {answer:?}");
    }
}

/// A gather that nobody can answer ends at once, which its sender is told.
fn answer_to_gather(answer: &Explanation, session: &Arc<Session>, sender: &Arc<Session>) -> usize {
    usize::from(answer.verdict == Verdict::Gather && Arc::ptr_eq(session, sender))
}

fn of_effect(answer: &Explanation, effect: Effect) -> BTreeSet<String> {
    let rows = answer.receives.iter().filter(|it| it.effect == effect);
    rows.filter_map(|it| it.who.session.clone()).collect()
}

/// A session receives, or has one reason; and the answer about it alone says the same as the one about all.
fn check_one_place(all: &Explanation, one: &Explanation, session: &Arc<Session>) {
    let id = Some(session.id().to_string());
    let receives = |answer: &Explanation| answer.receives.iter().filter(|it| it.who.session == id).count();
    let rows =
        |answer: &Explanation| answer.others.iter().filter(|it| it.who.session == id).cloned().collect::<Vec<_>>();
    assert_eq!(receives(all), receives(one));
    let is_judged = one.verdict != Verdict::Reply && one.verdict != Verdict::Refused;
    if is_judged {
        assert_eq!(receives(one) + rows(one).len(), 1, "{id:?}: {one:?}");
    } else {
        assert!(receives(one) + rows(one).len() <= 1, "{id:?}: {one:?}");
    }
    assert!(rows(all).is_empty() || rows(all) == rows(one));
    for row in rows(one) {
        assert!(!row.also.contains(&row.reason) && row.also.is_sorted_by(|a, b| a < b), "{row:?}");
        assert!(row.also.iter().all(|also| row.reason < *also), "{row:?}");
    }
}

/// A member that gets the event by another subscription too is not the one with the longer queue for that.
#[test]
fn a_member_of_a_group_that_receives_by_itself_too_is_judged_before_the_event() {
    let mut world = World::new(vec![Permissions::default(); USERS.len()], 10_000);
    for (by, group) in [(1, false), (1, true), (0, true)] {
        world.act(Act::Subscribe { by, pattern: "*/*/*".parse().unwrap(), user: None, group });
    }
    world.act(Act::Send { by: 2, triple: "A/x/s".to_owned(), more: "" });
    let waiting: Vec<_> = world.sessions.iter().map(|session| session.outbox().depth().messages).collect();
    assert_eq!(waiting, [0, 1, 0, 0, 0, 0, 0]);
}

proptest! {
    // A failure prints its input, which then becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn explain_says_what_delivery_then_does(
        permissions in prop::collection::vec(permissions(), USERS.len()),
        queue in prop::sample::select(vec![3_usize, 10_000]),
        acts in prop::collection::vec(act(), 1..60),
    ) {
        let mut world = World::new(permissions, queue);
        for act in acts {
            world.act(act);
        }
    }
}
