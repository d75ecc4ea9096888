//! `switchboard history repair`: writes a new file with everything that can still be read in a damaged one.
//!
//! Every record is sealed, so what opens is what was written. What is read is therefore never wrong; the question is only what
//! is missing. A log keeps its epoch if its own record and every entry between its first and last offset were read from the
//! newest commit. Any other log gets a new epoch, so that no client takes it for whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rand::TryRng;
use rand::rngs::SysRng;
use redb::{ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, WriteTransaction};

use super::disk::{Disk, FileDisk, Overlay};
use super::header::Header;
use super::record::{Entry, Known, LogName, LogRecord, Place, Record, Retained};
use super::start::{HistorySettings, builder, check_all, create};
use super::tables::{
    ENTRIES, KNOWN, LOGS, LogKey, RETAINED, STORE, Seal, damaged, entry_place, key_check, known_place, log_place,
    retained_place,
};
use super::{FILE, WHAT};
use crate::store::database::Name;
use crate::store::quiet::catch_quietly;
use crate::store::{Cipher, FolderLock, StoreError, beside, exists, resolve};

/// What a repair did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Where the old file is. `None`: the file was sound and was left as it is.
    pub old_file: Option<PathBuf>,
    /// The logs that are as they were.
    pub whole: usize,
    /// The logs with a new epoch, and how many of their entries were kept and lost. If the last commit could not be read,
    /// more may be lost.
    pub renewed: Vec<(LogName, u64, u64)>,
    /// Whether the newest commit was damaged, so that any log may have lost its last events.
    pub is_older: bool,
    /// Whether logs, known ids or retained values were lost whose names could not be read.
    pub lost_others: bool,
}

/// Repairs the history of a data folder. `None`: there is none.
///
/// # Errors
/// A broker runs; the key is another one; a file cannot be read or written. The old file is as it was.
pub fn repair(settings: &HistorySettings, new_epochs: bool) -> Result<Option<Repaired>, StoreError> {
    let HistorySettings { data_dir, key } = settings;
    if !exists(&settings.file())? {
        return Ok(None);
    }
    let path = resolve(&settings.file());
    let _alone = FolderLock::take_for_repair(data_dir)?;
    let seal = Seal::new(Cipher::new(&key.read_for(data_dir, WHAT, &path)?, STORE));
    let name = Name { path: path.clone(), what: WHAT };
    match check_all(&name, &FileDisk(path.clone()), &seal, &mut |_| {}) {
        Ok(None) => return Err(settings.wrong_key()),
        Ok(Some(_)) if !new_epochs => return Ok(Some(Repaired::default())),
        Err(error @ StoreError::Unusable(_)) => return Err(error),
        Ok(Some(_)) | Err(StoreError::Damaged(_)) => {}
    }
    let old = keep_beside(&path).map_err(|error| StoreError::file(&path, "the old file cannot be kept", &error))?;
    let mut salvage = Salvage::new(FileDisk(old.clone()), &seal);
    let outcome = salvage.check_key().map_err(|()| settings.wrong_key()).and_then(|()| {
        let mut repaired = Repaired { old_file: Some(old.clone()), ..Repaired::default() };
        let check = seal.cipher().key_check()?;
        // The old file keeps its other name.
        drop(create(&path, &check, |transaction| salvage.write(transaction, new_epochs, &mut repaired))?);
        Ok(Some(repaired))
    });
    if outcome.is_err() {
        // The file still has its own name.
        fs::remove_file(&old).ok();
    }
    outcome
}

/// Gives the file a second name, which stays when it is replaced.
fn keep_beside(path: &Path) -> io::Result<PathBuf> {
    free_name(path, "damaged", |path, old| match fs::hard_link(path, old) {
        // The file system may have no hard links.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::copy(path, old).map(drop),
        linked => linked,
    })
}

