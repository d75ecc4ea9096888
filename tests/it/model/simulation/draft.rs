//! What an application says: [`Said`], and the [`Draft`] of an envelope with its text.

use serde_json::{Map, Value, json};
use wire::Pattern;

use super::cast::{ORDERED_REPLY, Style};

/// One thing that an application puts into its socket.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Register {
        source: String,
        user: Option<String>,
        token: Option<String>,
        echo: bool,
        resume: bool,
    },
    Renew {
        token: Option<String>,
    },
    Unregister,
    SetState {
        asleep: bool,
    },
    Subscribe(Wanted),
    /// By id, where that is known, else by what was subscribed to.
    Unsubscribe(Wanted, Option<String>),
    Cancel(String),
    List,
    Ping,
    Envelope(Draft),
    /// A text that is not an envelope, with the code it has to be answered with.
    Malformed(&'static str, &'static str),
    Binary,
    Pong,
}

/// What is subscribed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) pattern: Pattern,
    /// `None`: a subscriber.
    pub(super) handler: Option<Style>,
    pub(super) group: Option<String>,
    pub(super) user: Option<String>,
    pub(super) retained: Option<bool>,
    pub(super) recover: Option<Recovering>,
}

/// What is to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recovering {
    Last(usize),
    After(usize),
    /// After a position of a log that has ended.
    Elsewhere,
}

/// An envelope for others.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "the wire's flags")]
pub(super) struct Draft {
    pub(super) triple: [String; 3],
    pub(super) source: Option<String>,
    /// Its number, which it gets when it is sent.
    pub(super) id: Option<String>,
    pub(super) user: Option<String>,
    pub(super) target: Option<String>,
    pub(super) in_reply_to: Option<String>,
    pub(super) timeout: Option<u64>,
    pub(super) gather: bool,
    pub(super) idempotent: bool,
    pub(super) retain: bool,
    pub(super) more: bool,
    pub(super) once: bool,
    /// Its `id` is that of an earlier event, which is sent again.
    pub(super) again: bool,
    /// Its payload is `null`.
    pub(super) is_null: bool,
    /// This number of bytes more.
    pub(super) padding: usize,
}

impl Draft {
    pub(super) fn asks(&self) -> bool {
        self.timeout.is_some() || self.gather || self.idempotent
    }

