//! How an envelope becomes the [`Frame`] that leaves: its text is copied once, to where all receivers share it.

use std::io::{self, Write};

use serde::Serialize;
use wire::{Splice, Triple};

use crate::websocket::Frame;

impl From<Splice<'_>> for Frame {
    fn from(splice: Splice<'_>) -> Self {
        splice.pieces(|pieces| Self::join(pieces, splice.is_secret()))
    }
}

/// What precedes `data` in a reply that the broker writes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head<'a> {
    channel: &'a str,
    topic: &'a str,
    subtopic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_reply_to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

impl<'a> Head<'a> {
    /// A reply on a triple. `more`: whether other replies follow.
    pub(super) fn new(triple: &'a Triple<'_>, in_reply_to: Option<&'a str>, more: bool) -> Self {
        let Triple { channel, topic, subtopic } = triple;
        Self { channel, topic, subtopic, in_reply_to, more: more.then_some(true) }
    }
}

/// A reply whose `data` is written straight into its frame. `write` is called twice, first to measure: the buffer of a
/// secret must not grow, because growing would leave a copy behind.
///
/// # Errors
/// Those of `write`.
pub(super) fn reply(
    head: &Head<'_>,
    secret: bool,
    write: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Frame> {
    let mut before = serde_json::to_string(head)?;
    before.truncate(before.len() - 1);
    before += ",\"data\":";
    let mut measured = Length(0);
    write(&mut measured)?;
    Frame::written(before.len() + measured.0 + 1, secret, |frame| {
        frame.write_all(before.as_bytes())?;
        write(frame)?;
        frame.write_all(b"}")
    })
}

/// Counts what is written to it.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
