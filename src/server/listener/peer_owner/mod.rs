//! [`PeerOwners`]: which operating-system user owns the other end of a TCP connection of this host.
//!
//! The kernel answers for one connection by netlink (`sock_diag`). Where there is no netlink, such as in gVisor, `tables`
//! reads all connections from `/proc`. On other systems than Linux there is no way.

#[cfg(target_os = "linux")]
mod sock_diag;
#[cfg(target_os = "linux")]
mod tables;

use std::io;
use std::net::SocketAddr;

#[cfg(target_os = "linux")]
use self::{sock_diag::SockDiag, tables::Tables};

/// Looks up owners of connections.
pub(in crate::server) struct PeerOwners(Source);

enum Source {
    #[cfg(target_os = "linux")]
    SockDiag(SockDiag),
    #[cfg(target_os = "linux")]
    Tables(Tables),
}

impl PeerOwners {
    /// Returns the user id of the open socket with the address `peer`, which is connected to `local`. `None`: this host has no
    /// such socket, or it is closed on its own side.
    pub(in crate::server) async fn owner(&self, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
        match self.0 {
            #[cfg(target_os = "linux")]
            Source::SockDiag(ref sock_diag) => sock_diag.owner(canonical(peer), canonical(local)),
            #[cfg(target_os = "linux")]
            Source::Tables(ref tables) => tables.owner((canonical(peer), canonical(local))).await,
        }
    }
}

#[cfg(target_os = "linux")]
impl PeerOwners {
    /// Chooses how to look owners up, by trying it on a connection of its own. `None`: the system has no way to do it.
    ///
    /// # Errors
    /// The attempt failed, for lack of descriptors or ports for example, which says nothing about the system.
    pub(in crate::server) fn open() -> io::Result<Option<Self>> {
        Self::choose(SockDiag::open())
    }

    fn choose(sock_diag: io::Result<SockDiag>) -> io::Result<Option<Self>> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        let local = listener.local_addr()?;
        let client = std::net::TcpStream::connect(local)?;
        let peer = client.local_addr()?;
        let own = Some(rustix::process::geteuid().as_raw());
        match sock_diag.and_then(|it| Ok((it.find(peer, local)? == own).then_some(it))) {
            Ok(Some(sock_diag)) => return Ok(Some(Self(Source::SockDiag(sock_diag)))),
            Err(error) if is_shortage(&error) => return Err(error),
            // There is no netlink here, or it does not know this connection.
            Ok(None) | Err(_) => {}
        }
        let in_tables = tables::read()?.get(&(peer, local)).copied() == own;
        Ok(in_tables.then(|| Self(Source::Tables(Tables::default()))))
    }
}

/// Returns whether an error says that the system has no more of something now.
#[cfg(target_os = "linux")]
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS].map(Some).contains(&Errno::from_io_error(error))
}

#[cfg(not(target_os = "linux"))]
impl PeerOwners {
    /// Returns `None`.
    #[expect(clippy::unnecessary_wraps, reason = "the same signature as on Linux")]
    pub(in crate::server) fn open() -> io::Result<Option<Self>> {
        Ok(None)
    }
}

/// An IPv4 address that is written as an IPv6 address is the same address.
#[cfg(target_os = "linux")]
fn canonical(mut address: SocketAddr) -> SocketAddr {
    if address.ip().to_canonical().is_ipv4() {
        address.set_ip(address.ip().to_canonical());
    }
    address
}

/// Whether a socket with this state and inode belongs to its user: one that a program has closed has neither an inode nor a
/// user, and the user id 0.
#[cfg(target_os = "linux")]
fn is_owned(state: u8, inode: u64) -> bool {
    use netlink_packet_sock_diag::constants::{TCP_CLOSE_WAIT, TCP_ESTABLISHED};
    inode != 0 && [TCP_ESTABLISHED, TCP_CLOSE_WAIT].contains(&state)
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests;
