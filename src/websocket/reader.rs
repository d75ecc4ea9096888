//! [`Reader`]: the bytes of a connection in, messages out (RFC 6455, section 5, the server's side). It uses no stream.
//!
//! tungstenite's codec is not used, for four reasons. It never frees the largest message's buffer (1 MiB each for ten
//! thousand idle sessions), it takes no more from a syscall than that buffer's size at rest, it looks at the limit of a
//! fragmented message only after the fragment has arrived, and each message is counted bytes of its own. Here a fault is
//! found on the header, memory grows with the bytes that have arrived and not with those announced, nothing is held at rest,
//! and a message is read where it lies.

use std::mem;
use std::ops::Range;

use tokio_tungstenite::tungstenite::protocol::frame::coding;
use zeroize::{Zeroize, Zeroizing};

use super::header::{Header, Opcode, parse};
use super::{Fault, Rule};

/// The longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: usize = 125;

/// The least that is read to where it stays. What is less lands in the thread's buffer first, together with what follows.
const DIRECT_BYTES_MIN: usize = 32 << 10;

/// What a peer has sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'r> {
    /// A text message, whole.
    Text(&'r str),
    /// A binary message. What it held is of no interest.
    Binary,
    /// A ping, to be answered with its payload.
    Ping(&'r [u8]),
    /// A pong.
    Pong,
    /// A fragment, with more of its message to come.
    Part,
    /// A Close frame, with its status code if it has one.
    Close(Option<u16>),
}

/// Reads frames.
pub(super) struct Reader {
    /// What has arrived; up to `from` it is decoded.
    ahead: Vec<u8>,
    from: usize,
    /// The header of the frame that begins at `from`, once it is there; it is decoded then.
    header: Option<Header>,
    /// A message that came in fragments.
    fragments: Option<Fragments>,
    message_bytes_max: usize,
}

struct Fragments {
    /// Of the first one.
    opcode: Opcode,
    /// Wiped when dropped: fragments are rare, and nobody knows yet whether they have a secret.
    bytes: Zeroizing<Vec<u8>>,
    /// It was handed out: to be let go of.
    is_whole: bool,
}

/// A frame that has arrived as a whole.
enum Whole {
    /// In one frame, with its payload at this place of `ahead`.
    Frame(Opcode, Range<usize>),
    Fragments,
    /// Not a message yet, but a frame of one: each counts against the rate, also an empty one.
    Part,
}

impl Reader {
    /// A reader that begins with what was read together with the handshake.
    pub(super) fn new(read_ahead: &[u8], message_bytes_max: usize) -> Self {
        Self { ahead: read_ahead.to_vec(), from: 0, header: None, fragments: None, message_bytes_max }
    }

    /// From the next header on, a message may have this number of bytes.
    pub(super) fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Takes bytes that have arrived.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        if self.from > 0 {
            self.ahead.drain(..mem::take(&mut self.from));
        }
        self.ahead.extend_from_slice(bytes);
    }

    /// Where the rest of a frame may be read to without a copy, if so much is missing that it pays; a part of it at a time.
    /// What else comes with it may land there too.
    pub(super) fn read_buffer(&mut self) -> Option<&mut Vec<u8>> {
        let missing = self.header?.len.saturating_sub(self.rest().len());
        if missing < DIRECT_BYTES_MIN {
            return None;
        }
        self.ahead.drain(..mem::take(&mut self.from));
        // It doubles with what has arrived: a header that announces much takes little.
        self.ahead.reserve(DIRECT_BYTES_MIN);
        Some(&mut self.ahead)
    }

    /// Whether a frame is there as a whole, or a fault.
    pub(super) fn is_ready(&mut self) -> bool {
        self.header().map_or(true, |header| header.is_some_and(|header| self.rest().len() >= header.len))
    }

    /// The next message, if it is there.
    ///
    /// # Errors
    /// The code to close with. After that the bytes mean nothing any more.
    pub(super) fn next(&mut self) -> Result<Option<Message<'_>>, Fault> {
        match (self.next_whole()?, &self.fragments) {
            (Some(Whole::Frame(opcode, place)), _) => {
                message(opcode, self.ahead.get(place).unwrap_or_default()).map(Some)
            }
            (Some(Whole::Fragments), Some(fragments)) => message(fragments.opcode, &fragments.bytes).map(Some),
            (Some(Whole::Part), _) => Ok(Some(Message::Part)),
            (_, _) => {
                if self.from == self.ahead.len() {
                    (self.ahead, self.from) = (Vec::new(), 0);
                }
                Ok(None)
            }
        }
    }

    /// Wipes what is decoded of the last message. Bytes that are not decoded yet are masked.
    pub(super) fn wipe(&mut self) {
        if let Some(decoded) = self.ahead.get_mut(..self.from) {
            decoded.zeroize();
        }
        self.fragments.take_if(|fragments| fragments.is_whole);
    }

    fn next_whole(&mut self) -> Result<Option<Whole>, Fault> {
        let Some(header) = self.header()? else { return Ok(None) };
        let place = self.from..self.from.saturating_add(header.len);
        let Some(payload) = self.ahead.get_mut(place.clone()) else { return Ok(None) };
        unmask(payload, header.mask);
        (self.header, self.from) = (None, place.end);
        if header.opcode.is_control() || (header.last && self.fragments.is_none()) {
            return Ok(Some(Whole::Frame(header.opcode, place)));
        }
        let first = Fragments { opcode: header.opcode, bytes: Zeroizing::default(), is_whole: false };
        let fragments = self.fragments.get_or_insert(first);
        append(&mut fragments.bytes, payload);
        payload.zeroize();
        fragments.is_whole = header.last;
        Ok(Some(if header.last { Whole::Fragments } else { Whole::Part }))
    }

    fn rest(&self) -> &[u8] {
        self.ahead.get(self.from..).unwrap_or_default()
    }

    fn header(&mut self) -> Result<Option<Header>, Fault> {
        self.fragments.take_if(|fragments| fragments.is_whole);
        if self.header.is_none()
            && let Some((header, len)) = parse(self.rest())?
        {
            self.check(&header)?;
            self.header = Some(header);
            self.from += len;
        }
        Ok(self.header)
    }

    /// What a header can do wrong, given what came before.
    fn check(&self, header: &Header) -> Result<(), Fault> {
        if header.opcode.is_control() {
            return match header.last {
                true if header.len <= CONTROL_BYTES_MAX => Ok(()),
                true => Err(Fault::Protocol(Rule::ControlLength)),
                false => Err(Fault::Protocol(Rule::ControlFragment)),
            };
        }
        match (header.opcode == Opcode::Continue, self.fragments.is_some()) {
            (true, false) => {
                return Err(Fault::Protocol(Rule::NothingToContinue));
            }
            (false, true) => {
                return Err(Fault::Protocol(Rule::Incomplete));
            }
            (true, true) | (false, false) => {}
        }
        let before = self.fragments.as_ref().map_or(0, |fragments| fragments.bytes.len());
        let fits = header.len <= self.message_bytes_max.saturating_sub(before);
        if fits { Ok(()) } else { Err(Fault::TooLarge) }
    }
}

