//! The outbox against a plain list, and what patterns say of each other against trying every triple.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use switchboard::router::{End, OnFull, Outbox, OutboxLimits, Pressure, PushError, Taken, WakeBatch};
use switchboard::websocket::Frame;
use wire::{Pattern, Triple};

/// What may happen to a queue.
#[derive(Clone, Debug)]
enum Act {
    Push(OnFull, usize),
    Take(usize),
    WaitedInVain,
    Clock(u64),
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    let kind = prop_oneof![4 => Just(OnFull::Close), 3 => Just(OnFull::Drop)];
    prop_oneof![
        12 => (kind, 10..60_usize).prop_map(|(kind, len)| Act::Push(kind, len)),
        4 => (0..6_usize).prop_map(Act::Take),
        1 => Just(Act::WaitedInVain),
        2 => (0..900_u64).prop_map(Act::Clock),
        1 => Just(Act::Close),
    ]
}

/// The queue as protocol.md describes it (Pressure), in a list that is searched from the front.
#[expect(clippy::struct_excessive_bools, reason = "what has happened to a queue: any of it in any order")]
struct Plain {
    limits: OutboxLimits,
    queue: Vec<(OnFull, String)>,
    notices: Vec<String>,
    dropped: usize,
    warned: Option<Instant>,
    in_vain: bool,
    /// Publishers may have waited for it: it was over half once.
    was_over_half: bool,
    overflowed: bool,
    closed: bool,
}

impl Plain {
    fn counted(&self) -> (usize, usize) {
        self.queue.iter().fold((0, 0), |(messages, bytes), (_, text)| (messages + 1, bytes + text.len()))
    }

    fn fits(&self, len: usize) -> bool {
        let (messages, bytes) = self.counted();
        messages == 0 || (messages < self.limits.messages && bytes + len <= self.limits.bytes)
    }

    fn is_over_half(&self) -> bool {
        self.queue.len() * 2 > self.limits.messages || self.counted().1 * 2 > self.limits.bytes
    }

    fn push(&mut self, now: Instant, kind: OnFull, text: &str) -> Result<Pressure, PushError> {
        if self.closed || self.overflowed {
            return Err(PushError::Closed);
        }
        while !self.fits(text.len()) {
            let oldest = self.queue.iter().position(|(kind, _)| *kind == OnFull::Drop);
            match oldest {
                Some(oldest) => drop(self.queue.remove(oldest)),
                None if kind == OnFull::Drop => {}
                None if self.limits.refuses => return Err(PushError::Full),
                None => {
                    self.overflowed = true;
                    self.queue.clear();
                    return Err(PushError::Full);
                }
            }
            self.dropped += 1;
            if oldest.is_none() {
                return Err(PushError::Full);
            }
        }
        self.queue.push((kind, text.to_owned()));
        let (messages, bytes) = self.counted();
        let is_full = messages * 4 >= self.limits.messages * 3 || bytes * 4 >= self.limits.bytes * 3;
        let lately = self.warned.is_some_and(|warned| now - warned < Duration::from_secs(1));
        if is_full && !lately {
            self.warned = Some(now);
            // A warning that was not taken is replaced by the newer one.
            self.notices.retain(|notice| !notice.starts_with("lagging"));
            self.notices.push(format!("lagging {messages} {bytes}"));
        }
        self.was_over_half |= self.is_over_half();
        Ok(if self.is_over_half() && !self.in_vain { Pressure::Over } else { Pressure::Relieved })
    }

    fn take(&mut self, most: usize) -> Vec<String> {
        let mut taken = std::mem::take(&mut self.notices);
        if self.dropped > 0 {
            taken.push(format!("dropped {}", std::mem::take(&mut self.dropped)));
        }
        let most = most.min(self.queue.len());
        taken.extend(self.queue.drain(..most).map(|(_, text)| text));
        self.in_vain &= self.is_over_half();
        taken
    }
}

/// What was taken: notices about the queue, then its frames.
fn words(taken: &Taken, frames: &[Frame]) -> Vec<String> {
    let lagging = taken.lagging.map(|depth| format!("lagging {} {}", depth.messages, depth.bytes));
    let dropped = (taken.dropped > 0).then(|| format!("dropped {}", taken.dropped));
    lagging.into_iter().chain(dropped).chain(frames.iter().map(|frame| frame.text().to_owned())).collect()
}

