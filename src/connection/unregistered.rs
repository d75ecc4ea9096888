//! [`Unregistered`]: how many connections have not registered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the connections that have not registered, from accept on. Clones share one count.
#[derive(Clone, Default)]
pub struct Unregistered(Arc<AtomicUsize>);

impl Unregistered {
    /// Counts a connection until the guard is dropped. Returns the count with it.
    #[must_use]
    pub fn enter(&self) -> (UnregisteredGuard, usize) {
        let count = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        (UnregisteredGuard(self.clone()), count)
    }

    /// The connections that are counted now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Counts one connection while it exists.
pub struct UnregisteredGuard(Unregistered);

impl Drop for UnregisteredGuard {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_while_its_guard_exists() {
        let unregistered = Unregistered::default();
        let (first, one) = unregistered.enter();
        let (second, two) = unregistered.enter();
        assert_eq!((one, two), (1, 2));
        drop(first);
        assert_eq!(unregistered.count(), 1);
        drop(second);
        assert_eq!(unregistered.count(), 0);
    }
}
