//! Transcripts: conversations as text, with their reading and their comparing; playing them is someone else's.
//!
//! The lines, as docs/protocol.md shows them:
//! - `# …` a comment;
//! - `config <<toml` up to a line `toml`: the broker's configuration, in open mode unless it says otherwise;
//! - `alice> {…}` sends; a connection is made at its first mention; an indented line goes on with the text before;
//! - `alice< {…}` is the next message: the same keys and values, in `data` in the same order too. `"<any>"` stands for
//!   any value, `"<uuid>"` for a UUID, `"<id:name>"` for a text that the broker made and that is `$name` from then on;
//! - `alice< nothing`: all that was sent is done, and nothing has come;  `alice< close 4401` is the Close frame;
//! - `alice leaves`: its connection dies without a word;
//! - `clock +10s`: time passes; only a player with a clock of its own can do that.
//!
//! Three lines stand for a command and its reply: `alice registers as softphone` (or `… as softphone for bob`, a user
//! of open mode, or `… as softphone {"token":"…"}`), `alice subscribes to Sales/Call/*` and `alice handles
//! Sales/Call/Ring`; options are written after them.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

/// One conversation.
pub(crate) struct Transcript {
    /// The broker's configuration, if it matters.
    pub(crate) config: Option<String>,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
}

/// One line of it.
#[derive(Debug)]
pub(crate) struct Step {
    /// Where it stands in the file.
    pub(crate) line: usize,
    /// What happens.
    pub(crate) action: Action,
}

/// What a line says.
#[derive(Debug)]
pub(crate) enum Action {
    /// A peer sends a text.
    Send(String, String),
    /// A peer's next message equals this.
    Expect(String, Value),
    /// All that was sent is done, and nothing has come for the peer.
    Nothing(String),
    /// The peer's connection is closed with this code.
    Close(String, u16),
    /// A peer's connection dies.
    Leave(String),
    /// Time passes.
    Clock(Duration),
}

impl Transcript {
    /// Reads a transcript; a line that says nothing known is a panic with its number.
    pub(crate) fn read(text: &str) -> Self {
        let mut transcript = Self { config: None, steps: Vec::new() };
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
            let mut whole = line.to_owned();
            while let Some((_, more)) = lines.next_if(|(_, next)| next.starts_with(' ')) {
                whole.push_str(more.trim_start());
            }
            let actions = read_line(&whole).unwrap_or_else(|| panic!("line {at} says nothing known: {whole}"));
            transcript.steps.extend(actions.into_iter().map(|action| Step { line: at, action }));
        }
        transcript
    }

    /// Whether it needs a player with a clock of its own.
    pub(crate) fn needs_a_clock(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Clock(_)))
    }
}

fn read_line(line: &str) -> Option<Vec<Action>> {
    if let Some(time) = line.strip_prefix("clock +") {
        return Some(vec![Action::Clock(humantime::parse_duration(time).ok()?)]);
    }
    let (peer, rest) = line.split_once([' ', '>', '<'])?;
    let mark = line.get(peer.len()..=peer.len())?;
    let (peer, rest) = (peer.to_owned(), rest.trim());
    let one = match mark {
        ">" => Action::Send(peer, rest.to_owned()),
        "<" if rest == "nothing" => Action::Nothing(peer),
        "<" => match rest.strip_prefix("close ") {
            Some(code) => Action::Close(peer, code.parse().ok()?),
            None => Action::Expect(peer, serde_json::from_str(rest).ok()?),
        },
        _ if rest == "leaves" => Action::Leave(peer),
        _ => return read_short_form(&peer, rest),
    };
    Some(vec![one])
}

