//! [`Model`]: what the broker ought to know, kept in plain lists and searched by plain loops. No index, no locks, no
//! queues: slow and easy to believe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use switchboard::config::{AuthMode, Config, LogBounds, Publish};
use wire::Pattern;

use super::conn::{Conn, Kind, Sub};
use super::draft::{Draft, Wanted};
use super::history::{First, KnownId, Log, LogKey, bounds};
use super::requests::Asked;

/// A connection, or the adapter: its place in [`Model::conns`].
pub(super) type ConnId = usize;

/// What it knows.
pub(super) struct Model {
    pub(super) open_mode: bool,
    /// Patterns of triples that are always requests.
    pub(super) only: Vec<Pattern>,
    pub(super) subscriptions_max: usize,
    pub(super) retained_max: usize,
    /// The shared channel on which only services publish events.
    pub(super) services_publish_on: Option<String>,
    /// Every connection that there ever was.
    pub(super) conns: Vec<Conn>,
    /// By the number that each envelope has.
    pub(super) events: BTreeMap<u64, Event>,
    pub(super) asked: BTreeMap<u64, Asked>,
    /// All requests before this one are over.
    pub(super) settled_before: u64,
    pub(super) answers: BTreeMap<u64, Answer>,
    /// The last event of each, and for whom it counts.
    pub(super) retained: BTreeMap<Place, (u64, Owner)>,
    /// What each log of a channel keeps.
    pub(super) bounds: Vec<(String, LogBounds)>,
    pub(super) logs: BTreeMap<LogKey, Log>,
    /// The place of each event in its log.
    pub(super) places: BTreeMap<u64, (LogKey, u64)>,
    /// The ids of events with `once` that are known.
    pub(super) known: BTreeMap<KnownId, First>,
    /// The epoch of all logs, once somebody was told.
    pub(super) epoch: Option<String>,
    /// Since when the broker drains.
    pub(super) draining: Option<Instant>,
    /// The number that was used last before the drain.
    pub(super) drained_from: u64,
}

/// An event that was accepted.
pub(super) struct Event {
    pub(super) draft: Draft,
    pub(super) sender: ConnId,
    /// The sender's name at that time.
    pub(super) source: String,
    pub(super) user: Option<String>,
    pub(super) receivers: Receivers,
    pub(super) droppable: bool,
    /// Members of groups who got it for their group.
    pub(super) for_groups: BTreeSet<ConnId>,
}

/// Who has to get an event.
#[derive(Clone, Default)]
pub(super) struct Receivers {
    pub(super) plain: BTreeSet<ConnId>,
    /// One of each.
    pub(super) groups: Vec<BTreeSet<ConnId>>,
}

/// A reply that was accepted, or that was due in an ordered handler's turn and is discarded.
pub(super) struct Answer {
    pub(super) draft: Draft,
    /// `None`: discarded.
    pub(super) to: Option<u64>,
}

/// For whom a retained value counts: a user, or a service by its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    User(String),
    Service(String),
}

/// Whose, which canonical triple, for which target.
pub(super) type Place = (Option<String>, [String; 3], Option<String>);

pub(super) fn is_shared(channel: &str) -> bool {
    ["Queue", "Ticker"].contains(&channel)
}

pub(super) fn is_droppable(channel: &str) -> bool {
    channel == "Ticker"
}

fn folds(channel: &str) -> bool {
    channel == "Memo"
}

pub(super) fn canonical(triple: &[String; 3]) -> [String; 3] {
    let [channel, topic, subtopic] = triple.clone();
    match folds(&channel) {
        true => [channel, topic.to_ascii_lowercase(), subtopic.to_ascii_lowercase()],
        false => [channel, topic, subtopic],
    }
}

/// Protected by the default pattern `*/User/FetchCredentials`, in any letter case.
pub(super) fn is_protected(triple: &[String; 3]) -> bool {
    triple[1].eq_ignore_ascii_case("User") && triple[2].eq_ignore_ascii_case("FetchCredentials")
}

