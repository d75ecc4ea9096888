//! [`CreationBounds`]: how many records may be created at once, and how many are remembered; the keys of
//! `[salesforce.creations]`.

use crate::config::Config;
use crate::config::reference::Key;
use crate::config::slot::Slot;

/// `[salesforce.creations]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreationBounds {
    /// The most records that are being created at once.
    pub in_progress: usize,
    /// The most of them for one user.
    pub of_user: usize,
    /// The most finished creations that are remembered.
    pub remembered: usize,
}

impl Default for CreationBounds {
    fn default() -> Self {
        Self { in_progress: 256, of_user: 32, remembered: 10_000 }
    }
}

/// The keys.
pub(crate) static CREATION_KEYS: &[Key<Config>] = &[
    Key {
        name: "salesforce.creations.in_progress",
        slot: Slot::Size(1, |it| &mut it.salesforce.creations.in_progress),
        default: "256",
        unit: "records",
        meaning: "Records that are being created at once, those included whose requester was told that the outcome is not \
                  known yet. A further request is refused with `TOO_MANY_REQUESTS`.",
    },
    Key {
        name: "salesforce.creations.of_user",
        slot: Slot::Size(1, |it| &mut it.salesforce.creations.of_user),
        default: "32",
        unit: "records a user",
        meaning: "How many of them may be of one user.",
    },
    Key {
        name: "salesforce.creations.remembered",
        slot: Slot::Size(1, |it| &mut it.salesforce.creations.remembered),
        default: "10000",
        unit: "records",
        meaning: "Finished creations that are remembered, for ten minutes each, to answer repeated requests; those whose \
                  request had no `id` are not. When one is forgotten early, Salesforce is searched before each new \
                  creation until its ten minutes are over.",
    },
];
