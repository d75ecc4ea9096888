//! `ws+unix://PATH:/ws`: the client over a Unix socket.

use super::*;
use switchboard_client::Endpoint;

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
