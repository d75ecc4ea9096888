//! [`World`]: a router, sessions with their outboxes, `now`, and a seeded generator. One step lets somebody do something;
//! what the broker ought to make of it is in `model`, what must hold in `check` and `reading`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use switchboard::config::Config;
use switchboard::connection::{Effect, Gone, Input, Settings};
use switchboard::router::{Declaration, Ids, Policy, Router, Session, Unanswered};
use wire::CloseCode;
use wire::command::{Role, Subscribe};

use super::app::App;
use super::cast::{self, CAST, MOMENT, Part, Style};
use super::check::{self, Held, adapter_pattern};
use super::conn::{Conn, Kind, Sub};
use super::door::Inbox;
use super::draft::{Said, Wanted};
use super::inbox::{Due, What};
use super::link::{Link, Wait};
use super::model::{ConnId, Model};
use super::reading;

/// A world that follows from its seed.
pub(super) struct World {
    pub(super) router: Router,
    pub(super) model: Model,
    pub(super) seats: Vec<Seat>,
    pub(super) now: Instant,
    pub(super) chance: StdRng,
    pub(super) config: Config,
    /// Proofs of identity end.
    pub(super) proofs_end: bool,
    pub(super) settings: Arc<Settings>,
    pub(super) adapter: Arc<Session>,
    pub(super) inbox: Arc<Inbox>,
    /// The requests that a drain waits for; `None` once the sessions are closed.
    pub(super) drained: Option<Unanswered>,
    /// The transcript.
    pub(super) lines: Vec<String>,
    pub(super) start: (Instant, SystemTime),
    /// The number that was used last.
    pub(super) n: u64,
}

/// A program that connects, dies and returns.
pub(super) struct Seat {
    pub(super) part: &'static Part,
    pub(super) link: Option<Link>,
}

/// The outcome of something that a session received.
struct Heard {
    effect: Option<Effect>,
    /// It was said too fast, or its sender does not read.
    must_wait: bool,
    /// The ids of its subscriptions now.
    subscriptions: Vec<String>,
}

/// The adapter's place in [`Model::conns`].
pub(super) const ADAPTER: ConnId = 0;

