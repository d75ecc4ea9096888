//! Plays transcripts on the core, which has no sockets, with a clock of the player's own.
//!
//! Time passes only with `clock +10s`. What becomes due then happens in its order, and nobody answers a ping. A message
//! stays in its session's queue until the transcript shows it, so a session that the transcript does not show reading
//! does not read. Transcripts that need adapters are played over sockets only: see `transcripts.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use switchboard::auth::{AuthError, Claim, Ends, Identity, Open, Verifier};
use switchboard::config::{AuthMode, Config, LoadOptions};
use switchboard::connection::{Connection, Effect, Gone, Input, Settings};
use switchboard::router::{Ids, Policy, Router};
use wire::CloseCode;

use crate::support::transcript::list::{file_of, transcripts_for_everyone, transcripts_with_a_clock};
use crate::support::transcript::{Action, Names, Step, Transcript};

macro_rules! tests {
    ($($name:ident)*) => { $(#[test] fn $name() { play(stringify!($name)); })* };
}

transcripts_for_everyone!(tests);
transcripts_with_a_clock!(tests);

fn play(name: &str) {
    let transcript = Transcript::read(&std::fs::read_to_string(file_of(name)).unwrap());
    let mut stage = Stage::new(&transcript);
    for step in transcript.steps {
        stage.play(name, step);
    }
    // A message that the transcript does not show is a failure.
    for peer in stage.peers.keys().cloned().collect::<Vec<_>>() {
        let left = stage.next(&peer);
        assert!(left.is_none(), "{name}: {peer} has got {left:?}");
    }
}

/// A broker's core, and who is connected to it.
struct Stage {
    router: Router,
    verifier: Box<dyn Verifier>,
    settings: Arc<Settings>,
    now: Instant,
    /// The transcript does not move the clock, so time passes when nothing else can bring what is expected.
    is_patient: bool,
    /// How long every proof of identity lasts, if they end.
    proofs_last: Option<Duration>,
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
    #[expect(clippy::disallowed_methods, reason = "where the clock begins does not matter: it is only added to")]
    fn new(transcript: &Transcript) -> Self {
        let config = config(transcript.config.as_deref());
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
            is_patient: !transcript.needs_a_clock(),
            proofs_last: transcript.proofs_last,
            peers: BTreeMap::new(),
            names: Names::default(),
        }
    }

    fn play(&mut self, name: &str, step: Step) {
        let at = format!("{name}, line {}", step.line);
        match step.action {
            Action::Send(peer, text) => {
                let text = self.names.fill(&text);
                self.connect(&peer);
                self.feed(&peer, Input::Text(&text));
            }
            Action::SendBinary(peer) => {
                self.connect(&peer);
                self.feed(&peer, Input::Binary);
            }
            Action::Expect(peer, mut expected) => {
                while !expected.is_empty() {
                    let found = self.next(&peer).or_else(|| self.next_in_time(&peer));
                    self.compare(&at, &peer, &mut expected, found);
                }
            }
            Action::ExpectOne(peers, expected) => {
                let mut found = peers.iter().filter_map(|peer| Some((peer, self.next(peer)?))).collect::<Vec<_>>();
                assert_eq!(found.len(), 1, "{at}: exactly one of {peers:?}: {found:?}");
                let (peer, found) = found.remove(0);
                self.compare(&at, peer, &mut vec![expected], Some(found));
            }
            Action::Nothing(peer) => {
                let found = self.next(&peer);
                assert!(found.is_none(), "{at}: {peer} has got {found:?}");
            }
            Action::Close(peer, code) => {
                let closed = self.connect(&peer);
                assert_eq!(closed.closed, Some(code), "{at}: {peer}");
                // The queue of a slow consumer is dropped. Every other peer reads what precedes the Close.
                if code == CloseCode::SlowConsumer.code() {
                    closed.taken.clear();
                }
                assert!(closed.taken.is_empty(), "{at}: {peer} has got {:?} before the Close", closed.taken);
            }
            Action::Leave(peer) => {
                self.feed(&peer, Input::Gone(Gone::Lost));
                self.peers.remove(&peer);
            }
            Action::Clock(time) => self.let_pass(time),
            // The core alone has no log to look at.
            Action::Log(_) => {}
        }
    }

    fn compare(&mut self, at: &str, peer: &str, expected: &mut Vec<Value>, found: Option<Value>) {
        let found = found.unwrap_or_else(|| panic!("{at}: {peer} has got nothing, not {expected:?}"));
        if let Err(why) = self.names.compare_any(expected, &found) {
            panic!("{at}: {peer}: {why}\n  expected {}\n  found    {found}", Value::from(expected.clone()));
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
                let ends = self.proofs_last.map(Ends::After);
                let outcome = verified(&*self.verifier, claim)
                    .map(|identity| Identity { ends: ends.unwrap_or(identity.ends), ..identity });
                self.feed(name, Input::Verified(outcome));
            }
            Some(Effect::Close(close)) => {
                peer.take(self.now, &self.router, usize::MAX);
                peer.closed = Some(close.code().code());
            }
            None => {}
        }
        // A session that overflows while it is away ends soon after.
        self.router.expire(self.now);
        self.close_ended();
    }

    /// Closes the connections whose session the router has ended, as their drivers would.
    fn close_ended(&mut self) {
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
            self.close_ended();
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
