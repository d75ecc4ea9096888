//! [`Tap`]: what the router decides, as a bounded stream for an operator who watches.
//!
//! The router never waits for a tap: what a reader does not take in time is left out and counted. Without a tap, the router
//! reads one number for each message. `line` is what a line says.

mod line;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use wire::{Envelope, ErrorCode};

use self::line::Shown;
use crate::router::Router;
use crate::router::observe::Observed;
use crate::router::request::pending::Pending;
use crate::router::session::Session;

/// How many taps there are at the same time.
pub const TAPS_MAX: usize = 8;

/// The highest number of lines a second.
pub const TAP_RATE_MAX: u32 = 1000;

/// The bytes of lines that wait for one reader.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// The time to which the rate applies.
const SECOND: Duration = Duration::from_secs(1);

/// Which decisions a tap shows. One must match all that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// The parts of the triple.
    pub channel: Option<String>,
    /// See `channel`.
    pub topic: Option<String>,
    /// See `channel`.
    pub subtopic: Option<String>,
    /// The source of the sender.
    pub source: Option<String>,
    /// The user of the sender, or for whom a service sends.
    pub user: Option<String>,
    /// The code of a refusal.
    pub code: Option<String>,
    /// The id of the message, or of the request that it answers.
    pub id: Option<String>,
}

impl TapFilter {
    fn matches(&self, shown: &Shown<'_>) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found.is_some_and(|found| found == wanted))
        };
        let triple = shown.triple;
        is(&self.channel, Some(&triple.channel))
            && is(&self.topic, Some(&triple.topic))
            && is(&self.subtopic, Some(&triple.subtopic))
            && is(&self.source, Some(shown.sender.source()))
            && is(&self.user, shown.user)
            && is(&self.code, shown.code.map(ErrorCode::as_str))
            && (is(&self.id, shown.id) || is(&self.id, shown.in_reply_to) || is(&self.id, shown.answers))
    }
}

/// What a tap shows.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// Which decisions.
    pub filter: TapFilter,
    /// How many lines a second at most: 1 to [`TAP_RATE_MAX`].
    pub rate: u32,
    /// Whether payloads are shown. The caller has checked the right to see them.
    pub payloads: bool,
}

/// There are [`TAPS_MAX`] taps already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {TAPS_MAX} taps already, the limit; end one of them")]
pub struct TooManyTaps;

/// All taps.
#[derive(Default)]
pub(super) struct Taps {
    /// The number of `list`, which is read for each message.
    count: AtomicUsize,
    list: RwLock<Vec<Arc<Queue>>>,
    /// Lines that were left out, of all taps that there have been.
    skipped: AtomicU64,
}

/// The lines that wait for one reader.
struct Queue {
    options: TapOptions,
    /// Whether another line has room, so that none is written only to be left out.
    has_room: AtomicBool,
    /// Lines that were left out and that the reader does not know of.
    skipped: AtomicU64,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    refusals: VecDeque<Box<str>>,
    others: VecDeque<Box<str>>,
    bytes: usize,
}

/// The reader's end of a tap, which ends when this is dropped.
pub struct Tap {
    taps: Arc<Taps>,
    queue: Arc<Queue>,
    /// When the lines of the last second were taken.
    taken: VecDeque<Instant>,
}

impl Taps {
    /// Whether anybody watches.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    fn open(self: &Arc<Self>, options: TapOptions) -> Result<Tap, TooManyTaps> {
        let mut list = self.list.write();
        if list.len() >= TAPS_MAX {
            return Err(TooManyTaps);
        }
        let queue = Arc::new(Queue {
            options: TapOptions { rate: options.rate.clamp(1, TAP_RATE_MAX), ..options },
            has_room: AtomicBool::new(true),
            skipped: AtomicU64::new(0),
            waiting: Mutex::default(),
            arrived: Notify::new(),
        });
        list.push(Arc::clone(&queue));
        self.count.store(list.len(), Ordering::Relaxed);
        Ok(Tap { taps: Arc::clone(self), queue, taken: VecDeque::new() })
    }

    fn close(&self, queue: &Arc<Queue>) {
        let mut list = self.list.write();
        list.retain(|other| !Arc::ptr_eq(other, queue));
        self.count.store(list.len(), Ordering::Relaxed);
    }
}

impl Queue {
    /// Adds a line, or leaves lines out. Returns how many.
    fn offer(&self, line: impl FnOnce(bool) -> String, is_refusal: bool) -> u64 {
        if !is_refusal && !self.has_room.load(Ordering::Relaxed) {
            return 1;
        }
        let line = line(self.options.payloads).into_boxed_str();
        let mut waiting = self.waiting.lock();
        let mut skipped = 0;
        // Refusals come first: the oldest line makes room for the newest, an event before a refusal.
        while waiting.is_full(self.options.rate, line.len()) && waiting.drop_oldest() {
            skipped += 1;
        }
        waiting.bytes += line.len();
        match is_refusal {
            true => waiting.refusals.push_back(line),
            false => waiting.others.push_back(line),
        }
        self.has_room.store(!waiting.is_full(self.options.rate, 0), Ordering::Relaxed);
        drop(waiting);
        self.arrived.notify_one();
        skipped
    }
}

