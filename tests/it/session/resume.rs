//! Resume over real sockets: a client that returns loses nothing and gets nothing twice.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, within};

/// A client that counts as the protocol says, and resumes by hand.
struct Client {
    name: &'static str,
    peer: Peer,
    token: String,
    received: u64,
}

impl Client {
    async fn register(broker: &Broker, name: &'static str) -> Self {
        let mut peer = broker.raw(name).await;
        let reply = peer.register(name, json!({"resume": true})).await;
        assert_eq!(reply["data"]["Resumed"], false, "{reply}");
        assert_eq!(reply["data"]["GraceSeconds"], 30, "{reply}");
        Self { name, peer, token: token(&reply), received: 0 }
    }

    async fn subscribe(&mut self, pattern: &str) {
        self.peer.subscribe(pattern).await;
        self.received += 1;
    }

    /// The next message of the session.
    async fn next(&mut self) -> Value {
        self.received += 1;
        self.peer.next().await
    }

    /// Returns on another connection. Returns `data` of the reply.
    async fn come_back(&mut self, broker: &Broker) -> Value {
        self.peer = broker.raw(self.name).await;
        let resume = json!({"resume": {"token": self.token, "received": self.received}});
        let reply = self.peer.register(self.name, resume).await;
        self.token = token(&reply);
        reply["data"].clone()
    }
}

fn token(reply: &Value) -> String {
    reply["data"]["ResumeToken"].as_str().unwrap_or_else(|| panic!("a token: {reply}")).to_owned()
}

/// Waits until `Application/List` shows an application in this state.
async fn until_it_is(observer: &mut Peer, source: &str, state: &str) {
    within("a state of an application", async {
        loop {
            let reply = observer.command("Application", "List", json!({})).await;
            let rows = reply["data"]["Applications"].as_array().unwrap();
            if rows.iter().any(|row| row["Source"] == source && row["State"] == state) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_that_lost_its_connection_continues_exactly_once_in_both_directions() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    phone.subscribe("Phone/Note/*").await;
    let mut gadget = Client::register(&broker, "gadget").await;
    gadget.subscribe("Phone/Call/*").await;
    for number in 1..=4 {
        phone.publish("Phone/Call/Ring", number).await;
    }
    for number in 1..=2 {
        assert_eq!(gadget.next().await["data"], number);
    }
    gadget.peer.publish("Phone/Note/New", "first").await;
    assert_eq!(phone.next().await["data"], "first");
    let lost = std::mem::replace(&mut gadget.peer, broker.raw("gadget").await);
    lost.kill();
    until_it_is(&mut phone, "gadget", "away").await;
    for number in 5..=6 {
        phone.publish("Phone/Call/Ring", number).await;
    }
    phone.fence().await;
    let data = gadget.come_back(&broker).await;
    assert_eq!((&data["Resumed"], &data["Received"]), (&true.into(), &2.into()), "{data}");
    assert_eq!(data["Replayed"], 2, "{data}");
    gadget.peer.publish("Phone/Note/New", "second").await;
    assert_eq!(phone.next().await["data"], "second");
    phone.publish("Phone/Call/Ring", 7).await;
    for number in 3..=7 {
        assert_eq!(gadget.next().await["data"], number);
    }
    gadget.peer.expect_nothing().await;
    phone.expect_nothing().await;
}
