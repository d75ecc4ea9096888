//! HTTP in the raw, a connection a call: what is sent and what is received, and nothing in between.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything in a test that goes well.
const LONG: Duration = Duration::from_secs(10);

/// The response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Status and `errorCode` of the REST API.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, String) {
        (self.status, self.json()[0]["errorCode"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|it| it.split_once(": ").filter(|(it, _)| it.eq_ignore_ascii_case(name)))
            .map(|it| it.1)
    }
}

pub(crate) async fn ask(url: &str, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    let host = url.strip_prefix("http://").unwrap();
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    raw(url, &request).await
}

/// Sends this text and nothing else. A connection that ends without an answer is status 0.
pub(crate) async fn raw(url: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await.expect("no answer in time").ok();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).map_or(0, |it| it.parse().unwrap());
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Percent-encoded, but for what never needs it.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut done, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => done.push(char::from(byte)),
            _ => write!(done, "%{byte:02X}").unwrap(),
        }
        done
    })
}
