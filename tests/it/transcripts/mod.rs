//! Plays the transcripts of tests/it/transcripts over real sockets against the real broker.
//!
//! Transcripts that move the clock are played on the core only: see `core.rs`.

mod core;
pub(crate) mod coverage;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::transcript::list::{file_of, transcripts_for_everyone, transcripts_with_adapters};
use crate::support::transcript::{Action, Names, Step, Transcript};
use crate::support::{Broker, Peer, within};

macro_rules! tests {
    ($($name:ident)*) => { $(#[tokio::test] async fn $name() { play(stringify!($name)).await; })* };
}

transcripts_for_everyone!(tests);
transcripts_with_adapters!(tests);

async fn play(name: &str) {
    let transcript = Transcript::read(&std::fs::read_to_string(file_of(name)).unwrap());
    let broker = match &transcript.config {
        Some(toml) if toml.contains("[auth]") => Broker::with_config(toml).await,
        Some(toml) => Broker::open_with(toml).await,
        None => Broker::start().await,
    };
    let mut stage = Stage { broker, peers: BTreeMap::new(), names: Names::default() };
    for step in transcript.steps {
        stage.play(name, step).await;
    }
    // A message that the transcript does not show is a failure.
    stage.settle().await;
    for (peer, closed) in stage.peers.values_mut() {
        if !*closed {
            peer.expect_nothing().await;
        }
    }
}

struct Stage {
    broker: Broker,
    /// Each with whether the broker has closed it.
    peers: BTreeMap<String, (Peer, bool)>,
    names: Names,
}

impl Stage {
    async fn play(&mut self, name: &str, step: Step) {
        let at = format!("{name}, line {}", step.line);
        match step.action {
            Action::Send(peer, text) => {
                let text = self.names.fill(&text);
                self.peer(&peer).await.send_text(&text).await;
            }
            Action::SendBinary(peer) => self.peer(&peer).await.send_binary(b"\x00\x01").await,
            Action::Expect(peer, mut expected) => {
                while !expected.is_empty() {
                    let found: Value = self.peer(&peer).await.next().await;
                    self.compare(&at, &peer, &mut expected, &found);
                }
            }
            Action::ExpectOne(peers, expected) => {
                let (peer, found) = within(&format!("{at}: one of {peers:?}"), self.next_of(&peers)).await;
                self.compare(&at, &peer, &mut vec![expected], &found);
                for other in peers.iter().filter(|other| **other != peer) {
                    assert!(self.peer(other).await.has_read_all(), "{at}: {other} has got a message, too");
                }
            }
            Action::Nothing(peer) => {
                self.settle().await;
                self.peer(&peer).await.expect_nothing().await;
            }
            Action::Close(peer, code) => {
                let (socket, closed) = self.peers.get_mut(&peer).unwrap_or_else(|| panic!("{at}: who is {peer}?"));
                assert_eq!(socket.closed().await, code, "{at}: {peer}");
                *closed = true;
            }
            Action::Leave(peer) => {
                // The broker handles all that was sent first: a reset could overtake it.
                self.settle().await;
                self.peers.remove(&peer).unwrap_or_else(|| panic!("{at}: who is {peer}?")).0.kill();
            }
            Action::Clock(time) => panic!("{at}: real sockets have no clock to move by {time:?}"),
            Action::Log(words) => {
                let has_all = |line: &str| words.iter().all(|word| line.contains(word));
                self.broker.log_until(&at, |log| log.lines().any(has_all)).await;
                self.settle().await;
                let log = self.broker.log();
                assert_eq!(log.lines().filter(|line| has_all(line)).count(), 1, "{at}: lines with {words:?}");
            }
        }
    }

    fn compare(&mut self, at: &str, peer: &str, expected: &mut Vec<Value>, found: &Value) {
        if let Err(why) = self.names.compare_any(expected, found) {
            panic!("{at}: {peer}: {why}\n  expected {}\n  found    {found}", Value::from(expected.clone()));
        }
    }

    /// The next message of the one of these peers that gets one.
    async fn next_of(&mut self, names: &[String]) -> (String, Value) {
        let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
        loop {
            self.settle().await;
            for name in names {
                let peer = self.peer(name).await;
                if !peer.has_read_all() {
                    return (name.clone(), peer.next().await);
                }
            }
            often.tick().await;
        }
    }

    /// Waits until the broker has handled everything that was sent.
    async fn settle(&mut self) {
        for (peer, closed) in self.peers.values_mut() {
            if !*closed {
                peer.fence().await;
            }
        }
    }

    async fn peer(&mut self, name: &str) -> &mut Peer {
        if !self.peers.contains_key(name) {
            let peer = self.broker.raw(name).await;
            self.peers.insert(name.to_owned(), (peer, false));
        }
        &mut self.peers.get_mut(name).unwrap().0
    }
}
