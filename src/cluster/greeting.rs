//! [`Greetings`]: how an incarnation proves that it is there, before it gets a link.
//!
//! A beat can be a recorded one, so it proves nothing. Each side sends a random challenge to the subject of the other
//! incarnation, and has its proof when that challenge is sent back. A side without a challenge needs no proof.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::packet::{About, Challenge};
use super::seal::Fingerprint;
use super::{Incarnation, NodeId, PEERS_MAX};

/// How often an incarnation is greeted that does not answer.
pub(super) const GREET_EVERY: Duration = Duration::from_millis(100);

/// How long an incarnation is greeted after its last beat.
const GREET_FOR: Duration = Duration::from_secs(2);

/// Incarnations without a link that are greeted at the same time, and greetings that wait to be sent.
const CANDIDATES_MAX: usize = 2 * PEERS_MAX;

/// An incarnation that has not proved that it is there.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) incarnation: Incarnation,
    pub(super) about: About,
    challenge: Challenge,
    /// The greatest counters of its greetings and its beats.
    pub(super) counter: u64,
    pub(super) beat_counter: u64,
    /// The key with which it sealed what arrived last, so that it can open what is sealed with it.
    pub(super) key: Option<Fingerprint>,
    heard: Instant,
    greet_at: Instant,
}

impl Candidate {
    /// Returns whether a greeting sends back what this incarnation was asked to send back.
    pub(super) fn is_proved_by(&self, echo: Option<Challenge>) -> bool {
        echo == Some(self.challenge)
    }
}

/// A greeting to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) node: NodeId,
    pub(super) to: Incarnation,
    pub(super) challenge: Option<Challenge>,
    pub(super) echo: Option<Challenge>,
    /// The key that its receiver has. Whether it has the first one of this node is not known before it has answered.
    pub(super) key: Option<Fingerprint>,
}

/// The incarnations without a link, and the greetings that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Greetings {
    candidates: Vec<Candidate>,
    waiting: VecDeque<Hello>,
}

