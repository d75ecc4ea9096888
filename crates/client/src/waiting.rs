//! [`Waiting`]: the recipient of the answers to an envelope that this client sent.

use tokio::sync::{mpsc, oneshot};

use super::subscription::Wanted;
use super::{Error, Message};

/// An item of a queue. An error is the last one.
pub(super) type Incoming = Result<Message, Error>;

/// The recipient of an answer.
pub(super) enum Waiting {
    /// Takes one answer.
    Once(oneshot::Sender<Incoming>),
    /// Takes answers up to the one without `more`. If it is dropped before that, the request is cancelled.
    Stream(mpsc::Sender<Incoming>),
    /// Takes the reply to the Subscribe command with this number.
    Subscribe(Wanted, u64, oneshot::Sender<Incoming>),
    /// The subscriptions that are made again after a reconnect, by the Subscribe command with this number.
    Again(Wanted, u64),
    /// The driver takes the reply to Renew.
    Renewal,
}

impl Waiting {
    pub(super) fn is_dropped(&self) -> bool {
        match self {
            Self::Once(queue) => queue.is_closed(),
            Self::Stream(queue) => queue.is_closed(),
            // The reply has the id by which the subscription is ended.
            Self::Subscribe(..) | Self::Again(..) | Self::Renewal => false,
        }
    }

    /// Reports why there will be no answer.
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Once(queue) | Self::Subscribe(_, _, queue) => {
                queue.send(Err(error)).ok();
            }
            Self::Stream(queue) => {
                queue.try_send(Err(error)).ok();
            }
            Self::Again(..) | Self::Renewal => {}
        }
    }
}
