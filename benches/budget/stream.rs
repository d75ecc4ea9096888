//! [`Stream`]: a connection in memory, whose far end is a [`Peer`] that sends ready-made bytes and takes all it is given.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Default)]
struct State {
    sent: Arc<[u8]>,
    read: usize,
    reader: Option<Waker>,
    taken: usize,
}

/// The broker's end.
pub(crate) struct Stream(Arc<Mutex<State>>);

/// The application's end.
pub(crate) struct Peer(Arc<Mutex<State>>);

/// A connection.
pub(crate) fn connection() -> (Stream, Peer) {
    let state = Arc::default();
    (Stream(Arc::clone(&state)), Peer(state))
}

impl Peer {
    /// Sends bytes, which stand there for the broker to read at once. What was sent before has to be read.
    pub(crate) fn send(&self, bytes: &Arc<[u8]>) {
        let mut state = self.0.lock().unwrap();
        assert_eq!(state.read, state.sent.len());
        (state.sent, state.read) = (Arc::clone(bytes), 0);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Whether the broker has read all that was sent.
    pub(crate) fn has_sent(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.read == state.sent.len()
    }

    /// How many bytes came from the broker so far.
    pub(crate) fn taken(&self) -> usize {
        self.0.lock().unwrap().taken
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock().unwrap();
        if state.read == state.sent.len() {
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let end = state.sent.len().min(state.read + buffer.remaining());
        buffer.put_slice(&state.sent[state.read..end]);
        state.read = end;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().taken += bytes.len();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = slices.iter().map(|slice| slice.len()).sum();
        self.0.lock().unwrap().taken += taken;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
