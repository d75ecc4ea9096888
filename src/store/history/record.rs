//! What is kept, and its bytes: numbers in little-endian order, texts behind their length.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The layout of a record.
const VERSION: u8 = 1;

/// Which log: a channel's, or that of one user on a channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogName {
    /// The channel.
    pub channel: Box<str>,
    /// The user; `None` if all users of the channel share one log.
    pub user: Option<Box<str>>,
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "'{user}' on channel '{}'", self.channel),
            None => write!(f, "channel '{}'", self.channel),
        }
    }
}

/// An event of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was accepted, in milliseconds since 1970.
    pub at: u64,
    /// The topic.
    pub topic: Box<str>,
    /// The subtopic.
    pub subtopic: Box<str>,
    /// The user in whose name it was sent, if there is one.
    pub user: Option<Box<str>>,
    /// An adapter announced it to all users.
    pub to_all: bool,
    /// The only source that receives it.
    pub target: Option<Box<str>>,
    /// The envelope as it is delivered, without `user`, `offset` and `epoch`.
    pub text: Box<str>,
}

/// The `id` of an event that was sent with `once`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The log that the event is in, or was in.
    pub log: LogName,
    /// Its sender.
    pub source: Box<str>,
    /// The sender's user.
    pub user: Option<Box<str>>,
    /// Its `id`.
    pub id: Box<str>,
    /// When it was accepted, in milliseconds since 1970.
    pub at: u64,
    /// Its offset in the log.
    pub offset: u64,
    /// The epoch that the log had.
    pub epoch: Box<str>,
}

/// Where a retained value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The user whose value it is; `None` on a shared channel.
    pub user: Option<Box<str>>,
    /// The canonical triple, with slashes.
    pub triple: Box<str>,
    /// The only source that receives it.
    pub target: Option<Box<str>>,
}

/// A retained value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// On a shared channel, the user in whose name it was sent.
    pub user: Option<Box<str>>,
    /// The service that it counts for; `None` if it counts for its user.
    pub service: Option<Box<str>>,
    /// Its epoch and offset, if its channel has history.
    pub position: Option<(Box<str>, u64)>,
    /// The envelope as it is sent again, without mark and position, and without `user` on a user-scoped channel.
    pub text: Box<str>,
}

/// What a log's own record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogRecord {
    pub(super) name: LogName,
    pub(super) epoch: Box<str>,
    /// The offset of the first kept entry; `last + 1` if there is none.
    pub(super) first: u64,
    /// The last offset that was used.
    pub(super) last: u64,
    /// When it was last appended to, in milliseconds since 1970.
    pub(super) used: u64,
}

/// Returns a time in milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the time of a number of milliseconds since 1970.
pub(crate) fn time_of(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

/// Something that is kept as one sealed record.
pub(super) trait Record: Sized {
    fn write(&self, to: &mut Writer);

    /// Returns `None` for bytes that [`Record::write`] does not make.
    fn read(from: &mut Reader<'_>) -> Option<Self>;

    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer(vec![VERSION]);
        self.write(&mut writer);
        writer.0
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&version, rest) = bytes.split_first()?;
        let mut reader = Reader(rest);
        let record = (version == VERSION).then(|| Self::read(&mut reader)).flatten()?;
        reader.0.is_empty().then_some(record)
    }
}

pub(super) struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        // A text is at most as long as a message.
        self.0.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    fn option(&mut self, text: Option<&str>) {
        self.flag(text.is_some());
        if let Some(text) = text {
            self.text(text);
        }
    }
}

pub(super) struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Box<str>> {
        let length = usize::try_from(u32::from_le_bytes(self.array()?)).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok().map(Box::from)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    #[expect(clippy::option_option, reason = "a text that may be absent, or bytes that cannot be read")]
    fn option(&mut self) -> Option<Option<Box<str>>> {
        if self.flag()? { self.text().map(Some) } else { Some(None) }
    }
}

impl Record for LogName {
    fn write(&self, to: &mut Writer) {
        to.text(&self.channel);
        to.option(self.user.as_deref());
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self { channel: from.text()?, user: from.option()? })
    }
}

