//! Resume over real sockets: a client that returns loses nothing and gets nothing twice.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, application, envelope, token_of, within};

/// A client that counts as the protocol says, and resumes by hand.
struct Client {
    name: &'static str,
    peer: Peer,
    proof: Option<String>,
    token: String,
    received: u64,
}

impl Client {
    async fn register(broker: &Broker, name: &'static str) -> Self {
        Self::register_by(broker, name, None).await
    }

    /// Registers with this proof.
    async fn register_by(broker: &Broker, name: &'static str, proof: Option<String>) -> Self {
        let mut peer = broker.raw(name).await;
        let reply = peer.register(name, json!({"resume": true, "token": proof})).await;
        assert_eq!(reply["data"]["Resumed"], false, "{reply}");
        assert_eq!(reply["data"]["GraceSeconds"], 30, "{reply}");
        Self { name, peer, proof, token: token(&reply), received: 0 }
    }

    /// Its connection is lost. Returns when the broker has noticed.
    async fn lose(&mut self, broker: &Broker, observer: &mut Peer) {
        std::mem::replace(&mut self.peer, broker.raw(self.name).await).kill();
        until_it_is(observer, self.name, "away").await;
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
    async fn resume(&mut self, broker: &Broker) -> Value {
        self.peer = broker.raw(self.name).await;
        let resume = json!({"resume": {"token": self.token, "received": self.received}, "token": self.proof});
        let reply = self.peer.register(self.name, resume).await;
        self.token = token(&reply);
        reply["data"].clone()
    }
}

fn hash_of(token: &str) -> String {
    hex::encode(<sha2::Sha256 as sha2::Digest>::digest(token))
}

fn token(reply: &Value) -> String {
    reply["data"]["ResumeToken"].as_str().unwrap_or_else(|| panic!("a token: {reply}")).to_owned()
}

/// Another proof of the gadget.
const OTHER: &str = "another-token";

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
    gadget.lose(&broker, &mut phone).await;
    for number in 5..=6 {
        phone.publish("Phone/Call/Ring", number).await;
    }
    phone.fence().await;
    let data = gadget.resume(&broker).await;
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

#[tokio::test]
async fn a_page_that_closes_its_connection_without_a_code_leaves() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    phone.subscribe("Broker/Application/Left").await;
    let gadget = Client::register(&broker, "gadget").await;
    gadget.peer.close().await;
    assert_eq!(phone.next_on("Broker/Application/Left").await["data"]["Source"], "gadget");
}

#[tokio::test]
async fn what_is_sent_after_register_without_waiting_belongs_to_the_session() {
    let broker = Broker::start().await;
    let mut phone = broker.app("phone").await;
    phone.subscribe("Phone/Note/*").await;
    let mut gadget = Client::register(&broker, "gadget").await;
    let resume = json!({"token": gadget.token, "received": 0});
    let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "gadget",
        "data": {"resume": resume}});
    let mut next = broker.raw("next").await;
    let notes = (1..=3).map(|number| envelope("Phone/Note/New", json!({"data": number})));
    next.send_all(std::iter::once(register).chain(notes)).await;
    assert_eq!(next.next().await["data"]["Resumed"], true);
    for number in 1..=3 {
        assert_eq!(phone.next().await["data"], number);
    }
    let (before, code) = gadget.peer.until_closed().await;
    assert_eq!((before[0]["subtopic"].as_str(), code), (Some("Replaced"), 4409));
    gadget.peer = next;
}

