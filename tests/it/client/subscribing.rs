//! Receiving events.

use super::*;
use crate::support::{Broker, within};

#[tokio::test]
async fn an_event_reaches_every_matching_subscription_once() {
    let (_broker, client, mut peer) = session().await;
    let mut all = subscribe(&client, &mut peer, "*/*/*").await;
    let mut finds = subscribe(&client, &mut peer, "Crm/*/Find").await;
    let mut other = subscribe(&client, &mut peer, "Phone/*/*").await;
    peer.say(event("Crm/Contact/Find", json!(1))).await;
    peer.say(event("Phone/Call/Ringing", json!(2))).await;
    assert_eq!([next(&mut all).await, next(&mut all).await], [1, 2]);
    assert_eq!(next(&mut finds).await, 1);
    assert_eq!(next(&mut other).await, 2);
}

#[tokio::test]
async fn options_reach_the_broker() {
    let (_broker, client, mut peer) = session().await;
    let pattern = || "Phone/*/*".parse().unwrap();
    let subscribing = client.subscribe(pattern()).group("pool").observe("*");
    let (subscription, data) = tokio::join!(subscribing.into_future(), peer.grant());
    subscription.unwrap();
    assert_eq!(
        data,
        json!({ "channel": "Phone", "topic": "*", "subtopic": "*", "group": "pool", "user": "*",
        "retained": true })
    );
}

#[tokio::test]
async fn a_refused_subscription_is_an_error() {
    let (_broker, client, mut peer) = session().await;
    let refuse = async {
        let subscribe = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "not yours" });
        peer.answer(&subscribe, data).await;
    };
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap());
    let (subscription, ()) = tokio::join!(subscribing.into_future(), refuse);
    assert_eq!(subscription.unwrap_err().code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn the_last_of_equal_subscriptions_unsubscribes() {
    let (_broker, client, mut peer) = session().await;
    let first = subscribe(&client, &mut peer, "Phone/*/*").await;
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap());
    let (second, _) = tokio::join!(subscribing.into_future(), peer.grant_as("1"));
    let mut second = second.unwrap();
    drop(first);
    peer.receives_nothing().await;
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    assert_eq!(next(&mut second).await, 1);
    drop(second);
    let unsubscribe = peer.expect("Broker/Subscription/Unsubscribe").await;
    assert_eq!(unsubscribe["data"], json!({ "SubscriptionId": "1" }));
}

/// Subscribes to patterns, which the broker takes for one, as in a channel with `fold_case`.
async fn subscribe_as_one(client: &Client, peer: &mut Peer<TcpStream>, patterns: [&str; 2]) -> [Subscription; 2] {
    let mut subscriptions = Vec::new();
    for pattern in patterns {
        let subscribing = client.subscribe(pattern.parse().unwrap());
        let (subscription, _) = tokio::join!(subscribing.into_future(), peer.grant_as("one"));
        subscriptions.push(subscription.unwrap());
    }
    subscriptions.try_into().unwrap()
}

#[tokio::test]
async fn an_event_reaches_all_patterns_of_one_subscription_id() {
    let (_broker, client, mut peer) = session().await;
    let mut all = subscribe(&client, &mut peer, "Phone/*/*").await;
    let mut both = subscribe_as_one(&client, &mut peer, ["Phone/Call/Ringing", "Phone/call/RINGING"]).await;
    for (number, written) in ["Phone/Call/Ringing", "Phone/call/RINGING", "Phone/CALL/ringing"].into_iter().enumerate()
    {
        peer.say(event(written, json!(number))).await;
        for subscription in both.iter_mut().chain([&mut all]) {
            assert_eq!(next(subscription).await, number, "{written}");
        }
    }
}

