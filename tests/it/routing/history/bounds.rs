//! How much logs keep: by number, age and memory.

use super::*;

#[test]
fn a_log_keeps_its_last_events_by_number_and_age() {
    let mut core = Core::new(&config(3));
    publish(&core, 1..=5);
    assert_eq!(last(&core, 9), [3, 4, 5]);
    core.now += 6 * MINUTE;
    publish(&core, [6]);
    core.now += 4 * MINUTE;
    assert_eq!(last(&core, 9), [4, 5, 6], "as old as ttl");
    core.now += Duration::from_millis(1);
    // Nothing has dropped them yet.
    assert_eq!(core.router.size().log_entries, 3);
    assert_eq!(last(&core, 9), [6], "older than ttl");
    assert_eq!(last(&core, 1), [6]);
}

#[test]
fn what_is_too_old_is_dropped_and_a_log_that_stays_empty_is_forgotten() {
    let mut core = Core::new(&config(1_000_000));
    publish(&core, 1..=3_000);
    let size = core.router.size();
    assert_eq!((size.logs, size.log_entries), (1, 3_000));
    assert!(size.log_bytes > 3_000 * 300, "{size:?}");
    let crm = core.attach("crm", ALICE);
    let before = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1)));
    core.router.detach(core.now, &crm);
    pass(&mut core, 11 * MINUTE);
    let size = core.router.size();
    assert_eq!((size.logs, size.log_entries), (1, 0), "its epoch and offset are kept");
    assert!((500..700).contains(&size.log_bytes), "{size:?}");
    pass(&mut core, 58 * MINUTE);
    assert_eq!(core.router.size().logs, 1);
    pass(&mut core, 3 * MINUTE);
    assert_eq!(core.router.size(), Size::default());
    assert_eq!(core.router.deadline(), None);
    publish(&core, [1]);
    let crm = core.attach("crm", ALICE);
    let after = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1)));
    let (before, after) = (before.position.unwrap(), after.position.unwrap());
    assert_eq!((before.offset, after.offset), (3_000, 1));
    assert_ne!(before.epoch, after.epoch, "offsets begin again, so the epoch is another one");
}

#[test]
fn beyond_the_memory_of_all_logs_the_largest_loses_its_oldest() {
    let mut config = config(1_000_000);
    config.history.bytes = 400_000;
    let core = Core::new(&config);
    let bob = core.attach("phone", Some("bob"));
    for number in 0..20 {
        core.send(&bob, &event("Phone/Call/Ring", &format!(r#","data":{number}"#))).ok().unwrap();
    }
    let small = core.router.size().log_bytes;
    for number in 0..3_000_u64 {
        publish(&core, [number]);
        assert!(core.router.size().log_bytes <= 400_000);
    }
    assert!(core.router.size().log_bytes > 300_000, "no more is dropped than needed");
    let of_bob = replayed(&core, Some("bob"), &wanted("Phone/*/*", Recover::Last(1_000))).1;
    assert_eq!((of_bob.len(), small > 0), (20, true), "the small log loses nothing");
    let left = last(&core, 1_000_000);
    assert_eq!(left.last(), Some(&Value::from(2_999)));
    assert!((800..1_400).contains(&left.len()), "{}", left.len());
    // One event that is larger than all memory is not kept, and is delivered.
    let crm = core.attach("crm", ALICE);
    core.subscribe(&crm, "Phone/*/*");
    let phone = core.attach("phone", ALICE);
    let huge = "x".repeat(500_000);
    core.send(&phone, &event("Phone/Call/Ring", &format!(r#","data":"{huge}""#))).ok().unwrap();
    assert_eq!(core.take(&crm).len(), 1);
    assert!(core.router.size().log_bytes <= 400_000);
}

#[test]
fn a_service_that_names_many_users_cannot_use_up_the_memory() {
    let mut config = config(10);
    config.history.bytes = 200_000;
    let core = Core::new(&config);
    publish(&core, 1..=10);
    let before = replayed(&core, ALICE, &wanted("Phone/*/*", Recover::Last(99))).1.len();
    let service = core.attach("cti", None);
    for user in 0..2_000 {
        let text = event("Phone/Call/Ring", &format!(r#","user":"user-{user}","data":{user}"#));
        core.send(&service, &text).map_err(|it| it.refusal).unwrap();
        let size = core.router.size();
        assert!(size.log_bytes <= 200_000 && size.logs <= 400, "{size:?}");
    }
    let left = replayed(&core, ALICE, &wanted("Phone/*/*", Recover::Last(99))).1;
    assert!(left.len() < before, "the log that held most lost its oldest: {left:?}");
    let latest = replayed(&core, Some("user-1999"), &wanted("Phone/*/*", Recover::Last(9))).1;
    assert_eq!(latest, [1_999]);
}
