//! Rows by id and by external id, several at once, and what may not be written.

use serde_json::{Value, json};

use super::{ALICE, Fixture};

const DATA: &str = "/services/data/v67.0";
const LOGINS: &str = "/services/data/v67.0/sobjects/CTI_Login__c";
const CONTACTS: &str = "/services/data/v67.0/sobjects/Contact";

#[tokio::test]
async fn a_row_lives_from_create_to_delete() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let made = fixture.send("POST", &token, CONTACTS, &json!({ "LastName": "Adams", "Phone": "" })).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!((made.status, made.json()), (201, json!({ "id": id, "success": true, "errors": [] })));
    let row = format!("{CONTACTS}/{id}");
    assert_eq!(made.header("location"), Some(row.as_str()));
    let fields = fixture.get(&token, &format!("{row}?fields=LastName,Phone")).await.json();
    assert_eq!((&fields["LastName"], &fields["Phone"]), (&json!("Adams"), &json!(null)));

    let short = format!("{CONTACTS}/{}", &id[..15]);
    let changed = fixture.send("PATCH", &token, &short, &json!({ "Phone": "2" })).await;
    assert_eq!((changed.status, changed.body.as_str()), (204, ""));
    assert_eq!(fixture.get(&token, &row).await.json()["Phone"], json!("2"));
    assert_eq!(fixture.send("DELETE", &token, &row, &json!({})).await.status, 204);
    assert_eq!(fixture.get(&token, &row).await.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(fixture.send("DELETE", &token, &row, &json!({})).await.refusal().1, "ENTITY_IS_DELETED");
    assert_eq!(fixture.get(&token, &format!("{CONTACTS}/x")).await.status, 404);
    assert_eq!(fixture.send("PUT", &token, &row, &json!({})).await.status, 405);
}

#[tokio::test]
async fn what_may_not_be_written_is_refused() {
    let fixture = Fixture::start().await;
    let (token, reader) = (fixture.writer().await, fixture.reader().await);
    let refused = async |token: &str, path: &str, body: Value| fixture.send("POST", token, path, &body).await.refusal();
    let bad = |code: &str| (400, code.to_owned());
    assert_eq!(refused(&token, CONTACTS, json!({})).await, bad("REQUIRED_FIELD_MISSING"));
    assert_eq!(refused(&token, CONTACTS, json!({ "LastName": "x".repeat(81) })).await, bad("STRING_TOO_LONG"));
    assert_eq!(refused(&token, CONTACTS, json!({ "LastName": 1 })).await, bad("JSON_PARSER_ERROR"));
    assert_eq!(refused(&token, CONTACTS, json!([])).await, bad("JSON_PARSER_ERROR"));
    assert_eq!(refused(&token, CONTACTS, json!({ "LastName": "x", "Nothing": 1 })).await, bad("INVALID_FIELD"));
    let system = json!({ "LastName": "x", "CreatedDate": "2020-01-01" });
    assert_eq!(refused(&token, CONTACTS, system).await, bad("INVALID_FIELD_FOR_INSERT_UPDATE"));
    assert_eq!(refused(&token, CONTACTS, json!({ "LastName": "x", "AccountId": "y" })).await, bad("MALFORMED_ID"));
    let nobody = json!({ "LastName": "x", "AccountId": "001000000000999" });
    assert_eq!(refused(&token, CONTACTS, nobody).await, bad("INVALID_CROSS_REFERENCE_KEY"));
    let twice = json!({ "User__c": ALICE, "User_Id__c": ALICE });
    assert_eq!(refused(&token, LOGINS, twice).await, bad("DUPLICATE_VALUE"));
    let hidden = json!({ "User__c": ALICE, "ADFS_Username__c": "x" });
    assert_eq!(refused(&reader, LOGINS, hidden).await, bad("INVALID_FIELD"));
    assert_eq!(refused(&token, &format!("{DATA}/sobjects/Nothing__c"), json!({})).await.0, 404);
    let headers = format!("authorization: Bearer {token}\r\n");
    assert_eq!(fixture.ask("POST", CONTACTS, &headers, "{}").await.refusal().0, 415);
}

