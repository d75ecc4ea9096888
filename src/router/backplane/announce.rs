//! What this node tells its peers: its sessions, which of them answer, and which events it wants.
//!
//! A peer gets everything in a snapshot when its link begins, then each change. Both happen under one lock, so that the
//! order in which changes are told is the order in which they happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::message::{Application, Change, Message, State, Subscribed};
use super::narrowing::Narrowing;
use super::{Backplane, Cluster, date};
use crate::router::Router;
use crate::router::history::LogName;
use crate::router::ids::Serial;
use crate::router::index::{Audience, Observes, Subscription, audiences};
use crate::router::policy::Policy;
use crate::router::session::{Role, Session};
use wire::{BROKER, command};

/// What this node announces.
#[derive(Default)]
pub(super) struct Announced(Mutex<Current>);

#[derive(Default)]
struct Current {
    /// What subscriptions want.
    wanted: BTreeMap<Want, Wanted>,
    /// What each subscription to events wants. Kept, because the policy from which it follows can change.
    of_subscriptions: BTreeMap<Serial, Wants>,
    /// The registered sessions, by number.
    sessions: BTreeMap<u64, Arc<Session>>,
    /// The subscriptions that other nodes choose.
    chosen: BTreeMap<Serial, Arc<Subscription>>,
}

/// How many subscriptions want something, and since which stamp.
#[derive(Clone, Copy)]
struct Wanted {
    count: usize,
    since: u64,
}

/// Events that a subscription wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    /// Of a user.
    User(Box<str>),
    /// Of a channel, or of all (`*`): of a shared one, or those of all users.
    Channel { channel: Box<str>, shared: bool },
}

type Wants = SmallVec<[Want; 2]>;

impl Want {
    fn change(&self, wanted: bool) -> Change<'_> {
        match self {
            Self::User(user) => Change::User { user, wanted },
            Self::Channel { channel, shared } => Change::Channel { channel, shared: *shared, wanted },
        }
    }
}

/// The events that a subscription wants of other nodes.
fn wants_of(policy: &Policy, subscription: &Subscription) -> Wants {
    let mut wants = Wants::new();
    // Events of other nodes are not for adapters: each node has its own, and all would do the same.
    if subscription.is_handler() || subscription.group.is_some() || subscription.session.role == Role::Adapter {
        return wants;
    }
    let name = subscription.pattern.channel.as_deref();
    if name == Some(BROKER) {
        return wants;
    }
    let is_shared = name.map(|name| policy.is_shared(name));
    let channel = |shared| Want::Channel { channel: Box::from(name.unwrap_or("*")), shared };
    for audience in audiences(policy, subscription) {
        match audience {
            Audience::User(user) => wants.push(Want::User(Box::from(user))),
            Audience::Everyone => wants.push(channel(true)),
            Audience::Observes(user) => match is_shared {
                Some(true) => wants.push(channel(true)),
                Some(false) => wants.push(Want::User(Box::from(user))),
                None => {
                    wants.push(channel(true));
                    wants.push(Want::User(Box::from(user)));
                }
            },
            Audience::Services | Audience::ObservesAll | Audience::Adapters => {
                if is_shared != Some(false) {
                    wants.push(channel(true));
                }
                if is_shared != Some(true) {
                    wants.push(channel(false));
                }
            }
        }
    }
    wants
}

impl Announced {
    /// Tells a peer everything.
    pub(super) fn snapshot(&self, plane: &dyn Backplane, node: &str) {
        let current = self.0.lock();
        let wanted = current.wanted.keys().map(|want| want.change(true));
        // A session that has gone is announced by its new node.
        let is_here = |session: &Session| session.transit().is_none_or(|transit| !transit.has_gone());
        let sessions = current.sessions.values().filter(|it| is_here(it)).map(|it| Change::Joined(application(it)));
        let chosen = || current.chosen.values().filter(|it| is_here(&it.session));
        let narrowed: BTreeMap<_, _> = chosen()
            .filter(|it| it.is_checked())
            .map(|it| (*it.session.id.as_bytes(), it.session.permissions()))
            .collect();
        let narrowed = narrowed.iter();
        let narrowed =
            narrowed.map(|(session, it)| Change::Narrowed { session: *session, narrowing: Narrowing::of(it) });
        // Sessions come before what narrows them, and that before their subscriptions.
        let chosen = chosen().map(|it| Change::Subscribed(subscribed(it)));
        let changes = wanted.chain(sessions).chain(narrowed).chain(chosen).collect();
        plane.send_snapshot(node, Message::Snapshot { changes }.write());
        // The peer is told next time how busy they are.
        let handlers = current.chosen.values().filter(|it| it.is_handler() && it.session.busy() > 0);
        handlers.for_each(|it| it.session.load.note(it.session.number));
    }