/// Calls `give` with names beside the file that say what became of it and when, until one is free.
#[expect(clippy::disallowed_methods, reason = "a name that a person can read")]
pub(super) fn free_name(
    path: &Path,
    became: &str,
    give: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<PathBuf> {
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(':', "");
    let mut number = 0;
    loop {
        let ending = if number == 0 { format!(".{became}-{time}") } else { format!(".{became}-{time}-{number}") };
        let name = beside(&path.with_file_name(FILE), &ending);
        match give(path, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
            given => return given.map(|()| name),
        }
    }
}

/// Reads what can be read of a damaged file.
struct Salvage<'s> {
    disk: FileDisk,
    seal: &'s Seal,
    /// Commits to try, the newest one first.
    slots: Vec<usize>,
    /// Whether the slot that is read has the newest commit.
    is_newest: bool,
    database: Option<ReadOnlyDatabase>,
}

impl<'s> Salvage<'s> {
    fn new(disk: FileDisk, seal: &'s Seal) -> Self {
        let mut salvage = Self { disk, seal, slots: Vec::new(), is_newest: true, database: None };
        let newest = salvage.header().map_or(0, |header| header.newest_slot());
        salvage.slots = vec![newest, 1 - newest];
        while !salvage.slots.is_empty() && salvage.attempt(key_check).is_none() {
            salvage.slots.remove(0);
            salvage.is_newest = false;
        }
        salvage
    }

    fn header(&self) -> Option<Header> {
        Header::read(&self.disk.open_to_read().ok()?).ok()?
    }

    fn open(&self) -> Result<ReadOnlyDatabase, redb::Error> {
        let slot = self.slots.first().copied().ok_or_else(|| damaged("no commit can be read"))?;
        let overlay = Overlay::new(self.disk.open_to_read()?)?;
        let mut header = self.header().ok_or_else(|| damaged("it has no header"))?;
        let len = header.restore(overlay.len()?, slot)?;
        overlay.set_len(len)?;
        overlay.write(0, header.bytes())?;
        Ok(builder().open_read_only_with_backend(overlay)?)
    }

    /// Reads something; `None` if that fails. redb panics in some damaged files, and cannot be used afterwards.
    fn attempt<T>(&mut self, work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>) -> Option<T> {
        let database = self.database.take();
        let outcome = catch_quietly(|| {
            let database = database.map_or_else(|| self.open(), Ok).ok()?;
            let outcome = work(&database.begin_read().ok()?).ok();
            Some((database, outcome))
        });
        let (database, outcome) = outcome.ok().flatten()?;
        self.database = Some(database);
        outcome
    }

    /// Refuses a file that was made with another key: nothing of it could be saved.
    fn check_key(&mut self) -> Result<(), ()> {
        let check = self.attempt(key_check);
        check.is_none_or(|check| self.seal.cipher().fits(&check)).then_some(()).ok_or(())
    }

    fn write(
        &mut self,
        transaction: &WriteTransaction,
        new_epochs: bool,
        repaired: &mut Repaired,
    ) -> Result<(), redb::Error> {
        repaired.is_older = !self.is_newest;
        let (logs, all) = self.rows(LOGS);
        repaired.lost_others |= !all;
        for (key, sealed) in logs {
            let record: Option<LogRecord> = self.seal.open(&log_place(&key), &sealed);
            match record {
                Some(record) => self.write_log(transaction, (key, record), new_epochs, repaired)?,
                None => repaired.lost_others = true,
            }
        }
        self.write_rest(transaction, repaired)
    }

    fn write_log(
        &mut self,
        transaction: &WriteTransaction,
        (old_key, record): (LogKey, LogRecord),
        new_epochs: bool,
        repaired: &mut Repaired,
    ) -> Result<(), redb::Error> {
        let mut lost = 0;
        for offset in record.first..=record.last {
            lost += u64::from(self.entry(&old_key, offset).is_none());
        }
        let is_whole = lost == 0 && self.is_newest;
        let kept = (record.last + 1).saturating_sub(record.first) - lost;
        let epoch = if is_whole && !new_epochs { record.epoch.clone() } else { new_epoch()? };
        let key = self.seal.log_key(&record.name, &epoch);
        let mut next = if is_whole { record.first } else { 1 };
        let first = next;
        let mut entries = transaction.open_table(ENTRIES)?;
        for offset in record.first..=record.last {
            if let Some(entry) = self.entry(&old_key, offset) {
                entries.insert((&key, next), &*self.sealed(&entry_place(&key, next), &entry)?)?;
                next += 1;
            }
        }
        if is_whole && !new_epochs {
            repaired.whole += 1;
        } else {
            repaired.renewed.push((record.name.clone(), kept, lost));
        }
        let last = if is_whole { record.last } else { next - 1 };
        let record = LogRecord { epoch, first, last, ..record };
        transaction.open_table(LOGS)?.insert(&key, &*self.sealed(&log_place(&key), &record)?)?;
        Ok(())
    }