/// Whether a pattern is a part of the protected one.
pub(super) fn is_all_protected(pattern: &Pattern) -> bool {
    let is = |part: &Option<Box<str>>, name: &str| part.as_deref().is_some_and(|it| it.eq_ignore_ascii_case(name));
    is(&pattern.topic, "User") && is(&pattern.subtopic, "FetchCredentials")
}

pub(super) fn written(triple: &[String; 3]) -> String {
    triple.join("/")
}

pub(super) fn matches(pattern: &Pattern, triple: &[String; 3]) -> bool {
    let [channel, topic, subtopic] = triple;
    let same = |own: &str, other: &str| if folds(channel) { own.eq_ignore_ascii_case(other) } else { own == other };
    (pattern.channel.as_deref().is_none_or(|own| own == channel))
        && pattern.topic.as_deref().is_none_or(|own| same(own, topic))
        && pattern.subtopic.as_deref().is_none_or(|own| same(own, subtopic))
}

/// Whether two patterns are the same, with the channel's folding.
pub(super) fn is_alike(held: &Pattern, wanted: &Pattern) -> bool {
    let folds = held.channel.as_deref().is_some_and(folds);
    let same = |held: &Option<Box<str>>, wanted: &Option<Box<str>>| match (held, wanted) {
        (Some(held), Some(wanted)) if folds => held.eq_ignore_ascii_case(wanted),
        _ => held == wanted,
    };
    held.channel == wanted.channel && same(&held.topic, &wanted.topic) && same(&held.subtopic, &wanted.subtopic)
}

