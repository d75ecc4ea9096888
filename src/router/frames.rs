//! How an envelope becomes the [`Frame`] that leaves: its text is copied once, to where all receivers share it.

use wire::Splice;

use crate::websocket::Frame;

impl From<Splice<'_>> for Frame {
    fn from(splice: Splice<'_>) -> Self {
        splice.pieces(|pieces| Self::join(pieces, splice.is_secret()))
    }
}
