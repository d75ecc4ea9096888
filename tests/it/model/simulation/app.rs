//! What an application says next: drawn from a seeded generator, half of it sensible, half of it not.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use wire::Pattern;

use super::cast::{CAST, CHANNELS, Part, SUBTOPICS, Style, TOPICS};
use super::conn::{Conn, Sub};
use super::draft::{Draft, Recovering, Said, Wanted};
use super::model::{ConnId, Model};

/// Texts that are not envelopes, with their codes.
const MALFORMED: &[(&str, &str)] = &[
    ("", "INVALID_JSON"),
    ("{\"channel\":\"Phone\"", "INVALID_JSON"),
    ("[1]", "INVALID_ENVELOPE"),
    ("{\"channel\":\"Phone\",\"topic\":\"Call\"}", "INVALID_ENVELOPE"),
    (
        "{\"channel\":\"Phone\",\"ch\\u0061nnel\":\"Queue\",\"topic\":\"Call\",\"subtopic\":\"Ring\"}",
        "INVALID_ENVELOPE",
    ),
    ("{\"channel\":\"Phone\",\"topic\":\"Call\",\"subtopic\":\"Ring\",\"seq\":1}", "INVALID_ENVELOPE"),
    ("{\"channel\":\"Phone\",\"topic\":\"*\",\"subtopic\":\"Ring\",\"data\":\"secret-0-\"}", "INVALID_ENVELOPE"),
];

/// An application, its generator, and what it may know.
pub(super) struct App<'a> {
    pub(super) chance: &'a mut StdRng,
    pub(super) model: &'a Model,
    pub(super) id: ConnId,
    pub(super) part: &'static Part,
}

