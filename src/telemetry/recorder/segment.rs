//! [`Segment`]: entries with the names that they use. A ring is a queue of them, and loses its oldest one as a whole.

use std::time::Instant;

use wire::{TraceParent, Triple};

use super::entry::{ENTRY_BYTES_MAX, Entry, ID_BYTES_MAX, NOWHERE, Published, Record, What, Who};

/// The bytes of a full segment.
pub(super) const SEGMENT_BYTES: usize = 64 << 10;

/// The longest name that is kept whole, in bytes. The wire allows no longer one.
const NAME_BYTES_MAX: usize = wire::NAME_BYTES_MAX;

/// The most that one entry can add to a segment: itself, two sessions and a triple.
const GROWTH_MAX: usize = ENTRY_BYTES_MAX
    + 2 * (size_of::<SessionName>() + 2 * NAME_BYTES_MAX)
    + size_of::<TripleName>()
    + 3 * NAME_BYTES_MAX;

/// The bytes of a long id that are kept, before its hash.
const ID_HEAD_BYTES: usize = ID_BYTES_MAX - 8;

/// Entries with their names.
#[derive(Clone, Default)]
pub(super) struct Segment {
    pub(super) entries: Vec<Entry>,
    /// Names and ids.
    text: Vec<u8>,
    sessions: Vec<SessionName>,
    triples: Vec<TripleName>,
    bytes: usize,
}

/// A session, or a client without one.
#[derive(Clone, Copy)]
struct SessionName {
    number: u64,
    session: [u8; 16],
    /// Where its source begins in the texts. Its user follows.
    text: u32,
    source_len: u8,
    user_len: u8,
    has_user: bool,
}

#[derive(Clone, Copy)]
struct TripleName {
    text: u32,
    lens: [u8; 3],
}

