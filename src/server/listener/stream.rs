//! [`Replay`]: a connection whose first bytes have been read already.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads bytes that came before, then the stream.
///
/// It drops what is written until `understood` is set. hyper answers a head that it cannot parse by itself, with a status
/// and without a word why; so that answer goes nowhere and the listener can say why.
pub(super) struct Replay<'a, S> {
    ahead: Bytes,
    stream: S,
    understood: &'a AtomicBool,
}

impl<'a, S> Replay<'a, S> {
    pub(super) fn new(ahead: Bytes, stream: S, understood: &'a AtomicBool) -> Self {
        Self { ahead, stream, understood }
    }

    /// The stream, and the bytes that have not been read from this.
    pub(super) fn into_inner(self) -> (S, Bytes) {
        (self.stream, self.ahead)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Replay<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let len = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(self.ahead.get(..len).unwrap_or_default());
        self.ahead.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Replay<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.understood.load(Ordering::Relaxed) {
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        } else {
            Poll::Ready(Ok(bytes.len()))
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
