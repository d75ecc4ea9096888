//! [`Declared`]: what the adapters in the process say of their triples. A reload replaces it as a whole.

use std::net::IpAddr;

use crate::router::{Router, SessionId};
use crate::websocket::Frame;
use wire::{Pattern, Refusal, Triple, notice};

/// What an in-process adapter says of its triples.
pub struct Declaration {
    /// The triples.
    pub serves: Vec<Pattern>,
    /// The null keys that a failure of them has before `Success`.
    pub failure_keys: &'static [&'static str],
    /// The fields of a request's payload that its failure repeats.
    pub repeats: &'static [&'static str],
    /// Is called for a request that was refused before it reached the adapter.
    pub refused: Box<dyn Fn(&Refused<'_>) + Send + Sync>,
}

/// An adapter that the configuration switches off.
pub struct SwitchedOff {
    /// The triples that it would serve.
    pub serves: Vec<Pattern>,
    /// The configuration key that switches it on.
    pub key: &'static str,
}

/// The adapters in the process.
#[derive(Default)]
pub struct Declared {
    /// Those that serve their triples.
    pub on: Vec<Declaration>,
    /// Those that the configuration switches off.
    pub off: Vec<SwitchedOff>,
}

/// A request to an adapter's triple that the broker refused.
pub struct Refused<'a> {
    /// What was asked.
    pub triple: &'a Triple<'a>,
    /// The registered source; before registration what the envelope says, unproved.
    pub source: &'a str,
    /// For which user.
    pub user: Option<&'a str>,
    /// The session, once it is registered.
    pub session: Option<SessionId>,
    /// The address of the peer.
    pub address: Option<IpAddr>,
    /// Why.
    pub refusal: &'a Refusal,
}

impl Declared {
    /// What an adapter declared of a triple. Adapters compare their triples without regard to ASCII case.
    pub(super) fn of(&self, triple: &Triple<'_>) -> Option<&Declaration> {
        self.on.iter().find(|it| matches(&it.serves, triple))
    }

    /// The configuration key that would switch on an adapter of a triple.
    pub(super) fn key_of(&self, triple: &Triple<'_>) -> Option<&'static str> {
        self.off.iter().find(|it| matches(&it.serves, triple)).map(|it| it.key)
    }

    /// Whether one of the patterns that are served fits.
    pub(super) fn any_served(&self, fits: impl Fn(&Pattern) -> bool) -> bool {
        self.on.iter().flat_map(|it| &it.serves).any(fits)
    }
}

fn matches(serves: &[Pattern], triple: &Triple<'_>) -> bool {
    serves.iter().any(|pattern| pattern.matches_any_case(triple))
}

impl Router {
    /// Replaces what the adapters say of their triples. An adapter that begins to serve is declared before it subscribes, and
    /// one that ends after it has unsubscribed: on a triple that is served, each failure has the declared form.
    pub fn declare(&self, declared: Declared) {
        self.declared.store(declared.into());
    }

    /// Tells the adapter that serves a triple of a request that was refused before it came there.
    pub fn tell_refused(&self, refused: &Refused<'_>) {
        if let Some(declaration) = self.declared.load().of(refused.triple) {
            (declaration.refused)(refused);
        }
    }

    /// A request's failure, on its own triple, with the keys that an adapter declared for it.
    pub fn failure(&self, triple: &Triple<'_>, in_reply_to: Option<&str>, refusal: &Refusal) -> Frame {
        let keys = self.declared.load().of(triple).map_or(&[][..], |declaration| declaration.failure_keys);
        notice::failure(triple, in_reply_to, keys, refusal).into()
    }
}
