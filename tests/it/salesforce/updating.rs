//! `Call/UpdateObject`: the documented reply, nothing that is not configured, and an org that fails.

use std::time::Duration;

use salesforce_stand_in::{Fault, Wrong};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::desk::{CASE, CREATE, Desk, OBJECTS, SAVE, UPDATE, create, failure, fields, update};
use crate::support::{Broker, application, envelope};

const KEYS: &[&str] = &["callId", "callid", "Name", "OId", "sfid"];
const SUBJECT: &str = "SELECT Subject FROM Case";

#[tokio::test]
async fn the_documented_request_is_answered_as_documented_and_written() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    peer.send_text(&format!(
        r#"{{"channel":"Salesforce","topic":"Call","subtopic":"UpdateObject","source":"myapp",
        "data":{{"callId":"12345","Name":"Case","OId":"SF2","sfid":"{CASE}","params":{{"variable1":"value 1","variable2":"value 2"}}}}}}"#
    ))
    .await;
    let documented = format!(
        r#"{{"channel":"Salesforce","topic":"Call","subtopic":"UpdateObject","data":{{"callId":"12345","callid":"12345","Name":"Case","OId":"SF2","sfid":"{CASE}","Success":true,"ErrorMessage":null,"isManual":true,"Subject":"value 1","Status":"value 2"}}}}"#
    );
    assert_eq!(peer.next().await.to_string(), documented);
    let rows = desk.rows("SELECT Subject, Status FROM Case").await;
    assert_eq!(rows, [json!({ "Subject": "value 1", "Status": "value 2" })]);
    assert_eq!(desk.asked("PATCH", &format!("/sobjects/Case/{CASE}")), 1);
}

#[tokio::test]
async fn every_kind_of_value_is_written_and_an_id_may_be_short() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let short = &CASE[..15];
    let data = json!({ "callid": 7, "Name": "Case", "sfid": short, "params": {
        "variable1": null, "variable2": "a \"quoted\" ü\n", "urgent": true, "score": 1.5 } });
    let told = desk.ask(&mut peer, UPDATE, "u", data).await["data"].clone();
    assert_eq!((&told["callId"], &told["OId"], &told["sfid"]), (&json!(7), &Value::Null, &json!(short)));
    assert_eq!((&told["Urgent__c"], &told["Score__c"], &told["Subject"]), (&json!(true), &json!(1.5), &Value::Null));
    let rows = desk.rows("SELECT Subject, Status, Urgent__c, Score__c FROM Case").await;
    let expected = json!({ "Subject": null, "Status": "a \"quoted\" ü\n", "Urgent__c": true, "Score__c": 1.5 });
    assert_eq!(rows, [expected]);
}

#[tokio::test]
async fn without_objects_the_triples_are_like_any_others() {
    let broker = Broker::start().await;
    let mut hearer = broker.app("hearer").await;
    hearer.subscribe("Salesforce/Call/*").await;
    let mut peer = broker.app("myapp").await;
    for triple in [UPDATE, CREATE, SAVE] {
        peer.publish(triple, update(json!({}))).await;
        assert_eq!(hearer.next_on(triple).await["data"]["Name"], "Case");
        peer.send(envelope(triple, json!({ "timeout": 1000, "data": {} }))).await;
        let answer = peer.next_failure(triple, "NO_HANDLER").await;
        assert!(answer["data"].get("callId").is_none(), "{answer}");
    }
}

#[tokio::test]
async fn what_is_not_configured_is_never_written() {
    let desk = Desk::start(
        "[salesforce.objects.Case]\nupdate = true\nfields = { variable1 = 'Subject' }\n\
         [salesforce.objects.Task]\nfields = { subject = 'Subject' }\n",
    )
    .await;
    let mut peer = desk.broker.app("myapp").await;
    for (name, params, words) in [
        ("Account", json!({}), "update = true in [salesforce.objects.Account]"),
        ("case", json!({}), "no record called 'case' may be changed (did you mean 'Case'?)"),
        ("Cases", json!({}), "(did you mean 'Case'?)"),
        ("tasks", json!({}), "update = true in [salesforce.objects.tasks]"),
        ("Task", json!({ "subject": "x" }), "update = true in [salesforce.objects.Task]"),
        (
            "Case",
            json!({ "variable1": "x", "variable2": "y" }),
            "'variable2' is not mapped; fields in [salesforce.objects.Case]",
        ),
        ("Case", json!({ "Subject": "x" }), "'Subject' is not mapped"),
        ("Case", json!({ "Variable1": "x" }), "would map it (did you mean 'variable1'?)"),
        ("Case/../Account", json!({}), "no record called 'Case/../Account' may be changed"),
    ] {
        let data = json!({ "callId": "1", "Name": name, "sfid": CASE, "params": params });
        let (code, message) = failure(&desk.ask(&mut peer, UPDATE, "u", data).await, KEYS);
        assert!(code == "FORBIDDEN" && message.contains(words), "{code}: {message}");
    }
    // No object may be created, so nobody serves that triple.
    peer.send(envelope(CREATE, json!({ "timeout": 1000, "data": {} }))).await;
    peer.next_failure(CREATE, "NO_HANDLER").await;
    assert_eq!(desk.org.calls(), 0, "{:?}", desk.org.seen());
}

