//! [`Payload`]: a body that is sent completely or breaks off in the middle.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// The body of an answer.
pub(super) struct Payload {
    bytes: Bytes,
    announced: u64,
    cut: bool,
    told_half: bool,
}

/// Why a body ends early.
#[derive(Debug)]
pub(super) struct Cut;

impl Payload {
    /// The bytes. With `cut`, only the first half is sent, though all are announced.
    pub(super) fn new(bytes: Bytes, cut: bool) -> Self {
        let announced = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let bytes = if cut { bytes.slice(..bytes.len() / 2) } else { bytes };
        Self { bytes, announced, cut, told_half: false }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if !self.bytes.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))));
        }
        if !self.cut {
            return Poll::Ready(None);
        }
        if self.told_half {
            return Poll::Ready(Some(Err(Cut)));
        }
        // The bytes so far are sent before the error ends the connection.
        self.told_half = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty() && !self.cut
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("cut on demand")
    }
}

impl std::error::Error for Cut {}
