//! Which of an org's events applications receive, and which applications.

use serde_json::json;

use super::{ALICE, BOB, NOTICE, NOTICES, OWN, SHARED, Stage, listener, next_message};

const FETCH: &str = "Salesforce/User/FetchCredentials";
const LOGIN: &str = "Salesforce/ChangeEvent/CTI_Login__ChangeEvent";

#[tokio::test]
async fn an_event_with_a_user_is_heard_by_that_users_applications_and_services_alone() {
    let stage = Stage::start().await;
    let broker = stage.broker(OWN).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    let mut crm = listener(&broker, "alice-crm", "Salesforce/*/*").await;
    let mut bob = listener(&broker, "bob-desk", "*/*/*").await;
    let mut cti = listener(&broker, "cti", NOTICE).await;
    stage.publish(&json!({
        "User_Id__c": ALICE, "Message__c": "Grüße \"1\"", "Priority__c": 1.5, "At__c": "2026-11-24T09:20:00.000+0000",
    }));
    let event = desk.next_on(NOTICE).await;
    assert_eq!(event["source"], "switchboard");
    assert_eq!(event.get("user"), None);
    let data = &event["data"];
    assert_eq!(
        (&data["Message__c"], &data["Priority__c"], &data["At__c"]),
        (&json!("Grüße \"1\""), &json!(1.5), &json!("2026-11-24T09:20:00.000Z"))
    );
    assert!(data["CreatedDate"].as_str().is_some_and(|it| it.ends_with('Z')), "{data}");
    // The number of the first event, in eight bytes.
    assert_eq!(data["replayId"], "AAAAAAAAA+g=");
    assert_eq!(data["schemaId"].as_str().unwrap().len(), 22);
    assert_eq!(data["eventUuid"].as_str().unwrap().len(), 36);
    assert_eq!(crm.next_on(NOTICE).await["data"], *data);
    let heard = cti.next_on(NOTICE).await;
    assert_eq!((&heard["data"], &heard["user"]), (data, &json!(ALICE)));
    bob.expect_nothing().await;
    stage.notice(BOB, "for bob");
    assert_eq!(next_message(&mut bob).await, "for bob");
    desk.expect_nothing().await;
}

#[tokio::test]
async fn a_shared_event_is_heard_by_every_user_and_once_by_a_service() {
    let stage = Stage::start().await;
    let broker = stage.broker(SHARED).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    let mut bob = listener(&broker, "bob-desk", "*/*/*").await;
    let mut cti = listener(&broker, "cti", NOTICE).await;
    cti.subscribe("Salesforce/*/*").await;
    for message in ["one", "two"] {
        stage.notice(ALICE, message);
        for peer in [&mut desk, &mut bob, &mut cti] {
            let event = peer.next_on(NOTICE).await;
            assert_eq!((&event["data"]["Message__c"], event.get("user")), (&json!(message), None));
        }
    }
    for peer in [&mut desk, &mut bob, &mut cti] {
        peer.expect_nothing().await;
    }
}

#[tokio::test]
async fn an_event_without_its_user_goes_to_nobody_and_the_log_says_so_once() {
    let stage = Stage::start().await;
    let broker = stage.broker(OWN).await;
    let mut cti = listener(&broker, "cti", NOTICE).await;
    for _ in 0..2 {
        stage.publish(&json!({ "Message__c": "whose?" }));
    }
    stage.notice("a user\u{7}", "no name");
    stage.notice(ALICE, "hers");
    assert_eq!(next_message(&mut cti).await, "hers");
    assert_eq!(broker.log().matches("user_field is empty").count(), 1, "{}", broker.log());
}

