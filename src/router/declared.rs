//! [`Declared`]: what the adapters in the process say of their triples. A reload replaces it as a whole.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

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

    /// The lengths of the subtopics that are served, modulo 64, as bits.
    fn lengths(&self) -> u64 {
        let subtopics = self.on.iter().flat_map(|it| &it.serves).map(|pattern| pattern.subtopic.as_deref());
        subtopics.fold(0, |set, subtopic| set | subtopic.map_or(u64::MAX, |subtopic| bit(subtopic.len())))
    }

    /// Whether one of the patterns that are served fits.
    pub(super) fn any_served(&self, fits: impl Fn(&Pattern) -> bool) -> bool {
        self.on.iter().flat_map(|it| &it.serves).any(fits)
    }
}

fn matches(serves: &[Pattern], triple: &Triple<'_>) -> bool {
    serves.iter().any(|pattern| pattern.matches_any_case(triple))
}

/// What the adapters say at present.
pub(super) struct Declarations {
    present: ArcSwap<Declared>,
    /// The lengths of the subtopics that are served, modulo 64, as bits. Most events are on no such triple. This tells for
    /// less than a look at the declarations, which takes 2 % of an event's instructions.
    lengths: AtomicU64,
}

impl Declarations {
    pub(super) fn new(declared: Declared) -> Self {
        let lengths = AtomicU64::new(declared.lengths());
        Self { present: ArcSwap::from_pointee(declared), lengths }
    }

    pub(super) fn load(&self) -> Guard<Arc<Declared>> {
        self.present.load()
    }

    /// Whether an adapter serves a triple.
    pub(super) fn serve(&self, triple: &Triple<'_>) -> bool {
        self.lengths.load(Ordering::Acquire) & bit(triple.subtopic.len()) != 0 && self.load().of(triple).is_some()
    }

    fn store(&self, declared: Declared) {
        let lengths = declared.lengths();
        // Meanwhile what is served before or after is looked for.
        self.lengths.fetch_or(lengths, Ordering::AcqRel);
        self.present.store(declared.into());
        self.lengths.store(lengths, Ordering::Release);
    }
}

fn bit(len: usize) -> u64 {
    1 << (len % 64)
}

impl Router {
    /// Replaces what the adapters say of their triples. An adapter that begins to serve is declared before it subscribes, and
    /// one that ends after it has unsubscribed: on a triple that is served, each failure has the declared form.
    pub fn declare(&self, declared: Declared) {
        self.declared.store(declared);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_is_found_by_the_length_of_its_subtopic_whatever_its_case() {
        let serving = |patterns: &[&str]| {
            let serves = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
            let refused = Box::new(|_: &Refused<'_>| {});
            let declaration = Declaration { serves, failure_keys: &[], repeats: &[], refused };
            Declared { on: vec![declaration], off: Vec::new() }
        };
        let long = "x".repeat(128);
        let triples = [Triple::new("Cisco", "Agent", "login"), Triple::new("Cisco", "Agent", &long)];
        let served = |declarations: &Declarations| triples.each_ref().map(|triple| declarations.serve(triple));
        let declarations = Declarations::new(Declared::default());
        assert_eq!(served(&declarations), [false, false]);
        declarations.store(serving(&["Cisco/Agent/Login"]));
        assert_eq!(served(&declarations), [true, false]);
        declarations.store(serving(&["Cisco/*/*"]));
        assert_eq!(served(&declarations), [true, true]);
        declarations.store(serving(&["Cisco/Agent/Other", &format!("Cisco/Agent/{long}")]));
        assert_eq!(served(&declarations), [false, true]);
        declarations.store(Declared::default());
        assert_eq!(served(&declarations), [false, false]);
    }
}
