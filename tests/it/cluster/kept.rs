//! [`Logs`]: the logs that nodes in one thread keep in place of JetStream.

use std::collections::{BTreeMap, VecDeque};
use std::iter::from_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use switchboard::router::{
    Append, Appended, CommitQueue, DiskRead, Ends, MissingEntry, Once, Position, ReadKind, ReadQueue, Router,
    Uncommitted, not_kept,
};
use switchboard::store::StoreError;
use switchboard::store::history::{Entry, LogName, ReadRange, Unread};
use tokio::sync::oneshot::{self, error::TryRecvError};
use wire::Refusal;

/// The events that are read at once.
const PORTION: usize = 3;

/// What all nodes see.
#[derive(Default)]
pub(super) struct Logs(Mutex<State>);

#[derive(Default)]
struct State {
    logs: BTreeMap<LogName, Log>,
    once: Vec<(LogName, Once, Position)>,
    /// How many epochs were made.
    epochs: usize,
    is_away: bool,
}

struct Log {
    epoch: Arc<str>,
    last: u64,
    entries: BTreeMap<u64, ([u8; 16], Entry)>,
    /// The node that has appended the last event.
    by: Option<usize>,
}

/// The outcome of storing an event, of which its node does not know yet.
pub(super) type Outcome = (Append, Result<Vec<Appended>, Refusal>);

/// The queues of one node.
pub(super) struct Queues {
    events: CommitQueue,
    /// Those of them that are for logs.
    logged: CommitQueue,
    order: Mutex<Order>,
    reads: Mutex<ReadQueue>,
    /// Reads that go on.
    next: Mutex<VecDeque<DiskRead>>,
}

/// Events of a node that keep the order of their senders: one for a log does not overtake one for none, nor the other way round.
#[derive(Default)]
struct Order {
    held: VecDeque<Uncommitted>,
    under_way: Vec<UnderWay>,
}

struct UnderWay {
    sender: u64,
    is_for_log: bool,
    delivered: oneshot::Receiver<()>,
}

impl Logs {
    /// Whether they can be used.
    pub(super) fn set_away(&self, is_away: bool) {
        self.0.lock().is_away = is_away;
    }

    /// Drops the first events of a log, up to this offset.
    pub(super) fn trim(&self, log: &LogName, through: u64) {
        let mut state = self.0.lock();
        let log = state.logs.get_mut(log).unwrap();
        log.entries = log.entries.split_off(&(through + 1));
    }

    /// An event that is kept.
    pub(super) fn entry(&self, log: &LogName, offset: u64) -> Option<Entry> {
        self.0.lock().logs.get(log)?.entries.get(&offset).map(|(_, entry)| entry.clone())
    }

    /// Appends an event of a node.
    pub(super) fn append(&self, node: usize, append: &Append) -> Result<Vec<Appended>, Refusal> {
        let mut state = self.0.lock();
        if state.is_away {
            return Err(not_kept());
        }
        let Some((entry, attempt, once)) = append.stored() else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for name in append.logs() {
            let first = once.and_then(|once| {
                let first = state.once.iter().find(|(log, other, _)| log == name && other == once);
                first.map(|(.., position)| position.clone())
            });
            if let Some(position) = first {
                all.push(Appended { position, follows: false, is_duplicate: true });
                continue;
            }
            let log = state.log(name);
            log.last += 1;
            log.entries.insert(log.last, (attempt, entry.clone()));
            let follows = log.by.replace(node) == Some(node);
            let position = Position { offset: log.last, epoch: Arc::clone(&log.epoch) };
            state.once.extend(once.map(|once| (name.clone(), once.clone(), position.clone())));
            all.push(Appended { position, follows, is_duplicate: false });
        }
        Ok(all)
    }

    fn ends(&self, name: &LogName) -> Result<Ends, Unread> {
        let mut state = self.0.lock();
        if state.is_away {
            return Err(away());
        }
        let log = state.log(name);
        let first = log.entries.first_key_value().map_or(log.last + 1, |(first, _)| *first);
        Ok(Ends { epoch: Arc::clone(&log.epoch), first, last: log.last })
    }

