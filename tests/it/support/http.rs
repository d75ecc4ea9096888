//! Plain HTTP by hand: what a browser's `fetch`, a health check or a port scanner sends.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// The head of a handshake that nothing is wrong with; tests change one line of it.
pub(crate) const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The response: the head, taken apart, and the body.
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Header lines, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, by Content-Length.
    pub(crate) body: String,
}

impl Response {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Sends a head as it is and reads one response.
pub(crate) async fn http(address: SocketAddr, head: &str) -> Response {
    let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    within("sending", stream.write_all(head.as_bytes())).await.unwrap();
    read_response(&mut stream).await
}

/// Reads one response, its body included.
pub(crate) async fn read_response(stream: &mut TcpStream) -> Response {
    try_read_response(stream).await.expect("a response before the end of the connection")
}

/// The same, or `None` if the connection ends before.
pub(crate) async fn try_read_response(stream: &mut TcpStream) -> Option<Response> {
    let head = read_head(stream).await?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap_or_else(|| panic!("no status in {head:?}"));
    let status = status.parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut response = Response { status, headers, body: String::new() };
    let len = response.header("content-length").map_or(0, |len| len.parse().unwrap());
    let mut body = vec![0; len];
    within("a body", stream.read_exact(&mut body)).await.unwrap();
    response.body = String::from_utf8(body).unwrap();
    Some(response)
}

/// Reads up to the empty line. Byte by byte: frames that follow belong to someone else.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("a response", stream.read_u8()).await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// A good handshake with one header line more.
pub(crate) fn handshake_with(line: &str) -> String {
    HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
}

pub(crate) fn handshake_to(host: &str) -> String {
    HANDSHAKE.replace("Host: localhost", &format!("Host: {host}"))
}

/// A refusal is one line of plain text that says why.
pub(crate) fn assert_refused(response: &Response, status: u16, word: &str) {
    assert_eq!(response.status, status, "{}", response.body);
    let kind = response.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    assert_eq!(response.body.trim_end().lines().count(), 1, "{:?}", response.body);
    assert!(response.body.contains(word), "'{word}' is not in {:?}", response.body);
}
