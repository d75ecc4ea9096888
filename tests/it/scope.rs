//! Whose message it is (protocol.md, Scope): users apart from each other, services among all, observers who only listen.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, application, envelope};

/// Two users with two applications each, a service, an observer.
async fn stage(more: &str) -> Broker {
    let applications = [
        application("alice-phone", Some("alice"), ""),
        application("alice-crm", Some("alice"), ""),
        application("bob-phone", Some("bob"), ""),
        application("bob-crm", Some("bob"), ""),
        application("cti", None, "request = [\"Cisco/Agent/Login\"]\nhandle = [\"Cisco/Agent/*\"]"),
        application("wallboard", Some("supervisor"), "observe = true"),
    ];
    Broker::with_config(&format!("{}\n[channels.Queue]\nscope = \"shared\"\n{more}", applications.concat())).await
}

async fn all(broker: &Broker) -> [Peer; 6] {
    let mut peers = Vec::new();
    for source in ["alice-phone", "alice-crm", "bob-phone", "bob-crm", "cti", "wallboard"] {
        peers.push(broker.app_by_token(source).await);
    }
    peers.try_into().unwrap_or_else(|_| unreachable!())
}

const RING: &str = "Phone/Call/Ring";

#[tokio::test]
async fn two_users_never_hear_each_others_events_and_services_hear_both() {
    let broker = stage("").await;
    let [mut phone, mut crm, mut bob_phone, mut bob_crm, mut cti, mut wallboard] = all(&broker).await;
    for peer in [&mut crm, &mut bob_crm, &mut bob_phone, &mut cti, &mut wallboard] {
        for pattern in ["*/*/*", RING] {
            peer.subscribe(pattern).await;
        }
    }
    phone.send(envelope(RING, json!({"id": "a", "data": "alice's"}))).await;
    assert_eq!(phone.next_receipt("a").await, 2, "her own crm, and the service");
    bob_phone.send(envelope(RING, json!({"id": "b", "data": "bob's"}))).await;
    assert_eq!(bob_phone.next_receipt("b").await, 2);
    assert_eq!(crm.next().await["data"], "alice's");
    assert_eq!(bob_crm.next().await["data"], "bob's");
    for (user, data) in [("alice", "alice's"), ("bob", "bob's")] {
        let event = cti.next().await;
        assert_eq!((&event["user"], &event["data"]), (&user.into(), &data.into()), "{event}");
    }
    for mut peer in [phone, crm, bob_phone, bob_crm, cti, wallboard] {
        peer.expect_nothing().await;
    }
}

#[tokio::test]
async fn a_target_does_not_cross_users() {
    let broker = stage("").await;
    let [mut phone, _, mut bob_phone, ..] = all(&broker).await;
    bob_phone.subscribe("*/*/*").await;
    bob_phone.handle("Phone/Agent/*").await;
    phone.send(envelope(RING, json!({"id": "a", "target": "bob-phone"}))).await;
    assert_eq!(phone.next_receipt("a").await, 0);
    phone.send(envelope("Phone/Agent/State", json!({"id": "r", "target": "bob-phone", "timeout": 500}))).await;
    phone.next_failure("Phone/Agent/State", "NO_HANDLER").await;
    bob_phone.expect_nothing().await;
}

