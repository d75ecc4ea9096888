//! Tokens in the handshake: in the header `Authorization`, or as a sub-protocol.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::signing::Signer;
use super::{Files, SECRET, broker, claims, issuer};
use crate::support::http::{assert_refused, handshake_with, http};
use crate::support::{Broker, application, token_of};

async fn start() -> (Broker, Files) {
    let files = Files::new();
    let secret = files.write("secret", SECRET);
    let lines = format!("algorithms = ['HS256']\nsecret_file = '{secret}'");
    (broker(&(application("crm", Some("carol"), "") + &issuer("idp", &lines))).await, files)
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

fn subprotocol(token: &str) -> (&'static str, String) {
    let token = BASE64_URL_SAFE_NO_PAD.encode(token);
    ("sec-websocket-protocol", format!("switchboard.v1, switchboard.token.{token}"))
}

/// Registers with these headers and this option, and returns the user, or the code of the refusal.
async fn outcome(broker: &Broker, source: &str, headers: &[(&str, String)], token: Option<&str>) -> String {
    let mut peer = broker.raw_with(source, headers).await;
    let reply = peer.register(source, json!({ "token": token })).await["data"].clone();
    let text = |key: &str| reply[key].as_str().map(str::to_owned);
    if text("ErrorCode").is_some() {
        assert_eq!(peer.closed().await, 4401, "{reply}");
    }
    text("ErrorCode").or(text("User")).unwrap_or_else(|| panic!("{reply}"))
}

#[tokio::test]
async fn any_kind_of_token_can_be_in_any_place() {
    let (broker, _files) = start().await;
    let (jwt, fixed) = (Signer::secret(SECRET).token("HS256", &claims(json!({}))), token_of("crm"));
    for (source, token, user) in [("softphone", &jwt, "alice"), ("crm", &fixed, "carol")] {
        let (header, protocol) = (bearer(token), subprotocol(token));
        for (headers, own) in [
            (&[][..], Some(token.as_str())),
            (std::slice::from_ref(&header), None),
            (std::slice::from_ref(&protocol), None),
            (&[header.clone(), protocol.clone()], None),
            (&[header.clone(), protocol.clone()], Some(token.as_str())),
            (&[("authorization", format!("bEaReR  {token}"))], None),
            (&[("authorization", "Basic dTpw".to_owned())], Some(token.as_str())),
        ] {
            assert_eq!(outcome(&broker, source, headers, own).await, user);
        }
    }
}

#[tokio::test]
async fn all_places_must_have_the_same_token() {
    let (broker, _files) = start().await;
    let good = Signer::secret(SECRET).token("HS256", &claims(json!({})));
    let other = Signer::secret(SECRET).token("HS256", &claims(json!({ "jti": "another" })));
    for (headers, own) in [
        (&[bearer(&good)][..], Some(other.as_str())),
        (&[subprotocol(&good)], Some(other.as_str())),
        (&[bearer(&good), subprotocol(&other)], None),
        (&[bearer(&good), subprotocol(&other)], Some(good.as_str())),
        (&[bearer(""), subprotocol(&good)], None),
        (&[bearer(&good), subprotocol(&good)], Some("")),
        (&[("authorization", "Basic dTpw".to_owned())], None),
    ] {
        assert_eq!(outcome(&broker, "softphone", headers, own).await, "UNAUTHENTICATED");
    }
}

#[tokio::test]
async fn a_token_of_the_handshake_serves_every_register_and_the_response_does_not_name_it() {
    let (broker, _files) = start().await;
    let token = Signer::secret(SECRET).token("HS256", &claims(json!({})));
    let mut peer = broker.raw_with("softphone", &[subprotocol(&token)]).await;
    for _ in 0..2 {
        let reply = peer.register("softphone", Value::Null).await;
        assert_eq!(reply["data"]["User"], "alice", "{reply}");
        peer.command("Application", "Unregister", json!({})).await;
    }
    let (name, value) = subprotocol(&token);
    let response = http(broker.address(), &handshake_with(&format!("{name}: {value}"))).await;
    assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, Some("switchboard.v1")));
}

#[tokio::test]
async fn a_handshake_whose_token_cannot_be_read_is_400() {
    let (broker, _files) = start().await;
    for (headers, part) in [
        ("Sec-WebSocket-Protocol: switchboard.token.dG9rZW4", "switchboard.v1"),
        ("Sec-WebSocket-Protocol: switchboard.v1, switchboard.token.dG9rZW4, switchboard.token.dG9rZW4", "two"),
        ("Sec-WebSocket-Protocol: switchboard.v1, switchboard.token.dG9rZW4=", "base64url"),
        ("Authorization: Bearer a\r\nAuthorization: Bearer a", "two Authorization"),
    ] {
        let response = http(broker.address(), &handshake_with(headers)).await;
        assert_refused(&response, 400, part);
        assert!(!response.body.contains("dG9rZW4"), "{}", response.body);
    }
    for query in ["token=x", "JWT=x", "a=b&access%5Ftoken=x", "auth"] {
        let head = handshake_with("Origin: http://localhost").replace("/ws", &format!("/ws?{query}"));
        assert_refused(&http(broker.address(), &head).await, 400, "URL");
    }
}

#[tokio::test]
async fn no_part_of_a_token_is_in_the_log_at_trace() {
    let files = Files::new();
    let secret = files.write("secret", SECRET);
    let lines = format!("algorithms = ['HS256']\nsecret_file = '{secret}'");
    let toml = format!("{}{}", issuer("idp", &lines), super::ROLES);
    let broker = Broker::launch(Some(&toml), &["--log", "trace"]).await;
    let good = Signer::secret(SECRET).token("HS256", &claims(json!({ "canary": "canary-in-a-claim" })));
    let forged = Signer::secret(&[7; 40]).token("HS256", &claims(json!({ "canary": "canary-in-a-claim" })));
    assert_eq!(outcome(&broker, "softphone", &[bearer(&good), subprotocol(&good)], Some(&good)).await, "alice");
    assert_eq!(outcome(&broker, "softphone", &[subprotocol(&forged)], None).await, "UNAUTHENTICATED");
    let target = format!("/ws?token={good}");
    http(broker.address(), &handshake_with("Origin: http://localhost").replace("/ws", &target)).await;
    broker.log_until("the refusal", |log| log.contains("refused a request")).await;
    let log = broker.log();
    let parts = [&good, &forged].into_iter().flat_map(|token| token.split('.').chain([token.as_str()]));
    for part in parts.filter(|part| part.len() > 30) {
        assert!(!log.contains(part) && !log.contains(&BASE64_URL_SAFE_NO_PAD.encode(part)), "{part}");
    }
    assert!(!log.contains("canary-in-a-claim"), "a claim is in the log");
}
