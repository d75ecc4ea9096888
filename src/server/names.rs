//! Which hosts and origins may connect. A page of another site must not reach this broker through a browser.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::{Http, canonical_origin};

/// Whether a `Host` header, or the authority of a request target, names this broker: `localhost`, a literal IP address or
/// a listed name. An address cannot be rebound to another one; a name that is not listed could be.
pub(super) fn is_served_host(authority: &str, http: &Http) -> bool {
    host_name(authority).is_some_and(|name| {
        let is_listed = || http.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
        is_localhost(name) || address(name).is_some() || is_listed()
    })
}

/// Whether pages of this origin may connect.
pub(super) fn is_allowed_origin(origin: &str, http: &Http) -> bool {
    is_listed_origin(origin, http) || is_loopback_origin(origin)
}

/// Whether the operator has listed this origin. Origins are compared as browsers write them (RFC 6454, section 6.1): no
/// path, no default port. A program that is not a browser may write it in another way.
pub(super) fn is_listed_origin(origin: &str, http: &Http) -> bool {
    let is_listed = |origin: &str| http.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin));
    is_listed(origin) || canonical_origin(origin).is_ok_and(|origin| is_listed(&origin))
}

/// Whether the operator could list this origin.
pub(super) fn can_be_listed(origin: &str) -> bool {
    canonical_origin(origin).is_ok()
}

/// Whether this is the origin of pages of this machine.
pub(super) fn is_loopback_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    is_web && host_name(authority).is_some_and(is_loopback)
}

/// The host in `host` or `host:port`, with the brackets of an IPv6 address. `None` for anything else.
fn host_name(authority: &str) -> Option<&str> {
    let name_len = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (name, rest) = authority.split_at_checked(name_len)?;
    let is_valid_port = rest.strip_prefix(':').map_or(rest.is_empty(), |port| port.parse::<u16>().is_ok());
    (is_valid_port && !name.is_empty()).then_some(name)
}

/// The only loopback name. Anybody can make another name point to 127.0.0.1.
fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

fn is_loopback(name: &str) -> bool {
    is_localhost(name) || address(name).is_some_and(|address| address.is_loopback())
}

/// The address that a host is, if it is a literal one.
fn address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(Into::into),
        None => name.parse::<Ipv4Addr>().ok().map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http() -> Http {
        Http {
            allowed_origins: ["https://crm.example.com", "chrome-extension://abc", "app://"].map(str::to_owned).into(),
            allowed_hosts: vec!["switchboard.example.com".to_owned()],
            ..Http::default()
        }
    }

    #[test]
    fn loopback_names_addresses_and_listed_names_are_served() {
        for host in [
            "localhost",
            "LOCALHOST:7420",
            "127.0.0.1",
            "127.255.0.1:80",
            "10.0.0.7:7420",
            "[::1]:7420",
            "[::1]",
            "[2001:db8::1]:443",
            "switchboard.example.com",
            "Switchboard.Example.com:443",
        ] {
            assert!(is_served_host(host, &http()), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "sub.switchboard.example.com",
            "127.1",
            "0x7f000001",
            "2130706433",
            "::1",
            "[::1",
            "[::1]x",
            "[127.0.0.1]",
            "[localhost]",
            "localhost:",
            "localhost:99999",
            "user@localhost",
            "localhost, evil.example",
            ":7420",
            "",
            "h\u{f6}st",
        ] {
            assert!(!is_served_host(host, &http()), "{host}");
        }
    }

    #[test]
    fn loopback_and_listed_origins_are_allowed() {
        for origin in [
            "http://localhost",
            "http://localhost:3000",
            "https://127.0.0.1:8443",
            "http://[::1]:3000",
            "HTTPS://CRM.example.com",
            "https://crm.example.com",
            "chrome-extension://abc",
            "app://",
        ] {
            assert!(is_allowed_origin(origin, &http()), "{origin}");
        }
        for origin in [
            "null",
            "",
            "file://",
            "app://other",
            "http://crm.example.com",
            "https://crm.example.com:8443",
            "https://crm.example.com.evil.example",
            "https://evil.example",
            "http://10.0.0.7",
            "http://localhost.evil.example",
            "http://localhost@evil.example",
            "http://evil.example/localhost",
            "ftp://localhost",
            "localhost",
            "http://localhost http://evil.example",
        ] {
            assert!(!is_allowed_origin(origin, &http()), "{origin}");
        }
        assert!(!is_listed_origin("http://localhost", &http()));
        let null = Http { allowed_origins: vec!["null".to_owned()], ..Http::default() };
        assert!(is_allowed_origin("null", &null));
    }
}
