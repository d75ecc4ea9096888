//! [`Asked`]: what ought to become of each request. Where the broker's choice cannot be foreseen (a queue was lost, a
//! request waits for somebody's turn) the model says so (`shaky`) and accepts more than one end; never none, never two.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use wire::Pattern;

use super::cast::{CHANNELS, ORDERED_REPLY, SUBTOPICS, Style, TOPICS};
use super::conn::{Conn, Kind, Sub, Turn};
use super::draft::{Draft, Said, Wanted};
use super::inbox::{Due, What};
use super::model::{ConnId, Model, canonical, is_protected, is_shared, matches};

/// One request.
pub(super) struct Asked {
    pub(super) draft: Draft,
    pub(super) asker: ConnId,
    /// The requester's name at that time.
    pub(super) source: String,
    /// The requester's registration at that time.
    pub(super) registration: u32,
    /// For whom.
    pub(super) user: Option<String>,
    pub(super) timeout: Duration,
    pub(super) since: Instant,
    pub(super) deadline: Instant,
    pub(super) candidates: Vec<Candidate>,
    /// Who got it, as far as is known.
    pub(super) given: Vec<Given>,
    /// How it ended, for a single request; a gather only ends early.
    pub(super) end: Option<End>,
    pub(super) shaky: bool,
    pub(super) cancelled: bool,
    /// The asker has read its last answer.
    pub(super) is_answered: bool,
    /// Final answers of a gather's handlers.
    pub(super) parts_answered: usize,
}

/// Somebody who may be given a request.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) conn: ConnId,
    pub(super) style: Style,
    /// The user's own handlers, adapters, services, other users'.
    pub(super) rank: u8,
    /// Chosen last of all. `None`: not known.
    pub(super) doubtful: Option<bool>,
    /// Requests that it has. `None`: not known.
    pub(super) busy: Option<usize>,
    /// The group that it is a member of.
    pub(super) pool: Option<(Option<String>, String)>,
}

/// A request in a handler's hands.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub(super) conn: ConnId,
    pub(super) registration: u32,
    /// The broker's id.
    pub(super) id: String,
    pub(super) deadline: Instant,
    /// Answered, or the handler has gone.
    pub(super) done: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// By its handler's answer.
    Answer,
    /// By the broker's, with this code.
    Failure(&'static str),
    /// Delivered to a handler that never answers.
    Delivered,
    /// Its asker has gone: nobody is told.
    Withdrawn,
}

impl Asked {
    /// Whether a handler's answer is still expected.
    pub(super) fn is_open(&self, given: &Given) -> bool {
        self.end.is_none() && !given.done
    }

    pub(super) fn may_be_command(&self) -> bool {
        self.candidates.iter().any(|it| it.style == Style::Commands)
    }

    /// One that nobody is known to have loses a candidate: it fails if it was for that one, and may fail otherwise.
    fn loses(&mut self, conn: ConnId) {
        let only = self.candidates.iter().all(|it| it.conn == conn);
        match only && self.given.is_empty() && !self.draft.gather {
            true => self.end = Some(End::Failure("HANDLER_GONE")),
            false => self.shaky = true,
        }
    }

    /// How many answers a gather waits for.
    pub(super) fn expected(&self) -> usize {
        let answering = || self.candidates.iter().filter(|it| it.style != Style::Commands);
        let pools: BTreeSet<_> = answering().filter_map(|it| it.pool.as_ref()).collect();
        answering().filter(|it| it.pool.is_none()).count() + pools.len()
    }

    /// Whether the broker may end it with this code.
    pub(super) fn may_fail_with(&self, code: &str) -> bool {
        let foreseen = matches!(self.end, Some(End::Failure(end)) if end == code);
        let shaky = self.shaky && ["HANDLER_GONE", "NO_HANDLER", "TOO_MANY_REQUESTS"].contains(&code);
        foreseen || shaky || (self.cancelled && code == "REQUEST_CANCELLED")
    }
}

