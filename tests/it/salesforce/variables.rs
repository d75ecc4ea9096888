//! `Call/SaveCustomVariables` and `RemoveCustomVariables`: kept for a user's call, written on its event or with an update.

use std::time::Duration;

use salesforce_stand_in::{Fault, Wrong};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use super::desk::{CASE, CREATE, Desk, OBJECTS, REMOVE, SAVE, UPDATE, create, failure, update};
use crate::support::{Peer, envelope, within};

const ENDED: &str = "Cisco/InboundCall/CallEnded";
const CASES: &str = "SELECT Subject, Status FROM Case";
const KEYS: &[&str] = &["callId", "params"];

fn objects(variables: &str) -> String {
    format!("{OBJECTS}[salesforce.variables]\nwrite_on = ['{ENDED}']\n{variables}\n")
}

async fn save(desk: &Desk, peer: &mut Peer, params: Value) {
    let told = desk.ask(peer, SAVE, "s", json!({ "callId": "12345", "params": params })).await;
    assert_eq!(told["data"]["Success"], true, "{told}");
}

/// An event has gone all its way: one after it, of a call that nobody knows, was looked at.
async fn settled(peer: &mut Peer) {
    peer.fence().await;
    sleep_until(Instant::now() + Duration::from_millis(150)).await;
}

