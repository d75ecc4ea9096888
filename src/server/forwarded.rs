//! [`client_address`]: the address that a request comes from, if trusted proxies passed it on.

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;

use crate::config::{ForwardedHeader, Http};

/// Returns the address of the client: the peer's own, or the one that the last trusted proxy names.
///
/// A client can send the header too, and a proxy appends to it. So the header is read from the right, one trusted proxy after
/// the other; what is left of the first address that is not trusted was written by a stranger. An entry that is not an
/// address ends the reading at the proxy that wrote it.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, http: &Http) -> IpAddr {
    let is_trusted = |address| http.trusted_proxies.iter().any(|network| network.contains(address));
    let mut nearest = peer;
    if !is_trusted(peer) {
        return nearest;
    }
    // A proxy may also append a line of its own.
    for line in headers.get_all(http.forwarded_header.name()).iter().rev() {
        let Ok(line) = line.to_str() else { return nearest };
        for entry in split_from_the_right(line) {
            let node = match http.forwarded_header {
                ForwardedHeader::XForwardedFor => Some(entry.trim()),
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

/// The entries of a list, the last one first. A comma between quotes does not separate. Quotes are counted from the right
/// too, so that a stranger's single quote further left changes nothing.
fn split_from_the_right(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    line.rsplit(move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    })
}

/// The parameter `for` of an element of `Forwarded` (RFC 7239, section 4), without its quotes.
fn node(element: &str) -> Option<&str> {
    let mut named = element.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    let value = named.next().filter(|_| named.next().is_none())?;
    let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    Some(quoted.unwrap_or(value))
}

/// An address, with or without a port; an IPv6 address with a port is in brackets.
fn address(node: &str) -> Option<IpAddr> {
    let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
    let address = bare.parse().or_else(|_| node.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    /// The address of a request from `peer` with these lines of the header.
    fn client(header: ForwardedHeader, peer: &str, lines: &[&str]) -> String {
        let trusted = |text| crate::config::Network::parse(text).ok();
        let http = Http {
            trusted_proxies: ["10.0.0.0/8", "fd00::/8"].into_iter().filter_map(trusted).collect(),
            forwarded_header: header,
            ..Http::default()
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HeaderName::from_static(header.name()), HeaderValue::from_str(line).unwrap());
        }
        client_address(peer.parse().unwrap(), &headers, &http).to_string()
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
                // A quote that a client did not close hides nothing that a proxy appended.
                (&["for=\"198.51.100.1, for=203.0.113.7"], "203.0.113.7"),
                (&["for=\"x, for=\"[2001:db8::7]\""], "2001:db8::7"),
            ],
        );
    }

    #[test]
    fn only_the_configured_header_is_read() {
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.7"));
        let trusted_proxies = vec![crate::config::Network::parse("10.0.0.1").ok().unwrap()];
        let http = Http { trusted_proxies, forwarded_header: ForwardedHeader::Forwarded, ..Http::default() };
        let peer = "10.0.0.1".parse().unwrap();
        assert_eq!(client_address(peer, &headers, &http), peer);
    }
}
