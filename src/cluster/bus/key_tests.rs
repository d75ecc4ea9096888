//! Nodes whose key files differ.

use super::net::{KEY, Net, OTHER_KEY, ms};
use crate::cluster::PeerState;

#[test]
fn a_starting_node_with_an_unknown_key_is_refused() {
    let mut net = Net::new(&[("a", KEY), ("b", OTHER_KEY)]);
    net.buses[0].say_live(net.now);
    net.pass(ms(1400));
    assert_eq!((net.words(0), net.words(1)), (vec!["keys apart from another node".to_owned()], vec![]));
    net.pass(ms(200));
    assert_eq!((net.words(0), net.words(1)), (vec![], vec!["refused: UnknownKeys".to_owned()]));
    net.pass(ms(2000));
    assert_eq!((net.words(0), net.words(1)), (vec![], vec![]), "once");
}

#[test]
fn a_rotation_of_keys_takes_three_steps_without_a_refusal() {
    let (both, turned) = (format!("{KEY}\n{OTHER_KEY}"), format!("{OTHER_KEY}\n{KEY}"));
    for keys in [[KEY, &both], [&both, &turned], [&turned, OTHER_KEY]] {
        let mut net = Net::new(&[("a", keys[0]), ("b", keys[1])]);
        net.pass(ms(2000));
        assert_eq!(net.state(0, "b"), Some(PeerState::Linked), "{keys:?}");
        assert_eq!(net.state(1, "a"), Some(PeerState::Linked), "{keys:?}");
    }
}

/// Two nodes that became live while they could not reach each other. `told`: how one names the other.
fn check_told(keys: [&str; 2], told: [&str; 2]) {
    let mut net = Net::new(&[("a", keys[0]), ("b", keys[1])]);
    net.cut.extend([(0, 1), (1, 0)]);
    net.pass(ms(500));
    net.buses.iter_mut().for_each(|bus| bus.say_live(net.now));
    net.cut.clear();
    net.pass(ms(50_000));
    let expected = told.map(|name| vec![format!("keys apart from {name}")]);
    assert_eq!([net.words(0), net.words(1)], expected, "{keys:?}");
    assert_eq!((net.state(0, "b"), net.state(1, "a")), (None, None));
    net.pass(ms(12_000));
    assert_eq!([net.words(0), net.words(1)], expected, "once a minute");
}

#[test]
fn live_nodes_whose_keys_do_not_match_are_told_once_a_minute() {
    let turned = format!("{OTHER_KEY}\n{KEY}");
    check_told([KEY, OTHER_KEY], ["another node", "another node"]);
    check_told([KEY, &turned], ["another node", "a"]);
}

/// A starting node `b` beside a live node `a` that shares a key with it, but cannot open what it seals, or the reverse.
fn check_refused(live: &str, starting: &str) {
    let mut net = Net::new(&[("a", live), ("b", starting), ("c", live)]);
    for at in [0, 2] {
        net.buses[at].say_live(net.now);
    }
    net.pass(ms(100));
    // Whichever of them answers first.
    let words = net.words(1).join(", ");
    assert!(words == "refused: KeysDiffer { node: a }" || words == "refused: KeysDiffer { node: c }", "{words}");
    assert_eq!((net.state(1, "a"), net.state(0, "b")), (None, None), "{live} {starting}");
    // The live ones have a link, and are told nothing.
    assert_eq!((net.state(0, "c"), net.state(2, "a")), (Some(PeerState::Linked), Some(PeerState::Linked)));
    for at in [0, 2] {
        assert!(net.words(at).iter().all(|it| !it.contains("refused") && !it.contains("found b")), "{live} {starting}");
    }
    net.pass(ms(3000));
    assert_eq!(net.words(1), [""; 0], "once");
    assert_eq!(net.state(0, "c"), Some(PeerState::Linked));
}

#[test]
fn a_starting_node_that_a_live_one_cannot_open_is_refused() {
    let (both, turned) = (format!("{KEY}\n{OTHER_KEY}"), format!("{OTHER_KEY}\n{KEY}"));
    check_refused(KEY, &turned);
    check_refused(&turned, KEY);
    check_refused(&both, OTHER_KEY);
    check_refused(OTHER_KEY, &both);
}
