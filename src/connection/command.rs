//! The Broker commands of a session: subscribing, and the small ones.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::connection::Connection;
use crate::connection::log::Leaving;
use crate::connection::message::Next;
use crate::connection::pause::Pause;
use crate::connection::timer::Timer;
use crate::router::explain::{self, About};
use crate::router::{
    Application, Ending, HeldLine, Listed, LookTicket, OnFull, Position, Recovered, Router, Subscribed,
};
use crate::telemetry::metrics::{EnvelopeKind, RegistrationOutcome};
use wire::command::{self, Command, Explain, RoleName, Subscribe, Unsubscribe};
use wire::{Envelope, ErrorCode, Refusal, notice};

/// As how many messages a question counts against the rate of its session: an answer can take as long as a publish to many.
const EXPLAIN_COUNTS: u32 = 100;

/// What answers a command: more than `Success`, or why not.
type Answer = Result<Value, Refusal>;

/// Nothing to say but that it was done.
const DONE: Value = Value::Null;

impl Connection {
    pub(super) fn command(
        &mut self,
        now: Instant,
        envelope: &Envelope<'_>,
        router: &Router,
        mut line: Option<&mut HeldLine<'_>>,
    ) -> Next {
        if !self.is_handled_again() {
            self.settings.metrics.traffic.undelivered(EnvelopeKind::Command);
        }
        let triple = envelope.triple();
        let is_register = command::is(triple, "Application", "Register");
        if let Some(line) = line.as_mut().filter(|_| !is_register) {
            line.count_received();
        }
        // They have a token.
        self.secret_read |= is_register || command::is(triple, "Application", "Renew");
        let may_come_first = is_register || command::is(triple, "Connection", "Ping");
        if self.session().is_none() && !may_come_first {
            self.not_registered(now, envelope, router);
            return Next::Stay(None);
        }
        tracing::debug!(topic = &*triple.topic, subtopic = &*triple.subtopic, "a command");
        let answer = match self.read(envelope) {
            Err(refusal) if !command::is_command(triple) => {
                // It may be a misspelt Register.
                self.secret_read = true;
                self.note_refusal(now, router, (Some(triple), envelope.id()), &refusal);
                self.push(now, notice::error(envelope.id(), &refusal));
                return Next::Stay(None);
            }
            Err(refusal) => Err(refusal),
            Ok(Command::Register(options)) => match self.register(now, envelope, *options, router) {
                Ok(effect) => return Next::Stay(effect),
                Err(refusal) => Err(refusal),
            },
            Ok(Command::Renew(options)) => match self.session().map(Arc::clone) {
                Some(session) => return Next::Stay(Some(self.renew(now, &session, envelope.id(), options, router))),
                None => Err(impossible("a renewal without a session")),
            },
            Ok(Command::Unregister) => return Next::Unregister(envelope.id().map(str::to_owned)),
            Ok(Command::Acknowledge(received)) => match self.acknowledge(received, line) {
                Ok(()) if envelope.id().is_none() => return Next::Stay(None),
                outcome => outcome.map(|()| DONE),
            },
            Ok(Command::Ping) => Ok(DONE),
            Ok(Command::Subscribe(wanted)) => match self.subscribe(now, &wanted, envelope.id(), router) {
                Ok(None) => return Next::Stay(None),
                Ok(Some(ticket)) => return Next::Wait(ticket),
                Err(refusal) => Err(refusal),
            },
            Ok(Command::Explain(question)) => match self.explain(now, &question, envelope.id(), router) {
                Ok(()) => return Next::Stay(None),
                Err(refusal) => Err(refusal),
            },
            Ok(command) => self.registered(now, command, router),
        };
        let frame = match answer {
            Ok(more) => notice::success(triple, envelope.id(), more),
            Err(refusal) => {
                if is_register {
                    self.count_registration(RegistrationOutcome::Refused(refusal.code));
                }
                self.note_refusal(now, router, (Some(triple), envelope.id()), &refusal);
                notice::failure(triple, envelope.id(), &[], &refusal)
            }
        };
        if is_register && self.attachment != 0 {
            // What answers a Register is not counted, so it is not in the queue of the session.
            self.replies.push_back(frame.into());
        } else {
            self.push(now, frame);
        }
        Next::Stay(None)
    }

