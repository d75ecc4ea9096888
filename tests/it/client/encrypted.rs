//! `wss://`, against a real broker behind a TLS proxy.

use super::*;
use crate::client::tls_proxy::TlsProxy;
use crate::support::Broker;

#[tokio::test]
async fn a_client_with_the_certificate_authority_works_behind_a_tls_proxy() {
    let broker = Broker::start().await;
    let proxy = TlsProxy::start(broker.address()).await;
    let builder = |source: &str| Client::builder(proxy.url()).source(source).ca_file(proxy.ca_file());
    let crm = builder("crm").connect().await.unwrap();
    let _serving = crm.serve("Crm/Contact/Find".parse().unwrap(), async |_| Ok(json!("Ada").into())).await.unwrap();
    let softphone = builder("softphone").connect().await.unwrap();
    // Larger than a TLS record and than the socket's buffer.
    let payload = json!("x".repeat(900_000));
    let mut events = softphone.subscribe("Phone/*/*".parse().unwrap()).await.unwrap();
    crm.publish(Triple::new("Phone", "Call", "Ringing"), payload.clone()).receipt().await.unwrap();
    assert_eq!(next(&mut events).await, payload);
    assert_eq!(softphone.request(find(), ()).await.unwrap().payload(), Some("\"Ada\""));
    softphone.close().await;
    crm.close().await;
}

#[tokio::test]
async fn a_ca_file_may_begin_with_a_byte_order_mark() {
    let broker = Broker::start().await;
    let proxy = TlsProxy::start(broker.address()).await;
    let folder = tempfile::tempdir().unwrap();
    let marked = folder.path().join("ca.pem");
    std::fs::write(&marked, format!("\u{feff}{}", std::fs::read_to_string(proxy.ca_file()).unwrap())).unwrap();
    Client::builder(proxy.url()).source("softphone").ca_file(marked).connect().await.unwrap().close().await;
}

#[tokio::test]
async fn an_unknown_authority_and_a_wrong_name_are_refused() {
    let broker = Broker::start().await;
    let proxy = TlsProxy::start(broker.address()).await;
    let unknown = Client::builder(proxy.url()).source("softphone").connect().await.unwrap_err();
    let wrong_name = proxy.url().replace("localhost", "127.0.0.1");
    let wrong_name = Client::builder(wrong_name).source("softphone").ca_file(proxy.ca_file()).connect().await;
    for error in [unknown, wrong_name.unwrap_err()] {
        let Error::Unreachable { kind: io::ErrorKind::InvalidData, reason, .. } = &error else { panic!("{error}") };
        assert!(reason.starts_with("TLS failed: invalid peer certificate"), "{reason}");
    }
    // A server that does not speak TLS is not the broker either.
    let plain = format!("wss://localhost:{}/ws", broker.address().port());
    let error = Client::builder(plain).source("softphone").connect().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    for (url, contents, expected) in [
        ("wss://localhost/ws", None, "cannot be read"),
        ("wss://localhost/ws", Some(""), "has no certificate in PEM"),
        ("wss://localhost/ws", Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "cannot be read"),
        ("ws://localhost/ws", Some(""), "write wss://"),
    ] {
        if let Some(contents) = contents {
            std::fs::write(&path, contents).unwrap();
        }
        let error = Client::builder(url).source("softphone").ca_file(&path).connect().await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(text) if text.contains(expected)), "{error}");
    }
}
