//! What goes wrong on demand, through the library and through the control API.

use std::time::Duration;

use salesforce_stand_in::{Fault, Options, Org, Seed, Seen, Wrong};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ALICE, Fixture};

const ONE: &str = "SELECT Id FROM Account LIMIT 1";

async fn arm(fixture: &Fixture, fault: &Value) {
    assert_eq!(fixture.ask("POST", "/simulator/faults", "", &fault.to_string()).await.status, 204, "{fault}");
}

#[tokio::test]
async fn each_refusal_is_the_orgs_own() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    for (fault, status, code) in [
        (json!({ "fault": "session_expired" }), 401, "INVALID_SESSION_ID"),
        (json!({ "fault": "session_not_valid" }), 401, "INVALID_SESSION_ID"),
        (json!({ "fault": "password_expired" }), 401, "INVALID_OPERATION_WITH_EXPIRED_PASSWORD"),
        (json!({ "fault": "api_disabled" }), 403, "API_DISABLED_FOR_ORG"),
        (json!({ "fault": "api_currently_disabled" }), 403, "API_CURRENTLY_DISABLED"),
        (json!({ "fault": "daily_limit" }), 403, "REQUEST_LIMIT_EXCEEDED"),
        (json!({ "fault": "long_running_limit" }), 403, "REQUEST_LIMIT_EXCEEDED"),
        (json!({ "fault": "insufficient_access" }), 403, "INSUFFICIENT_ACCESS"),
        (json!({ "fault": "query_timeout" }), 400, "QUERY_TIMEOUT"),
        (json!({ "fault": "unavailable", "retry_after": 7 }), 503, "SERVER_UNAVAILABLE"),
        (json!({ "fault": "error", "status": 420, "code": "ODD", "message": "m" }), 420, "ODD"),
    ] {
        arm(&fixture, &fault).await;
        let refused = fixture.query(&token, ONE).await;
        assert_eq!(refused.refusal(), (status, code.to_owned()), "{fault}");
        assert_eq!(refused.header("retry-after"), fault.get("retry_after").map(|_| "7"));
        if fault["fault"] == "daily_limit" {
            assert_eq!(refused.header("sforce-limit-info"), Some("api-usage=15000/15000"));
        }
        fixture.ask("DELETE", "/simulator/faults", "", "").await;
    }
    assert_eq!(fixture.query(&token, ONE).await.status, 200);
}

#[tokio::test]
async fn a_fault_meets_the_calls_it_is_meant_for_as_often_as_it_says() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    fixture.org.fault(Fault::new(Wrong::Unavailable { retry_after: None }).times(2).path("/query"));
    let limits = "/services/data/v67.0/limits";
    assert_eq!(fixture.get(&token, limits).await.status, 200);
    for status in [503, 503, 200] {
        assert_eq!(fixture.query(&token, ONE).await.status, status);
    }
    fixture.org.fault(Fault::new(Wrong::Unavailable { retry_after: None }).path("/oauth2/token"));
    assert_eq!(fixture.form("/services/oauth2/token", "").await.status, 503);

    fixture.org.fault(Fault::new(Wrong::Unavailable { retry_after: None }).method("POST").times(1));
    assert_eq!(fixture.query(&token, ONE).await.status, 200, "it is a GET");
    fixture.org.clear_faults();

    arm(&fixture, &json!({ "fault": "record_locked", "times": 1 })).await;
    assert_eq!(fixture.query(&token, ONE).await.status, 200, "it only reads");
    let contact = json!({ "LastName": "x" });
    let write = async || fixture.send("POST", &token, "/services/data/v67.0/sobjects/Contact", &contact).await;
    assert_eq!(write().await.refusal(), (400, "UNABLE_TO_LOCK_ROW".to_owned()));
    assert_eq!(write().await.status, 201);
}

