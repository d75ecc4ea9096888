//! [`Host`]: a name or an address that a certificate can be made for.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls_pki_types::DnsName;

/// A host name or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A DNS name in lower case.
    Name(String),
    /// An IPv4 or IPv6 address.
    Address(IpAddr),
}

/// Why a text is not a host that a certificate can be made for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// `0.0.0.0` or `::`.
    #[error("this is an address to listen on; name those that clients connect to")]
    Unspecified,
    /// A name with `*`.
    #[error("a name with '*' would let the authority vouch for more than one host; repeat --host for each")]
    Wildcard,
    /// Anything else.
    #[error("this is neither a host name in ASCII, such as localhost or broker.example.com, nor an IP address")]
    Malformed,
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return if address.is_unspecified() { Err(HostError::Unspecified) } else { Ok(Self::Address(address)) };
        }
        if text.contains('*') {
            return Err(HostError::Wildcard);
        }
        // A last label of digits is a mistyped address, which browsers take for one too.
        let last = text.rsplit('.').next().unwrap_or_default();
        let is_numeric = last.bytes().all(|byte| byte.is_ascii_digit());
        if is_numeric || DnsName::try_from(text).is_err() {
            return Err(HostError::Malformed);
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for (text, host) in [
            ("localhost", "localhost"),
            ("Broker.Example.COM", "broker.example.com"),
            ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
            ("desk-17", "desk-17"),
            ("127.0.0.1", "127.0.0.1"),
            ("0:0::1", "::1"),
        ] {
            assert_eq!(text.parse::<Host>().map(|host| host.to_string()).as_deref(), Ok(host), "{text}");
        }
        let long = ["a".repeat(64), [&*"a.".repeat(127), "b"].concat()];
        for text in [
            "",
            " ",
            "a b",
            "a..b",
            ".a",
            "a.",
            "-a",
            "münchen.example",
            "[::1]",
            "::1%lo",
            "127.0.0.1:7443",
            "1.2.3.256",
            "1.2.3",
            "https://a",
            "a/b",
            "a\nb",
            "a\0",
            &long[0],
            &long[1],
        ] {
            assert_eq!(text.parse::<Host>(), Err(HostError::Malformed), "{text:?}");
        }
        assert_eq!("0.0.0.0".parse::<Host>(), Err(HostError::Unspecified));
        assert_eq!("::".parse::<Host>(), Err(HostError::Unspecified));
        assert_eq!("*.example.com".parse::<Host>(), Err(HostError::Wildcard));
    }
}
