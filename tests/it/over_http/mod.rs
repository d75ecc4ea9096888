//! `POST /v1/publish` and `POST /v1/request`: messages without a WebSocket.
//!
//! A [`Post`] is one call. Whatever is wrong with a call, it has a status of its own and, if the broker decided that, a problem
//! document with a code.

mod ending;
mod limits;
mod proving;
mod publishing;
mod refusing;
mod requesting;
mod secrets;

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::http::{Response, read_response};
use crate::support::{Broker, application, token_of, within};

const PUBLISH: &str = "/v1/publish";
const REQUEST: &str = "/v1/request";
const DIAL: &str = "Phone/Call/Dial";
const ALICE: Option<&str> = Some("alice");

/// The application `crm` of alice, which may call, and the desktop of alice, which may not.
fn applications() -> String {
    application("crm", ALICE, "over_http = true") + &application("desk", ALICE, "")
}

/// A broker with these applications, and further lines before them.
async fn broker_with(toml: &str) -> Broker {
    Broker::with_config(&format!("{toml}\n{}", applications())).await
}

/// A call.
#[derive(Clone)]
struct Post {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Post {
    /// The call of an application, with this envelope.
    fn of(source: &str, path: &str, envelope: &Value) -> Self {
        let post = Self { path: path.to_owned(), headers: Vec::new(), body: envelope.to_string().into_bytes() };
        post.with("Host", "localhost")
            .with("Content-Type", "application/json")
            .with("Authorization", &format!("Bearer {}", token_of(source)))
    }

    /// The same with another value of a header; an empty one removes it.
    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        if !value.is_empty() {
            self.headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    fn with_body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    fn head(&self, method: &str) -> String {
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let headers = headers.concat();
        format!("{method} {} HTTP/1.1\r\n{headers}Content-Length: {}\r\n\r\n", self.path, self.body.len())
    }

    /// Sends it, and returns the connection on which the answer will arrive.
    async fn begin(&self, address: SocketAddr) -> TcpStream {
        let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        let bytes = [self.head("POST").as_bytes(), &self.body].concat();
        within("sending", stream.write_all(&bytes)).await.unwrap();
        stream
    }

    async fn send(&self, broker: &Broker) -> Response {
        read_response(&mut self.begin(broker.address()).await).await
    }

    /// Sends it and checks that it succeeds.
    async fn succeed(&self, broker: &Broker) -> Value {
        let response = self.send(broker).await;
        assert_eq!(response.status, 200, "{}", response.body);
        json_of(&response)
    }
}

/// The body of an answer that is JSON, and that no cache keeps.
fn json_of(response: &Response) -> Value {
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    serde_json::from_str(&response.body).unwrap()
}

/// Checks that a call was refused with this status and code, and returns the detail.
fn refused(response: &Response, status: u16, code: &str) -> String {
    assert_eq!(response.status, status, "{}", response.body);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let problem: Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], format!("urn:switchboard:error:{code}"));
    assert!(problem["title"].is_string());
    let tells = matches!(status, 429 | 503);
    assert_eq!(response.header("retry-after").is_some(), tells, "{problem}");
    assert_eq!(response.header("www-authenticate").is_some(), status == 401);
    problem["detail"].as_str().unwrap().to_owned()
}
