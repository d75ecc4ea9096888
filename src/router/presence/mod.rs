//! [`Presence`]: the registered applications with their users, and the events that one joined or left.

mod held;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use dashmap::DashMap;

use crate::router::index::receivers::Receivers;
use crate::router::resume::transit::From;
use crate::router::session::{Role, Session};
use crate::router::{Limits, Router, Scope, SessionId};
use crate::telemetry::recorder::What;
use crate::websocket::Frame;
pub(super) use held::HeldPresence;
use wire::command::State;
use wire::notice;
use wire::{ErrorCode, Refusal};

/// Sessions by source, then in the order in which they registered.
type Sources = BTreeMap<Arc<str>, BTreeMap<u64, Arc<Session>>>;

/// The registered sessions of users (`Some`) and of services (`None`).
#[derive(Default)]
pub(super) struct Presence {
    by_user: DashMap<Option<Arc<str>>, Sources, foldhash::fast::RandomState>,
    /// The number of sessions of each source, of all users and services together. Changes with `by_user`, under its lock.
    by_source: DashMap<Arc<str>, usize, foldhash::fast::RandomState>,
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Joined,
    Left,
}

impl Change {
    fn subtopic(self) -> &'static str {
        match self {
            Self::Joined => "Joined",
            Self::Left => "Left",
        }
    }
}

/// A session that joins or leaves.
pub(super) struct Who<'a> {
    /// Its place in the order in which sessions registered.
    pub(super) number: u64,
    pub(super) id: SessionId,
    pub(super) source: &'a str,
    /// `None`: a service.
    pub(super) user: Option<Arc<str>>,
}

/// One application of a user, or one service: a row of `Application/List`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The registered name.
    pub source: String,
    /// `None` for a service.
    pub user: Option<String>,
    /// When the earliest of its sessions registered.
    pub since: SystemTime,
    /// How many sessions it has.
    pub sessions: usize,
    /// Active if any session is.
    pub state: ApplicationState,
}

/// What an application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationState {
    /// One of its sessions works.
    Active,
    /// All of its sessions that have a connection are asleep.
    Asleep,
    /// None of its sessions has a connection.
    Away,
}

impl ApplicationState {
    /// Returns the state as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Asleep => "asleep",
            Self::Away => "away",
        }
    }

    /// The state of an application with sessions in these states.
    pub(super) fn livelier(self, other: Self) -> Self {
        match (self, other) {
            (Self::Active, _) | (_, Self::Active) => Self::Active,
            (Self::Asleep, _) | (_, Self::Asleep) => Self::Asleep,
            (Self::Away, Self::Away) => Self::Away,
        }
    }

    /// The state of one session.
    pub(super) fn of_session(session: &Session) -> Self {
        match session.state() {
            _ if session.is_away() => Self::Away,
            State::Active => Self::Active,
            State::Asleep => Self::Asleep,
        }
    }

    fn of<'s>(sessions: impl Iterator<Item = &'s Arc<Session>>) -> Self {
        let mut present = sessions.filter(|session| !session.is_away()).map(|session| session.state()).peekable();
        if present.peek().is_none() {
            return Self::Away;
        }
        if present.any(|state| state == State::Active) { Self::Active } else { Self::Asleep }
    }
}

/// Finds the session that has been away for longest among those that a function accepts.
pub(super) type LongestAway<'a> = dyn Fn(&dyn Fn(&Session) -> bool) -> Option<Arc<Session>> + 'a;

/// What a session needs that is to be listed.
pub(super) struct Place<'a> {
    /// No other session of its source and user may be there.
    pub(super) exclusive: bool,
    /// The session with this number ends as soon as this one is listed.
    pub(super) except: Option<u64>,
    /// The session that has been away for longest among those that a function accepts.
    pub(super) longest_away: &'a LongestAway<'a>,
}

/// What became of a session that was to be listed.
pub(super) enum Joined {
    /// It is listed.
    Listed,
    /// Its identity has to be verified again.
    Outdated,
    /// There is room for it as soon as these sessions have ended, which are away.
    Displaces(Vec<Arc<Session>>),
}

fn user_of(session: &Session) -> Option<Arc<str>> {
    match &session.role {
        Role::User(user) => Some(Arc::clone(user)),
        Role::Adapter | Role::Service => None,
    }
}

fn too_many(whose: &str, most: usize, key: &str) -> Refusal {
    let words =
        format!("{whose} has {most} sessions already, which is the limit ({key}); close one, or try again later");
    Refusal::new(ErrorCode::TooManySessions, words)
}

