//! What each call answers.

use super::*;

#[tokio::test]
async fn a_running_broker_is_healthy_and_ready() {
    let site = Site::with_tokens("").await;
    let healthy = call_with(site.address, "GET", "/healthz", &[], None).await;
    assert_eq!((healthy.status, healthy.json()), (200, json!({"healthy": true})));
    assert_eq!(healthy.header("cache-control"), Some("no-store"));
    let ready = call_with(site.address, "GET", "/readyz", &[], None).await;
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true, "failing": [], "warnings": []})));
}

#[tokio::test]
async fn info_says_what_runs_here() {
    let site = Site::with_tokens("").await;
    let info = site.get("/v1/info").await;
    assert_eq!((&info["version"], &info["mode"]), (&json!(env!("CARGO_PKG_VERSION")), &json!("open")));
    assert_eq!(info["listeners"], json!([format!("ws://{}/ws", site.broker.address())]));
    assert_eq!(info["admin"], json!([format!("http://{}/", site.address)]));
    assert!(info["node"].as_str().is_some_and(|node| !node.is_empty() && !node.contains('.')), "{info}");
    assert!(info["uptimeSeconds"].is_u64() && info["platform"].is_string(), "{info}");
}

#[tokio::test]
async fn the_log_filter_changes_and_returns_after_its_time() {
    let site = Site::with_tokens("").await;
    let put = async |body: Value| site.call("actor", "PUT", "/v1/log", Some(&body)).await;
    assert_eq!(put(json!({"filter": "warn"})).await.json(), json!({"filter": "warn", "before": "info"}));
    drop(site.broker.app("unseen").await);
    let answer = put(json!({"filter": "debug", "for": "300ms"})).await;
    assert_eq!(answer.json(), json!({"filter": "debug", "before": "warn"}));
    drop(site.broker.app("seen").await);
    site.broker.log_until("a registration", |log| log.contains("source=\"seen\"")).await;
    assert!(!site.broker.log().contains("source=\"unseen\""), "{}", site.broker.log());
    // The one before it is `warn` again, which a change shows.
    let mut often = tokio::time::interval(std::time::Duration::from_millis(50));
    let returned = async {
        while put(json!({"filter": "trace", "for": "50ms"})).await.json()["before"] != "warn" {
            often.tick().await;
        }
    };
    within("the return of the filter", returned).await;

    for (wrong, what) in [
        (json!({"filter": "warning"}), "warning"),
        (json!({"filter": "info", "for": "soon"}), "duration"),
        (json!({"filter": "info", "for": "25h"}), "24h"),
        (json!({"filter": "info", "fro": "1h"}), "fro"),
        (json!({}), "filter"),
        (json!([]), "body"),
        (json!({"filter": "x".repeat(2000)}), "1000 bytes"),
    ] {
        let answer = put(wrong).await;
        answer.is_problem(400, "INVALID_REQUEST");
        assert!(answer.text.contains(what), "{what}: {answer:?}");
    }
    let headers = [("Authorization", "Bearer actor"), ("Content-Type", "application/json")];
    call_with(site.address, "PUT", "/v1/log", &headers, Some("{")).await.is_problem(400, "INVALID_JSON");
    let large = format!("{{\"filter\":\"{}\"}}", "x".repeat(1 << 20));
    call_with(site.address, "PUT", "/v1/log", &headers, Some(&large)).await.is_problem(413, "TOO_LARGE");
}

#[tokio::test]
async fn a_drain_ends_the_process_and_is_answered_until_its_end() {
    let mut site = Site::with_tokens("[limits]\ndrain = '20s'").await;
    // A request that is pending keeps the drain going.
    let mut handler = site.broker.app("handler").await;
    handler.handle("Phone/Call/Dial").await;
    let mut asker = site.broker.app("asker").await;
    asker.ask("Phone/Call/Dial", "1").await;
    let request = handler.next().await;
    let answer = site.call("actor", "POST", "/v1/drain", None).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
    let draining = async {
        loop {
            let ready = call_with(site.address, "GET", "/readyz", &[], None).await;
            if ready.status == 503 {
                return ready.json();
            }
        }
    };
    let ready = within("a broker that is not ready", draining).await;
    assert_eq!(ready, json!({"ready": false, "failing": ["draining"], "warnings": []}));
    assert_eq!(call_with(site.address, "GET", "/healthz", &[], None).await.status, 200);
    handler.reply(&request, json!({})).await;
    assert_eq!(site.broker.exit_code().await, Some(0));
}

#[tokio::test]
async fn an_unknown_call_and_an_unknown_method_are_problems() {
    let site = Site::with_tokens("").await;
    site.call("reader", "GET", "/v1/nothing", None).await.is_problem(404, "NOT_FOUND");
    let wrong = site.call("reader", "DELETE", "/v1/info", None).await;
    wrong.is_problem(405, "METHOD_NOT_ALLOWED");
    assert!(wrong.header("allow").is_some_and(|allow| allow.contains("GET")), "{wrong:?}");
}
