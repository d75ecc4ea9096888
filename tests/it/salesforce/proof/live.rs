//! Each way with a real broker and a stand-in org.

use futures_util::future::join_all;
use salesforce_stand_in::{Fault, Wrong};
use serde_json::json;

use super::{ALICE, FETCH, Fixture, refused, register};
use crate::support::{Broker, Peer, application, token_of};

const BOB: &str = "005000000000003AAA";

/// What an agent's gadget fetches.
async fn fetched(peer: &mut Peer) -> String {
    peer.ask(FETCH, "f").await;
    let answer = peer.next_answer(FETCH, "f").await;
    answer["data"]["Password"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

#[tokio::test]
async fn a_gadget_proves_its_user_by_what_the_orgs_code_signs_and_fetches_from_the_org() {
    let fixture = Fixture::start().await;
    let (url, secret) = (fixture.org.url(), fixture.file("demo-secret"));
    let toml = format!(
        "credentials.store = 'salesforce'\n[salesforce]\nlogin_url = '{url}'\nclient_id = 'demo'\nclient_secret_file = '{secret}'\n\
         instance_hosts = ['127.0.0.1']\ninsecure_http = true\n{}{}{}",
        fixture.jwt(""),
        application("cti", None, ""),
        application("desk", Some(ALICE), "exclusive = true"),
    );
    let broker = Broker::with_config(&toml).await;
    for (client, user, password) in [("gadgets", ALICE, "made-up-Alice"), ("bobs", BOB, "made-up-Bob")] {
        let (mut gadget, reply) = register(&broker, "softphone", &fixture.signed_token(client).await).await;
        assert_eq!((&reply["Success"], &reply["User"]), (&json!(true), &json!(user)));
        assert_eq!(fetched(&mut gadget).await, password);
    }
    // Static tokens go on as before, and a service's name is the service's.
    broker.app_by_token("cti").await;
    let (code, words, close) = refused(&broker, "cti", &fixture.signed_token("gadgets").await).await;
    assert_eq!((code.as_str(), close), ("FORBIDDEN", 4403), "{words}");
    let (code, words, close) = refused(&broker, "softphone", &token_of("cti")).await;
    assert_eq!((code.as_str(), close), ("FORBIDDEN", 4403), "{words}");
    let (code, words, close) = refused(&broker, "softphone", "a-guess").await;
    assert_eq!((code.as_str(), close), ("UNAUTHENTICATED", 4401));
    assert!(words.contains("token_sha256") && words.contains("[auth.salesforce_jwt]"), "{words}");
    // What is exclusive for a static token is so for a proved user.
    let desk = broker.app_by_token("desk").await;
    let (code, words, _) = refused(&broker, "desk", &fixture.signed_token("gadgets").await).await;
    assert_eq!(code, "SOURCE_IN_USE", "{words}");
    desk.close().await;
    // An access token is worth nothing where no way for it is on, and is sent to nobody.
    let (code, words, _) = refused(&broker, "softphone", &fixture.access_token("gadgets").await).await;
    assert!(code == "UNAUTHENTICATED" && words.contains("looks like an access token"), "{words}");
    assert_eq!(fixture.questions("/userinfo") + fixture.questions("/introspect"), 0);
}

#[tokio::test]
async fn a_jwt_for_another_broker_or_of_another_time_is_refused() {
    let fixture = Fixture::with(false, |seed| seed["organization"]["gadget_audience"] = json!("another-desk")).await;
    let broker = Broker::with_config(&fixture.jwt("")).await;
    let (code, words, close) = refused(&broker, "softphone", &fixture.signed_token("gadgets").await).await;
    assert!((code.as_str(), close) == ("UNAUTHENTICATED", 4401) && words.contains("'aud'"), "{words}");
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&fixture.jwt("")).await;
    for (seconds, part) in [(-3600, "expired"), (7200, "in the future")] {
        fixture.org.shift_clock(seconds);
        let (_, words, _) = refused(&broker, "softphone", &fixture.signed_token("gadgets").await).await;
        assert!(words.contains(part), "{words}");
    }
}

#[tokio::test]
async fn userinfo_proves_whose_an_access_token_is_and_is_asked_once_for_five_minutes() {
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&fixture.userinfo("sources = ['softphone', 'crm']")).await;
    broker.credentials_set(ALICE, "1245456", "from-the-directory", "5051").await;
    let token = fixture.access_token("gadgets").await;
    for source in ["softphone", "crm", "softphone"] {
        let (mut gadget, reply) = register(&broker, source, &token).await;
        assert_eq!((&reply["Success"], &reply["User"]), (&json!(true), &json!(ALICE)));
        assert_eq!(fetched(&mut gadget).await, "from-the-directory");
    }
    assert_eq!(fixture.questions("/userinfo"), 1);
    let (code, words, close) = refused(&broker, "wallboard", &token).await;
    assert_eq!((code.as_str(), close), ("FORBIDDEN", 4403), "{words}");
    // An answer that was good serves its time, also for a token that has been revoked; a bad one serves never.
    fixture.org.expire_sessions();
    assert_eq!(register(&broker, "crm", &token).await.1["User"], ALICE);
    assert_eq!(fixture.questions("/userinfo"), 1);
    for asked in [2, 3] {
        let dead = format!("{token}x");
        let (code, words, close) = refused(&broker, "softphone", &dead).await;
        assert_eq!((code.as_str(), close), ("UNAUTHENTICATED", 4401), "{words}");
        assert_eq!(fixture.questions("/userinfo"), asked);
    }
}

