//! What a reload changes of the org, and what needs a restart.

use std::fs;

use salesforce_stand_in::{Fault, Wrong};
use serde_json::{Value, json};

use super::desk::{CASE, CREATE, Desk, OBJECTS, SAVE, UPDATE, create, failure};
use crate::salesforce::simulator::http;
use crate::support::{Peer, envelope, secret_file, within};

const ENDED: &str = "Cisco/InboundCall/CallEnded";
const HUNG_UP: &str = "Genesys/Call/HungUp";
const NOTICES: &str = "/event/CTI_Notice__e";
const CASES: &str = "SELECT Subject, Status FROM Case";

/// A case whose subject may be changed.
const CASE_ONLY: &str = "[salesforce.objects.Case]\nupdate = true\nfields = { variable1 = 'Subject' }\n";

/// A change of the case.
fn update(text: &str) -> Value {
    json!({ "callId": "1", "Name": "Case", "sfid": CASE, "params": { "variable1": text } })
}

/// Asks and gives the answer. With a time limit it is a request even if nobody serves it.
async fn ask(peer: &mut Peer, triple: &str, id: &str, data: Value) -> Value {
    peer.send(envelope(triple, json!({ "id": id, "timeout": 10_000, "data": data }))).await;
    within("an answer", peer.next_answer(triple, id)).await
}

/// Puts another configuration in force.
async fn reload(desk: &Desk, objects: &str) -> String {
    desk.configure(objects);
    let line = desk.broker.reload().await;
    assert!(line.contains("was reloaded"), "{line}");
    line
}

/// The verdict, the code and the message of an explanation of an update.
async fn explained(peer: &mut Peer) -> String {
    let (topic, subtopic) = ("Call", "UpdateObject");
    let asked = json!({ "channel": "Salesforce", "topic": topic, "subtopic": subtopic, "timeout": 10_000 });
    let told = peer.command("Message", "Explain", json!({ "envelope": asked })).await;
    let told = &told["data"];
    let receivers: Vec<&str> =
        told["Receives"].as_array().unwrap().iter().filter_map(|it| it["Source"].as_str()).collect();
    format!("{} {} {} {receivers:?}", told["Verdict"], told["Code"], told["Message"])
}

/// Publishes an event, and returns how many receive it.
async fn published(peer: &mut Peer, triple: &str, data: Value) -> u64 {
    peer.send(envelope(triple, json!({ "id": "event", "data": data }))).await;
    peer.next_receipt("event").await
}

