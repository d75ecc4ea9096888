//! The examples do what they say, against a real broker.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::blocks::node;
use crate::support::{Broker, envelope, within};

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
