//! [`Model`]: what applications may be told, from the promises alone.

use std::collections::BTreeMap;
use std::time::Duration;

/// A broken promise, in words.
pub(super) type Held = Result<(), String>;

pub(super) fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(broken()) }
}

/// A session that receives events: its node, and its name.
pub(super) type Receiver = (usize, &'static str);

/// The events of one publisher at one receiver.
#[derive(Default)]
struct Stream {
    last: usize,
    /// The earliest time of gaps that were told since the last event.
    gap: Option<Duration>,
}

/// A request.
struct Asked {
    node: usize,
    /// How often it may be given to a handler.
    may_repeat: bool,
    given: u32,
    is_answered: bool,
}

#[derive(Default)]
pub(super) struct Model {
    /// When each event of a publisher was published, since the start. The first one has number 1.
    published: BTreeMap<usize, Vec<Duration>>,
    streams: BTreeMap<(Receiver, usize), Stream>,
    asked: BTreeMap<String, Asked>,
    /// How often each job of the group was given to a member.
    jobs: Vec<u32>,
    /// The sessions that exist, by their ids, with their nodes.
    sessions: BTreeMap<String, usize>,
    /// The sessions that each service was told of and that have not left.
    present: BTreeMap<(usize, String), bool>,
    seen: BTreeMap<&'static str, u64>,
}

impl Model {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub(super) fn seen(&self) -> &BTreeMap<&'static str, u64> {
        &self.seen
    }

    /// A session publishes its next event. Returns the number.
    pub(super) fn publish(&mut self, at: Duration, node: usize) -> usize {
        let published = self.published.entry(node).or_default();
        published.push(at);
        published.len()
    }

    /// A receiver gets an event.
    pub(super) fn event(&mut self, receiver: Receiver, publisher: usize, number: usize) -> Held {
        self.count("event");
        let published = self.published.get(&publisher).map_or(&[][..], Vec::as_slice);
        ensure(number <= published.len(), || format!("{receiver:?} got what was never published"))?;
        let stream = self.streams.entry((receiver, publisher)).or_default();
        let last = std::mem::replace(&mut stream.last, number);
        let gap = stream.gap.take();
        ensure(number > last, || format!("{receiver:?} got {number} of node {publisher} after {last}"))?;
        if number == last + 1 {
            return Ok(());
        }
        ensure(receiver.0 != publisher, || format!("{receiver:?} misses {} of its own node", last + 1))?;
        let missing = published[last];
        ensure(gap.is_some_and(|since| since <= missing), || {
            format!(
                "{receiver:?} misses {} of node {publisher} of {missing:?}, and was told of a gap since {gap:?}",
                last + 1
            )
        })?;
        self.count("missing");
        Ok(())
    }

    /// A receiver is told of a gap.
    pub(super) fn gap(&mut self, receiver: Receiver, since: Duration, nodes: usize) {
        self.count("gap");
        for publisher in 0..nodes {
            let stream = self.streams.entry((receiver, publisher)).or_default();
            stream.gap = Some(stream.gap.map_or(since, |gap| gap.min(since)));
        }
    }

    pub(super) fn ask(&mut self, id: &str, node: usize, may_repeat: bool) {
        self.asked.insert(id.to_owned(), Asked { node, may_repeat, given: 0, is_answered: false });
    }

    /// A handler gets a request.
    pub(super) fn given(&mut self, id: &str) -> Held {
        let asked = self.asked.get_mut(id).ok_or_else(|| format!("a handler got {id}, which nobody asked"))?;
        asked.given += 1;
        ensure(asked.given == 1 || asked.may_repeat, || format!("two handlers got {id}"))
    }

    /// A requester gets an answer, the last one unless `more` follow.
    pub(super) fn answer(&mut self, id: &str, node: usize, more: bool, is_failure: bool) -> Held {
        self.count(if is_failure { "failure" } else { "answer" });
        let asked = self.asked.get_mut(id).ok_or_else(|| format!("an answer to {id}, which nobody asked"))?;
        ensure(asked.node == node, || format!("node {node} got the answer to {id} of node {}", asked.node))?;
        ensure(!asked.is_answered, || format!("{id} was answered twice"))?;
        asked.is_answered = !more;
        Ok(())
    }

    pub(super) fn job(&mut self) -> usize {
        self.jobs.push(0);
        self.jobs.len() - 1
    }

    /// A member of the group gets a job.
    pub(super) fn worked(&mut self, job: usize) -> Held {
        self.count("job");
        self.jobs[job] += 1;
        ensure(self.jobs[job] == 1, || format!("two members got job {job}"))
    }

    /// A session that everybody knows from the beginning.
    pub(super) fn known(&mut self, session: &str, node: usize, nodes: usize) {
        self.joined(session, node);
        for board in 0..nodes {
            self.present.insert((board, session.to_owned()), true);
        }
    }

    pub(super) fn joined(&mut self, session: &str, node: usize) {
        self.sessions.insert(session.to_owned(), node);
    }

    pub(super) fn left(&mut self, session: &str) {
        self.sessions.remove(session);
    }

    /// A service is told that a session joined, or left.
    pub(super) fn presence(&mut self, board: usize, session: &str, is_present: bool) -> Held {
        self.count(if is_present { "Joined" } else { "Left" });
        let before = self.present.insert((board, session.to_owned()), is_present).unwrap_or(false);
        ensure(before != is_present, || format!("board {board} was told twice that {session} is there: {is_present}"))
    }

    /// What must hold when nothing is under way any more.
    pub(super) fn at_rest(&mut self, nodes: usize) -> Held {
        for ((receiver, publisher), stream) in &self.streams {
            let published = self.published.get(publisher).map_or(0, Vec::len);
            ensure(stream.last == published, || {
                format!("{receiver:?} has {} of {published} of node {publisher} at last", stream.last)
            })?;
        }
        for (id, asked) in &self.asked {
            ensure(asked.is_answered, || format!("{id} of node {} was never answered", asked.node))?;
        }
        for board in 0..nodes {
            for session in self.sessions.keys() {
                let is_present = self.present.get(&(board, session.clone())).copied().unwrap_or(false);
                ensure(is_present, || format!("board {board} does not know {session} at last"))?;
            }
        }
        for ((board, session), is_present) in &self.present {
            ensure(!is_present || self.sessions.contains_key(session), || {
                format!("board {board} still shows {session}, which has left")
            })?;
        }
        let lost = self.jobs.iter().filter(|given| **given == 0).count();
        (0..lost).for_each(|_| self.count("lost job"));
        Ok(())
    }
}