/// The outcome and the target of each record of the audit log.
fn outcomes(desk: &Desk) -> Vec<(String, String)> {
    let text = fs::read_to_string(desk.broker.data_dir().join("audit.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    records.map(|it| (text(&it["outcome"]), text(&it["target"]))).collect()
}

#[tokio::test]
async fn a_limit_of_calls_is_another_one_after_a_reload() {
    let desk = Desk::start(&format!("calls_per_user = 1\n{OBJECTS}")).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    assert_eq!(ask(&mut peer, UPDATE, "1", update("first")).await["data"]["Success"], true);
    assert_eq!(ask(&mut peer, UPDATE, "2", update("second")).await["data"]["ErrorCode"], "RATE_LIMITED");
    desk.configure(&format!("calls_per_user = 3\n{OBJECTS}"));
    let line = desk.broker.reload().await;
    assert!(line.contains("changed=\"salesforce.calls_per_user\""), "{line}");
    assert_eq!(ask(&mut peer, UPDATE, "3", update("third")).await["data"]["Success"], true);
    desk.rows_become("SELECT Subject FROM Case", json!([{ "Subject": "third" }])).await;
}

#[tokio::test]
async fn a_certificate_file_that_cannot_be_read_leaves_everything_as_it_was() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    desk.configure(&format!("ca_file = \"/nonexistent\"\ncalls_per_user = 1\n{OBJECTS}"));
    let line = desk.broker.reload().await;
    assert!(line.contains("refused") && line.contains("salesforce.ca_file"), "{line}");
    for text in ["first", "second"] {
        assert_eq!(ask(&mut peer, UPDATE, text, update(text)).await["data"]["Success"], true);
    }
}

#[tokio::test]
async fn another_login_needs_a_restart() {
    let desk = Desk::start(OBJECTS).await;
    desk.configure(&format!("audience = \"https://other.example.com\"\n{OBJECTS}"));
    let line = desk.broker.reload().await;
    assert!(line.contains("need a restart") && line.contains("salesforce.audience"), "{line}");
}

/// The credentials are in the directory, so the org is not used before the first table.
#[tokio::test]
async fn the_table_of_an_object_appears_changes_and_goes() {
    let desk = Desk::start("").await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    let off = "the key salesforce.objects.NAME.update would switch";
    let refused = async |peer: &mut Peer, id: &str| {
        let data = &ask(peer, UPDATE, id, update(id)).await["data"];
        assert_eq!(data["ErrorCode"], "NO_HANDLER", "{data}");
        assert!(data["ErrorMessage"].as_str().unwrap().contains(off), "{data}");
        assert!(data.get("sfid").is_none(), "the failure has the form of no adapter: {data}");
        let explained = explained(peer).await;
        assert!(explained.starts_with("\"REFUSED\" \"NO_HANDLER\"") && explained.contains(off), "{explained}");
    };
    refused(&mut peer, "a").await;

    let line = reload(&desk, CASE_ONLY).await;
    assert!(line.contains("changed=\"salesforce.objects\""), "{line}");
    assert_eq!(ask(&mut peer, UPDATE, "b", update("b")).await["data"]["Success"], true);
    let explained_now = explained(&mut peer).await;
    assert!(
        explained_now.starts_with("\"REQUEST\"") && explained_now.ends_with("[\"switchboard\"]"),
        "{explained_now}"
    );
    desk.rows_become(CASES, json!([{ "Subject": "b", "Status": "New" }])).await;

    let logins = desk.org.logins();
    reload(&desk, &CASE_ONLY.replace("'Subject'", "'Status'")).await;
    assert_eq!(ask(&mut peer, UPDATE, "c", update("Closed")).await["data"]["Success"], true);
    assert_eq!(desk.org.logins(), logins, "the broker has not logged in anew");
    desk.rows_become(CASES, json!([{ "Subject": "b", "Status": "Closed" }])).await;

    reload(&desk, &CASE_ONLY.replace("update = true", "update = false")).await;
    refused(&mut peer, "d").await;
    reload(&desk, "").await;
    refused(&mut peer, "e").await;

    reload(&desk, CASE_ONLY).await;
    let wrong = ask(&mut peer, UPDATE, "f", json!({ "callId": "1", "Name": "Case" })).await;
    assert_eq!((&wrong["data"]["sfid"], &wrong["data"]["Success"]), (&Value::Null, &json!(false)), "{wrong}");
    peer.send(envelope(UPDATE, json!({ "id": "g", "source": "another", "data": {} }))).await;
    let refused = peer.next_answer(UPDATE, "g").await;
    assert!(refused["data"].get("sfid").is_some(), "the failure has the adapter's form: {refused}");
    let case = format!("Case/{CASE}");
    let expected = [("ok", case.as_str()), ("ok", &case), ("INVALID_ENVELOPE", "Case"), ("SOURCE_MISMATCH", UPDATE)];
    within("audit records", async {
        while outcomes(&desk).len() < expected.len() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let found = outcomes(&desk);
    let found: Vec<_> = found.iter().map(|(outcome, target)| (outcome.as_str(), target.as_str())).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_file_that_the_first_use_of_the_org_needs_refuses_the_reload_or_is_read_by_it() {
    let desk = Desk::start("").await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    fs::remove_file(desk.secret()).unwrap();
    desk.configure(OBJECTS);
    let line = desk.broker.reload().await;
    assert!(line.contains("refused") && line.contains("salesforce.client_secret_file"), "{line}");
    assert_eq!(ask(&mut peer, UPDATE, "a", update("a")).await["data"]["ErrorCode"], "NO_HANDLER");
    secret_file(desk.secret(), "demo-secret");
    assert!(desk.broker.reload().await.contains("was reloaded"));
    assert_eq!(ask(&mut peer, UPDATE, "b", update("b")).await["data"]["Success"], true);
}

#[tokio::test]
async fn requests_that_have_begun_end_with_the_settings_with_which_they_began() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    let mut maker = desk.broker.app_of("maker", "alice").await;
    let mut gadget = desk.broker.app_of("gadget", "alice").await;
    gadget.subscribe(CREATE).await;
    let slowly = |path: &str| Fault::new(Wrong::Slow { milliseconds: 1000 }).times(1).path(path);
    desk.org.fault(slowly("/sobjects/Case"));
    desk.org.fault(slowly("/sobjects/Task").method("POST"));
    ask(&mut peer, SAVE, "s", json!({ "callId": "1", "params": { "variable2": "saved" } })).await;
    // The second one waits for the first, because it is about the same record.
    for (id, text) in [("a", "begun"), ("b", "waits")] {
        peer.send(envelope(UPDATE, json!({ "id": id, "data": update(text) }))).await;
    }
    maker.send(envelope(CREATE, json!({ "id": "c", "data": create(json!({ "subject": "mine" })) }))).await;
    desk.seen("PATCH", "/sobjects/Case", 1).await;
    desk.seen("POST", "/sobjects/Task", 1).await;
    reload(&desk, "").await;
    let late = ask(&mut gadget, UPDATE, "d", update("late")).await;
    assert_eq!(late["data"]["ErrorCode"], "NO_HANDLER", "{late}");
    let begun = within("an answer", peer.next_answer(UPDATE, "a")).await;
    assert_eq!((&begun["data"]["Success"], &begun["data"]["Status"]), (&json!(true), &json!("saved")), "{begun}");
    let waited = within("an answer", peer.next_answer(UPDATE, "b")).await;
    // It is judged when it begins, and has the form of the adapter that it was given to.
    let (code, _) = failure(&waited, &["callId", "callid", "Name", "OId", "sfid"]);
    assert_eq!(code, "FORBIDDEN");
    let made = within("an answer", maker.next_answer(CREATE, "c")).await;
    assert_eq!(made["data"]["Success"], true, "{made}");
    let told = gadget.next_on(CREATE).await;
    assert_eq!((&told["data"]["sfid"], &told["source"]), (&made["data"]["sfid"], &json!("switchboard")));
    desk.rows_become(CASES, json!([{ "Subject": "begun", "Status": "saved" }])).await;
    assert_eq!(desk.rows("SELECT Subject FROM Task").await, [json!({ "Subject": "mine" })]);
}

#[tokio::test]
async fn saved_variables_survive_and_are_written_on_the_events_of_the_new_configuration() {
    // A limit of applications. The handler subscribes to more.
    let with = |more: &str| format!("{OBJECTS}[salesforce.variables]\n{more}\n[limits]\nsubscriptions = 1\n");
    let desk = Desk::start(&with(&format!("write_on = ['{ENDED}']"))).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    let save = |params: Value| json!({ "callId": "1", "params": params });
    ask(&mut peer, UPDATE, "u", json!({ "callId": "1", "Name": "Case", "sfid": CASE, "params": {} })).await;
    ask(&mut peer, SAVE, "s", save(json!({ "variable1": "kept" }))).await;
    let line = reload(&desk, &with(&format!("variables = 1\nkeep = '1h'\nwrite_on = ['{HUNG_UP}']"))).await;
    assert!(line.contains("salesforce.variables.write_on") && line.contains("salesforce.variables.keep"), "{line}");
    let over = ask(&mut peer, SAVE, "o", save(json!({ "variable2": "more" }))).await;
    assert_eq!(over["data"]["ErrorCode"], "TOO_LARGE", "{over}");
    assert_eq!(published(&mut peer, ENDED, json!({ "callId": "1" })).await, 0, "nobody receives the old event");
    assert_eq!(published(&mut peer, HUNG_UP, json!({ "callId": "1" })).await, 1);
    desk.rows_become(CASES, json!([{ "Subject": "kept", "Status": "New" }])).await;
    assert_eq!(desk.asked("PATCH", "/Case/"), 1);
    // Switched off, it writes nothing.
    ask(&mut peer, SAVE, "v", save(json!({ "variable1": "again" }))).await;
    reload(&desk, "").await;
    assert_eq!(published(&mut peer, HUNG_UP, json!({ "callId": "1" })).await, 0);
    reload(&desk, &with(&format!("write_on = ['{HUNG_UP}', '{ENDED}']"))).await;
    published(&mut peer, ENDED, json!({ "callId": "1" })).await;
    desk.rows_become(CASES, json!([{ "Subject": "again", "Status": "New" }])).await;
}

#[tokio::test]
async fn variables_are_kept_for_as_long_as_the_new_configuration_says() {
    let with = |keep: &str| format!("{OBJECTS}[salesforce.variables]\nkeep = '{keep}'\n");
    let desk = Desk::start(&with("8h")).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    ask(&mut peer, SAVE, "s", json!({ "callId": "1", "params": { "variable2": "saved" } })).await;
    reload(&desk, &with("1s")).await;
    // It looks for what has expired whenever it is asked.
    let mut often = tokio::time::interval(std::time::Duration::from_millis(100));
    within("the end of the variables", async {
        while !desk.broker.log().contains("variables expired unwritten") {
            often.tick().await;
            ask(&mut peer, SAVE, "t", json!({ "callId": "2", "params": {} })).await;
        }
    })
    .await;
    let told = ask(&mut peer, UPDATE, "u", update("now")).await;
    assert!(told["data"]["Success"] == true && told["data"].get("Status").is_none(), "{told}");
}

#[tokio::test]
async fn a_creation_that_is_repeated_after_reloads_makes_no_second_record() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    let task = || create(json!({ "subject": "mine" }));
    let first = ask(&mut peer, CREATE, "c", task()).await;
    assert_eq!(first["data"]["Success"], true, "{first}");
    let asked = || (desk.asked("POST", "/sobjects/Task"), desk.asked("GET", "/Switchboard_Request_Id__c/"));
    let before = asked();
    for objects in [
        OBJECTS.replace("display_field = \"Subject\"\n", ""),
        format!("{OBJECTS}[salesforce.creations]\nremembered = 1\nin_progress = 2\n"),
        format!("calls_per_user = 7\n{OBJECTS}"),
        "create".to_owned(),
    ] {
        if objects == "create" {
            reload(&desk, CASE_ONLY).await;
            assert_eq!(ask(&mut peer, CREATE, "c", task()).await["data"]["ErrorCode"], "NO_HANDLER");
            reload(&desk, OBJECTS).await;
        } else {
            reload(&desk, &objects).await;
        }
        let again = ask(&mut peer, CREATE, "c", task()).await;
        assert_eq!(again["data"]["sfid"], first["data"]["sfid"], "{again}");
    }
    assert_eq!(asked(), before, "it is remembered, so the org is not even searched");
    assert_eq!(desk.rows("SELECT Subject FROM Task").await.len(), 1);
}

#[tokio::test]
async fn a_dry_run_and_a_refused_reload_change_nothing() {
    let with = |more: &str| format!("{more}\n[admin]\nlisten = ['127.0.0.1:0']\n");
    let desk = Desk::start(&with(CASE_ONLY)).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    let topics = format!(
        "[salesforce.events]\nendpoint = '{}'\nsettle = '0s'\n[salesforce.events.topics.n]\ntopic = '{NOTICES}'\n",
        desk.org.url()
    );
    let new = format!("{OBJECTS}{topics}");
    desk.configure(&with(&new));
    let token = fs::read_to_string(desk.broker.data_dir().join("admin.token")).unwrap();
    let url = format!("http://{}", desk.broker.admin().await);
    let headers = format!("authorization: Bearer {}\r\n", token.trim());
    let dry = http::ask(&url, "POST", "/v1/reload?dry_run=true", &headers, "").await.json();
    assert_eq!(dry["applied"], false, "{dry}");
    let changed = dry["changed"].as_array().unwrap();
    for key in ["salesforce.objects", "salesforce.events.topics", "salesforce.events.settle"] {
        assert!(changed.contains(&json!(key)), "{dry}");
    }
    desk.configure(&with(&format!("ca_file = '/nonexistent'\n{new}")));
    assert!(desk.broker.reload().await.contains("was refused"));
    let made = ask(&mut peer, CREATE, "c", create(json!({}))).await;
    assert_eq!(made["data"]["ErrorCode"], "NO_HANDLER", "{made}");
    let task = json!({ "callId": "1", "Name": "Task", "sfid": CASE, "params": {} });
    let refused = ask(&mut peer, UPDATE, "u", task).await;
    assert_eq!(refused["data"]["ErrorCode"], "FORBIDDEN", "{refused}");
    assert_eq!((desk.org.streams(NOTICES), desk.org.logins()), (0, 0), "nothing was sent");
}

#[tokio::test]
async fn a_secret_that_is_replaced_in_its_file_takes_effect_with_a_reload() {
    let desk = Desk::start(OBJECTS).await;
    let mut peer = desk.broker.app_of("myapp", "alice").await;
    secret_file(desk.secret(), "of-another-app");
    let line = desk.broker.reload().await;
    assert!(line.contains("changed=\"salesforce.client_secret_file\""), "{line}");
    assert_eq!(ask(&mut peer, UPDATE, "a", update("a")).await["data"]["Success"], false);
    fs::remove_file(desk.secret()).unwrap();
    let line = desk.broker.reload().await;
    assert!(line.contains("refused") && line.contains("salesforce.client_secret_file"), "{line}");
    secret_file(desk.secret(), "demo-secret");
    let line = desk.broker.reload().await;
    assert!(line.contains("changed=\"salesforce.client_secret_file\""), "{line}");
    assert_eq!(ask(&mut peer, UPDATE, "b", update("b")).await["data"]["Success"], true);
    let logins = desk.org.logins();
    let line = desk.broker.reload().await;
    assert!(line.contains("changed=\"\""), "{line}");
    assert_eq!(ask(&mut peer, UPDATE, "c", update("c")).await["data"]["Success"], true);
    assert_eq!(desk.org.logins(), logins, "nothing has changed");
}