#[tokio::test]
async fn data_that_is_not_as_documented_reaches_no_org() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let with = |key: &str, value: Value| {
        let mut data = update(json!({ "variable1": "x" }));
        data[key] = value;
        data
    };
    for data in [
        with("sfid", json!("../Account/001000000000001")),
        with("sfid", json!("500000000000001?x=1")),
        with("sfid", json!("50000000000000%2e")),
        with("sfid", json!("500000000000001' OR Id != '")),
        with("sfid", json!("")),
        with("sfid", json!(5)),
        with("sfid", Value::Null),
        with("callId", json!({})),
        with("callId", json!("a\u{7}")),
        with("OId", json!([1])),
        with("Name", json!(7)),
        with("params", json!(["variable1"])),
        with("params", json!({ "variable1": { "a": 1 } })),
        with("params", json!({ "variable1": ["a"] })),
        json!([]),
        json!("12345"),
        Value::Null,
    ] {
        let shown = data.to_string();
        let (code, message) = failure(&desk.ask(&mut peer, UPDATE, "u", data).await, KEYS);
        assert_eq!(code, "INVALID_ENVELOPE", "{shown}: {message}");
    }
    peer.send(envelope(UPDATE, json!({}))).await;
    failure(&peer.next_on(UPDATE).await, KEYS);
    assert_eq!(desk.org.calls(), 0);
}

#[tokio::test]
async fn a_service_says_for_whom_and_a_user_asks_for_itself() {
    let applications = [application("cti", None, ""), application("phone", Some("alice"), "")].concat();
    let desk = Desk::with_tokens(&format!("{OBJECTS}{applications}")).await;
    let mut cti = desk.broker.app_by_token("cti").await;
    let (code, _) = failure(&desk.ask(&mut cti, UPDATE, "u", update(json!({ "variable1": "x" }))).await, KEYS);
    assert_eq!(code, "USER_REQUIRED");
    let for_alice = json!({ "id": "u", "user": "alice", "data": update(json!({ "variable1": "x" })) });
    cti.send(envelope(UPDATE, for_alice.clone())).await;
    assert_eq!(cti.next_answer(UPDATE, "u").await["data"]["Success"], true);
    let mut phone = desk.broker.app_by_token("phone").await;
    phone.send(envelope(UPDATE, json!({ "id": "u", "user": "bob", "data": for_alice["data"] }))).await;
    assert_eq!(failure(&phone.next_answer(UPDATE, "u").await, KEYS).0, "FORBIDDEN");
}

#[tokio::test]
async fn a_refused_write_says_what_is_in_the_way_and_keeps_no_one_else_from_salesforce() {
    let desk = Desk::with(OBJECTS, |seed| {
        fields(seed, "Case").extend([
            json!({ "name": "Subject", "length": 5 }),
            json!({ "name": "Status", "read_only_for": ["integration@example.com"] }),
        ]);
    })
    .await;
    let mut peer = desk.broker.app("myapp").await;
    for (params, words) in [
        (json!({ "variable1": "too long SECRET" }), "too long for its field (STRING_TOO_LONG: Subject)"),
        (
            json!({ "variable2": "x" }),
            "does not let the broker write a field (INVALID_FIELD_FOR_INSERT_UPDATE: Status)",
        ),
        (json!({ "urgent": "maybe" }), "does not fit its field (JSON_PARSER_ERROR)"),
    ] {
        for _ in 0..3 {
            let (code, message) = failure(&desk.ask(&mut peer, UPDATE, "u", update(params.clone())).await, KEYS);
            assert!(code == "UPSTREAM_REJECTED" && message.contains(words), "{code}: {message}");
        }
    }
    let nowhere = json!({ "callId": "1", "Name": "Case", "sfid": "500000000000999", "params": { "variable1": "x" } });
    let answer = desk.ask(&mut peer, UPDATE, "u", nowhere).await;
    let repeated: Vec<Value> = KEYS.iter().map(|key| answer["data"][*key].clone()).collect();
    assert_eq!(repeated, [json!("1"), json!("1"), json!("Case"), Value::Null, json!("500000000000999")]);
    let (code, message) = failure(&answer, KEYS);
    assert!(code == "UPSTREAM_REJECTED" && message.contains("no such record of Case"), "{code}: {message}");
    let told = desk.ask(&mut peer, UPDATE, "u", update(json!({ "variable1": "fits" }))).await;
    assert_eq!(told["data"]["Success"], true, "the breaker stayed closed: {told}");
    let log = desk.broker.log();
    assert!(log.contains("object=\"Case\" fields=\"Subject\"") && !log.contains("SECRET"), "{log}");
}

