//! [`Ending`] and [`finish`]: how the loop of a connection ends, and what the peer is still sent.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use wire::{Close, CloseCode};

use crate::connection::Gone;
use crate::telemetry::metrics::{ClosedBy, ClosedWith};
use crate::websocket::{Ended, Socket};

/// How long a peer may take to answer a Close frame.
const FAREWELL: Duration = Duration::from_secs(1);

/// How much of what a peer still sends is read and discarded: a reset because of unread bytes would destroy the Close
/// frame.
const DISCARDED_BYTES_MAX: usize = 4 << 20;

/// Why the loop ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The broker closes the connection.
    Close(Close),
    /// The broker closes the connection because what the peer sent cannot be understood.
    Fault(Close),
    /// The peer closed it, with this status code.
    ByPeer(Option<u16>),
    /// The stream broke or ended.
    Lost,
}

impl Ending {
    /// What the connection is told of its socket. `None`: it ended by itself.
    pub(super) fn gone(&self) -> Option<Gone> {
        match self {
            Self::Close(_) => None,
            Self::Fault(close) => Some(Gone::Fault(close.clone())),
            Self::ByPeer(code) => Some(Gone::ByPeer(*code)),
            Self::Lost => Some(Gone::Lost),
        }
    }

    /// What it is counted as.
    pub(super) fn counted(&self) -> (ClosedWith, ClosedBy) {
        match self {
            Self::Close(close) | Self::Fault(close) => {
                let by = if close.code() == CloseCode::Kicked { ClosedBy::Operator } else { ClosedBy::Broker };
                (ClosedWith::Catalogue(close.code()), by)
            }
            Self::ByPeer(code) => (ClosedWith::of(*code), ClosedBy::Peer),
            Self::Lost => (ClosedWith::Lost, ClosedBy::Peer),
        }
    }

    /// Whether the peer is to receive what waits for it: not if it has gone, nor if it takes nothing anyhow.
    pub(super) fn sends_what_waits(&self) -> bool {
        match self {
            Self::Close(close) => close.code() != CloseCode::SlowConsumer,
            Self::Fault(_) => true,
            Self::ByPeer(_) | Self::Lost => false,
        }
    }
}

/// Writes what is left and a Close frame, and waits until the peer has read it. The caller bounds the time.
pub(super) async fn finish<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>, ending: Ending) {
    let (code, reason) = match &ending {
        Ending::Close(close) | Ending::Fault(close) => (Some(close.code().code()), close.reason()),
        Ending::ByPeer(code) => (*code, ""),
        Ending::Lost => return,
    };
    if write_out(socket).await.is_err() {
        return;
    }
    socket.close(code, reason);
    if write_out(socket).await.is_err() {
        return;
    }
    let answered = match ending {
        Ending::Close(_) => timeout(FAREWELL, answer(socket)).await == Ok(true),
        Ending::ByPeer(_) => true,
        Ending::Fault(_) | Ending::Lost => false,
    };
    if poll_fn(|cx| socket.poll_shutdown(cx)).await.is_ok() && !answered {
        timeout(FAREWELL, discard(socket)).await.ok();
    }
}

async fn write_out<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> io::Result<()> {
    while socket.is_writing() {
        poll_fn(|cx| socket.poll_write(cx)).await?;
    }
    Ok(())
}

/// Whether the peer answers with a Close frame. What it sent before it had ours is skipped.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) -> bool {
    loop {
        let came = poll_fn(|cx| socket.poll_come(cx)).await;
        if let Err(ended) = came.and_then(|()| socket.next_arrival().map(drop)) {
            return matches!(ended, Ended::ByPeer(_));
        }
    }
}

async fn discard<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>) {
    let mut discarded = 0;
    while let Ok(read @ 1..) = poll_fn(|cx| socket.poll_discard(cx)).await {
        discarded += read;
        if discarded > DISCARDED_BYTES_MAX {
            break;
        }
    }
}
