//! [`Arrivals`]: the events of one log of a cluster, on their way to the sessions of this node in the order of the log.
//!
//! Several nodes append to one log, so its events come by several links and from this node itself. An event whose predecessor
//! is missing waits, at most for [`GAP`]. Then the missing ones are read from the stream. Nothing is read here: the state says
//! what is missing, and is told what was read.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Position;

/// How long an event waits for its predecessor before that is read from the stream.
pub(super) const GAP: Duration = Duration::from_millis(100);

/// The events of one log that arrive at this node.
pub(super) struct Arrivals<T> {
    /// The last event that was delivered here, or that a subscription began after. `None`: the next one that arrives may be
    /// any.
    cursor: Option<Position>,
    /// The stamp at which events were last known to arrive here without a gap.
    stamp: u64,
    /// The events whose predecessors are missing, by their offsets.
    waiting: BTreeMap<u64, Waiting<T>>,
    /// When the missing ones are to be read.
    deadline: Option<Instant>,
}

struct Waiting<T> {
    epoch: Arc<str>,
    /// Whether its log was looked at since it arrived.
    is_checked: bool,
    item: T,
}

/// What becomes of an event that arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival<T> {
    /// It is the next one, to be delivered.
    Next(T),
    /// It was delivered already, or is older than what this node follows.
    Known(T),
    /// Its predecessor is missing.
    Waits,
}

/// What has to be read before the events that wait can be delivered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing: there is no predecessor to wait for.
    Nothing,
    /// The events of these offsets.
    Events(RangeInclusive<u64>),
    /// Where the log is: it seems to have begun anew.
    Ends,
}

impl<T> Default for Arrivals<T> {
    fn default() -> Self {
        Self { cursor: None, stamp: 0, waiting: BTreeMap::new(), deadline: None }
    }
}

impl<T> Arrivals<T> {
    /// The last event that was delivered here.
    pub(super) fn cursor(&self) -> Option<&Position> {
        self.cursor.as_ref()
    }

    /// Whether events wait.
    pub(super) fn any_wait(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Forgets the cursor, unless events have been wanted of all nodes since before the stamp at which they last arrived
    /// without a gap. `wanted`: the stamp since which they are.
    pub(super) fn keep_if_wanted(&mut self, wanted: Option<u64>, now: u64) {
        if self.waiting.is_empty() && wanted.is_none_or(|since| since > self.stamp) {
            self.cursor = None;
        }
        self.stamp = now;
    }

    /// Lets what waits go on before this node begins elsewhere: sessions may want it.
    pub(super) fn begin_with_waiting(&mut self, now: Instant) {
        if self.cursor.is_none() {
            self.skip(now);
        }
    }

    /// Begins after this event, unless the node is there already or beyond. Returns the offsets that are missing before it.
    pub(super) fn begin(&mut self, at: &Position) -> Option<RangeInclusive<u64>> {
        match &mut self.cursor {
            Some(cursor) if cursor.epoch == at.epoch => {
                (cursor.offset < at.offset).then_some(cursor.offset + 1..=at.offset)
            }
            cursor => {
                *cursor = Some(at.clone());
                None
            }
        }
    }

    /// An event arrives. `follows`: its predecessor was appended by the same node, so it came before by the same way, if it
    /// was wanted then.
    pub(super) fn arrive(&mut self, now: Instant, at: &Position, follows: bool, item: T) -> Arrival<T> {
        match &mut self.cursor {
            Some(cursor) if cursor.epoch == at.epoch => {
                if at.offset <= cursor.offset {
                    return Arrival::Known(item);
                }
                if at.offset == cursor.offset + 1 {
                    cursor.offset = at.offset;
                    return Arrival::Next(item);
                }
            }
            // The log has begun anew, or this node begins to follow it.
            cursor => {
                let is_first = self.waiting.first_key_value().is_none_or(|(first, _)| at.offset < *first);
                if at.offset == 1 || cursor.is_none() && is_first && follows {
                    *cursor = Some(at.clone());
                    return Arrival::Next(item);
                }
            }
        }
        if self.waiting.contains_key(&at.offset) {
            return Arrival::Known(item);
        }
        self.deadline.get_or_insert(now + GAP);
        self.waiting.insert(at.offset, Waiting { epoch: Arc::clone(&at.epoch), is_checked: false, item });
        Arrival::Waits
    }

    /// Takes an event that need not wait any more.
    pub(super) fn next(&mut self) -> Option<(Position, Arrival<T>)> {
        let first = self.waiting.first_entry()?;
        let cursor = self.cursor.as_mut()?;
        let (offset, is_same) = (*first.key(), first.get().epoch == cursor.epoch);
        let is_next = is_same && offset == cursor.offset + 1;
        if !is_next && (is_same && offset > cursor.offset || !is_same && !first.get().is_checked) {
            return None;
        }
        let Waiting { epoch, item, .. } = first.remove();
        if is_next {
            cursor.offset = offset;
        }
        if self.waiting.is_empty() {
            self.deadline = None;
        }
        let arrival = if is_next { Arrival::Next(item) } else { Arrival::Known(item) };
        Some((Position { offset, epoch }, arrival))
    }

    /// When the missing events are to be read.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is missing, if it is time to read it. What is read is not due again until [`Arrivals::was_read`].
    pub(super) fn due(&mut self, now: Instant) -> Option<Missing> {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return None;
        }
        self.deadline = None;
        let (offset, first) = self.waiting.first_key_value()?;
        match &self.cursor {
            None => {
                self.cursor = Some(Position { offset: offset - 1, epoch: Arc::clone(&first.epoch) });
                // Others can wait behind it.
                self.deadline = Some(now + GAP);
                Some(Missing::Nothing)
            }
            Some(cursor) if cursor.epoch != first.epoch => Some(Missing::Ends),
            Some(cursor) if cursor.offset + 1 < *offset => Some(Missing::Events(cursor.offset + 1..=offset - 1)),
            Some(_) => {
                self.deadline = Some(now + GAP);
                Some(Missing::Nothing)
            }
        }
    }