#[tokio::test]
async fn an_object_whose_trigger_fails_keeps_no_other_from_salesforce() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let fails = Wrong::Error { status: 500, code: "UNKNOWN_EXCEPTION".to_owned(), message: "SECRET".to_owned() };
    desk.org.fault(Fault::new(fails).path("/sobjects/Case"));
    for _ in 0..7 {
        let answer = desk.ask(&mut peer, UPDATE, "u", update(json!({ "variable1": "x" }))).await;
        let (code, message) = failure(&answer, KEYS);
        assert!(code == "UPSTREAM_UNAVAILABLE" && message.contains("fails on records of Case"), "{code}: {message}");
    }
    assert_eq!(desk.asked("PATCH", "/Case/"), 7, "each was sent, once");
    let told = desk.ask(&mut peer, CREATE, "c", create(json!({ "subject": "mine" }))).await;
    assert_eq!(told["data"]["Success"], true, "{told}");
}

#[tokio::test]
async fn answers_about_one_record_arrive_in_the_order_of_the_requests() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.org.fault(Fault::new(Wrong::Slow { milliseconds: 200 }).times(2).path("/sobjects/Case"));
    let params = |number| match number {
        0 | 3 => json!({ "variable1": number.to_string() }),
        1 => json!({ "unknown": "x" }),
        _ => json!([]),
    };
    let asked =
        (0..5).map(|number| envelope(UPDATE, json!({ "id": number.to_string(), "data": update(params(number)) })));
    peer.send_all(asked).await;
    let mut answered = Vec::new();
    for _ in 0..5 {
        let answer = peer.next_on(UPDATE).await;
        let code = answer["data"]["ErrorCode"].as_str().unwrap_or("ok").to_owned();
        answered.push(format!("{} {code}", answer["inReplyTo"].as_str().unwrap()));
    }
    let expected = ["0 ok", "1 FORBIDDEN", "2 INVALID_ENVELOPE", "3 ok", "4 INVALID_ENVELOPE"];
    assert_eq!(answered, expected);
}

#[tokio::test]
async fn a_locked_record_is_tried_three_times() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.org.fault(Fault::new(Wrong::RecordLocked {}).times(2));
    let told = desk.ask(&mut peer, UPDATE, "a", update(json!({ "variable1": "x" }))).await;
    assert_eq!(told["data"]["Success"], true, "{told}");
    assert_eq!(desk.asked("PATCH", "/Case/"), 3);
    desk.org.fault(Fault::new(Wrong::RecordLocked {}));
    let answer = desk.ask(&mut peer, UPDATE, "b", update(json!({ "variable1": "y" }))).await;
    let (code, message) = failure(&answer, KEYS);
    assert!(code == "UPSTREAM_UNAVAILABLE" && message.contains("somebody else is changing"), "{message}");
    assert_eq!(desk.asked("PATCH", "/Case/"), 6);
}

#[tokio::test]
async fn an_expired_token_costs_one_login_and_no_failure() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.ask(&mut peer, UPDATE, "a", update(json!({ "variable1": "x" }))).await;
    desk.org.expire_sessions();
    let told = desk.ask(&mut peer, UPDATE, "b", update(json!({ "variable1": "y" }))).await;
    assert_eq!(told["data"]["Success"], true, "{told}");
    assert_eq!((desk.org.logins(), desk.asked("PATCH", "/Case/")), (2, 3));
    desk.org.fault(Fault::new(Wrong::SessionNotValid {}));
    let answer = desk.ask(&mut peer, UPDATE, "c", update(json!({ "variable1": "z" }))).await;
    assert_eq!(failure(&answer, KEYS).0, "UPSTREAM_REJECTED");
    assert_eq!((desk.org.logins(), desk.asked("PATCH", "/Case/")), (2, 4), "a login cannot cure it");
}

