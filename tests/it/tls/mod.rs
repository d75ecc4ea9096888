//! TLS listeners: handshakes, the files of `[tls]`, and clients behind proxies.

mod files;
mod handshake;
mod proxies;