#[tokio::test]
async fn the_documented_requests_are_answered_as_documented() {
    let desk = Desk::start(&objects("")).await;
    let mut peer = desk.broker.app("myapp").await;
    for (subtopic, params) in [
        ("SaveCustomVariables", r#"{"variable1":"Value 1","variable2":"Value 2"}"#),
        ("RemoveCustomVariables", r#"["variable2","variable3"]"#),
        ("RemoveCustomVariables", r#"{"variable1":null}"#),
    ] {
        let head = format!(r#"{{"channel":"Salesforce","topic":"Call","subtopic":"{subtopic}""#);
        peer.send_text(&format!(r#"{head},"source":"myapp","data":{{"callId":"12345","params":{params}}}}}"#)).await;
        let documented =
            format!(r#"{head},"data":{{"callId":"12345","params":{params},"Success":true,"ErrorMessage":null}}}}"#);
        assert_eq!(peer.next().await.to_string(), documented);
    }
    assert_eq!(desk.org.calls(), 0, "the org is not asked");
}

#[tokio::test]
async fn variables_are_written_on_the_event_to_the_record_that_an_update_named_and_only_once() {
    let desk = Desk::start(&objects("")).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    assert_eq!(desk.asked("PATCH", "/Case/"), 0, "there was nothing to write");
    save(&desk, &mut peer, json!({ "variable1": "v1", "variable2": "v2", "disposition": "a task's" })).await;
    save(&desk, &mut peer, json!({ "variable2": "v3" })).await;
    desk.ask(&mut peer, REMOVE, "r", json!({ "callId": "12345", "params": ["variable1"] })).await;
    peer.publish(ENDED, json!({ "CALLID": "99999" })).await;
    peer.publish(ENDED, json!({ "callID": "12345" })).await;
    desk.rows_become(CASES, json!([{ "Subject": "old", "Status": "v3" }])).await;
    peer.publish(ENDED, json!({ "callID": "12345" })).await;
    settled(&mut peer).await;
    assert_eq!(desk.asked("PATCH", "/Case/"), 1, "what is written is dropped");
    let log = desk.broker.log();
    assert!(!log.contains("v3") && !log.contains("a task's"), "{log}");
}

#[tokio::test]
async fn a_made_record_and_one_that_bears_the_calls_id_are_the_calls_too() {
    let desk = Desk::start(&objects("object = 'Task'")).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, CREATE, "c", create(json!({ "subject": "mine" }))).await;
    save(&desk, &mut peer, json!({ "disposition": "known" })).await;
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    let tasks = "SELECT CallDisposition FROM Task";
    desk.rows_become(tasks, json!([{ "CallDisposition": "known" }])).await;

    let desk = desk.restart(&objects("object = 'Task'")).await;
    let mut peer = desk.broker.app("myapp").await;
    save(&desk, &mut peer, json!({ "disposition": "looked for" })).await;
    for id in ["1234", "12345' OR Id != '", "%", "1234\\' OR CallObject != '"] {
        save_for(&desk, &mut peer, id).await;
        peer.publish(ENDED, json!({ "callId": id })).await;
    }
    settled(&mut peer).await;
    assert_eq!(desk.rows(tasks).await, [json!({ "CallDisposition": "known" })], "nobody's call but its own");
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.rows_become(tasks, json!([{ "CallDisposition": "looked for" }])).await;
}

async fn save_for(desk: &Desk, peer: &mut Peer, call: &str) {
    let data = json!({ "callId": call, "params": { "disposition": "another call's" } });
    assert_eq!(desk.ask(peer, SAVE, "s", data).await["data"]["Success"], true);
}

#[tokio::test]
async fn an_update_of_the_call_takes_the_variables_along_and_its_own_values_win() {
    let desk = Desk::start(&objects("")).await;
    let mut peer = desk.broker.app("myapp").await;
    save(&desk, &mut peer, json!({ "variable1": "kept", "variable2": "kept" })).await;
    let told = desk.ask(&mut peer, UPDATE, "u", update(json!({ "variable1": "now" }))).await;
    assert_eq!((&told["data"]["Subject"], &told["data"]["Status"]), (&json!("now"), &json!("kept")));
    assert_eq!(desk.rows(CASES).await, [json!({ "Subject": "now", "Status": "kept" })]);
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    settled(&mut peer).await;
    assert_eq!(desk.asked("PATCH", "/Case/"), 1);
}

#[tokio::test]
async fn anothers_event_and_update_do_not_reach_my_variables() {
    let desk = Desk::start(&objects("")).await;
    let mut mine = desk.broker.app_of("myapp", "alice").await;
    let mut theirs = desk.broker.app_of("myapp", "bob").await;
    desk.ask(&mut mine, UPDATE, "u", update(json!({}))).await;
    save(&desk, &mut mine, json!({ "variable1": "alice's" })).await;
    theirs.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.ask(&mut theirs, UPDATE, "u", update(json!({ "variable2": "bob's" }))).await;
    desk.ask(&mut theirs, REMOVE, "r", json!({ "callId": "12345", "params": ["variable1"] })).await;
    settled(&mut theirs).await;
    assert_eq!(desk.rows(CASES).await, [json!({ "Subject": "old", "Status": "bob's" })]);
    mine.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.rows_become(CASES, json!([{ "Subject": "alice's", "Status": "bob's" }])).await;
}

#[tokio::test]
async fn variables_that_nobody_asks_for_are_forgotten() {
    let desk = Desk::start(&objects("keep = '1s'")).await;
    let mut peer = desk.broker.app("myapp").await;
    save(&desk, &mut peer, json!({ "variable1": "v1" })).await;
    sleep_until(Instant::now() + Duration::from_millis(1100)).await;
    let told = desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    assert_eq!((told["data"].get("Subject"), desk.asked("PATCH", "/Case/")), (None, 0), "{told}");
    desk.broker.log_until("the loss in the log", |log| log.contains("variables expired unwritten")).await;
}

#[tokio::test]
async fn what_is_over_a_bound_or_could_never_be_written_is_refused() {
    let desk = Desk::start(&objects("variables = 2\ncalls = 1\nbytes = 400\nuser_bytes = 300")).await;
    let mut peer = desk.broker.app("myapp").await;
    save(&desk, &mut peer, json!({ "variable1": "v1", "variable2": "v2" })).await;
    for (call, params, expected, words) in [
        ("12345", json!({ "urgent": true }), "TOO_LARGE", "salesforce.variables.variables"),
        ("12345", json!({ "variable1": "x".repeat(400) }), "TOO_LARGE", "salesforce.variables.bytes"),
        ("12345", json!({ "variable1": "x".repeat(200) }), "TOO_LARGE", "salesforce.variables.user_bytes"),
        ("2", json!({ "variable1": "x" }), "TOO_LARGE", "salesforce.variables.calls"),
        ("12345", json!({ "variable3": "x" }), "FORBIDDEN", "'variable3' is not mapped"),
        ("12345", json!({ "variable1": [] }), "INVALID_ENVELOPE", "'variable1' has to be"),
        ("12345", json!(["variable1"]), "INVALID_ENVELOPE", "data.params"),
    ] {
        let answer = desk.ask(&mut peer, SAVE, "s", json!({ "callId": call, "params": params })).await;
        let (code, message) = failure(&answer, KEYS);
        assert!(code == expected && message.contains(words), "{code}: {message}");
    }
    let told = desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    assert_eq!((&told["data"]["Subject"], &told["data"]["Status"]), (&json!("v1"), &json!("v2")));
}

#[tokio::test]
async fn an_event_that_tells_every_state_counts_in_those_that_are_named() {
    let variables = "call_id = 'call.id'\nstate = 'call.event'\nstates = ['Dropped', 'ACW']";
    let desk = Desk::start(&objects(variables)).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    save(&desk, &mut peer, json!({ "variable1": "v1" })).await;
    let state = |event: &str| json!({ "source": "event", "call": { "id": "12345", "event": event } });
    for event in ["connecting", "connected"] {
        peer.publish(ENDED, state(event)).await;
    }
    peer.publish(ENDED, json!({ "call": { "id": "12345" } })).await;
    peer.publish(ENDED, json!("12345")).await;
    settled(&mut peer).await;
    assert_eq!(desk.asked("PATCH", "/Case/"), 0);
    peer.publish(ENDED, state("dropped")).await;
    desk.rows_become(CASES, json!([{ "Subject": "v1", "Status": "New" }])).await;
}

#[tokio::test]
async fn an_org_that_is_ill_at_the_event_gets_the_variables_when_it_is_well() {
    let desk = Desk::start(&objects("")).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    save(&desk, &mut peer, json!({ "variable1": "v1" })).await;
    desk.org.fault(Fault::new(Wrong::Unavailable { retry_after: None }).times(2).path("/sobjects/Case"));
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.rows_become(CASES, json!([{ "Subject": "v1", "Status": "New" }])).await;
    assert_eq!(desk.asked("PATCH", &format!("/Case/{CASE}")), 3);
}

#[tokio::test]
async fn variables_that_the_org_refuses_stay_for_another_try() {
    let desk = Desk::start(&objects("")).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    save(&desk, &mut peer, json!({ "variable1": "v1", "urgent": "no checkbox" })).await;
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.broker.log_until("the refusal in the log", |log| log.contains("JSON_PARSER_ERROR")).await;
    save(&desk, &mut peer, json!({ "urgent": true })).await;
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.rows_become("SELECT Subject, Urgent__c FROM Case", json!([{ "Subject": "v1", "Urgent__c": true }])).await;
}

#[tokio::test]
async fn an_update_on_its_way_is_not_undone_by_what_was_kept_before_it() {
    let desk = Desk::start(&objects("")).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    save(&desk, &mut peer, json!({ "variable1": "older" })).await;
    desk.org.fault(Fault::new(Wrong::Slow { milliseconds: 600 }).times(1).path("/sobjects/Case"));
    peer.send(envelope(UPDATE, json!({ "id": "v", "data": update(json!({ "variable1": "newer" })) }))).await;
    sleep_until(Instant::now() + Duration::from_millis(150)).await;
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    let told = within("an answer", peer.next_answer(UPDATE, "v")).await;
    assert_eq!(told["data"]["Subject"], "newer", "{told}");
    settled(&mut peer).await;
    assert_eq!(desk.rows(CASES).await, [json!({ "Subject": "newer", "Status": "New" })]);
    assert_eq!(desk.asked("PATCH", "/Case/"), 1, "the kept value was replaced by the update's own");
}

#[tokio::test]
async fn a_record_that_is_locked_is_written_later_whatever_becomes_of_the_calls_other_record() {
    for (other, expected) in
        [(json!({ "variable1": "v1" }), "v1"), (json!({ "urgent": "text where the org wants a checkbox" }), "old")]
    {
        let desk = Desk::start(&objects("")).await;
        let mut peer = desk.broker.app("myapp").await;
        desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
        desk.ask(&mut peer, CREATE, "c", create(json!({ "subject": "mine" }))).await;
        save(&desk, &mut peer, json!({ "disposition": "sold" })).await;
        save(&desk, &mut peer, other).await;
        // The first attempt and its repetitions.
        desk.org.fault(Fault::new(Wrong::RecordLocked {}).times(3).method("PATCH").path("/sobjects/Task"));
        peer.publish(ENDED, json!({ "callId": "12345" })).await;
        desk.rows_become("SELECT CallDisposition FROM Task", json!([{ "CallDisposition": "sold" }])).await;
        assert_eq!(desk.rows("SELECT Subject FROM Case").await, [json!({ "Subject": expected })]);
        let log = desk.broker.log();
        assert!(!log.contains("no known record of their call"), "{log}");
    }
}

/// Ends 16 calls of a user whose variables belong to the case. A growing pause after each of them would take minutes.
async fn end_many(desk: &Desk, peer: &mut Peer) {
    for call in 0..16 {
        let call = call.to_string();
        let named = json!({ "callId": call, "Name": "Case", "sfid": CASE, "params": {} });
        desk.ask(peer, UPDATE, "u", named).await;
        desk.ask(peer, SAVE, "s", json!({ "callId": call, "params": { "variable1": "of many" } })).await;
        peer.publish(ENDED, json!({ "callId": call })).await;
    }
}

#[tokio::test]
async fn a_user_over_its_limit_of_calls_delays_nobody_elses_variables() {
    let desk = Desk::start(&format!("calls_per_user = 4\n{}", objects(""))).await;
    let mut mallory = desk.broker.app_of("myapp", "mallory").await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    end_many(&desk, &mut mallory).await;
    desk.broker.log_until("the limit in the log", |log| log.contains("salesforce.calls_per_user")).await;
    desk.ask(&mut peer, UPDATE, "u", update(json!({}))).await;
    save(&desk, &mut peer, json!({ "variable2": "alice's" })).await;
    desk.org.fault(Fault::new(Wrong::RecordLocked {}).times(3).path("/sobjects/Case"));
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.rows_become("SELECT Status FROM Case", json!([{ "Status": "alice's" }])).await;
}

#[tokio::test]
async fn an_object_that_fails_delays_no_other_objects_variables() {
    let desk = Desk::start(&objects("")).await;
    let mut peer = desk.broker.app("myapp").await;
    let (code, message) = ("UNKNOWN_EXCEPTION".to_owned(), "a trigger".to_owned());
    desk.org.fault(Fault::new(Wrong::Error { status: 500, code, message }).path("/sobjects/Case"));
    end_many(&desk, &mut peer).await;
    desk.broker.log_until("the trigger in the log", |log| log.contains("UNKNOWN_EXCEPTION")).await;
    desk.ask(&mut peer, CREATE, "c", create(json!({ "subject": "mine" }))).await;
    save(&desk, &mut peer, json!({ "disposition": "sold" })).await;
    desk.org.fault(Fault::new(Wrong::RecordLocked {}).times(3).method("PATCH").path("/sobjects/Task"));
    peer.publish(ENDED, json!({ "callId": "12345" })).await;
    desk.rows_become("SELECT CallDisposition FROM Task", json!([{ "CallDisposition": "sold" }])).await;
}
