//! Rights against a naive model: random roles, lists of users, patterns, triples and sessions, and rights that change. The
//! model looks at every triple of a small world, one after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use switchboard::auth::{Permission, Permissions, Right, Rights, Rule, Rules, Users};
use switchboard::config::{AuthMode, Channel, Config, Scope};
use switchboard::router::{Reason, Session};
use wire::command::{Role, Subscribe};
use wire::{ErrorCode, Pattern, Triple};

use crate::support::core::{Core, event};

/// The parts of the triples. `S` is a shared channel and `F` one that ignores case. No pattern names a last one, so a
/// wildcard is never the same as all the names that patterns have.
const PARTS: [&[&str]; 3] = [&["A", "a", "S", "F", "z"], &["x", "X", "z"], &["s", "S", "z"]];
const USERS: [&str; 3] = ["u1@a", "u2@a", "u3@b"];

fn world() -> impl Iterator<Item = [&'static str; 3]> {
    let [channels, topics, subtopics] = PARTS;
    channels.iter().flat_map(move |channel| {
        topics.iter().flat_map(move |topic| subtopics.iter().map(move |subtopic| [*channel, *topic, *subtopic]))
    })
}

fn part(of: usize) -> impl Strategy<Value = Option<&'static str>> {
    let named = &PARTS[of][..PARTS[of].len() - 1];
    prop_oneof![1 => Just(None), 1 => prop::sample::select(named).prop_map(Some)]
}

fn pattern() -> impl Strategy<Value = Pattern> {
    (part(0), part(1), part(2))
        .prop_map(|(channel, topic, subtopic)| Pattern::from_parts(channel, topic, subtopic).unwrap())
}

fn right() -> impl Strategy<Value = Right> {
    let rules = |size| {
        prop::collection::vec(pattern(), size).prop_map(|patterns| {
            patterns.into_iter().map(|pattern| Rule { pattern, from: "r".into() }).collect::<Rules>()
        })
    };
    (rules(0..4), rules(0..3)).prop_map(|(allow, deny)| Right { allow, deny, from: "r".into() })
}

fn rights() -> impl Strategy<Value = Option<Arc<Rights>>> {
    let rights = (right(), right(), right(), right())
        .prop_map(|(publish, subscribe, request, handle)| Arc::new(Rights { publish, subscribe, request, handle }));
    prop::option::weighted(0.8, rights)
}

fn users() -> impl Strategy<Value = Users> {
    prop::sample::select(vec![vec![], vec!["*"], vec!["u1@a"], vec!["*@a"], vec!["u3@b", "u2@a"]]).prop_map(Users::of)
}

fn permissions() -> impl Strategy<Value = Permissions> {
    (rights(), users(), users(), prop::bool::ANY).prop_map(|(rights, observe, users, grant)| {
        let handle = if grant { Permission::All } else { Permission::none() };
        Permissions { rights, observe, users, handle, request: Permission::All, ..Permissions::default() }
    })
}

