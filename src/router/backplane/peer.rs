//! [`Peer`]: what is known of another node.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::acknowledged::Acknowledged;
use super::inbox::Inbox;
use super::message::{Application, Change, Id, Message, Part, Sent, SentScope, State, Subscribed};
use super::pressure::Reports;
use super::remote::Remote;
use super::{Backplane, date};
use crate::auth::Permissions;
use crate::router::end::Ending;
use crate::router::index::{Listing, Observes, Subscription};
use crate::router::presence::{Application as Row, Change as Presence, Who};
use crate::router::request::pending::Pending;
use crate::router::session::{Role, Session};
use crate::router::{ApplicationState, Router, SessionId, SubscriptionId};
use wire::{check_name, command};

/// How much is known of one peer at most: of its sessions, and of what else it announces. It bounds what a defect of a peer
/// costs this node; a peer within its own limits does not reach it.
const KNOWN_MAX: usize = 1 << 20;

/// Another node to which there is a link.
pub(in crate::router) struct Peer {
    node: Arc<str>,
    plane: Arc<dyn Backplane>,
    /// Its snapshot has arrived.
    is_known: AtomicBool,
    wants: RwLock<Wants>,
    sessions: Mutex<Sessions>,
    /// The stand-ins of sessions that have left, until their node has said what became of their requests.
    leaving: Mutex<BTreeMap<(Id, u64), Arc<Session>>>,
    acknowledged: Acknowledged,
    /// The requests that its sessions asked handlers of this node.
    asked: Mutex<HashMap<Part, Arc<Pending>>>,
    /// The queues over half of which it was told.
    reports: Reports,
    /// A queue that counts as over half while the window of the link is.
    window: Arc<Session>,
    /// What has arrived and waits.
    pub(super) inbox: Inbox,
}

/// The events that a peer wants.
#[derive(Default)]
struct Wants {
    users: HashSet<Box<str>>,
    /// Shared channels.
    shared: HashSet<Box<str>>,
    /// Channels of which it wants the events of all users.
    all: HashSet<Box<str>>,
}

/// The sessions of a peer.
type Sessions = BTreeMap<Id, Elsewhere>;

/// A session of a peer.
pub(super) struct Elsewhere {
    source: Arc<str>,
    user: Option<Arc<str>>,
    since: SystemTime,
    state: State,
    /// Its place among presence events.
    pub(super) number: u64,
    /// What narrows its subscriptions that this node chooses.
    permissions: Option<Arc<Permissions>>,
    /// Its stand-in, once it handles requests, is in a group, or publishers here wait for its queue.
    pub(super) stand_in: Option<Arc<Session>>,
}

/// Why the link to a peer is no longer there, and since when nothing is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The last time at which everything was known to arrive.
    pub since: SystemTime,
}

impl Peer {
    pub(super) fn new(node: &str, plane: Arc<dyn Backplane>, window: Arc<Session>) -> Self {
        Self {
            node: Arc::from(node),
            plane,
            is_known: AtomicBool::new(false),
            wants: RwLock::default(),
            sessions: Mutex::default(),
            leaving: Mutex::default(),
            acknowledged: Acknowledged::default(),
            asked: Mutex::default(),
            reports: Reports::default(),
            window,
            inbox: Inbox::default(),
        }
    }

    pub(super) fn take_control(&self, message: &[u8]) {
        self.plane.take_control(&self.node, message);
    }

    pub(super) fn reports(&self) -> &Reports {
        &self.reports
    }

    pub(super) fn window(&self) -> &Arc<Session> {
        &self.window
    }

