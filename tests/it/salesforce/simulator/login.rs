//! The token endpoint, and what it says about its tokens.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Fixture, QUERY};

#[expect(clippy::disallowed_methods, reason = "an assertion carries wall time")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Claims that are believed, with some of them changed.
pub(super) fn claims(change: Value) -> Value {
    let mut claims = json!({
        "iss": "jwt-client", "sub": "reader@example.com", "aud": "https://login.salesforce.com", "exp": now() + 120,
    });
    let Value::Object(change) = change else { panic!("not an object") };
    claims.as_object_mut().unwrap().extend(change);
    claims
}

#[tokio::test]
async fn an_assertion_is_believed_only_in_full() {
    let fixture = Fixture::start().await;
    let url = fixture.org.url();
    let granted = fixture.assert_login(&claims(json!({}))).await;
    assert_eq!((granted.status, granted.header("cache-control")), (200, Some("no-cache, no-store")));
    let token = granted.json();
    assert_eq!(token["instance_url"], json!(url));
    assert_eq!(token["id"], json!(format!("{url}/id/00D000000000001EAA/005000000000005AAA")));
    assert_eq!(
        (&token["token_type"], &token["scope"], &token["issued_at"]),
        (&json!("Bearer"), &json!("api"), &json!(null))
    );

    let good = [
        json!({ "exp": (now() + 120).to_string() }),
        json!({ "aud": [url] }),
        json!({ "exp": now() - 170 }),
        json!({ "sub": "READER@example.com" }),
    ];
    for change in good {
        assert_eq!(fixture.assert_login(&claims(change.clone())).await.status, 200, "{change}");
    }
    let bad = [
        (json!({ "iss": "nobody" }), "invalid_client_id", "client identifier invalid"),
        (json!({ "iss": "secret-client" }), "invalid_grant", "invalid assertion"),
        (json!({ "aud": "https://test.salesforce.com" }), "invalid_grant", "audience is invalid"),
        (json!({ "aud": null }), "invalid_grant", "audience is invalid"),
        (json!({ "exp": now() - 190 }), "invalid_grant", "expired authorization code"),
        (json!({ "exp": now() + 3600 }), "invalid_grant", "invalid assertion"),
        (json!({ "exp": "soon" }), "invalid_grant", "invalid assertion"),
        (json!({ "exp": 1e19 }), "invalid_grant", "invalid assertion"),
        (json!({ "sub": "alice@example.com" }), "invalid_grant", "user hasn't approved this consumer"),
        (json!({ "sub": "nobody@example.com" }), "invalid_grant", "user hasn't approved this consumer"),
        (json!({ "sub": "gone@example.com" }), "inactive_user", "user is inactive"),
    ];
    for (change, error, description) in bad {
        let denied = fixture.assert_login(&claims(change.clone())).await;
        assert_eq!(denied.status, 400, "{change}");
        assert_eq!(denied.json(), json!({ "error": error, "error_description": description }), "{change}");
    }
    assert_eq!(fixture.org.logins(), 5);
}

#[tokio::test]
async fn only_rs256_by_the_right_key_is_a_signature() {
    let fixture = Fixture::start().await;
    let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=";
    let signed = fixture.keys.assertion(&json!({ "alg": "RS256" }), &claims(json!({})));
    let (unsigned, _) = signed.rsplit_once('.').unwrap();
    let stranger = super::Keys::make().assertion(&json!({ "alg": "RS256" }), &claims(json!({})));
    let other = fixture.keys.assertion(&json!({ "alg": "RS256" }), &claims(json!({ "sub": "gone@example.com" })));
    let (other, _) = other.rsplit_once('.').unwrap();
    let swapped = format!("{other}.{}", signed.rsplit_once('.').unwrap().1);
    for assertion in [
        format!("{unsigned}."),
        unsigned.to_owned(),
        stranger,
        swapped,
        fixture.keys.assertion(&json!({ "alg": "none" }), &claims(json!({}))),
        fixture.keys.assertion(&json!({ "alg": "HS256" }), &claims(json!({}))),
        "a.b.c".to_owned(),
        String::new(),
    ] {
        let denied = fixture.form("/services/oauth2/token", &format!("{grant}{assertion}")).await;
        assert_eq!(denied.json()["error_description"], json!("invalid assertion"), "{assertion}");
    }
}

