//! [`Frame`]: one text message, framed once, shared by all who receive it.

use bytes::Bytes;
use zeroize::Zeroizing;

/// The longest header of an unmasked frame (RFC 6455, section 5.2).
pub(super) const HEADER_BYTES_MAX: usize = 10;

/// A ping frame without a payload (RFC 6455, section 5.5.2).
#[must_use]
pub fn ping() -> Frame {
    Frame { wire: Bytes::from_static(&[0x89, 0]), header_len: 2 }
}

/// A text message as it goes to a client: the WebSocket header and the text, in one run of shared bytes.
///
/// Frames to clients are not masked (RFC 6455, section 5.1), so header and payload can be encoded once and shared by
/// every receiver: a clone is a counter, never a copy. No `Debug`: the text may hold a password.
#[derive(Clone)]
pub struct Frame {
    wire: Bytes,
    header_len: u8,
}

impl Frame {
    /// Frames a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut buffer = Self::buffer(text.len());
        buffer.extend_from_slice(text.as_bytes());
        Self::finish(buffer, false)
    }

    /// An empty buffer with room for the header and `text_len` bytes of text.
    pub(super) fn buffer(text_len: usize) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(HEADER_BYTES_MAX + text_len);
        buffer.resize(HEADER_BYTES_MAX, 0);
        buffer
    }

    /// Writes the header in front of the text that stands after the first [`HEADER_BYTES_MAX`] bytes of `buffer`. The
    /// bytes of a secret frame are zeroised when the last clone is dropped.
    pub(super) fn finish(mut buffer: Vec<u8>, secret: bool) -> Self {
        const FIN_TEXT: u8 = 0x81;
        let len = buffer.len().saturating_sub(HEADER_BYTES_MAX);
        let mut header = [0; HEADER_BYTES_MAX];
        let header_len = match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ ..=125), _) => {
                header[..2].copy_from_slice(&[FIN_TEXT, short]);
                2
            }
            (_, Ok(medium)) => {
                header[..2].copy_from_slice(&[FIN_TEXT, 126]);
                header[2..4].copy_from_slice(&medium.to_be_bytes());
                4
            }
            _ => {
                header[..2].copy_from_slice(&[FIN_TEXT, 127]);
                header[2..].copy_from_slice(&(len as u64).to_be_bytes());
                HEADER_BYTES_MAX
            }
        };
        let start = HEADER_BYTES_MAX - header_len;
        if let (Some(place), Some(header)) = (buffer.get_mut(start..HEADER_BYTES_MAX), header.get(..header_len)) {
            place.copy_from_slice(header);
        }
        let whole = if secret { Bytes::from_owner(Zeroizing::new(buffer)) } else { Bytes::from(buffer) };
        #[expect(clippy::cast_possible_truncation, reason = "2, 4 or 10")]
        Self { wire: whole.slice(start..), header_len: header_len as u8 }
    }

    /// Header and text: what is written to a socket.
    #[must_use]
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        let text = self.wire.get(usize::from(self.header_len)..).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// The text's length in bytes: what limits count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wire.len() - usize::from(self.header_len)
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same text in bytes of its own and of its own size, for what is kept: a slice of a larger buffer would keep
    /// the whole buffer alive.
    #[must_use]
    pub fn compacted(&self) -> Self {
        Self { wire: Bytes::copy_from_slice(&self.wire), header_len: self.header_len }
    }
}
