//! The chain of the audit log: each record has the hash of the line before it, and `audit verify` finds where it is broken.
//! `crash` is a chain whose writer was killed, `writers` one with several.

mod crash;
mod writers;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};
use switchboard::audit::{Audit, Entry, Event, Report, Rotation, append, verify};

/// Never rotated.
const WHOLE: Rotation = Rotation { bytes: u64::MAX, kept: 5 };

fn fetch(user: &str) -> Entry<'_> {
    Entry { user: Some(user), ..Entry::new(Event::Fetch) }
}

/// Opens the log of a folder, writes a record for each of these users, and closes it.
fn write(folder: &Path, users: impl IntoIterator<Item = impl AsRef<str>>) {
    let audit = Audit::open(folder, WHOLE).unwrap();
    for user in users {
        audit.record_and_wait(&fetch(user.as_ref())).unwrap();
    }
}

fn lines(folder: &Path) -> Vec<String> {
    fs::read_to_string(folder.join("audit.jsonl")).unwrap().lines().map(str::to_owned).collect()
}

fn checked(folder: &Path) -> Report {
    verify(&folder.join("audit.jsonl")).unwrap()
}

/// The one place where the log is broken, as a person reads it.
fn broken_at(folder: &Path) -> String {
    let report = checked(folder);
    assert_eq!((report.broken, report.breaks.len()), (1, 1), "{report:?}");
    format!("{}:{}", report.breaks[0].file.file_name().unwrap().to_str().unwrap(), report.breaks[0].line)
}

#[test]
fn each_record_has_the_hash_of_the_line_before_it_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), ["a", "b"]);
    write(folder.path(), ["c"]);
    append(folder.path(), &fetch("d")).unwrap();
    let lines = lines(folder.path());
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0]["previous"], Value::Null);
    for (line, next) in lines.iter().zip(&records[1..]) {
        assert_eq!(next["previous"], hex::encode(Sha256::digest(line)));
    }
    let report = checked(folder.path());
    assert_eq!((report.records, report.broken, report.begins_later), (4, 0, false));
    assert_eq!(report.last, Some(hex::encode(Sha256::digest(&lines[3]))));
}

#[test]
fn a_line_that_was_removed_altered_inserted_or_moved_shows() {
    type Change = fn(&mut Vec<String>);
    let changes: [(&str, Change); 6] = [
        ("audit.jsonl:3", |lines| drop(lines.remove(2))),
        ("audit.jsonl:4", |lines| lines[2] = lines[2].replace("\"user2\"", "\"user9\"")),
        ("audit.jsonl:3", |lines| lines[2] = "not a record".to_owned()),
        ("audit.jsonl:3", |lines| lines[2].truncate(20)),
        ("audit.jsonl:4", |lines| lines.insert(3, lines[0].clone())),
        ("audit.jsonl:3", |lines| lines.insert(2, "inserted".to_owned())),
    ];
    for (number, (place, change)) in changes.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), (0..5).map(|n| format!("user{n}")));
        assert_eq!(checked(folder.path()).broken, 0);
        let mut lines = lines(folder.path());
        change(&mut lines);
        fs::write(folder.path().join("audit.jsonl"), lines.join("\n") + "\n").unwrap();
        let report = checked(folder.path());
        let first = report.breaks.first().unwrap_or_else(|| panic!("change {number} is not found"));
        assert_eq!(format!("audit.jsonl:{}", first.line), place, "change {number}: {report:?}");
        // What was recorded afterwards does not hide it.
        write(folder.path(), ["after"]);
        assert_eq!(checked(folder.path()).breaks, report.breaks, "change {number}");
    }
}

#[test]
fn a_last_line_that_is_removed_or_altered_while_the_broker_runs_shows() {
    for replaced in [false, true] {
        for altered in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let audit = Audit::open(folder.path(), WHOLE).unwrap();
            for user in ["a", "b", "c"] {
                audit.record_and_wait(&fetch(user)).unwrap();
            }
            let mut lines = lines(folder.path());
            match altered {
                true => lines[2] = lines[2].replace("\"c\"", "\"x\""),
                false => lines.truncate(2),
            }
            let path = folder.path().join("audit.jsonl");
            let text = lines.join("\n") + "\n";
            if replaced && cfg!(unix) {
                // As editors, and `sed -i`, write a file.
                fs::write(folder.path().join("new"), text).unwrap();
                fs::rename(folder.path().join("new"), path).unwrap();
            } else {
                fs::write(path, text).unwrap();
            }
            audit.record_and_wait(&fetch("d")).unwrap();
            let place = if altered { "audit.jsonl:4" } else { "audit.jsonl:3" };
            assert_eq!(broken_at(folder.path()), place, "replaced {replaced}, altered {altered}");
        }
    }
}

