//! [`ConnectionLimit`]: how many connections there are, in all and by address. A [`Slot`] counts while it lives.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Limits;

/// How many connections beyond the limit get an answer that says so; beyond these a connection is dropped.
const OVERFLOW: usize = 256;

/// Counts connections.
pub(super) struct ConnectionLimit {
    total_max: usize,
    /// 0: no limit.
    per_address_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    /// Empty where there is no limit an address.
    by_address: HashMap<IpAddr, usize>,
}

impl ConnectionLimit {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { total_max: limits.connections, per_address_max: limits.connections_per_address, taken: Mutex::default() }
    }

    /// Counts a connection, also one that will only be told that there is no room. `None`: not even room for that.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let mut taken = self.taken.lock();
        if taken.total >= self.total_max.saturating_add(OVERFLOW) {
            return None;
        }
        taken.total += 1;
        let mut full = (taken.total > self.total_max).then_some("limits.connections");
        if self.per_address_max > 0 {
            let here = taken.by_address.entry(address).or_default();
            *here += 1;
            if *here > self.per_address_max {
                full = Some("limits.connections_per_address");
            }
        }
        drop(taken);
        Some(Slot { seats: Arc::clone(self), address, full })
    }

    /// How many connections there are.
    pub(super) fn taken(&self) -> usize {
        self.taken.lock().total
    }
}

/// One connection, counted.
pub(super) struct Slot {
    seats: Arc<ConnectionLimit>,
    address: IpAddr,
    full: Option<&'static str>,
}

impl Slot {
    /// The configuration key of the limit that this connection is beyond.
    pub(super) fn full(&self) -> Option<&'static str> {
        self.full
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        taken.total -= 1;
        if let Some(here) = taken.by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_counts_while_it_lives() {
        let limits = Limits { connections: 2, connections_per_address: 1, ..Limits::default() };
        let seats = Arc::new(ConnectionLimit::new(&limits));
        let address = |last: u8| IpAddr::from([127, 0, 0, last]);
        let first = seats.take(address(1)).unwrap();
        assert_eq!(first.full(), None);
        assert_eq!(seats.take(address(1)).unwrap().full(), Some("limits.connections_per_address"));
        let _second = seats.take(address(2)).unwrap();
        assert_eq!(seats.take(address(3)).unwrap().full(), Some("limits.connections"));
        drop(first);
        assert_eq!(seats.take(address(1)).unwrap().full(), None);
        assert_eq!(seats.taken(), 1);
        let standing: Vec<_> = (0..=OVERFLOW).map(|_| seats.take(address(4)).unwrap()).collect();
        assert!(seats.take(address(5)).is_none());
        drop(standing);
        assert_eq!(seats.taken.lock().by_address.len(), 1);
    }
}