/// Appends bytes. A buffer that becomes too small is wiped, not only freed.
fn append(buffer: &mut Zeroizing<Vec<u8>>, bytes: &[u8]) {
    let len = buffer.len() + bytes.len();
    if len > buffer.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(len.max(2 * buffer.capacity())));
        larger.extend_from_slice(buffer);
        *buffer = larger;
    }
    buffer.extend_from_slice(bytes);
}

/// A whole message, by the opcode that it began with.
fn message(opcode: Opcode, payload: &[u8]) -> Result<Message<'_>, Fault> {
    match opcode {
        Opcode::Text | Opcode::Continue => str::from_utf8(payload).map(Message::Text).map_err(|_| Fault::InvalidUtf8),
        Opcode::Binary => Ok(Message::Binary),
        Opcode::Ping => Ok(Message::Ping(payload)),
        Opcode::Pong => Ok(Message::Pong),
        Opcode::Close => close(payload),
    }
}

fn close(payload: &[u8]) -> Result<Message<'_>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => Ok(Message::Close(None)),
            false => Err(Fault::Protocol(Rule::ClosePayload)),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !is_valid_close_code(code) {
        return Err(Fault::Protocol(Rule::CloseCode));
    }
    str::from_utf8(reason).map_err(|_| Fault::InvalidUtf8)?;
    Ok(Message::Close(Some(code)))
}

/// Whether a peer may send this status code. tungstenite does not know 1014 (bad gateway), which IANA has registered.
fn is_valid_close_code(code: u16) -> bool {
    code == 1014 || coding::CloseCode::from(code).is_allowed()
}

