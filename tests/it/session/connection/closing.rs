//! How a connection ends, and with which code.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use switchboard::auth::Open;
use switchboard::config::Limits;
use switchboard::connection::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};

use crate::support::framing::header_of;

use super::{Broker, CLOSE, PING, PONG, TEXT, command, event, frame, limits, text};

#[tokio::test(start_paused = true)]
async fn a_message_may_be_larger_after_registration() {
    let broker = Broker::new(limits());
    let mut early = broker.connect(1 << 16);
    early.send(&header_of((16 << 10) + 1)).await;
    assert_eq!(early.closed().await, 1009);
    let mut listener = broker.app("listener", 1 << 22).await;
    listener.subscribe().await;
    let mut app = broker.app("app", 1 << 22).await;
    app.say(&event(1, 1_000_000)).await;
    assert_eq!(listener.next().await["data"]["n"], 1);
    app.send(&header_of((1 << 20) + 1)).await;
    assert_eq!(app.closed().await, 1009);
}

#[tokio::test(start_paused = true)]
async fn faults_are_closed_with_their_code_after_what_was_answered() {
    for (fault, code) in [
        (vec![TEXT, 1, b'a'], 1002),
        (frame(0x83, b""), 1002),
        (frame(TEXT, b"\xFF"), 1007),
        (header_of((1 << 20) + 1), 1009),
    ] {
        let broker = Broker::new(limits());
        let mut app = broker.app("app", 1 << 16).await;
        let mut bytes = text(&command("Connection", "Ping", &json!({})));
        bytes.extend(fault);
        // What comes after a fault means nothing, but is read anyway.
        bytes.extend([b'?'; 10_000]);
        app.send(&bytes).await;
        assert_eq!(app.next().await["data"]["Success"], true);
        assert_eq!(app.closed().await, code);
        app.end_of_stream().await;
        app.send(&vec![0; 100_000]).await;
        drop(app.stream);
        app.task.unwrap().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_stops_sending_is_not_read_for_ever() {
    let broker = Broker::new(limits());
    let mut app = broker.connect(1 << 16);
    app.send(&[TEXT, 1, b'a']).await;
    assert_eq!(app.closed().await, 1002);
    let start = Instant::now();
    while app.stream.write_all(&[0; 1000]).await.is_ok() {}
    app.ended().await;
    assert!(start.elapsed() <= Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_is_answered_with_its_code() {
    let broker = Broker::new(limits());
    for (sent, expected) in [(&b"\x03\xE8bye"[..], &b"\x03\xE8"[..]), (b"", b""), (b"\x0F\xA0", b"\x0F\xA0")] {
        let mut app = broker.app("app", 1 << 16).await;
        app.send(&frame(CLOSE, sent)).await;
        assert_eq!(app.frame().await, (CLOSE, expected.to_vec()));
        app.end_of_stream().await;
        app.ended().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_register_in_time_is_closed() {
    let start = Instant::now();
    let mut silent = Broker::new(limits()).connect(1000);
    assert_eq!(silent.closed().await, 4406);
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_and_their_absence_is_noticed() {
    let broker = Broker::new(limits());
    let mut app = broker.app("app", 1 << 16).await;
    app.send(&frame(PING, b"are you there")).await;
    assert_eq!(app.frame().await, (PONG, b"are you there".to_vec()));
    for _ in 0..5 {
        assert_eq!(app.frame().await, (PING, Vec::new()));
        app.send(&frame(PONG, b"")).await;
    }
    let last_pong = Instant::now();
    assert_eq!(app.closed().await, 4408, "no pong any more");
    // Two pings were missed when the third one after the pong is due.
    assert!((65..=75).contains(&last_pong.elapsed().as_secs()), "{:?}", last_pong.elapsed());
}

/// Unanswered pings count from registration on, whatever `limits.registration` is.
#[tokio::test(start_paused = true)]
async fn a_session_that_answers_nothing_is_closed_when_the_third_ping_is_due() {
    for (heartbeat, missed_pings, most) in [(25, 2, 75), (1, 2, 3), (1, 1, 2), (4, 3, 16)] {
        let heartbeat = Duration::from_secs(heartbeat);
        let broker = Broker::new(Limits { heartbeat, missed_pings, ..limits() });
        let mut app = broker.app("app", 1 << 16).await;
        let registered = Instant::now();
        assert_eq!(app.closed().await, 4408);
        let (most, least) = (Duration::from_secs(most), Duration::from_secs(most) * 8 / 10);
        assert!((least..=most).contains(&registered.elapsed()), "{heartbeat:?}: {:?}", registered.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn malformed_messages_in_a_row_are_closed_with_1008() {
    let mut app = Broker::new(limits()).app("app", 1 << 16).await;
    for _ in 0..10 {
        app.send(&frame(TEXT, b"{")).await;
    }
    for _ in 0..10 {
        assert_eq!(app.next().await["data"]["ErrorCode"], "INVALID_JSON");
    }
    assert_eq!(app.closed().await, 1008);
}

#[tokio::test(start_paused = true)]
async fn drain_tells_when_to_come_back_and_closes_with_1012() {
    let broker = Broker::new(limits());
    let shutdown = Arc::new(Shutdown::default());
    let mut app = broker.connect_with(1 << 16, Arc::new(Open), Arc::clone(&shutdown));
    app.register("app").await;
    shutdown.drain(1);
    let notice = app.next().await;
    assert_eq!((&notice["subtopic"], &notice["data"]["ReconnectAfterMs"]), (&json!("Draining"), &json!(0)));
    app.say(&command("Connection", "Ping", &json!({}))).await;
    assert_eq!(app.next().await["subtopic"], "Ping", "everything is served until the drain is over");
    shutdown.close();
    assert_eq!(app.closed().await, 1012);
    app.send(&frame(CLOSE, b"\x03\xF4")).await;
    app.end_of_stream().await;
    app.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_dropped_leaves_no_session_behind() {
    let broker = Broker::new(limits());
    let mut watcher = broker.app("watcher", 1 << 16).await;
    let left = json!({"channel": "Broker", "topic": "Application", "subtopic": "Left"});
    watcher.say(&command("Subscription", "Subscribe", &left)).await;
    watcher.next().await;
    let app = broker.app("app", 1 << 16).await;
    app.task.unwrap().abort();
    assert_eq!(watcher.next().await["data"]["Source"], "app");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_does_not_wait_for_connections_that_are_set_up() {
    let broker = Broker::new(limits());
    let mut watcher = broker.app("watcher", 1 << 16).await;
    let left = json!({"channel": "Broker", "topic": "Application", "subtopic": "Left"});
    watcher.say(&command("Subscription", "Subscribe", &left)).await;
    watcher.next().await;
    let app = broker.app("app", 1 << 16).await;
    let mut permits = Vec::new();
    while let Ok(permit) = timeout(Duration::from_millis(1), broker.admission.arrival()).await {
        permits.push(permit);
    }
    assert!(!permits.is_empty());
    drop(app.stream);
    assert_eq!(watcher.next().await["data"]["Source"], "app");
}
