//! [`Progress`]: a line on standard error that changes while the bench runs, if that is a terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often the line changes.
const EVERY: Duration = Duration::from_millis(200);

/// Counts messages and shows the count.
#[derive(Clone)]
pub(super) struct Progress {
    name: &'static str,
    terminal: bool,
    delivered: Arc<AtomicU64>,
}

impl Progress {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, terminal: io::stderr().is_terminal(), delivered: Arc::default() }
    }

    /// Counts messages or answers that arrived.
    pub(super) fn delivered(&self, count: u64) {
        self.delivered.fetch_add(count, Ordering::Relaxed);
    }

    /// Returns the count.
    pub(super) fn count(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Shows how many connections are open.
    pub(super) fn connected(&self, open: usize, total: u32) {
        if open.is_multiple_of(50) {
            self.show(&format!("{open} of {total} connections"));
        }
    }

    /// Waits until `end`, and shows the rate meanwhile.
    pub(super) async fn until(&self, end: Instant, what: &str) {
        loop {
            let (before, now) = (self.count(), Instant::now());
            sleep_until(end.min(now + EVERY)).await;
            if Instant::now() >= end {
                return;
            }
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let rate = (self.count() - before) as f64 / now.elapsed().as_secs_f64();
            let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
            self.show(&format!("{what}, {left:.1} s left, {rate:.0} messages/s"));
        }
    }

    fn show(&self, text: &str) {
        self.write(&format!("\r\x1b[K{}: {text}", self.name));
    }

    /// Removes the line.
    pub(super) fn clear(&self) {
        self.write("\r\x1b[K");
    }

    fn write(&self, text: &str) {
        if self.terminal {
            let mut stderr = io::stderr().lock();
            // A closed standard error is not an error.
            stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).ok();
        }
    }
}
