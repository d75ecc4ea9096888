//! [`Outgoing`]: numbers and window of the messages to one peer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Number;
use super::packet::{PART_HEAD_BYTES, PARTS_MAX, Part, Start};

/// What a part takes in the window beside its bytes.
const PART_COST: usize = 64;

/// Bytes that are sent and not acknowledged: a server that gets more at once ends the connection of a slow subscriber.
const FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The same at first, and while the peer is slow. Beats wait behind what is under way, so this much must take far less time
/// than that after which a peer is lost, also on a machine that is busy, and without optimisation.
const FLIGHT_BYTES_MIN: usize = 128 * 1024;

/// If an acknowledgement takes longer, less may be under way; if it is faster than half of that, more.
const SLOW: Duration = Duration::from_millis(200);

/// How often everything unacknowledged is sent again. Receivers ask half as often at most.
const RESEND_EVERY: Duration = Duration::from_millis(25);

/// Numbers and window of the messages to one incarnation of a peer.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Unacknowledged parts; their numbers count up from `first`.
    window: VecDeque<Part>,
    first: u64,
    window_bytes: usize,
    window_bytes_max: usize,
    part_bytes_max: usize,
    acknowledged: u64,
    /// How many parts of the window were sent since it was last sent again, and their bytes.
    sent: usize,
    sent_bytes: usize,
    /// How many bytes may be sent and not acknowledged.
    flight_bytes: usize,
    /// The greatest number that was ever sent.
    sent_max: u64,
    resent_at: Option<Instant>,
}

/// The window has no room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded;

impl Outgoing {
    pub(super) fn new(window_bytes_max: usize, part_bytes_max: usize) -> Self {
        Self {
            window: VecDeque::new(),
            first: 1,
            window_bytes: 0,
            window_bytes_max,
            part_bytes_max: part_bytes_max.max(1),
            acknowledged: 0,
            sent: 0,
            sent_bytes: 0,
            flight_bytes: FLIGHT_BYTES_MIN,
            sent_max: 0,
            resent_at: None,
        }
    }

    /// Queues a message under the next numbers, and returns the first and the last one. Nothing is queued if it does not fit.
    pub(super) fn queue(&mut self, start: Start, mut message: Bytes) -> Result<(Number, Number), Exceeded> {
        let parts = message.len().div_ceil(self.part_bytes_max).max(1);
        let bytes = message.len() + parts * PART_COST;
        if self.window_bytes + bytes > self.window_bytes_max {
            return Err(Exceeded);
        }
        let from = self.queued() + 1;
        let mut start = start;
        loop {
            let piece = message.split_to(message.len().min(self.part_bytes_max));
            let last = message.is_empty();
            self.window.push_back(Part { start, last, bytes: piece.into() });
            start = Start::Continues;
            if last {
                break;
            }
        }
        self.window_bytes += bytes;
        Ok((Number(from), Number(self.queued())))
    }

    /// Drops the window. The numbers in it are never used again.
    pub(super) fn clear(&mut self) {
        self.first = self.queued() + 1;
        self.window.clear();
        (self.window_bytes, self.sent, self.sent_bytes, self.resent_at) = (0, 0, 0, None);
    }

    /// Continues after a number that the peer has taken, if this node has forgotten that. The window is empty.
    pub(super) fn continue_after(&mut self, taken: u64) {
        if self.window.is_empty() {
            self.first = self.first.max(taken.saturating_add(1));
            self.sent_max = self.sent_max.max(taken);
            self.acknowledged = self.acknowledged.max(taken);
        }
    }

    /// Drops what the peer has taken. Returns whether that is more than before.
    pub(super) fn acknowledge(&mut self, number: u64) -> bool {
        if number <= self.acknowledged || number > self.sent_max {
            return false;
        }
        self.acknowledged = number;
        while self.first <= number
            && let Some(part) = self.window.pop_front()
        {
            let cost = cost(&part);
            self.first += 1;
            self.window_bytes -= cost;
            // A part that was sent before, and is acknowledged before it was sent again.
            if self.sent > 0 {
                self.sent -= 1;
                self.sent_bytes -= cost;
            }
        }
        true
    }

    /// Lets more or less be under way. `delay`: how long after something was sent the peer acknowledged more than before.
    pub(super) fn adapt(&mut self, delay: Duration) {
        if delay > SLOW {
            self.flight_bytes = (self.flight_bytes / 2).max(FLIGHT_BYTES_MIN);
        } else if delay < SLOW / 2 {
            self.flight_bytes = (self.flight_bytes * 2).min(FLIGHT_BYTES_MAX);
        }
    }

