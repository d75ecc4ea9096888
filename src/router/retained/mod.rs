//! [`Retained`]: the last value of each triple, for those who subscribe later. Kept per scope, bounded per scope and in
//! all; never a protected triple, which is no event.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;

use crate::router::index::{Observes, Subscription};
use crate::router::policy::Policy;
use crate::router::session::Role;
use crate::router::{Router, Scope};
use crate::websocket::Frame;
use wire::{DecodeLimits, Envelope, Splice, Triple, decode};
use wire::{ErrorCode, Refusal};

/// A user's values, or with `None` those of shared channels.
type Bucket = Option<Arc<str>>;

/// A triple, canonical and written, and the target whose value it is.
type Place = (String, Option<Box<str>>);

/// All retained values.
#[derive(Default)]
pub(super) struct Retained {
    scopes: DashMap<Bucket, Kept, foldhash::fast::RandomState>,
    total_bytes: AtomicUsize,
}

#[derive(Default)]
struct Kept {
    values: BTreeMap<Place, Value>,
    bytes: usize,
}

/// An event as later subscribers get it: the frames are shared by all of them.
struct Value {
    triple: Triple<'static>,
    /// As its user's sessions see it.
    plain: Frame,
    /// With `user`, made when the first service or observer needs it.
    attributed: OnceLock<Frame>,
    /// Scope it was on a shared channel.
    user: Option<Box<str>>,
}

/// Retained values on their way to a new subscription.
pub struct Replay {
    frames: VecDeque<Frame>,
}

impl Router {
    /// Pulls up to `most` frames of a replay. Returns whether it is exhausted.
    pub fn pull(&self, replay: &mut Replay, most: usize, frames: &mut Vec<Frame>) -> bool {
        let count = most.min(replay.frames.len());
        frames.extend(replay.frames.drain(..count));
        replay.frames.is_empty()
    }
}

impl Retained {
    /// Keeps an event as its triple's last value, which `plain` is with its mark; a `null` payload clears it.
    ///
    /// # Errors
    /// `TOO_LARGE` when a limit would be exceeded; nothing is changed then.
    pub(super) fn keep(
        &self,
        policy: &Policy,
        envelope: &Envelope<'_>,
        owner: Scope<'_>,
        plain: Frame,
    ) -> Result<(), Refusal> {
        let scope: Bucket = match owner {
            Scope::User(user) => Some(Arc::from(user)),
            Scope::Shared(_) => None,
        };
        let place = (policy.canonical(envelope.triple()).to_string(), envelope.target().map(Box::from));
        if envelope.payload_is_null() {
            self.clear(&scope, &place);
            return Ok(());
        }
        let user = match owner {
            Scope::User(_) => None,
            Scope::Shared(user) => user.map(Box::from),
        };
        let limits = &policy.limits;
        let mut kept = self.scopes.entry(scope.clone()).or_default();
        let before = kept.values.get(&place).map_or(0, |value| value.plain.len());
        let (bytes, values) = (kept.bytes - before + plain.len(), kept.values.len() + usize::from(before == 0));
        let total = self.total_bytes.load(Ordering::SeqCst) - before + plain.len();
        let exceeded = if values > limits.retained_values {
            Some(("retained_values", limits.retained_values))
        } else if bytes > limits.retained_bytes {
            Some(("retained_bytes", limits.retained_bytes))
        } else if total > limits.retained_total_bytes {
            Some(("retained_total_bytes", limits.retained_total_bytes))
        } else {
            None
        };
        if let Some((key, limit)) = exceeded {
            drop(kept);
            self.scopes.remove_if(&scope, |_, kept| kept.values.is_empty());
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("not retained and not sent: limits.{key} is {limit}; clear values with a null payload"),
            ));
        }
        self.total_bytes.fetch_add(plain.len(), Ordering::SeqCst);
        self.total_bytes.fetch_sub(before, Ordering::SeqCst);
        kept.bytes = bytes;
        let triple = envelope.triple().to_owned();
        kept.values.insert(place, Value { triple, plain, attributed: OnceLock::new(), user });
        Ok(())
    }

    fn clear(&self, scope: &Bucket, place: &Place) {
        self.scopes.remove_if_mut(scope, |_, kept| {
            if let Some(value) = kept.values.remove(place) {
                kept.bytes -= value.plain.len();
                self.total_bytes.fetch_sub(value.plain.len(), Ordering::SeqCst);
            }
            kept.values.is_empty()
        });
    }

    /// What a new subscription gets: each value that it matches, marked `retained`, in the order of scope and triple.
    pub(super) fn replay(&self, policy: &Policy, subscription: &Subscription) -> Option<Box<Replay>> {
        let mut frames = VecDeque::new();
        for scope in self.scopes_of(subscription) {
            let Some(kept) = self.scopes.get(&scope) else { continue };
            for ((_, target), value) in &kept.values {
                if target.as_deref().is_none_or(|target| target == &*subscription.session.source) {
                    let user = scope.as_deref().or(value.user.as_deref());
                    frames.extend(replayed(policy, subscription, value, user));
                }
            }
        }
        (!frames.is_empty()).then(|| Box::new(Replay { frames }))
    }

    /// The scopes that a subscription may see, in a fixed order.
    fn scopes_of(&self, subscription: &Subscription) -> Vec<Bucket> {
        let mut scopes = match (&subscription.observes, &subscription.session.role) {
            (Some(Observes::User(user)), _) => vec![Some(Arc::from(&**user))],
            (None, Role::User(user)) => vec![Some(Arc::clone(user))],
            (Some(Observes::All), _) | (None, Role::Service | Role::Adapter) => {
                self.scopes.iter().filter(|kept| kept.key().is_some()).map(|kept| kept.key().clone()).collect()
            }
        };
        scopes.sort();
        scopes.push(None);
        scopes
    }

    /// Values and bytes in all.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.scopes.iter().map(|kept| kept.values.len()).sum(), self.total_bytes.load(Ordering::SeqCst))
    }
}

fn replayed(policy: &Policy, subscription: &Subscription, value: &Value, user: Option<&str>) -> Option<Frame> {
    if !matches(policy, subscription, &value.triple) {
        return None;
    }
    match user {
        Some(user) if subscription.sees_user() => {
            Some(value.attributed.get_or_init(|| attributed(&value.plain, user)).clone())
        }
        _ => Some(value.plain.clone()),
    }
}

fn attributed(plain: &Frame, user: &str) -> Frame {
    // It was checked when it came.
    let envelope = decode(plain.text(), DecodeLimits::OWN);
    envelope.map_or_else(|_| plain.clone(), |envelope| Splice::new(&envelope).string("user", user).into())
}

/// Whether a subscription's pattern matches, with the channel's folding.
fn matches(policy: &Policy, subscription: &Subscription, triple: &Triple<'_>) -> bool {
    let pattern = &subscription.pattern;
    if policy.folds(&triple.channel) {
        pattern.channel.as_deref().is_none_or(|channel| channel == triple.channel) && pattern.matches_any_case(triple)
    } else {
        pattern.matches(triple)
    }
}
