//! A writer that is killed between a line and its hash, or within a line: the chain goes on, and hides nothing.

use std::fs;
use std::path::Path;

use switchboard::audit::append;

use super::{broken_at, checked, fetch, lines, write};

#[test]
fn a_crash_between_a_line_and_its_hash_does_not_break_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    write_without_hash(folder.path(), &["first"]);
    write(folder.path(), ["a"]);
    for users in [&["b"][..], &["c", "d", "e"]] {
        write_without_hash(folder.path(), users);
        write(folder.path(), ["after"]);
    }
    // More lines than are read at first.
    let many: Vec<_> = (0..100).map(|_| "many").collect();
    write_without_hash(folder.path(), &many);
    write(folder.path(), ["after"]);
    // The first line of a new file.
    fs::rename(folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.1")).unwrap();
    write_without_hash(folder.path(), &["new"]);
    append(folder.path(), &fetch("after")).unwrap();
    let report = checked(folder.path());
    assert_eq!((report.broken, report.records, report.begins_later), (0, 111, false), "{report:?}");
}

/// Writes records, and puts the hash in the file of the lock back to what it was: the process ended before it wrote it.
fn write_without_hash(folder: &Path, users: &[&str]) {
    let before = fs::read(folder.join("audit.lock")).unwrap_or_default();
    write(folder, users);
    fs::write(folder.join("audit.lock"), before).unwrap();
}

#[test]
fn lines_that_a_crash_cut_short_are_counted_and_protect_what_is_before_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    write(folder.path(), ["a", "b"]);
    write_without_hash(folder.path(), &["c"]);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 20]).unwrap();
    let report = checked(folder.path());
    assert_eq!((report.records, report.cut, report.broken), (2, 1, 0), "cut at the end");

    write(folder.path(), ["d"]);
    assert_eq!(lines(folder.path()).len(), 4);
    let report = checked(folder.path());
    assert_eq!((report.records, report.cut, report.broken), (3, 1, 0), "cut, and a record behind it");

    let altered = fs::read_to_string(&path).unwrap().replace("\"b\"", "\"x\"");
    fs::write(&path, altered).unwrap();
    assert_eq!(broken_at(folder.path()), "audit.jsonl:3", "the line before the one that was cut short");
}

#[test]
fn the_first_line_of_a_new_file_that_a_crash_cut_short_hides_nothing() {
    for has_lock in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (path, older) = (folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.1"));
        write(folder.path(), ["a", "b", "c"]);
        fs::rename(&path, &older).unwrap();
        fs::write(&path, "{\"time\":\"2026-").unwrap();
        if !has_lock {
            fs::remove_file(folder.path().join("audit.lock")).unwrap();
        }
        let report = checked(folder.path());
        assert_eq!((report.records, report.cut, report.broken), (3, 1, 0), "lock {has_lock}, before: {report:?}");
        append(folder.path(), &fetch("d")).unwrap();
        let report = checked(folder.path());
        assert_eq!((report.records, report.cut, report.broken), (4, 1, 0), "lock {has_lock}: {report:?}");
        assert!(!report.begins_later, "lock {has_lock}: {report:?}");
        let altered = fs::read_to_string(&older).unwrap().replace("\"c\"", "\"x\"");
        fs::write(&older, altered).unwrap();
        assert_eq!(checked(folder.path()).broken, 1, "lock {has_lock}: the last line before the new file");
    }
}

#[test]
fn a_log_whose_last_line_a_crash_cut_off_anywhere_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let lock = folder.path().join("audit.lock");
    write(folder.path(), ["a"]);
    let (first, first_hash) = (fs::read(&path).unwrap().len(), fs::read(&lock).unwrap());
    write(folder.path(), ["b"]);
    let text = fs::read(&path).unwrap();
    for length in 0..=text.len() {
        fs::write(&path, &text[..length]).unwrap();
        fs::write(&lock, if length < first { b"" } else { first_hash.as_slice() }).unwrap();
        append(folder.path(), &fetch("after")).unwrap();
        let report = checked(folder.path());
        assert_eq!((report.broken, report.begins_later), (0, false), "{length} bytes: {report:?}");
        assert_eq!(report.records + report.cut, lines_of(&text[..length]) + 1, "{length} bytes: {report:?}");
    }
}

/// Lines, the last one counted even without its end.
fn lines_of(text: &[u8]) -> u64 {
    text.split_inclusive(|byte| *byte == b'\n').count() as u64
}
