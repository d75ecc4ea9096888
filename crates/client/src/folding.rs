//! [`Folding`]: in which channels the broker ignores case, as far as that has shown.

use std::collections::BTreeSet;

use wire::{Pattern, Triple};

/// See the module.
#[derive(Default)]
pub(super) struct Folding {
    /// Channels of this client's patterns.
    channels: BTreeSet<Box<str>>,
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
}

/// Returns whether a pattern matches a triple if case does not count in topic and subtopic. In the channel it counts.
pub(super) fn matches_folded(pattern: &Pattern, triple: &Triple<'_>) -> bool {
    let is_channel = pattern.channel.as_deref().is_none_or(|channel| channel == triple.channel);
    is_channel && pattern.matches_any_case(triple)
}
