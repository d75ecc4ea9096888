//! Bytes and envelopes: handshakes (`handshake`, `head`, `capacity`), the probe (`probe`), frames (`frames`), malformed
//! messages (`malformed`), what the broker splices into an envelope (`splicing`), and the corpora of the fuzz targets
//! (`corpora`).

mod capacity;
mod corpora;
mod frames;
mod handshake;
mod head;
mod malformed;
mod probe;
mod splicing;
