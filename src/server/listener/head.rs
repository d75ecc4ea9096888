//! [`read`]: waits for the whole head of a request, so that everything after it can be decided at once.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use hyper::StatusCode;
use tokio::io::{AsyncRead, ReadBuf};
use zeroize::Zeroizing;

use crate::server::refusal::{Reason, Refusal};

/// The longest head, and the headers that it may have (protocol.md, Transport and handshake).
pub(super) const BYTES_MAX: usize = 16 << 10;
pub(super) const HEADERS_MAX: usize = 200;

/// What one read takes at most.
const READ_BYTES: usize = 4 << 10;

/// How much of a header's name is shown.
const NAME_SHOWN: usize = 64;

/// Why there is no head.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    /// The connection ended before.
    Lost,
    /// To be told to the peer.
    Refused(Refusal),
}

/// Reads until a head is complete. Returns it with what came after it.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, HeadError> {
    let mut bytes = Vec::new();
    loop {
        let searched = bytes.len();
        let read = poll_fn(|cx| {
            let mut buffer = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
            bytes.extend_from_slice(buffer.filled());
            Poll::Ready(Ok::<_, io::Error>(buffer.filled().len()))
        });
        if !read.await.is_ok_and(|len| len > 0) {
            return Err(HeadError::Lost);
        }
        match check(&bytes, searched) {
            Some(Ok(())) => return Ok(bytes),
            Some(Err(refusal)) => return Err(HeadError::Refused(refusal)),
            None => {}
        }
    }
}

/// Separates the head of a call over HTTP from what has been read of its body, which may have a password. Anything else is
/// left as it is.
pub(super) fn split_body(read: Vec<u8>) -> (Vec<u8>, Zeroizing<Vec<u8>>) {
    if !read.starts_with(b"POST ") {
        return (read, Zeroizing::default());
    }
    let read = Zeroizing::new(read);
    let (head, body) = read.split_at_checked(end_of_head(&read, 0).unwrap_or(read.len())).unwrap_or_default();
    (head.to_vec(), Zeroizing::new(body.to_vec()))
}

/// The refusal of a peer whose head took too long.
pub(super) fn timed_out() -> Refusal {
    Refusal::new(StatusCode::REQUEST_TIMEOUT, Reason::Head, "the head of a request must be complete within 10 s")
}

/// The refusal of what is not HTTP.
pub(super) fn not_http() -> Refusal {
    let text = "this is not a request of HTTP/1.1, with which a WebSocket begins";
    Refusal::new(StatusCode::BAD_REQUEST, Reason::Head, text)
}

/// The refusal of TLS, which this listener does not speak.
fn no_tls() -> Refusal {
    let text = "this listener does not speak TLS; connect with ws://, or to an address of tls.listen";
    Refusal::new(StatusCode::BAD_REQUEST, Reason::Tls, text)
}

/// Whether a head is complete and within its limits. `None`: more is to come. The first `searched` bytes are known not to
/// contain its end.
fn check(bytes: &[u8], searched: usize) -> Option<Result<(), Refusal>> {
    if !begins_with_method(bytes) {
        return Some(Err(if begins_with_tls(bytes) { no_tls() } else { not_http() }));
    }
    let end = end_of_head(bytes, searched);
    let head = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
    if head.len() > BYTES_MAX {
        return Some(Err(too_large(head, "16 KiB")));
    }
    // Without the request line and the empty line.
    end.map(|_| match lines(head).count().saturating_sub(2) {
        ..=HEADERS_MAX => Ok(()),
        _ => Err(too_large(head, "200 headers")),
    })
}

/// Whether this is the beginning of a TLS record with a handshake message.
fn begins_with_tls(bytes: &[u8]) -> bool {
    bytes.first() == Some(&22) && bytes.get(1).is_none_or(|major| *major == 3)
}

/// Whether this can be the beginning of a request: TLS, for example, cannot.
fn begins_with_method(bytes: &[u8]) -> bool {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    bytes.iter().position(|byte| !is_token(byte)).is_none_or(|end| end > 0 && bytes.get(end) == Some(&b' '))
}

