//! Logs against a naive model: random events, clocks and subscriptions that recover from random positions. Each session
//! receives exactly what plain lists say, in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use switchboard::config::{Channel, Config, LogBounds, Scope};
use switchboard::router::{RecoverReason, Recovered, Session, Subscribed};
use wire::Pattern;
use wire::command::{Recover, Role, Subscribe};

use crate::support::core::{Core, event};
use crate::support::rights::permissions;

const SEEDS: u64 = 60;
const STEPS: usize = 400;

/// Source, user, and whether it may not receive `*/Secret/*`.
const CAST: &[(&str, Option<&str>, bool)] = &[
    ("phone", Some("alice"), false),
    ("crm", Some("alice"), false),
    ("crm", Some("bob"), false),
    ("narrow", Some("bob"), true),
    ("recorder", None, false),
];

const TOPICS: [&str; 2] = ["Call", "Secret"];
const SUBTOPICS: [&str; 2] = ["Ring", "End"];

/// One event of a log, for ever.
#[derive(Clone)]
struct Event {
    number: u64,
    at: Instant,
    topic: &'static str,
    subtopic: &'static str,
    target: Option<&'static str>,
    user: String,
}

struct Member {
    session: Arc<Session>,
    source: &'static str,
    user: Option<&'static str>,
    is_narrow: bool,
    subscriptions: Vec<(Pattern, Option<String>)>,
    /// What it has to receive, oldest first: number, offset, whether replayed.
    owed: Vec<(u64, u64, bool)>,
}

