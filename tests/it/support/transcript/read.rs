//! Reads the text of a transcript into its steps.

use std::iter::Peekable;

use serde_json::{Map, Value, json};

use super::{Action, Step, Transcript};

impl Transcript {
    /// Reads a transcript. A line that is none of the documented ones is a panic with its number.
    pub(crate) fn read(text: &str) -> Self {
        let mut transcript = Self { config: None, needs_adapters: false, proofs_last: None, steps: Vec::new() };
        let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line)).peekable();
        while let Some((at, line)) = lines.next() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if line == "config <<toml" {
                let toml: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "toml").collect();
                transcript.config = Some(toml.join("\n"));
                continue;
            }
            if line == "needs adapters" {
                transcript.needs_adapters = true;
                continue;
            }
            if let Some(time) = line.strip_prefix("proofs last ") {
                transcript.proofs_last = Some(humantime::parse_duration(time).unwrap());
                continue;
            }
            let whole = joined(line, &mut lines);
            let mut actions = read_line(&whole).unwrap_or_else(|| panic!("line {at} cannot be read: {whole}"));
            if let Some((peer, _)) = whole.split_once("<* ")
                && let [Action::Expect(_, expected)] = actions.as_mut_slice()
            {
                let mark = format!("{peer}<* ");
                while let Some((at, next)) = lines.next_if(|(_, next)| next.starts_with(&mark)) {
                    let whole = joined(next, &mut lines);
                    let more = whole.strip_prefix(&mark).and_then(read_message);
                    expected.push(more.unwrap_or_else(|| panic!("line {at} cannot be read: {whole}")));
                }
            }
            transcript.steps.extend(actions.into_iter().map(|action| Step { line: at, action }));
        }
        transcript
    }
}

/// A line with the indented lines that continue it.
fn joined<'a>(line: &str, lines: &mut Peekable<impl Iterator<Item = (usize, &'a str)>>) -> String {
    let mut whole = line.to_owned();
    while let Some((_, more)) = lines.next_if(|(_, next)| next.starts_with(' ')) {
        whole.push(' ');
        whole.push_str(more.trim_start());
    }
    whole
}

fn read_line(line: &str) -> Option<Vec<Action>> {
    if let Some(time) = line.strip_prefix("clock +") {
        return Some(vec![Action::Clock(humantime::parse_duration(time).ok()?)]);
    }
    if let Some(words) = line.strip_prefix("log once ") {
        return Some(vec![Action::Log(serde_json::from_str(words).ok()?)]);
    }
    let (peer, rest) = line.split_once([' ', '>', '<'])?;
    let mark = line.get(peer.len()..=peer.len())?;
    let (peer, rest) = (peer.to_owned(), rest.trim());
    let one = match mark {
        ">" if rest == "<binary>" => Action::SendBinary(peer),
        ">" => Action::Send(peer, text_to_send(rest)),
        "<" if rest == "nothing" => Action::Nothing(peer),
        "<" if peer.contains('|') => {
            Action::ExpectOne(peer.split('|').map(str::to_owned).collect(), read_message(rest)?)
        }
        "<" => match rest.strip_prefix("close ") {
            Some(code) => Action::Close(peer, code.parse().ok()?),
            None => Action::Expect(peer, vec![read_message(rest.strip_prefix("* ").unwrap_or(rest))?]),
        },
        _ if rest == "leaves" => Action::Leave(peer),
        _ => return read_command(&peer, rest),
    };
    Some(vec![one])
}

/// The three parts of a triple or pattern, and the text after it.
fn split_triple(text: &str) -> Option<([&str; 3], &str)> {
    if text.starts_with(['{', '[', '"']) {
        return None;
    }
    let (triple, rest) = text.split_once(' ').unwrap_or((text, ""));
    let parts: Vec<&str> = triple.split('/').collect();
    Some((parts.try_into().ok()?, rest.trim()))
}

/// The text of a message to send. After a triple, the other fields are sent exactly as they are written.
fn text_to_send(text: &str) -> String {
    let Some(([channel, topic, subtopic], fields)) = split_triple(text) else { return text.to_owned() };
    let triple = format!(r#"{{"channel":"{channel}","topic":"{topic}","subtopic":"{subtopic}""#);
    match fields.strip_prefix('{') {
        None | Some("}") => format!("{triple}}}"),
        Some(fields) => format!("{triple},{fields}"),
    }
}

/// An expected message.
fn read_message(text: &str) -> Option<Value> {
    let Some(([channel, topic, subtopic], fields)) = split_triple(text) else { return serde_json::from_str(text).ok() };
    let mut message = triple(channel, topic, subtopic);
    if !fields.is_empty() {
        message.extend(serde_json::from_str::<Map<String, Value>>(fields).ok()?);
    }
    Some(message.into())
}

fn triple(channel: &str, topic: &str, subtopic: &str) -> Map<String, Value> {
    let parts = [("channel", channel), ("topic", topic), ("subtopic", subtopic)];
    parts.into_iter().map(|(key, part)| (key.to_owned(), part.into())).collect()
}

/// A line that stands for a command and its reply.
fn read_command(peer: &str, line: &str) -> Option<Vec<Action>> {
    let (line, failure) = match line.split_once(" fails with ") {
        Some((line, code)) => (line, Some(format!("<failure:{}>", code.replacen(": ", ":", 1)))),
        None => (line, None),
    };
    let (line, mut data) = match line.split_once(" {") {
        Some((before, _)) => (before, serde_json::from_str::<Map<String, Value>>(line.get(before.len()..)?).ok()?),
        None => (line, Map::new()),
    };
    let (command, fields, success) = if let Some(who) = line.strip_prefix("registers as ") {
        let (source, user) = match who.split_once(" for ") {
            Some((source, user)) => (source, Some(user)),
            None => (who, None),
        };
        let shown = if data.contains_key("token") { "<any>" } else { user.unwrap_or("local") };
        if let Some(user) = user {
            data.insert("user".to_owned(), user.into());
        }
        let success =
            json!({"Success": true, "ErrorMessage": null, "SessionId": "<uuid>", "User": shown, "...": "<any>"});
        (["Application", "Register"], json!({"source": source, "data": data}), success)
    } else {
        let (pattern, role) = match line.strip_prefix("subscribes to ") {
            Some(pattern) => (pattern, None),
            None => (line.strip_prefix("handles ")?, Some("handler")),
        };
        let ([channel, topic, subtopic], "") = split_triple(pattern)? else { return None };
        let mut wanted = triple(channel, topic, subtopic);
        wanted.extend(role.map(|role| ("role".to_owned(), role.into())));
        wanted.extend(data);
        let mut success = json!({"Success": true, "ErrorMessage": null, "SubscriptionId": "<any>"});
        if role.is_some() {
            // A handler of a wide pattern is told that protected triples narrow it.
            success["..."] = "<any>".into();
        }
        (["Subscription", "Subscribe"], json!({"data": wanted}), success)
    };
    let [topic, subtopic] = command;
    let mut sent = triple("Broker", topic, subtopic);
    sent.extend(fields.as_object()?.clone());
    let mut reply = triple("Broker", topic, subtopic);
    reply.insert("data".to_owned(), failure.map_or(success, Value::from));
    Some(vec![
        Action::Send(peer.to_owned(), Value::from(sent).to_string()),
        Action::Expect(peer.to_owned(), vec![reply.into()]),
    ])
}
