//! What a call is refused with, and in which order.

use serde_json::{Value, json};

use super::{DIAL, PUBLISH, Post, REQUEST, applications, broker_with, refused};
use crate::support::http::{assert_refused, http};
use crate::support::{Broker, application, envelope};

#[tokio::test]
async fn the_head_is_checked_as_every_head_and_by_listed_origins_alone() {
    let broker = broker_with("[http]\nallowed_origins = [\"https://crm.example.com\"]\n").await;
    for path in [PUBLISH, REQUEST] {
        let good = Post::of("crm", path, &envelope(DIAL, json!({})));
        for (name, value, status, word) in [
            ("Host", "evil.example", 421, "allowed_hosts"),
            ("Origin", "http://localhost:3000", 403, "allowed_origins"),
            ("Origin", "https://evil.example", 403, "allowed_origins"),
            ("Origin", "null", 403, "allowed_origins"),
            ("Host", "", 400, "Host"),
        ] {
            assert_refused(&good.clone().with(name, value).send(&broker).await, status, word);
        }
        let listed = good.clone().with("Origin", "https://crm.example.com").send(&broker).await;
        assert_ne!(listed.status, 403);
        assert_eq!(listed.header("access-control-allow-origin"), None, "a page has a WebSocket");
        for method in ["GET", "PUT", "OPTIONS"] {
            let response = http(broker.address(), &good.head(method)).await;
            assert_eq!((response.status, response.header("allow")), (405, Some("POST")), "{method}");
        }
        let in_query = Post { path: format!("{path}?access_token=abc"), ..good.clone() };
        assert_refused(&in_query.send(&broker).await, 400, "Authorization");
    }
    assert_refused(&Post::of("crm", "/v1/other", &json!({})).send(&broker).await, 404, "/ws");
}

#[tokio::test]
async fn an_envelope_is_refused_with_the_status_of_its_code() {
    let lines = "[limits]\nmessage_bytes = 2000\njson_depth = 5\nretained_values = 0\n[channels.Shared]\nscope = \"shared\"\n\
                 publish = \"services\"\n";
    let service = application("cron", None, "over_http = true");
    let broker = Broker::with_config(&format!("{lines}{}{service}", applications())).await;
    let event = envelope(DIAL, json!({}));
    let with = |more: Value| envelope(DIAL, more);
    for (source, path, body, status, code, word) in [
        ("crm", PUBLISH, "{".to_owned(), 400, "INVALID_JSON", "byte"),
        ("crm", PUBLISH, String::new(), 400, "INVALID_JSON", ""),
        ("crm", PUBLISH, format!("[{event}]"), 400, "INVALID_ENVELOPE", "object"),
        ("crm", PUBLISH, format!("{event}{event}"), 400, "INVALID_JSON", ""),
        ("crm", PUBLISH, with(json!({"data": [[[[[[1]]]]]]})).to_string(), 400, "INVALID_ENVELOPE", "deep"),
        ("crm", PUBLISH, with(json!({"offset": 1})).to_string(), 400, "INVALID_ENVELOPE", "offset"),
        ("crm", REQUEST, with(json!({"retain": true})).to_string(), 400, "INVALID_ENVELOPE", "retain"),
        ("crm", PUBLISH, with(json!({"source": "desk"})).to_string(), 403, "SOURCE_MISMATCH", "source"),
        ("crm", PUBLISH, with(json!({"user": "bob"})).to_string(), 403, "FORBIDDEN", "user"),
        ("crm", PUBLISH, envelope("Shared/A/B", json!({})).to_string(), 403, "FORBIDDEN", ""),
        (
            "crm",
            PUBLISH,
            envelope("Broker/Application/List", json!({})).to_string(),
            403,
            "RESERVED_CHANNEL",
            "WebSocket",
        ),
        ("crm", PUBLISH, envelope("broker/A/B", json!({})).to_string(), 403, "RESERVED_CHANNEL", "Broker"),
        ("crm", REQUEST, event.to_string(), 404, "NO_HANDLER", ""),
        ("crm", REQUEST, with(json!({"inReplyTo": "r-1"})).to_string(), 404, "NO_SUCH_REQUEST", ""),
        ("crm", PUBLISH, with(json!({"inReplyTo": "r-1"})).to_string(), 404, "NO_SUCH_REQUEST", ""),
        ("crm", PUBLISH, with(json!({"data": "x".repeat(2000)})).to_string(), 413, "TOO_LARGE", "message_bytes"),
        ("crm", PUBLISH, with(json!({"retain": true, "data": 1})).to_string(), 413, "TOO_LARGE", "retained"),
        ("cron", PUBLISH, event.to_string(), 422, "USER_REQUIRED", "user"),
    ] {
        let response = Post::of(source, path, &Value::Null).with_body(body.clone()).send(&broker).await;
        let detail = refused(&response, status, code);
        assert!(detail.contains(word), "{body}: '{word}' is not in {detail}");
    }
    let not_utf8 = Post::of("crm", PUBLISH, &event).with_body(b"\"\xff\"".to_vec()).send(&broker).await;
    refused(&not_utf8, 400, "INVALID_JSON");
    let form = Post::of("crm", PUBLISH, &event).with("Content-Type", "application/x-www-form-urlencoded");
    refused(&form.send(&broker).await, 415, "UNSUPPORTED_MEDIA_TYPE");
    refused(&form.with("Content-Type", "").send(&broker).await, 415, "UNSUPPORTED_MEDIA_TYPE");
}

/// The receiver of an error must not learn more than it had proved by then.
#[tokio::test]
async fn the_token_comes_before_the_body() {
    let broker = broker_with("[limits]\nmessage_bytes = 2000\n").await;
    let wrong = Post::of("crm", PUBLISH, &Value::Null)
        .with("Authorization", "Bearer wrong")
        .with("Content-Type", "text/plain")
        .with_body("x".repeat(100_000));
    refused(&wrong.send(&broker).await, 401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn rights_hold_for_callers() {
    let role = "[roles.clerk]\npublish = [\"Desk/*/*\"]\nsubscribe = []\nrequest = [\"Desk/*/*\"]\nhandle = []\n";
    let clerk = application("crm", Some("alice"), "over_http = true\nrole = \"clerk\"");
    let broker = Broker::with_config(&format!("{role}{clerk}")).await;
    for (path, right) in [(PUBLISH, "publish"), (REQUEST, "request")] {
        let response = Post::of("crm", path, &envelope("Payroll/Run/Start", json!({}))).send(&broker).await;
        let detail = refused(&response, 403, "FORBIDDEN");
        assert!(detail.contains(right) && detail.contains("clerk"), "{detail}");
    }
    Post::of("crm", PUBLISH, &envelope("Desk/Note/Added", json!({}))).succeed(&broker).await;
}
