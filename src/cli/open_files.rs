//! Open files, of which each connection is one: the limit is raised and the kernel's table of them allocated at start.

use std::io;

/// Files that are open besides the connections: listeners, the store, the audit record, the runtime's own.
const OTHER_FILES: u64 = 64;

/// The largest table that is allocated: 8 MiB. A configuration may say four billion connections to mean "no limit".
#[cfg(unix)]
const TABLE_FILES_MAX: u64 = 1 << 20;

/// Makes room for this many connections, as far as the system allows. Must be called before there are threads.
pub(super) fn make_room(connections: usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    match raise_limit() {
        Ok(limit) => {
            if limit < wanted {
                tracing::warn!(
                    open_files = limit,
                    connections,
                    "limits.connections is more than the open-file limit allows: raise the hard limit (ulimit -Hn, \
                     LimitNOFILE)"
                );
            }
            #[cfg(unix)]
            make_table(wanted.min(limit));
        }
        Err(error) => tracing::warn!(%error, "could not raise the open-file limit"),
    }
}

/// Raises the soft limit of open files, which is 1,024 on most systems, to the hard limit. Returns the new limit.
#[cfg(unix)]
pub fn raise_limit() -> io::Result<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(current.unwrap_or(u64::MAX));
    }
    let raise = |current: Option<u64>| {
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).map(|()| current.unwrap_or(u64::MAX))
    };
    let cautious = maximum.unwrap_or(u64::MAX).min(MACOS_FILES_MAX);
    Ok(raise(maximum).or_else(|_| raise(Some(cautious)))?)
}

/// `OPEN_MAX` of macOS, beyond which setrlimit(2) refuses a soft limit even if the hard limit is higher.
#[cfg(unix)]
const MACOS_FILES_MAX: u64 = 10_240;

/// There is no limit to raise.
#[cfg(not(unix))]
pub fn raise_limit() -> io::Result<u64> {
    Ok(u64::MAX)
}

/// Opens file number `files - 1` and closes it again: Linux keeps the table that it allocated for it. A table that grows
/// on demand doubles while connections arrive, and in a process with threads each time waits until no processor uses the
/// old one (`expand_fdtable` in the kernel's fs/file.c): nothing was served for 13 ms each time (benches/stall).
#[cfg(unix)]
fn make_table(files: u64) {
    let last = i32::try_from(files.min(TABLE_FILES_MAX)).unwrap_or(i32::MAX) - 1;
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(io::stderr(), last) {
        tracing::debug!(%error, "the table of open files grows while connections arrive");
    }
}
