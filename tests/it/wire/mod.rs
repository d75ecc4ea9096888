//! Bytes and envelopes: handshakes (`handshake`, `head`, `capacity`), the probe (`probe`), frames (`frames`), malformed
//! messages (`malformed`), what the broker splices into an envelope (`splicing`), and the corpora of the fuzz targets
//! (`corpora`). Which users of this machine may connect: `same_user`, `unix_socket`.

mod capacity;
mod corpora;
mod frames;
mod handshake;
mod head;
mod malformed;
mod probe;
mod same_user;
mod splicing;
mod unix_socket;
