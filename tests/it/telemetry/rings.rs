//! The rings of the flight recorder: what they keep, of how many threads, in how much memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use switchboard::telemetry::recorder::{
    BYTES_MIN, Filter, Mark, Pace, Published, Record, Recorder, Row, Sender, What, Who,
};
use wire::{ErrorCode, Triple};

/// More than any test here writes.
const EVERYTHING: usize = usize::MAX;

#[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter")]
fn start() -> Instant {
    Instant::now()
}

fn recorder(now: Instant, bytes: usize, workers: usize) -> Recorder {
    Recorder::for_workers(now, SystemTime::UNIX_EPOCH, bytes, workers)
}

fn who(number: u64, source: &str) -> Who<'_> {
    let mut session = [0; 16];
    session[..8].copy_from_slice(&number.to_be_bytes());
    Who { number, session, source, user: Some("alice") }
}

/// An event all of whose fields follow from one number, so that a torn entry shows.
fn event(number: u32) -> What {
    What::Event { receivers: number, bytes: number * 3, offset: u64::from(number) * 7, is_duplicate: false }
}

/// Records an event as its router does.
fn record_event(recorder: &Recorder, now: Instant, pace: &Pace, record: &Record<'_>) {
    let What::Event { receivers, bytes, offset, is_duplicate } = record.what else { panic!("{:?}", record.what) };
    let nothing = Triple::new("-", "-", "-");
    let triple = record.triple.unwrap_or(&nothing);
    let event = Published {
        triple,
        // Known of every other event, which changes nothing.
        mark: receivers.is_multiple_of(2).then(|| Mark::of(triple)),
        id: record.id,
        receivers: receivers as usize,
        bytes: Some(bytes as usize),
        offset,
        is_duplicate,
    };
    recorder.record_event(now, Sender { number: record.who.number, pace, who: &|| record.who }, || event);
}

fn check_whole(row: &Row) {
    assert_eq!(row.what, "event");
    let number = row.receivers.unwrap();
    assert_eq!(row.bytes, Some(number * 3), "{row:?}");
    assert_eq!(row.offset.unwrap_or(0), u64::from(number) * 7, "{row:?}");
    assert_eq!(row.id, Some(format!("id-{number}")), "{row:?}");
    assert_eq!(row.topic, Some(format!("T{}", number % 300)), "{row:?}");
    assert_eq!(row.user.as_deref(), Some("alice"));
    assert!(row.session.is_some() && row.source.is_some());
}

fn all(recorder: &Recorder, now: Instant) -> Vec<Row> {
    recorder.read(now, &Filter::default(), EVERYTHING).items
}

/// How many events each source has, how many were left out, and in how many entries that is said.
fn count(rows: &[Row]) -> BTreeMap<&str, (u64, u64, u64)> {
    let mut kept = BTreeMap::<&str, (u64, u64, u64)>::new();
    for row in rows {
        let of = kept.entry(row.source.as_deref().unwrap()).or_default();
        match row.what {
            "event" => {
                check_whole(row);
                of.0 += 1;
            }
            "left_out" => {
                of.1 += row.count.unwrap();
                of.2 += 1;
            }
            other => panic!("{other}"),
        }
    }
    kept
}

#[test]
fn every_event_of_many_threads_is_an_entry_or_counted_as_left_out() {
    const THREADS: u64 = 8;
    const SESSIONS: u64 = 5;
    const SECONDS: u32 = 20;
    // The last session of each thread sends nothing, the others 30, 60, 90 and 120 events a second.
    let rate = |session: u64| if session == SESSIONS - 1 { 0 } else { 30 * u32::try_from(session + 1).unwrap() };
    let start = start();
    let recorder = recorder(start, 64 << 20, 4);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (recorder, done) = (&recorder, &done);
        let reader = scope.spawn(move || {
            let mut read = 0;
            while !done.load(Ordering::Acquire) {
                for row in all(recorder, start).iter().filter(|row| row.what == "event") {
                    check_whole(row);
                    read += 1;
                }
            }
            read
        });
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    let paces: Vec<_> = (0..SESSIONS).map(|_| Pace::default()).collect();
                    for second in 0..SECONDS {
                        for (session, pace) in (0..SESSIONS).zip(&paces) {
                            let source = format!("app-{thread}-{session}");
                            for number in 0..rate(session) {
                                let now = start + Duration::from_secs(second.into());
                                let (topic, id) = (format!("T{}", number % 300), format!("id-{number}"));
                                let triple = Triple::new("Phone", &*topic, "Ring");
                                let record = Record {
                                    triple: Some(&triple),
                                    id: Some(&id),
                                    ..Record::of(who(1 + thread * SESSIONS + session, &source), event(number))
                                };
                                record_event(recorder, now, pace, &record);
                            }
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
        reader.join().unwrap();
    });

    let rows = all(&recorder, start + Duration::from_secs(SECONDS.into()));
    let mut kept = count(&rows);
    for thread in 0..THREADS {
        for session in 0..SESSIONS {
            let source = format!("app-{thread}-{session}");
            let found = kept.remove(&*source).unwrap_or_default();
            let (a_second, seconds) = (rate(session), u64::from(SECONDS));
            let left_out = a_second.saturating_sub(64);
            let expected = (
                u64::from(a_second.min(64)) * seconds,
                u64::from(left_out) * seconds,
                // One entry with the number of the rest of each second.
                if left_out > 0 { seconds } else { 0 },
            );
            assert_eq!(found, expected, "{source}");
        }
    }
    assert_eq!(kept, BTreeMap::new());
}

