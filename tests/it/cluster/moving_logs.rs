//! Sessions that read channels with history and return to another node, in one thread: no event of a log is lost, doubled or
//! out of order, whatever was under way.

use std::sync::Arc;
use std::task::{Context, Waker};

use serde_json::{Value, json};
use switchboard::connection::Input;
use switchboard::router::{CommitTicket, Session};

use super::logs::{nodes, offsets};
use super::nodes::Nodes;
use crate::support::client::Client;
use crate::support::core::event;

const NODES: usize = 3;
const SEEDS: u64 = 40;
const PHONE: &str = "Phone/Call/Ringing";
const QUEUE: &str = "Queue/Call/Waiting";
const PLAIN: &str = "Plain/Call/Ringing";

/// Subscribes a client to a log, and lets the reply arrive.
pub(super) fn subscribe(nodes: &Nodes, node: usize, client: &mut Client, pattern: &str, recover: &Value) {
    let desk = nodes.desk(node);
    let [channel, topic, subtopic]: [&str; 3] = pattern.split('/').collect::<Vec<_>>().try_into().unwrap();
    let data = json!({"channel": channel, "topic": topic, "subtopic": subtopic, "recover": recover});
    client.command(desk, "Subscription", "Subscribe", &data);
    nodes.settle();
    while client.connection.poll_look(&mut Context::from_waker(Waker::noop())).is_ready() {
        assert!(client.handle(desk, Input::Looked).is_none());
        nodes.settle();
    }
    assert_eq!(client.take(desk, 1)[0]["data"]["Success"], true);
}

/// Chances that are the same for the same seed.
struct Chance(u64);

impl Chance {
    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// An application that moves, and others that publish on every node.
struct Play {
    nodes: Nodes,
    chance: Chance,
    client: Client,
    node: usize,
    /// It has asked another node for its session.
    is_asking: bool,
    moves: u64,
    publishers: Vec<Arc<Session>>,
    waits_for: [Option<CommitTicket>; NODES],
    sent: [u64; NODES],
    received: Vec<Value>,
}

impl Play {
    fn new(seed: u64) -> Self {
        let nodes = nodes(NODES);
        let publishers = (0..NODES).map(|node| nodes.node(node).attach(&format!("p{node}"), Some("alice"))).collect();
        // Another session reads the logs on some nodes.
        for node in 0..usize::try_from(seed % 3).unwrap() {
            let crm = nodes.node(node).attach("crm", Some("alice"));
            for pattern in [PHONE, QUEUE] {
                nodes.subscribe_logged(node, &crm, &super::logs::wanted(pattern, None), || ()).unwrap();
            }
        }
        let mut client = nodes.desk(0).begin("gadget");
        for pattern in [PHONE, QUEUE] {
            subscribe(&nodes, 0, &mut client, pattern, &Value::Null);
        }
        client.command(nodes.desk(0), "Subscription", "Subscribe", &json!({"channel": "Plain"}));
        nodes.settle();
        client.take(nodes.desk(0), 1);
        let chance = Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let (sent, received) = ([0; NODES], Vec::new());
        Self {
            nodes,
            chance,
            client,
            node: 0,
            is_asking: false,
            moves: 0,
            publishers,
            waits_for: Default::default(),
            sent,
            received,
        }
    }

