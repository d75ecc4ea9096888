//! [`Recorder`]: the flight recorder. It keeps what happened last in memory, so that an operator can find out why something
//! did not arrive. It knows sessions only by their names.
//!
//! There are two rings: one for what is rare and important, one for events. Each is divided among the workers, so that they
//! do not wait for each other: a worker whose part is being read writes to the next one. `segment` has entries with their
//! names, `ring` is a queue of segments, `mark` recognises triples, `pace` bounds what one session, source or address may
//! write, `read` finds entries, `row` is one as operators see it, `dump` writes all to a file.
//!
//! Nothing here ever gets a payload.

mod dump;
mod entry;
mod mark;
mod pace;
mod panic;
mod read;
mod ring;
mod row;
mod segment;

pub use super::metrics::RequestOutcome;
pub use dump::{DumpError, Dumps};
pub use entry::{Name, Published, Record, Sender, SubscriptionEnd, What, Who};
pub use mark::Mark;
pub use pace::Pace;
pub use read::{Answer, Cursor, Filter, Reach};
pub use row::Row;

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use pace::{ADDRESS_MAX, Counted, OTHERS_MAX, PACE_MAX, Paces};
use ring::{Ring, SEGMENTS_MIN};
use segment::SEGMENT_BYTES;

/// The workers that have a part of their own. Further ones share.
const PARTS_MAX: usize = 32;

/// The smallest size of both rings together that is not 0. A smaller one counts as this.
pub const BYTES_MIN: usize = 2 * SEGMENTS_MIN * SEGMENT_BYTES;

/// Stands for all clients without a session in an entry about what was left out.
const STRANGERS: Who<'static> = Who { number: u64::MAX, session: [0; 16], source: "", user: None };

/// Keeps what happened last, in memory.
pub struct Recorder {
    started: Instant,
    /// What time it was on the calendar then.
    calendar: SystemTime,
    /// Their number is a power of two.
    parts: Box<[Part]>,
    /// How many of them are written to, a power of two. 0: it is turned off. A worker that has just read an earlier number
    /// may still write to one of the others, which keeps less than one segment.
    in_use: AtomicUsize,
    /// Counts the entries of sources and of addresses.
    paces: Paces,
    /// Counts the entries about clients that have no session.
    strangers: Counted,
}

/// One worker's part of both rings, on cache lines of its own.
#[repr(align(128))]
struct Part {
    rare: Mutex<Ring>,
    events: Mutex<Ring>,
}

/// Which of a worker's two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    Rare,
    Events,
}

impl Part {
    fn ring(&self, which: Which) -> &Mutex<Ring> {
        match which {
            Which::Rare => &self.rare,
            Which::Events => &self.events,
        }
    }
}

