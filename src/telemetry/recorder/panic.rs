//! [`Dumps::at_panics`]: a file for each panic, but not for many in a row.

use std::panic;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::dump::Dumps;
use crate::store::is_quiet;

/// How long a panic that ends the process waits for its file.
const LAST_FILE: Duration = Duration::from_secs(2);

impl Dumps {
    /// Writes a file whenever a thread of this process panics, at most once a minute. The panic hook that was set before runs
    /// first. A panic that a damaged file causes, and that is caught and explained, writes none.
    pub fn at_panics(self: &Arc<Self>) {
        let (dumps, before) = (Arc::clone(self), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            before(panic);
            if !is_quiet() {
                dumps.write_for_panic();
            }
        }));
    }

    /// Writes a file in a thread of its own: the one that panics may hold a lock for which others wait.
    fn write_for_panic(self: &Arc<Self>) {
        #[expect(clippy::disallowed_methods, reason = "a panic is given no time, and no rule depends on it")]
        let (now, wall) = (Instant::now(), SystemTime::now());
        if !self.begin_for_panic(now) {
            return;
        }
        let (dumps, (done, written)) = (Arc::clone(self), sync_channel(1));
        let write = move || {
            dumps.write_and_log(now, wall, "a panic");
            done.send(()).ok();
        };
        let started = thread::Builder::new().name("panic-dump".to_owned()).spawn(write);
        // Only this thread's panic ends the process.
        if started.is_ok() && thread::current().name() == Some("main") {
            written.recv_timeout(LAST_FILE).ok();
        }
    }

    /// Writes a file, and logs its name or why there is none. Blocks on the disk.
    pub fn write_and_log(&self, now: Instant, wall: SystemTime, cause: &'static str) {
        match self.write(now, wall) {
            Ok(path) => tracing::warn!(cause, file = %path.display(), "the flight recorder was written to a file"),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(cause, error, "the flight recorder was not written to a file");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catch_quietly;
    use crate::telemetry::recorder::{Record, Recorder, What, Who};

    fn files(folder: &std::path::Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "what time it is does not matter")]
    fn a_panic_that_is_caught_and_explained_writes_no_file() {
        let now = Instant::now();
        let recorder = Recorder::for_workers(now, SystemTime::UNIX_EPOCH, 1 << 20, 1);
        let who = Who { number: 1, session: [1; 16], source: "phone", user: None };
        recorder.record(now, &Record::of(who, What::Registered));
        let folder = tempfile::tempdir().unwrap();
        let dumps = Arc::new(Dumps::new(Arc::new(recorder), folder.path()));
        // Its own hook comes before that of the dumps, as when a broker opens its store first.
        catch_quietly(|| ()).unwrap();
        dumps.at_panics();
        assert!(catch_quietly(|| panic!("a damaged file")).is_err());
        assert!(dumps.begin_for_panic(now), "the panic has not caused a file");
        assert_eq!(files(folder.path()), 0);
    }
}
