//! Faults of the disk, damaged files, bounds.

use std::cell::Cell;
use std::sync::Once;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::faulty::FaultyDisk;
use super::*;
use crate::store::beside;

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
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    drop(create(&path, &Cipher::new(&key('a'), STORE).key_check().unwrap(), |_| Ok(())).unwrap());
    FaultyDisk::with(std::fs::read(path).unwrap())
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
    let path = PathBuf::from("/disk").join(FILE);
    let opened = HistoryFile::open_on(Arc::new(disk.clone()), path, &key('a'), limits, &mut visit)?;
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

/// Runs something in which redb panics again and again, without a message for each.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    thread_local!(static IS_QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                print(panic);
            }
        }));
    });
    IS_QUIET.set(true);
    let outcome = work();
    IS_QUIET.set(false);
    outcome
}

/// Opens a damaged file, which may give what it had or be refused.
fn recovered_or_refused(damaged: Vec<u8>, sound: &Contents, what: &str) -> bool {
    let before = damaged.clone();
    let disk = FaultyDisk::with(damaged);
    match quietly(|| try_open(&disk, LIMITS)) {
        Ok(Some((_, contents))) => {
            assert_eq!(&contents, sound, "{what}");
            true
        }
        Ok(None) => panic!("{what}: another key"),
        Err(error) => {
            let words = error.to_string();
            assert!(words.contains("damaged") && words.contains("history repair"), "{what}: {words}");
            assert_eq!(disk.bytes(), before, "{what}: a refused file was changed");
            false
        }
    }
}

#[test]
fn a_file_with_any_byte_flipped_is_recovered_or_refused() {
    let (closed, killed, contents) = small_twice();
    for bytes in [closed.bytes(), killed.bytes()] {
        let mut refused = 0;
        // The bits of the header have meanings of their own; elsewhere a checksum covers whole pages.
        for at in (0..bytes.len()).filter(|at| *at < 320 || at % stride() == 0) {
            let masks: &[u8] = if at < 24 { &[1, 2, 4, 8, 0xff] } else { &[0x09] };
            for mask in masks {
                let mut damaged = bytes.clone();
                damaged[at] ^= mask;
                refused += usize::from(!recovered_or_refused(damaged, &contents, &format!("byte {at} ^ {mask}")));
            }
        }
        assert!(refused > 20, "{refused}");
    }
}

/// Every how manieth byte is damaged. `SWITCHBOARD_EVERY_BYTE=1` tries all, which takes minutes.
fn stride() -> usize {
    if std::env::var_os("SWITCHBOARD_EVERY_BYTE").is_some() { 1 } else { 997 }
}

#[test]
fn a_truncated_file_is_recovered_or_refused() {
    let (disk, contents) = small();
    let bytes = disk.bytes();
    for len in (0..bytes.len()).step_by(stride() * 9).chain((0..bytes.len()).step_by(4096)) {
        recovered_or_refused(bytes[..len].to_vec(), &contents, &format!("{len} bytes"));
    }
}

#[test]
fn another_key_is_not_called_damage() {
    let (disk, _) = small();
    let path = PathBuf::from("/disk").join(FILE);
    let opened = HistoryFile::open_on(Arc::new(disk), path, &key('b'), LIMITS, &mut |_| {}).unwrap();
    assert!(opened.is_none());
}