#[test]
fn sessions_that_send_too_much_in_turn_are_each_counted_exactly() {
    // More than a ring has at hand, and more than it counts at the same time.
    const SESSIONS: u64 = 300;
    let now = start();
    let recorder = recorder(now, 16 << 20, 1);
    let paces: Vec<_> = (0..SESSIONS).map(|_| Pace::default()).collect();
    for number in 0..80 {
        let (topic, id) = (format!("T{number}"), format!("id-{number}"));
        let triple = Triple::new("Phone", &*topic, "Ring");
        for (session, pace) in (1..).zip(&paces) {
            let source = format!("app-{session}");
            let of = Record::of(who(session, &source), event(number));
            let record = Record { triple: Some(&triple), id: Some(&id), ..of };
            record_event(&recorder, now, pace, &record);
        }
    }
    let rows = all(&recorder, now);
    let kept = count(&rows);
    assert_eq!(kept.len(), 300);
    assert!(kept.values().all(|of| *of == (64, 16, 1)), "{kept:?}");
}

#[test]
fn the_rings_stay_within_their_memory_whatever_is_written() {
    const BYTES: usize = 2 << 20;
    let now = start();
    let recorder = recorder(now, BYTES, 2);
    assert_eq!(recorder.bytes(), 0, "an idle recorder holds nothing");
    let long = "n".repeat(128);
    let mut most = 0;
    for number in 1..40_000_u64 {
        let source = format!("{number}{long}");
        let triple = Triple::new(&*source, &*long, &*long);
        let what = What::Event { receivers: 0, bytes: 0, offset: 0, is_duplicate: false };
        let record = Record { triple: Some(&triple), id: Some(&long), ..Record::of(who(number, &source), what) };
        record_event(&recorder, now, &Pace::default(), &record);
        recorder.record(now, &record);
        if number % 100 == 0 {
            most = most.max(recorder.bytes());
        }
    }
    assert!(most <= BYTES, "{most} bytes");
    // One worker wrote, into half of what there is.
    assert!(most > BYTES / 4, "{most} bytes");
}

#[test]
fn an_answer_says_how_far_back_each_ring_reaches() {
    let now = start();
    let recorder = recorder(now, 1 << 20, 1);
    let second = |number: u32| now + Duration::from_secs(number.into());
    let epoch = "1970-01-01T00:00:00.000000Z";
    let reach = || recorder.reach();
    assert_eq!((&*reach().important, &*reach().events), (epoch, epoch));
    recorder.record(now, &Record::of(who(1, "first"), What::Registered));
    for number in 0..20_000 {
        let record = Record::of(who(2, "busy"), event(number));
        record_event(&recorder, second(number), &Pace::default(), &record);
    }
    let answer = recorder.read(second(20_000), &Filter::default(), EVERYTHING);
    assert_eq!(answer.reach.important, epoch);
    let oldest = answer.items.iter().find(|row| row.what == "event").unwrap();
    assert_eq!(answer.reach.events, oldest.at);
    assert_ne!(answer.reach.events, epoch);
    assert!(answer.items.iter().any(|row| row.source.as_deref() == Some("first")), "the rare ring has lost nothing");
    let last = recorder.read(second(20_000), &Filter::default(), 3);
    assert_eq!(last.items, answer.items[answer.items.len() - 3..]);
    assert_eq!(last.older, answer.items.len() - 3);
}

