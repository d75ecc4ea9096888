//! `Call/CreateObject`: the documented reply and event, and one record however often a request is asked.

use salesforce_stand_in::{Fault, Wrong};
use serde_json::{Value, json};

use super::desk::{CREATE, Desk, OBJECTS, SAVE, UPDATE, create, failure, fields, update};
use crate::support::{Peer, application, envelope};

const KEYS: &[&str] = &["callId", "Name", "OId", "sfid", "DisplayField", "DisplayValue"];
const TASKS: &str = "SELECT Id, Subject FROM Task";

fn task() -> Value {
    create(json!({ "subject": "MyTask", "disposition": "done" }))
}

/// The answer and the events of the triple that come for a peer, in whatever order.
async fn split(peer: &mut Peer, count: usize) -> (Vec<Value>, Vec<Value>) {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(peer.next_on(CREATE).await);
    }
    all.into_iter().partition(|it| it["data"].get("Success").is_some())
}

#[tokio::test]
async fn a_record_is_made_answered_and_told_to_the_users_applications() {
    let desk = Desk::start(OBJECTS).await;
    let mut gadget = desk.broker.app("gadget").await;
    gadget.subscribe("Salesforce/Call/*").await;
    let mut other = desk.broker.app_of("gadget", "bob").await;
    other.subscribe("*/*/*").await;
    let mut peer = desk.broker.app("myapp").await;
    peer.subscribe(CREATE).await;
    peer.send_text(
        r#"{"channel":"Salesforce","topic":"Call","subtopic":"CreateObject","source":"myapp",
        "data":{"callId":"12345","Name":"Task","OId":"SF1","params":{"subject":"MyTask","disposition":"done","duration":65}}}"#,
    )
    .await;
    let (answers, events) = split(&mut peer, 2).await;
    let sfid = desk.rows(TASKS).await[0]["Id"].as_str().unwrap().to_owned();
    let shown = r#""DisplayField":"Subject","DisplayValue":"MyTask""#;
    let fields = r#""Subject":"MyTask","CallDisposition":"done","CallDurationInSeconds":65,"CallObject":"12345""#;
    let head = r#"{"channel":"Salesforce","topic":"Call","subtopic":"CreateObject""#;
    let about = format!(r#""callId":"12345","Name":"Task","OId":"SF1","sfid":"{sfid}",{shown}"#);
    assert_eq!(
        answers[0].to_string(),
        format!(r#"{head},"data":{{{about},"Success":true,"ErrorMessage":null,{fields}}}}}"#)
    );
    let event = format!(r#"{head},"data":{{{about},{fields}}},"source":"switchboard"}}"#);
    assert_eq!(events[0].to_string(), event);
    assert_eq!(gadget.next_on(CREATE).await.to_string(), event);
    other.expect_nothing().await;
    let row = desk.rows("SELECT Subject, CallDisposition, CallDurationInSeconds, CallObject FROM Task").await;
    let expected =
        json!({ "Subject": "MyTask", "CallDisposition": "done", "CallDurationInSeconds": 65, "CallObject": "12345" });
    assert_eq!(row, [expected]);
}

#[tokio::test]
async fn a_service_makes_records_for_users_and_hears_whose_they_are() {
    let applications =
        [application("cti", None, ""), application("phone", Some("alice"), ""), application("crm", Some("bob"), "")];
    let desk = Desk::with_tokens(&format!("{OBJECTS}{}", applications.concat())).await;
    let (mut phone, mut crm) = (desk.broker.app_by_token("phone").await, desk.broker.app_by_token("crm").await);
    phone.subscribe(CREATE).await;
    crm.subscribe(CREATE).await;
    let mut cti = desk.broker.app_by_token("cti").await;
    let (code, _) = failure(&desk.ask(&mut cti, CREATE, "c", task()).await, KEYS);
    assert_eq!(code, "USER_REQUIRED");
    cti.subscribe(CREATE).await;
    cti.send(envelope(CREATE, json!({ "id": "c", "user": "alice", "data": task() }))).await;
    let (answers, events) = split(&mut cti, 2).await;
    assert_eq!((&answers[0]["inReplyTo"], &events[0]["user"]), (&json!("c"), &json!("alice")));
    let heard = phone.next_on(CREATE).await;
    assert_eq!((&heard["data"]["sfid"], heard.get("user")), (&answers[0]["data"]["sfid"], None));
    crm.expect_nothing().await;
}

/// Task's External ID field as Setup often has it: not unique.
async fn not_unique(objects: &str) -> Desk {
    Desk::with(objects, |seed| fields(seed, "Task")[0]["unique"] = json!(false)).await
}

/// A failure that says that the outcome is not known yet.
#[track_caller]
fn not_known(answer: &Value) {
    let (code, message) = failure(answer, KEYS);
    assert!(code == "UPSTREAM_UNAVAILABLE" && message.contains("has not said yet"), "{code}: {message}");
}

#[tokio::test]
async fn a_record_whose_answer_was_lost_is_found_and_a_repeated_request_makes_no_second_one() {
    for unique in [true, false] {
        let desk = Desk::with(OBJECTS, |seed| fields(seed, "Task")[0]["unique"] = json!(unique)).await;
        let mut gadget = desk.broker.app("gadget").await;
        gadget.subscribe(CREATE).await;
        let mut peer = desk.broker.app("myapp").await;
        // The record is made, and the connection ends before the org has said so.
        desk.org.fault(Fault::new(Wrong::BrokenWrite { milliseconds: Some(0) }).times(1));
        let told = desk.ask(&mut peer, CREATE, "r1", task()).await;
        let rows = desk.rows(TASKS).await;
        assert_eq!((rows.len(), &told["data"]["sfid"]), (1, &rows[0]["Id"]), "{told}");
        assert_eq!(gadget.next_on(CREATE).await["data"]["sfid"], rows[0]["Id"]);

        let calls = desk.org.calls();
        let again = desk.ask(&mut peer, CREATE, "r1", task()).await;
        assert_eq!((&again["data"], gadget.drain_events().await.len()), (&told["data"], 0));
        assert_eq!(desk.org.calls(), calls, "it is known here, and the org is not asked");
        assert_eq!(desk.asked("POST", "/sobjects/Task"), 1);
    }
}

#[tokio::test]
async fn creations_without_an_id_do_not_displace_remembered_outcomes() {
    let desk = Desk::start(&format!("{OBJECTS}[salesforce.creations]\nremembered = 3\n")).await;
    let mut gadget = desk.broker.app("gadget").await;
    gadget.subscribe(CREATE).await;
    let mut peer = desk.broker.app("myapp").await;
    let first = desk.ask(&mut peer, CREATE, "r1", task()).await;
    for _ in 0..3 {
        peer.send(envelope(CREATE, json!({ "data": task() }))).await;
        let answer = peer.next_on(CREATE).await;
        assert_eq!(answer["data"]["Success"], true, "{answer}");
    }
    for _ in 0..4 {
        gadget.next_on(CREATE).await;
    }
    let calls = desk.org.calls();
    let again = desk.ask(&mut peer, CREATE, "r1", task()).await;
    assert_eq!((&again["data"], desk.org.calls()), (&first["data"], calls));
    gadget.expect_nothing().await;
}

#[tokio::test]
async fn a_slow_transaction_makes_one_record_and_a_repeated_request_joins_it() {
    let desk = not_unique(OBJECTS).await;
    let mut gadget = desk.broker.app("gadget").await;
    gadget.subscribe(CREATE).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.org.fault(Fault::new(Wrong::SlowTransaction { milliseconds: 3000 }));
    not_known(&desk.ask(&mut peer, CREATE, "r1", task()).await);
    let told = desk.ask(&mut peer, CREATE, "r1", task()).await;
    let rows = desk.rows(TASKS).await;
    assert_eq!((rows.len(), &told["data"]["sfid"]), (1, &rows[0]["Id"]), "{told}");
    assert_eq!(gadget.next_on(CREATE).await["data"]["sfid"], rows[0]["Id"]);
    gadget.expect_nothing().await;
    assert_eq!(desk.asked("POST", "/sobjects/Task"), 1);
}

#[tokio::test]
async fn a_record_whose_requester_no_longer_waits_is_announced_and_belongs_to_its_call() {
    let desk = Desk::start(&format!("{OBJECTS}[salesforce.variables]\nwrite_on = ['Cisco/Call/Ended']\n")).await;
    let mut peer = desk.broker.app("myapp").await;
    peer.subscribe(CREATE).await;
    desk.org.fault(Fault::new(Wrong::SlowTransaction { milliseconds: 2500 }).times(1));
    not_known(&desk.ask(&mut peer, CREATE, "r1", task()).await);
    let event = peer.next_on(CREATE).await;
    assert_eq!(
        (&event["data"]["sfid"], &event["data"]["Subject"]),
        (&desk.rows(TASKS).await[0]["Id"], &json!("MyTask"))
    );
    let saved = json!({ "callId": "12345", "params": { "disposition": "sold" } });
    desk.ask(&mut peer, SAVE, "s", saved).await;
    peer.publish("Cisco/Call/Ended", json!({ "callId": "12345" })).await;
    desk.rows_become("SELECT CallDisposition FROM Task", json!([{ "CallDisposition": "sold" }])).await;
}

#[tokio::test]
async fn a_write_that_takes_effect_after_its_connection_broke_makes_one_record() {
    let desk = not_unique(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.org.fault(Fault::new(Wrong::BrokenWrite { milliseconds: Some(2500) }).times(1));
    not_known(&desk.ask(&mut peer, CREATE, "r1", task()).await);
    let told = desk.ask(&mut peer, CREATE, "r1", task()).await;
    let rows = desk.rows(TASKS).await;
    assert_eq!((rows.len(), &told["data"]["sfid"]), (1, &rows[0]["Id"]), "{told}");
    assert_eq!(desk.asked("POST", "/sobjects/Task"), 1);
}

#[tokio::test]
async fn a_write_with_an_unclear_answer_is_looked_for_and_not_repeated() {
    let location = "http://127.0.0.1:9/".to_owned();
    let each = [
        Wrong::BrokenWrite { milliseconds: None },
        Wrong::Redirect { location },
        Wrong::HugeBody { bytes: 2_000_000 },
        Wrong::HtmlBody { status: 502 },
        Wrong::HtmlBody { status: 200 },
        Wrong::EmptyBody {},
    ];
    let each = each.map(async |wrong| {
        let desk = not_unique(OBJECTS).await;
        let mut peer = desk.broker.app("myapp").await;
        desk.org.fault(Fault::new(wrong.clone()).method("POST").path("/sobjects/Task"));
        for _ in 0..2 {
            not_known(&desk.ask(&mut peer, CREATE, "r1", task()).await);
        }
        let looked = desk.asked("GET", "/Switchboard_Request_Id__c/");
        assert!(desk.asked("POST", "/sobjects/Task") == 1 && looked >= 3, "{wrong:?}: {looked}");
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn a_restarted_broker_answers_with_what_is_in_the_org() {
    for unique in [true, false] {
        let desk = Desk::with(OBJECTS, |seed| fields(seed, "Task")[0]["unique"] = json!(unique)).await;
        let mut peer = desk.broker.app("myapp").await;
        let first = desk.ask(&mut peer, CREATE, "r1", task()).await;
        let desk = desk.restart(OBJECTS).await;
        let mut peer = desk.broker.app("myapp").await;
        let other = create(json!({ "duration": 5, "subject": "changed" }));
        let told = desk.ask(&mut peer, CREATE, "r1", other).await;
        let shown = r#""DisplayField":"Subject","DisplayValue":"MyTask","Success":true,"ErrorMessage":null"#;
        let fields = r#""CallDurationInSeconds":null,"Subject":"MyTask","CallObject":"12345","CallDisposition":"done""#;
        let sfid = &first["data"]["sfid"];
        let about = format!(r#""callId":"12345","Name":"Task","OId":"SF1","sfid":{sfid}"#);
        assert_eq!(told["data"].to_string(), format!("{{{about},{shown},{fields}}}"));
        assert_eq!((desk.rows(TASKS).await.len(), desk.asked("POST", "/sobjects/Task")), (1, 1));
    }
}

#[tokio::test]
async fn a_record_of_an_earlier_broker_is_read_once_for_all_repetitions() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, CREATE, "r1", task()).await;
    let desk = desk.restart(OBJECTS).await;
    let mut gadget = desk.broker.app("gadget").await;
    gadget.subscribe(CREATE).await;
    let mut peer = desk.broker.app("myapp").await;
    let first = desk.ask(&mut peer, CREATE, "r1", task()).await;
    assert_eq!(gadget.next_on(CREATE).await["data"]["sfid"], first["data"]["sfid"]);
    let calls = desk.org.calls();
    for _ in 0..3 {
        assert_eq!(desk.ask(&mut peer, CREATE, "r1", task()).await["data"], first["data"]);
    }
    assert_eq!(desk.org.calls(), calls, "the answer is known here");
    gadget.expect_nothing().await;
}

#[tokio::test]
async fn a_record_whose_values_could_not_be_read_is_announced_when_they_are() {
    let desk = not_unique(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let made = desk.ask(&mut peer, CREATE, "r1", task()).await;
    let desk = desk.restart(OBJECTS).await;
    let mut gadget = desk.broker.app("gadget").await;
    gadget.subscribe(CREATE).await;
    let mut peer = desk.broker.app("myapp").await;
    let (code, message) = ("UNKNOWN_EXCEPTION".to_owned(), "a formula field".to_owned());
    let path = format!("/sobjects/Task/{}", made["data"]["sfid"].as_str().unwrap());
    desk.org.fault(Fault::new(Wrong::Error { status: 500, code, message }).times(1).method("GET").path(&path));
    assert_eq!(failure(&desk.ask(&mut peer, CREATE, "r1", task()).await, KEYS).0, "UPSTREAM_UNAVAILABLE");
    let told = desk.ask(&mut peer, CREATE, "r1", task()).await;
    assert_eq!(told["data"]["sfid"], made["data"]["sfid"], "{told}");
    let event = gadget.next_on(CREATE).await;
    assert_eq!((&event["data"]["sfid"], &event["data"]["Subject"]), (&made["data"]["sfid"], &json!("MyTask")));
    gadget.expect_nothing().await;
    assert_eq!(desk.asked("POST", "/sobjects/Task"), 1);
}

#[tokio::test]
async fn an_id_that_was_used_for_other_values_is_refused() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, CREATE, "1", task()).await;
    let other = create(json!({ "subject": "SECOND TASK", "disposition": "done", "duration": 5 }));
    let (code, message) = failure(&desk.ask(&mut peer, CREATE, "1", other).await, KEYS);
    assert!(code == "INVALID_ENVELOPE" && message.contains("'duration', 'subject'"), "{code}: {message}");
    assert!(!message.contains("SECOND"), "{message}");
    // It holds while the first request is under way, too.
    desk.org.fault(Fault::new(Wrong::SlowTransaction { milliseconds: 300 }));
    peer.send(envelope(CREATE, json!({ "id": "2", "data": task() }))).await;
    let other = create(json!({ "subject": "MyTask" }));
    peer.send(envelope(CREATE, json!({ "id": "2", "data": other }))).await;
    assert_eq!(failure(&peer.next_answer(CREATE, "2").await, KEYS).0, "INVALID_ENVELOPE");
    assert_eq!(peer.next_answer(CREATE, "2").await["data"]["Success"], true);
    assert_eq!(desk.rows(TASKS).await.len(), 2);
}

#[tokio::test]
async fn slow_creations_of_one_user_are_bounded_and_leave_room_for_others() {
    let desk = Desk::start(&format!("{OBJECTS}[salesforce.creations]\nof_user = 2\n")).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.org.fault(Fault::new(Wrong::SlowTransaction { milliseconds: 4000 }).path("/sobjects/Task"));
    for id in ["1", "2", "3"] {
        peer.send(envelope(CREATE, json!({ "id": id, "data": task() }))).await;
    }
    let (code, message) = failure(&peer.next_on(CREATE).await, KEYS);
    assert!(code == "TOO_MANY_REQUESTS" && message.contains("salesforce.creations.of_user"), "{code}: {message}");
    let mut bob = desk.broker.app_of("myapp", "bob").await;
    for id in ["1", "2"] {
        bob.send(envelope(CREATE, json!({ "id": id, "data": task() }))).await;
    }
    // Else the change might wait for its turn since before the creations have theirs, and run out of time with them.
    desk.seen("POST", "/sobjects/Task", 4).await;
    // Four writes at once are half of `concurrency`; what runs on gives its turn to others.
    let mut other = desk.broker.app_of("other", "bob").await;
    let written = desk.ask(&mut other, UPDATE, "u", update(json!({ "variable1": "x" }))).await;
    assert_eq!(written["data"]["Success"], true, "{written}");
}

#[tokio::test]
async fn those_who_ask_the_same_at_once_share_one_exchange() {
    let desk = Desk::start(OBJECTS).await;
    let mut gadget = desk.broker.app("gadget").await;
    gadget.subscribe(CREATE).await;
    desk.org.fault(Fault::new(Wrong::Slow { milliseconds: 200 }).path("/sobjects/Task"));
    let (mut one, mut two) = (desk.broker.app("myapp").await, desk.broker.app("myapp").await);
    let asked = || (0..10).map(|_| envelope(CREATE, json!({ "id": "r1", "data": task() })));
    one.send_all(asked()).await;
    two.send_all(asked()).await;
    let mut ids = Vec::new();
    for peer in [&mut one, &mut two] {
        for _ in 0..10 {
            ids.push(peer.next_answer(CREATE, "r1").await["data"]["sfid"].clone());
        }
    }
    let rows = desk.rows(TASKS).await;
    assert_eq!(rows.len(), 1);
    assert!(ids.iter().all(|id| *id == rows[0]["Id"]), "{ids:?}");
    assert_eq!(desk.asked("POST", "/sobjects/Task"), 1);
    gadget.next_on(CREATE).await;
    gadget.expect_nothing().await;
}

#[tokio::test]
async fn another_request_is_another_record() {
    let desk = Desk::start(OBJECTS).await;
    let mut one = desk.broker.app("myapp").await;
    let mut other = desk.broker.app("other").await;
    let mut bob = desk.broker.app_of("myapp", "bob").await;
    desk.ask(&mut one, CREATE, "1", task()).await;
    desk.ask(&mut one, CREATE, "2", task()).await;
    desk.ask(&mut other, CREATE, "1", task()).await;
    desk.ask(&mut bob, CREATE, "1", task()).await;
    // A page that begins to count its ids anew is in another call by then.
    let mut later = task();
    later["callId"] = json!("12346");
    desk.ask(&mut one, CREATE, "1", later).await;
    // Without an id nothing is known again.
    for _ in 0..2 {
        one.send(envelope(CREATE, json!({ "data": task() }))).await;
        assert_eq!(one.next_on(CREATE).await["data"]["Success"], true);
    }
    assert_eq!(desk.rows(TASKS).await.len(), 7);
}

#[tokio::test]
async fn a_duplicate_of_another_field_is_refused_and_so_is_what_the_org_does_not_take() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, CREATE, "1", create(json!({ "kind": "one" }))).await;
    for (params, words) in [
        (json!({ "kind": "one" }), "there is such a record already (DUPLICATE_VALUE)"),
        (json!({ "kind": "longer than ten" }), "(STRING_TOO_LONG: Kind__c)"),
        (json!({ "who": "003000000000999" }), "(INVALID_CROSS_REFERENCE_KEY: WhoId)"),
    ] {
        let (code, message) = failure(&desk.ask(&mut peer, CREATE, "2", create(params)).await, KEYS);
        assert!(code == "UPSTREAM_REJECTED" && message.contains(words), "{code}: {message}");
    }
    // What was refused may be asked better, with the same id.
    let told = desk.ask(&mut peer, CREATE, "2", create(json!({ "kind": "two" }))).await;
    assert_eq!(told["data"]["Success"], true, "{told}");
    assert_eq!((&told["data"]["DisplayField"], &told["data"]["DisplayValue"]), (&json!("Subject"), &Value::Null));
}

#[tokio::test]
async fn only_what_is_configured_may_be_made() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    for (data, words) in [
        (json!({ "callId": "1", "Name": "Case", "params": {} }), "create = true in [salesforce.objects.Case]"),
        (json!({ "callId": "1", "Name": "User", "params": {} }), "create = true in [salesforce.objects.User]"),
        (json!({ "callId": "1", "Name": "task", "OId": "SF9", "params": {} }), "(did you mean 'Task'?)"),
        (create(json!({ "OwnerId": "x" })), "the variable 'OwnerId' is not mapped"),
        (create(json!({ "Switchboard_Request_Id__c": "x" })), "is not mapped"),
    ] {
        let answer = desk.ask(&mut peer, CREATE, "c", data.clone()).await;
        let repeated = |key: &str| answer["data"][key] == data[key];
        assert!(["callId", "Name", "OId", "sfid"].into_iter().all(repeated), "{answer}");
        let (code, message) = failure(&answer, KEYS);
        assert!(code == "FORBIDDEN" && message.contains(words), "{code}: {message}");
    }
    let (code, _) = failure(&desk.ask(&mut peer, CREATE, "c", json!({ "Name": "Task", "params": {} })).await, KEYS);
    assert_eq!((code.as_str(), desk.org.calls()), ("INVALID_ENVELOPE", 0));
}
