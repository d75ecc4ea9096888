//! [`client_address`]: the address that a request comes from, if trusted proxies passed it on.

use std::net::{IpAddr, SocketAddr};

use crate::config::{ForwardedHeader, Http};

/// Returns the address of the client: the peer's own, or the one that the last trusted proxy names in `lines` of
/// `http.forwarded_header`.
///
/// A client can send the header too, and a proxy appends to it. So the header is read from the right, one trusted proxy after
/// the other; what is left of the first address that is not trusted was written by a stranger. An entry that is not an
/// address ends the reading at the proxy that wrote it.
pub fn client_address<'a>(peer: IpAddr, lines: impl DoubleEndedIterator<Item = &'a [u8]>, http: &Http) -> IpAddr {
    let is_trusted = |address| http.trusted_proxies.iter().any(|network| network.contains(address));
    let mut nearest = peer;
    if !is_trusted(peer) {
        return nearest;
    }
    // A proxy may also append a line of its own.
    for line in lines.rev() {
        for entry in split_from_the_right(line, b',') {
            let node = match http.forwarded_header {
                ForwardedHeader::XForwardedFor => Some(entry.trim_ascii()),
                ForwardedHeader::Forwarded => node(entry),
            };
            match node.and_then(address) {
                Some(address) if is_trusted(address) => nearest = address,
                Some(address) => return address,
                None => return nearest,
            }
        }
    }
    nearest
}

/// The parts of a list, the last one first. A separator between quotes does not separate. Quotes are counted from the right
/// too, so that a stranger's single quote further left changes nothing.
fn split_from_the_right(list: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    list.rsplit(move |byte| {
        quoted ^= *byte == b'"';
        *byte == separator && !quoted
    })
}

/// The parameter `for` of an element of `Forwarded` (RFC 7239, section 4), without its quotes. An element with a quote that
/// is not closed has none: it could begin further left.
fn node(element: &[u8]) -> Option<&[u8]> {
    if element.iter().fold(false, |is_open, byte| is_open ^ (*byte == b'"')) {
        return None;
    }
    let mut named = split_from_the_right(element, b';').filter_map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..at)?, pair.get(at + 1..)?);
        name.trim_ascii().eq_ignore_ascii_case(b"for").then_some(value.trim_ascii())
    });
    let value = named.next().filter(|_| named.next().is_none())?;
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    Some(quoted.unwrap_or(value))
}

/// An address, with or without a port; an IPv6 address with a port is in brackets.
fn address(node: &[u8]) -> Option<IpAddr> {
    let node = str::from_utf8(node).ok()?;
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().or_else(|_| node.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of a request from `peer` with these lines of the header.
    fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let trusted = |text| crate::config::Network::parse(text).ok();
        let http = Http {
            trusted_proxies: ["10.0.0.0/8", "fd00::/8"].into_iter().filter_map(trusted).collect(),
            forwarded_header: header,
            ..Http::default()
        };
        client_address(peer.parse().unwrap(), lines.iter().map(|line| line.as_bytes()), &http).to_string()
    }

    #[track_caller]
    fn check(header: ForwardedHeader, cases: &[(&[&str], &str)]) {
        for (lines, expected) in cases {
            assert_eq!(client(header, "10.0.0.1", lines), *expected, "{lines:?}");
            // The header of a peer that is not trusted is ignored.
            assert_eq!(client(header, "203.0.113.9", lines), "203.0.113.9", "{lines:?}");
        }
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_past_trusted_proxies() {
        check(
            ForwardedHeader::XForwardedFor,
            &[
                (&[], "10.0.0.1"),
                (&["203.0.113.7"], "203.0.113.7"),
                (&["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
                (&["198.51.100.1, 203.0.113.7, 10.0.0.3,10.0.0.2"], "203.0.113.7"),
                (&["198.51.100.1", "203.0.113.7, 10.0.0.3"], "203.0.113.7"),
                (&["203.0.113.7:4711"], "203.0.113.7"),
                (&["2001:db8::7"], "2001:db8::7"),
                (&["[2001:db8::7]:4711"], "2001:db8::7"),
                (&["::ffff:203.0.113.7"], "203.0.113.7"),
                (&["10.0.0.3"], "10.0.0.3"),
                // What a stranger wrote before it hides nothing that a proxy appended.
                (&["\u{e9}, 203.0.113.7"], "203.0.113.7"),
                (&["\"\u{e9}, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            ],
        );
    }

    #[test]
    fn an_entry_that_is_not_an_address_ends_the_reading() {
        check(
            ForwardedHeader::XForwardedFor,
            &[
                (&["203.0.113.7, unknown"], "10.0.0.1"),
                (&["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
                (&["203.0.113.7,"], "10.0.0.1"),
                (&["203.0.113.7, 127.1"], "10.0.0.1"),
                (&["\"203.0.113.7\""], "10.0.0.1"),
            ],
        );
    }

    #[test]
    fn forwarded_is_read_by_its_parameter_for() {
        check(
            ForwardedHeader::Forwarded,
            &[
                (&["for=203.0.113.7"], "203.0.113.7"),
                (&["For=\"203.0.113.7:4711\";proto=https;by=10.0.0.1"], "203.0.113.7"),
                (&["for=198.51.100.1, for=\"[2001:db8::7]:4711\";host=\"a,b\""], "2001:db8::7"),
                (&["proto=https;for=203.0.113.7, for=10.0.0.2"], "203.0.113.7"),
                (&["for=203.0.113.7, for=_hidden"], "10.0.0.1"),
                (&["for=203.0.113.7, proto=https"], "10.0.0.1"),
                (&["for=203.0.113.7;for=198.51.100.1"], "10.0.0.1"),
                // The host is the client's own text, as its proxy quotes it.
                (&["for=203.0.113.7;host=\"x;for=198.51.100.1\""], "203.0.113.7"),
                (&["host=\";for=203.0.113.7"], "10.0.0.1"),
                // A quote that a client did not close hides nothing that a proxy appended.
                (&["for=\"198.51.100.1, for=203.0.113.7"], "203.0.113.7"),
                (&["for=\"x, for=\"[2001:db8::7]\""], "2001:db8::7"),
            ],
        );
    }
}
