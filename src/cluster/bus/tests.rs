//! Rules of a bus that need two nodes and a network that does what the test says.

use std::time::Instant;

use bytes::Bytes;

use super::net::{KEY, LINK_BYTES, Net, ms, node};
use crate::cluster::{
    BrokenWhy, BusCounts, BusEvent, Inbound, Incarnation, NoLink, Number, Outbound, PeerState, Refusal,
};

#[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
pub(in crate::cluster) fn start() -> Instant {
    Instant::now()
}

#[test]
fn nodes_find_each_other_and_exchange_snapshots_and_messages() {
    let mut net = Net::new(&[("a", KEY), ("b", KEY)]);
    net.pass(ms(10));
    assert_eq!(net.words(0), ["found b, starting", "wanted by b", "snapshot of b"]);
    net.words(1);
    net.buses[0].say_live(net.now);
    for message in [&b"one"[..], b"two"] {
        net.send(0, "b", message).unwrap();
    }
    net.exchange();
    assert_eq!(net.words(1), ["changed a", "one", "two"]);
    let number = net.send(0, "b", &[b'x'; 3000]).unwrap();
    assert!(number > Number(4), "several parts");
    net.exchange();
    assert_eq!(net.words(1), ["x".repeat(3000)]);
    assert!(net.buses[0].acknowledged(&node("b")) < Some(number));
    net.pass(ms(10));
    assert_eq!(net.buses[0].acknowledged(&node("b")), Some(number));
    assert_eq!(net.buses[0].peers().next().unwrap().window_bytes, 0);
}

#[test]
fn several_messages_go_in_one_packet_and_no_packet_is_too_large() {
    let mut net = Net::pair();
    let before = net.published.len();
    for _ in 0..20 {
        net.send(0, "b", &[b'x'; 100]).unwrap();
    }
    net.exchange();
    let packets: Vec<usize> = net.published[before..].iter().map(|(_, it)| it.payload.len()).collect();
    assert!((2..=4).contains(&packets.len()) && packets.iter().all(|length| *length <= 1024), "{packets:?}");
}

#[test]
fn a_beat_alone_makes_nobody_live() {
    let net = Net::pair();
    let beats: Vec<Outbound> = net.published.iter().filter(|(from, _)| *from == 0).map(|it| it.1.clone()).collect();
    let mut alone = Net::new(&[("c", KEY)]);
    for outbound in &beats {
        alone.deliver(9, outbound);
    }
    alone.pass(ms(500));
    assert_eq!((alone.words(0), alone.buses[0].peers().count()), (vec![], 0));
    assert!(alone.published.iter().any(|(_, it)| it.subject.contains(".n.a.")), "it is greeted");
}

#[test]
fn a_beat_of_an_earlier_incarnation_replaces_none() {
    let mut net = Net::pair();
    let old = net.published.clone();
    net.frozen.push(0);
    net.pass(ms(3000));
    net.frozen.clear();
    net.pass(ms(1000));
    assert_eq!(net.words(1), ["lost a: Silent", "found a", "wanted by a", "snapshot of a"]);
    for (from, outbound) in &old {
        net.deliver(*from, outbound);
    }
    net.pass(ms(3000));
    assert_eq!(net.words(1), [""; 0]);
}

#[test]
fn recorded_packets_change_nothing() {
    let mut net = Net::pair();
    for number in 0..5 {
        net.send(0, "b", format!("message {number}").as_bytes()).unwrap();
        net.pass(ms(100));
    }
    net.words(1);
    net.frozen.push(0);
    let recorded = net.published.clone();
    let subject = net.buses[1].node_subject();
    let for_b =
        recorded.iter().filter(|(_, it)| it.subject == subject || it.subject == net.buses[1].beats_subject()).count();
    for step in 0..30 {
        let before = net.buses[1].counts();
        for (_, outbound) in &recorded {
            net.deliver(9, outbound);
        }
        // Once the peer is lost, a greeting of it is answered, and everything else is of a stranger.
        if step < 19 {
            assert_eq!(net.buses[1].counts().repeated - before.repeated, for_b as u64, "{step}");
        }
        net.pass(ms(100));
        assert_eq!(net.state(1, "a") == Some(PeerState::Lost), step >= 19, "{step}");
    }
    assert_eq!(net.words(1), ["lost a: Silent"]);
}

