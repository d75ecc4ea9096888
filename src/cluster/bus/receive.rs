//! What arrives from NATS.

use std::time::{Duration, Instant};

use super::{Bus, position};
use crate::cluster::packet::{About, Data, Greeting, Numbers, Packet};
use crate::cluster::peer::{Peer, Report};
use crate::cluster::seal::{Head, Place, Unopened};
use crate::cluster::{BusEvent, Inbound, Incarnation, LostWhy, MessageBytes, PEERS_MAX, Refusal, VERSIONS};

/// Events that the caller has not taken. Above this, nothing is received; the peers send it again.
const EVENTS_MAX: usize = 8192;

/// How long a lost peer is remembered at least. By then, its side has lost us too, and has nothing under way to us.
const REPLACE_AFTER: Duration = Duration::from_secs(10);

impl Bus {
    /// Takes a NATS message. Take all events before the next one.
    pub fn receive(&mut self, now: Instant, subject: Inbound, bytes: &[u8]) {
        self.look_for_pause(now);
        self.counts.packets_received += 1;
        self.counts.bytes_received += bytes.len() as u64;
        if self.events.len() >= EVENTS_MAX {
            self.counts.events_full += 1;
            return;
        }
        let Some(head) = Head::read(bytes) else {
            self.counts.unopened += 1;
            return;
        };
        match subject {
            Inbound::Beats => self.receive_beat(now, &head),
            Inbound::Node(to) if to == self.incarnation => self.receive_packet(now, &head),
            Inbound::Node(_) => self.counts.strangers += 1,
        }
    }

    fn receive_beat(&mut self, now: Instant, head: &Head<'_>) {
        let (from, counter) = (head.from, head.counter);
        let candidate = self.greetings.find(from).map_or(0, |it| it.beat_counter);
        let peer = self.known(from).and_then(|at| self.peers.get(at)).map_or(0, |peer| peer.beat_counter);
        let own = if from == self.incarnation { self.own_counter } else { 0 };
        if counter <= candidate.max(peer).max(own) {
            self.counts.repeated += 1;
            return;
        }
        let text = match self.sealer.open(Place::Beats, head) {
            Ok(text) => text,
            Err(unopened) => {
                if unopened == Unopened::UnknownKey {
                    self.joining.others_unknown = true;
                    self.tell_apart(now, from, None);
                }
                return self.count_unopened(unopened);
            }
        };
        if from == self.incarnation {
            return self.receive_own_beat(now, counter);
        }
        let Some(about) = About::read_beat(text) else {
            self.counts.malformed += 1;
            return;
        };
        self.joining.others_open = true;
        if let Some(peer) = self.known(from).and_then(|at| self.peers.get_mut(at)) {
            peer.beat_counter = counter;
            if peer.is_up() {
                return self.note_about(from, about);
            }
        }
        let Self { greetings, chance, .. } = self;
        let candidate = greetings.candidate(now, from, &about, Duration::ZERO, || chance.challenge());
        candidate.beat_counter = counter;
        candidate.key = Some(head.fingerprint);
        candidate.about = about;
        greetings.fire(now);
    }

    fn receive_own_beat(&mut self, now: Instant, counter: u64) {
        (self.own_counter, self.own_beat) = (counter, now);
        if self.cut_off {
            self.cut_off = false;
            self.events.push_back(BusEvent::Restored);
        }
    }

    fn receive_packet(&mut self, now: Instant, head: &Head<'_>) {
        let (from, counter) = (head.from, head.counter);
        let up = self.known(from).and_then(|at| self.peers.get(at)).filter(|peer| peer.is_up());
        let candidate = self.greetings.find(from).map_or(0, |it| it.counter);
        if counter <= up.map_or(candidate, |peer| peer.link_counter) {
            self.counts.repeated += 1;
            return;
        }
        let text = match self.sealer.open(Place::Node(self.incarnation), head) {
            Ok(text) => text,
            Err(unopened) => return self.count_unopened(unopened),
        };
        match Packet::read(text) {
            None => self.counts.malformed += 1,
            Some(Packet::Greeting(greeting)) => self.receive_greeting(now, head, greeting),
            Some(Packet::Data(data, parts)) => self.receive_data(now, from, counter, &data, parts),
        }
    }

    fn receive_data(&mut self, now: Instant, from: Incarnation, counter: u64, data: &Data, parts: MessageBytes) {
        let (at, made) = (self.known(from), self.at_clock(now, data.echo));
        let Self { peers, events, counts, .. } = self;
        let Some(peer) = at.and_then(|at| peers.get_mut(at)).filter(|peer| peer.is_up()) else {
            counts.strangers += 1;
            return;
        };
        peer.link_counter = counter;
        if let Err(why) = peer.take(now, made, data, parts, &mut Report { events, counts }) {
            let node = peer.about.node.clone();
            self.counts.malformed += 1;
            self.break_link(now, &node, why);
        }
    }

