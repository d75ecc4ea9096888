//! [`Bus`]: the events and subscribers of every topic. A topic exists once it is requested or published to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::avro::Shape;
use super::made_id;
use super::shapes::{self, Change, ChangeKind};
use crate::schema::Schema;

/// How many events a topic keeps; older ones are gone, as in an org after three days.
const KEPT: usize = 10_000;

/// The number of a topic's first event. Not 0, so that there is a position before it.
const FIRST: u64 = 1000;

/// The events of an org.
pub(crate) struct Bus {
    topics: Mutex<BTreeMap<String, Topic>>,
    /// The most events that were ever requested on a stream and not delivered.
    pub(super) owed_most: AtomicUsize,
    /// Changes when streams have something to do: events or keep-alives.
    pub(super) news: watch::Sender<News>,
}

/// The events so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    pub(super) published: u64,
    pub(super) keep_alives: u64,
}

struct Topic {
    shape: Shape,
    schema_id: String,
    schema_json: String,
    events: VecDeque<Event>,
    next: u64,
    streams: usize,
}

/// An event.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) number: u64,
    pub(super) id: String,
    pub(super) schema_id: String,
    pub(super) payload: Vec<u8>,
}

/// The description of a topic.
pub(super) struct Known {
    pub(super) schema_id: String,
    /// The first and the last event that is kept; the last may be before the first.
    pub(super) kept: (u64, u64),
}

impl Default for Bus {
    fn default() -> Self {
        Self { topics: Mutex::default(), owed_most: AtomicUsize::new(0), news: watch::Sender::new(News::default()) }
    }
}

impl Bus {
    /// A topic, if its object exists.
    pub(super) fn topic(&self, schema: &Schema, name: &str) -> Option<Known> {
        self.with(schema, name, |topic| Known { schema_id: topic.schema_id.clone(), kept: topic.kept() })
    }

    /// A schema.
    pub(super) fn schema(&self, id: &str) -> Option<String> {
        self.topics.lock().values().find(|it| it.schema_id == id).map(|it| it.schema_json.clone())
    }

    /// Publishes a record on a topic, or says why it cannot.
    pub(crate) fn publish(
        &self,
        now: Duration,
        schema: &Schema,
        topic: &str,
        by: &str,
        record: &Map<String, Value>,
    ) -> Result<(), String> {
        let object = topic.strip_prefix("/event/").ok_or("records are published on topics /event/NAME__e only")?;
        let change = Change {
            object: object.to_owned(),
            id: String::new(),
            kind: ChangeKind::Publish,
            by: by.to_owned(),
            before: Map::new(),
            after: record.clone(),
        };
        self.tell(now, schema, &change)
    }

    /// Publishes the change of a record.
    pub(crate) fn tell(&self, now: Duration, schema: &Schema, change: &Change) -> Result<(), String> {
        let name = change.topic();
        let told = self.with(schema, &name, |topic| {
            let record = shapes::record(now, topic.next, &topic.shape, change);
            let payload = topic.shape.written(&record)?;
            let (id, schema_id) = (made_id(), topic.schema_id.clone());
            topic.add(id, schema_id, payload);
            Ok(())
        });
        told.unwrap_or_else(|| Err(format!("there is no topic {name}")))?;
        self.news.send_modify(|news| news.published += 1);
        Ok(())
    }

    /// Publishes a payload unchanged and returns its number.
    pub(super) fn add(&self, topic: &str, id: String, schema_id: String, payload: Vec<u8>) -> Option<u64> {
        let number = self.topics.lock().get_mut(topic).map(|topic| topic.add(id, schema_id, payload));
        self.news.send_modify(|news| news.published += 1);
        number
    }

    /// Returns events after a number, up to a maximum.
    pub(super) fn after(&self, topic: &str, number: u64, most: usize) -> Vec<Event> {
        let topics = self.topics.lock();
        let events = topics.get(topic).map(|topic| topic.events.iter()).unwrap_or_default();
        events.filter(|event| event.number > number).take(most).cloned().collect()
    }

    /// Requests a keep-alive on every stream.
    pub(crate) fn keep_alive(&self) {
        self.news.send_modify(|news| news.keep_alives += 1);
    }

    /// How many streams of a topic are open.
    pub(crate) fn streams(&self, topic: &str) -> usize {
        self.topics.lock().get(topic).map_or(0, |topic| topic.streams)
    }

    /// The most events that were ever requested on a stream and not delivered.
    pub(crate) fn owed_most(&self) -> usize {
        self.owed_most.load(Ordering::Relaxed)
    }

    /// Counts a stream that opens or closes.
    pub(super) fn count(&self, topic: &str, change: impl Fn(usize) -> usize) {
        if let Some(topic) = self.topics.lock().get_mut(topic) {
            topic.streams = change(topic.streams);
        }
    }

    /// Forgets all events.
    pub(crate) fn clear(&self) {
        self.topics.lock().values_mut().for_each(|topic| topic.events.clear());
    }

    fn with<T>(&self, schema: &Schema, name: &str, ask: impl FnOnce(&mut Topic) -> T) -> Option<T> {
        let mut topics = self.topics.lock();
        if !topics.contains_key(name) {
            let shape = shapes::of_topic(schema, name)?;
            topics.insert(name.to_owned(), Topic::new(shape));
        }
        topics.get_mut(name).map(ask)
    }
}

impl Topic {
    fn new(shape: Shape) -> Self {
        let schema_json = shape.schema().to_string();
        let mut schema_id = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&schema_json));
        // As long as those of an org.
        schema_id.truncate(22);
        Self { shape, schema_id, schema_json, events: VecDeque::new(), next: FIRST, streams: 0 }
    }

    fn kept(&self) -> (u64, u64) {
        (self.events.front().map_or(self.next, |event| event.number), self.next - 1)
    }

    fn add(&mut self, id: String, schema_id: String, payload: Vec<u8>) -> u64 {
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
        let number = self.next;
        self.events.push_back(Event { number, id, schema_id, payload });
        self.next += 1;
        number
    }
}
