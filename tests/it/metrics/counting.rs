//! What a broker counts: connections, registrations, messages, closes, refusals; never a text of a client.

use serde_json::json;

use super::everything::scrape;
use crate::support::http::{HANDSHAKE, http};
use crate::support::{Broker, application, envelope, token_of};

const ADMIN: &str = "[admin]\nlisten = ['127.0.0.1:0']\n";

#[tokio::test]
async fn what_connections_do_is_counted() {
    let broker = Broker::with_config(&format!(
        "{ADMIN}[channels.Phone]\n{}{}",
        application("gadget", Some("alice"), ""),
        application("pop", Some("alice"), "")
    ))
    .await;
    let admin = broker.admin().await;
    let mut pop = broker.app_by_token("pop").await;
    pop.subscribe("Phone/*/*").await;
    let mut gadget = broker.app_by_token("gadget").await;
    for channel in ["Phone", "Phone", "Unknown"] {
        let mut event = envelope(&format!("{channel}/a/b"), json!({}));
        event["id"] = "e".into();
        gadget.send(event).await;
        gadget.next_receipt("e").await;
    }
    gadget.send_text("{").await;
    gadget.next_error("INVALID_JSON").await;
    let mut stranger = broker.raw("stranger").await;
    let reply = stranger.register("gadget", json!({ "token": "made-up" })).await;
    assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED");
    assert_eq!(stranger.closed().await, 4401);
    let wrong = HANDSHAKE.replace("Host: localhost", "Host: elsewhere.example");
    assert_eq!(http(broker.address(), &wrong).await.status, 421);
    let scrape = scrape(&broker, admin).await;
    for (sample, expected) in [
        ("switchboard_connections_accepted_total{listener=\"plain\"}", 4.0),
        ("switchboard_connections_refused_total{reason=\"host\"}", 1.0),
        ("switchboard_connections{state=\"registered\"}", 2.0),
        ("switchboard_sessions{kind=\"user\",state=\"active\"}", 2.0),
        ("switchboard_registrations_total{outcome=\"ok\"}", 2.0),
        ("switchboard_registrations_total{outcome=\"UNAUTHENTICATED\"}", 1.0),
        ("switchboard_authentications_total{issuer=\"static\",outcome=\"ok\"}", 2.0),
        ("switchboard_authentications_total{issuer=\"other\",outcome=\"key\"}", 1.0),
        ("switchboard_closes_total{code=\"4401\",by=\"broker\"}", 1.0),
        ("switchboard_envelopes_total{kind=\"event\"}", 3.0),
        ("switchboard_envelopes_total{kind=\"unreadable\"}", 1.0),
        // Three registrations and a subscription.
        ("switchboard_envelopes_total{kind=\"command\"}", 4.0),
        ("switchboard_deliveries_total", 2.0),
        ("switchboard_events_unheard_total", 1.0),
        ("switchboard_channel_events_total{channel=\"Phone\"}", 2.0),
        ("switchboard_channel_events_total{channel=\"other\"}", 1.0),
        ("switchboard_refusals_total{code=\"INVALID_JSON\"}", 1.0),
        ("switchboard_refusals_total{code=\"UNAUTHENTICATED\"}", 1.0),
        ("switchboard_refusals_total{code=\"FORBIDDEN\"}", 0.0),
        ("switchboard_subscriptions{role=\"subscriber\"}", 1.0),
        ("switchboard_ready{check=\"listener\"}", 1.0),
    ] {
        let value = scrape.value(sample);
        assert!((value - expected).abs() < f64::EPSILON, "{sample} is {value}, not {expected}");
    }
    for (sample, least) in [
        ("switchboard_received_bytes_total", 100.0),
        ("switchboard_sent_bytes_total", 100.0),
        ("process_open_fds", 3.0),
    ] {
        assert!(scrape.value(sample) > least, "{sample}");
    }
}

#[tokio::test]
async fn no_text_of_a_client_is_in_a_metric() {
    let broker = Broker::with_config(&format!("{ADMIN}{}", application("gadget", Some("alice"), ""))).await;
    let admin = broker.admin().await;
    let mut gadget = broker.app_by_token("gadget").await;
    let mut event =
        envelope("CanaryChannel/CanaryTopic/CanarySubtopic", json!({ "data": { "canary": "canary-payload" } }));
    event["id"] = "canary-id".into();
    gadget.send(event).await;
    gadget.next_receipt("canary-id").await;
    let mut stranger = broker.raw("stranger").await;
    stranger.register("canary-source", json!({ "token": "canary-token" })).await;
    let path = HANDSHAKE.replace("GET /ws", "GET /canary-path?canary-query").replace("localhost", "canary-host");
    http(broker.address(), &path).await;
    let scrape = scrape(&broker, admin).await;
    let text = scrape.text().to_ascii_lowercase();
    for never in ["canary", "alice", "gadget", &token_of("gadget")] {
        assert!(!text.contains(never), "{never} is in\n{text}");
    }
}
