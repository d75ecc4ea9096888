//! clients/salesforce/opencti: what a Salesforce page says reaches the other applications, and back.

use serde_json::{Value, json};

use super::{Chromium, Host, Page};
use crate::support::{Broker, Peer, application, envelope, token_of};

pub(super) const ALICE: &str = "alice@example.com";
pub(super) const PAGE: &str = "clients/salesforce/opencti/softphone.html";

/// Documented ids: the first is the vendor's sample.
pub(super) const TASK: &str = "00T7F000027L43nUAC";
pub(super) const CONTACT: &str = "003000000000001AAA";
const OPPORTUNITY: &str = "0065g00000X50xNAAR";

/// What the page loads otherwise: the stub in place of Salesforce's script, and these settings.
pub(super) fn files(settings: &Value) -> Value {
    let stub = std::fs::read_to_string("tests/node/opencti_stub.js").unwrap();
    json!({ "/opencti_min.js": stub, "/settings.js": format!("export const settings = {settings};") })
}

fn settings(broker: &Broker, more: Value) -> Value {
    let mut settings = json!({
        "url": format!("ws://{}/ws", broker.address()), "source": "salesforce", "user": ALICE,
        "writable": [{ "object": "Task", "prefix": "00T", "fields": ["Subject", "CallDurationInSeconds", "WhoId"] }],
    });
    if let (Value::Object(settings), Value::Object(more)) = (&mut settings, more) {
        settings.extend(more);
    }
    settings
}

/// The page, registered.
pub(super) async fn page<'c>(chromium: &'c Chromium, broker: &Broker) -> Page<'c> {
    let page = chromium.open(Host::Loopback, PAGE, files(&settings(broker, json!({}))), json!({})).await;
    page.shows("state", "registered").await;
    page
}

/// Nothing was called that Open CTI does not have.
pub(super) async fn done(page: Page<'_>) {
    assert_eq!(page.evaluate("stub.violations").await, json!([]));
    let console = page.console().await;
    assert!(!console.iter().any(|it| it.starts_with("uncaught")), "{console:?}");
    page.close().await;
}

async fn gadget(broker: &Broker) -> Peer {
    broker.app_of("gadget", ALICE).await
}

pub(super) fn task(fields: impl Into<Value>) -> Value {
    json!({ "callId": "12345", "Name": "Task", "OId": "SF1", "params": fields.into() })
}

pub(super) async fn an_event_opens_the_record(chromium: &Chromium) {
    let broker = Broker::start().await;
    let page = page(chromium, &broker).await;
    let mut gadget = gadget(&broker).await;
    // The vendor's sample, letter for letter: no id, and no answer.
    gadget.publish("Salesforce/Call/OpenObject", json!({ "sfid": TASK })).await;
    page.shows("pop", &format!("{TASK} (gadget)")).await;
    let popped = page.evaluate("stub.called('screenPop')").await;
    assert_eq!(popped, json!([{ "type": "pop:SOBJECT", "params": { "recordId": TASK } }]));
    gadget.expect_nothing().await;

    // Another agent's gadget opens nothing here.
    let mut other = broker.app_of("gadget", "bob@example.com").await;
    other.send(envelope("Salesforce/Call/OpenObject", json!({ "id": "o", "data": { "sfid": TASK } }))).await;
    assert_eq!(other.next().await["data"]["Receivers"], 0);

    page.evaluate("stub.failNext('screenPop', 'GENERIC_ERROR', 'no such record')").await;
    gadget.subscribe("Salesforce/Error/*").await;
    gadget.publish("Salesforce/Call/OpenObject", json!({ "sfid": CONTACT })).await;
    let error = gadget.next_on("Salesforce/Error/ApiError").await;
    assert_eq!(error["data"]["errorType"], "OPEN_OBJECT_FAILED");
    assert_eq!(error["data"]["errorMessage"], "screenPop: no such record");
    done(page).await;
}

pub(super) async fn a_record_opens_in_the_tab_that_was_looked_at_last(chromium: &Chromium) {
    let broker = Broker::start().await;
    let first = page(chromium, &broker).await;
    let second = first.beside().await;
    second.shows("state", "registered").await;
    first.shows("leads", "no").await;
    let mut gadget = gadget(&broker).await;
    gadget.send(envelope("Salesforce/Call/OpenObject", json!({ "id": "o", "data": { "sfid": TASK } }))).await;
    assert_eq!(gadget.next().await["data"]["Receivers"], 2);
    second.shows("pop", TASK).await;
    // A later event that both act on: what came before it is done in both.
    gadget.publish("Salesforce/Call/SetClickToDial", json!({ "enabled": true })).await;
    first.wait("stub.clickToDial").await;
    assert_eq!(first.evaluate("stub.called('screenPop').length").await, 0);
    // The first one takes over when the second is gone.
    done(second).await;
    first.shows("leads", "yes").await;
    gadget.publish("Salesforce/Call/OpenObject", json!({ "sfid": CONTACT })).await;
    first.shows("pop", CONTACT).await;
    done(first).await;
}

