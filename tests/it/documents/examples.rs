//! The examples do what they say, against a real broker.

use serde_json::json;
use tempfile::TempDir;
use tokio::process::Command;

use super::blocks::node;
use crate::client::fake_broker::{FakeBroker, event, request};
use crate::support::programs::{self, Program, built, gadget_script, node_modules, python, with_our_client};
use crate::support::{Broker, application, envelope, secret_file, token_of, within};

const FIND: &str = "Crm/Contact/Find";
const ALICE: &str = "alice@example.com";

fn url(broker: &Broker) -> String {
    format!("ws://{}/ws", broker.address())
}

/// Starts an adapter, and waits until it says that it is ready.
async fn start(mut adapter: Command, broker: &Broker) -> Program {
    adapter.arg(url(broker));
    let mut program = Program::start(adapter);
    program.prints("answering Crm/Contact/Find").await;
    program
}

pub(super) async fn python_adapter(script: &str) -> Option<Command> {
    let mut adapter = Command::new(python().await?);
    adapter.arg(script).env_remove("SWITCHBOARD_TOKEN").env_remove("SWITCHBOARD_USER");
    Some(with_our_client(adapter))
}

pub(super) fn rust_adapter() -> Command {
    let mut adapter = Command::new(built().join("examples/handler"));
    adapter.env_remove("SWITCHBOARD_TOKEN").env_remove("SWITCHBOARD_USER");
    adapter
}

/// Asks an adapter about a known number, and about others in every form that a payload can have.
async fn answers(broker: &Broker) {
    let mut phone = broker.app("softphone").await;
    phone.send(envelope(FIND, json!({"id": "known", "data": "+49301234"}))).await;
    let data = json!({"Success": true, "ErrorMessage": null, "Name": "Ada Lovelace"});
    assert_eq!(phone.next().await["data"], data);
    let odd = [json!("+1"), json!({"number": 1}), json!([]), json!(null), json!(1e300), json!(true), json!("")];
    for number in odd {
        phone.send(envelope(FIND, json!({"id": "odd", "data": number}))).await;
        let reply = phone.next_answer(FIND, "odd").await;
        assert_eq!(reply["data"]["ErrorCode"], "CONTACT_NOT_FOUND", "{number}: {reply}");
    }
    for more in [json!({}), json!({"message": "+49301234"}), json!({"message": null, "unknown": [[]], "gather": false})]
    {
        let mut request = envelope(FIND, json!({"id": "no data"}));
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        phone.send(request).await;
        phone.next_answer(FIND, "no data").await;
    }
}

#[tokio::test]
async fn the_python_adapter_answers_and_publishes() {
    let Some(adapter) = python_adapter("examples/adapter.py").await else { return };
    let broker = Broker::start().await;
    let mut screen = broker.app("crm-screen").await;
    screen.subscribe("Crm/Contact/Found").await;
    let _adapter = start(adapter, &broker).await;
    answers(&broker).await;
    let event = screen.next().await;
    assert_eq!((&event["source"], &event["data"]), (&json!("crm"), &json!({"Name": "Ada Lovelace"})), "{event}");
}

#[tokio::test]
async fn the_rust_handler_answers() {
    let broker = Broker::start().await;
    let _adapter = start(rust_adapter(), &broker).await;
    answers(&broker).await;
}

#[tokio::test]
async fn in_open_mode_an_adapter_answers_the_user_that_its_environment_names() {
    let broker = Broker::start().await;
    for adapter in [Some(rust_adapter()), python_adapter("examples/adapter.py").await] {
        let Some(mut adapter) = adapter else { continue };
        adapter.env("SWITCHBOARD_USER", ALICE);
        let _adapter = start(adapter, &broker).await;
        let mut phone = broker.app_of("softphone", ALICE).await;
        phone.send(envelope(FIND, json!({"id": "find", "data": "+49301234"}))).await;
        assert_eq!(phone.next_answer(FIND, "find").await["data"]["Name"], "Ada Lovelace");
    }
}

