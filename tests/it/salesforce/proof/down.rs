//! An org that cannot be asked: the application is told, may try again on the same connection, and has not failed.

use std::time::Duration;

use salesforce_stand_in::{Fault, Wrong};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};

use super::{ALICE, Fixture, refused, register};
use crate::support::{Broker, Peer};

async fn unavailable(peer: &mut Peer, token: &str) -> String {
    let reply = peer.register("softphone", json!({ "token": token })).await;
    assert_eq!(reply["data"]["ErrorCode"], "UPSTREAM_UNAVAILABLE", "{reply}");
    reply["data"]["ErrorMessage"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_org_that_cannot_say_is_told_apart_from_a_token_that_proves_nobody() {
    let fixture = Fixture::start().await;
    let toml = |way: &str| format!("[limits]\nfailed_registrations = 1\n[salesforce]\nbreaker_failures = 1000\n{way}");
    for (path, way) in [
        ("/userinfo", fixture.userinfo("timeout = '300ms'")),
        ("/introspect", fixture.introspection("timeout = '300ms'\nallowed_clients = ['gadgets']")),
    ] {
        let broker = Broker::with_config(&toml(&way)).await;
        let token = fixture.access_token("gadgets").await;
        let mut peer = broker.raw("softphone").await;
        for wrong in [
            Wrong::Unavailable { retry_after: None },
            Wrong::HtmlBody { status: 200 },
            Wrong::HtmlBody { status: 404 },
            Wrong::EmptyBody {},
            Wrong::HugeBody { bytes: 2 << 20 },
            Wrong::CutBody {},
            Wrong::Reset {},
            Wrong::Slow { milliseconds: 600 },
            Wrong::Error { status: 429, code: "X".to_owned(), message: String::new() },
        ] {
            let shown = format!("{path}: {wrong:?}");
            fixture.org.fault(Fault::new(wrong).path(path));
            let words = unavailable(&mut peer, &token).await;
            assert!(words.contains("try again"), "{shown}: {words}");
            fixture.org.clear_faults();
        }
        // A connection that breaks once is not a failure.
        fixture.org.fault(Fault::new(Wrong::Reset {}).times(1).path(path));
        let reply = peer.register("softphone", json!({ "token": token })).await;
        assert_eq!((&reply["data"]["Success"], &reply["data"]["User"]), (&json!(true), &json!(ALICE)), "{reply}");
        let (code, words, _) = refused(&broker, "softphone", "00D000000000001!AQ-dead").await;
        assert_eq!(code, "UNAUTHENTICATED", "the first one that failed: {words}");
        assert!(broker.log().contains("Salesforce could not verify a token"));
    }
}

#[tokio::test]
async fn an_org_that_is_gone_is_unavailable_until_it_is_back_and_what_was_known_serves_on() {
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&(fixture.jwt("") + &fixture.userinfo("timeout = '2s'"))).await;
    let (known, fresh) = (fixture.access_token("gadgets").await, fixture.access_token("bobs").await);
    let signed = fixture.signed_token("gadgets").await;
    assert_eq!(register(&broker, "softphone", &known).await.1["User"], ALICE);
    let Fixture { org, folder: _folder, .. } = fixture;
    org.stop().await;
    let mut peer = broker.raw("softphone").await;
    unavailable(&mut peer, &fresh).await;
    assert_eq!(register(&broker, "crm", &known).await.1["User"], ALICE);
    assert_eq!(register(&broker, "crm", &signed).await.1["User"], ALICE, "nobody is asked about a JWT");
    assert_eq!(peer.register("softphone", json!({ "token": known })).await["data"]["User"], ALICE);
}

#[tokio::test]
async fn an_org_that_fails_again_and_again_is_left_alone_and_found_again() {
    let fixture = Fixture::start().await;
    let patience = "[salesforce]\nbreaker_failures = 2\nbreaker_open = '300ms'\n";
    let broker = Broker::with_config(&(fixture.userinfo("") + patience)).await;
    let token = fixture.access_token("gadgets").await;
    fixture.org.fault(Fault::new(Wrong::Unavailable { retry_after: None }).path("/userinfo"));
    let asked = || fixture.org.seen().iter().filter(|seen| seen.path.ends_with("/userinfo")).count();
    let mut peer = broker.raw("softphone").await;
    for _ in 0..2 {
        unavailable(&mut peer, &token).await;
    }
    let before = asked();
    let started = Instant::now();
    unavailable(&mut peer, &token).await;
    assert!(asked() == before || started.elapsed() >= Duration::from_millis(300), "it was asked");
    broker.log_until("the breaker", |log| log.contains("the circuit breaker is open")).await;
    fixture.org.clear_faults();
    sleep_until(Instant::now() + Duration::from_millis(300)).await;
    assert_eq!(peer.register("softphone", json!({ "token": token })).await["data"]["User"], ALICE);
}

#[tokio::test]
async fn a_limit_of_the_org_is_named_and_the_next_question_waits() {
    let fixture = Fixture::start().await;
    let toml = |way: &str| format!("[salesforce]\nbreaker_failures = 2\n{way}");
    for (path, way) in [("/userinfo", fixture.userinfo("")), ("/introspect", fixture.introspection(""))] {
        let token = fixture.access_token("gadgets").await;
        for (wrong, words, opens) in
            [(Wrong::LongRunningLimit {}, "run at once in the org", false), (Wrong::DailyLimit {}, "of 24 hours", true)]
        {
            let broker = Broker::with_config(&toml(&way)).await;
            let mut peer = broker.raw("softphone").await;
            fixture.org.fault(Fault::new(wrong).path(path));
            let (before, started) = (fixture.questions(path), Instant::now());
            for _ in 0..3 {
                let words = unavailable(&mut peer, &token).await;
                assert!(words.contains("try again"), "{words}");
            }
            let asked = fixture.questions(path) - before;
            // The pause after a crowd is 1 s at least, and after the daily limit it is 60 s.
            assert!(asked == 1 || !opens && started.elapsed() >= Duration::from_secs(1), "{path}: {asked} questions");
            fixture.org.clear_faults();
            broker.log_until("the limit", |log| log.contains(words)).await;
            let is_open = |log: &str| log.contains("the circuit breaker is open");
            if opens {
                broker.log_until("the breaker", is_open).await;
            }
            let log = broker.log();
            assert!(!log.contains("My Domain") && is_open(&log) == opens, "{path}: {log}");
        }
    }
}

#[tokio::test]
async fn an_org_that_asks_to_be_left_alone_is_not_asked_about_tokens() {
    let fixture = Fixture::start().await;
    let broker = Broker::with_config(&fixture.userinfo("")).await;
    let token = fixture.access_token("gadgets").await;
    fixture.org.fault(Fault::new(Wrong::Unavailable { retry_after: Some(60) }).path("/userinfo").times(1));
    let mut peer = broker.raw("softphone").await;
    for _ in 0..3 {
        unavailable(&mut peer, &token).await;
    }
    assert_eq!(fixture.questions("/userinfo"), 1);
}

#[tokio::test]
async fn a_token_goes_to_the_configured_host_and_nowhere_else() {
    let fixture = Fixture::start().await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", elsewhere.local_addr().unwrap());
    for (path, way) in
        [("/userinfo", fixture.userinfo("")), ("/introspect", fixture.introspection("allowed_clients = ['gadgets']"))]
    {
        let broker = Broker::with_config(&way).await;
        fixture.org.fault(Fault::new(Wrong::Redirect { location: address.clone() }).path(path));
        let mut peer = broker.raw("softphone").await;
        unavailable(&mut peer, &fixture.access_token("gadgets").await).await;
        fixture.org.clear_faults();
        let token = json!({ "token": format!("{address}00D000000000001!x") });
        let reply = peer.register("softphone", token).await;
        assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED", "{reply}");
    }
    let nobody = tokio::time::timeout(Duration::from_millis(200), elsewhere.accept()).await;
    assert!(nobody.is_err(), "something was sent elsewhere");
}

#[tokio::test]
async fn an_app_that_may_not_ask_is_the_operators_to_mend() {
    let fixture = Fixture::start().await;
    std::fs::write(fixture.file("broker-secret"), "wrong").unwrap();
    let broker = Broker::with_config(&fixture.introspection("")).await;
    let mut peer = broker.raw("softphone").await;
    let words = unavailable(&mut peer, &fixture.access_token("gadgets").await).await;
    assert!(words.contains("administrator"), "{words}");
    broker.log_until("the operator's line", |log| log.contains("the org refuses the app that asks")).await;
}

#[tokio::test]
async fn a_broker_without_its_certificate_does_not_begin() {
    let fixture = Fixture::start().await;
    let toml = fixture.jwt("");
    std::fs::remove_file(fixture.file("org.pem")).unwrap();
    let file = fixture.file("f.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--config", &file, "--data-dir", &fixture.file("data")]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("auth.salesforce_jwt.certificate_file"), "{told}");
}
