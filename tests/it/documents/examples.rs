//! The examples do what they say, against a real broker.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::blocks::node;
use crate::support::{Broker, application, envelope, secret_file, token_of, within};

/// The folder of the build.
fn built() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_switchboard")).parent().unwrap().to_owned()
}

/// Starts an adapter, waits until it says that it is ready, and asks it about a known and an unknown number.
async fn answers(mut adapter: Command, broker: &Broker) -> Child {
    let mut child = adapter.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut line = String::new();
    within("an adapter that is ready", BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line))
        .await
        .unwrap();
    assert_eq!(line, "answering Crm/Contact/Find\n");
    let mut phone = broker.app("softphone").await;
    phone.send(envelope("Crm/Contact/Find", json!({"id": "known", "data": "+49301234"}))).await;
    let data = json!({"Success": true, "ErrorMessage": null, "Name": "Ada Lovelace"});
    assert_eq!(phone.next().await["data"], data);
    for (id, number) in [("unknown", json!("+1")), ("wrong", json!({"number": 1}))] {
        phone.send(envelope("Crm/Contact/Find", json!({"id": id, "data": number}))).await;
        let reply = phone.next().await;
        assert_eq!(reply["inReplyTo"], id);
        assert_eq!(reply["data"]["ErrorCode"], "CONTACT_NOT_FOUND", "{reply}");
    }
    child
}

#[tokio::test]
async fn the_python_adapter_answers_and_publishes() {
    let python = built().parent().unwrap().join("python/bin/python");
    if !python.exists() {
        eprintln!("SKIPPED: no target/python; ./test makes it where there is a python3");
        return;
    }
    let broker = Broker::start().await;
    let mut screen = broker.app("crm-screen").await;
    screen.subscribe("Crm/Contact/Found").await;
    let mut adapter = Command::new(python);
    adapter.arg("examples/adapter.py").arg(format!("ws://{}/ws", broker.address()));
    let _adapter = answers(adapter, &broker).await;
    let event = screen.next().await;
    assert_eq!((&event["source"], &event["data"]), (&json!("crm"), &json!({"Name": "Ada Lovelace"})), "{event}");
}

#[tokio::test]
async fn the_rust_handler_answers() {
    let broker = Broker::start().await;
    let mut adapter = Command::new(built().join("examples/handler"));
    adapter.arg(format!("ws://{}/ws", broker.address()));
    let _adapter = answers(adapter, &broker).await;
}

#[tokio::test]
async fn the_vendor_core_answers_logins_on_other_triples_and_takes_commands() {
    let agent = Some("alice@example.com");
    let core = application("cisco", agent, "handle = [\"Cisco/Agent/*\"]");
    let broker = Broker::with_config(&format!("{core}{}", application("gadget", agent, ""))).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    secret_file(&token, format!("{}\n", token_of("cisco")));
    let mut core = Command::new(built().join("examples/vendor_core"));
    core.arg(format!("ws://{}/ws", broker.address())).env("SWITCHBOARD_TOKEN_FILE", token);
    let mut child = core.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = within("a core that is ready", shown.next_line()).await.unwrap();
    assert_eq!(ready.as_deref(), Some("answering Cisco/Agent/Login"));

    let mut gadget = broker.app_by_token("gadget").await;
    gadget.subscribe("Cisco/Agent/State").await;
    let logins = [
        ("wrong", "LoginFailure", json!({"Success": false, "ErrorMessage": "wrong password"})),
        ("acq@123", "LoginSuccess", json!({"Success": true, "agentId": "5051"})),
    ];
    for (password, _, _) in &logins {
        let data = json!({"agentId": "5051", "password": password});
        gadget.send(envelope("Cisco/Agent/Login", json!({"id": password, "data": data}))).await;
    }
    for (password, subtopic, message) in logins {
        if subtopic == "LoginSuccess" {
            let state = gadget.next_on("Cisco/Agent/State").await;
            assert_eq!(state["data"], json!({"agentId": "5051", "state": "ready"}));
        }
        let answer = gadget.next_on(&format!("Cisco/Agent/{subtopic}")).await;
        assert_eq!((&answer["inReplyTo"], &answer["message"]), (&json!(password), &message));
    }
    gadget.send(envelope("Cisco/Agent/ShowNote", json!({"id": "note", "data": "call back"}))).await;
    assert_eq!(gadget.next_on("Broker/Message/Receipt").await["inReplyTo"], "note");
    let note = within("the note", shown.next_line()).await.unwrap();
    assert_eq!(note.as_deref(), Some("note: \"call back\""));
}

#[tokio::test]
async fn the_gadget_shows_login_and_calls() {
    let broker = Broker::start().await;
    broker.credentials_set("alice@example.com", "1245456", "acq@123", "5051").await;
    // Kept, so that it comes whenever the page subscribes.
    let mut phone = broker.app_of("softphone", "alice@example.com").await;
    phone.send(envelope("Phone/Call/Ringing", json!({"retain": true, "data": {"from": "+49301234"}}))).await;
    phone.fence().await;

    let page = std::fs::read_to_string("examples/gadget.html").unwrap();
    let script = page.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
    // As much of a browser as the page uses; what it shows goes to standard output.
    let browser = format!(
        "globalThis.location = {{ search: '?url=ws://{}/ws&user=alice@example.com' }};\n\
         globalThis.document = {{ getElementById: (id) => ({{ set textContent(text) {{ console.log(`${{id}}: ${{text}}`); }} }}) }};\n",
        broker.address()
    );
    let script = format!("{browser}{script}");
    let Some(output) = node(&script, 4, &std::env::current_dir().unwrap()).await else { return };
    let shown = String::from_utf8(output.stdout).unwrap();
    for line in [
        "state: registered as gadget of alice@example.com",
        "login: 1245456",
        "extension: 5051",
        "call: softphone: +49301234",
    ] {
        assert!(shown.lines().any(|it| it == line), "no '{line}' in:\n{shown}");
    }
    assert!(!shown.contains("acq@123"), "the page shows the password:\n{shown}");
}
