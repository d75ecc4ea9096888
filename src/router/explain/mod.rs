//! [`Router::explain`]: why did B not get it. Runs [`Router::decide`], and says who would get the envelope now and why the others
//! would not. Nothing is delivered, and no turn of a group or a handler moves.
//!
//! `outlook` says who would get it, by the functions that delivery uses. `reasons` judges the others. `absent` is about a source
//! that is not there, `elsewhere` about sessions of other nodes, `asker` about what a session may be told that asks. `answer` is
//! what is printed.

mod absent;
mod answer;
mod asker;
mod elsewhere;
mod outlook;
mod paused;
mod question;
mod reasons;

pub use absent::NoSender;
pub use question::envelope;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use wire::{Envelope, ErrorCode, Refusal};

pub use answer::{
    Chosen, Details, Differs, Effect, Ended, Explanation, HasLeft, Nearest, Other, Queue, Reason, Receiver,
    SenderPaused, Verdict, Who,
};
pub(in crate::router) use paused::PauseFlag;

use crate::router::access::{self, send::Lacking};
use crate::router::backplane::remote::Remote;
use crate::router::decide::{Decision, Facts, Verdict as Decided};
use crate::router::fan_out::is_counted;
use crate::router::history::LogName;
use crate::router::index::Subscription;
use crate::router::recipients::Origin;
use crate::router::request::candidates::{Preference, served_inside};
use crate::router::request::words;
use crate::router::session::{Role, Session};
use crate::router::{ApplicationState, RequestId, Router, Scope};
use asker::Asker;
use elsewhere::{Elsewhere, SessionElsewhere};
use outlook::{Outlook, Picked};
use reasons::{Judge, serials};

/// The rows of each list at most.
const ROWS_MAX: usize = 100;

/// Whom a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About<'q> {
    /// The source.
    pub source: &'q str,
    /// The user. `None`: the sessions of this source in the envelope's scope; if there are none, all.
    pub user: Option<&'q str>,
}

impl About<'_> {
    fn is(&self, session: &Session) -> bool {
        *session.source == *self.source && self.user.is_none_or(|user| session.user() == Some(user))
    }
}

/// A question with what was decided on its envelope.
struct Case<'a> {
    sender: &'a Arc<Session>,
    envelope: &'a Envelope<'a>,
    facts: &'a Facts<'a>,
    about: Option<&'a About<'a>>,
    asker: Asker<'a>,
}

impl Router {
    /// Explains to an operator what would become of an envelope that this session sent now, as far as this node knows.
    pub fn explain(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        about: Option<&About<'_>>,
    ) -> Explanation {
        self.explain_to(now, Asker::Operator, (sender, envelope), about).0
    }

    /// Explains to a session what would become of an envelope that it sent now. It is told about the sessions that
    /// `Application/List` shows it, and about nobody's permissions but its own.
    pub fn explain_to_sender(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        about: Option<&About<'_>>,
    ) -> Explanation {
        self.explain_to(now, Asker::session(sender), (sender, envelope), about).0
    }

    fn explain_to(
        &self,
        now: Instant,
        asker: Asker<'_>,
        (sender, envelope): (&Arc<Session>, &Envelope<'_>),
        about: Option<&About<'_>>,
    ) -> (Explanation, Elsewhere) {
        let Decision { facts, verdict } = self.decide(sender, envelope);
        let case = Case { sender, envelope, facts: &facts, about, asker };
        match verdict {
            Decided::Reply => {
                let request = envelope.in_reply_to().and_then(|id| id.parse().ok());
                match request.and_then(|id: RequestId| sender.given(id)) {
                    Some(pending) => case.reply("1.1", Some(&pending.asker)).into(),
                    None => case.refused(self, &words::no_such_request(None), "1.2", None),
                }
            }
            Decided::Turn(request) => {
                let pending = sender.turns.pending(request);
                case.reply("O.1", pending.as_ref().map(|pending| &pending.asker)).into()
            }
            Decided::Request { scope, candidates } => {
                let outlook = self.outlook_of_request(envelope, scope, candidates);
                let (verdict, rule) = kind_of_request(envelope, &outlook);
                let answer = case.answer(verdict, rule);
                case.with_sessions(self, answer, (scope, true), &outlook)
            }
            Decided::Event { scope, .. } if case.is_duplicate(self, now, scope) => {
                case.answer(Verdict::Duplicate, "Publisher retry").into()
            }
            Decided::Event { scope, matches } => {
                let outlook = Outlook::of_event(Origin::Session(sender), envelope, (scope, &matches, &facts));
                case.with_sessions(self, case.answer(Verdict::Event, "4.1"), (scope, false), &outlook)
            }
            Decided::Refused { refusal, is_request } => {
                let rule = self.rule_of(sender, envelope, &facts, &refusal);
                case.refused(self, &refusal, rule, Some(is_request))
            }
        }
    }

    /// The rule of docs/protocol.md by which an envelope is refused.
    fn rule_of(
        &self,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        refusal: &Refusal,
    ) -> &'static str {
        let is_scope = || access::scope(sender, envelope, facts).is_err();
        match refusal.code {
            ErrorCode::NoHandler if facts.protected => "3.1",
            ErrorCode::NoHandler => "2.4",
            ErrorCode::Forbidden if !is_scope() && self.lacking(sender, envelope, facts, |_| ()).is_some() => "Rights",
            ErrorCode::Forbidden if !is_scope() && facts.protected => "2.10",
            ErrorCode::Forbidden | ErrorCode::UserRequired => "Scope",
            _ if envelope.once() => "Publisher retry",
            _ => "Envelope",
        }
    }

