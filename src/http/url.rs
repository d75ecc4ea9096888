//! Addresses: [`BaseUrl`], which has only one meaning, [`PageUrl`] below it, and percent-encoding.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

/// `https://HOST` or `https://HOST:PORT`, in the one notation that has one meaning.
///
/// URL parsers take `0x7f.1`, `127.1` and `a\@b` for something, and not all for the same: such texts are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Whether it is `https`.
    pub https: bool,
    /// In lower case, an IPv6 address without its brackets.
    pub host: String,
    /// Where it is written.
    pub port: Option<u16>,
}

impl BaseUrl {
    /// Reads one; a single slash may end it.
    ///
    /// # Errors
    /// What is wrong, without a word of the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (https, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err("must begin with https://"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // Before the port is read: a path behind it is not a mistake of the port.
        if rest.contains(['/', '\\', '?', '#', '@']) {
            return Err(HOST_ALONE);
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(inside) => {
                let (host, after) = inside.split_once(']').ok_or("has a bracket without its other one")?;
                (
                    v6(host)?,
                    after
                        .strip_prefix(':')
                        .map_or_else(|| if after.is_empty() { Ok(None) } else { Err(PORT) }, read_port)?,
                )
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (name_or_v4(host)?, read_port(port)?),
                None => (name_or_v4(rest)?, None),
            },
        };
        Ok(Self { https, host, port })
    }

    /// Whether it is this computer's own.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let v4 = self.host.parse::<Ipv4Addr>().is_ok_and(|it| it.is_loopback());
        v4 || self.host.parse::<Ipv6Addr>().is_ok_and(|it| it.is_loopback()) || self.host == "localhost"
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.https { "https://" } else { "http://" })?;
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// A [`BaseUrl`] with a path and perhaps a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageUrl {
    /// The server.
    pub base: BaseUrl,
    path: String,
}

impl PageUrl {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong, without a word of the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let host = text.find("://").map_or(text.len(), |at| at + 3);
        let end = text.get(host..).and_then(|rest| rest.find(['/', '?', '#', '\\'])).map_or(text.len(), |at| host + at);
        let (base, path) = text.split_at_checked(end).unwrap_or((text, ""));
        let is_plain = path.bytes().all(|it| it.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(&it));
        if !is_plain || path.starts_with('?') {
            return Err("must have a path in ASCII behind the host, and no fragment");
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { base: BaseUrl::parse(base)?, path: path.to_owned() })
    }
}

impl std::fmt::Display for PageUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.base, self.path)
    }
}

const HOST_ALONE: &str = "must name a host and nothing else: no user, path or query";
const PORT: &str = "must have a port from 1 to 65535 behind the colon, or no colon";

fn read_port(text: &str) -> Result<Option<u16>, &'static str> {
    let plain = !text.starts_with('0') && text.bytes().all(|it| it.is_ascii_digit());
    text.parse().ok().filter(|_| plain).map(Some).ok_or(PORT)
}

fn v6(text: &str) -> Result<String, &'static str> {
    let address: Option<Ipv6Addr> = text.parse().ok();
    let usual = address.map(|it| it.to_string()).filter(|usual| text.eq_ignore_ascii_case(usual));
    usual.ok_or("has an IPv6 address in an unusual notation")
}

