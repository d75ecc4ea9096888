//! Requests that a closure answers.

use switchboard_client::{Request, Serve};

use super::*;

#[tokio::test]
async fn a_closure_answers_or_fails() {
    let (_broker, client, mut peer) = session().await;
    let serve = client.serve("Crm/Contact/*".parse().unwrap(), async |request| match request.payload() {
        Some("1") => Ok(json!({ "from": request.source() }).into()),
        _ => Err(Failure::new("NOT_FOUND", "nobody has this number")),
    });
    let (serving, wanted) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    assert_eq!(wanted["role"], "handler");

    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    let answer = peer.expect("Crm/Contact/Find").await;
    assert_eq!((&answer["inReplyTo"], &answer["data"]), (&json!("r1"), &json!({ "from": "other" })));
    assert_eq!(answer["source"], "softphone");

    peer.say(request("Crm/Contact/Find", "r2", json!(2))).await;
    let failure = json!({ "Success": false, "ErrorCode": "NOT_FOUND", "ErrorMessage": "nobody has this number" });
    assert_eq!(peer.next().await["data"], failure);
}

#[tokio::test]
async fn an_event_with_its_publishers_id_is_not_a_request() {
    let (_broker, client, mut peer) = session().await;
    let serve = client.serve("Crm/*/*".parse().unwrap(), async |_| Ok(().into()));
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    let mut events = subscribe(&client, &mut peer, "Crm/*/*").await;
    let mut published = event("Crm/Contact/Changed", json!("event"));
    published["id"] = "theirs".into();
    peer.say(published).await;
    assert_eq!(next(&mut events).await, "event");
    peer.receives_nothing().await;
    peer.say(request("Crm/Contact/Find", "r1", json!("request"))).await;
    peer.say(event("Crm/Contact/Changed", json!("later"))).await;
    assert_eq!(peer.next().await["inReplyTo"], "r1");
    assert_eq!(next(&mut events).await, "later");
}

#[tokio::test]
async fn the_narrowest_handler_answers() {
    let (_broker, client, mut peer) = session().await;
    let mut serving = Vec::new();
    for pattern in ["*/*/*", "Crm/Contact/Find", "Crm/*/*"] {
        let serve = client.serve(pattern.parse().unwrap(), move |_| async move { Ok(json!(pattern).into()) });
        serving.push(tokio::join!(serve.into_future(), peer.grant()).0.unwrap());
    }
    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    assert_eq!(peer.next().await["data"], "Crm/Contact/Find");
}

#[tokio::test]
async fn partial_answers_are_sent_before_the_last_one() {
    let (_broker, client, mut peer) = session().await;
    let serve = client.serve("Crm/*/*".parse().unwrap(), async |request| {
        request.progress(json!("half")).await.map_err(|error| Failure::new("X", error.to_string()))?;
        Ok(json!("whole").into())
    });
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    let (half, whole) = (peer.next().await, peer.next().await);
    assert_eq!((&half["data"], &half["more"]), (&json!("half"), &json!(true)));
    assert_eq!((&whole["data"], &whole["more"]), (&json!("whole"), &Value::Null));
}

#[tokio::test]
async fn a_cancelled_request_is_not_answered() {
    let (_broker, client, mut peer) = session().await;
    let (told, mut hears) = mpsc::channel(1);
    let serve = client.serve("Crm/*/*".parse().unwrap(), move |request| {
        let told = told.clone();
        async move {
            request.cancelled().await;
            told.send(()).await.unwrap();
            Ok(json!("too late").into())
        }
    });
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    let mut cancelled = event("Broker/Request/Cancelled", json!({}));
    cancelled["inReplyTo"] = "r1".into();
    peer.say(cancelled).await;
    timeout(Duration::from_secs(5), hears.recv()).await.unwrap();
    peer.receives_nothing().await;
}

