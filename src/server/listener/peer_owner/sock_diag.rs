//! [`SockDiag`]: asks the kernel for one connection by netlink (`sock_diag(7)`). It answers within the call that sends the
//! question, so nothing here waits: a look-up takes about 5 µs.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as NetlinkAddress};
use parking_lot::Mutex;

use super::is_owned;

/// Room for an answer: 72 bytes and a few attributes.
const ANSWER_BYTES_MAX: usize = 4 << 10;

/// Answers to earlier questions that are skipped.
const STALE_MAX: usize = 16;

/// Any socket with these addresses (`INET_DIAG_NOCOOKIE`).
const NO_COOKIE: [u8; 8] = [0xff; 8];

/// A netlink socket.
pub(super) struct SockDiag(Mutex<Asking>);

struct Asking {
    socket: Socket,
    /// The number of the last question.
    sequence: u32,
}

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&NetlinkAddress::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self(Mutex::new(Asking { socket, sequence: 0 })))
    }

    /// Returns the user id of the socket at `own`, connected to `other`, if there is one and it is open.
    pub(super) fn owner(&self, own: SocketAddr, other: SocketAddr) -> Option<u32> {
        self.find(own, other).unwrap_or_else(|error| {
            tracing::debug!(%error, "the kernel did not say which user owns a connection");
            None
        })
    }

    /// Returns the same, or why the kernel gave no answer.
    pub(super) fn find(&self, own: SocketAddr, other: SocketAddr) -> io::Result<Option<u32>> {
        let Some(found) = self.0.lock().ask(own, other)? else { return Ok(None) };
        let ends = (found.socket_id.source_address, found.socket_id.source_port);
        let is_asked = (ends.0.to_canonical(), ends.1) == (own.ip(), own.port());
        Ok((is_asked && is_owned(found.state, found.inode.into())).then_some(found.uid))
    }
}

impl Asking {
    fn ask(&mut self, own: SocketAddr, other: SocketAddr) -> io::Result<Option<InetResponseHeader>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&question(self.sequence, own, other), 0)?;
        for _ in 0..STALE_MAX {
            let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
            self.socket.recv(&mut answer, 0)?;
            let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&answer).map_err(io::Error::other)?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => Ok(Some(found.header)),
                NetlinkPayload::Error(error) if error.to_io().kind() == io::ErrorKind::NotFound => Ok(None),
                NetlinkPayload::Error(error) => Err(error.to_io()),
                other => Err(io::Error::other(format!("an unexpected answer: {other:?}"))),
            };
        }
        Err(io::Error::other("no answer"))
    }
}

fn question(sequence: u32, own: SocketAddr, other: SocketAddr) -> Vec<u8> {
    let family = match own.ip() {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    };
    let socket_id = SocketId {
        source_address: own.ip(),
        source_port: own.port(),
        destination_address: other.ip(),
        destination_port: other.port(),
        interface_id: match own {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(own) => own.scope_id(),
        },
        cookie: NO_COOKIE,
    };
    let (extensions, states) = (ExtensionFlags::empty(), StateFlags::all());
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states, socket_id };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
