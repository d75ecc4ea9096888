//! What must hold of each message that a session receives, one function a rule.

use std::ops::RangeInclusive;
use std::time::Instant;

use serde_json::Value;

use super::cast::Style;
use super::check::{Broken, Held, holds};
use super::conn::Turn;
use super::history::{Told, replayed};
use super::inbox::{Due, What};
use super::model::{ConnId, Model, is_shared, written};
use super::requests::{Asked, Candidate, End, Given};

/// A message as a session reads it.
struct Frame<'a> {
    text: &'a str,
    json: Value,
}

impl Frame<'_> {
    fn string(&self, key: &str) -> Option<&str> {
        self.json.get(key)?.as_str()
    }

    fn flag(&self, key: &str) -> bool {
        self.json.get(key) == Some(&Value::Bool(true))
    }

    fn triple(&self) -> [String; 3] {
        ["channel", "topic", "subtopic"].map(|key| self.string(key).unwrap_or_default().to_owned())
    }

    fn data(&self, key: &str) -> &Value {
        &self.json["data"][key]
    }
}

/// A session has read a text message.
pub(super) fn received(model: &mut Model, now: Instant, conn: ConnId, text: &str) -> Held {
    let json = serde_json::from_str(text)
        .map_err(|error| Broken { rule: "frames_are_json", how: format!("{error}: {text}") })?;
    let frame = Frame { text, json };
    no_token_leaks(&frame)?;
    // An adapter inside the process writes nothing but the payload, which has the number, too.
    let number = frame.json.get("n").or_else(|| frame.json.get("data")?.get("of"));
    let Some(n) = number.and_then(Value::as_u64) else {
        no_payload_leaks(&frame)?;
        return brokers_words(model, conn, &frame);
    };
    holds("nothing_comes_unasked", model.knows(n), || format!("{text} was never accepted"))?;
    if model.events.contains_key(&n) {
        payload_is_untouched(&frame, &model.events[&n].draft.payload(n))?;
        place_is_told(model, n, &frame)?;
        match (frame.flag("retained"), frame.flag("replayed")) {
            (true, _) => retained(model, conn, n, &frame),
            (false, true) => {
                let it = &mut model.conns[conn];
                replayed(&mut it.inbox.replays, &it.name, n, frame.json["offset"].as_u64())?;
                who_sent_it_is_told(model, conn, n, &frame)
            }
            (false, false) => event(model, conn, n, &frame),
        }
    } else if let Some(answer) = model.answers.get(&n) {
        payload_is_untouched(&frame, &answer.draft.payload(n))?;
        answer_came(model, conn, n, &frame)
    } else {
        payload_is_untouched(&frame, &model.asked[&n].draft.payload(n))?;
        request_came(model, now, conn, n, &frame)
    }
}

fn no_token_leaks(frame: &Frame<'_>) -> Held {
    holds("no_token_leaks", !frame.text.contains("token-"), || frame.text.to_owned())
}

/// What the broker says itself quotes no payload.
fn no_payload_leaks(frame: &Frame<'_>) -> Held {
    holds("no_payload_leaks", !frame.text.contains("secret-"), || frame.text.to_owned())
}

