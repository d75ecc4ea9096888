//! `wss://` and `--ca-file`, for every command that connects to a broker.

use super::*;
use crate::client::tls_proxy::TlsProxy;
use crate::support::tls::TlsFiles;

#[tokio::test]
async fn every_client_command_works_with_a_tls_listener() {
    let files = TlsFiles::new();
    let (_broker, url) = files.broker("").await;
    let ca_file = files.path("ca.pem");
    let encrypted = ["--ca-file", ca_file.to_str().unwrap()];
    let with = |line: &[&'static str]| [line, &encrypted].concat();
    let mut sub = Beside::start(&url, "log", &with(&["sub", "Phone", "--count", "1"])).await;
    let _handle = Beside::start(&url, "crm", &with(&["handle", "Crm", "Contact", "Find", "--reply", "1"])).await;
    run(&url, &with(&["pub", "Phone", "Call", "Ringing", "7"])).await.has(0, "");
    assert!(sub.line().await.contains("\"data\":7"));
    assert_eq!(run(&url, &with(&["request", "Crm", "Contact", "Find"])).await.values(), [json!(1)]);
    assert!(run(&url, &with(&["apps"])).await.stdout.contains("crm"));
    for load in [
        &["bench", "pairs", "--clients", "3", "--rate", "500"][..],
        &["bench", "fanout", "--clients", "3", "--rate", "100"],
        &["bench", "request", "--clients", "3", "--rate", "100"],
    ] {
        let outcome = run(&url, &with(&[load, &["--seconds", "0.3", "--json"]].concat())).await;
        // On a busy machine, some can be late.
        assert!(outcome.values()[0]["delivered"].as_u64().unwrap() > 0, "{outcome:?}");
    }
    run(&url, &with(&["bench", "idle", "--clients", "3", "--seconds", "0.1", "--json"])).await.has(0, "");
}

#[tokio::test]
async fn the_wrong_scheme_is_answered_with_the_right_one() {
    let files = TlsFiles::new();
    let (broker, url) = files.broker("").await;
    run(&url.replace("wss://", "ws://"), &["apps"]).await.has(3, "wss://");
    run(&format!("wss://{}/ws", broker.address()), &["apps"]).await.has(3, "try ws:// in place of wss://");
}

#[tokio::test]
async fn an_unknown_certificate_authority_is_exit_code_3_with_a_hint() {
    let broker = Broker::start().await;
    let proxy = TlsProxy::start(broker.address()).await;
    for line in [&["apps"][..], &["bench", "pairs", "--clients", "3", "--seconds", "0.3"]] {
        run(&proxy.url(), line).await.has(3, "hint: --ca-file");
    }
}
