//! A client by hand: its commands, its frames (RFC 6455), and where a frame of the broker's ends.

/// Registers in open mode.
pub(crate) fn register(source: &str, user: &str) -> String {
    format!(
        r#"{{"channel":"Broker","topic":"Application","subtopic":"Register","source":"{source}","data":{{"user":"{user}"}}}}"#
    )
}

/// Subscribes, `*` being a wildcard.
pub(crate) fn subscribe([channel, topic, subtopic]: [&str; 3]) -> String {
    format!(
        r#"{{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe","data":{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}"}}}}"#
    )
}

/// A text frame as a client sends it. The mask is a constant: it protects proxies, and there is none.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut bytes = vec![0x81];
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(short @ ..=125), _) => bytes.push(0x80 | short),
        (_, Ok(medium)) => {
            bytes.push(0xFE);
            bytes.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            bytes.push(0xFF);
            bytes.extend_from_slice(&u64::try_from(text.len()).unwrap().to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The length of the frame at the start of what a server sent, and where its payload begins; `None`: more is to come.
pub(crate) fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, len) = match *bytes.get(1)? {
        126 => (4, u64::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)),
        short => (2, u64::from(short)),
    };
    let whole = start + usize::try_from(len).unwrap();
    (bytes.len() >= whole).then_some((start, whole))
}
