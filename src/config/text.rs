//! The texts that keys take: addresses, origins, hosts, patterns, hashes, names. Each is checked here and nowhere else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::value::Fault;
use crate::http::BaseUrl;
use wire::{BROKER, Pattern, check_name};

/// Checks a text; gives it back as it is to be kept.
pub(crate) type Check = fn(&str) -> Result<String, Fault>;

/// The source of handlers in the process.
const RESERVED_SOURCE: &str = "switchboard";

/// The SHA-256 of the empty text.
const HASH_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// `HOST:PORT`, where HOST is an address: a name would have to be looked up, and may mean several.
pub(crate) fn address(text: &str) -> Result<SocketAddr, Fault> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(port) = text.strip_prefix("localhost:").unwrap_or_default().parse::<u16>() {
        let nearest = Some(format!("127.0.0.1:{port}"));
        return Err(Fault::near("must be an address: localhost may mean 127.0.0.1 or [::1]", nearest));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("lacks the port: write HOST:PORT, an IPv6 address in brackets".into());
    }
    Err("must be HOST:PORT with an address as HOST, such as 127.0.0.1:7420 or [::1]:7420".into())
}

/// `channel/topic/subtopic`
pub(crate) fn pattern(text: &str) -> Result<Pattern, Fault> {
    let pattern: Pattern = text.parse().map_err(|fault| Fault::from(format!("{fault}")))?;
    match &pattern.channel {
        Some(channel) if channel.eq_ignore_ascii_case(BROKER) => {
            Err("must not name the channel Broker, which is the broker's own".into())
        }
        Some(_) | None => pattern.hint().map_or(Ok(pattern), |hint| Err(hint.into())),
    }
}

/// 64 hex digits, not the hash of nothing.
pub(crate) fn hash(text: &str) -> Result<[u8; 32], Fault> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(
        |_| "must be 64 hex digits: the SHA-256 of the token, not the token; 'switchboard token new' prints both",
    )?;
    if text.eq_ignore_ascii_case(HASH_OF_NOTHING) {
        return Err("is the hash of an empty token".into());
    }
    Ok(bytes)
}

/// The SHA-256 of a certificate.
pub(crate) fn fingerprint(text: &str) -> Result<[u8; 32], Fault> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| {
        let bare: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
        let near = (bare.len() == 64 && text.contains(':')).then(|| bare.to_ascii_lowercase());
        let expected = "must be 64 hex digits: the SHA-256 of the certificate in DER; openssl x509 -in FILE -noout -sha256 \
                        -fingerprint prints it with colons, which have to go";
        Fault::near(expected, near)
    })?;
    Ok(bytes)
}

/// Attributes of a certificate's subject that can be written.
const ATTRIBUTES: [&str; 7] = ["CN", "O", "OU", "C", "ST", "L", "DC"];

/// The subject of a certificate, as text of RFC 4514 in the certificate's own order.
pub(crate) fn subject(text: &str) -> Result<String, Fault> {
    let mut escaped = false;
    // A separator that is escaped is part of a value.
    let separated = text.split(|character| {
        let separates = !escaped && matches!(character, ',' | '+');
        escaped = !escaped && character == '\\';
        separates
    });
    for part in separated {
        let name = part.split_once('=').map(|(name, _)| name);
        match name {
            Some(name) if ATTRIBUTES.contains(&name) => {}
            Some(name) if ATTRIBUTES.iter().any(|known| known.eq_ignore_ascii_case(name.trim())) => {
                return Err(
                    "must have its attributes in capitals and without spaces around ',' and '=': CN=cti,O=Example"
                        .into(),
                );
            }
            Some(_) => {
                return Err(
                    "has an attribute that is not CN, O, OU, C, ST, L or DC; name it by certificate_sha256".into()
                );
            }
            None => {
                return Err(
                    "must be the subject of a certificate, in its own order, such as CN=cti,O=Example; a ',' or \
                            '+' in a value has a '\\' before it"
                        .into(),
                );
            }
        }
    }
    Ok(text.to_owned())
}

/// The name that an application registers under.
pub(crate) fn source(text: &str) -> Result<String, Fault> {
    match text {
        RESERVED_SOURCE => Err("must not be 'switchboard', the source of handlers in the broker itself".into()),
        _ => name(text),
    }
}

/// A user's name.
pub(crate) fn name(text: &str) -> Result<String, Fault> {
    check_name(text).map(|()| text.to_owned()).map_err(|fault| fault.to_string().into())
}

/// A path that is used as it is written.
pub(crate) fn path(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err("must not be empty".into());
    }
    if text.chars().any(char::is_control) {
        // "C:\new" has a line break in it.
        return Err(
            "must not have control characters; write a Windows path in single quotes, where a backslash is not \
                    an escape: 'C:\\folder\\file'"
                .into(),
        );
    }
    if shell_would_expand(text) {
        return Err("must be the whole path: '~', $NAME and %NAME% are not expanded".into());
    }
    Ok(())
}

