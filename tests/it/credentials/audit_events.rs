//! What leaves an audit record besides a fetch: refused registrations and `switchboard credentials`, beside a running
//! broker; and what `switchboard audit verify` prints.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Broker, application, envelope, token_of, within};

const FETCH: &str = "Salesforce/User/FetchCredentials";

fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs the program, its data folder given by the last argument.
fn run(arguments: &[&str], data_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(arguments).arg("--data-dir").arg(data_dir).env_remove("SWITCHBOARD_CREDENTIALS_KEY");
    command.output().unwrap()
}

fn verified(data_dir: &Path) -> (Option<i32>, String, String) {
    let output = run(&["audit", "verify"], data_dir);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Waits until the log of a broker has as many records.
async fn records_become(broker: &Broker, count: usize) -> Vec<Value> {
    within("audit records", async {
        while records(&broker.data_dir()).len() < count {
            tokio::task::yield_now().await;
        }
    })
    .await;
    records(&broker.data_dir())
}

#[tokio::test]
async fn a_refused_registration_leaves_a_record_with_the_address_and_no_token() {
    let applications = [application("phone", Some("alice"), "exclusive = true"), application("crm", Some("alice"), "")];
    let broker = Broker::with_config(&applications.concat()).await;
    let _phone = broker.app_by_token("phone").await;
    let attempts = [
        ("phone", "a-secret-that-proves-nothing".to_owned(), "UNAUTHENTICATED", Value::Null),
        ("crm", token_of("phone"), "FORBIDDEN", Value::Null),
        ("phone", token_of("phone"), "SOURCE_IN_USE", json!("alice")),
    ];
    for (number, (source, token, code, user)) in attempts.into_iter().enumerate() {
        let mut peer = broker.raw(source).await;
        let reply = peer.register(source, json!({ "token": token })).await;
        assert_eq!(reply["data"]["Success"], false, "{reply}");
        let record = records_become(&broker, number + 1).await.pop().unwrap();
        let said = (&record["event"], &record["outcome"], &record["source"], &record["user"], &record["session"]);
        assert_eq!(said, (&json!("registration_refused"), &json!(code), &json!(source), &user, &Value::Null));
        assert_eq!(
            (&record["address"], &record["target"]),
            (&json!("127.0.0.1"), &json!("Broker/Application/Register"))
        );
        assert!(!record.to_string().contains(token.as_str()), "{record}");
    }
    assert_eq!(verified(&broker.data_dir()).0, Some(0));
}

#[tokio::test]
async fn a_refused_renewal_leaves_a_record_with_the_session_and_no_token() {
    let broker = Broker::with_config(&application("phone", Some("alice"), "")).await;
    let mut phone = broker.app_by_token("phone").await;
    let token = "a-secret-that-proves-nothing";
    let reply = phone.command("Application", "Renew", json!({ "token": token })).await;
    assert_eq!(reply["data"]["ErrorCode"], "UNAUTHENTICATED", "{reply}");
    let record = records_become(&broker, 1).await.pop().unwrap();
    let said = (&record["event"], &record["outcome"], &record["source"], &record["user"], &record["target"]);
    let (event, target) = (json!("registration_refused"), json!("Broker/Application/Renew"));
    assert_eq!(said, (&event, &json!("UNAUTHENTICATED"), &json!("phone"), &json!("alice"), &target));
    assert!(record["session"].is_string() && !record.to_string().contains(token), "{record}");
}

#[tokio::test]
async fn unregistered_connections_cannot_push_other_records_out_of_the_log() {
    let applications = [application("phone", Some("alice"), ""), application("crm", Some("alice"), "")];
    let broker = Broker::with_config(&applications.concat()).await;
    for _ in 0..60 {
        let mut peer = broker.raw("crm").await;
        peer.ask(FETCH, "f").await;
        peer.next_answer(FETCH, "f").await;
        peer.register("crm", json!({ "token": token_of("phone") })).await;
    }
    let mut phone = broker.app_by_token("phone").await;
    phone.ask(FETCH, "f").await;
    phone.next_answer(FETCH, "f").await;
    let records = records(&broker.data_dir());
    // One more is granted every six seconds.
    assert!((61..90).contains(&records.len()), "{} records of 121 events", records.len());
    let last = records.last().unwrap();
    assert_eq!((&last["source"], &last["outcome"]), (&json!("phone"), &json!("CREDENTIALS_NOT_FOUND")));
    assert_eq!(verified(&broker.data_dir()).0, Some(0));
}

#[tokio::test]
async fn a_fetch_has_the_session_and_the_address_of_its_peer() {
    let broker = Broker::start().await;
    let mut phone = broker.raw("phone").await;
    phone.ask(FETCH, "f").await;
    phone.next_answer(FETCH, "f").await;
    let session = phone.register("phone", json!({ "user": "alice" })).await["data"]["SessionId"].clone();
    phone.ask(FETCH, "g").await;
    phone.next_answer(FETCH, "g").await;
    // Refused by the router, before it reaches the adapter.
    phone.send(envelope(FETCH, json!({ "id": "h", "source": "another" }))).await;
    phone.next_answer(FETCH, "h").await;
    let records = records_become(&broker, 3).await;
    let outcomes: Vec<_> = records.iter().map(|record| record["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["NOT_REGISTERED", "CREDENTIALS_NOT_FOUND", "SOURCE_MISMATCH"]);
    let sessions: Vec<_> = records.iter().map(|record| record["session"].clone()).collect();
    assert_eq!(sessions, [Value::Null, session.clone(), session]);
    assert!(records.iter().all(|record| record["address"] == "127.0.0.1" && record["target"] == FETCH), "{records:?}");
}

#[tokio::test]
async fn commands_leave_a_record_each_beside_a_running_broker() {
    const PASSWORD: &str = "acq@123-never-in-the-log";
    let mut broker = Broker::start().await;
    let data_dir = broker.data_dir();
    broker.credentials_set("alice", "1245456", PASSWORD, "5051").await;
    let file = data_dir.join("agents.csv");
    let rows = format!("user,username,password,extension\nbob,1,{PASSWORD},2\ncarol,3,{PASSWORD},4\n");
    fs::write(&file, rows).unwrap();
    assert!(run(&["credentials", "import", file.to_str().unwrap()], &data_dir).status.success());
    fs::remove_file(&file).unwrap();
    let mut phone = broker.app_of("phone", "alice").await;
    phone.ask(FETCH, "f").await;
    assert_eq!(phone.next_answer(FETCH, "f").await["data"]["Password"], PASSWORD);
    assert!(run(&["credentials", "remove", "bob"], &data_dir).status.success());
    assert!(!run(&["credentials", "remove", "nobody"], &data_dir).status.success());
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    assert!(run(&["credentials", "rekey"], &data_dir).status.success());

    let records = records(&data_dir);
    let events: Vec<_> = records.iter().map(|record| record["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["credentials_set", "credentials_imported", "fetch", "credentials_removed", "rekeyed"]);
    let users: Vec<_> = records.iter().map(|record| record["user"].clone()).collect();
    assert_eq!(users, [json!("alice"), Value::Null, json!("alice"), json!("bob"), Value::Null]);
    assert_eq!((&records[1]["count"], &records[4]["count"]), (&json!(2), &json!(2)));
    assert_eq!(records[0]["fields"], json!(["username", "password", "extension", "adfs_username"]));
    assert_eq!(cfg!(unix), records[0]["uid"].is_u64());
    let mut found = Vec::new();
    super::secrets::files_with(&data_dir, PASSWORD, &mut found);
    assert!(found.is_empty(), "{found:?}");

    let (code, out, err) = verified(&data_dir);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.starts_with("whole: 5 records in 1 file\nhash of the last line: "), "{out}");
}

#[test]
fn verify_names_the_file_and_the_line_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path();
    let (code, out, err) = verified(data_dir);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("audit.jsonl") && err.contains("cannot be read"), "{err}");
    for user in ["a", "b", "c"] {
        let entry = switchboard::audit::Entry {
            user: Some(user),
            ..switchboard::audit::Entry::new(switchboard::audit::Event::CredentialsSet)
        };
        switchboard::audit::append(data_dir, &entry).unwrap();
    }
    let file = data_dir.join("audit.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let without_b: Vec<_> = text.split_inclusive('\n').filter(|line| !line.contains("\"b\"")).collect();
    fs::write(&file, without_b.concat()).unwrap();
    let (code, out, err) = verified(data_dir);
    assert_eq!(code, Some(1));
    assert!(err.contains(&format!("{}:2: ", file.display())), "{err}");
    assert!(out.starts_with("broken in 1 place: 2 records in 1 file\n"), "{out}");
    // A copy by its own name, without the data folder.
    let copy = folder.path().join("copy");
    fs::write(&copy, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_switchboard")).args(["audit", "verify"]).arg(&copy).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[tokio::test]
async fn a_broker_that_cannot_open_the_log_starts_only_if_the_operator_chose_so() {
    let mut broker = Broker::open_with("[credentials]\naudit_required = false").await;
    broker.credentials_set("alice", "1245456", "acq@123", "5051").await;
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    let file = broker.data_dir().join("audit.jsonl");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    let output = run(&["serve", "--listen", "127.0.0.1:0"], &broker.data_dir());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("audit.jsonl"), "{output:?}");

    let broker = broker.successor().await;
    assert!(broker.log().contains("credentials.audit_required = false"), "{}", broker.log());
    let mut phone = broker.app_of("phone", "alice").await;
    phone.ask(FETCH, "f").await;
    assert_eq!(phone.next_answer(FETCH, "f").await["data"]["Password"], "acq@123");
}
