//! Receiving events.

use super::*;

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
    assert_eq!(data, json!({ "channel": "Phone", "topic": "*", "subtopic": "*", "group": "pool", "user": "*" }));
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
    let mut second = subscribe(&client, &mut peer, "Phone/*/*").await;
    drop(first);
    peer.receives_nothing().await;
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    assert_eq!(next(&mut second).await, 1);
    drop(second);
    let unsubscribe = peer.expect("Broker/Subscription/Unsubscribe").await;
    let data = json!({ "channel": "Phone", "topic": "*", "subtopic": "*", "role": "subscriber" });
    assert_eq!(unsubscribe["data"], data);
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
