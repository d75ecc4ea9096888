//! [`Router::observe`]: the one place that sees each decision together with its outcome. It runs after routing, and changes
//! nothing.

use std::time::Instant;

use wire::{Envelope, ErrorCode, Refusal};

use crate::router::decide::{Facts, Verdict};
use crate::router::session::Session;
use crate::router::{Routed, Router};
use crate::telemetry::metrics::EnvelopeKind;
use crate::telemetry::recorder::{Mark, Published, Record, RequestOutcome, Sender, What};

/// What an envelope is, by the rule that fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event.
    Event,
    /// A request to one handler.
    Request,
    /// A request to every handler.
    Gather,
    /// A reply to a request.
    Reply,
    /// A request to a handler that never answers.
    Command,
    /// An event that was sent before, so it was not delivered again.
    Duplicate,
    /// Refused before it was tried.
    Refused,
}

impl Kind {
    /// As operators see it.
    pub(super) fn verdict(self) -> &'static str {
        match self {
            Self::Event => "EVENT",
            Self::Request => "REQUEST",
            Self::Gather => "GATHER",
            Self::Reply => "REPLY",
            Self::Command => "COMMAND",
            Self::Duplicate => "DUPLICATE",
            Self::Refused => "REFUSED",
        }
    }

    /// As the log calls it.
    fn word(self) -> &'static str {
        match self {
            Self::Event | Self::Duplicate => "event",
            Self::Request | Self::Gather | Self::Command => "request",
            Self::Reply => "reply",
            Self::Refused => "refused",
        }
    }
}

/// What a decision expects of an envelope, before it is carried out.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    kind: Kind,
    /// What it is counted as, whether it is accepted or not.
    counted: EnvelopeKind,
    /// How many sessions get it if it is accepted, unless a receipt says so.
    receivers: usize,
    /// The mark of its triple, if it is known.
    mark: Option<Mark>,
}

impl Expected {
    /// An event, whose receipt counts its receivers.
    pub(super) const EVENT: Self = Self { kind: Kind::Event, counted: EnvelopeKind::Event, receivers: 0, mark: None };

    fn new(kind: Kind, counted: EnvelopeKind, receivers: usize) -> Self {
        Self { kind, counted, receivers, mark: None }
    }

    /// What a verdict says.
    pub(super) fn of(verdict: &Verdict<'_>, envelope: &Envelope<'_>) -> Self {
        match verdict {
            Verdict::Reply | Verdict::Turn(_) => Self::new(Kind::Reply, EnvelopeKind::Reply, 1),
            Verdict::Request { candidates, .. } if envelope.gather() => {
                Self::new(Kind::Gather, EnvelopeKind::Gather, candidates.len())
            }
            Verdict::Request { .. } => Self::new(Kind::Request, EnvelopeKind::Request, 1),
            Verdict::Event { matches, .. } => Self { mark: matches.mark, ..Self::EVENT },
            Verdict::Refused { is_request, .. } => {
                let counted = match is_request {
                    true if envelope.gather() => EnvelopeKind::Gather,
                    true => EnvelopeKind::Request,
                    false if envelope.in_reply_to().is_some() => EnvelopeKind::Reply,
                    false => EnvelopeKind::Event,
                };
                Self::new(Kind::Refused, counted, 0)
            }
        }
    }
}

/// A decision with its outcome.
pub(super) struct Observed {
    pub(super) kind: Kind,
    /// In how many outbound queues it is.
    pub(super) receivers: usize,
    /// The length of its text. Only for counters if it is `secret`: it would tell the length of a password.
    pub(super) bytes: usize,
    /// Why it was refused.
    pub(super) code: Option<ErrorCode>,
    /// Its place in a log; 0 without one.
    pub(super) offset: u64,
    /// Neither its payload nor its size may be shown. It is on a protected triple, answers a request on one, or may do so:
    /// of a reply that was refused, the request is not known.
    pub(super) secret: bool,
}

impl Observed {
    fn new(envelope: &Envelope<'_>, facts: &Facts<'_>, expected: Expected, outcome: Result<&Routed, &Refusal>) -> Self {
        let bytes = envelope.text().len();
        match outcome {
            Ok(routed) => {
                let receipt = routed.receipt.as_ref();
                let kept = receipt.and_then(|receipt| receipt.kept.as_ref());
                let offset = kept.map_or(0, |kept| kept.position.offset);
                let kind = match expected.kind {
                    Kind::Request if receipt.is_some() => Kind::Command,
                    Kind::Event if routed.is_duplicate() => Kind::Duplicate,
                    kind => kind,
                };
                let receivers = receipt.map_or(expected.receivers, |receipt| receipt.receivers);
                Self { kind, receivers, bytes, code: None, offset, secret: facts.protected || routed.secret }
            }
            Err(refusal) => {
                let secret = facts.protected || expected.kind == Kind::Reply || envelope.in_reply_to().is_some();
                Self { kind: expected.kind, receivers: 0, bytes, code: Some(refusal.code), offset: 0, secret }
            }
        }
    }

    /// Whether the log may say its size.
    fn is_sized(&self) -> bool {
        match self.kind {
            Kind::Event | Kind::Duplicate | Kind::Request | Kind::Gather | Kind::Command => !self.secret,
            Kind::Reply | Kind::Refused => false,
        }
    }

