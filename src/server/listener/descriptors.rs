//! [`Descriptors`]: keeps file descriptors free for files, the admin listener and calls to other systems, however many
//! connections there are.
//!
//! The system always gives out the lowest free descriptor. So connections leave the highest ones alone if no listener
//! accepts after it was given one of them.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::telemetry::LogLimit;

/// Descriptors that connections do not use. If the limit is very low, half of it.
const KEPT: u64 = 64;

/// The time between two looks at whether there are free descriptors again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What a listener's log lines are about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Fault {
    Short,
    Other,
}

/// The descriptors of this process, and the log lines about those that are missing.
pub(in crate::server) struct Descriptors {
    /// The lowest one that is kept.
    kept_from: u64,
    log: LogLimit<Fault>,
}

impl Descriptors {
    /// Those of this process. Each of its listeners may use two that are kept: for the connection by which it notices, and
    /// for looking whether there are others again.
    pub(in crate::server) fn new(listeners: usize) -> Self {
        let limit = limit();
        let kept = (KEPT + 2 * u64::try_from(listeners).unwrap_or(KEPT)).min(limit / 2);
        Self { kept_from: limit - kept, log: LogLimit::default() }
    }

    /// Logs that none are left for further connections, at most once a minute.
    pub(super) fn log_short(&self, now: Instant) {
        if let Some(omitted) = self.log.count(now, Fault::Short, IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
            tracing::warn!(
                omitted,
                "nearly out of file descriptors: no connection is accepted until others end; raise the hard limit of open \
                 files (ulimit -Hn, LimitNOFILE), or lower limits.connections"
            );
        }
    }

    /// Logs that a connection could not be accepted, at most once a minute.
    pub(super) fn log_fault(&self, now: Instant, error: &io::Error) {
        if let Some(omitted) = self.log.count(now, Fault::Other, IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
            tracing::warn!(%error, omitted, "could not accept a connection");
        }
    }
}

#[cfg(unix)]
impl Descriptors {
    /// Returns whether a new connection was given one of those that are kept.
    pub(super) fn keep(&self, connection: &impl std::os::fd::AsRawFd) -> bool {
        u64::try_from(connection.as_raw_fd()).is_ok_and(|number| number >= self.kept_from)
    }

    /// Returns whether the next connection would be given one of those that are kept.
    pub(super) fn are_short(&self, listener: &impl std::os::fd::AsFd) -> bool {
        rustix::io::fcntl_dupfd_cloexec(listener, 0).map_or_else(is_exhausted, |lowest| self.keep(&lowest))
    }

    /// Returns whether an error says that there are no descriptors left.
    pub(super) fn are_exhausted(error: &io::Error) -> bool {
        rustix::io::Errno::from_io_error(error).is_some_and(is_exhausted)
    }
}

#[cfg(unix)]
fn is_exhausted(error: rustix::io::Errno) -> bool {
    matches!(error, rustix::io::Errno::MFILE | rustix::io::Errno::NFILE)
}

#[cfg(unix)]
fn limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// There is no limit.
#[cfg(not(unix))]
#[expect(clippy::unused_self, reason = "the same signatures as on Unix")]
impl Descriptors {
    pub(super) fn keep<T>(&self, _connection: &T) -> bool {
        false
    }

    pub(super) fn are_short<T>(&self, _listener: &T) -> bool {
        false
    }

    pub(super) fn are_exhausted(_error: &io::Error) -> bool {
        false
    }
}

#[cfg(not(unix))]
fn limit() -> u64 {
    u64::MAX
}
