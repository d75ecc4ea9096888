//! [`wait`]: a caller whose event has filled the queue of a receiver over half waits for its answer, as a publisher with a
//! WebSocket is not read (docs/protocol.md, Pressure).

use std::future::poll_fn;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::applications::Application;
use crate::router::Session;

/// Waits for these receivers, within what the application may wait.
pub(super) async fn wait(application: &Application, pressed: Vec<Arc<Session>>) {
    if pressed.is_empty() {
        return;
    }
    let since = Instant::now();
    for receiver in pressed {
        let now = Instant::now();
        let left = application.may_wait(now.into_std());
        if left.is_zero() {
            break;
        }
        let (reliefs, most) = receiver.outbox().begin_wait(now.into_std());
        // From the beginning: one receiver after the other takes no longer than all at once.
        let until = (since + most).max(now).min(now + left);
        let relieved = poll_fn(|cx| receiver.outbox().poll_relieved_since(reliefs, cx));
        if timeout_at(until, relieved).await.is_err() {
            receiver.outbox().waited_in_vain(Instant::now().into_std());
        }
    }
    application.waited(since.into_std(), Instant::now().into_std());
}
