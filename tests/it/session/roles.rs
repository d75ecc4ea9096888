//! What roles and permissions of the configuration decide for real sessions of a real broker.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, application, envelope};

const ROLES: &str = r#"
[roles.agent]
publish = ["Phone/*/*", "Desktop/*/*"]
subscribe = ["*/*/*"]
request = ["Phone/*/*", "*/User/FetchCredentials"]
handle = ["Desktop/Window/*"]
deny = { subscribe = ["Payroll/*/*"], publish = ["Phone/Admin/*"], request = ["Phone/Admin/*"] }

[roles.supervisor]
publish = []
subscribe = ["Phone/*/*", "Desktop/*/*"]
request = []
handle = []
observe = ["*@team-a.example"]

[roles.telephony]
publish = ["*/*/*"]
subscribe = ["*/*/*"]
request = ["Phone/*/*"]
handle = ["Phone/*/*"]
protected_request = ["Phone/Agent/Login"]
protected_handle = ["Phone/Agent/*"]
"#;

/// An agent of team A, and further lines for her row.
fn agent(source: &str, more: &str) -> String {
    application(source, Some("alice@team-a.example"), more)
}

/// A broker with the roles and these rows.
async fn broker(rows: &[String]) -> Broker {
    Broker::with_config(&(ROLES.to_owned() + &rows.concat())).await
}

/// The message of the refusal that is the peer's next message.
async fn refused(peer: &mut Peer, triple: &str) -> String {
    message_of(&peer.next_failure(triple, "FORBIDDEN").await)
}

