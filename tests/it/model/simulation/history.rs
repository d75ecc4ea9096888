//! The logs of channels with history, as plain lists: what each event's place is, and what a subscription recovers.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use switchboard::config::{Config, LogBounds};
use wire::Pattern;

use super::check::{Held, holds};
use super::conn::Kind;
use super::draft::{Draft, Recovering, Wanted};
use super::model::{ConnId, Model, is_shared, matches};

/// A channel, and a user if it is not shared.
pub(super) type LogKey = (String, Option<String>);

/// The events of a log, for ever: the number of each, and when it was accepted.
pub(super) type Log = Vec<(u64, Instant)>;

/// An id by its log, source and user.
pub(super) type KnownId = (LogKey, String, Option<String>, String);

/// The first event with an id: when it was accepted, its place, and how many receivers it may have had.
pub(super) type First = (Instant, u64, RangeInclusive<usize>);

/// The default of `history.retry`.
const RETRY: Duration = Duration::from_mins(2);

/// What a subscription with a log is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) offset: u64,
    /// How many events are replayed, or why not.
    pub(super) recovered: Option<Result<u64, &'static str>>,
}

/// An event of a log that has to come, unless its subscription ends before.
#[derive(Clone, Debug)]
pub(super) struct DueReplay {
    pub(super) n: u64,
    pub(super) offset: u64,
    /// The subscription that brings it.
    pub(super) subscription: String,
}

/// What each log of a channel keeps.
pub(super) fn bounds(config: &Config) -> Vec<(String, LogBounds)> {
    let mut bounds: Vec<_> =
        config.channels.iter().filter_map(|(name, channel)| Some((name.clone(), channel.history?))).collect();
    bounds.sort_by(|one, other| one.0.cmp(&other.0));
    bounds
}

impl Model {
    fn bounds_of(&self, channel: &str) -> Option<LogBounds> {
        self.bounds.iter().find(|(name, _)| name == channel).map(|(_, bounds)| *bounds)
    }

    /// An event is accepted: its place in its log, if its channel has history.
    pub(super) fn enters(&mut self, now: Instant, n: u64, channel: &str, user: Option<&str>) -> Option<u64> {
        self.bounds_of(channel)?;
        let key = (channel.to_owned(), (!is_shared(channel)).then(|| user.unwrap_or_default().to_owned()));
        let log = self.logs.entry(key.clone()).or_default();
        log.push((n, now));
        let offset = log.len() as u64;
        self.places.insert(n, (key, offset));
        Some(offset)
    }

    /// The name of an event's id, if it has `once`.
    pub(super) fn known_id(&self, sender: ConnId, draft: &Draft, user: Option<&str>) -> Option<KnownId> {
        let id = draft.id.clone().filter(|_| draft.once)?;
        let channel = draft.triple[0].clone();
        let owner = (!is_shared(&channel)).then(|| user.unwrap_or_default().to_owned());
        Some(((channel, owner), self.conns[sender].source.clone(), user.map(str::to_owned), id))
    }

    /// Whether `once` is refused, whatever the envelope is.
    pub(super) fn may_not_be_once(&self, draft: &Draft) -> bool {
        draft.once && (draft.in_reply_to.is_some() || draft.id.is_none() || self.bounds_of(&draft.triple[0]).is_none())
    }

    /// Forgets ids whose time is over.
    pub(super) fn forget_ids(&mut self, now: Instant) {
        self.known.retain(|_, (at, ..)| now - *at <= RETRY);
    }

    /// The log that a subscription has.
    pub(super) fn log_of(&self, id: ConnId, wanted: &Wanted) -> Option<LogKey> {
        let conn = &self.conns[id];
        let channel = wanted.pattern.channel.as_deref()?;
        self.bounds_of(channel)?;
        let watched = wanted.user.as_deref().filter(|user| conn.user.as_deref() != Some(*user));
        let owner = match (watched, &conn.user) {
            _ if wanted.handler.is_some() || watched == Some("*") => return None,
            _ if is_shared(channel) => None,
            (Some(watched), _) => Some(watched.to_owned()),
            (None, Some(own)) => Some(own.clone()),
            (None, None) => return None,
        };
        Some((channel.to_owned(), owner))
    }

    /// Whether `recover` is refused.
    pub(super) fn may_not_recover(&self, id: ConnId, wanted: &Wanted) -> bool {
        wanted.recover.is_some() && (wanted.group.is_some() || self.log_of(id, wanted).is_none())
    }

    /// What a subscription is told, and the events that it has to receive: number and offset.
    pub(super) fn recovers(&self, now: Instant, id: ConnId, wanted: &Wanted) -> (Option<Told>, Vec<(u64, u64)>) {
        let Some(key) = self.log_of(id, wanted) else { return (None, Vec::new()) };
        let nothing = Log::new();
        let log = self.logs.get(&key).unwrap_or(&nothing);
        let LogBounds { size, ttl } = self.bounds_of(&key.0).unwrap();
        let is_kept = |at: usize| at + size >= log.len() && now - log[at].1 <= ttl;
        let first = (0..log.len()).find(|at| is_kept(*at)).unwrap_or(log.len());
        let shown = |pattern: &Pattern| -> Vec<(u64, u64)> {
            let places = (first..log.len()).map(|at| (log[at].0, at as u64 + 1));
            places.filter(|(n, _)| self.shows(id, wanted, pattern, *n)).collect()
        };
        let told = |recovered| Some(Told { offset: log.len() as u64, recovered });
        let due = match &wanted.recover {
            None => return (told(None), Vec::new()),
            Some(Recovering::Last(most)) => {
                let shown = shown(&wanted.pattern);
                shown[shown.len().saturating_sub(*most)..].to_vec()
            }
            Some(Recovering::Elsewhere) => return (told(Some(Err("EPOCH"))), Vec::new()),
            Some(Recovering::After(offset)) if *offset > log.len() => return (told(Some(Err("AHEAD"))), Vec::new()),
            Some(Recovering::After(offset)) if *offset < first => return (told(Some(Err("TOO_OLD"))), Vec::new()),
            Some(Recovering::After(offset)) => {
                shown(&wanted.pattern).into_iter().filter(|(_, place)| *place > *offset as u64).collect()
            }
        };
        (told(Some(Ok(due.len() as u64))), due)
    }

    /// Whether a subscription shows an event of its log.
    fn shows(&self, id: ConnId, wanted: &Wanted, pattern: &Pattern, n: u64) -> bool {
        let (conn, event) = (&self.conns[id], &self.events[&n]);
        let draft = &event.draft;
        // A service that names a user wants that user's only, on shared channels too.
        let is_of_user = conn.kind != Kind::Service
            || wanted
                .user
                .as_ref()
                .is_none_or(|user| !is_shared(&draft.triple[0]) || event.user.as_ref() == Some(user));
        is_of_user
            && matches(pattern, &draft.triple)
            && draft.target.as_ref().is_none_or(|target| *target == conn.source)
    }
}

/// Replayed events come in their order, each once, with their place.
pub(super) fn replayed(owed: &mut VecDeque<DueReplay>, name: &str, n: u64, offset: Option<u64>) -> Held {
    let due = owed.pop_front();
    let right = due.as_ref().is_some_and(|due| due.n == n && Some(due.offset) == offset);
    holds("replays_are_whole_and_in_order", right, || format!("{name} got {n} at {offset:?}, not {due:?}"))
}