#[tokio::test]
async fn handlers_requests_and_replies_stay_with_their_user() {
    let broker = stage("").await;
    let [mut phone, mut crm, mut bob_phone, mut bob_crm, mut cti, _] = all(&broker).await;
    bob_phone.handle("Phone/Call/*").await;
    bob_crm.subscribe("*/*/*").await;
    // Bob's handler is none for Alice.
    phone.send(envelope("Phone/Call/Dial", json!({"id": "r", "timeout": 500}))).await;
    phone.next_failure("Phone/Call/Dial", "NO_HANDLER").await;
    phone.send(envelope("Phone/Call/Dial", json!({"id": "g", "gather": true}))).await;
    assert_eq!(phone.next_answer("Phone/Call/Dial", "g").await["data"]["Expected"], 0);
    // A user's own handlers come before services.
    cti.handle("Phone/Call/*").await;
    crm.handle("Phone/Call/*").await;
    for _ in 0..3 {
        phone.ask("Phone/Call/Dial", "r").await;
        let request = crm.next_on("Phone/Call/Dial").await;
        assert_eq!((&request["source"], &request["user"]), (&"alice-phone".into(), &"alice".into()));
        for forger in [&mut bob_phone, &mut bob_crm, &mut cti] {
            forger.reply(&request, json!({"data": "forged"})).await;
            forger.next_error("NO_SUCH_REQUEST").await;
        }
        crm.reply(&request, json!({"data": "alice's"})).await;
        assert_eq!(phone.next_answer("Phone/Call/Dial", "r").await["data"], "alice's");
    }
    // The service serves both, and is told who asks.
    crm.kill();
    cti.fence().await;
    bob_phone.kill();
    for (asker, user) in [(&mut phone, "alice"), (&mut bob_crm, "bob")] {
        let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
        // The broker learns of a death a moment later; until then it may still ask the dead.
        let request = loop {
            asker.ask("Phone/Call/Dial", "s").await;
            asker.fence().await;
            if let Some(request) = cti.drain_events().await.pop() {
                break request;
            }
            often.tick().await;
            asker.drain_events().await;
        };
        assert_eq!(request["user"], user);
        cti.reply(&request, json!({"data": user})).await;
        assert_eq!(asker.next_answer("Phone/Call/Dial", "s").await["data"], user);
    }
}

#[tokio::test]
async fn retained_values_are_kept_for_each_user_apart() {
    let broker = stage("").await;
    let [mut phone, mut crm, mut bob_phone, mut bob_crm, mut cti, mut wallboard] = all(&broker).await;
    phone.send(envelope("Phone/Agent/State", json!({"retain": true, "id": "e", "data": "alice's"}))).await;
    phone.next_receipt("e").await;
    for peer in [&mut bob_crm, &mut wallboard] {
        peer.subscribe("*/*/*").await;
        peer.expect_nothing().await;
    }
    bob_phone.send(envelope("Phone/Agent/State", json!({"retain": true, "id": "e", "data": "bob's"}))).await;
    bob_phone.next_receipt("e").await;
    crm.subscribe("*/*/*").await;
    assert_eq!(crm.next().await["data"], "alice's");
    cti.subscribe("Phone/*/*").await;
    let mut heard: Vec<(Value, Value)> = Vec::new();
    for _ in 0..2 {
        let value = cti.next().await;
        assert_eq!(value["retained"], true);
        heard.push((value["user"].clone(), value["data"].clone()));
    }
    heard.sort_by_key(|(user, _)| user.to_string());
    assert_eq!(heard, [("alice".into(), "alice's".into()), ("bob".into(), "bob's".into())]);
    wallboard.expect_nothing().await;
}

#[tokio::test]
async fn presence_shows_ones_own_user_and_services() {
    let broker = stage("").await;
    let mut crm = broker.app_by_token("alice-crm").await;
    let mut cti = broker.app_by_token("cti").await;
    let mut wallboard = broker.app_by_token("wallboard").await;
    crm.subscribe("Broker/Application/*").await;
    cti.subscribe("Broker/Application/*").await;
    let phone = broker.app_by_token("alice-phone").await;
    let bob_phone = broker.app_by_token("bob-phone").await;
    for source in ["alice-phone", "bob-phone"] {
        assert_eq!(cti.next_on("Broker/Application/Joined").await["data"]["Source"], source);
    }
    assert_eq!(crm.next_on("Broker/Application/Joined").await["data"]["Source"], "alice-phone");
    crm.expect_nothing().await;
    let everyone = ["alice-crm", "alice-phone", "bob-phone", "cti", "wallboard"].as_slice();
    let seen =
        [(&mut crm, ["alice-crm", "alice-phone", "cti"].as_slice()), (&mut cti, everyone), (&mut wallboard, everyone)];
    for (peer, expected) in seen {
        let list = peer.command("Application", "List", Value::Null).await;
        let mut sources: Vec<&str> =
            list["data"]["Applications"].as_array().unwrap().iter().map(|it| it["Source"].as_str().unwrap()).collect();
        sources.sort_unstable();
        assert_eq!(sources, expected);
    }
    bob_phone.kill();
    assert_eq!(cti.next_on("Broker/Application/Left").await["data"]["Source"], "bob-phone");
    crm.expect_nothing().await;
    phone.kill();
    assert_eq!(crm.next_on("Broker/Application/Left").await["data"]["Source"], "alice-phone");
}

