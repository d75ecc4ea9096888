//! [`Router::decide`]: what an envelope is, and who would get it. Nothing changes here; `deliver` carries a decision out.
//!
//! The rules are those of docs/protocol.md, "Routing": the first that fits decides.

use std::sync::Arc;

use wire::{Envelope, ErrorCode, Refusal, Triple};

use crate::router::access::send::Sent;
use crate::router::history::{check_once, once_in_a_reply};
use crate::router::index::Matches;
use crate::router::outbox::OnFull;
use crate::router::request::candidates::Candidates;
use crate::router::request::words;
use crate::router::session::Session;
use crate::router::{RequestId, Router, Scope, access};
use crate::telemetry::metrics::ChannelPlace;

/// What an envelope is and who would get it.
pub struct Decision<'e> {
    pub(super) facts: Facts<'e>,
    pub(super) verdict: Verdict<'e>,
}

impl Decision<'_> {
    /// Returns whether the envelope is a request that a handler answers, and not a command.
    pub fn expects_answer(&self) -> bool {
        matches!(&self.verdict, Verdict::Request { candidates, .. } if candidates.answer())
    }
}

/// What follows from a triple and the configuration, looked up once for each envelope.
#[expect(clippy::struct_excessive_bools, reason = "independent keys of a channel")]
pub(super) struct Facts<'e> {
    /// The triple as the index compares it: folded where its channel folds.
    pub(super) canonical: Triple<'e>,
    /// Where messages of the channel are counted.
    pub(super) place: ChannelPlace,
    /// The channel compares its topics and subtopics without regard to case.
    pub(super) folded: bool,
    /// The channel is shared by all users.
    pub(super) shared: bool,
    /// Only services and adapters publish events on the channel.
    pub(super) services_only: bool,
    /// The triple is protected: request-only, its bytes are wiped.
    pub(super) protected: bool,
    /// The triple is configured to be request-only.
    pub(super) only: bool,
    /// The channel keeps its last events.
    pub(super) history: bool,
    /// Its logs are on disk.
    pub(super) durable: bool,
    /// Its retained values are on disk.
    pub(super) retains_durably: bool,
    /// What a full queue does with an event of the channel.
    pub(super) on_full: OnFull,
}

impl Facts<'_> {
    /// The scope of an envelope of, or for, a user.
    pub(super) fn scope_of<'u>(&self, user: Option<&'u str>) -> Scope<'u> {
        match user {
            user if self.shared => Scope::Shared(user),
            // If a service named no user, we cannot tell whose handlers it meant. Match no user's.
            user => Scope::User(user.unwrap_or_default()),
        }
    }
}

