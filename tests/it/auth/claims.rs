//! What claims mean: who the user is, whether it is a service, which source it may register, and its roles.

use serde_json::{Value, json};

use super::signing::Signer;
use super::{Files, SECRET, broker, claims, issuer, proves, refused, register};
use crate::support::{Broker, application, envelope};

fn token(change: Value) -> String {
    Signer::secret(SECRET).token("HS256", &claims(change))
}

async fn start(before: &str, lines: &str) -> (Broker, Files) {
    let files = Files::new();
    let secret = files.write("secret", SECRET);
    let lines = format!("algorithms = ['HS256']\nsecret_file = '{secret}'\n{lines}");
    (broker(&format!("{before}{}", issuer("idp", &lines))).await, files)
}

#[tokio::test]
async fn the_user_is_a_claim_that_the_issuer_may_prove() {
    let (broker, _files) = start("", "user = 'who.name'\nusers = ['alice', '*@example.com']").await;
    for name in ["alice", "bob@example.com"] {
        let token = token(json!({ "who": { "name": name } }));
        assert_eq!(proves(&broker, "softphone", &token).await.as_deref(), Some(name));
    }
    for name in ["Alice", "alice2", "bob@Example.com", "bob@example.com.evil.example"] {
        let token = token(json!({ "who": { "name": name } }));
        refused(&broker, "softphone", &token, "FORBIDDEN", "'users'").await;
    }
    let long = "x".repeat(300);
    for who in [
        json!({ "name": "" }),
        json!({ "name": 7 }),
        json!({ "name": ["alice"] }),
        json!({ "name": "a\u{7}b" }),
        json!({ "name": long }),
        json!({}),
        json!("alice"),
        json!([{ "name": "alice" }]),
        json!(null),
    ] {
        refused(&broker, "softphone", &token(json!({ "who": who })), "UNAUTHENTICATED", "'who.name'").await;
    }
}

#[tokio::test]
async fn required_claims_equal_their_values_in_type_and_content() {
    let (broker, _files) =
        start("", "require = { email_verified = true, tier = 3, realm.name = 'cc', amr = ['pwd', 'mfa'] }").await;
    let good = json!({ "email_verified": true, "tier": 3, "realm": { "name": "cc" }, "amr": ["pwd", "mfa"] });
    assert!(proves(&broker, "softphone", &token(good.clone())).await.is_some());
    for (name, value) in [
        ("email_verified", json!("true")),
        ("email_verified", json!(1)),
        ("email_verified", json!(false)),
        ("email_verified", json!(null)),
        ("email_verified", json!("(none)")),
        ("tier", json!("3")),
        ("tier", json!(3.5)),
        ("tier", json!([3])),
        ("realm", json!({ "name": "CC" })),
        ("realm", json!("cc")),
        ("amr", json!(["mfa", "pwd"])),
        ("amr", json!("pwd")),
    ] {
        let mut change = good.clone();
        change[name] = value;
        refused(&broker, "softphone", &token(change), "UNAUTHENTICATED", name).await;
    }
}

#[tokio::test]
async fn only_true_makes_a_service_and_a_service_serves_the_issuers_users_only() {
    let (broker, _files) =
        start("", "service = 'switchboard.service'\nusers = ['*@example.com']\nsources = ['softphone', 'router']")
            .await;
    let service = token(json!({ "switchboard": { "service": true }, "sub": "(none)" }));
    assert_eq!(proves(&broker, "router", &service).await, None);
    for value in [json!("true"), json!(1), json!(null), json!([true]), json!({})] {
        let user = token(json!({ "switchboard": { "service": value }, "sub": "bob@example.com" }));
        assert_eq!(proves(&broker, "softphone", &user).await.as_deref(), Some("bob@example.com"));
    }
    let neither = token(json!({ "switchboard": { "service": false }, "sub": "(none)" }));
    refused(&broker, "router", &neither, "UNAUTHENTICATED", "'sub'").await;
}

#[tokio::test]
async fn without_the_key_service_no_token_is_a_services() {
    let (broker, _files) = start("", "").await;
    let token = token(json!({ "switchboard": { "service": true }, "service": true }));
    assert_eq!(proves(&broker, "softphone", &token).await.as_deref(), Some("alice"));
}

#[tokio::test]
async fn the_source_is_that_of_the_claim_and_one_of_the_list() {
    let (broker, _files) = start("", "source = 'switchboard.source'\nsources = ['softphone', 'screenpop']").await;
    let named = |source: Value| token(json!({ "switchboard": { "source": source } }));
    assert!(proves(&broker, "softphone", &named(json!("softphone"))).await.is_some());
    assert!(proves(&broker, "screenpop", &named(json!("screenpop"))).await.is_some());
    refused(&broker, "screenpop", &named(json!("softphone")), "FORBIDDEN", "another source").await;
    refused(&broker, "Softphone", &named(json!("softphone")), "FORBIDDEN", "another source").await;
    refused(&broker, "crm", &named(json!("crm")), "FORBIDDEN", "'sources'").await;
    for source in [json!(""), json!(null), json!(7), json!(["softphone"])] {
        refused(&broker, "softphone", &named(source), "UNAUTHENTICATED", "'switchboard.source'").await;
    }
    refused(&broker, "softphone", &token(json!({})), "UNAUTHENTICATED", "'switchboard.source'").await;
}

