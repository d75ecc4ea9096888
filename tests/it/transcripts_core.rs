//! Plays transcripts on the pure core, with a clock of its own: no socket, no waiting, and ten seconds pass in none.
//!
//! Time stands still but for `clock +10s`. Then what comes due happens in its order, and nobody answers a ping. A message
//! stays in its session's queue until the transcript shows it, so who is not shown reading does not read. Transcripts
//! that need no clock are played here too: the core alone keeps the rules that they show.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use switchboard::auth::{AuthError, Claim, Identity, Open, Verifier};
use switchboard::config::{AuthMode, Config, LoadOptions};
use switchboard::connection::{Connection, Effect, Input, Settings};
use switchboard::router::{Ids, Policy, Router};

use crate::support::transcript::{Action, Names, Step, Transcript};

const FOLDER: &str = "tests/it/transcripts";

/// One test a file, so that a failure bears the file's name.
macro_rules! transcripts {
    ($($test:ident: $file:literal;)+) => {
        $(#[test] fn $test() { play($file); })+

        const PLAYED: &[&str] = &[$($file),+];
    };
}

transcripts! {
    a_request_ends_at_its_time_limit: "clock-request.txt";
    a_reply_with_more_restarts_the_clock: "clock-more.txt";
    a_late_answer_in_turn_is_discarded: "clock-ordered.txt";
    a_connection_has_to_register_in_time: "clock-registration.txt";
    a_peer_that_answers_no_ping_is_dead: "clock-heartbeat.txt";
    a_slow_reader_is_warned_once_a_second: "clock-lagging.txt";
    a_silent_handler_is_asked_last: "clock-missed.txt";
    an_idempotent_request_survives_its_handler: "clock-idempotent.txt";
}

#[test]
fn transcripts_without_a_clock_play_on_the_core_too() {
    for entry in std::fs::read_dir(FOLDER).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !PLAYED.contains(&name) {
            play(name);
        }
    }
}

fn play(file: &str) {
    let text = std::fs::read_to_string(Path::new(FOLDER).join(file)).unwrap();
    let transcript = Transcript::read(&text);
    let mut stage = Stage::new(transcript.config.as_deref(), !transcript.needs_a_clock());
    for step in transcript.steps {
        stage.play(file, step);
    }
    // What a transcript does not show has not happened.
    for name in stage.peers.keys().cloned().collect::<Vec<_>>() {
        let left = stage.next(&name);
        assert!(left.is_none(), "{file}: {name} has not shown {left:?}");
    }
}

/// A broker's core, and who is connected to it.
struct Stage {
    router: Router,
    verifier: Box<dyn Verifier>,
    settings: Arc<Settings>,
    now: Instant,
    /// Nobody says when time passes: it does when nothing else can bring what is expected.
    is_patient: bool,
    peers: BTreeMap<String, Peer>,
    names: Names,
}

struct Peer {
    connection: Connection,
    /// Taken from the outbox and not yet shown.
    taken: VecDeque<Value>,
    closed: Option<u16>,
}

impl Peer {
    fn take(&mut self, now: Instant, router: &Router, most: usize) {
        let mut frames = Vec::new();
        self.connection.take(now, most, router, &mut frames);
        let texts = frames.iter().filter(|frame| !frame.is_empty());
        self.taken.extend(texts.map(|frame| serde_json::from_str::<Value>(frame.text()).unwrap()));
    }

    fn is_ready(&self) -> bool {
        self.closed.is_none() && self.connection.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready()
    }
}

