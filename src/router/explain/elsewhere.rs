//! Sessions of other nodes that a question is about. The sender's node decides what the envelope is, and which handler or member
//! of a group gets it; the node of each session says the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wire::{DecodeLimits, Envelope, decode};

use super::answer::{Details, Explanation, HasLeft, Other, Reason, Receiver, Verdict, Who};
use super::asker::Asker;
use super::outlook::Outlook;
use super::reasons::{Judge, serials};
use super::{About, Case, ROWS_MAX, receiver};
use crate::router::backplane::message::{Explain, Id, Question};
use crate::router::backplane::{Answered, Answers, Peer};
use crate::router::recipients::Origin;
use crate::router::request::candidates::served_inside;
use crate::router::session::Session;
use crate::router::{Router, SessionId};

/// How long other nodes may take to answer.
const WAIT: Duration = Duration::from_millis(250);

/// A session of another node.
pub(super) struct SessionElsewhere {
    peer: Arc<Peer>,
    id: Id,
    source: Arc<str>,
    pub(super) user: Option<Arc<str>>,
}

/// What other nodes have to be asked until an answer is complete.
#[derive(Default)]
pub(super) struct Elsewhere {
    /// Which sessions of each node.
    peers: Vec<(Arc<Peer>, Vec<Id>)>,
    /// The user whom the envelope concerns.
    user: Option<String>,
    is_request: bool,
    /// Why a session that handles the triple gets an event as no request.
    why_event: String,
    /// The handler of a request.
    handler: Option<Who>,
}

impl From<Explanation> for (Explanation, Elsewhere) {
    fn from(complete: Explanation) -> Self {
        (complete, Elsewhere::default())
    }
}

/// What a node says about sessions of its own.
#[derive(Default, Serialize, Deserialize)]
struct There {
    sessions: Vec<Found>,
    /// How the last session of the source ended, and its user.
    left: Option<(Option<String>, HasLeft)>,
}

/// What a node says about one session.
#[derive(Serialize, Deserialize)]
struct Found {
    session: String,
    receives: Option<Receiver>,
    other: Option<Other>,
}

impl Router {
    /// Explains to an operator what would become of an envelope that this session sent now. `told` is called when the nodes of
    /// all sessions that the question is about have answered, or 250 ms have passed.
    pub fn explain_everywhere(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        about: Option<&About<'_>>,
        told: impl FnOnce(Instant, Explanation) + Send + 'static,
    ) {
        let (answer, elsewhere) = self.explain_to(now, Asker::Operator, (sender, envelope), about);
        self.ask_elsewhere(now, (answer, elsewhere), (envelope, about), None, told);
    }

    /// The same for a session that asks about itself as the sender; it is told less ([`Router::explain_to_sender`]).
    pub fn explain_everywhere_to_sender(
        &self,
        now: Instant,
        sender: &Arc<Session>,
        envelope: &Envelope<'_>,
        about: Option<&About<'_>>,
        told: impl FnOnce(Instant, Explanation) + Send + 'static,
    ) {
        let (answer, elsewhere) = self.explain_to(now, Asker::session(sender), (sender, envelope), about);
        self.ask_elsewhere(now, (answer, elsewhere), (envelope, about), Some(Arc::clone(sender)), told);
    }

    /// Completes an answer with what other nodes say. `session`: the one that asks, unless it is an operator.
    fn ask_elsewhere(
        &self,
        now: Instant,
        (mut answer, elsewhere): (Explanation, Elsewhere),
        (envelope, about): (&Envelope<'_>, Option<&About<'_>>),
        session: Option<Arc<Session>>,
        told: impl FnOnce(Instant, Explanation) + Send + 'static,
    ) {
        let questions: Vec<_> = about.map_or_else(Vec::new, |about| {
            let delivers = answer.verdict == Verdict::Event;
            let question = |(peer, sessions): &(Arc<Peer>, Vec<Id>)| {
                let question = Explain {
                    sessions: sessions.clone(),
                    source: about.source,
                    about_user: about.user,
                    user: elsewhere.user.as_deref(),
                    is_request: elsewhere.is_request,
                    delivers,
                    text: envelope.text(),
                };
                (Arc::clone(peer), Question::Explain(question))
            };
            elsewhere.peers.iter().map(question).collect()
        });
        let Elsewhere { why_event, handler, .. } = &elsewhere;
        let (why_event, handler) = (why_event.clone(), handler.clone());
        self.ask_peers(now, WAIT, questions.into_iter(), move |router, now, answers: Answers| {
            let asker = session.as_ref().map_or(Asker::Operator, Asker::session);
            answer.partial = !answers.silent.is_empty() || about_is_partial(router, &answer);
            for (_, answered) in &answers.told {
                let Answered::Explained(json) = answered else { continue };
                let Ok(there) = serde_json::from_slice::<There>(json) else {
                    answer.partial = true;
                    continue;
                };
                answer.add(there, &asker, (&why_event, handler.as_ref()));
            }
            told(now, answer);
        });
    }

