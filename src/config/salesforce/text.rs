//! Checks the texts of keys in `[salesforce]` and `[auth.salesforce_*]`: ids, hosts, paths and API names.

use std::net::IpAddr;

use super::record_id::exact_record_id;
use crate::config::value::Fault;
use crate::http::BaseUrl;
use wire::check_name;

/// A text that is sent to Salesforce unchanged.
pub(crate) fn printed(text: &str) -> Result<String, Fault> {
    match text.len() {
        1..=1024 if !text.chars().any(|it| it.is_control() || it.is_whitespace()) => Ok(text.to_owned()),
        _ => Err("must be a text of at most 1024 bytes, without spaces or control characters".into()),
    }
}

/// Hosts of Salesforce, and ends of hosts, that browsers show and that never issue tokens.
const NEVER_LOGIN_HOSTS: &[&str] = &[
    ".lightning.force.com",
    ".salesforce-setup.com",
    ".visualforce.com",
    ".visual.force.com",
    ".vf.force.com",
    ".content.force.com",
    ".file.force.com",
    ".documentforce.com",
    "salesforce.com",
    "www.salesforce.com",
    "help.salesforce.com",
    "developer.salesforce.com",
    "status.salesforce.com",
    "trailhead.salesforce.com",
    "api.pubsub.salesforce.com",
];

/// The server that issues tokens. Other hosts of Salesforce, which an administrator finds in the browser, do not.
pub(crate) fn login_url(text: &str) -> Result<String, Fault> {
    let url = BaseUrl::parse(text).map_err(Fault::from)?;
    let is_of = |never: &str| if never.starts_with('.') { url.host.ends_with(never) } else { url.host == never };
    if NEVER_LOGIN_HOSTS.iter().any(|never| is_of(never)) {
        return Err("names a host of Salesforce's pages, which issues no tokens: write https://login.salesforce.com, \
                    https://test.salesforce.com, or My Domain (Setup > Company Settings > My Domain), which ends in \
                    .my.salesforce.com"
            .into());
    }
    Ok(url.to_string())
}

/// The id of an org, completed to 18 characters.
pub(crate) fn org_id(text: &str) -> Result<String, Fault> {
    exact_record_id(text).filter(|id| id.starts_with("00D")).ok_or_else(|| {
        "must be the org's id, 15 or 18 characters that begin with 00D: Setup > Company Settings > Company Information"
            .into()
    })
}

/// A version of the REST API, in the form of paths.
pub(crate) fn api_version(text: &str) -> Result<String, Fault> {
    // Salesforce has retired versions up to 40, or is about to.
    let number = text.strip_suffix(".0").filter(|it| !it.starts_with(['0', '+'])).and_then(|it| it.parse::<u16>().ok());
    match number {
        Some(41..=999) => Ok(text.to_owned()),
        Some(_) | None => Err("must be a version of the REST API from \"41.0\" on, such as \"67.0\"".into()),
    }
}

/// `.x` is any host that ends in it, `x` is that host or address.
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
    // SOQL follows up to five relations.
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

/// A path into a JSON value: keys with dots between them.
pub(crate) fn key_path(text: &str) -> Result<String, Fault> {
    let fits = text.len() <= 255 && text.split('.').all(|key| check_name(key).is_ok());
    if fits {
        Ok(text.to_owned())
    } else {
        Err("must be a key, or keys with dots between them, such as call.id".into())
    }
}

/// A path into a JSON value, or nothing.
pub(crate) fn key_path_or_none(text: &str) -> Result<String, Fault> {
    if text.is_empty() { Ok(String::new()) } else { key_path(text) }
}

/// Returns whether a text is an API name. It becomes part of SOQL and paths unchanged, and cannot end the part that it
/// is in.
pub(crate) fn is_identifier(text: &str) -> bool {
    text.len() <= 80
        && text.starts_with(|it: char| it.is_ascii_alphabetic())
        && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
}
