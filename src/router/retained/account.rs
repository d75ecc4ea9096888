//! [`Accounts`]: how many values count for whom, and how much memory they use.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use wire::{ErrorCode, Refusal};

use crate::router::policy::Limits;
use crate::router::session::{Role, Session};
use crate::store::history::Place;

/// For whom a value counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// The values of a user's own scope, and what its sessions sent last in shared channels.
    User(Arc<str>),
    /// What a service sent last in shared channels, by its source.
    Service(Arc<str>),
}

impl Owner {
    /// The owner of a value that is stored at a place: its service, its user, or the user in whose name it was sent. `None`
    /// if it names nobody.
    pub(super) fn of_stored(place: &Place, user: Option<&str>, service: Option<&str>) -> Option<Self> {
        match (service, place.user.as_deref(), user) {
            (Some(service), ..) => Some(Self::Service(service.into())),
            (None, Some(owner), _) | (None, None, Some(owner)) => Some(Self::User(owner.into())),
            (None, None, None) => None,
        }
    }

    /// The owner of what a session sends in a shared channel.
    pub(super) fn of(session: &Session) -> Self {
        match &session.role {
            Role::User(user) => Self::User(Arc::clone(user)),
            Role::Service | Role::Adapter => Self::Service(Arc::clone(&session.source)),
        }
    }
}

/// Values and the memory that they use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) values: usize,
    pub(super) bytes: usize,
}

/// The usage of each owner, and of all.
#[derive(Default)]
pub(super) struct Accounts {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    owners: HashMap<Owner, Usage, foldhash::fast::RandomState>,
    total: Usage,
}

impl Accounts {
    /// Counts a value for its owner, in place of the one that it replaces.
    ///
    /// # Errors
    /// `TOO_LARGE` if a limit would be exceeded; then nothing changes.
    pub(super) fn replace(
        &self,
        limits: &Limits,
        (owner, bytes): (&Owner, usize),
        replaced: Option<(&Owner, usize)>,
    ) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        state.check(limits, (owner, bytes), replaced)?;
        if let Some((owner, bytes)) = replaced {
            state.subtract(owner, bytes);
        }
        state.add(owner, bytes);
        Ok(())
    }

    /// Checks whether a value could be counted in place of the one that it replaces.
    ///
    /// # Errors
    /// `TOO_LARGE`.
    pub(super) fn check(
        &self,
        limits: &Limits,
        value: (&Owner, usize),
        replaced: Option<(&Owner, usize)>,
    ) -> Result<(), Refusal> {
        self.state.lock().check(limits, value, replaced)
    }

    /// Counts a value no longer.
    pub(super) fn remove(&self, owner: &Owner, bytes: usize) {
        self.state.lock().subtract(owner, bytes);
    }

    /// The usage of all owners.
    pub(super) fn total(&self) -> Usage {
        self.state.lock().total
    }
}

impl State {
    fn check(
        &self,
        limits: &Limits,
        (owner, bytes): (&Owner, usize),
        replaced: Option<(&Owner, usize)>,
    ) -> Result<(), Refusal> {
        let replaced_bytes = replaced.map_or(0, |(_, bytes)| bytes);
        let own = replaced.filter(|(of, _)| *of == owner);
        let usage = self.owners.get(owner).copied().unwrap_or_default();
        let after = Usage {
            values: usage.values + 1 - own.map_or(0, |_| 1),
            bytes: usage.bytes + bytes - own.map_or(0, |(_, bytes)| bytes),
        };
        let total_bytes = self.total.bytes + bytes - replaced_bytes;
        let checks = [
            (after.values > limits.retained_values, "retained_values", limits.retained_values),
            (after.bytes > limits.retained_bytes, "retained_bytes", limits.retained_bytes),
            (total_bytes > limits.retained_total_bytes, "retained_total_bytes", limits.retained_total_bytes),
        ];
        if let Some((_, key, limit)) = checks.into_iter().find(|(is_exceeded, ..)| *is_exceeded) {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("neither kept nor sent: limits.{key} is {limit}; clear retained values with a null payload"),
            ));
        }
        Ok(())
    }

    fn add(&mut self, owner: &Owner, bytes: usize) {
        let usage = match self.owners.get_mut(owner) {
            Some(usage) => usage,
            None => self.owners.entry(owner.clone()).or_default(),
        };
        for usage in [usage, &mut self.total] {
            usage.values += 1;
            usage.bytes += bytes;
        }
    }

    fn subtract(&mut self, owner: &Owner, bytes: usize) {
        let Some(usage) = self.owners.get_mut(owner) else {
            debug_assert!(false, "a value without an owner");
            return;
        };
        for usage in [&mut *usage, &mut self.total] {
            usage.values -= 1;
            usage.bytes -= bytes;
        }
        if usage.values == 0 {
            self.owners.remove(owner);
        }
    }
}
