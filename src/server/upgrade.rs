//! [`check`]: whether a request for a WebSocket is one that RFC 6455 allows.

use hyper::header::{self, HeaderName};
use hyper::{HeaderMap, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::handshake::{Decision, Head};
use super::refusal::{Reason, Refusal};

/// The sub-protocol that is echoed if it is offered.
pub(super) const SUBPROTOCOL: &str = "switchboard.v1";

/// The only version of the WebSocket protocol (RFC 6455, section 4.4).
const VERSION: &str = "13";

/// What RFC 6455, section 4.2.1 demands of a client.
pub(super) fn check(head: &Head<'_>) -> Result<Decision, Refusal> {
    let headers = head.headers;
    let upgrades = head.version >= Version::HTTP_11
        && has_token(headers, &header::UPGRADE, "websocket")
        && has_token(headers, &header::CONNECTION, "upgrade");
    if !upgrades {
        return Err(upgrade_required(match headers.contains_key(header::SEC_WEBSOCKET_KEY) {
            true => {
                "a WebSocket client sent this, but a proxy in between did not pass on 'Upgrade: websocket' and \
                 'Connection: upgrade' in HTTP/1.1; configure it to"
            }
            false => "this is a WebSocket; connect with a WebSocket client",
        }));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version.as_bytes() != VERSION.as_bytes()) {
        return Err(upgrade_required("Sec-WebSocket-Version must be 13"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes())) else {
        let text = "Sec-WebSocket-Key must be 16 bytes in base64";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, Reason::Head, text));
    };
    let subprotocol = has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    Ok(Decision::Upgrade { accept: derive_accept_key(key.as_bytes()), subprotocol })
}

fn upgrade_required(text: &str) -> Refusal {
    Refusal::new(StatusCode::UPGRADE_REQUIRED, Reason::Method, text)
        .with(header::UPGRADE, "websocket")
        .with(header::CONNECTION, "upgrade")
        .with(header::SEC_WEBSOCKET_VERSION, VERSION)
}

/// Whether a header that is a list contains the token.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// 16 bytes in base64: 22 digits and two equals signs.
fn is_key(key: &[u8]) -> bool {
    let Some((digits, b"==")) = key.split_last_chunk::<2>().map(|(digits, end)| (digits, end.as_slice())) else {
        return false;
    };
    digits.len() == 22 && digits.iter().all(|digit| digit.is_ascii_alphanumeric() || b"+/".contains(digit))
}
