//! What the log says of a connection: registered, left, refused, paused. Never a payload or a token.

use std::time::{Duration, Instant};

use wire::{ErrorCode, Refusal, Triple};

use super::pause::Pause;
use super::{Connection, Gone, network_of};
use crate::router::{Ending, RefusedMessage, Router, Session};

/// How many sessions that register are logged in a minute for each address: a site with thousands of agents can share one,
/// and they all return after a restart.
const REGISTERED_MAX: u32 = 10_000;

/// The same for sessions on a connection that had one before, which is what a loop without a pause makes.
const REGISTERED_AGAIN_MAX: u32 = 60;

/// Something that a peer could cause again and again, for which there is a limited number of lines a minute.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Cause {
    Registered,
    RegisteredAgain,
    /// A registration was refused with this code.
    Refused(ErrorCode),
    /// A renewal was refused with this code.
    RefusedRenewal(ErrorCode),
    Rate,
    RateBytes,
    OwnQueue,
    Receivers,
}

/// Why a session ends.
pub(super) struct Leaving<'a> {
    pub(super) reason: &'a str,
    /// The status code of the Close frame, if there is one.
    pub(super) code: Option<u16>,
    /// The same for the router.
    pub(super) ending: Ending,
}

impl<'a> Leaving<'a> {
    /// The session ends because its socket has ended.
    pub(super) fn of(gone: &'a Gone) -> Self {
        match gone {
            Gone::ByPeer(code) => {
                Self { reason: "closed by the application", code: *code, ending: Ending::ByPeer(*code) }
            }
            Gone::Fault(close) => {
                let code = close.code();
                Self { reason: close.reason(), code: Some(code.code()), ending: Ending::Closed(code) }
            }
            Gone::Lost => Self { reason: "the connection was lost", code: None, ending: Ending::Lost },
        }
    }
}

impl Connection {
    /// Logs that a session was registered, or that it goes on.
    pub(super) fn log_registered(&mut self, now: Instant, session: &Session, is_resumed: bool) {
        let (cause, lines_max) = match self.registered_before {
            false => (Cause::Registered, REGISTERED_MAX),
            true => (Cause::RegisteredAgain, REGISTERED_AGAIN_MAX),
        };
        let counted = self.settings.log_limit.count_up_to(lines_max, now, cause, network_of(self.address));
        (self.registered_before, self.is_logged) = (true, counted.is_some());
        if let Some(omitted) = counted {
            let (source, user) = (session.source(), session.user());
            // Only a flood leaves lines out.
            let omitted = (omitted > 0).then_some(omitted);
            let what = if is_resumed { "resumed" } else { "registered" };
            tracing::info!(source, user, address = %self.address, session = %session.id(), omitted, "{what}");
        }
    }

    pub(super) fn log_left(&self, session: &Session, lasted: Duration, leaving: &Leaving<'_>) {
        if !self.is_logged {
            return;
        }
        let (source, user) = (session.source(), session.user());
        let Leaving { reason, code, .. } = leaving;
        let lasted = Duration::from_millis(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX));
        let lasted = humantime::format_duration(lasted);
        tracing::info!(
            source,
            user,
            address = %self.address,
            session = %session.id(),
            reason,
            code,
            %lasted,
            "left"
        );
    }

    /// Logs that a session goes on without a connection.
    pub(super) fn log_away(&self, session: &Session, leaving: &Leaving<'_>) {
        if self.is_logged {
            let (source, user, Leaving { reason, code, .. }) = (session.source(), session.user(), leaving);
            tracing::info!(source, user, address = %self.address, session = %session.id(), reason, code, "away");
        }
    }

    /// Logs that another connection has the session.
    pub(super) fn log_replaced(&self, session: &Session) {
        if self.is_logged {
            let (source, user) = (session.source(), session.user());
            tracing::info!(source, user, address = %self.address, session = %session.id(), "replaced by another connection");
        }
    }

    /// Logs a registration that closes its connection. The words are the broker's own, with nothing of a token in them; the
    /// person at the screen never sees them.
    pub(super) fn log_refused_registration(&self, now: Instant, source: &str, refusal: &Refusal) {
        if let Some(omitted) = self.count_line(now, Cause::Refused(refusal.code)) {
            let (address, code, reason) = (self.address, refusal.code.as_str(), &*refusal.message);
            tracing::info!(source, %address, code, reason, omitted, "a registration was refused");
        }
    }

    /// Logs a renewal that was refused. The session lives on.
    pub(super) fn log_refused_renewal(&self, now: Instant, refusal: &Refusal) {
        let Some(session) = self.session() else { return };
        if let Some(omitted) = self.count_line(now, Cause::RefusedRenewal(refusal.code)) {
            let (source, user, code) = (session.source(), session.user(), refusal.code.as_str());
            let (address, reason) = (self.address, &*refusal.message);
            tracing::info!(source, user, %address, session = %session.id(), code, reason, omitted, "a renewal was refused");
        }
    }

    /// Logs and records that a message was refused that the router has not seen.
    pub(super) fn note_refusal(
        &self,
        now: Instant,
        router: &Router,
        (triple, id): (Option<&Triple<'_>>, Option<&str>),
        refusal: &Refusal,
    ) {
        self.log_refusal(triple, refusal);
        let session = self.session().map(|session| &**session);
        let address = network_of(self.address);
        router.note_refused(now, &RefusedMessage { session, source: "", address, triple, id, code: refusal.code });
    }

    /// Logs any refusal, for developers of applications, and counts it.
    pub(super) fn log_refusal(&self, triple: Option<&Triple<'_>>, refusal: &Refusal) {
        self.settings.metrics.refusals.count(refusal.code);
        let source = self.session().map(|session| session.source());
        let triple = triple.map(tracing::field::display);
        tracing::debug!(source, code = refusal.code.as_str(), triple, reason = &*refusal.message, "refused");
    }

    /// Logs that the connection is not read for a while.
    pub(super) fn log_pause(&self, now: Instant, pause: &Pause) {
        let (cause, key, words) = match pause {
            // The application has asked for that.
            Pause::Replay(_) => return,
            Pause::Rate => (Cause::Rate, "limits.rate", "an application is over its rate, and is read more slowly"),
            Pause::RateBytes => (
                Cause::RateBytes,
                "limits.rate_bytes",
                "an application sends more bytes than its rate allows, and is read more slowly",
            ),
            Pause::OwnQueue(_) => (
                Cause::OwnQueue,
                "limits.outbound_messages",
                "an application is not read, because it does not take its messages and its queue is over half full",
            ),
            Pause::Receivers { .. } => (
                Cause::Receivers,
                "limits.outbound_messages",
                "an application is read more slowly, because the queue of a receiver is over half full",
            ),
        };
        let Some(omitted) = self.count_line(now, cause) else { return };
        let session = self.session();
        let (source, user) = (session.map(|it| it.source()), session.and_then(|it| it.user()));
        let (receiver, receiver_user) =
            pause.receivers().next().map_or((None, None), |it| (Some(it.source()), it.user()));
        let session = session.map(|it| tracing::field::display(it.id()));
        tracing::info!(
            source,
            user,
            address = %self.address,
            session,
            receiver,
            receiver_user,
            key,
            omitted,
            "{words}"
        );
    }

    /// Returns the number of lines about a cause that were left out, if one is to be logged now.
    fn count_line(&self, now: Instant, cause: Cause) -> Option<u64> {
        self.settings.log_limit.count(now, cause, network_of(self.address))
    }
}