pub(super) async fn a_bad_id_opens_nothing_and_the_sender_hears_why(chromium: &Chromium) {
    let broker = Broker::start().await;
    let page = page(chromium, &broker).await;
    let (mut gadget, mut other) = (gadget(&broker).await, broker.app_of("other", ALICE).await);
    for app in [&mut gadget, &mut other] {
        app.subscribe("Salesforce/Error/*").await;
    }
    let bad = [
        "",
        "00T",
        "/lightning/o/Task",
        "00T7F000027L43nUAD",
        "00t7f000027l43nuac",
        "00T7F000027L43n\n",
        "javascript:al(1)",
    ];
    for sfid in bad.iter().map(|it| json!(it)).chain([json!(null), json!(1), json!({}), json!([TASK])]) {
        gadget.publish("Salesforce/Call/OpenObject", json!({ "sfid": sfid })).await;
        let error = gadget.next_on("Salesforce/Error/ApiError").await;
        assert_eq!(error["data"]["errorMessage"], "sfid is not a record id", "{sfid}");
    }
    for data in [json!(TASK), json!(null), json!([])] {
        gadget.send(envelope("Salesforce/Call/OpenObject", json!({ "id": "o", "data": data }))).await;
        // The receipt, most often first.
        let mut error = gadget.next().await;
        if error["channel"] == "Broker" {
            error = gadget.next().await;
        }
        assert_eq!((&error["data"]["id"], &error["source"]), (&json!("o"), &json!("salesforce")));
    }
    page.shows("error", "OPEN_OBJECT_FAILED: sfid is not a record id").await;
    assert_eq!(page.evaluate("stub.called('screenPop')").await, json!([]));
    other.expect_nothing_from(&mut gadget).await;
    done(page).await;
}

pub(super) async fn navigation_and_clicks_reach_other_applications(chromium: &Chromium) {
    let broker = Broker::start().await;
    let mut gadget = gadget(&broker).await;
    gadget.subscribe("Salesforce/Call/*").await;
    // What is open when the page starts is told, too.
    let setup = json!({ "view": { "url": "https://acme/c", "recordId": CONTACT, "recordName": "Ada", "objectType": "Contact" } });
    let page = chromium.open(Host::Loopback, PAGE, files(&settings(&broker, json!({}))), setup).await;
    let event = gadget.next_on("Salesforce/Call/ObjectFieldParams").await;
    assert_eq!(event["message"], json!({ "WhoId": [{ "sfid": CONTACT, "value": "Ada" }], "WhatId": [] }));
    assert_eq!((&event["source"], event.get("data")), (&json!("salesforce"), None));

    let opportunity =
        json!({ "url": "https://acme/o", "recordId": OPPORTUNITY, "recordName": "Ash", "objectType": "Opportunity" });
    let item = |sfid: &str, value: &str| json!({ "sfid": sfid, "value": value });
    let person = json!({ "url": "https://acme/a", "recordId": "001000000000001AAA", "recordName": "P", "objectType": "Account",
        "contactId": CONTACT, "personAccount": true });
    for (view, who, what) in [
        (
            json!({ "url": "u", "recordId": "00Q000000000001", "recordName": "L" }),
            vec![item("00Q000000000001", "L")],
            vec![],
        ),
        (person, vec![item(CONTACT, "P")], vec![item("001000000000001AAA", "P")]),
        (json!({ "url": "https://acme/list" }), vec![], vec![]),
        (opportunity, vec![], vec![item(OPPORTUNITY, "Ash")]),
    ] {
        page.evaluate(&format!("stub.navigate({view})")).await;
        let event = gadget.next_on("Salesforce/Call/ObjectFieldParams").await;
        assert_eq!(event["message"], json!({ "WhoId": who, "WhatId": what }));
    }

    // Numbers are links only when somebody asked for it.
    gadget.publish("Salesforce/Call/SetClickToDial", json!({ "enabled": true })).await;
    page.wait("stub.clickToDial && document.getElementById('clicktodial').checked").await;
    let click =
        json!({ "number": 9_971_300_712_u64, "recordId": CONTACT, "recordName": "Ada", "objectType": "Contact" });
    page.evaluate(&format!("stub.click({click})")).await;
    let payload = json!({
        "number": "9971300712", "recordId": CONTACT, "recordName": "Ada", "recordObjectType": "Contact",
        "focusedObjectId": OPPORTUNITY, "focusedObjectName": "Ash", "focusedObjectType": "Opportunity",
        "focusedObjectURL": "https://acme/o",
    });
    let event = gadget.next_on("Salesforce/Call/ClickToDialPayload").await;
    assert_eq!(event["message"].to_string(), payload.to_string(), "all documented fields, in their order");
    page.evaluate("stub.navigate({ url: 'https://acme/list' })").await;
    gadget.next_on("Salesforce/Call/ObjectFieldParams").await;
    page.evaluate("stub.click({ number: '+4930123' })").await;
    let event = gadget.next_on("Salesforce/Call/ClickToDialPayload").await;
    assert_eq!(event["message"]["number"], "+4930123");
    for name in ["recordId", "focusedObjectId", "focusedObjectName", "focusedObjectType", "focusedObjectURL"] {
        assert_eq!(event["message"][name], "", "{name}");
    }
    page.click("#clicktodial").await;
    page.wait("!stub.clickToDial").await;
    done(page).await;
}