    fn receive_greeting(&mut self, now: Instant, head: &Head<'_>, greeting: Greeting) {
        let (from, counter, key) = (head.from, head.counter, head.fingerprint);
        let Greeting { challenge, echo, numbers, about } = greeting;
        let node = about.node.clone();
        if let Some(peer) = self.known(from).and_then(|at| self.peers.get_mut(at)).filter(|peer| peer.is_up()) {
            peer.link_counter = counter;
            self.note_about(from, about);
        } else {
            let Self { greetings, chance, .. } = self;
            let candidate = greetings.candidate(now, from, &about, Duration::ZERO, || chance.challenge());
            candidate.counter = counter;
            candidate.key = Some(key);
            candidate.about = about.clone();
            if candidate.is_proved_by(echo) {
                greetings.remove(from);
                self.admit(now, from, about, counter, numbers);
            }
        }
        if let Some(echo) = challenge {
            self.greetings.answer(&node, from, echo, key);
        }
        // The answer to one that has not proved itself takes the place of its first greeting.
        self.greetings.fire(now);
    }

    /// Begins a link with an incarnation that has proved that it is there, unless it cannot have one.
    fn admit(&mut self, now: Instant, incarnation: Incarnation, about: About, counter: u64, numbers: Numbers) {
        // Of two starting nodes, the one with the lower name, then incarnation, counts as live.
        let first = (&about.node, incarnation) < (&self.about.node, self.incarnation);
        let counts_as_live = about.live || first;
        if about.node == self.about.node {
            self.counts.refused += 1;
            if counts_as_live {
                self.refuse(Refusal::NameTaken { incarnation });
            }
            if self.about.live && about.live && self.namesake.replace(incarnation) != Some(incarnation) {
                self.events.push_back(BusEvent::NameShared { incarnation });
            }
            return;
        }
        if !VERSIONS.share_one_with(about.versions) {
            self.counts.refused += 1;
            if counts_as_live {
                self.refuse(Refusal::NoCommonVersion { node: about.node, versions: about.versions });
            }
            return;
        }
        if !self.about.keys_match(&about) {
            self.counts.refused += 1;
            if about.live {
                self.tell_apart(now, incarnation, Some(about.node.clone()));
            }
            if counts_as_live {
                self.refuse(Refusal::KeysDiffer { node: about.node });
            }
            return;
        }
        if position(&self.peers, &about.node).is_err() && !self.make_room(now) {
            self.counts.peers_full += 1;
            return;
        }
        let outgoing = self.outgoing();
        let Self { peers, events, counts, .. } = self;
        let mut report = Report { events, counts };
        let place = position(peers, &about.node);
        let at = place.unwrap_or_else(|at| at);
        match place.ok().and_then(|at| peers.get_mut(at)) {
            None => peers.insert(at, Peer::new(now, incarnation, about, outgoing)),
            Some(peer) if peer.incarnation == incarnation => peer.about = about,
            Some(peer) => {
                if !peer.is_lost() {
                    peer.lose(now, LostWhy::Restarted, &mut report);
                }
                *peer = Peer::new(now, incarnation, about, outgoing);
            }
        }
        if let Some(peer) = peers.get_mut(at) {
            peer.begin(now, counter, numbers, &mut report);
        }
    }

    /// Forgets the peer that was lost first, if there are too many. Returns whether there is room for another one.
    fn make_room(&mut self, now: Instant) -> bool {
        if self.peers.len() >= PEERS_MAX {
            let lost = self.peers.iter().enumerate().filter_map(|(at, peer)| Some((peer.lost_at()?, at))).min();
            lost.filter(|(since, _)| now >= *since + REPLACE_AFTER).map(|(_, at)| self.peers.remove(at));
        }
        self.peers.len() < PEERS_MAX
    }

    /// Keeps what a peer with a link says about itself.
    fn note_about(&mut self, from: Incarnation, about: About) {
        let Some(peer) = self.known(from).and_then(|at| self.peers.get_mut(at)) else { return };
        if peer.about.node != about.node {
            self.counts.malformed += 1;
            return;
        }
        if (peer.about.live, &peer.about.digest) != (about.live, &about.digest) {
            let About { node, live, digest, .. } = about.clone();
            self.events.push_back(BusEvent::PeerChanged { node, digest, live });
        }
        peer.about = about;
    }

    /// Where the peer of this incarnation is.
    fn known(&self, incarnation: Incarnation) -> Option<usize> {
        self.peers.iter().position(|peer| peer.incarnation == incarnation)
    }

    fn count_unopened(&mut self, unopened: Unopened) {
        match unopened {
            Unopened::UnknownKey => self.counts.unknown_keys += 1,
            Unopened::Forged => self.counts.unopened += 1,
        }
    }
}
