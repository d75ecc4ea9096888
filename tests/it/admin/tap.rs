//! `/v1/tap`: what the router decides.

use super::events::Events;
use super::*;
use crate::support::envelope;

/// The table of the token `seer`.
const SEER: &str = "
[[admin.tokens]]
name = \"seer\"
token_sha256 = \"HASH\"
may = \"payloads\"
";

fn with_seer(payloads: bool) -> String {
    with_token_of_seer("seer", payloads)
}

fn with_token_of_seer(token: &str, payloads: bool) -> String {
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(token));
    let auth = "[auth]\nmode = \"open\"\n";
    format!("{auth}[admin]\nlisten = [\"127.0.0.1:0\"]\npayloads = {payloads}\n{TOKENS}{}", SEER.replace("HASH", &hash))
}

#[tokio::test]
async fn a_tap_shows_decisions_as_they_are_made() {
    let site = Site::with_tokens("").await;
    let mut tap = Events::open(site.address, "reader", "/v1/tap?channel=Sales&rate=1000").await;
    let mut phone = site.broker.app("phone").await;
    phone.send(envelope("Sales/Call/Ring", json!({"id": "one", "data": "hunter2"}))).await;
    let shown = tap.next("decision").await;
    assert_eq!((&shown["verdict"], &shown["source"], &shown["id"]), (&json!("EVENT"), &json!("phone"), &json!("one")));
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    // It ends when its reader leaves, and there are at most eight.
    drop(tap);
    let mut taps = Vec::new();
    within("eight taps", async {
        while taps.len() < 8 {
            taps.extend(Events::try_open(site.address, "reader", "/v1/tap").await.ok());
        }
    })
    .await;
    site.call("reader", "GET", "/v1/tap", None).await.is_problem(429, "TOO_MANY_REQUESTS");
    for wrong in ["rate=0", "rate=1001", "colour=red"] {
        site.call("reader", "GET", &format!("/v1/tap?{wrong}"), None).await.is_problem(400, "INVALID_REQUEST");
    }
    call_with(site.address, "GET", "/v1/tap", &[], None).await.is_problem(401, "UNAUTHENTICATED");
    // A tap without payloads is not an act, so the first record is that of the first act.
    site.call("actor", "PUT", "/v1/log", Some(&json!({"filter": "info"}))).await;
    assert_eq!(site.records_of(1).await[0]["target"], "PUT /v1/log");
}

