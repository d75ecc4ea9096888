//! [`Change`]: what can be done to a history.

use super::record::{Entry, Known, LogName, Place, Retained};

/// A change. Those of a batch are made in their order.
#[derive(Clone, Debug)]
pub enum Change {
    /// An event is added to its log, which begins if there is none with this epoch.
    Append {
        /// The log.
        log: LogName,
        /// Its epoch.
        epoch: Box<str>,
        /// The event's offset, which follows the last one.
        offset: u64,
        /// The event.
        entry: Entry,
        /// Its id, if it was sent with `once`.
        known: Option<Known>,
        /// The offset of the oldest entry that the log keeps.
        first: u64,
    },
    /// The entries before an offset are removed.
    Trim {
        /// The log.
        log: LogName,
        /// The offset of the oldest entry that the log keeps.
        first: u64,
    },
    /// A log is removed.
    Forget(LogName),
    /// A retained value is kept, in place of the one that was there.
    Keep(Place, Retained),
    /// A retained value is removed.
    Clear(Place),
}

impl Change {
    /// The place whose retained value it removes, if it does.
    pub fn cleared(&self) -> Option<&Place> {
        match self {
            Self::Clear(place) => Some(place),
            Self::Append { .. } | Self::Trim { .. } | Self::Forget(_) | Self::Keep(..) => None,
        }
    }

    /// The bytes of the text that it adds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { entry, .. } => entry.text.len(),
            Self::Keep(_, value) => value.text.len(),
            Self::Trim { .. } | Self::Forget(_) | Self::Clear(_) => 0,
        }
    }
}

/// What the bound of the disk cost, and damage that was found when the file was opened again after a fault.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The logs that were removed.
    pub removed: Vec<LogName>,
    /// The logs that lost their oldest entries, and the offset of the first that is left.
    pub trimmed: Vec<(LogName, u64)>,
    /// The logs that lost all entries that were on disk, because the file does not have what was written to it. With each,
    /// the offset of the next entry.
    pub damaged: Vec<(LogName, u64)>,
}
