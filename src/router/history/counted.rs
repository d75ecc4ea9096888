//! [`Counted`]: the events of a log that a subscription is to receive, as far as the log was looked through.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::log::{Address, Snapshot, State};
use crate::store::history::{LogName, Pin};

/// The events of a log that a subscription is to receive, as far as the log was looked through.
pub(in crate::router) struct Counted {
    pub(super) epoch: Arc<str>,
    /// The offset from which on it was looked through, and the last one that was.
    pub(super) from: u64,
    pub(super) through: u64,
    /// How many events are wanted.
    pub(super) most: usize,
    /// The first one that is to be received.
    pub(super) first: Option<u64>,
    pub(super) count: usize,
    /// Those that only the disk has. They precede the others.
    pub(super) on_disk: Option<OnDisk>,
    pub(super) entries: Snapshot,
}

/// Events of a log that only the disk has, of which at least one is to be received.
pub(super) struct OnDisk {
    pub(super) log: LogName,
    pub(super) offsets: RangeInclusive<u64>,
    /// How many of them are to be received.
    pub(super) count: usize,
    /// The offsets of the first ones that are to be received, if the number of events that are wanted is limited.
    pub(super) firsts: VecDeque<u64>,
    pub(super) pin: Pin,
}

impl Counted {
    /// Nothing is counted yet of what is wanted from this offset on.
    pub(super) fn none(epoch: Arc<str>, from: u64, most: usize) -> Self {
        let (first, on_disk, entries) = (None, None, Snapshot::default());
        Self { epoch, from, through: from - 1, most, first, count: 0, on_disk, entries }
    }

    /// Whether the log has everything that came since.
    pub(super) fn goes_on_in(&self, state: &State) -> bool {
        let is_whole = state.front().map_or(state.last == self.through, |front| front.offset <= self.through + 1);
        self.epoch == state.epoch && is_whole
    }

    /// Counts later entries, up to the offset `last`.
    pub(super) fn add(&mut self, mut later: Snapshot, last: u64, wants: &impl Fn(&Address) -> bool) {
        let (mut found, mut earliest) = (0, None);
        for entry in later.iter().rev().filter(|entry| wants(&entry.address)).take(self.most) {
            found += 1;
            earliest = Some(entry.offset);
        }
        // If that is more than are wanted, the earliest are left out.
        if let Some(beyond) = self.forget_on_disk((self.count + found).saturating_sub(self.most)) {
            self.first =
                self.entries.iter().filter(|entry| wants(&entry.address)).nth(beyond).map(|entry| entry.offset);
            self.count -= beyond;
            self.entries.skip_to(self.first.unwrap_or(u64::MAX));
        }
        if self.count == 0 {
            self.first = earliest;
            self.entries = Snapshot::default();
            later.skip_to(earliest.unwrap_or(u64::MAX));
        }
        self.count += found;
        self.entries.append(later);
        self.through = last;
    }

    /// Puts events before all others that only the disk has.
    pub(super) fn precede(&mut self, on_disk: OnDisk) {
        if on_disk.count > 0 {
            self.count += on_disk.count;
            self.first = Some(*on_disk.offsets.start());
            self.on_disk = Some(on_disk);
        }
    }

