//! [`Refusal`]: an answer with an error status, and [`RefusalLog`]: the lines that the operator gets about them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::HeaderName;
use parking_lot::Mutex;

use crate::connection::network_of;

/// Between two lines about one reason and address.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// Reasons and addresses that are remembered. If there are more within a minute, further addresses share one entry per
/// reason.
const REMEMBERED_MAX: usize = 1_000;

/// The address of the entry that is shared.
const OTHERS: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Why a request or a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    Path,
    Method,
    Head,
    Host,
    Origin,
    Query,
    Cap,
    AddressCap,
    Draining,
}

impl Reason {
    /// As it is written in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::Head => "head",
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Query => "query",
            Self::Cap => "cap",
            Self::AddressCap => "address_cap",
            Self::Draining => "draining",
        }
    }
}

/// An answer with an error status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: Reason,
    /// One line that says why, and names the key.
    pub(super) text: String,
    /// The configuration key that decides.
    pub(super) key: Option<&'static str>,
    pub(super) headers: Vec<(HeaderName, &'static str)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, reason: Reason, text: impl Into<String>) -> Self {
        Self { status, reason, text: text.into(), key: None, headers: Vec::new() }
    }

    pub(super) fn decided_by(self, key: &'static str) -> Self {
        Self { key: Some(key), ..self }
    }

    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// Limits the lines about refusals to one a minute for each reason and address, so that nobody can fill the log.
#[derive(Default)]
pub(super) struct RefusalLog {
    entries: Mutex<HashMap<(Reason, IpAddr), Entry>>,
}

struct Entry {
    logged: Instant,
    /// Refusals since then.
    omitted: u64,
}

impl RefusalLog {
    /// Counts a refusal. Returns how many have been omitted since the last line if this one is to be logged.
    pub(super) fn count(&self, now: Instant, reason: Reason, address: IpAddr) -> Option<u64> {
        let is_recent = |entry: &Entry| now.saturating_duration_since(entry.logged) < LOG_EVERY;
        let mut entries = self.entries.lock();
        let mut key = (reason, network_of(address));
        if entries.len() >= REMEMBERED_MAX && !entries.contains_key(&key) {
            entries.retain(|_, entry| is_recent(entry));
            if entries.len() >= REMEMBERED_MAX {
                key.1 = OTHERS;
            }
        }
        match entries.get_mut(&key) {
            Some(entry) if is_recent(entry) => {
                entry.omitted += 1;
                None
            }
            known => {
                let omitted = known.map_or(0, |entry| entry.omitted);
                entries.insert(key, Entry { logged: now, omitted: 0 });
                Some(omitted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it is only added to")]
    fn start() -> Instant {
        Instant::now()
    }

    fn v4(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_reason_and_address_is_logged_once_a_minute_with_the_number_of_omitted_lines() {
        let (now, log) = (start(), RefusalLog::default());
        let counted: Vec<_> = (0..4).map(|_| log.count(now, Reason::Host, v4(1))).collect();
        assert_eq!(counted, [Some(0), None, None, None]);
        assert_eq!(log.count(now, Reason::Origin, v4(1)), Some(0));
        assert_eq!(log.count(now, Reason::Host, v4(2)), Some(0));
        assert_eq!(log.count(now + LOG_EVERY, Reason::Host, v4(1)), Some(3));
        assert_eq!(log.count(now + LOG_EVERY * 2, Reason::Host, v4(1)), Some(0));
    }

    #[test]
    fn memory_is_bounded_and_freed() {
        let (now, log) = (start(), RefusalLog::default());
        let lines = (0..10_000).filter(|number| log.count(now, Reason::Path, v4(*number)).is_some()).count();
        assert_eq!(lines, REMEMBERED_MAX + 1, "further addresses share one entry");
        assert_eq!(log.entries.lock().len(), REMEMBERED_MAX + 1);
        assert_eq!(log.count(now + LOG_EVERY, Reason::Path, v4(20_000)), Some(0));
        assert_eq!(log.entries.lock().len(), 1);
    }
}