    /// Calls `found` with the general right that the sender lacks, if that is why the envelope is refused.
    fn lacking<T>(
        &self,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        facts: &Facts<'_>,
        found: impl FnOnce(&Lacking<'_>) -> T,
    ) -> Option<T> {
        let rights = sender.rights()?;
        let scope = access::scope(sender, envelope, facts).ok()?;
        let candidates = self.candidates(sender, envelope, scope, facts);
        let sent = self.sent(envelope, &candidates, facts);
        let checked = self.check_right(&rights, envelope, &candidates, facts, sent);
        checked.err().map(|lacking| found(&lacking))
    }
}

/// What a request is, and by which rule.
fn kind_of_request(envelope: &Envelope<'_>, outlook: &Outlook) -> (Verdict, &'static str) {
    let takes_commands = |(_, handler): &(Preference, Arc<Subscription>)| handler.takes_commands();
    let best = outlook.chosen().or_else(|| outlook.ranked.first());
    if envelope.gather() {
        (Verdict::Gather, "2.18")
    } else if best.is_some_and(takes_commands) {
        (Verdict::Command, "2.19")
    } else if envelope.asks() {
        (Verdict::Request, "2.1")
    } else {
        (Verdict::Request, "2.2")
    }
}

impl Case<'_> {
    /// Whether the event was sent before, and its id is still known.
    fn is_duplicate(&self, router: &Router, now: Instant, scope: Scope<'_>) -> bool {
        let Some(id) = self.envelope.id().filter(|_| self.envelope.once()) else { return false };
        let log = LogName::of(&self.facts.canonical.channel, scope);
        let retry = router.policy.limits().history.retry;
        router.history.unknown_id((now, retry), &log, &self.sender.source, scope.user(), id).is_err()
    }

    fn answer(&self, verdict: Verdict, rule: &str) -> Explanation {
        Explanation {
            verdict,
            rule: rule.to_owned(),
            code: None,
            message: None,
            right: None,
            decided_by: None,
            sender_paused: self.sender.paused(),
            receives: Vec::new(),
            more_receivers: 0,
            others: Vec::new(),
            more_others: BTreeMap::new(),
            partial: false,
        }
    }

    /// A reply, which only the requester gets.
    fn reply(&self, rule: &str, asker: Option<&Arc<Session>>) -> Explanation {
        let mut answer = self.answer(Verdict::Reply, rule);
        for session in asker.into_iter().filter(|session| session.outbox().ended().is_none()) {
            match self.asker.sees(session) {
                true => answer.receives.push(receiver(session, None)),
                false => answer.more_receivers += 1,
            }
        }
        answer
    }

    /// `is_request`: what the envelope would have been, if others are to be judged.
    fn refused(
        &self,
        router: &Router,
        refusal: &Refusal,
        rule: &str,
        is_request: Option<bool>,
    ) -> (Explanation, Elsewhere) {
        let (sender, envelope, facts) = (self.sender, self.envelope, self.facts);
        let mut answer = self.answer(Verdict::Refused, rule);
        answer.code = Some(refusal.code.as_str().to_owned());
        answer.message = Some(refusal.message.to_string());
        let right = router.lacking(sender, envelope, facts, |lacking| {
            (lacking.refusal == *refusal).then(|| (lacking.right.to_owned(), lacking.why.to_string()))
        });
        (answer.right, answer.decided_by) = right.flatten().unzip();
        match (is_request, access::scope(sender, envelope, facts)) {
            (Some(is_request), Ok(scope)) => {
                self.with_sessions(router, answer, (scope, is_request), &Outlook::default())
            }
            _ => answer.into(),
        }
    }

