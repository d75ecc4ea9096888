//! [`Waiting`]: the recipient of the answers to an envelope that this client sent.

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::subscription::Wanted;
use super::{Error, Message};

/// An item of a queue. An error is the last one.
pub(super) type Incoming = Result<Message, Error>;

/// The recipient of an answer.
pub(super) enum Waiting {
    /// Takes one answer.
    Once(oneshot::Sender<Incoming>),
    /// Takes the receipt of an event.
    Receipt(oneshot::Sender<Incoming>, Option<Repeatable>),
    /// Takes answers up to the one without `more`. If it is dropped before that, the request is cancelled.
    Stream(mpsc::Sender<Incoming>),
    /// The subscriptions that are made by the Subscribe command with this number.
    Subscribe(Wanted, u64),
    /// The driver takes the reply to Renew.
    Renewal,
    /// The driver asked whether the broker has taken what was sent.
    Ping,
}

/// An event that may be sent again in another session, because the broker recognises it.
pub(super) struct Repeatable {
    pub(super) text: Utf8Bytes,
    /// When it was first sent.
    pub(super) since: Instant,
}

impl Waiting {
    pub(super) fn is_dropped(&self) -> bool {
        match self {
            Self::Once(queue) => queue.is_closed(),
            // An event whose sender no longer waits is sent again nevertheless.
            Self::Receipt(queue, repeatable) => repeatable.is_none() && queue.is_closed(),
            Self::Stream(queue) => queue.is_closed(),
            // The reply has the id by which the subscription is ended.
            Self::Subscribe(..) | Self::Renewal | Self::Ping => false,
        }
    }

    /// Reports why there will be no answer.
    pub(super) fn fail(self, error: Error) {
        match self {
            Self::Once(queue) | Self::Receipt(queue, _) => {
                queue.send(Err(error)).ok();
            }
            Self::Stream(queue) => {
                queue.try_send(Err(error)).ok();
            }
            Self::Subscribe(..) | Self::Renewal | Self::Ping => {}
        }
    }
}
