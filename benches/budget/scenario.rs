//! [`SCENARIOS`]: the steps of the hot path, each through the code that serves it, without sockets.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use switchboard::auth::{Identity, Open, Permissions, Principal, Right, Rights, Rule, Rules, Users};
use switchboard::config::Config;
use switchboard::connection::{
    Admission, Connection, Context, Effect, Gone, Input, Settings, Shutdown, Upgraded, serve,
};
use switchboard::router::{Ids, Policy, Registered, Router, Session, Wanted};
use tokio::task::yield_now;
use wire::command::{Resume, Role};
use wire::{DecodeLimits, decode};

use crate::framing;
use crate::nested;
use crate::stream::{Peer, connection};
use crate::support::{self, Broker};

/// One scenario.
pub(crate) struct Scenario {
    /// As `benches/budget.toml` has it.
    pub(crate) name: &'static str,
    /// How many rounds are counted.
    pub(crate) rounds: u32,
    /// How many of what is counted one round does.
    pub(crate) steps_a_round: u64,
    /// Sets up, and runs this number of rounds.
    pub(crate) run: fn(u32),
}

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    // An envelope's text to its routing keys: flat, and nested with escapes and text that is not ASCII.
    Scenario { name: "decode_256_bytes", rounds: 2_000, steps_a_round: 1, run: |rounds| decode_envelope(rounds, 256) },
    Scenario { name: "decode_4_kib", rounds: 300, steps_a_round: 1, run: |rounds| decode_envelope(rounds, 4 << 10) },
    // An event from its text to this number of outboxes, and out of all of them.
    Scenario { name: "publish_to_1", rounds: 2_000, steps_a_round: 1, run: |rounds| publish(rounds, 1) },
    Scenario { name: "publish_to_100", rounds: 100, steps_a_round: 1, run: |rounds| publish(rounds, 100) },
    Scenario { name: "publish_to_1000", rounds: 15, steps_a_round: 1, run: |rounds| publish(rounds, 1_000) },
    // The same to resumable sessions, which acknowledge every 8 messages.
    Scenario {
        name: "publish_to_1000_resumable",
        rounds: 16,
        steps_a_round: 1,
        run: |rounds| publish_resumable(rounds, 1_000),
    },
    // The same in a role of 20 patterns: with a subscription that they cover, and with one that they narrow.
    Scenario { name: "publish_in_a_role", rounds: 2_000, steps_a_round: 1, run: |rounds| in_a_role(rounds, RINGING) },
    Scenario { name: "publish_narrowed", rounds: 2_000, steps_a_round: 1, run: |rounds| in_a_role(rounds, "*/*/*") },
    // From the requester's text to the answer in its outbox.
    Scenario { name: "request_and_reply", rounds: 500, steps_a_round: 1, run: request_and_reply },
    // A session that registers, subscribes and goes.
    Scenario { name: "session", rounds: 300, steps_a_round: 1, run: come_and_go },
    // A message from the bytes of one stream to those of another, through both sessions' tasks: 16 that come together, as
    // at full speed, and one by itself.
    Scenario { name: "pair_16_together", rounds: 100, steps_a_round: 16 * PAIRS, run: |rounds| pairs(rounds, 16) },
    Scenario { name: "pair_1_alone", rounds: 500, steps_a_round: PAIRS, run: |rounds| pairs(rounds, 1) },
];

/// Publishers with a subscriber each.
const PAIRS: u64 = 4;

fn decode_envelope(rounds: u32, bytes: usize) {
    let text = nested::envelope(bytes);
    for _ in 0..rounds {
        assert!(decode(&text, DecodeLimits::client(128)).is_ok());
    }
}

/// The time between two events of one session that lets the flight recorder keep both.
const RECORDED: Duration = Duration::from_millis(20);

fn publish(rounds: u32, receivers: usize) {
    let mut broker = Broker::new();
    let sender = broker.attach("softphone");
    let receivers: Vec<_> = (0..receivers).map(|_| broker.attach("gadget")).collect();
    for receiver in &receivers {
        broker.subscribe(receiver, "Phone/Call/Ringing", Role::Subscriber);
    }
    let text = support::event(["Phone", "Call", "Ringing"], 256);
    let mut batch = Vec::new();
    for _ in 0..rounds {
        broker.now += RECORDED;
        broker.send(&sender, &text);
        for receiver in &receivers {
            drop(support::take(broker.now, receiver, &mut batch));
        }
    }
}

