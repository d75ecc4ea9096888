//! When a resumable session acknowledges and asks, and what its lost connection does to time limits and to events.

use super::*;

/// Accepts a connection with a resumable session.
async fn accept_resumable(broker: &mut mpsc::Receiver<DuplexStream>) -> Peer<DuplexStream> {
    let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
    peer.register_with("session", json!({ "Resumed": false, "ResumeToken": "one" })).await;
    peer
}

#[tokio::test(start_paused = true)]
async fn a_message_is_acknowledged_after_five_seconds_and_an_idle_session_is_silent() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let _client = client.unwrap();
    peer.receives_nothing_for(Duration::from_mins(1)).await;
    let start = tokio::time::Instant::now();
    peer.say(event("Phone/Call/Ringing", json!(1))).await;
    peer.receives_nothing_for(Duration::from_secs(4)).await;
    peer.say(event("Phone/Call/Ringing", json!(2))).await;
    assert_eq!(peer.expect("Broker/Connection/Acknowledge").await["data"], json!({ "received": 2 }));
    assert_eq!(start.elapsed().as_secs(), 5);
    peer.receives_nothing_for(Duration::from_mins(1)).await;
}

/// Without that, a client that only publishes would keep everything.
#[tokio::test(start_paused = true)]
async fn the_broker_is_asked_what_it_has_taken_and_an_idle_session_is_silent() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let client = client.unwrap();
    let start = tokio::time::Instant::now();
    client.publish(find(), json!(1)).await.unwrap();
    peer.expect("Crm/Contact/Find").await;
    let ping = peer.expect("Broker/Connection/Ping").await;
    assert_eq!(start.elapsed().as_secs(), 5);
    peer.answer(&ping, json!({ "Success": true, "ErrorMessage": null })).await;
    peer.expect("Broker/Connection/Acknowledge").await;
    peer.receives_nothing_for(Duration::from_mins(1)).await;
    // Or after many messages, but not before the last question is answered.
    let publish = async {
        for number in 0..600 {
            client.publish(find(), json!(number)).await.unwrap();
        }
    };
    let read = async {
        let (mut asked, mut number) = (0, 0);
        while number < 600 {
            match triple(&peer.next().await).as_str() {
                "Broker/Connection/Ping" => asked += 1,
                _ => number += 1,
            }
        }
        asked
    };
    let ((), asked) = tokio::join!(publish, read);
    assert_eq!(asked, 1);
}

/// A Close without a code would end the session.
#[tokio::test(start_paused = true)]
async fn a_connection_is_given_up_with_a_code_that_keeps_the_session() {
    let (builder, mut broker) = dialled(builder(), 0);
    let (client, mut peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let _client = client.unwrap();
    let start = tokio::time::Instant::now();
    tokio::time::sleep_until(start + Duration::from_secs(75)).await;
    assert_eq!(peer.closed().await, Some(4000));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_not_sent_again_when_the_broker_may_have_forgotten_its_id() {
    for (lasts, is_again) in [(30, true), (90, false)] {
        let (builder, mut broker) = dialled(builder(), 0);
        let (client, mut peer) =
            tokio::join!(builder.command_timeout(Duration::from_hours(1)).connect(), accept_resumable(&mut broker));
        let client = client.unwrap();
        let publish = client.publish(find(), json!(1)).receipt().once().into_future();
        let play = async {
            peer.expect("Crm/Contact/Find").await;
            let start = tokio::time::Instant::now();
            for _ in 0..lasts / 10 {
                peer.receives_only_upkeep_for(Duration::from_secs(10)).await;
                peer.ping().await;
            }
            assert!(start.elapsed() >= Duration::from_secs(lasts));
            drop(peer);
            let mut peer = accept_resumable(&mut broker).await;
            if is_again {
                let again = peer.expect("Crm/Contact/Find").await;
                let receipt = json!({ "channel": "Broker", "topic": "Message", "subtopic": "Receipt",
                    "inReplyTo": again["id"], "data": { "Success": true, "Receivers": 1 } });
                peer.say(receipt).await;
            } else {
                peer.receives_nothing().await;
            }
            peer
        };
        let (receipt, _peer) = tokio::join!(publish, play);
        assert!(if is_again { receipt.is_ok() } else { matches!(receipt, Err(Error::OutcomeUnknown)) });
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_receipt_rests_while_there_is_no_connection() {
    let (builder, mut broker) = dialled(builder(), 20);
    let (client, peer) = tokio::join!(builder.connect(), accept_resumable(&mut broker));
    let client = client.unwrap();
    let mut states = Box::pin(client.states());
    drop(peer);
    expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
    let start = tokio::time::Instant::now();
    let play = async {
        let mut peer = accept_resumable(&mut broker).await;
        let event = peer.expect("Crm/Contact/Find").await;
        let receipt = json!({ "channel": "Broker", "topic": "Message", "subtopic": "Receipt",
            "inReplyTo": event["id"], "data": { "Success": true, "Receivers": 1 } });
        peer.say(receipt).await;
        peer
    };
    let (receipt, _peer) = tokio::join!(client.publish(find(), ()).receipt().into_future(), play);
    assert_eq!(receipt.unwrap().receivers, 1);
    assert!(start.elapsed() > Duration::from_secs(10), "{:?}", start.elapsed());
}