/// Appends with random faults, and compares what is there after each with what was accepted.
fn survive(seed: u64, end: impl Fn(&FaultyDisk, u64) -> FaultyDisk) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut disk = new_disk();
    let mut now = now();
    let logs = [log("Phone", Some("alice")), log("Phone", Some("bob")), log("Queue", None)];
    let mut last = [0_u64; 3];
    let mut kept = 0;
    for life in 0..4 {
        let (mut history, contents) = open(&disk);
        for (name, last) in logs.iter().zip(&mut last) {
            let found = entries(&contents, name);
            assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "seed {seed}, life {life}");
            assert!(found.len() as u64 >= *last, "seed {seed}, life {life}: {name} lost {last} > {}", found.len());
            *last = found.len() as u64;
        }
        let state: u64 = contents.iter().find_map(|it| it.strip_prefix("retained S ")?.parse().ok()).unwrap_or(0);
        assert!(state >= kept, "seed {seed}, life {life}: {state} < {kept}");
        kept = state;
        if random.random_ratio(2, 3) {
            disk.fail_after(random.random_range(0..60));
        }
        for round in 0..random.random_range(1..12) {
            let mut next = last;
            let mut batch = Vec::new();
            for _ in 0..random.random_range(1..4) {
                let which = random.random_range(0..3);
                next[which] += 1;
                batch.push(append(&logs[which], next[which], &"x".repeat(random.random_range(0..3000))));
            }
            batch.push(Change::Keep(place("S"), value(&(kept + 1).to_string())));
            match history.apply(now, 1000, &batch) {
                Ok(applied) => {
                    assert_eq!(applied, Applied::default());
                    (last, kept) = (next, kept + 1);
                }
                Err(_) => {
                    assert!(history.has_failed());
                    if random.random() {
                        disk.heal();
                        now += REOPEN_AFTER;
                    }
                }
            }
            if round == 5 && random.random() {
                break;
            }
        }
        let ended = end(&disk, seed * 10 + life);
        // The process is gone before the next one begins; what it would still write is not on its disk.
        drop(history);
        disk = ended;
    }
}

#[test]
fn a_power_cut_loses_nothing_that_was_accepted() {
    for seed in 0..12 {
        survive(seed, FaultyDisk::cut_power);
    }
}

#[test]
fn a_kill_loses_nothing_that_was_accepted() {
    for seed in 1000..1008 {
        survive(seed, |disk, _| disk.kill());
    }
}

#[test]
fn a_refused_event_is_in_no_log_after_the_store_was_reopened() {
    for writes in 0..40 {
        let disk = new_disk();
        let (mut history, _) = open(&disk);
        let now = now();
        let phone = log("Phone", Some("alice"));
        let keep = |text: &str| Change::Keep(place("S"), value(text));
        history.apply(now, 1000, &[append(&phone, 1, "first"), keep("first")]).unwrap();
        disk.fail_after(writes);
        let bob = log("Phone", Some("bob"));
        let refused =
            ["refused"].map(|it| [append(&phone, 2, it), append(&phone, 3, it), append(&bob, 1, it), keep(it)]);
        if history.apply(now, 1000, &refused.concat()).is_ok() {
            assert!(writes > 5, "{writes} writes are enough for a commit");
            continue;
        }
        disk.heal();
        let words = history.apply(now, 1000, &[append(&phone, 2, "early")]).unwrap_err().to_string();
        assert!(words.contains("every second"), "{words}");
        history.apply(now + REOPEN_AFTER, 1000, &[append(&phone, 2, "second")]).unwrap();
        drop(history);
        let (_, contents) = open(&disk);
        let expected = [
            "'alice' on channel 'Phone' 1 first",
            "'alice' on channel 'Phone' 2 second",
            "'alice' on channel 'Phone' e1 ..2",
            "retained S first",
        ];
        assert_eq!(contents, expected, "{writes} writes");
    }
}

