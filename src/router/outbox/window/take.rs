//! Taking from the outbox of a resumable session: what is taken is kept.

use std::sync::Arc;
use std::time::Instant;

use wire::notice::{self, Depth};

use crate::router::outbox::{Entry, Kind, OnFull, State, Taken};
use crate::router::replay::Replay;
use crate::router::resume::kept::ENTRY_BYTES;
use crate::websocket::{Frame, FrameMemory};

impl State {
    /// Takes the only frame of the queue that was not taken yet, if it need not be counted now and there is nothing else to do.
    /// Returns whether it has. Does the same as [`State::take_kept`], for less: a connection that keeps up finds one frame.
    #[inline]
    pub(in crate::router::outbox) fn take_single(&mut self, most: usize, frames: &mut Vec<Frame>) -> bool {
        let Self { queue, kept, window: Some(window), news: None, messages, bytes, droppable, .. } = self else {
            return false;
        };
        if most == 0 || queue.len() != *kept + 1 {
            return false;
        }
        let Some(Entry::Frame(frame, ..)) = queue.back() else { return false };
        let Some(credit) = window.credit.checked_sub(frame.memory_bytes() + ENTRY_BYTES) else { return false };
        window.credit = credit;
        window.unsettled += 1;
        frames.push(frame.clone());
        *kept += 1;
        (*messages, *bytes, *droppable) = (0, 0, 0);
        true
    }

    /// Takes up to `most` frames, which are kept until they are acknowledged, and stops at a replay.
    #[inline]
    pub(in crate::router::outbox) fn take_kept(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        most: usize,
        frames: &mut Vec<Frame>,
    ) -> Option<Box<Taken>> {
        let most = most - self.take_on_credit(most, frames);
        if self.news.is_none() && (most == 0 || self.queue.len() == self.kept) {
            return None;
        }
        self.take_and_count(now, memory, most, frames)
    }

    /// Takes up to `most` frames that need not be counted yet. Returns how many.
    #[inline]
    fn take_on_credit(&mut self, most: usize, frames: &mut Vec<Frame>) -> usize {
        let Self { queue, kept, window: Some(window), news: None, messages, bytes, droppable, .. } = self else {
            return 0;
        };
        let mut taken = 0;
        while taken < most
            && let Some(Entry::Frame(frame, on_full, _)) = queue.get(*kept)
            && let Some(credit) = window.credit.checked_sub(frame.memory_bytes() + ENTRY_BYTES)
        {
            window.credit = credit;
            *messages -= 1;
            *bytes -= frame.len();
            *droppable -= usize::from(*on_full == OnFull::Drop);
            frames.push(frame.clone());
            *kept += 1;
            taken += 1;
        }
        window.unsettled += taken;
        taken
    }

    /// Takes up to `most` frames: first those that are sent again, then notices about the queue, then what waits.
    #[cold]
    fn take_and_count(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        most: usize,
        frames: &mut Vec<Frame>,
    ) -> Option<Box<Taken>> {
        let room = frames.len().saturating_add(most);
        if self.renew_credit() {
            let taken = self.take_on_credit(most, frames);
            if taken == most || self.queue.len() == self.kept {
                return None;
            }
        }
        self.settle();
        self.take_again(room, frames);
        let (lagging, dropped) = match frames.len() < room {
            true => self.take_notices(now, memory, frames),
            false => (None, 0),
        };
        let proof_end = self.news.as_mut().and_then(|news| news.proof_end.take());
        self.news.take_if(|news| !news.concerns_queue() && !news.sent_away);
        let taken = Taken { lagging, dropped, proof_end, ..Taken::default() };
        let mut taken = (taken.concerns_queue() || proof_end.is_some()).then(|| Box::new(taken));
        let Self { queue, kept, window: Some(window), messages, bytes, droppable, .. } = self else {
            return taken;
        };
        let (mut entries, mut memory) = (0, 0);
        while frames.len() < room && *kept >= window.numbered {
            match queue.get(*kept) {
                Some(Entry::Frame(frame, on_full, _)) => {
                    if window.uncounted > 0 {
                        window.uncounted -= 1;
                    } else {
                        let len = frame.len();
                        *messages -= 1;
                        *bytes -= len;
                        *droppable -= usize::from(*on_full == OnFull::Drop);
                        window.bytes += len;
                        entries += 1;
                        memory += frame.keep();
                    }
                    frames.push(frame.clone());
                    *kept += 1;
                }
                Some(Entry::Replay(_)) => {
                    taken.get_or_insert_default().replay_waits = true;
                    break;
                }
                None => break,
            }
        }
        window.kept.add(entries, memory);
        if entries > 0 && window.is_over(*kept, window.bytes) {
            self.keep_bounds();
        }
        self.take_credit(now);
        taken
    }