/// A resumable session, and the number of its connection.
fn begin(broker: &Broker, source: &str) -> (Arc<Session>, u64) {
    let reloads = broker.router.reloads();
    let wanted = Wanted { resume: &Resume::Begin, echo: None, keeps_will: true, reloads, lease: None, elsewhere: None };
    let registered = broker.router.register(broker.now, support::registration(source, None), &wanted);
    let Registered { session, attachment, .. } = registered.ok().flatten().unwrap();
    (session, attachment)
}

fn publish_resumable(rounds: u32, receivers: usize) {
    let broker = Broker::new();
    let sender = broker.attach("softphone");
    let receivers: Vec<_> = (0..receivers).map(|_| begin(&broker, "gadget")).collect();
    for (receiver, _) in &receivers {
        broker.subscribe(receiver, RINGING, Role::Subscriber);
    }
    let text = support::event(["Phone", "Call", "Ringing"], 256);
    let mut batch = Vec::new();
    for round in 1..=rounds {
        broker.send(&sender, &text);
        for (receiver, attachment) in &receivers {
            let taker = receiver.outbox().taker(*attachment);
            taker.take(broker.now, usize::MAX, &mut batch);
            batch.pop().unwrap();
            assert!(batch.is_empty(), "one message was sent");
            if round % 8 == 0 {
                assert!(taker.acknowledge(round.into()));
            }
        }
    }
}

const RINGING: &str = "Phone/Call/Ringing";

/// A role of 20 patterns, the last of which allows the event.
fn role() -> Arc<Rights> {
    let channels = ["Desk/*/*", "Salesforce/*/*", "Cisco/*/*", "Genesys/Agent/*", "Genesys/Call/*"];
    let topics =
        ["Agent", "Device", "Queue", "Voicemail", "Presence", "Transfer", "Conference", "Lines", "Park", "Hold"];
    let subtopics = ["Phone/Call/Held", "Phone/Call/Ended", "Phone/Call/Started", "Phone/Call/Missed", RINGING];
    let topics = topics.map(|topic| format!("Phone/{topic}/*"));
    let patterns = channels.into_iter().chain(topics.iter().map(String::as_str)).chain(subtopics);
    let from: Arc<str> = "role 'agent'".into();
    let allow: Rules = patterns.map(|it| Rule { pattern: it.parse().unwrap(), from: Arc::clone(&from) }).collect();
    assert_eq!(allow.len(), 20);
    let right = || Right { allow: allow.clone(), deny: Rules::default(), from: Arc::clone(&from) };
    Arc::new(Rights { publish: right(), subscribe: right(), request: right(), handle: right() })
}

fn in_a_role(rounds: u32, pattern: &str) {
    let mut broker = Broker::new();
    let role = role();
    let sender = broker.attach_as("softphone", Some(Arc::clone(&role)));
    let receiver = broker.attach_as("gadget", Some(role));
    broker.subscribe(&receiver, pattern, Role::Subscriber);
    let text = support::event(["Phone", "Call", "Ringing"], 256);
    let mut batch = Vec::new();
    for _ in 0..rounds {
        broker.now += RECORDED;
        broker.send(&sender, &text);
        drop(support::take(broker.now, &receiver, &mut batch));
    }
}

