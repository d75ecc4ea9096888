//! The memory of all outboxes: a frame counts once however many queues it is in, and nothing stays counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use switchboard::config::Config;
use switchboard::router::{OnFull, Outbox, OutboxLimits, Session};
use switchboard::websocket::{Frame, FrameMemory};

use crate::support::core::{Core, WIDE, event};

fn outboxes(memory: &Arc<FrameMemory>, limits: OutboxLimits, count: usize) -> Vec<Outbox> {
    (0..count).map(|_| Outbox::new(limits).with_memory(Arc::clone(memory))).collect()
}

#[test]
fn a_frame_in_many_queues_counts_once() {
    let core = Core::new(&Config::default());
    let memory = FrameMemory::new(1 << 20);
    let outboxes = outboxes(&memory, WIDE, 100);
    let frame = Frame::new(&"x".repeat(1000));
    assert_eq!(memory.bytes(), 0);
    outboxes[0].push(core.now, frame.clone(), OnFull::Close).unwrap();
    let of_one = memory.bytes();
    assert!((1000..1200).contains(&of_one), "{of_one}");
    for outbox in &outboxes[1..] {
        outbox.push(core.now, frame.clone(), OnFull::Close).unwrap();
    }
    assert_eq!(memory.bytes(), of_one);
    outboxes[0].push(core.now, Frame::new(&"y".repeat(1000)), OnFull::Close).unwrap();
    assert_eq!(memory.bytes(), 2 * of_one);
    drop(frame);
    let (mut taken, last) = (Vec::new(), outboxes.last().unwrap());
    for outbox in &outboxes[..99] {
        outbox.take(core.now, 1, &mut taken);
    }
    taken.clear();
    assert_eq!(memory.bytes(), 2 * of_one, "the last queue has the first frame, the first queue another");
    last.take(core.now, 1, &mut taken);
    assert_eq!(memory.bytes(), 2 * of_one, "it is about to be written");
    taken.clear();
    assert_eq!(memory.bytes(), of_one);
    drop(outboxes);
    assert_eq!((memory.bytes(), memory.is_exceeded(0)), (0, false));
}

#[test]
fn the_session_with_the_longest_queue_ends_first() {
    let core = Core::new(&Config::default());
    let publisher = core.attach("publisher", Some("alice"));
    assert!(!core.router.end_longest_queue(), "nothing waits");
    let sessions: Vec<_> = (0..3).map(|_| core.attach("gadget", Some("alice"))).collect();
    // The second one gets most, the first and the third the same.
    for (session, patterns) in sessions.iter().zip([1, 2, 1]) {
        for topic in ["A", "B"].iter().take(patterns) {
            core.subscribe(session, &format!("News/{topic}/New"));
        }
        core.take(session);
    }
    for triple in ["News/A/New", "News/B/New"] {
        core.send(&publisher, &event(triple, "")).map_err(|denied| denied.refusal).unwrap();
    }
    for longest in [1, 0, 2] {
        let has_ended = |session: &Arc<Session>| session.outbox().ended().is_some();
        let before: Vec<_> = sessions.iter().map(has_ended).collect();
        assert!(core.router.end_longest_queue() && !before[longest], "{before:?}");
        let after: Vec<_> = sessions.iter().map(has_ended).collect();
        let newly: Vec<_> = (0..3).filter(|at| before[*at] != after[*at]).collect();
        assert_eq!(newly, [longest]);
        assert!(sessions[longest].outbox().is_empty());
    }
    assert!(!core.router.end_longest_queue());
}

#[test]
fn many_threads_leave_no_byte_counted() {
    const ROUNDS: usize = 2_000;
    let core = Core::new(&Config::default());
    let memory = FrameMemory::new(1 << 10);
    let narrow = OutboxLimits { messages: 64, bytes: 1 << 20, refuses: false };
    let mut all = outboxes(&memory, narrow, 8);
    all.extend(outboxes(&memory, WIDE, 8));
    let outboxes = all;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let publishers: Vec<_> = (0..4)
            .map(|publisher| {
                let (core, outboxes) = (&core, &outboxes);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let frame = Frame::join(&[&"x".repeat(round % 300)], (round + publisher).is_multiple_of(5));
                        let on_full = if round.is_multiple_of(2) { OnFull::Drop } else { OnFull::Close };
                        for outbox in outboxes.iter().skip(round % 5) {
                            outbox.push(core.now, frame.clone(), on_full).ok();
                        }
                    }
                })
            })
            .collect();
        for taker in 0..3 {
            let (core, outboxes, over) = (&core, &outboxes, &over);
            scope.spawn(move || {
                let mut frames = Vec::new();
                while !over.load(Ordering::SeqCst) {
                    for outbox in outboxes.iter().skip(taker).step_by(3) {
                        outbox.take(core.now, 7, &mut frames);
                    }
                    frames.clear();
                }
            });
        }
        for publisher in publishers {
            publisher.join().unwrap();
        }
        over.store(true, Ordering::SeqCst);
    });
    let mut frames = Vec::new();
    for outbox in &outboxes {
        outbox.take(core.now, usize::MAX, &mut frames);
    }
    let held: usize = memory.bytes();
    assert_eq!(held == 0, frames.is_empty());
    drop(frames);
    assert_eq!(memory.bytes(), 0);
}