#[tokio::test]
async fn a_service_says_for_whom() {
    let broker = stage("").await;
    let [mut phone, mut crm, mut bob_phone, _, mut cti, _] = all(&broker).await;
    for peer in [&mut phone, &mut crm, &mut bob_phone] {
        peer.subscribe("*/*/*").await;
    }
    cti.send(envelope(RING, json!({"id": "n"}))).await;
    assert_eq!(cti.next_error("USER_REQUIRED").await["inReplyTo"], "n");
    cti.send(envelope(RING, json!({"id": "a", "user": "alice", "data": 1}))).await;
    assert_eq!(cti.next_receipt("a").await, 2);
    for peer in [&mut phone, &mut crm] {
        let event = peer.next_on(RING).await;
        assert_eq!((&event["source"], &event["data"]), (&"cti".into(), &1.into()));
    }
    bob_phone.expect_nothing().await;
    // It asks a user's application the same way.
    phone.handle("Phone/Call/*").await;
    cti.send(envelope("Phone/Call/Dial", json!({"id": "r", "user": "alice"}))).await;
    let request = phone.next_on("Phone/Call/Dial").await;
    assert_eq!((&request["source"], &request["user"]), (&"cti".into(), &"alice".into()));
    phone.reply(&request, json!({"data": 2})).await;
    assert_eq!(cti.next_answer("Phone/Call/Dial", "r").await["data"], 2);
    cti.send(envelope("Phone/Call/Dial", json!({"id": "r", "user": "nobody", "timeout": 500}))).await;
    cti.next_failure("Phone/Call/Dial", "NO_HANDLER").await;
}

#[tokio::test]
async fn a_users_session_names_only_itself() {
    let broker = stage("").await;
    let [mut phone, mut crm, mut bob_phone, ..] = all(&broker).await;
    crm.subscribe("*/*/*").await;
    bob_phone.subscribe("*/*/*").await;
    for wrong in ["bob", "*", "Alice", "nobody"] {
        phone.send(envelope(RING, json!({"id": "f", "user": wrong}))).await;
        assert_eq!(phone.next_error("FORBIDDEN").await["inReplyTo"], "f");
    }
    phone.send(envelope(RING, json!({"id": "own", "user": "alice"}))).await;
    assert_eq!(phone.next_receipt("own").await, 1);
    crm.next_on(RING).await;
    crm.expect_nothing().await;
    bob_phone.expect_nothing().await;
}

#[tokio::test]
async fn a_shared_channel_is_everyones() {
    let broker = stage("").await;
    let [mut phone, mut crm, _, mut bob_crm, mut cti, _] = all(&broker).await;
    for peer in [&mut crm, &mut bob_crm] {
        peer.subscribe("Queue/*/*").await;
    }
    cti.send(envelope("Queue/Stats/Waiting", json!({"id": "e", "retain": true, "data": 4}))).await;
    assert_eq!(cti.next_receipt("e").await, 2);
    phone.send(envelope("Queue/Stats/Note", json!({"id": "n", "data": 5}))).await;
    assert_eq!(phone.next_receipt("n").await, 2);
    for peer in [&mut crm, &mut bob_crm] {
        assert_eq!(peer.next().await["data"], 4);
        assert_eq!(peer.next().await["data"], 5);
    }
    cti.handle("Queue/Stats/Get").await;
    bob_crm.ask("Queue/Stats/Get", "r").await;
    let request = cti.next_on("Queue/Stats/Get").await;
    cti.reply(&request, json!({})).await;
    bob_crm.next_answer("Queue/Stats/Get", "r").await;
    let mut late = broker.app_by_token("bob-phone").await;
    late.subscribe("Queue/*/*").await;
    assert_eq!(late.next().await["data"], 4, "kept for everyone");
}