impl Model {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            open_mode: config.auth == AuthMode::Open,
            only: config.requests.only.clone(),
            subscriptions_max: config.limits.subscriptions,
            retained_max: config.limits.retained_values,
            services_publish_on: config
                .channels
                .iter()
                .find(|(_, channel)| channel.publish == Publish::Services)
                .map(|(name, _)| name.clone()),
            conns: Vec::new(),
            events: BTreeMap::new(),
            asked: BTreeMap::new(),
            settled_before: 0,
            answers: BTreeMap::new(),
            retained: BTreeMap::new(),
            bounds: bounds(config),
            logs: BTreeMap::new(),
            places: BTreeMap::new(),
            known: BTreeMap::new(),
            epoch: None,
            draining: None,
            drained_from: 0,
        }
    }

    pub(super) fn registered(&self) -> impl Iterator<Item = (ConnId, &Conn)> {
        self.conns.iter().enumerate().filter(|(_, conn)| conn.session.is_some())
    }

    pub(super) fn knows(&self, n: u64) -> bool {
        self.events.contains_key(&n) || self.asked.contains_key(&n) || self.answers.contains_key(&n)
    }

    /// Who gets an event; `user`: whose it is, on a shared channel who sent it or for whom.
    pub(super) fn receivers(&self, sender: ConnId, draft: &Draft, user: Option<&str>) -> Receivers {
        let mut receivers = Receivers::default();
        let mut groups: BTreeMap<(Option<&str>, &str), BTreeSet<ConnId>> = BTreeMap::new();
        let shared = is_shared(&draft.triple[0]);
        for (id, conn) in self.registered() {
            let is_left_out =
                (id == sender && !conn.echo) || draft.target.as_ref().is_some_and(|it| *it != conn.source);
            if is_left_out || conn.lost {
                continue;
            }
            for Sub { wanted, .. } in &conn.subs {
                if wanted.handler.is_some() || !matches(&wanted.pattern, &draft.triple) {
                    continue;
                }
                let sees = if shared { conn.sees_shared(wanted, user) } else { conn.sees(wanted, user) };
                if !sees {
                    continue;
                }
                match &wanted.group {
                    Some(group) => drop(groups.entry((conn.user.as_deref(), group)).or_default().insert(id)),
                    None => drop(receivers.plain.insert(id)),
                }
            }
        }
        receivers.groups = groups.into_values().collect();
        receivers
    }

    /// Whether the sender of an event learns that this session received it.
    pub(super) fn is_counted(&self, id: ConnId, shared: bool, user: Option<&str>) -> bool {
        let conn = &self.conns[id];
        shared || conn.kind != Kind::User || conn.user.as_deref() == user
    }

    /// The sessions that are told of a session that joins or leaves.
    pub(super) fn presence_receivers(&self, of: ConnId, subtopic: &str) -> Vec<ConnId> {
        let user = self.conns[of].user.as_deref();
        let hears = |(id, conn): &(ConnId, &Conn)| {
            *id != of
                && conn.subs.iter().any(|Sub { wanted, .. }| {
                    let Pattern { channel, topic, subtopic: last } = &wanted.pattern;
                    channel.as_deref() == Some("Broker")
                        && topic.as_deref().is_none_or(|it| it == "Application")
                        && last.as_deref().is_none_or(|it| it == subtopic)
                        && if user.is_none() { conn.sees_shared(wanted, None) } else { conn.sees(wanted, user) }
                })
        };
        self.registered().filter(hears).map(|(id, _)| id).collect()
    }

    /// The retained values that a new subscription gets.
    pub(super) fn replay(&self, conn: &Conn, wanted: &Wanted) -> BTreeSet<u64> {
        self.retained
            .iter()
            .filter(|((whose, triple, target), (n, _))| {
                let seen = match whose {
                    Some(user) => conn.sees(wanted, Some(user)),
                    None => conn.sees_shared(wanted, self.events[n].user.as_deref()),
                };
                seen && matches(&wanted.pattern, triple) && target.as_ref().is_none_or(|it| *it == conn.source)
            })
            .map(|(_, (n, _))| *n)
            .collect()
    }

    /// Keeps or clears a retained value. `false`: a limit forbids it.
    pub(super) fn retain(&mut self, n: u64, sender: ConnId, draft: &Draft, user: Option<&str>) -> bool {
        let shared = is_shared(&draft.triple[0]);
        let whose = if shared { None } else { user.map(str::to_owned) };
        let place = (whose, canonical(&draft.triple), draft.target.clone());
        if draft.is_null {
            let cleared = self.retained.remove(&place);
            self.is_replaced(cleared.as_ref());
            return true;
        }
        let conn = &self.conns[sender];
        let owner = match &conn.user {
            _ if !shared => Owner::User(user.unwrap_or_default().to_owned()),
            Some(own) => Owner::User(own.clone()),
            None => Owner::Service(conn.source.clone()),
        };
        let others = self.retained.iter().filter(|(other, (_, of))| **other != place && *of == owner).count();
        let fits = others < self.retained_max;
        if fits {
            let replaced = self.retained.insert(place, (n, owner));
            self.is_replaced(replaced.as_ref());
        }
        fits
    }

    /// A value that has been replaced or cleared is no longer on its way to anybody.
    fn is_replaced(&mut self, value: Option<&(u64, Owner)>) {
        let Some((n, _)) = value else { return };
        self.conns.iter_mut().for_each(|conn| conn.inbox.retained.retain(|due| due.n != *n));
    }

    /// The rows of `Application/List` for a session: source, user, sessions, awake, in the order of user and source.
    pub(super) fn applications(&self, conn: &Conn) -> BTreeMap<(Option<String>, String), (usize, bool, Instant)> {
        let mut rows = BTreeMap::new();
        for (_, other) in self.registered().filter(|(_, other)| other.kind != Kind::Adapter) {
            let visible =
                conn.kind == Kind::Service || conn.observe || other.kind == Kind::Service || other.user == conn.user;
            if visible {
                let key = (other.user.clone(), other.source.clone());
                let row = rows.entry(key).or_insert((0, false, other.since));
                *row = (row.0 + 1, row.1 || !other.asleep, row.2.min(other.since));
            }
        }
        rows
    }
}
