//! Groups of subscribers: each member gets a share.

use serde_json::json;
use switchboard::config::Config;
use switchboard::router::End;
use wire::command::{Role, Subscribe};

use crate::support::client::Desk;
use crate::support::core::{Core, event};
use crate::support::{Broker, application, envelope};

#[tokio::test]
async fn members_of_a_group_share_the_events_one_each() {
    let broker = Broker::start().await;
    let mut sender = broker.app("sender").await;
    let (mut one, mut two, mut alone) =
        (broker.app("worker").await, broker.app("worker").await, broker.app("alone").await);
    one.subscribe_with("Work/*/*", json!({"group": "workers"})).await;
    two.subscribe_with("Work/*/*", json!({"group": "workers"})).await;
    alone.subscribe("Work/*/*").await;
    for at in 0..10 {
        sender.send(envelope("Work/Item/New", json!({"id": at.to_string(), "data": at}))).await;
        assert_eq!(sender.next_receipt(&at.to_string()).await, 2, "one of the group, and the one alone");
    }
    for at in 0..10 {
        assert_eq!(alone.next().await["data"], at);
    }
    alone.expect_nothing().await;
    let mut heard = Vec::new();
    for peer in [&mut one, &mut two] {
        let mine = peer.drain_events().await;
        assert!(!mine.is_empty(), "both members get a share");
        heard.extend(mine.iter().map(|event| event["data"].as_i64().unwrap()));
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_group_of_services_shares_the_events_of_all_users() {
    let applications = [
        application("alice-phone", Some("alice"), ""),
        application("bob-phone", Some("bob"), ""),
        application("recorder", None, ""),
    ];
    let broker = Broker::with_config(&applications.concat()).await;
    let (mut alice, mut bob) = (broker.app_by_token("alice-phone").await, broker.app_by_token("bob-phone").await);
    let (mut one, mut two) = (broker.app_by_token("recorder").await, broker.app_by_token("recorder").await);
    for peer in [&mut one, &mut two] {
        peer.subscribe_with("Phone/*/*", json!({"group": "recorders"})).await;
    }
    for at in 0..6 {
        for (peer, user) in [(&mut alice, "alice"), (&mut bob, "bob")] {
            peer.send(envelope("Phone/Agent/State", json!({"id": "e", "data": [at, user]}))).await;
            assert_eq!(peer.next_receipt("e").await, 1, "one of the group");
        }
    }
    let (one, two) = (one.drain_events().await, two.drain_events().await);
    assert!(!one.is_empty() && !two.is_empty(), "both have a share: {} and {}", one.len(), two.len());
    assert_eq!(one.len() + two.len(), 12);
    assert!(one.iter().chain(&two).all(|event| event["user"] == event["data"][1]));
}

#[test]
fn every_group_of_a_member_that_is_ending_chooses_another_member() {
    let core = Core::new(&Config::default());
    let sender = core.attach("sender", Some("alice"));
    let [ending, first, second] = [(); 3].map(|()| core.attach("worker", Some("alice")));
    for (member, groups) in [(&ending, &["one", "two"][..]), (&first, &["one"]), (&second, &["two"])] {
        for group in groups {
            let mut wanted = Subscribe::new("Work/*/*".parse().unwrap(), Role::Subscriber);
            wanted.group = Some((*group).to_owned());
            core.subscribe_as(member, &wanted);
        }
    }
    ending.outbox().end(End::Detached);
    core.send(&sender, &event("Work/Item/New", "")).unwrap();
    assert_eq!([&first, &second].map(|member| core.take(member).len()), [1, 1]);
}

#[test]
fn a_member_that_has_a_connection_comes_before_one_that_has_none() {
    let desk = Desk::new(&Config::default());
    let sender = desk.core.attach("sender", Some("alice"));
    let [mut away, mut present] = ["one", "other"].map(|source| {
        let mut client = desk.begin(source);
        let data = json!({"channel": "Work", "topic": "*", "subtopic": "*", "group": "workers"});
        client.command(&desk, "Subscription", "Subscribe", &data);
        client.take(&desk, 1);
        client
    });
    away.lose(&desk);
    let send = |number: usize| {
        let text = event("Work/Item/New", &format!(r#","data":{number}"#));
        assert_eq!(desk.core.send(&sender, &text).unwrap().receipt.unwrap().receivers, 1);
    };
    // Its queue is never the shorter one, and it was served last.
    (0..5).for_each(send);
    assert_eq!(present.payloads(&desk), (0..5).collect::<Vec<_>>());
    present.lose(&desk);
    send(5);
    assert_eq!(
        (away.resume(&desk)["Resumed"].clone(), present.resume(&desk)["Resumed"].clone()),
        (true.into(), true.into())
    );
    assert_eq!(away.payloads(&desk).len() + present.payloads(&desk).len(), 1, "one of two without a connection");
}
