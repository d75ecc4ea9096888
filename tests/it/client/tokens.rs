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
