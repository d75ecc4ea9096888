//! What must hold, one function a rule, so that a failure says which. `reading` checks what a session receives; here is
//! what must hold of the whole broker after each step, and at the end.

use std::time::{Duration, Instant, SystemTime};

use switchboard::connection::Effect;
use switchboard::router::{Application, ApplicationState, Listed, Outbox, Router, Session, Size};
use wire::CloseCode;
use wire::Pattern;
use wire::command::Role;

use super::cast::Style;
use super::conn::{Conn, Kind, Sub};
use super::inbox::{Due, Stage, What};
use super::judge::Verdict;
use super::model::{ConnId, Event, Model};
use super::requests::{Asked, End};

/// A rule that was broken.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) rule: &'static str,
    pub(super) how: String,
}

pub(super) type Held = Result<(), Broken>;

/// A rule holds, or is broken in a way that can be told.
pub(super) fn holds(rule: &'static str, holds: bool, how: impl FnOnce() -> String) -> Held {
    if holds { Ok(()) } else { Err(Broken { rule, how: how() }) }
}

/// No queue is longer than its bounds; a message that is larger than the bound may stand alone.
pub(super) fn outboxes_are_bounded(conn: &Conn, outbox: &Outbox) -> Held {
    let depth = outbox.depth();
    let bounded = depth.messages <= depth.messages_max && (depth.bytes <= depth.bytes_max || depth.messages == 1);
    holds("outboxes_are_bounded", bounded, || format!("{}: {depth:?}", conn.name))
}

/// `Application/List` shows who is there, no more and no less.
pub(super) fn presence_is_right(
    model: &Model,
    conn: &Conn,
    shown: &[Application],
    start: (Instant, SystemTime),
) -> Held {
    let row = |it: &Application| {
        let since = start.0 + it.since.duration_since(start.1).unwrap_or_default();
        ((it.user.clone(), it.source.clone()), (it.sessions, it.state == ApplicationState::Active, since))
    };
    let shown: Vec<_> = shown.iter().map(row).collect();
    let mut expected: Vec<_> = model.applications(conn).into_iter().collect();
    // Users by name, services last.
    expected.sort_by_key(|((user, source), _)| (user.is_none(), user.clone(), source.clone()));
    holds("presence_is_right", shown == expected, || format!("{}: {shown:?}, not {expected:?}", conn.name))
}

/// No session outlives its proof.
pub(super) fn sessions_end_with_their_proofs(conn: &Conn, now: Instant) -> Held {
    let ended = conn.session.is_some() && conn.ends.is_some_and(|ends| ends <= now);
    holds("sessions_end_with_their_proofs", !ended, || conn.name.clone())
}

/// A renewal neither ends a session nor makes another one, whatever comes of it.
pub(super) fn sessions_outlive_renewals(conn: &Conn, is_same: bool) -> Held {
    holds("sessions_outlive_renewals", is_same, || conn.name.clone())
}

/// The subscriptions of a session are those that it made.
pub(super) fn subscriptions_are_right(conn: &Conn, listed: &[Listed]) -> Held {
    let is_same = |listed: &Listed, Sub { wanted, id }: &Sub| {
        let style = match &listed.role {
            Role::Subscriber => None,
            Role::Handler { answers: false, .. } => Some(Style::Commands),
            Role::Handler { ordered: true, .. } => Some(Style::Ordered),
            Role::Handler { .. } => Some(Style::Answers),
        };
        listed.id.to_string() == *id
            && listed.pattern == wanted.pattern
            && style == wanted.handler
            && listed.group == wanted.group
    };
    let right = listed.len() == conn.subs.len() && listed.iter().zip(&conn.subs).all(|(a, b)| is_same(a, b));
    holds("subscriptions_are_right", right, || format!("{}: {listed:?}, not {:?}", conn.name, conn.subs))
}

/// The broker holds what the model holds.
pub(super) fn sizes_are_right(model: &Model, router: &Router) -> Held {
    let size = router.size();
    let sessions = model.registered().filter(|(_, conn)| conn.kind != Kind::Adapter).count();
    let (open, mut certain) = (model.unsettled().filter(|(_, asked)| asked.end.is_none()), 0);
    for (_, asked) in open {
        certain += asked.given.iter().filter(|given| asked.is_open(given)).count();
    }
    let right = size.sessions == sessions && size.retained_values == model.retained.len() && size.requests >= certain;
    holds("sizes_are_right", right, || {
        let open = model
            .unsettled()
            .filter(|(_, asked)| asked.end.is_none() && asked.given.iter().any(|it| asked.is_open(it)));
        let open: Vec<_> = open.map(|(n, asked)| (n, &asked.given)).collect();
        format!(
            "{size:?}, not {sessions} sessions, {} values, at least {certain} requests: {open:?}",
            model.retained.len()
        )
    })
}