    fn write_rest(&mut self, transaction: &WriteTransaction, repaired: &mut Repaired) -> Result<(), redb::Error> {
        let (rows, all) = self.rows(KNOWN);
        repaired.lost_others |= !all;
        for (number, sealed) in rows {
            match self.seal.open::<Known>(&known_place(number), &sealed) {
                Some(_) => drop(transaction.open_table(KNOWN)?.insert(number, &*sealed)?),
                None => repaired.lost_others = true,
            }
        }
        let (rows, all) = self.rows(RETAINED);
        repaired.lost_others |= !all;
        for (key, sealed) in rows {
            match self.seal.open::<(Place, Retained)>(&retained_place(&key), &sealed) {
                Some(_) => drop(transaction.open_table(RETAINED)?.insert(&key, &*sealed)?),
                None => repaired.lost_others = true,
            }
        }
        Ok(())
    }

    fn entry(&mut self, key: &LogKey, offset: u64) -> Option<Entry> {
        let sealed = self.attempt(|transaction| {
            let entries = transaction.open_table(ENTRIES)?;
            Ok(entries.get((key, offset))?.map(|sealed| sealed.value().to_vec()))
        });
        self.seal.open(&entry_place(key, offset), &sealed??)
    }

    fn sealed(&self, place: &[u8], record: &impl Record) -> Result<Vec<u8>, redb::Error> {
        self.seal.seal(place, record).map_err(|error| redb::Error::Io(io::Error::other(error)))
    }

    /// Returns the rows of a table that can be read, and whether those are all: rows up to a damaged page, and rows from the
    /// end back to a damaged page.
    fn rows<K: SavedKey>(&mut self, table: redb::TableDefinition<'static, K, &'static [u8]>) -> (Vec<Row<K>>, bool) {
        let mut rows = Vec::new();
        let forward = self.attempt(|transaction| {
            for row in transaction.open_table(table)?.iter()? {
                let (key, sealed) = row?;
                rows.push((K::save(&key.value()), sealed.value().to_vec()));
            }
            Ok(())
        });
        if forward.is_some() {
            return (rows, true);
        }
        let last = rows.last().map(|(key, _)| key.clone());
        let mut behind = Vec::new();
        self.attempt(|transaction| {
            for row in transaction.open_table(table)?.iter()?.rev() {
                let (key, sealed) = row?;
                let key = K::save(&key.value());
                if last.as_ref().is_some_and(|last| key <= *last) {
                    break;
                }
                behind.push((key, sealed.value().to_vec()));
            }
            Ok(())
        });
        rows.extend(behind.into_iter().rev());
        (rows, false)
    }
}

/// A row of a table.
type Row<K> = (<K as SavedKey>::Saved, Vec<u8>);

/// A key that can be kept longer than its page.
trait SavedKey: redb::Key + 'static {
    type Saved: Clone + Ord;

    fn save(value: &Self::SelfType<'_>) -> Self::Saved;
}

impl SavedKey for u64 {
    type Saved = Self;

    fn save(value: &Self::SelfType<'_>) -> Self {
        *value
    }
}

impl<const N: usize> SavedKey for &'static [u8; N] {
    type Saved = [u8; N];

    fn save(value: &Self::SelfType<'_>) -> [u8; N] {
        **value
    }
}

fn new_epoch() -> Result<Box<str>, redb::Error> {
    let mut bytes = [0; 16];
    SysRng.try_fill_bytes(&mut bytes).map_err(|error| redb::Error::Io(io::Error::other(error)))?;
    Ok(hex::encode(bytes).into())
}
