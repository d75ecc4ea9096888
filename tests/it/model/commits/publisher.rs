//! Publishers: what they send, what they are told of it, and what they send again.

use rand::RngExt;

use super::{CHANNELS, DURABLE, PUBLISHERS, World};
use crate::support::client::Client;

/// An event that a publisher sends.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) channel: &'static str,
    pub(super) number: u64,
    pub(super) once: bool,
}

impl Sent {
    fn text(&self) -> String {
        let Self { channel, number, once } = self;
        let once = if *once { r#","once":true"# } else { "" };
        format!(r#"{{"channel":"{channel}","topic":"Call","subtopic":"Ring","id":"{number}","data":{number}{once}}}"#)
    }
}

pub(super) struct Publisher {
    pub(super) client: Client,
    /// What it has sent in this session, and for which the broker has not said yet whether it took it in.
    pub(super) sent: Vec<Sent>,
    /// What its session has sent in all.
    pub(super) count: u64,
    /// What became of it is unknown, since the broker has died. It is sent again if `once` allows that.
    pub(super) doubtful: Vec<Sent>,
}

impl World {
    pub(super) fn publish(&mut self, at: usize) {
        self.hear_publisher(at);
        if !self.publishers[at].client.connection.reads() {
            return;
        }
        let channel = CHANNELS[self.chance.random_range(0..CHANNELS.len())];
        self.number += 1;
        let once = channel != "Other" && self.chance.random();
        let sent = Sent { channel, number: self.number, once };
        if once {
            self.once.insert(sent.number);
        }
        self.send(at, sent);
    }

    pub(super) fn send(&mut self, at: usize, sent: Sent) {
        self.note(&format!("{} > {sent:?}", PUBLISHERS[at]));
        let publisher = &mut self.publishers[at];
        publisher.client.say(&self.desk, &sent.text());
        publisher.sent.push(sent);
        publisher.count += 1;
    }

    /// Sends as soon as the connection is read.
    pub(super) fn send_when_read(&mut self, at: usize, sent: Sent) {
        while !self.publishers[at].client.connection.reads() {
            self.commit();
        }
        self.send(at, sent);
    }

    /// A publisher's connection is lost, and it returns. What was not taken in is sent again.
    pub(super) fn lose(&mut self, at: usize) {
        self.hear_publisher(at);
        self.note(&format!("{} resumes", PUBLISHERS[at]));
        let publisher = &mut self.publishers[at];
        if self.chance.random() {
            publisher.client.lose(&self.desk);
        }
        let reply = publisher.client.resume(&self.desk);
        assert_eq!(reply["Resumed"], true, "{reply}");
        let missing = publisher.count - reply["Received"].as_u64().unwrap();
        publisher.count -= missing;
        let kept = publisher.sent.len() - usize::try_from(missing).unwrap();
        for sent in publisher.sent.split_off(kept) {
            self.send_when_read(at, sent);
        }
    }

    /// A publisher learns what became of its events.
    pub(super) fn hear_publisher(&mut self, at: usize) {
        let publisher = &mut self.publishers[at];
        publisher.client.poll_commits(&self.desk);
        for answer in publisher.client.take(&self.desk, 1000) {
            let number: u64 = answer["inReplyTo"].as_str().unwrap().parse().unwrap();
            let place = publisher.sent.iter().position(|sent| sent.number == number);
            let sent = publisher.sent[place.expect("an answer to something that it sent")].clone();
            match answer["subtopic"].as_str().unwrap() {
                "Receipt" if DURABLE.contains(&sent.channel) => {
                    let data = &answer["data"];
                    let key = (
                        sent.channel.to_owned(),
                        data["Epoch"].as_str().unwrap().to_owned(),
                        data["Offset"].as_u64().unwrap(),
                    );
                    self.promised.insert(key, number);
                }
                "Receipt" => {}
                _ => {
                    assert_eq!(answer["data"]["ErrorCode"], "STORAGE_UNAVAILABLE", "{answer}");
                    assert_ne!(sent.channel, "Other", "it need not be on disk");
                    self.refused.insert(number);
                }
            }
        }
    }
}
