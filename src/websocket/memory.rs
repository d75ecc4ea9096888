//! [`FrameMemory`]: how much memory the frames use that wait to be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the memory of frames, each once however many queues it is in, from its first queue until nothing uses it any
/// more. All queues of a broker share one.
pub struct FrameMemory {
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
    exceeded: Notify,
}

impl FrameMemory {
    /// A count with this bound.
    #[must_use]
    pub fn new(bytes_max: usize) -> Arc<Self> {
        let bytes_max = AtomicUsize::new(bytes_max);
        Arc::new(Self { bytes: AtomicUsize::new(0), bytes_max, exceeded: Notify::new() })
    }

    /// Puts another bound in force.
    pub fn set_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        if self.is_exceeded(0) {
            self.exceeded.notify_one();
        }
    }

    /// Returns the bytes that are in use.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns whether more is in use than the bound allows, without this number of bytes that are counted elsewhere.
    pub fn is_exceeded(&self, counted_elsewhere: usize) -> bool {
        self.bytes().saturating_sub(counted_elsewhere) > self.bytes_max.load(Ordering::Relaxed)
    }

    /// Ready when a frame was counted beyond the bound since the last call.
    pub async fn exceeded(&self) {
        self.exceeded.notified().await;
    }

    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.bytes_max.load(Ordering::Relaxed) {
            self.exceeded.notify_one();
        }
        Held { memory: Arc::clone(self), bytes }
    }
}

/// Memory that is counted until this is dropped.
pub(super) struct Held {
    memory: Arc<FrameMemory>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
