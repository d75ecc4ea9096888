//! A new key for the store, step by step and interrupted.

use std::fs;

use switchboard::credentials::{Directory, KeySource, Settings};
use switchboard::store::FolderLock;

use super::{SECRET, entry, settings, store_with_alice};

#[test]
fn the_new_key_takes_the_old_ones_place() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    let key = folder.path().join("credentials.key");
    let waiting = folder.path().join("credentials.key.new");
    let old = fs::read(&key).unwrap();
    fs::write(&waiting, "left by an earlier attempt").unwrap();

    assert_eq!(Directory::rekey(&settings(folder.path()), None).unwrap(), 1);
    let new = fs::read(&key).unwrap();
    assert!(old != new && !waiting.exists());
    // A process that had the store open before may not spoil it with the old key.
    let words = directory.set(&[entry("bob", SECRET)]).unwrap_err().to_string();
    assert!(words.contains("another key"), "{words}");
    assert!(directory.get("alice@example.com").unwrap().is_none());
    drop(directory);
    let directory = Directory::open(&settings(folder.path())).unwrap();
    assert!(directory.get("alice@example.com").unwrap().is_some());
    assert_eq!(directory.check().unwrap(), 1);
    drop(directory);

    // Ended after the store had its new key and before the key file had.
    fs::write(&waiting, &new).unwrap();
    fs::write(&key, &old).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&waiting, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(Directory::open(&settings(folder.path())).unwrap().check().unwrap(), 1);
    assert!(fs::read(&key).unwrap() == new && !waiting.exists());
}

#[test]
fn the_new_key_may_be_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    let file = folder.path().join("next.key");
    assert_eq!(Directory::rekey(&settings(folder.path()), Some(&file)).unwrap(), 1);
    let words = Directory::open(&settings(folder.path())).unwrap_err().to_string();
    assert!(words.contains("put the right key back"), "{words}");
    let key = KeySource::File(file);
    assert_eq!(Directory::open(&Settings { data_dir: folder.path().to_owned(), key }).unwrap().check().unwrap(), 1);
}

#[test]
fn a_running_broker_keeps_its_key() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    let lock = FolderLock::take(folder.path()).unwrap();
    let words = Directory::rekey(&settings(folder.path()), None).unwrap_err().to_string();
    assert!(words.contains("another broker"), "{words}");
    drop(lock);
    let digits = fs::read_to_string(folder.path().join("credentials.key")).unwrap();
    let key = KeySource::Text(digits.trim().to_owned().into());
    let by_text = Settings { data_dir: folder.path().to_owned(), key };
    let words = Directory::rekey(&by_text, None).unwrap_err().to_string();
    assert!(words.contains("--new-key-file"), "{words}");
    assert_eq!(Directory::open(&settings(folder.path())).unwrap().check().unwrap(), 1);
    assert!(Directory::rekey(&settings(&folder.path().join("absent")), None).is_err());
}
