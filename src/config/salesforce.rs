//! [`Salesforce`]: which org, as whom, and where in it credentials are; [`BaseUrl`], an address without second meanings.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::{CallVariables, Events, WritableObject};

/// `[salesforce]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salesforce {
    /// Where tokens are asked for; a [`BaseUrl`].
    pub login_url: String,
    /// The `aud` of an assertion; `None`: `login_url`.
    pub audience: Option<String>,
    /// As in a path: `67.0`.
    pub api_version: String,
    /// The consumer key of the app.
    pub client_id: Option<String>,
    /// Whose session it is, with `private_key_file`.
    pub username: Option<String>,
    /// An RSA key in PEM: JWT bearer.
    pub private_key_file: Option<PathBuf>,
    /// The consumer secret: client credentials.
    pub client_secret_file: Option<PathBuf>,
    /// Certificates trusted beside the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Where the token may be sent: `.x` any host that ends in it, `x` that host or address.
    pub instance_hosts: Vec<String>,
    /// Speak without TLS to a stand-in on loopback.
    pub insecure_http: bool,
    /// The whole exchange, a re-login and repetitions included.
    pub timeout: Duration,
    /// Calls at once.
    pub concurrency: usize,
    /// Failed requests in a row that open the breaker.
    pub breaker_failures: u32,
    /// How long it stays open the first time.
    pub breaker_open: Duration,
    /// `[salesforce.credentials]`
    pub credentials: Lookup,
    /// `[salesforce.events]`
    pub events: Events,
    /// `[salesforce.objects.NAME]`; none: nothing is ever written.
    pub objects: BTreeMap<String, WritableObject>,
    /// `[salesforce.variables]`
    pub variables: CallVariables,
}

/// `[salesforce.credentials]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// How a row is asked for.
    pub mode: Mode,
    /// The path under `/services/apexrest` with `{user}` in it; in the mode `apex` only.
    pub apex_path: Option<String>,
    /// Hand out passwords that look like a mask.
    pub allow_mask_like: bool,
    /// The object's API name.
    pub object: String,
    /// What a session's user is.
    pub key: UserKey,
    /// The field that holds the key.
    pub key_field: String,
    /// The checkbox that switches a row off; empty: none.
    pub active_field: String,
    /// Where the values are.
    pub fields: Fields,
    /// How long an answer may be given again; zero: not at all.
    pub cache: Duration,
}

/// `salesforce.credentials.fields`; an empty name is not asked for and answered `""`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// `Username`
    pub username: String,
    /// `Password`
    pub password: String,
    /// `Extension`
    pub extension: String,
    /// `ADFSUsername`
    pub adfs_username: String,
}

/// `salesforce.credentials.mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// One SOQL query.
    #[default]
    Query,
    /// One record by an external id.
    ExternalId,
    /// An Apex REST resource of the org.
    Apex,
}

/// `salesforce.credentials.key`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UserKey {
    /// A record id, of 15 or 18 characters.
    #[default]
    UserId,
    /// A Salesforce user name.
    Username,
    /// A federation id.
    FederationId,
    /// An e-mail address.
    Email,
}

impl Default for Salesforce {
    fn default() -> Self {
        Self {
            login_url: "https://login.salesforce.com".to_owned(),
            audience: None,
            api_version: "67.0".to_owned(),
            client_id: None,
            username: None,
            private_key_file: None,
            client_secret_file: None,
            ca_file: None,
            instance_hosts: vec![".salesforce.com".to_owned()],
            insecure_http: false,
            timeout: Duration::from_secs(8),
            concurrency: 8,
            breaker_failures: 5,
            breaker_open: Duration::from_secs(5),
            credentials: Lookup::default(),
            events: Events::default(),
            objects: BTreeMap::new(),
            variables: CallVariables::default(),
        }
    }
}

impl Default for Lookup {
    fn default() -> Self {
        Self {
            mode: Mode::Query,
            apex_path: None,
            allow_mask_like: false,
            object: "CTI_Login__c".to_owned(),
            key: UserKey::UserId,
            key_field: "User_Id__c".to_owned(),
            active_field: "Active__c".to_owned(),
            fields: Fields {
                username: "CTI_Username__c".to_owned(),
                password: "CTI_Password__c".to_owned(),
                extension: "CTI_Extension__c".to_owned(),
                adfs_username: "ADFS_Username__c".to_owned(),
            },
            cache: Duration::ZERO,
        }
    }
}

/// A key that is missing or does not go with another, and why.
pub type Lack = (&'static str, &'static str);

impl Salesforce {
    /// What is missing or contradicts itself, for whoever is about to use it.
    #[must_use]
    pub fn lacks(&self) -> Vec<Lack> {
        let jwt = self.username.is_some() || self.private_key_file.is_some();
        let secret = self.client_secret_file.is_some();
        let shared_host = ["login.salesforce.com", "test.salesforce.com"]
            .iter()
            .any(|host| BaseUrl::parse(&self.login_url).is_ok_and(|url| url.host == *host));
        let lookup = &self.credentials;
        [
            (
                self.client_id.is_none(),
                "salesforce.client_id",
                "is missing: the consumer key of the external client app",
            ),
            (
                !jwt && !secret,
                "salesforce.private_key_file",
                "is missing: log in with username and private_key_file, or with client_secret_file",
            ),
            (jwt && secret, "salesforce.client_secret_file", "must not stand beside username or private_key_file"),
            (
                jwt && self.username.is_none(),
                "salesforce.username",
                "is missing: the integration user that private_key_file logs in",
            ),
            (
                jwt && self.private_key_file.is_none(),
                "salesforce.private_key_file",
                "is missing: the key that logs username in",
            ),
            (
                secret && shared_host,
                "salesforce.login_url",
                "must be the org's My Domain (https://NAME.my.salesforce.com): client credentials work nowhere else",
            ),
            (
                lookup.mode == Mode::Apex && lookup.apex_path.is_none(),
                "salesforce.credentials.apex_path",
                "is missing: the mode \"apex\" needs a path such as \"/cti/{user}\"",
            ),
            (
                lookup.mode == Mode::ExternalId && lookup.key_field.contains('.'),
                "salesforce.credentials.key_field",
                "must be a field of the object itself in the mode \"external_id\"",
            ),
        ]
        .into_iter()
        .filter(|(lacks, _, _)| *lacks)
        .map(|(_, key, message)| (key, message))
        .collect()
    }
}

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

const PORT: &str = "has a port that is none";

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
pub(super) fn name_or_v4(text: &str) -> Result<String, &'static str> {
    let label = |it: &str| !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it));
    if text.len() > 253 || !text.split('.').all(label) {
        return Err("must name a host and nothing else: no user, path or query");
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    // What the WHATWG's parser takes for an IPv4 address: the last part is a number, in any base.
    let numeric = last.bytes().all(|it| it.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if numeric && text.parse::<Ipv4Addr>().map(|it| it.to_string()).as_deref() != Ok(text) {
        return Err("has an address in an unusual notation");
    }
    Ok(text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

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
