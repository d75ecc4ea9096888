//! Ids of events with `once`.

use super::*;

#[test]
fn known_ids_are_bounded_in_number_and_time() {
    let mut config = config(10);
    config.history = History { retry: 2 * MINUTE, ids: 3, ..History::default() };
    let mut core = Core::new(&config);
    let phone = core.attach("phone", ALICE);
    let send = |core: &Core, id: &str| {
        let routed = core.send(&phone, &event("Phone/Call/Ring", &format!(r#","id":"{id}","once":true"#)));
        routed.map_err(|it| it.refusal).unwrap().receipt.unwrap().kept.unwrap().is_duplicate
    };
    for (id, is_duplicate) in
        [("a", false), ("b", false), ("c", false), ("a", true), ("d", false), ("b", true), ("a", false)]
    {
        assert_eq!(send(&core, id), is_duplicate, "{id}: the oldest of four is forgotten");
    }
    assert_eq!(core.router.size().known_ids, 3);
    pass(&mut core, 2 * MINUTE);
    assert!(send(&core, "a"), "just in time");
    core.now += Duration::from_millis(1);
    assert!(!send(&core, "a"));
    assert_eq!(core.router.size().known_ids, 1);
}

#[test]
fn one_id_is_known_for_each_log_source_and_user() {
    let core = Core::new(&config(10));
    let service = core.attach("cti", None);
    let send = |session: &Arc<Session>, triple: &str, more: &str| {
        let routed = core.send(session, &event(triple, &format!(r#","id":"1","once":true{more}"#)));
        routed.map_err(|it| it.refusal).unwrap().receipt.unwrap().kept.unwrap().is_duplicate
    };
    for (expected, triple, more) in [
        (false, "Phone/Call/Ring", r#","user":"alice""#),
        (true, "Phone/Call/End", r#","user":"alice""#),
        (false, "Phone/Call/Ring", r#","user":"bob""#),
        (false, "Queue/Note/New", ""),
        (false, "Queue/Note/New", r#","user":"bob""#),
        (true, "Queue/Note/New", ""),
    ] {
        assert_eq!(send(&service, triple, more), expected, "{triple} {more}");
    }
    let (first, second) = (core.attach("phone", ALICE), core.attach("phone", ALICE));
    assert!(!send(&first, "Phone/Call/Ring", ""));
    assert!(send(&second, "Phone/Call/Ring", ""), "another session of the same source and user");
}
