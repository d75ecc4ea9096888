//! Replays in the queue of a session that moves to another node: they are cursors into what this node has, so they are made
//! into messages first.

use std::sync::Arc;

use crate::router::outbox::{Entry, Kind, OnFull, Outbox, State};
use crate::router::replay::Replay;
use crate::websocket::{Frame, FrameMemory};

impl Outbox {
    /// Takes the first replay in the queue of a session that is away, and leaves something in its place. `None`: there is
    /// none. [`Outbox::put_unrolled`] has to follow before a connection can continue the session.
    pub(in crate::router) fn take_to_unroll(&self) -> Option<Replay> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return None;
        }
        let first = state.queue.iter_mut().find_map(|entry| match entry {
            Entry::Replay(replay) => Some(replay),
            Entry::Frame(..) => None,
        });
        first.map(|replay| replay.take())
    }

    /// Puts messages of the replay that was taken in its place, before the rest of it if there is one. Returns whether what is
    /// kept is within its bounds.
    pub(in crate::router) fn put_unrolled(&self, frames: Vec<Frame>, rest: Option<Replay>) -> bool {
        self.change(|state| {
            state.put_unrolled(self.memory.as_ref(), frames, rest);
            state.window.as_ref().is_some_and(|it| !it.is_over(state.queue.len(), it.bytes))
        })
    }
}

impl State {
    fn put_unrolled(&mut self, memory: Option<&Arc<FrameMemory>>, frames: Vec<Frame>, rest: Option<Replay>) {
        self.forget_handed();
        let Self { queue, first, window: Some(window), end: None, .. } = self else { return };
        let is_taken = |entry: &Entry| matches!(entry, Entry::Replay(replay) if replay.is_taken());
        let Some(at) = queue.iter().position(is_taken) else { return };
        let mut waiting = queue.split_off(at);
        let (count, mut kept) = (frames.len(), 0);
        for frame in frames {
            if let Some(memory) = memory {
                frame.count_in(memory);
            }
            window.bytes += frame.len();
            kept += frame.keep();
            queue.push_back(Entry::Frame(frame, OnFull::Close, Kind::Event));
        }
        window.uncounted += count;
        window.kept.add(count, kept);
        match (waiting.pop_front(), rest) {
            (Some(Entry::Replay(mut place)), Some(rest)) => {
                *place = rest;
                queue.push_back(Entry::Replay(place));
            }
            (Some(Entry::Replay(place)), None) => {
                *first -= usize::from(place.comes_first());
                window.uncounted -= 1;
                window.kept.subtract(1, 0);
            }
            (Some(Entry::Frame(..)) | None, _) => {}
        }
        queue.append(&mut waiting);
    }
}