#[tokio::test]
async fn a_secret_comes_in_the_body_or_by_basic_and_chunked_too() {
    let fixture = Fixture::start().await;
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let basic = format!("{form}authorization: Basic c2VjcmV0LWNsaWVudDphIHNlY3JldA==\r\n");
    let token = fixture.ask("POST", "/services/oauth2/token", &basic, "grant_type=client_credentials").await.json();
    assert!(token["issued_at"].is_string() && token["signature"].is_string(), "{token}");

    // As simple-salesforce asks when it is told a host that ends in a slash; as jsforce sends bodies.
    let body = "grant_type=client_credentials&client_id=secret-client&client_secret=a%20secret";
    let (length, form) = (format!("{:x}", body.len()), form.trim_end());
    let request = format!(
        "POST /.salesforce.com/services/oauth2/token HTTP/1.1\r\nhost: org.example\r\nconnection: close\r\n{form}\r\n\
         transfer-encoding: chunked\r\n\r\n{length}\r\n{body}\r\n0\r\n\r\n"
    );
    let token = super::http::raw(&fixture.org.url(), &request).await.json();
    assert_eq!(token["instance_url"], json!("http://org.example"));

    for (body, error) in [
        ("grant_type=client_credentials&client_id=secret-client&client_secret=wrong", "invalid_client"),
        ("grant_type=client_credentials&client_id=secret-client", "invalid_client"),
        ("grant_type=client_credentials&client_id=nobody&client_secret=x", "invalid_client_id"),
        ("grant_type=client_credentials&client_id=jwt-client&client_secret=another", "invalid_grant"),
        ("grant_type=client_credentials&client_id=refresh-only&client_secret=x", "invalid_grant"),
        ("grant_type=password&username=a&password=b", "unsupported_grant_type"),
        ("", "unsupported_grant_type"),
    ] {
        let denied = fixture.form("/services/oauth2/token", body).await;
        assert_eq!((denied.status, &denied.json()["error"]), (400, &json!(error)), "{body}");
    }
}

#[tokio::test]
async fn a_token_ends_when_it_is_unused_expired_or_revoked() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let works = async |token: &str| fixture.query(token, "SELECT Id FROM Account LIMIT 1").await.status;
    for _ in 0..2 {
        // Use puts the end off.
        fixture.org.shift_clock(119 * 60);
        assert_eq!(works(&token).await, 200);
    }
    fixture.org.shift_clock(121 * 60);
    assert_eq!(works(&token).await, 401);

    let token = fixture.writer().await;
    fixture.form("/services/oauth2/revoke", &format!("token={token}")).await;
    assert_eq!(works(&token).await, 401);

    let token = fixture.writer().await;
    fixture.org.expire_sessions();
    let refused = fixture.query(&token, "SELECT Id FROM Account LIMIT 1").await;
    assert_eq!(refused.json(), json!([{ "message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID" }]));
    assert_eq!(fixture.ask("GET", QUERY, "", "").await.refusal(), (401, "INVALID_SESSION_ID".to_owned()));
    let basic = fixture.ask("GET", QUERY, "authorization: Basic eDp5\r\n", "").await;
    assert_eq!(basic.refusal(), (401, "INVALID_AUTH_HEADER".to_owned()));
}

#[tokio::test]
async fn a_user_without_api_access_logs_in_and_gets_no_further() {
    let fixture = Fixture::start().await;
    let token = fixture.assert_login(&claims(json!({ "sub": "api-off@example.com" }))).await.json();
    let token = token["access_token"].as_str().unwrap();
    let refused = fixture.query(token, "SELECT Id FROM Account").await;
    assert_eq!(refused.refusal(), (403, "API_CURRENTLY_DISABLED".to_owned()));
}

