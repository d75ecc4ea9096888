//! [`Names`]: the names of the configuration that are values of a label.

use parking_lot::RwLock;

/// What all other names are counted as.
pub const OTHER: &str = "other";

/// The first names of the configuration, each with a place. Further ones share the last place. A name keeps its place
/// when a reload removes it, because counters never go back.
#[derive(Debug)]
pub struct Names {
    label: &'static str,
    most: usize,
    known: RwLock<Vec<String>>,
}

impl Names {
    /// Up to `most` names, as values of this label.
    pub(super) fn new(label: &'static str, most: usize) -> Self {
        Self { label, most, known: RwLock::default() }
    }

    /// Gives a name a place, unless it has one already or all are taken. Returns its place.
    pub fn add(&self, name: &str) -> usize {
        let mut known = self.known.write();
        if let Some(place) = known.iter().position(|it| it == name) {
            return place;
        }
        if known.len() < self.most && name != OTHER {
            known.push(name.to_owned());
            return known.len() - 1;
        }
        self.most
    }

    /// Returns the place of a name.
    pub fn place(&self, name: &str) -> usize {
        self.known.read().iter().position(|it| it == name).unwrap_or(self.most)
    }

    /// Returns the place of all names that have none.
    pub fn other(&self) -> usize {
        self.most
    }

    /// Returns the number of places.
    pub(super) fn places(&self) -> usize {
        self.most + 1
    }

    pub(super) fn label(&self) -> &'static str {
        self.label
    }

    /// Returns the places in use with their names.
    pub(super) fn all(&self) -> Vec<(usize, String)> {
        let mut all: Vec<_> = self.known.read().iter().cloned().enumerate().collect();
        all.push((self.most, OTHER.to_owned()));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_name_that_many_threads_add_at_the_same_time_has_one_place() {
        const THREADS: usize = 8;
        const NAMES: usize = 200;
        let names = Names::new("channel", NAMES);
        let add_all = || (0..NAMES).map(|number| names.add(&format!("Channel{number}"))).collect::<Vec<_>>();
        let places = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(add_all)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let found: Vec<_> = (0..NAMES).map(|number| names.place(&format!("Channel{number}"))).collect();
        assert!(places.iter().all(|places| *places == found), "{places:?}, not {found:?}");
        // Each once, and what all others are counted as.
        assert_eq!(names.all().len(), NAMES + 1);
    }
}
