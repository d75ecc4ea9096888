//! [`Replay`]: kept events on their way to a subscription, retained values or events of a log. It is a cursor: the
//! session's connection pulls frames from it, and each pull looks at a bounded number of events.

use std::task::{Context, Poll};

use wire::Pattern;

use crate::router::history::Position;
use crate::router::policy::Policy;
use crate::router::{Router, history, retained};
use crate::websocket::Frame;

/// The events that one pull looks at, whether they match or not.
pub(super) const LOOKED_AT_MAX: usize = 256;

/// The bytes that one pull copies at most, to splice `user` in; a single frame may be longer.
pub(super) const COPIED_BYTES_MAX: usize = 1 << 20;

/// Kept events on their way to a subscription.
pub struct Replay(pub(super) Cursor);

pub(super) enum Cursor {
    Retained(retained::Replay),
    History(history::Replay),
    /// It is being made into frames, which take its place. Whether it came first.
    Taken(bool),
}

impl Replay {
    /// Whether its session is not read until it is exhausted.
    pub(super) fn comes_first(&self) -> bool {
        matches!(self.0, Cursor::History(_) | Cursor::Taken(true))
    }

    /// Takes it, and leaves something in its place.
    pub(super) fn take(&mut self) -> Self {
        let place = Self(Cursor::Taken(self.comes_first()));
        std::mem::replace(self, place)
    }

    /// Whether it was taken.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.0, Cursor::Taken(_))
    }

    /// Ready unless it waits for events from the disk.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Cursor::Retained(_) | Cursor::Taken(_) => Poll::Ready(()),
            Cursor::History(replay) => replay.poll_ready(cx),
        }
    }

    /// The bytes that are in memory for the sake of replays alone.
    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Cursor::Retained(_) | Cursor::Taken(_) => 0,
            Cursor::History(replay) => replay.bytes(),
        }
    }
}

impl Router {
    /// Pulls up to `most` frames of a replay. Returns whether it is exhausted. A pull looks at a bounded number of events,
    /// so it may bring nothing although others follow, as it does while events are read from the disk.
    pub fn pull(&self, replay: &mut Replay, most: usize, frames: &mut Vec<Frame>) -> bool {
        match &mut replay.0 {
            Cursor::Retained(replay) => self.pull_retained(replay, most, frames),
            Cursor::History(replay) => replay.pull(self, most, frames),
            Cursor::Taken(_) => true,
        }
    }
}

/// The parts of a triple's text.
pub(super) fn parts(triple: &str) -> [&str; 3] {
    let mut parts = triple.split('/');
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// Whether a pattern matches a canonical triple, with the channel's folding.
pub(super) fn matches(policy: &Policy, pattern: &Pattern, triple: &str) -> bool {
    let Pattern { channel, topic, subtopic } = pattern;
    let [own_channel, own_topic, own_subtopic] = parts(triple);
    let folds = policy.folds(own_channel);
    let same = |pattern: &Option<Box<str>>, own: &str| match pattern.as_deref() {
        None => true,
        Some(part) if folds => part.eq_ignore_ascii_case(own),
        Some(part) => part == own,
    };
    channel.as_deref().is_none_or(|channel| channel == own_channel)
        && same(topic, own_topic)
        && same(subtopic, own_subtopic)
}

/// A kept event of a file, with its place in a log and a mark.
pub(super) fn marked(text: &str, position: Option<&Position>, mark: &str) -> Frame {
    let body = text.trim_end().strip_suffix('}').unwrap_or(text);
    let place = position.map_or_else(String::new, |Position { offset, epoch }| {
        // A string always serialises.
        format!(",\"offset\":{offset},\"epoch\":{}", serde_json::to_string(&**epoch).unwrap_or_default())
    });
    Frame::join(&[body, &place, ",\"", mark, "\":true}"], false)
}

/// A kept frame with `user`. It ends with a mark that the broker added, so its last byte closes the object.
pub(super) fn attributed(frame: &Frame, user: &str) -> Frame {
    let Some(body) = frame.text().strip_suffix('}') else {
        debug_assert!(false, "a frame that is not an object");
        return frame.clone();
    };
    // A string always serialises.
    let user = serde_json::to_string(user).unwrap_or_default();
    Frame::join(&[body, ",\"user\":", &user, "}"], false)
}