pub(super) async fn a_log_is_saved_once_and_only_as_allowed(chromium: &Chromium) {
    let broker = Broker::start().await;
    let page = page(chromium, &broker).await;
    let mut gadget = gadget(&broker).await;
    let save = "Salesforce/Call/SaveLog";
    let log = task(json!({ "Subject": "Call", "CallDurationInSeconds": 12, "WhoId": CONTACT }));
    // Twice with one id, as after a lost answer: written once.
    for _ in 0..2 {
        gadget.send(envelope(save, json!({ "id": "log", "data": log }))).await;
        let answer = gadget.next_answer(save, "log").await;
        let mut expected = log.clone();
        for (key, value) in [
            ("sfid", json!("00T000000000001")),
            ("recordId", json!("00T000000000001")),
            ("Success", json!(true)),
            ("ErrorMessage", Value::Null),
        ] {
            expected[key] = value;
        }
        assert_eq!(answer["data"], expected);
    }
    let value = json!({ "entityApiName": "Task", "Subject": "Call", "CallDurationInSeconds": 12, "WhoId": CONTACT });
    assert_eq!(page.evaluate("stub.called('saveLog')").await, json!([{ "value": value }]));

    let mut change = task(json!({ "Subject": "Changed" }));
    change["sfid"] = json!(TASK);
    gadget.send(envelope(save, json!({ "id": "change", "data": change }))).await;
    assert_eq!(gadget.next_answer(save, "change").await["data"]["recordId"], TASK);
    assert_eq!(page.evaluate("stub.called('saveLog')[1].value").await, json!({ "Id": TASK, "Subject": "Changed" }));

    let with_id = |sfid: &str| {
        let mut data = task(json!({}));
        data["sfid"] = json!(sfid);
        data
    };
    for (id, data, why) in [
        ("object", json!({ "Name": "Account", "params": {} }), "writes no such object"),
        ("field", task(json!({ "OwnerId": "x" })), "does not write the field OwnerId"),
        ("object's name", task(json!({ "entityApiName": "Account" })), "does not write the field entityApiName"),
        ("id", task(json!({ "Id": CONTACT })), "does not write the field Id"),
        ("value", task(json!({ "Subject": {} })), "Subject has to be a plain value"),
        ("no fields", json!({ "Name": "Task" }), "params has to be"),
        ("list", json!({ "Name": "Task", "params": ["Subject"] }), "params has to be"),
        ("another object's id", with_id(CONTACT), "not the id of a Task"),
        ("no id", with_id("00T'; x"), "sfid is not a record id"),
        ("nothing", Value::Null, "writes no such object"),
    ] {
        gadget.send(envelope(save, json!({ "id": id, "data": data }))).await;
        let answer = gadget.next_answer(save, id).await;
        assert_eq!(
            (&answer["data"]["Success"], &answer["data"]["ErrorCode"]),
            (&json!(false), &json!("SAVE_LOG_FAILED"))
        );
        let message = answer["data"]["ErrorMessage"].as_str().unwrap();
        assert!(message.contains(why), "{id}: {message}");
    }
    assert_eq!(page.evaluate("stub.called('saveLog').length").await, 2);
    page.evaluate("stub.failNext('saveLog', 'SERVER_ERROR', 'User is not assigned to a Call Center')").await;
    gadget.send(envelope(save, json!({ "id": "failed", "data": task(json!({ "Subject": "x" })) }))).await;
    let answer = gadget.next_answer(save, "failed").await;
    assert_eq!(answer["data"]["ErrorMessage"], "saveLog: User is not assigned to a Call Center");
    page.shows("error", "User is not assigned to a Call Center").await;
    // Nothing was written, so the same request may be repeated.
    gadget.send(envelope(save, json!({ "id": "failed", "data": task(json!({ "Subject": "x" })) }))).await;
    assert_eq!(gadget.next_answer(save, "failed").await["data"]["Success"], true);
    done(page).await;
}

