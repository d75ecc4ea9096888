//! [`PeerOwners`]: which operating-system user owns the other end of a TCP connection of this host.
//!
//! The kernel answers for one connection by netlink (`sock_diag`). Where there is no netlink, such as in gVisor, `tables`
//! reads all connections from `/proc`. Other systems than Linux do not say it.

#[cfg(target_os = "linux")]
mod sock_diag;
#[cfg(target_os = "linux")]
mod tables;

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
    /// Chooses how to look owners up, by trying it on a connection of its own. `None`: the system does not say it.
    pub(in crate::server) fn open() -> Option<Self> {
        Self::choose(SockDiag::open().ok())
    }

    fn choose(sock_diag: Option<SockDiag>) -> Option<Self> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).ok()?;
        let local = listener.local_addr().ok()?;
        let client = std::net::TcpStream::connect(local).ok()?;
        let peer = client.local_addr().ok()?;
        let own = Some(rustix::process::geteuid().as_raw());
        let sock_diag = sock_diag.filter(|it| it.owner(peer, local) == own);
        let tables = || (tables::read().get(&(peer, local)).copied() == own).then(Tables::default);
        sock_diag.map(Source::SockDiag).or_else(|| tables().map(Source::Tables)).map(Self)
    }
}

#[cfg(not(target_os = "linux"))]
impl PeerOwners {
    /// Returns `None`.
    pub(in crate::server) fn open() -> Option<Self> {
        None
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
