//! [`SilentUntilRequest`]: a stream on which hyper says nothing of its own.
//!
//! A head that hyper cannot read it refuses by itself, with a status and no word why. What it writes before a request
//! was understood goes nowhere, so that the listener can refuse in words.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Takes what is written and drops it, until `understood` says that there is a request to answer.
pub(super) struct SilentUntilRequest<'a> {
    stream: TokioIo<TcpStream>,
    understood: &'a AtomicBool,
}

impl<'a> SilentUntilRequest<'a> {
    pub(super) fn new(stream: TcpStream, understood: &'a AtomicBool) -> Self {
        Self { stream: TokioIo::new(stream), understood }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream.into_inner()
    }
}

impl Read for SilentUntilRequest<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for SilentUntilRequest<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.understood.load(Ordering::Relaxed) {
            Pin::new(&mut self.stream).poll_write(cx, buf)
        } else {
            Poll::Ready(Ok(buf.len()))
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
