//! Tokens from a provider.

use super::*;

/// Returns `token-1`, `token-2` and so on; fails when asked for the `fail`-th time.
fn counting(builder: Builder, fail: usize) -> Builder {
    let asked = Arc::new(AtomicUsize::new(0));
    builder.token_provider(move || {
        let count = asked.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            match count {
                count if count == fail => Err(io::Error::other("the vault is sealed")),
                count => Ok(format!("token-{count}").into()),
            }
        }
    })
}

#[tokio::test]
async fn each_registration_has_a_new_token_from_the_provider() {
    let broker = FakeBroker::start().await;
    let (client, (mut peer, register)) = tokio::join!(counting(builder(&broker), 0).connect(), broker.session());
    let client = client.unwrap();
    assert_eq!(register["data"]["token"], "token-1");
    for (count, code) in [(2, 1001), (3, 4401), (4, 4401)] {
        peer.close(code, "test").await;
        let (again, register) = broker.session().await;
        assert_eq!(register["data"]["token"], format!("token-{count}"), "{code}");
        peer = again;
    }
    drop(client);
}

#[tokio::test]
async fn the_provider_is_asked_before_dialling() {
    let builder = Client::builder("ws://127.0.0.1:1/ws").source("softphone");
    let error = counting(builder, 1).connect().await.unwrap_err();
    assert!(matches!(&error, Error::Token(reason) if reason == "the vault is sealed"), "{error}");
}

#[tokio::test]
async fn a_provider_that_fails_is_asked_again_later() {
    let broker = FakeBroker::start().await;
    let (client, (peer, _)) = tokio::join!(counting(builder(&broker), 2).connect(), broker.session());
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    peer.close(1001, "test").await;
    let failed = |state: &State| matches!(state, State::Disconnected { reason, .. } if reason.contains("sealed"));
    let (_, (_peer, register)) = tokio::join!(expect_state(&mut states, failed), broker.session());
    assert_eq!(register["data"]["token"], "token-3");
}

fn expiring() -> Value {
    event("Broker/Connection/Expiring", json!({ "ExpiresInSeconds": 60 }))
}

#[tokio::test]
async fn an_expiring_session_is_renewed_with_a_new_token() {
    let broker = FakeBroker::start().await;
    let (client, (mut peer, _)) = tokio::join!(counting(builder(&broker), 0).connect(), broker.session());
    let client = client.unwrap();
    peer.say(expiring()).await;
    let renew = peer.expect("Broker/Application/Renew").await;
    assert_eq!((&renew["data"]["token"], &renew["source"]), (&"token-2".into(), &"softphone".into()));
    peer.answer(&renew, json!({ "Success": true, "ErrorMessage": null, "ExpiresInSeconds": 3600 })).await;
    peer.receives_nothing().await;
    assert!(is_connected(&client.state()));
}

/// The provider fails, then the broker cannot verify the token.
#[tokio::test]
async fn a_renewal_that_fails_for_now_is_tried_again() {
    let broker = FakeBroker::start().await;
    let (client, (mut peer, _)) = tokio::join!(counting(builder(&broker), 2).connect(), broker.session());
    let client = client.unwrap();
    peer.say(expiring()).await;
    for (token, code) in [("token-3", "UPSTREAM_UNAVAILABLE"), ("token-4", "RATE_LIMITED")] {
        let renew = peer.expect("Broker/Application/Renew").await;
        assert_eq!(renew["data"]["token"], token);
        peer.answer(&renew, json!({ "Success": false, "ErrorCode": code, "ErrorMessage": "not now" })).await;
    }
    let renew = peer.expect("Broker/Application/Renew").await;
    peer.answer(&renew, json!({ "Success": true, "ErrorMessage": null, "ExpiresInSeconds": null })).await;
    peer.receives_nothing().await;
    assert!(is_connected(&client.state()));
}

#[tokio::test]
async fn a_refused_renewal_is_not_repeated_and_the_next_registration_has_another_token() {
    let broker = FakeBroker::start().await;
    let (client, (mut peer, _)) = tokio::join!(counting(builder(&broker), 0).connect(), broker.session());
    let _client = client.unwrap();
    peer.say(expiring()).await;
    let renew = peer.expect("Broker/Application/Renew").await;
    peer.answer(&renew, json!({ "Success": false, "ErrorCode": "UNAUTHENTICATED", "ErrorMessage": "expired" })).await;
    peer.receives_nothing().await;
    peer.close(4401, "the proof of identity has expired").await;
    let (_peer, register) = broker.session().await;
    assert_eq!(register["data"]["token"], "token-3");
}

#[tokio::test]
async fn a_client_with_a_fixed_token_does_not_renew() {
    let broker = FakeBroker::start().await;
    let connecting = builder(&broker).token("token".into()).connect();
    let (client, (mut peer, _)) = tokio::join!(connecting, broker.session());
    let _client = client.unwrap();
    peer.say(expiring()).await;
    peer.receives_nothing().await;
}

/// A token that somebody may replace: after 4401 it decides whether the client goes on.
#[tokio::test]
async fn a_client_stops_if_a_refused_token_was_not_replaced() {
    let broker = FakeBroker::start().await;
    let token = Arc::new(parking_lot::Mutex::new("old"));
    let read = Arc::clone(&token);
    let connecting = builder(&broker)
        .token_reader(move || {
            let token = *read.lock();
            async move { Ok::<_, io::Error>(token.into()) }
        })
        .connect();
    let (client, (mut peer, register)) = tokio::join!(connecting, broker.session());
    let client = client.unwrap();
    assert_eq!(register["data"]["token"], "old");
    *token.lock() = "new";
    peer.say(expiring()).await;
    let renew = peer.expect("Broker/Application/Renew").await;
    assert_eq!(renew["data"]["token"], "new");
    peer.answer(&renew, json!({ "Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "another user" })).await;
    *token.lock() = "newer";
    peer.close(4401, "the proof of identity has expired").await;
    let (peer, register) = broker.session().await;
    assert_eq!(register["data"]["token"], "newer");
    let mut states = Box::pin(client.states());
    peer.close(4401, "unauthenticated").await;
    let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
    assert!(matches!(state, State::Closed { code: Some(4401), .. }), "{state:?}");
}

/// A refused registration counts as 4401, although its reply arrives before the Close frame.
#[tokio::test]
async fn a_refused_token_is_replaced() {
    let broker = FakeBroker::start().await;
    let (client, (peer, _)) = tokio::join!(counting(builder(&broker), 0).connect(), broker.session());
    let client = client.unwrap();
    drop(peer);
    for code in ["UNAUTHENTICATED", "RATE_LIMITED", "SOURCE_IN_USE"] {
        let mut peer = broker.connection().await;
        let register = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": code, "ErrorMessage": "expired" });
        peer.answer(&register, data).await;
    }
    let (_peer, register) = broker.session().await;
    assert_eq!(register["data"]["token"], "token-5");
    drop(client);
}
