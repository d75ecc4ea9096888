//! What answers late: the verifier, and the adapter in the process.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde_json::value::RawValue;
use switchboard::auth::{AuthError, Claim, Identity, Open, Verifier};
use switchboard::config::{AuthMode, Config};
use switchboard::connection::Input;
use switchboard::router::Data;
use wire::{CloseCode, ErrorCode};

use super::app::App;
use super::cast::CAST;
use super::check::{self, Held};
use super::conn::Conn;
use super::door;
use super::draft::{Draft, Said};
use super::inbox::{Due, What};
use super::link::Wait;
use super::model::ConnId;
use super::reading;
use super::world::{ADAPTER, Seat, World};

impl World {
    /// A verifier answers, late.
    pub(super) fn verify(&mut self, seat: usize) -> Held {
        let Seat { part, link: Some(link) } = &mut self.seats[seat] else { return Ok(()) };
        let (part, conn) = (*part, link.conn);
        match link.wait {
            Wait::Nothing => return Ok(()),
            Wait::Renewal(..) => return self.verify_renewal(seat),
            Wait::Verifier(..) => {}
        }
        let Wait::Verifier(claim, n, echo) = std::mem::replace(&mut link.wait, Wait::Nothing) else { return Ok(()) };
        self.lines.push(format!("the verifier answers {}", part.name));
        let source = claim.source.clone();
        let outcome = match verified_by(&self.config, claim) {
            Ok(identity) => Ok(self.with_end(identity)),
            Err(error) => Err(error),
        };
        let taken = |identity: &Identity| {
            let user = identity.principal.user();
            let same = |(_, other): (ConnId, &Conn)| other.source == source && other.user.as_deref() == user;
            identity.exclusive && self.model.registered().any(same)
        };
        let refusal = match &outcome {
            Ok(identity) if taken(identity) => Some((ErrorCode::SourceInUse, CloseCode::SourceInUse)),
            Ok(_) => None,
            Err(AuthError::Forbidden(_)) => Some((ErrorCode::Forbidden, CloseCode::Forbidden)),
            Err(_) => Some((ErrorCode::Unauthenticated, CloseCode::Unauthenticated)),
        };
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        link.refused = refusal.map(|(_, close)| close);
        let identity = outcome.as_ref().ok().cloned();
        let effect = link.connection.handle(self.now, Input::Verified(outcome), &self.router);
        let session = link.connection.session().map(|member| member.id());
        link.resuming.sent = 0;
        link.resuming.is_resumable = link.connection.session().is_some_and(|session| session.is_resumable());
        self.look_at_outboxes();
        match (refusal, identity, session) {
            (Some((code, _)), ..) => {
                let what = What::Refused(code.as_str());
                self.model.owe(conn, Due::on_broker("Application", "Register", Some(n.to_string()), what));
            }
            (None, Some(identity), Some(session)) => {
                self.model.conns[conn].is_now(source, &identity);
                self.model.registered_as(self.now, conn, n, session, echo);
                self.model.proved(self.now, conn, identity.ends);
            }
            _ => {}
        }
        self.carry_out(seat, effect, (n, echo))?;
        self.pump(seat)
    }

    /// The adapter takes a request, and answers one of those it has.
    pub(super) fn adapter_acts(&mut self) -> Held {
        for _ in 0..2 {
            let Some(given) = self.inbox.take() else { break };
            let text = door::written(&given);
            self.note(format!("adapter< {text}"));
            reading::received(&mut self.model, self.now, ADAPTER, &text)?;
        }
        let part = &CAST[0];
        let said = App { chance: &mut self.chance, model: &self.model, id: ADAPTER, part }.answer();
        let Said::Envelope(Draft { in_reply_to: Some(id), .. }) = said else { return Ok(()) };
        self.n += 1;
        let n = self.n;
        // It answers on the request's own triple, without ids: the broker adds them.
        let Some(triple) = self.model.triple_of(&id) else { return Ok(()) };
        let draft = Draft { triple, in_reply_to: Some(id.clone()), ..Draft::default() };
        let payload = draft.payload(n);
        self.note(format!("adapter> {id}: {payload}"));
        self.look_at_outboxes();
        let verdict = self.model.judge(ADAPTER, &draft);
        let data = Data::new(RawValue::from_string(payload).unwrap());
        let is_answered = self.router.answer(self.now, &self.adapter, id.parse().unwrap(), &data);
        self.look_at_outboxes();
        check::adapters_are_heard(is_answered, &verdict)?;
        self.model.heard(self.now, ADAPTER, n, &draft, verdict);
        self.model.conns[ADAPTER].inbox.due.clear();
        Ok(())
    }
}

/// Asks the verifier of a configuration.
pub(super) fn verified_by(config: &Config, claim: Claim) -> Result<Identity, AuthError> {
    match config.auth {
        AuthMode::Open => verified(&Open, claim),
        AuthMode::Tokens => verified(&config.token_table(), claim),
    }
}

/// Asks a verifier that answers at once.
fn verified(verifier: &dyn Verifier, claim: Claim) -> Result<Identity, AuthError> {
    let verification = pin!(verifier.verify(claim));
    match verification.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("tokens are looked up, not waited for"),
    }
}