impl<'a> App<'a> {
    fn conn(&self) -> &'a Conn {
        &self.model.conns[self.id]
    }

    fn odds(&mut self, of: u32, among: u32) -> bool {
        self.chance.random_ratio(of, among)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        *among.choose(self.chance).unwrap()
    }

    /// What it says next.
    pub(super) fn next(&mut self) -> Said {
        if self.conn().session.is_none() {
            return match self.chance.random_range(0..20) {
                0 => Said::Envelope(self.event()),
                1 => Said::Ping,
                2 => Said::List,
                3 => self.malformed(),
                _ => self.register(),
            };
        }
        if self.conn().subs.len() < 2 && self.odds(1, 2) {
            return Said::Subscribe(self.wanted());
        }
        match self.chance.random_range(0..100) {
            0..28 => Said::Envelope(self.event()),
            28..48 => Said::Envelope(self.request()),
            48..70 => self.answer(),
            70..80 => Said::Subscribe(self.wanted()),
            80..84 => self.unsubscribe(),
            84..87 => self.cancel(),
            87 => Said::SetState { asleep: self.odds(2, 3) },
            88 => self.renew(),
            89..91 => Said::Unregister,
            91 => self.register(),
            92 => Said::List,
            93 => Said::Ping,
            94 => Said::Pong,
            95 => Said::Binary,
            _ => self.malformed(),
        }
    }

    fn malformed(&mut self) -> Said {
        let (text, code) = self.pick(MALFORMED);
        Said::Malformed(text, code)
    }

    fn register(&mut self) -> Said {
        let part = self.part;
        let token = match self.chance.random_range(0..20) {
            0 => None,
            1 => Some("token-stolen".to_owned()),
            _ => Some(part.token()),
        };
        let source = if self.odds(1, 25) { "impostor" } else { part.source }.to_owned();
        let resume = self.odds(2, 3);
        Said::Register { source, user: part.user.map(str::to_owned), token, echo: part.echo, resume }
    }

    fn renew(&mut self) -> Said {
        let token = match self.chance.random_range(0..20) {
            0 => None,
            1 => Some("token-stolen".to_owned()),
            2..5 => Some(CAST[self.chance.random_range(0..CAST.len())].token()),
            _ => Some(self.part.token()),
        };
        Said::Renew { token }
    }

    fn triple(&mut self) -> [String; 3] {
        let triple = [self.pick(CHANNELS), self.pick(TOPICS), self.pick(SUBTOPICS)].map(str::to_owned);
        match self.odds(1, 10) {
            true => triple.map(|part| if CHANNELS.contains(&&*part) { part } else { part.to_lowercase() }),
            false => triple,
        }
    }

    /// The fields that events and requests share.
    fn draft(&mut self) -> Draft {
        let mut draft = Draft { triple: self.triple(), ..Draft::default() };
        if self.odds(2, 3) {
            draft.id = Some(String::new());
        }
        if self.odds(1, 4) {
            draft.source = Some(if self.odds(1, 10) { "impostor".to_owned() } else { self.conn().source.clone() });
        }
        if self.part.user.is_none() && self.odds(14, 15) || self.odds(1, 30) {
            draft.user = Some(self.pick(&["alice", "bob"]).to_owned());
        }
        if self.odds(1, 12) {
            draft.target = Some(self.pick(&["gadget", "softphone", "legacy", "pool", "nobody"]).to_owned());
        }
        draft
    }

    fn event(&mut self) -> Draft {
        let mut draft = self.draft();
        draft.retain = self.odds(1, 5);
        draft.is_null = draft.retain && self.odds(1, 5);
        draft.once = draft.id.is_some() && self.odds(1, 3) || self.odds(1, 40);
        let source = &self.conn().source;
        let sent: Vec<&String> = self.model.known.keys().filter(|(_, of, ..)| of == source).map(|key| &key.3).collect();
        if draft.once
            && self.odds(1, 2)
            && let Some(id) = sent.choose(self.chance)
        {
            (draft.id, draft.again) = (Some((*id).clone()), true);
        }
        draft.padding = if self.odds(1, 6) { self.chance.random_range(0..2_500) } else { 0 };
        draft
    }

    fn request(&mut self) -> Draft {
        let mut draft = self.draft();
        // Where somebody answers, mostly.
        let served: Vec<[String; 3]> = self.model.registered().flat_map(|(_, conn)| served(conn)).collect();
        if let Some(triple) = served.choose(self.chance) {
            draft.triple.clone_from(triple);
        }
        draft.gather = self.odds(1, 6);
        draft.idempotent = self.odds(1, 3);
        if self.odds(1, 2) {
            draft.timeout = Some(self.pick(&[1, 50, 700, 3_000, 60_000]));
        }
        if draft.gather || draft.idempotent {
            draft.id = Some(String::new());
        }
        draft.retain = self.odds(1, 20);
        draft
    }

    /// Answers something that it was given, now and then late, or twice, on another triple, or what others were given: ids
    /// can be guessed. An event if there is nothing.
    pub(super) fn answer(&mut self) -> Said {
        let more = self.odds(1, 5);
        if self.part.style == Style::Ordered {
            let turns = &self.conn().turns;
            let Some(turn) = turns.first() else { return Said::Envelope(self.event()) };
            // It may know ids after all.
            let in_reply_to = self.odds(1, 3).then(|| turn.id.clone());
            let triple = self.model.asked[&turn.request].draft.triple.clone();
            let [channel, ..] = triple.clone();
            let elsewhere = self.odds(1, 3);
            let triple = if elsewhere { [channel, "Call".to_owned(), "Done".to_owned()] } else { triple };
            return Said::Envelope(Draft { triple, in_reply_to, more, ..Draft::default() });
        }
        let (all, anybodys) = (self.odds(1, 5), self.odds(1, 10));
        let given: Vec<(String, [String; 3])> = self
            .model
            .asked
            .values()
            .flat_map(|asked| asked.given.iter().map(move |given| (asked, given)))
            .filter(|(asked, given)| (anybodys || given.conn == self.id) && (all || asked.is_open(given)))
            .map(|(asked, given)| (given.id.clone(), asked.draft.triple.clone()))
            .collect();
        let Some((id, triple)) = given.choose(self.chance).cloned() else { return Said::Envelope(self.event()) };
        let triple = if self.odds(1, 4) { self.triple() } else { triple };
        Said::Envelope(Draft { triple, in_reply_to: Some(id), more, ..Draft::default() })
    }

    /// A handler names its channel, but now and then.
    fn wanted(&mut self) -> Wanted {
        let [channel, topic, subtopic] = self.triple();
        let style = self.part.style;
        let handler = self.odds(1, 2).then_some(style);
        let part = |any: bool, part: String| (!any).then(|| part.into_boxed_str());
        let pattern = match self.odds(1, 12) {
            true => Pattern {
                channel: Some("Broker".into()),
                topic: part(self.odds(1, 4), "Application".to_owned()),
                subtopic: part(self.odds(1, 3), self.pick(&["Joined", "Left", "List"]).to_owned()),
            },
            false => Pattern {
                // A handler has to name its channel.
                channel: part(self.odds(1, if handler.is_some() { 20 } else { 3 }), channel),
                topic: part(self.odds(1, 3), topic),
                subtopic: part(self.odds(1, 3), subtopic),
            },
        };
        // What it has in other letters: on a folding channel that is the same, elsewhere it is not.
        let pattern = match self.conn().subs.choose(self.chance) {
            Some(Sub { wanted: Wanted { pattern: own, .. }, .. }) if self.odds(1, 8) => {
                let lower = |part: &Option<Box<str>>| part.as_deref().map(|it| it.to_lowercase().into_boxed_str());
                Pattern { channel: own.channel.clone(), topic: lower(&own.topic), subtopic: lower(&own.subtopic) }
            }
            _ => pattern,
        };
        let group = match handler {
            Some(_) => self.part.pool.map(str::to_owned),
            None => self.odds(1, 5).then(|| self.pick(&["even", "odd"]).to_owned()),
        };
        let watches = self.part.observe || self.odds(1, 12);
        let user = watches.then(|| self.pick(&["*", "alice", "bob", "carol"]).to_owned());
        let retained = self.odds(1, 3).then(|| self.odds(2, 3));
        let user = if handler.is_some() && self.odds(4, 5) { None } else { user };
        let mut wanted = Wanted { pattern, handler, group, user, retained, recover: self.recover() };
        if wanted.recover.is_some() && self.odds(4, 5) {
            self.let_have_a_log(&mut wanted);
        }
        wanted
    }

    /// Changes a subscription into one that has a log, if a channel has history.
    fn let_have_a_log(&mut self, wanted: &mut Wanted) {
        let Some((channel, _)) = self.model.bounds.choose(self.chance) else { return };
        let names_user = self.part.user.is_none();
        (wanted.handler, wanted.group) = (None, None);
        wanted.user = names_user.then(|| self.pick(&["alice", "bob"]).to_owned());
        wanted.pattern.channel = Some(channel.as_str().into());
        if self.odds(2, 3) {
            (wanted.pattern.topic, wanted.pattern.subtopic) = (None, None);
        }
    }

    /// Mostly from a position that some log has had.
    fn recover(&mut self) -> Option<Recovering> {
        if self.odds(1, 2) {
            return None;
        }
        let longest = self.model.logs.values().map(Vec::len).max().unwrap_or_default();
        match self.chance.random_range(0..8) {
            0 => Some(Recovering::Elsewhere),
            1..4 => Some(Recovering::Last(self.chance.random_range(1..20))),
            _ if self.model.epoch.is_none() => None,
            _ => Some(Recovering::After(self.chance.random_range(0..=longest + 1))),
        }
    }

    fn unsubscribe(&mut self) -> Said {
        match self.conn().subs.choose(self.chance).cloned() {
            Some(sub) if self.odds(1, 2) => Said::Unsubscribe(sub.wanted, Some(sub.id)),
            Some(sub) if self.odds(3, 4) => Said::Unsubscribe(sub.wanted, None),
            _ => Said::Unsubscribe(self.wanted(), None),
        }
    }

    fn cancel(&mut self) -> Said {
        let own = self
            .model
            .unsettled()
            .map(|(_, asked)| asked)
            .filter(|asked| asked.asker == self.id && asked.end.is_none());
        let ids: Vec<&String> = own.filter_map(|asked| asked.draft.id.as_ref()).collect();
        Said::Cancel(ids.choose(self.chance).map_or_else(|| "1".to_owned(), |id| (*id).clone()))
    }
}

/// A triple that each handler subscription of a session matches.
fn served(conn: &Conn) -> impl Iterator<Item = [String; 3]> {
    conn.subs.iter().filter(|sub| sub.wanted.handler.is_some()).map(|sub| {
        let Pattern { channel, topic, subtopic } = &sub.wanted.pattern;
        let part = |part: &Option<Box<str>>, default: &str| part.as_deref().unwrap_or(default).to_owned();
        [part(channel, "Phone"), part(topic, "Call"), part(subtopic, "Ring")]
    })
}
