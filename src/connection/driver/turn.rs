//! [`Turn`]: what comes next for the loop of a connection, and in which order the verifier, the socket and the outbox are asked.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;

use tokio::io::{AsyncRead, AsyncWrite};

use super::Driver;
use super::burst::Burst;
use crate::auth::{AuthError, Identity};
use crate::router::End;
use crate::websocket::{Ended, Socket};

/// What one turn of the loop brought.
pub(super) enum Turn {
    Stage,
    Due,
    /// There is something for [`Socket::next_arrival`].
    Arrived,
    /// The peer takes nothing more for now.
    Blocked,
    Wrote,
    /// There is something to send.
    Ready,
    Ended(End),
    /// Boxed: it is large, and every turn is moved.
    Verified(Box<Result<Identity, AuthError>>),
    Relieved,
    Committed,
    Looked,
    Leased,
    Fetched,
    Gone(Ended),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<'_, S> {
    /// One turn of everything but the clock and the drain. Each part leaves its state in `self`, so a turn that is dropped
    /// loses nothing.
    pub(super) async fn socket_turn(&mut self) -> Turn {
        poll_fn(|cx| {
            let turn = self.poll_socket_turn(cx);
            if turn.is_pending() {
                self.burst = Burst::default();
                self.held = None;
            }
            turn
        })
        .await
    }

    fn poll_socket_turn(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Turn> {
        let Self { socket, attached, verification, blocked, reads_first, .. } = self;
        let connection = &mut attached.connection;
        if let Some(waiting) = verification
            && let Poll::Ready(identity) = waiting.as_mut().poll(cx)
        {
            *verification = None;
            return Poll::Ready(Turn::Verified(Box::new(identity)));
        }
        if connection.poll_pause(cx).is_ready() {
            return Poll::Ready(Turn::Relieved);
        }
        if connection.poll_commits(cx).is_ready() {
            return Poll::Ready(Turn::Committed);
        }
        if connection.poll_look(cx).is_ready() {
            return Poll::Ready(Turn::Looked);
        }
        if connection.poll_lease(cx).is_ready() {
            return Poll::Ready(Turn::Leased);
        }
        if connection.poll_fetch(cx).is_ready() {
            return Poll::Ready(Turn::Fetched);
        }
        if socket.is_writing() {
            if let Poll::Ready(end) = connection.poll_end(cx) {
                return Poll::Ready(end.map_or(Turn::Due, Turn::Ended));
            }
            return write_some(socket, *blocked, cx);
        }
        let read = mem::take(reads_first) && connection.reads();
        if read && let Poll::Ready(arrived) = poll_arrived(socket, cx) {
            return Poll::Ready(arrived);
        }
        if connection.poll_ready(cx).is_ready() {
            *reads_first = true;
            return Poll::Ready(Turn::Ready);
        }
        if read || !connection.reads() {
            return Poll::Pending;
        }
        poll_arrived(socket, cx)
    }
}

fn poll_arrived<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    cx: &mut std::task::Context<'_>,
) -> Poll<Turn> {
    let arrived = socket.poll_come(cx);
    arrived.map(|arrived| arrived.map_or_else(Turn::Gone, |()| Turn::Arrived))
}

/// Writes what the peer takes now.
fn write_some<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    blocked: bool,
    cx: &mut std::task::Context<'_>,
) -> Poll<Turn> {
    let mut progress = false;
    while socket.is_writing() {
        match socket.poll_write(cx) {
            Poll::Ready(Ok(())) => progress = true,
            Poll::Ready(Err(_)) => return Poll::Ready(Turn::Gone(Ended::Lost)),
            Poll::Pending if progress => break,
            Poll::Pending if blocked => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Turn::Blocked),
        }
    }
    Poll::Ready(Turn::Wrote)
}
