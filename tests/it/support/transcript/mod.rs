//! Transcripts: conversations as text. This module reads and compares them; `transcripts.rs` and `transcripts_core.rs`
//! play them.
//!
//! # Lines
//!
//! | line | meaning |
//! |---|---|
//! | `# …` | A comment. The first line of a file says what it shows, as `# Rule 2.7: …` or `# Scope: …`. |
//! | `config <<toml` … `toml` | The broker's configuration. The mode is open unless it has `[auth]`. |
//! | `needs adapters` | Not for the core alone: a whole broker with its default adapters is needed. |
//! | `proofs last 30m` | Every proof of identity ends after this time. Only a player with its own clock can play this. |
//! | `alice> TEXT` | Sends a text message. The first mention of a name opens its connection. |
//! | `alice> Phone/Call/Dial {…}` | Sends an envelope with this triple and these other fields. |
//! | `alice> <binary>` | Sends a binary message. |
//! | `alice< {…}`, `alice< Phone/Call/Dial {…}` | The next message to `alice`. |
//! | `alice<* …` | Consecutive lines of this kind are the next messages to `alice`, in any order. |
//! | `alice\|bob< …` | Exactly one of the two gets this message. |
//! | `alice< nothing` | Everything sent so far is done, and `alice` has no unread message. |
//! | `alice< close 4401` | The broker closes the connection with this code. |
//! | `alice leaves` | Her connection breaks without a Close frame. |
//! | `clock +10s` | Time passes. Only a player with its own clock can play this. |
//! | `log once ["…","…"]` | Exactly one line of the broker's log contains all of these. Players without a log skip it. |
//!
//! An indented line continues the line before it. A message that no line shows is a failure.
//!
//! These lines stand for a command and its reply. Options, as a JSON object, follow the name or the pattern. At the end,
//! `fails with CODE` or `fails with CODE: words` expects a failure instead.
//!
//! - `alice registers as softphone` (`for bob`: the user in open mode)
//! - `alice subscribes to Sales/Call/*`
//! - `alice handles Sales/Call/Ring`
//!
//! # Values
//!
//! An expected message has the same keys and values as the real one. In a payload, the keys also have the same order.
//! In an object with `Success` or `...` among its expected keys, neither keys nor arrays have an order.
//!
//! | expected | matches |
//! |---|---|
//! | `"<any>"` | any value |
//! | `"<uuid>"` | a UUID |
//! | `"<time>"` | a time in the form of RFC 3339 |
//! | `"<id:name>"` | any text, which is `$name` in all later lines |
//! | `"<has:words>"` | a text that contains the words |
//! | `"<success>"` | an object with `"Success":true,"ErrorMessage":null` and perhaps other keys |
//! | `"<failure:CODE>"` | an object with `"Success":false`, this `ErrorCode`, an `ErrorMessage` and perhaps other keys |
//! | `"<failure:CODE:words>"` | the same, and the `ErrorMessage` contains the words |
//! | the key `"..."` | the object may have other keys |

mod compare;
pub(crate) mod list;
mod read;

use std::time::Duration;

use serde_json::Value;

pub(crate) use self::compare::Names;

/// One conversation.
pub(crate) struct Transcript {
    /// The broker's configuration, if it matters.
    pub(crate) config: Option<String>,
    /// Whether it needs a whole broker with its default adapters.
    pub(crate) needs_adapters: bool,
    /// How long every proof of identity lasts, if they end.
    pub(crate) proofs_last: Option<Duration>,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
}

/// One line of a transcript.
#[derive(Debug)]
pub(crate) struct Step {
    /// The line number in the file.
    pub(crate) line: usize,
    /// What happens.
    pub(crate) action: Action,
}

/// What a line says.
#[derive(Debug)]
pub(crate) enum Action {
    /// A peer sends a text message.
    Send(String, String),
    /// A peer sends a binary message.
    SendBinary(String),
    /// The next messages to a peer, in any order.
    Expect(String, Vec<Value>),
    /// Exactly one of these peers gets this message.
    ExpectOne(Vec<String>, Value),
    /// Everything sent so far is done, and the peer has no unread message.
    Nothing(String),
    /// The peer's connection is closed with this code.
    Close(String, u16),
    /// A peer's connection breaks.
    Leave(String),
    /// Time passes.
    Clock(Duration),
    /// Exactly one line of the broker's log contains all of these.
    Log(Vec<String>),
}

impl Transcript {
    /// Whether it needs a player with its own clock.
    pub(crate) fn needs_a_clock(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Clock(_)))
    }
}
