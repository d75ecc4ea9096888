//! Changes of records of another system, which one node reads and tells the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use parking_lot::Mutex;
use switchboard::config::Config;
use switchboard::router::{Backplane, RecordCache};
use zeroize::Zeroizing;

use super::nodes::Nodes;
use crate::support::core::{Core, event};

const LOGIN: &str = "CTI_Login__ChangeEvent";

/// What a node was told.
#[derive(Default)]
struct Told(Mutex<Vec<Option<String>>>);

impl RecordCache for Told {
    fn records_changed(&self, event: Option<&str>) {
        self.0.lock().push(event.map(str::to_owned));
    }
}

impl Told {
    /// What it was told since the last call.
    fn take(&self) -> Vec<Option<String>> {
        std::mem::take(&mut self.0.lock())
    }
}

fn nodes_with<C: RecordCache + Default + 'static>(count: usize) -> (Nodes, Vec<Arc<C>>) {
    let nodes = Nodes::new(count, &Config::default());
    let caches: Vec<_> = (0..count).map(|_| Arc::<C>::default()).collect();
    for (node, cache) in caches.iter().enumerate() {
        let cache: Arc<dyn RecordCache> = Arc::clone(cache) as _;
        nodes.node(node).router.set_record_cache(&cache);
    }
    (nodes, caches)
}

#[test]
fn every_other_node_is_told_of_a_change_before_the_event_reaches_it() {
    let (nodes, caches) = nodes_with::<Told>(3);
    let (phone, crm) = (nodes.node(0).attach("phone", Some("alice")), nodes.node(1).attach("crm", Some("alice")));
    nodes.node(1).subscribe(&crm, "Phone/*/*");
    nodes.settle();
    nodes.node(0).router.tell_records_changed(Some(LOGIN));
    nodes.node(0).send(&phone, &event("Phone/Agent/State", "")).unwrap();
    assert!(nodes.deliver_one(1));
    assert_eq!((caches[1].take(), nodes.take(1, &crm).len()), (vec![Some(LOGIN.to_owned())], 0));
    nodes.settle();
    assert_eq!((caches[1].take(), nodes.take(1, &crm).len()), (vec![], 1));
    assert_eq!(caches[2].take(), [Some(LOGIN.to_owned())]);
    nodes.node(2).router.tell_records_changed(None);
    nodes.settle();
    assert_eq!([0, 1, 2].map(|node| caches[node].take()), [vec![None], vec![None], vec![]]);
}

#[test]
fn a_new_link_counts_as_a_change_of_everything_on_both_of_its_nodes() {
    let (nodes, caches) = nodes_with::<Told>(3);
    nodes.lose(1);
    nodes.node(0).router.tell_records_changed(Some(LOGIN));
    nodes.settle();
    assert_eq!([0, 1, 2].map(|node| caches[node].take()), [vec![], vec![], vec![Some(LOGIN.to_owned())]]);
    nodes.find(1);
    assert_eq!([0, 1, 2].map(|node| caches[node].take()), [vec![None], vec![None, None], vec![None]]);
}

#[test]
fn what_is_said_between_the_beginnings_of_a_link_at_its_two_nodes_is_not_missed() {
    let (nodes, caches) = nodes_with::<Told>(2);
    nodes.lose(1);
    let (one, two) = (nodes.node(0), nodes.node(1));
    two.router.peer_linked(two.now, "node-0");
    one.router.tell_records_changed(Some(LOGIN));
    nodes.settle();
    assert!(caches[1].take().is_empty(), "there is no way yet");
    one.router.peer_linked(one.now, "node-1");
    nodes.settle();
    assert_eq!(caches[1].take(), [None]);
    one.router.tell_records_changed(Some(LOGIN));
    nodes.settle();
    assert_eq!(caches[1].take(), [Some(LOGIN.to_owned())]);
}

/// A plane that keeps what it is given.
#[derive(Default)]
struct Kept(Mutex<Vec<Vec<u8>>>);

impl Backplane for Kept {
    fn send(&self, _node: &str, message: Zeroizing<Vec<u8>>) -> Option<u64> {
        let mut kept = self.0.lock();
        kept.push(message.to_vec());
        Some(kept.len() as u64)
    }