#[tokio::test]
async fn the_last_pattern_of_one_subscription_id_unsubscribes() {
    let (_broker, client, mut peer) = session().await;
    let [first, mut second] = subscribe_as_one(&client, &mut peer, ["Phone/Call/Ringing", "Phone/call/RINGING"]).await;
    drop(first);
    peer.receives_nothing().await;
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    assert_eq!(next(&mut second).await, 1);
    drop(second);
    let unsubscribe = peer.expect("Broker/Subscription/Unsubscribe").await;
    assert_eq!(unsubscribe["data"], json!({ "SubscriptionId": "one" }));
    peer.receives_nothing().await;
}

/// The broker can give a new pattern the id of one that is dropped at this moment.
#[tokio::test]
async fn a_dropped_subscription_ends_only_when_no_reply_is_due() {
    let (_broker, client, mut peer) = session().await;
    let dropped = subscribe(&client, &mut peer, "Phone/Call/Ringing").await;
    let subscribing = client.subscribe("Phone/call/RINGING".parse().unwrap());
    let grant = async {
        let subscribe = peer.expect("Broker/Subscription/Subscribe").await;
        drop(dropped);
        peer.receives_nothing().await;
        peer.answer(&subscribe, json!({ "Success": true, "ErrorMessage": null, "SubscriptionId": "1" })).await;
        peer.receives_nothing().await;
    };
    let (mut second, ()) = tokio::join!(subscribing.into_future(), grant);
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    assert_eq!(next(second.as_mut().unwrap()).await, 1);
    drop(second);
    assert_eq!(peer.next().await["data"], json!({ "SubscriptionId": "1" }));
}

#[tokio::test]
async fn a_subscription_that_is_given_up_before_the_reply_is_ended_after_it() {
    let (_broker, client, mut peer) = session().await;
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).into_future();
    let subscribe = tokio::select! {
        _ = subscribing => panic!("there was no reply"),
        subscribe = peer.expect("Broker/Subscription/Subscribe") => subscribe,
    };
    peer.receives_nothing().await;
    peer.answer(&subscribe, json!({ "Success": true, "ErrorMessage": null, "SubscriptionId": "1" })).await;
    assert_eq!(peer.expect("Broker/Subscription/Unsubscribe").await["data"], json!({ "SubscriptionId": "1" }));
    drop(client);
}

#[tokio::test]
async fn each_subscription_gets_the_retained_values_once() {
    let broker = Broker::open_with("[channels.Phone]\nfold_case = true").await;
    let client = Client::builder(format!("ws://{}/ws", broker.address())).source("gadget").connect().await.unwrap();
    let state = || Triple::new("Phone", "Agent", "State");
    client.publish(state(), json!("kept")).retain().receipt().await.unwrap();
    let mut subscriptions = Vec::new();
    for pattern in ["Phone/Agent/State", "Phone/Agent/State", "Phone/agent/STATE"] {
        let mut subscription = client.subscribe(pattern.parse().unwrap()).await.unwrap();
        assert_eq!(next(&mut subscription).await, "kept", "{pattern}");
        subscriptions.push(subscription);
    }
    let phone = Client::builder(format!("ws://{}/ws", broker.address())).source("softphone").connect().await.unwrap();
    phone.publish(state(), json!("live")).await.unwrap();
    for subscription in &mut subscriptions {
        assert_eq!(next(subscription).await, "live");
    }
}

#[tokio::test]
async fn spelling_variants_share_a_subscription_of_a_real_broker() {
    let broker = Broker::open_with("[channels.Phone]\nfold_case = true").await;
    let client = Client::builder(format!("ws://{}/ws", broker.address())).source("gadget").connect().await.unwrap();
    let first = client.subscribe("Phone/Call/Ringing".parse().unwrap()).await.unwrap();
    let mut second = client.subscribe("Phone/call/RINGING".parse().unwrap()).await.unwrap();
    let phone = Client::builder(format!("ws://{}/ws", broker.address())).source("softphone").connect().await.unwrap();
    let ring = || phone.publish(Triple::new("Phone", "Call", "Ringing"), json!(1)).receipt();
    drop(first);
    assert_eq!(ring().await.unwrap().receivers, 1);
    assert_eq!(next(&mut second).await, 1);
    drop(second);
    let unsubscribed = async { while ring().await.unwrap().receivers > 0 {} };
    within("the end of the subscription", unsubscribed).await;
}