#[tokio::test]
async fn introspection_takes_a_token_of_the_apps_that_are_named_and_of_no_other() {
    let fixture = Fixture::start().await;
    let toml = fixture.introspection("allowed_clients = ['gadgets', 'bobs']\nuser = 'username'");
    // Userinfo would believe the other app's token: it is not asked about what introspection has refused.
    let broker = Broker::with_config(&(toml + &fixture.userinfo("user = 'username'"))).await;
    for (client, user) in [("gadgets", "alice@example.com"), ("bobs", "bob@example.com")] {
        let token = fixture.access_token(client).await;
        for _ in 0..2 {
            assert_eq!(register(&broker, "softphone", &token).await.1["User"], user);
        }
    }
    assert_eq!(fixture.questions("/introspect"), 2);
    let (code, words, close) = refused(&broker, "softphone", &fixture.access_token("others").await).await;
    assert!((code.as_str(), close) == ("UNAUTHENTICATED", 4401) && words.contains("another app"), "{words}");
    assert_eq!(fixture.questions("/userinfo"), 0);
    fixture.org.expire_sessions();
    let (_, words, _) = refused(&broker, "softphone", "00D000000000001!AQ-none").await;
    assert!(words.contains("not active"), "{words}");
    // By default it takes tokens of the app that asks, and of no other.
    let broker = Broker::with_config(&fixture.introspection("")).await;
    let (_, words, _) = refused(&broker, "softphone", &fixture.access_token("gadgets").await).await;
    assert!(words.contains("allowed_clients"), "{words}");
}

#[tokio::test]
async fn a_token_of_another_org_is_refused_without_asking() {
    let fixture = Fixture::start().await;
    let other = Fixture::with(false, |seed| seed["organization"]["id"] = json!("00D000000000002")).await;
    let broker = Broker::with_config(&(fixture.jwt("") + &fixture.userinfo(""))).await;
    for (token, part) in [
        (other.access_token("gadgets").await, "another Salesforce org"),
        (other.signed_token("gadgets").await, "'iss'"),
    ] {
        let (code, words, close) = refused(&broker, "softphone", &token).await;
        assert!((code.as_str(), close) == ("UNAUTHENTICATED", 4401) && words.contains(part), "{words}");
    }
    assert_eq!(fixture.questions("/userinfo") + other.questions("/userinfo"), 0);
}

