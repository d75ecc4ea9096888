//! [`Routed`]: what became of an envelope, and [`Receipt`], what its sender is told of it.

use std::sync::Arc;

use wire::notice;

use crate::router::commit::{Awaited, CommitTicket};
use crate::router::history::Kept;
use crate::router::outbox::Pressure;
use crate::router::session::Session;

/// What became of an envelope that was accepted.
#[derive(Default)]
pub struct Routed {
    /// What a sender that gave an `id` is told: for events, and commands that nobody answers.
    pub receipt: Option<Receipt>,
    /// Receivers whose queues are over half now: the sender should wait for them.
    pub pressed: Vec<Arc<Session>>,
    /// In how many outbound queues it is, those of observers included.
    pub deliveries: usize,
    /// Its triple, or that of the request that it answers, is protected: the sender's copy has to be wiped.
    pub secret: bool,
    /// It has to be on disk first. The rest of this follows then.
    pub ticket: Option<Box<CommitTicket>>,
    /// What other nodes have to take before its sender is told.
    pub(super) waits_for: Awaited,
}

/// The facts of `Broker/Message/Receipt`.
#[derive(Debug, PartialEq, Eq)]
pub struct Receipt {
    /// In how many outbound queues the message is.
    pub receivers: usize,
    /// What the sender may have meant instead.
    pub hint: Option<String>,
    /// Its place in a log, if its channel has history.
    pub kept: Option<Box<Kept>>,
    /// In a cluster, to how many other nodes it went.
    pub nodes: Option<usize>,
}

impl Receipt {
    /// The text of `Broker/Message/Receipt` for an event with this `id`.
    pub fn notice(&self, id: &str) -> String {
        let kept = self.kept.as_ref().map(|it| notice::Kept {
            offset: it.position.offset,
            epoch: &it.position.epoch,
            is_duplicate: it.is_duplicate,
        });
        notice::receipt(id, self.receivers, kept, self.nodes, self.hint.as_deref())
    }
}

impl Routed {
    /// It is in the queue of a receiver.
    pub(super) fn note_delivery(&mut self, session: &Arc<Session>, pressure: Pressure) {
        self.deliveries += 1;
        self.note_pressure(session, pressure);
    }

    /// Whether it is an event that was sent before.
    pub(super) fn is_duplicate(&self) -> bool {
        self.receipt.as_ref().and_then(|receipt| receipt.kept.as_ref()).is_some_and(|kept| kept.is_duplicate)
    }

    pub(super) fn note_pressure(&mut self, session: &Arc<Session>, pressure: Pressure) {
        if pressure == Pressure::Over {
            self.pressed.push(Arc::clone(session));
        }
    }
}