    /// Answers a peer that asks about sessions of this node. It is told everything: its node cuts that down to what the asker may
    /// know.
    pub(in crate::router) fn explain_here(&self, question: &Explain<'_>) -> Vec<u8> {
        let there = self.found_here(question).unwrap_or_default();
        serde_json::to_vec(&there).unwrap_or_default()
    }

    fn found_here(&self, question: &Explain<'_>) -> Option<There> {
        let envelope = decode(question.text, DecodeLimits::OWN).ok()?;
        let facts = self.policy.facts(envelope.triple());
        let scope = facts.scope_of(question.user);
        if question.sessions.is_empty() {
            let about = About { source: question.source, user: question.about_user };
            let is_asked = |user: Option<&str>| about.user.is_none_or(|asked| user == Some(asked));
            return Some(There { left: self.last_left(&about, scope, is_asked), ..There::default() });
        }
        let (handlers, events) = (self.handlers_of(&facts, scope), self.subscribers(&facts, scope));
        let outlook = match question.delivers {
            true => Outlook::of_event(Origin::Node, &envelope, (scope, &events, &facts)),
            false => Outlook::default(),
        };
        let judge = Judge {
            router: self,
            asker: &Asker::Operator,
            sender: None,
            envelope: &envelope,
            facts: &facts,
            scope,
            is_request: question.is_request,
            why_event: "",
            reached: serials(&handlers).chain(serials(&events)).collect(),
            served_inside: served_inside(&facts, &handlers),
            outlook: &outlook,
        };
        let mut sessions = Vec::new();
        self.presence.each(|session| {
            if question.sessions.contains(session.id.as_bytes()) && session.outbox().ended().is_none() {
                sessions.push(Arc::clone(session));
            }
        });
        let found = |session: &Arc<Session>| {
            let picked = outlook.picked.iter().find(|it| it.subscription.session.number == session.number);
            let receives = picked.map(|picked| receiver(session, Some(picked)));
            let other = if receives.is_none() { judge.judge(session) } else { None };
            Found { session: session.id.to_string(), receives, other }
        };
        Some(There { sessions: sessions.iter().map(found).collect(), left: None })
    }
}

/// Whether what is known of other nodes may be out of date, and the answer depends on it.
fn about_is_partial(router: &Router, answer: &Explanation) -> bool {
    let depends = |other: &Other| matches!(other.reason, Reason::Elsewhere | Reason::NotRegistered);
    answer.others.iter().any(depends) && router.applications_are_partial()
}

