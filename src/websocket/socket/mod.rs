//! [`Socket`]: the WebSocket of one connection, over any stream. Poll functions only, nothing here waits.
//!
//! Reading is `reader`'s; what is written are prepared frames, header included, straight to the stream, several in one syscall
//! (`vectored`). Control frames of our own (pong, close) go between two of them, never into one. All state of a half-written
//! batch is in the struct, so a future that is dropped loses nothing.

mod vectored;

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use zeroize::Zeroize;

use self::vectored::{SLICES, join, slices};
use super::reader::{Message, Reader};
use crate::websocket::{Fault, Frame};

/// What one syscall may bring.
const READ_BYTES: usize = 32 << 10;

/// A batch that was once longer than this gives its memory back when it is written.
const KEPT_CAPACITY: usize = 16;

/// The first byte of a pong and of a Close frame (RFC 6455, section 5.2).
const PONG: u8 = 0x8A;
const CLOSE: u8 = 0x88;

thread_local! {
    /// Where bytes land before they are known to belong to a message, and where frames are joined: one buffer a thread,
    /// none a session.
    static SCRATCH: RefCell<[u8; READ_BYTES]> = const { RefCell::new([0; READ_BYTES]) };
}

/// What a session is told of.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<'s> {
    /// A text message.
    Text(&'s str),
    /// A binary message.
    Binary,
    /// A frame that is not a message: a ping, which is answered here, a pong, or a fragment with more to come.
    Alive,
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer sent a Close frame, with this status code.
    ByPeer(Option<u16>),
    /// The stream broke or ended without a Close frame.
    Lost,
    /// The peer broke a rule of WebSocket; what it sends from now on means nothing.
    Fault(Fault),
}

/// The WebSocket of one connection.
pub struct Socket<S> {
    stream: S,
    reader: Reader,
    /// Frames that are not wholly written, oldest first.
    batch: Vec<Frame>,
    /// Bytes of the first frame of `batch` that are written.
    written: usize,
    /// A control frame, or the rest of one: goes out at the next boundary between frames.
    control: Bytes,
    unflushed: bool,
    /// The size of the last read into the thread's buffer.
    last_read: usize,
    /// Bytes have arrived since the last [`Socket::take_heard`].
    heard: bool,
    /// The number of bytes that have arrived since the last [`Socket::take_received`].
    received: usize,
    /// The number of bytes that were written since the last [`Socket::take_sent`].
    sent: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The socket of a stream after the handshake; `read_ahead` is what was read together with it.
    pub fn new(stream: S, read_ahead: &[u8], message_bytes_max: usize) -> Self {
        Self {
            stream,
            reader: Reader::new(read_ahead, message_bytes_max),
            batch: Vec::new(),
            written: 0,
            control: Bytes::new(),
            unflushed: false,
            last_read: 0,
            heard: false,
            received: read_ahead.len(),
            sent: 0,
        }
    }

