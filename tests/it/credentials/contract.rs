//! Salesforce/User/FetchCredentials over a socket: the documented sample, key by key, and every failure's six keys.

use serde_json::{Value, json};

use crate::support::{Broker, application, envelope, token_of, within};

const FETCH: &str = "Salesforce/User/FetchCredentials";
const KEYS: [&str; 6] = ["Username", "Password", "Extension", "ADFSUsername", "Success", "ErrorMessage"];

/// A failure has the documented keys, the first four null, then the code.
fn assert_failure(answer: &Value, code: &str) {
    let data = answer["data"].as_object().unwrap();
    let keys: Vec<&str> = data.keys().map(String::as_str).collect();
    assert_eq!(keys, [KEYS.as_slice(), ["ErrorCode"].as_slice()].concat(), "{answer}");
    for key in &KEYS[..4] {
        assert_eq!(data[*key], Value::Null, "{answer}");
    }
    assert_eq!((&data["Success"], &data["ErrorCode"]), (&false.into(), &code.into()), "{answer}");
    assert!(data["ErrorMessage"].as_str().is_some_and(|words| words.len() > 10), "{answer}");
}

#[tokio::test]
async fn the_documented_sample_is_answered_as_documented() {
    let broker = Broker::start().await;
    broker.credentials_set("local", "1245456", "acq@123", "5051").await;
    let mut peer = broker.app("myapp").await;
    peer.send_text(
        r#"{
  "channel": "Salesforce",
  "topic": "User",
  "subtopic": "FetchCredentials",
  "source": "myapp"
}"#,
    )
    .await;
    let answer: Value = serde_json::from_str(&peer.next_text().await).unwrap();
    let documented = r#"{"channel":"Salesforce","topic":"User","subtopic":"FetchCredentials","data":{"Username":"1245456","Password":"acq@123","Extension":"5051","ADFSUsername":"","Success":true,"ErrorMessage":null}}"#;
    // Values keep the order of their keys here, so this compares the order as well.
    assert_eq!(answer.to_string(), documented);
    peer.expect_nothing().await;
}

#[tokio::test]
async fn with_an_id_the_answer_is_marked() {
    let broker = Broker::start().await;
    broker.credentials_set("local", "1245456", "pass \"word\" \\ é☎", "5051").await;
    let mut peer = broker.app("myapp").await;
    peer.send(envelope(FETCH, json!({"id": "f", "data": {"ignored": true}, "timeout": 5000}))).await;
    let answer = peer.next_answer(FETCH, "f").await;
    assert_eq!(answer["data"]["Password"], "pass \"word\" \\ é☎");
}

#[tokio::test]
async fn the_log_names_the_store_in_which_a_user_was_not_found() {
    let broker = Broker::start().await;
    let mut bob = broker.app_of("myapp", "bob").await;
    for id in ["f", "g"] {
        bob.ask(FETCH, id).await;
        let answer = bob.next_answer(FETCH, id).await;
        let words = answer["data"]["ErrorMessage"].as_str().unwrap();
        assert!(words.contains("'bob'") && words.contains("the store that the broker's log names"), "{words}");
    }
    let store = broker.data_dir().join("credentials.redb");
    let lines = |log: &str| log.lines().filter(|line| line.contains("no credentials are stored for this user")).count();
    broker.log_until("the store in the log", |log| lines(log) > 0).await;
    let log = broker.log();
    assert_eq!(lines(&log), 1, "{log}");
    assert!(log.contains(store.to_str().unwrap()) && log.contains("user=\"bob\""), "{log}");
}

#[tokio::test]
async fn a_session_fetches_only_its_own() {
    let broker = Broker::start().await;
    broker.credentials_set("alice", "a", "alice's secret", "1").await;
    let mut bob = broker.app_of("myapp", "bob").await;
    bob.ask(FETCH, "f").await;
    assert_failure(&bob.next_answer(FETCH, "f").await, "CREDENTIALS_NOT_FOUND");
    bob.send(envelope(FETCH, json!({"id": "g", "user": "alice"}))).await;
    assert_failure(&bob.next_answer(FETCH, "g").await, "FORBIDDEN");
    let mut alice = broker.app_of("myapp", "alice").await;
    alice.ask(FETCH, "f").await;
    assert_eq!(alice.next_answer(FETCH, "f").await["data"]["Password"], "alice's secret");
}

#[tokio::test]
async fn every_failure_of_the_triple_bears_its_keys() {
    let broker = Broker::start().await;
    let mut peer = broker.raw("myapp").await;
    peer.ask(FETCH, "a").await;
    assert_failure(&peer.next_answer(FETCH, "a").await, "NOT_REGISTERED");
    peer.register("myapp", json!({})).await;
    peer.send(envelope(FETCH, json!({"id": "b", "source": "another"}))).await;
    assert_failure(&peer.next_answer(FETCH, "b").await, "SOURCE_MISMATCH");
    peer.send(envelope(FETCH, json!({"id": "c", "target": "nobody"}))).await;
    assert_failure(&peer.next_answer(FETCH, "c").await, "NO_HANDLER");
    peer.ask(FETCH, "d").await;
    assert_failure(&peer.next_answer(FETCH, "d").await, "CREDENTIALS_NOT_FOUND");
    peer.send(envelope(FETCH, json!({}))).await;
    let answer = peer.next_on(FETCH).await;
    assert_eq!(answer.get("inReplyTo"), None);
    assert_failure(&answer, "CREDENTIALS_NOT_FOUND");
}

