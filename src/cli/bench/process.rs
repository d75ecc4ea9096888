//! [`Process`]: CPU time and memory of the broker, from `/proc`. Only on Linux.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A process on this computer.
pub(super) struct Process {
    folder: PathBuf,
}

/// The resources that it has used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// The CPU time of its threads.
    pub(super) cpu: Duration,
    /// Its resident memory in KiB.
    pub(super) rss_kib: u64,
}

impl Process {
    /// Returns the process with this number, if it can be examined.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let process = Self { folder: PathBuf::from(format!("/proc/{pid}")) };
        process.usage().map(|_| process)
    }

    /// Returns the process that listens on a port of this computer.
    pub(super) fn listening_on(address: SocketAddr) -> Option<Self> {
        if !address.ip().is_loopback() {
            return None;
        }
        let socket = format!("socket:[{}]", listener(address.port())?);
        let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.into_iter().filter(|pid| holds(*pid, &socket)).find_map(Self::of)
    }

    /// Returns what it has used so far, or `None` if it has ended.
    pub(super) fn usage(&self) -> Option<Usage> {
        let mut cpu = Duration::ZERO;
        for thread in fs::read_dir(self.folder.join("task")).ok()?.flatten() {
            // The first number is the time on a core, in nanoseconds (proc_pid_schedstat). `stat` counts in 10 ms.
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            cpu += Duration::from_nanos(text.split_ascii_whitespace().next()?.parse().ok()?);
        }
        let status = fs::read_to_string(self.folder.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss_kib = line.split_ascii_whitespace().next()?.parse().ok()?;
        Some(Usage { cpu, rss_kib })
    }
}

/// Returns the inode of the socket that listens on a port (`proc_net_tcp`: local address, state 0A, inode).
fn listener(port: u16) -> Option<u64> {
    const LISTENS: &str = "0A";
    let port = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|table| fs::read_to_string(table).ok()).find_map(|table| {
        table.lines().find_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, state) = (fields.next()?, fields.nth(1)?);
            let inode = fields.nth(5)?;
            (local.ends_with(&port) && state == LISTENS).then(|| inode.parse().ok())?
        })
    })
}

fn holds(pid: u32, socket: &str) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|link| link == Path::new(socket)))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_of_a_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let process = Process::listening_on(listener.local_addr().unwrap()).unwrap();
        assert_eq!(process.folder, Path::new(&format!("/proc/{}", std::process::id())));
        assert!(process.usage().unwrap().rss_kib > 0);
    }
}
