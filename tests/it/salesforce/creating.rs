//! `Call/CreateObject`: the documented reply and event, and one record however often a request is asked.

use salesforce_stand_in::{Fault, Wrong};
use serde_json::{Value, json};

use super::desk::{CREATE, Desk, OBJECTS, create, failure, fields};
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

#[tokio::test]
async fn a_lost_answer_and_the_same_request_again_make_one_record() {
    for unique in [true, false] {
        let desk = Desk::with(OBJECTS, |seed| fields(seed, "Task")[0]["unique"] = json!(unique)).await;
        let mut gadget = desk.broker.app("gadget").await;
        gadget.subscribe(CREATE).await;
        let mut peer = desk.broker.app("myapp").await;
        // The record is made, and the connection ends before the org has said so.
        desk.org.fault(Fault::new(Wrong::Reset {}).times(1).path("/sobjects/Task"));
        let (code, message) = failure(&desk.ask(&mut peer, CREATE, "r1", task()).await, KEYS);
        assert!(code == "UPSTREAM_UNAVAILABLE" && message.contains("repeated with the same id"), "{message}");
        assert_eq!((desk.asked("POST", "/sobjects/Task"), desk.rows(TASKS).await.len()), (1, 1));
        gadget.expect_nothing().await;

        let told = desk.ask(&mut peer, CREATE, "r1", task()).await;
        let rows = desk.rows(TASKS).await;
        assert_eq!((rows.len(), &told["data"]["sfid"]), (1, &rows[0]["Id"]), "{told}");
        assert_eq!(gadget.next_on(CREATE).await["data"]["sfid"], rows[0]["Id"]);

        let calls = desk.org.calls();
        let again = desk.ask(&mut peer, CREATE, "r1", task()).await;
        assert_eq!((&again["data"], gadget.drain_events().await.len()), (&told["data"], 0));
        assert_eq!(desk.org.calls(), calls, "it is known here, and the org is not asked");
    }
}

#[tokio::test]
async fn a_restarted_broker_finds_the_record_and_does_not_overwrite_it() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let first = desk.ask(&mut peer, CREATE, "r1", task()).await;
    let desk = desk.restart(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let again = desk.ask(&mut peer, CREATE, "r1", create(json!({ "subject": "changed" }))).await;
    assert_eq!(again["data"]["sfid"], first["data"]["sfid"]);
    let rows = desk.rows(TASKS).await;
    assert_eq!((rows.len(), &rows[0]["Subject"]), (1, &json!("MyTask")));
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
        (create(json!({ "OwnerId": "x" })), "the variable 'OwnerId' is not mapped"),
        (create(json!({ "Switchboard_Request_Id__c": "x" })), "is not mapped"),
    ] {
        let (code, message) = failure(&desk.ask(&mut peer, CREATE, "c", data).await, KEYS);
        assert!(code == "FORBIDDEN" && message.contains(words), "{code}: {message}");
    }
    let (code, _) = failure(&desk.ask(&mut peer, CREATE, "c", json!({ "Name": "Task", "params": {} })).await, KEYS);
    assert_eq!((code.as_str(), desk.org.calls()), ("INVALID_ENVELOPE", 0));
}
