//! Each write to an org leaves an audit record: who, which record, the names of the fields, and the outcome.

use std::fs;

use salesforce_stand_in::{Fault, Wrong};
use serde_json::{Value, json};

use super::desk::{CASE, CREATE, Desk, OBJECTS, SAVE, UPDATE};
use crate::support::{envelope, within};

/// A value that no other text of these tests contains.
const VALUE: &str = "a customer's words";

fn records(desk: &Desk) -> Vec<Value> {
    let text = fs::read_to_string(desk.broker.data_dir().join("audit.jsonl")).unwrap();
    assert!(!text.contains(VALUE), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn records_become(desk: &Desk, count: usize) -> Vec<Value> {
    within("audit records", async {
        while records(desk).len() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
    records(desk)
}

#[tokio::test]
async fn an_update_and_a_creation_leave_a_record_without_values() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.raw("myapp").await;
    let session = peer.register("myapp", json!({ "user": "alice" })).await["data"]["SessionId"].clone();
    let params = json!({ "variable1": VALUE, "variable2": "New" });
    desk.ask(&mut peer, UPDATE, "u", json!({ "callId": "1", "Name": "Case", "sfid": CASE, "params": params })).await;
    let made = desk
        .ask(&mut peer, CREATE, "c", json!({ "callId": "1", "Name": "Task", "params": { "subject": VALUE } }))
        .await;
    desk.ask(&mut peer, UPDATE, "r", json!({ "callId": "1", "Name": "Case", "sfid": CASE, "params": { "x": VALUE } }))
        .await;
    desk.ask(&mut peer, UPDATE, "n", json!({ "callId": "1", "Name": "Account", "sfid": CASE, "params": {} })).await;

    // Refused by the router, before it reaches the adapter.
    peer.send(envelope(UPDATE, json!({ "id": "o", "source": "another", "data": {} }))).await;
    peer.next_answer(UPDATE, "o").await;

    let records = records_become(&desk, 5).await;
    let task = format!("Task/{}", made["data"]["sfid"].as_str().unwrap());
    let expected = [
        ("ok", format!("Case/{CASE}"), json!(["Subject", "Status"])),
        ("ok", task, json!(["Subject", "CallObject"])),
        ("FORBIDDEN", format!("Case/{CASE}"), json!([])),
        ("FORBIDDEN", UPDATE.to_owned(), json!([])),
        ("SOURCE_MISMATCH", UPDATE.to_owned(), json!([])),
    ];
    for (record, (outcome, target, fields)) in records.iter().zip(expected) {
        assert_eq!((&record["event"], &record["outcome"]), (&json!("write"), &json!(outcome)), "{record}");
        assert_eq!((&record["target"], &record["fields"]), (&json!(target), &fields), "{record}");
        let who = (&record["source"], &record["user"], &record["session"], &record["address"]);
        assert_eq!(who, (&json!("myapp"), &json!("alice"), &session, &json!("127.0.0.1")));
    }
}

#[tokio::test]
async fn an_update_names_every_field_that_it_wrote_or_was_to_write() {
    const ACCOUNT: &str = "001000000000009AAA";
    // The answer has a key `Name` of its own.
    let objects = "[salesforce.objects.Account]\nupdate = true\ncall_field = 'Description'\n\
                   fields = { name = 'Name', phone = 'Phone' }\n";
    let accounts = json!([{ "Id": ACCOUNT, "Name": "old" }]);
    let desk = Desk::with(objects, |seed| seed["records"]["Account"] = accounts).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    for wrong in [None, Some(Wrong::BrokenWrite { milliseconds: Some(0) })] {
        desk.ask(&mut peer, SAVE, "s", json!({ "callId": "1", "params": { "name": VALUE } })).await;
        if let Some(wrong) = wrong {
            desk.org.fault(Fault::new(wrong).times(1));
        }
        let params = json!({ "phone": "12" });
        let data = json!({ "callId": "1", "Name": "Account", "sfid": ACCOUNT, "params": params });
        desk.ask(&mut peer, UPDATE, "u", data).await;
        assert_eq!(desk.rows("SELECT Name FROM Account").await, [json!({ "Name": VALUE })]);
    }
    let records = records_become(&desk, 2).await;
    for (record, outcome) in records.iter().zip(["ok", "UPSTREAM_UNAVAILABLE"]) {
        let (target, fields) = (format!("Account/{ACCOUNT}"), json!(["Phone", "Name", "Description"]));
        assert_eq!((&record["outcome"], &record["target"]), (&json!(outcome), &json!(target)), "{record}");
        assert_eq!(record["fields"], fields, "{record}");
    }
}

#[tokio::test]
async fn a_write_that_an_event_causes_leaves_a_record_too() {
    let desk = Desk::start(&format!(
        "{OBJECTS}\n[salesforce.variables]\nwrite_on = [\"Phone/Call/Ended\"]\nstate = \"\"\ncall_id = \"callId\"\n"
    ))
    .await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    desk.ask(&mut peer, UPDATE, "u", json!({ "callId": "1", "Name": "Case", "sfid": CASE, "params": {} })).await;
    desk.ask(&mut peer, SAVE, "s", json!({ "callId": "1", "params": { "variable1": VALUE } })).await;
    peer.send(envelope("Phone/Call/Ended", json!({ "data": { "callId": "1" } }))).await;
    let mut records = records_become(&desk, 2).await;
    assert_eq!((&records[0]["fields"], &records[0]["source"]), (&json!([]), &json!("myapp")));
    let by = (&records[1]["source"], &records[1]["user"], &records[1]["session"]);
    assert_eq!(by, (&json!("switchboard"), &json!("alice"), &Value::Null));
    assert_eq!((&records[1]["target"], &records[1]["fields"]), (&json!(format!("Case/{CASE}")), &json!(["Subject"])));

    // One that the org refuses stays saved, and the record says what was to be written.
    desk.org.fault(Fault::new(Wrong::RecordLocked {}));
    desk.ask(&mut peer, SAVE, "s", json!({ "callId": "1", "params": { "variable2": VALUE } })).await;
    peer.send(envelope("Phone/Call/Ended", json!({ "data": { "callId": "1" } }))).await;
    records = records_become(&desk, 3).await;
    assert_ne!(records[2]["outcome"], "ok");
    assert_eq!((&records[2]["target"], &records[2]["fields"]), (&json!(format!("Case/{CASE}")), &json!(["Status"])));
}

#[tokio::test]
async fn a_creation_that_ends_after_its_answer_leaves_a_record_too() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.raw("myapp").await;
    let session = peer.register("myapp", json!({ "user": "alice" })).await["data"]["SessionId"].clone();
    desk.org.fault(Fault::new(Wrong::SlowTransaction { milliseconds: 2500 }).times(1));
    let params = json!({ "subject": VALUE });
    let told = desk.ask(&mut peer, CREATE, "c", json!({ "callId": "1", "Name": "Task", "params": params })).await;
    assert_eq!(told["data"]["ErrorCode"], "UPSTREAM_UNAVAILABLE", "{told}");
    let records = records_become(&desk, 2).await;
    assert_eq!((&records[0]["outcome"], &records[0]["source"]), (&json!("UPSTREAM_UNAVAILABLE"), &json!("myapp")));
    assert_eq!((&records[1]["outcome"], &records[1]["source"]), (&json!("ok"), &json!("myapp")));
    assert_eq!((&records[1]["session"], &records[1]["address"]), (&session, &json!("127.0.0.1")));
    let target = format!("Task/{}", desk.rows("SELECT Id FROM Task").await[0]["Id"].as_str().unwrap());
    assert_eq!((&records[1]["target"], &records[1]["user"]), (&json!(target), &json!("alice")));
    assert_eq!(records[1]["fields"], json!(["Subject", "CallObject"]));
}

#[tokio::test]
async fn a_creation_leaves_one_record_however_often_it_is_requested_and_a_record_that_was_found_leaves_none() {
    let desk = Desk::start(OBJECTS).await;
    let create = || json!({ "callId": "1", "Name": "Task", "params": { "subject": VALUE } });
    let refused = || json!({ "callId": "1", "Name": "Account", "sfid": CASE, "params": {} });
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    desk.org.fault(Fault::new(Wrong::Slow { milliseconds: 200 }).times(1).path("/sobjects/Task"));
    peer.send_all((0..3).map(|_| envelope(CREATE, json!({ "id": "c", "data": create() })))).await;
    for _ in 0..3 {
        peer.next_answer(CREATE, "c").await;
    }
    desk.ask(&mut peer, CREATE, "c", create()).await;
    desk.ask(&mut peer, UPDATE, "u", refused()).await;
    let outcomes = |records: &[Value]| records.iter().map(|it| it["outcome"].clone()).collect::<Vec<_>>();
    assert_eq!(outcomes(&records_become(&desk, 2).await), ["ok", "FORBIDDEN"]);

    let desk = desk.restart(OBJECTS).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    for _ in 0..2 {
        assert_eq!(desk.ask(&mut peer, CREATE, "c", create()).await["data"]["Success"], true);
    }
    desk.ask(&mut peer, UPDATE, "u", refused()).await;
    assert_eq!(outcomes(&records_become(&desk, 1).await), ["FORBIDDEN"], "this broker wrote nothing");
}
