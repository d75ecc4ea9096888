//! What an operator sees of retained values, and how one is removed for an operator.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use wire::{DecodeLimits, Triple, decode};

use super::{Bucket, Place, Retained, size};
use crate::router::replay::parts;
use crate::store::history as stored;
use crate::websocket::Frame;

/// What an operator sees of a value. Its frame is only looked at for its source.
pub(in crate::router) struct ValueFacts {
    /// The user to whom it belongs; `None` on a shared channel.
    pub(in crate::router) user: Option<Arc<str>>,
    triple: Box<str>,
    pub(in crate::router) target: Option<Box<str>>,
    pub(in crate::router) bytes: usize,
    pub(in crate::router) since: Instant,
    frame: Frame,
}

impl ValueFacts {
    /// Names the value. No name has a tab.
    pub(in crate::router) fn id(&self) -> String {
        [self.user.as_deref().unwrap_or_default(), &self.triple, self.target.as_deref().unwrap_or_default()].join("\t")
    }

    pub(in crate::router) fn triple(&self) -> [String; 3] {
        parts(&self.triple).map(str::to_owned)
    }

    /// The source that sent it.
    pub(in crate::router) fn source(&self) -> Option<String> {
        let envelope = decode(self.frame.text(), DecodeLimits::OWN).ok()?;
        envelope.source().map(str::to_owned)
    }
}

impl Retained {
    /// The values for whose user and triple `is_wanted` returns `true`.
    pub(in crate::router) fn facts(&self, is_wanted: impl Fn(Option<&str>, &Triple<'_>) -> bool) -> Vec<ValueFacts> {
        let mut found = Vec::new();
        let buckets: Vec<Bucket> = self.buckets.read().keys().cloned().collect();
        // One bucket after the other, so that nobody waits for a long list.
        for bucket in buckets {
            let all = self.buckets.read();
            let Some(values) = all.get(&bucket).map(Mutex::lock) else { continue };
            let user = match &bucket {
                Bucket::User(user) => Some(Arc::clone(user)),
                Bucket::Shared => None,
            };
            for (place, value) in values.iter() {
                let [channel, topic, subtopic] = parts(&place.0);
                if is_wanted(user.as_deref(), &Triple::new(channel, topic, subtopic)) {
                    found.push(ValueFacts {
                        user: user.clone(),
                        triple: place.0.clone(),
                        target: place.1.clone(),
                        bytes: size(place, value),
                        since: value.since,
                        frame: value.frame.clone(),
                    });
                }
            }
        }
        found
    }

    /// The values of a triple, one for each target.
    pub(in crate::router) fn places(&self, user: Option<&str>, canonical: &Triple<'_>) -> Vec<stored::Place> {
        let bucket = Bucket::of(user);
        let buckets = self.buckets.read();
        let Some(values) = buckets.get(&bucket).map(Mutex::lock) else { return Vec::new() };
        let from: Place = (canonical.to_string().into(), None);
        let of_triple = values.range(from.clone()..).map(|(place, _)| place).take_while(|place| place.0 == from.0);
        of_triple
            .map(|(triple, target)| stored::Place {
                user: user.map(Box::from),
                triple: triple.clone(),
                target: target.clone(),
            })
            .collect()
    }

    /// Removes the values of a triple, for all targets. Returns how many there were.
    pub(in crate::router) fn remove(&self, user: Option<&str>, canonical: &Triple<'_>) -> usize {
        let bucket = Bucket::of(user);
        let _gate = self.gate.read();
        let places = self.places(user, canonical);
        for stored::Place { triple, target, .. } in &places {
            self.clear(&bucket, &(triple.clone(), target.clone()));
        }
        places.len()
    }
}
