//! [`Breaker`]: stops calling a system that keeps failing.
//!
//! It is closed until a number of requests in a row have failed, then open for a while, and then lets one request at a
//! time through as a probe. If the probe fails, it opens for twice as long, up to a minute.
//!
//! Apart from that, a system can ask for a pause of a known length. Afterwards requests go through as before.

use std::time::{Duration, Instant};

/// The longest time that it stays open; also how long it opens for [`Outcome::Exhausted`].
const OPEN_MAX: Duration = Duration::from_mins(1);

/// A circuit breaker. `C` is the cause that callers are given while it is open.
pub(crate) struct Breaker<C> {
    failures_max: u32,
    open_first: Duration,
    /// How long it opens the next time.
    open_next: Duration,
    state: State<C>,
    /// The pause that the system last asked for, and why.
    paused: Option<(Instant, C)>,
}

enum State<C> {
    Closed { failures: u32 },
    Open { until: Instant, cause: C },
    Probing { cause: C },
}

/// How a request ended.
pub(crate) enum Outcome<C> {
    /// The system answered.
    Answered,
    /// The system failed.
    Failed(C),
    /// The system asked to be left alone.
    Exhausted(C),
    /// The system was not asked, or it is not known whether it answered.
    Unknown,
}

/// The three states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests go through.
    Closed,
    /// No request goes through.
    Open,
    /// One request is in progress as a probe.
    Probing,
}

/// How a request was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// As one of many.
    Normal,
    /// To find out whether the system works again.
    Probe,
}

impl<C: Clone> Breaker<C> {
    /// A closed breaker that opens after `failures_max` failures in a row, the first time for `open_first`.
    pub(crate) fn new(failures_max: u32, open_first: Duration) -> Self {
        let open_first = open_first.min(OPEN_MAX);
        Self { failures_max, open_first, open_next: open_first, state: State::Closed { failures: 0 }, paused: None }
    }

    /// Lets no request through for a while. A pause that is in progress is never shortened. Returns whether a pause
    /// began.
    pub(crate) fn pause(&mut self, now: Instant, span: Duration, cause: C) -> bool {
        let began = self.paused.as_ref().is_none_or(|(before, _)| *before <= now);
        let until = now + span.min(OPEN_MAX);
        if self.paused.as_ref().is_none_or(|(before, _)| *before < until) {
            self.paused = Some((until, cause));
        }
        began
    }

