//! [`Process`]: what the system says of this process. Linux only.

use std::time::SystemTime;

/// What the system says of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// The processor time of all threads, in seconds.
    pub cpu_seconds: f64,
    /// The memory that it occupies, in bytes.
    pub resident_bytes: u64,
    /// The memory that it can address, in bytes.
    pub virtual_bytes: u64,
    /// Its open files.
    pub open_files: u64,
    /// The files that it may open.
    pub open_files_max: u64,
    /// When it started.
    pub started: SystemTime,
}

#[cfg(not(target_os = "linux"))]
impl Process {
    /// Returns nothing: only Linux says it in files.
    pub fn read() -> Option<Self> {
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::time::{Duration, SystemTime};

    use super::Process;

    /// The unit of times in `/proc`: `USER_HZ` is 100 on every platform that Rust supports.
    const TICKS_A_SECOND: f64 = 100.0;

    /// Where fields are in `/proc/self/stat` behind the name of the program (proc(5)).
    const USER_TICKS: usize = 11;
    const SYSTEM_TICKS: usize = 12;
    const START_TICKS: usize = 19;
    const VIRTUAL_BYTES: usize = 20;
    const RESIDENT_PAGES: usize = 21;

    impl Process {
        /// Reads `/proc`. `None` if it cannot be read.
        pub fn read() -> Option<Self> {
            let stat = fs::read_to_string("/proc/self/stat").ok()?;
            // The name of the program can have spaces and parentheses.
            let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
            let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
            let page = u64::try_from(rustix::param::page_size()).ok()?;
            Some(Self {
                cpu_seconds: seconds(field(USER_TICKS)? + field(SYSTEM_TICKS)?),
                resident_bytes: field(RESIDENT_PAGES)? * page,
                virtual_bytes: field(VIRTUAL_BYTES)?,
                open_files: open_files()?,
                open_files_max: open_files_max(),
                started: booted()? + Duration::from_secs_f64(seconds(field(START_TICKS)?)),
            })
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "exact for millions of years")]
    fn seconds(ticks: u64) -> f64 {
        ticks as f64 / TICKS_A_SECOND
    }

    /// The descriptor by which the folder is read is one of them.
    fn open_files() -> Option<u64> {
        let count = fs::read_dir("/proc/self/fd").ok()?.count();
        u64::try_from(count.saturating_sub(1)).ok()
    }

    fn open_files_max() -> u64 {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
    }

    fn booted() -> Option<SystemTime> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the system says when the process started")]
    fn the_system_says_plausible_things_of_this_process() {
        let process = Process::read().unwrap();
        assert!(process.cpu_seconds >= 0.0 && process.cpu_seconds < 1e6, "{process:?}");
        assert!(process.resident_bytes > 1 << 20 && process.resident_bytes < process.virtual_bytes, "{process:?}");
        assert!(process.open_files >= 3 && process.open_files < process.open_files_max, "{process:?}");
        let age = SystemTime::now().duration_since(process.started).unwrap_or_default();
        assert!(age.as_secs() < 3600, "the process is {age:?} old");
    }
}