impl Case<'_> {
    /// The sessions of other nodes that the question is about, node by node.
    pub(super) fn asked_elsewhere(&self, router: &Router, about: &About<'_>) -> Vec<SessionElsewhere> {
        let fits = |source: &str, user: Option<&str>| {
            let is_asked = source == about.source && about.user.is_none_or(|asked| user == Some(asked));
            is_asked && self.asker.may_know_user_of(user)
        };
        let of_peer = |peer: Arc<Peer>| {
            let sessions = peer.sessions_like(fits);
            sessions.into_iter().map(move |(id, source, user)| SessionElsewhere {
                peer: Arc::clone(&peer),
                id,
                source,
                user,
            })
        };
        router.all_peers().into_iter().flat_map(of_peer).collect()
    }

    /// Adds a row for each session of another node, with what this node knows. Returns what the others have to be asked.
    pub(super) fn add_elsewhere(
        &self,
        router: &Router,
        answer: &mut Explanation,
        judge: &Judge<'_>,
        sessions: Vec<SessionElsewhere>,
    ) -> Elsewhere {
        let mut peers: Vec<(Arc<Peer>, Vec<Id>)> = Vec::new();
        let is_absent = answer.others.first().is_some_and(|it| it.reason == Reason::NotRegistered);
        if is_absent {
            peers.extend(router.all_peers().into_iter().map(|peer| (peer, Vec::new())));
        }
        for SessionElsewhere { peer, id, source, user } in sessions {
            let session = SessionId::from_bytes(id).to_string();
            if answer.receives.iter().any(|it| it.who.session.as_deref() == Some(&*session)) {
                continue;
            }
            if answer.others.len() >= ROWS_MAX {
                *answer.more_others.entry(Reason::Elsewhere).or_default() += 1;
                continue;
            }
            let who =
                Who { source: source.to_string(), user: user.as_deref().map(str::to_owned), session: Some(session) };
            let chosen = peer.stand_in(id).and_then(|stand_in| judge.judge(&stand_in));
            answer.others.push(Other::elsewhere(who, peer.node(), chosen));
            match peers.last_mut().filter(|(last, _)| Arc::ptr_eq(last, &peer)) {
                Some((_, ids)) => ids.push(id),
                None => peers.push((peer, vec![id])),
            }
        }
        let handler = judge.outlook.picked.iter().map(|it| &it.subscription.session).find(|it| self.asker.sees(it));
        Elsewhere {
            peers,
            user: judge.scope.user().map(str::to_owned),
            is_request: judge.is_request,
            why_event: judge.why_event.to_owned(),
            handler: handler.map(|it| Who::of(it)),
        }
    }
}

impl Other {
    /// The row of a session of another node. `chosen`: why this node does not give it the envelope, if it is a handler or a
    /// member of a group.
    fn elsewhere(who: Who, node: &str, chosen: Option<Self>) -> Self {
        let mut details = Details { node: Some(node.to_owned()), ..Details::default() };
        let mut also = Vec::new();
        if let Some(chosen) = chosen {
            also.extend([chosen.reason].into_iter().chain(chosen.also).filter(|it| it.is_by_choice()));
            if !also.is_empty() {
                (details.why, details.member) = (chosen.details.why, chosen.details.member);
            }
        }
        Self { who, reason: Reason::Elsewhere, also, details }
    }

    /// Adds what its node says, as far as the asker may know that.
    fn complete(&mut self, found: Found, asker: &Asker<'_>, (why_event, handler): (&str, Option<&Who>)) {
        if let Some(receives) = found.receives {
            self.details.receives = Some(Box::new(receives));
            return;
        }
        let Some(Self { reason, also, details: theirs, .. }) = found.other else { return };
        self.also.extend([reason].into_iter().chain(also).filter(|it| !it.is_by_choice()));
        self.also.sort_unstable();
        self.also.dedup();
        let mut details = Details {
            nearest: theirs.nearest.filter(|it| it.name.parse().is_ok_and(|pattern| asker.may_know_pattern(&pattern))),
            named: theirs.named.filter(|user| asker.may_know_user(user)),
            protected_by: theirs.protected_by,
            ..std::mem::take(&mut self.details)
        };
        if self.also.contains(&Reason::IsRequest) {
            details.handler = handler.cloned();
        }
        if self.also.contains(&Reason::IsEvent) {
            details.why = Some(why_event.to_owned());
        }
        if asker.is_operator() {
            (details.ended, details.right, details.decided_by) = (theirs.ended, theirs.right, theirs.decided_by);
        }
        self.details = details;
    }
}

impl Reason {
    /// Whether the sender's node decides it, for sessions of all nodes.
    fn is_by_choice(self) -> bool {
        matches!(self, Self::Group | Self::NotChosen)
    }
}

impl Explanation {
    /// Adds what a node says about its sessions.
    fn add(&mut self, there: There, asker: &Asker<'_>, known: (&str, Option<&Who>)) {
        for found in there.sessions {
            let row = self
                .others
                .iter_mut()
                .find(|it| it.reason == Reason::Elsewhere && it.who.session.as_deref() == Some(&*found.session));
            if let Some(row) = row {
                row.complete(found, asker, known);
            }
        }
        let absent = self.others.iter_mut().find(|it| it.reason == Reason::NotRegistered);
        if let (Some((user, left)), Some(absent)) = (there.left, absent)
            && asker.may_know_user_of(user.as_deref())
            && absent.details.left.as_ref().is_none_or(|known| known.at < left.at)
        {
            absent.who.user = absent.who.user.take().or(user);
            absent.details.left = Some(left);
        }
    }
}
