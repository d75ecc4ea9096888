//! Wills: the last event of an application that ends without leaving.
//!
//! A will is checked when its session registers, so that its author learns of a mistake, and again when it is published,
//! because rights and channels may have changed since.

use std::sync::Arc;
use std::time::Instant;

use wire::{DecodeLimits, Envelope, ErrorCode, Refusal, decode};

use crate::router::access::{self, send};
use crate::router::decide::Facts;
use crate::router::end::Rest;
use crate::router::session::Session;
use crate::router::{Router, Scope};

/// The longest will, in bytes of its JSON text: each session may have one for as long as it lives.
const WILL_BYTES_MAX: usize = 8 << 10;

impl Router {
    /// Checks the will of a session that is about to register, if it has one.
    ///
    /// # Errors
    /// The code that docs/protocol.md, "Wills", lists. The message names `data.will`.
    pub(super) fn check_will_of(&self, session: &Session) -> Result<(), Refusal> {
        let holds = session.holds.lock();
        holds.will.as_deref().map_or(Ok(()), |text| self.check_will_text(session, text))
    }

    /// Checks a will that a session is to have.
    ///
    /// # Errors
    /// As [`Router::check_will_of`].
    pub(super) fn check_will_text(&self, session: &Session, text: &str) -> Result<(), Refusal> {
        let checked = read(text).and_then(|will| self.check_will(session, &will).map(drop));
        checked.map_err(|refusal| Refusal::new(refusal.code, format!("data.will: {}", refusal.message)))
    }

    /// Publishes the will of a session that has ended, as from the session: after its events that wait for the disk. `rest`
    /// follows the will.
    pub(super) fn publish_will(&self, now: Instant, session: &Arc<Session>, text: &str, rest: Rest) {
        let published = read(text).and_then(|will| {
            let (facts, scope) = self.check_will(session, &will)?;
            if session.commits.any() || self.is_durable(&will, &facts) {
                return Ok(false);
            }
            let _steady = self.steady();
            let matches = self.subscribers(&facts, scope);
            // Nobody is left to wait for receivers whose queues are over half.
            self.publish(now, session, &will, scope, &matches, &facts)?;
            Ok(true)
        });
        match published {
            Ok(true) => self.note_will(now, session, None, rest),
            Ok(false) => self.commit_will(now, session, text.into(), rest),
            Err(refusal) => self.note_will(now, session, Some(&refusal), rest),
        }
    }

    /// A will was published, or refused. What follows it can follow.
    pub(super) fn note_will(&self, now: Instant, session: &Arc<Session>, refused: Option<&Refusal>, rest: Rest) {
        match refused {
            None => self.metrics.wills.count(()),
            Some(refusal) => log_refused_will(session, refusal),
        }
        self.end_rest(now, session, rest);
    }

    /// Returns the facts of a will's triple, and its scope. A will is an event whatever handlers there are.
    fn check_will<'e>(&self, session: &'e Session, will: &'e Envelope<'_>) -> Result<(Facts<'e>, Scope<'e>), Refusal> {
        let triple = will.triple();
        check_fields(session, will)?;
        let facts = self.policy.facts(triple);
        if facts.protected {
            return Err(Refusal::new(ErrorCode::Forbidden, "the triple is protected, so it has requests only"));
        }
        let scope = access::scope(session, will, &facts)?;
        if let Some(rights) = session.rights() {
            rights.publish.check(triple).map_err(|why| send::forbidden("publish", triple, &why))?;
        }
        access::check_publisher(session, &facts)?;
        self.check_retain(will)?;
        Ok((facts, scope))
    }
}

fn log_refused_will(session: &Session, refusal: &Refusal) {
    let (source, user, code) = (&*session.source, session.user(), refusal.code.as_str());
    tracing::warn!(source, user, session = %session.id, code, reason = &*refusal.message, "a will was refused");
}

/// Reads the text of a will.
fn read(text: &str) -> Result<Envelope<'_>, Refusal> {
    if text.len() > WILL_BYTES_MAX {
        let words = format!("a will has at most {WILL_BYTES_MAX} bytes");
        return Err(Refusal::new(ErrorCode::TooLarge, words));
    }
    // How deep it may nest was checked with the message in which it was sent.
    decode(text, DecodeLimits::client(usize::MAX)).map_err(|malformed| malformed.refusal)
}

/// Checks the fields that make an envelope something other than an event, or that the broker sets for a will.
fn check_fields(session: &Session, will: &Envelope<'_>) -> Result<(), Refusal> {
    if will.triple().is_broker() {
        return Err(Refusal::new(ErrorCode::ReservedChannel, "the channel 'Broker' is reserved"));
    }
    let forbidden = [
        ("source", will.source().is_some()),
        ("id", will.id().is_some()),
        ("inReplyTo", will.in_reply_to().is_some()),
        ("user", will.user().is_some() && session.user().is_some()),
        ("timeout", will.timeout_ms().is_some()),
        ("gather", will.gather()),
        ("idempotent", will.idempotent()),
        ("more", will.more()),
        ("once", will.once()),
    ];
    match forbidden.into_iter().find(|(_, is_there)| *is_there) {
        None => Ok(()),
        Some(("user", _)) => {
            Err(Refusal::new(ErrorCode::InvalidEnvelope, "the field 'user' is for services; a user's will is its own"))
        }
        Some((name, _)) => {
            Err(Refusal::new(ErrorCode::InvalidEnvelope, format!("the field '{name}' is not allowed in a will")))
        }
    }
}
