//! Requests and their answers.

use super::*;

#[tokio::test]
async fn a_request_always_has_a_timeout() {
    let (_broker, client, mut peer) = session().await;
    let answer = async {
        let request = peer.next().await;
        // As the vendor answers: on another topic.
        let mut reply = event("Crm/Contact/Found", json!({ "Name": "Ada" }));
        reply["inReplyTo"] = request["id"].clone();
        peer.say(reply).await;
        request
    };
    let asking = client.request(find(), json!(1)).timeout(Duration::from_secs(3)).idempotent().target("crm");
    let (reply, request) = tokio::join!(asking.into_future(), answer);
    assert_eq!(reply.unwrap().data::<Value>().unwrap()["Name"], "Ada");
    assert_eq!((&request["timeout"], &request["target"]), (&json!(3000), &json!("crm")));
    assert_eq!((&request["idempotent"], &request["gather"]), (&json!(true), &Value::Null));
}

#[tokio::test]
async fn success_false_is_a_refusal_that_keeps_its_answer() {
    let (_broker, client, mut peer) = session().await;
    let refuse = async {
        let request = peer.next().await;
        let data = json!({ "Username": null, "Success": false, "ErrorMessage": "unknown agent" });
        peer.answer(&request, data).await;
    };
    let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), refuse);
    let Err(Error::Refused(failure)) = reply else { panic!("no refusal") };
    assert_eq!((failure.code(), failure.message()), (None, "unknown agent"));
    assert!(failure.reply().unwrap().payload().unwrap().contains("Username"));
}

#[tokio::test]
async fn partial_answers_arrive_one_by_one() {
    let (_broker, client, mut peer) = session().await;
    let answer = async {
        let request = peer.next().await;
        peer.answer_partly(&request, json!(1)).await;
        peer.answer_partly(&request, json!(2)).await;
        peer.answer(&request, json!(3)).await;
    };
    let ask = async {
        let answers = client.request(find(), ()).answers().await.unwrap().into_stream();
        answers.map(|answer| answer.unwrap().data::<u32>().unwrap()).collect::<Vec<_>>().await
    };
    assert_eq!(tokio::join!(ask, answer).0, [1, 2, 3]);
}

#[tokio::test]
async fn gathered_answers_end_with_the_summary() {
    let (_broker, client, mut peer) = session().await;
    let answer = async {
        let request = peer.next().await;
        assert_eq!(request["gather"], true);
        peer.answer_partly(&request, json!("a")).await;
        let data = json!({
            "Success": true, "ErrorMessage": null, "Expected": 2, "Answered": 1,
            "Failed": [{ "Source": "crm", "ErrorCode": "HANDLER_GONE" }],
        });
        peer.answer(&request, data).await;
    };
    let ask = async {
        let gather = client.request(find(), ()).gather().await.unwrap().into_stream();
        gather.map(Result::unwrap).collect::<Vec<_>>().await
    };
    let (items, ()) = tokio::join!(ask, answer);
    let [Gathered::Answer(first), Gathered::End(summary)] = &items[..] else { panic!("{items:?}") };
    assert_eq!(first.payload(), Some("\"a\""));
    assert_eq!((summary.expected, summary.answered), (2, 1));
    assert_eq!(summary.failed[0].code(), Some(ErrorCode::HandlerGone));
}

#[tokio::test]
async fn dropping_a_request_cancels_it() {
    let (_broker, client, mut peer) = session().await;
    let asking = timeout(Duration::from_millis(50), client.request(find(), ()).into_future());
    assert!(asking.await.is_err());
    let request = peer.expect("Crm/Contact/Find").await;
    let cancel = peer.expect("Broker/Request/Cancel").await;
    assert_eq!(cancel["data"], json!({ "id": request["id"] }));
}

#[tokio::test]
async fn an_answered_request_is_not_cancelled() {
    let (_broker, client, mut peer) = session().await;
    let answer = async {
        let request = peer.next().await;
        peer.answer(&request, json!(1)).await;
    };
    let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), answer);
    reply.unwrap();
    peer.receives_nothing().await;
}

#[tokio::test]
async fn a_lost_connection_fails_pending_requests() {
    let (_broker, client, mut peer) = session().await;
    let lose = async {
        peer.next().await;
        drop(peer);
    };
    let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), lose);
    assert!(matches!(reply, Err(Error::OutcomeUnknown)), "{reply:?}");
    // And what is asked meanwhile fails at once.
    let error = client.request(find(), ()).await.unwrap_err();
    assert!(matches!(error, Error::Disconnected), "{error}");
}
