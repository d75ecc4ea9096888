//! Reloads: each has a number, and judges anew what was proved under an earlier one.
//!
//! A session that is registered when the number rises is judged by [`Router::review`]. One that registers afterwards, with
//! an identity that was verified before, is not attached ([`Router::attach_verified`]): its connection verifies again. The
//! number is compared while the shard of the map is locked in which the session is about to be listed, so a session is
//! either seen by the review or sees the new number.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use wire::{CloseCode, ErrorCode, Refusal, notice};

use crate::auth::{Permissions, Proved, Review, Right, Rights, Rules, Users, Verifier};
use crate::config::Config;
use crate::router::change::Reason;
use crate::router::outbox::End;
use crate::router::policy::Readdressed;
use crate::router::session::Session;
use crate::router::{LeaseHold, NotAttached, Registration, Router};

/// What a reload did to live sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reviewed {
    /// Sessions whose proof is no longer valid.
    pub ended: usize,
    /// Sessions whose permissions are other ones, or of which a subscription has ended or is narrowed.
    pub changed: usize,
    /// Sessions that need a new proof soon.
    pub expiring: usize,
}

impl Router {
    /// The number of the last reload. An identity that is verified from now on is not older than this.
    pub fn reloads(&self) -> u64 {
        self.reloads.load(Ordering::SeqCst)
    }

    /// Makes a session known whose identity was verified when [`Router::reloads`] was `reloads`. `None`: there was a reload
    /// since, so it has to be verified again. `lease`: that of its source, if it needs one.
    ///
    /// # Errors
    /// Those of [`Router::attach`].
    pub fn attach_verified(
        &self,
        now: Instant,
        registration: Registration,
        lease: Option<LeaseHold>,
        reloads: u64,
    ) -> Result<Option<Arc<Session>>, NotAttached> {
        self.attach_if(now, registration, lease, || self.reloads() == reloads)
    }

    /// Puts the router's part of another configuration in force; see `Policy::replace`. What is listed for a channel
    /// under another scope or with other folding ends, and so do the logs of a channel that has lost its history. The caller lets [`Router::review`] follow.
    pub fn replace_policy(&self, now: Instant, config: &Config) {
        let had_history = self.policy.channels_with_history();
        let Readdressed { scope, folding } = self.policy.replace(config);
        self.resumes.set_limits(&config.resume);
        self.count_kept();
        self.rescope(now, &scope, Reason::Scope);
        self.rescope(now, &folding, Reason::Folding);
        self.reload_history(now, &had_history, &scope);
        self.requests.set_blocked_max(config.requests.blocked);
    }

    /// Begins a new reload, and judges every session by the verifier and the policy that are in force since. Sessions whose
    /// proof is no longer good send and receive nothing more, and their connections close.
    pub fn review(&self, now: Instant, verifier: &dyn Verifier) -> Reviewed {
        let number = self.reloads.fetch_add(1, Ordering::SeqCst) + 1;
        let earlier = self.policy.begin_review();
        let mut sessions = Vec::new();
        self.presence.each(|session| sessions.push(Arc::clone(session)));
        sessions.extend(self.calls.sessions());
        let mut reviewed = Reviewed::default();
        for session in &sessions {
            let Some(principal) = session.role.principal() else { continue };
            let source = session.source();
            let changed = self.change_if(now, session, Reason::Reloaded, earlier.as_ref(), |permissions| {
                if session.proven_under() >= number {
                    // It has renewed its proof since the reload began.
                    return Some(permissions.clone());
                }
                let proof = &session.proof();
                match verifier.review(&Proved { source, principal: &principal, proof, permissions }) {
                    Review::Same => Some(permissions.clone()),
                    Review::Keep(permissions) => Some(permissions),
                    Review::KeepFor { permissions, longest } => {
                        session.outbox().set_proof_end(now + longest);
                        reviewed.expiring += 1;
                        Some(permissions)
                    }
                    Review::End => {
                        end_proof(session);
                        reviewed.ended += 1;
                        None
                    }
                }
            });
            reviewed.changed += usize::from(changed);
        }
        self.bound_away(now);
        reviewed
    }
}

/// Ends a session whose proof is no longer valid. What waits for it is dropped, because it may no longer receive it. The
/// caller holds the lock under which permissions change.
fn end_proof(session: &Session) {
    session.set_revoked();
    session.set_permissions(Arc::new(nothing()));
    let refusal = Refusal::new(
        ErrorCode::Unauthenticated,
        "the proof of who this session is was removed from the configuration: connect again, and register with a valid one",
    );
    if let Some(call) = session.call() {
        call.refused(refusal.clone());
    }
    let end = End::Close(CloseCode::Unauthenticated, "the proof of identity was removed");
    session.outbox().end_with(notice::error(None, &refusal).into(), end);
}

/// The permissions of a session that may do nothing.
fn nothing() -> Permissions {
    let right =
        || Right { allow: Rules::default(), deny: Rules::default(), from: Arc::from("a proof that was removed") };
    let rights = Rights { publish: right(), subscribe: right(), request: right(), handle: right() };
    Permissions { rights: Some(Arc::new(rights)), users: Users::nobody(), ..Permissions::default() }
}