thread_local! {
    /// The number of this thread; 0: none yet.
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// The number of threads that have recorded something.
static WORKERS: AtomicUsize = AtomicUsize::new(0);

/// The number of this thread.
#[inline]
fn worker() -> usize {
    match WORKER.get() {
        0 => {
            let number = WORKERS.fetch_add(1, Ordering::Relaxed) + 1;
            WORKER.set(number);
            number
        }
        number => number,
    }
}

impl Recorder {
    /// A recorder of at most this many bytes; 0 turns it off. `calendar`: what time it is `now`.
    #[must_use]
    pub fn new(now: Instant, calendar: SystemTime, bytes: usize) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::for_workers(now, calendar, bytes, workers)
    }

    /// The same for this number of workers.
    #[must_use]
    pub fn for_workers(now: Instant, calendar: SystemTime, bytes: usize, workers: usize) -> Self {
        let parts = workers.clamp(1, PARTS_MAX).next_power_of_two();
        let ring = || Mutex::new(Ring::new(now));
        let part = |_| Part { rare: ring(), events: ring() };
        let recorder = Self {
            started: now,
            calendar,
            parts: (0..parts).map(part).collect(),
            in_use: AtomicUsize::new(0),
            paces: Paces::default(),
            strangers: Counted::default(),
        };
        recorder.set_bytes(bytes);
        recorder
    }

    /// Changes its size; 0 turns it off. What no longer fits is dropped, the oldest first; of a worker whose part is no
    /// longer in use, all is.
    pub fn set_bytes(&self, bytes: usize) {
        let bytes = if bytes == 0 { 0 } else { bytes.max(BYTES_MIN) };
        let room = 1 << (bytes / BYTES_MIN).max(1).ilog2();
        let in_use = if bytes == 0 { 0 } else { self.parts.len().min(room) };
        self.in_use.store(in_use, Ordering::Relaxed);
        for (at, part) in self.parts.iter().enumerate() {
            let ring_bytes = if at < in_use { bytes / 2 / in_use } else { 0 };
            part.rare.lock().set_bytes(ring_bytes);
            part.events.lock().set_bytes(ring_bytes);
        }
    }

    /// A recorder that is turned off.
    #[must_use]
    pub fn off(now: Instant) -> Self {
        Self::for_workers(now, SystemTime::UNIX_EPOCH, 0, 1)
    }

    /// Whether it keeps anything.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.in_use.load(Ordering::Relaxed) > 0
    }

    /// Records something rare and important.
    pub fn record(&self, now: Instant, record: &Record<'_>) {
        let Some(source) = self.paces.of_source(&record.who) else { return };
        self.with(Which::Rare, |ring| {
            // What was left out in the last second comes first.
            let second = ring.second(now);
            match source.pace.others.count(second, OTHERS_MAX) {
                true => ring.push(now, record),
                false => ring.leave_out(now, second, source.who.number, &|| source.who),
            }
        });
    }

    /// Records that something was refused that a session has sent.
    pub fn record_refusal(&self, now: Instant, record: &Record<'_>) {
        let Some(source) = self.paces.of_source(&record.who) else { return };
        self.with(Which::Rare, |ring| {
            let second = ring.second(now);
            match source.pace.refusals.count(second, PACE_MAX) {
                true => ring.push(now, record),
                false => ring.leave_out(now, second, source.who.number, &|| source.who),
            }
        });
    }

    /// Records that something was refused that a client without a session has sent from an address.
    pub fn record_stranger(&self, now: Instant, address: IpAddr, record: &Record<'_>) {
        let Some(pace) = self.paces.of_address(address) else { return };
        self.with(Which::Rare, |ring| {
            let second = ring.second(now);
            match pace.refusals.count(second, ADDRESS_MAX) && self.strangers.count(second, PACE_MAX) {
                true => ring.push(now, record),
                false => ring.leave_out(now, second, STRANGERS.number, &|| STRANGERS),
            }
        });
    }

    /// Records an event of a call over HTTP. All calls of a source share a pace, as the events of a session do.
    #[cold]
    pub fn record_call(&self, now: Instant, who: &Who<'_>, event: &Published<'_>) {
        let Some(source) = self.paces.of_source(who) else { return };
        self.with(Which::Events, |ring| {
            let second = ring.second(now);
            match source.pace.events.count(second, PACE_MAX) {
                true => ring.push(now, &event.record(*who)),
                false => ring.leave_out(now, second, source.who.number, &|| source.who),
            }
        });
    }

    /// Records an event. `event` is called if it is kept, and with a lock held: so little has to be at hand until then.
    #[inline]
    pub fn record_event<'a>(&self, now: Instant, sender: Sender<'_>, event: impl FnOnce() -> Published<'a>) {
        self.with(Which::Events, |ring| {
            let second = ring.second(now);
            match sender.pace.events.count(second, PACE_MAX) {
                true => ring.push_event(now, sender.number, sender.who, &event()),
                false => ring.leave_out(now, second, sender.number, sender.who),
            }
        });
    }

    /// The parts that are written to.
    #[inline]
    fn in_use(&self) -> &[Part] {
        self.parts.get(..self.in_use.load(Ordering::Relaxed)).unwrap_or_default()
    }

    /// Calls `write` with this worker's ring, or if that is being read, with the next one that is free.
    #[inline]
    fn with(&self, which: Which, write: impl FnOnce(&mut Ring)) {
        let Some(last) = self.in_use.load(Ordering::Relaxed).checked_sub(1) else { return };
        let own = worker() & last;
        let Some(part) = self.parts.get(own) else { return };
        // One call of `write`, so that it is compiled into its caller.
        let mut ring = part.ring(which).try_lock().unwrap_or_else(|| self.another(which, own, part));
        write(&mut ring);
    }

    /// Returns the next ring that is free. If none is, waits for the one of `part`.
    #[cold]
    fn another<'a>(&'a self, which: Which, own: usize, part: &'a Part) -> MutexGuard<'a, Ring> {
        let parts = self.in_use();
        let next = |step: usize| parts.get((own + step) & parts.len().wrapping_sub(1))?.ring(which).try_lock();
        // If all are in use, each is held for some microseconds.
        (1..parts.len()).find_map(next).unwrap_or_else(|| part.ring(which).lock())
    }

    /// The memory that its entries take, in bytes.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.rare.lock().bytes() + part.events.lock().bytes()).sum()
    }

    /// What the calendar said at a time.
    fn date(&self, at: Instant) -> SystemTime {
        self.calendar + at.saturating_duration_since(self.started)
    }
}
