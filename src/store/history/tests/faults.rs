//! Disks that fail, lose their power, or are full.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

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
                    assert!(!history.open.is_open());
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
fn a_probe_finds_out_that_a_full_disk_has_room_again() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let mut now = now();
    let phone = log("Phone", Some("alice"));
    history.apply(now, 1000, &[append(&phone, 1, "first")]).unwrap();
    history.probe(now).unwrap();
    let before = disk.bytes().len();
    disk.fill_at(before as u64);
    let text = "x".repeat(before);
    history.apply(now, 1000, &[append(&phone, 2, &text)]).unwrap_err();
    assert!(history.probe(now).unwrap_err().to_string().contains("every second"));
    for _ in 0..5 {
        now += REOPEN_AFTER;
        // What an empty commit would not notice.
        assert!(history.apply(now, 1000, &[]).is_ok(), "there is no room for what failed, and there is for nothing");
        history.open.close();
        history.probe(now).unwrap_err();
        assert!(!history.open.is_open());
    }
    disk.heal();
    history.probe(now + REOPEN_AFTER).unwrap();
    assert!(history.open.is_open());
    // The file has room for it now.
    disk.fill_at(disk.bytes().len() as u64);
    history.apply(now + REOPEN_AFTER, 1000, &[append(&phone, 2, "second")]).unwrap();
    drop(history);
    let (_, contents) = open(&disk);
    let expected = [
        "'alice' on channel 'Phone' 1 first",
        "'alice' on channel 'Phone' 2 second",
        "'alice' on channel 'Phone' e1 ..2",
    ];
    assert_eq!(contents, expected);
}

#[test]
fn a_probe_that_a_fault_or_a_power_cut_interrupts_leaves_nothing() {
    for writes in 0..40 {
        let disk = new_disk();
        let (mut history, _) = open(&disk);
        let (now, phone) = (now(), log("Phone", Some("alice")));
        history.apply(now, 1000, &[append(&phone, 1, "first")]).unwrap();
        disk.fail_after(0);
        history.apply(now, 1000, &[append(&phone, 2, "refused")]).unwrap_err();
        disk.fail_after(writes);
        let probed = history.probe(now + REOPEN_AFTER);
        let expected = ["'alice' on channel 'Phone' 1 first", "'alice' on channel 'Phone' e1 ..1"];
        assert_eq!(open(&disk.cut_power(writes)).1, expected, "{writes} writes: {probed:?}");
        disk.heal();
        history.probe(now + REOPEN_AFTER * 2).unwrap();
        history.apply(now + REOPEN_AFTER * 2, 1000, &[append(&phone, 2, "second")]).unwrap();
        drop(history);
        assert_eq!(entries(&open(&disk).1, &phone), [1, 2], "{writes} writes");
    }
}

#[test]
fn what_was_given_up_while_it_was_written_is_taken_back() {
    let disk = new_disk();
    let (mut history, _) = open(&disk);
    let now = now();
    let (phone, bob) = (log("Phone", Some("alice")), log("Phone", Some("bob")));
    let keep = |text: &str| Change::Keep(place("S"), value(text));
    history.apply(now, 1000, &[append(&phone, 1, "first"), keep("first")]).unwrap();
    let late = [append(&phone, 2, "late"), append(&bob, 1, "late"), keep("late")];
    let words = history.apply_if(now, 1000, &late, || false).unwrap_err().to_string();
    assert!(words.contains("history.timeout"), "{words}");
    assert!(entries(&open(&disk.kill()).1, &phone).len() == 2, "until the next batch, a kill leaves it there");
    history.apply(now + REOPEN_AFTER, 1000, &[append(&phone, 2, "second")]).unwrap();
    drop(history);
    let expected = [
        "'alice' on channel 'Phone' 1 first",
        "'alice' on channel 'Phone' 2 second",
        "'alice' on channel 'Phone' e1 ..2",
        "retained S first",
    ];
    assert_eq!(open(&disk).1, expected);
}
