//! Plays the transcripts of tests/it/transcripts over real sockets against the real broker.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::support::transcript::{Action, Names, Step, Transcript};
use crate::support::{Broker, Peer};

const FOLDER: &str = "tests/it/transcripts";

/// One test a file, so that a failure bears the file's name.
macro_rules! transcripts {
    ($($test:ident: $file:literal;)+) => {
        $(#[tokio::test] async fn $test() { play($file).await; })+

        const PLAYED: &[&str] = &[$($file),+];
    };
}

transcripts! {
    a_session_from_register_to_unregister: "session.txt";
    rule_1_a_reply_goes_to_the_asker_alone: "rule-1-reply.txt";
    rule_1_a_reply_may_bear_another_triple: "rule-1-reply-on-another-triple.txt";
    rule_2_a_request_goes_to_one_handler: "rule-2-request.txt";
    rule_2_a_gather_asks_all_handlers: "rule-2-gather.txt";
    rule_2_a_command_is_never_answered: "rule-2-command.txt";
    rule_3_a_protected_triple_is_never_an_event: "rule-3-protected.txt";
    rule_4_an_event_goes_to_every_subscriber: "rule-4-event.txt";
    ordered_handlers_know_no_ids: "ordered-handler.txt";
    two_users_never_hear_each_other: "scope.txt";
    a_wrong_user_is_refused_where_it_is_looked_for: "scope-refusals.txt";
    letter_case_may_fold: "fold-case.txt";
    a_retained_value_waits_for_subscribers: "retained.txt";
    presence_tells_who_is_there: "presence.txt";
    mistakes_are_answered: "errors.txt";
}

#[test]
fn every_transcript_is_played_or_needs_a_clock() {
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let transcript = Transcript::read(&std::fs::read_to_string(&path).unwrap());
        assert_eq!(PLAYED.contains(&name), !transcript.needs_a_clock(), "{name}: list it in transcripts.rs");
    }
}

async fn play(file: &str) {
    let text = std::fs::read_to_string(Path::new(FOLDER).join(file)).unwrap();
    let transcript = Transcript::read(&text);
    let broker = match &transcript.config {
        Some(toml) if toml.contains("[auth]") => Broker::with_config(toml).await,
        Some(toml) => Broker::open_with(toml).await,
        None => Broker::start().await,
    };
    let mut stage = Stage { broker, peers: BTreeMap::new(), names: Names::default() };
    for step in transcript.steps {
        stage.play(file, step).await;
    }
    // What a transcript does not show has not happened.
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
    async fn play(&mut self, file: &str, step: Step) {
        let at = format!("{file}:{}", step.line);
        match step.action {
            Action::Send(peer, text) => {
                let text = self.names.fill(&text);
                self.peer(&peer).await.send_text(&text).await;
            }
            Action::Expect(peer, expected) => {
                let found: Value = self.peer(&peer).await.next().await;
                if let Err(why) = self.names.compare(&expected, &found) {
                    panic!("{at}: {peer}: {why}\n  expected {expected}\n  found    {found}");
                }
            }
            Action::Nothing(peer) => {
                self.settle().await;
                self.peer(&peer).await.expect_nothing().await;
            }
            Action::Close(peer, code) => {
                let peer_and_end = self.peers.get_mut(&peer).unwrap_or_else(|| panic!("{at}: who is {peer}?"));
                assert_eq!(peer_and_end.0.closed().await, code, "{at}: {peer}");
                peer_and_end.1 = true;
            }
            Action::Leave(peer) => {
                // Done with what it said: a reset may overtake it.
                self.settle().await;
                self.peers.remove(&peer).unwrap_or_else(|| panic!("{at}: who is {peer}?")).0.kill();
            }
            Action::Clock(time) => panic!("{at}: real sockets have no clock to move by {time:?}"),
        }
    }

    /// Waits until the broker has done all that was sent.
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