fn request_and_reply(rounds: u32) {
    let broker = Broker::new();
    let (asker, handler) = (broker.attach("gadget"), broker.attach("crm"));
    broker.subscribe(&handler, "Crm/Contact/Find", Role::Handler { answers: true, ordered: false, replies: vec![] });
    let question = support::event(["Crm", "Contact", "Find"], 256).replace("softphone", "gadget");
    let reply = support::event(["Crm", "Contact", "Find"], 256).replace("softphone", "crm");
    let mut batch = Vec::new();
    for _ in 0..rounds {
        broker.send(&asker, &question);
        let frame = support::take(broker.now, &handler, &mut batch);
        let id = decode(frame.text(), DecodeLimits::OWN).unwrap().id().unwrap().to_owned();
        broker.send(&handler, &reply.replacen('{', &format!(r#"{{"inReplyTo":"{id}","#), 1));
        drop(support::take(broker.now, &asker, &mut batch));
    }
}

const REGISTER: &str = r#"{"channel":"Broker","topic":"Application","subtopic":"Register","source":"SOURCE","data":{"user":"agent@example.com"}}"#;
const SUBSCRIBE: &str = r#"{"channel":"Broker","topic":"Subscription","subtopic":"Subscribe","data":{"channel":"Phone","topic":"TOPIC","subtopic":"Ringing"}}"#;

/// A broker's core, and the time at which everything in it happens.
fn core() -> (Instant, Router, Arc<Settings>) {
    let now = tokio::time::Instant::now().into_std();
    let mut config = Config::default();
    config.limits.rate = 0;
    let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&config), Ids::seeded(1), Vec::new());
    let router = router.with_recorder(support::recorder(now));
    (now, router, Arc::new(Settings::new(config.limits)))
}

fn session(now: Instant, settings: &Arc<Settings>) -> Connection {
    Connection::new(now, Ipv4Addr::LOCALHOST.into(), Arc::clone(settings), 1)
}

fn come_and_go(rounds: u32) {
    let (now, router, settings) = core();
    let mut batch = Vec::new();
    for _ in 0..rounds {
        let mut session = session(now, &settings);
        assert!(matches!(session.handle(now, Input::Text(REGISTER), &router), Some(Effect::Verify(_))));
        let identity = Identity::unproved(
            Principal::User("agent@example.com".into()),
            Permissions { observe: Users::nobody(), ..Permissions::all() },
        );
        assert!(session.handle(now, Input::Verified(Ok(identity)), &router).is_none());
        assert!(session.handle(now, Input::Text(SUBSCRIBE), &router).is_none());
        session.take(now, usize::MAX, &router, &mut batch);
        assert_eq!(batch.len(), 2, "two replies");
        batch.clear();
        assert!(session.handle(now, Input::Gone(Gone::Lost), &router).is_none());
    }
}

fn pairs(rounds: u32, together: usize) {
    let (now, router, settings) = core();
    // A burst ends after some time. Under valgrind, which is much slower, it would end after one or two messages.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let router = Arc::new(router);
    let connect = |texts: &[String]| {
        let (stream, peer) = connection();
        let (session, router) = (session(now, &settings), Arc::clone(&router));
        let task = async move {
            let (admission, shutdown) = (Admission::default(), Shutdown::default());
            let context = Context { router: &router, verifier: &Open, admission: &admission, shutdown: &shutdown };
            serve(Upgraded { stream, read_ahead: Bytes::new() }, session, context).await;
        };
        runtime.spawn(task);
        peer.send(&frames(texts));
        runtime.block_on(settled(&peer));
        peer
    };
    let pairs: Vec<_> = (0..PAIRS)
        .map(|number| {
            let topic = format!("Call{number}");
            let publisher = connect(&[REGISTER.replace("SOURCE", "softphone")]);
            let subscriber = connect(&[REGISTER.replace("SOURCE", "gadget"), SUBSCRIBE.replace("TOPIC", &topic)]);
            let text = support::event(["Phone", &topic, "Ringing"], 256);
            (publisher, subscriber, frames(&vec![text; together]))
        })
        .collect();
    runtime.block_on(async {
        for _ in 0..rounds {
            let before: Vec<usize> = pairs.iter().map(|(_, subscriber, _)| subscriber.taken()).collect();
            for (publisher, _, bytes) in &pairs {
                publisher.send(bytes);
            }
            for ((_, subscriber, bytes), before) in pairs.iter().zip(before) {
                // A frame to a client has no mask.
                while subscriber.taken() - before < bytes.len() - 4 * together {
                    yield_now().await;
                }
            }
        }
    });
}

/// Waits until a connection's task has taken what was sent, and answered.
async fn settled(peer: &Peer) {
    while !peer.has_sent() || peer.taken() == 0 {
        yield_now().await;
    }
}

/// Texts as a client frames them.
fn frames(texts: &[String]) -> Arc<[u8]> {
    texts.iter().flat_map(|text| framing::frame(framing::TEXT, text.as_bytes())).collect()
}
