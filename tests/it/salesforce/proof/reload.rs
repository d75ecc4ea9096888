//! What a reload does to sessions whose users Salesforce proved.

use super::{Fixture, register};
use crate::support::{Broker, Peer};

async fn gadget(broker: &Broker, fixture: &Fixture, source: &str) -> Peer {
    let (peer, reply) = register(broker, source, &fixture.signed_token("gadgets").await).await;
    assert_eq!(reply["Success"], true, "{reply}");
    peer
}

async fn revoked(peer: &mut Peer) {
    peer.next_error("UNAUTHENTICATED").await;
    assert_eq!(peer.closed().await, 4401);
}

#[tokio::test]
async fn sessions_end_whose_table_is_gone_or_excludes_their_source() {
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&fixture.jwt("")).await;
    let (mut softphone, mut crm) =
        (gadget(&broker, &fixture, "softphone").await, gadget(&broker, &fixture, "crm").await);
    broker.configure(&fixture.jwt("sources = ['softphone']"));
    let line = broker.reload().await;
    assert!(line.contains("changed=\"auth.salesforce_jwt.sources\" ended=1"), "{line}");
    revoked(&mut crm).await;
    softphone.fence().await;

    broker.configure(&fixture.userinfo(""));
    let line = broker.reload().await;
    assert!(line.contains("auth.salesforce_jwt,") && line.contains("ended=1"), "{line}");
    revoked(&mut softphone).await;
}

#[tokio::test]
async fn sessions_end_whose_table_names_users_in_another_way() {
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&fixture.jwt("")).await;
    let mut softphone = gadget(&broker, &fixture, "softphone").await;
    broker.configure(&fixture.jwt("request = []"));
    let line = broker.reload().await;
    assert!(line.contains("ended=0 rights=1"), "{line}");
    softphone.ask("Cisco/Agent/Login", "1").await;
    softphone.next_failure("Cisco/Agent/Login", "FORBIDDEN").await;
    broker.configure(&fixture.jwt("request = []\nuser = 'username'"));
    broker.reload().await;
    revoked(&mut softphone).await;
    let mut again = broker.raw("softphone").await;
    let token = fixture.signed_token("gadgets").await;
    let reply = again.register("softphone", serde_json::json!({ "token": token })).await;
    assert_eq!(reply["data"]["User"], "alice@example.com", "{reply}");
}

/// The reload that removes the table comes while the org is asked about the token.
#[tokio::test]
async fn a_reload_waits_for_no_network_and_judges_what_was_asked_before_it() {
    let fixture = Fixture::start().await;
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("http://{}", silent.local_addr().unwrap());
    let toml = fixture.userinfo("timeout = '3s'").replace(&fixture.org.url(), &host);
    let broker = Broker::with_config(&toml).await;
    let token = fixture.access_token("gadgets").await;
    let mut waiting = broker.raw("softphone").await;
    let register = serde_json::json!({
        "channel": "Broker", "topic": "Application", "subtopic": "Register", "source": "softphone", "data": {"token": token}
    });
    waiting.send(register).await;
    let (mut asked, _) = tokio::task::spawn_blocking(move || silent.accept().unwrap()).await.unwrap();
    broker.configure(&fixture.jwt(""));
    let line = broker.reload().await;
    assert!(line.contains("the configuration was reloaded"), "{line}");
    let answer = format!(
        "{{\"user_id\":\"{}\",\"organization_id\":\"{}\",\"preferred_username\":\"alice@example.com\",\"active\":true}}",
        super::ALICE,
        super::ORG
    );
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    std::io::Write::write_all(&mut asked, answer.as_bytes()).unwrap();
    let reply = waiting.next().await;
    assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED", "{reply}");
    assert!(reply["data"]["ErrorMessage"].as_str().unwrap().contains("looks like an access token"), "{reply}");
}