    pub(in crate::router) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.node
    }

    /// What it has taken of what this node announced.
    pub(in crate::router) fn acknowledged(&self) -> &Acknowledged {
        &self.acknowledged
    }

    /// Gives it a message. Returns `false` if there is no link any more.
    pub(in crate::router) fn send(&self, message: &Message<'_>) -> bool {
        self.plane.send(&self.node, message.write()).is_some()
    }

    /// Whether it wants an event of a channel.
    pub(super) fn wants(&self, channel: &str, event: &Sent<'_>) -> bool {
        let wants = self.wants.read();
        let of = |channels: &HashSet<Box<str>>| channels.contains(channel) || channels.contains("*");
        match event.scope {
            SentScope::User(user) => wants.users.contains(user) || of(&wants.all),
            SentScope::Shared(_) => of(&wants.shared),
            SentScope::All => !wants.users.is_empty() || of(&wants.all),
            SentScope::Watchers => of(&wants.all),
        }
    }

    /// Notes a request that one of its sessions asked a handler of this node.
    pub(super) fn note_asked(&self, part: Part, pending: &Arc<Pending>) {
        self.asked.lock().insert(part, Arc::clone(pending));
    }

    pub(super) fn forget_asked(&self, part: Part) -> Option<Arc<Pending>> {
        self.asked.lock().remove(&part)
    }

    /// Its applications whose user `fits`, with every session on a row of its own.
    pub(super) fn applications(&self, fits: impl Fn(Option<&str>) -> bool, rows: &mut Vec<Row>) {
        let sessions = self.sessions.lock();
        rows.extend(sessions.values().filter(|it| fits(it.user.as_deref())).map(|it| Row {
            source: it.source.to_string(),
            user: it.user.as_deref().map(str::to_owned),
            since: it.since,
            sessions: 1,
            state: it.state.into(),
        }));
    }

    /// Its sessions whose source and user `fits` accepts, in the order of their ids.
    pub(in crate::router) fn sessions_like(
        &self,
        fits: impl Fn(&str, Option<&str>) -> bool,
    ) -> Vec<(Id, Arc<str>, Option<Arc<str>>)> {
        let sessions = self.sessions.lock();
        let fitting = sessions.iter().filter(|(_, it)| fits(&it.source, it.user.as_deref()));
        fitting.map(|(id, it)| (*id, Arc::clone(&it.source), it.user.clone())).collect()
    }

    /// Whether it has announced a session.
    pub(super) fn has(&self, session: Id) -> bool {
        self.sessions.lock().contains_key(&session)
    }

    /// Takes a session off the list.
    pub(super) fn take_session(&self, session: Id) -> Option<Elsewhere> {
        self.sessions.lock().remove(&session)
    }

    /// The stand-in of a session that was given a request.
    pub(in crate::router) fn stand_in(&self, session: Id) -> Option<Arc<Session>> {
        self.stand_ins(session).next()
    }

    /// The stand-ins of a session: the present one, and those that it had before it moved away and returned.
    pub(super) fn stand_ins(&self, session: Id) -> impl Iterator<Item = Arc<Session>> + use<> {
        let present = self.sessions.lock().get(&session).and_then(|it| it.stand_in.clone());
        let leaving: Vec<_> =
            self.leaving.lock().range((session, 0)..=(session, u64::MAX)).map(|(_, it)| Arc::clone(it)).collect();
        present.into_iter().chain(leaving)
    }
}

impl Wants {
    fn change(wanted: &mut HashSet<Box<str>>, name: &str, is_wanted: bool) {
        match is_wanted {
            false => drop(wanted.remove(name)),
            true if wanted.len() < KNOWN_MAX => drop(wanted.insert(Box::from(name))),
            true => {}
        }
    }
}

