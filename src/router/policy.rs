//! [`Policy`]: what the operator chose that decides where an envelope goes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::{AuthMode, Channel, Config, History, LogBounds, Overflow, Publish, Resume, Scope};
use crate::router::decide::Facts;
use crate::router::outbox::OnFull;
use crate::telemetry::metrics::{ChannelPlace, Metrics, Names};
use wire::{Pattern, Triple};

/// The limits of what a session may hold and the broker keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sessions of a user; 0: no limit.
    pub sessions_per_user: usize,
    /// Sessions of a source, of all users and services together; 0: no limit.
    pub sessions_per_source: usize,
    /// Applications of which the end of the last session is remembered.
    pub ended_sessions: usize,
    /// Subscriptions a session.
    pub subscriptions: usize,
    /// Requests a session may have pending.
    pub pending_requests: usize,
    /// Bytes of the texts that the broker keeps for a session's pending requests.
    pub pending_bytes: usize,
    /// Retained values of a user or service.
    pub retained_values: usize,
    /// Bytes of the retained values of a user or service.
    pub retained_bytes: usize,
    /// Bytes of all retained values.
    pub retained_total_bytes: usize,
    /// A request's time limit where it names none, and the most it may name.
    pub request_timeout: Duration,
    /// How long replies with `more` can keep one request open.
    pub more_max: Duration,
    /// How long a late reply can block an ordered handler.
    pub blocked: Duration,
    /// What all channels with history keep together.
    pub history: History,
}

impl Limits {
    /// The same without bounds on retained values.
    pub(super) fn without_retained_bounds(self) -> Self {
        Self { retained_values: usize::MAX, retained_bytes: usize::MAX, retained_total_bytes: usize::MAX, ..self }
    }
}

/// A set of the lengths that a part of a triple can have, 1 to 128. Most messages are not on a protected triple; this tells
/// without comparing texts, which saves 2 % of an event's instructions.
#[derive(Clone, Copy, Debug)]
struct Lengths(u128);

impl Lengths {
    /// The lengths of these parts; `None` is a wildcard.
    fn of<'a>(parts: impl Iterator<Item = Option<&'a str>>) -> Self {
        Self(parts.fold(0, |set, part| set | part.map_or(u128::MAX, |text| Self::bit(text.len()))))
    }

    fn contain(self, len: usize) -> bool {
        self.0 & Self::bit(len) != 0
    }

    fn bit(len: usize) -> u128 {
        let index = u32::try_from(len.wrapping_sub(1)).unwrap_or(u32::MAX);
        1_u128.checked_shl(index).unwrap_or_default()
    }
}

/// Scopes, folding, protection and limits. All but `open` is replaced as a whole by a reload; each method looks at what is
/// in force when it is called.
#[derive(Debug)]
pub struct Policy {
    /// The channels that are counted apart.
    names: Arc<Names>,
    chosen: ArcSwap<Chosen>,
    /// What was in force when live sessions were last judged.
    judged: ArcSwap<Chosen>,
    /// Open development mode: anybody may handle a protected triple that no adapter serves.
    pub(super) open: bool,
}

/// Channels that a reload has changed so that what was listed for them is not found any more.
#[derive(Default)]
pub(super) struct Readdressed {
    /// Those whose scope is another.
    pub(super) scope: BTreeSet<String>,
    /// Those with the same scope that compare topics and subtopics in another way.
    pub(super) folding: BTreeSet<String>,
}

/// What was in force before it was replaced.
pub(super) struct Earlier(Arc<Chosen>);

/// What is in force at one time. An envelope is decided by one of it, whatever happens meanwhile.
#[derive(Debug)]
struct Chosen {
    channels: HashMap<String, (Channel, ChannelPlace), foldhash::fast::RandomState>,
    /// What holds for every other channel, and where those are counted.
    other: (Channel, ChannelPlace),
    protected: Vec<Pattern>,
    /// The lengths that a subtopic of a protected triple can have.
    protected_lengths: Lengths,
    /// Triples that are requests even if there is no handler.
    only: Vec<Pattern>,
    folds: bool,
    /// It is a node of a cluster, which keeps all retained values.
    clustered: bool,
    limits: Limits,
    resume: Resume,
}