#[expect(clippy::disallowed_methods, reason = "where a world begins does not matter: it only adds to it")]
fn beginning() -> Instant {
    Instant::now()
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let config = cast::config(&mut chance);
        let now = beginning();
        let start = (now, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let declaration = Declaration {
            serves: vec![adapter_pattern()],
            failure_keys: &["Password"],
            repeats: &[],
            refused: Box::new(|_| ()),
        };
        let router = Router::new(now, start.1, Policy::new(&config), Ids::seeded(seed), vec![declaration]);
        let inbox = Arc::new(Inbox::new(chance.random_range(2..12)));
        let adapter = router.attach_handler(now, Arc::clone(&inbox) as _);
        let mut seats: Vec<Seat> = CAST.iter().map(|part| Seat { part, link: None }).collect();
        for _ in 0..chance.random_range(0..9) {
            seats.remove(chance.random_range(0..seats.len()));
        }
        let model = Model::new(&config);
        let settings = Arc::new(Settings::new(config.limits.clone()));
        let mut world = Self {
            router,
            model,
            seats,
            now,
            chance,
            config,
            proofs_end: seed % 2 == 1,
            settings,
            adapter,
            inbox,
            drained: None,
            lines: Vec::new(),
            start,
            n: 1,
        };
        world.attach_adapter();
        world
    }

    fn attach_adapter(&mut self) {
        let pattern = adapter_pattern();
        let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
        let wanted = Subscribe::new(pattern.clone(), role);
        self.router.subscribe(self.now, &self.adapter, &wanted, |_| None).unwrap();
        let mut conn = Conn::new("adapter", "switchboard", self.now);
        (conn.kind, conn.session, conn.may_handle) = (Kind::Adapter, Some(self.adapter.id()), true);
        let wanted =
            Wanted { pattern, handler: Some(Style::Answers), group: None, user: None, retained: None, recover: None };
        conn.subs.push(Sub { wanted, id: String::new() });
        self.model.conns.push(conn);
    }

    /// Lets somebody do something, and looks whether all rules hold.
    pub(super) fn step(&mut self) -> Held {
        let seat = self.chance.random_range(0..self.seats.len());
        match self.chance.random_range(0..100) {
            0..75 => self.act(seat)?,
            75..80 => self.read(seat, 3)?,
            80..83 => self.stall(seat),
            83 => self.die(seat)?,
            84 | 85 => self.resume(seat)?,
            86..91 => self.adapter_acts()?,
            91..98 => {
                let time = self.chance.random_range(1..400);
                self.let_pass(Duration::from_millis(time))?;
            }
            _ => self.jump()?,
        }
        self.settle()
    }

    fn act(&mut self, seat: usize) -> Held {
        let Seat { part, link } = &mut self.seats[seat];
        let Some(link) = link else {
            if self.model.draining.is_none() {
                self.connect(seat);
            }
            return Ok(());
        };
        if !matches!(link.wait, Wait::Nothing) && self.chance.random_bool(0.7) {
            return self.verify(seat);
        }
        if link.silent || link.stalls || !link.unread.is_empty() {
            return Ok(());
        }
        let (part, conn) = (*part, link.conn);
        // Several at once: the second may find that the first has made the session wait.
        for _ in 0..self.chance.random_range(1..=3) {
            let said = App { chance: &mut self.chance, model: &self.model, id: conn, part }.next();
            let babbles = matches!(said, Said::Malformed(..)) && self.chance.random_ratio(1, 8);
            link.unread.extend(std::iter::repeat_n(said, if babbles { 11 } else { 1 }));
        }
        self.pump(seat)
    }

    fn connect(&mut self, seat: usize) {
        let part = self.seats[seat].part;
        let id = self.model.conns.len();
        let mut conn = Conn::new(part.name, part.source, self.now);
        conn.style = part.style;
        self.model.conns.push(conn);
        self.seats[seat].link = Some(Link::new(self.now, id, &self.settings));
        self.note(format!("{} connects", part.name));
    }

    /// Lets a session read what its application wrote, until it waits for something.
    pub(super) fn pump(&mut self, seat: usize) -> Held {
        while let Some(said) =
            self.seats[seat].link.as_mut().filter(|it| it.connection.reads()).and_then(|it| it.unread.pop_front())
        {
            self.hear(seat, said)?;
        }
        Ok(())
    }

    /// A session receives one thing.
    fn hear(&mut self, seat: usize, mut said: Said) -> Held {
        let Some(conn) = self.seats[seat].link.as_ref().map(|link| link.conn) else { return Ok(()) };
        if self.model.is_ambiguous(conn, &said) {
            return Ok(());
        }
        // An ordered handler's word depends on what it was given, and so does a farewell: these have read everything.
        if self.model.conns[conn].style == Style::Ordered || matches!(said, Said::Unregister) {
            self.read(seat, usize::MAX)?;
        }
        self.n += 1;
        let n = self.n;
        said.number(n);
        let text = said.text(n, self.model.epoch.as_deref().unwrap_or("unknown"));
        self.note(format!("{}> {}", self.seats[seat].part.name, text.as_deref().unwrap_or("a frame that is not text")));
        self.look_at_outboxes();
        let verdict = match &said {
            Said::Envelope(draft) => Some((draft, self.model.judge(conn, draft))),
            _ => None,
        };
        let Some(heard) = self.feed(seat, &said, text.as_deref()) else { return Ok(()) };
        self.look_at_outboxes();
        self.count_malformed(conn, &said);
        match verdict {
            Some((draft, verdict)) => self.model.heard(self.now, conn, n, draft, verdict),
            None => self.model.commanded(self.now, conn, n, &said, &heard.subscriptions),
        }
        let (it, effect) = (&self.model.conns[conn], heard.effect.as_ref());
        if matches!(said, Said::Malformed(..) | Said::Binary) {
            check::babble_is_ended(it, effect)?;
        }
        let reads = self.seats[seat].link.as_ref().is_some_and(|link| link.connection.reads());
        check::the_fast_and_the_full_wait(it, heard.must_wait && effect.is_none(), reads)?;
        self.publishers_wait(seat, n)?;
        let echo = matches!(said, Said::Register { echo: true, .. });
        self.carry_out(seat, heard.effect, (n, echo))
    }

    /// Gives a session what was said.
    fn feed(&mut self, seat: usize, said: &Said, text: Option<&str>) -> Option<Heard> {
        let link = self.seats[seat].link.as_mut()?;
        let input = match (said, text) {
            (_, Some(text)) => Input::Text(text),
            (Said::Binary, None) => Input::Binary,
            (_, None) => Input::Frame,
        };
        let limits = &self.config.limits;
        let is_text = matches!(input, Input::Text(_));
        let is_fast = is_text && link.is_fast(self.now, limits.rate, limits.burst);
        let was_registered = link.connection.session().is_some();
        link.resuming.sent += u64::from(is_text && was_registered && !matches!(said, Said::Register { .. }));
        let effect = link.connection.handle(self.now, input, &self.router);
        let member = link.connection.session();
        if was_registered && member.is_none() {
            link.unregistered = self.now;
        }
        let listed = member.map(|member| self.router.subscriptions(member)).unwrap_or_default();
        let is_over_half = member.is_some_and(|member| member.outbox().is_over_half());
        let must_wait = is_fast || (is_text && is_over_half);
        Some(Heard { effect, must_wait, subscriptions: listed.iter().map(|it| it.id.to_string()).collect() })
    }

    fn count_malformed(&mut self, conn: ConnId, said: &Said) {
        let code = match said {
            Said::Malformed(_, code) => code,
            Said::Binary => "INVALID_ENVELOPE",
            Said::Pong => return,
            _ => return self.model.conns[conn].malformed = 0,
        };
        self.model.conns[conn].malformed += 1;
        self.model.owe(conn, Due::error(None, code));
    }

    fn publishers_wait(&mut self, seat: usize, n: u64) -> Held {
        let Some(publisher) = self.seats[seat].link.as_ref() else { return Ok(()) };
        let event = self.model.events.get(&n).filter(|event| !event.droppable);
        let mut waited = Vec::new();
        for (number, link) in self.seats.iter().enumerate().filter_map(|(at, seat)| Some((at, seat.link.as_ref()?))) {
            let Some(session) = link.connection.session() else { continue };
            let waits = publisher.connection.waits_for(session);
            let receives = event.is_some_and(|event| event.receivers.plain.contains(&link.conn));
            let must_wait = number != seat && receives && session.outbox().is_over_half();
            if must_wait && !link.has_waited && !publisher.has_waited {
                check::publishers_wait(waits, &self.model.conns[link.conn])?;
            }
            // A request makes its sender wait, too.
            if must_wait || waits {
                waited.push(number);
            }
        }
        for number in waited.iter().copied().chain((!waited.is_empty()).then_some(seat)) {
            self.seats[number].link.iter_mut().for_each(|link| link.has_waited = true);
        }
        Ok(())
    }

    /// What a session's task would do. `registering`: the number of the Register or Renew that is being verified, and the
    /// echo of a Register.
    pub(super) fn carry_out(&mut self, seat: usize, effect: Option<Effect>, registering: (u64, bool)) -> Held {
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        match effect {
            None => {}
            Some(Effect::Verify(claim)) if link.connection.session().is_some() => {
                link.wait = Wait::Renewal(claim, registering.0, self.now);
            }
            Some(Effect::Verify(claim)) => link.wait = Wait::Verifier(claim, registering.0, registering.1),
            Some(Effect::Close(close)) => return self.close(seat, close.code()),
        }
        Ok(())
    }

    fn close(&mut self, seat: usize, code: CloseCode) -> Held {
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        let (conn, conduct) = (link.conn, link.conduct(self.now));
        check::closes_have_a_reason(&self.model, &self.model.conns[conn], self.now, code, conduct)?;
        if let (CloseCode::Restart, Some(since)) = (code, self.model.draining) {
            check::drain_waits(&self.model, self.now - since)?;
            self.model.gives_up(conn);
        }
        self.model.closes_expired(self.now, conn, code == CloseCode::Unauthenticated);
        // A replay that is not exhausted ends with it.
        self.model.conns[conn].inbox.retained.clear();
        self.model.conns[conn].inbox.replays.clear();
        if let Some(n) = link.given_up() {
            let what = What::Refused("UPSTREAM_UNAVAILABLE");
            self.model.owe(conn, Due::on_broker("Application", "Renew", Some(n.to_string()), what));
        }
        let taken = code != CloseCode::SlowConsumer && !link.silent && !link.is_ended();
        self.model.conns[conn].inbox.ends();
        // What a slow consumer has not taken is dropped.
        self.model.conns[conn].lost |= code == CloseCode::SlowConsumer;
        if taken {
            self.read(seat, usize::MAX)?;
        }
        self.note(format!("{}< close {}", self.seats[seat].part.name, code.code()));
        self.gone(seat);
        Ok(())
    }

    /// The connection of a seat has ended.
    fn gone(&mut self, seat: usize) {
        let Some(mut link) = self.seats[seat].link.take() else { return };
        let is_read = link.is_empty();
        link.connection.handle(self.now, Input::Gone(Gone::Lost), &self.router);
        self.router.expire(self.now + MOMENT);
        let conn = &mut self.model.conns[link.conn];
        conn.lost |= !is_read || !link.is_empty();
        self.look_at_outboxes();
        self.model.unregistered(link.conn);
    }

    /// Dies, with or without a close, noticed or not.
    fn die(&mut self, seat: usize) -> Held {
        let name = self.seats[seat].part.name;
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        match self.chance.random_range(0..3) {
            0 => {
                (link.silent, link.stalls) = (true, true);
                self.note(format!("{name} dies in silence"));
            }
            1 => {
                self.read(seat, usize::MAX)?;
                self.note(format!("{name} leaves"));
                self.gone(seat);
            }
            _ => {
                self.note(format!("{name} dies"));
                self.gone(seat);
            }
        }
        Ok(())
    }

    fn stall(&mut self, seat: usize) {
        let Seat { part, link: Some(link) } = &mut self.seats[seat] else { return };
        link.stalls = !link.stalls || link.silent;
        let line = format!("{} {}", part.name, if link.stalls { "stalls" } else { "goes on" });
        self.note(line);
    }

    /// An application takes some frames.
    pub(super) fn read(&mut self, seat: usize, most: usize) -> Held {
        let Seat { part, link: Some(link) } = &mut self.seats[seat] else { return Ok(()) };
        let mut frames = Vec::new();
        link.connection.take(self.now, most, &self.router, &mut frames);
        let (name, conn) = (part.name, link.conn);
        if link.blocked.take().is_some() {
            link.connection.handle(self.now, Input::Taken, &self.router);
        }
        let is_read = link.is_empty();
        for frame in frames {
            if frame.is_empty() {
                self.note(format!("{name}< ping"));
                self.seats[seat].link.iter_mut().filter(|it| !it.silent).for_each(|it| it.unread.push_back(Said::Pong));
                continue;
            }
            self.note(format!("{name}< {}", frame.text()));
            self.seats[seat].link.iter_mut().for_each(|link| link.resuming.receives(frame.text()));
            reading::received(&mut self.model, self.now, conn, frame.text())?;
        }
        if self.chance.random_bool(0.2) {
            self.acknowledge(seat);
        }
        if is_read {
            check::nothing_is_lost(&mut self.model, conn)?;
            check::nothing_is_unanswered(&self.model, conn, self.now)?;
            check::nobody_waits_for_a_free_turn(&self.model, conn)?;
        }
        Ok(())
    }

    pub(super) fn note(&mut self, line: String) {
        self.lines.push(line);
    }

    /// Tells the model what cannot be foreseen: whose queue has overflowed, who has read everything.
    pub(super) fn look_at_outboxes(&mut self) {
        for link in self.seats.iter_mut().filter_map(|seat| seat.link.as_mut()) {
            let conn = &mut self.model.conns[link.conn];
            conn.lost |= link.is_ended();
            conn.over_half = link.connection.session().is_some_and(|session| session.outbox().is_over_half());
            conn.inbox.is_read = link.is_empty() && !conn.lost;
        }
        let conn = &mut self.model.conns[ADAPTER];
        conn.inbox.is_read = self.inbox.is_empty();
        // Full, for now: it is not given what comes.
        conn.lost = self.inbox.is_full();
    }
}