#[tokio::test]
async fn retained_values_go_to_the_new_subscription_only() {
    let (_broker, client, mut peer) = session().await;
    let mut old = subscribe(&client, &mut peer, "Phone/*/*").await;
    let mut new = subscribe(&client, &mut peer, "Phone/Agent/*").await;
    let mut kept = event("Phone/Agent/State", json!("kept"));
    kept["retained"] = true.into();
    peer.say(kept).await;
    peer.say(event("Phone/Agent/State", json!("live"))).await;
    assert_eq!(next(&mut new).await, "kept");
    assert_eq!(next(&mut new).await, "live");
    assert_eq!(next(&mut old).await, "live");
}

#[tokio::test]
async fn each_observed_user_has_its_own_subscription() {
    let (_broker, client, mut peer) = session().await;
    let observe = async |peer: &mut Peer<TcpStream>, user| {
        let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).observe(user);
        tokio::join!(subscribing.into_future(), peer.grant()).0.unwrap()
    };
    let mut alice = observe(&mut peer, "alice").await;
    let mut bob = observe(&mut peer, "bob").await;
    for user in ["bob", "alice"] {
        let mut event = event("Phone/Call/Ringing", json!(user));
        event["user"] = user.into();
        peer.say(event).await;
    }
    assert_eq!(next(&mut alice).await, "alice");
    assert_eq!(next(&mut bob).await, "bob");
}

#[tokio::test]
async fn a_channel_that_folds_case_is_received() {
    let (_broker, client, mut peer) = session().await;
    let mut subscription = subscribe(&client, &mut peer, "Queue/stats/*").await;
    peer.say(event("Queue/Stats/Waiting", json!(3))).await;
    assert_eq!(next(&mut subscription).await, 3);
}

/// Drops one of two subscriptions whose patterns differ in case. Returns the Unsubscribe, which is not answered, and the
/// other subscription.
async fn dropped_and_other(client: &Client, peer: &mut Peer<TcpStream>) -> (Value, Subscription) {
    let dropped = subscribe(client, peer, "Phone/Call/*").await;
    let other = subscribe(client, peer, "Phone/call/*").await;
    drop(dropped);
    (peer.expect("Broker/Subscription/Unsubscribe").await, other)
}

/// Subscribes again to the dropped pattern, and checks that each of the two gets only events in its own spelling.
async fn case_counts(client: &Client, peer: &mut Peer<TcpStream>, other: &mut Subscription) {
    let mut again = subscribe(client, peer, "Phone/Call/*").await;
    for (written, number) in [("Phone/Call/Ringing", 1), ("Phone/call/Ringing", 2)] {
        peer.say(event(written, json!(number))).await;
    }
    assert_eq!(next(&mut again).await, 1);
    assert_eq!(next(other).await, 2);
}

/// The broker sends events until it has handled Unsubscribe.
#[tokio::test]
async fn an_event_of_a_dropped_subscription_is_not_for_another_spelling() {
    let (_broker, client, mut peer) = session().await;
    let (unsubscribe, mut other) = dropped_and_other(&client, &mut peer).await;
    peer.say(event("Phone/Call/Ringing", json!("dropped"))).await;
    peer.answer(&unsubscribe, json!({ "Success": true, "ErrorMessage": null })).await;
    peer.say(event("Phone/call/Ringing", json!(0))).await;
    assert_eq!(next(&mut other).await, 0);
    case_counts(&client, &mut peer, &mut other).await;
}

/// A publisher that began before Unsubscribe can send its event after the reply.
#[tokio::test]
async fn a_late_event_of_a_dropped_subscription_does_not_change_the_case_rule() {
    let (_broker, client, mut peer) = session().await;
    let (unsubscribe, mut other) = dropped_and_other(&client, &mut peer).await;
    peer.answer(&unsubscribe, json!({ "Success": true, "ErrorMessage": null })).await;
    peer.say(event("Phone/Call/Ringing", json!("late"))).await;
    // It looks like an event of a channel that folds case.
    assert_eq!(next(&mut other).await, "late");
    case_counts(&client, &mut peer, &mut other).await;
}

