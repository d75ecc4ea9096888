//! Publishing events.

use super::*;

#[tokio::test]
async fn an_event_has_its_options() {
    let (_broker, client, mut peer) = session().await;
    client.publish(find(), ()).await.unwrap();
    let bare = json!({ "channel": "Crm", "topic": "Contact", "subtopic": "Find", "source": "softphone" });
    assert_eq!(peer.next().await, bare);
    client.publish(find(), json!(null)).retain().target("crm").user("bob").await.unwrap();
    let mut full = bare;
    for (key, value) in [("retain", json!(true)), ("target", "crm".into()), ("user", "bob".into())] {
        full[key] = value;
    }
    full["data"] = Value::Null;
    assert_eq!(peer.next().await, full);
}

#[tokio::test]
async fn a_receipt_has_the_number_of_receivers() {
    let (_broker, client, mut peer) = session().await;
    let give = async {
        let event = peer.next().await;
        let mut receipt = super::event("Broker/Message/Receipt", json!({ "Success": true, "Receivers": 2 }));
        receipt["inReplyTo"] = event["id"].clone();
        peer.say(receipt).await;
    };
    let (receipt, ()) = tokio::join!(client.publish(find(), json!(1)).receipt().into_future(), give);
    assert_eq!(receipt.unwrap().receivers, 2);
}

#[tokio::test]
async fn a_refusal_replaces_the_receipt() {
    let (_broker, client, mut peer) = session().await;
    let refuse = async {
        let event = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": "USER_REQUIRED", "ErrorMessage": "name a user" });
        let mut error = super::event("Broker/Message/Error", data);
        error["inReplyTo"] = event["id"].clone();
        peer.say(error).await;
    };
    let (receipt, ()) = tokio::join!(client.publish(find(), json!(1)).receipt().into_future(), refuse);
    assert_eq!(receipt.unwrap_err().code(), Some(ErrorCode::UserRequired));
}

#[tokio::test]
async fn a_message_over_the_limit_is_not_sent() {
    let (_broker, client, mut peer) = session().await;
    let error = client.publish(find(), json!("x".repeat(3000))).await.unwrap_err();
    assert!(matches!(&error, Error::Invalid(words) if words.contains("2048")), "{error}");
    for wrong in [Triple::new("Crm", "*", "Find"), Triple::new("Broker", "Contact", "Find")] {
        let error = client.publish(wrong, ()).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error}");
    }
    peer.receives_nothing().await;
}
