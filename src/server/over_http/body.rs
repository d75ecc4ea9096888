//! [`read`]: the body of a call, in a buffer that is wiped. An envelope can have a password.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use wire::{ErrorCode, Refusal};
use zeroize::Zeroizing;

use super::post::{Framing, Head};
use crate::wiped::Wiped;

/// What is reserved for a body before its bytes have arrived.
const FIRST_BYTES: usize = 4 << 10;

/// The longest line about a chunk, and the most bytes of the trailer.
const LINE_BYTES_MAX: usize = 256;
const TRAILER_BYTES_MAX: usize = 4 << 10;

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// The connection ended before.
    Lost,
    /// It took too long.
    Late,
    Refused(Refusal),
}

/// Reads a body of at most `most` bytes, of which `ahead` has been read already.
pub(super) async fn read<S>(
    stream: &mut S,
    head: &Head,
    ahead: Zeroizing<Vec<u8>>,
    most: usize,
) -> Result<Zeroizing<Vec<u8>>, BodyError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length = match head.framing {
        Some(Framing::Length(length)) => {
            Some(usize::try_from(length).ok().filter(|length| *length <= most).ok_or_else(|| too_large(most))?)
        }
        Some(Framing::Chunked) => None,
        None => return Err(malformed("the Transfer-Encoding of a call can be chunked only")),
    };
    if head.waits && ahead.is_empty() && length != Some(0) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(|_| BodyError::Lost)?;
        stream.flush().await.map_err(|_| BodyError::Lost)?;
    }
    let mut source = Source { ahead, at: 0, stream };
    let mut body = Wiped::with_capacity(length.unwrap_or(FIRST_BYTES).min(FIRST_BYTES));
    match length {
        Some(length) => source.append(&mut body, length, most).await?,
        None => source.append_chunks(&mut body, most).await?,
    }
    Ok(body.into_bytes())
}

fn too_large(most: usize) -> BodyError {
    let words = format!("the body is larger than {most} bytes (limits.message_bytes)");
    BodyError::Refused(Refusal::new(ErrorCode::TooLarge, words))
}

fn malformed(words: &'static str) -> BodyError {
    BodyError::Refused(Refusal::new(ErrorCode::InvalidEnvelope, words))
}

/// What was read already, then the stream.
struct Source<'a, S> {
    ahead: Zeroizing<Vec<u8>>,
    at: usize,
    stream: &'a mut S,
}

