//! The audit log while another process holds its lock, or its file cannot be written: records are counted as lost, and the
//! broker still ends in time.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use serde_json::json;
use switchboard::audit::{Audit, Entry, Event, Rotation, Unwritten, verify};

use crate::support::{Broker, DEADLINE, envelope};

/// More than could wait for the lock one after the other within the deadline.
const RECORDS: u64 = 40;

/// Holds the lock of the log as another process would.
fn hold_lock(folder: &Path) -> File {
    let lock = OpenOptions::new().write(true).open(folder.join("audit.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

fn queue_records(audit: &Audit) {
    for _ in 0..RECORDS {
        audit.record(&Entry::new(Event::Fetch));
    }
}

#[test]
fn records_behind_a_stuck_lock_are_counted_as_lost_after_one_wait() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(folder.path(), Rotation::default()).unwrap();
    let lock = hold_lock(folder.path());
    queue_records(&audit);
    thread::scope(|scope| {
        let freed = scope.spawn(|| {
            // The queue is in order, so all before this one have ended as soon as it has.
            while audit.record_and_wait(&Entry::new(Event::Write)).is_err_and(|it| it == Unwritten::Late) {}
            drop(lock);
            // The writer is still ending those that were queued behind it.
            audit.record_and_wait(&Entry::new(Event::Write))
        });
        for _ in 0..DEADLINE.as_millis() {
            if freed.is_finished() {
                break;
            }
            audit.record(&Entry::new(Event::Fetch));
            thread::sleep(Duration::from_millis(1));
        }
        assert!(freed.is_finished(), "not within {DEADLINE:?}");
        freed.join().unwrap().unwrap();
    });
    drop(audit);
    let report = verify(&folder.path().join("audit.jsonl")).unwrap();
    assert!(report.lost >= RECORDS, "{report:?}");
    assert_eq!(report.broken, 0, "{report:?}");
}

#[test]
fn a_stuck_lock_does_not_keep_the_log_from_closing() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(folder.path(), Rotation::default()).unwrap();
    let lock = hold_lock(folder.path());
    queue_records(&audit);
    let (closed, close) = channel();
    let closing = thread::spawn(move || {
        drop(audit);
        closed.send(()).unwrap();
    });
    let in_time = close.recv_timeout(DEADLINE);
    drop(lock);
    closing.join().unwrap();
    in_time.unwrap();
}

#[test]
fn what_was_lost_or_only_counted_is_in_the_last_lines_when_the_log_closes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let audit = Audit::open(folder.path(), Rotation::default()).unwrap();
    for _ in 0..100 {
        audit.record_unregistered(&Entry::new(Event::RegistrationRefused));
    }
    drop(audit);
    let report = verify(&path).unwrap();
    // The allowance is 60; it grows by one every six seconds.
    let refusals = report.records - 1;
    assert!((60..70).contains(&refusals), "{report:?}");
    assert_eq!((report.unrecorded, report.lost, report.broken), (100 - refusals, 0, 0), "{report:?}");

    let audit = Audit::open(folder.path(), Rotation::default()).unwrap();
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(audit.record_and_wait(&Entry::new(Event::Fetch)).is_err());
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    drop(audit);
    let report = verify(&path).unwrap();
    assert_eq!((report.lost, report.broken), (1, 0), "{report:?}");
}

#[tokio::test]
async fn a_broker_whose_audit_lock_is_stuck_ends_and_logs_how_many_records_are_missing() {
    const FETCH: &str = "Salesforce/User/FetchCredentials";
    let mut broker = Broker::start().await;
    let mut phone = broker.app_of("phone", "alice").await;
    let _lock = hold_lock(&broker.data_dir());
    for number in 0..RECORDS {
        // The router refuses it, so that it does not wait for its record.
        let id = number.to_string();
        phone.send(envelope(FETCH, json!({ "id": id, "source": "another" }))).await;
        phone.next_answer(FETCH, &id).await;
    }
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    let log = broker.log();
    let line = log.lines().find(|line| line.contains("audit records could not be written before the broker ended"));
    assert!(line.is_some_and(|line| line.contains(&format!("records={RECORDS}"))), "{log}");
}
