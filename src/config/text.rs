//! The texts that keys take: addresses, origins, hosts, patterns, hashes, names. Each is checked here and nowhere else.

use std::net::{IpAddr, SocketAddr};

use super::record_id::exact_record_id;
use super::salesforce::BaseUrl;
use super::value::Fault;
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
        Some(_) | None => Ok(pattern),
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

/// An origin as a browser writes it (RFC 6454, section 6.2): lower case, no default port; or a scheme without a host; or
/// `null`.
pub(crate) fn origin(text: &str) -> Result<String, Fault> {
    let expected = "must be an origin as browsers write it, such as https://crm.example.com or http://10.0.0.7:8080";
    if text == "null" {
        return Ok(text.to_owned());
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
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(address) => Ok(format!("[{address}]")),
            Err(_) => Err("has brackets around something that is no IPv6 address".into()),
        };
    }
    if let Ok(IpAddr::V6(address)) = text.parse() {
        return Ok(format!("[{address}]"));
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
    let fits = text.chars().all(|it| it.is_ascii_alphanumeric() || "-._".contains(it));
    match text.len() {
        1..=253 if fits => Ok(text.to_ascii_lowercase()),
        _ => Err("must be a host name or an address, such as switchboard.example.com or 10.0.0.7".into()),
    }
}

/// A host and its port, if it has one; `None` for a port that is no number.
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

/// A text that is sent to Salesforce as it is.
pub(crate) fn printed(text: &str) -> Result<String, Fault> {
    match text.len() {
        1..=1024 if !text.chars().any(|it| it.is_control() || it.is_whitespace()) => Ok(text.to_owned()),
        _ => Err("must be a text of at most 1024 bytes, without spaces or control characters".into()),
    }
}

/// The id of an org, completed to 18 characters.
pub(crate) fn org_id(text: &str) -> Result<String, Fault> {
    exact_record_id(text).filter(|id| id.starts_with("00D")).ok_or_else(|| {
        "must be the org's id, 15 or 18 characters that begin with 00D: Setup > Company Settings > Company Information"
            .into()
    })
}

/// A version of the REST API, as paths have it.
pub(crate) fn api_version(text: &str) -> Result<String, Fault> {
    // Versions up to 40 are gone or about to go.
    let number = text.strip_suffix(".0").filter(|it| !it.starts_with(['0', '+'])).and_then(|it| it.parse::<u16>().ok());
    match number {
        Some(41..=999) => Ok(text.to_owned()),
        Some(_) | None => Err("must be a version of the REST API from \"41.0\" on, such as \"67.0\"".into()),
    }
}

/// `.x`: any host that ends in it; `x`: that host or address.
pub(crate) fn instance_host(text: &str) -> Result<String, Fault> {
    let expected = "must be a host or an address, or the end of one behind a dot, such as \".salesforce.com\"";
    let host = text.strip_prefix('.').unwrap_or(text);
    let bracketed = host.parse::<std::net::Ipv6Addr>().map_or_else(|_| host.to_owned(), |it| format!("[{it}]"));
    let url = BaseUrl::parse(&format!("https://{bracketed}")).map_err(|_| expected)?;
    let is_name = url.host.parse::<IpAddr>().is_err();
    match (text.starts_with('.'), url.port) {
        (_, Some(_)) => Err("must be without a port: ports are not compared".into()),
        (false, None) => Ok(url.host),
        (true, None) if is_name => Ok(format!(".{}", url.host)),
        (true, None) => Err(expected.into()),
    }
}

/// A path under `/services/apexrest` with `{user}` in it.
pub(crate) fn apex_path(text: &str) -> Result<String, Fault> {
    let rest = text.replacen("{user}", "u", 1);
    let plain = |part: &str| part.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.~?=&".contains(&it));
    let fits = rest.starts_with('/')
        && rest != text
        && text.len() <= 255
        && rest.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != ".." && plain(part));
    if fits { Ok(text.to_owned()) } else { Err("must be a path such as \"/cti/{user}\", with {user} once".into()) }
}

/// The API name of an object.
pub(crate) fn object_name(text: &str) -> Result<String, Fault> {
    if is_identifier(text) { Ok(text.to_owned()) } else { Err("must be an API name, such as CTI_Login__c".into()) }
}

/// The API name of a field, of the object or of a record that it refers to.
pub(crate) fn field_name(text: &str) -> Result<String, Fault> {
    // SOQL goes five relations up.
    if text.split('.').count() <= 6 && text.split('.').all(is_identifier) {
        Ok(text.to_owned())
    } else {
        Err("must be the API name of a field, such as User_Id__c or User__r.Username".into())
    }
}

/// The API name of a field, or nothing.
pub(crate) fn field_name_or_none(text: &str) -> Result<String, Fault> {
    if text.is_empty() { Ok(String::new()) } else { field_name(text) }
}

/// The API name of a field of the object itself.
pub(crate) fn own_field(text: &str) -> Result<String, Fault> {
    if is_identifier(text) {
        Ok(text.to_owned())
    } else {
        Err("must be the API name of a field of the object itself, such as Subject or Phase__c".into())
    }
}

/// The API name of a field of the object itself, or nothing.
pub(crate) fn own_field_or_none(text: &str) -> Result<String, Fault> {
    if text.is_empty() { Ok(String::new()) } else { own_field(text) }
}

/// Keys that lead into a JSON value, with dots between them.
pub(crate) fn key_path(text: &str) -> Result<String, Fault> {
    let fits = text.len() <= 255 && text.split('.').all(|key| check_name(key).is_ok());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be a key, or keys with dots between them, such as call.id".into())
    }
}

/// Keys that lead into a JSON value, or nothing.
pub(crate) fn key_path_or_none(text: &str) -> Result<String, Fault> {
    if text.is_empty() { Ok(String::new()) } else { key_path(text) }
}

/// Whether it is an API name. Goes into SOQL and paths as it is: whatever else it is, it cannot end what it stands in.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() <= 80
        && text.starts_with(|it: char| it.is_ascii_alphabetic())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}
