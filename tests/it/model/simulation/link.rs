//! [`Link`]: one connection in the world, what its application has written and the broker not yet read, and what it waits
//! for. The counterpart of `connection/driver/`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Instant;

use switchboard::auth::Claim;
use switchboard::connection::{Connection, Settings};
use switchboard::router::End;
use wire::CloseCode;

use super::check::Conduct;
use super::draft::Said;
use super::model::ConnId;
use super::resuming::Resuming;

#[expect(clippy::struct_excessive_bools, reason = "what may be true of a connection: any of it with any")]
pub(super) struct Link {
    pub(super) conn: ConnId,
    pub(super) connection: Connection,
    /// Written by the application, not yet read by the broker.
    pub(super) unread: VecDeque<Said>,
    pub(super) wait: Wait,
    /// The application takes nothing.
    pub(super) stalls: bool,
    /// It is dead, and nobody has noticed.
    pub(super) silent: bool,
    /// Since when there is something to take and it takes nothing.
    pub(super) blocked: Option<Instant>,
    /// Its queue has overflowed.
    pub(super) has_overflowed: bool,
    /// It has waited for a receiver, or a publisher has waited for it: from then on an allowance decides.
    pub(super) has_waited: bool,
    pub(super) unregistered: Instant,
    pub(super) refused: Option<CloseCode>,
    /// What its client has to know to resume.
    pub(super) resuming: Resuming,
    /// Messages that it may send at once, and when that was counted.
    allowance: (f64, Instant),
}

/// What the connection waits for beside what it knows itself.
pub(super) enum Wait {
    Nothing,
    /// The verifier: the claim, the number of the Register and whether it asked for echo.
    Verifier(Claim, u64, bool),
    /// The verifier: the claim and the number of the Renew, and since when.
    Renewal(Claim, u64, Instant),
}

impl Link {
    pub(super) fn new(now: Instant, conn: ConnId, settings: &Arc<Settings>) -> Self {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            conn,
            connection: Connection::new(now, address, Arc::clone(settings), conn as u64),
            unread: VecDeque::new(),
            wait: Wait::Nothing,
            stalls: false,
            silent: false,
            blocked: None,
            has_overflowed: false,
            has_waited: false,
            unregistered: now,
            refused: None,
            resuming: Resuming::default(),
            allowance: (f64::from(settings.limits().burst), now),
        }
    }

    /// Whether nothing waits for the application.
    pub(super) fn is_empty(&self) -> bool {
        self.connection.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Whether the router has ended the session.
    pub(super) fn is_ended(&mut self) -> bool {
        self.has_overflowed |= self.connection.ended() == Some(End::Overflowed);
        matches!(self.connection.ended(), Some(End::Overflowed | End::Close(..)))
    }

    /// Whether a pause is over before its time.
    pub(super) fn is_relieved(&mut self) -> bool {
        self.connection.poll_pause(&mut Context::from_waker(Waker::noop())).is_ready()
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
            overflowed: self.has_overflowed,
            refused_registration: self.refused,
            unregistered: now - self.unregistered,
        }
    }
}
