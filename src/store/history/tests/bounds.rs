//! How much a history keeps.

use super::*;

#[test]
fn a_log_keeps_the_entries_from_its_first_offset_on() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let now = now();
    let phone = log("Phone", Some("alice"));
    for offset in 1..=10_u64 {
        let Change::Append { log, epoch, entry, known, .. } = append(&phone, offset, "x") else { unreachable!() };
        let first = offset.saturating_sub(2).max(1);
        history.apply(now, 1000, &[Change::Append { log, epoch, offset, entry, known, first }]).unwrap();
    }
    assert_eq!(history.logs[&phone].bytes, history.bytes());
    let bytes = history.bytes();
    history.apply(now, 1000, &[Change::Trim { log: phone.clone(), first: 10 }]).unwrap();
    assert_eq!(history.bytes() * 3, bytes);
    drop(history);
    let (mut history, contents) = open(&disk);
    assert_eq!(entries(&contents, &phone), [10]);
    history.apply(now, 1000, &[Change::Trim { log: phone.clone(), first: 100 }]).unwrap();
    assert_eq!(history.bytes(), 0);
    drop(history);
    // Its epoch and its last offset are still known.
    let (mut history, contents) = open(&disk);
    assert_eq!(contents, ["'alice' on channel 'Phone' e1 ..10"]);
    history.apply(now, 1000, &[Change::Forget(phone)]).unwrap();
    drop(history);
    assert_eq!(open(&disk).1, Contents::new());
}

#[test]
fn the_log_unused_for_longest_makes_room_on_the_disk() {
    let disk = new_disk();
    let limits = HistoryLimits { disk_bytes: 40_000, ..LIMITS };
    let (mut history, _) = try_open(&disk, limits).unwrap().unwrap();
    let now = now();
    let text = "x".repeat(1000);
    let mut removed = Vec::new();
    for number in 1..=30_u64 {
        let log = log("Phone", Some(&format!("user {number}")));
        let Change::Append { log, epoch, offset, known, first, .. } = append(&log, 1, "") else { unreachable!() };
        let change = Change::Append { log, epoch, offset, entry: entry(number, &text), known, first };
        let applied = history.apply(now, 1000, &[change]).unwrap();
        assert_eq!(applied.trimmed, []);
        removed.extend(applied.removed);
        assert!(history.bytes() <= limits.disk_bytes, "{}", history.bytes());
    }
    let oldest: Vec<_> = (1..=removed.len()).map(|number| log("Phone", Some(&format!("user {number}")))).collect();
    assert!(removed == oldest && removed.len() > 10, "{removed:?}");

    // A log that is the only one loses its oldest entries.
    let queue = log("Queue", None);
    let mut first = 1;
    for offset in 1..=60 {
        let applied = history.apply(now, 1000, &[append(&queue, offset, &text)]).unwrap();
        first = applied.trimmed.first().map_or(first, |(_, first)| *first);
        assert!(history.bytes() <= limits.disk_bytes, "{}", history.bytes());
    }
    assert!(first > 30, "{first}");
    drop(history);
    assert_eq!(entries(&try_open(&disk, limits).unwrap().unwrap().1, &queue), (first..=60).collect::<Vec<_>>());
}

#[test]
fn ids_are_forgotten_when_they_expire_or_are_too_many() {
    let disk = new_disk();
    let limits = HistoryLimits { ids: 5, ..LIMITS };
    let (mut history, _) = try_open(&disk, limits).unwrap().unwrap();
    let now = now();
    let phone = log("Phone", Some("alice"));
    let send = |history: &mut HistoryFile, offset: u64, wall: u64| {
        let (source, epoch, id) = ("cti".into(), "e1".into(), offset.to_string().into());
        let known = Some(Known { log: phone.clone(), source, user: None, id, at: wall, offset, epoch });
        let Change::Append { log, epoch, entry, first, .. } = append(&phone, offset, "x") else { unreachable!() };
        history.apply(now, wall, &[Change::Append { log, epoch, offset, entry, known, first }]).unwrap();
    };
    (1..=8).for_each(|offset| send(&mut history, offset, 1000));
    drop(history);
    let known = |disk: &FaultyDisk| -> Vec<String> {
        try_open(disk, limits).unwrap().unwrap().1.into_iter().filter(|it| it.starts_with("known")).collect()
    };
    assert_eq!(known(&disk), ["known 4 4", "known 5 5", "known 6 6", "known 7 7", "known 8 8"]);
    let (mut history, _) = try_open(&disk, limits).unwrap().unwrap();
    send(&mut history, 9, 1000 + 121_000);
    drop(history);
    assert_eq!(known(&disk), ["known 9 9"]);
}

#[test]
fn a_log_without_entries_is_remembered_for_an_hour_after_they_expired() {
    const MINUTE: u64 = 60_000;
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let phone = log("Phone", Some("alice"));
    // The time of each entry is its offset, in milliseconds.
    history.apply(now(), 1000, &[append(&phone, 1, "x"), append(&phone, 2, "x")]).unwrap();
    let expired = |history: &HistoryFile, wall: u64| -> Vec<Option<u64>> {
        let changes = history.expired(wall, &|_| Some(Duration::from_mins(10))).unwrap();
        let first = |change: &Change| match change {
            Change::Trim { log, first } if *log == phone => Some(*first),
            Change::Forget(log) if *log == phone => None,
            change => panic!("{change:?}"),
        };
        changes.iter().map(first).collect()
    };
    assert_eq!(expired(&history, 10 * MINUTE), []);
    assert_eq!(expired(&history, 10 * MINUTE + 2), [Some(2)]);
    assert_eq!(expired(&history, 60 * MINUTE), [Some(3)]);
    assert_eq!(expired(&history, 70 * MINUTE + 2), [Some(3)]);
    assert_eq!(expired(&history, 70 * MINUTE + 3), [None]);
    history.apply(now(), 1000, &[Change::Trim { log: phone.clone(), first: 3 }]).unwrap();
    assert_eq!(expired(&history, 70 * MINUTE + 2), []);
    assert_eq!(expired(&history, 70 * MINUTE + 3), [None]);
}