/// The rule that fits.
pub(super) enum Verdict<'e> {
    /// Rule 1: the reply to a request that the envelope names.
    Reply,
    /// Rule 1 for an ordered handler: the reply to this request, whose turn it is.
    Turn(RequestId),
    /// Rule 2: a request.
    Request { scope: Scope<'e>, candidates: Candidates },
    /// Rule 4: an event.
    Event { scope: Scope<'e>, matches: Matches },
    /// Rule 3, or something that the sender may not do. `is_request`: the failure goes on the request's own triple.
    Refused { refusal: Refusal, is_request: bool },
}

impl Router {
    /// Decides what an envelope of a registered session is, and who would get it.
    pub fn decide<'e>(&self, sender: &'e Arc<Session>, envelope: &'e Envelope<'_>) -> Decision<'e> {
        let facts = self.policy.facts(envelope.triple());
        let verdict = self.verdict(sender, envelope, &facts).unwrap_or_else(|(refusal, is_request)| {
            let is_request = is_request.unwrap_or_else(|| self.looks_like_request(sender, envelope, &facts));
            Verdict::Refused { refusal, is_request }
        });
        Decision { facts, verdict }
    }

    /// The rule that fits; or a refusal, and whether the envelope is a request, if that is known already.
    fn verdict<'e>(
        &self,
        sender: &'e Arc<Session>,
        envelope: &'e Envelope<'_>,
        facts: &Facts<'_>,
    ) -> Result<Verdict<'e>, (Refusal, Option<bool>)> {
        let is_reply = envelope.in_reply_to().is_some();
        if let Err(refusal) = sender.check_source(envelope).and_then(|()| check_once(envelope, facts)) {
            return Err((refusal, is_reply.then_some(false)));
        }
        if is_reply {
            return Ok(Verdict::Reply);
        }
        if let Some(request) = sender.turns.expects(&facts.canonical) {
            if envelope.once() {
                return Err((once_in_a_reply(), Some(false)));
            }
            return Ok(Verdict::Turn(request));
        }
        let scope = access::scope(sender, envelope, facts).map_err(|refusal| (refusal, None))?;
        let candidates = self.candidates(sender, envelope, scope, facts);
        let sent = self.sent(envelope, &candidates, facts);
        let checked = sender.check_rights(|rights| {
            let checked = self.check_right(rights, envelope, &candidates, facts, sent);
            checked.map_err(|lacking| (lacking.refusal, Some(lacking.is_request)))
        });
        checked.transpose()?;
        if facts.protected && !sender.may_request(envelope.triple()) {
            return Err((access::may_not_request(), Some(true)));
        }
        if candidates.is_empty() {
            let checked = self.check_cut_off(envelope.triple(), scope, facts);
            checked.map_err(|refusal| (refusal, Some(true)))?;
        }
        self.check_retain(envelope).map_err(|refusal| (refusal, Some(false)))?;
        match sent {
            Sent::Request | Sent::Handled if envelope.retain() => Err((not_for_requests("retain"), Some(true))),
            Sent::Request | Sent::Handled if envelope.once() => Err((not_for_requests("once"), Some(true))),
            Sent::Request | Sent::Handled => {
                let is_nobodys = candidates.is_empty() && (facts.protected || !envelope.gather());
                match is_nobodys {
                    true => Err((self.no_handler(envelope, facts), Some(true))),
                    false => Ok(Verdict::Request { scope, candidates }),
                }
            }
            Sent::Unserved => Err((self.no_handler(envelope, facts), Some(true))),
            Sent::Event => {
                access::check_publisher(sender, facts).map_err(|refusal| (refusal, Some(false)))?;
                Ok(Verdict::Event { scope, matches: self.subscribers(facts, scope) })
            }
        }
    }

    /// Whether an envelope that was refused before its scope was known would have been a request.
    fn looks_like_request(&self, sender: &Arc<Session>, envelope: &Envelope<'_>, facts: &Facts<'_>) -> bool {
        let rights = sender.rights();
        // The failure of a sender that may not know handlers arrives at the same place with a handler and without.
        let may_know = rights.is_none_or(|rights| access::send::may_know_handlers(&rights, envelope.triple()));
        let candidates = match may_know {
            true => self.candidates(sender, envelope, facts.scope_of(sender.user()), facts),
            false => Candidates::default(),
        };
        self.sent(envelope, &candidates, facts) != Sent::Event
    }

    /// Checks that an event need not be retained where values cannot be.
    ///
    /// # Errors
    /// `STORAGE_UNAVAILABLE` in a cluster.
    pub(super) fn check_retain(&self, envelope: &Envelope<'_>) -> Result<(), Refusal> {
        if !envelope.retain() || !self.is_clustered() || self.commits.is_some() {
            return Ok(());
        }
        let words = "this node of a cluster has no storage for retained values";
        Err(Refusal::new(ErrorCode::StorageUnavailable, words))
    }

    pub(super) fn no_handler(&self, envelope: &Envelope<'_>, facts: &Facts<'_>) -> Refusal {
        let off = self.declared.load().key_of(envelope.triple());
        off.map_or_else(|| words::no_handler(envelope, facts.protected), words::switched_off)
    }
}

fn not_for_requests(field: &str) -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, format!("the field '{field}' is for events, and this is a request"))
}
