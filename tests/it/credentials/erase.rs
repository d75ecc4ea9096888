//! Records that were replaced or removed, and records under an old key, are not in the file any more.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Output};

use redb::{ReadableDatabase, ReadableTable};
use switchboard::credentials::{Directory, KeySource, OldRecords, Settings};
use switchboard::store::FolderLock;

use super::{SECRET, entry, settings, store_with_alice};
use crate::support::Broker;

/// The encrypted records of a store, as redb has them.
fn sealed(folder: &Path) -> Vec<Vec<u8>> {
    const ROWS: redb::TableDefinition<'_, &[u8; 32], &[u8]> = redb::TableDefinition::new("rows");
    let mut builder = redb::Database::builder();
    builder.set_concurrency_mode(redb::ConcurrencyMode::MultiWriter);
    let database = builder.open(folder.join("credentials.redb")).unwrap();
    let transaction = database.begin_read().unwrap();
    let rows = transaction.open_table(ROWS).unwrap();
    rows.iter().unwrap().map(|row| row.unwrap().1.value().to_vec()).collect()
}

/// How many of the records are somewhere in the file.
fn found(folder: &Path, records: &[Vec<u8>]) -> usize {
    let bytes = fs::read(folder.join("credentials.redb")).unwrap();
    // Any piece of a record would be a find: redb moves pages as a whole, so 64 bytes of the middle are enough.
    records.iter().filter(|record| bytes.windows(64).any(|window| window == &record[60..124])).count()
}

fn store_with_forty(folder: &Path) -> Directory {
    let directory = store_with_alice(folder);
    directory.set(&(0..40).map(|n| entry(&format!("agent{n}"), SECRET)).collect::<Vec<_>>()).unwrap();
    directory
}

/// Opens the store's file, so that it can be read after it has lost its name.
fn keep_open(folder: &Path) -> File {
    File::open(folder.join("credentials.redb")).unwrap()
}

fn assert_overwritten(mut file: File) {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() > 4096 && bytes.iter().all(|byte| *byte == 0), "the replaced file was not overwritten");
}

#[test]
fn a_replaced_or_removed_record_is_erased() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_forty(folder.path());
    let old = sealed(folder.path());
    assert_eq!(found(folder.path(), &old), 41);

    directory.set(&[entry("agent7", "new")]).unwrap();
    directory.remove("alice@example.com").unwrap();
    let before = keep_open(folder.path());
    assert_eq!(directory.erase_old_records().unwrap(), OldRecords::Erased);
    assert_eq!(found(folder.path(), &old), 39);
    assert_overwritten(before);
    assert_eq!(directory.check().unwrap(), 40);
    assert!(directory.get("alice@example.com").unwrap().is_none());
    // Another handle, which opened the old file, writes to the new one.
    let other = Directory::open(&settings(folder.path())).unwrap();
    directory.remove("agent8").unwrap();
    directory.erase_old_records().unwrap();
    other.set(&[entry("bob", "b")]).unwrap();
    assert!(directory.get("bob").unwrap().is_some());
    assert_eq!(other.check().unwrap(), 40);

    let inode = |folder: &Path| std::os::unix::fs::MetadataExt::ino(&keep_open(folder).metadata().unwrap());
    let unchanged = inode(folder.path());
    directory.erase_old_records().unwrap();
    assert_eq!(inode(folder.path()), unchanged, "a file without old records is not written anew");
}

#[test]
fn a_new_key_leaves_no_record_of_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_forty(folder.path()));
    let old = sealed(folder.path());
    let before = keep_open(folder.path());
    let rekeyed = Directory::rekey(&settings(folder.path()), None).unwrap();
    assert_eq!((rekeyed.users, rekeyed.old_records, rekeyed.key_fault), (41, OldRecords::Erased, None));
    assert_eq!(found(folder.path(), &old), 0);
    assert_overwritten(before);
    assert_eq!(Directory::open(&settings(folder.path())).unwrap().check().unwrap(), 41);
}

/// Runs a command on a store that has shrunk, and lets no file grow to the size of the old one: the new file can be written,
/// and overwriting the old one fails as on a full disk. Now and then the database itself needs more room first, which the
/// limit refuses too; that run shows nothing, and is repeated on a fresh store.
#[cfg(target_os = "linux")]
fn run_without_space(folder: &Path, arguments: &[&str]) -> Output {
    let mut output = try_without_space(folder, arguments);
    for _ in 0..8 {
        if output.status.code() != Some(2) || !String::from_utf8_lossy(&output.stderr).contains("File too large") {
            break;
        }
        for entry in fs::read_dir(folder).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        output = try_without_space(folder, arguments);
    }
    output
}