#[tokio::test]
async fn an_org_whose_time_is_off_says_so_in_every_answer() {
    let fixture = Fixture::start().await;
    let offset = async || {
        let answer = fixture.ask("GET", "/services/data", "", "").await;
        let date = answer.header("date").unwrap().to_owned();
        let time = httpdate(&date);
        i64::try_from(time).unwrap() - i64::try_from(now()).unwrap()
    };
    assert!(offset().await.abs() <= 2);
    fixture.org.shift_clock(600);
    assert!((598..=602).contains(&offset().await));
    assert_eq!(
        fixture.assert_login(&claims(json!({}))).await.json()["error_description"],
        "expired authorization code"
    );
    fixture.ask("POST", "/simulator/clock", "", r#"{"shift_seconds":-1200}"#).await;
    assert!((-602..=-598).contains(&offset().await));
}

/// Seconds since 1970 of `Tue, 24 Nov 2026 09:20:00 GMT`, by another way than the org's.
fn httpdate(date: &str) -> u64 {
    let parts: Vec<&str> = date.split(' ').collect();
    let months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = months.find(parts[2]).unwrap() / 3 + 1;
    let text = format!("{}-{month:02}-{}T{}Z", parts[3], parts[1], parts[4]);
    let time = humantime::parse_rfc3339(&text).unwrap().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let days = ["Thu,", "Fri,", "Sat,", "Sun,", "Mon,", "Tue,", "Wed,"];
    assert_eq!((parts[0], parts[5]), (days[usize::try_from(time / 86_400 % 7).unwrap()], "GMT"));
    time
}

#[tokio::test]
async fn introspection_tells_a_client_about_its_own_tokens() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let ask = async |client: &str| {
        let body = format!("token={token}&token_type_hint=access_token&{client}");
        fixture.form("/services/oauth2/introspect", &body).await
    };
    let own = ask("client_id=secret-client&client_secret=a+secret").await.json();
    assert_eq!((&own["active"], &own["username"]), (&json!(true), &json!("writer@example.com")));
    assert_eq!(own["client_id"], json!("secret-client"));
    assert!(own["sub"].as_str().unwrap().ends_with("/id/00D000000000001EAA/005000000000004AAA"), "{own}");
    let foreign = ask("client_id=jwt-client&client_secret=another").await;
    assert_eq!(foreign.json(), json!({ "active": false }));
    assert_eq!(ask("client_id=secret-client&client_secret=wrong").await.status, 401);
    fixture.org.expire_sessions();
    assert_eq!(ask("client_id=secret-client&client_secret=a+secret").await.json(), json!({ "active": false }));
}

#[tokio::test]
async fn userinfo_refuses_in_plain_text() {
    let fixture = Fixture::start().await;
    let token = fixture.writer().await;
    let told = fixture.get(&token, "/services/oauth2/userinfo").await.json();
    assert_eq!(told["user_id"], json!("005000000000004AAA"));
    assert_eq!(told["organization_id"], json!("00D000000000001EAA"));
    let refused = fixture.get("nonsense", "/services/oauth2/userinfo").await;
    assert_eq!((refused.status, refused.body.as_str()), (403, "Bad_OAuth_Token"));
    let identity = format!("/id/00D000000000001EAA/005000000000004AAA?oauth_token={token}");
    assert_eq!(fixture.ask("GET", &identity, "", "").await.json()["username"], json!("writer@example.com"));
    assert!(!format!("{:?}", fixture.org.seen()).contains(&token), "tokens are not remembered");
}

#[tokio::test]
async fn apex_signs_who_its_caller_is_with_the_certificate_that_the_org_gives() {
    let fixture = Fixture::start().await;
    let path = "/services/apexrest/switchboard/token";
    let signed = fixture.get(&fixture.reader().await, path).await.json();
    let signed = signed.as_str().unwrap().to_owned();
    assert_eq!(fixture.get("nonsense", path).await.refusal(), (401, "INVALID_SESSION_ID".to_owned()));
    assert_eq!(fixture.send("POST", &fixture.reader().await, path, &json!({})).await.status, 405);

    let (body, signature) = signed.rsplit_once('.').unwrap();
    let decoded = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let part = |at| -> Value { serde_json::from_slice(&decoded(body.split('.').nth(at).unwrap())).unwrap() };
    let claims = part(1);
    assert_eq!(part(0), json!({ "typ": "JWT", "alg": "RS256" }));
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!("00D000000000001EAA"), &json!("switchboard")));
    assert_eq!((&claims["sub"], &claims["username"]), (&json!("005000000000005AAA"), &json!("reader@example.com")));
    assert_eq!(claims["exp"].as_u64().unwrap(), claims["iat"].as_u64().unwrap() + 60);
    assert!(claims["jti"].as_str().unwrap().len() >= 16 && claims["federation_id"].is_null(), "{claims}");

    let folder = tempfile::tempdir().unwrap();
    let pem = fixture.ask("GET", "/simulator/certificate.pem", "", "").await.body;
    assert_eq!(pem, fixture.org.certificate_pem());
    let files = [("certificate.pem", pem.as_bytes()), ("body", body.as_bytes()), ("signature", &decoded(signature))];
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let openssl = |command: &str| {
        let output = Command::new("openssl").args(command.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl("x509 -in certificate.pem -pubkey -noout -out key.pem");
    openssl("dgst -sha256 -verify key.pem -signature signature body");
}
