//! The [`Driver`]'s session: how it begins, goes on after a reconnection and ends, and what keeps it.

use std::collections::HashMap;

use secrecy::SecretString;
use serde_json::json;
use tokio::time::Instant;

use super::held::Asking;
use super::message::Payload;
use super::outbox::{Entry, Kind};
use super::reconnect::Driver;
use super::reconnection::Outage;
use super::waiting::Waiting;
use super::{Error, Session, State};

impl Driver {
    /// Reports that the client is connected, with all subscriptions confirmed.
    pub(super) fn announce(&mut self, session: Session) {
        let has_missed = std::mem::take(&mut self.table.has_missed);
        if let Some(outage) = self.outage.take() {
            // An error means that nobody reads the reports.
            self.shared.reconnections.send(outage.report(has_missed)).ok();
        }
        self.shared.states.send_replace(State::Connected(session));
    }

    /// Goes on with the session, of whose messages the broker has taken this many.
    pub(super) fn resume_session(&mut self, token: Option<SecretString>, taken: u64) {
        let (again, is_sound) = self.out.go_on(taken);
        if !is_sound {
            tracing::warn!(taken, "the broker counts other messages than this client has sent");
            self.outage.iter_mut().for_each(Outage::lose);
        }
        self.resume.go_on(token);
        self.acknowledge();
        self.push_again(again);
    }

    /// Begins a new session: makes the subscriptions again, and sends what is left.
    pub(super) fn begin_session(&mut self, token: Option<SecretString>) {
        if self.resume.is_possible() {
            self.end_session(&Error::OutcomeUnknown, true);
        }
        self.resume.begin(token);
        let rest = self.out.drain();
        self.out.begin(self.resume.is_possible());
        for Asking { wanted, asked, recover } in self.table.again(self.shared.settings.recover) {
            self.subscribe(self.shared.next_id(), &wanted.data(recover.as_ref()), Waiting::Subscribe(wanted, asked));
        }
        self.push_again(rest);
    }

    /// Ends the session for this client. Pending operations that were sent fail with `error`. With `repeats`, events that the
    /// broker recognises are kept for the next session, as are those that were not sent.
    pub(super) fn end_session(&mut self, error: &Error, repeats: bool) {
        let rest = self.out.end();
        self.resume.end();
        let repeated = self.table.end_session(Instant::now(), error, rest.unwritten_from, repeats);
        for (id, text) in repeated {
            let sequence = self.out.push(Kind::Event { silent: false }, text);
            self.table.repeated(&id, sequence);
        }
        self.push_again(rest.events);
        if rest.is_in_doubt {
            tracing::warn!("the session has ended; it is unknown whether the last events without a receipt arrived");
        }
        self.outage.iter_mut().for_each(|outage| outage.end_session(rest.is_in_doubt));
    }

    /// Sends messages again, in order.
    fn push_again(&mut self, entries: Vec<Entry>) {
        let mut moved = HashMap::with_capacity(entries.len());
        for entry in entries {
            let sequence = entry.sequence;
            moved.extend(self.out.push_again(entry).map(|now| (sequence, now)));
        }
        if !moved.is_empty() {
            self.table.move_sequences(&moved);
        }
    }

    /// Acknowledges what has arrived and asks what the broker has taken, if it is time to.
    pub(super) fn keep_up(&mut self, now: Instant) {
        if self.resume.due(now) {
            self.acknowledge();
        }
        if self.out.due(now) {
            let id = self.shared.next_id();
            if let Some(text) = self.shared.command("Connection", "Ping", Some(&id), &Payload::default()) {
                let sequence = self.out.push(Kind::Upkeep, text);
                self.table.wait(id, sequence, Waiting::Ping);
                self.out.set_asking(true);
            }
        }
    }

    pub(super) fn upkeep_due(&self) -> Option<Instant> {
        [self.resume.deadline(), self.out.deadline()].into_iter().flatten().min()
    }

    fn acknowledge(&mut self) {
        let data = json!({ "received": self.resume.acknowledge() });
        if let Some(text) = self.shared.command("Connection", "Acknowledge", None, &data.into()) {
            self.out.push(Kind::Upkeep, text);
        }
    }
}
