//! [`Input`]: what happens to a connection, and [`Effect`]: what its driver has to do about it.

use std::time::Duration;

use wire::Close;

use crate::auth::{AuthError, Claim, Identity};
use crate::router::End;

/// Everything that can happen to a connection.
pub enum Input<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary,
    /// Another frame: a ping, a pong, a fragment. It counts against the rate as a message does.
    Frame,
    /// This number of bytes was read since the last burst, of whole frames and of parts. Used if
    /// [`Connection::counts_bytes`](super::Connection::counts_bytes).
    Received(usize),
    /// Bytes came, perhaps of a frame that is not whole yet: a sign of life.
    Alive,
    /// The time of [`Connection::deadline`](super::Connection::deadline) is reached.
    Timeout,
    /// The verifier's answer to [`Effect::Verify`].
    Verified(Result<Identity, AuthError>),
    /// The receivers that the connection waited for are relieved.
    Relieved,
    /// Envelopes that waited for the disk are on it, or refused.
    Committed,
    /// Events that a Subscribe waited for were read from the disk, or cannot be.
    Looked,
    /// The lease that a Register waited for was taken, or cannot be.
    Leased,
    /// The session that a Register waited for is here, or does not continue.
    Fetched,
    /// The peer takes nothing, although there is something to take.
    Blocked,
    /// The peer took something.
    Taken,
    /// The session's outbox ended.
    Ended(End),
    /// The broker drains; the client should return this long after the Close frame.
    Drain(Duration),
    /// The broker drains, and another node takes the session over; the connection closes after this time.
    MoveAfter(Duration),
    /// The broker closes all sessions.
    Restart,
    /// The socket has ended.
    Gone(Gone),
}

/// How a socket ended.
#[derive(Clone, Debug)]
pub enum Gone {
    /// The peer sent a Close frame, with this status code if it gave one.
    ByPeer(Option<u16>),
    /// The peer broke a rule of WebSocket, and is told so by this Close frame.
    Fault(Close),
    /// The stream broke or ended without a Close frame.
    Lost,
}

/// What must wait or end.
#[derive(Debug)]
pub enum Effect {
    /// Ask the verifier, and return with [`Input::Verified`]. The connection is not read meanwhile.
    Verify(Claim),
    /// Send what waits, then this Close frame, and end.
    Close(Close),
}
