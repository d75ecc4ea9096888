//! Both ways to look an owner up, on real connections of this process.

use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn both() -> [PeerOwners; 2] {
    [Source::SockDiag(SockDiag::open().unwrap()), Source::Tables(Tables::default())].map(PeerOwners)
}

/// A client that is connected to a listener at `host`, under the address `to`.
fn connect(host: &str, to: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let client = TcpStream::connect((to, listener.local_addr().unwrap().port())).unwrap();
    (client, listener.accept().unwrap().0)
}

#[tokio::test]
async fn the_owner_of_an_open_connection_is_found_over_ipv4_ipv6_and_mapped_addresses() {
    for owners in both() {
        for (host, to) in [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "::ffff:127.0.0.1"), ("::1", "::1")] {
            let (_client, server) = connect(host, to);
            let (peer, local) = (server.peer_addr().unwrap(), server.local_addr().unwrap());
            assert_eq!(owners.owner(peer, local).await, Some(own_uid()), "{to}");
            // The other way round it is the broker's own socket; another port is nobody's.
            let mut other = peer;
            other.set_port(peer.port() ^ 1);
            assert_eq!(owners.owner(other, local).await, None, "{to}");
        }
    }
}

#[tokio::test]
async fn a_closed_socket_has_no_owner_and_one_that_the_broker_closed_has() {
    for owners in both() {
        let (client, server) = connect("127.0.0.1", "127.0.0.1");
        let ends = (server.peer_addr().unwrap(), server.local_addr().unwrap());
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(owners.owner(ends.0, ends.1).await, Some(own_uid()));
        drop(client);
        assert_eq!(owners.owner(ends.0, ends.1).await, None);
        let (client, server) = connect("127.0.0.1", "127.0.0.1");
        let ends = (server.peer_addr().unwrap(), server.local_addr().unwrap());
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(owners.owner(ends.0, ends.1).await, None, "the client has closed its side");
        drop(client);
        assert_eq!(owners.owner(ends.0, ends.1).await, None);
    }
}

#[tokio::test]
async fn a_listening_socket_is_not_the_owner_of_a_connection() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    for owners in both() {
        assert_eq!(owners.owner(address, "127.0.0.1:1".parse().unwrap()).await, None);
    }
}

#[test]
fn the_tables_are_used_only_where_netlink_is_missing() {
    assert!(matches!(PeerOwners::open().unwrap().unwrap().0, Source::SockDiag(_)));
    let missing = || Err(rustix::io::Errno::AFNOSUPPORT.into());
    assert!(matches!(PeerOwners::choose(missing()).unwrap().unwrap().0, Source::Tables(_)));
}

#[test]
fn a_shortage_is_an_error_and_not_a_system_without_a_way() {
    for shortage in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOBUFS] {
        assert!(PeerOwners::choose(Err(shortage.into())).is_err(), "{shortage}");
    }
}
