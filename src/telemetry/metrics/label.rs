//! [`Label`]: a label with a fixed set of values, all of them known before anything is counted. `values` and `codes` have
//! the sets.

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wire::{CloseCode, ErrorCode};

    use super::super::codes::{ClosedWith, RegistrationOutcome};
    use super::super::values::{Check, SessionKind, SessionState};
    use super::*;

    fn every_value_has_a_place_of_its_own<L: Label>(values: impl IntoIterator<Item = L>) {
        let places: Vec<usize> = values.into_iter().map(L::index).collect();
        assert_eq!(places, (0..L::COUNT).collect::<Vec<_>>());
        let written: BTreeSet<_> = (0..L::COUNT).map(L::labels).collect();
        assert_eq!(written.len(), L::COUNT);
    }

    #[test]
    fn labels_with_one_value_each_have_a_place_of_their_own() {
        every_value_has_a_place_of_its_own([()]);
        every_value_has_a_place_of_its_own(Check::ALL.iter().copied());
        every_value_has_a_place_of_its_own(ErrorCode::ALL.iter().copied());
        let refused = ErrorCode::ALL.iter().map(|code| RegistrationOutcome::Refused(*code));
        every_value_has_a_place_of_its_own(
            [RegistrationOutcome::Ok, RegistrationOutcome::Resumed].into_iter().chain(refused),
        );
        let codes = CloseCode::ALL.iter().map(|code| ClosedWith::Catalogue(*code));
        let others = [ClosedWith::Normal, ClosedWith::NoCode, ClosedWith::Lost, ClosedWith::Other];
        every_value_has_a_place_of_its_own(others.into_iter().chain(codes));
    }

    #[test]
    fn two_labels_have_every_pair_of_their_values() {
        let pairs = SessionKind::ALL.iter().flat_map(|kind| SessionState::ALL.iter().map(|state| (*kind, *state)));
        every_value_has_a_place_of_its_own(pairs);
    }
}
