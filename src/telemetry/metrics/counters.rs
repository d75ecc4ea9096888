//! [`Counters`]: one counter for each value of a label. [`Histogram`]: durations in buckets. Both count on the copy of their
//! thread.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::cells::Cells;
use super::label::{Label, Labels};
use super::names::Names;

/// One counter for each value of a label.
pub struct Counters<L> {
    cells: Cells,
    label: PhantomData<fn(L)>,
}

impl<L: Label> Default for Counters<L> {
    fn default() -> Self {
        Self { cells: Cells::new(L::COUNT), label: PhantomData }
    }
}

impl<L: Label> Counters<L> {
    /// Adds one.
    #[inline]
    pub fn count(&self, label: L) {
        self.add(label, 1);
    }

    /// Adds a number.
    #[inline]
    pub fn add(&self, label: L, count: u64) {
        self.cells.own().add(label.index(), count);
    }

    /// Takes one away, for a number of things that are there now.
    pub fn uncount(&self, label: L) {
        self.cells.own().subtract(label.index(), 1);
    }

    /// Adds a duration, in microseconds.
    pub fn add_micros(&self, label: L, span: Duration) {
        self.add(label, u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the present count of a value.
    pub fn get(&self, label: L) -> u64 {
        self.cells.read(label.index())
    }

    /// Returns the counts of all values.
    pub(super) fn all(&self) -> impl Iterator<Item = (Labels, u64)> {
        (0..L::COUNT).map(|index| (L::labels(index), self.cells.read(index)))
    }
}

/// One counter for each name and each value of a label.
pub struct NamedCounters<L> {
    names: Arc<Names>,
    cells: Cells,
    label: PhantomData<fn(L)>,
}

impl<L: Label> NamedCounters<L> {
    pub(super) fn new(names: &Arc<Names>) -> Self {
        let cells = Cells::new(names.places() * L::COUNT);
        Self { names: Arc::clone(names), cells, label: PhantomData }
    }

    /// Adds one. Names that are not known are counted together.
    pub fn count(&self, name: &str, label: L) {
        self.cells.own().add(self.names.place(name) * L::COUNT + label.index(), 1);
    }

    /// Returns the counts of all names that are known, and of all others.
    pub(super) fn all(&self) -> impl Iterator<Item = (Labels, u64)> {
        self.names.all().into_iter().flat_map(move |(place, name)| {
            (0..L::COUNT).map(move |index| {
                let mut labels = vec![(self.names.label(), name.clone())];
                labels.extend(L::labels(index));
                (labels, self.cells.read(place * L::COUNT + index))
            })
        })
    }
}

/// How many durations there were, by length.
pub struct Histogram<L> {
    /// The upper bounds of the buckets; one more bucket has no bound.
    bounds: &'static [Duration],
    cells: Cells,
    label: PhantomData<fn(L)>,
}

/// The durations of one value of a label.
pub(super) struct Distribution {
    /// The upper bound of each bucket in seconds, and how many durations are in it and in no earlier one. The last has no
    /// bound.
    pub(super) buckets: Vec<(f64, u64)>,
    /// The sum, in seconds.
    pub(super) sum: f64,
}

impl<L: Label> Histogram<L> {
    pub(super) fn new(bounds: &'static [Duration]) -> Self {
        Self { bounds, cells: Cells::new(L::COUNT * Self::cells_of(bounds)), label: PhantomData }
    }

    /// The buckets, the one without a bound, and the sum in microseconds.
    fn cells_of(bounds: &[Duration]) -> usize {
        bounds.len() + 2
    }

    /// Counts a duration.
    pub fn observe(&self, label: L, span: Duration) {
        let first = label.index() * Self::cells_of(self.bounds);
        let bucket = self.bounds.partition_point(|bound| *bound < span);
        let own = self.cells.own();
        own.add(first + bucket, 1);
        own.add(first + self.bounds.len() + 1, u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns the durations of each value.
    pub(super) fn all(&self) -> impl Iterator<Item = (Labels, Distribution)> {
        (0..L::COUNT).map(|index| {
            let first = index * Self::cells_of(self.bounds);
            let bounds = self.bounds.iter().map(Duration::as_secs_f64).chain([f64::INFINITY]);
            let buckets = bounds.enumerate().map(|(at, bound)| (bound, self.cells.read(first + at))).collect();
            let sum = seconds(self.cells.read(first + self.bounds.len() + 1));
            (L::labels(index), Distribution { buckets, sum })
        })
    }
}

/// Microseconds as seconds.
#[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::super::values::SessionKind;
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_reaches_it() {
        const BOUNDS: &[Duration] = &[Duration::from_millis(1), Duration::from_millis(10)];
        let histogram = Histogram::<SessionKind>::new(BOUNDS);
        for micros in [0, 1_000, 1_001, 10_000, 10_001, 3_000_000] {
            histogram.observe(SessionKind::Service, Duration::from_micros(micros));
        }
        let all: Vec<_> = histogram.all().collect();
        let [(user, none), (service, some)] = all.as_slice() else { panic!("two values") };
        assert_eq!((user, service), (&SessionKind::labels(0), &SessionKind::labels(1)));
        assert!(none.buckets.iter().all(|(_, count)| *count == 0) && none.sum == 0.0);
        assert_eq!(some.buckets, [(0.001, 2), (0.01, 2), (f64::INFINITY, 2)]);
        assert!((some.sum - 3.022_002).abs() < 1e-9, "{}", some.sum);
    }

    #[test]
    fn names_beyond_the_bound_are_counted_together() {
        let names = Arc::new(Names::new("issuer", 2));
        for name in ["a", "b", "c"] {
            names.add(name);
        }
        let counters = NamedCounters::<()>::new(&names);
        for name in ["a", "b", "c", "d", "b"] {
            counters.count(name, ());
        }
        let counts: Vec<_> = counters.all().map(|(labels, count)| (labels[0].1.clone(), count)).collect();
        assert_eq!(counts, [("a".to_owned(), 1), ("b".to_owned(), 2), ("other".to_owned(), 2)]);
    }
}