impl Router {
    /// A peer's snapshot: what it announced before is void.
    pub(super) fn begin_anew(&self, now: Instant, peer: &Arc<Peer>, changes: &[Change<'_>]) {
        // What it said of records while there was no link is not sent again.
        self.records_changed_elsewhere(None);
        if peer.is_known.swap(true, Ordering::AcqRel) {
            self.forget_peer(now, peer);
        }
        let mut joined = Vec::new();
        for change in changes {
            match change {
                Change::Joined(application) => joined.extend(self.joined_elsewhere(now, peer, application)),
                other => self.changed(now, peer, other),
            }
        }
        self.values_due(peer);
        // Told only now, so that a session that is told can reach the handlers of the one that joined.
        for who in joined {
            self.tell_presence_of(now, &who, Some(peer.node()), Presence::Joined);
        }
    }

    /// Forgets everything that a peer has announced: its sessions have left.
    pub(super) fn forget_peer(&self, now: Instant, peer: &Arc<Peer>) {
        peer.acknowledged.lost();
        peer.reports.lock().clear();
        peer.window.outbox().set_pressed(now, false);
        self.leases_unanswered(peer);
        self.note_values_missed();
        self.moves_lost(now, peer);
        self.asks_lost(now, peer);
        for (id, session) in peer.inbox.clear() {
            self.tell_left(now, peer, id, session);
        }
        if let Some(cluster) = &self.cluster {
            cluster.cut_off.lost(now, peer.node());
        }
        *peer.wants.write() = Wants::default();
        let sessions = std::mem::take(&mut *peer.sessions.lock());
        for (id, session) in sessions {
            let stand_in = session.stand_in.clone();
            if let (Some(stand_in), Some(cluster)) = (&stand_in, &self.cluster) {
                cluster.cut_off.remember(peer.node(), stand_in);
            }
            // `Left` comes before the ends of its requests, as everywhere.
            self.tell_left(now, peer, id, session);
            if let Some(stand_in) = &stand_in {
                self.end_session(now, stand_in, Ending::Lost);
            }
        }
        let leaving = std::mem::take(&mut *peer.leaving.lock());
        for stand_in in leaving.into_values() {
            self.end_session(now, &stand_in, Ending::Lost);
        }
        let asked: Vec<_> = peer.asked.lock().drain().map(|(_, pending)| pending).collect();
        for pending in asked {
            self.withdraw(now, &pending, "the requester's node was lost");
        }
    }

    /// A peer announces a change.
    pub(super) fn changed(&self, now: Instant, peer: &Arc<Peer>, change: &Change<'_>) {
        match change {
            Change::User { user, wanted } => Wants::change(&mut peer.wants.write().users, user, *wanted),
            Change::Channel { channel, shared, wanted } => {
                let mut wants = peer.wants.write();
                let channels = if *shared { &mut wants.shared } else { &mut wants.all };
                Wants::change(channels, channel, *wanted);
            }
            Change::Joined(application) => {
                if let Some(who) = self.joined_elsewhere(now, peer, application) {
                    self.tell_presence_of(now, &who, Some(peer.node()), Presence::Joined);
                }
            }
            Change::Left { session } => {
                let left = peer.sessions.lock().remove(session);
                if let Some(left) = left {
                    self.left_elsewhere(now, peer, *session, left);
                }
            }
            Change::State { session, state } => {
                if let Some(session) = peer.sessions.lock().get_mut(session) {
                    session.set_state(*state);
                }
            }
            Change::Narrowed { session, narrowing } => {
                if let Some(session) = peer.sessions.lock().get_mut(session) {
                    session.set_permissions(narrowing.permissions());
                }
            }
            Change::Subscribed(subscribed) => self.subscribed_elsewhere(now, peer, subscribed),
            Change::Moved { from, application, subscribed } => {
                self.moved_elsewhere(now, peer, from, (application, subscribed));
            }
            Change::Unsubscribed { session, subscription } => {
                if let Some(session) = peer.stand_in(*session) {
                    let id = SubscriptionId::from_number(*subscription);
                    self.end_stand_ins_subscription(now, &session, |it| it.id == id);
                }
            }
        }
    }

    /// Notes a session of a peer. `number`: its place among presence events, if it has one. Returns what others are told of it;
    /// `None` if nothing is known of it.
    pub(super) fn add_elsewhere<'a>(
        &self,
        peer: &Peer,
        application: &Application<'a>,
        number: Option<u64>,
    ) -> Option<Who<'a>> {
        let Application { session, source, user, since_ms, state } = *application;
        if check_name(source).is_err() || user.is_some_and(|user| check_name(user).is_err()) {
            return None;
        }
        let since = date::from_ms(since_ms);
        let (number, user) = (number.unwrap_or_else(|| self.ids.stamp()), user.map(Arc::from));
        let elsewhere = Elsewhere {
            source: Arc::from(source),
            user: user.clone(),
            since,
            state,
            number,
            permissions: None,
            stand_in: None,
        };
        let mut sessions = peer.sessions.lock();
        if sessions.len() >= KNOWN_MAX || sessions.contains_key(&session) {
            return None;
        }
        sessions.insert(session, elsewhere);
        Some(Who { number, id: SessionId::from_bytes(session), source, user })
    }

    /// A session of a peer has ended. Its node has yet to say what became of the requests that it was given.
    fn left_elsewhere(&self, now: Instant, peer: &Peer, id: Id, left: Elsewhere) {
        if let Some(stand_in) = &left.stand_in {
            self.retire(now, peer, id, stand_in);
        }
        if let Some((id, left)) = peer.inbox.hold_left(id, left) {
            self.tell_left(now, peer, id, left);
        }
    }

    /// From here on, a stand-in is given nothing more.
    pub(super) fn retire(&self, now: Instant, peer: &Peer, id: Id, stand_in: &Arc<Session>) {
        stand_in.holds.lock().close();
        stand_in.outbox().set_pressed(now, false);
        self.end_stand_ins_subscription(now, stand_in, |_| true);
        let mut leaving = peer.leaving.lock();
        leaving.retain(|_, session| session.busy() > 0);
        if stand_in.busy() > 0 {
            leaving.insert((id, stand_in.number), Arc::clone(stand_in));
        }
    }

    pub(super) fn tell_left(&self, now: Instant, peer: &Peer, id: Id, left: Elsewhere) {
        let id = SessionId::from_bytes(id);
        let who = Who { number: left.number, id, source: &left.source, user: left.user };
        self.tell_presence_of(now, &who, Some(peer.node()), Presence::Left);
    }

    pub(super) fn subscribed_elsewhere(&self, now: Instant, peer: &Arc<Peer>, subscribed: &Subscribed<'_>) {
        let id = SubscriptionId::from_number(subscribed.id);
        let Some(session) = self.stand_in_for(now, peer, subscribed.session) else { return };
        let mut holds = session.holds.lock();
        if holds.is_closed() || holds.subscriptions.len() >= KNOWN_MAX {
            return;
        }
        let subscription = Arc::new(Subscription {
            id,
            serial: self.ids.serial(),
            since: self.date(now),
            session: Arc::clone(&session),
            pattern: subscribed.pattern(),
            role: subscribed.role(),
            group: subscribed.group.map(Box::from),
            // What it is given leaves by the link, not by its queue, and its node has announced what narrows it.
            checked: AtomicBool::new(true),
            observes: subscribed.observes.map(|user| match user {
                "*" => Observes::All,
                user => Observes::User(Box::from(user)),
            }),
            ordered: None,
            listing: Listing::default(),
        });
        holds.subscriptions.push(Arc::clone(&subscription));
        self.hints.insert(&subscription);
        match subscription.role {
            command::Role::Subscriber => self.events.insert(&self.policy, &subscription),
            command::Role::Handler { .. } => self.handlers.insert(&self.policy, &subscription),
        }
    }

    /// Ends those subscriptions of a stand-in that fit.
    pub(super) fn end_stand_ins_subscription(
        &self,
        now: Instant,
        session: &Arc<Session>,
        mut fits: impl FnMut(&Subscription) -> bool,
    ) {
        let ended: Vec<_> = session.holds.lock().subscriptions.extract_if(.., |it| fits(it)).collect();
        for subscription in &ended {
            self.unlist(now, subscription);
        }
    }

    /// The stand-in of a session of a peer, which is made if there is none; `None` if there is no such session.
    pub(super) fn stand_in_for(&self, now: Instant, peer: &Arc<Peer>, session: Id) -> Option<Arc<Session>> {
        let mut sessions = peer.sessions.lock();
        let elsewhere = sessions.get_mut(&session)?;
        if let Some(stand_in) = &elsewhere.stand_in {
            return Some(Arc::clone(stand_in));
        }
        let stand_in = Arc::new(self.stand_in_of(now, peer, session, elsewhere));
        elsewhere.stand_in = Some(Arc::clone(&stand_in));
        elsewhere.set_state(elsewhere.state);
        if let Some(permissions) = &elsewhere.permissions {
            stand_in.set_permissions(Arc::clone(permissions));
        }
        Some(stand_in)
    }

    fn stand_in_of(&self, now: Instant, peer: &Arc<Peer>, id: Id, elsewhere: &Elsewhere) -> Session {
        let mut session = self.stand_in(now, &elsewhere.source, elsewhere.user.as_ref(), Remote::handler(peer, id));
        session.id = SessionId::from_bytes(id);
        session
    }

    /// A session that stands for one of another node. Its own node checks its rights.
    pub(super) fn stand_in(&self, now: Instant, source: &str, user: Option<&Arc<str>>, remote: Remote) -> Session {
        let registration = Remote::registration(source, user);
        let role = Role::of(&registration.identity.principal);
        let mut session = self.session(now, role, registration, None);
        session.remote = Some(Box::new(remote));
        session
    }
}

impl From<State> for ApplicationState {
    fn from(state: State) -> Self {
        match state {
            State { away_since_ms: Some(_), .. } => Self::Away,
            State { asleep: true, .. } => Self::Asleep,
            State { .. } => Self::Active,
        }
    }
}

impl Elsewhere {
    fn set_permissions(&mut self, permissions: Permissions) {
        let permissions = Arc::new(permissions);
        if let Some(session) = &self.stand_in {
            session.set_permissions(Arc::clone(&permissions));
        }
        self.permissions = Some(permissions);
    }

    fn set_state(&mut self, state: State) {
        self.state = state;
        if let Some(session) = &self.stand_in {
            session.set_state(if state.asleep { command::State::Asleep } else { command::State::Active });
            session.set_missed(state.late);
            if let Some(remote) = session.remote() {
                remote.set_away(state.away_since_ms.map(date::from_ms));
            }
        }
    }
}