    /// Checks whether a request would be let through; if not, returns why.
    pub(crate) fn look(&self, now: Instant) -> Result<(), C> {
        if let Some((_, cause)) = self.paused.as_ref().filter(|(until, _)| now < *until) {
            return Err(cause.clone());
        }
        match &self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if *until <= now => Ok(()),
            State::Open { cause, .. } | State::Probing { cause } => Err(cause.clone()),
        }
    }

    /// Lets a request through, which must be ended with [`Self::end`]; or returns why not.
    pub(crate) fn admit(&mut self, now: Instant) -> Result<Pass, C> {
        self.look(now)?;
        match &self.state {
            State::Closed { .. } => Ok(Pass::Normal),
            State::Open { cause, .. } | State::Probing { cause } => {
                self.state = State::Probing { cause: cause.clone() };
                Ok(Pass::Probe)
            }
        }
    }

    /// Ends a request that was let through. If the breaker opened because of it, returns for how long.
    pub(crate) fn end(&mut self, now: Instant, pass: Pass, outcome: Outcome<C>) -> Option<Duration> {
        let cause = match outcome {
            Outcome::Exhausted(cause) => return Some(self.open(now, OPEN_MAX, cause)),
            Outcome::Failed(cause) => cause,
            Outcome::Unknown => {
                if let (State::Probing { cause }, Pass::Probe) = (&self.state, pass) {
                    // The next request is the probe.
                    self.state = State::Open { until: now, cause: cause.clone() };
                }
                return None;
            }
            Outcome::Answered => {
                // A request that was sent before it opened says nothing about the present.
                if pass == Pass::Probe || matches!(self.state, State::Closed { .. }) {
                    self.state = State::Closed { failures: 0 };
                    self.open_next = self.open_first;
                }
                return None;
            }
        };
        match (&mut self.state, pass) {
            (State::Closed { failures }, _) => {
                *failures = failures.saturating_add(1);
                (*failures >= self.failures_max).then(|| self.open_doubling(now, cause))
            }
            (State::Probing { .. }, Pass::Probe) => Some(self.open_doubling(now, cause)),
            (State::Open { .. } | State::Probing { .. }, _) => None,
        }
    }

    /// The present state.
    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::Probing,
        }
    }

    fn open_doubling(&mut self, now: Instant, cause: C) -> Duration {
        let span = self.open_next;
        self.open_next = span.saturating_mul(2).min(OPEN_MAX);
        self.open(now, span, cause)
    }

    fn open(&mut self, now: Instant, span: Duration, cause: C) -> Duration {
        self.state = State::Open { until: now + span, cause };
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const S: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_after_failures_in_a_row_and_tries_with_one() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let start = Instant::now();
        let mut breaker = Breaker::new(2, 5 * S);
        let fail = |breaker: &mut Breaker<_>, now, pass| breaker.end(now, pass, Outcome::Failed("down"));
        assert_eq!(fail(&mut breaker, start, Pass::Normal), None);
        assert_eq!(breaker.end(start, Pass::Normal, Outcome::Answered), None);
        assert_eq!(fail(&mut breaker, start, Pass::Normal), None, "a success between starts the count anew");
        assert_eq!(fail(&mut breaker, start, Pass::Normal), Some(5 * S));
        assert_eq!(breaker.look(start + 4 * S), Err("down"));
        assert_eq!(breaker.end(start, Pass::Normal, Outcome::Answered), None);
        assert_eq!(breaker.state(), BreakerState::Open, "an old request's success does not close it");

        let mut now = start;
        for open in [5, 10, 20, 40, 60, 60] {
            assert!(breaker.admit(now + (open - 1) * S).is_err(), "{open}");
            now += open * S;
            assert_eq!(breaker.admit(now).unwrap(), Pass::Probe);
            assert!(breaker.admit(now).is_err(), "one at a time");
            assert!(fail(&mut breaker, now, Pass::Probe).is_some());
        }
        now += 60 * S;
        assert_eq!(breaker.admit(now).unwrap(), Pass::Probe);
        assert_eq!(breaker.end(now, Pass::Probe, Outcome::Answered), None);
        assert_eq!(breaker.admit(now).unwrap(), Pass::Normal);
        fail(&mut breaker, now, Pass::Normal);
        assert_eq!(fail(&mut breaker, now, Pass::Normal), Some(5 * S), "the time starts anew");
    }

    #[test]
    fn an_exhausted_system_opens_it_at_once_for_a_minute() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let mut breaker = Breaker::new(100, S);
        assert_eq!(breaker.end(now, Pass::Normal, Outcome::Exhausted("limit")), Some(60 * S));
        assert!(breaker.admit(now + 59 * S).is_err());
        assert_eq!(breaker.admit(now + 60 * S).unwrap(), Pass::Probe);
    }

    #[test]
    fn a_probe_without_an_outcome_leaves_its_place_to_the_next_request() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let mut breaker = Breaker::new(1, S);
        breaker.end(now, Pass::Normal, Outcome::Failed("down"));
        assert_eq!(breaker.admit(now + S), Ok(Pass::Probe));
        assert_eq!(breaker.end(now + S, Pass::Probe, Outcome::Unknown), None);
        assert_eq!(breaker.admit(now + S), Ok(Pass::Probe));
        breaker.end(now + S, Pass::Probe, Outcome::Answered);
        breaker.end(now + S, Pass::Normal, Outcome::Unknown);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn after_a_pause_requests_go_through_as_before() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let mut breaker = Breaker::new(1, S);
        assert!(breaker.pause(now, 3 * S, "three"));
        assert!(!breaker.pause(now, 2 * S, "two"), "it had begun");
        assert_eq!(breaker.admit(now + 2 * S), Err("three"), "never shortened");
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.admit(now + 3 * S), Ok(Pass::Normal));
        assert!(breaker.pause(now + 3 * S, 3600 * S, "an hour"));
        assert_eq!(breaker.admit(now + 3 * S + OPEN_MAX), Ok(Pass::Normal), "never longer than a minute");
    }
}
