//! Seals a history with another key, for `switchboard credentials rekey`.
//!
//! The history gets the new key before the credential store does. If the process ends in between, the new key lies beside the
//! old one, and the next broker gives the history the old key again.

use std::path::Path;

use redb::WriteTransaction;

use super::disk::FileDisk;
use super::record::{Entry, Known, LogRecord, Place, Record, Retained};
use super::start::{HistorySettings, check_all, create};
use super::tables::{
    ENTRIES, Item, KNOWN, LOGS, RETAINED, STORE, Seal, entry_place, known_place, log_place, read_all, retained_place,
};
use super::{FILE, WHAT, check};
use crate::store::database::Name;
use crate::store::replaced::Replaced;
use crate::store::{Cipher, Key, StoreError, beside, exists, resolve};

/// The ending of a new key's file name, until it replaces the old key.
const NEXT: &str = ".new";

/// Seals the history of a data folder with another key, if there is one. No process may have it open.
///
/// # Errors
/// It is damaged, or has neither key, or cannot be written. It is as it was.
pub(crate) fn reseal(data_dir: &Path, from: &Key, to: &Key) -> Result<(), StoreError> {
    let path = data_dir.join(FILE);
    if exists(&path)? { reseal_file(&resolve(&path), from, to) } else { Ok(()) }
}

fn reseal_file(path: &Path, from: &Key, to: &Key) -> Result<(), StoreError> {
    let [from, to] = [from, to].map(|key| Seal::new(Cipher::new(key, STORE)));
    let (name, disk) = (Name { path: path.to_owned(), what: WHAT }, FileDisk(path.to_owned()));
    let flags = match check_all(&name, &disk, &from, &mut |_| {})? {
        Some(flags) => flags,
        None if check_all(&name, &disk, &to, &mut |_| {})?.is_some() => return Ok(()),
        None => {
            return Err(StoreError::unusable(format!("{}: {WHAT} was made with another key", path.display())));
        }
    };
    let old = create(path, &to.cipher().key_check()?, |transaction| {
        let mut outcome = Ok(());
        let mut copy = Copy { to: &to, transaction, log: None };
        check::read(&disk, flags, &mut |old| {
            read_all(old, &from, &mut |item| {
                if outcome.is_ok() {
                    outcome = copy.add(item);
                }
            })
        })?;
        outcome
    })?;
    // A person who knows the old key could read the blocks of the old file.
    old.map_or(Ok(()), Replaced::overwrite).map_err(|error| {
        StoreError::file(path, "it has its new key, but the file that it replaced could not be overwritten", &error)
    })
}

/// Gives a history its key again if a new one did not take its place.
///
/// # Errors
/// Those of [`reseal`].
pub(crate) fn take_back(settings: &HistorySettings, key: &Key) -> Result<(), StoreError> {
    let path = &resolve(&settings.file());
    let Some(next) = next_key(settings)?.filter(|_| path.exists()) else { return Ok(()) };
    let (name, disk) = (Name { path: path.to_owned(), what: WHAT }, FileDisk(path.to_owned()));
    match check_all(&name, &disk, &Seal::new(Cipher::new(&next, STORE)), &mut |_| {})? {
        Some(_) => reseal_file(path, &next, key),
        None => Ok(()),
    }
}

/// The new key of a `credentials rekey` that was interrupted.
pub(super) fn next_key(settings: &HistorySettings) -> Result<Option<Key>, StoreError> {
    let Some(file) = settings.key.file(&settings.data_dir) else { return Ok(None) };
    let next = beside(&resolve(&file), NEXT);
    // What is not a key was left by an attempt that changed nothing.
    Ok(if exists(&next)? { Key::read(&next).ok() } else { None })
}

/// Seals records for another file.
struct Copy<'t> {
    to: &'t Seal,
    transaction: &'t WriteTransaction,
    /// The log whose entries follow.
    log: Option<super::LogKey>,
}

impl Copy<'_> {
    fn add(&mut self, item: Item) -> Result<(), redb::Error> {
        match item {
            Item::Log(_, record) => self.log(&record),
            Item::Entry(offset, _, entry) => self.entry(offset, &entry),
            Item::Known(number, known) => self.known(number, &known),
            Item::Retained(place, value) => self.retained(place, value),
        }
    }

    fn log(&mut self, record: &LogRecord) -> Result<(), redb::Error> {
        let key = self.to.log_key(&record.name, &record.epoch);
        self.transaction.open_table(LOGS)?.insert(&key, &*self.sealed(&log_place(&key), record)?)?;
        self.log = Some(key);
        Ok(())
    }

    fn entry(&self, offset: u64, entry: &Entry) -> Result<(), redb::Error> {
        let Some(key) = &self.log else { return Ok(()) };
        let sealed = self.sealed(&entry_place(key, offset), entry)?;
        self.transaction.open_table(ENTRIES)?.insert((key, offset), &*sealed)?;
        Ok(())
    }

    fn known(&self, number: u64, known: &Known) -> Result<(), redb::Error> {
        let sealed = self.sealed(&known_place(number), known)?;
        self.transaction.open_table(KNOWN)?.insert(number, &*sealed)?;
        Ok(())
    }

    fn retained(&self, place: Place, value: Retained) -> Result<(), redb::Error> {
        let key = self.to.place_key(&place);
        let sealed = self.sealed(&retained_place(&key), &(place, value))?;
        self.transaction.open_table(RETAINED)?.insert(&key, &*sealed)?;
        Ok(())
    }

    fn sealed(&self, place: &[u8], record: &impl Record) -> Result<Vec<u8>, redb::Error> {
        self.to.seal(place, record).map_err(|error| redb::Error::Io(std::io::Error::other(error)))
    }
}