impl Policy {
    /// The router's part of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let names = Metrics::channel_names();
        let chosen = Arc::new(Chosen::new(config, &names));
        Self {
            names,
            judged: ArcSwap::new(Arc::clone(&chosen)),
            chosen: ArcSwap::new(chosen),
            open: config.auth == AuthMode::Open,
        }
    }

    /// Puts another configuration in force, and returns the channels that are addressed in another way now.
    pub(super) fn replace(&self, config: &Config) -> Readdressed {
        let before = self.chosen.swap(Arc::new(Chosen::new(config, &self.names)));
        let mut changed = Readdressed::default();
        for name in before.channels.keys().chain(config.channels.keys()) {
            let (was, is) = (before.channel(name), config.channels.get(name).copied().unwrap_or_default());
            if was.scope != is.scope {
                changed.scope.insert(name.clone());
            } else if was.fold_case != is.fold_case {
                changed.folding.insert(name.clone());
            }
        }
        changed
    }

    /// The channels that are counted apart.
    pub fn channel_names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Where a channel is counted.
    pub(super) fn place(&self, channel: &str) -> ChannelPlace {
        self.chosen.load().channel_and_place(channel).1
    }

    /// Notes that live sessions are judged now. Returns what was in force when they were judged before, if its protected
    /// patterns were other ones.
    pub(super) fn begin_review(&self) -> Option<Earlier> {
        let chosen = self.chosen.load_full();
        let judged = self.judged.swap(Arc::clone(&chosen));
        (judged.protected != chosen.protected).then_some(Earlier(judged))
    }

    /// The limits.
    pub(super) fn limits(&self) -> Limits {
        self.chosen.load().limits
    }

    /// How long sessions outlive their connections, and what is kept for them.
    pub(super) fn resume(&self) -> Resume {
        self.chosen.load().resume
    }

    /// What follows from a triple, for one envelope.
    pub(super) fn facts<'t>(&self, triple: &'t Triple<'_>) -> Facts<'t> {
        let chosen = self.chosen.load();
        let (channel, place) = chosen.channel_and_place(&triple.channel);
        let canonical = match channel.fold_case {
            true => triple.folded(),
            false => Triple::new(&*triple.channel, &*triple.topic, &*triple.subtopic),
        };
        let on_full = match channel.overflow {
            Overflow::Close => OnFull::Close,
            Overflow::DropOldest => OnFull::Drop,
        };
        Facts {
            place: *place,
            only: chosen.only.iter().any(|pattern| is_in(pattern, triple, channel.fold_case)),
            canonical,
            folded: channel.fold_case,
            shared: channel.scope == Scope::Shared,
            services_only: channel.scope == Scope::Shared && channel.publish == Publish::Services,
            protected: chosen.is_protected(triple),
            history: channel.history.is_some(),
            durable: channel.durable,
            retains_durably: channel.retain_durable || chosen.clustered,
            on_full,
        }
    }

    /// What each log of the channel keeps; `None` if it has no history.
    pub(super) fn history(&self, channel: &str) -> Option<LogBounds> {
        self.chosen.load().channel(channel).history
    }

    /// Whether any channel has history.
    pub(super) fn keeps_history(&self) -> bool {
        self.chosen.load().channels.values().any(|(channel, _)| channel.history.is_some())
    }

    /// Whether the logs of the channel are on disk.
    pub(super) fn is_durable(&self, channel: &str) -> bool {
        self.chosen.load().channel(channel).durable
    }

    /// Whether the retained values of the channel are on disk, or kept by a cluster.
    pub(super) fn retains_durably(&self, channel: &str) -> bool {
        let chosen = self.chosen.load();
        chosen.clustered || chosen.channel(channel).retain_durable
    }

    /// The channels that have history.
    pub(super) fn channels_with_history(&self) -> Vec<String> {
        let chosen = self.chosen.load();
        let channels = chosen.channels.iter().filter(|(_, (channel, _))| channel.history.is_some());
        channels.map(|(name, _)| name.clone()).collect()
    }

    /// The channels that the configuration names.
    pub(super) fn channels(&self) -> Vec<(String, Channel)> {
        let chosen = self.chosen.load();
        chosen.channels.iter().map(|(name, (channel, _))| (name.clone(), *channel)).collect()
    }

    /// Whether envelopes of the channel belong to all rather than to one user.
    pub(super) fn is_shared(&self, channel: &str) -> bool {
        self.chosen.load().channel(channel).scope == Scope::Shared
    }

    /// Whether topic and subtopic of the channel are compared folded.
    pub(super) fn folds(&self, channel: &str) -> bool {
        let chosen = self.chosen.load();
        chosen.folds && chosen.channel(channel).fold_case
    }

    /// Whether the channel that a pattern names compares topics and subtopics folded.
    pub(super) fn folds_channel_of(&self, pattern: &Pattern) -> bool {
        pattern.channel.as_deref().is_some_and(|channel| self.folds(channel))
    }

    /// Whether the triple is request-only, whatever its letter case: passwords travel on it.
    #[must_use]
    pub fn is_protected(&self, triple: &Triple<'_>) -> bool {
        self.chosen.load().is_protected(triple)
    }

    /// The protected pattern that a triple is in.
    pub(super) fn protecting(&self, triple: &Triple<'_>) -> Option<Pattern> {
        self.chosen.load().protected.iter().find(|pattern| pattern.matches_any_case(triple)).cloned()
    }

    /// Whether every triple of the pattern is protected by one protected pattern.
    pub(super) fn is_all_protected(&self, pattern: &Pattern) -> bool {
        self.chosen.load().protected.iter().any(|protected| protected.covers_any_case(pattern))
    }

    /// The parts of a pattern that are protected, each as a pattern.
    pub(super) fn protected_parts(&self, pattern: &Pattern) -> impl Iterator<Item = Pattern> {
        let chosen = self.chosen.load();
        let overlapping = chosen.protected.iter().filter(|protected| protected.overlaps_any_case(pattern));
        let parts: Vec<_> = overlapping
            .map(|protected| {
                let part = |own: &Option<Box<str>>, other: &Option<Box<str>>| own.clone().or_else(|| other.clone());
                Pattern {
                    channel: part(&pattern.channel, &protected.channel),
                    topic: part(&pattern.topic, &protected.topic),
                    subtopic: part(&pattern.subtopic, &protected.subtopic),
                }
            })
            .collect();
        parts.into_iter()
    }

    /// The parts of a pattern that are protected, each as a pattern, and were not protected earlier.
    pub(super) fn newly_protected(&self, earlier: &Earlier, pattern: &Pattern) -> impl Iterator<Item = Pattern> {
        let was_protected = |part: &Pattern| earlier.0.protected.iter().any(|it| it.covers_any_case(part));
        self.protected_parts(pattern).filter(move |part| !was_protected(part))
    }

    /// The triple as the index compares it.
    pub(super) fn canonical<'a>(&self, triple: &'a Triple<'_>) -> Triple<'a> {
        if self.folds(&triple.channel) {
            triple.folded()
        } else {
            Triple::new(&*triple.channel, &*triple.topic, &*triple.subtopic)
        }
    }
}

