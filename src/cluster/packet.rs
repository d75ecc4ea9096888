//! What is in a packet: [`About`] in a beat, [`Greeting`] or [`Data`] on a link. Encoding and decoding.
//!
//! Everything here comes from a holder of a key, but nothing is trusted more than that: no length that a packet names makes
//! memory, and whatever does not fit is `None`.

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use zeroize::Zeroizing;

use super::seal::{FINGERPRINT_BYTES, Fingerprint, KEYS_MAX};
use super::{DIGEST_BYTES_MAX, MessageBytes, NodeId, Versions};

const GREETING: u8 = 1;
const DATA: u8 = 2;

/// Parts in one packet, so that no packet makes an unbounded number of events.
pub(super) const PARTS_MAX: usize = 4096;

/// The length of [`Data`] before its parts.
pub(super) const DATA_HEAD_BYTES: usize = 1 + 1 + 6 * 8;

/// The length of what precedes the bytes of a [`Part`].
pub(super) const PART_HEAD_BYTES: usize = 1 + 8 + 4;

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) node: NodeId,
    pub(super) versions: Versions,
    /// Whether it accepts sessions.
    pub(super) live: bool,
    /// Its keys: the first one seals, all of them open.
    pub(super) keys: SmallVec<[Fingerprint; KEYS_MAX]>,
    pub(super) digest: Vec<u8>,
}

impl About {
    /// Whether each of two nodes can open what the other one seals.
    pub(super) fn keys_match(&self, other: &Self) -> bool {
        let opens = |one: &Self, other: &Self| other.keys.first().is_some_and(|key| one.keys.contains(key));
        opens(self, other) && opens(other, self)
    }

    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&[self.versions.lowest, self.versions.highest, self.live.into()]);
        // At most two.
        to.push(u8::try_from(self.keys.len()).unwrap_or(u8::MAX));
        self.keys.iter().for_each(|key| to.extend_from_slice(&key.0));
        write_short(self.node.as_str().as_bytes(), to);
        write_short(&self.digest, to);
    }

    pub(super) fn read(from: &mut Bytes) -> Option<Self> {
        let versions = Versions { lowest: from.try_get_u8().ok()?, highest: from.try_get_u8().ok()? };
        let live = read_bool(from)?;
        let keys = read_keys(from)?;
        let node = NodeId::new(std::str::from_utf8(&read_short(from)?).ok()?)?;
        let digest = read_short(from).filter(|digest| digest.len() <= DIGEST_BYTES_MAX)?.to_vec();
        (versions.lowest <= versions.highest).then_some(Self { node, versions, live, keys, digest })
    }

    /// Reads a whole beat.
    pub(super) fn read_beat(text: Zeroizing<Vec<u8>>) -> Option<Self> {
        let mut text = Bytes::from_owner(text);
        let about = Self::read(&mut text)?;
        text.is_empty().then_some(about)
    }
}

/// A random text that a peer sends back, to prove that it has read what names our incarnation.
pub(super) type Challenge = [u8; 16];

/// Where the sender of a greeting stands with the receiver's incarnation. A side that has forgotten a link continues its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    /// The last number that the sender has taken.
    pub(super) taken: u64,
    /// The last number of the sender that the receiver has acknowledged.
    pub(super) acknowledged: u64,
}

/// Asks a peer for a proof that it is there, and proves the same to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    /// What the receiver is to send back, if it is to answer.
    pub(super) challenge: Option<Challenge>,
    /// What the sender was asked to send back.
    pub(super) echo: Option<Challenge>,
    pub(super) numbers: Numbers,
    pub(super) about: About,
}

impl Greeting {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.push(GREETING);
        for challenge in [&self.challenge, &self.echo] {
            to.push(challenge.is_some().into());
            to.extend(challenge.iter().flatten());
        }
        to.extend_from_slice(&self.numbers.taken.to_be_bytes());
        to.extend_from_slice(&self.numbers.acknowledged.to_be_bytes());
        self.about.write(to);
    }

    fn read(from: &mut Bytes) -> Option<Self> {
        let mut challenge = || -> Option<Option<Challenge>> {
            let given = read_bool(from)?;
            let mut challenge = [0; 16];
            if given {
                from.try_copy_to_slice(&mut challenge).ok()?;
            }
            Some(given.then_some(challenge))
        };
        let (challenge, echo) = (challenge()?, challenge()?);
        let numbers = Numbers { taken: read_number(from)?, acknowledged: read_number(from)? };
        Some(Self { challenge, echo, numbers, about: About::read(from)? })
    }
}