#[tokio::test]
async fn a_service_that_names_no_user_is_answered_on_a_shared_channel() {
    let handle = "handle = [\"Crm/*/*\"]";
    let config = ["[auth]\nmode = \"tokens\"\n[channels.Crm]\nscope = \"shared\"\n".to_owned()]
        .into_iter()
        .chain([application("crm", None, handle), application("queue", None, "")])
        .collect::<String>();
    for adapter in [Some(rust_adapter()), python_adapter("examples/adapter.py").await] {
        let Some(mut adapter) = adapter else { continue };
        let broker = Broker::with_config(&config).await;
        adapter.env("SWITCHBOARD_TOKEN", token_of("crm"));
        let _adapter = start(adapter, &broker).await;
        let mut queue = broker.app_by_token("queue").await;
        for id in ["first", "second"] {
            queue.send(envelope(FIND, json!({"id": id, "data": "+49301234"}))).await;
            assert_eq!(queue.next_answer(FIND, id).await["data"]["Name"], "Ada Lovelace");
        }
    }
}

#[tokio::test]
async fn the_python_adapter_answers_many_requests_at_a_time() {
    let Some(adapter) = python_adapter("tests/python/adapter.py").await else { return };
    let broker = Broker::start().await;
    let _adapter = start(adapter, &broker).await;
    let mut phone = broker.app("softphone").await;
    for number in 0..20 {
        phone.send(envelope(FIND, json!({"id": number.to_string(), "data": number.to_string()}))).await;
    }
    for _ in 0..20 {
        let reply = phone.next_on(FIND).await;
        let id = reply["inReplyTo"].as_str().unwrap();
        assert_eq!(reply["data"]["Name"], format!("The owner of {id}"));
    }
}

/// Node.js with examples/screen.js: with the package ws, and with a WebSocket of its own.
pub(super) async fn screens() -> Vec<Command> {
    let mut with_package = Command::new("node");
    let Some(modules) = node_modules("ws").await else { return Vec::new() };
    with_package.arg("--no-experimental-websocket").env("NODE_PATH", modules);
    let mut screens = vec![with_package, programs::node()];
    for screen in &mut screens {
        screen.arg("examples/screen.js").env_remove("SWITCHBOARD_TOKEN").env("SWITCHBOARD_USER", ALICE);
    }
    screens
}

#[tokio::test]
async fn the_screen_for_node_prints_calls_with_the_name_that_an_adapter_knows() {
    for mut screen in screens().await {
        let broker = Broker::start().await;
        let mut adapter = rust_adapter();
        adapter.env("SWITCHBOARD_USER", ALICE);
        let _adapter = start(adapter, &broker).await;
        screen.arg(url(&broker));
        let mut screen = Program::start(screen);
        screen.prints("registered as screen of alice@example.com").await;
        let mut phone = broker.app_of("softphone", ALICE).await;
        // Kept, so that it arrives whenever the screen subscribes.
        phone.send(envelope("Phone/Call/Ringing", json!({"retain": true, "data": {"from": "+49301234"}}))).await;
        screen.prints("call from +49301234: Ada Lovelace").await;
        phone.send(envelope("Phone/Call/Ringing", json!({}))).await;
        screen.prints("call from unknown: send the number as a string").await;
    }
}

/// `examples/vendor_core.rs` with the token of this source.
fn vendor_core(url: &str, source: &str, folder: &TempDir) -> Command {
    let token = folder.path().join("token");
    secret_file(&token, format!("{}\n", token_of(source)));
    let mut core = Command::new(built().join("examples/vendor_core"));
    core.arg(url).env("SWITCHBOARD_TOKEN_FILE", token);
    core
}

#[tokio::test]
async fn the_vendor_core_answers_logins_on_other_triples_and_takes_commands() {
    let agent = Some("alice@example.com");
    // As an application of the agent, and as a service.
    for user in [agent, None] {
        let core = application("cisco", user, "handle = [\"Cisco/Agent/*\"]");
        let broker = Broker::with_config(&format!("{core}{}", application("gadget", agent, ""))).await;
        let folder = tempfile::tempdir().unwrap();
        let mut core = Program::start(vendor_core(&url(&broker), "cisco", &folder));
        core.prints("answering Cisco/Agent/Login").await;

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
        core.prints("note: \"call back\"").await;
    }
}