/// RFC 6455, section 5.3. In words of eight bytes, which compilers turn into vector instructions.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let long = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ long).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite;
    use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketContext};

    use super::*;

    /// A message that outlives its reader.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Came {
        Text(String),
        Binary,
        Ping(Vec<u8>),
        Pong,
        Close(Option<u16>),
    }

    impl From<Message<'_>> for Came {
        fn from(message: Message<'_>) -> Self {
            match message {
                Message::Text(text) => Self::Text(text.to_owned()),
                Message::Binary => Self::Binary,
                Message::Ping(payload) => Self::Ping(payload.to_vec()),
                Message::Pong | Message::Part => Self::Pong,
                Message::Close(code) => Self::Close(code),
            }
        }
    }

    /// A frame as a client sends it: the first byte, and the length byte with the mask bit.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut bytes = vec![first];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ ..=125), _) => bytes.push(0x80 | short),
            (_, Ok(medium)) => {
                bytes.push(0xFE);
                bytes.extend_from_slice(&medium.to_be_bytes());
            }
            _ => {
                bytes.push(0xFF);
                bytes.extend_from_slice(&(payload.len() as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// All that a reader with a limit of 1,000 bytes makes of `bytes`, given to it `step` bytes at a time.
    fn read(bytes: &[u8], step: usize) -> (Vec<Came>, Option<Fault>) {
        let mut reader = Reader::new(&[], 1000);
        let mut messages = Vec::new();
        for chunk in bytes.chunks(step) {
            reader.feed(chunk);
            loop {
                match reader.next() {
                    Ok(Some(Message::Part)) => {}
                    Ok(Some(message)) => messages.push(message.into()),
                    Ok(None) => break,
                    Err(code) => return (messages, Some(code)),
                }
            }
        }
        (messages, None)
    }

    #[track_caller]
    fn check(frames: &[Vec<u8>], expected: &[Came], fault: Option<Fault>) {
        let bytes = frames.concat();
        for step in [1, 2, 7, bytes.len()] {
            let (messages, code) = read(&bytes, step);
            assert_eq!((messages.as_slice(), code), (expected, fault), "{step} bytes at a time");
        }
    }

    fn text(text: &str) -> Came {
        Came::Text(text.to_owned())
    }

    #[test]
    fn messages() {
        check(&[frame(0x81, b"Hello"), frame(0x81, b"")], &[text("Hello"), text("")], None);
        check(&[frame(0x81, "ä".repeat(70).as_bytes())], &[text(&"ä".repeat(70))], None);
        check(&[frame(0x82, b"\xFF")], &[Came::Binary], None);
        check(&[frame(0x01, b"a\xC3"), frame(0x00, b"\xA4"), frame(0x80, b"b")], &[text("aäb")], None);
        check(
            &[frame(0x01, b"a"), frame(0x89, b"now"), frame(0x80, b"b"), frame(0x8A, b"")],
            &[Came::Ping(b"now".to_vec()), text("ab"), Came::Pong],
            None,
        );
        check(&[frame(0x88, b"")], &[Came::Close(None)], None);
        check(&[frame(0x88, b"\x03\xE8bye")], &[Came::Close(Some(1000))], None);
        check(&[frame(0x88, b"\x03\xF6bad gateway")], &[Came::Close(Some(1014))], None);
    }

    #[test]
    fn a_secret_is_wiped() {
        let has = |bytes: &[u8]| bytes.windows(6).any(|it| it == b"secret");
        let mut reader = Reader::new(&[], 1000);
        // Unmasked, to be found if it were left.
        reader.feed(&[0x81, 0x86, 0, 0, 0, 0, b's', b'e', b'c', b'r', b'e', b't', 0x81]);
        assert_eq!(reader.next(), Ok(Some(Message::Text("secret"))));
        assert!(has(&reader.ahead));
        reader.wipe();
        assert!(!has(&reader.ahead));
        // The next frame is still read.
        reader.feed(&[0x81, 0, 0, 0, 0, b'a']);
        assert_eq!(reader.next(), Ok(Some(Message::Text("a"))));

        reader.feed(&[0x01, 0x83, 0, 0, 0, 0, b's', b'e', b'c', 0x80, 0x83, 0, 0, 0, 0, b'r', b'e', b't']);
        assert_eq!(reader.next(), Ok(Some(Message::Part)));
        assert!(!reader.ahead.windows(3).any(|it| it == b"sec"));
        assert_eq!(reader.next(), Ok(Some(Message::Text("secret"))));
        reader.wipe();
        assert!(reader.fragments.is_none() && !reader.ahead.windows(3).any(|it| it == b"ret"));
    }

    #[test]
    fn frames_that_rfc_6455_forbids() {
        let unmasked = vec![0x81, 1, b'a'];
        let ping_part = frame(0x09, b"x");
        for (forbidden, rule) in [
            (unmasked, "masks"),
            (frame(0xC1, b"a"), "a reserved bit"),
            (frame(0x83, b"a"), "opcode"),
            (frame(0x8B, b""), "opcode"),
            (frame(0x80, b"continues nothing"), "no message to continue"),
            (ping_part, "is not fragmented"),
            (frame(0x89, &[0; 126]), "at most 125 bytes"),
            (frame(0x88, b"\x03"), "or a status code"),
            (frame(0x88, b"\x03\xEC"), "status code of the Close"),
            (frame(0x88, b"\x00\x01"), "status code of the Close"),
            (frame(0x88, b"\xFF\xFF"), "status code of the Close"),
            (vec![0x81, 0xFE, 0, 1, 1, 2, 3, 4, b'a' ^ 1], "fewest bytes"),
            (vec![0x81, 0xFF, 0, 0, 0, 0, 0, 0, 1, 0, 1, 2, 3, 4], "fewest bytes"),
        ] {
            check_forbidden(&[frame(0x81, b"before"), forbidden], &[text("before")], rule);
        }
        check_forbidden(&[frame(0x01, b"a"), frame(0x81, b"b")], &[], "is not complete");
    }

    #[track_caller]
    fn check_forbidden(frames: &[Vec<u8>], expected: &[Came], rule: &str) {
        let bytes = frames.concat();
        let (_, fault) = read(&bytes, bytes.len());
        assert!(
            matches!(fault, Some(Fault::Protocol(broken)) if broken.as_str().contains(rule)),
            "{fault:?} is not '{rule}'"
        );
        check(frames, expected, fault);
    }

    #[test]
    fn text_that_is_no_utf_8() {
        for text in [&b"\xFF"[..], b"\xC3", b"\xED\xA0\x80", b"\xC0\x80"] {
            check(&[frame(0x81, text)], &[], Some(Fault::InvalidUtf8));
        }
        check(&[frame(0x01, b"\xC3"), frame(0x80, b"a")], &[], Some(Fault::InvalidUtf8));
        check(&[frame(0x88, b"\x03\xE8\xFF")], &[], Some(Fault::InvalidUtf8));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_on_its_header() {
        check(&[frame(0x81, &[b'a'; 1000])], &[text(&"a".repeat(1000))], None);
        let header = frame(0x81, &[b'a'; 1001])[..8].to_vec();
        check(&[header], &[], Some(Fault::TooLarge));
        let huge = vec![0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4];
        check(&[huge], &[], Some(Fault::TooLarge));
        let fragment = frame(0x00, &[b'a'; 500])[..8].to_vec();
        check(&[frame(0x01, &[b'a'; 501]), fragment], &[], Some(Fault::TooLarge));
        check(&[frame(0x02, &[0; 600]), frame(0x80, &[0; 401])], &[], Some(Fault::TooLarge));
    }

    #[test]
    fn the_limit_changes_from_the_next_header_on() {
        let mut reader = Reader::new(&frame(0x81, &[b'a'; 1500]), 1000);
        reader.set_message_bytes_max(2000);
        assert_eq!(reader.next(), Ok(Some(Message::Text(&"a".repeat(1500)))));
        reader.set_message_bytes_max(10);
        reader.feed(&frame(0x81, &[b'a'; 11]));
        assert_eq!(reader.next(), Err(Fault::TooLarge));
    }

    #[test]
    fn nothing_is_held_at_rest() {
        let mut reader = Reader::new(&frame(0x81, &[b'a'; 900]), 1000);
        assert!(reader.next().unwrap().is_some());
        assert_eq!(reader.next(), Ok(None));
        assert_eq!(reader.ahead.capacity(), 0);
    }

    #[test]
    fn a_long_frame_is_read_to_where_it_stays() {
        let texts = [300_000, 5, 40_000, DIRECT_BYTES_MIN, 200_000].map(|len| "x".repeat(len));
        let bytes = texts.each_ref().map(|text| frame(0x81, text.as_bytes())).concat();
        for step in [1_000, 33_000, 70_000, 1 << 20] {
            let mut reader = Reader::new(&[], 1 << 20);
            let (mut chunks, mut come, mut direct) = (bytes.chunks(step), 0, 0);
            for text in &texts {
                while !reader.is_ready() {
                    let chunk = chunks.next().unwrap();
                    come += chunk.len();
                    match reader.read_buffer() {
                        Some(room) => {
                            assert!(room.capacity() <= 2 * (come + DIRECT_BYTES_MIN), "after {come} bytes");
                            room.extend_from_slice(chunk);
                            direct += 1;
                        }
                        None => reader.feed(chunk),
                    }
                }
                assert_eq!(reader.next(), Ok(Some(Message::Text(text))), "{step} bytes at a time");
            }
            assert_eq!(reader.next(), Ok(None));
            assert_eq!(direct > 0, step < bytes.len(), "{step} bytes at a time");
        }
    }

    /// Frames of all kinds, most of them lawful.
    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            4 => Just(0x81), 2 => Just(0x01), 2 => Just(0x00), 3 => Just(0x80), 1 => Just(0x82), 1 => Just(0x89),
            1 => Just(0x8A), 1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            4 => "[aä€😀]{0,60}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..200),
        ];
        (first, payload).prop_map(|(first, payload)| frame(first, &payload))
    }

    /// What tungstenite's own codec makes of the bytes: the messages it knows, and whether it fails in the end.
    fn witness(bytes: &[u8]) -> (Vec<Came>, bool) {
        struct Stream<'a>(&'a [u8]);
        impl std::io::Read for Stream<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                if self.0.is_empty() {
                    return Err(std::io::ErrorKind::WouldBlock.into());
                }
                self.0.read(buffer)
            }
        }
        impl std::io::Write for Stream<'_> {
            fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
                Ok(buffer.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut codec = WebSocketContext::new(Role::Server, None);
        let mut stream = Stream(bytes);
        let mut messages = Vec::new();
        loop {
            match codec.read(&mut stream) {
                Ok(tungstenite::Message::Text(text)) => messages.push(Came::Text(text.to_string())),
                Ok(tungstenite::Message::Binary(_)) => messages.push(Came::Binary),
                Ok(tungstenite::Message::Ping(payload)) => messages.push(Came::Ping(payload.to_vec())),
                Ok(tungstenite::Message::Pong(_)) => messages.push(Came::Pong),
                Ok(tungstenite::Message::Close(_) | tungstenite::Message::Frame(_))
                | Err(tungstenite::Error::Io(_)) => return (messages, false),
                Err(_) => return (messages, true),
            }
        }
    }

    proptest! {
        /// Two witnesses. They may find a fault at different places (we look for a limit on the header, and for UTF-8 in
        /// the whole message), but up to the first place they read the same, and neither misses one.
        #[test]
        fn reads_what_tungstenite_reads(frames in proptest::collection::vec(any_frame(), 0..12), step in 1usize..400) {
            let bytes = [frames.concat(), frame(0x80, b"the end of a message, or a fault")].concat();
            let (mut ours, fault) = read(&bytes, step);
            let (theirs, fails) = witness(&bytes);
            if let Some(closed) = ours.iter().position(|message| matches!(message, Came::Close(_))) {
                ours.truncate(closed);
            } else {
                prop_assert_eq!(fault.is_some(), fails);
            }
            let both = ours.len().min(theirs.len());
            prop_assert_eq!(&ours[..both], &theirs[..both]);
            if fault.is_none() {
                prop_assert_eq!(ours, theirs);
            }
        }

        /// Whatever comes, the reader neither panics nor holds more than came.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            read(&bytes, 64);
        }
    }

    #[test]
    fn close_frames_of_tungstenite_are_understood() {
        let close = CloseFrame { code: coding::CloseCode::Away, reason: "bye".into() };
        let mut bytes = Vec::new();
        let mut sent = Frame::close(Some(close));
        sent.header_mut().mask = Some([9, 8, 7, 6]);
        sent.format(&mut bytes).unwrap();
        check(&[bytes], &[Came::Close(Some(1001))], None);
    }
}
