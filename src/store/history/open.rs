//! [`OpenFile`]: the file while it is open. One thread writes to it, and others read.
//!
//! A reader keeps to one state of the file for a while ([`Pin`]), so that what it wants is not removed before it is read. The
//! file cannot use the room of removed entries again meanwhile, so no state is pinned for long.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use redb::{Database, ReadTransaction, ReadableDatabase};

/// How long a reader may keep to one state of the file.
const PINNED_MAX: Duration = Duration::from_secs(10);

/// A file that is open, unless the disk has failed.
pub(super) struct OpenFile {
    database: RwLock<Option<Database>>,
    pins: Mutex<Vec<Weak<Mutex<Option<Pinned>>>>>,
}

/// A state of the file to which a reader keeps. Begins with the first read.
#[derive(Clone, Default)]
pub struct Pin(Arc<Mutex<Option<Pinned>>>);

struct Pinned {
    transaction: ReadTransaction,
    at: Instant,
}

impl OpenFile {
    pub(super) fn new(database: Database) -> Self {
        Self { database: RwLock::new(Some(database)), pins: Mutex::default() }
    }

    /// The database; `None` after a fault, until the file was opened again.
    pub(super) fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read()
    }

    pub(super) fn is_open(&self) -> bool {
        self.database.read().is_some()
    }

    /// Closes the file after a fault.
    pub(super) fn close(&self) {
        self.release_all();
        *self.database.write() = None;
    }

    /// Takes over a file that was opened again. Nobody reads the one before any more.
    pub(super) fn replace(&self, database: Database) {
        *self.database.write() = Some(database);
    }

    /// Ends all states that readers keep to, so that the file can be opened again.
    pub(super) fn release_all(&self) {
        self.release(|_| true);
    }

    /// Ends the states to which readers have kept for too long.
    pub(super) fn release_old(&self, now: Instant) {
        self.release(|pinned| now.saturating_duration_since(pinned.at) >= PINNED_MAX);
    }

    fn release(&self, is_over: impl Fn(&Pinned) -> bool) {
        let mut pins = std::mem::take(&mut *self.pins.lock());
        // A reader takes these locks in the other order.
        pins.retain(|pin| {
            let Some(pin) = pin.upgrade() else { return false };
            let mut pinned = pin.lock();
            if pinned.as_ref().is_some_and(&is_over) {
                *pinned = None;
            }
            pinned.is_some()
        });
        self.pins.lock().append(&mut pins);
    }

    /// Reads a pinned state, which is the present one if none is pinned yet. `None`: the file is not open.
    pub(super) fn read<T>(
        &self,
        now: Instant,
        pin: &Pin,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<Option<T>, redb::Error> {
        let mut pinned = pin.0.lock();
        if let Some(Pinned { transaction, .. }) = &*pinned {
            return work(transaction).map(Some);
        }
        let Some(transaction) = self.database().as_ref().map(ReadableDatabase::begin_read).transpose()? else {
            return Ok(None);
        };
        let outcome = work(&transaction);
        *pinned = Some(Pinned { transaction, at: now });
        self.pins.lock().push(Arc::downgrade(&pin.0));
        outcome.map(Some)
    }
}