/// What a link carries, and by itself a link beat. The parts follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data {
    /// The last number that the sender has taken.
    pub(super) acknowledged: u64,
    /// Whether the sender lacks a part and asks for everything after `acknowledged` again.
    pub(super) again: bool,
    /// The last number that was sent, with this packet.
    pub(super) sent: u64,
    /// The last number that was given to a message.
    pub(super) queued: u64,
    /// The number of the first part. Those that follow count up.
    pub(super) first: u64,
    /// The sender's clock, and the greatest one that it has received: the packet was made after the receiver had sent that.
    pub(super) clock: u64,
    pub(super) echo: u64,
}

impl Data {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&[DATA, self.again.into()]);
        for number in [self.acknowledged, self.sent, self.queued, self.first, self.clock, self.echo] {
            to.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// Writes over what [`Data::write`] has written at this place.
    pub(super) fn overwrite(&self, to: &mut [u8], at: usize) {
        let mut head = Vec::with_capacity(DATA_HEAD_BYTES);
        self.write(&mut head);
        to.iter_mut().skip(at).zip(head).for_each(|(to, from)| *to = from);
    }

    fn read(from: &mut Bytes) -> Option<Self> {
        let again = read_bool(from)?;
        let mut number = || read_number(from);
        let (acknowledged, sent, queued, first) = (number()?, number()?, number()?, number()?);
        Some(Self { acknowledged, again, sent, queued, first, clock: number()?, echo: number()? })
    }
}

/// What begins a link anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SnapshotMark {
    /// Whether it answers a snapshot of the receiver, so that it needs no answer itself.
    pub(super) answer: bool,
    /// The last number that the sender had taken when its link broke. It takes nothing else before a snapshot with a higher
    /// number.
    pub(super) taken: u64,
}

/// A message, or a piece of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Whether a message begins here; and with what, if it is a snapshot.
    pub(super) start: Start,
    /// Whether the message ends here.
    pub(super) last: bool,
    pub(super) bytes: MessageBytes,
}

/// How a part relates to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It continues its message.
    Continues,
    Message,
    Snapshot(SnapshotMark),
}

const LAST: u8 = 1;
const CONTINUES: u8 = 0;
const MESSAGE: u8 = 2;
const SNAPSHOT: u8 = 4;
const ANSWER: u8 = 6;

impl Part {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let (kind, taken) = match self.start {
            Start::Continues => (CONTINUES, None),
            Start::Message => (MESSAGE, None),
            Start::Snapshot(SnapshotMark { answer: false, taken }) => (SNAPSHOT, Some(taken)),
            Start::Snapshot(SnapshotMark { answer: true, taken }) => (ANSWER, Some(taken)),
        };
        to.push(kind | u8::from(self.last));
        to.extend(taken.iter().flat_map(|taken| taken.to_be_bytes()));
        // A part is shorter than a packet.
        to.extend_from_slice(&u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        to.extend_from_slice(&self.bytes);
    }

    pub(super) fn read(from: &mut Bytes) -> Option<Self> {
        let kind = from.try_get_u8().ok()?;
        let start = match kind & !LAST {
            CONTINUES => Start::Continues,
            MESSAGE => Start::Message,
            kind @ (SNAPSHOT | ANSWER) => {
                Start::Snapshot(SnapshotMark { answer: kind == ANSWER, taken: read_number(from)? })
            }
            _ => return None,
        };
        let length = usize::try_from(from.try_get_u32().ok()?).ok()?;
        Some(Self { start, last: kind & LAST != 0, bytes: split(from, length)?.into() })
    }
}

/// What arrived on a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet {
    Greeting(Greeting),
    /// With the parts, which are not read yet.
    Data(Data, MessageBytes),
}

impl Packet {
    /// Reads the text of a packet, which is wiped when the last part of it is dropped.
    pub(super) fn read(text: Zeroizing<Vec<u8>>) -> Option<Self> {
        let mut text = Bytes::from_owner(text);
        match text.try_get_u8().ok()? {
            GREETING => {
                let greeting = Greeting::read(&mut text)?;
                text.is_empty().then_some(Self::Greeting(greeting))
            }
            DATA => Some(Self::Data(Data::read(&mut text)?, text.into())),
            _ => None,
        }
    }
}

fn split(from: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= from.len()).then(|| from.split_to(length))
}

/// Reads a number of a message. None is so great that the next ones would overflow.
fn read_number(from: &mut Bytes) -> Option<u64> {
    from.try_get_u64().ok().filter(|number| *number <= u64::MAX / 2)
}

