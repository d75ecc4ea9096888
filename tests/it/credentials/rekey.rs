//! A new key for the store, step by step and interrupted.

use std::fs;
use std::path::Path;

use switchboard::audit;
use switchboard::credentials::{Directory, KeySource, Settings};
use switchboard::store::FolderLock;

use super::{SECRET, entry, settings, store_with_alice};
use crate::support::secret_file;

#[test]
fn the_new_key_takes_the_old_ones_place() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    let key = folder.path().join("credentials.key");
    let waiting = folder.path().join("credentials.key.new");
    let old = fs::read(&key).unwrap();
    fs::write(&waiting, "left by an earlier attempt").unwrap();

    assert_eq!(Directory::rekey(&settings(folder.path()), None).unwrap().users, 1);
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
    assert_eq!(Directory::rekey(&settings(folder.path()), Some(&file)).unwrap().users, 1);
    let words = Directory::open(&settings(folder.path())).unwrap_err().to_string();
    assert!(words.contains("put the right key back"), "{words}");
    let key = KeySource::File(file);
    assert_eq!(Directory::open(&Settings { data_dir: folder.path().to_owned(), key }).unwrap().check().unwrap(), 1);
}

#[test]
fn the_present_key_is_not_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    let key = folder.path().join("credentials.key");
    let copy = folder.path().join("copy.key");
    fs::copy(&key, &copy).unwrap();
    let before = fs::read(&key).unwrap();
    for file in [key.clone(), copy] {
        let words = Directory::rekey(&settings(folder.path()), Some(&file)).unwrap_err().to_string();
        assert!(words.contains("this is the present key") && words.contains(file.to_str().unwrap()), "{words}");
    }
    assert!(fs::read(&key).unwrap() == before);
    assert_eq!(Directory::open(&settings(folder.path())).unwrap().check().unwrap(), 1);
}

/// Owner, group and mode of a file.
#[cfg(unix)]
fn access(path: &Path) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
}

#[cfg(unix)]
#[test]
fn a_file_that_is_replaced_keeps_its_owner_group_and_mode() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    let (key, store) = (folder.path().join("credentials.key"), folder.path().join("credentials.redb"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&store, fs::Permissions::from_mode(0o640)).unwrap();
    // Only root can give a file away; others see that the mode is kept.
    let root = access(folder.path()).0 == 0;
    if root {
        std::os::unix::fs::chown(&key, Some(12345), Some(23456)).unwrap();
        std::os::unix::fs::chown(&store, Some(12345), Some(23456)).unwrap();
    }
    let (key_before, store_before) = (access(&key), access(&store));
    let digits = fs::read(&key).unwrap();
    directory.remove("alice@example.com").unwrap();
    directory.erase_old_records().unwrap();
    assert_eq!(access(&store), store_before);
    Directory::rekey(&settings(folder.path()), None).unwrap();
    assert!(fs::read(&key).unwrap() != digits);
    assert_eq!((access(&key), access(&store)), (key_before, store_before));
    let next = folder.path().join("next.key");
    Directory::rekey(&settings(folder.path()), Some(&next)).unwrap();
    assert_eq!(access(&next), key_before);
}

#[cfg(unix)]
#[test]
fn files_that_root_makes_belong_to_the_owner_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    if access(folder.path()).0 != 0 {
        return;
    }
    std::os::unix::fs::chown(folder.path(), Some(12345), Some(23456)).unwrap();
    drop(store_with_alice(folder.path()));
    Directory::rekey(&settings(folder.path()), None).unwrap();
    audit::append(folder.path(), &audit::Entry::new(audit::Event::Rekeyed)).unwrap();
    let mut files = 0;
    for file in fs::read_dir(folder.path()).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(access(&path), (12345, 23456, 0o600), "{}", path.display());
        files += 1;
    }
    assert!(files >= 5, "{files}: the store, its key and lock, the audit log and its lock");
}

#[cfg(unix)]
#[test]
fn a_key_behind_a_link_is_replaced_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    let (link, key) = (folder.path().join("credentials.key"), folder.path().join("elsewhere.key"));
    fs::rename(&link, &key).unwrap();
    std::os::unix::fs::symlink(&key, &link).unwrap();
    let before = fs::read(&key).unwrap();
    Directory::rekey(&settings(folder.path()), None).unwrap();
    let new = fs::read(&key).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && new != before);
    assert_eq!(Directory::open(&settings(folder.path())).unwrap().check().unwrap(), 1);

    // Ended after the store had its new key and before the key file had.
    fs::rename(&key, folder.path().join("elsewhere.key.new")).unwrap();
    secret_file(&key, &before);
    assert_eq!(Directory::open(&settings(folder.path())).unwrap().check().unwrap(), 1);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && fs::read(&key).unwrap() == new);
}

#[test]
fn a_running_broker_keeps_its_key() {
    let folder = tempfile::tempdir().unwrap();
    drop(store_with_alice(folder.path()));
    let lock = FolderLock::take(folder.path()).unwrap();
    let words = Directory::rekey(&settings(folder.path()), None).unwrap_err().to_string();
    assert!(words.contains("a broker (process ") && words.contains("stop it first"), "{words}");
    drop(lock);
    let digits = fs::read_to_string(folder.path().join("credentials.key")).unwrap();
    let key = KeySource::Text(digits.trim().to_owned().into());
    let by_text = Settings { data_dir: folder.path().to_owned(), key };
    let words = Directory::rekey(&by_text, None).unwrap_err().to_string();
    assert!(words.contains("--new-key-file"), "{words}");
    assert_eq!(Directory::open(&settings(folder.path())).unwrap().check().unwrap(), 1);
    assert!(Directory::rekey(&settings(&folder.path().join("absent")), None).is_err());
}
