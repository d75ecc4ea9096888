//! The admin API, from outside: who may call, what is answered, and the commands for operators.

mod access;
mod calls;
mod close;
mod commands;
mod configuring;
mod console;
mod doctor;
mod events;
mod explain;
mod listener;
mod lists;
mod readiness;
mod recent;
mod schemathesis;
mod tap;

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::{Broker, within};

/// The SHA-256 of the tokens `reader` and `actor`.
pub(crate) const TOKENS: &str = "
[[admin.tokens]]
name = \"reader\"
token_sha256 = \"3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30\"
may = \"read\"

[[admin.tokens]]
name = \"actor\"
token_sha256 = \"50c9c4aeb40b5b206b6d98f516f8b8c0efd29ce2e56a76b345fb9240c225a1b7\"
may = \"act\"
";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// Its status is this one, and it is a problem document with this code.
    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{self:?}");
        assert_eq!(problem["type"], format!("urn:switchboard:error:{code}"));
        let has_text = |key: &str| problem[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(has_text("title") && has_text("detail"), "{self:?}");
    }
}

/// Calls with these headers, beside `Host`, and this body.
pub(crate) async fn call_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        write!(head, "Host: {address}\r\n").unwrap();
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if let Some(body) = body {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    let request = format!("{head}Connection: close\r\n\r\n{}", body.unwrap_or_default());
    let mut stream = within("a connection", TcpStream::connect(address)).await.unwrap();
    let text = within("an answer", exchange(&mut stream, request.as_bytes())).await;
    answer_of(&text)
}

/// Sends bytes, and reads to the end. A peer that has its answer may not read what is left.
async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream.write_all(bytes).await.ok();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.ok();
    String::from_utf8(read).unwrap()
}

fn answer_of(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    assert!(!headers.iter().any(|(name, _)| name == "transfer-encoding"), "{head}");
    Answer { status, headers, text: body.to_owned() }
}

/// A broker with an admin listener, and where that is.
struct Site {
    broker: Broker,
    address: SocketAddr,
}

impl Site {
    /// A broker in open mode with the two tokens and these other settings.
    async fn with_tokens(toml: &str) -> Self {
        Self::with(&format!("{toml}\n[auth]\nmode = \"open\"\n[admin]\nlisten = [\"127.0.0.1:0\"]\n{TOKENS}")).await
    }

    /// A broker with exactly this configuration.
    async fn with(toml: &str) -> Self {
        Self::of(Broker::with_config(toml).await).await
    }

    async fn of(broker: Broker) -> Self {
        let address = broker.admin().await;
        Self { broker, address }
    }

    /// Calls with a token.
    async fn call(&self, token: &str, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        let body = body.map(Value::to_string);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        call_with(self.address, method, path, &headers[..=usize::from(body.is_some())], body.as_deref()).await
    }

    /// Reads with the reader's token. The answer is good.
    #[track_caller]
    fn get(&self, path: &str) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        let path = path.to_owned();
        async move {
            let answer = self.call("reader", "GET", &path, None).await;
            assert_eq!(answer.status, 200, "{caller}: {answer:?}");
            answer.json()
        }
    }

    /// The records of the audit log that are of admins.
    fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.broker.data_dir().join("audit.jsonl")).unwrap();
        // The last line may not be whole yet.
        let records = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        records.filter(|record| record["event"] == "admin").collect()
    }

    /// The same, once this number of acts is recorded.
    async fn records_of(&self, acts: usize) -> Vec<Value> {
        self.broker.log_until("the records of admins", |_| self.records().len() >= acts).await;
        self.records()
    }
}
