//! [`Router::change_permissions`]: rights that change while a session lives.
//!
//! The new permissions are set while the session's queue is locked. A push checks them under the same lock, so once they
//! are set, nothing comes into the queue that they do not allow. What waits there is read again, which happens only here:
//! the hot path stores nothing for it but what kind of frame each is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Deserialize;
use wire::{DecodeLimits, Envelope, decode, notice};

use crate::auth::Permissions;
use crate::router::access::receive::Interest;
use crate::router::ended::SubscriptionEnd;
use crate::router::index::Subscription;
use crate::router::outbox::{Kind, OnFull};
use crate::router::policy::Earlier;
use crate::router::session::Session;
use crate::router::{RequestId, Router, Scope};
use crate::websocket::Frame;

/// Why subscriptions ended or were narrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The session gave a new proof.
    Renewed,
    /// The configuration was reloaded.
    Reloaded,
    /// A reload has changed the scope of the channel.
    Scope,
    /// A reload has changed whether the channel folds.
    Folding,
}

impl Reason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Renewed => "RENEWED",
            Self::Reloaded | Self::Folding => "RELOADED",
            Self::Scope => "SCOPE",
        }
    }
}

/// What new permissions mean for a subscription.
enum Judged {
    /// It is no longer allowed.
    Ends,
    /// It goes on.
    Stays { is_checked: bool, loses_something: bool },
}

impl Router {
    /// Gives a session these permissions in place of those that it has. They apply at once: subscriptions that are no longer
    /// allowed end, others are narrowed or widened, and messages that wait for the session and are no longer allowed are
    /// dropped. The session is told with `Broker/Subscription/Ended`. A request that it was given and has not been sent is
    /// given to another handler if it is idempotent; otherwise its requester gets `HANDLER_GONE`.
    pub fn change_permissions(&self, now: Instant, session: &Arc<Session>, permissions: Permissions, reason: Reason) {
        self.change_if(now, session, reason, None, |_| Some(permissions));
    }

    /// Gives a session the permissions of a new proof that was verified when [`Router::reloads`] was `reloads`, after
    /// `reply`. Returns whether it has; if there was a reload since, nothing is done, and the proof has to be verified again.
    pub fn renew_permissions(
        &self,
        now: Instant,
        session: &Arc<Session>,
        permissions: Permissions,
        reloads: u64,
        reply: impl FnOnce(),
    ) -> bool {
        let mut is_current = false;
        self.change_if(now, session, Reason::Renewed, None, |_| {
            is_current = self.reloads() == reloads;
            is_current.then(|| {
                session.set_proven_under(reloads);
                reply();
                permissions
            })
        });
        is_current
    }

    /// Gives a session the permissions on which `decide` decides, which is called with those that it has. `earlier`: other
    /// triples were protected then, so the same permissions can mean something else. Returns whether the permissions are
    /// other ones, or a subscription has ended or is narrowed.
    ///
    /// A renewal and a reload both decide under the lock, and a reload has raised its number before. So a renewal that has
    /// not seen the number is in force before the reload judges the session, and one that has seen it changes nothing.
    pub(super) fn change_if(
        &self,
        now: Instant,
        session: &Arc<Session>,
        reason: Reason,
        earlier: Option<&Earlier>,
        decide: impl FnOnce(&Permissions) -> Option<Permissions>,
    ) -> bool {
        // Under the lock, each subscription is made with the old permissions and judged here, or made with the new ones.
        let mut holds = session.holds.lock();
        let before = session.permissions();
        let Some(permissions) = decide(&before) else { return false };
        let is_same = *before == permissions;
        if is_same && earlier.is_none() || holds.is_closed() || session.is_revoked() {
            return false;
        }
        let permissions = Arc::new(permissions);
        let judge = |it: &Arc<Subscription>| self.judge(it, &before, &permissions, earlier);
        let judged: Vec<_> = holds.subscriptions.iter().map(judge).collect();
        let change = || {
            session.set_permissions(Arc::clone(&permissions));
            for (subscription, judged) in holds.subscriptions.iter().zip(&judged) {
                set(subscription, judged);
            }
        };
        let may_stay = |frame: &Frame, kind| self.may_still_receive(session, &permissions, frame, kind);
        let dropped = session.outbox().hold(now, change, may_stay);
        let (mut ended, mut narrowed) = (Vec::new(), Vec::new());
        for (subscription, judged) in std::mem::take(&mut holds.subscriptions).into_iter().zip(judged) {
            match judged {
                Judged::Ends => ended.push(subscription),
                Judged::Stays { loses_something, .. } => {
                    narrowed.extend(loses_something.then(|| Arc::clone(&subscription)));
                    holds.subscriptions.push(subscription);
                }
            }
        }
        holds.note_ended(self.date(now), &ended, SubscriptionEnd::Changed(reason));
        tell(now, session, &ended, &narrowed, reason);
        let handles = |it: &&Arc<Subscription>| self.gains_protected(&Interest::of(it, &permissions), &before, earlier);
        let protected: Vec<_> = holds.subscriptions.iter().filter(handles).cloned().collect();
        drop(holds);
        for subscription in &protected {
            self.note_protected_handler(now, session, &subscription.pattern);
        }
        for subscription in &ended {
            self.note_unsubscribed(now, subscription, Some(reason));
            self.unlist(now, subscription);
        }
        self.announce_permissions(session);
        self.take_back(now, session, &dropped);
        tracing::debug!(
            source = &*session.source,
            session = %session.id,
            reason = reason.as_str(),
            ended = ended.len(),
            narrowed = narrowed.len(),
            "the permissions of a session have changed"
        );
        !is_same || !ended.is_empty() || !narrowed.is_empty()
    }

