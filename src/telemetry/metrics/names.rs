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
        let place = self.place(name);
        if place < self.most {
            return place;
        }
        let mut known = self.known.write();
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
