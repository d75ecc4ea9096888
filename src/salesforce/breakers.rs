//! [`Breakers`]: stop requests that would fail. There is a breaker for each [`Purpose`], so that one object's trouble
//! concerns that object alone, and one for Salesforce as a whole, which only failed connections, 503 and failed logins
//! open. Salesforce can also ask for a pause, which every purpose respects.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use super::fault::{Extent, Fault};
use crate::http::{Breaker, BreakerState, Outcome, Pass};

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// Fetching credentials, and everything that concerns no object.
    Credentials,
    /// Reading and writing records of an object. The number of objects is that of the configuration.
    Object(&'a str),
}

impl Purpose<'_> {
    /// Its name in the log and in the counts.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Credentials => "credentials",
            Self::Object(object) => object,
        }
    }
}

/// The name of the breaker for all purposes.
const ALL: &str = "Salesforce";

/// The breakers of one org.
pub(super) struct Breakers {
    failures_max: u32,
    open_first: Duration,
    all: Breaker<Fault>,
    credentials: Breaker<Fault>,
    objects: HashMap<String, Breaker<Fault>>,
}

/// How a request was let through; to be given back to [`Breakers::end`].
#[derive(Clone, Copy)]
pub(super) struct Passes {
    all: Pass,
    own: Pass,
}

/// How a request ended.
pub(super) enum Ended {
    /// Salesforce answered.
    Answered,
    /// It failed.
    Failed(Fault),
    /// The deadline passed before there was an answer. It may be a write, which a trigger or flow can delay.
    Silent { fault: Fault, writes: bool },
}

/// A breaker that changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It opened.
    Opened { name: String, span: Duration, cause: Fault },
    /// It closed.
    Closed { name: String },
}

impl Breakers {
    /// Closed breakers that open after `failures_max` failures in a row, the first time for `open_first`.
    pub(super) fn new(failures_max: u32, open_first: Duration) -> Self {
        let breaker = || Breaker::new(failures_max, open_first);
        Self { failures_max, open_first, all: breaker(), credentials: breaker(), objects: HashMap::new() }
    }

    /// Checks whether a request would be let through; if not, returns why.
    pub(super) fn look(&mut self, now: Instant, purpose: Purpose<'_>) -> Result<(), Fault> {
        self.all.look(now)?;
        self.own(purpose).look(now)
    }

    /// Lets a request through, which must be ended with [`Self::end`]; or returns why not.
    pub(super) fn admit(&mut self, now: Instant, purpose: Purpose<'_>) -> Result<Passes, Fault> {
        // Both or none: a pass that is not given back would leave its breaker without a probe.
        self.look(now, purpose)?;
        Ok(Passes { all: self.all.admit(now)?, own: self.own(purpose).admit(now)? })
    }

    /// Ends a request that was let through, and returns which breakers changed.
    pub(super) fn end(&mut self, now: Instant, purpose: Purpose<'_>, passes: Passes, ended: Ended) -> Vec<Change> {
        use Outcome::{Answered, Exhausted, Failed, Unknown};
        let cause = match &ended {
            Ended::Failed(fault) | Ended::Silent { fault, .. } => Some(fault.clone()),
            Ended::Answered => None,
        };
        let (all, own) = match ended {
            Ended::Answered => (Answered, Answered),
            Ended::Silent { fault, writes } => {
                let failed = || Failed(fault.clone().while_open());
                // A slow query concerns its purpose, and a slow trigger or flow one record only. But a probe that is not
                // answered has failed: its breaker must not stay half open.
                (
                    if passes.all == Pass::Probe { failed() } else { Unknown },
                    if passes.own == Pass::Probe || !writes { failed() } else { Unknown },
                )
            }
            Ended::Failed(fault) if fault.is_unasked() => (Unknown, Unknown),
            Ended::Failed(fault) => match fault.extent() {
                Extent::Nothing => (Answered, Answered),
                Extent::Purpose => (Answered, Failed(fault.while_open())),
                Extent::All => (Failed(fault.while_open()), Unknown),
                Extent::Day => (Exhausted(fault.while_open()), Unknown),
            },
        };
        let of_all = changed(&mut self.all, now, ALL, (passes.all, all), cause.as_ref());
        let of_own = changed(self.own(purpose), now, purpose.name(), (passes.own, own), cause.as_ref());
        of_all.into_iter().chain(of_own).collect()
    }

    /// Lets no request through for a while, whatever it is for. Returns whether a pause began.
    pub(super) fn pause(&mut self, now: Instant, span: Duration, cause: &Fault) -> bool {
        self.all.pause(now, span, cause.clone().while_open())
    }

    /// The state of the breaker for all purposes.
    pub(super) fn state(&self) -> BreakerState {
        self.all.state()
    }

    /// The state of each purpose's breaker, by name.
    pub(super) fn states(&self) -> BTreeMap<String, BreakerState> {
        let credentials = (Purpose::Credentials.name().to_owned(), self.credentials.state());
        self.objects.iter().map(|(name, breaker)| (name.clone(), breaker.state())).chain([credentials]).collect()
    }

    fn own(&mut self, purpose: Purpose<'_>) -> &mut Breaker<Fault> {
        match purpose {
            Purpose::Credentials => &mut self.credentials,
            Purpose::Object(object) => {
                let new = || Breaker::new(self.failures_max, self.open_first);
                self.objects.entry(object.to_owned()).or_insert_with(new)
            }
        }
    }
}

