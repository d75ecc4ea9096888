//! [`Frame`]: one text message, framed once, shared by all who receive it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use zeroize::Zeroize;

use super::memory::{FrameMemory, Held};

/// FIN, and the opcode of a text (RFC 6455, section 5.2).
const FIN_TEXT: u8 = 0x81;

/// The longest frame whose length is in the second byte of its header, and in the two bytes after that.
const SHORT: usize = 2 + 125;
const MEDIUM: usize = 4 + u16::MAX as usize;

/// What a frame uses besides its bytes: what is shared, and the two counters of the `Arc`.
const OVERHEAD_BYTES: usize = size_of::<Shared>() + 2 * size_of::<usize>();

/// A ping frame without a payload (RFC 6455, section 5.5.2).
#[must_use]
pub fn ping() -> Frame {
    Frame::of(vec![0x89, 0], false)
}

/// A text message as it goes to a client: the WebSocket header and the text, in one run of shared bytes.
///
/// Frames to clients are not masked (RFC 6455, section 5.1), so header and payload can be encoded once and shared by
/// every receiver: a clone is a counter, never a copy. One word, because every entry of every queue has it: three words
/// cost a tenth more for each receiver. No `Debug`: the text may hold a password.
#[derive(Clone)]
pub struct Frame(Arc<Shared>);

/// What all clones of a frame share.
struct Shared {
    wire: Vec<u8>,
    /// The length of the header. Kept, because every queue asks for the length of the text.
    header_len: u8,
    is_secret: bool,
    /// How many queues keep the frame to send it again.
    keepers: AtomicU32,
    /// Set when the frame is in a queue for the first time.
    held: OnceLock<Held>,
}

impl Shared {
    fn new(wire: Vec<u8>, is_secret: bool) -> Self {
        let header_len = header_len(wire.len());
        Self { wire, header_len, is_secret, keepers: AtomicU32::new(0), held: OnceLock::new() }
    }

    /// The memory that the frame uses.
    fn memory_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.wire.capacity()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_secret {
            self.wire.zeroize();
        }
    }
}

impl Frame {
    /// Frames a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self::join(&[text], false)
    }

    /// Frames a text that is given in pieces. The bytes of a secret one are zeroised when the last clone is dropped.
    #[must_use]
    pub fn join(pieces: &[&str], secret: bool) -> Self {
        let text_len = pieces.iter().map(|piece| piece.len()).sum();
        let (header, header_len) = header(text_len);
        let header = header.get(..header_len).unwrap_or_default();
        let wire_len = header_len + text_len;
        let parts = std::iter::once(header).chain(pieces.iter().map(|piece| piece.as_bytes()));
        // Never grown, which would leave a copy behind.
        let mut wire = Vec::with_capacity(wire_len);
        parts.for_each(|part| wire.extend_from_slice(part));
        Self::of(wire, secret)
    }

    fn of(wire: Vec<u8>, is_secret: bool) -> Self {
        Self(Arc::new(Shared::new(wire, is_secret)))
    }

    /// Frames a text of a known length that `write` writes straight into the frame's only buffer, which never grows.
    ///
    /// # Errors
    /// Those of `write`, and `InvalidData` if the text is not UTF-8 or has another length.
    pub fn written(
        text_len: usize,
        secret: bool,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Self> {
        let (header, header_len) = header(text_len);
        let wire_len = header_len + text_len;
        // Wiped on every way out if it is secret.
        let mut shared = Shared::new(vec![0; wire_len], secret);
        let mut rest = shared.wire.as_mut_slice();
        rest.write_all(header.get(..header_len).unwrap_or_default())?;
        write(&mut rest)?;
        if !rest.is_empty() || std::str::from_utf8(shared.wire.get(header_len..).unwrap_or_default()).is_err() {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        Ok(Self(Arc::new(shared)))
    }

    /// Header and text: what is written to a socket.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.0.wire
    }

    /// Whether its bytes are zeroised after use, so that no copy of them may be left anywhere.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.0.is_secret
    }

    /// Counts its memory until the last clone is dropped. A frame that is counted already is not counted again.
    pub fn count_in(&self, memory: &Arc<FrameMemory>) {
        self.0.held.get_or_init(|| memory.hold(self.0.memory_bytes()));
    }

    /// The memory that it uses, however many share it.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    /// Notes that one more queue keeps the frame to send it again. Returns how much memory is kept because of that: none if
    /// another queue keeps the frame already.
    pub fn keep(&self) -> usize {
        if self.0.keepers.fetch_add(1, Ordering::Relaxed) == 0 { self.0.memory_bytes() } else { 0 }
    }

    /// Notes that one queue keeps the frame no longer. Returns how much memory is kept no longer because of that.
    pub fn release(&self) -> usize {
        if self.0.keepers.fetch_sub(1, Ordering::Relaxed) == 1 { self.0.memory_bytes() } else { 0 }
    }

    /// Returns whether its memory is counted.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.0.held.get().is_some()
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        let text = self.wire().get(usize::from(self.0.header_len)..);
        std::str::from_utf8(text.unwrap_or_default()).unwrap_or_default()
    }

    /// The length of the text in bytes, without the header. Limits count this.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wire().len() - usize::from(self.0.header_len)
    }

    /// Returns whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<String> for Frame {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

/// The header of a text frame, and how many bytes of it count.
fn header(text_len: usize) -> ([u8; 10], usize) {
    let mut header = [FIN_TEXT, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let header_len = match (u8::try_from(text_len), u16::try_from(text_len)) {
        (Ok(short @ ..=125), _) => {
            header[1] = short;
            2
        }
        (_, Ok(medium)) => {
            header[1] = 126;
            header[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            header[1] = 127;
            header[2..].copy_from_slice(&(text_len as u64).to_be_bytes());
            10
        }
    };
    (header, header_len)
}

/// The header length of a frame of this number of bytes in all.
fn header_len(wire_len: usize) -> u8 {
    match wire_len {
        ..=SHORT => 2,
        _ if wire_len <= MEDIUM => 4,
        _ => 10,
    }
}