    /// From the next message on, one may have this number of bytes.
    pub fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.reader.set_message_bytes_max(message_bytes_max);
    }

    /// The next message that has arrived as a whole. Reads no stream.
    pub fn next_arrival(&mut self) -> Result<Option<Arrival<'_>>, Ended> {
        let Some(message) = self.reader.next().map_err(Ended::Fault)? else { return Ok(None) };
        match message {
            Message::Text(text) => Ok(Some(Arrival::Text(text))),
            Message::Binary => Ok(Some(Arrival::Binary)),
            Message::Ping(payload) => {
                // An older answer that has not left is replaced: the latest ping counts (RFC 6455, section 5.5.3).
                self.control = control_frame(PONG, payload);
                Ok(Some(Arrival::Alive))
            }
            Message::Pong | Message::Part => Ok(Some(Arrival::Alive)),
            Message::Close(code) => Err(Ended::ByPeer(code)),
        }
    }

    /// Reads until there is something for [`Socket::next_arrival`]. Not to be called while [`Socket::is_writing`]: a task that does not
    /// read is not read from.
    pub fn poll_come(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while !self.reader.is_ready() {
            let read = match self.reader.read_buffer() {
                Some(room) => pin!(self.stream.read_buf(room)).poll(cx),
                None => self.poll_read(cx, Reader::feed),
            };
            let came = ready!(read).map_err(|_| Ended::Lost)?;
            if came == 0 {
                return Poll::Ready(Err(Ended::Lost));
            }
            self.heard = true;
            self.received = self.received.saturating_add(came);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether bytes have arrived since the last call, also of a message that is not whole yet.
    pub fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// Returns how many bytes have arrived since the last call.
    pub fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.received)
    }

    /// Returns how many bytes were written since the last call.
    pub fn take_sent(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }

    /// Reads and throws away; how many bytes, 0 at the end.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.poll_read(cx, |_, _| {})
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, take: fn(&mut Reader, &[u8])) -> Poll<io::Result<usize>> {
        let (stream, reader, last_read) = (&mut self.stream, &mut self.reader, &mut self.last_read);
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(stream).poll_read(cx, &mut buffer))?;
            take(reader, buffer.filled());
            *last_read = buffer.filled().len();
            Poll::Ready(Ok(*last_read))
        })
    }

    /// Wipes the message that was handed out last, because it may have had a secret, and this thread's copy of the last
    /// read. A read on another thread is overwritten by the next one there; it is masked.
    pub fn wipe_read(&mut self) {
        self.reader.wipe();
        SCRATCH.with_borrow_mut(|scratch| {
            if let Some(read) = scratch.get_mut(..self.last_read) {
                read.zeroize();
            }
        });
    }

    /// Where frames are put that are to be written next, behind those that stand there.
    pub fn batch(&mut self) -> &mut Vec<Frame> {
        &mut self.batch
    }

    /// Whether something is still to be written or flushed.
    pub fn is_writing(&self) -> bool {
        self.unflushed || !self.batch.is_empty() || !self.control.is_empty()
    }

    /// Writes as much as one syscall takes, or flushes when all is written. Ready when there was progress.
    pub fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        if self.written == 0 && !self.control.is_empty() {
            let taken = ready!(stream.poll_write(cx, &self.control))?;
            self.control.advance(progress(taken)?);
            self.sent = self.sent.saturating_add(taken);
        } else {
            // A control frame waits for the next boundary: then only the frame that is half written.
            let most = if self.control.is_empty() { SLICES } else { 1 };
            let taken = match self.batch.get(..self.batch.len().min(most)) {
                None | Some([]) => {
                    ready!(stream.poll_flush(cx))?;
                    self.unflushed = false;
                    return Poll::Ready(Ok(()));
                }
                // The usual case by far, and the kernel's shorter way.
                Some([frame]) => ready!(stream.poll_write(cx, frame.wire().get(self.written..).unwrap_or_default()))?,
                Some(frames) => ready!(SCRATCH.with_borrow_mut(|scratch| match join(frames, self.written, scratch) {
                    Some(joined) => stream.poll_write(cx, joined),
                    None =>
                        stream.poll_write_vectored(cx, slices(frames, self.written, &mut [IoSlice::new(&[]); SLICES])),
                }))?,
            };
            self.advance(progress(taken)?);
            self.sent = self.sent.saturating_add(taken);
        }
        self.unflushed = true;
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, taken: usize) {
        let mut left = self.written + taken;
        let mut whole = 0;
        for frame in &self.batch {
            if left < frame.wire().len() {
                break;
            }
            left -= frame.wire().len();
            whole += 1;
        }
        self.written = left;
        // Let go at once what is written: the bytes may be a secret's.
        self.batch.drain(..whole);
        if self.batch.is_empty() && self.batch.capacity() > KEPT_CAPACITY {
            self.batch = Vec::new();
        }
    }

    /// Drops what is not begun. A frame that is half written stays: its rest is needed for what follows to be read.
    pub fn drop_unbegun(&mut self) {
        self.batch.truncate(usize::from(self.written > 0));
    }

    /// Puts a Close frame behind all that has been written. Not to be called while [`Socket::is_writing`].
    pub fn close(&mut self, code: Option<u16>, reason: &str) {
        let code = code.map(u16::to_be_bytes);
        self.control = control_frame(CLOSE, &[code.as_ref().map_or(&[][..], |code| code), reason.as_bytes()].concat());
    }

    /// Ends the outgoing half: what follows is the peer's.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn control_frame(first: u8, payload: &[u8]) -> Bytes {
    // Pings are checked by the reader, reasons are at most 123 bytes.
    let len = u8::try_from(payload.len()).unwrap_or_default();
    [&[first, len], payload].concat().into()
}

fn progress(taken: usize) -> io::Result<usize> {
    if taken == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(taken) }
}

#[cfg(test)]
mod tests;