/// Whether a triple is in a pattern's set. `folded`: its channel compares topics and subtopics without regard to case.
pub(super) fn is_in(pattern: &Pattern, triple: &Triple<'_>, folded: bool) -> bool {
    match folded {
        true => pattern.matches_any_case(triple) && pattern.channel.as_deref().is_none_or(|it| it == triple.channel),
        false => pattern.matches(triple),
    }
}

impl Chosen {
    fn new(config: &Config, names: &Names) -> Self {
        let placed = |name: &str| ChannelPlace::at(names.add(name));
        Self {
            other: (Channel::default(), ChannelPlace::at(names.other())),
            clustered: config.cluster.is_on(),
            folds: config.channels.values().any(|channel| channel.fold_case),
            channels: config.channels.iter().map(|(name, it)| (name.clone(), (*it, placed(name)))).collect(),
            protected: config.protected.clone(),
            protected_lengths: Lengths::of(config.protected.iter().map(|pattern| pattern.subtopic.as_deref())),
            only: config.requests.only.clone(),
            resume: config.resume,
            limits: Limits {
                sessions_per_user: config.limits.sessions_per_user,
                sessions_per_source: config.limits.sessions_per_source,
                ended_sessions: config.limits.ended_sessions,
                subscriptions: config.limits.subscriptions,
                pending_requests: config.limits.pending_requests,
                pending_bytes: config.limits.pending_bytes,
                retained_values: config.limits.retained_values,
                retained_bytes: config.limits.retained_bytes,
                retained_total_bytes: config.limits.retained_total_bytes,
                request_timeout: config.requests.timeout,
                more_max: config.requests.more_max,
                blocked: config.requests.blocked,
                history: match config.cluster.is_on() {
                    true => History { timeout: config.cluster.storage_wait, ..config.history },
                    false => config.history,
                },
            },
        }
    }

    fn channel(&self, name: &str) -> &Channel {
        &self.channel_and_place(name).0
    }

    fn channel_and_place(&self, name: &str) -> &(Channel, ChannelPlace) {
        self.channels.get(name).unwrap_or(&self.other)
    }

    fn is_protected(&self, triple: &Triple<'_>) -> bool {
        self.protected_lengths.contain(triple.subtopic.len())
            && self.protected.iter().any(|pattern| pattern.matches_any_case(triple))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_parts() {
        let some = Lengths::of([Some("Login"), Some("ReInit")].into_iter());
        let found: Vec<usize> = (0..200).filter(|len| some.contain(*len)).collect();
        assert_eq!(found, [5, 6]);
        let longest = "x".repeat(128);
        assert!(Lengths::of([Some(longest.as_str())].into_iter()).contain(128));
        let any = Lengths::of([Some("Login"), None].into_iter());
        assert!((1..=128).all(|len| any.contain(len)) && !any.contain(0) && !any.contain(129));
        assert!(!(0..200).any(|len| Lengths::of(std::iter::empty()).contain(len)));
    }
}