#[tokio::test]
async fn the_vendor_core_says_why_it_waits_for_the_broker() {
    let broker = Broker::with_config(&application("cisco", None, "handle = [\"Cisco/Agent/*\"]")).await;
    let folder = tempfile::tempdir().unwrap();
    let refused = (url(&broker), "UNAUTHENTICATED: ");
    let unreachable = ("ws://127.0.0.1:1/ws".to_owned(), "could not connect to 127.0.0.1:1: ");
    for (url, why) in [refused, unreachable] {
        let mut core = Program::start_for_errors(vendor_core(&url, "somebody else", &folder));
        core.prints_part(why).await;
        // It goes on trying, because the broker can start later and the token can be replaced.
        core.prints_part("not connected yet").await;
    }
}

#[tokio::test]
async fn the_vendor_core_ends_with_the_reason_when_either_handler_is_refused_after_a_reconnect() {
    for refused in ["Login", "ShowNote"] {
        let broker = FakeBroker::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut core = vendor_core(&broker.url(), "cisco", &folder);
        core.kill_on_drop(true);
        let play = async {
            let (mut peer, _) = broker.session().await;
            peer.grant().await;
            peer.grant().await;
            // The answer shows that it has read both grants and now watches the connection.
            peer.say(request("Cisco/Agent/Login", "login", json!({}))).await;
            assert_eq!(peer.expect("Cisco/Agent/Login").await["data"]["ErrorCode"], "INVALID_LOGIN");
            // Without a pause, the next state can replace the disconnected one before it is printed.
            peer.say(event("Broker/Connection/Draining", json!({"ReconnectAfterMs": 500}))).await;
            peer.close(1012, "restart").await;
            let (mut peer, _) = broker.session().await;
            for _ in ["Login", "ShowNote"] {
                let subscribe = peer.expect("Broker/Subscription/Subscribe").await;
                let data = match subscribe["data"]["subtopic"] == refused {
                    true => json!({"Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "not yours any more"}),
                    false => json!({"Success": true, "ErrorMessage": null, "SubscriptionId": "granted"}),
                };
                peer.answer(&subscribe, data).await;
            }
            peer
        };
        let (output, _peer) = tokio::join!(within("the end of the vendor core", core.output()), play);
        let output = output.unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("not connected: the broker closed the connection with 1012: restart"), "{errors}");
        assert!(errors.lines().any(|line| line == "FORBIDDEN: not yours any more"), "{errors}");
    }
}

#[tokio::test]
async fn the_gadget_shows_login_and_calls() {
    let broker = Broker::start().await;
    broker.credentials_set(ALICE, "1245456", "acq@123", "5051").await;
    // Kept, so that it arrives whenever the page subscribes.
    let mut phone = broker.app_of("softphone", ALICE).await;
    phone.send(envelope("Phone/Call/Ringing", json!({"retain": true, "data": {"from": "+49301234"}}))).await;
    phone.fence().await;

    // An address in the page's own address changes nothing.
    let script = gadget_script(&url(&broker), "?user=alice@example.com&url=ws://127.0.0.1:1/ws");
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

/// README.md's script, as it is written there.
fn readme_script() -> String {
    let readme = std::fs::read_to_string("README.md").unwrap();
    readme.split_once("```js\n").unwrap().1.split_once("```").unwrap().0.to_owned()
}

#[tokio::test]
async fn the_script_of_readme_md_survives_another_subscription_and_any_payload() {
    if !programs::exists("node").await {
        return;
    }
    let broker = Broker::start().await;
    let line =
        "{ channel: \"Broker\", topic: \"Subscription\", subtopic: \"Subscribe\", data: { channel: \"Phone\" } },";
    let script = readme_script().replace("ws://localhost:7420/ws", &url(&broker));
    assert!(script.contains(line), "{script}");
    let script = script.replace(line, &format!("{line}\n{}", line.replace("Phone", "Queue")));
    let mut command = programs::node();
    command.arg("--eval").arg(script);
    let mut script = Program::start(command);
    script.prints_start("User FetchCredentials").await;
    let mut phone = broker.app_of("softphone", ALICE).await;
    for (data, printed) in [
        (json!({}), "undefined"),
        (json!({"data": null}), "null"),
        (json!({"message": "x"}), "undefined"),
        (json!({"data": "a text"}), "\"a text\""),
        (json!({"data": [1]}), "[1]"),
    ] {
        phone.send(envelope("Queue/Stats/Waiting", data)).await;
        script.prints(&format!("Stats Waiting {printed}")).await;
    }
}
