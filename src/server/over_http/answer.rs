//! [`Answer`]: what a call is answered. The pieces of its body are written one after the other and never joined, so that a
//! secret is in no other buffer than the one that is wiped.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use wire::Refusal;

use super::session::seconds;
use crate::router::{CallOutcome, Gathered, Kept};
use crate::server::problem::{CHALLENGE, PROBLEM_JSON, Problem, RETRY_AFTER_SECONDS};
use crate::websocket::Frame;

/// How long a caller may take for its answer.
const WRITE_TIME: Duration = Duration::from_secs(30);

const JSON: &str = "application/json";

/// An answer.
pub(super) struct Answer {
    status: StatusCode,
    media_type: &'static str,
    /// In seconds.
    retry_after: Option<Cow<'static, str>>,
    body: Vec<Piece>,
}

enum Piece {
    Text(String),
    Frame(Frame),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Frame(frame) => frame.text().as_bytes(),
        }
    }
}

impl Answer {
    /// An error of the broker. If its status is 429 or 503, it says when to try again.
    pub(super) fn problem(problem: &Problem, retry_after: Option<Duration>) -> Self {
        let retry_after = retry_after.map(|after| seconds(after).to_string().into());
        Self {
            status: problem.status(),
            media_type: PROBLEM_JSON,
            retry_after: retry_after.or(problem.is_temporary().then_some(RETRY_AFTER_SECONDS.into())),
            body: vec![Piece::Text(problem.to_json())],
        }
    }

    /// What became of an event, or of a command that no handler answers.
    pub(super) fn receipt(receivers: usize, kept: Option<&Kept>, hint: Option<&str>) -> Self {
        let receipt = json!({
            "receivers": receivers,
            "duplicate": kept.is_some_and(|kept| kept.is_duplicate),
            "offset": kept.map(|kept| kept.position.offset),
            "epoch": kept.map(|kept| &*kept.position.epoch),
            "hint": hint,
        });
        Self::ok(vec![Piece::Text(receipt.to_string())])
    }

    /// What became of a request.
    ///
    /// # Errors
    /// Why it has failed.
    pub(super) fn of(outcome: CallOutcome) -> Result<Self, Refusal> {
        match outcome {
            CallOutcome::Reply(frame) => Ok(Self::ok(vec![Piece::Frame(frame)])),
            CallOutcome::Gathered(gathered) => Ok(Self::gathered(gathered)),
            CallOutcome::Delivered { receivers } => Ok(Self::receipt(receivers, None, None)),
            CallOutcome::Refused(refusal) => Err(refusal),
        }
    }

    fn gathered(Gathered { answers, expected, failed }: Gathered) -> Self {
        let failed: Vec<Value> =
            failed.iter().map(|(source, code)| json!({ "source": &**source, "errorCode": code.as_str() })).collect();
        let mut body = vec![Piece::Text(r#"{"answers":["#.to_owned())];
        for (at, frame) in answers.into_iter().enumerate() {
            body.extend((at > 0).then(|| Piece::Text(",".to_owned())));
            body.push(Piece::Frame(frame));
        }
        body.push(Piece::Text(format!(r#"],"expected":{expected},"failed":{}}}"#, Value::from(failed))));
        Self::ok(body)
    }

    fn ok(body: Vec<Piece>) -> Self {
        Self { status: StatusCode::OK, media_type: JSON, retry_after: None, body }
    }

    /// Writes the answer. Returns whether the peer has taken it.
    pub(super) async fn write<S: AsyncWrite + Unpin>(&self, stream: &mut S) -> bool {
        let write = async {
            stream.write_all(self.head().as_bytes()).await?;
            for piece in &self.body {
                stream.write_all(piece.bytes()).await?;
            }
            stream.flush().await
        };
        matches!(timeout(WRITE_TIME, write).await, Ok(Ok(())))
    }

    fn head(&self) -> String {
        let Self { status, media_type, retry_after, body } = self;
        let length: usize = body.iter().map(|piece| piece.bytes().len()).sum();
        let mut head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\ncache-control: no-store\r\n\
             connection: close\r\n"
        );
        // Writing to a text cannot fail.
        if let Some(after) = retry_after {
            write!(head, "retry-after: {after}\r\n").ok();
        }
        if *status == StatusCode::UNAUTHORIZED {
            write!(head, "www-authenticate: {CHALLENGE}\r\n").ok();
        }
        head + "\r\n"
    }
}