/// The three lines that stand for a command and its reply.
fn read_short_form(peer: &str, rest: &str) -> Option<Vec<Action>> {
    if let Some(who) = rest.strip_prefix("registers as ") {
        let (source, user, options) = match (who.split_once(" for "), who.split_once(" {")) {
            (Some((source, user)), None) => (source, user, json!({ "user": user })),
            (None, Some((source, _))) => (source, "<any>", serde_json::from_str(&who[source.len()..]).ok()?),
            _ => (who, "local", json!({})),
        };
        let register = json!({
            "channel": "Broker", "topic": "Application", "subtopic": "Register", "source": source, "data": options,
        });
        let data = json!({
            "Success": true, "ErrorMessage": null, "SessionId": "<uuid>", "User": user,
            "Protocol": 1, "Server": "<any>", "HeartbeatSeconds": "<any>", "MaxMessageBytes": "<any>",
        });
        return Some(exchange(peer, "Application", "Register", &register, &data));
    }
    let (pattern, role) = match rest.strip_prefix("subscribes to ") {
        Some(pattern) => (pattern, None),
        None => (rest.strip_prefix("handles ")?, Some("handler")),
    };
    let (pattern, options) = pattern.split_once(' ').unwrap_or((pattern, "{}"));
    let mut parts = pattern.split('/');
    let mut data = json!({"channel": parts.next()?, "topic": parts.next()?, "subtopic": parts.next()?});
    if let Some(role) = role {
        data["role"] = role.into();
    }
    let more: Value = serde_json::from_str(options).ok()?;
    data.as_object_mut()?.extend(more.as_object()?.clone());
    let command = json!({"channel": "Broker", "topic": "Subscription", "subtopic": "Subscribe", "data": data});
    let answer = json!({"Success": true, "ErrorMessage": null, "SubscriptionId": "<any>"});
    Some(exchange(peer, "Subscription", "Subscribe", &command, &answer))
}

fn exchange(peer: &str, topic: &str, subtopic: &str, command: &Value, data: &Value) -> Vec<Action> {
    let reply = json!({"channel": "Broker", "topic": topic, "subtopic": subtopic, "data": data});
    vec![Action::Send(peer.to_owned(), command.to_string()), Action::Expect(peer.to_owned(), reply)]
}

/// What the broker made and a transcript gave a name.
#[derive(Default)]
pub(crate) struct Names(HashMap<String, String>);

impl Names {
    /// A text with every `$name` replaced by what it stands for.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut names: Vec<(&String, &String)> = self.0.iter().collect();
        // The longest first: $request2 is not $request and a 2.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }

    /// Compares a message with what was expected, and remembers what the broker made.
    ///
    /// The order of the envelope's own keys is not compared: the protocol does not say where a broker's field goes.
    ///
    /// # Errors
    /// Says where they differ.
    pub(crate) fn compare(&mut self, expected: &Value, found: &Value) -> Result<(), String> {
        let (Value::Object(expected), Value::Object(found)) = (expected, found) else {
            return Err("no object".to_owned());
        };
        for key in found.keys() {
            if !expected.contains_key(key) {
                return Err(format!("'{key}' was not expected"));
            }
        }
        for (key, value) in expected {
            let found = found.get(key).ok_or_else(|| format!("'{key}' is missing"))?;
            self.compare_value(key, value, found)?;
        }
        Ok(())
    }

    fn compare_value(&mut self, path: &str, expected: &Value, found: &Value) -> Result<(), String> {
        match (expected, found) {
            (Value::String(expected), found) if expected.starts_with('<') && expected.ends_with('>') => {
                self.bind(path, expected, found)
            }
            (Value::String(expected), Value::String(found)) if self.fill(expected) == *found => Ok(()),
            (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
                let mut pairs = expected.iter().zip(found).enumerate();
                pairs.try_for_each(|(at, (expected, found))| {
                    self.compare_value(&format!("{path}[{at}]"), expected, found)
                })
            }
            (Value::Object(expected), Value::Object(found)) => {
                if !expected.keys().eq(found.keys()) {
                    return Err(format!("'{path}' has other keys, or in another order"));
                }
                let mut pairs = expected.iter().zip(found.values());
                pairs.try_for_each(|((key, expected), found)| {
                    self.compare_value(&format!("{path}.{key}"), expected, found)
                })
            }
            (expected, found) if expected == found => Ok(()),
            _ => Err(format!("'{path}' is {found}, not {expected}")),
        }
    }

    fn bind(&mut self, path: &str, placeholder: &str, found: &Value) -> Result<(), String> {
        let text = found.as_str();
        match (placeholder, text) {
            ("<any>", _) => Ok(()),
            ("<uuid>", Some(text)) if uuid::Uuid::parse_str(text).is_ok() => Ok(()),
            ("<uuid>", _) => Err(format!("'{path}' is no UUID: {found}")),
            (placeholder, Some(text)) if placeholder.starts_with("<id:") => {
                let name = placeholder.trim_start_matches("<id:").trim_end_matches('>');
                self.0.insert(name.to_owned(), text.to_owned());
                Ok(())
            }
            _ => Err(format!("'{path}' is {found}, not {placeholder}")),
        }
    }
}
