//! `switchboard request`.

use super::*;

#[tokio::test]
async fn credentials_are_fetched_and_printed() {
    let broker = Broker::start().await;
    broker.credentials_set("alice", "1001", "secret", "5051").await;
    let outcome = run(&url(&broker), &["request", "Salesforce", "User", "FetchCredentials", "--user", "alice"]).await;
    outcome.has(0, "");
    assert_eq!(outcome.values()[0]["Password"], "secret");
    assert_eq!(outcome.stderr, "");
}

#[tokio::test]
async fn a_failure_is_printed_with_its_code() {
    let broker = Broker::start().await;
    let outcome = run(&url(&broker), &["request", "Salesforce", "User", "FetchCredentials"]).await;
    outcome.has(1, "");
    assert!(outcome.stderr.starts_with("CREDENTIALS_NOT_FOUND: "), "{outcome:?}");
    assert_eq!(outcome.values()[0]["Success"], false);
    let nobody = run(&url(&broker), &["request", "Crm", "Contact", "Find"]).await;
    nobody.has(1, "");
    assert!(nobody.stderr.starts_with("NO_HANDLER: "), "{nobody:?}");
}

#[tokio::test]
async fn no_answer_in_time_is_exit_code_4() {
    let broker = Broker::start().await;
    let mut silent = broker.app("silent").await;
    silent.handle("Crm/Contact/Find").await;
    let outcome = run(&url(&broker), &["request", "Crm", "Contact", "Find", "--timeout", "100ms"]).await;
    outcome.has(4, "");
    assert!(outcome.stderr.starts_with("REQUEST_TIMEOUT: "), "{outcome:?}");
}

#[tokio::test]
async fn a_handler_sees_the_requesters_id() {
    let broker = Broker::start().await;
    let mut handler = broker.app("handler").await;
    handler.handle("Crm/Contact/Find").await;
    let answer = async {
        let request = handler.next_on("Crm/Contact/Find").await;
        assert_eq!(request["requestId"], "mine");
        handler.reply(&request, json!({ "data": 1 })).await;
    };
    let url = url(&broker);
    let (outcome, ()) = tokio::join!(run(&url, &["request", "Crm", "Contact", "Find", "--id", "mine"]), answer);
    assert_eq!(outcome.values(), [json!(1)]);
}

#[tokio::test]
async fn options_are_fields_of_the_request() {
    let broker = FakeBroker::start().await;
    let what = ["request", "Crm", "Contact", "Find", "1", "--id", "r1", "--message", "--target", "crm"];
    let how = ["--timeout", "3s", "--gather", "--idempotent", "--for", "alice", "--json"];
    let line = [&what[..], &how].concat();
    let peer = async {
        let (mut peer, _) = broker.session().await;
        let request = peer.next().await;
        let expected = json!({ "channel": "Crm", "topic": "Contact", "subtopic": "Find", "source": "shell", "id": "r1",
            "message": 1, "target": "crm", "timeout": 3000, "gather": true, "idempotent": true, "user": "alice" });
        assert_eq!(request, expected);
        peer.answer_partly(&request, json!("one")).await;
        peer.answer(&request, json!({ "Success": true, "Expected": 1, "Answered": 1, "Failed": [] })).await;
        peer.expect("Broker/Application/Unregister").await;
        assert!(peer.is_closed().await);
    };
    let url = broker.url();
    let (outcome, ()) = tokio::join!(run(&url, &line), peer);
    outcome.has(0, "1 of 1 handlers answered");
    assert_eq!(outcome.values(), [json!("one")]);
}

#[tokio::test]
async fn each_partial_answer_is_a_line() {
    let broker = Broker::start().await;
    let mut handler = broker.app("handler").await;
    handler.handle("Crm/Contact/Find").await;
    let answer = async {
        let request = handler.next_on("Crm/Contact/Find").await;
        assert_eq!(request["data"], 42);
        handler.reply(&request, json!({ "data": "half", "more": true })).await;
        handler.reply(&request, json!({ "data": "whole" })).await;
    };
    let url = url(&broker);
    let asking = run(&url, &["request", "Crm", "Contact", "Find", "42"]);
    let (outcome, ()) = tokio::join!(asking, answer);
    assert_eq!((outcome.code, outcome.values()), (Some(0), vec![json!("half"), json!("whole")]));
}

#[tokio::test]
async fn gather_prints_the_answers_of_all_handlers() {
    let broker = Broker::start().await;
    let find = ["request", "Crm", "Contact", "Find", "--gather"];
    run(&url(&broker), &find).await.has(1, "NO_HANDLER: ");
    let handle = ["handle", "Crm", "Contact", "Find", "--reply"];
    let _one = Beside::start(&url(&broker), "one", &[&handle[..], &["1"]].concat()).await;
    let mut two = Beside::start(&url(&broker), "two", &[&handle[..], &["2"]].concat()).await;
    let outcome = run(&url(&broker), &find).await;
    outcome.has(0, "2 of 2 handlers answered");
    let mut answers = outcome.values();
    answers.sort_by_key(Value::as_u64);
    assert_eq!(answers, [1, 2]);
    two.signal("-INT").await;
    two.code().await;
    let envelopes = run(&url(&broker), &[&find[..], &["--envelope"]].concat()).await;
    assert_eq!((&envelopes.values()[0]["source"], &envelopes.values()[0]["data"]), (&json!("one"), &json!(1)));
}

#[tokio::test]
async fn ctrl_c_cancels() {
    let broker = Broker::start().await;
    let mut crm = broker.app("crm").await;
    crm.handle("Crm/Contact/Find").await;
    for more in [&[][..], &["--gather"]] {
        let line = [&["request", "Crm", "Contact", "Find"], more].concat();
        let mut asking = Beside::spawn(&url(&broker), "shell", &line);
        let request = crm.next_on("Crm/Contact/Find").await;
        asking.signal("-INT").await;
        assert_eq!((asking.told().await.as_str(), asking.code().await), ("cancelled", Some(1)));
        assert_eq!(crm.next_on("Broker/Request/Cancelled").await["inReplyTo"], request["id"]);
    }
}
