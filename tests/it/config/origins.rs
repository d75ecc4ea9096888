//! Origins: what the log advises to list can be listed, and is then allowed.

use crate::support::Broker;
use crate::support::http::{HANDSHAKE, http};

fn handshake_from(origin: &str) -> String {
    HANDSHAKE.replace("Host: localhost\r\n", &format!("Host: localhost\r\nOrigin: {origin}\r\n"))
}

/// The last origin that the log has with the key that would allow it.
fn advised(log: &str) -> Option<String> {
    let line = log.lines().rfind(|line| line.contains("http.allowed_origins"))?;
    let (_, rest) = line.split_once("origin=\"")?;
    rest.split_once('"').map(|(origin, _)| origin.to_owned())
}

#[tokio::test]
async fn an_origin_that_the_log_advises_to_list_is_accepted_as_written() {
    for origin in [
        "file://",
        "app://",
        "null",
        "chrome-extension://abcdefghijklmnop",
        "moz-extension://6a5b1c8e-0000-4000-8000-000000000000",
        "capacitor://example",
        "vscode-webview://0abc",
        "app://obsidian.md",
        "https://crm.example.com",
        "https://crm.example.com:443",
        "https://crm.example.com.",
        "http://under_score.example:8080",
        "http://10.0.0.7",
        "http://[2001:db8::7]:3000",
        "http://[::ffff:a00:7]",
        "https://xn--mnchen-3ya.example",
        "HTTPS://CRM.example.com",
    ] {
        let refusing = Broker::with_config("").await;
        assert_eq!(http(refusing.address(), &handshake_from(origin)).await.status, 403, "{origin}");
        refusing.log_until("the advice", |log| advised(log).is_some()).await;
        let listed = advised(&refusing.log()).unwrap();
        assert_eq!(listed, origin, "the log changes the origin");
        let allowing = Broker::with_config(&format!("http.allowed_origins = ['{listed}']")).await;
        let response = http(allowing.address(), &handshake_from(origin)).await;
        assert_eq!(response.status, 101, "{origin}: {}", response.body);
    }
}

#[tokio::test]
async fn the_log_does_not_advise_to_list_what_cannot_be_listed() {
    for origin in ["https://a.example/path", "a.example", "https://a.example https://b.example", "wss://a.example"] {
        let broker = Broker::with_config("").await;
        assert_eq!(http(broker.address(), &handshake_from(origin)).await.status, 403, "{origin}");
        broker.log_until("the refusal", |log| log.contains("origin=\"")).await;
        assert_eq!(advised(&broker.log()), None, "{origin}");
    }
}
