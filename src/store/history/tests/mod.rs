//! What the tests of a history share, and what it does when nothing is wrong.

mod bounds;
mod damage;
mod faults;
mod keys;
mod look;
mod overlay;
mod read;
mod repair;

use std::sync::atomic::Ordering;

use super::*;
use crate::store::{Key, KeySource};

/// Everything that a history holds, in words.
type Contents = Vec<String>;

const LIMITS: HistoryLimits = HistoryLimits { disk_bytes: 1 << 30, retry: Duration::from_mins(2), ids: 1000 };

#[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
fn now() -> Instant {
    Instant::now()
}

fn key(digit: char) -> Key {
    Key::parse(&digit.to_string().repeat(64)).unwrap()
}

fn log(channel: &str, user: Option<&str>) -> LogName {
    LogName { channel: channel.into(), user: user.map(Box::from) }
}

fn entry(at: u64, text: &str) -> Entry {
    let (topic, subtopic) = ("Call".into(), "Ringing".into());
    Entry { at, topic, subtopic, user: None, to_all: false, target: None, text: text.into() }
}

fn append(log: &LogName, offset: u64, text: &str) -> Change {
    let (log, epoch) = (log.clone(), "e1".into());
    Change::Append { log, epoch, offset, entry: entry(offset, text), known: None, first: 1 }
}

fn place(triple: &str) -> Place {
    Place { user: Some("alice".into()), triple: triple.into(), target: None }
}

fn value(text: &str) -> Retained {
    Retained { user: None, service: None, position: None, text: text.into() }
}

/// A disk with an empty history.
fn new_disk() -> FaultyDisk {
    FaultyDisk::with_history('a')
}

fn try_open(disk: &FaultyDisk, limits: HistoryLimits) -> Result<Option<(HistoryFile, Contents)>, StoreError> {
    let mut contents = Contents::new();
    let mut current = String::new();
    let mut visit = |loaded| {
        contents.push(match loaded {
            Loaded::Log { name, epoch, last, .. } => {
                current = name.to_string();
                format!("{name} {epoch} ..{last}")
            }
            Loaded::Entry(offset, entry) => format!("{current} {offset} {}", entry.text),
            Loaded::Known(known) => format!("known {} {}", known.id, known.offset),
            Loaded::Retained(place, value) => format!("retained {} {}", place.triple, value.text),
        });
    };
    let opened = disk.open_history('a', limits, &mut visit)?;
    contents.sort();
    Ok(opened.map(|history| (history, contents)))
}

fn open(disk: &FaultyDisk) -> (HistoryFile, Contents) {
    try_open(disk, LIMITS).unwrap().unwrap()
}

fn entries(contents: &Contents, log: &LogName) -> Vec<u64> {
    let prefix = format!("{log} ");
    let offset = |line: &String| line.strip_prefix(&prefix)?.split(' ').next()?.parse().ok();
    let mut offsets: Vec<u64> = contents.iter().filter_map(offset).collect();
    offsets.sort_unstable();
    offsets
}

/// A small history with something of every kind.
fn small() -> (FaultyDisk, Contents) {
    let (disk, _, contents) = small_twice();
    (disk, contents)
}

/// The same, closed in order and killed after its last commit.
fn small_twice() -> (FaultyDisk, FaultyDisk, Contents) {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let now = now();
    let (phone, queue) = (log("Phone", Some("alice")), log("Queue", None));
    for offset in 1..=3 {
        let known = Known {
            log: phone.clone(),
            source: "cti".into(),
            user: None,
            id: format!("id {offset}").into(),
            at: 1000,
            offset,
            epoch: "e1".into(),
        };
        let Change::Append { log, epoch, entry, first, .. } = append(&phone, offset, "a call") else { unreachable!() };
        let append_known = Change::Append { log, epoch, offset, entry, known: Some(known), first };
        let keep = Change::Keep(place("Phone/Call/State"), value(&format!("state {offset}")));
        history.apply(now, 1000, &[append_known, append(&queue, offset, "waiting"), keep]).unwrap();
    }
    let killed = disk.kill();
    drop(history);
    let (history, contents) = open(&disk);
    assert_eq!(contents.len(), 2 + 6 + 3 + 1, "{contents:?}");
    drop(history);
    (disk, killed, contents)
}

/// A data folder with a history that has this content.
fn folder_with(bytes: &[u8]) -> (tempfile::TempDir, HistorySettings) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE), bytes).unwrap();
    let text = "a".repeat(64);
    let settings = HistorySettings { data_dir: folder.path().to_owned(), key: KeySource::Text(text.into()) };
    (folder, settings)
}