impl Model {
    /// Requests that may still concern somebody: all but the oldest, which are over.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = (&u64, &Asked)> {
        self.asked.range(self.settled_before..)
    }

    pub(super) fn unsettled_mut(&mut self) -> impl Iterator<Item = (&u64, &mut Asked)> {
        self.asked.range_mut(self.settled_before..)
    }

    /// Leaves out the oldest requests that are over, so that a loop over all costs little.
    fn settle(&mut self) {
        let is_over = |asked: &Asked| {
            let asker = &self.conns[asked.asker];
            let gone = asker.lost || asker.session.is_none() || asker.registration != asked.registration;
            asked.end.is_some() && (asked.is_answered || gone)
        };
        let first = self.unsettled().find(|(_, asked)| !is_over(asked)).map(|(n, _)| *n);
        self.settled_before = first.unwrap_or(self.settled_before);
    }

    /// The handlers that may be given a request, and whether the sender handles the triple itself.
    pub(super) fn candidates(&self, sender: ConnId, draft: &Draft, user: Option<&str>) -> (Vec<Candidate>, bool) {
        let shared = is_shared(&draft.triple[0]);
        let mut candidates = Vec::new();
        let mut sender_handles = false;
        for (id, conn) in self.registered() {
            if draft.target.as_ref().is_some_and(|target| *target != conn.source) {
                continue;
            }
            let Some(sub) = conn.handles(&draft.triple).next() else { continue };
            let own = conn.kind == Kind::User && conn.user.as_deref() == user;
            if conn.kind == Kind::User && !own && !shared {
                continue;
            }
            let rank = match conn.kind {
                Kind::User if own => 0,
                Kind::Adapter => 1,
                Kind::Service => 2,
                Kind::User => 3,
            };
            if !self.may_answer(conn, draft, rank) {
                continue;
            }
            if id == sender {
                sender_handles = true;
                continue;
            }
            candidates.push(Candidate {
                conn: id,
                style: conn.style,
                rank,
                doubtful: if conn.asleep { Some(true) } else { (!conn.suspect).then_some(false) },
                busy: self.busy(id),
                pool: sub.wanted.group.clone().map(|group| (conn.user.clone(), group)),
            });
        }
        (candidates, sender_handles)
    }

    /// The table of 2.7, and 2.8.
    fn may_answer(&self, conn: &Conn, draft: &Draft, rank: u8) -> bool {
        let (protected, shared) = (is_protected(&draft.triple), is_shared(&draft.triple[0]));
        match conn.kind {
            Kind::Adapter => true,
            _ if protected && (rank == 3 || self.is_served_inside(&draft.triple)) => false,
            _ if self.open_mode => true,
            Kind::Service => !protected || conn.may_handle,
            Kind::User => !(protected || shared) || conn.may_handle,
        }
    }

    /// Whether an adapter serves a triple.
    pub(super) fn is_served_inside(&self, triple: &[String; 3]) -> bool {
        self.registered().any(|(_, conn)| conn.kind == Kind::Adapter && conn.handles(triple).next().is_some())
    }

    /// The triple of a request, by an id with which it was delivered.
    pub(super) fn triple_of(&self, id: &str) -> Option<[String; 3]> {
        let is_it = |asked: &&Asked| asked.given.iter().any(|given| given.id == id);
        self.asked.values().find(is_it).map(|asked| asked.draft.triple.clone())
    }

    /// The turn that an ordered handler has in a channel: all of its subscriptions there may reply on one triple, so they
    /// take turns.
    pub(super) fn turn_in(&self, conn: ConnId, channel: &str) -> Option<&Turn> {
        self.conns[conn].turns.iter().find(|turn| {
            let asked = &self.asked[&turn.request];
            let open = asked.given.iter().any(|it| it.conn == conn && it.id == turn.id && asked.is_open(it));
            asked.draft.triple[0] == channel && (open || !turn.left)
        })
    }

    /// How many requests a handler has, if it has read all that it was given.
    fn busy(&self, handler: ConnId) -> Option<usize> {
        let has = |asked: &Asked| asked.given.iter().any(|given| given.conn == handler && asked.is_open(given));
        let count = || self.unsettled().filter(|(_, asked)| has(asked)).count();
        self.conns[handler].inbox.is_read.then(count)
    }

    /// Whether what follows from it could not be told apart: with two ordered subscriptions that overlap, which of them a
    /// request is given to; with two requests of a session on one triple and no ids, which of them has failed.
    pub(super) fn is_ambiguous(&self, conn: ConnId, said: &Said) -> bool {
        match said {
            Said::Subscribe(wanted) => {
                let overlaps = |sub: &Sub| all_triples().any(|it| is_in(&sub.wanted, &it) && is_in(wanted, &it));
                wanted.handler == Some(Style::Ordered)
                    && self.conns[conn].held(wanted).is_none()
                    && self.conns[conn].subs.iter().any(|sub| sub.wanted.handler.is_some() && overlaps(sub))
            }
            Said::Envelope(draft) if draft.id.is_none() => self.unsettled().any(|(_, asked)| {
                let same = asked.draft.id.is_none() && asked.draft.triple == draft.triple;
                asked.asker == conn && same && !asked.is_answered
            }),
            _ => false,
        }
    }

    /// The request that a reply by id answers.
    pub(super) fn answerable(&self, conn: ConnId, id: &str) -> Option<u64> {
        let registration = self.conns[conn].registration;
        let is_it = |asked: &Asked| {
            asked.given.iter().any(|given| {
                given.id == id && given.conn == conn && given.registration == registration && asked.is_open(given)
            })
        };
        self.unsettled().find(|(_, asked)| is_it(asked)).map(|(n, _)| *n)
    }

    /// The turn that an ordered handler's envelope ends, with the request that it answers; `None`: it is discarded.
    pub(super) fn turn(&self, conn: ConnId, draft: &Draft) -> Option<(usize, Option<u64>)> {
        self.conns[conn].turns.iter().enumerate().find_map(|(place, turn)| {
            let asked = &self.asked[&turn.request];
            let open = asked.given.iter().any(|it| it.conn == conn && it.id == turn.id && asked.is_open(it));
            // Once unsubscribed, what it owes is forgotten.
            let stands = open || !turn.left;
            (stands && is_answer(&asked.draft, draft)).then_some((place, open.then_some(turn.request)))
        })
    }

    /// Notes an answer that was accepted.
    pub(super) fn answered(&mut self, now: Instant, request: u64, handler: ConnId, more: bool) {
        let Some(asked) = self.asked.get_mut(&request) else { return };
        let timeout = asked.timeout;
        for given in asked.given.iter_mut().filter(|given| given.conn == handler && !given.done) {
            given.deadline = now + timeout;
            given.done = !more;
        }
        match (more, asked.draft.gather) {
            (true, false) => asked.deadline = now + timeout,
            (true, true) => {}
            (false, true) => asked.parts_answered += 1,
            (false, false) => asked.end = Some(End::Answer),
        }
    }

    /// Ends what is due.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut suspects = BTreeSet::new();
        self.settle();
        for (_, asked) in self.unsettled_mut().filter(|(_, asked)| asked.end.is_none()) {
            for given in asked.given.iter_mut().filter(|given| !given.done && given.deadline <= now) {
                suspects.insert(given.conn);
                given.done = asked.draft.gather;
            }
            if asked.deadline <= now {
                let in_hands = asked.given.iter().any(|given| !given.done);
                if asked.shaky || asked.draft.gather || !in_hands {
                    suspects.extend(asked.candidates.iter().map(|it| it.conn));
                }
                if !asked.draft.gather {
                    asked.end = Some(End::Failure("REQUEST_TIMEOUT"));
                }
            }
        }
        for conn in suspects {
            self.conns[conn].suspect = true;
        }
    }

    /// A session goes: what it asked is withdrawn, what it was given fails or is given to another.
    pub(super) fn leaves(&mut self, conn: ConnId) {
        let lost = self.conns[conn].lost;
        let ordered = self.conns[conn].style == Style::Ordered;
        let numbers: Vec<u64> = self.unsettled().map(|(n, _)| *n).collect();
        for n in numbers {
            let Some(asked) = self.asked.get_mut(&n).filter(|asked| asked.end.is_none()) else { continue };
            if asked.asker == conn {
                self.withdraw(n, End::Withdrawn);
                continue;
            }
            let held = asked.given.iter_mut().find(|given| given.conn == conn && !given.done);
            let is_candidate = asked.candidates.iter().any(|it| it.conn == conn);
            match held {
                Some(given) if asked.draft.gather => given.done = true,
                Some(given) => {
                    given.done = true;
                    self.hand_on(n, conn);
                }
                // It may have had it in the queue that was lost, or somebody waits for its turn.
                None if is_candidate && lost && asked.draft.idempotent && !asked.draft.gather => {
                    asked.shaky = true;
                    self.add_candidates(n);
                }
                None if is_candidate && (lost || ordered) => asked.loses(conn),
                None => {}
            }
        }
    }

    /// Ends a request that nobody waits for any more, and tells the handlers that have it.
    pub(super) fn withdraw(&mut self, n: u64, end: End) {
        let asked = &self.asked[&n];
        let in_hands: Vec<Given> = asked.given.iter().filter(|given| asked.is_open(given)).cloned().collect();
        for given in in_hands {
            self.owe(given.conn, Due::on_broker("Request", "Cancelled", Some(given.id), What::Cancelled));
        }
        if let Some(asked) = self.asked.get_mut(&n) {
            asked.end = Some(end);
        }
    }

    /// Adds the handlers that may be asked now: the first handler may have gone.
    fn add_candidates(&mut self, n: u64) {
        let asked = &self.asked[&n];
        let (now, _) = self.candidates(asked.asker, &asked.draft, asked.user.as_deref());
        if let Some(asked) = self.asked.get_mut(&n) {
            let fresh = |it: &Candidate| asked.candidates.iter().all(|old| old.conn != it.conn);
            let fresh: Vec<Candidate> = now.into_iter().filter(fresh).collect();
            asked.candidates.extend(fresh);
        }
    }

    /// A request's handler has gone.
    fn hand_on(&mut self, n: u64, from: ConnId) {
        let asked = &self.asked[&n];
        let (draft, asker, user) = (asked.draft.clone(), asked.asker, asked.user.clone());
        let again = draft.idempotent && asked.given.len() < 2;
        let (mut candidates, _) = self.candidates(asker, &draft, user.as_deref());
        candidates.retain(|it| it.conn != from);
        let Some(asked) = self.asked.get_mut(&n) else { return };
        if again && !candidates.is_empty() {
            // The next handler may be leaving too.
            asked.shaky |= candidates.iter().any(|it| it.style == Style::Ordered || self.conns[it.conn].lost);
            asked.candidates = candidates;
        } else {
            asked.end = Some(End::Failure("HANDLER_GONE"));
        }
    }

    /// An ordered handler ends a subscription: who waited for its turn waits for another's, or fails.
    pub(super) fn ends_turns(&mut self, conn: ConnId, ended: &Wanted) {
        let open = self.unsettled_mut().map(|(_, asked)| asked).filter(|asked| asked.end.is_none());
        let waits = |asked: &Asked| matches(&ended.pattern, &asked.draft.triple);
        open.filter(|asked| waits(asked) && asked.candidates.iter().any(|it| it.conn == conn))
            .for_each(|asked| asked.loses(conn));
        let triples: BTreeMap<u64, [String; 3]> =
            self.asked.iter().map(|(n, asked)| (*n, asked.draft.triple.clone())).collect();
        let its = |turn: &&mut Turn| matches(&ended.pattern, &triples[&turn.request]);
        self.conns[conn].turns.iter_mut().filter(its).for_each(|turn| turn.left = true);
    }
}