#[test]
fn entries_are_found_by_their_names_ids_and_codes() {
    let now = start();
    let recorder = recorder(now, 1 << 20, 2);
    let (phone, crm) = (who(1, "phone"), Who { user: Some("bob"), ..who(2, "crm") });
    let triple = Triple::new("Phone", "Call", "Ring");
    let long = format!("{}a", "x".repeat(60));
    let record = |who, what| Record { triple: Some(&triple), ..Record::of(who, what) };
    let at = |millis| now + Duration::from_millis(millis);
    recorder.record(at(0), &Record::of(phone, What::Registered));
    recorder.record_refusal(at(1), &Record { id: Some("7"), ..record(phone, What::Refused(ErrorCode::Forbidden)) });
    record_event(&recorder, at(2), &Pace::default(), &Record { id: Some(&long), ..record(crm, event(1)) });
    let request = What::Request {
        name: *b"rABCDEFGH",
        outcome: switchboard::telemetry::recorder::RequestOutcome::Answered,
        code: None,
        micros: 1500,
    };
    recorder.record(at(3), &Record { peer: Some(crm), id: Some("8"), ..record(phone, request) });
    recorder.record(at(4), &Record::of(phone, What::Closed { code: Some(4410), why: "kicked" }));

    let found = |filter: Filter| -> Vec<&str> {
        recorder.read(now, &filter, EVERYTHING).items.iter().map(|row| row.what).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    let filter = Filter::default;
    assert_eq!(found(filter()), ["registered", "refused", "event", "request", "closed"]);
    assert_eq!(found(Filter { source: some("crm"), ..filter() }), ["event", "request"], "a handler's requests too");
    assert_eq!(found(Filter { source: some("crm"), user: some("alice"), ..filter() }), [""; 0]);
    assert_eq!(found(Filter { user: some("bob"), ..filter() }), ["event", "request"]);
    let session = recorder.read(now, &filter(), 1).items[0].session.clone();
    assert_eq!(found(Filter { session, ..filter() }), ["registered", "refused", "request", "closed"]);
    assert_eq!(found(Filter { channel: some("Phone"), ..filter() }), ["refused", "event", "request"]);
    assert_eq!(found(Filter { id: some("7"), ..filter() }), ["refused"]);
    assert_eq!(found(Filter { id: some("8"), ..filter() }), ["request"]);
    assert_eq!(found(Filter { id: some("rABCDEFGH"), ..filter() }), ["request"]);
    assert_eq!(found(Filter { code: some("FORBIDDEN"), ..filter() }), ["refused"]);
    assert_eq!(found(Filter { code: some("4410"), ..filter() }), ["closed"]);
    // A long id is known whole, although only its beginning is kept.
    assert_eq!(found(Filter { id: Some(long.clone()), ..filter() }), ["event"]);
    assert_eq!(found(Filter { id: Some(long.replace('a', "b")), ..filter() }), [""; 0]);
    let row = &recorder.read(now, &Filter { id: Some(long), ..filter() }, 1).items[0];
    assert!(row.id_cut && "x".repeat(60).starts_with(row.id.as_deref().unwrap()), "{row:?}");
}

#[test]
fn those_who_follow_get_each_entry_once_and_are_told_what_they_missed() {
    let now = start();
    let recorder = recorder(now, 1 << 20, 2);
    recorder.record(now, &Record::of(who(1, "before"), What::Registered));
    let mut cursor = recorder.end();
    let next = |now, cursor: &mut _| {
        let (rows, lost) = recorder.read_on(now, &Filter::default(), cursor);
        (rows.into_iter().map(|row| (row.what, row.count.unwrap_or(1))).collect::<Vec<_>>(), lost)
    };
    assert_eq!(next(now, &mut cursor), (vec![], 0));
    let pace = Pace::default();
    for number in 0..100 {
        record_event(&recorder, now, &pace, &Record::of(who(2, "busy"), event(number)));
    }
    assert_eq!(next(now, &mut cursor), (vec![("event", 1); 64], 0));
    assert_eq!(next(now, &mut cursor), (vec![], 0), "the second is not over");
    let later = now + Duration::from_secs(1);
    assert_eq!(next(later, &mut cursor), (vec![("left_out", 36)], 0));
    assert_eq!(next(later, &mut cursor), (vec![], 0));
    for number in 0..50_000 {
        record_event(&recorder, later, &Pace::default(), &Record::of(who(2, "busy"), event(number)));
    }
    let (rows, lost) = next(later, &mut cursor);
    assert_eq!(rows.len() as u64 + lost, 50_000);
    assert!(lost > 0);
}

fn refusal(who: Who<'_>) -> Record<'_> {
    Record::of(who, What::Refused(ErrorCode::Unauthenticated))
}

#[test]
fn refusals_of_clients_without_a_session_are_limited_together_and_by_address() {
    let now = start();
    let recorder = recorder(now, 1 << 20, 1);
    for number in 0..100_u8 {
        let name = format!("stranger-{number}");
        let stranger = Who { number: 0, session: [0; 16], source: &name, user: None };
        // The first address sends 50 of them, which leave room for the others.
        let address = IpAddr::from([10, 0, 0, number.saturating_sub(50)]);
        recorder.record_stranger(now, address, &refusal(stranger));
    }
    let rows = all(&recorder, now);
    let (last, refused) = rows.split_last().unwrap();
    assert!(refused[..16].iter().enumerate().all(|(at, row)| row.source == Some(format!("stranger-{at}"))));
    assert_eq!((refused.len(), refused[16].source.as_deref()), (64, Some("stranger-51")));
    assert_eq!((last.what, last.count, &last.source), ("left_out", Some(36), &None));
}

#[test]
fn what_many_threads_record_of_one_source_is_an_entry_or_counted_as_left_out() {
    const THREADS: u64 = 8;
    const EACH: u64 = 200;
    let now = start();
    let recorder = recorder(now, 16 << 20, 4);
    let (nothing, event) = (Triple::new("Phone", "Call", "Ring"), |triple| Published {
        triple,
        mark: None,
        id: None,
        receivers: 1,
        bytes: Some(3),
        offset: 7,
        is_duplicate: false,
    });
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (recorder, nothing) = (&recorder, &nothing);
            scope.spawn(move || {
                for number in 0..EACH {
                    // Each call over HTTP is another session.
                    let call = who(1 + thread * EACH + number, "cron");
                    recorder.record_call(now, &call, &event(nothing));
                    recorder.record_refusal(now, &refusal(call));
                    recorder.record(now, &Record::of(call, What::Registered));
                }
            });
        }
    });
    let rows = all(&recorder, now);
    let of = |what: &str| rows.iter().filter(|row| row.what == what).count() as u64;
    assert_eq!((of("event"), of("refused"), of("registered")), (64, 64, 256));
    let left_out = rows.iter().filter(|row| row.what == "left_out").map(|row| {
        assert_eq!((row.source.as_deref(), row.user.as_deref(), &row.session), (Some("cron"), Some("alice"), &None));
        row.count.unwrap()
    });
    assert_eq!(left_out.sum::<u64>(), 3 * THREADS * EACH - 64 - 64 - 256);
}