#[derive(Clone, Debug)]
enum Act {
    Subscribe { by: usize, pattern: Pattern, user: Option<&'static str> },
    Handle { by: usize, pattern: Pattern, answers: bool },
    Send { by: usize, triple: [&'static str; 3], user: Option<&'static str>, more: &'static str },
    Change { of: usize, permissions: Permissions },
}

const SESSIONS: usize = 5;

fn act() -> impl Strategy<Value = Act> {
    let named = prop::sample::select(vec![None, None, Some("*"), Some(USERS[0]), Some(USERS[2])]);
    let user = prop::sample::select(vec![None, Some(USERS[0]), Some(USERS[2])]);
    let more = prop::sample::select(vec!["", "", "", r#","timeout":9"#, r#","retain":true"#]);
    let triple = prop::sample::select(world().collect::<Vec<_>>());
    prop_oneof![
        2 => (0..SESSIONS, pattern(), named).prop_map(|(by, pattern, user)| Act::Subscribe { by, pattern, user }),
        1 => (0..SESSIONS, pattern(), prop::bool::ANY)
            .prop_map(|(by, pattern, answers)| Act::Handle { by, pattern, answers }),
        5 => (0..SESSIONS, triple, user, more).prop_map(|(by, triple, user, more)| Act::Send { by, triple, user, more }),
        1 => (0..SESSIONS, permissions()).prop_map(|(of, permissions)| Act::Change { of, permissions }),
    ]
}

/// A subscription of the model.
#[derive(Clone, Debug)]
struct Held {
    pattern: Pattern,
    /// The user that it names.
    user: Option<&'static str>,
    /// Whether it answers, if it is a handler.
    answers: Option<bool>,
}

struct Member {
    session: Arc<Session>,
    user: Option<&'static str>,
    permissions: Permissions,
    held: Vec<(String, Held)>,
}

fn is_shared(channel: &str) -> bool {
    channel == "S"
}

fn in_pattern(pattern: &Pattern, triple: [&str; 3], same: impl Fn(usize, &str, &str) -> bool) -> bool {
    let parts = [&pattern.channel, &pattern.topic, &pattern.subtopic];
    (0..3).all(|at| parts[at].as_deref().is_none_or(|own| same(at, own, triple[at])))
}

/// How a channel compares: case counts, except for topic and subtopic in `F`.
fn matches(pattern: &Pattern, triple: [&str; 3]) -> bool {
    in_pattern(pattern, triple, |at, own, value| {
        own == value || (at > 0 && triple[0] == "F" && own.eq_ignore_ascii_case(value))
    })
}

fn allows(right: Option<&Right>, triple: [&str; 3]) -> bool {
    let matches = |rule: &Rule| in_pattern(&rule.pattern, triple, |_, own, value| own.eq_ignore_ascii_case(value));
    right.is_none_or(|right| right.allow.iter().any(matches) && !right.deny.iter().any(matches))
}

impl Member {
    fn right<'p>(permissions: &'p Permissions, held: &Held) -> Option<&'p Right> {
        let rights = permissions.rights.as_deref()?;
        Some(if held.answers.is_some() { &rights.handle } else { &rights.subscribe })
    }

    fn may_see(&self, permissions: &Permissions, user: &str) -> bool {
        match self.user {
            Some(own) => own == user || permissions.observe.contains(user),
            None => permissions.users.contains(user),
        }
    }

    /// Whether a subscription is allowed: `Some(narrowed)`.
    fn judge(&self, permissions: &Permissions, held: &Held) -> Option<bool> {
        let right = Self::right(permissions, held);
        // As a set of texts, whatever channels make of them.
        let covers = |triple: &[&str; 3]| in_pattern(&held.pattern, *triple, |_, own, value| own == value);
        let (mut some, mut all) = (false, true);
        for triple in world().filter(covers) {
            let allowed = allows(right, triple);
            some |= allowed;
            all &= allowed;
        }
        let observed = match (self.user, held.user) {
            (_, None) | (None, Some("*")) => true,
            (Some(_), Some("*")) => !permissions.observe.is_nobody(),
            (_, Some(user)) => self.may_see(permissions, user),
        };
        let granted = permissions.handle == Permission::All || self.user.is_none();
        let is_on_shared = held.pattern.channel.as_deref() == Some("S");
        match held.answers {
            Some(_) => (all && (granted || !is_on_shared)).then_some(false),
            None => (some && observed).then_some(!all),
        }
    }

    /// Whether an envelope of this user reaches a subscription, as far as its scope is concerned.
    fn is_in_scope(&self, held: &Held, channel: &str, user: Option<&str>) -> bool {
        match (self.user, held.user) {
            (Some(_), _) | (None, None | Some("*")) if is_shared(channel) => true,
            (None, None | Some("*")) => user.is_none_or(|user| self.may_see(&self.permissions, user)),
            (_, Some(named)) if named != "*" => user == Some(named) && self.may_see(&self.permissions, named),
            (Some(own), None) => user == Some(own),
            (_, Some(_)) => user.is_some_and(|user| self.may_see(&self.permissions, user)),
        }
    }

    fn receives(&self, triple: [&str; 3], user: Option<&str>) -> bool {
        self.held.iter().any(|(_, held)| {
            held.answers.is_none()
                && matches(&held.pattern, triple)
                && self.is_in_scope(held, triple[0], user)
                && allows(Self::right(&self.permissions, held), triple)
        })
    }

    /// The handlers of a triple: whether each answers.
    fn handles(&self, triple: [&str; 3], user: Option<&str>) -> Vec<bool> {
        let granted = !is_shared(triple[0]) || self.user.is_none() || self.permissions.handle == Permission::All;
        let all = self
            .held
            .iter()
            .filter(|(_, held)| matches(&held.pattern, triple) && granted && self.is_in_scope(held, triple[0], user));
        all.filter_map(|(_, held)| held.answers).collect()
    }
}

struct World {
    core: Core,
    members: Vec<Member>,
}

impl World {
    fn new(permissions: Vec<Permissions>) -> Self {
        let mut config = Config { auth: AuthMode::Tokens, protected: Vec::new(), ..Config::default() };
        config.channels.insert("S".into(), Channel { scope: Scope::Shared, ..Channel::default() });
        config.channels.insert("F".into(), Channel { fold_case: true, ..Channel::default() });
        let core = Core::new(&config);
        let users = [Some(USERS[0]), Some(USERS[0]), Some(USERS[1]), Some(USERS[2]), None];
        let members = permissions.into_iter().zip(users).enumerate().map(|(at, (permissions, user))| {
            let session = core.attach_as(&format!("m{at}"), user, permissions.clone());
            Member { session, user, permissions, held: Vec::new() }
        });
        let members = members.collect();
        Self { core, members }
    }

    fn subscribe(&mut self, by: usize, held: Held) {
        let member = &mut self.members[by];
        let role = match held.answers {
            None => Role::Subscriber,
            Some(answers) => Role::Handler { answers, ordered: false, replies: Vec::new() },
        };
        let mut wanted = Subscribe::new(held.pattern.clone(), role);
        wanted.user = held.user.map(str::to_owned);
        let mut made = None;
        let outcome = self.core.router.subscribe(self.core.now, &member.session, &wanted, |it| {
            made = Some(it);
            None
        });
        let expected = member.judge(&member.permissions, &held);
        if held.answers.is_some() && held.pattern.channel.is_none() {
            assert_eq!(outcome.unwrap_err().code, ErrorCode::InvalidEnvelope);
            return;
        }
        assert_eq!(made.as_ref().map(|it| it.is_narrowed), expected, "{held:?} with {:?}", member.permissions);
        let Some(made) = made else { return assert_eq!(outcome.unwrap_err().code, ErrorCode::Forbidden) };
        let id = made.id.to_string();
        if !member.held.iter().any(|(own, _)| *own == id) {
            member.held.push((id, held));
        }
        // Retained values are checked by what a replay brings.
        self.check_replay(by);
    }

    fn check_replay(&self, by: usize) {
        let member = &self.members[by];
        for value in self.core.take(&member.session) {
            let triple = ["channel", "topic", "subtopic"].map(|key| value[key].as_str().unwrap());
            let right = member.permissions.rights.as_deref().map(|rights| &rights.subscribe);
            assert!(allows(right, triple), "{value}");
            let user = value["user"].as_str().or(member.user.filter(|_| !is_shared(triple[0])));
            assert!(member.held.iter().any(|(_, held)| member.is_in_scope(held, triple[0], user)), "{value}");
        }
    }

    /// What is to become of an envelope, and of which kind it is.
    fn expect(&self, by: usize, triple: [&str; 3], user: Option<&str>, more: &str) -> Result<&'static str, ErrorCode> {
        let sender = &self.members[by];
        let named = match (sender.user, user) {
            (Some(own), Some(user)) if own != user => return Err(ErrorCode::Forbidden),
            (None, Some(user)) if !sender.permissions.users.contains(user) => return Err(ErrorCode::Forbidden),
            (None, None) if !is_shared(triple[0]) => return Err(ErrorCode::UserRequired),
            (own, user) => own.or(user),
        };
        let rights = sender.permissions.rights.as_deref();
        let publish = allows(rights.map(|it| &it.publish), triple);
        let request = allows(rights.map(|it| &it.request), triple);
        let sender_handles = !sender.handles(triple, named).is_empty();
        let others = self.members.iter().enumerate().filter(|(at, _)| *at != by);
        let handlers: Vec<bool> = others.flat_map(|(_, member)| member.handles(triple, named)).collect();
        let (asks, retain) = (more.contains("timeout"), more.contains("retain"));
        if asks {
            return match (request, handlers.is_empty()) {
                (false, _) => Err(ErrorCode::Forbidden),
                (true, true) => Err(ErrorCode::NoHandler),
                (true, false) => Ok("request"),
            };
        }
        if sender_handles || handlers.is_empty() {
            return match (publish, request && !retain) {
                (true, _) => Ok("event"),
                (false, true) => Err(ErrorCode::NoHandler),
                (false, false) => Err(ErrorCode::Forbidden),
            };
        }
        let may = if handlers.iter().any(|answers| *answers) { request } else { publish };
        match (may, retain) {
            (false, _) => Err(ErrorCode::Forbidden),
            (true, true) => Err(ErrorCode::InvalidEnvelope),
            (true, false) => Ok("request"),
        }
    }

    fn send(&self, by: usize, triple: [&str; 3], user: Option<&str>, more: &str) {
        let sender = &self.members[by];
        let expected = self.expect(by, triple, user, more);
        let named = user.map(|user| format!(r#","user":"{user}""#)).unwrap_or_default();
        let sent = self.core.send(&sender.session, &event(&triple.join("/"), &format!("{named}{more}")));
        let outcome = sent.as_ref().map(|_| ()).map_err(|denied| denied.refusal.code);
        assert_eq!(outcome, expected.map(|_| ()), "{by} sends {triple:?} {user:?} {more}");
        let user = sender.user.or(user);
        let mut received = BTreeSet::new();
        for (at, member) in self.members.iter().enumerate() {
            let taken = self.core.take(&member.session);
            assert!(taken.len() <= 1, "once to each session: {taken:?}");
            received.extend(taken.first().map(|_| at));
            self.answer(member, &taken, expected == Ok("request"));
        }
        let others = || self.members.iter().enumerate().filter(|(at, _)| *at != by);
        match expected {
            Err(_) => assert_eq!(received, BTreeSet::new()),
            Ok("event") => {
                let receivers = others().filter(|(_, member)| member.receives(triple, user)).map(|(at, _)| at);
                assert_eq!(received, receivers.collect(), "{by} sends {triple:?} {user:?}");
            }
            Ok(_) => {
                let handlers = others().filter(|(_, member)| !member.handles(triple, user).is_empty());
                let handlers: BTreeSet<_> = handlers.map(|(at, _)| at).collect();
                assert!(received.len() == 1 && received.is_subset(&handlers), "{received:?} of {handlers:?}");
            }
        }
    }

    /// Answers a request, so that none is open when the next act comes.
    fn answer(&self, member: &Member, taken: &[Value], is_request: bool) {
        for request in taken.iter().filter(|_| is_request) {
            let reply = event("A/x/Reply", &format!(r#","inReplyTo":{}"#, request["id"]));
            // A command needs no answer.
            if self.core.send(&member.session, &reply).is_ok() {
                self.members.iter().for_each(|member| drop(self.core.take(&member.session)));
            }
        }
    }

    fn change(&mut self, of: usize, permissions: Permissions) {
        let member = &mut self.members[of];
        let now = self.core.now;
        self.core.router.change_permissions(now, &member.session, permissions.clone(), Reason::Reloaded);
        let before = std::mem::replace(&mut member.permissions, permissions);
        let (mut ended, mut narrowed) = (Vec::new(), Vec::new());
        for (id, held) in &member.held {
            if member.judge(&member.permissions, held).is_none() {
                ended.push(id.clone());
            } else if member.loses(&before, held) {
                narrowed.push(id.clone());
            }
        }
        member.held.retain(|(id, _)| !ended.contains(id));
        let told = self.core.take(&member.session);
        if ended.is_empty() && narrowed.is_empty() {
            assert!(told.is_empty(), "{told:?}");
            return;
        }
        assert_eq!(told.len(), 1);
        let data = &told[0]["data"];
        assert_eq!(*data, serde_json::json!({"SubscriptionIds": ended, "Narrowed": narrowed, "Reason": "RELOADED"}));
    }
}

impl Member {
    /// Whether a subscription gets something no longer that it got before.
    fn loses(&self, before: &Permissions, held: &Held) -> bool {
        let covers = |triple: &[&str; 3]| in_pattern(&held.pattern, *triple, |_, own, value| own == value);
        let loses_triple = world().filter(covers).any(|triple| {
            allows(Self::right(before, held), triple) && !allows(Self::right(&self.permissions, held), triple)
        });
        let names_all = match self.user {
            Some(_) => held.user == Some("*"),
            None => matches!(held.user, None | Some("*")),
        };
        // A user that no list names stands for all others.
        let loses_user = names_all
            && held.pattern.channel.as_deref().is_none_or(|channel| !is_shared(channel))
            && USERS.iter().chain(&["other", "other@a"]).any(|user| {
                let sees = |permissions: &Permissions| match self.user {
                    Some(_) => permissions.observe.contains(user),
                    None => permissions.users.contains(user),
                };
                sees(before) && !sees(&self.permissions)
            });
        loses_triple || loses_user
    }
}

proptest! {
    // A failure prints its input, which then becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rights_allow_what_a_naive_model_allows(
        permissions in prop::collection::vec(permissions(), SESSIONS),
        acts in prop::collection::vec(act(), 1..40),
    ) {
        let mut world = World::new(permissions);
        for act in acts {
            match act {
                Act::Subscribe { by, pattern, user } => world.subscribe(by, Held { pattern, user, answers: None }),
                Act::Handle { by, pattern, answers } => {
                    world.subscribe(by, Held { pattern, user: None, answers: Some(answers) });
                }
                Act::Send { by, triple, user, more } => world.send(by, triple, user, more),
                Act::Change { of, permissions } => world.change(of, permissions),
            }
        }
    }

    #[test]
    fn a_right_is_the_set_of_triples_that_it_allows(right in right(), other in right(), of in pattern()) {
        let all = || world().filter(|triple| in_pattern(&of, *triple, |_, own, value| own == value));
        for triple in all() {
            let [channel, topic, subtopic] = triple;
            prop_assert_eq!(right.check(&Triple::new(channel, topic, subtopic)).is_ok(), allows(Some(&right), triple));
        }
        prop_assert_eq!(right.check_whole(&of).is_ok(), all().all(|triple| allows(Some(&right), triple)));
        prop_assert_eq!(right.check_some(&of).is_ok(), all().any(|triple| allows(Some(&right), triple)));
        let loses = |triple: [&str; 3]| allows(Some(&right), triple) && !allows(Some(&other), triple);
        prop_assert_eq!(right.loses(&other, &of), all().any(loses));
    }
}
