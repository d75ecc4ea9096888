//! Target `forwarded`: the lines of the header in which a proxy names its client.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use switchboard::config::{Config, ForwardedHeader, Http, LoadOptions};
use switchboard::server::client_address;

/// The proxy that the request is from.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A peer that is not trusted.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// Further proxies are in the same networks.
const CONFIG: &str = "http.trusted_proxies = ['10.0.0.0/8', 'fd00::/8']\n";

/// What a client can send itself, to which its proxy appends.
const FORGED: [&[u8]; 5] = [b"198.51.100.1, ", b"for=198.51.100.1, ", b"\", ", b"\xff, ", b", "];

static HTTP: LazyLock<Http> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("switchboard.toml");
    fs::write(&file, CONFIG).expect("a file");
    Config::load(LoadOptions { file: Some(file), ..LoadOptions::default() }).expect("a configuration").http
});

/// Reads the input as the lines of either header. Returns which of the two names a client: `x-forwarded-for`, `forwarded`
/// or `neither`.
pub fn forwarded(bytes: &[u8]) -> String {
    let named =
        [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded].map(|header| names_a_client(bytes, header));
    match named {
        [true, true] => panic!("an entry cannot be of both forms"),
        [true, false] => "x-forwarded-for",
        [false, true] => "forwarded",
        [false, false] => "neither",
    }
    .to_owned()
}

/// Whether the header names an address that is not a trusted proxy's.
fn names_a_client(bytes: &[u8], header: ForwardedHeader) -> bool {
    let http = Http { forwarded_header: header, ..HTTP.clone() };
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let found = client_address(PROXY, lines.iter().copied(), &http);
    assert_eq!(found, found.to_canonical());
    assert_eq!(client_address(STRANGER, lines.iter().copied(), &http), STRANGER, "the header of a stranger is read");
    let is_client = !http.trusted_proxies.iter().any(|network| network.contains(found));
    if is_client {
        // Nothing that is left of the client's address changes it.
        for forged in FORGED {
            let first = [forged, lines[0]].concat();
            let prefixed = [first.as_slice()].into_iter().chain(lines.iter().skip(1).copied());
            assert_eq!(client_address(PROXY, prefixed, &http), found, "{forged:?}");
            let with_a_line = [forged].into_iter().chain(lines.iter().copied());
            assert_eq!(client_address(PROXY, with_a_line, &http), found, "{forged:?} on a line of its own");
        }
    }
    is_client
}