#[tokio::test]
async fn a_body_can_be_anything_and_a_connection_can_end() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let whole = fixture.query(&token, ONE).await;
    let met = async |fault: Value| {
        arm(&fixture, &fault).await;
        let answer = fixture.query(&token, ONE).await;
        fixture.org.clear_faults();
        answer
    };
    let page = met(json!({ "fault": "html_body", "status": 503 })).await;
    assert_eq!((page.status, page.header("content-type")), (503, Some("text/html;charset=UTF-8")));
    assert_eq!(met(json!({ "fault": "empty_body" })).await.body, "");
    assert_eq!(met(json!({ "fault": "huge_body", "bytes": 2_000_000 })).await.body.len(), 2_000_000);
    let cut = met(json!({ "fault": "cut_body" })).await;
    assert_eq!(cut.header("content-length"), whole.header("content-length"));
    assert_eq!((cut.status, cut.body.as_str()), (200, &whole.body[..whole.body.len() / 2]));
    assert_eq!(met(json!({ "fault": "reset" })).await.status, 0);
    let moved = met(json!({ "fault": "redirect", "location": "http://127.0.0.1:9/" })).await;
    assert_eq!((moved.status, moved.header("location")), (302, Some("http://127.0.0.1:9/")));
    let before = Instant::now();
    assert_eq!(met(json!({ "fault": "slow", "milliseconds": 200 })).await.status, 200);
    assert!(before.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_write_can_take_its_time_or_be_broken_off() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let contact = json!({ "LastName": "late" });
    let write = async || fixture.send("POST", &token, "/services/data/v67.0/sobjects/Contact", &contact).await.status;
    let soql = "SELECT Id FROM Contact WHERE LastName = 'late'";
    let written = async || fixture.query(&token, soql).await.json()["totalSize"].as_u64().unwrap();

    arm(&fixture, &json!({ "fault": "slow_transaction", "milliseconds": 200, "times": 1 })).await;
    assert_eq!(written().await, 0, "it only reads");
    let before = Instant::now();
    assert_eq!((write().await, written().await), (201, 1));
    assert!(before.elapsed() >= Duration::from_millis(200));

    arm(&fixture, &json!({ "fault": "broken_write", "times": 1 })).await;
    assert_eq!((write().await, written().await), (0, 1));
    arm(&fixture, &json!({ "fault": "broken_write", "milliseconds": 200, "times": 1 })).await;
    assert_eq!((write().await, written().await), (0, 1));
    let mut often = tokio::time::interval(Duration::from_millis(20));
    crate::support::within("the late write", async {
        while written().await < 2 {
            often.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn rows_can_be_masked_hidden_and_doubled() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let soql = format!("SELECT Id, CTI_Password__c FROM CTI_Login__c WHERE User_Id__c = '{ALICE}' LIMIT 2");
    let field =
        |fault: &str| json!({ "fault": fault, "object": "CTI_Login__c", "field": "CTI_Password__c", "times": 1 });
    arm(&fixture, &field("masked_field")).await;
    let masked = fixture.query(&token, &soql).await.json();
    assert_eq!(masked["records"][0]["CTI_Password__c"], json!("*************"));
    arm(&fixture, &field("hidden_field")).await;
    assert_eq!(fixture.query(&token, &soql).await.refusal(), (400, "INVALID_FIELD".to_owned()));
    arm(&fixture, &json!({ "fault": "two_rows", "times": 2 })).await;
    let doubled = fixture.query(&token, &soql).await.json();
    assert_eq!(doubled["totalSize"], json!(2));
    assert_ne!(doubled["records"][0]["Id"], doubled["records"][1]["Id"]);
    let by_key = fixture.get(&token, &format!("/services/data/v67.0/sobjects/CTI_Login__c/User_Id__c/{ALICE}")).await;
    assert_eq!((by_key.status, by_key.json().as_array().unwrap().len()), (300, 2));
}

#[tokio::test]
async fn a_login_can_be_refused_or_sent_elsewhere() {
    let fixture = Fixture::start().await;
    let login = "grant_type=client_credentials&client_id=secret-client&client_secret=a+secret";
    arm(&fixture, &json!({ "fault": "instance_url", "url": "https://evil.example", "times": 1 })).await;
    let sent = fixture.form("/services/oauth2/token", login).await.json();
    assert_eq!(sent["instance_url"], json!("https://evil.example"));
    let refusal = json!({ "fault": "login_refused", "error": "invalid_grant", "description": "user is locked" });
    arm(&fixture, &refusal).await;
    let refused = fixture.form("/services/oauth2/token", login).await;
    assert_eq!((refused.status, &refused.json()["error_description"]), (400, &json!("user is locked")));
}

#[tokio::test]
async fn the_days_calls_run_out_by_themselves() {
    let fixture = Fixture::with(false, |seed| seed["organization"]["daily_api_requests"] = json!(2)).await;
    let token = fixture.writer().await;
    for status in [200, 200, 403] {
        assert_eq!(fixture.query(&token, ONE).await.status, status);
    }
}

#[tokio::test]
async fn an_org_that_was_down_comes_back_at_its_address_and_knows_no_token() {
    let Fixture { org, keys } = Fixture::start().await;
    let url = org.url();
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    org.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    let seed = Seed::parse(&super::seed(&keys).to_string()).unwrap();
    let org = Org::start(Options { listen: address, tls: false, seed }).await.unwrap();
    let fixture = Fixture { org, keys };
    assert_eq!(fixture.org.url(), url);
    assert_eq!(fixture.query("00D000000000001!AQ", ONE).await.status, 401);
    assert_eq!(fixture.query(&fixture.writer().await, ONE).await.status, 200);
}

#[tokio::test]
async fn the_control_api_tells_what_was_asked() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let headers = format!("authorization: Bearer {token}\r\nsforce-call-options: defaultNamespace=x, client=me\r\n");
    fixture.ask("GET", &format!("{}?q={}", super::QUERY, super::http::encoded(ONE)), &headers, "").await;
    let seen = fixture.ask("GET", "/simulator/seen", "", "").await.json();
    assert_eq!((&seen["logins"], &seen["calls"]), (&json!(1), &json!(1)));
    assert_eq!(seen["seen"][1], json!({ "method": "GET", "path": super::QUERY, "status": 200, "client": "me" }));
    let login = Seen { method: "POST".into(), path: "/services/oauth2/token".into(), status: 200, client: None };
    assert_eq!(fixture.org.seen().first(), Some(&login));

    arm(&fixture, &json!({ "fault": "slow", "milliseconds": 1, "times": 3, "path": "/x", "method": "GET" })).await;
    let armed = fixture.ask("GET", "/simulator/faults", "", "").await.json();
    assert_eq!(armed, json!([{ "fault": "slow", "milliseconds": 1, "times": 3, "path": "/x", "method": "GET" }]));
    for wrong in [r#"{"fault":"nothing"}"#, r#"{"fault":"slow"}"#, r#"{"fault":"reset","extra":1}"#, "[]", ""] {
        assert_eq!(fixture.ask("POST", "/simulator/faults", "", wrong).await.status, 400, "{wrong}");
    }
    assert_eq!(fixture.ask("POST", "/simulator/reset", "", "").await.status, 204);
    assert_eq!(fixture.query(&token, ONE).await.status, 401, "a new org accepts no old token");
    assert_eq!(fixture.ask("GET", "/simulator/nothing", "", "").await.status, 404);
    assert_eq!(fixture.ask("GET", "/simulator/ca.pem", "", "").await.status, 404);
}
