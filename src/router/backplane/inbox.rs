//! [`Inbox`]: what has arrived by a link and waits, because an event before it waits for its predecessor in a log.
//!
//! Nothing that a publisher sends later may overtake that event, and neither may its `Left`. What else its node announces is not
//! held back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use super::message::{Id, Message};
use super::peer::{Elsewhere, Peer};
use crate::router::Router;

/// The messages that are held back, and their bytes. Beyond that, a link waits no longer.
const HELD_MAX: usize = 16_384;
const HELD_BYTES_MAX: usize = 64 << 20;

/// Something that is held back.
pub(super) enum Held {
    Message(Zeroizing<Vec<u8>>),
    /// A session has left. Nobody was told.
    Left(Id, Elsewhere),
}

/// What has arrived by a link and waits.
#[derive(Default)]
pub(super) struct Inbox(Mutex<State>);

#[derive(Default)]
struct State {
    held: VecDeque<Held>,
    bytes: usize,
    /// The events that wait for their predecessors.
    waiting: usize,
    /// A thread handles messages, and looks here again.
    is_busy: bool,
}

impl State {
    fn is_full(&self) -> bool {
        self.held.len() >= HELD_MAX || self.bytes >= HELD_BYTES_MAX
    }

    fn is_blocked(&self) -> bool {
        self.is_busy || self.waiting > 0 && !self.is_full()
    }
}

impl Inbox {
    /// An event waits from now on.
    pub(super) fn wait(&self) {
        self.0.lock().waiting += 1;
    }

    /// An event waits no longer.
    fn stop_waiting(&self) {
        let mut state = self.0.lock();
        state.waiting = state.waiting.saturating_sub(1);
    }

    /// Whether the next message may be handled at once: then [`Inbox::next`] has to be called until it returns `None`.
    /// Otherwise it is held back.
    pub(super) fn begin(&self, message: &[u8]) -> bool {
        let mut state = self.0.lock();
        if !state.is_blocked() && state.held.is_empty() {
            state.is_busy = true;
            return true;
        }
        state.bytes += message.len();
        state.held.push_back(Held::Message(Zeroizing::new(message.to_vec())));
        false
    }

    /// Holds back that a session has left, behind what its node has sent before. Returns it if nothing waits: others are to be
    /// told now.
    pub(super) fn hold_left(&self, id: Id, session: Elsewhere) -> Option<(Id, Elsewhere)> {
        let mut state = self.0.lock();
        if !state.is_blocked() && state.held.is_empty() {
            return Some((id, session));
        }
        state.held.push_back(Held::Left(id, session));
        None
    }

    /// Whether this thread is to handle what is held back.
    pub(super) fn resume(&self) -> bool {
        let mut state = self.0.lock();
        if state.is_blocked() || state.held.is_empty() {
            return false;
        }
        state.is_busy = true;
        true
    }

    /// Takes what is to be handled next. `None`: nothing may be handled now.
    pub(super) fn next(&self) -> Option<Held> {
        let mut state = self.0.lock();
        state.is_busy = false;
        if state.is_blocked() {
            return None;
        }
        let next = state.held.pop_front()?;
        if let Held::Message(message) = &next {
            state.bytes -= message.len();
        }
        state.is_busy = true;
        Some(next)
    }

    /// Drops the messages that are held back, because the link is lost. Returns the sessions that have left.
    pub(super) fn clear(&self) -> Vec<(Id, Elsewhere)> {
        let mut state = self.0.lock();
        state.bytes = 0;
        let held = std::mem::take(&mut state.held);
        drop(state);
        let left = held.into_iter().filter_map(|held| match held {
            Held::Message(_) => None,
            Held::Left(id, session) => Some((id, session)),
        });
        left.collect()
    }
}

impl Message<'_> {
    /// Whether it is handled at once, whatever waits: it changes what is known of the sender, or it is about this moment.
    pub(super) fn is_announcement(&self) -> bool {
        match self {
            Self::Snapshot { .. }
            | Self::Change(_)
            | Self::Loads(_)
            | Self::Control(_)
            | Self::ReadValues
            | Self::RecordsChanged { .. }
            | Self::AskLease { .. }
            | Self::Lease { .. }
            | Self::Ask { .. }
            | Self::Told { .. }
            | Self::Mark => true,
            Self::Event(_)
            | Self::Grouped { .. }
            | Self::Returned { .. }
            | Self::Request(_)
            | Self::Gone(_)
            | Self::Answer { .. }
            | Self::Failed { .. }
            | Self::Cancel { .. }
            | Self::Pressed { .. }
            | Self::Relieved { .. }
            | Self::Retained { .. }
            | Self::Cleared { .. }
            | Self::Moving(_) => false,
        }
    }
}

impl Peer {
    /// Lets what follows on the link wait for an event.
    pub(in crate::router) fn hold_link(&self) {
        self.inbox.wait();
    }
}

impl Router {
    /// An event of a peer waits no longer: what follows it on the link is handled.
    pub(in crate::router) fn release_link(&self, now: Instant, peer: &Arc<Peer>) {
        peer.inbox.stop_waiting();
        if peer.inbox.resume() {
            self.handle_held(now, peer);
        }
    }

    /// Handles what was held back, as far as it may be.
    pub(super) fn handle_held(&self, now: Instant, peer: &Arc<Peer>) {
        while let Some(held) = peer.inbox.next() {
            match held {
                Held::Message(bytes) => {
                    if let Some(message) = Message::read(&bytes) {
                        self.handle(now, peer, &message);
                    }
                }
                Held::Left(id, session) => self.tell_left(now, peer, id, session),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_an_event_that_waits_is_held_back_up_to_a_bound() {
        let inbox = Inbox::default();
        assert!(inbox.begin(b"1"));
        inbox.wait();
        assert!(inbox.next().is_none() && !inbox.begin(b"2") && !inbox.begin(b"3") && !inbox.resume());
        inbox.stop_waiting();
        assert!(!inbox.begin(b"4"), "nothing overtakes what is held back");
        assert!(inbox.resume() && !inbox.resume(), "one thread handles it");
        let all: Vec<_> = std::iter::from_fn(|| inbox.next()).collect();
        let first = |held: &Held| match held {
            Held::Message(bytes) => bytes[0],
            Held::Left(..) => b'L',
        };
        assert_eq!(all.iter().map(first).collect::<Vec<_>>(), b"234");
        inbox.wait();
        (0..HELD_MAX).for_each(|_| assert!(!inbox.begin(b"5")));
        assert!(inbox.resume(), "the link waits no longer");
        assert!(inbox.next().is_some() && inbox.next().is_none());
    }
}