#[test]
fn the_id_of_a_refused_event_is_not_known_after_the_store_was_reopened() {
    let mut refusals = 0;
    for writes in 0..40 {
        let disk = new_disk();
        let (mut history, _) = open(&disk);
        let (now, phone) = (now(), log("Phone", Some("alice")));
        history.apply(now, 1000, &[append(&phone, 1, "first")]).unwrap();
        disk.fail_after(writes);
        let Change::Append { log, epoch, offset, entry, first, .. } = append(&phone, 2, "refused") else {
            unreachable!()
        };
        let (source, id) = ("cti".into(), "refused".into());
        let known = Some(Known { log: log.clone(), source, user: None, id, at: 1000, offset, epoch: epoch.clone() });
        if history.apply(now, 1000, &[Change::Append { log, epoch, offset, entry, known, first }]).is_ok() {
            continue;
        }
        refusals += 1;
        disk.heal();
        history.apply(now + REOPEN_AFTER, 1000, &[append(&phone, 2, "second")]).unwrap();
        drop(history);
        let (_, contents) = open(&disk);
        assert!(!contents.iter().any(|line| line.starts_with("known")), "{writes} writes: {contents:?}");
    }
    assert!(refusals > 5, "{refusals}");
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

/// Changes a sound file as a program would that knows its format, and not the key.
fn tampered(bytes: Vec<u8>, change: impl FnOnce(&redb::WriteTransaction)) -> Vec<u8> {
    let disk = FaultyDisk::with(bytes);
    let database = builder().create_with_backend(disk::Backend::new(disk.clone())).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
    drop(database);
    disk.bytes()
}

#[test]
fn a_file_without_some_of_its_records_is_refused_though_its_checksums_fit() {
    let (disk, contents) = small();
    let rows = |transaction: &redb::WriteTransaction| -> Vec<(LogKey, u64)> {
        let entries = transaction.open_table(ENTRIES).unwrap();
        let mut rows = Vec::new();
        for row in redb::ReadableTable::iter(&entries).unwrap() {
            let (place, _) = row.unwrap();
            let (key, offset) = place.value();
            rows.push((*key, offset));
        }
        rows
    };
    let remove = |transaction: &redb::WriteTransaction, at: usize| {
        let (key, offset) = rows(transaction)[at];
        transaction.open_table(ENTRIES).unwrap().remove((&key, offset)).unwrap().unwrap();
    };
    for (at, missing) in [(0, "offset 1 is missing"), (1, "offset 2 is missing"), (2, "offset 3 is missing")] {
        let words = try_open(&FaultyDisk::with(tampered(disk.bytes(), |it| remove(it, at))), LIMITS).map(drop);
        let words = words.unwrap_err().to_string();
        assert!(words.contains(missing) && words.contains("history repair"), "{words}");
    }
    let without_log = tampered(disk.bytes(), |transaction| {
        let (key, _) = rows(transaction)[0];
        transaction.open_table(LOGS).unwrap().remove(&key).unwrap().unwrap();
    });
    let words = try_open(&FaultyDisk::with(without_log), LIMITS).map(drop).unwrap_err().to_string();
    assert!(words.contains("entries of a log that it does not have"), "{words}");
    let same = tampered(disk.bytes(), |_| ());
    assert_eq!(try_open(&FaultyDisk::with(same), LIMITS).unwrap().unwrap().1, contents);
}

#[test]
fn a_full_disk_refuses_and_works_again_when_there_is_room() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let mut now = now();
    let phone = log("Phone", Some("alice"));
    disk.fill_at(200_000);
    let text = "x".repeat(10_000);
    let (mut offset, mut refusals) = (1, 0);
    for _ in 0..100 {
        // Pages that a failed batch had taken may be free again, so the next one can fit.
        match history.apply(now, 1000, &[append(&phone, offset, &text)]) {
            Ok(_) => offset += 1,
            Err(_) => refusals += 1,
        }
        now += REOPEN_AFTER;
    }
    assert!(refusals > 50 && offset < 20, "{refusals} refusals, {offset} events");
    disk.heal();
    history.apply(now, 1000, &[append(&phone, offset, &text)]).unwrap();
    drop(history);
    assert_eq!(entries(&open(&disk).1, &phone), (1..=offset).collect::<Vec<_>>());
}

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn an_overlay_reads_as_a_file_that_was_written_to(
        under in proptest::collection::vec(any::<u8>(), 0..20_000),
        steps in proptest::collection::vec((any::<bool>(), 0..30_000_usize, 0..9000_usize, any::<u8>()), 0..20),
    ) {
        let overlay = disk::Overlay::new(disk::Backend::new(FaultyDisk::with(under.clone()))).unwrap();
        let mut model = under;
        for (is_write, at, len, byte) in steps {
            if is_write {
                let fits = at + len <= model.len();
                prop_assert_eq!(overlay.write(at as u64, &vec![byte; len]).is_ok(), fits);
                if fits {
                    model[at..at + len].fill(byte);
                }
            } else {
                overlay.set_len(at as u64).unwrap();
                model.resize(at, 0);
            }
            let mut all = vec![0; model.len()];
            overlay.read(0, &mut all).unwrap();
            prop_assert!(all == model);
        }
    }
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
        if quietly(|| try_open(&FaultyDisk::with(damaged.clone()), LIMITS)).is_ok() {
            continue;
        }
        refused += 1;
        let (_folder, settings) = folder_with(&damaged);
        let repaired = quietly(|| repair(&settings, false)).unwrap().unwrap();
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
        if quietly(|| try_open(&FaultyDisk::with(bytes[..len].to_vec()), LIMITS)).is_ok() {
            continue;
        }
        let (_folder, settings) = folder_with(&bytes[..len]);
        let repaired = quietly(|| repair(&settings, false)).unwrap().unwrap();
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