/// The applications of a user, or the services.
fn applications_of<'s>(
    user: Option<&'s Arc<str>>,
    sources: &'s Sources,
) -> impl Iterator<Item = Application> + use<'s> {
    sources.iter().filter_map(move |(source, sessions)| {
        let (_, earliest) = sessions.first_key_value()?;
        Some(Application {
            source: source.to_string(),
            user: user.map(ToString::to_string),
            since: earliest.since,
            sessions: sessions.len(),
            state: ApplicationState::of(sessions.values()),
        })
    })
}

impl Presence {
    /// Lists a session, if there is room for it. `is_current` is asked while the sessions of this user can be neither added
    /// nor walked.
    ///
    /// # Errors
    /// `SOURCE_IN_USE`, `TOO_MANY_SESSIONS`.
    pub(super) fn join(
        &self,
        session: &Arc<Session>,
        place: &Place<'_>,
        limits: &Limits,
        is_current: impl FnOnce() -> bool,
    ) -> Result<Joined, Refusal> {
        let user = user_of(session);
        let mut sources = self.by_user.entry(user.clone()).or_default();
        let outcome = match is_current() {
            true => self.check_room(session, &sources, place, limits).map(|displaced| match displaced.is_empty() {
                true => Joined::Listed,
                false => Joined::Displaces(displaced),
            }),
            false => Ok(Joined::Outdated),
        };
        let is_listed = matches!(outcome, Ok(Joined::Listed));
        if is_listed {
            sources.entry(Arc::clone(&session.source)).or_default().insert(session.number, Arc::clone(session));
        }
        drop(sources);
        if !is_listed {
            // The first session of a user was refused, so nothing is known of this user.
            self.by_user.remove_if(&user, |_, sources| sources.is_empty());
        }
        outcome
    }

    /// Checks whether there is room for a session beside those of its user, and counts it for its source. Returns the
    /// sessions that have to end first, because they are away; then it is not counted.
    fn check_room(
        &self,
        session: &Session,
        sources: &Sources,
        place: &Place<'_>,
        limits: &Limits,
    ) -> Result<Vec<Arc<Session>>, Refusal> {
        let mut displaced: Vec<Arc<Session>> = Vec::new();
        let stays = |other: &Session, displaced: &[Arc<Session>]| {
            Some(other.number) != place.except && displaced.iter().all(|it| it.number != other.number)
        };
        if place.exclusive {
            for other in sources.get(&session.source).into_iter().flat_map(BTreeMap::values) {
                if other.is_away() && stays(other, &displaced) {
                    displaced.push(Arc::clone(other));
                } else if stays(other, &displaced) {
                    let since = humantime::format_rfc3339_seconds(other.since);
                    return Err(Refusal::new(
                        ErrorCode::SourceInUse,
                        format!(
                            "the source is exclusive, and another session registered it at {since}; close that one first"
                        ),
                    ));
                }
            }
        }
        let most = if session.role == Role::Service { 0 } else { limits.sessions_per_user };
        let of_user = || sources.values().flat_map(BTreeMap::values);
        while most > 0 && of_user().filter(|other| stays(other, &displaced)).count() >= most {
            let fits = |other: &Session| other.role == session.role && stays(other, &displaced);
            let oldest = (place.longest_away)(&fits);
            displaced.push(oldest.ok_or_else(|| too_many("the user", most, "limits.sessions_per_user"))?);
        }
        let most = limits.sessions_per_source;
        let mut count = self.by_source.entry(Arc::clone(&session.source)).or_default();
        let others = |displaced: &[Arc<Session>]| {
            let ending = displaced.iter().filter(|it| it.source == session.source).count();
            count.saturating_sub(ending + usize::from(place.except.is_some()))
        };
        while most > 0 && others(&displaced) >= most {
            let fits = |other: &Session| other.source == session.source && stays(other, &displaced);
            let oldest = (place.longest_away)(&fits);
            displaced.push(oldest.ok_or_else(|| too_many("the source", most, "limits.sessions_per_source"))?);
        }
        *count += usize::from(displaced.is_empty());
        Ok(displaced)
    }

    /// Lists a session that comes from another node, which had room for it.
    pub(super) fn list_moved(&self, session: &Arc<Session>) {
        let mut sources = self.by_user.entry(user_of(session)).or_default();
        sources.entry(Arc::clone(&session.source)).or_default().insert(session.number, Arc::clone(session));
        *self.by_source.entry(Arc::clone(&session.source)).or_default() += 1;
    }

