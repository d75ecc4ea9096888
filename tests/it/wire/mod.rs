//! Bytes and envelopes: handshakes (`handshake`, `head`, `capacity`), the probe (`probe`), frames (`frames`), malformed
//! messages (`malformed`), what the broker splices into an envelope (`splicing`), the corpora of the fuzz targets
//! (`corpora`), and Autobahn's cases for RFC 6455 (`conformance`). Which users of this machine may connect: `same_user`, `unix_socket`.

mod capacity;
mod conformance;
mod corpora;
mod frames;
mod handshake;
mod head;
mod malformed;
mod probe;
mod same_user;
mod splicing;
mod unix_socket;