impl Stage {
    #[expect(clippy::disallowed_methods, reason = "where the clock begins is no matter: it is only added to")]
    fn new(toml: Option<&str>, is_patient: bool) -> Self {
        let config = config(toml);
        let now = Instant::now();
        let verifier: Box<dyn Verifier> = match config.auth {
            AuthMode::Open => Box::new(Open),
            AuthMode::Tokens => Box::new(config.token_table()),
        };
        Self {
            router: Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(0), Vec::new()),
            verifier,
            settings: Arc::new(Settings::new(config.limits)),
            now,
            is_patient,
            peers: BTreeMap::new(),
            names: Names::default(),
        }
    }

    fn play(&mut self, file: &str, step: Step) {
        let at = format!("{file}:{}", step.line);
        match step.action {
            Action::Send(peer, text) => {
                let text = self.names.fill(&text);
                self.connect(&peer);
                self.feed(&peer, Input::Text(&text));
            }
            Action::Expect(peer, expected) => {
                let found = self.next(&peer).or_else(|| self.next_in_time(&peer));
                let found = found.unwrap_or_else(|| panic!("{at}: {peer} has got nothing"));
                if let Err(why) = self.names.compare(&expected, &found) {
                    panic!("{at}: {peer}: {why}\n  expected {expected}\n  found    {found}");
                }
            }
            Action::Nothing(peer) => {
                let found = self.next(&peer);
                assert!(found.is_none(), "{at}: {peer} has got {found:?}");
            }
            Action::Close(peer, code) => assert_eq!(self.connect(&peer).closed, Some(code), "{at}: {peer}"),
            Action::Leave(peer) => {
                self.feed(&peer, Input::Gone);
                self.peers.remove(&peer);
            }
            Action::Clock(time) => self.let_pass(time),
        }
    }

    fn connect(&mut self, name: &str) -> &mut Peer {
        let (now, settings) = (self.now, &self.settings);
        self.peers.entry(name.to_owned()).or_insert_with(|| {
            let connection = Connection::new(now, IpAddr::V4(Ipv4Addr::LOCALHOST), Arc::clone(settings), 1);
            Peer { connection, taken: VecDeque::new(), closed: None }
        })
    }

    fn next(&mut self, name: &str) -> Option<Value> {
        self.connect(name);
        let peer = self.peers.get_mut(name)?;
        // A replay that is not exhausted may give nothing at first.
        while peer.taken.is_empty() && peer.is_ready() {
            peer.take(self.now, &self.router, 1);
        }
        peer.taken.pop_front()
    }

    /// What comes to a peer when the next request is over.
    fn next_in_time(&mut self, name: &str) -> Option<Value> {
        let deadline = self.router.deadline().filter(|_| self.is_patient)?;
        self.let_pass(deadline.saturating_duration_since(self.now));
        self.next(name)
    }

    /// Gives a connection an input and carries out what follows. A pause is ignored: the next line is read when it comes.
    fn feed(&mut self, name: &str, input: Input<'_>) {
        let Some(peer) = self.peers.get_mut(name) else { return };
        match peer.connection.handle(self.now, input, &self.router) {
            Some(Effect::Verify(claim)) => {
                let outcome = verified(&*self.verifier, claim);
                self.feed(name, Input::Verified(outcome));
            }
            Some(Effect::Close(close)) => {
                peer.take(self.now, &self.router, usize::MAX);
                peer.closed = Some(close.code().code());
            }
            None => {}
        }
        // Whose session the input has ended.
        for name in self.peers.keys().cloned().collect::<Vec<_>>() {
            let ended = self.peers.get(&name).and_then(|peer| peer.connection.ended());
            if let Some(end) = ended {
                self.feed(&name, Input::Ended(end));
            }
        }
    }

    /// Time passes, from one deadline to the next.
    fn let_pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let sessions = self.peers.values().filter_map(|peer| peer.connection.deadline());
            let next = sessions.chain(self.router.deadline()).min().filter(|next| *next <= until);
            self.now = next.unwrap_or(until);
            self.router.expire(self.now);
            for name in self.peers.keys().cloned().collect::<Vec<_>>() {
                if self.peers[&name].connection.deadline().is_some_and(|deadline| deadline <= self.now) {
                    self.feed(&name, Input::Timeout);
                }
            }
            if next.is_none() {
                return;
            }
        }
    }
}

/// A transcript's configuration, in open mode unless it says otherwise.
fn config(toml: Option<&str>) -> Config {
    let Some(toml) = toml else { return Config::default() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchboard.toml");
    std::fs::write(&file, toml).unwrap();
    let mut config = Config::load(LoadOptions { file: Some(file), ..LoadOptions::default() }).unwrap();
    if !toml.contains("[auth]") {
        config.auth = AuthMode::Open;
    }
    config
}

/// Asks a verifier that answers at once.
fn verified(verifier: &dyn Verifier, claim: Claim) -> Result<Identity, AuthError> {
    match pin!(verifier.verify(claim)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("tokens are looked up, not waited for"),
    }
}