#[tokio::test]
async fn a_write_that_may_have_arrived_is_never_repeated() {
    for wrong in [
        Wrong::Unavailable { retry_after: None },
        Wrong::Reset {},
        Wrong::HtmlBody { status: 200 },
        Wrong::HtmlBody { status: 502 },
        Wrong::Slow { milliseconds: 3000 },
    ] {
        let desk = Desk::start(OBJECTS).await;
        let mut peer = desk.broker.app("myapp").await;
        desk.org.fault(Fault::new(wrong.clone()).path("/sobjects/Case"));
        let before = Instant::now();
        let answer = desk.ask(&mut peer, UPDATE, "u", update(json!({ "variable1": "x" }))).await;
        assert_eq!(failure(&answer, KEYS).0, "UPSTREAM_UNAVAILABLE", "{wrong:?}");
        assert!(before.elapsed() < Duration::from_secs(3), "{wrong:?}");
        assert_eq!(desk.asked("PATCH", "/Case/"), 1, "{wrong:?}");
    }
}

#[tokio::test]
async fn an_org_that_is_away_is_an_error_in_time() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    let Desk { org, broker, .. } = desk;
    org.stop().await;
    peer.send(envelope(UPDATE, json!({ "id": "u", "data": update(json!({ "variable1": "x" })) }))).await;
    let answer = peer.next_answer(UPDATE, "u").await;
    assert_eq!(failure(&answer, KEYS).0, "UPSTREAM_UNAVAILABLE");
    drop(broker);
}

#[tokio::test]
async fn writes_to_one_record_go_one_after_the_other() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.org.fault(Fault::new(Wrong::Slow { milliseconds: 100 }).times(1).path("/sobjects/Case"));
    let asked = (0..5).map(|number| {
        let data = update(json!({ "variable1": number.to_string() }));
        envelope(UPDATE, json!({ "id": number.to_string(), "data": data }))
    });
    peer.send_all(asked).await;
    for _ in 0..5 {
        assert_eq!(peer.next_on(UPDATE).await["data"]["Success"], true);
    }
    assert_eq!(desk.asked("PATCH", "/Case/"), 5);
    assert!(desk.rows(SUBJECT).await[0]["Subject"].as_str().is_some_and(|it| it.parse::<u32>().is_ok()));
}

#[tokio::test]
async fn a_record_that_is_slow_to_change_keeps_nobody_from_others() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app("myapp").await;
    desk.org.fault(Fault::new(Wrong::Slow { milliseconds: 800 }).path("/sobjects/Case"));
    let mut often = tokio::time::interval(Duration::from_millis(250));
    for number in 0..20 {
        often.tick().await;
        let data = update(json!({ "variable1": number.to_string() }));
        peer.send(envelope(UPDATE, json!({ "id": number.to_string(), "data": data }))).await;
    }
    let mut other = desk.broker.app("other").await;
    let told = desk.ask(&mut other, CREATE, "c", create(json!({ "subject": "mine" }))).await;
    assert_eq!(told["data"]["Success"], true, "{told}");
    let mut written = 0;
    for _ in 0..20 {
        let answer = peer.next_on(UPDATE).await;
        match answer["data"]["Success"] == true {
            true => written += 1,
            false => assert_eq!(answer["data"]["ErrorCode"], "UPSTREAM_UNAVAILABLE", "{answer}"),
        }
    }
    assert_eq!(desk.asked("PATCH", "/Case/"), written, "what has no time left is not begun");
    assert!(written >= 4, "{written}");
}

#[tokio::test]
async fn records_that_are_slow_to_change_leave_room_for_credentials() {
    let desk = Desk::start(&format!("{OBJECTS}[credentials]\nstore = 'salesforce'\n")).await;
    let mut peer = desk.broker.app_of("myapp", "005000000000002AAA").await;
    desk.org.fault(Fault::new(Wrong::Slow { milliseconds: 1500 }).path("/sobjects/Case"));
    for number in 10..26 {
        let mut data = update(json!({ "variable1": "x" }));
        data["sfid"] = json!(format!("5000000000000{number}"));
        peer.send(envelope(UPDATE, json!({ "data": data }))).await;
    }
    let mut other = desk.broker.app_of("other", "005000000000002AAA").await;
    let start = Instant::now();
    let told = desk.ask(&mut other, "Salesforce/User/FetchCredentials", "f", json!({})).await;
    assert_eq!(told["data"]["Success"], true, "{told}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