#[test]
fn a_history_is_read_while_a_broker_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = HistorySettings { data_dir: folder.path().to_owned(), key: KeySource::DataFolder };
    assert_eq!(Look::new(&settings).logs(), Ok(None));
    let lock = FolderLock::take(folder.path()).unwrap();
    let mut history = HistoryFile::open(&settings, LIMITS, &lock, &mut |_| {}).unwrap();
    let phone = log("Phone", Some("alice"));
    for offset in 1..=3 {
        history.apply(now(), 1000, &[append(&phone, offset, "a call")]).unwrap();
        let lines = Look::new(&settings).logs().unwrap().unwrap();
        assert_eq!(lines.iter().map(|line| (line.first, line.last)).collect::<Vec<_>>(), [(1, offset)]);
        assert_eq!(lines[0].bytes, history.bytes());
    }
    drop((history, lock));
    let mut texts = Vec::new();
    Look::new(&settings).entries(&mut |_, _, offset, entry| texts.push(format!("{offset} {}", entry.text))).unwrap();
    assert_eq!(texts, ["1 a call", "2 a call", "3 a call"]);
    #[cfg(unix)]
    {
        let metadata = std::fs::metadata(settings.file()).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600);
    }
}

#[test]
fn an_empty_or_foreign_file_is_refused_and_left_as_it_is() {
    let other = tempfile::tempdir().unwrap();
    let redb = other.path().join("other.redb");
    let filled = Database::create(&redb, "a file", |transaction| {
        transaction.open_table(redb::TableDefinition::<u64, u64>::new("other"))?.insert(1, 1)?;
        Ok(())
    });
    drop(filled.unwrap());
    for bytes in [Vec::new(), b"not a database".repeat(1000), std::fs::read(redb).unwrap()] {
        let (folder, settings) = folder_with(&bytes);
        let lock = FolderLock::take(folder.path()).unwrap();
        let words = HistoryFile::open(&settings, LIMITS, &lock, &mut |_| {}).unwrap_err().to_string();
        assert!(words.contains("damaged") && words.contains("switchboard history repair"), "{words}");
        assert_eq!(std::fs::read(settings.file()).unwrap(), bytes);
        drop(lock);
        let repaired = repair(&settings, false).unwrap().unwrap();
        assert_eq!(std::fs::read(repaired.old_file.unwrap()).unwrap(), bytes);
        assert_eq!(contents_of(&settings), Contents::new());
    }
}

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