fn changed(
    breaker: &mut Breaker<Fault>,
    now: Instant,
    name: &str,
    (pass, outcome): (Pass, Outcome<Fault>),
    cause: Option<&Fault>,
) -> Option<Change> {
    let before = breaker.state();
    let opened = breaker.end(now, pass, outcome);
    if let (Some(span), Some(cause)) = (opened, cause) {
        return Some(Change::Opened { name: name.to_owned(), span, cause: cause.clone() });
    }
    let closed = before != BreakerState::Closed && breaker.state() == BreakerState::Closed;
    closed.then(|| Change::Closed { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const TASK: Purpose<'_> = Purpose::Object("Task");

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        Instant::now()
    }

    /// Sends requests that fail, and returns which purposes are still served: credentials, Task, Case.
    fn served_after(fault: &Fault, purpose: Purpose<'_>) -> [bool; 3] {
        let now = start();
        let mut breakers = Breakers::new(3, 5 * S);
        for _ in 0..3 {
            let passes = breakers.admit(now, purpose).unwrap();
            breakers.end(now, purpose, passes, Ended::Failed(fault.clone()));
        }
        [Purpose::Credentials, TASK, Purpose::Object("Case")].map(|it| breakers.look(now, it).is_ok())
    }

    #[test]
    fn a_failure_concerns_its_purpose_or_everything() {
        let own = [Fault::rejected("a", "o"), Fault::unavailable("a", "o")];
        for fault in own {
            assert_eq!(served_after(&fault, Purpose::Credentials), [false, true, true], "{fault:?}");
            assert_eq!(served_after(&fault, TASK), [true, false, true], "{fault:?}");
        }
        for fault in [Fault::gone("a", "o"), Fault::barred("a", "o")] {
            assert_eq!(served_after(&fault, TASK), [false, false, false], "{fault:?}");
        }
        let particular = [Fault::row("a", "o"), Fault::object("a", "o"), Fault::code("o"), Fault::crowded()];
        for fault in particular.into_iter().chain([Fault::not_found("a", "o"), Fault::gone("a", "o").while_open()]) {
            assert_eq!(served_after(&fault, TASK), [true, true, true], "{fault:?}");
        }
    }

    #[test]
    fn the_daily_limit_stops_everything_at_once() {
        let now = start();
        let mut breakers = Breakers::new(100, S);
        let passes = breakers.admit(now, TASK).unwrap();
        let changes = breakers.end(now, TASK, passes, Ended::Failed(Fault::limit()));
        assert!(matches!(&*changes, [Change::Opened { name, span, .. }] if name == ALL && *span == 60 * S));
        assert!(breakers.look(now + 59 * S, Purpose::Credentials).is_err());
    }

    #[test]
    fn a_probe_for_one_purpose_finds_out_about_both_breakers() {
        let now = start();
        let mut breakers = Breakers::new(1, S);
        for fault in [Fault::rejected("a", "own"), Fault::gone("a", "all")] {
            let passes = breakers.admit(now, TASK).unwrap_or(Passes { all: Pass::Normal, own: Pass::Normal });
            breakers.end(now, TASK, passes, Ended::Failed(fault));
        }
        let later = now + S;
        let passes = breakers.admit(later, TASK).unwrap();
        assert_eq!((passes.all, passes.own), (Pass::Probe, Pass::Probe));
        assert!(breakers.admit(later, Purpose::Credentials).is_err(), "one request finds out");
        // The network works again, the permission is still missing.
        let changes = breakers.end(later, TASK, passes, Ended::Failed(Fault::rejected("a", "own")));
        assert_eq!(changes.len(), 2, "{changes:?}");
        assert_eq!(breakers.state(), BreakerState::Closed);
        assert!(breakers.look(later, Purpose::Credentials).is_ok() && breakers.look(later, TASK).is_err());
    }

    #[test]
    fn a_request_that_was_not_asked_gives_its_probe_back() {
        let now = start();
        let mut breakers = Breakers::new(1, S);
        let passes = breakers.admit(now, TASK).unwrap();
        breakers.end(now, TASK, passes, Ended::Failed(Fault::gone("a", "o")));
        for unasked in [Fault::gone("a", "o").while_open(), Fault::too_many_calls(1, S)] {
            let passes = breakers.admit(now + S, TASK).unwrap();
            assert_eq!(passes.all, Pass::Probe);
            breakers.end(now + S, TASK, passes, Ended::Failed(unasked));
        }
        assert_eq!(breakers.admit(now + S, Purpose::Credentials).unwrap().all, Pass::Probe);
    }

    /// Returns what a request for an object opens that is not answered in time: the breaker of all, and the object's.
    fn opened_by_silence(passes: Passes, writes: bool) -> [bool; 2] {
        let now = start();
        let mut breakers = Breakers::new(1, S);
        for (pass, fault) in [(passes.own, Fault::rejected("a", "own")), (passes.all, Fault::gone("a", "all"))] {
            if pass == Pass::Probe {
                breakers.end(now, TASK, Passes { all: Pass::Normal, own: Pass::Normal }, Ended::Failed(fault));
            }
        }
        let later = now + S;
        let admitted = breakers.admit(later, TASK).unwrap();
        assert_eq!((admitted.all, admitted.own), (passes.all, passes.own));
        let changes =
            breakers.end(later, TASK, admitted, Ended::Silent { fault: Fault::unavailable("a", "o"), writes });
        [ALL, "Task"].map(|of| changes.iter().any(|it| matches!(it, Change::Opened { name, .. } if name == of)))
    }

    #[test]
    fn silence_fails_probes_and_queries_and_says_nothing_else_about_a_write() {
        use Pass::{Normal, Probe};
        for (all, own, writes, opened) in [
            (Normal, Normal, true, [false, false]),
            (Normal, Normal, false, [false, true]),
            (Probe, Normal, true, [true, false]),
            (Normal, Probe, true, [false, true]),
            (Probe, Probe, true, [true, true]),
        ] {
            assert_eq!(opened_by_silence(Passes { all, own }, writes), opened, "{all:?} {own:?} writes: {writes}");
        }
    }
}
