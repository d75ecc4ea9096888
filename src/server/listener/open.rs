//! How a listener is opened, or taken from a service manager.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the system keeps until they are accepted. All applications of a call centre may return at once, and
/// one that finds no room tries again a second later (RFC 6298, section 2.1). So the bound is the system's own, which cuts
/// this to `net.core.somaxconn`, 4,096 on Linux. With 1,024, some of 5,000 waited that second.
pub(super) const BACKLOG: i32 = 0xffff;

/// Bytes that the system may hold for a peer beyond those on their way. Without a bound it holds 4 MiB, a thousand
/// messages that no limit of ours counts, and reports room again only after a third of them: a publisher that waits 250 ms
/// for a slow receiver would wait until its time is over.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 << 10;

/// Opens a listener.
pub(in crate::server) fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes a listener that a service manager has opened.
pub(in crate::server) fn inherited(listener: std::net::TcpListener) -> io::Result<TcpListener> {
    // Connections inherit it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket2::SockRef::from(&listener).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    TcpListener::from_std(listener)
}

/// Binds a socket that does not listen yet.
pub(in crate::server) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // 0.0.0.0 and [::] can both be listened on only if the second leaves IPv4 alone.
        socket.set_only_v6(true)?;
    }
    // Elsewhere than on Unix it would let two brokers share an address.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Connections inherit it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
