//! `[resume]`: how long a session can outlive its connection, and what is kept for it.

use std::time::Duration;

use super::Config;
use super::reference::Key;
use super::slot::Slot;

/// `[resume]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The longest time for which a session is away. Zero: no session is resumable.
    pub grace: Duration,
    /// Messages that are kept for a session.
    pub messages: usize,
    /// Bytes that are kept for a session.
    pub bytes: usize,
    /// Bytes of memory that are kept for all sessions together.
    pub total_bytes: usize,
    /// Sessions that are away.
    pub sessions: usize,
}

impl Default for Resume {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            messages: 16_384,
            bytes: 8 << 20,
            total_bytes: 256 << 20,
            sessions: 10_000,
        }
    }
}

/// The keys.
pub(crate) static RESUME_KEYS: &[Key<Config>] = &[
    Key {
        name: "resume.grace",
        slot: Slot::Span(Duration::ZERO, |it| &mut it.resume.grace),
        default: r#""30s""#,
        unit: "",
        meaning: "How long a resumable session lives without a connection. With `\"0s\"`, no session is resumable.",
    },
    Key {
        name: "resume.messages",
        slot: Slot::Size(1, |it| &mut it.resume.messages),
        default: "16384",
        unit: "messages",
        meaning: "Messages that are kept for a resumable session: those that it was sent and has not acknowledged and, while \
                  it has no connection, those that wait for it.",
    },
    Key {
        name: "resume.bytes",
        slot: Slot::Size(1, |it| &mut it.resume.bytes),
        default: "8388608",
        unit: "bytes",
        meaning: "Bytes of these messages.",
    },
    Key {
        name: "resume.total_bytes",
        slot: Slot::Size(1, |it| &mut it.resume.total_bytes),
        default: "268435456",
        unit: "bytes",
        meaning: "Memory of these messages for all sessions together. A message that is kept for many counts once, and 48 \
                  bytes more for each. If it is exceeded, the sessions for which most is kept lose their oldest.",
    },
    Key {
        name: "resume.sessions",
        slot: Slot::Size(1, |it| &mut it.resume.sessions),
        default: "10000",
        unit: "sessions",
        meaning: "Sessions that live without a connection. If there are more, the one that has been without one for longest \
                  ends.",
    },
];

/// Warnings about settings that are valid but probably a mistake.
pub(crate) fn warnings(config: &Config) -> impl Iterator<Item = String> {
    let resume = &config.resume;
    let small = !resume.grace.is_zero() && resume.bytes < config.limits.message_bytes;
    small
        .then(|| {
            "resume.bytes is below limits.message_bytes: a session that lost a large message cannot resume".to_owned()
        })
        .into_iter()
}
