//! What a reload does to sessions that a JWT proved, when the issuer's table or the file of its keys has changed.

use serde_json::{Value, json};

use super::key_server::{Answer, KeyServer};
use super::signing::{OTHER_RSA, RSA, Signer};
use super::{Files, ROLES, SECRET, claims, issuer, proves, refused, register};
use crate::support::{Broker, Peer};

const OTHER_SECRET: &[u8] = b"another-shared-secret-of-thirty-two-bytes-or-more";

/// A configuration with this issuer, and roles.
fn toml(issuer: &str) -> String {
    format!("limits.failed_registrations = 1000\n{issuer}{ROLES}")
}

/// A table of an issuer that signs with the secret of a file.
fn by_secret(name: &str, secret: &str, lines: &str) -> String {
    issuer(name, &format!("algorithms = ['HS256']\nsecret_file = '{secret}'\n{lines}"))
}

fn token(secret: &[u8], change: Value) -> String {
    Signer::secret(secret).token("HS256", &claims(change))
}

/// Registers a session, which has subscribed.
async fn session(broker: &Broker, source: &str, token: &str) -> Peer {
    let (mut peer, reply) = register(broker, source, token).await;
    assert_eq!(reply["Success"], true, "{reply}");
    peer.subscribe("Phone/*/*").await;
    peer
}

/// The session has ended with 4401.
async fn ended(peer: &mut Peer) {
    peer.next_error("UNAUTHENTICATED").await;
    assert_eq!(peer.closed().await, 4401);
}

/// The session is told that its proof ends in a minute, and goes on.
async fn expiring(peer: &mut Peer) {
    let notice = peer.next_on("Broker/Connection/Expiring").await;
    let seconds = notice["data"]["ExpiresInSeconds"].as_u64().unwrap();
    assert!((45..=60).contains(&seconds), "{notice}");
    peer.fence().await;
}

async fn renew(peer: &mut Peer, token: &str) -> Value {
    peer.command("Application", "Renew", json!({ "token": token })).await["data"].clone()
}

#[tokio::test]
async fn sessions_end_whose_issuer_is_gone_or_excludes_them() {
    let files = Files::new();
    let secret = files.write("secret", SECRET);
    let table = |name: &str, lines: &str| toml(&by_secret(name, &secret, lines));
    for (after, stays) in [
        (table("idp", "users = ['alice']"), false),
        (table("idp", "sources = ['desk']"), false),
        (table("renamed", ""), false),
        (toml("auth.mode = 'tokens'\n"), false),
        (table("idp", "users = ['bob']"), true),
        (table("idp", "users = ['*']\nsources = ['desk', 'softphone']"), true),
        (table("idp", "leeway = '1m'\nlifetime = '12h'"), true),
    ] {
        let broker = Broker::with_config(&table("idp", "")).await;
        let mut bob = session(&broker, "softphone", &token(SECRET, json!({ "sub": "bob" }))).await;
        broker.configure(&after);
        let line = broker.reload().await;
        assert!(line.contains("changed=\"auth.jwt."), "{line}");
        let expected = format!("ended={} rights=0 expiring=0", u8::from(!stays));
        assert!(line.contains(&expected), "{line}\n{after}");
        if stays {
            bob.expect_nothing().await;
        } else {
            ended(&mut bob).await;
        }
    }
}

#[tokio::test]
async fn a_session_whose_issuer_proves_something_else_has_a_minute_to_renew() {
    let files = Files::new();
    let (secret, other) = (files.write("secret", SECRET), files.write("other", OTHER_SECRET));
    let before = toml(&by_secret("idp", &secret, ""));
    let table = |lines: &str| toml(&by_secret("idp", &secret, lines));
    let elsewhere = "https://elsewhere.example/";
    for (after, good) in [
        (toml(&by_secret("idp", &other, "")), token(OTHER_SECRET, json!({}))),
        (table(&format!("issuer = '{elsewhere}'")), token(SECRET, json!({ "iss": elsewhere }))),
        (table("audience = ['desktop']"), token(SECRET, json!({ "aud": "desktop" }))),
        (table("require = { team = 'a' }"), token(SECRET, json!({ "team": "a" }))),
        (table("user = 'name'"), token(SECRET, json!({ "name": "alice", "sub": "bob" }))),
        (table("service = 'service'"), token(SECRET, json!({}))),
        (table("source = 'app'"), token(SECRET, json!({ "app": "softphone" }))),
        (table("roles = 'roles'\nrole = 'agent'"), token(SECRET, json!({ "roles": "agent" }))),
    ] {
        let broker = Broker::with_config(&before).await;
        let mut app = session(&broker, "softphone", &token(SECRET, json!({}))).await;
        broker.configure(&after);
        let line = broker.reload().await;
        assert!(line.contains("changed=\"auth.jwt.idp\" ended=0 rights=0 expiring=1"), "{line}\n{after}");
        expiring(&mut app).await;
        app.publish("Phone/Call/Ringing", 1).await;
        let reply = renew(&mut app, &token(&[7; 40], json!({}))).await;
        assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED", "{reply}");
        let reply = renew(&mut app, &good).await;
        assert!(reply["ExpiresInSeconds"].as_u64().is_some_and(|seconds| seconds > 590), "{reply}\n{after}");
        // The same file once more changes nothing.
        let line = broker.reload().await;
        assert!(line.contains("changed=\"\" ended=0 rights=0 expiring=0"), "{line}");
        app.expect_nothing().await;
    }
}