    fn read(&self, envelope: &Envelope<'_>) -> Result<Command, Refusal> {
        let command = Command::read(envelope)?;
        match self.session() {
            Some(_) if matches!(command, Command::Register(_)) => Err(Refusal::new(
                ErrorCode::AlreadyRegistered,
                "this session is registered; send Broker/Application/Unregister first, or open another connection",
            )),
            Some(session) => session.check_source(envelope).map(|()| command),
            None => Ok(command),
        }
    }

    /// The commands that only a registered session has.
    fn registered(&mut self, now: Instant, command: Command, router: &Router) -> Answer {
        let Some(session) = self.session() else { return Err(impossible("a command without a session")) };
        match command {
            Command::ListApplications => {
                Ok(applications(&router.applications(session), router.applications_are_partial()))
            }
            Command::SetState(state) => {
                router.set_state(now, session, state);
                Ok(DONE)
            }
            Command::Unsubscribe(Unsubscribe::Id(id)) => {
                router.unsubscribe(now, session, &id)?;
                tracing::debug!(source = session.source(), subscription = id, "unsubscribed");
                Ok(DONE)
            }
            Command::Unsubscribe(Unsubscribe::Matching(filter)) => {
                router.unsubscribe_matching(now, session, &filter)?;
                let role = filter.role.map(RoleName::as_str);
                let (source, pattern) = (session.source(), &filter.pattern);
                tracing::debug!(source, %pattern, role, group = filter.group, user = filter.user, "unsubscribed");
                Ok(DONE)
            }
            Command::ListSubscriptions => Ok(subscriptions(&router.subscriptions(session))),
            Command::Cancel(id) => router.cancel(now, session, &id).map(|()| DONE),
            Command::Register(_)
            | Command::Renew(_)
            | Command::Unregister
            | Command::Ping
            | Command::Acknowledge(_)
            | Command::Explain(_)
            | Command::Subscribe(_) => Err(impossible("a command that was handled before")),
        }
    }

    /// Subscribes; the router itself replies, before anything that the subscription brings. With a ticket, nothing was done
    /// yet.
    fn subscribe(
        &mut self,
        now: Instant,
        wanted: &Subscribe,
        in_reply_to: Option<&str>,
        router: &Router,
    ) -> Result<Option<LookTicket>, Refusal> {
        let found = self.take_found();
        let Some(session) = self.session() else { return Err(impossible("a subscription without a session")) };
        let (mut subscription, mut narrowed, mut recovered) = (None, false, None);
        let waits = router.subscribe_when_read(now, session, wanted, found, |subscribed| {
            (subscription, narrowed, recovered) = (Some(subscribed.id), subscribed.is_narrowed, subscribed.recovered);
            let more = subscribed_with(&subscribed, wanted);
            Some(notice::success(&notice::triple("Subscription", "Subscribe"), in_reply_to, more).into())
        })?;
        if waits.is_some() {
            return Ok(waits);
        }
        tracing::debug!(
            source = session.source(),
            pattern = %wanted.pattern,
            role = wanted.role.as_str(),
            group = wanted.group,
            user = wanted.user,
            subscription = subscription.map(tracing::field::display),
            narrowed,
            "subscribed"
        );
        if matches!(recovered, Some(Recovered::Replayed(1..))) {
            let pause = Pause::Replay(Arc::clone(session));
            self.begin_pause(now, pause, now + self.limits.slow_consumer);
        }
        Ok(None)
    }

