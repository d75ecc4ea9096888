//! Nothing secret is left of a call: not in the log, not in the data folder, not in memory.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{ALICE, PUBLISH, Post, REQUEST, applications, refused};
#[cfg(target_os = "linux")]
use crate::credentials::one_buffer::{copies_in, password};
use crate::support::http::read_response;
use crate::support::{Broker, application, envelope, token_of};

const LOGIN: &str = "Phone/Agent/Login";
const CANARY: &str = "canary-payload-of-a-call";

/// The text of all files in a folder.
fn files(folder: &Path) -> Vec<u8> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { fs::read(path).unwrap() }).collect()
}

fn contains(text: &[u8], word: &str) -> bool {
    text.windows(word.len()).any(|part| part == word.as_bytes())
}

#[tokio::test]
async fn no_token_and_no_payload_is_in_the_log_or_in_a_file() {
    let row = application("phone", ALICE, "handle = [\"Phone/Agent/Login\"]");
    let broker = Broker::launch(Some(&(applications() + &row)), &["--log", "trace"]).await;
    let mut phone = broker.app_by_token("phone").await;
    phone.handle(LOGIN).await;
    let call = Post::of("crm", REQUEST, &envelope(LOGIN, json!({"data": {"password": CANARY}})));
    let mut answer = call.begin(broker.address()).await;
    let request = phone.next_on(LOGIN).await;
    phone.reply(&request, json!({"data": {"token": CANARY}})).await;
    assert!(read_response(&mut answer).await.body.contains(CANARY));
    let wrong = Post::of("crm", PUBLISH, &envelope("Phone/A/B", json!({"data": CANARY})));
    refused(&wrong.with("Authorization", &format!("Bearer {CANARY}")).send(&broker).await, 401, "UNAUTHENTICATED");
    let malformed = Post::of("crm", PUBLISH, &json!(null)).with_body(format!("{{\"data\":\"{CANARY}\""));
    let response = malformed.send(&broker).await;
    refused(&response, 400, "INVALID_JSON");
    assert!(!response.body.contains(CANARY));
    broker.log_until("the calls", |log| log.matches("a call was").count() >= 2).await;
    let (log, data) = (broker.log(), files(&broker.data_dir()));
    for secret in [CANARY, &token_of("crm")] {
        assert!(!log.contains(secret) && !contains(&data, secret), "{secret}");
    }
}

/// The broker's own memory has the password while it is on its way only.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_password_is_left_in_memory_when_a_call_has_ended() {
    let row = application("phone", ALICE, "handle = [\"Phone/Agent/Login\"]");
    let broker = Broker::with_config(&(applications() + &row)).await;
    let mut phone = broker.app_by_token("phone").await;
    phone.handle(LOGIN).await;
    let password = password();
    for _ in 0..5 {
        let call = Post::of("crm", REQUEST, &envelope(LOGIN, json!({"data": {"password": password}})));
        let mut answer = call.begin(broker.address()).await;
        let request = phone.next_on(LOGIN).await;
        phone.reply(&request, json!({"data": {"password": password}})).await;
        assert!(read_response(&mut answer).await.body.contains(&password));
    }
    phone.fence().await;
    let mut left = usize::MAX;
    crate::support::within("the password to be wiped", async {
        while left > 0 {
            left = copies_in(&broker.process().to_string());
            tokio::task::yield_now().await;
        }
    })
    .await;
}
