//! [`ConnectionLimit`]: how many connections there are in all, from one address, and without a registration.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::config::Limits;
use crate::connection::{Unregistered, UnregisteredGuard, network_of};

/// Connections beyond a limit that are kept until they are answered 503. Further ones are dropped.
const OVERFLOW: usize = 256;

/// Counts connections against `limits.connections`, `limits.connections_per_address` and `limits.unregistered`.
pub(super) struct ConnectionLimit {
    total_max: AtomicUsize,
    /// 0: no limit.
    per_address_max: AtomicUsize,
    unregistered_max: AtomicUsize,
    unregistered: Unregistered,
    taken: Mutex<Taken>,
    web_sockets: AtomicUsize,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A limit that has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Cap {
    Connections,
    PerAddress,
    Unregistered,
}

impl Cap {
    /// The configuration key of the limit.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections",
            Self::PerAddress => "limits.connections_per_address",
            Self::Unregistered => "limits.unregistered",
        }
    }
}

/// A connection that has been counted.
pub(super) struct Admitted {
    /// Counts it until its end.
    pub(super) slot: Slot,
    /// Counts it until it registers.
    pub(super) unregistered: UnregisteredGuard,
    /// The limit that it is beyond: it is to be answered 503.
    pub(super) beyond: Option<Cap>,
}

impl ConnectionLimit {
    /// `unregistered` is shared with the connections, which leave that count when they register.
    pub(super) fn new(limits: &Limits, unregistered: Unregistered) -> Self {
        Self {
            total_max: AtomicUsize::new(limits.connections),
            per_address_max: AtomicUsize::new(limits.connections_per_address),
            unregistered_max: AtomicUsize::new(limits.unregistered),
            unregistered,
            taken: Mutex::default(),
            web_sockets: AtomicUsize::new(0),
        }
    }

    /// Puts other limits in force, for connections that are accepted from now on.
    pub(super) fn replace(&self, limits: &Limits) {
        self.total_max.store(limits.connections, Ordering::Relaxed);
        self.per_address_max.store(limits.connections_per_address, Ordering::Relaxed);
        self.unregistered_max.store(limits.unregistered, Ordering::Relaxed);
    }

    /// Counts a connection, in all and as unregistered. Its address is counted by [`Slot::count_address`].
    ///
    /// # Errors
    /// The limit that it is so far beyond that it is to be dropped unanswered.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Admitted, Cap> {
        let [total_max, unregistered_max] =
            [&self.total_max, &self.unregistered_max].map(|max| max.load(Ordering::Relaxed));
        let (unregistered, unregistered_count) = self.unregistered.enter();
        if unregistered_count > unregistered_max.saturating_add(OVERFLOW) {
            return Err(Cap::Unregistered);
        }
        let mut taken = self.taken.lock();
        if taken.total >= total_max.saturating_add(OVERFLOW) {
            return Err(Cap::Connections);
        }
        taken.total += 1;
        let mut beyond = (unregistered_count > unregistered_max).then_some(Cap::Unregistered);
        if taken.total > total_max {
            beyond = Some(Cap::Connections);
        }
        drop(taken);
        let slot = Slot { limit: Arc::clone(self), counted: OnceLock::new(), is_web_socket: false };
        Ok(Admitted { slot, unregistered, beyond })
    }

    /// All connections.
    pub(super) fn total(&self) -> usize {
        self.taken.lock().total
    }

    /// The established connections.
    pub(super) fn web_sockets(&self) -> usize {
        self.web_sockets.load(Ordering::SeqCst)
    }
}

/// Counts one connection while it exists.
pub(super) struct Slot {
    limit: Arc<ConnectionLimit>,
    /// The address that it counts for, or the /64 of an IPv6 address.
    counted: OnceLock<IpAddr>,
    is_web_socket: bool,
}

