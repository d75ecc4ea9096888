//! [`Look`]: reads a history for `switchboard history`, also while a broker uses it, and changes nothing.

use redb::{ReadTransaction, ReadableDatabase};

use super::check::check;
use super::disk::{Disk, FileDisk};
use super::record::{Entry, LogName};
use super::set_aside::Kept;
use super::start::{HistorySettings, Loaded, advise, shared_builder};
use super::tables::{Item, STORE, Seal, key_check, read_all};
use super::{WHAT, cost};
use crate::store::database::Name;
use crate::store::{Cipher, FolderLock, StoreError, exists};

/// A history that is only read.
#[derive(Clone, Debug)]
pub struct Look<'s> {
    settings: &'s HistorySettings,
    /// No broker can use the file now, because the caller has locked the folder.
    is_alone: bool,
}

/// What is printed of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Its name.
    pub name: LogName,
    /// Its epoch.
    pub epoch: Box<str>,
    /// The offset of its first entry; `last + 1` if it has none.
    pub first: u64,
    /// The last offset that was used.
    pub last: u64,
    /// The disk that its entries use.
    pub bytes: u64,
}

impl<'s> Look<'s> {
    /// Looks at the history of a data folder.
    pub fn new(settings: &'s HistorySettings) -> Self {
        Self { settings, is_alone: false }
    }

    /// The same for a command that has the folder alone.
    pub fn alone(settings: &'s HistorySettings, _alone: &FolderLock) -> Self {
        Self { settings, is_alone: true }
    }

    /// Returns all logs, ordered by channel and user. `None`: there is no history.
    ///
    /// # Errors
    /// The file is damaged, has another key, or cannot be read.
    pub fn logs(&self) -> Result<Option<Vec<LogLine>>, StoreError> {
        let mut lines: Vec<LogLine> = Vec::new();
        let found = self.read(&mut |item| match item {
            Item::Log(_, record) => {
                let (epoch, first, last) = (record.epoch, record.first, record.last);
                lines.push(LogLine { name: record.name, epoch, first, last, bytes: 0 });
            }
            Item::Entry(_, sealed, _) => lines.last_mut().into_iter().for_each(|line| line.bytes += cost(sealed)),
            Item::Known(..) | Item::Retained(..) => {}
        })?;
        lines.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found.then_some(lines))
    }

    /// Hands over every entry of every log, or of one log, with its epoch and offset. Returns `false` if there is no history.
    ///
    /// # Errors
    /// The file is damaged, has another key, or cannot be read.
    pub fn entries(&self, visit: &mut dyn FnMut(&LogName, &str, u64, Entry)) -> Result<bool, StoreError> {
        let mut current = None;
        self.read(&mut |item| match item {
            Item::Log(_, record) => current = Some((record.name, record.epoch)),
            Item::Entry(offset, _, entry) => {
                if let Some((name, epoch)) = &current {
                    visit(name, epoch, offset, entry);
                }
            }
            Item::Known(..) | Item::Retained(..) => {}
        })
    }

    /// Hands over everything: each log with its entries, then ids of events with `once`, then retained values. Returns `false` if
    /// there is no history.
    ///
    /// # Errors
    /// The file is damaged, has another key, or cannot be read.
    pub fn contents(&self, visit: &mut dyn FnMut(Loaded)) -> Result<bool, StoreError> {
        self.read(&mut |item| visit(item.into()))
    }

    /// Counts what there is.
    pub(super) fn count(&self, kept: &mut Kept) -> Result<(), StoreError> {
        let counted = self.read(&mut |item| match item {
            Item::Log(..) => kept.logs += 1,
            Item::Entry(..) => kept.events += 1,
            Item::Retained(..) => kept.values += 1,
            Item::Known(..) => {}
        });
        counted.map(drop)
    }

    fn read(&self, visit: &mut dyn FnMut(Item)) -> Result<bool, StoreError> {
        let HistorySettings { data_dir, key } = self.settings;
        let path = self.settings.file();
        if !exists(&path)? {
            return Ok(false);
        }
        let seal = Seal::new(Cipher::new(&key.read_for(data_dir, WHAT, &path)?, STORE));
        let name = Name { path: path.clone(), what: WHAT };
        let is_right = |transaction: &ReadTransaction| -> Result<bool, redb::Error> {
            Ok(seal.cipher().fits(&key_check(transaction)?))
        };
        let is_in_use = !self.is_alone && FolderLock::is_taken(data_dir)?;
        let is_key_right = name.guarded(|| {
            if is_in_use {
                // A consistent view of a file that is being written.
                let database = shared_builder().open_read_only_with_backend(FileDisk(path).open_to_read()?)?;
                let transaction = database.begin_read()?;
                return if is_right(&transaction)? {
                    read_all(&transaction, &seal, visit).map(|()| true)
                } else {
                    Ok(false)
                };
            }
            let disk = FileDisk(path);
            // All of it is checked before anything is shown.
            let probe = |transaction: &ReadTransaction| {
                let is_right = is_right(transaction)?;
                if is_right {
                    read_all(transaction, &seal, &mut |_| {})?;
                }
                Ok(is_right)
            };
            let (is_key_right, flags) = check(&disk, &probe, &mut |transaction| probe(transaction))?;
            if is_key_right {
                super::check::read(&disk, flags, &mut |transaction| read_all(transaction, &seal, visit))?;
            }
            Ok(is_key_right)
        });
        match is_key_right.map_err(advise)? {
            true => Ok(true),
            false => Err(self.settings.wrong_key()),
        }
    }
}
