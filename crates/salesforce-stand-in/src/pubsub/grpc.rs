//! gRPC on hyper: messages in and out of a body, and the status in its trailers.

use std::fmt::Write as _;
use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use prost::Message;

/// Larger messages are refused.
const MESSAGE_MAX: usize = 4 << 20;

/// The head of a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A call that failed.
#[derive(Clone, Debug)]
pub(super) struct Status {
    code: u8,
    message: String,
    /// Salesforce's own trailer.
    error_code: Option<&'static str>,
}

impl Status {
    pub(super) const INVALID_ARGUMENT: u8 = 3;
    pub(super) const NOT_FOUND: u8 = 5;
    pub(super) const PERMISSION_DENIED: u8 = 7;
    pub(super) const UNIMPLEMENTED: u8 = 12;
    pub(super) const UNAVAILABLE: u8 = 14;
    pub(super) const UNAUTHENTICATED: u8 = 16;

    /// A status.
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), error_code: None }
    }

    /// A status with a code of Salesforce.
    pub(super) fn known(code: u8, error_code: &'static str, message: impl Into<String>) -> Self {
        Self { error_code: Some(error_code), ..Self::new(code, message) }
    }

    /// The end of a call; `None` means success.
    pub(super) fn trailers(status: Option<&Self>, rpc_id: &str) -> Frame<Bytes> {
        let mut trailers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                trailers.insert(HeaderName::from_static(name), value);
            }
        };
        put("grpc-status", &status.map_or(0, |it| it.code).to_string());
        put("rpc-id", rpc_id);
        if let Some(status) = status {
            put("grpc-message", &encoded(&format!("{} rpcId: {rpc_id}", status.message)));
            if let Some(error_code) = status.error_code {
                put("error-code", error_code);
            }
        }
        Frame::trailers(trailers)
    }
}

/// Encodes a message for a header as gRPC does.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                // Writing to a String cannot fail.
                write!(encoded, "%{byte:02X}").ok();
            }
        }
    }
    encoded
}

/// Encodes a message.
pub(super) fn data(message: &impl Message) -> Frame<Bytes> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.extend_from_slice(&message.encode_to_vec());
    Frame::data(bytes.freeze())
}

/// The messages of a call.
pub(super) struct Messages {
    body: Incoming,
    read: BytesMut,
}

impl Messages {
    /// The messages of a body.
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, read: BytesMut::new() }
    }

    /// The next message; `None` after the last. Cancel-safe: bytes that were read are kept.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let invalid = |message: &str| Status::new(Status::INVALID_ARGUMENT, message);
        loop {
            if let Some((compressed, length)) = self.prefix() {
                if compressed {
                    return Err(Status::new(Status::UNIMPLEMENTED, "compressed messages are not read"));
                }
                if length > MESSAGE_MAX {
                    return Err(invalid("the message is too large"));
                }
                if self.read.len() >= PREFIX + length {
                    self.read.advance(PREFIX);
                    let message = self.read.split_to(length);
                    return M::decode(message).map(Some).map_err(|_| invalid("the message cannot be read"));
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.read.extend_from_slice(&bytes);
                    }
                }
                Some(Err(_)) => return Err(invalid("the call broke off")),
            }
        }
    }

    /// The only message of a call.
    pub(super) async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        self.next().await?.ok_or_else(|| Status::new(Status::INVALID_ARGUMENT, "a message is missing"))
    }

    fn prefix(&self) -> Option<(bool, usize)> {
        let (first, rest) = self.read.get(..PREFIX)?.split_first()?;
        let length = u32::from_be_bytes(rest.try_into().ok()?);
        Some((*first != 0, usize::try_from(length).ok()?))
    }
}

/// Ends a connection in the middle of a call.
pub(super) fn cut() -> io::Error {
    io::Error::other("cut on demand")
}
