//! Sessions that outlive this connection: the reply to their Register, their messages, and what they acknowledge.
//!
//! While a message of such a session is handled, no other connection can take the session over. So one that does knows
//! exactly which messages were taken in, and this one handles nothing more: it is told that it was replaced, and closes.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};
use wire::{CloseCode, ErrorCode, Refusal, notice};

use super::message::Next;
use super::pause::Pause;
use super::register::{Verifying, register, seconds};
use super::{Connection, Effect, Phase};
use crate::router::{Allowances, End, HeldLine, ResumeTicket, Resumption, Router, Session};
use crate::websocket::Frame;

impl Connection {
    /// Sends the reply to a Register. That of a resumable session precedes everything of the session and is not counted.
    pub(super) fn push_registered(
        &mut self,
        now: Instant,
        id: Option<&str>,
        mut more: Map<String, Value>,
        resumption: Resumption,
    ) {
        let mut add = |key: &str, value: Value| drop(more.insert(key.to_owned(), value));
        let mut holds_reply = false;
        let ticket = match resumption {
            Resumption::NotAsked => None,
            Resumption::Off { reason } => {
                add("Resumed", false.into());
                if let Some(reason) = reason {
                    add("ResumeReason", reason.as_str().into());
                }
                None
            }
            Resumption::Begun { ticket, reason, ending } => {
                add("Resumed", false.into());
                if let Some(reason) = reason {
                    add("ResumeReason", reason.as_str().into());
                }
                if let Some(ending) = ending {
                    self.wait_for_commit(0, Box::new(ending));
                    holds_reply = true;
                }
                Some(ticket)
            }
            Resumption::Resumed { ticket, replayed, received, allowances } => {
                add("Resumed", true.into());
                add("Replayed", replayed.into());
                add("Received", received.into());
                self.go_on_with(allowances);
                self.wait_for_replay(now);
                if let Some(ticket) = self.session().and_then(Session::earlier_commits) {
                    self.wait_for_commit(0, Box::new(ticket));
                }
                Some(ticket)
            }
        };
        let Some(ResumeTicket { token, grace }) = ticket else {
            self.push(now, notice::success(&register(), id, more.into()));
            return;
        };
        more.insert("GraceSeconds".to_owned(), seconds(grace));
        let text = notice::success(&register(), id, more.into());
        // The token is written into the frame alone, which is wiped.
        let before = text.strip_suffix("}}").unwrap_or(&text);
        let reply = Frame::join(&[before, ",\"ResumeToken\":\"", &token, "\"}}"], true);
        match &mut self.commits {
            Some(commits) if holds_reply => commits.hold_reply(reply),
            Some(_) | None => self.replies.push_back(reply),
        }
    }

    /// Handles a message of a resumable session.
    pub(super) fn message_of_resumable(&mut self, now: Instant, text: Option<&str>, router: &Router) -> Next {
        let Phase::Registered(session) = &self.phase else { return self.take_in(now, text, router, None) };
        let session = Arc::clone(session);
        let Some(mut line) = session.hold_line(self.attachment) else { return Next::Replaced };
        let next = self.take_in(now, text, router, Some(&mut line));
        match next {
            Next::Stay(_) | Next::Replaced => line.set_allowances(self.allowances(now)),
            Next::Wait(_) => line.take_back_received(),
            Next::TooManyMalformed | Next::Unregister(_) => line.end(),
        }
        next
    }

    /// `Broker/Connection/Acknowledge`. `line`: of a resumable session.
    ///
    /// # Errors
    /// `INVALID_ENVELOPE`.
    pub(super) fn acknowledge(&self, received: u64, line: Option<&mut HeldLine<'_>>) -> Result<(), Refusal> {
        let invalid = |words| Err(Refusal::new(ErrorCode::InvalidEnvelope, words));
        let (Some(session), Some(line)) = (self.session(), line) else {
            return invalid("this session is not resumable, so nothing is kept for it: register with \"resume\":true");
        };
        if !session.outbox().taker(self.attachment).acknowledge(received) {
            return invalid(
                "data.received must be between the last acknowledged count and the number of messages that this session was \
                 sent",
            );
        }
        line.forget_previous_token();
        Ok(())
    }

