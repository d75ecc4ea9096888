//! The world's clock: what happens when time passes, and how a run ends.

use std::time::Duration;

use rand::RngExt;
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::connection::{Input, Settings};
use switchboard::router::Registration;
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

use super::check::{self, Held};
use super::draft::{Draft, Said};
use super::inbox::{Due, What};
use super::model::is_shared;
use super::world::{Seat, World};

/// Everything but the end of an empty log happens within this time.
const HORIZON: Duration = Duration::from_mins(30);

impl World {
    fn links(&self) -> impl Iterator<Item = &super::link::Link> {
        self.seats.iter().filter_map(|seat| seat.link.as_ref())
    }

    /// To the next moment when something is due.
    pub(super) fn jump(&mut self) -> Held {
        let drained = self.drained.as_ref().and(self.model.draining).map(|since| since + self.config.limits.drain);
        let due = self.links().filter_map(|link| link.connection.deadline());
        let next = due.chain(self.router.deadline()).chain(drained).min();
        // Only the end of a log that is empty is further away.
        let Some(next) = next.filter(|next| *next <= self.now + HORIZON) else { return Ok(()) };
        self.let_pass(next.saturating_duration_since(self.now))
    }

    /// Time passes, and what is due happens. A session that is not stuck has read everything, and answered pings, before.
    pub(super) fn let_pass(&mut self, time: Duration) -> Held {
        for seat in 0..self.seats.len() {
            if self.seats[seat].link.as_ref().is_some_and(|link| !link.stalls) {
                self.read(seat, usize::MAX)?;
            }
            self.end_pause(seat)?;
        }
        self.verify_in_time(time)?;
        self.now += time;
        self.note(format!("clock +{}", humantime::format_duration(time)));
        self.look_at_outboxes();
        self.model.expire(self.now);
        self.model.announce(self.now);
        self.router.expire(self.now);
        for seat in 0..self.seats.len() {
            self.fire_timers(seat)?;
        }
        Ok(())
    }

    fn fire_timers(&mut self, seat: usize) -> Held {
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        if link.connection.deadline().is_some_and(|deadline| deadline <= self.now) {
            let effect = link.connection.handle(self.now, Input::Timeout, &self.router);
            self.carry_out(seat, effect, (0, false))?;
        }
        Ok(())
    }

    /// After each step: what follows by itself, and whether all rules hold.
    pub(super) fn settle(&mut self) -> Held {
        for seat in 0..self.seats.len() {
            self.end_pause(seat)?;
            self.look_at_outboxes();
            let Some(link) = &mut self.seats[seat].link else { continue };
            if let Some(end) = link.connection.ended()
                && self.chance.random_bool(0.5)
            {
                let effect = link.connection.handle(self.now, Input::Ended(end), &self.router);
                self.carry_out(seat, effect, (0, false))?;
                continue;
            }
            match (link.stalls, link.is_empty()) {
                (true, false) if link.blocked.is_none() => {
                    link.blocked = Some(self.now);
                    link.connection.handle(self.now, Input::Blocked, &self.router);
                }
                (true, true) if link.blocked.take().is_some() => {
                    link.connection.handle(self.now, Input::Taken, &self.router);
                }
                (false, false) if self.chance.random_bool(0.4) => self.read(seat, usize::MAX)?,
                (_, _) => {}
            }
        }
        self.end_drain()?;
        self.check()
    }

    fn end_pause(&mut self, seat: usize) -> Held {
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        if link.is_relieved() {
            link.connection.handle(self.now, Input::Relieved, &self.router);
        }
        self.pump(seat)
    }

    fn check(&mut self) -> Held {
        self.look_at_outboxes();
        let somebody = self.chance.random_range(0..self.seats.len());
        for (seat, Seat { link, .. }) in self.seats.iter().enumerate() {
            let Some(link) = link else { continue };
            let conn = &self.model.conns[link.conn];
            if let Some(member) = link.connection.session() {
                check::outboxes_are_bounded(conn, member.outbox())?;
                check::sessions_end_with_their_proofs(conn, self.now)?;
            }
            if let Some(member) = link.connection.session().filter(|_| seat == somebody) {
                check::presence_is_right(&self.model, conn, &self.router.applications(member), self.start)?;
                check::subscriptions_are_right(conn, &self.router.subscriptions(member))?;
            }
        }
        check::sizes_are_right(&self.model, &self.router)?;
        check::deadlines_are_known(&self.model, &self.router)
    }

