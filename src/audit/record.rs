//! [`Record`]: one line of the log, and what a line of a log says about its place in the chain.

use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use wire::ErrorCode;

/// SHA-256 of the line before.
pub(super) type Hash = [u8; 32];

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Credentials were requested.
    Fetch,
    /// A record of a Salesforce org was to be written.
    Write,
    /// A session was not registered, or its proof was not renewed.
    RegistrationRefused,
    /// A call of the admin API that changes something.
    Admin,
    /// `switchboard credentials set`
    CredentialsSet,
    /// `switchboard credentials remove`
    CredentialsRemoved,
    /// `switchboard credentials import`
    CredentialsImported,
    /// `switchboard credentials rekey`
    Rekeyed,
    /// Records before this one could not be written.
    Lost,
    /// The log was closed after events that left no record, because there were too many of their kind.
    Unrecorded,
}

/// What a record says. No field ever holds a secret or the value of a field.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// What happened.
    pub event: Event,
    /// Why it failed; `None` if it was done.
    pub outcome: Option<ErrorCode>,
    /// The same, with a code that the wire does not have. It takes the place of `outcome`.
    pub code: Option<&'static str>,
    /// The source; before registration the one that was claimed.
    pub source: Option<&'a str>,
    /// The user that it was done for.
    pub user: Option<&'a str>,
    /// The session, once it is registered.
    pub session: Option<String>,
    /// The address of the peer.
    pub address: Option<IpAddr>,
    /// The triple, the object and record id, or the call of the admin API.
    pub target: Option<Cow<'a, str>>,
    /// Names of fields.
    pub fields: Vec<Cow<'a, str>>,
    /// How many: imported users, users with a new key, lost records.
    pub count: Option<u64>,
    /// The operating-system user of a command.
    pub uid: Option<u32>,
    /// The name of the token that proved an admin.
    pub token: Option<&'a str>,
    /// The arguments of a call of the admin API.
    pub arguments: Option<&'a Value>,
}

impl Entry<'_> {
    /// An event that succeeded, of which nothing else is known.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self {
            event,
            outcome: None,
            code: None,
            source: None,
            user: None,
            session: None,
            address: None,
            target: None,
            fields: Vec::new(),
            count: None,
            uid: None,
            token: None,
            arguments: None,
        }
    }

    /// The same with another outcome.
    #[must_use]
    pub fn with_outcome(self, outcome: Option<ErrorCode>) -> Self {
        Self { outcome, ..self }
    }
}

/// The keys of a line in their order, without `previous`, which is the last one.
#[derive(Serialize)]
struct Keys<'a> {
    time: String,
    event: Event,
    outcome: &'a str,
    source: Option<&'a str>,
    user: Option<&'a str>,
    session: Option<&'a str>,
    address: Option<IpAddr>,
    target: Option<&'a str>,
    fields: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a Value>,
    #[serde(skip_serializing_if = "is_zero")]
    unrecorded: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A line that lacks only the hash of the one before it: JSON without the closing brace.
pub(super) struct Record(Vec<u8>);

impl Record {
    /// `unrecorded`: events of its kind before it that left no record.
    pub(super) fn new(when: SystemTime, entry: &Entry<'_>, unrecorded: u64) -> io::Result<Self> {
        let keys = Keys {
            time: humantime::format_rfc3339_millis(when).to_string(),
            event: entry.event,
            outcome: entry.code.or_else(|| entry.outcome.map(ErrorCode::as_str)).unwrap_or("ok"),
            source: entry.source,
            user: entry.user,
            session: entry.session.as_deref(),
            address: entry.address,
            target: entry.target.as_deref(),
            fields: &entry.fields,
            count: entry.count,
            uid: entry.uid,
            token: entry.token,
            arguments: entry.arguments,
            unrecorded,
        };
        let mut text = serde_json::to_vec(&keys)?;
        text.pop();
        Ok(Self(text))
    }

    /// The whole line, without its line end.
    pub(super) fn after(&self, previous: Option<&Hash>) -> Vec<u8> {
        let previous = previous.map_or_else(|| "null".to_owned(), |hash| format!("\"{}\"", hex::encode(hash)));
        [self.0.as_slice(), b",\"previous\":", previous.as_bytes(), b"}"].concat()
    }
}

/// What a line of a log is.
pub(super) enum Line {
    /// A record of the chain.
    Chained {
        /// What it says of the line before it.
        previous: Option<Hash>,
        /// Records that it counts as lost.
        lost: u64,
        /// Events that left no record.
        unrecorded: u64,
    },
    /// A record from before there was a chain.
    Unchained,
    /// Not a record.
    Unreadable,
}

impl Line {
    /// Reads a line without its line end.
    pub(super) fn read(line: &[u8]) -> Self {
        let Ok(keys) = serde_json::from_slice::<Map<String, Value>>(line) else { return Self::Unreadable };
        let previous = match keys.get("previous") {
            None => return Self::Unchained,
            Some(Value::Null) => None,
            Some(Value::String(text)) => {
                let mut hash = Hash::default();
                if hex::decode_to_slice(text, &mut hash).is_err() {
                    return Self::Unreadable;
                }
                Some(hash)
            }
            Some(_) => return Self::Unreadable,
        };
        let number = |key: &str| keys.get(key).and_then(Value::as_u64).unwrap_or_default();
        let lost = if keys.get("event").is_some_and(|event| event == "lost") { number("count") } else { 0 };
        Self::Chained { previous, lost, unrecorded: number("unrecorded") }
    }

    pub(super) fn is_record(&self) -> bool {
        match self {
            Self::Chained { .. } | Self::Unchained => true,
            Self::Unreadable => false,
        }
    }
}

pub(super) fn hash(text: &[u8]) -> Hash {
    Sha256::digest(text).into()
}