/// Somebody will look at each open request when its time is over.
pub(super) fn deadlines_are_known(model: &Model, router: &Router) -> Held {
    let open = model.unsettled().map(|(_, asked)| asked).filter(|asked| asked.end.is_none() && !asked.draft.gather);
    let first = open.filter(|asked| asked.given.iter().any(|it| asked.is_open(it))).map(|asked| asked.deadline).min();
    let known = first.is_none_or(|first| router.deadline().is_some_and(|deadline| deadline <= first));
    holds("deadlines_are_known", known, || "a request's time limit is not among the router's deadlines".to_owned())
}

/// A session that has read everything has read what it had to get: nothing is lost, or it was told so.
pub(super) fn nothing_is_lost(model: &mut Model, id: ConnId) -> Held {
    let conn = &mut model.conns[id];
    let name = conn.name.clone();
    let inbox = &mut conn.inbox;
    if conn.lost {
        return Ok(());
    }
    let droppable = |n: &u64| model.events.get(n).is_some_and(|event| event.droppable);
    let missing: Vec<u64> = inbox.owed.iter().copied().filter(|n| !droppable(n)).collect();
    holds("nothing_is_lost", missing.is_empty(), || format!("{name} never got {missing:?}"))?;
    let for_group = |it: &Event| it.droppable && it.receivers.groups.iter().any(|it| it.contains(&id));
    let may_miss_more = inbox.dropped > 0 && model.events.values().any(for_group);
    let told = if may_miss_more { inbox.owed.len() <= inbox.dropped } else { inbox.owed.len() == inbox.dropped };
    holds("drops_are_told", told, || format!("{name} was told of {} drops, not {:?}", inbox.dropped, inbox.owed))?;
    inbox.owed.clear();
    inbox.dropped = 0;
    presence_comes_in_pairs(&name, &inbox.due)?;
    inbox.due.retain(|due| match due.what {
        What::Presence { stage, .. } => !matches!(stage, Stage::Either | Stage::Maybe),
        What::Expiring { is_certain, .. } => is_certain,
        _ => true,
    });
    holds("replays_come", inbox.replays.is_empty(), || format!("{name} never got {:?}", inbox.replays))?;
    holds("retained_values_come", inbox.retained.is_empty(), || format!("{name} never got {:?}", inbox.retained))?;
    holds("broker_answers", inbox.due.is_empty(), || format!("{name} was never told {:?}", inbox.due))
}

/// If a session joined and left while both events may have been held back, both have arrived, or none.
fn presence_comes_in_pairs(name: &str, due: &[Due]) -> Held {
    let either = |due: &Due| match &due.what {
        What::Presence { session, stage: Stage::Either } => Some(session.clone()),
        _ => None,
    };
    let missing: Vec<_> = due.iter().filter_map(either).collect();
    let alone = missing.iter().find(|session| missing.iter().filter(|other| other == session).count() != 2);
    holds("presence_comes_in_pairs", alone.is_none(), || format!("{name}: {alone:?} of {due:?}"))
}

/// A session that has read everything has read the answer to each request that has ended.
pub(super) fn nothing_is_unanswered(model: &Model, id: ConnId, now: Instant) -> Held {
    let conn = &model.conns[id];
    for (n, asked) in model.unsettled().filter(|(_, asked)| asked.asker == id) {
        let is_its = asked.registration == conn.registration && conn.session.is_some() && !conn.lost;
        let over = match asked.end {
            Some(End::Withdrawn) => false,
            Some(_) => true,
            None => asked.draft.gather && asked.deadline <= now && asked.given.iter().all(|it| it.done),
        };
        // Without an id nobody is told that a command was delivered.
        let may_be_silent = asked.draft.id.is_none() && asked.may_be_command();
        let fine = !is_its || !over || asked.is_answered || may_be_silent;
        holds("nothing_is_unanswered", fine, || {
            format!("{} was never told the end of {n}: {:?}, {:?}", conn.name, asked.end, asked.given)
        })?;
    }
    Ok(())
}

/// A request that only one ordered handler may have is with it as soon as its turn is free.
pub(super) fn nobody_waits_for_a_free_turn(model: &Model, id: ConnId) -> Held {
    let conn = &model.conns[id];
    let waits = |asked: &Asked| {
        let only = asked.candidates.iter().all(|it| it.conn == id) && !asked.candidates.is_empty();
        only && asked.end.is_none() && asked.given.is_empty() && !asked.shaky && !asked.draft.gather
    };
    let is_free = |asked: &Asked| model.turn_in(id, &asked.draft.triple[0]).is_none();
    let waiting = model.unsettled().find(|(_, asked)| waits(asked) && is_free(asked)).map(|(n, _)| n);
    let fine = !conn.has_turns() || conn.lost || waiting.is_none();
    holds("nobody_waits_for_a_free_turn", fine, || format!("{waiting:?} waits for {}", conn.name))
}