#[tokio::test]
async fn rights_that_are_taken_away_meanwhile_are_gone() {
    let rows = |rights: &str| {
        let own = format!("permissions = {{ publish = [\"*/*/*\"], subscribe = {rights}, request = [], handle = [] }}");
        [application("gadget", Some("alice"), &own), application("phone", Some("alice"), "")].concat()
    };
    let broker = Broker::with_config(&rows("[\"*/*/*\"]")).await;
    let mut phone = broker.app_by_token("phone").await;
    let mut gadget = Client::register_by(&broker, "gadget", Some(token_of("gadget"))).await;
    gadget.subscribe("Phone/*/*").await;
    gadget.lose(&broker, &mut phone).await;
    phone.publish("Phone/Call/Ring", "allowed").await;
    phone.publish("Phone/Salary/New", "forbidden later").await;
    phone.fence().await;
    broker.configure(&rows("[\"Phone/Call/*\"]"));
    assert!(broker.reload().await.contains("rights=1"));
    phone.publish("Phone/Salary/New", "forbidden").await;
    phone.publish("Phone/Call/Ring", "allowed, too").await;
    phone.fence().await;
    let data = gadget.resume(&broker).await;
    assert_eq!((&data["Resumed"], &data["Replayed"]), (&true.into(), &0.into()), "{data}");
    assert_eq!(gadget.next().await["data"], "allowed");
    let notice = gadget.next().await;
    assert_eq!((&notice["subtopic"], &notice["data"]["Reason"]), (&"Ended".into(), &"RELOADED".into()), "{notice}");
    assert_eq!(gadget.next().await["data"], "allowed, too");
    gadget.peer.expect_nothing().await;
}

#[tokio::test]
async fn a_proof_that_is_removed_meanwhile_ends_the_session() {
    let phones = application("phone", Some("alice"), "");
    let broker = Broker::with_config(&format!("{}{phones}", application("gadget", Some("alice"), ""))).await;
    let mut phone = broker.app_by_token("phone").await;
    phone.subscribe("Broker/Application/Left").await;
    let mut gadget = Client::register_by(&broker, "gadget", Some(token_of("gadget"))).await;
    gadget.lose(&broker, &mut phone).await;
    broker.configure(&phones);
    assert!(broker.reload().await.contains("ended=1"));
    assert_eq!(phone.next_on("Broker/Application/Left").await["data"]["Source"], "gadget");
}

#[tokio::test]
async fn other_permissions_begin_another_session() {
    let rows = |more: &str| application("gadget", Some("alice"), more);
    let broker = Broker::with_config(&rows("")).await;
    let mut gadget = Client::register_by(&broker, "gadget", Some(token_of("gadget"))).await;
    gadget.subscribe("Phone/*/*").await;
    // Another row proves the same user and source, with fewer rights.
    let other = application("gadget", Some("alice"), "handle = [\"*/Agent/Login\"]");
    let other =
        other.replace(other.split("token_sha256 = \"").nth(1).unwrap().split('"').next().unwrap(), &hash_of(OTHER));
    broker.configure(&format!("{}{other}", rows("")));
    broker.reload().await;
    gadget.proof = Some(OTHER.to_owned());
    let data = gadget.resume(&broker).await;
    assert_eq!(data["ResumeReason"], "IDENTITY", "{data}");
}

#[tokio::test]
async fn a_drain_waits_for_no_session_that_is_away() {
    let mut broker = Broker::open_with("[limits]\ndrain = \"60s\"").await;
    let (mut phone, mut crm) = (broker.app("phone").await, Client::register(&broker, "crm").await);
    crm.peer.handle("Crm/Contact/Find").await;
    let mut asker = Client::register(&broker, "asker").await;
    for peer in [&mut phone, &mut asker.peer] {
        peer.ask("Crm/Contact/Find", "r").await;
        crm.peer.next_on("Crm/Contact/Find").await;
    }
    crm.lose(&broker, &mut phone).await;
    asker.lose(&broker, &mut phone).await;
    broker.terminate().await;
    phone.next_on("Broker/Connection/Draining").await;
    phone.next_failure("Crm/Contact/Find", "REQUEST_CANCELLED").await;
    assert_eq!(phone.closed().await, 1012);
    assert_eq!(within("the broker's end", broker.exit_code()).await, Some(0));
}

#[tokio::test]
async fn no_resume_token_is_in_the_log() {
    let broker = Broker::launch(None, &["--log", "trace"]).await;
    let mut phone = broker.app("phone").await;
    let mut gadget = Client::register(&broker, "gadget").await;
    let first = gadget.token.clone();
    gadget.lose(&broker, &mut phone).await;
    gadget.resume(&broker).await;
    let second = gadget.token.clone();
    gadget.resume(&broker).await;
    for words in ["away", "resumed", "replaced by another connection"] {
        broker.log_until(words, |log| log.contains(words)).await;
    }
    let log = broker.log();
    for token in [first, second, gadget.token] {
        assert!(!log.contains(&token) && !log.contains(&token[..20]), "a token is in the log");
    }
}