    /// Answers what would become of an envelope. The nodes of a cluster that are asked for it delay the answer by 250 ms at most;
    /// other messages of the session are handled meanwhile.
    fn explain(
        &mut self,
        now: Instant,
        question: &Explain,
        in_reply_to: Option<&str>,
        router: &Router,
    ) -> Result<(), Refusal> {
        let Some(session) = self.session() else { return Err(impossible("a question without a session")) };
        let envelope = explain::envelope(&question.envelope, self.limits.json_depth)?;
        let about = question.to.as_ref().map(|to| About { source: &to.source, user: to.user.as_deref() });
        let (asker, id) = (Arc::clone(session), in_reply_to.map(str::to_owned));
        router.explain_everywhere_to_sender(now, session, &envelope, about.as_ref(), move |now, answer| {
            let frame = notice::success(&notice::triple("Message", "Explain"), id.as_deref(), answer.on_the_wire());
            // A session that is ending has its own close to say why.
            asker.outbox().push(now, frame.into(), OnFull::Close).ok();
        });
        self.rate.count(now, EXPLAIN_COUNTS - 1);
        Ok(())
    }

    /// Ends the session as its client wishes. The reply follows everything of the session.
    pub(super) fn unregister(&mut self, now: Instant, id: Option<&str>, router: &Router) {
        self.leave(now, router, &Leaving { reason: "unregistered", code: None, ending: Ending::Unregistered });
        self.push(now, notice::success(&notice::triple("Application", "Unregister"), id, DONE));
        self.unregistered = Some(self.settings.unregistered.enter().0);
        self.end_pause(now);
        self.timers.set(Timer::Registration, now + self.limits.registration);
    }
}

/// What the reply to Subscribe has.
fn subscribed_with(subscribed: &Subscribed, wanted: &Subscribe) -> Value {
    let mut more = Map::new();
    more.insert("SubscriptionId".into(), subscribed.id.to_string().into());
    more.extend(subscribed.is_narrowed.then(|| ("Narrowed".to_owned(), true.into())));
    if let Some(Position { offset, epoch }) = &subscribed.position {
        more.insert("Epoch".into(), (**epoch).into());
        more.insert("Offset".into(), (*offset).into());
    }
    match subscribed.recovered {
        None => {}
        Some(Recovered::Replayed(count)) => {
            more.insert("Recovered".into(), true.into());
            more.insert("Replayed".into(), count.into());
        }
        Some(Recovered::Lost(reason)) => {
            more.insert("Recovered".into(), false.into());
            more.insert("RecoverReason".into(), reason.as_str().into());
        }
    }
    more.extend(wanted.pattern.hint().map(|hint| ("Hint".to_owned(), hint.into())));
    more.into()
}

/// A state that cannot be, which a test would meet as a panic. In service it costs its session an answer.
fn impossible(what: &'static str) -> Refusal {
    debug_assert!(false, "{what}");
    tracing::error!(what, "an impossible state");
    Refusal::new(ErrorCode::Internal, "the broker failed; its log says more")
}

fn applications(rows: &[Application], is_partial: bool) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "Source": row.source,
                "User": row.user,
                "Since": humantime::format_rfc3339_millis(row.since).to_string(),
                "Sessions": row.sessions,
                "State": row.state.as_str(),
            })
        })
        .collect();
    match is_partial {
        true => json!({ "Applications": rows, "Partial": true }),
        false => json!({ "Applications": rows }),
    }
}

fn subscriptions(rows: &[Listed]) -> Value {
    let part = |part: &Option<Box<str>>| part.as_deref().unwrap_or("*").to_owned();
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "SubscriptionId": row.id.to_string(),
                "Channel": part(&row.pattern.channel),
                "Topic": part(&row.pattern.topic),
                "Subtopic": part(&row.pattern.subtopic),
                "Role": row.role.as_str(),
                "Group": row.group,
            })
        })
        .collect();
    json!({ "Subscriptions": rows })
}
