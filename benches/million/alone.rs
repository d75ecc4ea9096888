//! Sessions without tasks, which their owner drives by hand.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard::auth::{Identity, Permissions, Principal, Users};
use switchboard::connection::{Connection, Effect, Gone, Input, Settings};
use switchboard::router::{OnFull, Router};
use switchboard::websocket::Frame;

use crate::meter::{Cpu, resident};
use crate::wire::subscribe;
use crate::{ADDRESS, DESK, SOME, broker, event, float, micros, millis, register, row, user};

/// How many events show what one costs.
const EVENTS: usize = 20_000;

/// A session's own subscription, by its number: every shape of wildcards but the one for everything.
fn own_subscription(number: usize) -> String {
    let (channel, topic, subtopic) = (format!("channel{number}"), format!("topic{number}"), format!("sub{number}"));
    subscribe(match number % 7 {
        0 => ["Phone", &topic, "Ringing"],
        1 => ["Phone", &topic, "*"],
        2 => ["Phone", "*", &subtopic],
        3 => [&channel, "*", "*"],
        4 => ["*", &topic, "Ringing"],
        5 => ["*", "*", &subtopic],
        _ => ["*", &topic, "*"],
    })
}

/// A broker's sessions.
struct Alone {
    now: Instant,
    router: Router,
    settings: Arc<Settings>,
    sessions: Vec<Connection>,
    batch: Vec<Frame>,
}

impl Alone {
    fn session(&mut self, number: usize) -> Connection {
        let (now, settings) = (self.now, Arc::clone(&self.settings));
        let mut session = Connection::new(now, ADDRESS, settings, 1);
        let effect = session.handle(now, Input::Text(&register(number)), &self.router);
        assert!(matches!(effect, Some(Effect::Verify(_))), "Register asks the verifier");
        let identity = Identity::unproved(
            Principal::User(user(number).into()),
            Permissions { observe: Users::nobody(), ..Permissions::all() },
        );
        assert!(session.handle(now, Input::Verified(Ok(identity)), &self.router).is_none());
        self.take_one(&mut session);
        session
    }

    /// Sends a text, which has no effect beyond what it puts in outboxes.
    fn send(&self, session: &mut Connection, text: &str) {
        assert!(session.handle(self.now, Input::Text(text), &self.router).is_none());
    }

    /// Takes what waits for a session: one message.
    fn take_one(&mut self, session: &mut Connection) {
        session.take(self.now, usize::MAX, &self.router, &mut self.batch);
        assert_eq!(self.batch.len(), 1, "one message waits");
        self.batch.clear();
    }

    fn command(&mut self, number: usize, text: &str) {
        let mut sessions = std::mem::take(&mut self.sessions);
        self.send(&mut sessions[number], text);
        self.take_one(&mut sessions[number]);
        self.sessions = sessions;
    }

    /// More sessions, with a subscription each; the CPU time.
    fn grow_to(&mut self, count: usize) -> Duration {
        let begun = Cpu::begin();
        for number in self.sessions.len()..count {
            let session = self.session(number);
            self.sessions.push(session);
            self.command(number, &own_subscription(number));
        }
        begun.spent()
    }

    /// The sessions of a range subscribe to what all receive. Returns the CPU time.
    fn subscribe_to_news(&mut self, range: Range<usize>) -> Duration {
        let (text, begun) = (subscribe(["News", "Desk", "*"]), Cpu::begin());
        range.for_each(|number| self.command(number, &text));
        begun.spent()
    }

    /// The last sessions go, all at once; the CPU time.
    fn leave(&mut self, count: usize) -> Duration {
        let begun = Cpu::begin();
        for mut session in self.sessions.drain(self.sessions.len() - count..) {
            assert!(session.handle(self.now, Input::Gone(Gone::Lost), &self.router).is_none());
        }
        begun.spent()
    }

    /// From the text to the outbox, and out of it, for a receiver of every event. Returns the CPU time.
    fn publish_to(&mut self, sender: &mut Connection, receiver: &mut Connection) -> Duration {
        let (text, begun) = (event(["Phone", "Call", "Ringing"]), Cpu::begin());
        for _ in 0..EVENTS {
            self.send(sender, &text);
            self.take_one(receiver);
        }
        begun.spent()
    }

    /// Receivers of which no cache remembers the last: a step without a common divisor with their count comes to all.
    fn around(&self) -> impl Iterator<Item = usize> + use<> {
        let exact = self.sessions.len().div_ceil(7);
        (0..EVENTS).map(move |at| at * 7_919 % exact * 7)
    }