#[test]
fn a_peer_that_is_silent_for_2_s_is_lost_and_found_again() {
    let mut net = Net::pair();
    net.cut.extend([(0, 1), (1, 0)]);
    net.pass(ms(1900));
    assert_eq!((net.words(0), net.words(1)), (vec![], vec![]));
    net.send(0, "b", b"late").unwrap();
    net.pass(ms(200));
    assert_eq!(net.words(0), ["lost b: Silent"]);
    assert_eq!(net.send(0, "b", b"no link"), Err(NoLink::Down));
    net.cut.clear();
    net.pass(ms(600));
    let again = |peer: &str| vec![format!("found {peer}"), format!("wanted by {peer}"), format!("snapshot of {peer}")];
    assert_eq!(net.words(0), again("b"));
    assert_eq!(net.words(1)[1..], again("a"), "nothing of before is delivered");
}

#[test]
fn a_peer_that_answers_late_is_not_lost_while_messages_move() {
    let mut net = Net::pair();
    // What the first node sends waits in a queue that grows: a third of it arrives.
    net.cut.push((0, 1));
    let subject = net.buses[1].node_subject();
    let (mut queue, mut seen) = (std::collections::VecDeque::new(), net.published.len());
    let mut lost_after = None;
    for step in 0..150 {
        net.send(0, "b", b"data").ok();
        net.pass(ms(100));
        queue.extend(net.published[seen..].iter().filter(|(from, it)| *from == 0 && it.subject == subject).cloned());
        seen = net.published.len();
        if let Some((_, outbound)) = queue.pop_front() {
            net.deliver(9, &outbound);
        }
        if net.state(0, "b") != Some(PeerState::Linked) {
            lost_after = Some(step);
            break;
        }
    }
    // At 3 s, an answer is to something that was sent more than 2 s before.
    assert!(lost_after.is_some_and(|step| (50..120).contains(&step)), "{lost_after:?}");
    assert_eq!(net.words(0), ["lost b: Silent"], "somebody could hold back what arrives");
}

#[test]
fn a_cut_of_less_than_2_s_loses_nothing() {
    let mut net = Net::pair();
    net.cut.extend([(0, 1), (1, 0)]);
    net.send(0, "b", b"one").unwrap();
    net.pass(ms(1500));
    net.send(0, "b", b"two").unwrap();
    net.pass(ms(200));
    net.cut.clear();
    net.pass(ms(200));
    assert_eq!((net.words(0), net.words(1)), (vec![], vec!["one".to_owned(), "two".to_owned()]));
    assert!(net.buses[0].counts().parts_resent > 0);
}

#[test]
fn a_cut_in_one_direction_ends_the_link_in_both() {
    let mut net = Net::pair();
    net.cut.push((0, 1));
    net.pass(ms(2100));
    assert_eq!((net.words(0), net.words(1)), (vec!["lost b: Silent".to_owned()], vec!["lost a: Silent".to_owned()]));
    net.cut.clear();
    net.pass(ms(700));
    assert_eq!((net.state(0, "b"), net.state(1, "a")), (Some(PeerState::Linked), Some(PeerState::Linked)));
}

/// Somebody who holds packets back, and gives them out one by one, does not keep a dead peer alive.
#[test]
fn packets_that_are_held_back_keep_no_peer_live() {
    let mut net = Net::pair();
    net.cut.extend([(0, 1), (1, 0)]);
    let before = net.published.len();
    net.pass(ms(1500));
    net.frozen.push(0);
    let held: Vec<Outbound> = net.published[before..].iter().filter(|it| it.0 == 0).map(|it| it.1.clone()).collect();
    net.cut.clear();
    for outbound in held.iter().filter(|it| it.subject.contains(".n.b.")) {
        net.deliver(0, outbound);
        net.pass(ms(50));
    }
    assert_eq!(net.state(1, "a"), Some(PeerState::Lost));
}

#[test]
fn a_link_whose_window_is_exceeded_breaks_and_begins_anew() {
    let mut net = Net::pair();
    net.cut.push((0, 1));
    let sent = (0..100).map(|_| net.send(0, "b", &[b'x'; 500])).take_while(Result::is_ok).count();
    assert_eq!(sent, LINK_BYTES / 564);
    assert_eq!(net.words(0), ["broken b: WindowExceeded"]);
    assert_eq!((net.state(0, "b"), net.send(0, "b", b"no link")), (Some(PeerState::Broken), Err(NoLink::Down)));
    net.pass(ms(500));
    assert_eq!(net.words(0), [""; 0], "it has not proved that it is there");
    net.cut.clear();
    net.pass(ms(500));
    assert_eq!(net.words(0), ["wanted by b", "snapshot of b"]);
    assert_eq!(net.words(1), ["broken a: ByPeer", "wanted by a", "snapshot of a"]);
    net.send(0, "b", b"after").unwrap();
    net.send(1, "a", b"back").unwrap();
    net.exchange();
    assert_eq!((net.words(0), net.words(1)), (vec!["back".to_owned()], vec!["after".to_owned()]));
}

