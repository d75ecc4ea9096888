//! What does a log cost? An event on a channel with history, with and without `once`, beside one on a channel without and
//! beside a log that keeps strings; the replay of a log, beside one that makes each text anew; and a commit of durable events,
//! beside a file that is only appended to and synced.

#![allow(clippy::unwrap_used, reason = "a bench fails loudly")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use parking_lot::Mutex;
use switchboard::config::{Channel, Config, LogBounds};
use switchboard::router::{OnFull, Session};
use switchboard::store::history::{Change, Entry, HistoryFile, HistoryLimits, HistorySettings, LogName};
use switchboard::store::{FolderLock, KeySource};
use switchboard::websocket::Frame;
use wire::command::Role;
use wire::{DecodeLimits, decode};

use crate::support::Broker;

mod support;

/// Bytes of the payload.
const PAYLOADS: [usize; 2] = [256, 4 << 10];

/// The events that a log keeps.
const KEPT: usize = 1_000;

/// The events that share a commit.
const SHARED: [usize; 3] = [1, 10, 100];

fn main() {
    divan::main();
}

struct Stage {
    broker: Broker,
    sender: Arc<Session>,
    receiver: Arc<Session>,
    text: String,
}

impl Stage {
    fn new(bytes: usize) -> Self {
        let mut config = Config::default();
        let history = Some(LogBounds { size: KEPT, ttl: Duration::from_hours(1) });
        config.channels.insert("Phone".into(), Channel { history, ..Channel::default() });
        Self::on(Broker::with(&config), bytes)
    }

    /// One publisher and one subscriber.
    fn on(broker: Broker, bytes: usize) -> Self {
        let [sender, receiver] = ["softphone", "gadget"].map(|source| broker.attach(source));
        broker.subscribe(&receiver, "Phone/Call/Ringing", Role::Subscriber);
        Self { broker, sender, receiver, text: support::event(["Phone", "Call", "Ringing"], bytes) }
    }

    fn full(bytes: usize) -> Self {
        let stage = Self::new(bytes);
        let mut batch = Vec::new();
        for _ in 0..KEPT {
            stage.publish(&stage.text, &mut batch);
        }
        stage
    }

    fn publish(&self, text: &str, batch: &mut Vec<Frame>) {
        self.broker.send(&self.sender, black_box(text));
        black_box(support::take(self.broker.now, &self.receiver, batch));
    }
}

#[divan::bench(args = PAYLOADS)]
fn publish_without_history(bencher: Bencher<'_, '_>, bytes: usize) {
    let (stage, mut batch) = (Stage::on(Broker::new(), bytes), Vec::new());
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| stage.publish(&stage.text, &mut batch));
}

#[divan::bench(args = PAYLOADS)]
fn publish_into_a_log(bencher: Bencher<'_, '_>, bytes: usize) {
    let (stage, mut batch) = (Stage::full(bytes), Vec::new());
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| stage.publish(&stage.text, &mut batch));
}

#[divan::bench(args = PAYLOADS)]
fn publish_once(bencher: Bencher<'_, '_>, bytes: usize) {
    let (stage, mut batch) = (Stage::full(bytes), Vec::new());
    let mut number = 0_u64;
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        number += 1;
        let text = stage.text.replacen('{', &format!(r#"{{"id":"{number}","once":true,"#), 1);
        stage.publish(&text, &mut batch);
    });
}

/// The least that a log can be: the routing fields are read, the text with its number is kept, and framed for one receiver.
#[divan::bench(args = PAYLOADS)]
fn publish_into_a_list_of_strings(bencher: Bencher<'_, '_>, bytes: usize) {
    let (stage, mut batch) = (Stage::on(Broker::new(), bytes), Vec::new());
    let (now, outbox) = (stage.broker.now, stage.receiver.outbox());
    let log = Mutex::new(VecDeque::new());
    let mut number = 0_u64;
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let envelope = decode(black_box(&stage.text), DecodeLimits::client(128)).unwrap();
        number += 1;
        let body = envelope.text().trim_end_matches('}');
        let mut log = log.lock();
        let text = format!(r#"{body},"offset":{number},"epoch":"abcdefghijklmnop"}}"#);
        outbox.push(now, Frame::new(&text), OnFull::Close).unwrap();
        log.push_back(text);
        if log.len() > KEPT {
            log.pop_front();
        }
        drop(log);
        black_box(support::take(now, &stage.receiver, &mut batch));
    });
}

#[divan::bench(args = PAYLOADS)]
fn replay_a_log(bencher: Bencher<'_, '_>, bytes: usize) {
    let stage = Stage::full(bytes);
    let reader = stage.broker.attach("gadget");
    let mut batch = Vec::new();
    bencher.counter(ItemsCount::new(KEPT)).counter(BytesCount::new(KEPT * stage.text.len())).bench_local(|| {
        batch.clear();
        assert_eq!(stage.broker.recover(&reader, "Phone/*/*", KEPT as u64, &mut batch), KEPT);
    });
}

/// Each text is marked and framed when it is sent, as if only the events were kept.
#[divan::bench(args = PAYLOADS)]
fn replay_by_marking_each_text(bencher: Bencher<'_, '_>, bytes: usize) {
    let text = support::event(["Phone", "Call", "Ringing"], bytes);
    let log: Vec<String> = vec![text.clone(); KEPT];
    let mut batch = Vec::new();
    bencher.counter(ItemsCount::new(KEPT)).counter(BytesCount::new(KEPT * text.len())).bench_local(|| {
        batch.clear();
        for text in &log {
            let body = text.trim_end_matches('}');
            batch.push(Frame::join(&[body, ",\"replayed\":true}"], false));
        }
    });
}

/// Events of as many users as share the commit, sealed and synced.
#[divan::bench(args = SHARED, sample_count = 50, sample_size = 1)]
fn commit_durable_events(bencher: Bencher<'_, '_>, events: usize) {
    // On the disk of the build, because a folder for temporary files can be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let settings = HistorySettings { data_dir: folder.path().to_owned(), key: KeySource::DataFolder };
    let limits = HistoryLimits { disk_bytes: 1 << 30, retry: Duration::from_mins(2), ids: 1_000_000 };
    let lock = FolderLock::take(folder.path()).unwrap();
    let mut history = HistoryFile::open(&settings, limits, &lock, &mut |_| {}).unwrap();
    let text: Box<str> = support::event(["Phone", "Call", "Ringing"], PAYLOADS[0]).into();
    let entry = Entry {
        at: 0,
        topic: "Call".into(),
        subtopic: "Ringing".into(),
        user: None,
        to_all: false,
        target: None,
        text,
    };
    let mut offset = 0;
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        offset += 1;
        let change = |user: usize| Change::Append {
            log: LogName { channel: "Phone".into(), user: Some(format!("user {user}").into()) },
            epoch: "epoch".into(),
            offset,
            entry: entry.clone(),
            known: None,
            first: 1,
        };
        #[expect(clippy::disallowed_methods, reason = "a bench has a clock")]
        history.apply(Instant::now(), 0, &(0..events).map(change).collect::<Vec<_>>()).unwrap();
    });
}

/// The least that a commit can be: the texts are written, and synced once.
#[divan::bench(args = SHARED, sample_count = 50, sample_size = 1)]
fn append_to_a_plain_file(bencher: Bencher<'_, '_>, events: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut file = File::create(folder.path().join("log")).unwrap();
    let text = support::event(["Phone", "Call", "Ringing"], PAYLOADS[0]);
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        file.write_all(text.repeat(events).as_bytes()).unwrap();
        file.sync_data().unwrap();
    });
}