fn payload_is_untouched(frame: &Frame<'_>, payload: &str) -> Held {
    let member = format!(r#""data":{payload}"#);
    holds("payload_is_untouched", frame.text.contains(&member), || frame.text.to_owned())
}

/// Every event of a channel with history has its place, live, retained or replayed.
fn place_is_told(model: &mut Model, n: u64, frame: &Frame<'_>) -> Held {
    let (offset, epoch) = (frame.json.get("offset").and_then(Value::as_u64), frame.string("epoch"));
    let place = model.places.get(&n).map(|(_, offset)| *offset);
    let known = epoch.map(|epoch| model.epoch.get_or_insert_with(|| epoch.to_owned()).as_str());
    let right = offset == place && place.is_some() == epoch.is_some() && known == epoch;
    holds("place_is_told", right, || format!("{}, not at {place:?}", frame.text))
}

fn event(model: &mut Model, conn: ConnId, n: u64, frame: &Frame<'_>) -> Held {
    let event = model.events.get_mut(&n).unwrap();
    let it = &mut model.conns[conn];
    let inbox = &mut it.inbox;
    holds("at_most_once", inbox.read.insert(n), || format!("{} got event {n} twice", it.name))?;
    if !inbox.owed.remove(&n) {
        let of_groups = event.receivers.groups.iter().filter(|group| group.contains(&conn)).count();
        holds("only_who_may", of_groups > 0, || format!("{} got event {n}", it.name))?;
        event.for_groups.insert(conn);
        one_of_each_group(&event.receivers.groups, &event.for_groups, n)?;
    }
    let last = inbox.last_of.insert(event.sender, n);
    holds("in_order", last.is_none_or(|last| last < n), || format!("{} got {n} after {last:?}", it.name))?;
    inbox.last_on.insert(event.draft.triple.clone(), n);
    who_sent_it_is_told(model, conn, n, frame)
}

/// A receiver can trust `source`; services and observers see whose it is, a user's own session has nothing to be told.
fn who_sent_it_is_told(model: &Model, conn: ConnId, n: u64, frame: &Frame<'_>) -> Held {
    let (event, it) = (&model.events[&n], &model.conns[conn]);
    let user = frame.string("user");
    // On a shared channel everyone is told, elsewhere services and observers.
    let may_be_hidden = !is_shared(&event.draft.triple[0]) && it.user.is_some();
    let may_be_told = is_shared(&event.draft.triple[0]) || it.may_see_user();
    let told = user == event.user.as_deref() && may_be_told || user.is_none() && may_be_hidden;
    let right =
        told && frame.string("source") == Some(&event.source) && frame.string("id") == event.draft.id.as_deref();
    holds("who_sent_it_is_told", right, || format!("{}: {}", it.name, frame.text))
}

/// Members of a group share the messages: at most as many members receive one for a group as there are groups.
fn one_of_each_group(
    groups: &[std::collections::BTreeSet<ConnId>],
    got: &std::collections::BTreeSet<ConnId>,
    n: u64,
) -> Held {
    holds("one_of_each_group", got.len() <= groups.len(), || format!("{} members got {n}", got.len()))
}

fn retained(model: &mut Model, conn: ConnId, n: u64, frame: &Frame<'_>) -> Held {
    let event = &model.events[&n];
    let it = &mut model.conns[conn];
    let place = it.inbox.retained.iter().position(|due| due.n == n);
    let Some(place) = place else {
        return holds("only_retained_who_may", false, || format!("{} got retained {n}: {}", it.name, frame.text));
    };
    let asked_at = it.inbox.retained.remove(place).asked_at;
    let live = it.inbox.last_on.get(&event.draft.triple);
    holds("retained_before_live", live.is_none_or(|live| *live < asked_at), || {
        format!("{} got retained {n}", it.name)
    })?;
    who_sent_it_is_told(model, conn, n, frame)
}

fn answer_came(model: &mut Model, conn: ConnId, n: u64, frame: &Frame<'_>) -> Held {
    let answer = &model.answers[&n];
    let name = &model.conns[conn].name;
    let Some(to) = answer.to else {
        return holds("late_answers_are_discarded", false, || format!("{name} got the late answer {n}"));
    };
    let (more, asked) = (answer.draft.more, model.asked.get_mut(&to).unwrap());
    holds("replies_to_the_asker_alone", asked.asker == conn, || format!("{name} got {n}, an answer to {to}"))?;
    holds("one_answer", !asked.is_answered, || format!("{name} got {n} after the last answer to {to}"))?;
    let id = frame.string("inReplyTo") == asked.draft.id.as_deref();
    let flag = frame.flag("more") == (more || asked.draft.gather);
    holds("answers_bear_the_askers_id", id && flag, || frame.text.to_owned())?;
    asked.is_answered = !more && !asked.draft.gather;
    let inbox = &mut model.conns[conn].inbox;
    holds("answers_come_once", inbox.owed.remove(&n), || format!("answer {n} came twice"))
}

fn request_came(model: &mut Model, now: Instant, conn: ConnId, n: u64, frame: &Frame<'_>) -> Held {
    let asked = &model.asked[&n];
    let it = &model.conns[conn];
    let candidate = asked.candidates.iter().find(|candidate| candidate.conn == conn);
    let Some(candidate) = candidate.cloned() else {
        return holds("only_permitted_handlers", false, || format!("{} got request {n}", it.name));
    };
    one_handler_at_a_time(asked, conn, n)?;
    best_handler_first(model, asked, &candidate, n)?;
    let right = frame.string("source") == Some(&asked.source)
        && frame.string("user") == asked.user.as_deref()
        && frame.string("requestId") == asked.draft.id.as_deref();
    holds("requests_bear_who_asks", right, || frame.text.to_owned())?;
    let within = frame.json["timeout"].as_u64().is_some_and(|ms| u128::from(ms) <= asked.timeout.as_millis());
    holds("time_limits_are_told", within, || frame.text.to_owned())?;
    let id = frame.string("id").unwrap_or_default().to_owned();
    if candidate.style == Style::Ordered && asked.end.is_none() {
        let has_turn = model.turn_in(conn, &asked.draft.triple[0]).is_some();
        holds("one_turn_at_a_time", !has_turn, || format!("{} got {n} in another's turn", it.name))?;
    }
    let given = Given {
        conn,
        registration: it.registration,
        id: id.clone(),
        deadline: asked.deadline,
        done: candidate.style == Style::Commands || (asked.draft.gather && asked.deadline <= now),
    };
    if candidate.style == Style::Ordered {
        let since = asked.since;
        model.conns[conn].turns.push(Turn { request: n, id, left: false, since });
    }
    let asked = model.asked.get_mut(&n).unwrap();
    asked.given.push(given);
    if candidate.style == Style::Commands && !asked.draft.gather {
        asked.end = Some(End::Delivered);
    }
    Ok(())
}

/// Exactly one handler has a request; another one only if the first has gone and the request says that it may.
fn one_handler_at_a_time(asked: &Asked, conn: ConnId, n: u64) -> Held {
    let fresh = asked.given.iter().all(|given| given.conn != conn);
    let fine = match asked.draft.gather {
        true => fresh,
        false => asked.given.is_empty() || (asked.draft.idempotent && asked.given.iter().all(|it| it.done)),
    };
    holds("one_handler_at_a_time", fine, || format!("{n} was given again, after {:?}", asked.given))
}

/// The doubtful last of all; the user's own handlers, then adapters, then services; among equals the least busy.
fn best_handler_first(model: &Model, asked: &Asked, chosen: &Candidate, n: u64) -> Held {
    let free = |it: &&Candidate| it.style != Style::Ordered && !model.conns[it.conn].lost && it.conn != chosen.conn;
    if asked.draft.gather || !asked.given.is_empty() || asked.shaky || model.conns[chosen.conn].lost {
        return Ok(());
    }
    for other in asked.candidates.iter().filter(free) {
        let better = match (other.doubtful, chosen.doubtful) {
            (Some(false), Some(true)) => true,
            (Some(false), _) if other.rank < chosen.rank => true,
            (Some(false), Some(false)) if other.rank == chosen.rank => match (other.busy, chosen.busy) {
                (Some(other), Some(chosen)) => other < chosen,
                _ => false,
            },
            _ => false,
        };
        holds("best_handler_first", !better, || format!("{n} went to {chosen:?}, not to {other:?}"))?;
    }
    Ok(())
}

/// A message that the broker made itself.
fn brokers_words(model: &mut Model, conn: ConnId, frame: &Frame<'_>) -> Held {
    let triple = frame.triple();
    match (written(&triple).as_str(), frame.data("Count").as_u64()) {
        ("Broker/Connection/Lagging", _) => return Ok(()),
        ("Broker/Message/Dropped", count) => {
            model.conns[conn].inbox.dropped += usize::try_from(count.unwrap_or_default()).unwrap();
            return Ok(());
        }
        _ => {}
    }
    if let Some(epoch) = frame.data("Epoch").as_str() {
        let known = model.epoch.get_or_insert_with(|| epoch.to_owned());
        holds("logs_live_on", known == epoch, || frame.text.to_owned())?;
    }
    let due = &mut model.conns[conn].inbox.due;
    if let Some(place) = due.iter().position(|due| is_due(due, frame)) {
        let came = due.remove(place);
        return joined_comes_before_left(&due[..], &came, frame);
    }
    match written(&triple).as_str() {
        // It had not read the request when that was over.
        "Broker/Request/Cancelled" => cancelled_is_true(model, conn, frame.string("inReplyTo").unwrap_or_default()),
        _ => request_ended(model, conn, frame),
    }
}

fn is_due(due: &Due, frame: &Frame<'_>) -> bool {
    let done = *frame.data("Success") == Value::Bool(true);
    let code = frame.data("ErrorCode").as_str();
    due.on == written(&frame.triple())
        && due.in_reply_to.as_deref() == frame.string("inReplyTo")
        && match &due.what {
            What::Done => done,
            What::Refused(expected) => !done && code == Some(expected),
            What::DoneOr(expected) => done || code == Some(expected),
            What::Subscribed(told) => done && is_told(told.as_ref(), frame),
            What::Duplicate(receivers, place) => {
                done && *frame.data("Duplicate") == Value::Bool(true)
                    && frame.data("Offset").as_u64() == Some(*place)
                    && is_within(receivers, frame.data("Receivers"))
            }
            What::Receipt(receivers, place) => {
                done && frame.data("Duplicate").is_null()
                    && frame.data("Offset").as_u64() == *place
                    && is_within(receivers, frame.data("Receivers"))
            }
            What::Cancelled => true,
            What::Presence { session, .. } => frame.data("SessionId") == session.as_str(),
            What::Draining => frame.data("ReconnectAfterMs").is_u64(),
            What::Expiring { seconds, .. } => *frame.data("ExpiresInSeconds") == *seconds,
        }
}

fn is_within(range: &RangeInclusive<usize>, number: &Value) -> bool {
    number.as_u64().is_some_and(|number| range.contains(&usize::try_from(number).unwrap()))
}

/// The reply to Subscribe says where the log is, and what became of `recover`.
fn is_told(told: Option<&Told>, frame: &Frame<'_>) -> bool {
    let recovered = match frame.data("Recovered").as_bool() {
        None => None,
        Some(true) => frame.data("Replayed").as_u64().map(Ok),
        Some(false) => frame.data("RecoverReason").as_str().map(Err),
    };
    frame.data("Offset").as_u64() == told.map(|told| told.offset)
        && frame.data("Epoch").is_string() == told.is_some()
        && recovered == told.and_then(|told| told.recovered)
}

/// A session that is told that another one left was told before that it joined.
fn joined_comes_before_left(due: &[Due], came: &Due, frame: &Frame<'_>) -> Held {
    let What::Presence { session, .. } = &came.what else { return Ok(()) };
    let is_joined = |due: &Due| matches!(&due.what, What::Presence { session: other, .. } if other == session);
    let waits = came.on.ends_with("Left") && due.iter().any(is_joined);
    holds("joined_comes_before_left", !waits, || frame.text.to_owned())
}

/// A handler is told that nobody waits for its answer any more.
fn cancelled_is_true(model: &Model, conn: ConnId, id: &str) -> Held {
    let is_it = |asked: &Asked| {
        asked.given.iter().any(|given| given.conn == conn && given.id == id)
            && (asked.cancelled || asked.end == Some(End::Withdrawn))
    };
    let name = &model.conns[conn].name;
    holds("cancelled_is_true", model.asked.values().any(is_it), || format!("{name} was told that {id} is cancelled"))
}

/// The broker's own end of a request: a failure, a receipt for a command, the summary of a gather.
fn request_ended(model: &mut Model, conn: ConnId, frame: &Frame<'_>) -> Held {
    let (name, registration) = (model.conns[conn].name.clone(), model.conns[conn].registration);
    let id = frame.string("inReplyTo");
    let on = written(&frame.triple());
    let code = frame.data("ErrorCode").as_str().unwrap_or_default().to_owned();
    let is_receipt = on == "Broker/Message/Receipt";
    let is_its = |asked: &Asked| {
        let fits = if is_receipt { asked.may_be_command() } else { written(&asked.draft.triple) == on };
        let waits = id.is_some() || (!asked.is_answered && asked.registration == registration);
        asked.asker == conn && asked.draft.id.as_deref() == id && fits && waits
    };
    let Some((n, asked)) = model.asked.iter_mut().find(|(_, asked)| is_its(asked)) else {
        let due = &model.conns[conn].inbox.due;
        return holds("nothing_comes_unasked", false, || {
            format!("{name} was not to receive {}, but {due:?}", frame.text)
        });
    };
    holds("one_answer", !asked.is_answered, || format!("{name} got another answer to {n}: {}", frame.text))?;
    asked.is_answered = true;
    if asked.draft.gather && code.is_empty() {
        asked.end = Some(End::Answer);
        return gather_is_right(asked, frame);
    }
    let fine = is_receipt || asked.may_fail_with(&code);
    if is_receipt && asked.end.is_none() {
        asked.end = Some(End::Delivered);
    }
    holds("failures_have_a_reason", fine, || {
        format!("{name} got {code} for {n}, which ended {:?}, {:?}, {:?}", asked.end, asked.given, asked.candidates)
    })
}

/// A gather's summary counts the handlers that it asked, and those that answered and failed.
fn gather_is_right(asked: &Asked, frame: &Frame<'_>) -> Held {
    let count = |key: &str| usize::try_from(frame.data(key).as_u64().unwrap_or(u64::MAX)).unwrap();
    let failed = frame.data("Failed").as_array().map_or(0, Vec::len);
    let right = count("Expected") == asked.expected()
        && count("Answered") == asked.parts_answered
        && count("Answered") + failed == count("Expected");
    holds("gather_is_right", right, || {
        format!("{} instead of {} asked, {} answered", frame.text, asked.expected(), asked.parts_answered)
    })
}