#[tokio::test]
async fn a_tap_shows_the_answers_of_the_broker_itself_without_their_payloads() {
    let site = Site::with(&with_seer(true)).await;
    site.broker.credentials_set("alice", "1001", "hunter2", "5051").await;
    let mut tap = Events::open(site.address, "seer", "/v1/tap?id=one&payloads=true").await;
    let mut phone = site.broker.app_of("phone", "alice").await;
    let mut other = site.broker.app_of("phone", "bob").await;
    let fetch = "Salesforce/User/FetchCredentials";
    phone.ask(fetch, "one").await;
    assert_eq!(phone.next_answer(fetch, "one").await["data"]["Success"], true);
    other.ask(fetch, "one").await;
    assert_eq!(other.next_answer(fetch, "one").await["data"]["Success"], false);
    let mut shown = Vec::new();
    let four = async {
        while shown.len() < 4 {
            shown.push(tap.next("decision").await);
        }
    };
    within("two requests and their answers", four).await;
    let of = |user: &str| shown.iter().filter(move |it| it["user"] == user).collect::<Vec<_>>();
    let [request, reply] = of("alice")[..] else { panic!("{shown:?}") };
    assert_eq!((&request["verdict"], &request["source"]), (&json!("REQUEST"), &json!("phone")));
    assert_eq!(
        (&reply["verdict"], &reply["source"], &reply["code"]),
        (&json!("REPLY"), &json!("switchboard"), &json!(null))
    );
    assert!(reply["inReplyTo"].is_string() && reply["bytes"].is_null() && reply["payload"].is_null(), "{reply}");
    let failed = of("bob").into_iter().find(|it| it["source"] == "switchboard").unwrap();
    assert_eq!((&failed["verdict"], &failed["code"]), (&json!("REPLY"), &json!("CREDENTIALS_NOT_FOUND")));
    assert!(!format!("{shown:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_tap_over_its_rate_says_how_many_lines_were_left_out() {
    let site = Site::with_tokens("").await;
    let mut tap = Events::open(site.address, "reader", "/v1/tap?rate=1").await;
    let mut phone = site.broker.app("phone").await;
    for _ in 0..20 {
        phone.send(envelope("Sales/Call/Ring", json!({}))).await;
    }
    tap.next("decision").await;
    let mut left_out = 0;
    while left_out < 17 {
        left_out += tap.next("skipped").await["count"].as_u64().unwrap();
    }
    assert!(left_out < 20, "{left_out}");
}

#[tokio::test]
async fn payloads_need_the_key_and_a_token_that_may_see_them_and_are_recorded() {
    let site = Site::with(&with_seer(false)).await;
    site.call("seer", "GET", "/v1/tap?payloads=true", None).await.is_problem(403, "FORBIDDEN");
    let site = Site::with(&with_seer(true)).await;
    site.call("actor", "GET", "/v1/tap?payloads=true", None).await.is_problem(403, "FORBIDDEN");
    let mut plain = Events::open(site.address, "seer", "/v1/tap").await;
    let mut tap = Events::open(site.address, "seer", "/v1/tap?payloads=true&source=phone").await;
    let (mut phone, mut cisco) = (site.broker.app("phone").await, site.broker.app("cisco").await);
    cisco.handle("Cisco/Agent/Login").await;
    phone.send(envelope("Cisco/Agent/Login", json!({"id": "p", "data": {"Password": "hunter2"}}))).await;
    let request = cisco.next_on("Cisco/Agent/Login").await;
    cisco.reply(&request, json!({"data": "hunter2"})).await;
    phone.next_answer("Cisco/Agent/Login", "p").await;
    phone.send(envelope("Sales/Call/Ring", json!({"data": {"seen": true}}))).await;
    let protected = tap.next("decision").await;
    assert_eq!((&protected["topic"], &protected["payload"]), (&json!("Agent"), &Value::Null));
    assert!(!protected.to_string().contains("hunter2") && protected["bytes"].is_null(), "{protected}");
    assert_eq!(tap.next("decision").await["payload"], "{\"seen\":true}");
    while plain.next("decision").await["channel"] != "Sales" {}
    let records = site.records_of(2).await;
    let facts: Vec<_> =
        records.iter().map(|it| (&it["target"], &it["outcome"], &it["arguments"]["payloads"])).collect();
    let (call, refused) = (json!("GET /v1/tap"), json!("FORBIDDEN"));
    assert_eq!(facts, [(&call, &refused, &json!(true)), (&call, &json!("ok"), &json!(true))], "{records:?}");
}

#[tokio::test]
async fn a_reload_ends_the_answers_of_a_token_that_it_removes_and_payloads_that_it_turns_off() {
    let site = Site::with(&with_seer(true)).await;
    let open = |token, path| Events::open(site.address, token, path);
    let mut payloads = open("seer", "/v1/tap?payloads=true").await;
    let (mut tap, mut recent) = (open("seer", "/v1/tap").await, open("seer", "/v1/recent?follow=true").await);
    let mut other = open("reader", "/v1/tap").await;
    let mut phone = site.broker.app("phone").await;

    site.broker.configure(&with_seer(false));
    site.broker.reload().await;
    payloads.end().await;
    phone.send(envelope("Sales/Call/Ring", json!({"id": "one"}))).await;
    while tap.next("decision").await["id"] != "one" {}

    // Another token under the same name.
    site.broker.configure(&with_token_of_seer("next", false));
    site.broker.reload().await;
    tap.end().await;
    recent.end().await;
    phone.send(envelope("Sales/Call/Ring", json!({"id": "two"}))).await;
    while other.next("decision").await["id"] != "two" {}
}