    /// Writes what the log says of a message at `trace`: what it is, from whom, on what, how large, to how many. Never its
    /// payload.
    #[cold]
    fn log(&self, sender: &Session, envelope: &Envelope<'_>) {
        tracing::trace!(
            kind = self.kind.word(),
            triple = %envelope.triple(),
            source = &*sender.source,
            user = sender.user().or(envelope.user()),
            bytes = self.is_sized().then_some(self.bytes),
            receivers = self.receivers,
            code = self.code.map(ErrorCode::as_str),
            traceparent = envelope.trace().map(tracing::field::display),
            "a message"
        );
    }
}

impl Router {
    /// Observes what became of an envelope. An event that has to be on disk first is observed when it was committed.
    pub(super) fn observe(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        (expected, outcome): (Expected, Result<&Routed, &Refusal>),
    ) {
        match (expected.kind, outcome) {
            (Kind::Event, Ok(routed)) => self.observe_event(now, sender, envelope, facts, (expected.mark, routed)),
            _ => self.observe_other(now, sender, envelope, facts, (expected, outcome)),
        }
        if tracing::enabled!(tracing::Level::TRACE) || self.taps.is_watched() {
            self.tell(now, sender, envelope, facts, (expected, outcome));
        }
    }

    /// Observes what became of an envelope that was not an event, or was refused.
    #[inline(never)]
    fn observe_other(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        (expected, outcome): (Expected, Result<&Routed, &Refusal>),
    ) {
        self.count(facts, expected, outcome);
        match (expected.kind, outcome) {
            // A request is recorded when it ends.
            (Kind::Request, Ok(Routed { receipt: None, .. })) | (Kind::Gather | Kind::Reply, Ok(_)) => {}
            (Kind::Event | Kind::Request | Kind::Command | Kind::Duplicate | Kind::Refused, Ok(_)) | (_, Err(_)) => {
                self.record_other(now, sender, envelope, outcome.err());
            }
        }
    }

    /// Tells the log and the taps.
    #[cold]
    fn tell(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        (expected, outcome): (Expected, Result<&Routed, &Refusal>),
    ) {
        let observed = Observed::new(envelope, facts, expected, outcome);
        observed.log(sender, envelope);
        self.show(now, sender, envelope, &observed);
    }

    /// Counts and records an event.
    #[inline]
    fn observe_event(
        &self,
        now: Instant,
        sender: &Session,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        (mark, routed): (Option<Mark>, &Routed),
    ) {
        if routed.is_duplicate() {
            self.metrics.history_duplicates.count(());
            self.metrics.traffic.undelivered(EnvelopeKind::Event);
        } else {
            self.metrics.traffic.event(facts.place, routed.deliveries);
        }
        if sender.is_call() {
            return self.recorder.record_call(now, &sender.who(), &published(envelope, facts, (mark, routed)));
        }
        let who = Sender { number: sender.number, pace: &sender.pace, who: &|| sender.who() };
        self.recorder.record_event(now, who, || published(envelope, facts, (mark, routed)));
    }

    /// Records a refusal, or without one a command.
    #[cold]
    fn record_other(&self, now: Instant, sender: &Session, envelope: &Envelope<'_>, refusal: Option<&Refusal>) {
        if !self.recorder.is_on() {
            return;
        }
        let record = |what| Record {
            triple: Some(envelope.triple()),
            id: envelope.id(),
            trace: envelope.trace(),
            ..Record::of(sender.who(), what)
        };
        match refusal {
            Some(refusal) => {
                let record = record(What::Refused(refusal.code));
                self.recorder.record_refusal(now, &record);
            }
            None => {
                let (outcome, name) = (RequestOutcome::Delivered, [0; 9]);
                self.recorder.record(now, &record(What::Request { name, outcome, code: None, micros: 0 }));
            }
        }
    }

    /// Counts an envelope that was not an event, or was refused.
    fn count(&self, facts: &Facts<'_>, expected: Expected, outcome: Result<&Routed, &Refusal>) {
        let traffic = &self.metrics.traffic;
        match (expected.kind, outcome) {
            (Kind::Request | Kind::Gather, outcome) => {
                traffic.request(expected.counted, facts.place, outcome.map_or(0, |routed| routed.deliveries));
            }
            (Kind::Reply, Ok(routed)) => traffic.reply(facts.place, routed.deliveries),
            (Kind::Event | Kind::Reply | Kind::Command | Kind::Duplicate | Kind::Refused, _) => {
                traffic.undelivered(expected.counted);
            }
        }
    }
}

/// What the recorder keeps of an event.
#[inline]
fn published<'a>(
    envelope: &'a Envelope<'_>,
    facts: &Facts<'_>,
    (mark, routed): (Option<Mark>, &Routed),
) -> Published<'a> {
    let (receivers, kept) = routed.receipt.as_ref().map_or((0, None), |it| (it.receivers, it.kept.as_deref()));
    Published {
        triple: envelope.triple(),
        mark,
        id: envelope.id(),
        receivers,
        bytes: (!facts.protected && !routed.secret).then(|| envelope.text().len()),
        offset: kept.map_or(0, |kept| kept.position.offset),
        is_duplicate: kept.is_some_and(|kept| kept.is_duplicate),
    }
}
