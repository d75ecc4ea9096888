//! What leaves for NATS.

use std::time::Instant;

use zeroize::Zeroize;

use super::Bus;
use crate::cluster::greeting::Hello;
use crate::cluster::packet::{Greeting, Numbers};
use crate::cluster::peer::Peer;
use crate::cluster::seal::{HEAD_BYTES, Place, SEAL_BYTES};
use crate::cluster::{Fingerprint, Outbound, node_subject};

impl Bus {
    /// Returns the next message to give to NATS: this node's beat, then greetings, then packets of the links in turn. Call it
    /// until it returns nothing. Messages that were queued meanwhile go together in one packet, so call it once after a burst.
    pub fn transmit(&mut self, now: Instant) -> Option<Outbound> {
        self.look_for_pause(now);
        if !self.connected {
            return None;
        }
        if self.beat_due {
            self.beat_due = false;
            let mut packet = vec![0; HEAD_BYTES];
            self.about.write(&mut packet);
            return self.seal(None, Place::Beats, self.beats_subject(), packet);
        }
        if let Some(hello) = self.greetings.pop() {
            return self.greet(hello);
        }
        let count = self.peers.len();
        let at = (0..count).map(|step| (self.turn + step) % count).find(|at| self.is_ready(*at))?;
        self.turn = at + 1;
        let clock = self.clock(now);
        let peer = self.peers.get_mut(at)?;
        let room = self.largest - SEAL_BYTES;
        let mut packet = Vec::with_capacity(self.largest.min(SEAL_BYTES + peer.unsent_bytes()));
        packet.resize(HEAD_BYTES, 0);
        self.counts.parts_resent += peer.write(now, clock, room, &mut packet).resent;
        let to = peer.incarnation;
        let subject = node_subject(&self.name, &peer.about.node, to);
        self.seal(None, Place::Node(to), subject, packet)
    }

    fn is_ready(&self, at: usize) -> bool {
        self.peers.get(at).is_some_and(Peer::is_ready)
    }

    fn greet(&mut self, hello: Hello) -> Option<Outbound> {
        let Hello { node, to, challenge, echo, key } = hello;
        let peer = self.peers.iter().find(|peer| peer.incarnation == to);
        let numbers = peer.map_or_else(Numbers::default, Peer::numbers);
        let mut packet = vec![0; HEAD_BYTES];
        Greeting { challenge, echo, numbers, about: self.about.clone() }.write(&mut packet);
        self.seal(key, Place::Node(to), node_subject(&self.name, &node, to), packet)
    }

    /// Encrypts a packet, with the first key unless it names another. Without random numbers there is none: what was in it counts
    /// as lost on its way.
    fn seal(
        &mut self,
        key: Option<Fingerprint>,
        place: Place,
        subject: String,
        mut packet: Vec<u8>,
    ) -> Option<Outbound> {
        let Some(nonce) = self.chance.nonce() else {
            self.counts.no_randomness += 1;
            packet.zeroize();
            return None;
        };
        self.counter += 1;
        self.sealer.seal(key, place, self.incarnation, self.counter, nonce, &mut packet)?;
        self.counts.packets_sent += 1;
        self.counts.bytes_sent += packet.len() as u64;
        Some(Outbound { subject, payload: packet })
    }
}
