//! [`Permissions`]: what a session may do.

use std::sync::Arc;

use wire::{Pattern, Triple};

use super::{Rights, Users};

/// What a session may do. It can change while the session lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// What it may publish, subscribe to, request and handle; `None`: everything.
    pub rights: Option<Arc<Rights>>,
    /// The users whose events it may subscribe to beside its own (a supervisor).
    pub observe: Users,
    /// The users whose envelopes a service receives, and whom it may name.
    pub users: Users,
    /// Protected triples, and triples of shared channels, that it may be a handler of.
    pub handle: Permission,
    /// Protected triples that it may request.
    pub request: Permission,
    /// The roles that its token names, for a reload that changes roles; empty if a row or the default role of an issuer
    /// decides.
    pub roles: Arc<[Box<str>]>,
}

impl Permissions {
    /// Everything, as in open mode.
    #[must_use]
    pub fn all() -> Self {
        Self { observe: Users::All, handle: Permission::All, request: Permission::All, ..Self::default() }
    }
}

impl Default for Permissions {
    /// What a session may do if nothing is configured for it: no grant, but every general right.
    fn default() -> Self {
        Self {
            rights: None,
            observe: Users::nobody(),
            users: Users::All,
            handle: Permission::none(),
            request: Permission::none(),
            roles: Arc::default(),
        }
    }
}

/// A set of triples that something is allowed on, compared without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Everything.
    All,
    /// What one of the patterns matches; none: nothing.
    Patterns(Arc<[Pattern]>),
}

impl Permission {
    /// Nothing at all.
    #[must_use]
    pub fn none() -> Self {
        Self::Patterns(Arc::default())
    }

    /// Whether the triple is allowed.
    #[must_use]
    pub fn allows(&self, triple: &Triple<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.matches_any_case(triple)),
        }
    }

    /// Whether some triple of the pattern is allowed.
    #[must_use]
    pub fn allows_any_of(&self, wanted: &Pattern) -> bool {
        match self {
            Self::All => true,
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.overlaps_any_case(wanted)),
        }
    }

    /// Whether every triple of the pattern is allowed. Several patterns together allow no more than one of them does: a
    /// part that is `*` has more values than they can name.
    #[must_use]
    pub fn allows_all_of(&self, wanted: &Pattern) -> bool {
        match self {
            Self::All => true,
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.covers_any_case(wanted)),
        }
    }
    /// Returns whether `other` does not allow everything of a pattern that this allows.
    #[must_use]
    pub fn loses(&self, other: &Self, of: &Pattern) -> bool {
        match self {
            Self::All => !other.allows_all_of(of),
            Self::Patterns(patterns) => {
                patterns.iter().filter_map(|own| own.common(of)).any(|part| !other.allows_all_of(&part))
            }
        }
    }
}