#[test]
fn a_broken_link_without_an_answer_is_lost_after_2_s() {
    let mut net = Net::pair();
    net.cut.push((0, 1));
    while net.send(0, "b", &[b'x'; 500]).is_ok() {}
    net.pass(ms(2100));
    assert_eq!(net.words(0), ["broken b: WindowExceeded", "lost b: Unanswered"]);
}

#[test]
fn a_snapshot_above_the_window_loses_the_peer() {
    let mut net = Net::new(&[("a", KEY), ("b", KEY)]);
    net.snapshot_bytes = LINK_BYTES;
    net.pass(ms(10));
    assert_eq!(net.words(0), ["found b, starting", "wanted by b", "lost b: SnapshotTooLarge"]);
}

#[test]
fn a_pause_begins_a_new_incarnation_and_reads_nothing_of_before() {
    let mut net = Net::pair();
    let (old, subject) = (net.buses[1].incarnation(), net.buses[1].node_subject());
    net.frozen.push(1);
    net.send(0, "b", b"stale").unwrap();
    net.exchange();
    net.pass(ms(1600));
    let stale: Vec<Outbound> = net.published.iter().map(|it| it.1.clone()).filter(|it| it.subject == subject).collect();
    for outbound in &stale {
        net.buses[1].receive(net.now, Inbound::Node(old), &outbound.payload);
    }
    net.settle(1);
    assert_eq!(net.words(1), ["paused"]);
    assert_ne!(net.buses[1].incarnation(), old);
    net.frozen.clear();
    net.pass(ms(700));
    assert_eq!(net.words(0), ["lost b: Restarted", "found b", "wanted by b", "snapshot of b"]);
    assert_eq!(net.words(1), ["found a", "wanted by a", "snapshot of a"]);
}

#[test]
fn messages_that_were_not_taken_before_a_pause_are_never_taken() {
    let mut net = Net::pair();
    net.send(0, "b", b"stale").unwrap();
    while let Some(outbound) = net.buses[0].transmit(net.now) {
        if let Some(inbound) = net.inbound(1, &outbound.subject) {
            net.buses[1].receive(net.now, inbound, &outbound.payload);
        }
    }
    net.buses[1].timeout(net.now + ms(1600));
    net.settle(1);
    assert_eq!(net.words(1), ["paused"]);
}

#[test]
fn a_node_that_misses_its_own_beats_is_cut_off() {
    let mut net = Net::pair();
    net.cut.push((0, 0));
    net.pass(ms(2100));
    assert_eq!(net.words(0), ["cut off"]);
    let recorded = net.published.clone();
    for (from, outbound) in recorded.iter().filter(|(from, _)| *from == 0).take(3) {
        net.cut.clear();
        net.deliver(*from, outbound);
        net.cut.push((0, 0));
    }
    assert_eq!(net.words(0), [""; 0], "recorded beats do not count");
    net.cut.clear();
    net.pass(ms(600));
    assert_eq!(net.words(0), ["restored"]);
}

#[test]
fn nothing_is_sent_while_nats_is_away() {
    let mut net = Net::pair();
    net.buses[0].connected(net.now, false);
    net.send(0, "b", b"one").unwrap();
    net.buses[0].timeout(net.now + ms(500));
    assert_eq!(net.buses[0].transmit(net.now + ms(500)), None);
    net.buses[0].connected(net.now + ms(500), true);
    net.exchange();
    assert_eq!(net.words(1), ["one"]);
}

#[test]
fn a_node_that_does_not_take_events_receives_no_more_than_it_can_hold() {
    let mut net = Net::pair();
    for _ in 0..200 {
        for _ in 0..50 {
            net.buses[0].send(net.now, &node("b"), Bytes::new()).ok();
        }
        for from in 0..2 {
            while let Some(outbound) = net.buses[from].transmit(net.now) {
                if let Some(inbound) = net.inbound(1 - from, &outbound.subject) {
                    net.buses[1 - from].receive(net.now, inbound, &outbound.payload);
                }
            }
        }
        net.now += ms(5);
        net.buses.iter_mut().for_each(|bus| bus.timeout(net.now));
        while net.buses[0].event().is_some() {}
    }
    assert!(net.buses[1].counts().events_full > 0);
    let mut events = 0;
    while net.buses[1].event().is_some() {
        events += 1;
    }
    assert!(events <= 8192 + 4096, "{events}");
}