    pub(super) fn leave(&self, session: &Session) {
        self.by_user.remove_if_mut(&user_of(session), |_, sources| {
            if let Some(sessions) = sources.get_mut(&session.source) {
                if sessions.remove(&session.number).is_some() {
                    self.by_source.remove_if_mut(&session.source, |_, count| {
                        *count -= 1;
                        *count == 0
                    });
                }
                if sessions.is_empty() {
                    sources.remove(&session.source);
                }
            }
            sources.is_empty()
        });
    }

    fn list(&self, user: Option<&Arc<str>>, rows: &mut Vec<Application>) {
        if let Some(sources) = self.by_user.get(&user.cloned()) {
            rows.extend(applications_of(user, &sources));
        }
    }

    /// The applications of all users, and the services, in no order.
    pub(super) fn list_all(&self, rows: &mut Vec<Application>) {
        for sources in &self.by_user {
            rows.extend(applications_of(sources.key().as_ref(), &sources));
        }
    }

    /// The users with a session, in order.
    pub(super) fn users(&self) -> BTreeSet<Arc<str>> {
        self.by_user.iter().filter_map(|sources| sources.key().clone()).collect()
    }

    /// The sessions of a source of a user, or of services, in the order in which they registered.
    pub(super) fn of_source(&self, user: Option<&Arc<str>>, source: &str) -> Vec<Arc<Session>> {
        let sources = self.by_user.get(&user.cloned());
        let sessions = sources.as_ref().and_then(|sources| sources.get(source));
        sessions.map(|sessions| sessions.values().cloned().collect()).unwrap_or_default()
    }

    /// Calls `each` with every registered session.
    pub(super) fn each(&self, mut each: impl FnMut(&Arc<Session>)) {
        for sources in &self.by_user {
            sources.values().flat_map(BTreeMap::values).for_each(&mut each);
        }
    }
}

impl Router {
    /// The applications that a session may see: those of its own user, of users that it observes or, as a service, serves,
    /// and of services.
    pub fn applications(&self, session: &Session) -> Vec<Application> {
        let mut rows = Vec::new();
        let permissions = session.permissions();
        let sees_others = session.role == Role::Service || !permissions.observe.is_nobody();
        let mut users: Vec<_> = if sees_others {
            let users = self.presence.users().into_iter();
            users.filter(|user| session.may_see(&permissions, user)).map(Some).collect()
        } else {
            vec![user_of(session)]
        };
        users.push(None);
        users.dedup();
        for user in users {
            self.presence.list(user.as_ref(), &mut rows);
        }
        self.applications_elsewhere(|user| user.is_none_or(|user| session.may_see(&permissions, user)), &mut rows);
        rows
    }

    /// `Broker/Application/SetState`
    pub fn set_state(&self, now: Instant, session: &Arc<Session>, state: State) {
        session.set_state(state);
        self.announce_state(session, true);
        self.note(now, session, What::State(state.as_str()));
    }

    /// Tells the subscribers that a session has joined or left. A service concerns every user.
    pub(super) fn tell_presence(&self, now: Instant, session: &Arc<Session>, change: Change) {
        let _steady = self.steady();
        self.announce_session(session, change == Change::Joined);
        let who = Who { number: session.number, id: session.id, source: &session.source, user: user_of(session) };
        self.tell_presence_of(now, &who, None, change);
    }

    /// Tells the subscribers that a session has joined or left: of this node (`None`) or of another one.
    pub(super) fn tell_presence_of(&self, now: Instant, who: &Who<'_>, from: From<'_>, change: Change) {
        let subtopic = change.subtopic();
        let triple = notice::triple("Application", subtopic);
        let user = who.user.as_deref();
        let scope = user.map_or(Scope::Shared(None), Scope::User);
        let matches = self.subscribers(&self.policy.facts(&triple), scope);
        if matches.is_empty() {
            return;
        }
        let frame = Frame::from(notice::presence(subtopic, who.source, user, &who.id.to_string()));
        let mut told = BTreeSet::new();
        for subscription in matches.iter().flat_map(Receivers::iter).filter(|it| it.is_for(scope)) {
            let receiver = &subscription.session;
            if receiver.number != who.number && told.insert(receiver.number) {
                receiver.presence.give(now, receiver, (who, from), change, frame.clone());
            }
        }
    }
}
