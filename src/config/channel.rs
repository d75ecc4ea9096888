//! [`Channel`]: `[channels.NAME]`, and its keys.

use super::LogBounds;
use super::history::{DURABLE_KEY, LOG_KEY, RETAIN_KEY};
use super::reference::Key;
use super::slot::{Slot, Word};

/// `[channels.NAME]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// Whose an envelope of this channel is.
    pub scope: Scope,
    /// Who may publish events, if the channel is shared.
    pub publish: Publish,
    /// What a full queue does.
    pub overflow: Overflow,
    /// Whether topic and subtopic are compared without regard to ASCII case.
    pub fold_case: bool,
    /// What its logs keep, if it has history.
    pub history: Option<LogBounds>,
    /// Whether its logs are on disk.
    pub durable: bool,
    /// Whether its retained values are on disk.
    pub retain_durable: bool,
}

/// `channels.NAME.scope`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Among the sessions of one user, and services.
    #[default]
    User,
    /// Among all.
    Shared,
}

/// `channels.NAME.publish`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// Every session.
    #[default]
    All,
    /// Services and adapters.
    Services,
}

/// `channels.NAME.overflow`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Close the receiver with 4413.
    #[default]
    Close,
    /// Lose the receiver's oldest events of such channels, counted and told.
    DropOldest,
}

/// The keys of `[channels.NAME]`.
pub(crate) static CHANNEL_KEYS: &[Key<Channel>] = &[
    Key {
        name: "scope",
        slot: Slot::Word(&[
            Word { word: "user", put: |it| it.scope = Scope::User },
            Word { word: "shared", put: |it| it.scope = Scope::Shared },
        ]),
        default: r#""user""#,
        unit: "",
        meaning: "`\"user\"`: an envelope stays among the sessions of one user, and services. `\"shared\"`: it goes to \
                  every session.",
    },
    Key {
        name: "publish",
        slot: Slot::Word(&[
            Word { word: "all", put: |it| it.publish = Publish::All },
            Word { word: "services", put: |it| it.publish = Publish::Services },
        ]),
        default: r#""all""#,
        unit: "",
        meaning: "Who may publish events on a shared channel: every session, or services only. Requests are not \
                  concerned.",
    },
    Key {
        name: "overflow",
        slot: Slot::Word(&[
            Word { word: "close", put: |it| it.overflow = Overflow::Close },
            Word { word: "drop-oldest", put: |it| it.overflow = Overflow::DropOldest },
        ]),
        default: r#""close""#,
        unit: "",
        meaning: "What a receiver's full queue does: close the receiver with 4413, or lose its oldest events of such \
                  channels, counted and told.",
    },
    Key {
        name: "fold_case",
        slot: Slot::Switch(|it| &mut it.fold_case),
        default: "false",
        unit: "",
        meaning: "Whether topic and subtopic are compared without regard to ASCII case.",
    },
    LOG_KEY,
    DURABLE_KEY,
    RETAIN_KEY,
];
