//! What ought to follow from what an application says: [`Model::judge`] before the broker gets it, [`Model::apply`]
//! after. Between the two the broker acts, and queues may overflow.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use switchboard::router::SessionId;

use super::cast::Style;
use super::conn::{Kind, Sub};
use super::draft::{Draft, Said, Wanted};
use super::history::{DueReplay, First, Told};
use super::inbox::{Due, DueValue, Stage, What};
use super::model::{
    Answer, ConnId, Event, Model, Receivers, is_all_protected, is_droppable, is_protected, is_shared, matches, written,
};
use super::requests::{Asked, Candidate, End};

/// The default of `requests.timeout`, which is also the most.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the broker ought to make of an envelope.
pub(super) enum Verdict {
    /// Refused as `Broker/Message/Error`.
    Refused(&'static str),
    /// Refused as the request that it is, on its own triple.
    Failed(&'static str),
    /// A reply to this request; `None`: it ends an ordered handler's turn and is discarded.
    Reply {
        to: Option<u64>,
        turn: Option<usize>,
    },
    Request {
        candidates: Vec<Candidate>,
        user: Option<String>,
    },
    Event {
        receivers: Receivers,
        user: Option<String>,
    },
    /// An event that was sent before.
    Duplicate(First),
}

impl Model {
    /// The rules of "Routing an envelope", in their order.
    pub(super) fn judge(&self, sender: ConnId, draft: &Draft) -> Verdict {
        let conn = &self.conns[sender];
        let protected = is_protected(&draft.triple);
        if conn.session.is_none() {
            return if protected { Verdict::Failed("NOT_REGISTERED") } else { Verdict::Refused("NOT_REGISTERED") };
        }
        let refused = |code, is_request| if is_request { Verdict::Failed(code) } else { Verdict::Refused(code) };
        let own = self.candidates(sender, draft, conn.user.as_deref());
        let looks_like_request = draft.asks() || protected || self.is_request(draft, &own);
        if draft.source.as_ref().is_some_and(|source| *source != conn.source) {
            return refused("SOURCE_MISMATCH", looks_like_request && draft.in_reply_to.is_none());
        }
        if self.may_not_be_once(draft) {
            return refused("INVALID_ENVELOPE", looks_like_request && draft.in_reply_to.is_none());
        }
        if let Some(id) = &draft.in_reply_to {
            return match self.answerable(sender, id) {
                Some(to) => Verdict::Reply { to: Some(to), turn: conn.turns.iter().position(|turn| turn.id == *id) },
                None => Verdict::Refused("NO_SUCH_REQUEST"),
            };
        }
        if let Some((turn, to)) = self.turn(sender, draft) {
            if draft.once {
                return Verdict::Refused("INVALID_ENVELOPE");
            }
            return Verdict::Reply { to, turn: Some(turn) };
        }
        let shared = is_shared(&draft.triple[0]);
        let user = match (&conn.user, &draft.user) {
            (Some(own), Some(named)) if own != named => return refused("FORBIDDEN", looks_like_request),
            (None, None) if !shared => return refused("USER_REQUIRED", looks_like_request),
            (own, named) => own.clone().or(named.clone()),
        };
        let candidates = self.candidates(sender, draft, user.as_deref());
        if protected && !conn.may_request {
            return Verdict::Failed("FORBIDDEN");
        }
        let is_request = draft.asks() || self.is_request(draft, &candidates);
        let (candidates, _) = candidates;
        if is_request {
            return match candidates.is_empty() && (protected || !draft.gather) {
                _ if draft.retain || draft.once => Verdict::Failed("INVALID_ENVELOPE"),
                true => Verdict::Failed("NO_HANDLER"),
                false => Verdict::Request { candidates, user },
            };
        }
        if protected {
            return Verdict::Failed("NO_HANDLER");
        }
        if conn.user.is_some() && self.services_publish_on.as_ref() == Some(&draft.triple[0]) {
            return Verdict::Refused("FORBIDDEN");
        }
        if let Some(first) = self.known_id(sender, draft, user.as_deref()).and_then(|id| self.known.get(&id)) {
            return Verdict::Duplicate(first.clone());
        }
        let receivers = self.receivers(sender, draft, user.as_deref());
        Verdict::Event { receivers, user }
    }

    /// Whether an envelope is a request by its triple.
    fn is_request(&self, draft: &Draft, (candidates, sender_handles): &(Vec<Candidate>, bool)) -> bool {
        let only = self.only.iter().any(|pattern| matches(pattern, &draft.triple));
        !sender_handles && (!candidates.is_empty() || only || self.is_served_inside(&draft.triple))
    }

    /// Notes an envelope that was received.
    pub(super) fn heard(&mut self, now: Instant, sender: ConnId, n: u64, draft: &Draft, verdict: Verdict) {
        let id = draft.id.clone();
        match verdict {
            Verdict::Refused(code) => {
                if code == "NO_SUCH_REQUEST" {
                    let conn = &mut self.conns[sender];
                    conn.suspect = false;
                    // The envelope that an ordered handler owed has arrived.
                    conn.turns.retain(|turn| draft.more || draft.in_reply_to.as_ref() != Some(&turn.id));
                }
                self.owe(sender, Due::error(id, code));
            }
            Verdict::Failed(code) => {
                let on = written(&draft.triple);
                self.owe(sender, Due { on, in_reply_to: id, what: What::Refused(code) });
            }
            Verdict::Reply { to, turn } => {
                self.conns[sender].suspect = false;
                if let Some(turn) = turn.filter(|_| !draft.more) {
                    self.conns[sender].turns.remove(turn);
                }
                self.answers.insert(n, Answer { draft: draft.clone(), to });
                if let Some(to) = to {
                    self.answered(now, to, sender, draft.more);
                    let asker = self.asked[&to].asker;
                    self.conns[asker].inbox.owed.insert(n);
                }
            }
            Verdict::Request { candidates, user } => {
                let timeout =
                    draft.timeout.map_or(REQUEST_TIMEOUT, |ms| Duration::from_millis(ms).min(REQUEST_TIMEOUT));
                let asked = Asked {
                    draft: draft.clone(),
                    asker: sender,
                    source: self.conns[sender].source.clone(),
                    registration: self.conns[sender].registration,
                    user,
                    timeout,
                    since: now,
                    deadline: now + timeout,
                    shaky: candidates.iter().any(|it| self.conns[it.conn].lost),
                    candidates,
                    given: Vec::new(),
                    end: None,
                    cancelled: false,
                    is_answered: false,
                    parts_answered: 0,
                };
                self.asked.insert(n, asked);
            }
            Verdict::Duplicate((_, place, receivers)) => {
                let what = What::Duplicate(receivers, place);
                self.owe(sender, Due::on_broker("Message", "Receipt", id, what));
            }
            Verdict::Event { receivers, user } => self.published(now, (sender, n), draft, receivers, user),
        }
    }

    fn published(
        &mut self,
        now: Instant,
        (sender, n): (ConnId, u64),
        draft: &Draft,
        receivers: Receivers,
        user: Option<String>,
    ) {
        if draft.retain && !self.retain(n, sender, draft, user.as_deref()) {
            return self.owe(sender, Due::error(draft.id.clone(), "TOO_LARGE"));
        }
        // A full queue may lose this one at once.
        let droppable = is_droppable(&draft.triple[0]);
        let shared = is_shared(&draft.triple[0]);
        let counted = |id: &ConnId| self.is_counted(*id, shared, user.as_deref());
        let plain: Vec<_> = receivers.plain.iter().copied().filter(counted).collect();
        let at_most = plain.len() + receivers.groups.iter().filter(|group| group.iter().any(counted)).count();
        let at_least = plain.iter().filter(|id| !self.conns[**id].lost && !droppable).count();
        for &conn in &receivers.plain {
            self.conns[conn].inbox.owed.insert(n);
        }
        let place = self.enters(now, n, &draft.triple[0], user.as_deref());
        if let (Some(known), Some(place)) = (self.known_id(sender, draft, user.as_deref()), place) {
            self.known.insert(known, (now, place, at_least..=at_most));
        }
        if let Some(id) = &draft.id {
            let what = What::Receipt(at_least..=at_most, place);
            self.owe(sender, Due::on_broker("Message", "Receipt", Some(id.clone()), what));
        }
        let event = Event {
            draft: draft.clone(),
            sender,
            source: self.conns[sender].source.clone(),
            user,
            receivers,
            droppable,
            for_groups: BTreeSet::new(),
        };
        self.events.insert(n, event);
    }

    /// Notes a command that was received. `subscriptions`: what the broker lists now, for the name of a new one.
    pub(super) fn commanded(&mut self, now: Instant, conn: ConnId, n: u64, said: &Said, subscriptions: &[String]) {
        let Some((topic, subtopic)) = said.command() else { return };
        let registered = self.conns[conn].session.is_some();
        let what = match said {
            Said::Register { .. } if registered => What::Refused("ALREADY_REGISTERED"),
            // Answered when the verifier has answered.
            Said::Register { .. } => return,
            Said::Renew { token: Some(_) } if registered => return,
            Said::Ping => What::Done,
            _ if !registered => What::Refused("NOT_REGISTERED"),
            Said::Renew { .. } => What::Refused("INVALID_ENVELOPE"),
            Said::Unregister => {
                self.unregistered(conn);
                What::Done
            }
            Said::SetState { asleep } => {
                self.conns[conn].asleep = *asleep;
                What::Done
            }
            Said::Subscribe(wanted) => match self.subscribe(now, conn, n, wanted, subscriptions) {
                Ok(told) => What::Subscribed(told),
                Err(code) => What::Refused(code),
            },
            Said::Unsubscribe(wanted, id) => match self.unsubscribe(conn, wanted, id.as_deref()) {
                Ok(()) => What::Done,
                Err(code) => What::Refused(code),
            },
            Said::Cancel(id) => self.cancel(conn, id),
            _ => What::Done,
        };
        self.owe(conn, Due::on_broker(topic, subtopic, Some(n.to_string()), what));
    }

    fn subscribe(
        &mut self,
        now: Instant,
        id: ConnId,
        n: u64,
        wanted: &Wanted,
        listed: &[String],
    ) -> Result<Option<Told>, &'static str> {
        let conn = &self.conns[id];
        let is_broker = wanted.pattern.channel.as_deref() == Some("Broker");
        if wanted.handler.is_some() && wanted.pattern.channel.is_none() || wanted.group.is_some() && is_broker {
            return Err("INVALID_ENVELOPE");
        }
        if wanted.handler.is_some() && wanted.user.is_some() {
            return Err("FORBIDDEN");
        }
        if is_broker {
            let is = |part: &Option<Box<str>>, names: &[&str]| part.as_deref().is_none_or(|it| names.contains(&it));
            let heard =
                is(&wanted.pattern.topic, &["Application"]) && is(&wanted.pattern.subtopic, &["Joined", "Left"]);
            if wanted.handler.is_some() || !heard {
                return Err("RESERVED_CHANNEL");
            }
        }
        self.may_watch(id, wanted)?;
        if wanted.handler.is_some() {
            let Some(channel) = wanted.pattern.channel.as_deref() else { return Err("INVALID_ENVELOPE") };
            let protected = is_all_protected(&wanted.pattern);
            let may = match conn.kind {
                // The adapter serves just this one.
                _ if self.open_mode => !protected || !channel.eq_ignore_ascii_case("Vault"),
                Kind::Adapter => true,
                Kind::Service => !protected || conn.may_handle,
                Kind::User => !(protected || is_shared(channel)) || conn.may_handle,
            };
            if !may {
                return Err("FORBIDDEN");
            }
        }
        if self.may_not_recover(id, wanted) {
            return Err("INVALID_ENVELOPE");
        }
        if let Some(held) = conn.held(wanted) {
            let subscription = conn.subs[held].id.clone();
            let (told, replays) = self.recovers(now, id, wanted);
            if wanted.retained == Some(true) && wanted.handler.is_none() {
                self.expect_retained(id, n, wanted, &subscription, &replays);
            }
            self.expect_replays(id, &subscription, replays);
            return Ok(told);
        }
        if conn.subs.len() >= self.subscriptions_max {
            return Err("TOO_MANY_SUBSCRIPTIONS");
        }
        let subscription = listed.last().cloned().unwrap_or_default();
        let (told, replays) = self.recovers(now, id, wanted);
        if wanted.handler.is_none() && wanted.retained != Some(false) {
            self.expect_retained(id, n, wanted, &subscription, &replays);
        }
        self.expect_replays(id, &subscription, replays);
        self.conns[id].subs.push(Sub { wanted: wanted.clone(), id: subscription });
        Ok(told)
    }

    fn expect_replays(&mut self, id: ConnId, subscription: &str, replays: Vec<(u64, u64)>) {
        let due = |(n, offset)| DueReplay { n, offset, subscription: subscription.to_owned() };
        self.conns[id].inbox.replays.extend(replays.into_iter().map(due));
    }

    /// Retained values come, but for those that are replayed.
    fn expect_retained(&mut self, id: ConnId, n: u64, wanted: &Wanted, subscription: &str, replays: &[(u64, u64)]) {
        let mut values = self.replay(&self.conns[id], wanted);
        values.retain(|value| replays.iter().all(|(replayed, _)| replayed != value));
        let due = |value| DueValue { n: value, asked_at: n, subscription: subscription.to_owned() };
        self.conns[id].inbox.retained.extend(values.into_iter().map(due));
    }

    fn may_watch(&self, conn: ConnId, wanted: &Wanted) -> Result<(), &'static str> {
        let conn = &self.conns[conn];
        let Some(user) = wanted.user.as_deref() else { return Ok(()) };
        let own = conn.user.as_deref() == Some(user);
        match own || conn.kind == Kind::Service || conn.observe {
            true => Ok(()),
            false => Err("FORBIDDEN"),
        }
    }

