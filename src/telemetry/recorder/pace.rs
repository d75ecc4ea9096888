//! How many entries somebody may cause in a second: [`Pace`] counts those of one session, [`Paces`] those of each source and
//! of each address.
//!
//! A call over HTTP is a session of its own, and a client that is refused has none. So what a session may cause does not bound
//! what an application or an address may: the important ring counts by these.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::Who;

/// Events of one session, or of all calls of one source, that are kept in a second; and refusals of one source, or of all
/// clients without a session.
pub(super) const PACE_MAX: u32 = 64;

/// Other entries of one source: requests, registrations, subscriptions, closes.
pub(super) const OTHERS_MAX: u32 = 256;

/// Refusals of one address that has no session.
pub(super) const ADDRESS_MAX: u32 = 16;

/// The places of [`Paces`]. Sources and addresses with the same place share it.
const PLACES: usize = 1024;

/// Marks the number of a source. Sessions are numbered from 1.
const SOURCE_BIT: u64 = 1 << 63;

/// Counts the entries that one session, source or address causes in a second.
#[derive(Default)]
pub struct Pace {
    pub(super) events: Counted,
    pub(super) refusals: Counted,
    pub(super) others: Counted,
}

/// A second in the high half, and in the low half a number.
#[derive(Default)]
pub(super) struct Counted(AtomicU64);

impl Counted {
    /// Counts one; returns whether it is among the first `most` of its second.
    #[inline]
    pub(super) fn count(&self, second: u32, most: u32) -> bool {
        let seen = self.0.load(Ordering::Relaxed);
        let first = u64::from(second) << 32 | 1;
        if seen >> 32 < u64::from(second)
            && self.0.compare_exchange(seen, first, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return true;
        }
        // The second that began meanwhile, or one that has just passed, of which another worker does not know yet.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        before & u64::from(u32::MAX) < u64::from(most)
    }
}

/// The paces of all sources and addresses, in a table of fixed size.
pub(super) struct Paces {
    places: Box<[Pace]>,
    random: foldhash::fast::RandomState,
}

/// A source with its user, and its pace. It stands for all its sessions in an entry about what was left out.
pub(super) struct Source<'a> {
    pub(super) pace: &'a Pace,
    pub(super) who: Who<'a>,
}

impl Default for Paces {
    fn default() -> Self {
        let places = (0..PLACES).map(|_| Pace::default()).collect();
        Self { places, random: foldhash::fast::RandomState::default() }
    }
}

impl Paces {
    /// The source of a session.
    pub(super) fn of_source<'a>(&'a self, who: &Who<'a>) -> Option<Source<'a>> {
        let hash = self.random.hash_one((who.source, who.user));
        let number = (hash | SOURCE_BIT).min(u64::MAX - 1);
        Some(Source { pace: self.place(hash)?, who: Who { number, session: [0; 16], ..*who } })
    }

    /// The pace of an address.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<&Pace> {
        self.place(self.random.hash_one(address))
    }

    fn place(&self, hash: u64) -> Option<&Pace> {
        // The remainder is far below the size of a usize.
        let place = usize::try_from(hash % PLACES as u64).unwrap_or_default();
        self.places.get(place)
    }
}