    /// The announced sessions with these numbers.
    pub(super) fn sessions(&self, numbers: &BTreeSet<u64>) -> Vec<Arc<Session>> {
        let current = self.0.lock();
        numbers.iter().filter_map(|number| current.sessions.get(number).cloned()).collect()
    }

    /// The announced session with this number.
    pub(super) fn session(&self, number: u64) -> Option<Arc<Session>> {
        self.0.lock().sessions.get(&number).cloned()
    }

    /// Calls `tell` if a session is announced, while nothing else is.
    pub(super) fn if_announced(&self, session: &Session, tell: impl FnOnce()) {
        let current = self.0.lock();
        if current.sessions.contains_key(&session.number) {
            tell();
        }
    }
}

fn application(session: &Session) -> Application<'_> {
    Application {
        session: *session.id.as_bytes(),
        source: &session.source,
        user: session.user(),
        since_ms: date::to_ms(session.since),
        state: state_of(session),
    }
}

fn state_of(session: &Session) -> State {
    let away_since_ms = session.away_since().map(date::to_ms);
    State { asleep: session.state() == command::State::Asleep, late: session.has_missed(), away_since_ms }
}

fn subscribed(subscription: &Subscription) -> Subscribed<'_> {
    let pattern = &subscription.pattern;
    Subscribed {
        session: *subscription.session.id.as_bytes(),
        id: subscription.id.number(),
        channel: pattern.channel.as_deref(),
        topic: pattern.topic.as_deref(),
        subtopic: pattern.subtopic.as_deref(),
        answers: match subscription.role {
            command::Role::Subscriber => None,
            command::Role::Handler { answers, .. } => Some(answers),
        },
        group: subscription.group.as_deref(),
        observes: subscription.observes.as_ref().map(|observes| match observes {
            Observes::User(user) => &**user,
            Observes::All => "*",
        }),
    }
}

/// Whether other nodes choose a subscription.
pub(super) fn is_chosen(subscription: &Subscription) -> bool {
    subscription.is_handler() || subscription.group.is_some()
}

impl Cluster {
    /// Tells every peer a change. `by`: the session that is told only then that it is in force.
    pub(super) fn tell_all(&self, by: Option<&Arc<Session>>, change: Change<'_>) {
        let message = Message::Change(change);
        for peer in self.peers.load().iter() {
            let number = self.send(peer, &message);
            if let Some(number) = number {
                peer.acknowledged().told(number);
            }
            if let (Some(number), Some(session)) = (number, by) {
                peer.acknowledged().wait(number, session);
            }
        }
    }
}

impl Router {
    /// A session registered: `joined`, or has ended.
    pub(in crate::router) fn announce_session(&self, session: &Arc<Session>, joined: bool) {
        let Some(cluster) = &self.cluster else { return };
        let mut current = cluster.announced.0.lock();
        if joined {
            current.sessions.insert(session.number, Arc::clone(session));
            cluster.tell_all(Some(session), Change::Joined(application(session)));
        } else if current.sessions.remove(&session.number).is_some() {
            cluster.tell_all(None, Change::Left { session: *session.id.as_bytes() });
        }
    }

    /// A session has arrived from another node. Its subscriptions are in the index.
    pub(super) fn announce_moved(&self, session: &Arc<Session>, from: &str) {
        let Some(cluster) = &self.cluster else { return };
        let held = session.holds.lock().subscriptions.clone();
        let mut current = cluster.announced.0.lock();
        current.sessions.insert(session.number, Arc::clone(session));
        let is_chosen = |it: &&Arc<Subscription>| it.is_handler() || it.group.is_some();
        for subscription in held.iter().filter(|it| !is_chosen(it)) {
            let wants = wants_of(&self.policy, subscription);
            for want in &wants {
                let new = Wanted { count: 0, since: self.ids.stamp() };
                let wanted = current.wanted.entry(want.clone()).or_insert(new);
                wanted.count += 1;
                if wanted.count == 1 {
                    cluster.tell_all(None, want.change(true));
                }
            }
            if !wants.is_empty() {
                current.of_subscriptions.insert(subscription.serial, wants);
            }
        }
        let chosen: Vec<_> = held.iter().filter(is_chosen).collect();
        current.chosen.extend(chosen.iter().map(|it| (it.serial, Arc::clone(it))));
        let subscribed = chosen.iter().map(|it| subscribed(it)).collect();
        cluster.tell_all(None, Change::Moved { from, application: application(session), subscribed });
    }

