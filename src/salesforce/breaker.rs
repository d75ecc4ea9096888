//! [`Breaker`]: leaves Salesforce alone while it fails. No clock of its own: `now` comes in.
//!
//! Closed until so many requests in a row have failed; then open for a while; then one request at a time is let through
//! to try. If it fails, open twice as long, up to a minute.

use std::time::{Duration, Instant};

use super::fault::Fault;

/// The longest that it stays open, and how long it does on the daily limit.
const OPEN_MAX: Duration = Duration::from_mins(1);

/// The state, between requests.
pub(super) struct Breaker {
    failures_max: u32,
    open_first: Duration,
    /// How long it opens the next time.
    open_next: Duration,
    state: State,
}

enum State {
    Closed { failures: u32 },
    Open { until: Instant, cause: Fault },
    Probing { cause: Fault },
}

/// The three states, for those who only look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests go through.
    Closed,
    /// None does.
    Open,
    /// One does, to try.
    Probing,
}

/// How a request was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// As one of many.
    Normal,
    /// To try whether Salesforce is well again.
    Probe,
}

impl Breaker {
    pub(super) fn new(failures_max: u32, open_first: Duration) -> Self {
        let open_first = open_first.min(OPEN_MAX);
        Self { failures_max, open_first, open_next: open_first, state: State::Closed { failures: 0 } }
    }

    /// Whether a request might be let through; else why it is not.
    pub(super) fn look(&self, now: Instant) -> Result<(), Fault> {
        match &self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if *until <= now => Ok(()),
            State::Open { cause, .. } | State::Probing { cause } => Err(cause.clone()),
        }
    }

    /// Lets a request through, which has to end with [`Self::end`]; else says why not.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Pass, Fault> {
        self.look(now)?;
        match &self.state {
            State::Closed { .. } => Ok(Pass::Normal),
            State::Open { cause, .. } | State::Probing { cause } => {
                self.state = State::Probing { cause: cause.clone() };
                Ok(Pass::Probe)
            }
        }
    }

    /// Takes the outcome of a request that was let through. Says whether it opened just now, and for how long.
    pub(super) fn end(&mut self, now: Instant, pass: Pass, outcome: Result<(), &Fault>) -> Option<Duration> {
        let fault = match outcome {
            Err(fault) if fault.is_limit() => return Some(self.open(now, OPEN_MAX, fault)),
            Err(fault) => fault,
            Ok(()) => {
                // One that was sent before it opened says nothing about now.
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
                (*failures >= self.failures_max).then(|| self.open_doubling(now, fault))
            }
            (State::Probing { .. }, Pass::Probe) => Some(self.open_doubling(now, fault)),
            (State::Open { .. } | State::Probing { .. }, _) => None,
        }
    }

    /// For those who only look.
    pub(super) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::Probing { .. } => BreakerState::Probing,
        }
    }

    fn open_doubling(&mut self, now: Instant, cause: &Fault) -> Duration {
        let span = self.open_next;
        self.open_next = span.saturating_mul(2).min(OPEN_MAX);
        self.open(now, span, cause)
    }

    fn open(&mut self, now: Instant, span: Duration, cause: &Fault) -> Duration {
        self.state = State::Open { until: now + span, cause: cause.clone().while_open() };
        span
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::ErrorCode;

    const S: Duration = Duration::from_secs(1);

    fn fault() -> Fault {
        Fault::unavailable("it is down", "down")
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_tries_with_one() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let start = Instant::now();
        let mut breaker = Breaker::new(2, 5 * S);
        let fail = |breaker: &mut Breaker, now, pass| breaker.end(now, pass, Err(&fault()));
        assert_eq!(fail(&mut breaker, start, Pass::Normal), None);
        assert_eq!(breaker.end(start, Pass::Normal, Ok(())), None);
        assert_eq!(fail(&mut breaker, start, Pass::Normal), None, "a success between starts the count anew");
        assert_eq!(fail(&mut breaker, start, Pass::Normal), Some(5 * S));
        assert_eq!(breaker.look(start + 4 * S).unwrap_err().refusal().code, ErrorCode::UpstreamUnavailable);
        assert_eq!(breaker.end(start, Pass::Normal, Ok(())), None);
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
        assert_eq!(breaker.end(now, Pass::Probe, Ok(())), None);
        assert_eq!(breaker.admit(now).unwrap(), Pass::Normal);
        fail(&mut breaker, now, Pass::Normal);
        assert_eq!(fail(&mut breaker, now, Pass::Normal), Some(5 * S), "the time starts anew");
    }

    #[test]
    fn the_daily_limit_opens_it_at_once_for_a_minute() {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let mut breaker = Breaker::new(100, S);
        assert_eq!(breaker.end(now, Pass::Normal, Err(&Fault::limit())), Some(60 * S));
        assert!(breaker.admit(now + 59 * S).is_err());
        assert_eq!(breaker.admit(now + 60 * S).unwrap(), Pass::Probe);
    }
}
