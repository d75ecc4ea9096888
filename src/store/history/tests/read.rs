//! Reading a history beside the thread that writes.

use super::*;

fn range(log: &LogName, offsets: std::ops::RangeInclusive<u64>) -> ReadRange {
    ReadRange { log: log.clone(), epoch: "e1".into(), offsets, backwards: false }
}

fn offsets(read: Result<Vec<(u64, Entry)>, Unread>) -> Vec<u64> {
    read.unwrap().into_iter().map(|(offset, _)| offset).collect()
}

/// A history with a log of this number of entries.
fn with_entries(disk: &FaultyDisk, count: u64) -> (HistoryFile, LogName) {
    let (mut history, _) = open(disk);
    let phone = log("Phone", Some("alice"));
    let changes: Vec<_> = (1..=count).map(|offset| append(&phone, offset, "a call")).collect();
    history.apply(now(), 1000, &changes).unwrap();
    (history, phone)
}

#[test]
fn entries_are_read_some_at_a_time_in_both_directions() {
    let disk = new_disk();
    let (history, phone) = with_entries(&disk, 300);
    let reader = history.reader();
    let read = |range: ReadRange| reader.read(now(), &Pin::default(), &range);
    assert_eq!(offsets(read(range(&phone, 1..=300))), (1..=256).collect::<Vec<_>>());
    assert_eq!(offsets(read(range(&phone, 290..=295))), (290..=295).collect::<Vec<_>>());
    let backwards = |offsets| ReadRange { backwards: true, ..range(&phone, offsets) };
    assert_eq!(offsets(read(backwards(1..=300))), (45..=300).rev().collect::<Vec<_>>());
    assert_eq!(offsets(read(backwards(7..=9))), [9, 8, 7]);
    assert_eq!(reader.read(now(), &Pin::default(), &range(&phone, 1..=1)).unwrap()[0].1.text, "a call".into());
    for gone in [
        range(&phone, 301..=310),
        ReadRange { epoch: "e2".into(), ..range(&phone, 1..=3) },
        range(&log("Phone", None), 1..=3),
    ] {
        assert!(matches!(read(gone), Err(Unread::Gone)));
    }
}

#[test]
fn a_long_entry_is_read_alone() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let phone = log("Phone", Some("alice"));
    let text = "x".repeat(1 << 20);
    let changes: Vec<_> = (1..=3).map(|offset| append(&phone, offset, &text)).collect();
    history.apply(now(), 1000, &changes).unwrap();
    assert_eq!(offsets(history.reader().read(now(), &Pin::default(), &range(&phone, 1..=3))), [1]);
}

#[test]
fn a_reader_keeps_to_what_it_saw_first_for_a_while() {
    let disk = new_disk();
    let (mut history, phone) = with_entries(&disk, 20);
    let (reader, pin, start) = (history.reader(), Pin::default(), now());
    assert_eq!(offsets(reader.read(start, &pin, &range(&phone, 1..=2))), [1, 2]);
    history.apply(start, 1000, &[Change::Trim { log: phone.clone(), first: 15 }]).unwrap();
    assert!(matches!(reader.read(start, &Pin::default(), &range(&phone, 3..=20)), Err(Unread::Gone)));
    reader.release_old(start + Duration::from_secs(9));
    assert_eq!(offsets(reader.read(start, &pin, &range(&phone, 3..=20))), (3..=20).collect::<Vec<_>>());
    reader.release_old(start + Duration::from_secs(10));
    assert!(matches!(reader.read(start, &pin, &range(&phone, 3..=20)), Err(Unread::Gone)));
    assert_eq!(offsets(reader.read(start, &pin, &range(&phone, 15..=20))), (15..=20).collect::<Vec<_>>());
}

#[test]
fn a_reader_is_told_of_a_fault_and_keeps_nobody_from_opening_the_file_again() {
    let disk = new_disk();
    let (mut history, phone) = with_entries(&disk, 20);
    let (reader, pin, start) = (history.reader(), Pin::default(), now());
    assert_eq!(offsets(reader.read(start, &pin, &range(&phone, 1..=2))), [1, 2]);
    disk.fail_after(0);
    assert!(history.apply(start, 1000, &[append(&phone, 21, "x")]).is_err());
    assert!(matches!(reader.read(start, &pin, &range(&phone, 1..=2)), Err(Unread::Fault(_))));
    disk.heal();
    history.apply(start + REOPEN_AFTER, 1000, &[append(&phone, 21, "x")]).unwrap();
    assert_eq!(offsets(reader.read(start, &pin, &range(&phone, 19..=30))), [19, 20, 21]);
}
