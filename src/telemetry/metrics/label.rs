//! [`Label`]: a label with a fixed set of values, all of them known before anything is counted. `values` has the sets.

/// The labels of a sample: names and values.
pub type Labels = Vec<(&'static str, String)>;

/// A label, or several, with a fixed set of values.
pub trait Label: Copy {
    /// How many values there are.
    const COUNT: usize;

    /// Returns the place of this value among them.
    fn index(self) -> usize;

    /// Returns the names and values at a place.
    fn labels(index: usize) -> Labels;
}

/// No label.
impl Label for () {
    const COUNT: usize = 1;

    fn index(self) -> usize {
        0
    }

    fn labels(_: usize) -> Labels {
        Labels::new()
    }
}

impl<A: Label, B: Label> Label for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    #[inline]
    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn labels(index: usize) -> Labels {
        let mut labels = A::labels(index / B::COUNT);
        labels.extend(B::labels(index % B::COUNT));
        labels
    }
}
