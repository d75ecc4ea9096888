//! Explain: who would get an envelope now, and why the others would not.

mod asking;
mod desk;
mod ended;
pub(crate) mod situations;

use std::fmt::Write;

use serde::Serialize;
use switchboard::router::explain::{Explanation, Other, Receiver};

/// What an answer says, in one line: the verdict, then what there is to say of the session of this source.
pub(crate) fn summary(answer: &Explanation, about: &str) -> String {
    let mut line = format!("{} {}", word(answer.verdict), answer.rule);
    if let Some(code) = &answer.code {
        write!(line, " {code}").unwrap();
    }
    if let (Some(right), Some(decided_by)) = (&answer.right, &answer.decided_by) {
        write!(line, " ({right}: {decided_by})").unwrap();
    }
    if let Some(paused) = &answer.sender_paused {
        write!(line, " paused {}", word(paused)).unwrap();
    }
    for receiver in answer.receives.iter().filter(|it| it.who.source == about) {
        write!(line, "; receives: {}", of_receiver(receiver)).unwrap();
    }
    for other in answer.others.iter().filter(|it| it.who.source == about) {
        write!(line, "; {}", of_other(other)).unwrap();
    }
    line
}

fn of_receiver(receiver: &Receiver) -> String {
    let Receiver { state, effect, chosen, pattern, .. } = receiver;
    let chosen = chosen.map(|it| format!(" chosen {}", it.as_str())).unwrap_or_default();
    format!("{} {state} {}{chosen}", pattern.as_deref().unwrap_or("-"), word(effect))
}

fn of_other(other: &Other) -> String {
    let details = &other.details;
    let mut line = word(other.reason);
    for also in &other.also {
        write!(line, " also {}", word(also)).unwrap();
    }
    let mut say = |text: String| write!(line, ", {text}").unwrap();
    if let Some(nearest) = &details.nearest {
        say(format!("nearest {} {}", nearest.name, word(nearest.differs)));
    }
    if let Some(left) = &details.left {
        say(format!("left {} {:?} {}", left.at, left.code, left.reason));
    }
    for ended in &details.ended {
        say(format!("{} {} ended {} {}", ended.role, ended.pattern, ended.at, ended.reason));
    }
    for who in [&details.handler, &details.member].into_iter().flatten() {
        say(who.source.clone());
    }
    let texts = [&details.why, &details.protected_by, &details.right, &details.decided_by, &details.named];
    for text in texts.into_iter().flatten() {
        say(text.clone());
    }
    line
}

/// A value that is printed as one word.
fn word(value: impl Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}
