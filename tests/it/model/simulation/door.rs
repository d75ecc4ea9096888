//! [`Inbox`]: the queue of the adapter inside the process, which is narrow so that it is met full.

use std::collections::VecDeque;

use parking_lot::Mutex;
use switchboard::router::{Door, Given, RequestId};
use wire::{ErrorCode, Refusal};

pub(super) struct Inbox {
    most: usize,
    queue: Mutex<VecDeque<Given>>,
}

impl Inbox {
    pub(super) fn new(most: usize) -> Self {
        Self { most, queue: Mutex::default() }
    }

    pub(super) fn take(&self) -> Option<Given> {
        self.queue.lock().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.queue.lock().len() >= self.most
    }
}

impl Door for Inbox {
    fn offer(&self, given: Given) -> Result<(), Refusal> {
        if self.is_full() {
            return Err(Refusal::new(ErrorCode::TooManyRequests, "the adapter has too many requests"));
        }
        self.queue.lock().push_back(given);
        Ok(())
    }

    fn withdraw(&self, id: RequestId, _: &Refusal) {
        self.queue.lock().retain(|given| given.id != id);
    }
}

/// A request as an application would read it, so that the same rules are checked.
pub(super) fn written(given: &Given) -> String {
    let string = |text: &str| serde_json::to_string(text).unwrap();
    let payload = given.payload.as_ref().map_or("null", |payload| payload.as_str());
    let number = serde_json::from_str::<serde_json::Value>(payload).unwrap()["of"].clone();
    let mut text = format!(
        r#"{{"channel":{},"topic":{},"subtopic":{},"id":{},"source":{},"n":{number},"timeout":{},"data":{payload}"#,
        string(&given.triple.channel),
        string(&given.triple.topic),
        string(&given.triple.subtopic),
        string(&given.id.to_string()),
        string(&given.source),
        given.timeout.as_millis(),
    );
    for (key, value) in [("user", &given.user), ("requestId", &given.request_id)] {
        if let Some(value) = value {
            text.extend([",\"", key, "\":", &string(value)]);
        }
    }
    text + "}"
}
