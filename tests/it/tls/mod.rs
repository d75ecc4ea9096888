//! TLS listeners: handshakes, sessions, client certificates, the files of `[tls]`, and clients behind proxies.

mod certificates;
mod files;
mod handshake;
mod own;
mod proxies;
mod sessions;