impl Waiting {
    fn is_full(&self, rate: u32, more: usize) -> bool {
        self.refusals.len() + self.others.len() >= rate as usize || self.bytes + more > WAITING_BYTES_MAX
    }

    fn drop_oldest(&mut self) -> bool {
        let dropped = self.others.pop_front().or_else(|| self.refusals.pop_front());
        self.bytes -= dropped.as_ref().map_or(0, |line| line.len());
        dropped.is_some()
    }

    fn next(&mut self) -> Option<Box<str>> {
        let line = self.refusals.pop_front().or_else(|| self.others.pop_front())?;
        self.bytes -= line.len();
        Some(line)
    }
}

impl Tap {
    /// Takes the lines that may be shown now, refusals first: each is one JSON object. Returns when to look again, if more
    /// wait.
    pub fn take(&mut self, now: Instant, lines: &mut Vec<Box<str>>) -> Option<Instant> {
        let most = self.queue.options.rate as usize;
        while self.taken.front().is_some_and(|at| now.saturating_duration_since(*at) >= SECOND) {
            self.taken.pop_front();
        }
        let mut waiting = self.queue.waiting.lock();
        while self.taken.len() < most
            && let Some(line) = waiting.next()
        {
            self.taken.push_back(now);
            lines.push(line);
        }
        let is_empty = waiting.refusals.is_empty() && waiting.others.is_empty();
        self.queue.has_room.store(!waiting.is_full(self.queue.options.rate, 0), Ordering::Relaxed);
        drop(waiting);
        self.taken.front().filter(|_| !is_empty).map(|at| *at + SECOND)
    }

    /// How many lines were left out since the last call.
    pub fn take_skipped(&self) -> u64 {
        self.queue.skipped.swap(0, Ordering::Relaxed)
    }

    /// Notified whenever a line arrives.
    pub fn arrived(&self) -> &Notify {
        &self.queue.arrived
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.taps.close(&self.queue);
    }
}

impl Router {
    /// Watches what the router decides.
    ///
    /// # Errors
    /// [`TooManyTaps`].
    pub fn tap(&self, options: TapOptions) -> Result<Tap, TooManyTaps> {
        self.taps.open(options)
    }

    /// The number of taps.
    pub fn taps(&self) -> usize {
        self.taps.count.load(Ordering::Relaxed)
    }

    /// The number of lines that were left out, of all taps that there have been.
    pub fn tap_lines_skipped(&self) -> u64 {
        self.taps.skipped.load(Ordering::Relaxed)
    }

    /// Shows a decision to the taps.
    #[cold]
    pub(super) fn show(&self, now: Instant, sender: &Session, envelope: &Envelope<'_>, observed: &Observed) {
        self.offer(now, &Shown::of(sender, envelope, observed));
    }

    /// Shows the taps how a handler inside the process has answered a request. `code`: it has failed.
    pub(super) fn show_answer(&self, now: Instant, handler: &Session, pending: &Pending, code: Option<ErrorCode>) {
        if self.taps.is_watched() {
            let id = pending.id.text();
            self.offer(now, &Shown::of_answer(handler, pending, Some(id.as_ref()), code));
        }
    }

    #[cold]
    fn offer(&self, now: Instant, shown: &Shown<'_>) {
        for queue in &*self.taps.list.read() {
            if !queue.options.filter.matches(shown) {
                continue;
            }
            let line = |payloads| shown.line(self.date(now), payloads);
            let skipped = queue.offer(line, shown.code.is_some());
            if skipped > 0 {
                queue.skipped.fetch_add(skipped, Ordering::Relaxed);
                self.taps.skipped.fetch_add(skipped, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::router::sync::start;

    const THREADS: usize = 8;

    /// How many lines each thread offers.
    const LINES: usize = 2000;

    #[test]
    fn with_many_threads_every_line_is_taken_or_counted_as_left_out() {
        let taps = Arc::new(Taps::default());
        let options = TapOptions { filter: TapFilter::default(), rate: 100, payloads: false };
        let mut tap = taps.open(options).unwrap();
        let queue = Arc::clone(&tap.queue);
        let mut lines = Vec::new();
        let mut at = start();
        let offer =
            |is_refusal: bool| (0..LINES).map(|_| queue.offer(|_| "a line".to_owned(), is_refusal)).sum::<u64>();
        let skipped: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || offer(thread % 2 == 0))).collect();
            while threads.iter().any(|thread| !thread.is_finished()) {
                at += SECOND;
                tap.take(at, &mut lines);
                thread::yield_now();
            }
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        tap.take(at + SECOND, &mut lines);
        assert_eq!(lines.len() as u64 + skipped, (THREADS * LINES) as u64);
        assert_eq!(queue.waiting.lock().bytes, 0);
    }

    #[test]
    fn with_many_threads_there_are_never_more_taps_than_the_limit() {
        let taps = Arc::new(Taps::default());
        let options = TapOptions { filter: TapFilter::default(), rate: 1, payloads: false };
        let open = || taps.open(options.clone()).ok();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..2 * TAPS_MAX).map(|_| scope.spawn(open)).collect();
            let opened: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
            assert_eq!((opened.len(), taps.count.load(Ordering::Relaxed)), (TAPS_MAX, TAPS_MAX));
        });
        assert!(!taps.is_watched(), "each tap has ended with its reader");
    }
}
