//! [`Order`]: what a [`Client`](super::Client) asks its driver to do.

use tokio::sync::{mpsc, oneshot};

use super::position::{Recover, Track};
use super::subscription::Wanted;
use super::waiting::{Incoming, Waiting};

/// See the module.
pub(super) enum Order {
    /// Send an event.
    Send(String),
    /// Keep an event until there is a connection. `kept` is dropped if there is no room.
    Keep { text: String, kept: oneshot::Sender<()> },
    /// Send an event with this id, or keep it until there is a connection.
    Publish { id: String, text: String, once: bool, receipt: oneshot::Sender<Incoming> },
    /// Send a text, and pass on the answers to this id.
    Ask { id: String, text: String, waiting: Waiting },
    /// Send the answer to a request, if the request is still open.
    Answer { to: String, more: bool, text: String },
    /// Subscribe. `done` gets the broker's reply.
    Subscribe {
        id: String,
        wanted: Wanted,
        recover: Option<Recover>,
        track: Track,
        queue: mpsc::Sender<Incoming>,
        done: oneshot::Sender<Incoming>,
    },
    /// Unregister, close the connection and end.
    Close(oneshot::Sender<()>),
}
