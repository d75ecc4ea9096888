//! The keys of `[roles.NAME]`, in the form of `reference`.

use std::sync::Arc;

use super::{RightsDraft, Role, draft, named};
use crate::auth::{Permission, Users};
use crate::config::reference::Key;
use crate::config::slot::Slot;
use wire::Pattern;

/// `[roles.NAME]` while it is read: a required key can still be absent.
#[derive(Default)]
pub(crate) struct RoleDraft {
    rights: RightsDraft,
    observe: Option<Users>,
    protected_request: Option<Vec<Pattern>>,
    protected_handle: Vec<Pattern>,
}

impl RoleDraft {
    /// The keys that every role must have.
    pub(crate) const REQUIRED: [&str; 4] = draft::RIGHTS;

    /// Returns the role. A right without a list allows nothing.
    pub(crate) fn role(self, name: &str) -> Role {
        let patterns = |patterns: Vec<Pattern>| Permission::Patterns(Arc::from(patterns));
        Role {
            rights: Arc::new(self.rights.rights(None, &Arc::from(named(&[name])))),
            observe: self.observe.unwrap_or_else(Users::nobody),
            protected_request: self.protected_request.map(patterns),
            protected_handle: patterns(self.protected_handle),
        }
    }
}

/// The keys.
pub(crate) static ROLE_KEYS: &[Key<RoleDraft>] = &[
    Key {
        name: "publish",
        slot: Slot::Patterns(|it, patterns| it.rights.allow.publish = Some(patterns)),
        default: "required",
        unit: "",
        meaning: "Triples on which a session of this role may publish events, retained values, wills and commands \
                  without an answer. `[]`: none.",
    },
    Key {
        name: "subscribe",
        slot: Slot::Patterns(|it, patterns| it.rights.allow.subscribe = Some(patterns)),
        default: "required",
        unit: "",
        meaning: "Triples that it may subscribe to. A subscription to more is narrowed to these.",
    },
    Key {
        name: "request",
        slot: Slot::Patterns(|it, patterns| it.rights.allow.request = Some(patterns)),
        default: "required",
        unit: "",
        meaning: "Triples on which it may send requests. For protected ones it needs a grant too: `protected_request`, \
                  or `request` of `[[applications]]`.",
    },
    Key {
        name: "handle",
        slot: Slot::Patterns(|it, patterns| it.rights.allow.handle = Some(patterns)),
        default: "required",
        unit: "",
        meaning: "Triples that it may be a handler of; one of these patterns must cover the handler's pattern whole. For \
                  protected ones it needs a grant too: `protected_handle`, or `handle` of `[[applications]]`.",
    },
    Key {
        name: draft::DENY,
        slot: Slot::Table("table of lists of patterns", |it, key, item, report| it.rights.deny.read(key, item, report)),
        default: "none",
        unit: "",
        meaning: "Triples that it may not use although the lists above allow them: `{ subscribe = [\"Payroll/*/*\"] }`, \
                  with a list for any of the four rights.",
    },
    Key {
        name: "observe",
        slot: Slot::Observed(|it, users| it.observe = Some(users)),
        default: "false",
        unit: "",
        meaning: "The users whose events a user's session may subscribe to beside its own (a supervisor): names, or \
                  endings such as `\"*@team-a.example\"`. `true`: all users.",
    },
    Key {
        name: "protected_request",
        slot: Slot::Patterns(|it, patterns| it.protected_request = Some(patterns)),
        default: "a user: all, for itself; a service: none",
        unit: "",
        meaning: "Protected triples that it may request, if `request` allows them too.",
    },
    Key {
        name: "protected_handle",
        slot: Slot::Patterns(|it, patterns| it.protected_handle = patterns),
        default: "[]",
        unit: "",
        meaning: "Protected triples, and for a user's application triples of shared channels, that it may be a handler \
                  of, if `handle` allows them too.",
    },
];