    /// The broker drains: every session is told, and served until what is pending now has ended.
    pub(super) fn drain(&mut self) -> Held {
        self.model.draining = Some(self.now);
        self.model.drained_from = self.n;
        self.drained = Some(self.router.pending_requests());
        self.note("the broker drains".to_owned());
        for seat in 0..self.seats.len() {
            let Some(link) = &mut self.seats[seat].link else { continue };
            self.model.owe(link.conn, Due::on_broker("Connection", "Draining", None, What::Draining));
            let effect = link.connection.handle(self.now, Input::Drain(Duration::from_secs(1)), &self.router);
            self.carry_out(seat, effect, (0, false))?;
        }
        self.settle()
    }

    /// Closes all sessions once the requests that the drain waits for have ended, at the latest at its limit.
    fn end_drain(&mut self) -> Held {
        let (Some(pending), Some(since)) = (&mut self.drained, self.model.draining) else { return Ok(()) };
        if self.router.any_pending(pending) && self.now < since + self.config.limits.drain {
            return Ok(());
        }
        self.drained = None;
        self.note("the broker closes all sessions".to_owned());
        for seat in 0..self.seats.len() {
            let Some(link) = &mut self.seats[seat].link else { continue };
            // What it asked ends now, though it may be closed a little later.
            self.model.gives_up(link.conn);
            let effect = link.connection.handle(self.now, Input::Restart, &self.router);
            self.carry_out(seat, effect, (0, false))?;
        }
        Ok(())
    }

    /// The end of a run: everybody wakes up and reads, nobody asks any more, and all time limits pass. Then everything
    /// has been answered; and when all have gone, nothing is left.
    pub(super) fn quiesce(&mut self) -> Held {
        self.note("everybody comes to rest".to_owned());
        for round in 0.. {
            check::everything_ends(round, &self.router)?;
            for seat in 0..self.seats.len() {
                self.verify(seat)?;
                if let Some(link) = &mut self.seats[seat].link {
                    link.stalls = link.silent;
                    link.unread.retain(|said| matches!(said, Said::Pong));
                    if !link.silent {
                        self.read(seat, usize::MAX)?;
                    }
                }
            }
            self.settle()?;
            let is_at_rest = self.router.deadline().is_none_or(|due| due > self.now + HORIZON);
            if is_at_rest && self.drained.is_none() {
                break;
            }
            self.jump()?;
        }
        for seat in 0..self.seats.len() {
            let Some(link) = &self.seats[seat].link else { continue };
            if let Some(member) = link.connection.session() {
                check::nothing_is_held(&self.model.conns[link.conn], &self.router, member)?;
            }
            if !link.silent {
                self.read(seat, usize::MAX)?;
            }
        }
        for round in 0.. {
            if self.seats.iter().all(|seat| seat.link.is_none()) {
                break;
            }
            check::everything_ends(round, &self.router)?;
            self.seats
                .iter_mut()
                .filter_map(|seat| seat.link.as_mut())
                .for_each(|it| (it.silent, it.stalls) = (true, true));
            self.jump()?;
            self.settle()?;
        }
        self.clear_retained();
        self.router.detach(self.now, &self.adapter);
        self.let_logs_end();
        check::nothing_is_left(&self.router)
    }

    /// Logs are forgotten when they have been empty for an hour.
    fn let_logs_end(&mut self) {
        while let Some(due) = self.router.deadline() {
            self.now = self.now.max(due);
            self.router.expire(self.now);
        }
    }

    /// A service clears every retained value.
    fn clear_retained(&mut self) {
        let identity = Identity::unproved(Principal::Service, Permissions::default());
        let outbox = Settings::new(self.config.limits.clone()).outbox();
        let registration =
            Registration { source: "janitor".to_owned(), identity, echo: false, address: None, outbox, will: None };
        let janitor = self.router.attach(self.now, registration).unwrap();
        for pattern in self.model.only.clone() {
            // What a handler sends on its own triple is an event, also if nobody else may send one.
            let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
            self.router.subscribe(self.now, &janitor, &Subscribe::new(pattern, role), |_| None).unwrap();
        }
        for ((user, triple, target), _) in std::mem::take(&mut self.model.retained) {
            let user = user.or_else(|| (!is_shared(&triple[0])).then(String::new));
            let draft = Draft { triple, user, target, retain: true, is_null: true, ..Draft::default() };
            let text = Said::Envelope(draft).text(0, "").unwrap_or_default();
            let envelope = decode(&text, DecodeLimits::OWN).unwrap();
            assert!(self.router.route(self.now, &janitor, &envelope).is_ok(), "a value could not be cleared");
        }
        self.router.detach(self.now, &janitor);
    }
}
