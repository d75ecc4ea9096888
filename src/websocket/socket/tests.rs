//! The socket over a peer that takes as much as the test says.

use std::task::Waker;

use super::*;

/// "hi", as a client pings.
const PING: [u8; 8] = [0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];

/// A peer that takes `room` bytes, and has sent `sent`.
#[derive(Default)]
struct Peer {
    room: usize,
    taken: Vec<u8>,
    sent: Vec<u8>,
    gone: bool,
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.sent.is_empty() && !self.gone {
            return Poll::Pending;
        }
        buffer.put_slice(&std::mem::take(&mut self.sent));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.room == 0 {
            return Poll::Pending;
        }
        let before = self.taken.len();
        for slice in slices {
            let most = slice.len().min(self.room);
            self.taken.extend_from_slice(&slice[..most]);
            self.room -= most;
        }
        Poll::Ready(Ok(self.taken.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn socket(room: usize, batch: &[&str]) -> Socket<Peer> {
    let mut socket = Socket::new(Peer { room, ..Peer::default() }, &[], 1000);
    socket.batch().extend(batch.iter().map(|text| Frame::new(text)));
    socket
}

fn wire(texts: &[&str]) -> Vec<u8> {
    texts.iter().flat_map(|text| Frame::new(text).wire().to_vec()).collect()
}

/// The next message that the peer has sent.
fn arrival(socket: &mut Socket<Peer>) -> Poll<Result<Option<Arrival<'_>>, Ended>> {
    socket.poll_come(&mut cx()).map(|came| came.and_then(|()| socket.next_arrival()))
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// Writes until the peer takes no more.
fn write(socket: &mut Socket<Peer>) {
    while socket.is_writing() && socket.poll_write(&mut cx()).is_ready() {}
}

/// What the peer has when it has taken all, `step` bytes at a time.
fn taken(socket: &mut Socket<Peer>, step: usize) -> Vec<u8> {
    write(socket);
    while socket.is_writing() {
        socket.stream.room = step;
        write(socket);
    }
    std::mem::take(&mut socket.stream.taken)
}

#[test]
fn a_half_written_batch_goes_on_where_it_stood() {
    let small: Vec<usize> = (0..200).collect();
    let mixed = [1, 2, 3000, 4000, 5, 1020, 1021, 1022, 1023, 1024, 6, 70_000, 7, 8].repeat(10);
    for sizes in [small, vec![900; 300], mixed] {
        let texts: Vec<String> = sizes.into_iter().map(|size| "x".repeat(size)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        for step in [7, 64, 1000, 1 << 20] {
            assert!(taken(&mut socket(0, &texts), step) == wire(&texts), "{step} bytes at a time");
        }
    }
    let texts = ["x", "yy", "zzz"].repeat(10);
    assert_eq!(taken(&mut socket(0, &texts), 1), wire(&texts));
}

#[test]
fn a_pong_goes_between_two_frames() {
    let (first, second, pong) = (wire(&["first message"]), wire(&["second message"]), b"\x8A\x02hi".as_slice());
    for room in 0..=first.len() + second.len() {
        let mut socket = socket(room, &["first message", "second message"]);
        write(&mut socket);
        socket.reader.feed(&PING);
        assert_eq!(socket.next_arrival(), Ok(Some(Arrival::Alive)));
        let expected = match room {
            0 => [pong, &first, &second].concat(),
            room if room <= first.len() => [&first, pong, &second].concat(),
            _ => [&first, &second, pong].concat(),
        };
        assert_eq!(taken(&mut socket, 5), expected, "after {room} bytes");
    }
}

#[test]
fn what_is_not_begun_can_be_dropped() {
    for (room, expected) in [(0, wire(&[])), (1, wire(&["first message"])), (15, wire(&["first message"]))] {
        let mut socket = socket(room, &["first message", "second message"]);
        write(&mut socket);
        socket.drop_unbegun();
        assert_eq!(taken(&mut socket, 3), expected, "after {room} bytes");
    }
}

#[test]
fn only_the_latest_ping_is_answered() {
    let mut socket = socket(1000, &[]);
    socket.stream.sent = [&[0x89, 0x80, 0, 0, 0, 0], PING.as_slice()].concat();
    for _ in 0..2 {
        assert_eq!(arrival(&mut socket), Poll::Ready(Ok(Some(Arrival::Alive))));
    }
    assert_eq!(taken(&mut socket, 100), b"\x8A\x02hi");
    assert_eq!(arrival(&mut socket), Poll::Pending);
}

#[test]
fn memory_is_given_back_after_a_burst() {
    let mut socket = socket(1 << 20, &["x"; 1000]);
    assert_eq!(taken(&mut socket, 1), wire(&["x"; 1000]));
    assert_eq!(socket.batch.capacity(), 0);
}

#[test]
fn a_close_frame_ends_with_its_code_and_its_reason() {
    let mut socket = socket(100, &[]);
    socket.close(Some(1001), "bye");
    assert_eq!(taken(&mut socket, 1), b"\x88\x05\x03\xE9bye");
    socket.close(None, "");
    assert_eq!(taken(&mut socket, 1), b"\x88\x00");
}

#[test]
fn the_end_of_the_stream_is_told_from_a_close() {
    let mut lost = socket(0, &[]);
    lost.stream.gone = true;
    assert_eq!(arrival(&mut lost), Poll::Ready(Err(Ended::Lost)));
    let mut closed = socket(0, &[]);
    closed.stream.sent = vec![0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9];
    assert_eq!(arrival(&mut closed), Poll::Ready(Err(Ended::ByPeer(Some(1001)))));
}
