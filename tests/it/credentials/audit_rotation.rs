//! How the audit log is rotated, and files that cannot be renamed, changed or written.

use std::fs;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Command;

use serde_json::Value;
use switchboard::audit::{Audit, Entry, Event, Rotation, verify};

/// Rotated after some four records.
const SMALL: Rotation = Rotation { bytes: 1000, kept: 3 };

fn record(audit: &Audit, user: &str) {
    audit.record_and_wait(&Entry { user: Some(user), ..Entry::new(Event::Fetch) }).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "audit.lock");
    names.sort();
    names
}

/// The users of the records in these files.
fn users(folder: &Path, names: &[&str]) -> Vec<String> {
    let text: String = names.iter().map(|name| fs::read_to_string(folder.join(name)).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["user"].as_str().unwrap().to_owned()).collect()
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("user{n}")).collect()
}

#[test]
fn the_log_is_rotated_by_size_and_the_chain_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(folder.path(), SMALL).unwrap();
    for n in 0..100 {
        record(&audit, &format!("user{n}"));
    }
    drop(audit);
    let names = names(folder.path());
    assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]);
    for name in &names {
        let path = folder.path().join(name);
        assert!(fs::metadata(&path).unwrap().len() <= 1000, "{name}");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    }
    let order = ["audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"];
    let last = users(folder.path(), &order);
    assert_eq!(last, numbered(100 - last.len()..100));
    assert!(last.len() > 8);

    let report = verify(&folder.path().join("audit.jsonl")).unwrap();
    assert_eq!((report.files.len(), report.records, report.broken), (4, last.len() as u64, 0));
    assert!(report.begins_later, "older files are gone");

    // A file that is missing in between shows at the first line after it.
    fs::remove_file(folder.path().join("audit.jsonl.2")).unwrap();
    let report = verify(&folder.path().join("audit.jsonl")).unwrap();
    assert_eq!((report.broken, report.breaks[0].line), (1, 1));
    assert!(report.breaks[0].file.ends_with("audit.jsonl.1"));
}

#[test]
fn a_rotation_that_fails_costs_no_record_and_no_kept_file() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(folder.path(), SMALL).unwrap();
    for n in 0..20 {
        record(&audit, &format!("user{n}"));
    }
    let order = ["audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"];
    let before = users(folder.path(), &order);
    let kept: Vec<_> = order[..3].iter().map(|name| fs::read(folder.path().join(name)).unwrap()).collect();
    // A folder with something in it cannot be replaced by a file.
    let blocked = folder.path().join("audit.jsonl.3");
    fs::rename(&blocked, folder.path().join("third")).unwrap();
    fs::create_dir(&blocked).unwrap();
    fs::write(blocked.join("file"), "").unwrap();
    for n in 20..60 {
        record(&audit, &format!("user{n}"));
    }
    fs::remove_dir_all(&blocked).unwrap();
    fs::rename(folder.path().join("third"), &blocked).unwrap();
    for (name, contents) in order[..3].iter().zip(kept) {
        assert_eq!(fs::read(folder.path().join(name)).unwrap(), contents, "{name}");
    }
    let all = users(folder.path(), &order);
    assert_eq!(all, numbered(20 - before.len()..60));
    let report = verify(&folder.path().join("audit.jsonl")).unwrap();
    assert_eq!((report.broken, report.lost), (0, 0));

    // It is rotated again as soon as that works.
    for n in 60..70 {
        record(&audit, &format!("user{n}"));
    }
    assert!(fs::metadata(folder.path().join("audit.jsonl")).unwrap().len() <= 1000);
    assert_eq!(verify(&folder.path().join("audit.jsonl")).unwrap().broken, 0);
}

#[test]
fn a_rename_to_the_last_name_that_fails_gives_the_file_its_name_back() {
    let folder = tempfile::tempdir().unwrap();
    let in_the_way = folder.path().join("audit.jsonl.1");
    fs::create_dir(&in_the_way).unwrap();
    fs::write(in_the_way.join("file"), "").unwrap();
    let audit = Audit::open(folder.path(), Rotation { bytes: 1000, kept: 1 }).unwrap();
    for n in 0..20 {
        record(&audit, &format!("user{n}"));
    }
    assert_eq!(names(folder.path()), ["audit.jsonl", "audit.jsonl.1"]);
    assert_eq!(users(folder.path(), &["audit.jsonl"]), numbered(0..20));
}

#[test]
fn a_rotation_that_a_crash_interrupted_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(folder.path(), SMALL).unwrap();
    for n in 0..6 {
        record(&audit, &format!("user{n}"));
    }
    drop(audit);
    fs::rename(folder.path().join("audit.jsonl"), folder.path().join("audit.jsonl.rotating")).unwrap();
    assert_eq!(verify(&folder.path().join("audit.jsonl")).unwrap().broken, 0);
    let audit = Audit::open(folder.path(), SMALL).unwrap();
    for n in 6..12 {
        record(&audit, &format!("user{n}"));
    }
    let order = ["audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"];
    assert_eq!(users(folder.path(), &order), numbered(0..12));
    let report = verify(&folder.path().join("audit.jsonl")).unwrap();
    assert_eq!((report.records, report.broken, report.begins_later), (12, 0, false));
}

#[test]
fn the_log_goes_on_after_a_move_and_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = Audit::open(folder.path(), Rotation::default()).unwrap();
    record(&audit, "before the move");
    fs::rename(&path, folder.path().join("audit.jsonl.1")).unwrap();
    record(&audit, "after the move");
    assert_eq!(users(folder.path(), &["audit.jsonl"]), ["after the move"]);

    // A folder in the file's place stands for a disk that fails.
    let old = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let refused = Audit::open(folder.path(), Rotation::default()).map(drop).unwrap_err().to_string();
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    audit.record(&Entry { user: Some("lost"), ..Entry::new(Event::Fetch) });
    assert!(audit.record_and_wait(&Entry::new(Event::Fetch)).is_err());
    fs::remove_dir(&path).unwrap();
    record(&audit, "after the fault");
    let text = fs::read(&path).unwrap();
    fs::write(&path, [old, text].concat()).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!((report.records, report.lost, report.broken, report.begins_later), (4, 2, 0, false), "{report:?}");
}

/// Makes a file append-only, as root on most file systems, or says that it cannot.
#[cfg(target_os = "linux")]
fn append_only(path: &Path, on: bool) -> bool {
    let flag = if on { "+a" } else { "-a" };
    Command::new("chattr").arg(flag).arg(path).output().is_ok_and(|output| output.status.success())
}

#[cfg(target_os = "linux")]
#[test]
fn an_append_only_file_is_appended_to_whatever_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    for mode in [0o600, 0o644] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        if !append_only(&path, true) {
            eprintln!("skipped: this user or this file system has no append-only files");
            return;
        }
        let written = std::panic::catch_unwind(|| {
            let audit = Audit::open(folder.path(), SMALL).unwrap();
            for n in 0..20 {
                record(&audit, &format!("user{n}"));
            }
            assert_eq!(names(folder.path()), ["audit.jsonl"]);
        });
        assert!(append_only(&path, false));
        written.unwrap();
        assert_eq!(users(folder.path(), &["audit.jsonl"]), numbered(0..20));
        assert_eq!(verify(&path).unwrap().broken, 0);
    }
}
