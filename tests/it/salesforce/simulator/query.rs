//! SOQL: what it finds, what it refuses, and how it is paged.

use serde_json::{Value, json};

use super::{ALICE, Fixture, QUERY};

/// The names that a condition finds among accounts A to E, of which E has a phone.
async fn check(conditions: &[(&str, &str)]) {
    let fixture = Fixture::with(false, |seed| {
        seed["organization"]["batch_size"] = json!(2000);
        let accounts = seed["records"]["Account"].as_array_mut().unwrap();
        for account in accounts {
            if account["Name"] == "E" {
                account["Phone"] = json!("50% of_E's \\ \"x\"");
            }
        }
    })
    .await;
    let token = fixture.writer().await;
    for (condition, expected) in conditions {
        let answer = fixture.query(&token, &format!("SELECT Name FROM Account {condition}")).await;
        let found = match answer.status {
            200 => answer.json()["records"].as_array().unwrap().iter().map(|it| it["Name"].as_str().unwrap()).collect(),
            _ => answer.refusal().1,
        };
        assert_eq!(found, *expected, "{condition}: {}", answer.body);
    }
}

#[tokio::test]
async fn where_finds_what_it_asks_for() {
    check(&[
        ("", "BADCE"),
        ("ORDER BY Name", "ABCDE"),
        ("order by Name desc limit 2 offset 1", "DC"),
        ("WHERE Name = 'a'", "A"),
        ("WHERE Name IN ('a', 'C', 'x')", "AC"),
        ("WHERE Name NOT IN ('a', 'C')", "BDE"),
        ("WHERE Name != 'A' AND Name <> 'B' AND Name > 'c'", "DE"),
        ("WHERE Name = 'A' OR Name = 'B'", "BA"),
        ("WHERE (Name = 'A' OR Name = 'B') AND NOT Name = 'A'", "B"),
        ("WHERE Phone = null", "BADC"),
        ("WHERE Phone != NULL", "E"),
        (r"WHERE Phone = '50% of_E\'s \\ \u0022x\u0022'", "E"),
        ("WHERE Name LIKE '%'", "BADCE"),
        (r"WHERE Phone LIKE '50\% of\_E%x_'", "E"),
        (r"WHERE Phone LIKE '50_ of\%%'", ""),
        ("WHERE IsDeleted = true", ""),
        ("WHERE CreatedBy.Username = 'integration@example.com' AND CreatedDate > 2020-01-01T00:00:00Z", "BADCE"),
        ("ORDER BY Phone DESC NULLS FIRST LIMIT 1", "B"),
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_soql_is_refused() {
    let long = format!("WHERE Name = '{}'", "x".repeat(4001));
    let deep = format!("WHERE {}Name = 'A'{}", "(".repeat(40), ")".repeat(40));
    check(&[
        ("WHERE", "MALFORMED_QUERY"),
        ("WHERE Name", "MALFORMED_QUERY"),
        ("WHERE Name = 'A' OR Name = 'B' AND Name = 'C'", "MALFORMED_QUERY"),
        ("WHERE Name = \"A\"", "MALFORMED_QUERY"),
        ("WHERE Name = 'A", "MALFORMED_QUERY"),
        (r"WHERE Name = 'A\'", "MALFORMED_QUERY"),
        (r"WHERE Name = '\x'", "MALFORMED_QUERY"),
        (r"WHERE Name = '\%'", "MALFORMED_QUERY"),
        (r"WHERE Name = '\u12'", "MALFORMED_QUERY"),
        ("WHERE Name = 'A' -- comment", "MALFORMED_QUERY"),
        ("LIMIT x", "MALFORMED_QUERY"),
        ("LIMIT 1 LIMIT 1", "MALFORMED_QUERY"),
        (&long, "MALFORMED_QUERY"),
        (&deep, "MALFORMED_QUERY"),
        ("WHERE Nothing__c = 'x'", "INVALID_FIELD"),
        ("WHERE Nothing.Name = 'x'", "INVALID_FIELD"),
        ("WHERE Name = 5", "INVALID_FIELD"),
        ("WHERE IsDeleted = 'true'", "INVALID_FIELD"),
        ("WHERE Description = 'x'", "INVALID_FIELD"),
        ("ORDER BY Description", "INVALID_FIELD"),
        ("WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR"),
    ])
    .await;
}

#[tokio::test]
async fn an_error_shows_its_place() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let refused = fixture.query(&token, "SELECT Id, Nothing__c FROM Account").await.json();
    let message = refused[0]["message"].as_str().unwrap();
    let start =
        "\nSELECT Id, Nothing__c FROM Account\n           ^\nERROR at Row:1:Column:12\nNo such column 'Nothing__c'";
    assert!(message.starts_with(start), "{message}");
}

#[tokio::test]
async fn ids_are_found_by_either_form_and_by_exact_case() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let count = async |condition: &str| {
        let answer = fixture.query(&token, &format!("SELECT COUNT() FROM CTI_Login__c WHERE {condition}")).await;
        answer.json()["totalSize"].as_u64().unwrap()
    };
    assert_eq!(count("User__c = '005000000000002'").await, 1);
    assert_eq!(count(&format!("User__c = '{ALICE}'")).await, 1);
    assert_eq!(count(&format!("User_Id__c = '{ALICE}'")).await, 1);
    // Text that minds its case, not an id.
    assert_eq!(count("User_Id__c = '005000000000002aaa'").await, 0);
    assert_eq!(count("User_Id__c = '005000000000002'").await, 0);
}

#[tokio::test]
async fn pages_follow_each_other_and_belong_to_their_user() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let mut names = String::new();
    let mut page = fixture.query(&token, "SELECT Name FROM Account ORDER BY Name").await.json();
    let second = page["nextRecordsUrl"].as_str().unwrap().to_owned();
    loop {
        assert_eq!(page["totalSize"], json!(5));
        names.extend(page["records"].as_array().unwrap().iter().map(|it| it["Name"].as_str().unwrap()));
        let Some(next) = page["nextRecordsUrl"].as_str().map(ToOwned::to_owned) else { break };
        assert_eq!(page["done"], json!(false));
        page = fixture.get(&token, &next).await.json();
    }
    assert_eq!((names.as_str(), &page["done"]), ("ABCDE", &json!(true)));

    let invalid = (400, "INVALID_QUERY_LOCATOR".to_owned());
    assert_eq!(fixture.get(&fixture.reader().await, &second).await.refusal(), invalid, "another user's");
    assert_eq!(fixture.get(&token, &format!("{QUERY}/01g000000000099AAA-2")).await.refusal(), invalid);
    assert_eq!(fixture.get(&token, &second.replace("-2", "-200")).await.refusal(), invalid);
}

