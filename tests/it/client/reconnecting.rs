//! What happens after a connection is lost. `tests/it/client/close_codes.rs` plays every close code.

use super::*;

#[tokio::test]
async fn registers_and_subscribes_again() {
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
async fn a_subscription_dropped_meanwhile_is_not_made_again() {
    let (broker, client, mut peer) = session().await;
    let dropped = subscribe(&client, &mut peer, "Phone/*/*").await;
    let mut states = Box::pin(client.states());
    drop(peer);
    expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    drop(dropped);
    let (mut peer, _) = broker.session().await;
    peer.receives_nothing().await;
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
async fn a_refused_registration_ends_the_client() {
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

/// The code of the answer decides, not the Close frame that follows it.
#[tokio::test]
async fn a_refused_registration_is_repeated_if_its_code_is_retryable() {
    for code in ErrorCode::ALL {
        // RATE_LIMITED takes the place of UNAUTHENTICATED, and only a provider has another token.
        let is_final = !code.retryable() || *code == ErrorCode::RateLimited;
        let (broker, client, peer) = session().await;
        let mut states = Box::pin(client.states());
        drop(peer);
        let mut peer = broker.connection().await;
        let register = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": code.as_str(), "ErrorMessage": "not now" });
        peer.answer(&register, data).await;
        peer.close(4403, "").await;
        if is_final {
            let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
            assert_eq!(state, State::Closed { code: None, reason: format!("{}: not now", code.as_str()) });
        } else {
            let _session = broker.session().await;
            expect_state(&mut states, is_connected).await;
        }
    }
}

#[tokio::test]
async fn a_final_close_keeps_its_code_and_its_reason() {
    for (code, reason, expected) in [
        (4403, "not yours", "the broker closed the connection with 4403: not yours"),
        (4409, "", "the broker closed the connection with 4409: another connection resumed the session"),
        (4410, "maintenance", "KICKED: maintenance"),
    ] {
        let (_broker, client, peer) = session().await;
        let mut states = Box::pin(client.states());
        peer.close(code, reason).await;
        let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
        assert!(matches!(state, State::Closed { code: Some(closed), .. } if closed == code), "{state:?}");
        assert_eq!(client.publish(find(), ()).await.unwrap_err().to_string(), expected);
    }
}

/// The application must not send the message again that the broker closed the connection for.
#[tokio::test]
async fn a_request_that_was_pending_at_a_refused_message_fails_with_the_close() {
    for (code, expected) in [(Some(1009), Some(1009)), (Some(4413), None), (None, None)] {
        let (broker, client, mut peer) = session().await;
        let close = async {
            peer.expect("Crm/Contact/Find").await;
            match code {
                Some(code) => peer.close(code, "too large").await,
                None => drop(peer),
            }
        };
        let (outcome, ()) = tokio::join!(client.request(find(), ()).into_future(), close);
        let error = outcome.unwrap_err();
        let is_expected = match expected {
            Some(code) => matches!(error, Error::Closed { code: Some(closed), .. } if closed == code),
            None => matches!(error, Error::OutcomeUnknown),
        };
        assert!(is_expected, "{code:?}: {error:?}");
        let (mut peer, _) = broker.session().await;
        peer.receives_nothing().await;
    }
}

#[tokio::test]
async fn a_subscription_that_was_pending_at_a_refused_message_fails_with_the_close() {
    let (broker, client, mut peer) = session().await;
    let close = async {
        peer.expect("Broker/Subscription/Subscribe").await;
        peer.close(1009, "too large").await;
    };
    let (outcome, ()) = tokio::join!(client.subscribe("Phone/*/*".parse().unwrap()).into_future(), close);
    assert!(matches!(outcome, Err(Error::Closed { code: Some(1009), .. })));
    let (mut peer, _) = broker.session().await;
    peer.receives_nothing().await;
}

/// The registration is the one message that is sent again by itself.
#[tokio::test]
async fn a_registration_that_the_broker_will_not_read_is_not_sent_again() {
    let (broker, client, peer) = session().await;
    let mut states = Box::pin(client.states());
    drop(peer);
    let mut peer = broker.connection().await;
    peer.expect("Broker/Application/Register").await;
    peer.close(1009, "too large").await;
    let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
    assert_eq!(state, State::Closed { code: Some(1009), reason: "too large".into() });
}

/// Its application does not notice that its messages are refused.
#[tokio::test]
async fn the_third_message_within_a_minute_that_closes_the_connection_ends_the_client() {
    let (broker, client, mut peer) = session().await;
    let mut states = Box::pin(client.states());
    for code in [1009, 1002] {
        peer.close(code, "not this one").await;
        (peer, _) = broker.session().await;
    }
    peer.close(1007, "not this one").await;
    let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
    assert_eq!(state, State::Closed { code: Some(1007), reason: "not this one".into() });
    let refused = client.request(find(), ()).await.unwrap_err();
    assert!(matches!(refused, Error::Closed { code: Some(1007), .. }), "{refused:?}");
}