/// An event that matches no pattern as it is written shows that the channel folds case.
#[tokio::test]
async fn one_event_shows_that_a_channel_folds_case() {
    let (_broker, client, mut peer) = session().await;
    let mut wide = subscribe(&client, &mut peer, "Queue/Stats/*").await;
    let mut narrow = subscribe(&client, &mut peer, "Queue/stats/WAITING").await;
    for (written, number) in [("Queue/STATS/Waiting", 1), ("Queue/Stats/Waiting", 2)] {
        peer.say(event(written, json!(number))).await;
        assert_eq!([next(&mut wide).await, next(&mut narrow).await], [number, number], "{written}");
    }
}

#[tokio::test]
async fn a_busy_consumer_can_make_requests() {
    let (_broker, client, mut peer) = session().await;
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).queue(2);
    let (subscription, _) = tokio::join!(subscribing.into_future(), peer.grant());
    let mut subscription = subscription.unwrap();
    for number in 0..50 {
        peer.say(event("Phone/Call/Ringing", json!(number))).await;
    }
    // The answer is behind more events than the queue takes.
    let give = async {
        let request = peer.next().await;
        peer.answer(&request, json!("found")).await;
    };
    let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), give);
    assert_eq!(reply.unwrap().payload(), Some("\"found\""));
    for number in 0..50 {
        assert_eq!(next(&mut subscription).await, number);
    }
}

#[tokio::test]
async fn a_slow_consumer_pauses_reading() {
    let (_broker, client, mut peer) = session().await;
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).queue(1);
    let (subscription, _) = tokio::join!(subscribing.into_future(), peer.grant());
    let mut subscription = subscription.unwrap();
    let data = json!("x".repeat(100_000));
    let flood = async {
        for _ in 0..1000 {
            peer.say(event("Phone/Call/Ringing", data.clone())).await;
        }
    };
    let blocked = timeout(Duration::from_millis(300), flood).await;
    assert!(blocked.is_err(), "100 MB went somewhere");
    assert_eq!(next(&mut subscription).await, data);
}

#[tokio::test]
async fn the_stream_ends_with_the_client() {
    let (_broker, client, mut peer) = session().await;
    let subscription = subscribe(&client, &mut peer, "Phone/*/*").await;
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    let mut taken = subscription.take(2);
    assert!(StreamExt::next(&mut taken).await.is_some());
    drop(peer);
    client.close().await;
    assert!(StreamExt::next(&mut taken).await.is_none());
}

/// The client reads with the same decoder as the broker.
#[tokio::test]
async fn a_message_shows_the_fields_of_its_envelope() {
    let (_broker, client, mut peer) = session().await;
    let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
    // Not an envelope, because a key is there twice: it is skipped.
    peer.say_text(r#"{"channel":"Phone","topic":"Call","subtopic":"Ringing","source":"a","source":"b"}"#).await;
    let text = r#"{ "channel":"Phone", "topic":"Call", "subtopic":"\u0052inging", "source":"crm", "user":"alice",
        "id":"e1", "retained":true, "requestId":null, "data": { "source": "inner", "n": 1.0e0 }, "extra": [1] }"#;
    peer.say_text(text).await;
    let message = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
    assert_eq!((message.text(), message.triple().to_string().as_str()), (text, "Phone/Call/Ringing"));
    assert_eq!((message.source(), message.user(), message.id()), (Some("crm"), Some("alice"), Some("e1")));
    assert_eq!((message.in_reply_to(), message.request_id(), message.timeout()), (None, None, None));
    assert!(message.retained() && !message.more());
    assert_eq!(message.payload(), Some(r#"{ "source": "inner", "n": 1.0e0 }"#));
}
