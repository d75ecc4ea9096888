//! How bytes become messages, compared with tungstenite and rule by rule.

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
            Ok(tungstenite::Message::Close(_) | tungstenite::Message::Frame(_)) | Err(tungstenite::Error::Io(_)) => {
                return (messages, false);
            }
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