#[tokio::test]
async fn the_content_of_a_key_file_counts_and_not_its_name() {
    let files = Files::new();
    let (key, other) = (Signer::rsa(RSA), Signer::rsa(OTHER_RSA));
    let set = |signer: &Signer| json!({ "keys": [signer.jwk(json!({ "kid": "k" }))] }).to_string();
    let cases = [
        ("secret_file", "HS256", SECRET.to_vec(), OTHER_SECRET.to_vec()),
        ("key_file", "RS256", key.public_pem().into_bytes(), other.public_pem().into_bytes()),
        ("jwks_file", "RS256", set(&key).into_bytes(), set(&other).into_bytes()),
    ];
    for (name, algorithm, old, new) in cases {
        let [signer, next] = match algorithm {
            "HS256" => [Signer::secret(SECRET), Signer::secret(OTHER_SECRET)],
            _ => [Signer::rsa(RSA), Signer::rsa(OTHER_RSA)],
        };
        let table = |path: &str| toml(&issuer("idp", &format!("algorithms = ['{algorithm}']\n{name} = '{path}'")));
        let (path, moved) = (files.write("key", &old), files.write("moved", &old));
        let broker = Broker::with_config(&table(&path)).await;
        let mut app = session(&broker, "softphone", &signer.token(algorithm, &claims(json!({})))).await;

        broker.configure(&table(&moved));
        let line = broker.reload().await;
        assert!(line.contains("changed=\"auth.jwt.idp\" ended=0 rights=0 expiring=0"), "{line}");
        app.expect_nothing().await;

        files.write("moved", &new);
        let line = broker.reload().await;
        let expected = format!("changed=\"auth.jwt.idp.{name}\" ended=0 rights=0 expiring=1");
        assert!(line.contains(&expected), "{expected}: {line}");
        expiring(&mut app).await;
        refused(&broker, "softphone", &signer.token(algorithm, &claims(json!({}))), "UNAUTHENTICATED", "signature")
            .await;
        let reply = renew(&mut app, &signer.token(algorithm, &claims(json!({})))).await;
        assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED", "{reply}");
        let reply = renew(&mut app, &next.token(algorithm, &claims(json!({})))).await;
        assert_eq!(reply["Success"], true, "{reply}");
    }
}

#[tokio::test]
async fn the_roles_of_a_session_are_those_of_its_token_or_the_present_default() {
    let files = Files::new();
    let secret = files.write("secret", SECRET);
    let table = |role: &str| toml(&by_secret("idp", &secret, &format!("roles = 'roles'\n{role}")));
    let broker = Broker::with_config(&table("role = 'agent'")).await;
    let mut by_default = session(&broker, "softphone", &token(SECRET, json!({}))).await;
    let mut by_token = session(&broker, "softphone", &token(SECRET, json!({ "roles": ["agent"] }))).await;

    broker.configure(&table("role = 'listener'"));
    let line = broker.reload().await;
    assert!(line.contains("ended=0 rights=1 expiring=0"), "{line}");
    by_token.publish("Phone/Call/Ringing", 1).await;
    assert_eq!(by_default.next_on("Phone/Call/Ringing").await["data"], 1);
    by_default.publish("Phone/Call/Ringing", 2).await;
    by_default.next_failure("Broker/Message/Error", "FORBIDDEN").await;
    by_token.expect_nothing().await;

    broker.configure(&table(""));
    let line = broker.reload().await;
    assert!(line.contains("ended=1 rights=0 expiring=0"), "{line}");
    ended(&mut by_default).await;
    by_token.expect_nothing().await;
}

#[tokio::test]
async fn keys_of_another_address_replace_those_of_the_old_one() {
    let (old, new) = (Signer::rsa(RSA), Signer::rsa(OTHER_RSA));
    let server = KeyServer::with(&[old.jwk(json!({ "kid": "k" }))]).await;
    let next = KeyServer::with(&[new.jwk(json!({ "kid": "k" }))]).await;
    let table = |server: &KeyServer, lines: &str| {
        toml(&issuer("idp", &format!("algorithms = ['RS256']\njwks_url = '{}'\n{lines}", server.url())))
    };
    let token = |signer: &Signer| signer.token_by("RS256", "k", &claims(json!({})));
    let broker = Broker::with_config(&table(&server, "")).await;
    let mut app = session(&broker, "softphone", &token(&old)).await;

    // The issuer is down, and its known keys stay in use under other settings.
    server.answer(Answer::Status("500 Internal Server Error".to_owned()));
    broker.configure(&table(&server, "refresh = '5m'\nleeway = '5s'"));
    let line = broker.reload().await;
    assert!(line.contains("ended=0 rights=0 expiring=0"), "{line}");
    assert!(proves(&broker, "softphone", &token(&old)).await.is_some());

    broker.configure(&table(&next, ""));
    let line = broker.reload().await;
    assert!(line.contains("ended=0 rights=0 expiring=1"), "{line}");
    expiring(&mut app).await;
    refused(&broker, "softphone", &token(&old), "UNAUTHENTICATED", "signature").await;
    assert!(proves(&broker, "softphone", &token(&new)).await.is_some());
    assert_eq!(renew(&mut app, &token(&new)).await["Success"], true);
}
