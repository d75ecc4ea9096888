//! [`read`]: the token of a handshake, which a header or a sub-protocol has.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use hyper::{HeaderMap, StatusCode};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::refusal::{Reason, Refusal};
use super::upgrade::SUBPROTOCOL;
use crate::connection::HandshakeToken;

/// What the sub-protocol with a token begins with. A browser cannot send a header with a WebSocket, but sub-protocols.
const PREFIX: &str = "switchboard.token.";

/// Returns the token of a handshake, if there is one.
pub(super) fn read(headers: &HeaderMap) -> Result<Option<HandshakeToken>, Refusal> {
    Ok(match (of_authorization(headers)?, of_subprotocol(headers)?) {
        (Some(one), Some(other)) => Some(HandshakeToken::of_two(one, &other)),
        (one, other) => one.or(other).map(HandshakeToken::One),
    })
}

/// Returns the token of the header `Authorization`, if it has one.
pub(super) fn of_authorization(headers: &HeaderMap) -> Result<Option<SecretString>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse("there are two Authorization headers; send one"));
    }
    let value = value.to_str().map_err(|_| refuse("the header Authorization is not ASCII text"))?;
    let (scheme, token) = value.split_once([' ', '\t']).unwrap_or((value, ""));
    Ok(scheme.eq_ignore_ascii_case("Bearer").then(|| SecretString::from(token.trim())))
}

fn of_subprotocol(headers: &HeaderMap) -> Result<Option<SecretString>, Refusal> {
    let values: Result<Vec<&str>, _> =
        headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().map(|value| value.to_str()).collect();
    let values = values.map_err(|_| refuse("the header Sec-WebSocket-Protocol is not ASCII text"))?;
    let offered: Vec<&str> = values.into_iter().flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut tokens = offered.iter().filter_map(|it| {
        it.split_at_checked(PREFIX.len())
            .filter(|(prefix, _)| prefix.eq_ignore_ascii_case(PREFIX))
            .map(|(_, token)| token)
    });
    let Some(token) = tokens.next() else { return Ok(None) };
    if tokens.next().is_some() {
        return Err(refuse("two sub-protocols have a token; send one"));
    }
    if !offered.iter().any(|it| it.eq_ignore_ascii_case(SUBPROTOCOL)) {
        return Err(refuse("a sub-protocol with a token needs switchboard.v1 beside it"));
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).map(Zeroizing::new);
    let text = bytes.as_ref().ok().and_then(|bytes| str::from_utf8(bytes).ok());
    let text = text.ok_or_else(|| refuse("the token in the sub-protocol is not base64url without '='"))?;
    Ok(Some(SecretString::from(text)))
}

fn refuse(text: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Reason::Token, text)
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn status_of(name: &HeaderName, value: &[u8]) -> Option<StatusCode> {
        let mut headers = HeaderMap::new();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
        read(&headers).err().map(|refusal| refusal.status)
    }

    /// Otherwise it would count as a place that is not used, and another place would decide alone.
    #[test]
    fn a_place_that_cannot_be_read_is_refused() {
        for (name, value) in [
            (&AUTHORIZATION, b"Bearer \xe9\xff".as_slice()),
            (&SEC_WEBSOCKET_PROTOCOL, b"switchboard.v1, switchboard.token.AAAA\xff"),
        ] {
            assert_eq!(status_of(name, value), Some(StatusCode::BAD_REQUEST));
        }
        let mut headers = HeaderMap::new();
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer\tt"));
        assert!(matches!(read(&headers), Ok(Some(HandshakeToken::One(_)))));
    }
}
