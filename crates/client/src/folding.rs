//! [`Folding`]: in which channels the broker ignores case, as far as that has shown.
//!
//! The broker does not say which channels have `fold_case`. It shows when two patterns get one `SubscriptionId`, or when
//! an event matches no pattern as it is written. But such an event can also be for a pattern that was dropped, if it was
//! sent before the broker handled Unsubscribe. So the latest dropped patterns are remembered.

use std::collections::{BTreeSet, VecDeque};

use super::subscription::Wanted;
use wire::{Pattern, Triple};

/// How many dropped subscriptions are remembered.
const DROPPED_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub(super) struct Folding {
    /// Channels of this client's patterns.
    channels: BTreeSet<Box<str>>,
    /// Oldest first, at most [`DROPPED_MAX`].
    dropped: VecDeque<Dropped>,
}

/// A subscription that this client has ended on this connection.
struct Dropped {
    wanted: Wanted,
    /// The id of the Unsubscribe command, until its reply arrives.
    unsubscribe: Option<String>,
}

impl Folding {
    /// Notes that the broker ignores case in a pattern's channel.
    pub(super) fn learn(&mut self, pattern: &Pattern) {
        self.channels.extend(pattern.channel.clone());
    }

    /// Returns whether a pattern matches a triple, by the case rule of the channel.
    pub(super) fn matches(&self, pattern: &Pattern, triple: &Triple<'_>) -> bool {
        pattern.matches(triple) || (self.channels.contains(&*triple.channel) && matches_folded(pattern, triple))
    }

    /// Notes that the Unsubscribe command with this id ends these subscriptions.
    pub(super) fn drop_subscriptions(&mut self, subscriptions: Vec<Wanted>, id: &str) {
        for wanted in subscriptions {
            if self.dropped.len() == DROPPED_MAX {
                self.dropped.pop_front();
            }
            self.dropped.push_back(Dropped { wanted, unsubscribe: Some(id.to_owned()) });
        }
    }

    /// Notes the reply to a command, which is perhaps Unsubscribe.
    pub(super) fn replied(&mut self, id: &str) {
        for dropped in &mut self.dropped {
            dropped.unsubscribe.take_if(|unsubscribe| unsubscribe == id);
        }
    }

    /// Returns whether a triple matches a subscription as it is written that the broker may not have ended yet.
    /// `handler`: whether handlers are looked at, or the other subscriptions.
    pub(super) fn is_leaving(&self, triple: &Triple<'_>, handler: bool) -> bool {
        self.dropped(triple).any(|it| it.wanted.handler == handler && it.unsubscribe.is_some())
    }

    /// Returns whether a triple matches a dropped subscription as it is written. An event can arrive after the reply to
    /// Unsubscribe, if its publisher was sending it at that moment.
    pub(super) fn was_dropped(&self, triple: &Triple<'_>) -> bool {
        self.dropped(triple).next().is_some()
    }

    fn dropped(&self, triple: &Triple<'_>) -> impl Iterator<Item = &Dropped> {
        self.dropped.iter().filter(|it| it.wanted.pattern.matches(triple))
    }
}

/// Returns whether a pattern matches a triple if case does not count in topic and subtopic. In the channel it counts.
pub(super) fn matches_folded(pattern: &Pattern, triple: &Triple<'_>) -> bool {
    let is_channel = pattern.channel.as_deref().is_none_or(|channel| channel == triple.channel);
    is_channel && pattern.matches_any_case(triple)
}