impl Segment {
    /// Whether it may not have room for another entry.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.bytes + GROWTH_MAX > SEGMENT_BYTES
    }

    /// The memory that its content takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back the memory that it does not use.
    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
        self.text.shrink_to_fit();
        self.sessions.shrink_to_fit();
        self.triples.shrink_to_fit();
    }

    /// Adds an event whose names it has.
    #[inline]
    pub(super) fn push_event(&mut self, at: Instant, (who, triple): (u32, u32), event: &Published<'_>) {
        let text = self.place();
        let id_len = event.id.map_or(0, |id| self.push_id(id));
        let what = event.what();
        self.entries.push(Entry { at, who, peer: NOWHERE, triple, text, id_len, has_trace: false, what });
        self.bytes += size_of::<Entry>() + self.text.len() - text as usize;
    }

    /// Adds an entry whose names it has.
    pub(super) fn push(&mut self, at: Instant, (who, peer, triple): (u32, u32, u32), record: &Record<'_>) {
        let text = self.place();
        let id_len = record.id.map_or(0, |id| self.push_id(id));
        if let Some(trace) = record.trace {
            self.text.extend_from_slice(trace.as_bytes());
        }
        let has_trace = record.trace.is_some();
        self.entries.push(Entry { at, who, peer, triple, text, id_len, has_trace, what: record.what });
        self.bytes += size_of::<Entry>() + self.text.len() - text as usize;
    }

    #[inline]
    fn push_id(&mut self, id: &str) -> u8 {
        let id = id.as_bytes();
        match id.get(ID_BYTES_MAX..) {
            None | Some([]) => {
                self.text.extend_from_slice(id);
                u8::try_from(id.len()).unwrap_or(u8::MAX)
            }
            Some(_) => self.push_long_id(id),
        }
    }

    /// The length of an id that was cut is that of the whole.
    #[cold]
    fn push_long_id(&mut self, id: &[u8]) -> u8 {
        self.text.extend_from_slice(id.get(..ID_HEAD_BYTES).unwrap_or_default());
        self.text.extend_from_slice(&hash(id).to_le_bytes());
        u8::try_from(id.len()).unwrap_or(u8::MAX)
    }

    /// Adds an entry about a session that it knows.
    pub(super) fn push_known(&mut self, at: Instant, who: u32, what: What) {
        let text = self.place();
        self.entries.push(Entry { at, who, peer: NOWHERE, triple: NOWHERE, text, id_len: 0, has_trace: false, what });
        self.bytes += size_of::<Entry>();
    }

    /// Adds the name of a session. Returns its place.
    #[cold]
    pub(super) fn add_session(&mut self, who: &Who<'_>) -> u32 {
        let text = self.place();
        let source_len = self.push_name(who.source);
        let user_len = self.push_name(who.user.unwrap_or_default());
        let Who { number, session, user, .. } = *who;
        self.sessions.push(SessionName { number, session, text, source_len, user_len, has_user: user.is_some() });
        self.bytes += size_of::<SessionName>() + self.text.len() - text as usize;
        place_of(self.sessions.len())
    }

    /// Adds a triple. Returns its place.
    #[cold]
    pub(super) fn add_triple(&mut self, triple: &Triple<'_>) -> u32 {
        let text = self.place();
        let lens = [&triple.channel, &triple.topic, &triple.subtopic].map(|part| self.push_name(part));
        self.triples.push(TripleName { text, lens });
        self.bytes += size_of::<TripleName>() + self.text.len() - text as usize;
        place_of(self.triples.len())
    }

    /// The number of the session at a place.
    pub(super) fn number(&self, place: u32) -> u64 {
        self.sessions.get(place as usize).map_or(0, |it| it.number)
    }

    /// Source, user and id of the session at a place.
    pub(super) fn session(&self, place: u32) -> Option<Who<'_>> {
        let name = self.sessions.get(place as usize)?;
        let (source_len, user_len) = (usize::from(name.source_len), usize::from(name.user_len));
        let user = name.has_user.then(|| self.str(name.text as usize + source_len, user_len));
        let source = self.str(name.text as usize, source_len);
        Some(Who { number: name.number, session: name.session, source, user })
    }

    /// The parts of the triple at a place.
    pub(super) fn triple(&self, place: u32) -> Option<[&str; 3]> {
        let name = self.triples.get(place as usize)?;
        let mut from = name.text as usize;
        Some(name.lens.map(|len| {
            let part = self.str(from, usize::from(len));
            from += usize::from(len);
            part
        }))
    }

    /// The sender's id of an entry, and whether it is whole.
    pub(super) fn id(&self, entry: &Entry) -> Option<(&str, bool)> {
        let len = usize::from(entry.id_len);
        match len {
            0 => None,
            1..=ID_BYTES_MAX => Some((self.str(entry.text as usize, len), true)),
            // Up to the last whole character.
            _ => {
                let head = self.text.get(entry.text as usize..).and_then(|it| it.get(..ID_HEAD_BYTES))?;
                let whole = head.utf8_chunks().next().map_or("", |chunk| chunk.valid());
                Some((whole, false))
            }
        }
    }

    /// Whether the sender's id of an entry is this one.
    pub(super) fn is_id(&self, entry: &Entry, id: &str) -> bool {
        let id = id.as_bytes();
        if id.len() != usize::from(entry.id_len) || id.is_empty() {
            return false;
        }
        let kept = self.text.get(entry.text as usize..).and_then(|it| it.get(..id.len().min(ID_BYTES_MAX)));
        match kept {
            Some(kept) if id.len() <= ID_BYTES_MAX => kept == id,
            Some(kept) => {
                let (head, sum) = kept.split_at(ID_HEAD_BYTES);
                id.starts_with(head) && sum == hash(id).to_le_bytes()
            }
            None => false,
        }
    }

    /// The trace of an entry.
    pub(super) fn trace(&self, entry: &Entry) -> Option<TraceParent> {
        if !entry.has_trace {
            return None;
        }
        let from = entry.text as usize + usize::from(entry.id_len).min(ID_BYTES_MAX);
        self.text.get(from..)?.first_chunk().copied().map(TraceParent::from_bytes)
    }

    fn str(&self, from: usize, len: usize) -> &str {
        self.text.get(from..from + len).and_then(|it| std::str::from_utf8(it).ok()).unwrap_or_default()
    }

    /// Where the next text begins. A segment is far below 4 GiB.
    fn place(&self) -> u32 {
        u32::try_from(self.text.len()).unwrap_or(NOWHERE)
    }

    fn push_name(&mut self, name: &str) -> u8 {
        let name = name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(name);
        self.text.extend_from_slice(name.as_bytes());
        u8::try_from(name.len()).unwrap_or(u8::MAX)
    }
}

fn place_of(len: usize) -> u32 {
    u32::try_from(len - 1).unwrap_or(NOWHERE)
}

/// FNV-1a. A client can choose two ids that have the same hash, and then cannot tell its own messages apart.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