#[test]
fn a_last_record_that_is_removed_or_altered_shows_before_the_next_one() {
    type Change = fn(&mut Vec<String>);
    let changes: [(&str, Change); 5] = [
        ("audit.jsonl:3", |lines| drop(lines.pop())),
        ("audit.jsonl:2", |lines| lines.truncate(1)),
        ("audit.jsonl:4", |lines| lines[2] = lines[2].replace("\"c\"", "\"x\"")),
        ("audit.jsonl:3", |lines| lines[2].truncate(20)),
        ("audit.jsonl:3", |lines| lines[2] = "not a record".to_owned()),
    ];
    for (number, (place, change)) in changes.into_iter().enumerate() {
        for end in ["\n", ""] {
            let folder = tempfile::tempdir().unwrap();
            write(folder.path(), ["a", "b", "c"]);
            assert_eq!(checked(folder.path()).broken, 0);
            let mut lines = lines(folder.path());
            change(&mut lines);
            fs::write(folder.path().join("audit.jsonl"), lines.join("\n") + end).unwrap();
            assert_eq!(broken_at(folder.path()), place, "change {number}, end {end:?}");
            // The next record shows the same.
            append(folder.path(), &fetch("d")).unwrap();
            assert_eq!(broken_at(folder.path()), place, "change {number}, end {end:?}, after the next record");
        }
    }
}

#[test]
fn a_last_record_that_another_program_moved_away_is_not_a_break() {
    for has_older in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (path, older) = (folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.1"));
        write(folder.path(), ["a", "b"]);
        if has_older {
            fs::rename(&path, &older).unwrap();
        }
        assert!(!checked(folder.path()).last_is_elsewhere);
        write(folder.path(), ["c"]);
        fs::rename(&path, folder.path().join("collected")).unwrap();
        if has_older {
            assert!(checked(folder.path()).last_is_elsewhere, "no file");
        }
        // A crash cut the first line of the new file short; the other program made an empty one.
        for text in ["{\"time", ""] {
            fs::write(&path, text).unwrap();
            let report = checked(folder.path());
            assert!(report.last_is_elsewhere && report.broken == 0, "{has_older}, {text:?}: {report:?}");
        }
        if !has_older {
            append(folder.path(), &fetch("d")).unwrap();
            let report = checked(folder.path());
            assert!(!report.last_is_elsewhere && report.begins_later && report.broken == 0, "{report:?}");
        }
    }
}

/// A change of the file by another program, at this path.
type Rewrite = fn(&Path, &str);

#[cfg(unix)]
#[test]
fn a_last_line_that_is_removed_shows_however_the_file_is_rewritten() {
    let rewrites: [(&str, Rewrite); 4] = [
        ("in place", |path, text| fs::write(path, text).unwrap()),
        ("moved", |path, text| {
            fs::rename(path, path.with_extension("moved")).unwrap();
            fs::write(path, text).unwrap();
        }),
        ("replaced beside a hard link", |path, text| {
            fs::hard_link(path, path.with_extension("linked")).unwrap();
            fs::write(path.with_extension("new"), text).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("removed", |path, text| {
            fs::remove_file(path).unwrap();
            fs::write(path, text).unwrap();
        }),
    ];
    for (how, rewrite) in rewrites {
        for restarted in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let mut audit = Audit::open(folder.path(), WHOLE).unwrap();
            for user in ["a", "b", "evil"] {
                audit.record_and_wait(&fetch(user)).unwrap();
            }
            rewrite(&folder.path().join("audit.jsonl"), &(lines(folder.path())[..2].join("\n") + "\n"));
            if restarted {
                drop(audit);
                audit = Audit::open(folder.path(), WHOLE).unwrap();
            }
            audit.record_and_wait(&fetch("c")).unwrap();
            assert_eq!(broken_at(folder.path()), "audit.jsonl:3", "{how}, restarted {restarted}");
        }
    }
}

#[test]
fn a_last_line_that_is_removed_with_the_hash_in_the_lock_shows_while_the_broker_runs() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(folder.path(), WHOLE).unwrap();
    for user in ["a", "b", "c"] {
        audit.record_and_wait(&fetch(user)).unwrap();
    }
    fs::write(folder.path().join("audit.jsonl"), lines(folder.path())[..2].join("\n") + "\n").unwrap();
    fs::write(folder.path().join("audit.lock"), "").unwrap();
    audit.record_and_wait(&fetch("d")).unwrap();
    assert_eq!(broken_at(folder.path()), "audit.jsonl:3");
}