    /// Sends everything unacknowledged again. The peer has asked for it, when it had seen what was sent before `made`. If that is
    /// not what was sent again last, it is still on its way: a slow peer must not get it a third time.
    pub(super) fn resend(&mut self, now: Instant, made: Option<Instant>) {
        let has_seen = |at: Instant| made.is_some_and(|made| made >= at);
        if self.resent_at.is_none_or(|at| now >= at + RESEND_EVERY && has_seen(at)) {
            self.resent_at = Some(now);
            (self.sent, self.sent_bytes) = (0, 0);
        }
    }

    /// Returns whether a part may be sent now.
    pub(super) fn is_ready(&self) -> bool {
        self.sent < self.window.len() && (self.sent == 0 || self.sent_bytes < self.flight_bytes)
    }

    /// Takes the parts for the next packet, with `room` bytes for them, and returns the number of the first one and how many
    /// of them were sent before. [`Outgoing::sent`] includes them afterwards.
    pub(super) fn fill(&mut self, room: usize, mut write: impl FnMut(&Part)) -> Filled {
        // What goes in one packet is acknowledged at once.
        let room = room.min(self.flight_bytes / 2);
        let first = self.first + self.sent as u64;
        let (mut used, mut parts) = (0, 0);
        while parts < PARTS_MAX
            && self.is_ready()
            && let Some(part) = self.window.get(self.sent)
        {
            used += PART_HEAD_BYTES + part.bytes.len();
            if used > room && parts > 0 {
                break;
            }
            write(part);
            parts += 1;
            self.sent += 1;
            self.sent_bytes += cost(part);
        }
        let resent = (self.sent_max + 1).saturating_sub(first).min(parts as u64);
        self.sent_max = self.sent_max.max(self.sent());
        Filled { first, resent }
    }

    /// The bytes that [`Outgoing::fill`] would take at most.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.window_bytes - self.sent_bytes
    }

    /// The last number that was sent since everything was sent again.
    pub(super) fn sent(&self) -> u64 {
        self.first + self.sent as u64 - 1
    }

    /// The last number that was given to a part.
    pub(super) fn queued(&self) -> u64 {
        self.first + self.window.len() as u64 - 1
    }

    /// The last number that the peer has taken.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// The size of the window, with what each part costs.
    pub(super) fn window_bytes(&self) -> usize {
        self.window_bytes
    }
}

/// What [`Outgoing::fill`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    /// The number of the first part.
    pub(super) first: u64,
    /// Parts that were sent before.
    pub(super) resent: u64,
}

