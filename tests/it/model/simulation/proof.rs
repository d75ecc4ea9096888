//! Proofs of identity that end, and their renewal.

use std::time::{Duration, Instant};

use rand::RngExt;
use switchboard::auth::{AuthError, Ends, Identity};
use switchboard::config::AuthMode;
use switchboard::connection::Input;

use super::check::{self, Held};
use super::inbox::{Due, What};
use super::late::verified_by;
use super::link::Wait;
use super::model::{ConnId, Model};
use super::world::{Seat, World};

/// How long before the end a session is told.
const NOTICE: Duration = Duration::from_mins(1);

/// How long a renewal may be verified: `limits.registration`.
const VERIFICATION: Duration = Duration::from_secs(10);

impl Model {
    /// A session has a proof that ends then.
    pub(super) fn proved(&mut self, now: Instant, conn: ConnId, ends: Ends) {
        let ends = match ends {
            Ends::After(lasts) => Some(now + lasts),
            Ends::Never | Ends::At { .. } => None,
        };
        (self.conns[conn].ends, self.conns[conn].is_announced) = (ends, false);
        self.announce(now);
    }

    /// The sessions whose proof ends soon are told so, once.
    pub(super) fn announce(&mut self, now: Instant) {
        for id in 0..self.conns.len() {
            let conn = &mut self.conns[id];
            let Some(left) = conn.ends.map(|ends| ends.saturating_duration_since(now)) else { continue };
            if left <= NOTICE && !std::mem::replace(&mut conn.is_announced, true) {
                let seconds = u64::try_from(left.as_nanos().div_ceil(1_000_000_000)).unwrap();
                let what = What::Expiring { seconds, is_certain: true };
                self.owe(id, Due::on_broker("Connection", "Expiring", None, what));
            }
        }
    }

    /// Whether the proof of a session has ended.
    pub(super) fn is_expired(&self, now: Instant, conn: ConnId) -> bool {
        self.conns[conn].ends.is_some_and(|ends| ends <= now)
    }

    /// A connection is closed. If its session's proof has ended, it is told so. A notice that was due at this very time may
    /// have been sent or not.
    pub(super) fn closes_expired(&mut self, now: Instant, id: ConnId, is_for_proof: bool) {
        for due in &mut self.conns[id].inbox.due {
            if let What::Expiring { is_certain, .. } = &mut due.what {
                *is_certain = false;
            }
        }
        if is_for_proof && self.is_expired(now, id) {
            // The last word may have been too much for a queue that was nearly full.
            self.conns[id].lost |= self.conns[id].over_half;
            self.owe(id, Due::error(None, "UNAUTHENTICATED"));
        }
    }
}

impl World {
    /// An identity whose proof lasts as long as this world's proofs do.
    pub(super) fn with_end(&mut self, identity: Identity) -> Identity {
        if !self.proofs_end {
            return identity;
        }
        let lasts = Duration::from_millis(self.chance.random_range(2_000..150_000));
        Identity { ends: Ends::After(lasts), ..identity }
    }

    /// Answers renewals that would be given up within this time.
    pub(super) fn verify_in_time(&mut self, time: Duration) -> Held {
        for seat in 0..self.seats.len() {
            let since = match self.seats[seat].link.as_ref().map(|link| &link.wait) {
                Some(Wait::Renewal(.., since)) => *since,
                _ => continue,
            };
            if since + VERIFICATION <= self.now + time {
                self.verify_renewal(seat)?;
            }
        }
        Ok(())
    }

    /// The verifier answers a renewal.
    pub(super) fn verify_renewal(&mut self, seat: usize) -> Held {
        let Seat { part, link: Some(link) } = &mut self.seats[seat] else { return Ok(()) };
        let (part, conn) = (*part, link.conn);
        let Wait::Renewal(claim, n, _) = std::mem::replace(&mut link.wait, Wait::Nothing) else { return Ok(()) };
        self.lines.push(format!("the verifier answers {} again", part.name));
        // A row is known by its token, and each part has its own.
        let is_own = self.config.auth == AuthMode::Open
            || claim.token.as_ref().is_some_and(|token| secrecy::ExposeSecret::expose_secret(token) == part.token());
        let outcome = match verified_by(&self.config, claim) {
            Ok(identity) => Ok(self.with_end(identity)),
            Err(error) => Err(error),
        };
        let (what, ends) = match &outcome {
            Ok(identity) if is_own => (What::Done, Some(identity.ends)),
            Ok(_) | Err(AuthError::Forbidden(_)) => (What::Refused("FORBIDDEN"), None),
            Err(_) => (What::Refused("UNAUTHENTICATED"), None),
        };
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        let before = link.connection.session().map(|session| session.id());
        let effect = link.connection.handle(self.now, Input::Verified(outcome), &self.router);
        let after = link.connection.session().map(|session| session.id());
        check::sessions_outlive_renewals(&self.model.conns[conn], before == after && effect.is_none())?;
        self.look_at_outboxes();
        self.model.owe(conn, Due::on_broker("Application", "Renew", Some(n.to_string()), what));
        if let Some(ends) = ends {
            self.model.proved(self.now, conn, ends);
        }
        self.pump(seat)
    }
}
