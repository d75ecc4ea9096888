//! The tap: what it shows, and that it never holds up the router.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::router::{TAPS_MAX, Tap, TapFilter, TapOptions};

use super::recording::{core, handler};
use crate::support::core::{Core, event};

fn options(rate: u32) -> TapOptions {
    TapOptions { filter: TapFilter::default(), rate, payloads: false }
}

/// What a tap shows now.
fn take(core: &Core, tap: &mut Tap) -> Vec<Value> {
    let mut lines = Vec::new();
    tap.take(core.now, &mut lines);
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verdicts(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect()
}

#[test]
fn a_tap_shows_every_decision_with_its_outcome() {
    let core = core();
    let (phone, crm) = (core.attach("phone", Some("alice")), core.attach("crm", Some("alice")));
    core.subscribe(&crm, "Board/*/*");
    handler(&core, &crm, "Crm/Contact/Find");
    let mut tap = core.router.tap(options(200)).unwrap();
    let once = event("Board/Queue/Depth", r#","id":"a","once":true"#);
    core.send(&phone, &once).unwrap();
    core.send(&phone, &once).unwrap();
    core.take(&crm);
    core.send(&phone, &event("Crm/Contact/Find", r#","id":"q""#)).unwrap();
    let id = core.take(&crm)[0]["id"].clone();
    core.send(&crm, &event("Crm/Contact/Find", &format!(r#","inReplyTo":{id}"#))).unwrap();
    core.send(&phone, &event("Crm/Contact/Find", r#","gather":true"#)).unwrap();
    core.send(&phone, &event("Sales/Call/Ring", r#","user":"bob""#)).err().unwrap();
    let lines = take(&core, &mut tap);
    // Refusals come first.
    assert_eq!(verdicts(&lines), ["REFUSED", "EVENT", "DUPLICATE", "REQUEST", "REPLY", "GATHER"]);
    assert_eq!(lines[0]["code"], "FORBIDDEN");
    assert_eq!((&lines[1]["receivers"], &lines[1]["offset"], &lines[1]["id"]), (&json!(1), &json!(1), &json!("a")));
    assert_eq!((&lines[1]["source"], &lines[1]["user"]), (&json!("phone"), &json!("alice")));
    assert_eq!(lines[1]["bytes"], once.len());
    assert_eq!(lines[4]["inReplyTo"], id);
    assert!(lines.iter().all(|line| line["payload"].is_null() && line["at"].is_string()));
}

#[test]
fn a_tap_shows_what_its_filter_lets_through() {
    let core = core();
    let (phone, gadget) = (core.attach("phone", Some("alice")), core.attach("gadget", Some("bob")));
    let tap = |filter: TapFilter| core.router.tap(TapOptions { filter, ..options(200) }).unwrap();
    let some = |text: &str| Some(text.to_owned());
    let mut taps = [
        tap(TapFilter { channel: some("Sales"), ..TapFilter::default() }),
        tap(TapFilter { topic: some("Call"), subtopic: some("Ring"), ..TapFilter::default() }),
        tap(TapFilter { source: some("gadget"), ..TapFilter::default() }),
        tap(TapFilter { user: some("alice"), ..TapFilter::default() }),
        tap(TapFilter { code: some("FORBIDDEN"), ..TapFilter::default() }),
        tap(TapFilter { id: some("2"), ..TapFilter::default() }),
    ];
    core.send(&phone, &event("Sales/Call/Ring", r#","id":"1""#)).unwrap();
    core.send(&phone, &event("Phone/Call/Ring", r#","id":"2""#)).unwrap();
    core.send(&gadget, &event("Sales/Lead/New", r#","id":"3""#)).unwrap();
    core.send(&gadget, &event("Phone/Lead/New", r#","id":"4","user":"alice""#)).err().unwrap();
    let ids = taps.each_mut().map(|tap| {
        take(&core, tap).iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    });
    assert_eq!(ids, ["1 3", "1 2", "4 3", "1 2", "4", "2"]);
}

#[test]
fn a_reader_that_takes_nothing_loses_lines_and_the_router_goes_on() {
    let mut core = core();
    let phone = core.attach("phone", Some("alice"));
    let wall = core.attach("wall", Some("alice"));
    core.subscribe(&wall, "Sales/*/*");
    let mut tap = core.router.tap(options(10)).unwrap();
    for _ in 0..1000 {
        core.send(&phone, &event("Sales/Call/Ring", "")).unwrap();
    }
    for _ in 0..4 {
        core.send(&phone, &event("Sales/Call/Ring", r#","user":"bob""#)).err().unwrap();
    }
    assert_eq!(core.take(&wall).len(), 1000, "the receivers have everything");
    let lines = take(&core, &mut tap);
    // Refusals take the place of events.
    assert_eq!(verdicts(&lines), [["REFUSED"; 4].as_slice(), &["EVENT"; 6]].concat());
    assert_eq!(tap.take_skipped(), 994);
    assert_eq!((tap.take_skipped(), core.router.tap_lines_skipped()), (0, 994));

    // No more than the rate in any second.
    core.send(&phone, &event("Sales/Call/Ring", "")).unwrap();
    core.now += Duration::from_millis(999);
    let mut lines = Vec::new();
    let again = tap.take(core.now, &mut lines).unwrap();
    assert!(lines.is_empty());
    assert_eq!(again - core.now, Duration::from_millis(1));
    core.now = again;
    assert_eq!(take(&core, &mut tap).len(), 1);
}

#[test]
fn there_are_at_most_eight_taps_and_one_ends_with_its_reader() {
    let core = core();
    let mut taps: Vec<_> = (0..TAPS_MAX).map(|_| core.router.tap(options(1)).unwrap()).collect();
    assert!(core.router.tap(options(1)).is_err());
    assert_eq!((TAPS_MAX, core.router.taps()), (8, 8));
    taps.pop();
    assert_eq!(core.router.taps(), 7);
    core.router.tap(options(1)).unwrap();
    taps.clear();
    assert_eq!(core.router.taps(), 0);
}

#[test]
fn payloads_are_shown_if_wanted_cut_and_never_of_protected_triples() {
    let core = core();
    let (phone, cisco) = (core.attach("phone", Some("alice")), core.attach("cisco", Some("alice")));
    handler(&core, &cisco, "Cisco/Agent/Login");
    handler(&core, &cisco, "Crm/Contact/Find");
    let mut tap = core.router.tap(TapOptions { payloads: true, ..options(1000) }).unwrap();
    let mut plain = core.router.tap(options(1000)).unwrap();
    // A letter of two bytes is where the payload is cut.
    let long = format!("{}é{}", "x".repeat((16 << 10) - 2), "y".repeat(100));
    core.send(&phone, &event("Sales/Call/Ring", &format!(r#","data":"{long}""#))).unwrap();
    for triple in ["Cisco/Agent/Login", "Crm/Contact/Find"] {
        core.send(&phone, &event(triple, r#","id":"p","data":"hunter2""#)).unwrap();
        let id = core.take(&cisco)[0]["id"].clone();
        core.send(&cisco, &event(triple, &format!(r#","inReplyTo":{id},"data":"hunter2""#))).unwrap();
        // A late reply, of which the request is not known.
        core.send(&cisco, &event("Other/A/B", &format!(r#","inReplyTo":{id},"data":"hunter2""#))).err().unwrap();
    }
    core.send(&phone, &event("Cisco/Agent/Login", r#","retain":true,"data":"hunter2""#)).err().unwrap();
    assert!(take(&core, &mut plain).iter().all(|line| line["payload"].is_null()));
    let lines = take(&core, &mut tap);
    let shown: Vec<_> = lines.iter().filter(|line| !line["payload"].is_null()).collect();
    let channels: Vec<_> = shown.iter().map(|line| line["channel"].as_str().unwrap()).collect();
    assert_eq!(channels, ["Sales", "Crm", "Crm"]);
    assert_eq!(shown[0]["payload"].as_str().unwrap().len(), (16 << 10) - 1);
    assert_eq!((&shown[0]["payloadCut"], &shown[1]["payloadCut"]), (&json!(true), &Value::Null));
    let secret = |line: &&Value| line["channel"] != "Sales" && line["channel"] != "Crm";
    assert!(lines.iter().filter(secret).all(|line| !line.to_string().contains("hunter2") && line["bytes"].is_null()));
    assert_eq!(lines.iter().filter(secret).count(), 5);
}