/// Checks that a handler which panics on a text answers it with `INTERNAL`, and the next request as usual.
async fn one_panic_ends_one_request<H, F>(peer: &mut Peer<TcpStream>, serve: Serve<'_, H>)
where
    H: Fn(Request) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Reply, Failure>> + Send + 'static,
{
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    peer.say(request("Crm/Contact/Find", "r1", json!("not a number"))).await;
    assert_eq!(peer.next().await["data"]["ErrorCode"], "INTERNAL");
    peer.say(request("Crm/Contact/Find", "r2", json!(2))).await;
    assert_eq!(peer.next().await["data"], 2);
}

#[tokio::test]
async fn a_panic_is_answered_with_internal() {
    let (_broker, client, mut peer) = session().await;
    let serve = client.serve("Crm/*/*".parse().unwrap(), async |request| {
        let number: u32 = request.data().expect("a number");
        Ok(json!(number).into())
    });
    one_panic_ends_one_request(&mut peer, serve).await;
}

#[tokio::test]
async fn a_closure_that_panics_before_it_returns_a_future_ends_one_request_only() {
    let (_broker, client, mut peer) = session().await;
    let serve = client.serve("Crm/*/*".parse().unwrap(), |request| {
        let number: u32 = request.data().expect("a number");
        async move { Ok(json!(number).into()) }
    });
    one_panic_ends_one_request(&mut peer, serve).await;
}

#[tokio::test]
async fn an_answer_can_be_on_another_triple_and_in_the_field_message() {
    let (_broker, client, mut peer) = session().await;
    let serve = client.serve("Cisco/User/Login".parse().unwrap(), async |_| {
        let payload = Payload::from(json!("welcome")).in_message();
        Ok(Reply::from(payload).on(&Triple::new("Cisco", "User", "LoginSuccess")))
    });
    let (serving, wanted) = tokio::join!(serve.ordered(["User/LoginSuccess"]).into_future(), peer.grant());
    let _serving = serving.unwrap();
    assert_eq!((&wanted["ordered"], &wanted["replies"]), (&json!(true), &json!(["User/LoginSuccess"])));
    peer.say(request("Cisco/User/Login", "r1", json!(1))).await;
    let answer = peer.expect("Cisco/User/LoginSuccess").await;
    assert_eq!((&answer["inReplyTo"], &answer["message"]), (&json!("r1"), &json!("welcome")));
    assert!(answer.get("data").is_none(), "{answer}");
}

/// The broker would close the connection because of them, or refuse them without telling the requester.
#[tokio::test]
async fn an_answer_that_cannot_be_sent_is_replaced_by_a_failure() {
    let (_broker, client, mut peer) = session().await;
    let serve = client.serve("Crm/*/*".parse().unwrap(), async |request| match request.payload() {
        Some("1") => Ok(json!("x".repeat(request.message_bytes_max())).into()),
        _ => Ok(Reply::from(json!(1)).on(&Triple::new("Broker", "User", "LoginSuccess"))),
    });
    let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
    let _serving = serving.unwrap();
    for (payload, code) in [(1, "TOO_LARGE"), (2, "INTERNAL")] {
        peer.say(request("Crm/Contact/Find", "r1", json!(payload))).await;
        let answer = peer.expect("Crm/Contact/Find").await;
        assert_eq!((&answer["inReplyTo"], &answer["data"]["ErrorCode"]), (&json!("r1"), &json!(code)), "{answer}");
    }
}

#[tokio::test]
async fn a_command_without_an_answer_gets_none() {
    let (_broker, client, mut peer) = session().await;
    let (told, mut hears) = mpsc::channel(1);
    let serve = client.serve("Crm/*/*".parse().unwrap(), move |request| {
        let told = told.clone();
        async move {
            told.send(request.payload().map(str::to_owned)).await.unwrap();
            Err(Failure::new("NOT_FOUND", "nobody reads this"))
        }
    });
    let (serving, wanted) = tokio::join!(serve.without_answers().into_future(), peer.grant());
    assert_eq!(wanted["answers"], false);
    peer.say(request("Crm/Object/Open", "r1", json!(1))).await;
    assert_eq!(timeout(Duration::from_secs(5), hears.recv()).await.unwrap().unwrap().as_deref(), Some("1"));
    peer.receives_nothing().await;
    let unsubscribed = peer.expect("Broker/Subscription/Unsubscribe");
    tokio::join!(serving.unwrap().stop(), unsubscribed);
}

#[tokio::test]
async fn stopping_waits_for_running_requests() {
    let (_broker, client, mut peer) = session().await;
    let (begun, mut begins) = mpsc::channel(1);
    let release = Arc::new(Notify::new());
    let gate = Arc::clone(&release);
    let serve = client.serve("Crm/*/*".parse().unwrap(), move |_| {
        let (begun, gate) = (begun.clone(), Arc::clone(&gate));
        async move {
            begun.send(()).await.unwrap();
            gate.notified().await;
            Ok(json!("done").into())
        }
    });
    let (serving, _) = tokio::join!(serve.concurrency(1).into_future(), peer.grant());
    peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
    begins.recv().await.unwrap();
    peer.say(request("Crm/Contact/Find", "r2", json!(1))).await;
    let work = async {
        let heard = [peer.next().await, peer.next().await];
        assert!(heard.iter().any(|it| triple(it) == "Broker/Subscription/Unsubscribe"), "{heard:?}");
        let gone = heard.iter().find(|it| it["inReplyTo"] == "r2").expect("the second request is answered");
        assert_eq!(gone["data"]["ErrorCode"], "HANDLER_GONE");
        release.notify_one();
        assert_eq!(peer.next().await["data"], "done");
    };
    tokio::join!(serving.unwrap().stop(), work);
}

/// The broker sends requests until it has handled Unsubscribe, which waits for the replies to Subscribe.
#[tokio::test]
async fn a_request_for_a_stopped_handler_is_not_for_another_spelling() {
    let (_broker, client, mut peer) = session().await;
    let mut serving = Vec::new();
    for pattern in ["Crm/Contact/*", "Crm/contact/*"] {
        let serve = client.serve(pattern.parse().unwrap(), move |_| async move { Ok(json!(pattern).into()) });
        serving.push(tokio::join!(serve.into_future(), peer.grant()).0.unwrap());
    }
    let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).into_future();
    let stop = async {
        let subscribe = peer.expect("Broker/Subscription/Subscribe").await;
        serving.remove(0).stop().await;
        peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
        let answer = peer.next().await;
        assert_eq!((&answer["inReplyTo"], &answer["data"]["ErrorCode"]), (&json!("r1"), &json!("HANDLER_GONE")));
        peer.answer(&subscribe, json!({ "Success": true, "ErrorMessage": null, "SubscriptionId": "3" })).await;
    };
    let (_subscription, ()) = tokio::join!(subscribing, stop);
    let unsubscribe = peer.expect("Broker/Subscription/Unsubscribe").await;
    for (id, written, expected) in [("r2", "Crm/Contact/Find", None), ("r3", "Crm/contact/Find", Some("Crm/contact/*"))]
    {
        peer.say(request(written, id, json!(1))).await;
        let answer = peer.next().await;
        let data = &answer["data"];
        assert_eq!((&answer["inReplyTo"], data.as_str()), (&json!(id), expected), "{data}");
    }
    peer.answer(&unsubscribe, json!({ "Success": true, "ErrorMessage": null })).await;
}
