//! What a repair keeps, and what it says.

use super::*;
use crate::store::FolderLock;

/// The lines of a log whose epoch is not this one.
fn is_renewed(contents: &Contents, log: &LogName) -> bool {
    !contents.iter().any(|line| line.starts_with(&format!("{log} e1 ")))
}

#[test]
fn a_repair_leaves_a_sound_file_as_it_is() {
    let (disk, contents) = small();
    let (_folder, settings) = folder_with(&disk.bytes());
    assert_eq!(repair(&settings, false), Ok(Some(Repaired::default())));
    assert_eq!(std::fs::read(settings.file()).unwrap(), disk.bytes());

    let repaired = repair(&settings, true).unwrap().unwrap();
    let (phone, queue) = (log("Phone", Some("alice")), log("Queue", None));
    let mut renewed = repaired.renewed.clone();
    renewed.sort();
    assert_eq!(renewed, [(phone.clone(), 3, 0), (queue.clone(), 3, 0)]);
    assert!(!repaired.is_older && !repaired.lost_others);
    assert_eq!(std::fs::read(repaired.old_file.unwrap()).unwrap(), disk.bytes());
    let after = contents_of(&settings);
    assert!(is_renewed(&after, &phone) && is_renewed(&after, &queue));
    let without_epochs = |contents: &Contents| -> Vec<String> {
        contents.iter().filter(|line| !line.contains(" ..")).cloned().collect()
    };
    assert_eq!(without_epochs(&after), without_epochs(&contents));
}

#[test]
fn a_repair_keeps_what_is_sound_and_never_hides_a_loss() {
    let (disk, contents) = small();
    let (phone, queue) = (log("Phone", Some("alice")), log("Queue", None));
    let (mut refused, mut saved) = (0, 0);
    let bytes = disk.bytes();
    let places = (0..320).step_by(7).chain((320..bytes.len()).step_by(1997)).chain((0..bytes.len()).step_by(4096));
    for at in places {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        if try_open(&FaultyDisk::with(damaged.clone()), LIMITS).is_ok() {
            continue;
        }
        refused += 1;
        let (_folder, settings) = folder_with(&damaged);
        let repaired = repair(&settings, false).unwrap().unwrap();
        assert_eq!(std::fs::read(repaired.old_file.as_ref().unwrap()).unwrap(), damaged, "byte {at}");
        let after = contents_of(&settings);
        for log in [&phone, &queue] {
            let is_whole = entries(&after, log) == [1, 2, 3];
            saved += usize::from(is_whole);
            assert!(is_renewed(&after, log) || is_whole && !repaired.is_older, "byte {at}: {after:?}");
        }
        let texts =
            |line: &String| !line.contains(" ..") && !line.contains(" on channel") && !line.starts_with("channel");
        for line in after.iter().filter(|line| texts(line)) {
            assert!(contents.contains(line) || repaired.is_older, "byte {at}: {line} was never there");
        }
        assert_eq!(repair(&settings, false), Ok(Some(Repaired::default())), "byte {at}: it is sound now");
    }
    assert!(refused > 20 && saved > 10, "{refused} refused, {saved} logs saved");
}

#[test]
fn a_truncated_file_is_repaired() {
    let (disk, _) = small();
    let bytes = disk.bytes();
    for len in (0..bytes.len()).step_by(4096).chain([1, 100, 319, 321, 5000]) {
        if try_open(&FaultyDisk::with(bytes[..len].to_vec()), LIMITS).is_ok() {
            continue;
        }
        let (_folder, settings) = folder_with(&bytes[..len]);
        let repaired = repair(&settings, false).unwrap().unwrap();
        let after = contents_of(&settings);
        for log in [log("Phone", Some("alice")), log("Queue", None)] {
            let is_whole = entries(&after, &log) == [1, 2, 3];
            assert!(is_renewed(&after, &log) || is_whole && !repaired.is_older, "{len} bytes: {after:?}");
        }
    }
}

#[test]
fn a_repair_with_another_key_changes_nothing() {
    let (disk, _) = small();
    let (folder, settings) = folder_with(&disk.bytes());
    let settings = HistorySettings { key: KeySource::Text("b".repeat(64).into()), ..settings };
    let words = repair(&settings, true).unwrap_err().to_string();
    assert!(words.contains("SWITCHBOARD_CREDENTIALS_KEY") && words.contains("put the right key back"), "{words}");
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.to_string_lossy().contains("damaged")), "{names:?}");
    assert_eq!(std::fs::read(settings.file()).unwrap(), disk.bytes());
}

#[test]
fn a_repair_is_refused_while_a_broker_runs() {
    let (disk, _) = small();
    let (folder, settings) = folder_with(&disk.bytes());
    let _broker = FolderLock::take(folder.path()).unwrap();
    let words = repair(&settings, true).unwrap_err().to_string();
    assert!(words.contains("a broker") && words.contains("stop it first"), "{words}");
    assert_eq!(std::fs::read(settings.file()).unwrap(), disk.bytes());
}
