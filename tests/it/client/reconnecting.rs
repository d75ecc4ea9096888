//! What a lost connection leaves, and how the next one is made.

use super::*;

#[tokio::test]
async fn it_registers_and_subscribes_again() {
    let (broker, client, mut peer) = session().await;
    let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
    let serve = client.serve("Crm/*/*".parse().unwrap(), async |_| Ok(json!("served").into()));
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    let mut states = Box::pin(client.states());
    assert!(is_connected(&states.next().await.unwrap()));
    drop(peer);
    let lost = expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    let State::Disconnected { reason, .. } = lost else { unreachable!() };
    assert_eq!(reason, "the connection to the broker was lost");

    let mut peer = broker.connection().await;
    let register = peer.register("session-2").await;
    assert_eq!(register["source"], "softphone");
    let mut granted = [peer.grant().await, peer.grant().await];
    granted.sort_by_key(|data| data["channel"].to_string());
    assert_eq!((&granted[0]["role"], &granted[1]["channel"]), (&json!("handler"), &json!("Phone")));
    let State::Connected(session) = expect_state(&mut states, is_connected).await else { unreachable!() };
    assert_eq!(session.id, "session-2");

    peer.say(event("Phone/Call/Ringing", json!("again"))).await;
    assert_eq!(next(&mut events).await, "again");
    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    assert_eq!(peer.next().await["data"], "served");
}

#[tokio::test]
async fn what_was_dropped_meanwhile_is_not_subscribed_to_again() {
    let (broker, client, mut peer) = session().await;
    let dropped = subscribe(&client, &mut peer, "Phone/*/*").await;
    let mut states = Box::pin(client.states());
    drop(peer);
    expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    drop(dropped);
    let (mut peer, _) = broker.session().await;
    peer.hears_nothing().await;
}

#[tokio::test]
async fn a_subscription_that_is_refused_again_ends_with_the_reason() {
    let (broker, client, mut peer) = session().await;
    let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
    drop(peer);
    let (mut peer, _) = broker.session().await;
    let subscribe = peer.expect("Broker/Subscription/Subscribe").await;
    let data = json!({ "Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "no longer" });
    peer.answer(&subscribe, data).await;
    assert!(events.next().await.is_none());
    assert_eq!(events.error().unwrap().to_string(), "FORBIDDEN: no longer");
    drop(client);
}

#[tokio::test]
async fn a_refused_registration_is_the_end() {
    let (broker, client, peer) = session().await;
    let mut states = Box::pin(client.states());
    drop(peer);
    let mut peer = broker.connection().await;
    let register = peer.next().await;
    let data = json!({ "Success": false, "ErrorCode": "UNAUTHENTICATED", "ErrorMessage": "revoked" });
    peer.answer(&register, data).await;
    let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
    assert_eq!(state, State::Closed { code: None, reason: "UNAUTHENTICATED: revoked".into() });
    assert!(states.next().await.is_none());
}

#[tokio::test]
async fn close_codes_of_a_refusal_are_the_end() {
    for code in [4401, 4403, 4409] {
        let (_broker, client, peer) = session().await;
        let mut states = Box::pin(client.states());
        peer.close(code, "go away").await;
        let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
        assert_eq!(state, State::Closed { code: Some(code), reason: "go away".into() });
    }
}