fn shell_would_expand(path: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"_()".contains(&it));
    let after_dollar = |rest: &str| rest.starts_with(|it: char| it.is_ascii_alphabetic() || "_{(".contains(it));
    path.starts_with('~')
        || path.split('$').skip(1).any(after_dollar)
        || path.split('%').skip(1).step_by(2).any(|name| is_name(name) && path.contains(&format!("%{name}%")))
}

/// An origin as a browser writes it (RFC 6454, section 6.2): lower case, no default port; or a scheme without a host; or
/// `null`.
pub(crate) fn origin(text: &str) -> Result<String, Fault> {
    let expected = "must be an origin as browsers write it, such as https://crm.example.com or http://10.0.0.7:8080";
    if text == "null" {
        return Ok(text.to_owned());
    }
    if text.eq_ignore_ascii_case("null") {
        return Err(Fault::near("must be in lower case", Some("null".to_owned())));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(expected.into());
    };
    let scheme = scheme.to_ascii_lowercase();
    let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.chars().all(|it| it.is_ascii_alphanumeric() || "+-.".contains(it));
    if !scheme_fits || rest.contains('@') {
        return Err(expected.into());
    }
    if matches!(scheme.as_str(), "ws" | "wss") {
        return Err("must be the origin of a page, http:// or https://: no browser sends ws:// or wss://".into());
    }
    if scheme == "file" && !rest.is_empty() {
        return Err(Fault::near(
            "must not have a path: the origin of every file is the same",
            Some("file://".to_owned()),
        ));
    }
    if rest.contains(['/', '?', '#']) {
        return Err("an origin ends with its host or port: no path, not even a slash".into());
    }
    if rest.is_empty() && !matches!(scheme.as_str(), "http" | "https") {
        // Pages of a file or of an application: `file://`, `app://`.
        return Ok(format!("{scheme}://"));
    }
    let (host, port) = split_port(rest).ok_or(expected)?;
    let host = self::host(host)?;
    let default_port = match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    Ok(match port {
        Some(port) if Some(port) != default_port => format!("{scheme}://{host}:{port}"),
        Some(_) | None => format!("{scheme}://{host}"),
    })
}

/// A host as a `Host` header writes it, without a port: lower case, an IPv6 address in brackets.
pub(crate) fn host(text: &str) -> Result<String, Fault> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match inner.parse::<Ipv6Addr>() {
            Ok(address) => Ok(bracketed(address)),
            Err(_) => Err("has brackets around something that is not an IPv6 address".into()),
        };
    }
    if let Ok(IpAddr::V6(address)) = text.parse() {
        return Ok(bracketed(address));
    }
    if text.contains('*') {
        return Err("must be named in full: '*' stands for nothing here".into());
    }
    if split_port(text).is_some_and(|(_, port)| port.is_some()) {
        return Err("must be a host without a port: every port of it is allowed".into());
    }
    if !text.is_ascii() {
        return Err("must be in ASCII: write a name of other letters as browsers send it, xn--…".into());
    }
    if ends_in_number(text) && text.parse::<Ipv4Addr>().is_err() {
        return Err("must be an address as browsers write it, four decimal numbers such as 10.0.0.7".into());
    }
    let fits = text.chars().all(|it| it.is_ascii_alphanumeric() || "-._".contains(it));
    match text.len() {
        1..=253 if fits => Ok(text.to_ascii_lowercase()),
        _ => Err("must be a host name or an address, such as switchboard.example.com or 10.0.0.7".into()),
    }
}

/// An IPv6 address as browsers write it, which is also without the decimal form of an IPv4 address inside.
fn bracketed(address: Ipv6Addr) -> String {
    match (address.to_ipv4_mapped(), address.segments()) {
        (Some(_), [.., high, low]) => format!("[::ffff:{high:x}:{low:x}]"),
        (None, _) => format!("[{address}]"),
    }
}

/// Whether browsers take a host for an IPv4 address (URL Standard, "ends in a number").
fn ends_in_number(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let is_hexadecimal = hexadecimal.is_some_and(|digits| digits.bytes().all(|it| it.is_ascii_hexdigit()));
    is_hexadecimal || (!last.is_empty() && last.bytes().all(|it| it.is_ascii_digit()))
}

/// A host and its port, if it has one; `None` for a port that is not a number.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => port.parse().ok().map(|port| (host, Some(port))),
        Some(_) | None => Some((text, None)),
    }
}

/// `https://HOST[:PORT]`; whether `http` will do is for a rule to say.
pub(crate) fn base_url(text: &str) -> Result<String, Fault> {
    BaseUrl::parse(text).map(|url| url.to_string()).map_err(Fault::from)
}
