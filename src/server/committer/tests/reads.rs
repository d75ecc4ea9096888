//! The threads that read and watch, with a disk that hangs while it is read.

use std::task::{Context, Poll};

use wire::command::Recover;

use super::*;
use crate::router::{End, Found};

/// The events of the log.
const EVENTS: usize = 60;

/// A broker after a restart. Only the last events of its log are in memory.
fn restarted() -> Stage {
    let mut config = config();
    config.history.bytes = 4500;
    config.history.timeout = DEADLINE;
    let stage = Stage::new(&config);
    let cti = session(&stage.router, "cti");
    let text = "x".repeat(500);
    for number in 1..=EVENTS {
        assert_eq!(outcome(publish(&stage.router, &cti, number, &text)), Ok(number as u64));
    }
    let disk = stage.disk.kill();
    disk.cache_nothing();
    stage.committer.stop();
    config.history.timeout = Duration::from_secs(1);
    Stage::on(disk, &config)
}

/// Lets the disk fail for a moment, so that the file is opened again.
fn fail_shortly(stage: &Stage) {
    stage.disk.fail_after(0);
    let cti = session(&stage.router, "cti");
    assert_eq!(outcome(publish(&stage.router, &cti, 0, "")), Err(ErrorCode::StorageUnavailable));
    stage.disk.heal();
    stage.wait_until_failing(false);
}

/// Subscribes to all that is kept. Waits for the disk, if that is needed.
fn recover(router: &Router, session: &Arc<Session>) -> Result<(), ErrorCode> {
    let wanted = Subscribe {
        recover: Some(Recover::Last(u64::MAX)),
        ..Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber)
    };
    let mut found: Option<Found> = None;
    loop {
        let ticket = router.subscribe_when_read(now(), session, &wanted, found.take(), |_| None);
        match ticket.map_err(|refusal| refusal.code)? {
            None => return Ok(()),
            Some(mut ticket) => found = Some(wait(|cx| ticket.poll(cx))),
        }
    }
}

/// Waits for what the disk has to do, or is given up.
fn wait<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let outcome = runtime.block_on(async { timeout(DEADLINE, poll_fn(|cx| poll(cx))).await });
    outcome.expect("a subscription waits for longer than it may")
}

/// Takes what a session is sent, until it has all events or ends. Returns how many it has.
fn take(router: &Router, session: &Session) -> usize {
    let (outbox, mut frames) = (session.outbox(), Vec::new());
    while frames.len() < EVENTS && outbox.ended().is_none() {
        wait(|cx| outbox.poll_ready(cx));
        let Some(mut replay) = outbox.take(now(), usize::MAX, &mut frames).and_then(|taken| taken.replay) else {
            continue;
        };
        if !router.pull(&mut replay, usize::MAX, &mut frames) {
            outbox.put_back(replay);
        }
    }
    frames.len()
}

#[test]
fn a_subscription_does_not_wait_for_a_disk_that_hangs() {
    let stage = restarted();
    let agents = ["agent", "other"].map(|source| session(&stage.router, source));
    stage.disk.hang_reads();
    thread::scope(|scope| {
        let outcomes = agents.each_ref().map(|agent| scope.spawn(|| recover(&stage.router, agent)));
        for outcome in outcomes {
            assert_eq!(outcome.join().unwrap(), Err(ErrorCode::StorageUnavailable));
        }
    });
    assert_eq!(recover(&stage.router, &agents[0]), Err(ErrorCode::StorageUnavailable), "it hangs still");
    stage.disk.heal();
    let until = now() + DEADLINE;
    while recover(&stage.router, &agents[1]).is_err() {
        assert!(now() < until, "the disk is never read again");
    }
    assert_eq!(take(&stage.router, &agents[1]), EVENTS);
}

#[test]
fn a_replay_goes_on_after_a_short_fault_and_does_not_wait_for_a_disk_that_hangs() {
    let stage = restarted();
    let [early, late] = ["early", "late"].map(|source| session(&stage.router, source));
    assert_eq!([&early, &late].map(|agent| recover(&stage.router, agent)), [Ok(()); 2]);
    // The state of the file that they have read is released.
    fail_shortly(&stage);
    assert_eq!(take(&stage.router, &early), EVENTS);
    stage.disk.hang_reads();
    assert!(take(&stage.router, &late) < EVENTS);
    assert!(matches!(late.outbox().ended(), Some(End::Close(..))), "its session ends");
    let mut last = Vec::new();
    late.outbox().take(now(), usize::MAX, &mut last);
    assert!(last.iter().any(|frame| frame.text().contains("STORAGE_UNAVAILABLE")), "its last message says why");
    stage.disk.heal();
}

#[test]
fn many_subscriptions_of_a_disk_that_hangs_are_all_answered() {
    const SUBSCRIBERS: usize = 8;
    let stage = &restarted();
    let refused = &AtomicUsize::new(0);
    stage.disk.hang_reads();
    thread::scope(|scope| {
        let subscribers = (0..SUBSCRIBERS).map(|number| {
            scope.spawn(move || {
                let agent = session(&stage.router, &format!("agent {number}"));
                while let Err(code) = recover(&stage.router, &agent) {
                    assert_eq!(code, ErrorCode::StorageUnavailable);
                    refused.fetch_add(1, Ordering::Relaxed);
                }
                take(&stage.router, &agent)
            })
        });
        let subscribers: Vec<_> = subscribers.collect();
        let until = now() + DEADLINE;
        while refused.load(Ordering::Relaxed) < 3 * SUBSCRIBERS {
            assert!(now() < until, "subscriptions wait for longer than they may");
            thread::yield_now();
        }
        stage.disk.heal();
        for subscriber in subscribers {
            assert_eq!(subscriber.join().unwrap(), EVENTS);
        }
    });
}
