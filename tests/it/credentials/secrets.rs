//! No password and no token is ever where it does not belong: logs at TRACE, error texts, files of the data folder.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Broker, Peer, application, envelope, token_of};

const PASSWORD: &str = "hunter2-acq@123";
const FETCH: &str = "Salesforce/User/FetchCredentials";
const LOGIN: &str = "Cisco/Agent/Login";

/// Everything that a session may say with a secret in it.
async fn a_full_session(broker: &Broker) -> Vec<Value> {
    let mut heard = Vec::new();
    let mut guesser = broker.raw("guesser").await;
    heard.push(guesser.register("phone", json!({"token": format!("{PASSWORD}-guess")})).await);
    guesser.closed().await;
    let mut thief = broker.raw("thief").await;
    heard.push(thief.register("other", json!({"token": token_of("phone")})).await);
    thief.closed().await;
    let mut clumsy = broker.raw("clumsy").await;
    heard.push(clumsy.register("phone", json!({"token": [PASSWORD]})).await);
    clumsy
        .send_text(&format!(
            r#"{{"channel":"Broker","topic":"Application","subtopic":"Register","data":{{"token":"{PASSWORD}""#
        ))
        .await;
    heard.push(clumsy.next().await);
    clumsy.send(envelope(LOGIN, json!({"id": "l", "data": {"password": PASSWORD}}))).await;
    heard.push(clumsy.next().await);

    let mut phone = broker.app_by_token("phone").await;
    let mut adapter = broker.app_by_token("adapter").await;
    phone.ask(FETCH, "f").await;
    assert_eq!(phone.next_answer(FETCH, "f").await["data"]["Password"], PASSWORD);
    let login = json!({"id": "l", "timeout": 100, "data": {"password": PASSWORD}});
    phone.send(envelope(LOGIN, login.clone())).await;
    heard.push(phone.next_failure(LOGIN, "NO_HANDLER").await);
    adapter.handle(LOGIN).await;
    phone.send(envelope(LOGIN, login.clone())).await;
    let request = adapter.next_on(LOGIN).await;
    heard.push(phone.next_failure(LOGIN, "REQUEST_TIMEOUT").await);
    adapter.reply(&request, json!({"data": {"password": PASSWORD}})).await;
    heard.push(adapter.next_error("NO_SUCH_REQUEST").await);
    phone.send(envelope(LOGIN, json!({"id": "m", "data": {"password": PASSWORD}}))).await;
    let request = adapter.next_on(LOGIN).await;
    adapter.reply(&request, json!({"data": {"password": PASSWORD}})).await;
    phone.next_answer(LOGIN, "m").await;
    mistakes(&mut phone, &mut heard).await;
    heard
}

/// Mistakes with a secret in every place where one might be quoted.
async fn mistakes(phone: &mut Peer, heard: &mut Vec<Value>) {
    let texts = [
        format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","data":"{PASSWORD}"#),
        format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","data":{PASSWORD}}}"#),
        format!(r#"{{"channel":"Sales","topic":"Call","subtopic":"Ring","id":{{"x":"{PASSWORD}"}}}}"#),
        format!(r#"{{"channel":"Sales","topic":"Call","data":"{PASSWORD}"}}"#),
        format!(r#"["{PASSWORD}"]"#),
        format!(r#""{PASSWORD}""#),
    ];
    for text in texts {
        phone.send_text(&text).await;
        heard.push(phone.next().await);
    }
    for (topic, subtopic) in [("Subscription", "Subscribe"), ("Request", "Cancel"), ("Application", "SetState")] {
        heard.push(phone.command(topic, subtopic, json!([PASSWORD])).await);
        heard.push(
            phone
                .command(
                    topic,
                    subtopic,
                    json!({"channel": [PASSWORD], "id": [PASSWORD], "state": [PASSWORD], "role": PASSWORD}),
                )
                .await,
        );
    }
}

/// The files of a folder, however deep, in which a secret is.
pub(crate) fn files_with(folder: &Path, secret: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_with(&path, secret, found);
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(secret.len()).any(|it| it == secret.as_bytes())) {
            found.push(path.display().to_string());
        }
    }
}

#[tokio::test]
async fn a_full_session_leaves_no_secret_in_the_log_the_errors_or_the_data_folder() {
    let applications =
        [application("phone", Some("alice"), ""), application("adapter", None, "handle = [\"Cisco/Agent/*\"]")];
    let mut broker = Broker::launch(Some(&applications.concat()), &["--log", "trace"]).await;
    broker.credentials_set("alice", "1245456", PASSWORD, "5051").await;
    let heard = a_full_session(&broker).await;
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    let secrets = [PASSWORD.to_owned(), "hunter2".to_owned(), token_of("phone"), token_of("adapter")];
    let log = broker.log();
    for (level, words) in [("TRACE", "a message"), ("DEBUG", ": refused "), ("DEBUG", ": subscribed ")] {
        assert!(
            log.lines().any(|line| line.contains(level) && line.contains(words)),
            "no '{words}' in the log:\n{log}"
        );
    }
    for secret in &secrets {
        assert!(!log.contains(secret.as_str()), "'{secret}' is in the log");
        for answer in &heard {
            assert!(!answer.to_string().contains(secret.as_str()), "'{secret}' is in {answer}");
        }
        let mut found = Vec::new();
        files_with(&broker.data_dir(), secret, &mut found);
        assert!(found.is_empty(), "'{secret}' is in {found:?}");
    }
}

#[tokio::test]
async fn a_misspelt_configuration_is_explained_without_its_secrets() {
    // A token where its hash should be: the message names the key, not the token.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchboard.toml");
    let toml = application("phone", Some("alice"), "").replace("token_sha256 = \"", "token_sha256 = \"hunter2");
    fs::write(&file, toml).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let shown = [output.stdout, output.stderr].concat();
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("token_sha256") && !shown.contains("hunter2"), "{shown}");
}
