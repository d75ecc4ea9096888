//! Sessions that resume: a connection is lost, or another one takes its session over, and what was on its way is sent again.
//!
//! The model knows nothing of it. For everybody else nothing has happened, and the session itself gets each message once and
//! in order, as every rule of `reading` demands.

use rand::RngExt;
use serde_json::{Value, json};
use switchboard::connection::{Effect, Gone, Input};
use wire::CloseCode;

use super::check::{Held, holds};
use super::late::verified_by;
use super::link::{Link, Wait};
use super::world::{Seat, World};

/// What a client has to know to resume.
#[derive(Default)]
pub(super) struct Resuming {
    pub(super) is_resumable: bool,
    /// As the client has read it.
    pub(super) token: Option<String>,
    /// The session of the token. The connection can have another one, of whose Register the client has not read the reply.
    session: String,
    /// Messages of the session that the client has received.
    pub(super) received: u64,
    /// Messages of the session that it has sent.
    pub(super) sent: u64,
}

impl Resuming {
    /// The client has received a message. That which answers Register is not counted.
    pub(super) fn receives(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        if message["channel"] != "Broker" || message["subtopic"] != "Register" {
            self.received += 1;
        } else if message["data"]["Success"] == true {
            self.token = message["data"]["ResumeToken"].as_str().map(str::to_owned);
            message["data"]["SessionId"].as_str().unwrap_or_default().clone_into(&mut self.session);
            self.received = 0;
        }
    }
}

impl Link {
    /// The number of a renewal that is answered because the connection of its session ends.
    pub(super) fn given_up(&self) -> Option<u64> {
        match self.wait {
            Wait::Renewal(_, n, _) => self.resuming.is_resumable.then_some(n),
            Wait::Nothing | Wait::Verifier(..) => None,
        }
    }
}

impl World {
    /// A client loses what is on its way to it, and resumes.
    pub(super) fn resume(&mut self, seat: usize) -> Held {
        let Seat { part, link: Some(link) } = &mut self.seats[seat] else { return Ok(()) };
        let part = *part;
        let (Some(token), Some(session)) = (link.resuming.token.clone(), link.connection.session().cloned()) else {
            return Ok(());
        };
        if link.resuming.session != session.id().to_string() {
            return Ok(());
        }
        if link.silent || link.connection.ended().is_some() || !matches!(link.wait, Wait::Nothing) {
            return Ok(());
        }
        let mut lost = Vec::new();
        let most = self.chance.random_range(0..6);
        link.connection.take(self.now, most, &self.router, &mut lost);
        // Without a request in its hands, it can also be away for a moment.
        let handles = self.model.conns[link.conn].subs.iter().any(|sub| sub.wanted.handler.is_some());
        let is_lost = !handles && self.chance.random_bool(0.5);
        if is_lost {
            link.connection.handle(self.now, Input::Gone(Gone::Lost), &self.router);
        }
        let resume = json!({"token": token, "received": link.resuming.received});
        let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register",
            "source": session.source(), "data": {"token": part.token(), "user": part.user, "resume": resume}});
        let (conn, sent) = (link.conn, link.resuming.sent);
        let mut next = Link::new(self.now, conn, &self.settings);
        let effect = next.connection.handle(self.now, Input::Text(&register.to_string()), &self.router);
        let Some(Effect::Verify(claim)) = effect else { return holds("resumes_are_verified", false, String::new) };
        let identity = verified_by(&self.config, claim).map(|identity| self.with_end(identity));
        let ends = identity.as_ref().map(|identity| identity.ends).ok();
        next.connection.handle(self.now, Input::Verified(identity), &self.router);
        let mut reply = Vec::new();
        next.connection.take(self.now, 1, &self.router, &mut reply);
        let text = reply.first().map_or("", |frame| frame.text()).to_owned();
        let line = format!(
            "{} resumes, {} after a loss of {}: {text}",
            part.name,
            if is_lost { "away" } else { "at once" },
            lost.len()
        );
        self.note(line);
        let data = serde_json::from_str::<Value>(&text).unwrap_or_default()["data"].take();
        let right =
            data["Resumed"] == true && data["Received"] == sent && data["SessionId"] == session.id().to_string();
        holds("a_session_that_returns_in_time_continues", right, || format!("{}: {sent} sent, {text}", part.name))?;
        let Some(link) = &mut self.seats[seat].link else { return Ok(()) };
        if !is_lost {
            let ended = link.connection.ended();
            let effect = ended.and_then(|end| link.connection.handle(self.now, Input::Ended(end), &self.router));
            let replaced = matches!(&effect, Some(Effect::Close(close)) if close.code() == CloseCode::Replaced);
            holds("the_older_connection_is_replaced", replaced, || format!("{}: {effect:?}", part.name))?;
        }
        link.connection = next.connection;
        link.resuming.token = data["ResumeToken"].as_str().map(str::to_owned);
        link.blocked = None;
        // Malformed messages in a row count for a connection.
        self.model.conns[conn].malformed = 0;
        // What answers a Register is not counted, so it is not sent again.
        self.model.conns[conn].inbox.due.retain(|due| due.on != "Broker/Application/Register");
        if let Some(ends) = ends {
            self.model.proved(self.now, conn, ends);
        }
        self.look_at_outboxes();
        Ok(())
    }

    /// A client acknowledges what it has received.
    pub(super) fn acknowledge(&mut self, seat: usize) {
        let Some(link) = &mut self.seats[seat].link else { return };
        if link.resuming.token.is_none() || !link.connection.reads() || link.connection.session().is_none() {
            return;
        }
        let text = json!({"channel": "Broker", "topic": "Connection", "subtopic": "Acknowledge",
            "data": {"received": link.resuming.received}});
        link.is_fast(self.now, self.config.limits.rate, self.config.limits.burst);
        link.resuming.sent += 1;
        self.model.conns[link.conn].malformed = 0;
        link.connection.handle(self.now, Input::Text(&text.to_string()), &self.router);
    }
}