    fn read(&self, range: &ReadRange) -> Result<Vec<MissingEntry>, Unread> {
        let mut state = self.0.lock();
        if state.is_away {
            return Err(away());
        }
        let log = state.log(&range.log);
        if log.epoch != range.epoch || !range.backwards && !log.entries.contains_key(range.offsets.start()) {
            return Err(Unread::Gone);
        }
        let entry = |(offset, (attempt, entry)): (&u64, &([u8; 16], Entry))| MissingEntry {
            offset: *offset,
            attempt: *attempt,
            entry: entry.clone(),
        };
        let found = log.entries.range(range.offsets.clone());
        Ok(match range.backwards {
            true => found.rev().take(PORTION).map(entry).collect(),
            false => found.take(PORTION).map(entry).collect(),
        })
    }
}

impl State {
    fn log(&mut self, name: &LogName) -> &mut Log {
        let epochs = &mut self.epochs;
        self.logs.entry(name.clone()).or_insert_with(|| {
            *epochs += 1;
            Log { epoch: format!("epoch-{epochs}").into(), last: 0, entries: BTreeMap::new(), by: None }
        })
    }
}

fn away() -> Unread {
    Unread::Fault(StoreError::Unusable("the logs are away".into()))
}

impl Queues {
    /// Lets a router keep its logs elsewhere.
    pub(super) fn attach(router: Router) -> (Router, Self) {
        let (router, events) = router.with_commits();
        let (router, reads) = router.with_disk_reads();
        (
            router,
            Self {
                events,
                logged: CommitQueue::default(),
                order: Mutex::default(),
                reads: Mutex::new(reads),
                next: Mutex::default(),
            },
        )
    }

    /// Takes the events that wait apart: those for logs, and the others, which `values` gets.
    pub(super) fn sort(&self, router: &Router, values: &CommitQueue) {
        let mut order = self.order.lock();
        let Order { held, under_way } = &mut *order;
        held.extend(from_fn(|| self.events.receive(Duration::ZERO).ok()));
        under_way.retain_mut(|it| matches!(it.delivered.try_recv(), Err(TryRecvError::Empty)));
        for mut event in std::mem::take(held) {
            let (sender, is_for_log) = (event.sender(), router.is_for_log(&event));
            let follows = held.iter().any(|it| it.sender() == sender)
                || under_way.iter().any(|it| it.sender == sender && it.is_for_log != is_for_log);
            if follows {
                held.push_back(event);
                continue;
            }
            under_way.push(UnderWay { sender, is_for_log, delivered: event.delivered() });
            let queue = if is_for_log { &self.logged } else { values };
            assert!(queue.pass_on(event).is_ok());
        }
    }

    /// Stores the next event for a log that waits. Its node does not know yet.
    pub(super) fn store_one(&self, router: &Router, logs: &Logs, node: usize) -> Option<Outcome> {
        let append = router.plan_append(self.logged.receive(Duration::ZERO).ok()?);
        let outcome = logs.append(node, &append);
        Some((append, outcome))
    }

    /// Reads once for the next read that waits. Returns whether there was one.
    pub(super) fn read_one(&self, now: Instant, router: &Router, logs: &Logs) -> bool {
        let mut waiting = self.next.lock();
        waiting.extend(from_fn(|| self.reads.lock().try_receive().ok()));
        let Some(read) = waiting.pop_front() else { return false };
        drop(waiting);
        let next = match read.kind() {
            ReadKind::Ends => {
                let ends = logs.ends(&read.range().log);
                router.take_ends(now, read, ends);
                None
            }
            ReadKind::Missing => {
                let found = logs.read(read.range());
                router.take_missing(now, read, found)
            }
            ReadKind::Entries => {
                let found = logs.read(read.range());
                router.take_read(read, found.map(|all| all.into_iter().map(|it| (it.offset, it.entry)).collect()))
            }
        };
        self.next.lock().extend(next);
        true
    }
}