impl<S: AsyncRead + Unpin> Source<'_, S> {
    /// Appends this number of bytes.
    async fn append(&mut self, body: &mut Wiped, count: usize, most: usize) -> Result<(), BodyError> {
        if body.len() + count > most {
            return Err(too_large(most));
        }
        let rest = self.ahead.get(self.at..).unwrap_or_default();
        let known = rest.get(..count.min(rest.len())).unwrap_or_default();
        body.push(known, most);
        self.at += known.len();
        let mut missing = count - known.len();
        while missing > 0 {
            let room = body.with_room(most).ok_or_else(|| too_large(most))?;
            let read = (&mut *self.stream).take(missing as u64).read_buf(room).await;
            match read {
                Ok(0) | Err(_) => return Err(BodyError::Lost),
                Ok(read) => missing -= read,
            }
        }
        Ok(())
    }

    /// Appends the chunks of a body (RFC 9112, section 7.1).
    async fn append_chunks(&mut self, body: &mut Wiped, most: usize) -> Result<(), BodyError> {
        loop {
            let line = self.line(LINE_BYTES_MAX).await?;
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            let size = str::from_utf8(size).ok().filter(|size| size.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            match size.ok_or_else(|| malformed("a chunk of the body has no size"))? {
                0 => break,
                size if size > most => return Err(too_large(most)),
                size => self.append(body, size, most).await?,
            }
            if !self.line(LINE_BYTES_MAX).await?.is_empty() {
                return Err(malformed("a chunk of the body is longer than its size"));
            }
        }
        let mut trailer_bytes = 0;
        loop {
            let line = self.line(LINE_BYTES_MAX).await?;
            trailer_bytes += line.len();
            if line.is_empty() {
                return Ok(());
            }
            if trailer_bytes > TRAILER_BYTES_MAX {
                return Err(malformed("the trailer of the body is too long"));
            }
        }
    }

    /// A line without its end.
    async fn line(&mut self, most: usize) -> Result<Vec<u8>, BodyError> {
        let mut line = Vec::new();
        loop {
            let byte = match self.ahead.get(self.at) {
                Some(byte) => {
                    self.at += 1;
                    *byte
                }
                None => self.stream.read_u8().await.map_err(|_| BodyError::Lost)?,
            };
            match byte {
                b'\n' => {
                    line.pop_if(|last| *last == b'\r');
                    return Ok(line);
                }
                _ if line.len() >= most => return Err(malformed("a line about a chunk of the body is too long")),
                byte => line.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, Version};

    use super::*;
    use crate::server::over_http::Endpoint;

    async fn body_of(headers: &[(&'static str, &str)], ahead: &[u8], rest: &[u8]) -> Result<String, BodyError> {
        let map: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let head = Head::read(Endpoint::Publish, [127, 0, 0, 1].into(), Version::HTTP_11, &map, None);
        let mut stream = tokio_test_stream(rest);
        let body = read(&mut stream, &head, Zeroizing::new(ahead.to_vec()), 20).await?;
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    /// A stream that ends after these bytes.
    fn tokio_test_stream(bytes: &[u8]) -> impl AsyncRead + AsyncWrite + Unpin {
        tokio::io::join(std::io::Cursor::new(bytes.to_vec()), tokio::io::sink())
    }

    #[tokio::test]
    async fn a_body_is_what_its_length_says() {
        let length = |length| [("content-length", length)];
        assert_eq!(body_of(&length("5"), b"", b"hello, more").await.unwrap(), "hello");
        assert_eq!(body_of(&length("5"), b"hel", b"lo").await.unwrap(), "hello");
        assert_eq!(body_of(&length("5"), b"hello, more", b"").await.unwrap(), "hello");
        assert_eq!(body_of(&[], b"", b"").await.unwrap(), "");
        assert_eq!(body_of(&length("6"), b"hel", b"lo").await, Err(BodyError::Lost));
        assert_eq!(body_of(&length("21"), b"", b"").await, Err(too_large(20)));
        assert_eq!(
            body_of(&length("99999999999999999999"), b"", b"").await.unwrap(),
            "",
            "hyper refuses such a length"
        );
    }

    #[tokio::test]
    async fn a_chunked_body_is_the_sum_of_its_chunks() {
        let chunked = [("transfer-encoding", "Chunked")];
        for (bytes, expected) in [
            ("5\r\nhello\r\n0\r\n\r\n", Ok("hello".to_owned())),
            ("3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n", Ok("hello".to_owned())),
            ("a\nhellohello\n0\n\n", Ok("hellohello".to_owned())),
            ("14\r\n01234567890123456789\r\n1\r\nx\r\n0\r\n\r\n", Err(too_large(20))),
            ("ffffffffffffffffff\r\n", Err(malformed("a chunk of the body has no size"))),
            ("-1\r\n", Err(malformed("a chunk of the body has no size"))),
            ("\r\n", Err(malformed("a chunk of the body has no size"))),
            ("2\r\nhello\r\n", Err(malformed("a chunk of the body is longer than its size"))),
            ("5\r\nhel", Err(BodyError::Lost)),
        ] {
            for split in 0..=bytes.len() {
                let (ahead, rest) = bytes.as_bytes().split_at(split);
                assert_eq!(body_of(&chunked, ahead, rest).await, expected, "{bytes:?} {split}");
            }
        }
        let long = format!("1;{}\r\n", "x".repeat(LINE_BYTES_MAX));
        assert!(matches!(body_of(&chunked, b"", long.as_bytes()).await, Err(BodyError::Refused(..))));
        let other = [("transfer-encoding", "gzip, chunked")];
        assert!(matches!(body_of(&other, b"", b"").await, Err(BodyError::Refused(..))));
    }
}
