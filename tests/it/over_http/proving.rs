//! Who may call: tokens that are good for it, and no others.

use serde_json::{Value, json};

use super::{ALICE, DIAL, PUBLISH, Post, applications, refused};
use crate::auth::signing::Signer;
use crate::support::{Broker, application, envelope, secret_file, token_of};

fn event() -> Value {
    envelope(DIAL, json!({}))
}

fn bearer(token: &str) -> Post {
    Post::of("crm", PUBLISH, &event()).with("Authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn a_call_needs_a_token_that_is_good_for_calls() {
    let broker = Broker::with_config(&applications()).await;
    let good = Post::of("crm", PUBLISH, &event());
    for (value, status, code, word) in [
        ("", 401, "UNAUTHENTICATED", "Authorization"),
        ("Basic YWxpY2U6c2VjcmV0", 401, "UNAUTHENTICATED", "Bearer"),
        ("Bearer wrong", 401, "UNAUTHENTICATED", "token"),
        (&format!("Bearer {}", token_of("desk")), 403, "FORBIDDEN", "over_http"),
    ] {
        let response = good.clone().with("Authorization", value).send(&broker).await;
        let detail = refused(&response, status, code);
        assert!(detail.contains(word) && !detail.contains("wrong"), "{value}: {detail}");
    }
    good.with("Authorization", &format!("bEARER  {}", token_of("crm"))).succeed(&broker).await;
    // Its token is good for a WebSocket as before.
    broker.app_by_token("crm").await.fence().await;
}

#[tokio::test]
async fn open_mode_has_no_tokens_so_nobody_can_call() {
    let broker = Broker::open_with(&applications()).await;
    let detail = refused(&Post::of("crm", PUBLISH, &event()).send(&broker).await, 401, "UNAUTHENTICATED");
    assert!(detail.contains("auth.mode"), "{detail}");
}

#[tokio::test]
async fn the_envelope_names_one_of_several_sources() {
    let shared = |source: &str, more: &str| {
        application("both", ALICE, more).replace("source = \"both\"", &format!("source = \"{source}\""))
    };
    let rows = [("one", "over_http = true"), ("two", "over_http = true"), ("three", "")];
    let broker = Broker::with_config(&rows.map(|(source, more)| shared(source, more)).concat()).await;
    let from = |source: &str| Post::of("both", PUBLISH, &envelope(DIAL, json!({"source": source})));
    from("one").succeed(&broker).await;
    from("two").succeed(&broker).await;
    refused(&from("three").send(&broker).await, 403, "FORBIDDEN");
    refused(&from("four").send(&broker).await, 403, "SOURCE_MISMATCH");
    let detail = refused(&Post::of("both", PUBLISH, &event()).send(&broker).await, 400, "INVALID_ENVELOPE");
    assert!(detail.contains("source"), "{detail}");
}

#[tokio::test]
async fn the_tokens_of_an_issuer_are_good_for_calls_if_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let secret = b"a secret of thirty-two bytes, or more";
    let path = folder.path().join("secret");
    secret_file(&path, secret);
    let issuer = |name: &str, more: &str| {
        format!(
            "[auth.jwt.{name}]\nissuer = \"https://{name}.example\"\naudience = [\"switchboard\"]\nalgorithms = [\"HS256\"]\n\
             secret_file = {path:?}\nuser = \"sub\"\nusers = [\"*\"]\nrole = \"agent\"\n{more}\n"
        )
    };
    let config = [
        "[roles.agent]\npublish = [\"*/*/*\"]\nsubscribe = [\"*/*/*\"]\nrequest = [\"*/*/*\"]\nhandle = [\"*/*/*\"]\n"
            .to_owned(),
        issuer("calls", "sources = [\"crm\", \"cron\"]\nover_http = true"),
        issuer("one", "sources = [\"crm\"]\nover_http = true"),
        issuer("claims", "source = \"app\"\nover_http = true"),
        issuer("sockets", "sources = [\"crm\"]"),
    ];
    let broker = Broker::with_config(&config.concat()).await;
    let token = |name: &str, app: &str| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let claims = json!({
            "iss": format!("https://{name}.example"), "aud": "switchboard", "sub": "alice", "app": app, "iat": now,
            "exp": now + 600,
        });
        Signer::secret(secret).token("HS256", &claims)
    };
    let call = |name: &str, app: &str, source: Option<&str>| {
        let body = envelope(DIAL, source.map_or_else(|| json!({}), |source| json!({"source": source})));
        bearer(&token(name, app)).with_body(body.to_string())
    };
    call("calls", "", Some("cron")).succeed(&broker).await;
    call("one", "", None).succeed(&broker).await;
    call("claims", "crm", None).succeed(&broker).await;
    refused(&call("calls", "", None).send(&broker).await, 400, "INVALID_ENVELOPE");
    refused(&call("calls", "", Some("other")).send(&broker).await, 403, "FORBIDDEN");
    refused(&call("claims", "crm", Some("cron")).send(&broker).await, 403, "SOURCE_MISMATCH");
    let detail = refused(&call("sockets", "", Some("crm")).send(&broker).await, 403, "FORBIDDEN");
    assert!(detail.contains("over_http"), "{detail}");
    let forged = call("calls", "", Some("crm")).with("Authorization", &format!("Bearer {}x", token("calls", "")));
    refused(&forged.send(&broker).await, 401, "UNAUTHENTICATED");
    // Before its signature is known to be wrong, a token says nothing of the envelope that is needed.
    let forged = call("calls", "", None).with("Authorization", &format!("Bearer {}x", token("calls", "")));
    refused(&forged.send(&broker).await, 401, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_reload_decides_for_calls_in_progress_too() {
    use super::REQUEST;
    use crate::support::http::read_response;

    let broker = Broker::with_config(&applications()).await;
    let mut desk = broker.app_by_token("desk").await;
    desk.handle(DIAL).await;
    let mut answer = Post::of("crm", REQUEST, &event()).begin(broker.address()).await;
    let request = desk.next_on(DIAL).await;
    broker.configure(&application("desk", ALICE, ""));
    broker.reload().await;
    refused(&read_response(&mut answer).await, 401, "UNAUTHENTICATED");
    let cancelled = desk.next_on("Broker/Request/Cancelled").await;
    assert_eq!(cancelled["inReplyTo"], request["id"]);
    refused(&Post::of("crm", PUBLISH, &event()).send(&broker).await, 401, "UNAUTHENTICATED");
    broker.configure(&application("crm", ALICE, "").replace("\n\n", "\n"));
    broker.reload().await;
    refused(&Post::of("crm", PUBLISH, &event()).send(&broker).await, 403, "FORBIDDEN");
}

#[tokio::test]
async fn over_http_needs_a_token_in_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchboard.toml");
    let row = "[[applications]]\nsource = \"crm\"\nuser = \"alice\"\ncertificate = \"CN=crm\"\nover_http = true\n";
    std::fs::write(&file, row).unwrap();
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_switchboard"))
        .args(["check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8([check.stdout, check.stderr].concat()).unwrap();
    assert!(said.contains("applications[0].over_http") && said.contains("token_sha256"), "{said}");
    assert_eq!(check.status.code(), Some(2));
}
