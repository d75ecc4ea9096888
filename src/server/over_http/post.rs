//! [`Post`]: a call as the listener hands it over: its head, and a stream from which the body is yet to be read.

use std::net::IpAddr;

use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use hyper::{HeaderMap, Version};
use secrecy::SecretString;
use zeroize::Zeroizing;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Endpoint {
    Publish,
    Request,
}

impl Endpoint {
    /// The endpoint at a path.
    pub(in crate::server) fn of(path: &str) -> Option<Self> {
        [Self::Publish, Self::Request].into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// Its path.
    pub(in crate::server) fn path(self) -> &'static str {
        match self {
            Self::Publish => "/v1/publish",
            Self::Request => "/v1/request",
        }
    }
}

/// A call.
pub(in crate::server) struct Post<S> {
    pub(in crate::server) stream: S,
    /// What was read beyond the head.
    pub(in crate::server) ahead: Zeroizing<Vec<u8>>,
    pub(in crate::server) head: Head,
}

/// What the head of a call says.
pub(in crate::server) struct Head {
    pub(in crate::server) endpoint: Endpoint,
    /// The address of the connection, or the one that a trusted proxy names.
    pub(in crate::server) address: IpAddr,
    pub(super) token: Option<SecretString>,
    pub(super) is_json: bool,
    pub(super) framing: Option<Framing>,
    /// The caller waits for 100 (Continue) before it sends the body.
    pub(super) waits: bool,
}

/// How the end of a body is known (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

impl Head {
    /// Reads the headers of a request that was not refused.
    pub(in crate::server) fn read(
        endpoint: Endpoint,
        address: IpAddr,
        version: Version,
        headers: &HeaderMap,
        token: Option<SecretString>,
    ) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
        let media_type = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
        let framing = match text(TRANSFER_ENCODING) {
            "" => Some(Framing::Length(text(CONTENT_LENGTH).parse().unwrap_or_default())),
            coding if coding.eq_ignore_ascii_case("chunked") => Some(Framing::Chunked),
            _ => None,
        };
        Self {
            endpoint,
            address,
            token,
            is_json: media_type.eq_ignore_ascii_case("application/json"),
            framing,
            waits: version == Version::HTTP_11 && text(EXPECT).eq_ignore_ascii_case("100-continue"),
        }
    }
}
