//! [`Network`]: a range of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::value::Fault;

/// An address, or all addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Returns whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address) && first_of(address, self.bits) == self.address
    }

    /// Reads an address, or an address and the number of bits that count: `10.0.0.0/8`.
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let expected = "must be an address or a network, such as 10.0.0.7 or 10.0.0.0/8";
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse::<IpAddr>().map_err(|_| expected)?.to_canonical();
        let bits = match bits {
            None => width(address),
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width(address)).ok_or(expected)?,
        };
        let first = Self { address: first_of(address, bits), bits };
        if first.address != address {
            return Err(Fault::near(
                "names an address inside the network in place of its first",
                Some(first.to_string()),
            ));
        }
        Ok(first)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, bits } = self;
        write!(f, "{address}")?;
        if *bits == width(*address) { Ok(()) } else { write!(f, "/{bits}") }
    }
}

/// The bits of an address.
fn width(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => Ipv4Addr::BITS,
        IpAddr::V6(_) => Ipv6Addr::BITS,
    }
}

/// The first address that begins with the same bits.
fn first_of(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(Ipv4Addr::BITS - bits).unwrap_or_default();
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(Ipv6Addr::BITS - bits).unwrap_or_default();
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).map_err(|fault| fault.message().to_owned()).unwrap()
    }

    #[test]
    fn a_network_contains_the_addresses_that_begin_like_it() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::a00:1"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "203.0.113.7", "::1"),
            ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.8"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{text} {outside}");
            assert_eq!(network(&network(text).to_string()), network(text));
        }
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "proxy.example.com", "10.0.0.0/-1"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        assert!(Network::parse("10.0.0.1/8").is_err());
    }
}