    fn take_from(&mut self, number: usize) {
        self.sessions[number].take(self.now, usize::MAX, &self.router, &mut self.batch);
        assert_eq!(self.batch.len(), 1, "one message waits");
        self.batch.clear();
    }

    /// The same where each event finds another receiver.
    fn publish_around(&mut self, sender: &mut Connection) -> Duration {
        let events: Vec<_> =
            self.around().map(|number| (number, event(["Phone", &format!("topic{number}"), "Ringing"]))).collect();
        let begun = Cpu::begin();
        for (number, text) in &events {
            self.send(sender, text);
            self.take_from(*number);
        }
        begun.spent()
    }

    /// What of that is the receivers' own memory: nothing is read or matched.
    fn push_around(&mut self) -> Duration {
        let (frame, begun) = (Frame::new(&event(["Phone", "Call", "Ringing"])), Cpu::begin());
        for number in self.around() {
            self.sessions[number].session().unwrap().outbox().push(self.now, frame.clone(), OnFull::Close).unwrap();
            self.take_from(number);
        }
        begun.spent()
    }

    /// How many of all have one message more.
    fn take_all(&mut self) -> usize {
        for session in &mut self.sessions {
            session.take(self.now, usize::MAX, &self.router, &mut self.batch);
        }
        let heard = self.batch.len();
        self.batch = Vec::new();
        heard
    }
}

/// Measures `count` sessions.
pub(crate) fn run(count: usize) {
    let (now, router, settings) = broker();
    let mut crowd = Alone { now, router, settings, sessions: Vec::with_capacity(count), batch: Vec::new() };
    let (mut sender, mut receiver) = (crowd.session(0), crowd.session(DESK));
    crowd.send(&mut receiver, &subscribe(["Phone", "Call", "*"]));
    crowd.take_one(&mut receiver);

    println!("\n{count} sessions, alone");
    for population in
        [10, 1_000, 100_000, 1_000_000].into_iter().filter(|population| *population < count).chain([count])
    {
        let (before, memory) = (crowd.sessions.len(), resident());
        let spent = crowd.grow_to(population);
        if population == count {
            let grown = crowd.sessions.len() - before;
            row("a session with one subscription", float(resident() - memory) / float(grown), "bytes");
            row("registering and subscribing", micros(spent, grown), "µs");
        }
        let hot = micros(crowd.publish_to(&mut sender, &mut receiver), EVENTS);
        let cold = micros(crowd.publish_around(&mut sender), EVENTS);
        let push = micros(crowd.push_around(), EVENTS);
        row(&format!("an event, among {population} subscriptions of all shapes"), hot, "µs");
        row("  to another receiver each time, which no cache remembers", cold, "µs");
        row("  into the outbox of another each time, without matching", push, "µs");
    }

    subscribe_and_leave(&mut crowd, &mut sender);
    assert_eq!(crowd.router.size().sessions, 2, "the sender and the receiver are left");
}

/// What all sessions do, some at a time.
fn subscribe_and_leave(crowd: &mut Alone, sender: &mut Connection) {
    let count = crowd.sessions.len();
    let some = SOME.min(count / 4);
    let first = micros(crowd.subscribe_to_news(0..some), some);
    crowd.subscribe_to_news(some..count - some);
    let last = micros(crowd.subscribe_to_news(count - some..count), some);
    row(&format!("subscribing to what all receive, the first {some}"), first, "µs");
    row(&format!("  the last {some}"), last, "µs");

    let (news, begun) = (event(["News", "Desk", "Closing"]), Cpu::begin());
    crowd.send(sender, &news);
    row("one event into all outboxes", millis(begun.spent()), "ms");
    assert_eq!(crowd.take_all(), count, "all receive it");

    row(&format!("leaving, {some} of {count} at once"), micros(crowd.leave(some), some), "µs");
    crowd.send(sender, &news);
    assert_eq!(crowd.take_all(), count - some, "the remaining sessions receive it");
    let mut others = Vec::new();
    while !crowd.sessions.is_empty() {
        let leaving = some.min(crowd.sessions.len());
        others.push(micros(crowd.leave(leaving), leaving));
    }
    others.sort_by(f64::total_cmp);
    row(&format!("  all others, {some} at once: median"), others[others.len() / 2], "µs");
    // One of them pays for the allocator: glibc puts what is freed in small pieces together now and then.
    row("  the dearest of these", others[others.len() - 1], "µs");
}