type LogKey = (&'static str, Option<String>);

struct World {
    core: Core,
    chance: StdRng,
    bounds: BTreeMap<&'static str, LogBounds>,
    logs: BTreeMap<LogKey, Vec<Event>>,
    epoch: Option<Arc<str>>,
    members: Vec<Member>,
    number: u64,
}

fn is_shared(channel: &str) -> bool {
    channel == "Queue"
}

impl Member {
    /// Whether a subscription of it shows it an event of the log of `owner`.
    fn sees(
        &self,
        (pattern, of): &(Pattern, Option<String>),
        channel: &str,
        owner: Option<&str>,
        event: &Event,
    ) -> bool {
        let is = |part: &Option<Box<str>>, own: &str| part.as_deref().is_none_or(|part| part == own);
        let whose = match (self.user, of.as_deref(), owner) {
            // On a shared channel, users see everything, and services what they ask for.
            (_, Some("*"), _) | (None, None, _) | (Some(_), _, None) => true,
            (None, Some(of), None) => event.user == of,
            (_, Some(of), Some(owner)) => of == owner,
            (Some(own), None, Some(owner)) => own == owner,
        };
        whose
            && is(&pattern.channel, channel)
            && is(&pattern.topic, event.topic)
            && is(&pattern.subtopic, event.subtopic)
            && event.target.is_none_or(|target| target == self.source)
            && !(self.is_narrow && event.topic == "Secret")
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut config = Config::default();
        let mut bounds = BTreeMap::new();
        for (channel, scope) in [("Phone", Scope::User), ("Queue", Scope::Shared)] {
            let own =
                LogBounds { size: chance.random_range(1..150), ttl: Duration::from_secs(chance.random_range(1..300)) };
            bounds.insert(channel, own);
            config.channels.insert(channel.into(), Channel { scope, history: Some(own), ..Channel::default() });
        }
        let core = Core::new(&config);
        let narrow = || permissions("publish */*/*; subscribe */*/*; deny subscribe */Secret/*");
        let members = CAST.iter().map(|&(source, user, is_narrow)| Member {
            session: if is_narrow { core.attach_as(source, user, narrow()) } else { core.attach(source, user) },
            source,
            user,
            is_narrow,
            subscriptions: Vec::new(),
            owed: Vec::new(),
        });
        let members = members.collect();
        Self { core, chance, bounds, logs: BTreeMap::new(), epoch: None, members, number: 0 }
    }

    fn publish(&mut self) {
        let sender = self.chance.random_range(0..self.members.len());
        let Member { session, user, .. } = &self.members[sender];
        let channel = *["Phone", "Queue"].choose(&mut self.chance).unwrap();
        let of = user.unwrap_or_else(|| ["alice", "bob"].choose(&mut self.chance).copied().unwrap());
        self.number += 1;
        let event_of = Event {
            number: self.number,
            at: self.core.now,
            topic: TOPICS.choose(&mut self.chance).copied().unwrap(),
            subtopic: SUBTOPICS.choose(&mut self.chance).copied().unwrap(),
            target: self.chance.random_ratio(1, 8).then_some("crm"),
            user: of.to_owned(),
        };
        let target = event_of.target.map_or_else(String::new, |target| format!(r#","target":"{target}""#));
        let text = event(
            &format!("{channel}/{}/{}", event_of.topic, event_of.subtopic),
            &format!(r#","user":"{of}","data":{}{target}"#, self.number),
        );
        let routed = self.core.send(session, &text).map_err(|it| it.refusal).unwrap();
        let owner = (!is_shared(channel)).then(|| of.to_owned());
        let log = self.logs.entry((channel, owner.clone())).or_default();
        log.push(event_of.clone());
        let position = routed.receipt.unwrap().kept.unwrap().position;
        assert_eq!(position.offset, log.len() as u64);
        let epoch = self.epoch.get_or_insert_with(|| Arc::clone(&position.epoch));
        assert_eq!(*epoch, position.epoch, "nothing of the past was lost");
        for (number, member) in self.members.iter_mut().enumerate() {
            let sees = |it: &(Pattern, Option<String>)| member.sees(it, channel, owner.as_deref(), &event_of);
            if number != sender && member.subscriptions.iter().any(sees) {
                member.owed.push((event_of.number, position.offset, false));
            }
        }
    }

    fn subscribe(&mut self) {
        let number = self.chance.random_range(0..self.members.len());
        let channel = *["Phone", "Queue"].choose(&mut self.chance).unwrap();
        let part = |chance: &mut StdRng, parts: [&str; 2]| {
            chance.random_ratio(1, 2).then(|| Box::from(*parts.choose(chance).unwrap()))
        };
        // A pattern of which nothing is allowed would be refused.
        let is_narrow = self.members[number].is_narrow;
        let topic = part(&mut self.chance, if is_narrow { ["Call"; 2] } else { TOPICS });
        let pattern = Pattern { channel: Some(channel.into()), topic, subtopic: part(&mut self.chance, SUBTOPICS) };
        let (may_observe, is_service) = (!self.members[number].is_narrow, self.members[number].user.is_none());
        let names_other = is_service && !is_shared(channel) || may_observe && self.chance.random_ratio(1, 3);
        let of = names_other.then(|| ["alice", "bob"].choose(&mut self.chance).map(|it| (*it).to_owned()).unwrap());
        // Naming oneself is as naming nobody.
        let of = of.filter(|of| self.members[number].user != Some(of));
        let owner =
            (!is_shared(channel)).then(|| of.clone().or_else(|| self.members[number].user.map(str::to_owned)).unwrap());
        let log = self.logs.get(&(channel, owner.clone())).cloned().unwrap_or_default();
        let recover = self.recover(log.len() as u64);
        let wanted = Subscribe {
            user: of.clone(),
            recover: recover.clone(),
            ..Subscribe::new(pattern.clone(), Role::Subscriber)
        };
        let told = self.told(number, &wanted);
        assert_eq!(told.position.as_ref().map(|it| it.offset), Some(log.len() as u64));
        let member = &self.members[number];
        let subscription = (pattern, of);
        // What is kept, and of that what this subscription shows.
        let LogBounds { size, ttl } = self.bounds[channel];
        let is_kept = |at: usize| at + size >= log.len() && self.core.now - log[at].at <= ttl;
        let first = (0..log.len()).find(|at| is_kept(*at)).unwrap_or(log.len());
        let shown: Vec<usize> =
            (first..log.len()).filter(|at| member.sees(&subscription, channel, owner.as_deref(), &log[*at])).collect();
        let due: Result<Vec<usize>, RecoverReason> = match &recover {
            None => Ok(Vec::new()),
            Some(Recover::Last(most)) => {
                let skipped = shown.len().saturating_sub(usize::try_from(*most).unwrap());
                Ok(shown.into_iter().skip(skipped).collect())
            }
            Some(Recover::After { epoch, .. }) if Some(&**epoch) != self.epoch.as_deref() => Err(RecoverReason::Epoch),
            Some(Recover::After { offset, .. }) if *offset > log.len() as u64 => Err(RecoverReason::Ahead),
            Some(Recover::After { offset, .. }) if *offset < first as u64 => Err(RecoverReason::TooOld),
            Some(Recover::After { offset, .. }) => Ok(shown.into_iter().filter(|at| *at as u64 >= *offset).collect()),
        };
        let expected = recover.map(|_| match &due {
            Ok(due) => Recovered::Replayed(due.len()),
            Err(reason) => Recovered::Lost(*reason),
        });
        assert_eq!(told.recovered, expected, "{:?} in a log of {}", wanted.recover, log.len());
        let member = &mut self.members[number];
        member.owed.extend(due.into_iter().flatten().map(|at| (log[at].number, at as u64 + 1, true)));
        if !member.subscriptions.contains(&subscription) {
            member.subscriptions.push(subscription);
        }
    }

    fn recover(&mut self, last: u64) -> Option<Recover> {
        match self.chance.random_range(0..10) {
            0 => None,
            1..4 => Some(Recover::Last(self.chance.random_range(1..200))),
            4 => Some(Recover::After { epoch: "another".into(), offset: self.chance.random_range(0..=last) }),
            5 => Some(Recover::After { epoch: self.epoch.as_deref()?.into(), offset: last + 1 }),
            _ => Some(Recover::After {
                epoch: self.epoch.as_deref()?.into(),
                offset: self.chance.random_range(0..=last),
            }),
        }
    }

    fn told(&self, number: usize, wanted: &Subscribe) -> Subscribed {
        let mut told = None;
        let session = &self.members[number].session;
        let tell = |subscribed| {
            told = Some(subscribed);
            None
        };
        self.core.router.subscribe(self.core.now, session, wanted, tell).unwrap();
        told.unwrap()
    }

    fn read(&mut self) {
        let number = self.chance.random_range(0..self.members.len());
        let member = &mut self.members[number];
        let taken = self.core.take(&member.session);
        let found: Vec<(u64, u64, bool)> = taken
            .iter()
            .map(|it: &Value| {
                (it["data"].as_u64().unwrap(), it["offset"].as_u64().unwrap(), it.get("replayed").is_some())
            })
            .collect();
        assert_eq!(found, std::mem::take(&mut member.owed), "{} of {:?}", member.source, member.user);
    }

    fn step(&mut self) {
        match self.chance.random_range(0..20) {
            0..11 => self.publish(),
            11..15 => self.subscribe(),
            15..18 => self.read(),
            18 => self.core.now += Duration::from_millis(self.chance.random_range(0..60_000)),
            _ => self.core.router.expire(self.core.now),
        }
    }
}

#[test]
fn a_session_receives_what_plain_lists_say() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        for _ in 0..100 {
            world.read();
        }
    }
}