fn cost(part: &Part) -> usize {
    part.bytes.len() + PART_COST
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::bus::start;

    const PART: usize = 10;

    fn outgoing(parts_max: usize) -> Outgoing {
        Outgoing::new(parts_max * (PART + PART_COST), PART)
    }

    fn queue(outgoing: &mut Outgoing, length: usize) -> Result<u64, Exceeded> {
        outgoing.queue(Start::Message, Bytes::from(vec![7; length])).map(|(_, last)| last.0)
    }

    /// The numbers in the next packet, with room for `parts` parts.
    fn sent(outgoing: &mut Outgoing, parts: usize) -> Vec<u64> {
        let mut count = 0;
        let filled = outgoing.fill(parts * (PART + PART_HEAD_BYTES), |_| count += 1);
        (filled.first..).take(count).collect()
    }

    #[test]
    fn a_long_message_is_cut_and_has_the_number_of_its_last_part() {
        let mut outgoing = outgoing(10);
        assert_eq!(queue(&mut outgoing, 0), Ok(1));
        assert_eq!(queue(&mut outgoing, PART), Ok(2));
        assert_eq!(queue(&mut outgoing, 2 * PART + 1), Ok(5));
        let mut parts = Vec::new();
        outgoing.fill(usize::MAX, |part| parts.push((part.start, part.last, part.bytes.len())));
        let (begins, continues) = (Start::Message, Start::Continues);
        let expected =
            [(begins, true, 0), (begins, true, 10), (begins, false, 10), (continues, false, 10), (continues, true, 1)];
        assert_eq!(parts, expected);
    }

    #[test]
    fn parts_are_joined_as_far_as_there_is_room_and_sent_once() {
        let mut outgoing = outgoing(10);
        for _ in 0..5 {
            queue(&mut outgoing, PART).unwrap();
        }
        assert_eq!(sent(&mut outgoing, 2), [1, 2]);
        assert_eq!(sent(&mut outgoing, 0), [3], "a packet has one part at least");
        assert_eq!(sent(&mut outgoing, 9), [4, 5]);
        assert!(!outgoing.is_ready() && sent(&mut outgoing, 9).is_empty());
        assert_eq!((outgoing.sent(), outgoing.queued()), (5, 5));
    }

    #[test]
    fn what_is_unacknowledged_is_sent_again_when_the_peer_asks() {
        let (start, mut outgoing) = (start(), outgoing(10));
        for _ in 0..5 {
            queue(&mut outgoing, PART).unwrap();
        }
        sent(&mut outgoing, 4);
        assert!(outgoing.acknowledge(2));
        outgoing.resend(start, None);
        assert_eq!(outgoing.sent(), 2);
        let mut count = 0;
        assert_eq!(outgoing.fill(usize::MAX, |_| count += 1), Filled { first: 3, resent: 2 });
        assert_eq!(count, 3);
        outgoing.resend(start + RESEND_EVERY / 2, Some(start));
        assert!(!outgoing.is_ready(), "asked again at once");
        for made in [None, start.checked_sub(RESEND_EVERY)] {
            outgoing.resend(start + RESEND_EVERY, made);
            assert!(!outgoing.is_ready(), "asked before it could see what was sent again");
        }
        outgoing.resend(start + RESEND_EVERY, Some(start));
        assert!(outgoing.acknowledge(4), "acknowledged before it was sent again");
        assert_eq!(sent(&mut outgoing, 9), [5]);
    }

    #[test]
    fn less_is_under_way_to_a_slow_peer_and_more_to_a_fast_one() {
        const MESSAGE: usize = 64 * 1024;
        let mut outgoing = Outgoing::new(200 * MESSAGE, MESSAGE);
        for _ in 0..200 {
            queue(&mut outgoing, MESSAGE - PART_COST).unwrap();
        }
        let mut flight = |delays: &[Duration]| {
            for delay in delays {
                outgoing.adapt(*delay);
            }
            while outgoing.is_ready() {
                sent(&mut outgoing, MESSAGE);
            }
            let flight = outgoing.sent_bytes;
            assert!(outgoing.acknowledge(outgoing.sent()));
            flight
        };
        assert_eq!(flight(&[]), FLIGHT_BYTES_MIN);
        assert_eq!(flight(&[Duration::ZERO; 1]), 2 * FLIGHT_BYTES_MIN);
        assert_eq!(flight(&[Duration::ZERO; 9]), FLIGHT_BYTES_MAX);
        assert_eq!(flight(&[SLOW]), FLIGHT_BYTES_MAX, "not slow enough, and not fast");
        assert_eq!(flight(&[SLOW + SLOW / 9; 9]), FLIGHT_BYTES_MIN);
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_ignored() {
        let mut outgoing = outgoing(10);
        queue(&mut outgoing, PART).unwrap();
        queue(&mut outgoing, PART).unwrap();
        sent(&mut outgoing, 1);
        assert!(!outgoing.acknowledge(2) && !outgoing.acknowledge(u64::MAX));
        assert!(outgoing.acknowledge(1) && !outgoing.acknowledge(1), "the second time");
        assert_eq!(outgoing.acknowledged(), 1);
    }

    #[test]
    fn a_message_that_exceeds_the_window_is_not_queued_at_all() {
        let mut outgoing = outgoing(3);
        assert_eq!(queue(&mut outgoing, 2 * PART), Ok(2));
        assert_eq!(queue(&mut outgoing, 2 * PART), Err(Exceeded));
        assert_eq!(queue(&mut outgoing, PART), Ok(3));
        assert_eq!(queue(&mut outgoing, 0), Err(Exceeded));
        sent(&mut outgoing, 9);
        assert!(outgoing.acknowledge(1));
        assert_eq!(queue(&mut outgoing, PART), Ok(4));
        assert_eq!(outgoing.window_bytes(), 3 * (PART + PART_COST));
    }

    #[test]
    fn a_number_is_never_used_again() {
        let mut outgoing = outgoing(10);
        queue(&mut outgoing, PART).unwrap();
        sent(&mut outgoing, 9);
        queue(&mut outgoing, PART).unwrap();
        outgoing.clear();
        assert_eq!((outgoing.window_bytes(), outgoing.is_ready()), (0, false));
        assert_eq!(queue(&mut outgoing, PART), Ok(3));
        assert!(outgoing.acknowledge(1), "an acknowledgement of what was dropped");
        assert_eq!(sent(&mut outgoing, 9), [3]);
        outgoing.clear();
        outgoing.continue_after(40);
        assert_eq!(queue(&mut outgoing, PART), Ok(41));
        outgoing.clear();
        outgoing.continue_after(7);
        assert_eq!(queue(&mut outgoing, PART), Ok(42));
    }

    #[test]
    fn only_so_many_bytes_are_under_way_at_once() {
        let mut outgoing = Outgoing::new(usize::MAX, 1024 * 1024);
        for _ in 0..10 {
            queue(&mut outgoing, 1024 * 1024).unwrap();
        }
        outgoing.flight_bytes = FLIGHT_BYTES_MAX;
        let mut count = 0;
        while outgoing.is_ready() {
            outgoing.fill(usize::MAX, |_| count += 1);
        }
        assert_eq!(count, 4);
        outgoing.acknowledge(1);
        outgoing.fill(usize::MAX, |_| count += 1);
        assert_eq!(count, 5);
    }
}
