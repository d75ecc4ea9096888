//! [`Channel`]: `[channels.NAME]`.

use super::LogBounds;

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