    fn publish(&mut self, node: usize) {
        let is_pending = |ticket: &mut CommitTicket| ticket.poll(&mut Context::from_waker(Waker::noop())).is_pending();
        if self.waits_for[node].as_mut().is_some_and(is_pending) {
            // A publisher is not read before its event is kept.
            return;
        }
        let triple = [PHONE, PHONE, QUEUE, PLAIN][self.chance.below(4)];
        let text = event(triple, &format!(r#","data":{}"#, self.sent[node]));
        self.waits_for[node] =
            self.nodes.node(node).send(&self.publishers[node], &text).unwrap().ticket.map(|ticket| *ticket);
        self.sent[node] += 1;
    }

    /// Lets the client go on. It returns to another node now and then.
    fn use_client(&mut self, may_move: bool) {
        let desk = self.nodes.desk(self.node);
        if self.is_asking {
            if self.client.poll_fetch(desk) {
                let data = self.client.returned(desk);
                assert_eq!(data["Resumed"], true, "move {}: {data}", self.moves);
                self.is_asking = false;
            }
        } else if may_move && self.chance.below(4) == 0 {
            if self.chance.below(2) == 0 {
                self.client.lose(desk);
            }
            self.node = (self.node + 1 + self.chance.below(NODES - 1)) % NODES;
            self.client.return_to(self.nodes.desk(self.node));
            (self.is_asking, self.moves) = (true, self.moves + 1);
        } else {
            self.received.extend(self.client.take(desk, 3));
        }
    }

    fn step(&mut self) {
        let node = self.chance.below(NODES);
        match self.chance.below(12) {
            0..4 => drop(self.nodes.deliver_one(node)),
            4..6 => drop(self.nodes.store_one(node)),
            6..8 => drop(self.nodes.read_one(node)),
            8 => {
                let stored = self.nodes.store_only(node);
                self.nodes.deliver_one((node + 1) % NODES);
                if let Some(stored) = stored {
                    self.nodes.tell_stored(node, stored);
                }
            }
            9 => self.publish(node),
            _ => self.use_client(true),
        }
    }

    /// Lets everything arrive.
    fn end(&mut self) {
        for _ in 0..20 {
            self.nodes.settle();
            (0..NODES).for_each(|node| self.nodes.read_gaps(node));
            self.use_client(false);
        }
        self.nodes.settle();
        self.received.extend(self.client.take(self.nodes.desk(self.node), usize::MAX));
    }
}

fn of(received: &[Value], channel: &str) -> Vec<Value> {
    received.iter().filter(|it| it["channel"] == channel).cloned().collect()
}

#[test]
fn logs_are_complete_and_in_order_however_messages_and_moves_meet() {
    let mut moves = 0;
    for seed in 1..=SEEDS {
        let mut play = Play::new(seed);
        for _ in 0..400 {
            play.step();
        }
        play.end();
        let (phone, queue) = (of(&play.received, "Phone"), of(&play.received, "Queue"));
        let plain = of(&play.received, "Plain");
        for log in [&phone, &queue] {
            assert_eq!(offsets(log), (1..=log.len() as u64).collect::<Vec<_>>(), "seed {seed}: {} moves", play.moves);
        }
        let sent: u64 = play.sent.iter().sum();
        assert_eq!((phone.len() + queue.len() + plain.len()) as u64, sent, "seed {seed}: {} moves", play.moves);
        moves += play.moves;
    }
    assert!(moves > 2 * SEEDS, "{moves} moves");
}

/// Lets a client continue on a node.
fn move_to(nodes: &Nodes, node: usize, client: &mut Client) -> Value {
    client.return_to(nodes.desk(node));
    nodes.settle();
    client.poll_fetch(nodes.desk(node));
    client.returned(nodes.desk(node))
}

#[test]
fn a_session_moves_in_the_middle_of_a_recovery() {
    for (kept, size) in [(30, 30), (30, 7)] {
        let nodes = nodes(NODES);
        let phone = nodes.node(2).attach("phone", Some("alice"));
        let send = |count: usize| (0..count).for_each(|_| nodes.send(2, &phone, &event(PHONE, "")).unwrap());
        // Node 0 has the last ones in memory, and reads the others.
        send(kept - size);
        let crm = nodes.node(0).attach("crm", Some("alice"));
        nodes.subscribe_logged(0, &crm, &super::logs::wanted(PHONE, None), || ()).unwrap();
        nodes.settle();
        send(size);
        let mut client = nodes.desk(0).begin("gadget");
        subscribe(&nodes, 0, &mut client, PHONE, &json!({"last": kept}));
        let mut received = client.take(nodes.desk(0), 4);
        send(3);
        client.lose(nodes.desk(0));
        send(3);
        let data = move_to(&nodes, 1, &mut client);
        assert_eq!(data["Resumed"], true, "{data}");
        nodes.settle();
        send(3);
        received.extend(client.take(nodes.desk(1), usize::MAX));
        assert_eq!(offsets(&received), (1..=kept as u64 + 9).collect::<Vec<_>>());
        assert!(received.iter().take(kept).all(|it| it["replayed"] == true), "{received:?}");
        assert!(received.iter().skip(kept).all(|it| it["replayed"].is_null()), "{received:?}");
    }
}

#[test]
fn a_service_that_reads_the_logs_of_all_users_moves() {
    let nodes = nodes(NODES);
    let users: Vec<_> =
        (0..5).map(|user| nodes.node(user % 2).attach("phone", Some(&format!("user-{user}")))).collect();
    let send = |user: usize| nodes.send(user % 2, &users[user], &event(PHONE, "")).unwrap();
    let mut client = nodes.desk(0).begin_service("gateway");
    client.command(nodes.desk(0), "Subscription", "Subscribe", &json!({"channel": "Phone"}));
    nodes.settle();
    client.take(nodes.desk(0), 1);
    (0..4).for_each(send);
    client.lose(nodes.desk(0));
    (0..4).for_each(send);
    assert_eq!(move_to(&nodes, 2, &mut client)["Resumed"], true);
    (0..5).for_each(send);
    nodes.settle();
    let received = client.take(nodes.desk(2), usize::MAX);
    for (user, events) in [3, 3, 3, 3, 1].into_iter().enumerate() {
        let own: Vec<_> = received.iter().filter(|it| it["user"] == format!("user-{user}")).cloned().collect();
        assert_eq!(offsets(&own), (1..=events).collect::<Vec<_>>(), "of user {user}");
    }
}

#[test]
fn a_session_that_reads_logs_has_one_owner_or_none_if_its_move_is_interrupted() {
    let mut continued = [0, 0];
    // After each number of messages between the nodes, the link breaks.
    for steps in 0..20 {
        let nodes = nodes(2);
        let phone = nodes.node(1).attach("phone", Some("alice"));
        let mut client = nodes.desk(0).begin("gadget");
        subscribe(&nodes, 0, &mut client, PHONE, &Value::Null);
        (0..2).for_each(|_| nodes.send(1, &phone, &event(PHONE, "")).unwrap());
        client.lose(nodes.desk(0));
        client.return_to(nodes.desk(1));
        for step in 0..steps {
            nodes.deliver_one(step % 2);
        }
        nodes.lose(0);
        nodes.settle();
        let token = client.token.clone();
        assert!(client.poll_fetch(nodes.desk(1)), "after {steps} steps");
        let there = client.returned(nodes.desk(1));
        let mut again = nodes.desk(0).begin("gadget");
        (again.token, again.received) = (token, 1);
        again.return_to(nodes.desk(0));
        again.poll_fetch(nodes.desk(0));
        let here = again.returned(nodes.desk(0));
        let (there, here) = (there["Resumed"] == true, here["Resumed"] == true);
        assert!(!(there && here), "after {steps} steps");
        for (node, is_owner, client) in [(0, here, &mut again), (1, there, &mut client)] {
            if is_owner {
                continued[node] += 1;
                nodes.node(1).send(&phone, &event(PHONE, "")).unwrap();
                nodes.store_one(1);
                nodes.find(0);
                assert_eq!(offsets(&client.take(nodes.desk(node), usize::MAX)), [1, 2, 3], "after {steps} steps");
            }
        }
    }
    assert!(continued.iter().all(|times| *times > 0), "{continued:?}");
}