#[tokio::test]
async fn no_jwt_is_good_for_a_services_source_and_an_exclusive_source_is_exclusive() {
    let rows = application("cti", None, "") + &application("softphone", Some("carol"), "exclusive = true");
    let (broker, _files) = start(&rows, "service = 'svc'\nsources = ['cti', 'softphone', 'crm']").await;
    refused(&broker, "cti", &token(json!({})), "FORBIDDEN", "a service's").await;
    refused(&broker, "cti", &token(json!({ "svc": true })), "FORBIDDEN", "a service's").await;
    let (_first, reply) = register(&broker, "softphone", &token(json!({}))).await;
    assert_eq!(reply["Success"], true, "{reply}");
    let (_second, reply) = register(&broker, "softphone", &token(json!({}))).await;
    assert_eq!(reply["ErrorCode"], "SOURCE_IN_USE", "{reply}");
    assert!(proves(&broker, "crm", &token(json!({}))).await.is_some());
}

#[tokio::test]
async fn a_token_names_at_least_one_role_or_has_the_default_one() {
    let (broker, _files) = start("", "roles = 'switchboard.roles'\nrole = 'listener'").await;
    let named = |roles: Value| token(json!({ "switchboard": { "roles": roles } }));
    for roles in [json!("agent"), json!(["listener", "agent"]), json!(["boss", "agent", "agent", "boss"])] {
        assert!(proves(&broker, "softphone", &named(roles)).await.is_some());
    }
    assert!(proves(&broker, "softphone", &token(json!({}))).await.is_some());
    for roles in [
        json!([]),
        json!("boss"),
        json!(["boss"]),
        json!("Agent"),
        json!(""),
        json!(null),
        json!(7),
        json!(["agent", 7]),
        json!({ "agent": true }),
    ] {
        refused(&broker, "softphone", &named(roles), "FORBIDDEN", "role").await;
    }
    let warnings = broker.log().lines().filter(|line| line.contains("a JWT names a role")).count();
    assert_eq!(warnings, 1, "an unknown role beside a known one is logged once");
    let (broker, _files) = start("", "roles = 'switchboard.roles'").await;
    refused(&broker, "softphone", &token(json!({})), "FORBIDDEN", "role").await;
}

#[tokio::test]
async fn a_session_may_do_what_its_roles_allow_and_a_service_receives_its_users_envelopes_only() {
    let roles = "roles = 'roles'\nservice = 'svc'\nusers = ['*@example.com']\nsources = ['softphone', 'router']";
    let (broker, _files) = start("", roles).await;
    let named = |user: &str, roles: Value| token(json!({ "sub": user, "roles": roles }));
    let (mut listener, reply) = register(&broker, "softphone", &named("a@example.com", json!("listener"))).await;
    assert_eq!(reply["Success"], true, "{reply}");
    assert_eq!(listener.subscribe_refused("Desk/*/*", json!({})).await, "FORBIDDEN");
    listener.publish("Phone/Call/Ring", 1).await;
    let error = listener.next_error("FORBIDDEN").await;
    assert!(error["data"]["ErrorMessage"].as_str().unwrap().contains("role 'listener'"), "{error}");
    let (mut agent, _) = register(&broker, "softphone", &named("b@example.com", json!(["listener", "agent"]))).await;
    agent.publish("Phone/Call/Ring", 1).await;
    agent.fence().await;

    let service = token(json!({ "svc": true, "sub": "(none)", "roles": "agent" }));
    let (mut router, reply) = register(&broker, "router", &service).await;
    assert_eq!((&reply["Success"], &reply["User"]), (&json!(true), &Value::Null), "{reply}");
    router.subscribe("Phone/*/*").await;
    agent.publish("Phone/Call/Ring", 2).await;
    assert_eq!(router.next_on("Phone/Call/Ring").await["user"], "b@example.com");
    router.send(envelope("Phone/Call/Ring", json!({ "user": "eve@example.org" }))).await;
    router.next_error("FORBIDDEN").await;
}

#[tokio::test]
async fn a_reload_reads_the_roles_of_live_sessions_again() {
    let files = Files::new();
    let secret = files.write("secret", SECRET);
    let issuer = issuer("idp", &format!("algorithms = ['HS256']\nsecret_file = '{secret}'\nroles = 'roles'"));
    let role = |name: &str, publish: &str| {
        format!("[roles.{name}]\npublish = ['{publish}']\nsubscribe = []\nrequest = []\nhandle = []\n")
    };
    let toml = |rows: &str, roles: &[String]| format!("{rows}{issuer}{}", roles.concat());
    let broker = Broker::with_config(&toml("", &[role("kept", "*/*/*"), role("removed", "*/*/*")])).await;
    let named = |roles: Value| token(json!({ "roles": roles }));
    let mut narrowed = register(&broker, "softphone", &named(json!("kept"))).await.0;
    let mut ending = register(&broker, "softphone", &named(json!("removed"))).await.0;
    let mut both = register(&broker, "softphone", &named(json!(["removed", "kept"]))).await.0;
    narrowed.publish("Desk/Lamp/On", 1).await;
    narrowed.fence().await;

    broker.configure(&toml("", &[role("kept", "Phone/*/*")]));
    let line = broker.reload().await;
    assert!(line.contains("changed=\"roles\" ended=1 rights=2"), "{line}");
    ending.next_error("UNAUTHENTICATED").await;
    assert_eq!(ending.closed().await, 4401);
    for peer in [&mut narrowed, &mut both] {
        peer.publish("Desk/Lamp/On", 2).await;
        peer.next_error("FORBIDDEN").await;
        peer.publish("Phone/Call/Ring", 2).await;
        peer.fence().await;
    }

    // The source belongs to a service from now on.
    broker.configure(&toml(&application("softphone", None, ""), &[role("kept", "Phone/*/*")]));
    let line = broker.reload().await;
    assert!(line.contains("ended=2"), "{line}");
    narrowed.next_error("UNAUTHENTICATED").await;
    assert_eq!(narrowed.closed().await, 4401);
}