impl Record for LogRecord {
    fn write(&self, to: &mut Writer) {
        self.name.write(to);
        to.text(&self.epoch);
        for number in [self.first, self.last, self.used] {
            to.number(number);
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (name, epoch) = (LogName::read(from)?, from.text()?);
        Some(Self { name, epoch, first: from.number()?, last: from.number()?, used: from.number()? })
    }
}

impl Record for Entry {
    fn write(&self, to: &mut Writer) {
        to.number(self.at);
        to.text(&self.topic);
        to.text(&self.subtopic);
        to.option(self.user.as_deref());
        to.flag(self.to_all);
        to.option(self.target.as_deref());
        to.text(&self.text);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            at: from.number()?,
            topic: from.text()?,
            subtopic: from.text()?,
            user: from.option()?,
            to_all: from.flag()?,
            target: from.option()?,
            text: from.text()?,
        })
    }
}

impl Record for Known {
    fn write(&self, to: &mut Writer) {
        self.log.write(to);
        to.text(&self.source);
        to.option(self.user.as_deref());
        to.text(&self.id);
        to.number(self.at);
        to.number(self.offset);
        to.text(&self.epoch);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            log: LogName::read(from)?,
            source: from.text()?,
            user: from.option()?,
            id: from.text()?,
            at: from.number()?,
            offset: from.number()?,
            epoch: from.text()?,
        })
    }
}

impl Record for (Place, Retained) {
    fn write(&self, to: &mut Writer) {
        let (Place { user, triple, target }, value) = self;
        to.option(user.as_deref());
        to.text(triple);
        to.option(target.as_deref());
        to.option(value.user.as_deref());
        to.option(value.service.as_deref());
        to.option(value.position.as_ref().map(|(epoch, _)| &**epoch));
        to.number(value.position.as_ref().map_or(0, |(_, offset)| *offset));
        to.text(&value.text);
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let place = Place { user: from.option()?, triple: from.text()?, target: from.option()? };
        let (user, service, epoch, offset) = (from.option()?, from.option()?, from.option()?, from.number()?);
        let position = epoch.map(|epoch| (epoch, offset));
        Some((place, Retained { user, service, position, text: from.text()? }))
    }
}

impl Place {
    /// Returns a text that no other place has.
    pub(super) fn key(&self) -> String {
        let part = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), |text| format!("{}:{text}", text.len()));
        let Self { user, triple, target } = self;
        format!("{} {} {}", part(user.as_deref()), part(Some(triple)), part(target.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = Entry> {
        let name = || any::<String>().prop_map(Box::from);
        let option = || proptest::option::of(any::<String>().prop_map(Box::from));
        (any::<u64>(), name(), name(), option(), any::<bool>(), option(), name()).prop_map(
            |(at, topic, subtopic, user, to_all, target, text)| Entry {
                at,
                topic,
                subtopic,
                user,
                to_all,
                target,
                text,
            },
        )
    }

    proptest! {
        #[test]
        fn an_entry_is_read_as_it_was_written(entry in entry(), cut in any::<prop::sample::Index>()) {
            let bytes = entry.encode();
            prop_assert_eq!(Entry::decode(&bytes), Some(entry));
            prop_assert_eq!(Entry::decode(&bytes[..cut.index(bytes.len())]), None);
            prop_assert_eq!(Entry::decode(&[&*bytes, b"x"].concat()), None);
        }
    }

    #[test]
    fn two_places_never_have_the_same_key() {
        let place = |user: Option<&str>, triple: &str, target: Option<&str>| {
            Place { user: user.map(Box::from), triple: triple.into(), target: target.map(Box::from) }.key()
        };
        assert_ne!(place(Some("a"), "b", None), place(None, "b", Some("a")));
        assert_ne!(place(Some("1:a 1:b"), "c", None), place(Some("1:a"), "1:b 1:c", None));
        assert_ne!(place(Some("-"), "a", None), place(None, "a", None));
    }
}
