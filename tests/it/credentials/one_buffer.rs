//! How many copies of a password are in memory while it is on its way to the application that asked: one. And how many are
//! left of what an application has sent: none.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use secrecy::SecretString;
use serde_json::json;
use switchboard::adapter::Handler;
use switchboard::audit::{Audit, Rotation};
use switchboard::auth::{Identity, Permission, Permissions, Principal};
use switchboard::config::Config;
use switchboard::credentials::{Credentials, FetchCredentials, Found, Source};
use switchboard::router::{Door, Given, Ids, Outbox, OutboxLimits, Policy, Registration, RequestId, Router};
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, Refusal, decode};

use crate::support::{Broker, envelope, within};

const FETCH: &str = r#"{"channel":"Salesforce","topic":"User","subtopic":"FetchCredentials","id":"f"}"#;

/// The password, but for a bit of each byte: the program itself must not hold it.
const MASKED: &[u8] = b"qbp!230.onv{fq.rgnvo!";

/// A source whose answer is the only place of the password.
struct Memory;

impl Source for Memory {
    fn find(self: Arc<Self>, _: String) -> Found {
        Box::pin(async {
            let mut password = String::with_capacity(MASKED.len());
            password.extend(MASKED.iter().map(|byte| char::from(byte ^ 1)));
            let (username, extension) = ("1245456".to_owned(), "5051".to_owned());
            Ok(Credentials { username, password: SecretString::from(password), extension, adfs_username: None })
        })
    }
}

/// Keeps the last request.
#[derive(Default)]
struct Last(Mutex<Option<Given>>);

impl Door for Last {
    fn offer(&self, given: Given) -> Result<(), Refusal> {
        *self.0.lock() = Some(given);
        Ok(())
    }

    fn withdraw(&self, _: RequestId, _: &Refusal) {}
}

/// Counts the copies of the password in this process's writable memory, but for the buffer in which it is looked for.
fn copies() -> usize {
    copies_in("self")
}

/// Counts the copies of the password in the writable memory of a process.
pub(crate) fn copies_in(process: &str) -> usize {
    const CHUNK: usize = 1 << 20;
    let mut memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut buffer = vec![0; CHUNK];
    let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + CHUNK;
    let mut found = 0;
    for line in fs::read_to_string(format!("/proc/{process}/maps")).unwrap().lines() {
        let mut fields = line.split_whitespace();
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let [from, to] = [from, to].map(|it| usize::from_str_radix(it, 16).unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let mut at = from;
        while at < to {
            // What straddles two chunks is seen in the second one.
            let start = at.saturating_sub(if at == from { 0 } else { MASKED.len() - 1 });
            let len = CHUNK.min(to - start);
            memory.seek(SeekFrom::Start(start as u64)).unwrap();
            if memory.read_exact(&mut buffer[..len]).is_err() {
                break;
            }
            let is_it = |window: &[u8]| window.iter().zip(MASKED).all(|(byte, masked)| *byte == masked ^ 1);
            let places = buffer[..len].windows(MASKED.len()).enumerate().filter(|(_, window)| is_it(window));
            found += places.filter(|(offset, _)| process != "self" || !own.contains(&(start + offset))).count();
            at = start + len;
        }
    }
    found
}

#[tokio::test]
async fn a_password_is_in_one_buffer_on_its_way_to_the_asker() {
    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    let now = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let handler =
        FetchCredentials::new(Arc::new(Memory), Arc::new(Audit::open(folder.path(), Rotation::default()).unwrap()));
    let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(&Config::default()), Ids::seeded(1), Vec::new());
    let door = Arc::new(Last::default());
    let adapter = router.attach_handler(now, Arc::clone(&door) as _);
    let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
    for pattern in handler.serves() {
        router.subscribe(now, &adapter, &Subscribe::new(pattern, role.clone()), |_| None).unwrap();
    }
    let identity = Identity::unproved(
        Principal::User("alice".into()),
        Permissions { request: Permission::All, ..Permissions::default() },
    );
    let outbox = Outbox::new(OutboxLimits { messages: 100, bytes: 1 << 20, refuses: false });
    let asker = router
        .attach(now, Registration { source: "gadget".into(), identity, echo: false, address: None, outbox, will: None })
        .unwrap();
    assert_eq!(copies(), 0);

    assert!(router.route(now, &asker, &decode(FETCH, DecodeLimits::default()).unwrap()).is_ok());
    let given = door.0.lock().take().unwrap();
    let id = given.id;
    let response = handler.handle(given).await.unwrap_or_else(|refusal| panic!("{refusal}"));
    assert_eq!(copies(), 1, "what the source found");
    assert!(router.answer(now, &adapter, id, &response.data));
    assert_eq!(copies(), 2, "what the source found, and the frame");
    drop(response);
    assert_eq!(copies(), 1, "the frame");
    let mut frames = Vec::new();
    asker.outbox().take(now, 10, &mut frames);
    assert_eq!((frames.len(), copies()), (1, 1));
    drop(frames);
    assert_eq!(copies(), 0);
}

/// The password in clear, which the program that runs this test may hold.
pub(crate) fn password() -> String {
    MASKED.iter().map(|byte| char::from(byte ^ 1)).collect()
}

#[tokio::test]
async fn nothing_is_left_of_a_secret_that_an_application_has_sent() {
    let broker = Broker::start().await;
    let process = broker.process().to_string();
    let mut core = broker.app("core").await;
    core.handle("Cisco/Agent/Login").await;
    let mut gadget = broker.raw("gadget").await;
    gadget.register("gadget", json!({ "user": "local", "token": password() })).await;
    assert_eq!(copies_in(&process), 0, "after Register");
    gadget.send(envelope("Broker/Application/Renew", json!({ "id": "n", "data": { "token": password() } }))).await;
    assert_eq!(gadget.next_on("Broker/Application/Renew").await["data"]["Success"], true);
    assert_eq!(copies_in(&process), 0, "after Renew");

    // A command that does not exist, and a reply that is too late, on a triple that is not protected.
    let mut lost = broker.raw("lost").await;
    lost.send(envelope("Broker/Application/register", json!({ "source": "lost", "data": { "token": password() } })))
        .await;
    lost.next_error("NOT_REGISTERED").await;
    core.send(envelope("Cisco/Agent/Late", json!({ "inReplyTo": "r", "data": { "password": password() } }))).await;
    core.next_error("NO_SUCH_REQUEST").await;
    gadget.send(envelope("Broker/Application/register", json!({ "data": { "token": password() } }))).await;
    gadget.next_error("UNKNOWN_COMMAND").await;
    assert_eq!(copies_in(&process), 0, "after refused messages");

    // Alone, and larger than what is read at once.
    for padding in [0, 100_000] {
        let data = json!({ "password": password(), "padding": "x".repeat(padding) });
        gadget.send(envelope("Cisco/Agent/Login", json!({ "id": "l", "data": data }))).await;
        let asked = core.next_on("Cisco/Agent/Login").await;
        let answer = json!({ "inReplyTo": asked["id"], "data": { "password": password() } });
        core.send(envelope("Cisco/Agent/LoginSuccess", answer)).await;
        gadget.next_on("Cisco/Agent/LoginSuccess").await;
        within("a broker without copies", async {
            while copies_in(&process) > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}