    /// Adds who gets the envelope, and why the others do not.
    fn with_sessions(
        &self,
        router: &Router,
        mut answer: Explanation,
        (scope, is_request): (Scope<'_>, bool),
        outlook: &Outlook,
    ) -> (Explanation, Elsewhere) {
        if !self.asker.may_know_others(self.envelope.triple()) {
            return answer.into();
        }
        self.add_receivers(&mut answer, (scope, is_request), outlook);
        let handlers = router.handlers_of(self.facts, scope);
        let events = router.subscribers(self.facts, scope);
        let sender_handles = router.candidates(self.sender, self.envelope, scope, self.facts).sender_handles;
        let judge = Judge {
            router,
            asker: &self.asker,
            sender: Some(self.sender),
            envelope: self.envelope,
            facts: self.facts,
            scope,
            is_request,
            why_event: if sender_handles { "the sender handles the triple too" } else { "rule 4.1" },
            reached: serials(&handlers).chain(serials(&events)).collect(),
            served_inside: served_inside(self.facts, &handlers),
            outlook,
        };
        let Asked { here, there } = self.asked(router, scope);
        if let Some(about) = self.about.filter(|_| here.is_empty() && there.is_empty()) {
            answer.others.push(router.absent(about, scope, &self.asker));
        }
        let receivers = outlook.receivers();
        for session in here.iter().filter(|session| !receivers.contains(&session.number)) {
            let Some(other) = judge.judge(session) else { continue };
            if answer.others.len() < ROWS_MAX {
                answer.others.push(other);
            } else {
                *answer.more_others.entry(other.reason).or_default() += 1;
            }
        }
        let elsewhere = self.add_elsewhere(router, &mut answer, &judge, there);
        (answer, elsewhere)
    }

    fn add_receivers(&self, answer: &mut Explanation, (scope, is_request): (Scope<'_>, bool), outlook: &Outlook) {
        for picked in &outlook.picked {
            let is_shown = self.asker.sees(&picked.subscription.session);
            if is_shown && answer.receives.len() < ROWS_MAX {
                answer.receives.push(receiver(&picked.subscription.session, Some(picked)));
            } else if is_shown || is_request || is_counted(&picked.subscription, scope) {
                // Nobody learns that an observer watches.
                answer.more_receivers += 1;
            }
        }
    }

    /// The sessions of the scope on this node, or those of all nodes that the question is about, in the order of user, source
    /// and registration.
    fn asked(&self, router: &Router, scope: Scope<'_>) -> Asked {
        let mut here = Vec::new();
        router.presence.each(|session| {
            let is_asked = self.about.is_none_or(|about| about.is(session));
            if is_asked && self.asker.sees(session) && session.outbox().ended().is_none() {
                here.push(Arc::clone(session));
            }
        });
        let mut there = self.about.map_or_else(Vec::new, |about| self.asked_elsewhere(router, about));
        match self.about {
            None => here.retain(|session| is_of_scope(session, scope)),
            Some(About { user: None, .. }) => {
                let is_here = here.iter().any(|session| is_of_users(session.user(), scope));
                if is_here || there.iter().any(|session| is_of_users(session.user.as_deref(), scope)) {
                    here.retain(|session| is_of_users(session.user(), scope));
                    there.retain(|session| is_of_users(session.user.as_deref(), scope));
                }
            }
            Some(About { user: Some(_), .. }) => {}
        }
        here.sort_by(|one, other| {
            (one.user(), &one.source, one.number).cmp(&(other.user(), &other.source, other.number))
        });
        Asked { here, there }
    }
}

/// The sessions that a question is about.
struct Asked {
    here: Vec<Arc<Session>>,
    there: Vec<SessionElsewhere>,
}

/// Whether a user is one of a scope. `None`: a service.
fn is_of_users(user: Option<&str>, scope: Scope<'_>) -> bool {
    match scope {
        Scope::Shared(_) => true,
        Scope::User(of) => user.is_none_or(|own| own == of),
    }
}

/// Whether a session can take part in a scope, if only as an observer.
fn is_of_scope(session: &Session, scope: Scope<'_>) -> bool {
    is_of_users(session.user(), scope) || session.holds.lock().subscriptions.iter().any(|it| it.observes.is_some())
}

/// A session that gets an envelope.
fn receiver(session: &Session, picked: Option<&Picked>) -> Receiver {
    let depth = session.outbox().depth();
    let subscription = picked.map(|picked| &picked.subscription);
    Receiver {
        who: Who::of(session),
        node: session.remote().map(|remote| remote.node().to_owned()),
        pattern: subscription.map(|it| it.pattern.to_string()),
        group: subscription.and_then(|it| it.group.as_deref()).map(str::to_owned),
        since: subscription.map(|it| date_text(it.since)),
        state: ApplicationState::of_session(session).as_str().to_owned(),
        queue: Queue { messages: depth.messages, bytes: depth.bytes },
        effect: picked.map_or(Effect::Queued, |picked| picked.effect),
        chosen: picked.and_then(|picked| picked.chosen),
    }
}

impl Who {
    fn of(session: &Session) -> Self {
        // The stand-in of a requester has an id of its own.
        let is_listed = session.role != Role::Adapter && session.remote().is_none_or(Remote::is_of_handler);
        Self {
            source: session.source.to_string(),
            user: session.user().map(str::to_owned),
            session: is_listed.then(|| session.id.to_string()),
        }
    }
}

/// A time in RFC 3339.
fn date_text(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