/// Every triple that is ever drawn, in its usual letters.
fn all_triples() -> impl Iterator<Item = [String; 3]> {
    let of_channel = |channel: &&'static str| {
        let channel = *channel;
        let of_topic = move |topic: &&'static str| {
            let topic = *topic;
            SUBTOPICS.iter().map(move |subtopic| [channel, topic, subtopic].map(str::to_owned))
        };
        TOPICS.iter().flat_map(of_topic)
    };
    CHANNELS.iter().flat_map(of_channel)
}

/// Whether a subscription is to a triple, in whatever letters.
fn is_in(wanted: &Wanted, triple: &[String; 3]) -> bool {
    let lower = triple.clone().map(|part| part.to_lowercase());
    let lowered = |part: &Option<Box<str>>| part.as_deref().map(|part| part.to_lowercase().into_boxed_str());
    let Pattern { channel, topic, subtopic } = &wanted.pattern;
    matches(&Pattern { channel: lowered(channel), topic: lowered(topic), subtopic: lowered(subtopic) }, &lower)
}

/// Whether an ordered handler's envelope is on the request's triple, or where it said that it answers.
fn is_answer(request: &Draft, draft: &Draft) -> bool {
    let [channel, topic, subtopic] = canonical(&draft.triple);
    let listed = canonical(&[channel.clone(), ORDERED_REPLY.0.to_owned(), ORDERED_REPLY.1.to_owned()]);
    let asked = canonical(&request.triple);
    asked == canonical(&draft.triple) || (asked[0] == channel && [&listed[1], &listed[2]] == [&topic, &subtopic])
}