fn read_bool(from: &mut Bytes) -> Option<bool> {
    match from.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn read_keys(from: &mut Bytes) -> Option<SmallVec<[Fingerprint; KEYS_MAX]>> {
    let count = usize::from(from.try_get_u8().ok()?);
    let key = |_| {
        let mut key = [0; FINGERPRINT_BYTES];
        from.try_copy_to_slice(&mut key).ok()?;
        Some(Fingerprint(key))
    };
    (1..=KEYS_MAX).contains(&count).then(|| (0..count).map(key).collect()).flatten()
}

/// Writes at most 65,535 bytes with their length.
fn write_short(bytes: &[u8], to: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    to.extend_from_slice(&length.to_be_bytes());
    to.extend(bytes.iter().take(length.into()));
}

fn read_short(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u16().ok()?;
    split(from, length.into())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn about() -> About {
        let versions = Versions { lowest: 1, highest: 3 };
        let keys = [Fingerprint([1; FINGERPRINT_BYTES]), Fingerprint([2; FINGERPRINT_BYTES])].into();
        About { node: NodeId::new("node-1").unwrap(), versions, live: true, keys, digest: b"digest".to_vec() }
    }

    fn greeting() -> Greeting {
        Greeting {
            challenge: Some([1; 16]),
            echo: None,
            numbers: Numbers { taken: 9, acknowledged: 8 },
            about: about(),
        }
    }

    fn parts() -> Vec<Part> {
        let part = |start, last, bytes| Part { start, last, bytes: Bytes::from_static(bytes).into() };
        vec![
            part(Start::Message, true, b"whole"),
            part(Start::Message, false, b"begins"),
            part(Start::Continues, true, b""),
            part(Start::Snapshot(SnapshotMark { answer: false, taken: 7 }), true, b"snapshot"),
            part(Start::Snapshot(SnapshotMark { answer: true, taken: 8 }), false, b"answer"),
        ]
    }

    fn texts() -> [Vec<u8>; 3] {
        let [mut beat, mut hello, mut data] = [const { Vec::new() }; 3];
        about().write(&mut beat);
        greeting().write(&mut hello);
        Data { acknowledged: 1, again: true, sent: 2, queued: 3, first: 4, clock: 5, echo: 6 }.write(&mut data);
        assert_eq!(data.len(), DATA_HEAD_BYTES);
        for part in parts() {
            let before = data.len();
            part.write(&mut data);
            assert!(data.len() - before <= PART_HEAD_BYTES + part.bytes.len());
        }
        [beat, hello, data]
    }

    /// Reads everything in a text that may be anything.
    fn read_all(text: &[u8]) -> (Option<About>, Option<Packet>, Vec<Part>) {
        let packet = Packet::read(Zeroizing::new(text.to_vec()));
        let mut rest = match &packet {
            Some(Packet::Data(_, rest)) => rest.clone(),
            _ => Bytes::new().into(),
        };
        (
            About::read_beat(Zeroizing::new(text.to_vec())),
            packet,
            std::iter::from_fn(|| Part::read(&mut rest)).collect(),
        )
    }

    #[test]
    fn packets_are_read_as_they_were_written() {
        let [beat, hello, data] = texts();
        assert_eq!(read_all(&beat).0, Some(about()));
        assert_eq!(read_all(&hello).1, Some(Packet::Greeting(greeting())));
        let (_, packet, read) = read_all(&data);
        let Some(Packet::Data(head, _)) = packet else { panic!("{packet:?}") };
        assert_eq!(head, Data { acknowledged: 1, again: true, sent: 2, queued: 3, first: 4, clock: 5, echo: 6 });
        assert_eq!(read, parts());
    }

    #[test]
    fn a_beat_or_greeting_that_is_cut_or_longer_is_not_read() {
        let [beat, hello, _] = texts();
        for at in 0..beat.len() {
            assert_eq!(About::read_beat(Zeroizing::new(beat[..at].to_vec())), None);
        }
        for at in 0..hello.len() {
            assert_eq!(Packet::read(Zeroizing::new(hello[..at].to_vec())), None);
        }
        for text in [beat, hello] {
            let longer = [&text[..], &[0]].concat();
            let longer = Zeroizing::new(longer);
            assert_eq!((About::read_beat(longer.clone()), Packet::read(longer)), (None, None));
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_without_a_panic(text in vec(any::<u8>(), 0..200)) {
            read_all(&text);
        }

        #[test]
        fn changed_packets_are_read_without_a_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            for mut text in texts() {
                let at = at.index(text.len());
                text[at] = byte;
                read_all(&text);
            }
        }
    }
}
