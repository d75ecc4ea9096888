//! Reloads that change what logs keep, or end them.

use super::*;

#[test]
fn a_channel_that_loses_its_history_loses_its_past() {
    let with = config(10);
    let core = Core::new(&with);
    publish(&core, 1..=2);
    let crm = core.attach("crm", ALICE);
    let before = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1))).position.unwrap();
    let never = core.attach("crm", Some("carol"));
    let of_carol = subscribe(&core, &never, &wanted("Phone/*/*", Recover::Last(1))).position.unwrap();
    let mut without = with.clone();
    without.channels.remove("Phone");
    core.router.replace_policy(core.now, &without);
    assert_eq!((core.router.size().logs, core.router.size().log_bytes), (0, 0));
    core.take(&crm);
    let phone = core.attach("phone", ALICE);
    core.send(&phone, &event("Phone/Call/Ring", "")).ok().unwrap();
    assert_eq!(core.take(&crm)[0].get("offset"), None);
    core.router.replace_policy(core.now, &with);
    publish(&core, [4]);
    for (session, position) in [(&crm, &before), (&never, &of_carol)] {
        let after = Recover::After { epoch: position.epoch.to_string(), offset: position.offset };
        let told = subscribe(&core, session, &wanted("Phone/*/*", after));
        assert_eq!(told.recovered, Some(Recovered::Lost(RecoverReason::Epoch)), "what was sent meanwhile is in no log");
    }
}

#[test]
fn a_channel_that_gets_another_scope_loses_its_past() {
    let mut config = config(10);
    let core = Core::new(&config);
    publish(&core, 1..=2);
    let crm = core.attach("crm", ALICE);
    let before = subscribe(&core, &crm, &wanted("Phone/*/*", Recover::Last(1))).position.unwrap();
    config.channels.get_mut("Phone").unwrap().scope = Scope::Shared;
    core.router.replace_policy(core.now, &config);
    assert_eq!(core.router.size().logs, 0);
    core.take(&crm);
    publish(&core, 3..=5);
    let after = Recover::After { epoch: before.epoch.to_string(), offset: before.offset };
    let told = subscribe(&core, &crm, &wanted("Phone/*/*", after));
    assert_eq!(told.recovered, Some(Recovered::Lost(RecoverReason::Epoch)));
    assert_eq!(told.position.unwrap().offset, 3);
    assert_eq!(replayed(&core, Some("bob"), &wanted("Phone/*/*", Recover::Last(9))).1, [3, 4, 5]);
}

#[test]
fn a_reload_changes_the_bounds_of_logs_that_exist() {
    let mut config = config(10);
    let mut core = Core::new(&config);
    publish(&core, 1..=10);
    config.channels.get_mut("Phone").unwrap().history = Some(LogBounds { size: 4, ttl: 10 * MINUTE });
    core.router.replace_policy(core.now, &config);
    assert_eq!(last(&core, 99), [7, 8, 9, 10]);
    pass(&mut core, Duration::ZERO);
    assert_eq!(core.router.size().log_entries, 4);
    config.channels.get_mut("Phone").unwrap().history = Some(LogBounds { size: 4, ttl: MINUTE });
    core.router.replace_policy(core.now, &config);
    pass(&mut core, 2 * MINUTE);
    assert_eq!((last(&core, 99), core.router.size().log_entries), (vec![], 0));
}
