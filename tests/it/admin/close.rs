//! Sessions that an operator closes.

use super::commands::{has, run, secret_file_in};
use super::*;

/// Waits until a list has this number of items.
async fn until_listed(site: &Site, path: &str, count: usize) {
    let mut often = tokio::time::interval(std::time::Duration::from_millis(20));
    let listed = async {
        while site.get(path).await["items"].as_array().unwrap().len() != count {
            often.tick().await;
        }
    };
    within("the list", listed).await;
}

#[tokio::test]
async fn a_closed_session_ends_at_once_with_the_reason() {
    let site = Site::with_tokens("").await;
    let mut watcher = site.broker.app_of("watcher", "alice").await;
    watcher.subscribe("Broker/Application/Left").await;
    watcher.subscribe("Phone/Agent/Gone").await;
    let will = json!({"channel": "Phone", "topic": "Agent", "subtopic": "Gone"});
    let options = json!({"user": "alice", "resume": true, "will": will});
    let mut phone = site.broker.app_with("softphone", options).await;
    let mut others = site.broker.app_of("softphone", "bob").await;

    let body = json!({"source": "softphone", "user": "alice", "reason": "left the desk"});
    let answer = site.call("actor", "POST", "/v1/sessions/close", Some(&body)).await;
    assert_eq!(answer.json(), json!({"closed": 1}));
    assert_eq!((phone.closed().await, phone.close_reason()), (4410, "left the desk"));
    watcher.next_on("Phone/Agent/Gone").await;
    watcher.next_on("Broker/Application/Left").await;
    others.fence().await;
    let [closed] = site.records_of(1).await.try_into().unwrap();
    assert_eq!((&closed["token"], &closed["arguments"]["reason"]), (&json!("actor"), &json!("left the desk")));
}

#[tokio::test]
async fn a_session_without_a_connection_ends_too() {
    let site = Site::with_tokens("").await;
    let mut phone = site.broker.raw("softphone").await;
    phone.register("softphone", json!({"resume": true})).await;
    phone.kill();
    until_listed(&site, "/v1/sessions?state=away", 1).await;
    let body = json!({"source": "softphone", "reason": "gone"});
    let reconnect = json!({"source": "softphone", "reason": "gone", "reconnect": true});
    let close = async |body: &Value| site.call("actor", "POST", "/v1/sessions/close", Some(body)).await.json();
    // It has no connection that could be closed.
    assert_eq!(close(&reconnect).await, json!({"closed": 0}));
    assert_eq!(close(&body).await, json!({"closed": 1}));
    until_listed(&site, "/v1/sessions", 0).await;
}

#[tokio::test]
async fn a_session_that_is_to_reconnect_is_told_when_and_can_be_resumed() {
    let site = Site::with_tokens("").await;
    let mut phone = site.broker.raw("softphone").await;
    let reply = phone.register("softphone", json!({"resume": true})).await;
    let body = json!({"source": "softphone", "reason": "maintenance", "reconnect": true});
    let answer = site.call("actor", "POST", "/v1/sessions/close", Some(&body)).await;
    assert_eq!(answer.json(), json!({"closed": 1}));
    let draining = phone.next_on("Broker/Connection/Draining").await;
    assert!(draining["data"]["ReconnectAfterMs"].is_u64(), "{draining}");
    assert_eq!((phone.closed().await, phone.close_reason()), (1012, "maintenance"));
    let mut again = site.broker.raw("softphone").await;
    let resume = json!({"resume": {"token": reply["data"]["ResumeToken"], "received": 1}});
    let reply = again.register("softphone", resume).await;
    assert_eq!(reply["data"]["Resumed"], true, "{reply}");
}

#[tokio::test]
async fn what_is_missing_or_too_long_is_refused() {
    let site = Site::with_tokens("").await;
    for (wrong, what) in [
        (json!({"reason": "all"}), "at least one of"),
        (json!({"source": "a"}), "reason"),
        (json!({"source": "a", "reason": " "}), "120 bytes"),
        (json!({"source": "a", "reason": "é".repeat(61)}), "120 bytes"),
        (json!({"source": "a", "reason": "b", "reconect": true}), "reconect"),
    ] {
        let answer = site.call("actor", "POST", "/v1/sessions/close", Some(&wrong)).await;
        answer.is_problem(400, "INVALID_REQUEST");
        assert!(answer.text.contains(what), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn the_command_closes_what_it_names() {
    let site = Site::with_tokens("").await;
    let mut phone = site.broker.app_of("softphone", "alice").await;
    let (url, token) = (format!("http://{}/", site.address), secret_file_in(&site, "actor"));
    let to_admin = ["--admin", &url, "--admin-token-file", &token];
    let with = |own: &[&'static str]| [own, &to_admin].concat();
    has(&run(&with(&["close", "--reason", "x"]), &[]).await, 2, "", "--source");
    has(&run(&with(&["close", "--user", "bob", "--reason", "x"]), &[]).await, 0, "closed 0 sessions", "");
    has(&run(&with(&["close", "--user", "alice", "--reason", "bye"]), &[]).await, 0, "closed 1 session\n", "");
    assert_eq!(phone.until_closed().await.1, 4410);
    let reader = secret_file_in(&site, "reader");
    let arguments = ["close", "--user", "bob", "--reason", "x", "--admin", &url, "--admin-token-file", &reader];
    has(&run(&arguments, &[]).await, 1, "", "FORBIDDEN");
}
