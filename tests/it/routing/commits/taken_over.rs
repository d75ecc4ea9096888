//! Logs and values that are taken over from a file, and what the bound of the disk has removed of them.

use std::time::{Duration, SystemTime};

use switchboard::router::{RecoverReason, Recovered, Subscribed};
use switchboard::store::history::{Applied, Entry, Loaded, LogName, Place, Retained};
use wire::command::{Recover, Role, Subscribe};

use super::Stage;

#[test]
fn what_a_file_had_is_as_old_after_a_restart_as_before() {
    let stage = Stage::new();
    let phone = LogName { channel: "Phone".into(), user: Some("alice".into()) };
    // An entry is kept for ten minutes.
    load(&stage, &phone, &[20, 11, 9, 1].map(Duration::from_mins));
    assert_eq!(recover(&stage, Recover::Last(10)), Some(Recovered::Replayed(2)));
}

#[test]
fn a_log_that_a_file_had_counts_as_one_that_was_made_here() {
    let phone = LogName { channel: "Phone".into(), user: Some("alice".into()) };
    let [whole, trimmed] = [1, 5].map(|first| {
        let stage = Stage::new();
        load_from(&stage, &phone, first, &[Duration::ZERO]);
        stage.router.size().log_bytes
    });
    assert_eq!(trimmed, whole);
}

#[test]
fn what_the_bound_of_the_disk_has_removed_is_replayed_to_nobody() {
    let stage = Stage::new();
    let phone = LogName { channel: "Phone".into(), user: Some("alice".into()) };
    load(&stage, &phone, &[3, 2, 1].map(Duration::from_mins));
    let after = |offset| Recover::After { epoch: "e".to_owned(), offset };
    assert_eq!(recover(&stage, after(1)), Some(Recovered::Replayed(2)));
    let trimmed = Applied { trimmed: vec![(phone.clone(), 3)], ..Applied::default() };
    stage.router.lost_on_disk(stage.now, &trimmed);
    assert_eq!(recover(&stage, after(1)), Some(Recovered::Lost(RecoverReason::TooOld)));
    assert_eq!(recover(&stage, after(2)), Some(Recovered::Replayed(1)));
    stage.router.lost_on_disk(stage.now, &Applied { removed: vec![phone], ..Applied::default() });
    assert_eq!(recover(&stage, after(3)), Some(Recovered::Lost(RecoverReason::Epoch)));
}

#[test]
fn a_retained_value_that_is_in_a_log_too_is_taken_over() {
    let stage = Stage::new();
    for (triple, position) in [("Phone/Call/Ring", None), ("Phone/Call/Hold", Some(("e".into(), 1)))] {
        let place = Place { user: Some("alice".into()), triple: triple.into(), target: None };
        let text = r#"{"channel":"Phone","topic":"Call","subtopic":"Ring","source":"cti"}"#.into();
        let value = Retained { user: None, service: None, position, text };
        stage.router.loading(stage.now, SystemTime::UNIX_EPOCH).add(Loaded::Retained(place, value));
    }
    assert_eq!(stage.router.size().retained_values, 2);
}

#[test]
fn a_log_of_another_scope_than_its_channel_has_now_is_not_taken_over() {
    let stage = Stage::new();
    let names = [("Phone", None), ("Queue", Some("alice"))];
    for (channel, user) in names {
        load(&stage, &LogName { channel: channel.into(), user: user.map(Box::from) }, &[Duration::ZERO]);
    }
    assert_eq!(stage.router.size().logs, 0);
    load(&stage, &LogName { channel: "Queue".into(), user: None }, &[Duration::ZERO]);
    assert_eq!(stage.router.size().logs, 1);
}

/// Takes over a log with one entry of each of these ages, the oldest first. The time of day is an hour after 1970.
fn load(stage: &Stage, name: &LogName, ages: &[Duration]) {
    load_from(stage, name, 1, ages);
}

/// The same for a log that has lost the entries before an offset.
fn load_from(stage: &Stage, name: &LogName, first: u64, ages: &[Duration]) {
    let hour = Duration::from_hours(1);
    let at = |age: Duration| u64::try_from(hour.saturating_sub(age).as_millis()).unwrap();
    let mut loading = stage.router.loading(stage.now, SystemTime::UNIX_EPOCH + hour);
    let used = ages.last().copied().map_or(0, at);
    loading.add(Loaded::Log { name: name.clone(), epoch: "e".into(), last: first + ages.len() as u64 - 1, used });
    for (offset, age) in (first..).zip(ages) {
        let text = r#"{"channel":"Phone","topic":"Call","subtopic":"Ring","source":"cti"}"#.into();
        let (topic, subtopic) = ("Call".into(), "Ring".into());
        let entry = Entry { at: at(*age), topic, subtopic, user: None, to_all: false, target: None, text };
        loading.add(Loaded::Entry(offset, entry));
    }
}

/// What becomes of the wish to recover events of alice.
fn recover(stage: &Stage, wish: Recover) -> Option<Recovered> {
    let agent = stage.session("agent", "alice");
    let mut wanted = Subscribe::new("Phone/*/*".parse().unwrap(), Role::Subscriber);
    wanted.recover = Some(wish);
    let mut recovered = None;
    let told = |subscribed: Subscribed| {
        recovered = subscribed.recovered;
        None
    };
    stage.router.subscribe(stage.now, &agent, &wanted, told).unwrap();
    recovered
}