impl Slot {
    /// Counts the connection for an address from now on, once. Returns the limit if it is beyond it.
    pub(super) fn count_address(&self, address: IpAddr) -> Option<Cap> {
        let most = self.limit.per_address_max.load(Ordering::Relaxed);
        let address = network_of(address);
        // Counted also while there is no limit, because there may be one after a reload.
        if self.counted.set(address).is_err() {
            return None;
        }
        let mut taken = self.limit.taken.lock();
        let here = taken.by_address.entry(address).or_default();
        *here += 1;
        (most > 0 && *here > most).then_some(Cap::PerAddress)
    }

    /// Counts the connection as a WebSocket from now on.
    pub(super) fn upgraded(&mut self) {
        if !std::mem::replace(&mut self.is_web_socket, true) {
            self.limit.web_sockets.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.is_web_socket {
            self.limit.web_sockets.fetch_sub(1, Ordering::SeqCst);
        }
        let mut taken = self.limit.taken.lock();
        taken.total -= 1;
        if let Some(address) = self.counted.get()
            && let Some(here) = taken.by_address.get_mut(address)
        {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limits: &Limits) -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit::new(limits, Unregistered::default()))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    /// Counts a connection from an address, as a listener without proxies does.
    fn admit(limit: &Arc<ConnectionLimit>, address: IpAddr) -> Result<Admitted, Cap> {
        let admitted = limit.admit()?;
        let beyond = admitted.slot.count_address(address).or(admitted.beyond);
        Ok(Admitted { beyond, ..admitted })
    }

    #[test]
    fn a_connection_counts_until_its_slot_is_dropped() {
        let limit = limit(&Limits { connections: 2, connections_per_address: 1, ..Limits::default() });
        let beyond = |last| admit(&limit, address(last)).map(|admitted| admitted.beyond);
        let first = admit(&limit, address(1)).unwrap();
        assert_eq!(first.beyond, None);
        assert_eq!(beyond(1), Ok(Some(Cap::PerAddress)));
        let _second = admit(&limit, address(2)).unwrap();
        assert_eq!(beyond(3), Ok(Some(Cap::Connections)));
        drop(first);
        assert_eq!(beyond(1), Ok(None));
        let overflow: Vec<_> = (0..=OVERFLOW).map(|_| admit(&limit, address(4)).unwrap()).collect();
        assert_eq!(beyond(5), Err(Cap::Connections));
        drop(overflow);
        let taken = limit.taken.lock();
        assert_eq!((taken.total, taken.by_address.len()), (1, 1));
    }

    #[test]
    fn a_connection_counts_as_unregistered_until_its_guard_is_dropped() {
        let limit = limit(&Limits { unregistered: 1, ..Limits::default() });
        let first = admit(&limit, address(1)).unwrap();
        assert_eq!(admit(&limit, address(2)).unwrap().beyond, Some(Cap::Unregistered));
        drop(first.unregistered);
        let second = admit(&limit, address(2)).unwrap();
        assert_eq!(second.beyond, None);
        let overflow: Vec<_> = (0..OVERFLOW).map(|_| admit(&limit, address(3)).unwrap()).collect();
        assert_eq!(admit(&limit, address(4)).err(), Some(Cap::Unregistered));
        drop(overflow);
        assert_eq!(limit.unregistered.count(), 1);
    }

    #[test]
    fn the_addresses_of_an_ipv6_host_count_as_one() {
        let limit = limit(&Limits { connections_per_address: 1, ..Limits::default() });
        let host = |last: &str| format!("2001:db8:0:7::{last}").parse().unwrap();
        let _first = admit(&limit, host("1")).unwrap();
        assert_eq!(admit(&limit, host("2")).unwrap().beyond, Some(Cap::PerAddress));
        assert_eq!(admit(&limit, "2001:db8:0:8::1".parse().unwrap()).unwrap().beyond, None);
    }

    #[test]
    fn web_sockets_are_counted_apart() {
        let limit = limit(&Limits::default());
        let mut admitted = admit(&limit, address(1)).unwrap();
        assert_eq!(limit.web_sockets(), 0);
        admitted.slot.upgraded();
        admitted.slot.upgraded();
        assert_eq!(limit.web_sockets(), 1);
        drop(admitted);
        assert_eq!(limit.web_sockets(), 0);
    }
}
