//! TLS listeners: handshakes, and the files of `[tls]`.

mod files;
mod handshake;
