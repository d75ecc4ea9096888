//! Damaged, empty and foreign files.

use super::*;
use crate::store::history::start::builder;
use crate::store::history::tables::{ENTRIES, LOGS};
use crate::store::{Database, FolderLock};

/// Opens a damaged file, which may give what it had or be refused.
fn recovered_or_refused(damaged: Vec<u8>, sound: &Contents, what: &str) -> bool {
    let before = damaged.clone();
    let disk = FaultyDisk::with(damaged);
    match try_open(&disk, LIMITS) {
        Ok(Some((_, contents))) => {
            assert_eq!(&contents, sound, "{what}");
            true
        }
        Ok(None) => panic!("{what}: another key"),
        Err(error) => {
            let words = error.to_string();
            assert!(words.contains("damaged") && words.contains("history repair"), "{what}: {words}");
            assert_eq!(disk.bytes(), before, "{what}: a refused file was changed");
            false
        }
    }
}

#[test]
fn a_file_with_any_byte_flipped_is_recovered_or_refused() {
    let (closed, killed, contents) = small_twice();
    for bytes in [closed.bytes(), killed.bytes()] {
        let mut refused = 0;
        // The bits of the header have meanings of their own; elsewhere a checksum covers whole pages.
        for at in (0..bytes.len()).filter(|at| *at < 320 || at % stride() == 0) {
            let masks: &[u8] = if at < 24 { &[1, 2, 4, 8, 0xff] } else { &[0x09] };
            for mask in masks {
                let mut damaged = bytes.clone();
                damaged[at] ^= mask;
                refused += usize::from(!recovered_or_refused(damaged, &contents, &format!("byte {at} ^ {mask}")));
            }
        }
        assert!(refused > 20, "{refused}");
    }
}

/// Every how manieth byte is damaged. `SWITCHBOARD_EVERY_BYTE=1` tries all, which takes minutes.
fn stride() -> usize {
    if std::env::var_os("SWITCHBOARD_EVERY_BYTE").is_some() { 1 } else { 997 }
}

#[test]
fn a_truncated_file_is_recovered_or_refused() {
    let (disk, contents) = small();
    let bytes = disk.bytes();
    for len in (0..bytes.len()).step_by(stride() * 9).chain((0..bytes.len()).step_by(4096)) {
        recovered_or_refused(bytes[..len].to_vec(), &contents, &format!("{len} bytes"));
    }
}

#[test]
fn another_key_is_not_called_damage() {
    let (disk, _) = small();
    let opened = disk.open_history('b', LIMITS, &mut |_| {}).unwrap();
    assert!(opened.is_none());
}

#[test]
fn an_empty_or_foreign_file_is_refused_and_left_as_it_is() {
    let other = tempfile::tempdir().unwrap();
    let redb = other.path().join("other.redb");
    let filled = Database::create(&redb, "a file", |transaction| {
        transaction.open_table(redb::TableDefinition::<u64, u64>::new("other"))?.insert(1, 1)?;
        Ok(())
    });
    drop(filled.unwrap());
    for bytes in [Vec::new(), b"not a database".repeat(1000), std::fs::read(redb).unwrap()] {
        let (folder, settings) = folder_with(&bytes);
        let lock = FolderLock::take(folder.path()).unwrap();
        let words = HistoryFile::open(&settings, LIMITS, &lock, &mut |_| {}).unwrap_err().to_string();
        assert!(words.contains("damaged") && words.contains("switchboard history repair"), "{words}");
        assert_eq!(std::fs::read(settings.file()).unwrap(), bytes);
        drop(lock);
        let repaired = repair(&settings, false).unwrap().unwrap();
        assert_eq!(std::fs::read(repaired.old_file.unwrap()).unwrap(), bytes);
        assert_eq!(contents_of(&settings), Contents::new());
    }
}

/// Changes a sound file as a program would that knows its format, and not the key.
fn tampered(bytes: Vec<u8>, change: impl FnOnce(&redb::WriteTransaction)) -> Vec<u8> {
    let disk = FaultyDisk::with(bytes);
    tamper(&disk, change);
    disk.bytes()
}

fn tamper(disk: &FaultyDisk, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = builder().create_with_backend(disk::Backend::new(disk.clone())).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_record_that_is_damaged_when_the_file_is_opened_again_costs_its_own_log_only() {
    let (phone, queue) = (log("Phone", Some("alice")), log("Queue", None));
    for is_removed in [false, true] {
        let (disk, _) = small();
        let (mut history, _) = open(&disk);
        let (key, mut now) = (history.logs[&phone].key, now());
        disk.fail_after(0);
        history.apply(now, 1000, &[append(&queue, 4, "refused")]).unwrap_err();
        disk.heal();
        tamper(&disk, |transaction| {
            let mut logs = transaction.open_table(LOGS).unwrap();
            let mut record = logs.remove(&key).unwrap().unwrap().value().to_vec();
            if !is_removed {
                *record.last_mut().unwrap() ^= 1;
                logs.insert(&key, &*record).unwrap();
            }
        });
        now += REOPEN_AFTER;
        let applied = history.apply(now, 1000, &[append(&queue, 4, "accepted")]).unwrap();
        assert_eq!(applied, Applied { damaged: vec![(phone.clone(), 4)], ..Applied::default() });
        let applied = history.apply(now, 1000, &[append(&phone, 4, "goes on")]).unwrap();
        assert_eq!(applied, Applied::default(), "it is said once");
        drop(history);
        let contents = open(&disk).1;
        assert_eq!([&phone, &queue].map(|log| entries(&contents, log)), [vec![4], vec![1, 2, 3, 4]], "{contents:?}");
    }
}

#[test]
fn a_file_without_some_of_its_records_is_refused_though_its_checksums_fit() {
    let (disk, contents) = small();
    let rows = |transaction: &redb::WriteTransaction| -> Vec<(LogKey, u64)> {
        let entries = transaction.open_table(ENTRIES).unwrap();
        let mut rows = Vec::new();
        for row in redb::ReadableTable::iter(&entries).unwrap() {
            let (place, _) = row.unwrap();
            let (key, offset) = place.value();
            rows.push((*key, offset));
        }
        rows
    };
    let remove = |transaction: &redb::WriteTransaction, at: usize| {
        let (key, offset) = rows(transaction)[at];
        transaction.open_table(ENTRIES).unwrap().remove((&key, offset)).unwrap().unwrap();
    };
    for (at, missing) in [(0, "offset 1 is missing"), (1, "offset 2 is missing"), (2, "offset 3 is missing")] {
        let words = try_open(&FaultyDisk::with(tampered(disk.bytes(), |it| remove(it, at))), LIMITS).map(drop);
        let words = words.unwrap_err().to_string();
        assert!(words.contains(missing) && words.contains("history repair"), "{words}");
    }
    let without_log = tampered(disk.bytes(), |transaction| {
        let (key, _) = rows(transaction)[0];
        transaction.open_table(LOGS).unwrap().remove(&key).unwrap().unwrap();
    });
    let words = try_open(&FaultyDisk::with(without_log), LIMITS).map(drop).unwrap_err().to_string();
    assert!(words.contains("entries of a log that it does not have"), "{words}");
    let same = tampered(disk.bytes(), |_| ());
    assert_eq!(try_open(&FaultyDisk::with(same), LIMITS).unwrap().unwrap().1, contents);
}
