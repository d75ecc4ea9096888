//! Keys that are fetched: rotation, issuers that are down or answer nonsense, and what sessions notice of it.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::key_server::{Answer, KeyServer};
use super::signing::{OTHER_RSA, RSA, Signer};
use super::{broker, claims, issuer, proves, refused, register};
use crate::client::tls_proxy::TlsProxy;
use crate::support::{Broker, Peer, application, token_of};

/// A broker of an issuer that publishes its keys at this address.
async fn start(url: &str, lines: &str) -> Broker {
    let lines = format!("algorithms = ['RS256', 'ES256']\njwks_url = '{url}'\n{lines}");
    broker(&(application("crm", Some("alice"), "") + &issuer("idp", &lines))).await
}

/// Registers on a connection, and returns the code of the refusal.
async fn refusal(peer: &mut Peer, token: &str) -> String {
    let reply = peer.register("softphone", json!({ "token": token })).await;
    reply["data"]["ErrorCode"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

#[tokio::test]
async fn a_key_set_is_fetched_and_a_new_key_is_found_at_once() {
    let (old, new) = (Signer::rsa(RSA), Signer::rsa(OTHER_RSA));
    let server = KeyServer::with(&[old.jwk(json!({ "kid": "old" }))]).await;
    let broker = start(&server.url(), "").await;
    let token = |signer: &Signer, id: &str| signer.token_by("RS256", id, &claims(json!({})));
    let (mut first, reply) = register(&broker, "softphone", &token(&old, "old")).await;
    assert_eq!(reply["User"], "alice", "{reply}");
    // Without `kid`: it is the only key.
    assert!(proves(&broker, "softphone", &old.token("RS256", &claims(json!({})))).await.is_some());
    refused(&broker, "softphone", &token(&new, "old"), "UNAUTHENTICATED", "signature").await;
    let elliptic = Signer::new("ES256").token_by("ES256", "old", &claims(json!({})));
    refused(&broker, "softphone", &elliptic, "UNAUTHENTICATED", "another type").await;
    assert_eq!(server.asked(), 1);

    server.answer(KeyServer::set(&[new.jwk(json!({ "kid": "new" })), new.jwk(json!({ "kid": "newer" }))]));
    assert!(proves(&broker, "softphone", &token(&new, "new")).await.is_some());
    assert!(proves(&broker, "softphone", &token(&new, "newer")).await.is_some());
    refused(&broker, "softphone", &new.token("RS256", &claims(json!({}))), "UNAUTHENTICATED", "names no key").await;
    assert_eq!(server.asked(), 2);
    // The old key has left the set. Its live session goes on; a new one gets nothing before the next fetch.
    let reply = first.command("Connection", "Ping", json!({})).await;
    assert_eq!(reply["data"]["Success"], true, "{reply}");
    let mut peer = broker.raw("softphone").await;
    assert_eq!(refusal(&mut peer, &token(&old, "old")).await, "UPSTREAM_UNAVAILABLE");
    assert_eq!(server.asked(), 2, "made-up key ids cause no more than one fetch in 30 s");
}

#[tokio::test]
async fn a_key_set_is_fetched_every_refresh() {
    let signer = Signer::rsa(RSA);
    let server = KeyServer::with(&[Signer::rsa(OTHER_RSA).jwk(json!({ "kid": "a" }))]).await;
    let broker = start(&server.url(), "refresh = '1s'").await;
    server.answer(KeyServer::set(&[signer.jwk(json!({ "kid": "a" }))]));
    let mut peer = broker.raw("softphone").await;
    let token = signer.token_by("RS256", "a", &claims(json!({})));
    crate::support::within("the new key", async {
        loop {
            let reply = peer.register("softphone", json!({ "token": token })).await;
            if reply["data"]["Success"] == true {
                return;
            }
            peer = broker.raw("softphone").await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_issuer_that_stalls_delays_its_own_sessions_for_5_s_and_closes_nothing() {
    let signer = Signer::rsa(RSA);
    let server = KeyServer::start(Answer::Stall).await;
    let toml =
        format!("limits.failed_registrations = 1\nrequests.timeout = '9s'\n{}", application("crm", Some("alice"), ""));
    let lines = format!("algorithms = ['RS256']\njwks_url = '{}'", server.url());
    // It starts although nobody answers.
    let broker = Broker::with_config(&format!("{toml}{}{}", issuer("idp", &lines), super::ROLES)).await;
    let token = signer.token_by("RS256", "a", &claims(json!({})));
    let (mut peer, mut other) = (broker.raw("softphone").await, broker.raw("softphone").await);
    let start = Instant::now();
    let (first, second, ()) = tokio::join!(refusal(&mut peer, &token), refusal(&mut other, &token), async {
        broker.app_by_token("crm").await;
        let forged = signer.sign("RS256", r#"{"alg":"none"}"#, &claims(json!({})).to_string());
        let (_, reply) = register(&broker, "softphone", &forged).await;
        // A session that does not need the keys does not wait for them.
        assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    });
    assert_eq!((first.as_str(), second.as_str()), ("UPSTREAM_UNAVAILABLE", "UPSTREAM_UNAVAILABLE"));
    assert!(start.elapsed() >= Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(server.asked(), 1, "all sessions await one fetch");
    // The connection stays, and nothing was counted as a failed registration.
    let reply = peer.register("crm", json!({ "token": token_of("crm") })).await;
    assert_eq!(reply["data"]["Success"], true, "{reply}");
}

#[tokio::test]
async fn what_is_not_a_usable_key_set_is_a_failed_fetch() {
    let signer = Signer::rsa(RSA);
    let key = signer.jwk(json!({ "kid": "a" }));
    let elsewhere = KeyServer::with(std::slice::from_ref(&key)).await;
    let large = json!({ "keys": [key], "x": "x".repeat(256 << 10) }).to_string();
    for (answer, logged) in [
        (Answer::Status("500 Internal Server Error".to_owned()), "the answer is 500"),
        (Answer::Status(format!("302 Found\r\nlocation: {}", elsewhere.url())), "redirects are not followed"),
        (Answer::Body("<html>".to_owned()), "not JSON"),
        (Answer::Body("[".repeat(200_000)), "not JSON"),
        (Answer::Body(large), "larger than 256 KiB"),
        (KeyServer::set(&vec![key.clone(); 65]), "over 64 keys"),
        (KeyServer::set(&[signer.jwk(json!({ "kid": "a", "use": "enc" }))]), "no key that fits"),
    ] {
        let server = KeyServer::start(answer).await;
        let broker = start(&server.url(), "").await;
        let mut peer = broker.raw("softphone").await;
        let token = signer.token_by("RS256", "a", &claims(json!({})));
        assert_eq!(refusal(&mut peer, &token).await, "UPSTREAM_UNAVAILABLE", "{logged}");
        let line = |log: &str| log.lines().any(|it| it.contains("idp") && it.contains(logged));
        broker.log_until(logged, line).await;
    }
    assert_eq!(elsewhere.asked(), 0);
}

#[tokio::test]
async fn keys_come_over_tls_from_a_server_that_is_trusted() {
    let signer = Signer::rsa(RSA);
    let server = KeyServer::with(&[signer.jwk(json!({ "kid": "a" }))]).await;
    let proxy = TlsProxy::start(server.address()).await;
    let url = proxy.url().replace("wss://", "https://").replace("/ws", "/keys");
    let token = signer.token_by("RS256", "a", &claims(json!({})));
    let trusting = start(&url, &format!("ca_file = '{}'", proxy.ca_file().display())).await;
    assert!(proves(&trusting, "softphone", &token).await.is_some());
    assert_eq!(server.asked(), 1);
    let other = start(&url, "").await;
    let mut peer = other.raw("softphone").await;
    assert_eq!(refusal(&mut peer, &token).await, "UPSTREAM_UNAVAILABLE");
    other.log_until("the reason", |log| log.contains("TLS failed")).await;
    assert_eq!(server.asked(), 1);
}
