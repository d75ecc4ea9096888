//! [`Timers`]: everything that a connection waits for by the clock, in one table.

use std::time::Instant;

/// What comes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The connection has to be registered.
    Registration,
    /// A registration that failed too often is answered.
    Delay,
    /// The verifier has to have answered a renewal.
    Renewal,
    /// The proof of who the session is ends, or has to be looked at.
    Proof,
    /// The next ping is due, or the peer has missed too many.
    Heartbeat,
    /// The pause ends: for the rate, or for receivers under pressure.
    Pause,
    /// The peer has taken nothing for too long.
    SlowConsumer,
    /// The connection closes for the restart, after one more look at its answers.
    Restart,
    /// The connection closes, because another node takes its session over.
    Move,
    /// Another node has to have handed a session over.
    Fetch,
}

const TIMERS: [Timer; 10] = [
    Timer::Registration,
    Timer::Delay,
    Timer::Renewal,
    Timer::Proof,
    Timer::Heartbeat,
    Timer::Pause,
    Timer::SlowConsumer,
    Timer::Restart,
    Timer::Move,
    Timer::Fetch,
];

/// When each timer fires, if it is set.
#[derive(Default)]
pub(super) struct Timers {
    at: [Option<Instant>; TIMERS.len()],
    /// The earliest of them: the driver asks for it in each of its turns.
    next: Option<Instant>,
}

impl Timers {
    /// Sets a timer, in place of what it was set to before.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        if let Some(place) = self.at.get_mut(timer as usize) {
            *place = Some(at);
            self.next = self.earliest();
        }
    }

    /// Stops a timer.
    pub(super) fn stop(&mut self, timer: Timer) {
        if let Some(place) = self.at.get_mut(timer as usize).filter(|place| place.is_some()) {
            *place = None;
            self.next = self.earliest();
        }
    }

    /// When a timer fires, if it is set.
    pub(super) fn get(&self, timer: Timer) -> Option<Instant> {
        self.at.get(timer as usize).copied().flatten()
    }

    /// When the next one fires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    fn earliest(&self) -> Option<Instant> {
        self.at.iter().flatten().min().copied()
    }

    /// Takes the earliest timer that is due at `now`, and stops it.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Timer> {
        let due = |timer: &Timer| self.get(*timer).filter(|at| *at <= now).map(|at| (at, *timer));
        let (_, timer) = TIMERS.iter().filter_map(due).min_by_key(|(at, _)| *at)?;
        self.stop(timer);
        Some(timer)
    }

    /// Stops all timers.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it is only added to")]
    fn timers_fire_in_the_order_of_their_times() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut timers = Timers::default();
        timers.set(Timer::Heartbeat, now + second * 2);
        timers.set(Timer::Registration, now + second * 3);
        timers.set(Timer::Pause, now + second);
        assert_eq!(timers.next(), Some(now + second));
        assert_eq!(timers.take_due(now), None);
        timers.stop(Timer::Registration);
        let late = now + second * 5;
        let fired = [(); 3].map(|()| timers.take_due(late));
        assert_eq!(fired, [Some(Timer::Pause), Some(Timer::Heartbeat), None]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn every_timer_has_a_place_of_its_own() {
        for (place, timer) in TIMERS.into_iter().enumerate() {
            assert_eq!(timer as usize, place, "{timer:?}");
        }
    }
}