#[test]
fn the_second_node_of_a_name_is_refused() {
    let mut net = Net::new(&[("a", KEY), ("a", KEY)]);
    net.buses[0].say_live(net.now);
    net.pass(ms(600));
    let incarnation = net.buses[0].incarnation();
    assert_eq!(net.events[1], [BusEvent::Refused(Refusal::NameTaken { incarnation })]);
    assert_eq!((net.words(0), net.buses[0].peers().count()), (vec![], 0));
}

#[test]
fn of_two_starting_nodes_of_a_name_the_lower_incarnation_stays() {
    let mut net = Net::new(&[("a", KEY), ("a", KEY)]);
    net.pass(ms(600));
    let mut incarnations: Vec<(Incarnation, usize)> = (0..2).map(|at| (net.buses[at].incarnation(), at)).collect();
    incarnations.sort();
    assert_eq!(net.events[incarnations[0].1], []);
    let incarnation = incarnations[0].0;
    assert_eq!(net.events[incarnations[1].1], [BusEvent::Refused(Refusal::NameTaken { incarnation })]);
}

#[test]
fn what_does_not_open_is_counted_and_changes_nothing() {
    let mut net = Net::pair();
    net.send(0, "b", b"message").unwrap();
    net.pass(ms(600));
    net.words(1);
    let recorded: Vec<Outbound> = net.published.iter().map(|it| it.1.clone()).collect();
    let before = net.buses[1].counts();
    let incarnation = net.buses[1].incarnation();
    let mut tries = 0;
    for outbound in &recorded {
        for at in [0, 5, 20, 30, 40, 60, outbound.payload.len() - 1] {
            let mut payload = outbound.payload.clone();
            payload[at] ^= 0x80;
            for inbound in [Inbound::Beats, Inbound::Node(incarnation)] {
                net.buses[1].receive(net.now, inbound, &payload);
                tries += 1;
            }
        }
        net.buses[1].receive(net.now, Inbound::Beats, &outbound.payload[..outbound.payload.len() / 2]);
        tries += 1;
    }
    net.settle(1);
    // A changed fingerprint is that of an unknown key.
    assert_eq!(net.words(1), ["keys apart from another node"]);
    let after = net.buses[1].counts();
    let dropped = |it: BusCounts| it.unopened + it.unknown_keys + it.repeated;
    assert_eq!(dropped(after) - dropped(before), tries);
}

#[test]
fn a_peer_that_sends_nonsense_has_its_link_broken() {
    let mut net = Net::pair();
    let node_b = node("b");
    let position = super::position(&net.buses[0].peers, &node_b).unwrap();
    net.buses[0].peers[position].about.node = node("b");
    net.buses[0].break_link(net.now, &node_b, BrokenWhy::Malformed);
    net.settle(0);
    net.pass(ms(300));
    assert_eq!(net.words(0), ["broken b: Malformed", "wanted by b", "snapshot of b"]);
    assert_eq!(net.words(1), ["broken a: ByPeer", "wanted by a", "snapshot of a"]);
}

#[test]
fn a_lost_peer_that_is_forgotten_continues_with_higher_numbers() {
    let mut net = Net::pair();
    let before = net.send(0, "b", b"one").unwrap();
    net.exchange();
    net.words(1);
    net.buses[0].peers.clear();
    net.pass(ms(700));
    assert!(net.send(0, "b", b"two").unwrap() > before);
    net.exchange();
    assert_eq!(net.words(1), ["broken a: ByPeer", "wanted by a", "snapshot of a", "two"]);
}

#[test]
fn two_live_nodes_of_one_name_are_told_once_and_get_no_link() {
    let mut net = Net::new(&[("a", KEY), ("a", KEY)]);
    net.cut.extend([(0, 1), (1, 0)]);
    net.pass(ms(500));
    net.buses.iter_mut().for_each(|bus| bus.say_live(net.now));
    net.cut.clear();
    net.pass(ms(5000));
    assert_eq!((net.words(0), net.words(1)), (vec!["name shared".to_owned()], vec!["name shared".to_owned()]));
    assert_eq!(net.buses.iter().map(|bus| bus.peers().count()).sum::<usize>(), 0);
}