#[tokio::test]
async fn an_observer_hears_events_and_nothing_else() {
    let broker = stage("").await;
    let [mut phone, mut crm, mut bob_phone, mut bob_crm, mut cti, mut wallboard] = all(&broker).await;
    wallboard.subscribe_with("*/*/*", json!({"user": "alice"})).await;
    phone.publish(RING, 1).await;
    let event = wallboard.next_on(RING).await;
    assert_eq!((&event["user"], &event["source"]), (&"alice".into(), &"alice-phone".into()));
    bob_phone.publish(RING, 2).await;
    wallboard.expect_nothing_from(&mut bob_phone).await;
    wallboard.subscribe_with("*/*/*", json!({"user": "*"})).await;
    bob_phone.publish(RING, 3).await;
    assert_eq!(wallboard.next_on(RING).await["user"], "bob");
    cti.publish("Queue/Stats/Waiting", 4).await;
    assert_eq!(wallboard.next().await["data"], 4, "events of shared channels too");
    wallboard.expect_nothing().await;
    // Never requests, replies or protected triples.
    crm.handle("Phone/Call/Dial").await;
    cti.handle("Cisco/Agent/Login").await;
    phone.ask("Phone/Call/Dial", "r").await;
    let request = crm.next_on("Phone/Call/Dial").await;
    crm.reply(&request, json!({})).await;
    phone.next_answer("Phone/Call/Dial", "r").await;
    phone.ask("Cisco/Agent/Login", "l").await;
    let request = cti.next_on("Cisco/Agent/Login").await;
    cti.send(envelope("Cisco/Agent/LoginSuccess", json!({"inReplyTo": request["id"]}))).await;
    phone.next_answer("Cisco/Agent/LoginSuccess", "l").await;
    phone.ask("Salesforce/User/FetchCredentials", "f").await;
    phone.next_failure("Salesforce/User/FetchCredentials", "CREDENTIALS_NOT_FOUND").await;
    for peer in [&mut wallboard, &mut bob_crm] {
        peer.expect_nothing().await;
    }
}

#[tokio::test]
async fn only_an_observer_may_look_at_other_users() {
    let broker = stage("").await;
    let [mut phone, _, _, _, _, mut wallboard] = all(&broker).await;
    for user in ["bob", "*"] {
        assert_eq!(phone.subscribe_refused("*/*/*", json!({"user": user})).await, "FORBIDDEN");
    }
    // And an observer only as a listener.
    assert_eq!(wallboard.subscribe_refused(RING, json!({"user": "bob", "role": "handler"})).await, "FORBIDDEN");
    // Without `user` it hears its own user's.
    wallboard.subscribe("*/*/*").await;
    phone.publish(RING, 1).await;
    wallboard.expect_nothing_from(&mut phone).await;
}

#[tokio::test]
async fn only_configured_applications_handle_protected_triples() {
    let broker = stage("").await;
    let [mut phone, mut crm, _, _, mut cti, _] = all(&broker).await;
    for pattern in ["Cisco/Agent/Login", "cisco/agent/LOGIN", "Cisco/Connection/ReInit"] {
        assert_eq!(crm.subscribe_refused(pattern, json!({"role": "handler"})).await, "FORBIDDEN", "{pattern}");
    }
    // A wider pattern is accepted, and protected triples pass it by.
    crm.handle("Cisco/*/*").await;
    crm.handle("Cisco/Agent/*").await;
    phone.ask("Cisco/Agent/Login", "l").await;
    phone.next_failure("Cisco/Agent/Login", "NO_HANDLER").await;
    crm.expect_nothing().await;
    cti.handle("Cisco/Agent/Login").await;
    phone.ask("Cisco/Agent/Login", "m").await;
    let request = cti.next_on("Cisco/Agent/Login").await;
    assert_eq!(request["user"], "alice");
    cti.reply(&request, json!({})).await;
    phone.next_answer("Cisco/Agent/Login", "m").await;
    crm.expect_nothing().await;
}

#[tokio::test]
async fn a_service_asks_protected_triples_only_as_configured() {
    let broker = stage("").await;
    broker.credentials_set("alice", "1245456", "acq@123", "5051").await;
    let [_, _, _, _, mut cti, _] = all(&broker).await;
    let fetch = "Salesforce/User/FetchCredentials";
    cti.send(envelope(fetch, json!({"id": "f", "user": "alice"}))).await;
    let refusal = cti.next_failure(fetch, "FORBIDDEN").await;
    assert_eq!(refusal["data"]["Password"], Value::Null);
    // With a pattern it may, for the users it names.
    let allowed = application("vault", None, "request = [\"*/User/FetchCredentials\"]");
    let broker = Broker::with_config(&allowed).await;
    broker.credentials_set("alice", "1245456", "acq@123", "5051").await;
    let mut vault = broker.app_by_token("vault").await;
    vault.send(envelope(fetch, json!({"id": "f", "user": "alice"}))).await;
    assert_eq!(vault.next_answer(fetch, "f").await["data"]["Password"], "acq@123");
    vault.send(envelope(fetch, json!({"id": "g"}))).await;
    vault.next_failure(fetch, "USER_REQUIRED").await;
}