impl Greetings {
    /// Returns the candidate of this incarnation; if it is new, it is greeted after `wait`.
    pub(super) fn candidate(
        &mut self,
        now: Instant,
        incarnation: Incarnation,
        about: &About,
        wait: Duration,
        challenge: impl FnOnce() -> Challenge,
    ) -> &mut Candidate {
        let known = self.candidates.iter().position(|it| it.incarnation == incarnation);
        let at = known.unwrap_or_else(|| {
            if self.candidates.len() >= CANDIDATES_MAX {
                // The one that has been silent for longest. One that is there answers within milliseconds.
                let oldest = self.candidates.iter().enumerate().min_by_key(|(_, it)| it.heard).map(|(at, _)| at);
                oldest.map(|at| self.candidates.swap_remove(at));
            }
            let (counter, beat_counter, key, greet_at) = (0, 0, None, now + wait);
            let challenge = challenge();
            let about = about.clone();
            let new = Candidate { incarnation, about, challenge, counter, beat_counter, key, heard: now, greet_at };
            self.candidates.push(new);
            self.candidates.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found, or pushed just now")]
        let candidate = &mut self.candidates[at];
        candidate.heard = now;
        candidate
    }

    /// Returns the candidate of this incarnation if there is one.
    pub(super) fn find(&self, incarnation: Incarnation) -> Option<&Candidate> {
        self.candidates.iter().find(|it| it.incarnation == incarnation)
    }

    /// Removes a candidate.
    pub(super) fn remove(&mut self, incarnation: Incarnation) {
        self.candidates.retain(|it| it.incarnation != incarnation);
    }

    /// Answers a greeting that was sealed with `key`; with a challenge, if this incarnation still has to prove itself.
    pub(super) fn answer(&mut self, node: &NodeId, to: Incarnation, echo: Challenge, key: Fingerprint) {
        let challenge = self.find(to).map(|it| it.challenge);
        self.push(Hello { node: node.clone(), to, challenge, echo: Some(echo), key: Some(key) });
    }

    /// Returns the next greeting to send.
    pub(super) fn pop(&mut self) -> Option<Hello> {
        self.waiting.pop_front()
    }

    /// Drops the greetings that were not sent, because NATS is away.
    pub(super) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Greets the candidates whose turn it is, and forgets those that are silent.
    pub(super) fn fire(&mut self, now: Instant) {
        self.candidates.retain(|it| now < it.heard + GREET_FOR);
        let mut due = Vec::new();
        for it in self.candidates.iter_mut().filter(|it| it.greet_at <= now) {
            it.greet_at = now + GREET_EVERY;
            due.push(Hello {
                node: it.about.node.clone(),
                to: it.incarnation,
                challenge: Some(it.challenge),
                echo: None,
                key: it.key,
            });
        }
        for hello in due {
            self.push(hello);
        }
    }

    /// When [`Greetings::fire`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.candidates.iter().map(|it| it.greet_at.min(it.heard + GREET_FOR)).min()
    }

    /// Adds a greeting, or joins it with one to the same incarnation.
    fn push(&mut self, hello: Hello) {
        if let Some(waiting) = self.waiting.iter_mut().find(|it| it.to == hello.to) {
            waiting.challenge = hello.challenge.or(waiting.challenge);
            waiting.echo = hello.echo.or(waiting.echo);
            waiting.key = hello.key.or(waiting.key);
        } else if self.waiting.len() < CANDIDATES_MAX {
            // Else it is dropped: both sides greet again.
            self.waiting.push_back(hello);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::VERSIONS;
    use crate::cluster::bus::start;

    const KEY: Fingerprint = Fingerprint([3; 8]);

    fn about() -> About {
        About {
            node: NodeId::new("b").unwrap(),
            versions: VERSIONS,
            live: true,
            keys: smallvec::smallvec![KEY],
            digest: Vec::new(),
        }
    }

    fn incarnation(number: usize) -> Incarnation {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Incarnation(bytes)
    }

    fn add(greetings: &mut Greetings, now: Instant, number: usize) {
        greetings.candidate(now, incarnation(number), &about(), Duration::ZERO, || [7; 16]);
    }

    #[test]
    fn a_candidate_is_greeted_every_100_ms_for_2_s() {
        let (start, mut greetings) = (start(), Greetings::default());
        add(&mut greetings, start, 1);
        let (mut now, mut greeted) = (start, 0);
        while let Some(deadline) = greetings.deadline() {
            now = deadline;
            greetings.fire(now);
            while let Some(hello) = greetings.pop() {
                assert_eq!((hello.challenge, hello.echo), (Some([7; 16]), None));
                greeted += 1;
            }
        }
        assert_eq!((greeted, now - start), (20, GREET_FOR));
    }

    #[test]
    fn only_its_own_challenge_proves_a_candidate() {
        let (start, mut greetings) = (start(), Greetings::default());
        add(&mut greetings, start, 1);
        let candidate = greetings.find(incarnation(1)).unwrap();
        assert!(candidate.is_proved_by(Some([7; 16])));
        assert!(!candidate.is_proved_by(Some([8; 16])) && !candidate.is_proved_by(None));
    }

    #[test]
    fn an_answer_joins_a_greeting_that_waits() {
        let (start, mut greetings) = (start(), Greetings::default());
        add(&mut greetings, start, 1);
        greetings.fire(start);
        greetings.answer(&about().node, incarnation(1), [9; 16], KEY);
        let hello = greetings.pop().unwrap();
        assert_eq!((hello.challenge, hello.echo), (Some([7; 16]), Some([9; 16])));
        greetings.remove(incarnation(1));
        greetings.answer(&about().node, incarnation(1), [9; 16], KEY);
        assert_eq!(greetings.pop().unwrap().challenge, None, "it has proved itself");
        assert_eq!(greetings.pop(), None);
    }

    #[test]
    fn beyond_the_bound_the_most_silent_candidate_leaves() {
        let (start, mut greetings) = (start(), Greetings::default());
        for number in 0..CANDIDATES_MAX {
            add(&mut greetings, start + Duration::from_millis(number as u64), number);
        }
        let now = start + Duration::from_secs(1);
        add(&mut greetings, now, 0);
        add(&mut greetings, now, CANDIDATES_MAX);
        assert!(greetings.find(incarnation(1)).is_none());
        assert!(greetings.find(incarnation(0)).is_some());
        greetings.fire(now);
        for number in 0..1000 {
            greetings.answer(&about().node, incarnation(number), [9; 16], KEY);
        }
        assert_eq!(greetings.waiting.len(), CANDIDATES_MAX);
    }
}