proptest! {
    // A failure prints its input, which then becomes a test of its own.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn an_outbox_is_a_plain_list(
        acts in prop::collection::vec(act(), 0..60),
        messages in 1..9_usize,
        bytes in 40..400_usize,
        refuses in prop::bool::weighted(0.2),
    ) {
        let limits = OutboxLimits { messages, bytes, refuses };
        let outbox = Outbox::new(limits);
        let mut plain = Plain {
            limits, queue: Vec::new(), notices: Vec::new(), dropped: 0,
            warned: None, in_vain: false, was_over_half: false, overflowed: false, closed: false,
        };
        #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it is only added to")]
        let mut now = Instant::now();
        for (number, act) in acts.into_iter().enumerate() {
            match act {
                Act::Push(kind, len) => {
                    let text = format!("{number:-<len$}");
                    prop_assert_eq!(outbox.push(now, Frame::new(&text), kind), plain.push(now, kind, &text));
                }
                Act::Take(most) => {
                    let mut frames = Vec::new();
                    let taken = outbox.take(now, most, &mut frames);
                    prop_assert_eq!(words(&taken.unwrap_or_default(), &frames), plain.take(most));
                }
                Act::WaitedInVain => {
                    // Nothing was waited for, so no allowance is spent.
                    outbox.waited_in_vain(now);
                    plain.in_vain |= plain.was_over_half;
                }
                Act::Clock(ms) => now += Duration::from_millis(ms),
                Act::Close => {
                    outbox.end(End::Detached);
                    plain.closed |= !plain.overflowed;
                }
            }
            let depth = outbox.depth();
            prop_assert_eq!((depth.messages, depth.bytes), plain.counted());
            prop_assert_eq!(outbox.ended() == Some(End::Overflowed), plain.overflowed);
            prop_assert_eq!(outbox.is_over_half(), plain.is_over_half());
            let nothing = plain.queue.is_empty() && plain.notices.is_empty() && plain.dropped == 0;
            prop_assert_eq!(outbox.is_empty(), nothing);
        }
    }
}

#[test]
fn patterns_cover_and_overlap_as_their_triples_do() {
    let choose = |parts: &'static [&'static str]| {
        let two = move |first| parts.iter().map(move |second| (first, *second));
        parts.iter().flat_map(move |first| two(*first)).flat_map(move |(x, y)| parts.iter().map(move |z| [x, y, *z]))
    };
    let patterns: Vec<Pattern> = choose(&["*", "a", "A", "b"]).map(|parts| parts.join("/").parse().unwrap()).collect();
    // `c` stands for everything that no pattern names.
    let triples: Vec<Triple<'_>> = choose(&["a", "A", "b", "B", "c"]).map(|[x, y, z]| Triple::new(x, y, z)).collect();
    for one in &patterns {
        for other in &patterns {
            let mut others = triples.iter().filter(|triple| other.matches_any_case(triple));
            let (mut covers, mut overlaps) = (true, false);
            for both in others.by_ref().map(|triple| one.matches_any_case(triple)) {
                covers &= both;
                overlaps |= both;
            }
            assert_eq!(one.covers_any_case(other), covers, "{one} covers {other}");
            assert_eq!(one.overlaps_any_case(other), overlaps, "{one} overlaps {other}");
        }
        for triple in &triples {
            let parts =
                [(&one.channel, &triple.channel), (&one.topic, &triple.topic), (&one.subtopic, &triple.subtopic)];
            let same = |fold: bool| {
                let fits = |own: &str, part: &str| if fold { own.eq_ignore_ascii_case(part) } else { own == part };
                parts.iter().all(|(own, part)| own.as_deref().is_none_or(|own| fits(own, part)))
            };
            assert_eq!(
                (one.matches(triple), one.matches_any_case(triple)),
                (same(false), same(true)),
                "{one}, {triple}"
            );
        }
    }
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_burst_wakes_each_receiver_once_when_it_is_over() {
    let limits = OutboxLimits { messages: 100, bytes: 10_000, refuses: false };
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it does not move")]
    let now = Instant::now();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let outboxes = [Outbox::new(limits), Outbox::new(limits)];
    let push_all = || {
        for outbox in &outboxes {
            assert!(outbox.poll_ready(&mut Context::from_waker(&waker)).is_pending());
        }
        for outbox in outboxes.iter().cycle().take(6) {
            outbox.push(now, Frame::new("x"), OnFull::Close).unwrap();
        }
    };
    let take_all = || outboxes.iter().for_each(|outbox| drop(outbox.take(now, 100, &mut Vec::new())));
    for burst in 1..=2 {
        let batch = WakeBatch::begin();
        push_all();
        assert_eq!(woken.0.load(Ordering::SeqCst), 2 * (burst - 1), "they sleep on in burst {burst}");
        drop(batch);
        assert_eq!(woken.0.load(Ordering::SeqCst), 2 * burst);
        take_all();
    }
    push_all();
    assert_eq!(woken.0.load(Ordering::SeqCst), 6, "without a burst at once");
}
