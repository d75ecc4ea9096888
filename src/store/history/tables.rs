//! The tables of the file, the places that its records are sealed for, and [`read_all`], which checks everything.

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition};
use zeroize::Zeroizing;

use super::record::{Entry, Known, LogName, LogRecord, Place, Record, Retained};
use crate::store::{Cipher, StoreError};

/// The name of the store, from which its keys are derived.
pub(super) const STORE: &str = "history";

/// A keyed hash of a log's name and epoch. Reveals neither.
pub(super) type LogKey = [u8; 16];

/// A keyed hash of the place of a retained value.
pub(super) type PlaceKey = [u8; 32];

/// What belongs to no log: the key check, and a probe while it is written.
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Log -> its sealed record.
pub(super) const LOGS: TableDefinition<'_, &LogKey, &[u8]> = TableDefinition::new("logs");

/// Log and offset -> sealed entry.
pub(super) const ENTRIES: TableDefinition<'_, (&LogKey, u64), &[u8]> = TableDefinition::new("entries");

/// A number that grows with time -> sealed id of an event that was sent with `once`.
pub(super) const KNOWN: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("known ids");

/// Place -> sealed retained value.
pub(super) const RETAINED: TableDefinition<'_, &PlaceKey, &[u8]> = TableDefinition::new("retained values");

/// Seals and opens the records of a history, and names their rows.
pub(super) struct Seal {
    cipher: Cipher,
    /// How many records were opened.
    #[cfg(test)]
    pub(super) opened: std::sync::atomic::AtomicUsize,
}

impl Seal {
    pub(super) fn new(cipher: Cipher) -> Self {
        Self {
            cipher,
            #[cfg(test)]
            opened: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    pub(super) fn cipher(&self) -> &Cipher {
        &self.cipher
    }

    pub(super) fn log_key(&self, name: &LogName, epoch: &str) -> LogKey {
        let LogName { channel, user } = name;
        let user = user.as_deref().map_or_else(|| "-".to_owned(), |user| format!("{}:{user}", user.len()));
        let row = self.cipher.row_of(&format!("log {}:{channel} {user} {epoch}", channel.len()));
        row.first_chunk().copied().unwrap_or_default()
    }

    pub(super) fn place_key(&self, place: &Place) -> PlaceKey {
        self.cipher.row_of(&format!("retained {}", place.key()))
    }

    pub(super) fn seal(&self, place: &[u8], record: &impl Record) -> Result<Vec<u8>, StoreError> {
        self.cipher.seal(place, Zeroizing::new(record.encode()))
    }

    pub(super) fn open<R: Record>(&self, place: &[u8], sealed: &[u8]) -> Option<R> {
        #[cfg(test)]
        self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        R::decode(&self.cipher.open(place, sealed)?)
    }
}

/// The places that records are sealed for, which are their associated data.
pub(super) fn log_place(log: &LogKey) -> Vec<u8> {
    [b"log".as_slice(), log].concat()
}

pub(super) fn entry_place(log: &LogKey, offset: u64) -> Vec<u8> {
    [b"entry".as_slice(), log, &offset.to_le_bytes()].concat()
}

pub(super) fn known_place(number: u64) -> Vec<u8> {
    [b"known".as_slice(), &number.to_le_bytes()].concat()
}

pub(super) fn probe_place() -> Vec<u8> {
    b"probe".to_vec()
}

pub(super) fn retained_place(key: &PlaceKey) -> Vec<u8> {
    [b"retained".as_slice(), key].concat()
}

/// Something that a file has.
pub(super) enum Item {
    /// A log. Its entries follow.
    Log(LogKey, LogRecord),
    /// An entry of the last log: its offset, the length of its sealed record, and what it is.
    Entry(u64, usize, Entry),
    /// An id that was sent with `once`, and its number.
    Known(u64, Known),
    /// A retained value.
    Retained(Place, Retained),
}

pub(super) fn damaged(words: &str) -> redb::Error {
    redb::Error::Corrupted(words.to_owned())
}

/// Returns the key check; an error if the file is not a history.
pub(super) fn key_check(transaction: &ReadTransaction) -> Result<Vec<u8>, redb::Error> {
    let foreign = || damaged("it is not a history that switchboard made");
    let meta = transaction.open_table(META).map_err(|_| foreign())?;
    let check = meta.get(crate::store::KEY_CHECK)?.map(|sealed| sealed.value().to_vec());
    check.ok_or_else(foreign)
}

/// Opens every record, compares each log with the offsets that its own record names, and hands all of it over.
pub(super) fn read_all(
    transaction: &ReadTransaction,
    seal: &Seal,
    visit: &mut dyn FnMut(Item),
) -> Result<(), redb::Error> {
    let entries = transaction.open_table(ENTRIES)?;
    let mut total = 0;
    for row in transaction.open_table(LOGS)?.iter()? {
        let (key, sealed) = row?;
        let key = *key.value();
        let record: LogRecord = seal
            .open(&log_place(&key), sealed.value())
            .filter(|record: &LogRecord| seal.log_key(&record.name, &record.epoch) == key)
            .ok_or_else(|| damaged("the record of a log was altered or moved"))?;
        let (first, last) = (record.first, record.last);
        let name = record.name.clone();
        let of_log = |what: &str| damaged(&format!("{what} in the log of {name}"));
        visit(Item::Log(key, record));
        let mut next = first;
        for row in entries.range((&key, 0)..=(&key, u64::MAX))? {
            let (place, sealed) = row?;
            let (_, offset) = place.value();
            if offset != next || offset > last {
                return Err(of_log(&format!("offset {next} is missing")));
            }
            let entry = seal
                .open(&entry_place(&key, offset), sealed.value())
                .ok_or_else(|| of_log(&format!("offset {offset} was altered or moved")))?;
            visit(Item::Entry(offset, sealed.value().len(), entry));
            next += 1;
            total += 1;
        }
        if next != last.saturating_add(1) {
            return Err(of_log(&format!("offset {next} is missing")));
        }
    }
    if entries.len()? != total {
        return Err(damaged("it has entries of a log that it does not have"));
    }
    for row in transaction.open_table(KNOWN)?.iter()? {
        let (number, sealed) = row?;
        let known = seal.open(&known_place(number.value()), sealed.value());
        visit(Item::Known(number.value(), known.ok_or_else(|| damaged("the id of an event was altered or moved"))?));
    }
    for row in transaction.open_table(RETAINED)?.iter()? {
        let (key, sealed) = row?;
        let (place, value) = seal
            .open::<(Place, Retained)>(&retained_place(key.value()), sealed.value())
            .filter(|(place, _)| seal.place_key(place) == *key.value())
            .ok_or_else(|| damaged("a retained value was altered or moved"))?;
        visit(Item::Retained(place, value));
    }
    Ok(())
}