#[tokio::test]
async fn a_refused_fetch_in_other_letters_has_its_keys_and_its_record() {
    const OTHER: &str = "salesforce/user/fetchcredentials";
    let config = format!("[channels.Salesforce]\nfold_case = true\n{}", application("cti", None, ""));
    let broker = Broker::with_config(&config).await;
    let mut cti = broker.raw("cti").await;
    cti.ask(OTHER, "a").await;
    assert_failure(&cti.next_answer(OTHER, "a").await, "NOT_REGISTERED");
    cti.register("cti", json!({"token": token_of("cti")})).await;
    for (triple, id) in [(OTHER, "b"), ("Salesforce/USER/fetchCredentials", "c")] {
        cti.send(envelope(triple, json!({"id": id, "user": "alice"}))).await;
        assert_failure(&cti.next_answer(triple, id).await, "FORBIDDEN");
    }
    let file = broker.data_dir().join("audit.jsonl");
    let refused = async || {
        let records = tokio::fs::read_to_string(&file).await.unwrap();
        records.lines().filter(|line| line.contains(r#""outcome":"FORBIDDEN""#)).count()
    };
    within("two records of refused fetches", async {
        while refused().await < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_sits_in_front_of_the_adapter() {
    let broker = Broker::start().await;
    broker.credentials_set("local", "1245456", "acq@123", "5051").await;
    let mut thief = broker.app("thief").await;
    for pattern in [FETCH, "Salesforce/User/fetchcredentials"] {
        assert_eq!(thief.subscribe_refused(pattern, json!({"role": "handler"})).await, "FORBIDDEN");
    }
    thief.handle("Salesforce/*/*").await;
    thief.subscribe("*/*/*").await;
    let mut peer = broker.app("myapp").await;
    for _ in 0..5 {
        peer.ask(FETCH, "f").await;
        assert_eq!(peer.next_answer(FETCH, "f").await["data"]["Username"], "1245456");
    }
    thief.expect_nothing().await;
    // Nor does a handler of its own make the thief's request an event.
    thief.ask(FETCH, "t").await;
    assert_eq!(thief.next_answer(FETCH, "t").await["data"]["Username"], "1245456");
}

#[tokio::test]
async fn a_gather_hears_the_adapter_too() {
    let broker = Broker::start().await;
    broker.credentials_set("local", "1245456", "acq@123", "5051").await;
    let mut peer = broker.app("myapp").await;
    peer.send(envelope(FETCH, json!({"id": "g", "gather": true}))).await;
    let answer = peer.next_answer(FETCH, "g").await;
    assert_eq!((&answer["data"]["Password"], &answer["more"]), (&"acq@123".into(), &true.into()));
    let end = peer.next_answer(FETCH, "g").await;
    assert_eq!((&end["data"]["Expected"], &end["data"]["Answered"]), (&1.into(), &1.into()), "{end}");
}

#[tokio::test]
async fn a_token_session_fetches_what_its_token_proves() {
    let applications =
        [application("phone", Some("alice"), ""), application("crm", Some("bob"), "request = []")].concat();
    let broker = Broker::with_config(&applications).await;
    broker.credentials_set("alice", "a", "alice's secret", "1").await;
    broker.credentials_set("bob", "b", "bob's secret", "2").await;
    let mut phone = broker.app_by_token("phone").await;
    phone.ask(FETCH, "f").await;
    assert_eq!(phone.next_answer(FETCH, "f").await["data"]["Username"], "a");
    let mut crm = broker.app_by_token("crm").await;
    crm.ask(FETCH, "f").await;
    assert_failure(&crm.next_answer(FETCH, "f").await, "FORBIDDEN");
}

#[tokio::test]
async fn the_adapters_source_is_switchboard() {
    let broker = Broker::start().await;
    broker.credentials_set("local", "1245456", "acq@123", "5051").await;
    let mut peer = broker.app("myapp").await;
    peer.send(envelope(FETCH, json!({"id": "f", "target": "switchboard"}))).await;
    assert_eq!(peer.next_answer(FETCH, "f").await["data"]["Username"], "1245456");
    let list = peer.command("Application", "List", Value::Null).await;
    assert_eq!(list["data"]["Applications"].as_array().unwrap().len(), 1, "an adapter is not an application: {list}");
}

#[tokio::test]
async fn a_service_fetches_only_what_it_is_configured_to_request() {
    let cti = application("cti", None, "request = [\"Cisco/Agent/Login\"]");
    let vault = application("vault", None, "request = [\"*/User/FetchCredentials\"]");
    let broker = Broker::with_config(&[cti, vault].concat()).await;
    broker.credentials_set("alice", "1245456", "acq@123", "5051").await;
    let (mut cti, mut vault) = (broker.app_by_token("cti").await, broker.app_by_token("vault").await);
    cti.send(envelope(FETCH, json!({"id": "f", "user": "alice"}))).await;
    let refusal = cti.next_failure(FETCH, "FORBIDDEN").await;
    assert_eq!(refusal["data"]["Password"], Value::Null);
    vault.send(envelope(FETCH, json!({"id": "f", "user": "alice"}))).await;
    assert_eq!(vault.next_answer(FETCH, "f").await["data"]["Password"], "acq@123");
    vault.send(envelope(FETCH, json!({"id": "g"}))).await;
    vault.next_failure(FETCH, "USER_REQUIRED").await;
}
