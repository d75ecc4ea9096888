//! Events of a durable log that `history.bytes` has pushed out of memory: they are read from the disk, a few at a time.

use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use switchboard::config::{Channel, Config, LogBounds};
use switchboard::connection::Input;
use switchboard::router::{Filter, LogRow};
use switchboard::store::history::{Applied, Change};
use wire::CloseCode;

use crate::support::client::{Client, Desk};
use crate::support::core::event;
use crate::support::disk::Disk;

const SIZE: usize = 100;
const TTL: Duration = Duration::from_mins(10);

struct Stage {
    desk: Desk,
    disk: Disk,
    phone: Client,
    /// The events that were published.
    published: u64,
}

impl Stage {
    /// Memory for about 10 events.
    fn new() -> Self {
        let mut config = Config::default();
        let history = Some(LogBounds { size: SIZE, ttl: TTL });
        config.channels.insert("Phone".into(), Channel { history, durable: true, ..Channel::default() });
        config.history.bytes = 4500;
        let mut desk = Desk::new(&config);
        let (router, disk) = Disk::attach(desk.core.router);
        desk.core.router = router;
        let phone = desk.begin("phone");
        Self { desk, disk, phone, published: 0 }
    }

    fn commit(&mut self) {
        self.disk.commit(self.desk.now(), &self.desk.core.router);
    }

