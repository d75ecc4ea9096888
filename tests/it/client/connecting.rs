//! Connecting, registering and closing.

use super::*;

#[tokio::test]
async fn registers_with_its_options() {
    let broker = FakeBroker::start().await;
    let connect = builder(&broker).user("alice").token("secret".into()).echo(true).connect();
    let (client, (_peer, register)) = tokio::join!(connect, broker.session());
    assert_eq!(register["source"], "softphone");
    assert_eq!(register["data"], json!({ "token": "secret", "user": "alice", "echo": true, "resume": true }));
    let State::Connected(session) = client.unwrap().state() else { panic!("not connected") };
    assert_eq!((session.id.as_str(), session.user.as_deref()), ("session-1", Some("local")));
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let url = FakeBroker::start().await.url();
    let error = Client::builder(url).source("softphone").connect().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { kind: io::ErrorKind::ConnectionRefused, .. }), "{error}");
}

#[tokio::test]
async fn a_refused_handshake_has_its_reason() {
    let broker = FakeBroker::start().await;
    let refuse = async {
        let mut stream = broker.tcp().await;
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 21\r\n\r\norigin is not allowed";
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream
    };
    let (client, _stream) = tokio::join!(builder(&broker).connect(), refuse);
    let error = client.unwrap_err();
    assert_eq!(error.to_string(), "the handshake was refused with HTTP status 403: origin is not allowed");
}

#[tokio::test]
async fn a_refused_registration_has_its_code() {
    let broker = FakeBroker::start().await;
    let refuse = async {
        let mut peer = broker.connection().await;
        let register = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": "UNAUTHENTICATED", "ErrorMessage": "no such token" });
        peer.answer(&register, data).await;
        peer.close(4401, "unauthenticated").await;
    };
    let (client, ()) = tokio::join!(builder(&broker).connect(), refuse);
    let error = client.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unauthenticated));
    assert_eq!(error.to_string(), "UNAUTHENTICATED: no such token");
}

#[tokio::test]
async fn addresses_and_names_are_checked_first() {
    for url in ["http://127.0.0.1/ws", "wss://a_b!/ws", "127.0.0.1:7420", "ws://me:secret@127.0.0.1/ws"] {
        let error = Client::builder(url).source("softphone").connect().await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(words) if !words.contains("secret")), "{url}: {error}");
    }
    let error = Client::builder("ws://127.0.0.1/ws").connect().await.unwrap_err();
    assert_eq!(error.to_string(), "the source must not be empty");
}

#[tokio::test]
async fn close_unregisters_first() {
    let (_broker, client, mut peer) = session().await;
    let work = async {
        peer.expect("Broker/Application/Unregister").await;
        assert!(peer.is_closed().await);
    };
    tokio::join!(client.close(), work);
    assert!(matches!(client.state(), State::Closed { code: None, .. }));
    let error = client.publish(find(), json!(1)).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}

#[tokio::test]
async fn dropping_the_last_clone_closes_after_what_was_published() {
    let (_broker, client, mut peer) = session().await;
    let clone = client.clone();
    drop(client);
    clone.publish(find(), json!("last words")).await.unwrap();
    drop(clone);
    assert_eq!(peer.expect("Crm/Contact/Find").await["data"], "last words");
    assert!(peer.is_closed().await);
}
