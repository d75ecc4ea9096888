//! A reload that ends logs: what waits for the disk is refused, and what is on disk is removed.

use std::sync::Arc;
use std::time::Duration;

use switchboard::config::Scope;
use switchboard::store::history::{Change, LogName};

use super::{EVENT, Stage, Told, received, told};

const RETAINED: &str = r#"{"channel":"Phone","topic":"Call","subtopic":"State","id":"1","retain":true,"data":1}"#;

#[test]
fn what_a_reload_has_ended_is_removed_from_the_disk() {
    let stage = Stage::new();
    let cti = stage.session("cti", "alice");
    stage.send(&cti, RETAINED);
    let appended = stage.commit(true);
    let [Change::Append { log, epoch, .. }, Change::Keep(place, _)] = &*appended else { panic!("{appended:?}") };
    assert!(stage.router.forgotten(|_, _| true).is_empty());
    // There and back, before the disk was written to.
    stage.rescope(Scope::Shared);
    stage.rescope(Scope::User);
    let has = |name: &LogName, old: &str| (name, old) == (log, &**epoch);
    let forgotten = stage.router.forgotten(has);
    assert!(matches!(&*forgotten, [Change::Forget(old), Change::Clear(value)] if old == log && value == place));
    // The disk fails, so it is tried again.
    stage.router.not_forgotten(forgotten, |_| Some(Arc::from(&**epoch)));
    assert_eq!(stage.router.forgotten(has).len(), 2);
    assert!(stage.router.forgotten(has).is_empty());
    let agent = stage.session("agent", "alice");
    stage.send(&cti, RETAINED);
    let again = stage.commit(true);
    let [Change::Append { epoch: renewed, offset: 1, .. }, Change::Keep(..)] = &*again else { panic!("{again:?}") };
    assert_ne!(renewed, epoch);
    assert_eq!(received(&stage, &agent), [1]);
}

#[test]
fn what_begins_anew_after_a_reload_stays_on_the_disk() {
    let stage = Stage::new();
    let cti = stage.session("cti", "alice");
    stage.send(&cti, RETAINED);
    stage.commit(true);
    stage.rescope(Scope::Shared);
    stage.rescope(Scope::User);
    stage.send(&cti, RETAINED);
    let appended = stage.commit(true);
    let [Change::Append { epoch, .. }, ..] = &*appended else { panic!("{appended:?}") };
    assert!(stage.router.forgotten(|_, old| *old == **epoch).is_empty());
}

#[test]
fn an_event_whose_log_a_reload_ends_while_it_is_written_is_refused() {
    for scopes in [&[Scope::Shared][..], &[Scope::Shared, Scope::User]] {
        for has_log in [true, false] {
            let stage = Stage::new();
            let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
            if has_log {
                stage.send(&cti, EVENT);
                stage.commit(true);
                assert_eq!(received(&stage, &agent), [1]);
            }
            let mut ticket = stage.send(&cti, RETAINED);
            let batch = stage.router.plan(stage.now, vec![stage.queue.receive(Duration::ZERO).unwrap()]);
            let written = batch.changes().to_vec();
            let [Change::Append { log, epoch, .. }, Change::Keep(place, _)] = &*written else { panic!("{written:?}") };
            for scope in scopes {
                stage.rescope(*scope);
            }
            stage.router.finish(stage.now, batch, true);
            assert_eq!(told(&mut ticket), Some(Told::Refused("STORAGE_UNAVAILABLE")));
            assert!(received(&stage, &agent).is_empty(), "the disk has it under the old scope only");
            // What is on disk of it is removed.
            let forgotten = stage.router.forgotten(|name, old| (name, old) == (log, &**epoch));
            assert!(matches!(&*forgotten, [Change::Forget(old), Change::Clear(value)] if old == log && value == place));
        }
    }
}

#[test]
fn two_events_with_one_id_are_refused_together_if_a_reload_ends_their_log() {
    for scopes in [&[Scope::Shared][..], &[Scope::Shared, Scope::User]] {
        let stage = Stage::new();
        let (cti, agent) = (stage.session("cti", "alice"), stage.session("agent", "alice"));
        let once = EVENT.replacen('{', r#"{"once":true,"#, 1);
        let mut tickets = [stage.send(&cti, &once), stage.send(&cti, &once)];
        let events = std::iter::from_fn(|| stage.queue.receive(Duration::ZERO).ok()).collect();
        let batch = stage.router.plan(stage.now, events);
        assert_eq!(batch.changes().len(), 1);
        for scope in scopes {
            stage.rescope(*scope);
        }
        stage.router.finish(stage.now, batch, true);
        for ticket in &mut tickets {
            assert_eq!(told(ticket), Some(Told::Refused("STORAGE_UNAVAILABLE")));
        }
        assert!(received(&stage, &agent).is_empty());
    }
}
