//! Bytes and envelopes: handshakes (`handshake`), frames (`frames`), malformed messages (`malformed`), what the broker splices
//! into an envelope (`splicing`), and the corpora of the fuzz targets (`corpora`).

mod corpora;
mod frames;
mod handshake;
mod malformed;
mod splicing;
