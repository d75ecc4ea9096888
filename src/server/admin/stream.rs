//! [`Events`]: an answer that does not end, as Server-Sent Events (HTML, section 9.2).

use std::convert::Infallible;
use std::fmt::Write as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use tokio::sync::mpsc;

/// A comment is sent this often, so that no proxy takes the connection for a dead one.
pub(super) const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// The end at which events go in. Sending waits until the reader has taken what was sent before.
pub(super) struct Events {
    chunks: mpsc::Sender<Bytes>,
    text: String,
}

/// The reader has left.
pub(super) struct ReaderLeft;

/// An answer, and where its events go in.
pub(super) fn open() -> (Events, Response) {
    let (chunks, read) = mpsc::channel::<Bytes>(1);
    let next = |mut read: mpsc::Receiver<Bytes>| async move {
        let chunk = read.recv().await?;
        Some((Ok::<_, Infallible>(chunk), read))
    };
    let body = Body::from_stream(unfold(read, next));
    (Events { chunks, text: String::new() }, ([(CONTENT_TYPE, "text/event-stream")], body).into_response())
}

impl Events {
    /// Adds an event, which has JSON as its data: one line.
    pub(super) fn add(&mut self, event: &str, data: &str) {
        // Writing to a string cannot fail.
        write!(self.text, "event: {event}\ndata: {data}\n\n").ok();
    }

    /// Adds a comment.
    pub(super) fn add_comment(&mut self) {
        self.text.push_str(":\n\n");
    }

    /// Sends what was added, if anything was.
    ///
    /// # Errors
    /// The reader has left.
    pub(super) async fn send(&mut self) -> Result<(), ReaderLeft> {
        if self.text.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.text));
        self.chunks.send(chunk).await.map_err(|_| ReaderLeft)
    }

    /// Waits until the reader leaves.
    pub(super) async fn left(&self) {
        self.chunks.closed().await;
    }
}