    fn send_snapshot(&self, _node: &str, _message: Zeroizing<Vec<u8>>) {
        // It says nothing of records.
    }

    fn take_control(&self, _node: &str, _message: &[u8]) {
        // A router has no program around it here.
    }

    fn is_over_half(&self, _node: &str) -> bool {
        false
    }

    fn is_complete(&self) -> bool {
        true
    }
}

#[test]
fn nothing_but_the_name_of_the_event_crosses_the_link() {
    let kept = Arc::<Kept>::default();
    let Core { router, now } = Core::new(&Config::default());
    let router = router.with_backplane(Arc::clone(&kept) as _);
    router.peer_linked(now, "node-1");
    kept.0.lock().clear();
    router.tell_records_changed(Some(LOGIN));
    router.tell_records_changed(None);
    let messages = std::mem::take(&mut *kept.0.lock());
    // The kind of the message, whether there is a name, and its length.
    let kind = messages[0][0];
    let named = [&[kind, 1, u8::try_from(LOGIN.len()).unwrap()], LOGIN.as_bytes()].concat();
    assert_eq!(messages, [named, vec![kind, 0]]);
}

/// One record, kept as an adapter keeps it: not if it was read before a change that is known of.
#[derive(Default)]
struct OneRecord(Mutex<(u64, Option<u64>)>);

impl RecordCache for OneRecord {
    fn records_changed(&self, _event: Option<&str>) {
        let mut state = self.0.lock();
        state.0 += 1;
        state.1 = None;
    }
}

impl OneRecord {
    /// Reads the record, unless it is kept.
    fn read(&self, record: &AtomicU64) {
        let (age, kept) = *self.0.lock();
        if kept.is_some() {
            return;
        }
        let value = record.load(Ordering::SeqCst);
        thread::yield_now();
        let mut state = self.0.lock();
        if state.0 == age {
            state.1 = Some(value);
        }
    }
}

#[test]
fn each_of_many_changes_of_many_threads_reaches_every_other_node_once() {
    const THREADS: u64 = 4;
    const CHANGES: u64 = 500;
    let (nodes, caches) = nodes_with::<OneRecord>(3);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let router = &nodes.node(usize::try_from(thread % 2).unwrap()).router;
            scope.spawn(move || (0..CHANGES).for_each(|_| router.tell_records_changed(Some(LOGIN))));
        }
        nodes.settle();
    });
    nodes.settle();
    let all = THREADS * CHANGES;
    assert_eq!([0, 1, 2].map(|node| caches[node].0.lock().0), [all / 2, all / 2, all]);
}

#[test]
fn no_old_record_is_left_after_changes_while_links_break_and_others_read() {
    const ROUNDS: u64 = 50;
    const CHANGES: u64 = 20;
    let (nodes, caches) = nodes_with::<OneRecord>(3);
    let record = AtomicU64::new(0);
    for round in 1..=ROUNDS {
        let is_over = AtomicBool::new(false);
        let (nodes_ref, record_ref, is_over_ref) = (&nodes, &record, &is_over);
        thread::scope(|scope| {
            for cache in &caches {
                scope.spawn(move || {
                    while !is_over_ref.load(Ordering::Acquire) {
                        cache.read(record_ref);
                    }
                });
            }
            let links = scope.spawn(move || {
                for _ in 0..CHANGES {
                    nodes_ref.lose(1);
                    thread::yield_now();
                    nodes_ref.find(1);
                }
            });
            for _ in 0..CHANGES {
                record.fetch_add(1, Ordering::SeqCst);
                caches[0].records_changed(Some(LOGIN));
                nodes.node(0).router.tell_records_changed(Some(LOGIN));
                thread::yield_now();
            }
            let links = links.join();
            is_over.store(true, Ordering::Release);
            links.unwrap();
        });
        nodes.settle();
        for (node, cache) in caches.iter().enumerate() {
            let kept = cache.0.lock().1;
            assert!(kept.is_none_or(|kept| kept == round * CHANGES), "node {node} keeps {kept:?} in round {round}");
            cache.read(&record);
            assert_eq!(cache.0.lock().1, Some(round * CHANGES), "node {node}");
        }
    }
}