#[tokio::test]
async fn an_external_id_creates_at_most_once() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let row = format!("{LOGINS}/User_Id__c/a%2Fb%20c");
    assert_eq!(fixture.get(&token, &row).await.refusal(), (404, "NOT_FOUND".to_owned()));
    let body = json!({ "User__c": ALICE, "CTI_Extension__c": "1" });
    let (first, again) =
        (fixture.send("PATCH", &token, &row, &body).await, fixture.send("PATCH", &token, &row, &body).await);
    assert_eq!((first.status, &first.json()["created"]), (201, &json!(true)));
    assert_eq!((again.status, &again.json()["created"]), (200, &json!(false)));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let old = row.replace("v67.0", "v45.0");
    assert_eq!(fixture.send("PATCH", &token, &old, &body).await.status, 204);
    assert_eq!(fixture.get(&token, &format!("{row}?fields=User_Id__c")).await.json()["User_Id__c"], json!("a/b c"));
    assert_eq!(fixture.get(&token, &row.replace("b%20c", "B%20C")).await.status, 404, "it minds its case");
    assert_eq!(fixture.get(&token, &format!("{LOGINS}/CTI_Username__c/1245456")).await.status, 404, "no external id");
}

#[tokio::test]
async fn describe_leaves_out_what_is_hidden() {
    let fixture = Fixture::start().await;
    let fields = async |token: &str| {
        let told = fixture.get(token, &format!("{LOGINS}/describe")).await.json();
        let fields = told["fields"].as_array().unwrap().clone();
        fields.into_iter().map(|it| (it["name"].as_str().unwrap().to_owned(), it)).collect::<Vec<_>>()
    };
    let has = |fields: &[(String, Value)], name: &str| fields.iter().any(|(it, _)| it == name);
    let (writer, reader) = (fields(&fixture.writer().await).await, fields(&fixture.reader().await).await);
    assert!(has(&writer, "ADFS_Username__c") && !has(&reader, "ADFS_Username__c"));
    let (_, password) = writer.iter().find(|(it, _)| it == "CTI_Password__c").unwrap();
    assert_eq!((&password["type"], &password["length"]), (&json!("encryptedstring"), &json!(175)));
    assert_eq!((&password["filterable"], &password["encrypted"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn a_composite_call_succeeds_as_a_whole_and_fails_in_parts() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let parts = |last_name: &str| {
        json!([
            { "method": "POST", "url": format!("{DATA}/sobjects/Account"), "referenceId": "a", "body": { "Name": "F" } },
            {
                "method": "POST", "url": CONTACTS, "referenceId": "c",
                "body": { "LastName": last_name, "AccountId": "@{a.id}" },
            },
            { "method": "GET", "url": format!("{CONTACTS}/@{{c.id}}"), "referenceId": "g" },
        ])
    };
    let statuses = async |body: Value| {
        let answer = fixture.send("POST", &token, &format!("{DATA}/composite"), &body).await;
        assert_eq!(answer.status, 200);
        let parts = answer.json()["compositeResponse"].as_array().unwrap().clone();
        parts.iter().map(|it| it["httpStatusCode"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let accounts =
        async || fixture.query(&token, "SELECT COUNT() FROM Account").await.json()["totalSize"].as_u64().unwrap();
    assert_eq!(statuses(json!({ "compositeRequest": parts("Adams") })).await, [201, 201, 200]);
    assert_eq!(accounts().await, 6);
    assert_eq!(statuses(json!({ "compositeRequest": parts("") })).await, [201, 400, 400]);
    assert_eq!(accounts().await, 7);
    assert_eq!(statuses(json!({ "allOrNone": true, "compositeRequest": parts("") })).await, [400, 400, 400]);
    assert_eq!(accounts().await, 7);
}

#[tokio::test]
async fn apex_answers_in_the_clear() {
    let fixture = Fixture::start().await;
    let reader = fixture.reader().await;
    let told = fixture.get(&reader, &format!("/services/apexrest/cti/{ALICE}")).await;
    assert_eq!((told.status, &told.json()["CTI_Password__c"]), (200, &json!("made-up-Alice")));
    assert_eq!(fixture.get(&reader, "/services/apexrest/cti/nobody").await.status, 404);
    assert_eq!(fixture.get(&reader, "/services/apexrest/other/nobody").await.status, 404);
}
