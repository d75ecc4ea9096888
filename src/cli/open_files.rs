//! Open files, of which each connection is one: the limit is raised, and the system's table of them made, at start.

/// Files that are open beside the connections: listeners, the store, the audit record, the runtime's own.
const OTHER_FILES: u64 = 64;

/// The most that a table is made for: 8 MiB. A file may say four billion connections, and mean no limit.
#[cfg(unix)]
const TABLE_FILES_MAX: u64 = 1 << 20;

/// Makes room for so many connections, as far as the system allows. To be called before there are threads.
pub(super) fn make_room(connections: usize) {
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHER_FILES);
    // The soft limit of most systems is 1,024.
    match rlimit::increase_nofile_limit(u64::MAX) {
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

/// Opens the last of so many files and closes it again: Linux keeps the table that it made. Left to grow, it doubles while
/// connections come, and in a process with threads each time waits until no processor looks at the old one
/// (`expand_fdtable` in the kernel's fs/file.c): nobody was served for 13 ms each time (benches/stall).
#[cfg(unix)]
fn make_table(files: u64) {
    let last = i32::try_from(files.min(TABLE_FILES_MAX)).unwrap_or(i32::MAX) - 1;
    if let Err(error) = rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), last) {
        tracing::debug!(%error, "the table of open files grows while connections come");
    }
}
