//! [`Loading`]: takes over what a history file has.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::router::Router;
use crate::router::history::{LoadedEntry, Position};
use crate::store::history::{Known, Loaded, LogName, Place, Retained, time_of};

/// Takes over what a file has, item by item.
pub struct Loading<'r> {
    router: &'r Router,
    now: Instant,
    wall: SystemTime,
    log: Option<(LogName, Arc<str>)>,
}

impl Router {
    /// Takes over what a history file has, before anything else happens. `wall` is the time of day.
    pub fn loading(&self, now: Instant, wall: SystemTime) -> Loading<'_> {
        Loading { router: self, now, wall, log: None }
    }
}

impl Loading<'_> {
    /// Takes over one item.
    pub fn add(&mut self, loaded: Loaded) {
        match loaded {
            Loaded::Log { name, epoch, last, used } => {
                let epoch: Arc<str> = epoch.into();
                if self.has_history(&name) {
                    self.router.history.load_log(&name, &epoch, last, self.instant(used));
                } else if let Some(commits) = &self.router.commits {
                    commits.forgotten.add_log(name.clone(), Arc::clone(&epoch));
                }
                self.log = Some((name, epoch));
            }
            Loaded::Entry(offset, entry) => {
                let Some((name, epoch)) = &self.log else { return };
                let Some(bounds) = self.router.policy.history(&name.channel) else { return };
                if !self.has_history(name) {
                    return;
                }
                let (at, position) = (self.instant(entry.at), Position { offset, epoch: Arc::clone(epoch) });
                self.router.history.load_entry(name, LoadedEntry { at, position, entry }, &bounds);
                self.router.bound_history(self.now);
            }
            Loaded::Known(known) => self.known(known),
            Loaded::Retained(place, value) => self.retained(&place, value),
        }
    }

    /// Whether the channel still has durable history, and its logs are still of this kind.
    fn has_history(&self, name: &LogName) -> bool {
        let policy = &self.router.policy;
        policy.is_durable(&name.channel) && policy.is_shared(&name.channel) == name.user.is_none()
    }

    fn known(&self, known: Known) {
        if self.has_history(&known.log) {
            let at = self.instant(known.at);
            self.router.history.load_known(at, known, &self.router.policy.limits().history);
        }
    }

    fn retained(&self, place: &Place, value: Retained) {
        let channel = place.triple.split('/').next().unwrap_or_default();
        let policy = &self.router.policy;
        if policy.retains_durably(channel) && policy.is_shared(channel) == place.user.is_none() {
            self.router.retained.load(self.now, policy.limits(), place, value);
        } else if let Some(commits) = &self.router.commits {
            commits.forgotten.add_values([place.clone()]);
        }
    }

    /// The moment at which it was this time of day, as far back as the monotonic clock reaches.
    fn instant(&self, millis: u64) -> Instant {
        let mut age = self.wall.duration_since(time_of(millis)).unwrap_or_default();
        loop {
            match self.now.checked_sub(age) {
                Some(at) => return at,
                None => age = age / 2 + Duration::from_nanos(1),
            }
        }
    }
}