#[cfg(target_os = "linux")]
fn try_without_space(folder: &Path, arguments: &[&str]) -> Output {
    let directory = store_with_alice(folder);
    let many: Vec<_> = (0..4000).map(|n| entry(&format!("agent{n}"), SECRET)).collect();
    directory.set(&many).unwrap();
    for user in many.iter().skip(1).map(|entry| entry.user.as_str()) {
        directory.remove(user).unwrap();
    }
    drop(directory);
    let old = fs::metadata(folder.join("credentials.redb")).unwrap().len();
    // A shell counts in blocks of 512 or 1024 bytes. A program that ignores SIGXFSZ gets an error instead.
    let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", old / 1024 / 2);
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_switchboard"), "credentials"]).args(arguments);
    command.arg("--data-dir").arg(folder).output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_new_key_is_a_success_although_the_old_file_cannot_be_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let next = folder.path().join("next.key");
    let output = run_without_space(folder.path(), &["rekey", "--new-key-file", next.to_str().unwrap()]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), NEW_KEY), "{told}");
    assert!(told.contains("blocks of its old file") && told.contains("could not be overwritten"), "{told}");
    let settings = Settings { data_dir: folder.path().to_owned(), key: KeySource::File(next) };
    assert_eq!(Directory::open(&settings).unwrap().check().unwrap(), 2);
    let audit = fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert!(audit.contains("\"rekeyed\""), "{audit}");
}

/// What `rekey` prints for a store with two users.
const NEW_KEY: &[u8] = b"encrypted the credentials of 2 users with the new key\n";

#[cfg(target_os = "linux")]
#[test]
fn an_old_file_that_cannot_be_overwritten_is_not_called_old_values_in_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_without_space(folder.path(), &["remove", "agent0"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("the store has no old values any more, but blocks of its old file"), "{told}");
    let directory = Directory::open(&settings(folder.path())).unwrap();
    assert_eq!(directory.check().unwrap(), 1);
    // The file has no old records, so it is not written anew.
    assert_eq!(directory.erase_old_records().unwrap(), OldRecords::Erased);
}

#[test]
fn a_backup_by_hard_link_is_not_overwritten() {
    let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let directory = store_with_forty(folder.path());
    fs::hard_link(folder.path().join("credentials.redb"), backup.path().join("credentials.redb")).unwrap();
    fs::copy(folder.path().join("credentials.key"), backup.path().join("credentials.key")).unwrap();
    directory.remove("alice@example.com").unwrap();
    directory.erase_old_records().unwrap();
    directory.remove("agent1").unwrap();
    assert_eq!(Directory::open(&settings(backup.path())).unwrap().check().unwrap(), 40);
}

#[test]
fn a_store_that_a_broker_has_open_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    let old = sealed(folder.path());
    let broker = FolderLock::take(folder.path()).unwrap();
    directory.remove("alice@example.com").unwrap();
    let before = keep_open(folder.path());
    assert_eq!(directory.erase_old_records().unwrap(), OldRecords::Kept);
    directory.erase_old_records_at_start(&broker).unwrap();
    assert_eq!(found(folder.path(), &old), 0);
    assert_overwritten(before);
}

#[tokio::test]
async fn a_broker_erases_old_records_when_it_starts() {
    let mut broker = Broker::start().await;
    let data = broker.data_dir();
    drop(store_with_forty(&data));
    let mut old = sealed(&data);
    let mut remove = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    let remove = remove.args(["credentials", "remove", "agent7", "--data-dir"]).arg(&data).output().unwrap();
    let told = String::from_utf8(remove.stderr).unwrap();
    assert!(told.contains("a broker runs on") && told.contains("until it is restarted"), "{told}");
    let present = sealed(&data);
    old.retain(|record| !present.contains(record));
    assert_eq!(old.len(), 1);
    let before = keep_open(&data);
    broker.terminate().await;
    broker.exit_code().await;
    let broker = broker.successor().await;
    assert_eq!(found(&broker.data_dir(), &old), 0);
    assert_overwritten(before);
}