/// A host name, or an IPv4 address in its usual notation.
fn name_or_v4(text: &str) -> Result<String, &'static str> {
    let label = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    if text.len() > 253 || !text.split('.').all(label) {
        return Err(HOST_ALONE);
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    // What the WHATWG's parser takes for an IPv4 address: the last part is a number, in any base.
    let numeric = last.bytes().all(|it| it.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if numeric && text.parse::<Ipv4Addr>().map(|it| it.to_string()).as_deref() != Ok(text) {
        return Err("has an address in an unusual notation");
    }
    Ok(text.to_ascii_lowercase())
}

/// A value as one segment of a path, percent-encoded; `None` where no notation keeps it one: URL parsers take `.` and
/// `..` for steps even when they are percent-encoded.
pub(crate) fn segment(value: &str) -> Option<String> {
    (!matches!(value, "" | "." | "..")).then(|| encode(value))
}

/// Percent-encodes all but what RFC 3986 calls unreserved.
pub(crate) fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => write!(encoded, "%{byte:02X}").ok().unwrap_or_default(),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_segment_is_one_and_decodes_to_the_value(value in "[./\\\\%?#@:;\\PC]{1,20}") {
            if let Some(segment) = segment(&value) {
                let url = reqwest::Url::parse(&format!("https://a.example/x/{segment}?y")).unwrap();
                let segments: Vec<_> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 2);
                let mut bytes = Vec::new();
                let mut rest = segments[1].bytes();
                while let Some(byte) = rest.next() {
                    let hex = [rest.clone().next().unwrap_or(0), rest.clone().nth(1).unwrap_or(0)];
                    bytes.push(if byte == b'%' { rest.nth(1); hex::decode(hex).unwrap()[0] } else { byte });
                }
                prop_assert_eq!(bytes, value.as_bytes());
            } else {
                prop_assert!([".", ".."].contains(&value.as_str()));
            }
        }
    }

    #[test]
    fn a_page_has_a_host_in_one_notation_and_a_path() {
        for (text, kept) in [
            ("https://Login.example.com/a/keys?v=2", "https://login.example.com/a/keys?v=2"),
            ("http://127.0.0.1:8443", "http://127.0.0.1:8443/"),
            ("https://[::1]:9/", "https://[::1]:9/"),
        ] {
            assert_eq!(PageUrl::parse(text).map(|url| url.to_string()).as_deref(), Ok(kept), "{text}");
        }
        for text in [
            "",
            "/keys",
            "login.example.com/keys",
            "ftp://a/keys",
            "https:///keys",
            "https://u@a.example/keys",
            "https://a.example?x",
            "https://a.example/#x",
            "https://a.example\\b/keys",
            "https://a.example/a b",
            "https://a.example/ä",
            "https://127.1/keys",
        ] {
            assert!(PageUrl::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_names_what_is_wrong_and_nothing_else() {
        for (text, error) in [
            ("https://127.0.0.1:8443/services/oauth2/token", HOST_ALONE),
            ("https://acme.my.salesforce.com/services", HOST_ALONE),
            ("https://[::1]:8443/x", HOST_ALONE),
            ("https://a.example:8443?x", HOST_ALONE),
            ("https://u:p@a.example", HOST_ALONE),
            ("https://a.example:x", PORT),
            ("https://[::1]:99999", PORT),
        ] {
            assert_eq!(BaseUrl::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn an_address_has_one_notation() {
        for (text, kept) in [
            ("https://Acme.my.salesforce.com", "https://acme.my.salesforce.com"),
            ("https://acme--uat.sandbox.my.salesforce.com/", "https://acme--uat.sandbox.my.salesforce.com"),
            ("http://127.0.0.1:8443", "http://127.0.0.1:8443"),
            ("https://[::1]:9", "https://[::1]:9"),
            ("https://na1.salesforce.com:443", "https://na1.salesforce.com:443"),
        ] {
            assert_eq!(BaseUrl::parse(text).map(|url| url.to_string()).as_deref(), Ok(kept), "{text}");
        }
        for text in [
            "",
            "acme",
            "ftp://a",
            "HTTPS://a.example",
            "https:/a",
            "https://",
            "https:///",
            "https://a//",
            "https://a/b",
            "https://u@a.example",
            "https://u:p@a.example",
            "https://a.example#.salesforce.com",
            "https://a?b",
            "https://a\\.salesforce.com",
            "https://a.example:",
            "https://a:0",
            "https://a:080",
            "https://a:65536",
            "https://a:+1",
            "https://127.1",
            "https://2130706433",
            "https://0x7f.0.0.1",
            "https://0177.0.0.1",
            "https://127.0.0.1.",
            "https://a.example.",
            "https://a..b",
            "https://%61.example",
            "https://ä.example",
            "https://[::1",
            "https://[::1]x",
            "https://[0:0:0:0:0:0:0:1]",
            "https://[::ffff:7f00:1]x",
            "https://a b",
            " https://a",
            "https://a\n",
            "https://1.2.3.0x4",
        ] {
            assert!(BaseUrl::parse(text).is_err(), "{text}");
        }
    }
}
