//! `[recorder]`: the flight recorder, which keeps what happened last.

use super::Config;
use super::reference::Key;
use super::slot::Slot;

/// `[recorder]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Bytes of memory; 0 turns it off.
    pub bytes: usize,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { bytes: 64 << 20 }
    }
}

/// The keys.
pub(crate) static RECORDER_KEYS: &[Key<Config>] = &[Key {
    name: "recorder.bytes",
    slot: Slot::Size(0, |it| &mut it.recorder.bytes),
    default: "67108864",
    unit: "bytes",
    meaning: "Memory of the flight recorder: half for what is rare and important, half for events. It is used as the \
              recorder fills. Less than 524288 counts as that; 0 turns it off.",
}];