fn message_of(reply: &Value) -> String {
    reply["data"]["ErrorMessage"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_role_of_a_row_decides_what_is_published_and_a_refusal_names_right_triple_and_rule() {
    let broker = broker(&[agent("softphone", "role = 'agent'"), application("log", None, "")]).await;
    let (mut softphone, mut log) = (broker.app_by_token("softphone").await, broker.app_by_token("log").await);
    log.subscribe("*/*/*").await;

    softphone.publish("Payroll/Run/Start", 1).await;
    let told = refused(&mut softphone, "Broker/Message/Error").await;
    assert_eq!(told, "publish Payroll/Run/Start: no pattern of role 'agent' allows it");
    softphone.publish("phone/ADMIN/Reset", 2).await;
    let told = refused(&mut softphone, "Broker/Message/Error").await;
    assert_eq!(told, "publish phone/ADMIN/Reset: the pattern Phone/Admin/* in 'deny' of role 'agent' denies it");
    softphone.publish("Phone/Call/Ringing", 3).await;
    assert_eq!(log.next_on("Phone/Call/Ringing").await["data"], 3, "the refused ones were not delivered");
}

#[tokio::test]
async fn the_role_of_a_row_decides_what_is_requested_and_handled() {
    let rows = [agent("softphone", "role = 'agent'"), application("cti", None, "role = 'telephony'")];
    let broker = broker(&rows).await;
    let (mut softphone, mut cti) = (broker.app_by_token("softphone").await, broker.app_by_token("cti").await);

    cti.handle("Phone/Call/*").await;
    let reply =
        cti.command("Subscription", "Subscribe", envelope("Desktop/Window/*", json!({"role": "handler"}))).await;
    assert_eq!(message_of(&reply), "handle Desktop/Window/*: no pattern of role 'telephony' allows it");
    assert_eq!(softphone.subscribe_refused("Desktop/*/*", json!({"role": "handler"})).await, "FORBIDDEN");
    softphone.handle("Desktop/Window/Raise").await;

    softphone.ask("Phone/Call/Dial", "1").await;
    let request = cti.next_on("Phone/Call/Dial").await;
    cti.reply(&request, json!({"data": {"Success": true}})).await;
    softphone.next_answer("Phone/Call/Dial", "1").await;

    let ask = json!({"id": "2", "timeout": 1000, "user": "alice@team-a.example"});
    cti.send(envelope("Desktop/Window/Raise", ask)).await;
    let told = refused(&mut cti, "Desktop/Window/Raise").await;
    assert_eq!(told, "request Desktop/Window/Raise: no pattern of role 'telephony' allows it");
    softphone.expect_nothing_from(&mut cti).await;
}

#[tokio::test]
async fn a_wider_subscription_is_narrowed_and_one_of_which_nothing_is_allowed_is_refused() {
    let rows = [agent("softphone", "role = 'agent'"), application("hr", None, "")];
    let broker = broker(&rows).await;
    let (mut softphone, mut hr) = (broker.app_by_token("softphone").await, broker.app_by_token("hr").await);
    let retained = json!({"user": "alice@team-a.example", "retain": true, "data": 1});
    hr.send(envelope("Payroll/Salary/Last", retained.clone())).await;
    hr.send(envelope("Calendar/Shift/Next", retained)).await;
    hr.fence().await;

    let reply = softphone.command("Subscription", "Subscribe", envelope("*/*/*", json!({}))).await;
    assert_eq!((&reply["data"]["Success"], &reply["data"]["Narrowed"]), (&json!(true), &json!(true)), "{reply}");
    softphone.next_on("Calendar/Shift/Next").await;
    hr.send(envelope("Payroll/Run/Done", json!({"user": "alice@team-a.example"}))).await;
    hr.send(envelope("Calendar/Shift/Changed", json!({"user": "alice@team-a.example"}))).await;
    softphone.next_on("Calendar/Shift/Changed").await;

    let reply = softphone.command("Subscription", "Subscribe", envelope("Payroll/Run/*", json!({}))).await;
    let expected = "subscribe Payroll/Run/*: the pattern Payroll/*/* in 'deny' of role 'agent' denies it";
    assert_eq!(message_of(&reply), expected);
}

#[tokio::test]
async fn keys_of_the_row_replace_those_of_its_role_and_denied_patterns_add_up() {
    let own = "role = 'agent'\npermissions = { publish = ['Screen/*/*'], deny = { subscribe = ['Phone/*/*'] } }";
    let broker = broker(&[agent("screenpop", own), agent("softphone", "role = 'agent'")]).await;
    let (mut screenpop, mut softphone) =
        (broker.app_by_token("screenpop").await, broker.app_by_token("softphone").await);

    screenpop.publish("Desktop/Window/Raised", 1).await;
    let told = refused(&mut screenpop, "Broker/Message/Error").await;
    assert_eq!(told, "publish Desktop/Window/Raised: no pattern of this application's 'permissions' allows it");
    for pattern in ["Phone/*/*", "Payroll/*/*"] {
        assert_eq!(screenpop.subscribe_refused(pattern, json!({})).await, "FORBIDDEN");
    }
    softphone.subscribe("Screen/*/*").await;
    screenpop.publish("Screen/Pop/Shown", 2).await;
    softphone.next_on("Screen/Pop/Shown").await;
}

#[tokio::test]
async fn permissions_without_a_role_restrict_and_a_row_with_neither_is_not_restricted() {
    let own = "permissions = { publish = ['A/b/c'], subscribe = [], request = [], handle = [] }";
    let broker = broker(&[agent("narrow", own), agent("plain", "")]).await;
    let (mut narrow, mut plain) = (broker.app_by_token("narrow").await, broker.app_by_token("plain").await);
    assert_eq!(narrow.subscribe_refused("*/*/*", json!({})).await, "FORBIDDEN");
    plain.subscribe("*/*/*").await;
    narrow.publish("A/b/c", 1).await;
    plain.next_on("A/b/c").await;
    narrow.publish("A/b/d", 2).await;
    refused(&mut narrow, "Broker/Message/Error").await;
    plain.publish("Payroll/Run/Start", 3).await;
    plain.handle("Payroll/*/*").await;
    plain.expect_nothing().await;
}

#[tokio::test]
async fn an_observer_by_list_receives_from_the_users_of_its_list_only() {
    let rows = [
        application("wallboard", Some("carol@team-a.example"), "role = 'supervisor'"),
        agent("softphone", "role = 'agent'"),
        application("phone-b", Some("bob@team-b.example"), "role = 'agent'"),
    ];
    let broker = broker(&rows).await;
    let mut wallboard = broker.app_by_token("wallboard").await;
    let (mut alice, mut bob) = (broker.app_by_token("softphone").await, broker.app_by_token("phone-b").await);

    let of_bob = json!({"user": "bob@team-b.example"});
    assert_eq!(wallboard.subscribe_refused("Phone/*/*", of_bob).await, "FORBIDDEN");
    wallboard.subscribe_with("Phone/*/*", json!({"user": "*"})).await;
    bob.publish("Phone/Call/Ringing", "of bob").await;
    bob.fence().await;
    alice.publish("Phone/Call/Ringing", "of alice").await;
    assert_eq!(wallboard.next_on("Phone/Call/Ringing").await["data"], "of alice");

    let list = wallboard.command("Application", "List", json!({})).await;
    assert!(list.to_string().contains("softphone") && !list.to_string().contains("phone-b"), "{list}");
}

#[tokio::test]
async fn a_service_receives_from_its_users_and_names_no_others() {
    let rows = [
        application("cti", None, "role = 'telephony'\nusers = ['*@team-a.example']"),
        agent("softphone", "role = 'agent'"),
        application("phone-b", Some("bob@team-b.example"), "role = 'agent'"),
    ];
    let broker = broker(&rows).await;
    let mut cti = broker.app_by_token("cti").await;
    let (mut alice, mut bob) = (broker.app_by_token("softphone").await, broker.app_by_token("phone-b").await);
    cti.handle("Phone/Call/Dial").await;
    cti.subscribe("Desktop/*/*").await;

    bob.send(envelope("Phone/Call/Dial", json!({"id": "1", "timeout": 1000}))).await;
    bob.next_failure("Phone/Call/Dial", "NO_HANDLER").await;
    bob.publish("Desktop/Window/Raised", "of bob").await;
    bob.fence().await;
    alice.publish("Desktop/Window/Raised", "of alice").await;
    assert_eq!(cti.next_on("Desktop/Window/Raised").await["data"], "of alice");
    alice.ask("Phone/Call/Dial", "2").await;
    cti.next_on("Phone/Call/Dial").await;

    cti.send(envelope("Phone/Call/Ended", json!({"user": "bob@team-b.example"}))).await;
    cti.next_error("FORBIDDEN").await;
}

#[tokio::test]
async fn a_protected_triple_needs_the_general_right_and_a_grant() {
    let rows = [
        application("cti", None, "role = 'telephony'"),
        application("other", None, "permissions = { publish = [], subscribe = [], request = [], handle = ['*/*/*'] }"),
        agent("softphone", "role = 'agent'"),
        agent("screenpop", "role = 'agent'\nrequest = []"),
        agent("kiosk", "role = 'agent'\npermissions = { request = [] }"),
    ];
    let broker = broker(&rows).await;
    let mut cti = broker.app_by_token("cti").await;
    let mut other = broker.app_by_token("other").await;
    // The general right alone is not a grant.
    assert_eq!(other.subscribe_refused("Phone/Agent/Login", json!({"role": "handler"})).await, "FORBIDDEN");
    cti.handle("Phone/Agent/*").await;

    let mut softphone = broker.app_by_token("softphone").await;
    softphone.ask("Phone/Agent/Login", "1").await;
    cti.next_on("Phone/Agent/Login").await;

    let mut screenpop = broker.app_by_token("screenpop").await;
    screenpop.ask("Phone/Agent/Login", "2").await;
    let told = refused(&mut screenpop, "Phone/Agent/Login").await;
    assert!(told.contains("the key 'request' in [[applications]]"), "{told}");

    let mut kiosk = broker.app_by_token("kiosk").await;
    kiosk.ask("Phone/Agent/Login", "3").await;
    let told = refused(&mut kiosk, "Phone/Agent/Login").await;
    assert_eq!(told, "request Phone/Agent/Login: no pattern of this application's 'permissions' allows it");
    cti.expect_nothing_from(&mut kiosk).await;
}
