//! [`Storing`]: the retained values of the cluster, in a bucket of JetStream (docs/cluster.md).
//!
//! One task takes the events that wait for their commit, puts their values into the bucket, and lets the router deliver them in
//! the order in which they came. Values of different keys are put at once, those of one key one after the other. The same task
//! reads the bucket: all of it at start, and on from there when a peer can have put something there that did not arrive.
//!
//! Events of channels with history enter their logs first, and put their values themselves (`history`).
//!
//! `bucket` is how values are written and read. `adopt` is for values that one broker kept.

mod adopt;
mod bucket;

use std::collections::HashSet;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, sleep_until};

use super::NATS_WAIT;
use super::jetstream::StorageError;
use crate::router::{Batch, CommitQueue, Router};
pub(super) use adopt::{ValueOutcome, adopt_value};
pub(super) use bucket::Bucket;
use bucket::Item;
use wire::{ErrorCode, Refusal};

/// How many events are under way to the bucket at once.
const UNDER_WAY_MAX: usize = 1024;

/// How long after a failure the bucket is read again. Subscriptions wait for it.
const AGAIN: Duration = Duration::from_millis(250);

/// How often the bucket is read after a put of which nobody knows what became, and how long after each other: it may still be
/// on its way.
const DOUBTS: u8 = 3;
const DOUBT: Duration = Duration::from_secs(1);

/// What the task needs.
pub(super) struct Storing {
    pub(super) queue: CommitQueue,
    pub(super) bucket: Arc<Bucket>,
}

/// Events whose values are being put, with their keys, and the revisions of what was put.
type Puts = Pin<Box<dyn Future<Output = (Batch, Vec<String>, Result<Vec<u64>, StorageError>)> + Send>>;

/// Whether the bucket was read to its end.
type Reading = Pin<Box<dyn Future<Output = Result<(), StorageError>> + Send>>;

impl Storing {
    /// Reads the bucket, says what came of it, and serves it for as long as the node runs.
    pub(super) async fn run(self, read: SyncSender<Result<(), StorageError>>) {
        let Self { queue, bucket } = self;
        let (until, last) = (Instant::now() + NATS_WAIT, Arc::<AtomicU64>::default());
        let begun = bucket.router.begin_read_of_values();
        let outcome = loop {
            let outcome = Arc::clone(&bucket).read_on(Arc::clone(&last)).await;
            if outcome.is_ok() || Instant::now() >= until {
                break outcome;
            }
            sleep_until(Instant::now() + AGAIN).await;
        };
        let is_read = outcome.is_ok();
        if is_read {
            bucket.router.values_read(begun);
        }
        // Nobody waits for it if the start was given up.
        read.send(outcome).ok();
        if is_read {
            let under_way = FuturesOrdered::new();
            Task { queue, bucket, under_way, busy: HashSet::new(), next: None, reader: Reader::new(last) }
                .serve()
                .await;
        }
    }
}

struct Task {
    queue: CommitQueue,
    bucket: Arc<Bucket>,
    under_way: FuturesOrdered<Puts>,
    /// The keys whose values are under way.
    busy: HashSet<String>,
    /// What waits for one of them.
    next: Option<(Batch, Vec<Item>)>,
    reader: Reader,
}

