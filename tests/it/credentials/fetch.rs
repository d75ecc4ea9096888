//! `Salesforce/User/FetchCredentials` as the router sees it, and the record that each fetch leaves.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use secrecy::SecretString;
use serde_json::{Value, json};
use switchboard::adapter::{Given, Handler, Payload, Refused};
use switchboard::credentials::{
    Audit, Credentials, Directory, Entry, FetchCredentials, Found, Requester, Rotation, Source,
};
use tokio::sync::Semaphore;
use uuid::Uuid;
use wire::Triple;
use wire::{ErrorCode, Refusal};

use super::{SECRET, store_with_alice};

const ALICE: &str = "alice@example.com";

fn handler(folder: &Path, directory: Directory) -> FetchCredentials {
    FetchCredentials::new(Arc::new(directory), Arc::new(Audit::open(folder, Rotation::default()).unwrap()))
}

/// The session of the application that asks.
const SESSION: Uuid = Uuid::from_u128(0x5f1c);

fn request(user: Option<&str>) -> Given {
    Given {
        id: "rAAAAAAAB".parse().unwrap(),
        triple: Triple::new("Salesforce", "User", "FetchCredentials"),
        source: "softphone".into(),
        user: user.map(Box::from),
        session: SESSION.into(),
        request_id: None,
        // Whatever the payload says, it chooses nobody.
        payload: Some(Payload::new(r#"{"user":"bob","Username":"bob"}"#)),
        timeout: Duration::from_secs(10),
        waited: Duration::ZERO,
    }
}

async fn fetch(handler: &FetchCredentials, user: Option<&str>) -> Result<String, Refusal> {
    let response = handler.handle(request(user)).await?;
    let mut text = Vec::new();
    response.data.write(&mut text).unwrap();
    Ok(String::from_utf8(text).unwrap())
}

fn records(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_reply_is_the_documented_one_key_by_key_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let directory = store_with_alice(folder.path());
    let awkward = Credentials {
        username: "üser \"1\"".to_owned(),
        password: SecretString::from("pass\\\"word/€"),
        extension: "+49 5051".to_owned(),
        adfs_username: Some("corp\\bob".to_owned()),
    };
    directory.set(&[Entry::new("bob".to_owned(), awkward).unwrap()]).unwrap();
    let handler = handler(folder.path(), directory);
    assert_eq!(
        fetch(&handler, Some(ALICE)).await.unwrap(),
        format!(
            "{{\"Username\":\"1245456\",\"Password\":\"{SECRET}\",\"Extension\":\"5051\",\"ADFSUsername\":\"\",\
             \"Success\":true,\"ErrorMessage\":null}}"
        )
    );
    let reply: Value = serde_json::from_str(&fetch(&handler, Some("bob")).await.unwrap()).unwrap();
    assert_eq!(
        reply,
        json!({"Username": "üser \"1\"", "Password": "pass\\\"word/€", "Extension": "+49 5051",
               "ADFSUsername": "corp\\bob", "Success": true, "ErrorMessage": null})
    );
    assert_eq!(handler.failure_keys(), ["Username", "Password", "Extension", "ADFSUsername"]);
    let served: Vec<_> = handler.serves().iter().map(ToString::to_string).collect();
    assert_eq!(served, ["Salesforce/User/FetchCredentials"]);
}

#[tokio::test]
async fn a_fetch_that_fails_says_why_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let handler = handler(folder.path(), store_with_alice(folder.path()));
    let absent = fetch(&handler, Some("carol")).await.unwrap_err();
    assert_eq!(absent.code, ErrorCode::CredentialsNotFound);
    assert!(absent.message.contains("'carol'") && absent.message.contains("switchboard credentials set"));
    let nobody = fetch(&handler, None).await.unwrap_err();
    assert_eq!(nobody.code, ErrorCode::UserRequired);
    assert!(nobody.message.contains("\"user\""));
}

#[tokio::test]
async fn a_store_that_fails_is_an_internal_error_without_details() {
    let folder = tempfile::tempdir().unwrap();
    let handler = handler(folder.path(), store_with_alice(folder.path()));
    let store = folder.path().join("credentials.redb");
    let noise = vec![0xa5; usize::try_from(fs::metadata(&store).unwrap().len()).unwrap()];
    fs::write(&store, noise).unwrap();
    let refusal = fetch(&handler, Some(ALICE)).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Internal);
    assert!(!refusal.message.contains(folder.path().to_str().unwrap()), "a path is the operator's: {refusal}");
    assert_eq!(records(folder.path())[0]["outcome"], "INTERNAL");
}

