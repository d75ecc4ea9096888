//! `/v1/recent`, and `switchboard recent`: what happened last.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::commands::{has, run, secret_file_in};
use super::events::Events;
use super::*;
use crate::support::envelope;

/// Causes a registration, a subscription, an event and a refusal.
async fn cause(site: &Site) -> crate::support::Peer {
    let mut phone = site.broker.app("phone").await;
    phone.subscribe("Sales/*/*").await;
    phone.send(envelope("Sales/Call/Ring", json!({"id": "one", "data": "hunter2"}))).await;
    phone.next_on("Broker/Message/Receipt").await;
    phone.send(envelope("Sales/Call/Ring", json!({"id": "two", "retain": "yes"}))).await;
    phone.next_error("INVALID_ENVELOPE").await;
    phone
}

fn whats(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|row| row["what"].as_str().unwrap()).collect()
}

/// The sessions of applications. A handler in the broker has subscribed before them.
const PHONE: &str = "/v1/recent?source=phone";

#[tokio::test]
async fn what_happened_last_is_answered_oldest_first_and_filtered() {
    let site = Site::with_tokens("").await;
    let phone = cause(&site).await;
    let recent = site.get(PHONE).await;
    assert_eq!(whats(&recent), ["registered", "subscribed", "event", "refused"]);
    assert!(recent["reach"]["important"].is_string() && recent["reach"]["events"].is_string(), "{recent}");
    assert_eq!(recent["node"], site.get("/v1/info").await["node"]);
    assert_eq!(recent["reach"], site.get("/v1/info").await["recorder"]);
    assert!(!recent.to_string().contains("hunter2"), "{recent}");
    assert_eq!(whats(&site.get("/v1/recent?id=one").await), ["event"]);
    assert_eq!(whats(&site.get("/v1/recent?code=INVALID_ENVELOPE&source=phone").await), ["refused"]);
    assert_eq!(whats(&site.get("/v1/recent?source=other").await), [""; 0]);
    let last = site.get("/v1/recent?limit=1").await;
    assert_eq!((whats(&last), &last["older"]), (vec!["refused"], &json!(4)));
    for wrong in ["limit=0", "limit=10001", "limit=x", "sauce=phone", "follow=maybe"] {
        site.call("reader", "GET", &format!("/v1/recent?{wrong}"), None).await.is_problem(400, "INVALID_REQUEST");
    }
    call_with(site.address, "GET", "/v1/recent", &[], None).await.is_problem(401, "UNAUTHENTICATED");
    drop(phone);
}

#[tokio::test]
async fn a_call_that_follows_gets_what_was_and_what_comes() {
    let site = Site::with_tokens("").await;
    let mut phone = cause(&site).await;
    let mut events = Events::open(site.address, "reader", "/v1/recent?follow=true&channel=Sales").await;
    assert!(events.next("reach").await["events"].is_string());
    for what in ["subscribed", "event"] {
        assert_eq!(events.next("entry").await["what"], what);
    }
    phone.send(envelope("Sales/Call/Hold", json!({}))).await;
    assert_eq!(events.next("entry").await["subtopic"], "Hold");
    // There are at most eight.
    let mut others = Vec::new();
    for _ in 0..7 {
        others.push(Events::open(site.address, "reader", "/v1/recent?follow=true").await);
    }
    let refused = site.call("reader", "GET", "/v1/recent?follow=true", None).await;
    refused.is_problem(429, "TOO_MANY_REQUESTS");
    drop(others);
    within("room for another one", async {
        while Events::try_open(site.address, "reader", "/v1/recent?follow=true").await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn a_dump_is_an_act_and_its_file_is_named() {
    let site = Site::with_tokens("").await;
    let _phone = cause(&site).await;
    site.call("reader", "POST", "/v1/recent/dump", None).await.is_problem(403, "FORBIDDEN");
    let dumped = site.call("actor", "POST", "/v1/recent/dump", None).await;
    assert_eq!(dumped.status, 200, "{dumped:?}");
    let text = std::fs::read_to_string(dumped.json()["file"].as_str().unwrap()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let whats: Vec<_> = lines.iter().map(|line| line["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["dump", "subscribed", "registered", "subscribed", "event", "refused"]);
    assert!(!text.contains("hunter2"), "{text}");
    let records = site.records_of(2).await;
    assert!(records.iter().all(|record| record["target"] == "POST /v1/recent/dump"), "{records:?}");
}

#[tokio::test]
async fn a_recorder_that_is_turned_off_is_said_to_be() {
    let site = Site::with_tokens("[recorder]\nbytes = 0").await;
    for (method, path) in [("GET", "/v1/recent"), ("GET", "/v1/recent?follow=true"), ("POST", "/v1/recent/dump")] {
        let answer = site.call("actor", method, path, None).await;
        answer.is_problem(503, "UNAVAILABLE");
        assert!(answer.text.contains("recorder.bytes"), "{answer:?}");
    }
    assert_eq!(site.get("/v1/info").await["recorder"], Value::Null);
}

#[tokio::test]
async fn the_command_prints_entries_and_how_far_back_they_reach() {
    let site = Site::with_tokens("").await;
    let _phone = cause(&site).await;
    let (url, token) = (format!("http://{}/", site.address), secret_file_in(&site, "reader"));
    let recent = async |more: &[&str]| {
        let arguments = [&["recent", "--admin", &url, "--admin-token-file", &token], more].concat();
        run(&arguments, &[]).await
    };
    let all = recent(&["--source", "phone"]).await;
    has(&all, 0, "registered", "recorded since ");
    let text = String::from_utf8(all.stdout).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
    let event = text.lines().find(|line| line.contains("id=one")).unwrap();
    for part in ["event", "phone", "Sales/Call/Ring", "receivers=0", "bytes="] {
        assert!(event.contains(part), "{event}");
    }
    let filtered = recent(&["--code", "INVALID_ENVELOPE", "--source", "phone", "--json"]).await;
    let row: Value = serde_json::from_slice(&filtered.stdout).unwrap();
    assert_eq!((&row["what"], &row["code"]), (&json!("refused"), &json!("INVALID_ENVELOPE")));
    has(&recent(&["--user", "nobody"]).await, 0, "", "recorded since ");
}

#[tokio::test]
async fn the_command_follows_until_the_broker_ends() {
    let mut site = Site::with_tokens("").await;
    let mut phone = cause(&site).await;
    let (url, token) = (format!("http://{}/", site.address), secret_file_in(&site, "reader"));
    let arguments =
        ["recent", "--admin", &url, "--admin-token-file", &token, "--channel", "Sales", "--follow", "--json"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for (key, value) in [("what", "subscribed"), ("what", "event"), ("subtopic", "Hold")] {
        if value == "Hold" {
            phone.send(envelope("Sales/Call/Hold", json!({}))).await;
        }
        let line = within("a line", lines.next_line()).await.unwrap().expect("a line");
        let row: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(row[key], value, "{line}");
    }
    drop(phone);
    site.broker.terminate().await;
    assert_eq!(site.broker.exit_code().await, Some(0));
    let output = within("the command's end", child.wait_with_output()).await.unwrap();
    has(&output, 3, "", "recorded since ");
}