#[tokio::test]
async fn a_session_that_salesforce_proved_has_to_prove_itself_anew_after_a_time() {
    let fixture = Fixture::start().await;
    let toml = format!("auth.session_max = '1s'\n{}{}", fixture.jwt(""), application("cti", None, ""));
    let broker = Broker::with_config(&toml).await;
    let mut service = broker.app_by_token("cti").await;
    let (mut gadget, reply) = register(&broker, "softphone", &fixture.signed_token("gadgets").await).await;
    assert_eq!((&reply["User"], &reply["ExpiresInSeconds"]), (&json!(ALICE), &json!(1)));
    gadget.next_on("Broker/Connection/Expiring").await;
    let words = gadget.next_error("UNAUTHENTICATED").await["data"]["ErrorMessage"].to_string();
    assert!(words.contains("auth.session_max"), "{words}");
    assert_eq!(gadget.closed().await, 4401);
    assert_eq!(register(&broker, "softphone", &fixture.signed_token("gadgets").await).await.1["User"], ALICE);
    service.expect_nothing().await;
}

#[tokio::test]
async fn a_session_renews_with_a_proof_of_the_same_user_by_the_same_table() {
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&(fixture.jwt("") + &fixture.userinfo("timeout = '2s'"))).await;
    let (mut gadget, reply) = register(&broker, "softphone", &fixture.signed_token("gadgets").await).await;
    assert_eq!((&reply["User"], &reply["ExpiresInSeconds"]), (&json!(ALICE), &json!(12 * 3600)));
    let mut renew = async |token: &str| {
        let reply = gadget.command("Application", "Renew", json!({ "token": token })).await;
        (reply["data"]["ErrorCode"].clone(), reply["data"]["ExpiresInSeconds"].clone())
    };
    assert_eq!(renew(&fixture.signed_token("gadgets").await).await, (json!(null), json!(12 * 3600)));
    assert_eq!(renew(&fixture.signed_token("bobs").await).await.0, "FORBIDDEN");
    // The same user, by another table.
    assert_eq!(renew(&fixture.access_token("gadgets").await).await.0, "FORBIDDEN");
    assert_eq!(renew("a-guess").await.0, "UNAUTHENTICATED");
    let token = fixture.access_token("bobs").await;
    fixture.org.fault(Fault::new(Wrong::Unavailable { retry_after: None }).path("/userinfo"));
    assert_eq!(renew(&token).await.0, "UPSTREAM_UNAVAILABLE");
    assert_eq!(renew(&fixture.signed_token("gadgets").await).await.0, json!(null));
}

#[tokio::test]
async fn twenty_gadgets_with_one_token_are_one_question() {
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&fixture.userinfo("")).await;
    let token = fixture.access_token("gadgets").await;
    fixture.org.fault(Fault::new(Wrong::Slow { milliseconds: 500 }).path("/userinfo"));
    let names: Vec<String> = (0..20).map(|at| format!("gadget-{at}")).collect();
    let all = join_all(names.iter().map(|name| register(&broker, name, &token))).await;
    assert!(all.iter().all(|(_, reply)| reply["User"] == ALICE));
    assert_eq!(fixture.questions("/userinfo"), 1);
}

#[tokio::test]
async fn no_token_is_in_the_log_at_trace_and_http_2_is_no_exception() {
    let fixture = Fixture::with(true, |_| {}).await;
    let toml = [fixture.jwt(""), fixture.introspection("allowed_clients = ['gadgets']")].concat();
    let mut secrets = Vec::new();
    let told = Broker::launch(Some(&fixture.userinfo("")), &["--log", "trace"]).await;
    let introspected = Broker::launch(Some(&toml), &["--log", "trace"]).await;
    for broker in [told, introspected] {
        let mut broker = broker;
        for (token, good) in
            [(fixture.access_token("gadgets").await, true), ("00D000000000001!AQ-dead".to_owned(), false)]
        {
            assert_eq!(register(&broker, "softphone", &token).await.1["Success"], good);
            secrets.push(token);
        }
        let signed = fixture.signed_token("gadgets").await;
        register(&broker, "softphone", &signed).await;
        secrets.extend(signed.split('.').skip(1).map(str::to_owned));
        broker.terminate().await;
        assert_eq!(broker.exit_code().await, Some(0));
        let log = broker.log();
        assert!(log.contains("TRACE") && log.contains("h2"), "the log tells the details");
        for secret in secrets.iter().map(String::as_str).chain(["broker-secret&", "=broker-secret"]) {
            assert!(!log.contains(secret), "'{secret}' is in the log");
        }
    }
    assert_eq!((fixture.questions("/userinfo"), fixture.questions("/introspect")), (2, 2));
}
