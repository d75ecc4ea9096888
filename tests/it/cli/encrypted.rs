//! `wss://` and `--ca-file`, for every command that connects to a broker.

use super::*;
use crate::client::tls_proxy::TlsProxy;

#[tokio::test]
async fn every_client_command_works_behind_a_tls_proxy() {
    let broker = Broker::start().await;
    let proxy = TlsProxy::start(broker.address()).await;
    let (url, ca_file) = (proxy.url(), proxy.ca_file());
    let encrypted = ["--ca-file", ca_file.to_str().unwrap()];
    let with = |line: &[&'static str]| [line, &encrypted].concat();
    let mut sub = Beside::start(&url, "log", &with(&["sub", "Phone", "--count", "1"])).await;
    let _handle = Beside::start(&url, "crm", &with(&["handle", "Crm", "Contact", "Find", "--reply", "1"])).await;
    run(&url, &with(&["pub", "Phone", "Call", "Ringing", "7"])).await.has(0, "");
    assert!(sub.line().await.contains("\"data\":7"));
    assert_eq!(run(&url, &with(&["request", "Crm", "Contact", "Find"])).await.values(), [json!(1)]);
    assert!(run(&url, &with(&["apps"])).await.stdout.contains("crm"));
    let bench = ["bench", "pairs", "--clients", "3", "--seconds", "0.3", "--rate", "500", "--json"];
    let outcome = run(&url, &with(&bench)).await;
    outcome.has(0, "");
    assert_eq!(outcome.values()[0]["lost"], 0, "{outcome:?}");
}

#[tokio::test]
async fn an_unknown_certificate_authority_is_exit_code_3_with_a_hint() {
    let broker = Broker::start().await;
    let proxy = TlsProxy::start(broker.address()).await;
    for line in [&["apps"][..], &["bench", "pairs", "--clients", "3", "--seconds", "0.3"]] {
        run(&proxy.url(), line).await.has(3, "hint: --ca-file");
    }
}
