//! Subscribers: from where they subscribe, and what each event that they receive has to fit.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Waker};

use serde_json::{Value, json};
use switchboard::connection::Input;

use super::{DURABLE, SUBSCRIBERS, World};
use crate::support::client::Client;

pub(super) struct Subscriber {
    pub(super) client: Client,
    /// The last number that came live, by publisher.
    pub(super) last: BTreeMap<String, u64>,
    /// The last position that it has of each durable channel.
    pub(super) positions: BTreeMap<&'static str, (String, u64)>,
    /// The offsets of each channel that came in this session.
    pub(super) seen: BTreeSet<(String, String, u64)>,
}

impl World {
    /// Subscribes, from the last position on. Waits for the disk if that is needed.
    pub(super) fn subscribe(&mut self, at: usize, channel: &'static str) {
        let subscriber = &mut self.subscribers[at];
        let mut data = json!({"channel": channel, "topic": "*", "subtopic": "*"});
        if DURABLE.contains(&channel) {
            data["recover"] = match subscriber.positions.get(channel) {
                Some((epoch, offset)) => json!({ "epoch": epoch, "offset": offset }),
                None => json!({ "last": 1000 }),
            };
        }
        self.subscribers[at].client.command(&self.desk, "Subscription", "Subscribe", &data);
        let mut replies = Vec::new();
        // Nothing else is read before all that is replayed was taken.
        while replies.is_empty() || !self.subscribers[at].client.connection.reads() {
            self.read_disk(at);
            replies.extend(self.take(at));
        }
        let data = &replies[0]["data"];
        assert_eq!(data["Success"], true, "{data}");
        if data["Recovered"] == false {
            let position = (data["Epoch"].as_str().unwrap().to_owned(), data["Offset"].as_u64().unwrap());
            self.subscribers[at].positions.insert(channel, position);
        }
    }

    /// A subscriber takes what waits for it. Returns the answers to its commands.
    pub(super) fn take(&mut self, at: usize) -> Vec<Value> {
        let subscriber = &mut self.subscribers[at];
        let mut received = Vec::new();
        loop {
            let more = subscriber.client.take(&self.desk, 1000);
            if more.is_empty() {
                break;
            }
            received.extend(more);
        }
        for event in received.iter().filter(|event| event["channel"] != "Broker") {
            let (number, source) = (event["data"].as_u64().unwrap(), event["source"].as_str().unwrap().to_owned());
            let name = event["channel"].as_str().unwrap();
            assert!(!self.refused.contains(&number), "{event} was refused");
            if event["replayed"] != true {
                let last = subscriber.last.insert(source, number);
                assert!(last.is_none_or(|last| last < number), "{event} came after {last:?}");
            }
            let Some(channel) = DURABLE.into_iter().find(|channel| *channel == name) else { continue };
            let (epoch, offset) = (event["epoch"].as_str().unwrap().to_owned(), event["offset"].as_u64().unwrap());
            assert!(subscriber.seen.insert((name.to_owned(), epoch.clone(), offset)), "{event} came twice");
            if let Some((known, last)) = subscriber.positions.insert(channel, (epoch.clone(), offset)) {
                assert!(known != epoch || last + 1 == offset, "{event} came after {last}");
            }
            let log = self.disk.logs.iter().find(|(log, _)| *log.channel == *name).map(|(_, log)| log);
            let log = log.filter(|log| *log.epoch == *epoch).expect("a log that is on disk");
            let first = log.entries.first_key_value().map_or(0, |(first, _)| *first);
            assert!(offset < first || log.entries.contains_key(&offset), "{event} is not on disk");
            self.promised.insert((name.to_owned(), epoch, offset), number);
        }
        self.note(&format!("{} < {} messages", SUBSCRIBERS[at], received.len()));
        received.into_iter().filter(|it| it["subtopic"] == "Subscribe").collect()
    }

    /// Reads what is asked of the disk, and lets a connection go on. Reading does not fail here.
    pub(super) fn read_disk(&mut self, at: usize) {
        let is_failing = std::mem::replace(&mut self.disk.is_failing, false);
        self.from_disk += self.disk.read_some(&self.desk.core.router);
        self.disk.is_failing = is_failing;
        let cx = &mut Context::from_waker(Waker::noop());
        let client = &mut self.subscribers[at].client;
        if client.connection.poll_look(cx).is_ready() {
            client.handle(&self.desk, Input::Looked);
        }
        if client.connection.poll_pause(cx).is_ready() {
            client.handle(&self.desk, Input::Relieved);
        }
    }

    /// A subscriber's connection is lost, and it resumes.
    pub(super) fn return_subscriber(&mut self, at: usize) {
        let subscriber = &mut self.subscribers[at];
        subscriber.client.lose(&self.desk);
        let reply = subscriber.client.resume(&self.desk);
        assert_eq!(reply["Resumed"], true, "{reply}");
        self.note(&format!("{} resumes", SUBSCRIBERS[at]));
    }
}