#[tokio::test]
async fn each_fetch_leaves_one_record_before_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let handler = handler(folder.path(), store_with_alice(folder.path()));
    fetch(&handler, Some(ALICE)).await.unwrap();
    fetch(&handler, Some("a\n\"b\"")).await.unwrap_err();
    fetch(&handler, None).await.unwrap_err();
    assert_eq!(records(folder.path()).len(), 3);
    handler.refused(&Refused {
        triple: &Triple::new("Salesforce", "User", "FetchCredentials"),
        source: "softphone",
        user: Some(ALICE),
        session: Some(SESSION.into()),
        refusal: &Refusal::new(ErrorCode::Forbidden, "no"),
    });
    drop(handler);

    let records = records(folder.path());
    let outcomes: Vec<_> = records.iter().map(|it| it["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["ok", "CREDENTIALS_NOT_FOUND", "USER_REQUIRED", "FORBIDDEN"]);
    assert_eq!(records[1]["user"], "a\n\"b\"");
    assert_eq!(records[2]["user"], Value::Null);
    for record in &records {
        let keys: Vec<_> = record.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["when", "source", "user", "session", "outcome"]);
        let when = record["when"].as_str().unwrap();
        assert!(when.len() == 24 && when.ends_with('Z') && humantime::parse_rfc3339(when).is_ok(), "{when}");
        assert_eq!((&record["source"], &record["session"]), (&json!("softphone"), &json!(SESSION.to_string())));
    }
    let text = fs::read_to_string(folder.path().join("audit.jsonl")).unwrap();
    assert!(!text.contains(SECRET) && text.lines().count() == 4);
}

/// Answers with the same credentials, once it may, and counts how often it is asked.
struct Gate {
    asked: AtomicUsize,
    open: Semaphore,
}

impl Gate {
    fn shut() -> Arc<Self> {
        Arc::new(Self { asked: AtomicUsize::new(0), open: Semaphore::new(0) })
    }
}

impl Source for Gate {
    fn find(self: Arc<Self>, user: String) -> Found {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            self.open.acquire().await.unwrap().forget();
            let (password, extension) = (SecretString::from(SECRET), "5051".to_owned());
            Ok(Credentials { username: user, password, extension, adfs_username: None })
        })
    }
}

fn behind(gate: &Arc<Gate>, folder: &Path) -> FetchCredentials {
    FetchCredentials::new(Arc::clone(gate) as _, Arc::new(Audit::open(folder, Rotation::default()).unwrap()))
}

#[tokio::test]
async fn an_asker_that_gives_up_leaves_its_record_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let handler = behind(&Gate::shut(), folder.path());
    // Polled once, which begins the fetch, and dropped.
    drop(handler.handle(request(Some(ALICE))).now_or_never());
    while fs::read_to_string(folder.path().join("audit.jsonl")).unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(records(folder.path())[0]["outcome"], "REQUEST_CANCELLED");
}

#[tokio::test]
async fn fetches_that_share_an_exchange_leave_a_record_each() {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::shut();
    let handler = behind(&gate, folder.path());
    let (first, second) = (fetch(&handler, Some(ALICE)), fetch(&handler, Some(ALICE)));
    let (first, second, ()) = tokio::join!(first, second, async { gate.open.add_permits(1) });
    assert_eq!(first.unwrap(), second.unwrap());
    assert_eq!(gate.asked.load(Ordering::SeqCst), 1);
    assert_eq!(records(folder.path()).len(), 2);
}

#[test]
fn the_record_rotates_by_size_and_keeps_so_many() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::open(folder.path(), Rotation { bytes: 1000, kept: 3 }).unwrap();
    for n in 0..100 {
        audit.record_and_wait(&Requester::from(&request(Some(&format!("user{n}")))), None);
    }
    drop(audit);
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]);
    let mut last = Vec::new();
    for name in names.iter().skip(1).rev().chain(names.first()) {
        let path = folder.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() <= 1000, "{name}");
        last.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["user"].clone()));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
    }
    let expected: Vec<_> = (100 - last.len()..100).map(|n| Value::from(format!("user{n}"))).collect();
    assert_eq!(last, expected);
    assert!(last.len() > 20);
}

#[test]
fn the_record_goes_on_after_a_crash_a_move_and_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    fs::write(&path, "{\"cut short").unwrap();
    let audit = Audit::open(folder.path(), Rotation::default()).unwrap();
    let record = |user: &str| audit.record_and_wait(&Requester::from(&request(Some(user))), None);
    record("after the crash");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"cut short\n{\"when\":") && text.ends_with("}\n"), "{text}");

    fs::rename(&path, folder.path().join("moved")).unwrap();
    record("after the move");
    assert_eq!(records(folder.path())[0]["user"], "after the move");

    // A folder in the file's place stands for a disk that fails: it stops nobody, and the gap is reported.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let refused = Audit::open(folder.path(), Rotation::default()).map(drop).unwrap_err().to_string();
    assert!(refused.contains(path.to_str().unwrap()), "{refused}");
    record("lost");
    fs::remove_dir(&path).unwrap();
    record("after the fault");
    let records = records(folder.path());
    assert_eq!(records[0]["lost"], 1);
    assert_eq!(records[1]["user"], "after the fault");
    assert_eq!(records.len(), 2);
}