    /// Publishes numbered events. Every third one is on another topic.
    fn publish(&mut self, count: u64) {
        for number in self.published + 1..=self.published + count {
            let topic = if number.is_multiple_of(3) { "Phone/Line/Busy" } else { "Phone/Call/Ring" };
            self.phone.say(&self.desk, &event(topic, &format!(r#","data":{number}"#)));
            self.commit();
            self.phone.take(&self.desk, 9);
        }
        self.published += count;
    }

    fn epoch(&self) -> String {
        self.disk.logs.values().next().unwrap().epoch.to_string()
    }

    /// Lets a Subscribe wait for the disk, which is not read yet.
    fn begin(&self, client: &mut Client, topic: &str, recover: &Value) {
        let data = json!({"channel": "Phone", "topic": topic, "recover": recover});
        client.command(&self.desk, "Subscription", "Subscribe", &data);
    }

    /// Reads what is asked of the disk, and lets a connection go on.
    fn read(&mut self, client: &mut Client) -> usize {
        let count = self.disk.read_some(&self.desk.core.router);
        let cx = &mut Context::from_waker(Waker::noop());
        if client.connection.poll_look(cx).is_ready() {
            client.handle(&self.desk, Input::Looked);
        }
        count
    }

    /// Takes what a client receives, and reads the disk as long as that brings more.
    fn take_all(&mut self, client: &mut Client) -> Vec<Value> {
        let mut taken = Vec::new();
        loop {
            let more = client.take(&self.desk, 1000);
            let is_over = more.is_empty();
            taken.extend(more);
            if self.read(client) == 0 && is_over {
                return taken;
            }
        }
    }

    /// What a new client receives that recovers: `data` of the reply, and the payloads.
    fn recover(&mut self, topic: &str, recover: &Value) -> (Value, Vec<u64>) {
        let mut client = self.desk.begin("crm");
        self.begin(&mut client, topic, recover);
        let mut taken = self.take_all(&mut client);
        let reply = taken.remove(0)["data"].take();
        client.handle(&self.desk, Input::Gone(switchboard::connection::Gone::ByPeer(None)));
        (reply, payloads(&taken))
    }
}

/// The payloads of replayed events, whose offsets they are.
fn payloads(events: &[Value]) -> Vec<u64> {
    let payload = |event: &Value| {
        assert_eq!(event["offset"], event["data"], "{event}");
        event["data"].as_u64().unwrap()
    };
    events.iter().map(payload).collect()
}

fn after(epoch: &str, offset: u64) -> Value {
    json!({ "epoch": epoch, "offset": offset })
}

#[test]
fn events_that_memory_has_lost_are_replayed_from_the_disk() {
    let mut stage = Stage::new();
    stage.publish(60);
    let in_memory = stage.desk.core.router.size().log_entries;
    assert!((2..30).contains(&in_memory), "{in_memory}");
    let epoch = stage.epoch();
    for from in [0, 1, 6, 7, 8, 40, 50, 58, 59, 60] {
        let (reply, events) = stage.recover("*", &after(&epoch, from));
        assert_eq!((&reply["Recovered"], &reply["Replayed"]), (&json!(true), &json!(60 - from)), "{from}: {reply}");
        assert_eq!(events, (from + 1..=60).collect::<Vec<_>>(), "{from}");
        let (reply, events) = stage.recover("Line", &after(&epoch, from));
        let expected: Vec<u64> = (from + 1..=60).filter(|it| it.is_multiple_of(3)).collect();
        assert_eq!((reply["Replayed"].as_u64(), &events), (Some(expected.len() as u64), &expected), "{from}");
    }
    for last in [1, 2, 5, 10, 20, 21, 59, 60, 61, 1000] {
        let (reply, events) = stage.recover("*", &json!({ "last": last }));
        assert_eq!(events, (60 - last.min(60) + 1..=60).collect::<Vec<_>>(), "{last}: {reply}");
        let (reply, events) = stage.recover("Line", &json!({ "last": last }));
        let lines: Vec<u64> = (1..=60).filter(|it| it % 3 == 0).collect();
        assert_eq!(events, lines[lines.len() - lines.len().min(usize::try_from(last).unwrap())..], "{last}: {reply}");
        assert_eq!(reply["Replayed"], events.len());
    }
    assert!(stage.desk.core.router.size().log_entries <= in_memory, "nothing of it stays in memory");
}

#[test]
fn events_that_are_published_while_the_disk_is_read_follow_once() {
    for recover in ["after", "last"] {
        let mut stage = Stage::new();
        stage.publish(50);
        let recover = if recover == "after" { after(&stage.epoch(), 10) } else { json!({ "last": 40 }) };
        let mut client = stage.desk.begin("crm");
        stage.begin(&mut client, "*", &recover);
        assert!(client.take(&stage.desk, 9).is_empty(), "the reply waits for the disk");
        assert!(!client.connection.reads(), "nothing else is taken in meanwhile");
        // Fewer than memory has room for, so what was counted in memory goes on.
        stage.publish(5);
        assert_eq!(stage.read(&mut client), 1);
        stage.publish(20);
        let mut events = stage.take_all(&mut client);
        let reply = events.remove(0)["data"].take();
        let first = if recover["last"] == 40 { 16 } else { 11 };
        assert_eq!(reply["Offset"], 55, "{reply}");
        assert_eq!(payloads(&events), (first..=75).collect::<Vec<_>>(), "{recover}");
        let replayed = events.iter().filter(|event| event["replayed"] == true).count();
        assert_eq!(reply["Replayed"], replayed);
    }
}

#[test]
fn a_replay_from_the_disk_keeps_a_bounded_part_in_memory() {
    let mut stage = Stage::new();
    stage.publish(90);
    let mut client = stage.desk.begin("crm");
    stage.begin(&mut client, "*", &after(&stage.epoch(), 0));
    stage.read(&mut client);
    let waits = |client: &Client| {
        let session = client.connection.session().unwrap();
        client.connection.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending()
            && session.outbox().is_replaying()
    };
    let mut taken = client.take(&stage.desk, 1);
    while taken.len() < 60 {
        let more = client.take(&stage.desk, 1000);
        assert!(more.len() <= 7, "a read at a time: {}", more.len());
        taken.extend(more);
        assert!(waits(&client), "its task sleeps until the disk was read");
        stage.read(&mut client);
        assert!(!waits(&client));
    }
    taken.extend(stage.take_all(&mut client));
    assert_eq!(payloads(&taken[1..]), (1..=90).collect::<Vec<_>>());
}

#[test]
fn size_and_ttl_bound_what_the_disk_brings_back() {
    let mut stage = Stage::new();
    stage.publish(40);
    stage.desk.core.now += TTL / 2;
    stage.publish(40);
    let epoch = stage.epoch();
    assert_eq!(stage.recover("*", &after(&epoch, 0)).1.len(), 80);
    stage.desk.core.now += TTL / 2 + Duration::from_secs(1);
    let (reply, _) = stage.recover("*", &after(&epoch, 39));
    assert_eq!((&reply["Recovered"], &reply["RecoverReason"]), (&json!(false), &json!("TOO_OLD")), "{reply}");
    assert_eq!(stage.recover("*", &after(&epoch, 40)).1, (41..=80).collect::<Vec<_>>());
    for last in [1000, u64::MAX] {
        let (reply, events) = stage.recover("*", &json!({ "last": last }));
        assert_eq!(reply["Replayed"], 40, "{last}: {reply}");
        assert_eq!(events, (41..=80).collect::<Vec<_>>(), "{last}");
    }
    stage.publish(80);
    let (reply, _) = stage.recover("*", &after(&epoch, 59));
    assert_eq!(reply["RecoverReason"], "TOO_OLD", "{reply}");
    assert_eq!(stage.recover("*", &after(&epoch, 60)).1, (61..=160).collect::<Vec<_>>());
    assert_eq!(stage.recover("*", &json!({ "last": 1000 })).1, (61..=160).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_cannot_be_read_refuses_what_needs_it() {
    let mut stage = Stage::new();
    stage.publish(50);
    let epoch = stage.epoch();
    stage.disk.is_failing = true;
    let mut client = stage.desk.begin("crm");
    for recover in [after(&epoch, 0), json!({ "last": 50 })] {
        stage.begin(&mut client, "*", &recover);
        let reply = stage.take_all(&mut client).remove(0);
        assert_eq!(reply["data"]["ErrorCode"], "STORAGE_UNAVAILABLE", "{reply}");
    }
    assert_eq!(stage.recover("*", &after(&epoch, 49)).1, [50], "memory has it");
    assert_eq!(stage.recover("*", &json!({ "last": 1 })).1, [50]);
    assert!(client.connection.reads() && stage.desk.core.router.size().subscribers == 0, "nothing was subscribed");
    stage.disk.is_failing = false;
    stage.begin(&mut client, "*", &after(&epoch, 0));
    assert_eq!(stage.take_all(&mut client).len(), 51);
}

#[test]
fn a_replay_that_cannot_go_on_ends_its_session() {
    for (is_failing, code) in [(true, CloseCode::GoingAway), (false, CloseCode::SlowConsumer)] {
        let mut stage = Stage::new();
        stage.publish(50);
        let mut client = stage.desk.begin("crm");
        stage.begin(&mut client, "*", &after(&stage.epoch(), 0));
        stage.read(&mut client);
        client.take(&stage.desk, 1000);
        stage.read(&mut client);
        assert_eq!(client.take(&stage.desk, 1000).len(), 7);
        stage.disk.is_failing = is_failing;
        if !is_failing {
            // The log has moved on.
            let log = stage.disk.logs.values_mut().next().unwrap();
            log.entries = log.entries.split_off(&20);
        }
        stage.read(&mut client);
        let mut last = client.take(&stage.desk, 1000);
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(()) = client.connection.poll_ready(cx) else { panic!("its task sleeps") };
        let end = client.connection.ended().unwrap();
        last.extend(client.take(&stage.desk, 1000));
        let codes: Vec<_> = last.iter().map(|message| message["data"]["ErrorCode"].clone()).collect();
        let expected: &[&str] = if is_failing { &["STORAGE_UNAVAILABLE"] } else { &[] };
        assert_eq!(codes, expected, "what cannot be read is named: {last:?}");
        client.handle(&stage.desk, Input::Ended(end));
        assert_eq!(client.closed, Some(code));
    }
}

#[test]
fn a_subscribe_that_waits_for_the_disk_was_not_taken_in_if_the_connection_is_lost() {
    let mut stage = Stage::new();
    stage.publish(50);
    let mut client = stage.desk.begin("crm");
    client.command(&stage.desk, "Connection", "Ping", &json!({}));
    client.take(&stage.desk, 9);
    stage.begin(&mut client, "*", &after(&stage.epoch(), 0));
    client.lose(&stage.desk);
    let reply = client.resume(&stage.desk);
    assert_eq!((&reply["Resumed"], &reply["Received"]), (&json!(true), &json!(1)), "{reply}");
    stage.begin(&mut client, "*", &after(&stage.epoch(), 0));
    assert_eq!(stage.take_all(&mut client).len(), 51);
}

#[test]
fn a_replay_from_the_disk_goes_on_after_a_resume() {
    let mut stage = Stage::new();
    stage.publish(50);
    let mut client = stage.desk.begin("crm");
    stage.begin(&mut client, "*", &after(&stage.epoch(), 0));
    stage.read(&mut client);
    let mut taken = client.take(&stage.desk, 1000);
    for _ in 0..3 {
        stage.read(&mut client);
        taken.extend(client.take(&stage.desk, 5));
    }
    client.lose(&stage.desk);
    stage.publish(3);
    let reply = client.resume(&stage.desk);
    assert_eq!(reply["Resumed"], true, "{reply}");
    taken.extend(stage.take_all(&mut client));
    assert_eq!(payloads(&taken[1..]), (1..=53).collect::<Vec<_>>());
}

#[test]
fn a_message_that_waits_for_the_disk_counts_once() {
    let mut stage = Stage::new();
    stage.publish(50);
    let mut client = stage.desk.begin("crm");
    let received = |stage: &Stage, client: &Client| {
        let session = client.connection.session().unwrap();
        stage.desk.core.router.session_row(session).received
    };
    let before = received(&stage, &client);
    client.say(&stage.desk, &event("Phone/Call/Ring", ""));
    client.command(&stage.desk, "Connection", "Ping", &json!({}));
    stage.commit();
    assert!(client.poll_commits(&stage.desk));
    assert_eq!(received(&stage, &client) - before, 2);
    stage.begin(&mut client, "*", &after(&stage.epoch(), 10));
    assert_eq!(stage.read(&mut client), 1);
    assert_eq!(received(&stage, &client) - before, 3);
}

#[test]
fn the_list_of_logs_has_the_first_event_that_can_be_recovered() {
    let mut stage = Stage::new();
    let row = |stage: &Stage| {
        let rows = stage.desk.core.router.list_logs(stage.desk.now(), &Filter::default());
        let [row] = <[LogRow; 1]>::try_from(rows).unwrap();
        (row.first, row.last, row.entries)
    };
    stage.publish(60);
    assert!(stage.desk.core.router.size().log_entries < 30);
    assert_eq!(row(&stage), (Some(1), 60, 60));
    stage.publish(60);
    assert_eq!(row(&stage), (Some(21), 120, 100), "its size bounds it");
    let name = stage.disk.logs.keys().next().unwrap().clone();
    let applied = Applied { trimmed: vec![(name.clone(), 90)], ..Applied::default() };
    stage.desk.core.router.lost_on_disk(stage.desk.now(), &applied);
    assert_eq!(row(&stage), (Some(90), 120, 31), "history.disk_bytes has taken the others");
    let epoch = stage.epoch();
    assert_eq!(stage.recover("*", &after(&epoch, 88)).0["RecoverReason"], "TOO_OLD");
    assert_eq!(stage.recover("*", &after(&epoch, 89)).1, (90..=120).collect::<Vec<_>>());
    let swept = [Change::Trim { log: name, first: 100 }];
    stage.desk.core.router.forgotten_on_disk(stage.desk.now(), &swept);
    assert_eq!(row(&stage), (Some(100), 120, 21), "a sweep has removed what was too old");
    stage.desk.core.now += TTL + Duration::from_secs(1);
    assert_eq!(row(&stage), (None, 120, 0));
}
