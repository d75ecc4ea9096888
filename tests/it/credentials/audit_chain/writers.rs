//! Several threads, or processes, that write one chain.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use switchboard::audit::{Audit, Rotation, Unwritten};

use super::{WHOLE, checked, fetch};

#[test]
fn many_threads_leave_one_whole_chain() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Arc::new(Audit::open(folder.path(), WHOLE).unwrap());
    thread::scope(|scope| {
        for n in 0..8 {
            let audit = &audit;
            scope.spawn(move || {
                for m in 0..50 {
                    audit.record_and_wait(&fetch(&format!("{n}-{m}"))).unwrap();
                }
            });
        }
    });
    let report = checked(folder.path());
    assert_eq!((report.records, report.broken, report.lost), (400, 0, 0));
}

#[test]
fn several_processes_leave_one_whole_chain_over_rotations() {
    let folder = tempfile::tempdir().unwrap();
    let name = "credentials::audit_chain::writers::a_process_that_writes_records";
    let children: Vec<_> = (0..2).map(|_| child(name, folder.path())).collect();
    write_beside_others(folder.path());
    for mut child in children {
        // It is whole at any time, also while files are renamed.
        while child.try_wait().unwrap().is_none() {
            let report = checked(folder.path());
            assert_eq!((report.broken, report.cut), (0, 0), "{report:?}");
        }
        assert!(child.wait().unwrap().success());
    }
    let report = checked(folder.path());
    assert_eq!((report.records, report.broken, report.lost), (3 * EACH, 0, 0), "{report:?}");
    assert!(report.files.len() > 10 && !report.begins_later, "{report:?}");
}

/// Runs this test program again as another process that runs one test.
fn child(name: &str, folder: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--ignored", "--nocapture"])
        .env("SWITCHBOARD_TEST_FOLDER", folder)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "one of the processes of several_processes_leave_one_whole_chain_over_rotations"]
fn a_process_that_writes_records() {
    let Some(folder) = std::env::var_os("SWITCHBOARD_TEST_FOLDER") else { return };
    write_beside_others(Path::new(&folder));
}

fn write_beside_others(folder: &Path) {
    let audit = Audit::open(folder, ROTATING).unwrap();
    for n in 0..EACH {
        // On a busy machine a record may be late; dropping the log writes it.
        let written = audit.record_and_wait(&fetch(&format!("user{n}")));
        assert_ne!(written, Err(Unwritten::Lost));
    }
}

/// How many records each process writes.
const EACH: u64 = 200;

/// Rotated after some 20 records, and all files are kept.
const ROTATING: Rotation = Rotation { bytes: 5000, kept: 100 };