#[cfg(unix)]
#[test]
fn other_programs_may_rotate_the_file_while_commands_write() {
    let compress: Rewrite = |path, text| {
        fs::write(path.with_extension("jsonl.1.gz"), text).unwrap();
        fs::remove_file(path).unwrap();
    };
    let copy_and_truncate: Rewrite = |path, text| {
        fs::write(path.with_extension("jsonl.1"), text).unwrap();
        fs::write(path, "").unwrap();
    };
    for (rotate, records, begins_later) in [(compress, 2, true), (copy_and_truncate, 4, false)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(folder.path(), WHOLE).unwrap();
        for user in ["a", "b"] {
            audit.record_and_wait(&fetch(user)).unwrap();
        }
        rotate(&path, &fs::read_to_string(&path).unwrap());
        append(folder.path(), &fetch("command")).unwrap();
        audit.record_and_wait(&fetch("c")).unwrap();
        let report = checked(folder.path());
        assert_eq!((report.broken, report.records, report.begins_later), (0, records, begins_later), "{report:?}");
        // Two rotations, and the broker wrote nothing in between.
        for user in ["command", "another"] {
            rotate(&path, &fs::read_to_string(&path).unwrap());
            append(folder.path(), &fetch(user)).unwrap();
        }
        audit.record_and_wait(&fetch("d")).unwrap();
        let report = checked(folder.path());
        assert_eq!(report.broken, 0, "{report:?}");
    }
}

#[test]
fn every_altered_byte_shows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    write(folder.path(), ["a", "b", "c"]);
    let text = fs::read(&path).unwrap();
    for at in 0..text.len() {
        let mut altered = text.clone();
        altered[at] ^= 1;
        fs::write(&path, altered).unwrap();
        assert!(checked(folder.path()).broken > 0, "byte {at}");
    }
}

#[test]
fn records_from_before_the_chain_are_counted_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let old = r#"{"when":"2026-08-01T09:30:00.123Z","source":"softphone","user":"a","session":"","outcome":"ok"}"#;
    fs::write(&path, format!("{old}\n{{\"cut\n{old}\n")).unwrap();
    let report = checked(folder.path());
    assert_eq!((report.records, report.before_chain, report.cut, report.broken), (0, 2, 1, 0));
    write(folder.path(), ["a", "b"]);
    let report = checked(folder.path());
    assert_eq!((report.records, report.before_chain, report.cut, report.broken), (2, 2, 1, 0));
    // The last of them is protected, and none can be added later.
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen(&format!("{old}\n{{\"time"), &format!("{}\n{{\"time", old.replace("ok", "no")), 1))
        .unwrap();
    assert_eq!(broken_at(folder.path()), "audit.jsonl:4");
    fs::write(&path, format!("{text}{old}\n")).unwrap();
    assert_eq!(broken_at(folder.path()), "audit.jsonl:6");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    for make in [|_: &Path| {}, |path: &Path| fs::create_dir(path).unwrap()] {
        make(&path);
        let error = verify(&path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
    // Garbage without an end costs no memory, and is not a record.
    fs::remove_dir(&path).unwrap();
    write(folder.path(), ["a"]);
    let mut text = fs::read(&path).unwrap();
    text.resize(5 << 20, b'x');
    fs::write(&path, text).unwrap();
    write(folder.path(), ["b"]);
    assert!(checked(folder.path()).broken > 0);
}

/// A process that opened a pipe could wait for ever, and would hold the lock meanwhile.
#[cfg(unix)]
#[test]
fn a_pipe_in_the_place_of_a_file_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = |name: &str| {
        let path = folder.path().join(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    };
    let older = pipe("audit.jsonl.1");
    append(folder.path(), &fetch("a")).unwrap();
    assert_eq!(checked(folder.path()).records, 1);
    fs::remove_file(older).unwrap();
    fs::remove_file(folder.path().join("audit.jsonl")).unwrap();
    let error = verify(&pipe("audit.jsonl")).unwrap_err().to_string();
    assert!(error.contains("audit.jsonl: it is not a regular file"), "{error}");
}