    fn judge(
        &self,
        subscription: &Subscription,
        before: &Permissions,
        after: &Permissions,
        earlier: Option<&Earlier>,
    ) -> Judged {
        let (before, after) = (Interest::of(subscription, before), Interest::of(subscription, after));
        if self.check_interest(&after).is_err() {
            return Judged::Ends;
        }
        let loses_protected = || earlier.is_some_and(|earlier| self.loses_protected(&after, earlier));
        let loses_grants = after.is_handler && (self.loses_grants(&after, before.permissions) || loses_protected());
        // A request that waits for its turn may have been sent when its triple was not protected.
        let may_be_stale = after.is_handler && earlier.is_some_and(|it| self.is_newly_protected(&after, it));
        Judged::Stays {
            is_checked: self.is_checked(&after) || may_be_stale,
            loses_something: loses_grants || self.loses(&before, &after),
        }
    }

    /// Takes the requests among frames that a session was to get, and that were dropped, back from it.
    fn take_back(&self, now: Instant, session: &Arc<Session>, dropped: &[Frame]) {
        if dropped.is_empty() {
            return;
        }
        for frame in dropped {
            let request =
                decode(frame.text(), DecodeLimits::OWN).ok().and_then(|it| it.id()?.parse::<RequestId>().ok());
            if let Some(pending) = request.and_then(|id| session.given(id)) {
                self.handler_gone(now, &pending, session);
            }
        }
        // An ordered handler that will not see its request is free for the next.
        self.serve_turns(now, session);
    }

    /// Whether permissions allow a message that waits for their session.
    fn may_still_receive(&self, session: &Session, permissions: &Permissions, frame: &Frame, kind: Kind) -> bool {
        let Ok(envelope) = decode(frame.text(), DecodeLimits::OWN) else { return false };
        let triple = envelope.triple();
        if triple.is_broker() {
            return session.may_know(permissions, presence_of(&envelope).as_deref());
        }
        let facts = self.policy.facts(triple);
        let scope = match envelope.user() {
            user if facts.shared => Scope::Shared(user),
            Some(user) => Scope::User(user),
            // An event of its own user, or one for all users.
            None => Scope::Shared(None),
        };
        let rights = permissions.rights.as_deref();
        session.admits(permissions, scope)
            && match kind {
                Kind::Event => !facts.protected && rights.is_none_or(|it| it.subscribe.check(triple).is_ok()),
                Kind::Request => {
                    rights.is_none_or(|it| it.handle.check(triple).is_ok())
                        && self.may_handle(session, triple, scope, &facts, false)
                }
                Kind::Other => true,
            }
    }
}

/// Sets what follows from new permissions for a subscription.
fn set(subscription: &Subscription, judged: &Judged) {
    let is_checked = match judged {
        Judged::Ends => {
            subscription.listing.end();
            true
        }
        Judged::Stays { is_checked, .. } => *is_checked,
    };
    subscription.checked.store(is_checked, Ordering::Relaxed);
}

/// Tells a session which of its subscriptions have ended, and which are narrowed.
pub(super) fn tell(
    now: Instant,
    session: &Session,
    ended: &[Arc<Subscription>],
    narrowed: &[Arc<Subscription>],
    reason: Reason,
) {
    if ended.is_empty() && narrowed.is_empty() {
        return;
    }
    let ids = |of: &[Arc<Subscription>]| -> Vec<String> { of.iter().map(|it| it.id.to_string()).collect() };
    let notice = notice::subscriptions_ended(&ids(ended), &ids(narrowed), reason.as_str());
    // A session that is ending is told nothing more.
    session.push(now, notice.into(), OnFull::Close).ok();
}

/// The user of a presence event.
fn presence_of(envelope: &Envelope<'_>) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Presence {
        user: Option<String>,
    }
    serde_json::from_str::<Presence>(envelope.payload()?).ok()?.user
}
