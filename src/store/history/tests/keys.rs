//! Another key, and what is visible without one.

use super::*;
use crate::store::{FolderLock, beside};

#[test]
fn a_history_with_a_new_key_has_all_it_had() {
    let (disk, contents) = small();
    let (folder, settings) = folder_with(&disk.bytes());
    reseal(folder.path(), &key('a'), &key('b')).unwrap();
    assert_eq!(
        try_open(&FaultyDisk::with(std::fs::read(settings.file()).unwrap()), LIMITS).map(|it| it.is_none()),
        Ok(true)
    );
    // Again, as after an interruption.
    reseal(folder.path(), &key('a'), &key('b')).unwrap();
    reseal(folder.path(), &key('b'), &key('a')).unwrap();
    assert_eq!(contents_of(&settings), contents);
    let words = reseal(folder.path(), &key('c'), &key('d')).unwrap_err().to_string();
    assert!(words.contains("another key"), "{words}");
    assert_eq!(contents_of(&settings), contents);
}

#[test]
fn a_new_key_that_did_not_take_the_place_of_the_old_one_is_taken_back() {
    let (disk, contents) = small();
    let (folder, settings) = folder_with(&disk.bytes());
    let file = folder.path().join("credentials.key");
    key('a').write_new(None, &file).unwrap();
    key('b').write_new(None, &beside(&file, ".new")).unwrap();
    reseal(folder.path(), &key('a'), &key('b')).unwrap();
    let settings = HistorySettings { key: KeySource::DataFolder, ..settings };
    let lock = FolderLock::take(folder.path()).unwrap();
    drop(HistoryFile::open(&settings, LIMITS, &lock, &mut |_| {}).unwrap());
    assert_eq!(contents_of(&settings), contents);
}

#[test]
fn nothing_of_a_history_can_be_read_without_the_key() {
    let (disk, _) = small();
    let bytes = disk.bytes();
    for text in ["Phone", "Queue", "alice", "a call", "waiting", "Ringing", "state 3", "id 1"] {
        assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text:?} is in the file");
    }
}