    /// Another connection has the session. This one is told, and closes.
    pub(super) fn replaced(&mut self, now: Instant, router: &Router) -> Effect {
        self.give_up_renewal(now, router);
        if let Phase::Registered(session) = std::mem::replace(&mut self.phase, Phase::Unregistered) {
            self.log_replaced(&session);
            self.replies.push_back(notice::replaced(&session.id().to_string()).into());
        }
        self.forget_proof();
        self.end(now);
        Effect::Close(CloseCode::Replaced.into())
    }

    /// Returns whether another connection has the session.
    pub(super) fn is_replaced(&self) -> bool {
        self.attachment != 0 && self.ended() == Some(End::Replaced)
    }

    /// Answers a renewal that is being verified, because its session leaves this connection.
    pub(super) fn give_up_renewal(&mut self, now: Instant, router: &Router) {
        if self.session().is_some_and(|session| session.is_resumable())
            && let Some(verifying) = self.verifying.take()
            && let Verifying::Renew(renewing) = *verifying
        {
            let words = "the connection ended before the new proof was verified; the proof of the next Register counts";
            self.refuse_renewal(now, &renewing, &Refusal::new(ErrorCode::UpstreamUnavailable, words), router);
        }
    }

    /// A session that returns in the middle of a replay of history is still not read until that is sent.
    fn wait_for_replay(&mut self, now: Instant) {
        if let Some(session) = self.session().filter(|session| session.outbox().is_replaying()) {
            let pause = Pause::Replay(Arc::clone(session));
            self.begin_pause(now, pause, now + self.limits.slow_consumer);
        }
    }

    /// Takes up to `most` frames of a resumable session. They are kept until they are acknowledged. Returns when its proof
    /// ends, if a reload has set an end to it.
    pub(super) fn take_resumable(
        &self,
        now: Instant,
        (session, attachment): (&Arc<Session>, u64),
        most: usize,
        router: &Router,
        frames: &mut Vec<Frame>,
    ) -> Option<Instant> {
        let mut proof_end = None;
        let (taker, room) = (session.outbox().taker(attachment), frames.len().saturating_add(most));
        loop {
            let Some(taken) = taker.take(now, room - frames.len(), frames) else { break };
            proof_end = proof_end.or(taken.proof_end);
            if taken.lagging.is_some() || taken.dropped > 0 {
                self.count_notices(taken.lagging.is_some(), taken.dropped);
            }
            if !taken.replay_waits {
                break;
            }
            // Until the frames of the replay are kept, no other connection may take.
            let Some(_line) = session.hold_line(attachment) else { break };
            let Some(mut replay) = taker.take_replay() else { break };
            let at = frames.len();
            let is_exhausted = router.pull(&mut replay, room - at, frames);
            taker.put_pulled(now, frames.get(at..).unwrap_or_default(), (!is_exhausted).then_some(replay));
            if !is_exhausted {
                break;
            }
        }
        session.release_presence(now);
        proof_end
    }

    /// What the session has used of its rates, with the message that is being handled.
    fn allowances(&self, now: Instant) -> Allowances {
        let bytes = self.rate_bytes.as_ref().map(|rate| rate.used(now, 0));
        Allowances { messages: self.rate.used(now, 1), bytes }
    }

    /// Goes on with what the session has used of its rates.
    fn go_on_with(&mut self, allowances: Option<Allowances>) {
        let Some(Allowances { messages, bytes }) = allowances else { return };
        self.rate.go_on(messages);
        if let (Some(rate), Some(bytes)) = (&mut self.rate_bytes, bytes) {
            rate.go_on(bytes);
        }
    }
}