#[tokio::test]
async fn a_change_names_the_fields_that_changed_and_never_has_the_password() {
    let stage = Stage::start().await;
    let topics = "[salesforce.events.topics.login]\ntopic = \"/data/CTI_Login__ChangeEvent\"\n\
                  [salesforce.events.topics.contact]\ntopic = \"/data/ContactChangeEvent\"\nfields = [\"name\"]\n";
    let broker = crate::support::Broker::with_config(&stage.config(topics)).await;
    stage.streams("/data/CTI_Login__ChangeEvent", 1).await;
    stage.streams("/data/ContactChangeEvent", 1).await;
    let mut desk = listener(&broker, "alice-desk", "Salesforce/ChangeEvent/*").await;
    let path = format!("CTI_Login__c/User_Id__c/{ALICE}");
    let change = json!({ "CTI_Password__c": "never-shown-1", "CTI_Extension__c": "777", "ADFS_Username__c": null });
    stage.send("PATCH", &path, &change).await;
    let event = desk.next_on(LOGIN).await;
    let data = &event["data"];
    let header = &data["ChangeEventHeader"];
    assert_eq!(
        (&header["changeType"], &header["entityName"], &header["commitUser"]),
        (&json!("UPDATE"), &json!("CTI_Login__c"), &json!("005000000000001AAA"))
    );
    let changed = ["LastModifiedDate", "CTI_Password__c", "CTI_Extension__c", "ADFS_Username__c"];
    for name in changed {
        assert!(header["changedFields"].as_array().unwrap().contains(&json!(name)), "{name}: {header}");
    }
    assert_eq!(header["nulledFields"], json!(["ADFS_Username__c"]));
    assert_eq!((&data["CTI_Extension__c"], data.get("CTI_Password__c")), (&json!("777"), None));

    stage.send("POST", "Contact", &json!({ "FirstName": "Ann", "LastName": "Lee", "Phone": "1" })).await;
    let event = desk.next().await;
    let data = &event["data"];
    assert_eq!(data["ChangeEventHeader"]["changeType"], "CREATE");
    assert_eq!(data["Name"], json!({ "FirstName": "Ann", "LastName": "Lee" }));
    assert_eq!(data.get("Phone"), None, "only what is configured is passed on");
    let id = data["ChangeEventHeader"]["recordIds"][0].as_str().unwrap().to_owned();
    stage.send("PATCH", &format!("Contact/{id}"), &json!({ "LastName": "Low" })).await;
    let header = &desk.next().await["data"]["ChangeEventHeader"];
    assert!(header["changedFields"].as_array().unwrap().contains(&json!("Name.LastName")), "{header}");
    stage.send("DELETE", &format!("Contact/{id}"), &json!({})).await;
    assert_eq!(desk.next().await["data"]["ChangeEventHeader"]["changeType"], "DELETE");
    assert!(!broker.log().contains("never-shown-1"));
}

#[tokio::test]
async fn no_application_makes_a_request_of_an_event_and_a_false_one_bears_another_source() {
    let stage = Stage::start().await;
    let broker = stage.broker(OWN).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    let mut gadget = broker.app_by_token("alice-crm").await;
    gadget.handle("Salesforce/*/*").await;
    stage.notice(ALICE, "an event");
    assert_eq!(next_message(&mut desk).await, "an event");
    gadget.expect_nothing().await;
    // What a gadget publishes on the triple is a request to another's handler, or an event that says whose it is.
    let mut bob = listener(&broker, "bob-desk", NOTICE).await;
    bob.publish(NOTICE, "false").await;
    bob.fence().await;
    gadget.publish(NOTICE, "false").await;
    let event = desk.next_on(NOTICE).await;
    assert_eq!((&event["source"], &event["data"]), (&json!("alice-crm"), &json!("false")));
}

#[tokio::test]
async fn a_thousand_events_come_in_order_and_no_more_are_on_their_way_than_were_asked_for() {
    let stage = Stage::with(true).await;
    let broker = stage.broker(OWN).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    for number in 0..1000 {
        stage.notice(ALICE, &number.to_string());
    }
    for number in 0..1000 {
        assert_eq!(next_message(&mut desk).await, number.to_string());
    }
    let schemas = stage.org.seen().iter().filter(|seen| seen.path.ends_with("GetSchema")).count();
    assert_eq!(schemas, 1, "a schema is asked for once");
    assert!(stage.org.owed_most() <= 100, "{}", stage.org.owed_most());
    assert_eq!(stage.org.streams(NOTICES), 1);
}

#[tokio::test]
async fn a_change_of_a_login_empties_the_cache_of_credentials() {
    let stage = Stage::start().await;
    let topics = "[salesforce.events.topics.login]\ntopic = \"/data/CTI_Login__ChangeEvent\"\n\
                  [salesforce.credentials]\ncache = \"1h\"\n[credentials]\nstore = \"salesforce\"\n";
    let broker = crate::support::Broker::with_config(&stage.config(topics)).await;
    stage.streams("/data/CTI_Login__ChangeEvent", 1).await;
    let mut desk = listener(&broker, "alice-desk", LOGIN).await;
    let fetched = async |desk: &mut crate::support::Peer, id: &str| {
        desk.ask(FETCH, id).await;
        desk.next_answer(FETCH, id).await["data"]["Extension"].clone()
    };
    let before = fetched(&mut desk, "1").await;
    assert_ne!(before, json!("777"));
    stage.send("PATCH", &format!("CTI_Login__c/User_Id__c/{ALICE}"), &json!({ "CTI_Extension__c": "777" })).await;
    desk.next_on(LOGIN).await;
    assert_eq!(fetched(&mut desk, "2").await, json!("777"));
}