/// Where the head ends: after its first empty line. Lines may end without a carriage return (RFC 9112, section 2.2).
fn end_of_head(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(2);
    let rest = bytes.get(from..)?;
    rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n').find_map(|(at, _)| match rest.get(at + 1..)? {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split_inclusive(|byte| *byte == b'\n')
}

fn too_large(head: &[u8], limit: &str) -> Refusal {
    let mut lines = lines(head);
    let request_line = ("the request line".to_owned(), lines.next().unwrap_or_default().len());
    let headers = lines.map(|line| (name_of(line), line.len()));
    let (name, len) = headers.fold(request_line, |largest, next| if next.1 > largest.1 { next } else { largest });
    let text =
        format!("the head of a request may have at most {limit}; its largest part is {name} ({len} bytes so far)");
    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Reason::Head, text)
}

/// The name of a header, as far as it can be shown.
fn name_of(line: &[u8]) -> String {
    let name = line.iter().take(NAME_SHOWN).take_while(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    format!("the header '{}'", name.map(|byte| char::from(*byte)).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome for bytes that come `step` at a time.
    fn check_in_steps(bytes: &[u8], step: usize) -> Option<Result<(), Refusal>> {
        let ends = (0..bytes.len()).step_by(step).skip(1).chain([bytes.len()]);
        let mut searched = 0;
        for end in ends {
            let outcome = check(&bytes[..end], searched);
            if outcome.is_some() {
                return outcome;
            }
            searched = end;
        }
        None
    }

    fn status(bytes: &[u8]) -> Option<u16> {
        let outcomes = [1, 2, 3, 7, 4096].map(|step| {
            check_in_steps(bytes, step).map(|outcome| outcome.map_or_else(|refusal| refusal.status.as_u16(), |()| 200))
        });
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
        outcomes[0]
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Some(200)),
            ("GET / HTTP/1.1\nHost: localhost\n\n", Some(200)),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n\n", Some(200)),
            ("GET / HTTP/1.1\nHost: localhost\n\r\nrest", Some(200)),
            ("GET / HTTP/1.1\r\nHost: localhost\r\n", None),
            ("GET", None),
            ("", None),
        ] {
            assert_eq!(status(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn what_cannot_be_http_is_refused_on_its_first_bytes() {
        for bytes in ["\x16\x03\x01\x02\0\x01\0", "hello\r\n", "\r\nGET / HTTP/1.1\r\n", "{\"channel\""] {
            assert_eq!(status(bytes.as_bytes()), Some(400), "{bytes:?}");
        }
    }

    #[test]
    fn the_limits_are_exact_and_the_refusal_names_the_largest_header() {
        let head =
            |filler: usize| format!("GET / HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n", "c".repeat(filler));
        let most = BYTES_MAX - head(0).len();
        assert_eq!(status(head(most).as_bytes()), Some(200));
        assert_eq!(status(head(most + 1).as_bytes()), Some(431));
        let Some(Err(refusal)) = check(head(20_000).as_bytes(), 0) else { panic!("refused") };
        assert!(refusal.text.contains("16 KiB") && refusal.text.contains("'Cookie'"), "{}", refusal.text);

        let head = |headers: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(headers));
        assert_eq!(status(head(HEADERS_MAX).as_bytes()), Some(200));
        let Some(Err(refusal)) = check(head(HEADERS_MAX + 1).as_bytes(), 0) else { panic!("refused") };
        assert_eq!(refusal.status.as_u16(), 431);
        assert!(refusal.text.contains("200 headers"), "{}", refusal.text);
        let Some(Err(refusal)) = check(format!("GET /{} HTTP/1.1", "x".repeat(BYTES_MAX)).as_bytes(), 0) else {
            panic!("refused")
        };
        assert!(refusal.text.contains("the request line"), "{}", refusal.text);
    }
}