    /// The payload's text, by which a copy differs from a paraphrase. The spaces are intended.
    pub(super) fn payload(&self, n: u64) -> String {
        let padding = " ".repeat(self.padding);
        match self.is_null {
            true => "null".to_owned(),
            false => format!(r#"{{ "of" :{n}, "source":"inner", "s":"secret-{n}-{padding}" }}"#),
        }
    }

    /// The text; `n` is a field that the broker does not know and passes through.
    fn text(&self, n: u64) -> String {
        let string = |key: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!(r#""{key}":{}"#, Value::from(value.as_str())))
        };
        let flag = |key: &str, value: bool| value.then(|| format!(r#""{key}":true"#));
        let [channel, topic, subtopic] = self.triple.clone().map(Some);
        let fields = [
            string("id", &self.id),
            string("channel", &channel),
            string("user", &self.user),
            string("topic", &topic),
            string("source", &self.source),
            Some(format!(r#""n":{n}"#)),
            flag("more", self.more),
            string("inReplyTo", &self.in_reply_to),
            string("subtopic", &subtopic),
            self.timeout.map(|ms| format!(r#""timeout":{ms}"#)),
            flag("gather", self.gather),
            flag("idempotent", self.idempotent),
            flag("retain", self.retain),
            flag("once", self.once),
            Some(format!(r#""data":{}"#, self.payload(n))),
            string("target", &self.target),
        ];
        format!("{{{}}}", fields.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

impl Wanted {
    fn options(&self, epoch: &str) -> Map<String, Value> {
        let mut data = self.filter();
        data.insert("retained".into(), self.retained.into());
        let recover = match self.recover {
            None => Value::Null,
            Some(Recovering::Last(most)) => json!({"last": most}),
            Some(Recovering::After(offset)) => json!({"epoch": epoch, "offset": offset}),
            Some(Recovering::Elsewhere) => json!({"epoch": "elsewhere", "offset": 1}),
        };
        data.insert("recover".into(), recover);
        if let Some(style) = self.handler {
            match style {
                Style::Answers => {}
                Style::Commands => drop(data.insert("answers".into(), false.into())),
                Style::Ordered => {
                    data.insert("ordered".into(), true.into());
                    data.insert("replies".into(), json!([format!("{}/{}", ORDERED_REPLY.0, ORDERED_REPLY.1)]));
                }
            }
        }
        data
    }

    /// The options that Unsubscribe has, too. Without a role, handlers end like subscribers.
    fn filter(&self) -> Map<String, Value> {
        let part = |part: &Option<Box<str>>| Value::from(part.as_deref().unwrap_or("*"));
        let mut data = Map::new();
        data.insert("channel".into(), part(&self.pattern.channel));
        data.insert("topic".into(), part(&self.pattern.topic));
        data.insert("subtopic".into(), part(&self.pattern.subtopic));
        data.insert("role".into(), self.handler.map(|_| "handler").into());
        data.insert("group".into(), self.group.as_deref().into());
        data.insert("user".into(), self.user.as_deref().into());
        data
    }
}

impl Said {
    /// Gives an envelope that is to have an id the one that is its number.
    pub(super) fn number(&mut self, n: u64) {
        if let Self::Envelope(Draft { id: Some(id), again: false, .. }) = self {
            *id = n.to_string();
        }
    }

    /// Topic and subtopic of a command.
    pub(super) fn command(&self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Self::Register { .. } => ("Application", "Register"),
            Self::Renew { .. } => ("Application", "Renew"),
            Self::Unregister => ("Application", "Unregister"),
            Self::SetState { .. } => ("Application", "SetState"),
            Self::Subscribe(_) => ("Subscription", "Subscribe"),
            Self::Unsubscribe(..) => ("Subscription", "Unsubscribe"),
            Self::Cancel(_) => ("Request", "Cancel"),
            Self::List => ("Application", "List"),
            Self::Ping => ("Connection", "Ping"),
            Self::Envelope(_) | Self::Malformed(..) | Self::Binary | Self::Pong => return None,
        })
    }

    /// The text message; `None` for what is none. A command's id is its number. `epoch` is that of all logs.
    pub(super) fn text(&self, n: u64, epoch: &str) -> Option<String> {
        let data = match self {
            Self::Envelope(draft) => return Some(draft.text(n)),
            Self::Malformed(text, _) => return Some((*text).to_owned()),
            Self::Binary | Self::Pong => return None,
            Self::Register { user, token, echo, resume, .. } => {
                json!({"user": user, "token": token, "echo": echo, "resume": resume})
            }
            Self::Renew { token } => json!({"token": token}),
            Self::SetState { asleep } => json!({"state": if *asleep { "asleep" } else { "active" }}),
            Self::Unsubscribe(_, Some(id)) => json!({"SubscriptionId": id}),
            Self::Subscribe(wanted) => Value::Object(wanted.options(epoch)),
            Self::Unsubscribe(wanted, None) => Value::Object(wanted.filter()),
            Self::Cancel(id) => json!({"id": id}),
            Self::Unregister | Self::List | Self::Ping => Value::Null,
        };
        let (topic, subtopic) = self.command()?;
        let mut command = json!({"channel": "Broker", "topic": topic, "subtopic": subtopic, "id": n.to_string()});
        if let Self::Register { source, .. } = self {
            command["source"] = source.as_str().into();
        }
        if !data.is_null() {
            command["data"] = data;
        }
        Some(command.to_string())
    }
}