/// What is in the history of a folder.
fn contents_of(settings: &HistorySettings) -> Contents {
    open(&FaultyDisk::with(std::fs::read(settings.file()).unwrap())).1
}

#[test]
fn what_was_applied_is_there_after_a_restart() {
    let (_, contents) = small();
    assert_eq!(
        contents,
        [
            "'alice' on channel 'Phone' 1 a call",
            "'alice' on channel 'Phone' 2 a call",
            "'alice' on channel 'Phone' 3 a call",
            "'alice' on channel 'Phone' e1 ..3",
            "channel 'Queue' 1 waiting",
            "channel 'Queue' 2 waiting",
            "channel 'Queue' 3 waiting",
            "channel 'Queue' e1 ..3",
            "known id 1 1",
            "known id 2 2",
            "known id 3 3",
            "retained Phone/Call/State state 3",
        ]
    );
}

#[test]
fn a_log_that_begins_anew_has_nothing_of_the_old_one() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let now = now();
    let phone = log("Phone", Some("alice"));
    history.apply(now, 1000, &[append(&phone, 1, "old"), append(&phone, 2, "old")]).unwrap();
    let Change::Append { log, offset, entry, known, first, .. } = append(&phone, 1, "new") else { unreachable!() };
    history.apply(now, 1000, &[Change::Append { log, epoch: "e2".into(), offset, entry, known, first }]).unwrap();
    drop(history);
    let expected = ["'alice' on channel 'Phone' 1 new", "'alice' on channel 'Phone' e2 ..1"];
    assert_eq!(open(&disk).1, expected);
}

#[test]
fn the_events_of_a_batch_share_two_syncs() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let phone = log("Phone", Some("alice"));
    history.apply(now(), 1000, &[append(&phone, 1, "x")]).unwrap();
    let before = disk.syncs();
    for batch in 0..40 {
        let changes: Vec<_> = (0..10).map(|number| append(&phone, 2 + batch * 10 + number, "x")).collect();
        history.apply(now(), 1000, &changes).unwrap();
    }
    // One more whenever the file grows, which doubles it.
    let syncs = disk.syncs() - before;
    assert!((80..88).contains(&syncs), "{syncs} syncs for 40 batches of 10 events");
}

#[test]
fn a_start_opens_each_record_once() {
    let (disk, _, contents) = small_twice();
    let (history, _) = open(&disk);
    // Logs, entries, ids and values.
    assert_eq!(history.seal.opened.load(Ordering::Relaxed), contents.len());
}

#[test]
fn an_event_that_would_leave_a_gap_is_refused() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let (now, phone) = (now(), log("Phone", Some("alice")));
    history.apply(now, 1000, &[append(&phone, 1, "first")]).unwrap();
    for offset in [1, 3] {
        let words = history.apply(now + REOPEN_AFTER * 2, 1000, &[append(&phone, offset, "x")]).unwrap_err();
        assert!(words.to_string().contains("cannot follow offset 1"), "{words}");
        history.apply(now + REOPEN_AFTER * 4, 1000, &[]).unwrap();
    }
    drop(history);
    assert_eq!(entries(&open(&disk).1, &phone), [1]);
}

#[test]
fn the_logs_whose_next_event_does_not_fit_are_named_and_the_others_can_be_written() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let (now, [phone, bob, queue]) =
        (now(), [log("Phone", Some("alice")), log("Phone", Some("bob")), log("Queue", None)]);
    history.apply(now, 1000, &[append(&phone, 1, "x"), append(&queue, 1, "x")]).unwrap();
    let newer = |log: &LogName, offset| {
        let (log, epoch) = (log.clone(), "e2".into());
        Change::Append { log, epoch, offset, entry: entry(offset, "x"), known: None, first: 1 }
    };
    let changes = [
        append(&phone, 3, "a gap"),
        append(&phone, 4, "follows it"),
        append(&bob, 7, "begins"),
        append(&bob, 8, "follows"),
        newer(&queue, 1),
        newer(&queue, 2),
    ];
    assert_eq!(history.misfits(&changes), BTreeSet::from([phone.clone()]));
    assert!(history.misfits(&[newer(&queue, 1), newer(&queue, 3)]).contains(&queue));
    assert!(history.misfits(&[Change::Forget(phone.clone()), append(&phone, 1, "anew")]).is_empty());
    history.apply(now, 1000, &changes[2..]).unwrap();
    drop(history);
    let contents = open(&disk).1;
    assert_eq!(
        [&phone, &bob, &queue].map(|log| entries(&contents, log)),
        [vec![1], vec![7, 8], vec![1, 2]],
        "{contents:?}"
    );
}
