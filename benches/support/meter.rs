//! What the bench's own thread and process have used, as the system counts it. Linux only, as the yardstick.

use std::fs;
use std::time::Duration;

/// Takes CPU time of this thread: on a machine that others use too it is steadier than the clock on the wall.
pub(crate) struct Cpu(Duration);

impl Cpu {
    /// Begins to count.
    pub(crate) fn begin() -> Self {
        Self(used())
    }

    /// What was used since then.
    pub(crate) fn spent(&self) -> Duration {
        used().saturating_sub(self.0)
    }
}

fn used() -> Duration {
    // The counter is brought up to date when the thread gives its core away.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_ascii_whitespace().next().unwrap().parse().unwrap())
}

/// Resident memory of this process, in bytes.
pub(crate) fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.split_ascii_whitespace().next().unwrap().parse::<usize>().unwrap()
}