#[tokio::test]
async fn a_caller_may_ask_for_smaller_pages() {
    let fixture = Fixture::with(false, |seed| {
        seed["organization"]["batch_size"] = json!(2000);
        seed["records"]["Account"] = (0..250).map(|it| json!({ "Name": it.to_string() })).collect();
    })
    .await;
    let token = fixture.writer().await;
    for (options, rows) in [("", 250), ("batchSize=200", 200), ("batchSize=10", 200), ("batchSize=x", 250)] {
        let headers = format!("authorization: Bearer {token}\r\nsforce-query-options: {options}\r\n");
        let page = fixture.ask("GET", &format!("{QUERY}/?q=SELECT+Id+FROM+Account"), &headers, "").await.json();
        assert_eq!(page["records"].as_array().unwrap().len(), rows, "{options}");
    }
}

#[tokio::test]
async fn permissions_can_be_asked_for() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    for (user, found) in [("005000000000004", 1), ("005000000000005", 0)] {
        let soql = format!(
            "SELECT Id FROM PermissionSetAssignment WHERE AssigneeId = '{user}' \
             AND PermissionSet.PermissionsViewEncryptedData = true LIMIT 1"
        );
        assert_eq!(fixture.query(&token, &soql).await.json()["totalSize"], json!(found), "{user}");
    }
}

#[tokio::test]
async fn rows_come_in_the_documented_form() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let soql = format!(
        "select id, CTI_Password__c, ADFS_Username__c, User__r.Username, User__r.Phone FROM cti_login__c \
         WHERE User_Id__c = '{ALICE}' AND Active__c = true LIMIT 2"
    );
    let answer = fixture.query(&token, &soql).await;
    assert_eq!(answer.header("sforce-limit-info"), Some("api-usage=1/15000"));
    let expected: Value = serde_json::from_str(
        r#"{"totalSize":1,"done":true,"records":[{
            "attributes":{"type":"CTI_Login__c","url":"/services/data/v67.0/sobjects/CTI_Login__c/a00000000000001AAA"},
            "Id":"a00000000000001AAA","CTI_Password__c":"made-up-Alice","ADFS_Username__c":"EXAMPLE\\alice",
            "User__r":{
                "attributes":{"type":"User","url":"/services/data/v67.0/sobjects/User/005000000000002AAA"},
                "Username":"alice@example.com","Phone":null}}]}"#,
    )
    .unwrap();
    assert_eq!(answer.body, expected.to_string());
}

#[tokio::test]
async fn versions_come_and_go() {
    let fixture = Fixture::start().await;
    let versions = fixture.ask("GET", "/services/data/", "", "").await;
    assert_eq!(versions.header("sforce-limit-info"), None);
    let versions = versions.json();
    let newest = json!({ "label": "Winter '27", "url": "/services/data/v68.0", "version": "68.0" });
    assert_eq!(versions.as_array().unwrap().last(), Some(&newest));
    let token = fixture.writer().await;
    for (version, status) in [("v68.0", 200), ("v41.0", 200), ("v30.0", 410), ("v69.0", 404), ("v67", 404)] {
        assert_eq!(fixture.get(&token, &format!("/services/data/{version}/limits")).await.status, status, "{version}");
    }
    let long = format!("{QUERY}?q={}", "x".repeat(17_000));
    assert_eq!(fixture.get(&token, &long).await.status, 414);
}
