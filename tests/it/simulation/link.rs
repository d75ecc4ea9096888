//! [`Link`]: one connection in the world: its session, what its application has written and the session not yet read,
//! and what the session waits for. What `session/task.rs` is to a socket.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard::auth::Claim;
use switchboard::connection::{Connection, Settings};
use switchboard::router::Outbox;
use wire::CloseCode;

use super::check::Conduct;
use super::draft::Said;
use super::model::ConnId;

pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) session: Connection,
    pub(super) outbox: Arc<Outbox>,
    /// Written by the application, not yet read by the broker.
    pub(super) unread: VecDeque<Said>,
    pub(super) wait: Wait,
    /// The application takes nothing.
    pub(super) stalls: bool,
    /// It is dead, and nobody has noticed.
    pub(super) silent: bool,
    /// Since when there is something to take and it takes nothing.
    pub(super) blocked: Option<Instant>,
    /// A publisher has waited for it, and it has not drained since.
    pub(super) in_vain: bool,
    pub(super) unregistered: Instant,
    pub(super) refused: Option<CloseCode>,
    /// Messages that it may send at once, and when that was counted.
    allowance: (f64, Instant),
}

/// What the session waits for before it reads on.
pub(super) enum Wait {
    Nothing,
    /// The verifier: the claim, the number of the Register and whether it asked for echo.
    Verifier(Claim, u64, bool),
    Pause(Instant, Vec<Arc<Outbox>>),
}

impl Link {
    pub(super) fn new(now: Instant, conn: ConnId, settings: &Arc<Settings>) -> Self {
        let outbox = settings.outbox();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            conn,
            session: Connection::new(now, address, Arc::clone(settings), Arc::clone(&outbox)),
            outbox,
            unread: VecDeque::new(),
            wait: Wait::Nothing,
            stalls: false,
            silent: false,
            blocked: None,
            in_vain: false,
            unregistered: now,
            refused: None,
            allowance: (f64::from(settings.limits().burst), now),
        }
    }

    /// Whether the session reads what its application has written.
    pub(super) fn reads(&self) -> bool {
        matches!(self.wait, Wait::Nothing)
    }

    /// When the clock has something to say to it next.
    pub(super) fn due(&self, slow_consumer: Duration) -> Option<Instant> {
        let pause = match &self.wait {
            Wait::Pause(until, _) => Some(*until),
            Wait::Nothing | Wait::Verifier(..) => None,
        };
        let blocked = self.blocked.map(|since| since + slow_consumer);
        [self.session.deadline(), pause, blocked].into_iter().flatten().min()
    }

    /// Ends a pause that is over, by the time or because those it was for have been relieved; who was waited for in vain.
    pub(super) fn end_pause(&mut self, now: Instant) -> Vec<Arc<Outbox>> {
        let Wait::Pause(until, outboxes) = &self.wait else { return Vec::new() };
        let relieved = !outboxes.is_empty() && outboxes.iter().all(|outbox| outbox.is_relieved());
        if now < *until && !relieved {
            return Vec::new();
        }
        let in_vain = outboxes.iter().filter(|outbox| !outbox.is_relieved()).cloned().collect();
        self.wait = Wait::Nothing;
        in_vain
    }

    /// Counts a message. `true`: it was faster than it may be.
    pub(super) fn is_fast(&mut self, now: Instant, rate: u32, burst: u32) -> bool {
        let (left, counted) = self.allowance;
        let earned = (now - counted).as_secs_f64() * f64::from(rate);
        let left = (left + earned).min(f64::from(burst)) - 1.0;
        self.allowance = (left, now);
        rate > 0 && left < -1e-6
    }

    pub(super) fn conduct(&self, now: Instant) -> Conduct {
        Conduct {
            stalled: self.blocked.map(|since| now - since).unwrap_or_default(),
            silent: self.silent,
            overflowed: self.outbox.overflowed(),
            refused_registration: self.refused,
            unregistered: now - self.unregistered,
        }
    }
}
