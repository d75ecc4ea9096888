//! [`Family`]: one metric as a scrape has it, with all of its samples.

use super::counters::Distribution;
use super::label::Labels;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The value of a sample.
pub(super) enum Value {
    Count(u64),
    Number(f64),
    Distribution(Distribution),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Value {
    fn from(holds: bool) -> Self {
        Self::Count(u64::from(holds))
    }
}

impl From<Distribution> for Value {
    fn from(distribution: Distribution) -> Self {
        Self::Distribution(distribution)
    }
}

/// One metric with all of its samples.
pub(super) struct Family {
    /// Without `_total`, `_bucket` and the like.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// One sentence, without its full stop.
    pub(super) help: &'static str,
    pub(super) samples: Vec<(Labels, Value)>,
}

impl Family {
    /// The unit, which is the end of the name.
    pub(super) fn unit(&self) -> Option<&'static str> {
        ["seconds", "bytes"].into_iter().find(|unit| self.name.strip_suffix(unit).is_some_and(|it| it.ends_with('_')))
    }
}

/// Collects families.
#[derive(Default)]
pub(super) struct Families(pub(super) Vec<Family>);

impl Families {
    pub(super) fn counter<V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) {
        self.add(Kind::Counter, name, help, samples);
    }

    pub(super) fn gauge<V: Into<Value>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) {
        self.add(Kind::Gauge, name, help, samples);
    }

    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, Distribution)>,
    ) {
        self.add(Kind::Histogram, name, help, samples);
    }

    /// A gauge without labels.
    pub(super) fn number(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.gauge(name, help, [(Labels::new(), value)]);
    }

    /// A counter without labels.
    pub(super) fn count(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.counter(name, help, [(Labels::new(), value)]);
    }

    fn add<V: Into<Value>>(
        &mut self,
        kind: Kind,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) {
        let samples = samples.into_iter().map(|(labels, value)| (labels, value.into())).collect();
        self.0.push(Family { name, kind, help, samples });
    }
}
