//! Reads the rings: [`Filter`], [`Answer`], and [`Cursor`], from which a reader goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use utoipa::ToSchema;

use super::entry::{Entry, What, Who};
use super::row::{Row, id_of};
use super::segment::Segment;
use super::{Recorder, Which};

/// Which entries are wanted. An entry must match all that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The source of the session, or of the handler of a request.
    pub source: Option<String>,
    /// Its user.
    pub user: Option<String>,
    /// Its id.
    pub session: Option<String>,
    /// The sender's id, or the broker's id of a request or a subscription.
    pub id: Option<String>,
    /// The channel.
    pub channel: Option<String>,
    /// The error code, or the status code of a Close frame.
    pub code: Option<String>,
}

/// How far back each ring reaches: since then, it has everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RecorderReach)]
pub struct Reach {
    /// What is rare and important.
    pub important: String,
    /// Events.
    pub events: String,
}

/// The entries that were wanted, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// The entries.
    pub items: Vec<Row>,
    /// How many older ones match too.
    pub older: usize,
    /// How far back the rings reach.
    pub reach: Reach,
}

/// What was read last, of each ring.
pub struct Cursor(Vec<u64>);

/// Entries in the order of their times.
#[derive(Default)]
pub(super) struct Found {
    segments: Vec<(Which, Arc<Segment>)>,
    /// The time, the place of the segment, the place in it.
    entries: Vec<(Instant, usize, usize)>,
    /// How many entries a session caused in a second that were left out, all workers together.
    left_out: HashMap<(Which, u64, u32), u64>,
}

impl Filter {
    fn matches(&self, segment: &Segment, entry: &Entry) -> bool {
        self.matches_names(segment, entry)
            && self
                .channel
                .as_ref()
                .is_none_or(|channel| segment.triple(entry.triple).is_some_and(|[own, ..]| own == channel))
            && self.id.as_ref().is_none_or(|id| segment.is_id(entry, id) || is_name(&entry.what, id))
            && self.code.as_ref().is_none_or(|code| is_code(&entry.what, code))
    }

    fn matches_names(&self, segment: &Segment, entry: &Entry) -> bool {
        let Self { source, user, session, .. } = self;
        if source.is_none() && user.is_none() && session.is_none() {
            return true;
        }
        let is_it = |who: Who<'_>| {
            source.as_deref().is_none_or(|source| source == who.source)
                && user.as_deref().is_none_or(|user| who.user == Some(user))
                && session.as_deref().is_none_or(|session| id_of(&who).is_some_and(|own| own == session))
        };
        [entry.who, entry.peer].into_iter().filter_map(|place| segment.session(place)).any(is_it)
    }
}

fn is_name(what: &What, id: &str) -> bool {
    match what {
        What::Subscribed { name, .. } | What::Unsubscribed { name, .. } | What::Request { name, .. } => {
            name == id.as_bytes()
        }
        What::Registered
        | What::Resumed
        | What::Refused(_)
        | What::State(_)
        | What::Closed { .. }
        | What::Event { .. }
        | What::LeftOut { .. } => false,
    }
}

fn is_code(what: &What, code: &str) -> bool {
    match what {
        What::Refused(own) | What::Request { code: Some(own), .. } => own.as_str() == code,
        What::Closed { code: Some(own), .. } => own.to_string() == code,
        What::Request { code: None, .. }
        | What::Closed { code: None, .. }
        | What::Registered
        | What::Resumed
        | What::Subscribed { .. }
        | What::Unsubscribed { .. }
        | What::State(_)
        | What::Event { .. }
        | What::LeftOut { .. } => false,
    }
}

impl Recorder {
    /// The last entries that a filter lets through, at most this many.
    pub fn read(&self, now: Instant, filter: &Filter, most: usize) -> Answer {
        let reach = self.reach();
        let found = self.find(now, filter);
        let older = found.entries.len().saturating_sub(most);
        let items = found.rows_after(older, self).collect();
        Answer { items, older, reach }
    }

    /// The same, and from where a reader goes on. What is left out in this second follows then.
    pub fn read_to_follow(&self, now: Instant, filter: &Filter, most: usize) -> (Answer, Cursor) {
        let (reach, mut cursor) = (self.reach(), Cursor(vec![0; self.rings().count()]));
        let found = self.find_on(now, filter, &mut cursor).0;
        let older = found.entries.len().saturating_sub(most);
        (Answer { items: found.rows_after(older, self).collect(), older, reach }, cursor)
    }