impl Task {
    async fn serve(mut self) {
        let bucket = Arc::clone(&self.bucket);
        let router = &bucket.router;
        loop {
            self.clear_forgotten();
            self.start_puts();
            self.reader.start(&self.bucket);
            let missed = async {
                match router.values_missed() {
                    Some(missed) => missed.notified().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.under_way.next() => self.put(done),
                () = self.queue.arrived().notified() => {}
                outcome = self.reader.read() => self.reader.note(outcome, router),
                () = missed => self.reader.want(),
                () = bucket.in_doubt().notified() => self.reader.doubt(),
            }
        }
    }

    /// Puts the values of the next events, as far as no earlier value of their keys is under way.
    fn start_puts(&mut self) {
        while self.under_way.len() < UNDER_WAY_MAX {
            let Some((batch, items)) = self.next.take().or_else(|| self.take_event()) else { return };
            if items.iter().any(|item| self.busy.contains(&item.subject)) {
                self.next = Some((batch, items));
                return;
            }
            let subjects: Vec<_> = items.iter().map(|item| item.subject.clone()).collect();
            self.busy.extend(subjects.iter().cloned());
            let bucket = Arc::clone(&self.bucket);
            self.under_way.push_back(Box::pin(async move {
                let outcome = bucket.put_all(&items).await;
                (batch, subjects, outcome)
            }));
        }
    }

    /// Takes the next event, and what has to be put for it.
    fn take_event(&self) -> Option<(Batch, Vec<Item>)> {
        let event = self.queue.receive(Duration::ZERO).ok()?;
        let batch = self.bucket.router.plan(now(), vec![event]);
        let items = batch.changes().iter().filter_map(|change| self.bucket.item(change)).collect();
        Some((batch, items))
    }

    /// The values of an event were put, or could not be.
    fn put(&mut self, (batch, subjects, outcome): (Batch, Vec<String>, Result<Vec<u64>, StorageError>)) {
        for subject in &subjects {
            self.busy.remove(subject);
        }
        let router = &self.bucket.router;
        match outcome {
            Ok(revisions) => router.finish_revised(now(), batch, Ok(&revisions)),
            Err(error) => {
                if matches!(error, StorageError::Unavailable(_)) {
                    self.reader.doubt();
                }
                tracing::debug!(%error, "a retained value cannot be put into JetStream");
                router.finish_revised(now(), batch, Err(&refusal(&error)));
            }
        }
    }

    /// Clears values that are in the bucket although a reload has ended them.
    fn clear_forgotten(&mut self) {
        let forgotten = self.bucket.router.forgotten(|_, _| false);
        for item in forgotten.iter().filter(|it| it.cleared().is_some()).filter_map(|it| self.bucket.item(it)) {
            let bucket = Arc::clone(&self.bucket);
            // Nothing is delivered for it.
            let batch = self.bucket.router.plan(now(), Vec::new());
            self.under_way.push_back(Box::pin(async move {
                let outcome = bucket.put_all(&[item]).await;
                (batch, Vec::new(), outcome)
            }));
        }
    }
}

/// Reads the bucket on, when there is something to read.
struct Reader {
    /// The revision up to which it was read.
    last: Arc<AtomicU64>,
    /// The read that is under way, and what it will have.
    reading: Option<(u64, Reading)>,
    /// When it is to be read.
    at: Option<Instant>,
    /// How often it has yet to be read because nobody knows what became of a put.
    doubts: u8,
}

impl Reader {
    fn new(last: Arc<AtomicU64>) -> Self {
        Self { last, reading: None, at: None, doubts: 0 }
    }

    /// There may be something to read. A read that is under way does not have it, and may wait for an answer that was lost with
    /// the connection to NATS: it begins anew where it is.
    fn want(&mut self) {
        (self.reading, self.at) = (None, Some(Instant::now()));
    }

    /// A put was not acknowledged. If its value is in the bucket, all nodes have to know.
    fn doubt(&mut self) {
        self.doubts = DOUBTS;
        self.at.get_or_insert(Instant::now() + DOUBT);
    }

    fn start(&mut self, bucket: &Arc<Bucket>) {
        if self.reading.is_none() && self.at.is_some_and(|at| at <= Instant::now()) {
            self.at = None;
            let begun = bucket.router.begin_read_of_values();
            self.reading = Some((begun, Box::pin(Arc::clone(bucket).read_on(Arc::clone(&self.last)))));
        }
    }

    /// Ready when the bucket was read, or is to be.
    async fn read(&mut self) -> Option<(u64, Result<(), StorageError>)> {
        match (&mut self.reading, self.at) {
            (Some((begun, reading)), _) => {
                let (begun, outcome) = (*begun, reading.await);
                self.reading = None;
                Some((begun, outcome))
            }
            (None, Some(at)) => {
                sleep_until(at).await;
                None
            }
            (None, None) => pending().await,
        }
    }

    fn note(&mut self, outcome: Option<(u64, Result<(), StorageError>)>, router: &Router) {
        let Some((begun, outcome)) = outcome else { return };
        if let Err(error) = outcome {
            tracing::debug!(%error, "the retained values of the cluster cannot be read now");
            self.at = Some(Instant::now() + AGAIN);
            return;
        }
        router.values_read(begun);
        if self.doubts > 0 {
            self.doubts -= 1;
            router.let_peers_read_values();
            if self.doubts > 0 {
                self.at = Some(Instant::now() + DOUBT);
            }
        }
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn refusal(error: &StorageError) -> Refusal {
    match error {
        StorageError::TooLarge => Refusal::new(
            ErrorCode::TooLarge,
            "neither kept nor sent: a retained value has to fit max_payload of the NATS servers",
        ),
        StorageError::Conflict | StorageError::Unavailable(_) => Refusal::new(
            ErrorCode::StorageUnavailable,
            "the storage of the cluster has not confirmed the retained value in time, so the event was not delivered; send \
             it again later",
        ),
    }
}
