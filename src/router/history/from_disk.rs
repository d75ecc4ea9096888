//! [`FromDisk`]: the part of a replay that only the disk has, some events at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use wire::{CloseCode, ErrorCode, Refusal, notice};

use super::Position;
use super::counted::OnDisk;
use super::durable::address_of;
use super::log::Address;
use crate::router::Router;
use crate::router::disk::{DiskRead, Purpose};
use crate::router::outbox::{End, Outbox};
use crate::router::replay::marked;
use crate::store::history::{Entry, Pin, ReadRange, Unread};
use crate::websocket::{Frame, FrameMemory};

/// An event that was read from the disk.
pub(in crate::router) struct DiskEntry {
    offset: u64,
    pub(super) address: Address,
    pub(super) frame: Frame,
}

impl DiskEntry {
    /// `memory` counts what it uses.
    pub(in crate::router) fn new(
        range: &ReadRange,
        offset: u64,
        entry: Entry,
        memory: Option<&Arc<FrameMemory>>,
    ) -> Self {
        let position = Position { offset, epoch: Arc::clone(&range.epoch) };
        let frame = marked(&entry.text, Some(&position), "replayed");
        if let Some(memory) = memory {
            frame.count_in(memory);
        }
        Self { offset, address: address_of(&range.log, entry), frame }
    }
}

/// What was read, or why it could not be.
type Answer = Result<Vec<DiskEntry>, Unread>;

/// Events of a log that only the disk has, on their way to a subscription.
pub(super) struct FromDisk {
    /// What is left to be read.
    range: ReadRange,
    pin: Pin,
    /// What was read and not sent yet.
    read: VecDeque<DiskEntry>,
    waits_for: Option<oneshot::Receiver<Answer>>,
    /// Why nothing more can be read.
    failed: Option<Failure>,
}

/// What comes next.
pub(super) enum Next {
    Entry(DiskEntry),
    /// The disk is being read.
    Waits,
    /// Nothing is left.
    Exhausted,
    /// The rest cannot be read.
    Failed(Failure),
}

/// Why events of a replay cannot be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure {
    /// The log has lost them meanwhile: the application takes too long.
    Gone,
    /// The disk cannot be read.
    Unreadable,
}

impl Failure {
    /// Ends the session. If it may still read, its last message says why.
    pub(super) fn end(self, outbox: &Outbox) {
        match self {
            Self::Gone => {
                let reason = "slow consumer: events of a replay are no longer kept";
                outbox.discard(End::Close(CloseCode::SlowConsumer, reason));
            }
            Self::Unreadable => {
                let words = "events of this replay cannot be read from the disk now; connect again, and recover from the \
                             last event that has arrived";
                let refusal = Refusal::new(ErrorCode::StorageUnavailable, words);
                let reason = "events of a replay cannot be read from the disk";
                outbox.end_with(notice::error(None, &refusal).into(), End::Close(CloseCode::GoingAway, reason));
            }
        }
    }
}

impl FromDisk {
    pub(super) fn new(epoch: Arc<str>, OnDisk { log, offsets, pin, .. }: OnDisk) -> Self {
        let range = ReadRange { log, epoch, offsets, backwards: false };
        Self { range, pin, read: VecDeque::new(), waits_for: None, failed: None }
    }

    /// Takes the next event. If nothing more was read, lets some be read.
    pub(super) fn next(&mut self, router: &Router, memory: Option<&Arc<FrameMemory>>) -> Next {
        if let Some(waiting) = &mut self.waits_for {
            match waiting.try_recv() {
                Ok(answer) => self.take(Some(answer)),
                Err(TryRecvError::Empty) => return Next::Waits,
                Err(TryRecvError::Closed) => self.take(None),
            }
        }
        if let Some(entry) = self.read.pop_front() {
            return Next::Entry(entry);
        }
        if let Some(failure) = self.failed {
            return Next::Failed(failure);
        }
        if self.range.offsets.is_empty() {
            return Next::Exhausted;
        }
        let (answer, waits_for) = oneshot::channel();
        let purpose = Purpose::Replay(answer, memory.cloned());
        match router.read(DiskRead { range: self.range.clone(), pin: self.pin.clone(), purpose }) {
            Ok(()) => {
                self.waits_for = Some(waits_for);
                Next::Waits
            }
            Err(_) => Next::Failed(Failure::Unreadable),
        }
    }

    /// Ready unless it waits for the disk.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.waits_for else { return Poll::Ready(()) };
        let Poll::Ready(answer) = std::pin::Pin::new(waiting).poll(cx) else { return Poll::Pending };
        self.take(answer.ok());
        Poll::Ready(())
    }

    /// Takes what was read. `None`: the broker ends.
    fn take(&mut self, answer: Option<Answer>) {
        self.waits_for = None;
        match answer {
            Some(Ok(read)) => {
                let next = read.last().map_or(u64::MAX, |last| last.offset.saturating_add(1));
                self.range.offsets = next..=*self.range.offsets.end();
                self.read = read.into();
            }
            Some(Err(Unread::Gone)) => self.failed = Some(Failure::Gone),
            Some(Err(Unread::Fault(_))) | None => self.failed = Some(Failure::Unreadable),
        }
    }

    /// The bytes of what was read.
    pub(super) fn bytes(&self) -> usize {
        self.read.iter().map(|entry| entry.frame.len()).sum()
    }
}
