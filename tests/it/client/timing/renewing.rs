//! When the client renews its session.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_renewal_without_a_reply_is_tried_again() {
    let (builder, mut broker) = dialled(builder().token_provider(async || Ok::<_, io::Error>("token".into())), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.say(expiring(60)).await;
    let start = tokio::time::Instant::now();
    let first = peer.expect("Broker/Application/Renew").await;
    let second = peer.expect("Broker/Application/Renew").await;
    assert!(first["id"] != second["id"] && start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    // The late answer to the first one is not taken for the answer to the second.
    peer.answer(&first, json!({ "Success": true, "ErrorMessage": null, "ExpiresInSeconds": null })).await;
    peer.expect("Broker/Application/Renew").await;
}

fn expiring(seconds: u64) -> Value {
    event("Broker/Connection/Expiring", json!({ "ExpiresInSeconds": seconds }))
}

/// Accepts a Renew, with a proof that is valid for this long.
async fn accept_renewal(peer: &mut Peer<DuplexStream>, renew: &Value, seconds: u64) {
    peer.answer(renew, json!({ "Success": true, "ErrorMessage": null, "ExpiresInSeconds": seconds })).await;
    if seconds <= 60 {
        peer.say(expiring(seconds)).await;
    }
}

/// Returns a builder that reads a token which the test can replace, and that token.
fn reading() -> (Builder, Arc<parking_lot::Mutex<&'static str>>) {
    let token = Arc::new(parking_lot::Mutex::new("old"));
    let read = Arc::clone(&token);
    let builder = builder().token_reader(move || {
        let token = *read.lock();
        async move { Ok::<_, io::Error>(token.into()) }
    });
    (builder, token)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_expires_soon_is_not_sent_again_at_once() {
    let (builder, mut broker) = dialled(builder().token_provider(async || Ok::<_, io::Error>("cached".into())), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.say(expiring(60)).await;
    let start = tokio::time::Instant::now();
    let mut renewals = 0;
    loop {
        let renew = peer.expect("Broker/Application/Renew").await;
        if start.elapsed() >= Duration::from_mins(1) {
            break;
        }
        renewals += 1;
        // The first at once, the others at least 2 s apart.
        assert!(renewals <= 30, "{renewals} renewals in {:?}", start.elapsed());
        accept_renewal(&mut peer, &renew, 60 - start.elapsed().as_secs()).await;
    }
    // No two are more than 6 s apart.
    assert!(renewals >= 10, "{renewals} renewals in a minute");
}

/// The pause is for a token that did not help, not for the next expiry.
#[tokio::test(start_paused = true)]
async fn each_expiry_is_answered_at_once() {
    let (builder, mut broker) = dialled(builder().token_provider(async || Ok::<_, io::Error>("cached".into())), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    for _ in 0..3 {
        peer.say(expiring(60)).await;
        let start = tokio::time::Instant::now();
        let renew = peer.expect("Broker/Application/Renew").await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        accept_renewal(&mut peer, &renew, 90).await;
        peer.receives_nothing_for(Duration::from_secs(30)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_replaced_late_renews_the_session_before_the_end() {
    let (builder, token) = reading();
    let (builder, mut broker) = dialled(builder, 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.say(expiring(60)).await;
    // Renew with the token of the registration would not help.
    peer.receives_nothing_for(Duration::from_secs(50)).await;
    *token.lock() = "new";
    let start = tokio::time::Instant::now();
    let renew = peer.expect("Broker/Application/Renew").await;
    assert_eq!(renew["data"]["token"], "new");
    assert!(start.elapsed() <= Duration::from_secs(6), "{:?}", start.elapsed());
    accept_renewal(&mut peer, &renew, 3600).await;
    peer.receives_nothing_for(Duration::from_secs(30)).await;
}

/// Such a token gives the session another `auth.session_max`, unless it has an end of its own.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_not_replaced_renews_an_older_session_once() {
    let (builder, token) = reading();
    let (builder, mut broker) = dialled(builder, 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    peer.receives_nothing_for(Duration::from_secs(30)).await;
    peer.say(expiring(60)).await;
    let renew = peer.expect("Broker/Application/Renew").await;
    assert_eq!(renew["data"]["token"], "old");
    accept_renewal(&mut peer, &renew, 60).await;
    peer.receives_nothing_for(Duration::from_secs(40)).await;
    *token.lock() = "new";
    assert_eq!(peer.expect("Broker/Application/Renew").await["data"]["token"], "new");
}

/// If the broker cannot verify a token now, the same one is sent again; if it refuses it, only another one.
#[tokio::test(start_paused = true)]
async fn a_refused_token_renews_the_session_once_it_is_replaced() {
    let (builder, token) = reading();
    let (builder, mut broker) = dialled(builder, 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
    let _client = client.unwrap();
    *token.lock() = "wrong";
    peer.say(expiring(60)).await;
    for code in ["UPSTREAM_UNAVAILABLE", "UNAUTHENTICATED"] {
        let renew = peer.expect("Broker/Application/Renew").await;
        assert_eq!(renew["data"]["token"], "wrong");
        peer.answer(&renew, json!({ "Success": false, "ErrorCode": code, "ErrorMessage": "test" })).await;
    }
    peer.receives_nothing_for(Duration::from_secs(20)).await;
    *token.lock() = "right";
    assert_eq!(peer.expect("Broker/Application/Renew").await["data"]["token"], "right");
}
