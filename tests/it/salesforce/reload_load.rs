//! Many reloads while applications write: each request gets its answer, and each record is written exactly once.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::desk::{CREATE, Desk, OBJECTS, UPDATE, create};
use crate::support::{Peer, envelope, within};

const WRITERS: usize = 8;

/// How often an application asks again for a record while nobody serves its request.
const ATTEMPTS_MAX: usize = 1000;

/// A case for each writer.
fn case(number: usize) -> String {
    format!("50000000000010{number}AAA")
}

/// What one writer did.
#[derive(Default)]
struct Written {
    number: usize,
    subjects: Vec<String>,
    updates: usize,
    refused: usize,
    unserved: usize,
    /// The last text in its case.
    last: String,
}

async fn ask(peer: &mut Peer, triple: &str, id: &str, data: &Value) -> Value {
    peer.send(envelope(triple, json!({ "id": id, "timeout": 10_000, "data": data }))).await;
    within("an answer", peer.next_answer(triple, id)).await["data"].clone()
}

/// Creates a record and changes a case at each tick, until there are no more ticks.
async fn write(desk: Arc<Desk>, number: usize, mut ticks: watch::Receiver<usize>) -> Written {
    let mut peer = desk.broker.app_of("myapp", &format!("user-{number}")).await;
    let mut done = Written { number, last: "old".to_owned(), ..Written::default() };
    while ticks.changed().await.is_ok() {
        let id = format!("{number}/{}", done.subjects.len());
        let wanted = create(json!({ "subject": id }));
        let mut made = Value::Null;
        for _ in 0..ATTEMPTS_MAX {
            made = ask(&mut peer, CREATE, &id, &wanted).await;
            match made["ErrorCode"].as_str() {
                Some("NO_HANDLER") => done.unserved += 1,
                // The handlers went while it waited.
                Some("FORBIDDEN") => done.refused += 1,
                Some(_) | None => break,
            }
        }
        assert_eq!(made["Success"], true, "{made}");
        // It is the same record.
        let again = ask(&mut peer, CREATE, &id, &wanted).await;
        let gone = again["ErrorCode"] == "NO_HANDLER" || again["ErrorCode"] == "FORBIDDEN";
        assert!(again["sfid"] == made["sfid"] || gone, "{again}");
        let data = json!({ "callId": "1", "Name": "Case", "sfid": case(number), "params": { "variable1": id } });
        let changed = ask(&mut peer, UPDATE, &id, &data).await;
        match changed["ErrorCode"].as_str() {
            None => (done.updates, done.last) = (done.updates + 1, id.clone()),
            Some("FORBIDDEN") => done.refused += 1,
            Some("NO_HANDLER") => done.unserved += 1,
            Some(_) => panic!("{changed}"),
        }
        done.subjects.push(id);
    }
    done
}

/// Puts one of the configurations in force after the other, while writers write.
async fn reloads(count: usize, configurations: &[String]) -> (Vec<Written>, Arc<Desk>) {
    let cases = (0..WRITERS).map(|number| json!({ "Id": case(number), "Subject": "old" }));
    let desk = Desk::with(&configurations[0], |seed| seed["records"]["Case"] = cases.collect()).await;
    let desk = Arc::new(desk);
    let (tick, ticks) = watch::channel(0);
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        writers.spawn(write(Arc::clone(&desk), number, ticks.clone()));
    }
    drop(ticks);
    for number in 1..=count {
        tick.send(number).unwrap();
        desk.configure(&configurations[number % configurations.len()]);
        let line = desk.broker.reload().await;
        assert!(line.contains("was reloaded") && line.contains(&format!("number={number} ")), "{line}");
    }
    desk.configure(&configurations[0]);
    desk.broker.reload().await;
    drop(tick);
    (within("the writers", writers.join_all()).await, desk)
}

/// The org has exactly what the writers were told.
async fn check(desk: &Desk, written: &[Written]) {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut subjects: Vec<String> =
        desk.rows("SELECT Subject FROM Task").await.iter().map(|it| text(it, "Subject")).collect();
    let mut expected: Vec<String> = written.iter().flat_map(|it| it.subjects.clone()).collect();
    subjects.sort();
    expected.sort();
    assert_eq!(subjects, expected);
    assert!(expected.len() > WRITERS, "{expected:?}");
    let updates: usize = written.iter().map(|it| it.updates).sum();
    assert_eq!(desk.asked("PATCH", "/sobjects/Case/"), updates);
    let mut found: Vec<(String, String)> = Vec::new();
    for row in desk.rows("SELECT Id, Subject FROM Case").await {
        found.push((text(&row, "Id"), text(&row, "Subject")));
    }
    found.sort();
    let mut expected: Vec<_> = written.iter().map(|it| (case(it.number), it.last.clone())).collect();
    expected.sort();
    assert_eq!(found, expected);
}

/// What may be written and the bounds change, and the triples are served all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_and_no_record_is_written_twice_over_a_hundred_reloads() {
    let without_case = OBJECTS.split("[salesforce.objects.Case]").next().unwrap();
    let bounds = "[salesforce.creations]\nin_progress = 40\nof_user = 3\n[salesforce.variables]\nkeep = '1h'\n";
    let configurations = [OBJECTS.to_owned(), format!("{without_case}{bounds}"), format!("{OBJECTS}{bounds}")]
        .map(|it| format!("calls_per_user = 0\n{it}"));
    let (written, desk) = reloads(100, &configurations).await;
    check(&desk, &written).await;
    let count = |of: fn(&Written) -> usize| written.iter().map(of).sum::<usize>();
    assert_eq!(count(|it| it.unserved), 0, "the handlers were there all the time");
    assert!(count(|it| it.updates) > 0 && count(|it| it.refused) > 0);
    assert_eq!(desk.org.logins(), 3, "the broker's, and two to look at the rows");
}

/// Every second configuration has no objects.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_is_written_once_while_the_handlers_are_switched_off_and_on() {
    let (written, desk) =
        reloads(30, &[format!("calls_per_user = 0\n{OBJECTS}"), "calls_per_user = 0\n".to_owned()]).await;
    check(&desk, &written).await;
    assert!(written.iter().map(|it| it.unserved).sum::<usize>() > 0);
}