    /// Calls `tell` while no change is told to peers.
    pub(super) fn while_nothing_changes(&self, tell: impl FnOnce()) {
        let Some(cluster) = &self.cluster else { return };
        let _current = cluster.announced.0.lock();
        tell();
    }

    /// How a session is has changed. `is_answered`: the session waits for a reply.
    pub(in crate::router) fn announce_state(&self, session: &Arc<Session>, is_answered: bool) {
        let Some(cluster) = &self.cluster else { return };
        let current = cluster.announced.0.lock();
        if current.sessions.contains_key(&session.number) {
            let session_id = *session.id.as_bytes();
            let by = is_answered.then_some(session);
            cluster.tell_all(by, Change::State { session: session_id, state: state_of(session) });
        }
    }

    /// A subscription of this node is in the index.
    pub(in crate::router) fn announce_subscription(&self, subscription: &Arc<Subscription>) {
        let Some(cluster) = &self.cluster else { return };
        if is_chosen(subscription) && subscription.session.is_application() {
            if subscription.is_handler() {
                self.watch_load(&subscription.session);
            }
            let mut current = cluster.announced.0.lock();
            if subscription.is_checked() {
                cluster.tell_narrowing(&subscription.session);
            }
            current.chosen.insert(subscription.serial, Arc::clone(subscription));
            let by = Some(&subscription.session);
            return cluster.tell_all(by, Change::Subscribed(subscribed(subscription)));
        }
        let wants = wants_of(&self.policy, subscription);
        if wants.is_empty() {
            return;
        }
        let mut current = cluster.announced.0.lock();
        for want in &wants {
            let new = Wanted { count: 0, since: self.ids.stamp() };
            let wanted = current.wanted.entry(want.clone()).or_insert(new);
            wanted.count += 1;
            match wanted.count {
                1 => cluster.tell_all(Some(&subscription.session), want.change(true)),
                // Peers may not have taken yet that another one wants it.
                _ => cluster.peers.load().iter().for_each(|it| it.acknowledged().wait_for_all(&subscription.session)),
            }
        }
        current.of_subscriptions.insert(subscription.serial, wants);
    }

    /// A subscription has ended.
    pub(in crate::router) fn announce_end(&self, subscription: &Subscription) {
        let Some(cluster) = &self.cluster else { return };
        let mut current = cluster.announced.0.lock();
        if current.chosen.remove(&subscription.serial).is_some() {
            let session = *subscription.session.id.as_bytes();
            return cluster.tell_all(
                Some(&subscription.session),
                Change::Unsubscribed { session, subscription: subscription.id.number() },
            );
        }
        for want in current.of_subscriptions.remove(&subscription.serial).into_iter().flatten() {
            let Some(wanted) = current.wanted.get_mut(&want) else { continue };
            wanted.count -= 1;
            if wanted.count == 0 {
                current.wanted.remove(&want);
                cluster.tell_all(Some(&subscription.session), want.change(false));
            }
        }
    }

    /// The stamp since which this node wants the events of a log. `None`: it does not.
    pub(in crate::router) fn wanted_since(&self, log: &LogName<'_>) -> Option<u64> {
        let cluster = self.cluster.as_ref()?;
        let channel = |name: &str, shared| Want::Channel { channel: Box::from(name), shared };
        let shared = log.owner.is_none();
        let wants =
            [Some(channel(log.channel, shared)), Some(channel("*", shared)), log.owner.map(|it| Want::User(it.into()))];
        let current = cluster.announced.0.lock();
        wants.into_iter().flatten().filter_map(|want| current.wanted.get(&want)).map(|wanted| wanted.since).min()
    }

    /// Lets a log be checked when every peer knows that its events are wanted here.
    pub(in crate::router) fn check_when_announced(&self, log: &LogName<'_>) {
        let Some(cluster) = &self.cluster else { return };
        cluster.peers.load().iter().for_each(|peer| peer.acknowledged().check(log.stored()));
    }
}
