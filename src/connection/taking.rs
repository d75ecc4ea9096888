//! What a connection is given to send: its own replies, and what its session's outbox has.

use std::collections::VecDeque;
use std::time::Instant;

use wire::notice;

use super::{Connection, Phase};
use crate::router::Router;
use crate::websocket::Frame;

impl Connection {
    /// Takes up to `most` frames that are to be sent, oldest first.
    pub fn take(&mut self, now: Instant, most: usize, router: &Router, frames: &mut Vec<Frame>) {
        let own = most.min(self.replies.len());
        frames.extend(self.replies.drain(..own));
        if self.replies.is_empty() && self.replies.capacity() > 0 {
            self.replies = VecDeque::new();
        }
        let Phase::Registered(session) = &self.phase else { return };
        if self.attachment != 0 {
            if self.is_reply_held() {
                if let Some(end) = session.outbox().take_proof_end() {
                    self.limit_proof(now, end);
                }
                return;
            }
            if let Some(end) = self.take_resumable(now, (session, self.attachment), most - own, router, frames) {
                self.limit_proof(now, end);
            }
            return;
        }
        let outbox = session.outbox();
        let (room, at) = (most - own, frames.len());
        let (mut lagging, mut dropped, mut proof_end) = (None, 0, None);
        loop {
            let taken = outbox.take(now, room.saturating_sub(frames.len() - at), frames);
            // Most often there was nothing but frames.
            let Some(taken) = taken else { break };
            lagging = lagging.or(taken.lagging);
            proof_end = proof_end.or(taken.proof_end);
            dropped += taken.dropped;
            let Some(mut replay) = taken.replay else { break };
            if !router.pull(&mut replay, room.saturating_sub(frames.len() - at), frames) {
                outbox.put_back(replay);
                break;
            }
        }
        session.release_presence(now);
        // Notices about the queue itself are sent before its contents. Most often there is none.
        if lagging.is_some() || dropped > 0 {
            self.count_notices(lagging.is_some(), dropped);
            frames.splice(at..at, queue_notices(lagging, dropped));
        }
        if let Some(end) = proof_end {
            self.limit_proof(now, end);
        }
    }

    /// Counts what a session is told about its own queue.
    pub(super) fn count_notices(&self, lags: bool, dropped: u64) {
        let metrics = &self.settings.metrics;
        if lags {
            metrics.lagging.count(());
        }
        metrics.dropped.add((), dropped);
    }
}

/// What a session is told about its own queue: that it lagged, and how many events were dropped.
pub(super) fn queue_notices(lagging: Option<notice::Depth>, dropped: u64) -> impl Iterator<Item = Frame> {
    let lagging = lagging.map(|depth| notice::lagging(depth).into());
    let dropped = (dropped > 0).then(|| notice::dropped(dropped).into());
    lagging.into_iter().chain(dropped)
}