    fn unsubscribe(&mut self, id: ConnId, wanted: &Wanted, by_id: Option<&str>) -> Result<(), &'static str> {
        let conn = &mut self.conns[id];
        let ends = |sub: &Sub| match by_id {
            Some(by_id) => sub.id == by_id,
            None => conn.fits(sub, wanted),
        };
        let (ended, left): (Vec<Sub>, Vec<Sub>) = conn.subs.iter().cloned().partition(ends);
        conn.subs = left;
        conn.inbox.retained.retain(|due| ended.iter().all(|sub| sub.id != due.subscription));
        conn.inbox.replays.retain(|due| ended.iter().all(|sub| sub.id != due.subscription));
        for sub in ended.iter().filter(|sub| sub.wanted.handler == Some(Style::Ordered)) {
            self.ends_turns(id, &sub.wanted);
        }
        if ended.is_empty() { Err("NO_SUCH_SUBSCRIPTION") } else { Ok(()) }
    }

    fn cancel(&mut self, conn: ConnId, id: &str) -> What {
        let registration = self.conns[conn].registration;
        let is_it = |(_, asked): &(&u64, &mut Asked)| {
            asked.asker == conn
                && asked.registration == registration
                && asked.draft.id.as_deref() == Some(id)
                && asked.end.is_none()
        };
        let Some((&n, asked)) = self.unsettled_mut().find(is_it) else { return What::Refused("NO_SUCH_REQUEST") };
        let in_hands = asked.given.iter().any(|given| asked.is_open(given));
        let certain = in_hands || !(asked.draft.gather || asked.shaky || asked.may_be_command());
        asked.cancelled = true;
        self.withdraw(n, End::Failure("REQUEST_CANCELLED"));
        if certain { What::Done } else { What::DoneOr("NO_SUCH_REQUEST") }
    }

    /// The drain is over: what a session asked ends with it.
    pub(super) fn gives_up(&mut self, conn: ConnId) {
        let registration = self.conns[conn].registration;
        let is_its = |asked: &Asked| asked.asker == conn && asked.registration == registration && asked.end.is_none();
        let its: Vec<u64> = self.unsettled().filter(|(_, asked)| is_its(asked)).map(|(n, _)| *n).collect();
        for n in its {
            self.asked.entry(n).and_modify(|asked| asked.cancelled = true);
            self.withdraw(n, End::Failure("REQUEST_CANCELLED"));
        }
    }

    /// A session registered.
    pub(super) fn registered_as(&mut self, now: Instant, conn: ConnId, n: u64, session: SessionId, echo: bool) {
        let it = &mut self.conns[conn];
        (it.session, it.since, it.echo) = (Some(session), now, echo);
        it.registration += 1;
        self.owe(conn, Due::on_broker("Application", "Register", Some(n.to_string()), What::Done));
        self.tell_presence(conn, "Joined", session);
    }

    /// A session's registration ended, by its own word or with its connection.
    pub(super) fn unregistered(&mut self, conn: ConnId) {
        let it = &mut self.conns[conn];
        let Some(session) = it.session.take() else { return };
        it.subs.clear();
        it.turns.clear();
        it.inbox.retained.clear();
        it.inbox.replays.clear();
        it.inbox.ends();
        (it.asleep, it.suspect, it.ends) = (false, false, None);
        self.leaves(conn);
        self.tell_presence(conn, "Left", session);
    }

    fn tell_presence(&mut self, of: ConnId, subtopic: &'static str, session: SessionId) {
        for hearer in self.presence_receivers(of, subtopic) {
            let conn = &mut self.conns[hearer];
            let session = session.to_string();
            let mut stage = if conn.over_half { Stage::Held } else { Stage::Pushed };
            let joined = conn.inbox.due.iter_mut().find_map(|due| match &mut due.what {
                What::Presence { session: other, stage } if *other == session => Some(stage),
                _ => None,
            });
            if let Some(joined) = joined.filter(|it| **it == Stage::Held) {
                (stage, *joined) = (Stage::Either, Stage::Either);
            }
            self.owe(hearer, Due::on_broker("Application", subtopic, None, What::Presence { session, stage }));
        }
    }

    pub(super) fn owe(&mut self, conn: ConnId, due: Due) {
        self.conns[conn].inbox.due.push(due);
    }
}