/// From deadline to deadline, everything is over some time: half a minute of draining in steps of 20 ms is the longest.
pub(super) fn everything_ends(rounds: usize, router: &Router) -> Held {
    holds("everything_ends", rounds < 20_000, || format!("{:?}, {:?}", router.size(), router.deadline()))
}

/// When all has ended, nobody is held by a request that is over.
pub(super) fn nothing_is_held(conn: &Conn, router: &Router, member: &Session) -> Held {
    holds("nothing_is_held", !router.is_in_flight(member), || format!("{} is still in flight", conn.name))
}

/// When all has ended and all have gone, nothing is left.
pub(super) fn nothing_is_left(router: &Router) -> Held {
    let size = router.size();
    holds("nothing_is_left", size == Size::default() && router.deadline().is_none(), || {
        format!("{size:?}, {:?}", router.deadline())
    })
}

/// The default of `requests.blocked`.
const BLOCKED: Duration = Duration::from_mins(1);

/// An adapter's answer reaches a requester exactly if its request is open.
pub(super) fn adapters_are_heard(is_answered: bool, verdict: &Verdict) -> Held {
    let is_open = matches!(verdict, Verdict::Reply { to: Some(_), .. });
    holds("adapters_are_heard", is_answered == is_open, || format!("{is_answered}, not {is_open}"))
}

/// What a connection did that may end it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conduct {
    /// It has taken nothing for so long.
    pub(super) stalled: Duration,
    pub(super) silent: bool,
    pub(super) overflowed: bool,
    pub(super) refused_registration: Option<CloseCode>,
    /// Since when it is connected or unregistered.
    pub(super) unregistered: Duration,
}

/// Each close has its reason.
pub(super) fn closes_have_a_reason(
    model: &Model,
    conn: &Conn,
    now: Instant,
    code: CloseCode,
    conduct: Conduct,
) -> Held {
    let right = match code {
        CloseCode::SlowConsumer => conduct.overflowed || conduct.stalled >= Duration::from_secs(5),
        // Who takes nothing takes no pings either.
        CloseCode::HeartbeatMissed => conduct.silent || conduct.stalled > Duration::ZERO,
        CloseCode::Policy => conn.malformed >= 10 || conn.owes_for(BLOCKED, now),
        CloseCode::Restart => model.draining.is_some(),
        CloseCode::NotRegistered => conn.session.is_none() && conduct.unregistered >= Duration::from_secs(10),
        CloseCode::Unauthenticated if conn.ends.is_some_and(|ends| ends <= now) => true,
        CloseCode::Unauthenticated | CloseCode::Forbidden | CloseCode::SourceInUse => {
            conduct.refused_registration == Some(code)
        }
        _ => false,
    };
    holds("closes_have_a_reason", right, || format!("{}: {code:?} after {conduct:?}", conn.name))
}

/// Ten texts in a row that are not envelopes, and the session is over.
pub(super) fn babble_is_ended(conn: &Conn, effect: Option<&Effect>) -> Held {
    let ended = matches!(effect, Some(Effect::Close(close)) if close.code() == CloseCode::Policy);
    holds("babble_is_ended", ended == (conn.malformed >= 10), || format!("{}: {}", conn.name, conn.malformed))
}

/// No session is closed for a restart while a request is open that was there when the drain began; at the latest after
/// half a minute.
pub(super) fn drain_waits(model: &Model, drains_for: Duration) -> Held {
    let is_open = |asked: &Asked| !asked.shaky && asked.given.iter().any(|given| asked.is_open(given));
    let before = |n: &u64| *n <= model.drained_from;
    let open = model.unsettled().find(|(n, asked)| before(n) && is_open(asked)).map(|(n, _)| n);
    let fine = open.is_none() || drains_for >= Duration::from_secs(30);
    holds("drain_waits", fine, || format!("sessions are closed while {open:?} is open"))
}

/// A session that sends faster than it may, or does not read what it has, is read more slowly.
pub(super) fn the_fast_and_the_full_wait(conn: &Conn, must_wait: bool, reads: bool) -> Held {
    holds("the_fast_and_the_full_wait", !must_wait || !reads, || conn.name.clone())
}

/// A publisher waits for a receiver whose queue it left over half.
pub(super) fn publishers_wait(waits: bool, receiver: &Conn) -> Held {
    holds("publishers_wait", waits, || format!("{} is over half, and its publisher goes on", receiver.name))
}

/// What the adapter declares.
pub(super) fn adapter_pattern() -> Pattern {
    "Vault/User/FetchCredentials".parse().unwrap()
}