#[tokio::test]
async fn open_mode_keeps_users_apart_as_well() {
    let broker = Broker::start().await;
    let (mut alice, mut bob, mut nobody) =
        (broker.app_of("app", "alice").await, broker.app_of("app", "bob").await, broker.app("app").await);
    for peer in [&mut bob, &mut nobody] {
        peer.subscribe("*/*/*").await;
        peer.handle("Phone/*/*").await;
    }
    alice.send(envelope(RING, json!({"id": "e"}))).await;
    assert_eq!(alice.next_receipt("e").await, 0);
    let mut local = broker.app_of("other", "local").await;
    local.publish("Sales/A/B", 1).await;
    assert_eq!(nobody.next().await["data"], 1, "who names no user is local");
    bob.expect_nothing().await;
}

#[tokio::test]
async fn an_observer_finds_retained_values_and_a_group_of_services_shares_all_users() {
    let broker = stage("").await;
    let [mut phone, _, mut bob_phone, _, mut cti, mut wallboard] = all(&broker).await;
    let mut cti_too = broker.app_by_token("cti").await;
    for peer in [&mut cti, &mut cti_too] {
        peer.subscribe_with("Phone/*/*", json!({"group": "recorders"})).await;
    }
    for at in 0..6 {
        for (peer, user) in [(&mut phone, "alice"), (&mut bob_phone, "bob")] {
            peer.send(envelope("Phone/Agent/State", json!({"retain": true, "id": "e", "data": [at, user]}))).await;
            assert_eq!(peer.next_receipt("e").await, 1, "one of the group");
        }
    }
    let (one, two) = (cti.drain_events().await, cti_too.drain_events().await);
    assert!(!one.is_empty() && !two.is_empty(), "both have a share: {} and {}", one.len(), two.len());
    assert_eq!(one.len() + two.len(), 12);
    assert!(one.iter().chain(&two).all(|event| event["user"] == event["data"][1]));

    wallboard.subscribe_with("Phone/*/*", json!({"user": "*"})).await;
    let mut users: Vec<Value> = wallboard.drain_events().await.iter().map(|value| value["user"].clone()).collect();
    users.sort_by_key(ToString::to_string);
    assert_eq!(users, ["alice", "bob"]);
}

#[tokio::test]
async fn services_and_configured_applications_of_the_same_user_handle_protected_triples() {
    let applications = [
        application("alice-adapter", Some("alice"), "handle = [\"Cisco/Agent/*\"]"),
        application("alice-gadget", Some("alice"), ""),
        application("bob-gadget", Some("bob"), ""),
        application("cti", None, ""),
    ];
    let broker = Broker::with_config(&applications.concat()).await;
    let (mut adapter, mut cti) = (broker.app_by_token("alice-adapter").await, broker.app_by_token("cti").await);
    let (mut alice, mut bob) = (broker.app_by_token("alice-gadget").await, broker.app_by_token("bob-gadget").await);
    // The wider pattern of a configured application serves the protected triples that it may handle, and no others.
    adapter.handle("Cisco/*/*").await;
    assert_eq!(adapter.subscribe_refused("Cisco/Connection/ReInit", json!({"role": "handler"})).await, "FORBIDDEN");
    alice.ask("Cisco/Agent/Login", "a").await;
    let request = adapter.next_on("Cisco/Agent/Login").await;
    adapter.reply(&request, json!({"data": "in"})).await;
    assert_eq!(alice.next_answer("Cisco/Agent/Login", "a").await["data"], "in");
    alice.ask("Cisco/Connection/ReInit", "b").await;
    alice.next_failure("Cisco/Connection/ReInit", "NO_HANDLER").await;
    bob.ask("Cisco/Agent/Login", "c").await;
    bob.next_failure("Cisco/Agent/Login", "NO_HANDLER").await;
    adapter.expect_nothing().await;
    // A service needs no more than to be one.
    cti.handle("Cisco/Agent/Login").await;
    bob.ask("Cisco/Agent/Login", "d").await;
    let request = cti.next_on("Cisco/Agent/Login").await;
    assert_eq!(request["user"], "bob");
    cti.reply(&request, json!({})).await;
    bob.next_answer("Cisco/Agent/Login", "d").await;
}