    /// Whether an event that was read is the next one. It is delivered then.
    pub(super) fn read(&mut self, at: &Position) -> bool {
        match &mut self.cursor {
            Some(cursor) if cursor.epoch == at.epoch && cursor.offset < at.offset => {
                cursor.offset = at.offset;
                true
            }
            Some(_) | None => false,
        }
    }

    /// What was missing was read up to this offset, or cannot be read.
    pub(super) fn was_read(&mut self, now: Instant, through: &Position) {
        self.read(through);
        // Others may be missing still.
        self.deadline = (!self.waiting.is_empty()).then_some(now + GAP);
    }

    /// The log was looked at, and did not begin anew: what waits of another life is known.
    pub(super) fn was_checked(&mut self, now: Instant) {
        self.waiting.values_mut().for_each(|it| it.is_checked = true);
        self.deadline = (!self.waiting.is_empty()).then_some(now + GAP);
    }

    /// What is missing cannot be read, and is left out.
    pub(super) fn skip(&mut self, now: Instant) {
        if let Some((offset, first)) = self.waiting.first_key_value() {
            self.cursor = Some(Position { offset: offset - 1, epoch: Arc::clone(&first.epoch) });
            self.deadline = Some(now + GAP);
        }
    }

    /// The log was looked at: it begins anew after this event. What waits of its life before is known.
    pub(super) fn begin_anew(&mut self, now: Instant, at: Position) {
        self.cursor = Some(at);
        self.was_checked(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(epoch: &str, offset: u64) -> Position {
        Position { offset, epoch: epoch.into() }
    }

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        Instant::now()
    }

    /// The offsets that can be delivered after an arrival.
    fn delivered(arrivals: &mut Arrivals<u64>, first: Arrival<u64>) -> Vec<u64> {
        let mut all = vec![first];
        all.extend(std::iter::from_fn(|| arrivals.next().map(|(_, arrival)| arrival)));
        let next = |it| match it {
            Arrival::Next(offset) => Some(offset),
            Arrival::Known(_) | Arrival::Waits => None,
        };
        all.into_iter().filter_map(next).collect()
    }

    #[test]
    fn an_event_waits_for_its_predecessor_which_is_read_in_the_end() {
        let (now, mut arrivals) = (start(), Arrivals::default());
        assert_eq!(arrivals.begin(&at("e", 3)), None);
        assert_eq!(arrivals.arrive(now, &at("e", 3), false, 3), Arrival::Known(3));
        assert_eq!(arrivals.arrive(now, &at("e", 6), false, 6), Arrival::Waits);
        assert_eq!(arrivals.arrive(now, &at("e", 6), false, 6), Arrival::Known(6));
        let four = arrivals.arrive(now, &at("e", 4), false, 4);
        assert_eq!(delivered(&mut arrivals, four), [4]);
        assert_eq!((arrivals.due(now), arrivals.deadline()), (None, Some(now + GAP)));
        let later = now + GAP;
        assert_eq!(arrivals.due(later), Some(Missing::Events(5..=5)));
        assert_eq!(arrivals.due(later), None, "it is being read");
        assert!(arrivals.read(&at("e", 5)) && !arrivals.read(&at("e", 5)));
        arrivals.was_read(later, &at("e", 5));
        assert_eq!(arrivals.next(), Some((at("e", 6), Arrival::Next(6))));
        assert_eq!((arrivals.next(), arrivals.deadline()), (None, None));
        assert_eq!(arrivals.begin(&at("e", 8)), Some(7..=8));
    }

    #[test]
    fn a_node_that_begins_waits_for_what_another_node_may_have_sent() {
        let now = start();
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.arrive(now, &at("e", 7), true, 7), Arrival::Next(7));
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.arrive(now, &at("e", 7), false, 7), Arrival::Waits);
        assert_eq!(arrivals.arrive(now, &at("e", 8), true, 8), Arrival::Waits, "nothing overtakes what waits");
        assert_eq!(arrivals.arrive(now, &at("e", 10), false, 10), Arrival::Waits);
        assert_eq!(arrivals.due(now + GAP), Some(Missing::Nothing));
        assert_eq!(arrivals.next(), Some((at("e", 7), Arrival::Next(7))));
        assert_eq!(arrivals.next(), Some((at("e", 8), Arrival::Next(8))));
        assert_eq!((arrivals.next(), arrivals.due(now + GAP)), (None, None));
        assert_eq!(arrivals.due(now + 2 * GAP), Some(Missing::Events(9..=9)), "what is missing later is read, too");
    }

    #[test]
    fn a_log_that_begins_anew_is_noticed() {
        let (now, mut arrivals) = (start(), Arrivals::default());
        arrivals.begin(&at("old", 9));
        assert_eq!(arrivals.arrive(now, &at("new", 1), false, 1), Arrival::Next(1));
        assert_eq!(arrivals.arrive(now, &at("newer", 3), true, 3), Arrival::Waits);
        assert_eq!(arrivals.due(now + GAP), Some(Missing::Ends));
        arrivals.begin_anew(now, at("newer", 0));
        assert_eq!(arrivals.next(), None);
        assert!(arrivals.read(&at("newer", 1)) && arrivals.read(&at("newer", 2)));
        arrivals.was_read(now, &at("newer", 2));
        assert_eq!(arrivals.next(), Some((at("newer", 3), Arrival::Next(3))));
        assert_eq!(arrivals.arrive(now, &at("old", 5), true, 5), Arrival::Waits);
        assert_eq!(arrivals.due(now + GAP), Some(Missing::Ends));
        arrivals.begin_anew(now, at("newer", 3));
        assert_eq!(arrivals.next(), Some((at("old", 5), Arrival::Known(5))));
    }

    #[test]
    fn a_cursor_is_void_if_events_were_not_wanted_all_the_time() {
        let (now, mut arrivals) = (start(), Arrivals::default());
        arrivals.begin(&at("e", 3));
        arrivals.keep_if_wanted(Some(0), 10);
        arrivals.keep_if_wanted(Some(10), 20);
        assert_eq!(arrivals.cursor(), Some(&at("e", 3)));
        arrivals.keep_if_wanted(Some(21), 30);
        assert_eq!(arrivals.cursor(), None);
        assert_eq!(arrivals.arrive(now, &at("e", 9), true, 9), Arrival::Next(9));
        arrivals.keep_if_wanted(None, 40);
        assert_eq!(arrivals.cursor(), None);
    }

    proptest! {
        /// Writers append in turn, and their events come by ways of their own. Some are lost on the way.
        #[test]
        fn every_event_is_delivered_once_in_the_order_of_the_log(
            writers in prop::collection::vec((0..3_usize, prop::bool::weighted(0.2)), 1..60),
            choices in prop::collection::vec(0..4_usize, 200),
        ) {
            let mut now = start();
            let mut ways: [Vec<(u64, bool)>; 3] = Default::default();
            let mut before = None;
            for (offset, (writer, is_lost)) in (1..).zip(&writers) {
                if !is_lost {
                    ways[*writer].push((offset, before == Some(writer)));
                }
                before = Some(writer);
            }
            for way in &mut ways {
                way.reverse();
            }
            let last = writers.len() as u64;
            let (mut arrivals, mut seen) = (Arrivals::default(), Vec::new());
            arrivals.begin(&at("e", 0));
            let mut play = |ways: &mut [Vec<(u64, bool)>; 3], choice: usize, arrivals: &mut Arrivals<u64>| {
                if let Some((offset, follows)) = ways.get_mut(choice).and_then(Vec::pop) {
                    let first = arrivals.arrive(now, &at("e", offset), follows, offset);
                    seen.extend(delivered(arrivals, first));
                }
                if choice == 3 {
                    now += GAP;
                    if let Some(missing) = arrivals.due(now) {
                        let Missing::Events(offsets) = missing else { panic!("{missing:?}") };
                        let through = at("e", *offsets.end());
                        seen.extend(offsets.filter(|offset| arrivals.read(&at("e", *offset))));
                        arrivals.was_read(now, &through);
                        seen.extend(delivered(arrivals, Arrival::Waits));
                    }
                }
            };
            for choice in &choices {
                play(&mut ways, *choice, &mut arrivals);
            }
            while ways.iter().any(|way| !way.is_empty()) || arrivals.any_wait() {
                (0..4).for_each(|choice| play(&mut ways, choice, &mut arrivals));
            }
            if let Some(missing) = arrivals.begin(&at("e", last)) {
                seen.extend(missing.filter(|offset| arrivals.read(&at("e", *offset))));
            }
            prop_assert_eq!(seen, (1..=last).collect::<Vec<_>>());
        }
    }
}