pub(super) async fn the_page_comes_back_after_a_restart(chromium: &Chromium) {
    let mut broker = Broker::start().await;
    let page = page(chromium, &broker).await;
    let view = json!({ "url": "u", "recordId": OPPORTUNITY, "recordName": "Ash", "objectType": "Opportunity" });
    page.evaluate(&format!("stub.navigate({view})")).await;
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    page.shows("state", "waiting").await;
    // A click that reaches nobody is told, and not dialled later.
    page.evaluate("sforce.opencti.enableClickToDial({})").await;
    page.evaluate("stub.click({ number: '1' })").await;
    page.shows("error", "NOT_CONNECTED").await;

    // The page reaches nobody until the gadget has subscribed, else what it tells might come first.
    page.evaluate("void (window.Reaching = WebSocket)").await;
    page.evaluate(
        "void (window.WebSocket = class extends Reaching { constructor() { super('ws://127.0.0.1:1/ws') } })",
    )
    .await;
    let again = Broker::launch(None, &["--listen", &broker.address().to_string()]).await;
    let mut gadget = gadget(&again).await;
    gadget.subscribe("Salesforce/Call/*").await;
    page.evaluate("void (window.WebSocket = Reaching)").await;
    let event = gadget.next_on("Salesforce/Call/ObjectFieldParams").await;
    assert_eq!(
        event["message"]["WhatId"],
        json!([{ "sfid": OPPORTUNITY, "value": "Ash" }]),
        "what is open is told anew"
    );
    gadget.publish("Salesforce/Call/OpenObject", json!({ "sfid": TASK })).await;
    page.shows("pop", TASK).await;
    gadget.expect_nothing().await;
    done(page).await;
}

pub(super) async fn a_token_comes_from_apex_and_a_refused_one_is_replaced(chromium: &Chromium) {
    let config = format!("[auth]\nmode = \"tokens\"\n{}", application("salesforce", Some(ALICE), ""));
    let broker = Broker::with_config(&config).await;
    let files = files(&settings(&broker, json!({ "user": null })));
    let old_then_good = json!({ "tokens": ["an old one", token_of("salesforce")] });
    let page = chromium.open(Host::Loopback, PAGE, files.clone(), old_then_good).await;
    page.shows("state", "registered").await;
    let asked = json!({ "apexClass": "SwitchboardToken", "methodName": "issue", "methodParams": {} });
    assert_eq!(page.evaluate("stub.called('runApex')").await, json!([asked, asked]));
    assert!(!page.evaluate("document.body.innerText").await.to_string().contains(&token_of("salesforce")));
    done(page).await;

    let page = chromium.open(Host::Loopback, PAGE, files, json!({ "tokens": ["an old one"] })).await;
    page.shows("error", "UNAUTHENTICATED").await;
    page.wait("stub.called('runApex').length >= 3").await;
    // A person corrects it.
    page.evaluate(&format!("stub.tokens[0] = {}", json!(token_of("salesforce")))).await;
    page.shows("state", "registered").await;
    done(page).await;
}

pub(super) async fn a_page_of_a_foreign_origin_says_what_to_do(chromium: &Chromium) {
    let broker = Broker::start().await;
    let page = chromium.open(Host::Elsewhere, PAGE, files(&settings(&broker, json!({}))), json!({})).await;
    page.shows("error", "ORIGIN_REFUSED").await;
    let origin = chromium.origin(Host::Elsewhere);
    let cure = format!("Ask the operator to add \"{origin}\" to http.allowed_origins of the broker.");
    page.shows("error", &format!("http://{}/ answers, but not to pages of {origin}. {cure}", broker.address())).await;
    assert!(broker.log().contains(&origin), "the operator sees it too:\n{}", broker.log());
    done(page).await;

    let listed = Broker::open_with(&format!("[http]\nallowed_origins = [\"{origin}\"]")).await;
    let page = chromium.open(Host::Elsewhere, PAGE, files(&settings(&listed, json!({}))), json!({})).await;
    page.shows("state", "registered").await;
    done(page).await;

    // Nothing listens there any more.
    let mut gone = Broker::start().await;
    gone.terminate().await;
    gone.exit_code().await;
    let page = chromium.open(Host::Loopback, PAGE, files(&settings(&gone, json!({}))), json!({})).await;
    page.shows("error", &format!("BROKER_DOWN: nothing answers at http://{}/", gone.address())).await;
    done(page).await;
}
