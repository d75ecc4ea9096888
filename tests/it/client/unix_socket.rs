//! `ws+unix://PATH:/ws`: the client over a Unix socket.

use super::*;
use crate::support::Broker;
use switchboard_client::Endpoint;

#[tokio::test]
async fn a_client_over_a_unix_socket_works() {
    let folder = tempfile::tempdir().unwrap();
    // A colon and a slash in the path are not its end.
    std::fs::create_dir(folder.path().join("a:")).unwrap();
    let path = folder.path().join("a:/s.sock");
    let listen = format!("unix:{}", path.display());
    let broker = Broker::launch(None, &["--listen", &listen]).await;
    let url = broker.urls()[1].clone();
    assert_eq!(url, format!("ws+unix://{}:/ws", path.display()));
    let client = Client::builder(&url).source("crm").connect().await.unwrap();
    let mut events = client.subscribe("Phone/*/*".parse().unwrap()).await.unwrap();
    let other = Client::builder(&url).source("softphone").connect().await.unwrap();
    other.publish(Triple::new("Phone", "Call", "Ringing"), json!(1)).receipt().await.unwrap();
    assert_eq!(next(&mut events).await, json!(1));
    other.close().await;
    client.close().await;
}

#[test]
fn the_url_has_a_path_a_colon_and_the_resource() {
    let endpoint = Endpoint::new("ws+unix:///run/user/1000/switchboard.sock:/ws", None).unwrap();
    assert_eq!(endpoint.socket().unwrap().to_str(), Some("/run/user/1000/switchboard.sock"));
    assert_eq!(endpoint.handshake_url(), "ws://localhost/ws");
    assert_eq!((endpoint.host(), endpoint.to_string().as_str()), ("localhost", "/run/user/1000/switchboard.sock"));
    for url in ["ws+unix://", "ws+unix:///run/s.sock", "ws+unix://:/ws", "ws+unix:///run/s.sock:", "ws+unix:/run/s:/ws"]
    {
        assert!(matches!(Endpoint::new(url, None), Err(Error::Invalid(_))), "{url}");
    }
    let error = Endpoint::new("ws+unix:///run/s.sock:/ws", Some("/ca.pem".as_ref())).unwrap_err();
    assert!(error.to_string().contains("CA file"), "{error}");
}

#[tokio::test]
async fn a_missing_socket_is_unreachable() {
    let error = Client::builder("ws+unix:///nowhere/s.sock:/ws").source("crm").connect().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { kind: io::ErrorKind::NotFound, .. }), "{error}");
    assert!(error.to_string().contains("/nowhere/s.sock"), "{error}");
}
