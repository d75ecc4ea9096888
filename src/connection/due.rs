//! What a connection does when one of its timers is due.

use std::time::Instant;

use wire::{Close, CloseCode};

use super::heartbeat::Beat;
use super::timer::Timer;
use super::{Connection, Effect};
use crate::router::{Ending, Router};
use crate::telemetry::metrics::SlowFor;
use crate::websocket::ping;

impl Connection {
    pub(super) fn fire_timers(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        if let Some(end) = self.session().and_then(|session| session.outbox().take_proof_end()) {
            self.limit_proof(now, end);
        }
        while let Some(timer) = self.timers.take_due(now) {
            let effect = match timer {
                Timer::Registration => Some(self.close(now, router, CloseCode::NotRegistered)),
                Timer::Delay => self.refuse_delayed(now, router),
                Timer::Renewal => {
                    self.renewal_late(now, router);
                    None
                }
                Timer::Proof => self.check_proof(now, router),
                Timer::Heartbeat => self.beat(now, router),
                Timer::Pause => {
                    let slow_consumer = self.limits.slow_consumer;
                    match self.pause.as_mut().and_then(|pause| pause.fire(now, slow_consumer)) {
                        Some(until) => self.timers.set(Timer::Pause, until),
                        None => self.end_pause(now),
                    }
                    None
                }
                Timer::SlowConsumer => {
                    self.settings.metrics.slow_consumers.count(SlowFor::Stalled);
                    let stalled = "slow consumer: nothing was taken for too long";
                    Some(self.close_for(now, router, Close::new(CloseCode::SlowConsumer, stalled), Ending::Stalled))
                }
                Timer::Fetch => self.fetch_is_late(now, router),
                Timer::Move => self.move_on(now, router),
                Timer::Restart => {
                    // What it asked since the drain ended.
                    if let Some(session) = self.session() {
                        router.give_up_all(now, session);
                    }
                    Some(self.close(now, router, CloseCode::Restart))
                }
            };
            if effect.is_some() {
                return effect;
            }
        }
        None
    }

    fn beat(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let reads = self.reads() && self.timers.get(Timer::SlowConsumer).is_none();
        match self.heartbeat.beat(reads) {
            Beat::Ping => {
                self.replies.push_back(ping());
                self.timers.set(Timer::Heartbeat, self.heartbeat.next(now));
                None
            }
            Beat::Dead => Some(self.close(now, router, CloseCode::HeartbeatMissed)),
        }
    }
}