    /// Leaves out the first `beyond` events, as far as only the disk has them. Returns how many of those in memory are left
    /// out; `None` if memory still begins with the same one.
    fn forget_on_disk(&mut self, beyond: usize) -> Option<usize> {
        if beyond == 0 {
            return None;
        }
        let Some(on_disk) = &mut self.on_disk else { return Some(beyond) };
        if on_disk.count <= beyond {
            let beyond = beyond - on_disk.count;
            self.count -= on_disk.count;
            self.on_disk = None;
            return Some(beyond);
        }
        // The list of offsets has a bound. Beyond it, more events are received than were wanted.
        let fewer = beyond.min(on_disk.firsts.len().saturating_sub(1));
        on_disk.firsts.drain(..fewer);
        on_disk.count -= fewer;
        self.count -= fewer;
        if let Some(first) = on_disk.firsts.front().copied() {
            on_disk.offsets = first..=*on_disk.offsets.end();
            self.first = Some(first);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::log::{Entry, Of};
    use super::*;
    use crate::config::LogBounds;
    use crate::websocket::Frame;

    fn entry(at: Instant, offset: u64) -> Entry {
        let address = Address { triple: offset.to_string().into(), target: None, of: Of::Owner };
        Entry { offset, at, address, frame: Frame::new("{}") }
    }

    fn is_odd(address: &Address) -> bool {
        address.triple.parse::<u64>().unwrap() % 2 == 1
    }

    /// Counts a log of `last` entries in steps: up to each of these offsets, while the log drops all but its last `size`.
    fn count(
        last: u64,
        steps: &[u64],
        (from, most, size): (u64, usize, usize),
        wants: fn(&Address) -> bool,
    ) -> Counted {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let bounds = LogBounds { size, ttl: Duration::from_secs(1) };
        let epoch: Arc<str> = Arc::from("epoch");
        let mut state = State::new(Arc::clone(&epoch), 0);
        let mut counted = Counted::none(epoch, from, most);
        for offset in 1..=last {
            state.push(entry(now, offset), &bounds);
            if offset >= from && steps.contains(&offset) {
                assert!(counted.goes_on_in(&state), "at {offset}");
                counted.add(state.snapshot(counted.through + 1), offset, &wants);
            }
        }
        counted
    }

    #[test]
    fn what_is_counted_in_steps_is_what_is_counted_at_once() {
        for steps in [&[200][..], &[1, 2, 3, 200], &[63, 64, 65, 130, 200], &[100, 101, 102, 200], &[199, 200]] {
            for most in [1, 2, 3, 40, 100, 101, usize::MAX] {
                for from in [1, 2, 64, 65, 199] {
                    let Counted { first, count, entries, through, .. } = count(200, steps, (from, most, 1000), is_odd);
                    let all: Vec<u64> = (from..=200).filter(|offset| offset % 2 == 1).collect();
                    let expected = &all[all.len().saturating_sub(most)..];
                    let found: Vec<u64> =
                        entries.iter().filter(|entry| is_odd(&entry.address)).map(|entry| entry.offset).collect();
                    assert_eq!((&found[..], count), (expected, expected.len()), "{steps:?}, {most} from {from}");
                    assert_eq!((first, through), (expected.first().copied(), 200));
                    assert!(entries.iter().is_sorted_by(|one, other| one.offset < other.offset), "each once");
                }
            }
        }
    }

    #[test]
    fn what_the_log_drops_meanwhile_is_still_counted() {
        let counted = count(300, &[90, 180, 270, 300], (1, usize::MAX, 100), |_| true);
        let offsets: Vec<u64> = counted.entries.iter().map(|entry| entry.offset).collect();
        assert_eq!(offsets, (1..=300).collect::<Vec<_>>());
    }

    #[test]
    fn a_gap_is_noticed() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let bounds = LogBounds { size: 2, ttl: Duration::from_secs(1) };
        let mut state = State::new(Arc::from("epoch"), 0);
        let counted = |through| Counted { through, ..Counted::none(Arc::from("epoch"), 1, 1) };
        (1..=5).for_each(|offset| state.push(entry(now, offset), &bounds));
        assert!(counted(3).goes_on_in(&state) && !counted(2).goes_on_in(&state));
        state.trim(now + Duration::from_secs(2), &bounds, 9);
        assert!(counted(5).goes_on_in(&state) && !counted(4).goes_on_in(&state), "all have expired");
        assert!(!Counted { epoch: Arc::from("another"), ..counted(5) }.goes_on_in(&state));
    }

    /// Counts a log whose first entries, up to this offset, only the disk has, and gets another 10 entries meanwhile.
    fn count_from_disk(on_disk: u64, most: usize) -> Counted {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let bounds = LogBounds { size: 1000, ttl: Duration::from_secs(1) };
        let mut state = State::new(Arc::from("epoch"), 0);
        state.last = on_disk;
        let mut counted = Counted::none(Arc::from("epoch"), on_disk + 1, most);
        (on_disk + 1..=on_disk + 10).for_each(|offset| state.push(entry(now, offset), &bounds));
        counted.add(state.snapshot(on_disk + 1), on_disk + 10, &is_odd);
        let missing = most - counted.count;
        let firsts: VecDeque<u64> = (1..=on_disk).rev().filter(|it| it % 2 == 1).take(missing).collect();
        let firsts: VecDeque<u64> = firsts.into_iter().rev().collect();
        let offsets = firsts.front().copied().unwrap_or(on_disk)..=on_disk;
        let log = LogName { channel: "Phone".into(), user: None };
        counted.precede(OnDisk { log, offsets, count: firsts.len(), firsts, pin: Pin::default() });
        (on_disk + 11..=on_disk + 20).for_each(|offset| state.push(entry(now, offset), &bounds));
        counted.add(state.snapshot(counted.through + 1), on_disk + 20, &is_odd);
        counted
    }

    #[test]
    fn the_last_events_are_counted_from_the_disk_on() {
        for on_disk in [1, 2, 9, 10, 40] {
            for most in [5, 6, 7, 10, 11, 12, 15, 100] {
                let Counted { first, count, on_disk: earlier, entries, .. } = count_from_disk(on_disk, most);
                let all: Vec<u64> = (1..=on_disk + 20).filter(|offset| offset % 2 == 1).collect();
                let expected = &all[all.len().saturating_sub(most)..];
                assert_eq!((first, count), (expected.first().copied(), expected.len()), "{on_disk} {most}");
                let earlier = earlier.into_iter().flat_map(|it| it.offsets).filter(|offset| offset % 2 == 1);
                let entries = entries.iter().filter(|it| is_odd(&it.address)).map(|it| it.offset);
                assert_eq!(earlier.chain(entries).collect::<Vec<_>>(), expected, "{on_disk} {most}");
            }
        }
    }
}