    /// How far back each ring reaches.
    pub fn reach(&self) -> Reach {
        let since = |which| {
            // The part that lost its entries last decides.
            let reaches = self.parts.iter().filter_map(|part| part.ring(which).lock().reaches_to());
            shown(self.date(reaches.max().unwrap_or(self.started)))
        };
        Reach { important: since(Which::Rare), events: since(Which::Events) }
    }

    /// The place after the last entry.
    pub fn end(&self) -> Cursor {
        Cursor(self.rings().map(|(_, ring)| ring.lock().next_number()).collect())
    }

    /// The entries after a place that a filter lets through, and how many were overwritten before they were read. The
    /// place is then after the last of them.
    pub fn read_on(&self, now: Instant, filter: &Filter, cursor: &mut Cursor) -> (Vec<Row>, u64) {
        let (found, lost) = self.find_on(now, filter, cursor);
        (found.rows(self).collect(), lost)
    }

    fn find_on(&self, now: Instant, filter: &Filter, cursor: &mut Cursor) -> (Found, u64) {
        let (mut found, mut lost) = (Found::default(), 0);
        for ((which, ring), read) in self.rings().zip(&mut cursor.0) {
            let content = {
                let mut ring = ring.lock();
                ring.settle(now);
                if ring.next_number() == *read {
                    continue;
                }
                ring.content(*read, false)
            };
            lost += content.first.saturating_sub(*read);
            let mut number = content.first;
            for segment in content.segments {
                let skipped = usize::try_from(read.saturating_sub(number)).unwrap_or(usize::MAX);
                number += segment.entries.len() as u64;
                found.add(which, segment, skipped, filter);
            }
            *read = number;
        }
        found.sort();
        (found, lost)
    }

    /// All entries that a filter lets through.
    pub(super) fn find(&self, now: Instant, filter: &Filter) -> Found {
        let mut found = Found::default();
        for (which, ring) in self.rings() {
            let content = {
                let mut ring = ring.lock();
                ring.settle(now);
                ring.content(0, true)
            };
            for segment in content.segments {
                found.add(which, segment, 0, filter);
            }
        }
        found.sort();
        found
    }

    fn rings(&self) -> impl Iterator<Item = (Which, &parking_lot::Mutex<super::Ring>)> {
        self.parts.iter().flat_map(|part| [(Which::Rare, &part.rare), (Which::Events, &part.events)])
    }
}

impl Found {
    /// Adds the entries of a segment that a filter lets through, without the first ones.
    fn add(&mut self, which: Which, segment: Arc<Segment>, skipped: usize, filter: &Filter) {
        let at = self.segments.len();
        for (place, entry) in segment.entries.iter().enumerate().skip(skipped) {
            if !filter.matches(&segment, entry) {
                continue;
            }
            if let What::LeftOut { count, second } = entry.what {
                let key = (which, segment.number(entry.who), second);
                let sum = self.left_out.entry(key).or_default();
                *sum += u64::from(count);
                if *sum > u64::from(count) {
                    // Another worker's part of the same second has an entry already.
                    continue;
                }
            }
            self.entries.push((entry.at, at, place));
        }
        self.segments.push((which, segment));
    }

    /// Puts them in the order of their times; those of one time stay in the order of their ring.
    fn sort(&mut self) {
        self.entries.sort_by_key(|(at, ..)| *at);
    }

    /// The rows, oldest first.
    pub(super) fn rows<'a>(&'a self, recorder: &'a Recorder) -> impl Iterator<Item = Row> + 'a {
        self.rows_after(0, recorder)
    }

    /// The rows without the `older` first ones, of which no row is made.
    fn rows_after<'a>(&'a self, older: usize, recorder: &'a Recorder) -> impl Iterator<Item = Row> + 'a {
        self.entries.iter().skip(older).map(|entry| self.row(recorder, entry))
    }

    fn row(&self, recorder: &Recorder, (at, segment, place): &(Instant, usize, usize)) -> Row {
        let at = shown(recorder.date(*at));
        let Some((which, segment)) = self.segments.get(*segment) else { return Row::default() };
        let Some(entry) = segment.entries.get(*place) else { return Row::default() };
        let mut row = Row { at, what: entry.what.word(), ..Row::default() };
        row.name(segment, entry);
        row.say(&entry.what);
        if let What::LeftOut { count, second } = entry.what {
            let sum = self.left_out.get(&(*which, segment.number(entry.who), second));
            row.count = Some(sum.copied().unwrap_or_else(|| u64::from(count)));
        }
        row
    }
}

fn shown(at: SystemTime) -> String {
    humantime::format_rfc3339_micros(at).to_string()
}