#[test]
fn a_recorder_that_is_turned_off_keeps_nothing() {
    let now = start();
    let recorder = Recorder::off(now);
    recorder.record(now, &Record::of(who(1, "phone"), What::Registered));
    record_event(&recorder, now, &Pace::default(), &Record::of(who(1, "phone"), event(1)));
    assert!(!recorder.is_on() && all(&recorder, now).is_empty());
}

#[test]
fn a_smaller_size_drops_the_oldest_and_a_larger_one_keeps_more() {
    let now = start();
    let recorder = recorder(now, 8 << 20, 1);
    let write = |from: u32| {
        for number in from..from + 20_000 {
            record_event(&recorder, now, &Pace::default(), &Record::of(who(1, "phone"), event(number)));
        }
        all(&recorder, now)
    };
    let kept = write(0);
    assert_eq!(kept.len(), 20_000);
    recorder.set_bytes(1);
    let fewer = all(&recorder, now);
    assert!(!fewer.is_empty() && fewer.len() < 10_000 && recorder.bytes() <= BYTES_MIN, "{}", fewer.len());
    assert_eq!(fewer.last().unwrap().receivers, Some(19_999));
    assert_eq!(fewer, kept[kept.len() - fewer.len()..]);
    recorder.set_bytes(0);
    assert!(!recorder.is_on() && all(&recorder, now).is_empty());
    assert!(write(20_000).is_empty());
    recorder.set_bytes(8 << 20);
    let rows = write(40_000);
    assert_eq!((rows.len(), rows[0].receivers), (20_000, Some(40_000)));
}

/// Threads write while the size changes from large to small, to nothing and back. Once it is large again, nothing is lost.
#[test]
fn nothing_is_torn_or_lost_for_good_while_the_size_changes() {
    const THREADS: u32 = 4;
    const EACH: u32 = 5_000;
    let now = start();
    let recorder = recorder(now, 16 << 20, 4);
    let write = |thread: u32| {
        for number in thread * EACH..(thread + 1) * EACH {
            let (id, topic) = (format!("id-{number}"), format!("T{}", number % 300));
            let triple = Triple::new("Phone", &*topic, "Ringing");
            let record = Record { triple: Some(&triple), id: Some(&id), ..Record::of(who(1, "phone"), event(number)) };
            record_event(&recorder, now, &Pace::default(), &record);
        }
    };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || write(thread))).collect();
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for bytes in [1, 0, 16 << 20, 2 << 20] {
                    recorder.set_bytes(bytes);
                    all(&recorder, now).iter().for_each(check_whole);
                }
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    recorder.set_bytes(0);
    assert!(all(&recorder, now).is_empty());
    recorder.set_bytes(16 << 20);
    std::thread::scope(|scope| (0..THREADS).for_each(|thread| drop(scope.spawn(move || write(thread)))));
    let rows = all(&recorder, now);
    rows.iter().for_each(check_whole);
    assert_eq!(rows.len(), (THREADS * EACH) as usize);
}