    /// Takes what an earlier connection has taken before.
    fn take_again(&mut self, room: usize, frames: &mut Vec<Frame>) {
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        while *kept < window.numbered && frames.len() < room {
            if let Some(Entry::Frame(frame, ..)) = queue.get(*kept) {
                frames.push(frame.clone());
            }
            *kept += 1;
            window.uncounted -= 1;
        }
    }

    /// Sends notices about the queue before what waits in it. They are messages of the session like any other. Returns what
    /// they say.
    fn take_notices(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        frames: &mut Vec<Frame>,
    ) -> (Option<Depth>, u64) {
        let Some(news) = self.news.as_mut().filter(|news| news.concerns_queue()) else { return (None, 0) };
        let (lagging, dropped) = (news.lagging.take(), std::mem::take(&mut news.dropped));
        let of_dropped = (dropped > 0).then(|| notice::dropped(dropped));
        let notices: Vec<Frame> = lagging.map(notice::lagging).into_iter().chain(of_dropped).map(Frame::from).collect();
        self.keep(now, memory, &notices);
        frames.extend(notices);
        (lagging, dropped)
    }

    /// Keeps frames that are taken without having been in the queue.
    fn keep(&mut self, now: Instant, memory: Option<&Arc<FrameMemory>>, taken: &[Frame]) {
        let Self { queue, kept, window: Some(window), .. } = self else { return };
        let mut waiting = queue.split_off(*kept);
        let mut kept_memory = 0;
        for frame in taken {
            if let Some(memory) = memory {
                frame.count_in(memory);
            }
            window.bytes += frame.len();
            kept_memory += frame.keep();
            queue.push_back(Entry::Frame(frame.clone(), OnFull::Close, Kind::Other));
        }
        queue.append(&mut waiting);
        *kept += taken.len();
        window.kept.add(taken.len(), kept_memory);
        window.kept.look(now);
        self.keep_bounds();
    }

    /// Takes the replay that comes next.
    pub(in crate::router::outbox) fn take_replay(&mut self) -> Option<Box<Replay>> {
        let entry = match self.queue.get(self.kept) {
            Some(Entry::Replay(_)) => self.queue.remove(self.kept)?,
            Some(Entry::Frame(..)) | None => return None,
        };
        let is_counted = self.window.as_ref().is_some_and(|window| window.uncounted == 0);
        self.forget(&entry, is_counted);
        match entry {
            Entry::Replay(replay) => Some(replay),
            Entry::Frame(..) => None,
        }
    }

    /// Keeps the frames that a replay gave, and puts its rest back.
    pub(in crate::router::outbox) fn put_pulled(
        &mut self,
        now: Instant,
        memory: Option<&Arc<FrameMemory>>,
        pulled: &[Frame],
        rest: Option<Box<Replay>>,
    ) {
        if self.end.is_some() {
            return;
        }
        self.settle();
        self.keep(now, memory, pulled);
        let (Some(window), Some(rest)) = (&mut self.window, rest) else { return };
        self.first += usize::from(rest.comes_first());
        self.queue.insert(self.kept, Entry::Replay(rest));
        if window.uncounted > 0 {
            window.uncounted += 1;
            window.kept.add(1, 0);
        }
    }
}
