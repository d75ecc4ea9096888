//! [`Cells`]: numbers that many threads add to without contention.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;

/// Numbers of a cache line, and of the line that the processor fetches with it.
const LINE: usize = 16;

/// Copies for each processor. Threads that count seldom have a number too, and should not share a copy with a worker.
const COPIES_PER_PROCESSOR: usize = 2;

/// The most copies.
const COPIES_MAX: usize = 128;

/// The number of copies. Looked up once, because the system reads files for it.
static COPIES: LazyLock<usize> = LazyLock::new(|| {
    let processors = available_parallelism().map_or(1, usize::from);
    (processors * COPIES_PER_PROCESSOR).next_power_of_two().min(COPIES_MAX)
});

/// Threads have numbers from 0.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The number of a thread that has not counted anything yet.
const UNNUMBERED: usize = usize::MAX;

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(UNNUMBERED) };
}

/// Returns the number of this thread.
#[inline]
fn thread() -> usize {
    match THREAD.get() {
        UNNUMBERED => number_thread(),
        number => number,
    }
}

#[cold]
fn number_thread() -> usize {
    let number = THREADS.fetch_add(1, Ordering::Relaxed);
    THREAD.set(number);
    number
}

/// Some numbers, in a few copies on cache lines of their own. A thread adds to the copy of its number; a reader sums all
/// copies. A number can be taken away on another thread than it was added on: sums wrap.
pub(super) struct Cells {
    /// Their number is a power of two.
    copies: Box<[Box<[Line]>]>,
}

#[repr(align(128))]
#[derive(Default)]
pub(super) struct Line([AtomicU64; LINE]);

impl Line {
    /// Adds to a cell that is on this line.
    #[inline]
    pub(super) fn add(&self, cell: usize, count: u64) {
        if let Some(cell) = self.0.get(cell % LINE) {
            cell.fetch_add(count, Ordering::Relaxed);
        }
    }
}

/// The copy of one thread.
#[derive(Clone, Copy)]
pub(super) struct Copy<'c>(&'c [Line]);

impl Cells {
    /// Cells that are all zero.
    pub(super) fn new(len: usize) -> Self {
        let copy = || (0..len.div_ceil(LINE)).map(|_| Line::default()).collect();
        Self { copies: (0..*COPIES).map(|_| copy()).collect() }
    }

    /// Returns the copy of this thread.
    #[inline]
    pub(super) fn own(&self) -> Copy<'_> {
        let place = thread() & self.copies.len().wrapping_sub(1);
        Copy(self.copies.get(place).map(|lines| &**lines).unwrap_or_default())
    }

    /// Returns the sum of a cell.
    pub(super) fn read(&self, cell: usize) -> u64 {
        let cells = self.copies.iter().filter_map(|lines| lines.get(cell / LINE)?.0.get(cell % LINE));
        cells.fold(0, |sum, it| sum.wrapping_add(it.load(Ordering::Relaxed)))
    }
}

impl<'c> Copy<'c> {
    /// Adds to a cell.
    #[inline]
    pub(super) fn add(self, cell: usize, count: u64) {
        if let Some(line) = self.line(cell) {
            line.add(cell, count);
        }
    }

    /// Returns the line that a cell is on.
    #[inline]
    pub(super) fn line(self, cell: usize) -> Option<&'c Line> {
        self.0.get(cell / LINE)
    }

    /// Takes away from a cell.
    #[inline]
    pub(super) fn subtract(self, cell: usize, count: u64) {
        self.add(cell, count.wrapping_neg());
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_count_at_the_same_time_lose_nothing() {
        let cells = Cells::new(40);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for count in 0..10_000 {
                        cells.own().add(0, 1);
                        cells.own().add(39, count);
                    }
                });
            }
        });
        assert_eq!(cells.read(0), 80_000);
        assert_eq!(cells.read(39), 8 * 49_995_000);
        assert!((1..39).all(|cell| cells.read(cell) == 0), "a cell beside those was counted in");
    }

    #[test]
    fn what_one_thread_added_another_can_take_away() {
        let cells = Cells::new(1);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| cells.own().add(0, 3));
            }
        });
        (0..23).for_each(|_| cells.own().subtract(0, 1));
        assert_eq!(cells.read(0), 1);
    }

    #[test]
    fn copies_of_different_threads_share_no_cache_line() {
        assert_eq!(align_of::<Line>(), 128);
        assert_eq!(size_of::<Line>(), 128);
    }
}
