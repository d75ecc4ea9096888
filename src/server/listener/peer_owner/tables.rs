//! [`Tables`]: reads all connections of this host from `/proc`, for systems without netlink. That takes milliseconds with
//! thousands of connections, so one reading answers for all connections that were accepted before it began.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::is_owned;

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// How often a connection is looked for. The system does not write a table at one moment, so a reading can miss some.
const READINGS: usize = 2;

/// The address of a socket, and the one that it is connected to.
type Ends = (SocketAddr, SocketAddr);

/// The user ids of open sockets.
type Owners = HashMap<Ends, u32>;

/// The last reading, shared by all that wait.
#[derive(Default)]
pub(super) struct Tables(Mutex<Reading>);

#[derive(Default)]
struct Reading {
    begun: Option<Instant>,
    owners: Owners,
}

impl Tables {
    /// Returns the user id of a socket, if there is one and it is open.
    pub(super) async fn owner(&self, ends: Ends) -> Option<u32> {
        for _ in 0..READINGS {
            let asked = Instant::now();
            let mut reading = self.0.lock().await;
            // Another task may have read the tables while this one waited for the lock.
            if reading.begun.is_none_or(|begun| begun < asked) {
                let begun = Some(Instant::now());
                let read = tokio::task::spawn_blocking(read).await.unwrap_or_else(|panicked| Err(panicked.into()));
                let owners = read.unwrap_or_else(|error| {
                    tracing::debug!(%error, "the tables of connections could not be read");
                    Owners::new()
                });
                *reading = Reading { begun, owners };
            }
            if let Some(uid) = reading.owners.get(&ends) {
                return Some(*uid);
            }
        }
        None
    }
}

/// Reads both tables. One that does not exist is empty.
pub(super) fn read() -> io::Result<Owners> {
    let mut owners = Owners::new();
    for path in TABLES {
        match std::fs::read_to_string(path) {
            Ok(text) => owners.extend(text.lines().filter_map(owner)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(owners)
}

/// The ends and the user id of a line, if its socket is open.
fn owner(line: &str) -> Option<(Ends, u32)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let ends = (address(fields.next()?)?, address(fields.next()?)?);
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    // Queues, timer, retransmissions.
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    is_owned(state, inode).then_some((ends, uid))
}

/// An address and a port in hexadecimal digits. Each 32 bits of the address are in the byte order of this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (digits, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(digits.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match digits.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let octets: [u8; 16] = words.concat().try_into().ok()?;
            IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn a_line_names_both_ends_and_the_user_of_an_open_socket() {
        let line = |ends: &str, state: &str, inode: u32| {
            format!(
                "  12: {ends} {state} 00000000:00000000 00:00000000 00000000  1000        0 {inode} 1 0000 20 4 30 10 -1"
            )
        };
        let v4 = "0100007F:9C40 0100007F:1CFC";
        let mapped = "0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:1CFC";
        let v6 = "00000000000000000000000001000000:9C40 00000000000000000000000001000000:1CFC";
        let loopback = ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:7420".parse().unwrap());
        let loopback_v6 = ("[::1]:40000".parse().unwrap(), "[::1]:7420".parse().unwrap());
        for (ends, expected) in [(v4, loopback), (mapped, loopback), (v6, loopback_v6)] {
            assert_eq!(owner(&line(ends, "01", 7)), Some((expected, 1000)));
            assert_eq!(owner(&line(ends, "08", 7)), Some((expected, 1000)), "the broker has closed its side");
            for (state, inode) in [("01", 0), ("05", 7), ("06", 0), ("0A", 7)] {
                assert_eq!(owner(&line(ends, state, inode)), None, "{state} {inode}");
            }
        }
        assert_eq!(
            owner("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode"),
            None
        );
    }
}
