//! The routing key: [`Triple`] on an envelope, [`Pattern`] in a subscription or a permission.

use std::borrow::Cow;
use std::fmt;

/// The longest part of a triple, source, user or id, in bytes (protocol.md, Envelope).
pub const NAME_BYTES_MAX: usize = 128;

/// The channel that is reserved for the broker.
pub const BROKER: &str = "Broker";

/// The wildcard of a pattern.
const ANY: &str = "*";

/// The reason why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// It is empty.
    #[error("must not be empty")]
    Empty,
    /// It is longer than [`NAME_BYTES_MAX`].
    #[error("must not be longer than 128 bytes")]
    TooLong,
    /// It has a character of U+0000..=U+001F or U+007F..=U+009F.
    #[error("must not contain control characters")]
    Control,
    /// It has the separator of a written pattern.
    #[error("must not contain '/', which separates the parts of a written pattern")]
    Slash,
    /// It is `*`, which only a pattern may have.
    #[error("must not be '*', which only a pattern may have")]
    Any,
    /// It is a part of a pattern with `*` beside other characters.
    #[error("must not have '*' beside other characters: '*' stands for a whole part")]
    PartlyAny,
}

/// Checks a source, user or target: 1..=128 bytes, no control characters.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check_name(text: &str) -> Result<(), NameFault> {
    match text.len() {
        _ if is_ordinary(text) => Ok(()),
        0 => Err(NameFault::Empty),
        1..=NAME_BYTES_MAX if text.chars().any(char::is_control) => Err(NameFault::Control),
        1..=NAME_BYTES_MAX => Ok(()),
        _ => Err(NameFault::TooLong),
    }
}

/// Checks one part of a triple: a name without `/` that is not `*`.
///
/// # Errors
/// The first rule that the text breaks.
pub fn check_part(text: &str) -> Result<(), NameFault> {
    if is_ordinary(text) {
        return Ok(());
    }
    check_name(text)?;
    match text {
        ANY => Err(NameFault::Any),
        _ if text.contains('/') => Err(NameFault::Slash),
        _ => Ok(()),
    }
}

/// Returns whether a name is printable ASCII without `/` and `*`. Nearly every name is, and then needs no further check.
#[inline]
fn is_ordinary(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'/' && byte != b'*')
}

/// `channel`, `topic` and `subtopic` of an envelope; written `channel/topic/subtopic`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Triple<'a> {
    /// The part whose configuration decides scope and folding.
    pub channel: Cow<'a, str>,
    /// The middle part.
    pub topic: Cow<'a, str>,
    /// The last part.
    pub subtopic: Cow<'a, str>,
}

impl<'a> Triple<'a> {
    /// Returns a triple. The parts were checked with [`check_part`], or are known to be names.
    pub fn new(
        channel: impl Into<Cow<'a, str>>,
        topic: impl Into<Cow<'a, str>>,
        subtopic: impl Into<Cow<'a, str>>,
    ) -> Self {
        Self { channel: channel.into(), topic: topic.into(), subtopic: subtopic.into() }
    }

    /// Returns a copy that borrows nothing.
    #[must_use]
    pub fn to_owned(&self) -> Triple<'static> {
        Triple {
            channel: Cow::Owned(self.channel.to_string()),
            topic: Cow::Owned(self.topic.to_string()),
            subtopic: Cow::Owned(self.subtopic.to_string()),
        }
    }

    /// Returns the triple with topic and subtopic in ASCII lower case, as a channel with `fold_case` compares them.
    #[must_use]
    pub fn folded(&self) -> Triple<'_> {
        Triple { channel: Cow::Borrowed(&self.channel), topic: fold(&self.topic), subtopic: fold(&self.subtopic) }
    }

    /// Returns whether this is a triple of the channel `Broker`.
    #[must_use]
    pub fn is_broker(&self) -> bool {
        self.channel == BROKER
    }
}

/// Returns whether a channel is another spelling of `Broker`: in another ASCII case, or with white space around it.
#[inline]
pub(super) fn resembles_broker(channel: &str) -> bool {
    // Most channels begin with another letter, so the rest is not compared.
    let may_resemble =
        channel.bytes().next().is_some_and(|first| !matches!(first, b'!'..=b'~') || first | 0x20 == b'b');
    may_resemble && channel != BROKER && channel.trim().eq_ignore_ascii_case(BROKER)
}

impl fmt::Display for Triple<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.channel, self.topic, self.subtopic)
    }
}

/// Folds ASCII letters to lower case. There is no other folding in the protocol. Borrows if nothing changes.
#[must_use]
pub fn fold(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

/// A set of triples: each part a value or `*`; written `channel/topic/subtopic`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    /// `None` is `*`, which does not match `Broker`.
    pub channel: Option<Box<str>>,
    /// `None` is `*`.
    pub topic: Option<Box<str>>,
    /// `None` is `*`.
    pub subtopic: Option<Box<str>>,
}

impl Pattern {
    /// Returns a pattern of three parts. `*` and an absent part match every value.
    ///
    /// # Errors
    /// The part (`channel`, `topic`, `subtopic`) that is not a name, and the reason.
    pub fn from_parts(
        channel: Option<&str>,
        topic: Option<&str>,
        subtopic: Option<&str>,
    ) -> Result<Self, (&'static str, NameFault)> {
        let part = |name, text: Option<&str>| match text {
            None | Some(ANY) => Ok(None),
            Some(text) if text.contains(ANY) => Err((name, NameFault::PartlyAny)),
            Some(text) => check_part(text).map(|()| Some(Box::from(text))).map_err(|fault| (name, fault)),
        };
        Ok(Self {
            channel: part("channel", channel)?,
            topic: part("topic", topic)?,
            subtopic: part("subtopic", subtopic)?,
        })
    }

    /// Returns the first part that looks like another broker's wildcard (`#`, `>`, `+`, `a.>`), with its name.
    fn foreign_wildcard(&self) -> Option<(&'static str, &str)> {
        let parts = [("channel", &self.channel), ("topic", &self.topic), ("subtopic", &self.subtopic)];
        let is_foreign = |part: &str| {
            // Few parts have such a character, so few are split.
            let may_be = part.bytes().any(|byte| matches!(byte, b'#' | b'>' | b'+'));
            may_be && part.split('.').any(|token| matches!(token, "#" | ">" | "+"))
        };
        parts.into_iter().filter_map(|(name, part)| Some((name, part.as_deref()?))).find(|(_, part)| is_foreign(part))
    }

    /// Returns what to tell a person whose pattern has a part that looks like another broker's wildcard.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let (name, part) = self.foreign_wildcard()?;
        Some(format!("the {name} '{part}' matches only itself; the one wildcard is '*', which stands for a whole part"))
    }

    /// Returns the pattern that matches one triple only.
    #[must_use]
    pub fn exactly(triple: &Triple<'_>) -> Self {
        Self {
            channel: Some(Box::from(&*triple.channel)),
            topic: Some(Box::from(&*triple.topic)),
            subtopic: Some(Box::from(&*triple.subtopic)),
        }
    }

    /// Returns whether the triple is in this set. Letter case counts.
    #[must_use]
    pub fn matches(&self, triple: &Triple<'_>) -> bool {
        self.matches_by(triple, |own, value| own == value)
    }

    /// Returns whether the triple is in this set without regard to ASCII case, as protected patterns are compared.
    #[must_use]
    pub fn matches_any_case(&self, triple: &Triple<'_>) -> bool {
        let Self { channel, topic, subtopic } = self;
        // Most texts that are equal are in the same case.
        let same = |own: &str, value: &str| own == value || own.eq_ignore_ascii_case(value);
        let part = |own: &Option<Box<str>>, value: &str| own.as_deref().is_none_or(|own| same(own, value));
        // Subtopics first: they differ most often.
        part(subtopic, &triple.subtopic)
            && part(topic, &triple.topic)
            && part(channel, &triple.channel)
            && (channel.is_some() || !triple.is_broker())
    }

    fn matches_by(&self, triple: &Triple<'_>, same: impl Fn(&str, &str) -> bool) -> bool {
        let part = |pattern: &Option<Box<str>>, value: &str| pattern.as_deref().is_none_or(|own| same(own, value));
        (self.channel.is_some() || !triple.is_broker())
            && part(&self.channel, &triple.channel)
            && part(&self.topic, &triple.topic)
            && part(&self.subtopic, &triple.subtopic)
    }

    /// Returns whether every triple of `other` is in this set, without regard to ASCII case.
    #[must_use]
    pub fn covers_any_case(&self, other: &Self) -> bool {
        self.pairs(other).all(|(own, others)| match (own, others) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => own.eq_ignore_ascii_case(others),
        })
    }

    /// Returns whether some triple is in both sets, without regard to ASCII case.
    #[must_use]
    pub fn overlaps_any_case(&self, other: &Self) -> bool {
        self.pairs(other).all(|(own, others)| match (own, others) {
            (None, _) | (_, None) => true,
            (Some(own), Some(others)) => own.eq_ignore_ascii_case(others),
        })
    }

    /// Returns the set of triples in both sets, without regard to ASCII case: `None` if there are none. Where both have a
    /// name, it has that of `other`.
    #[must_use]
    pub fn common(&self, other: &Self) -> Option<Self> {
        let part = |own: &Option<Box<str>>, others: &Option<Box<str>>| others.clone().or_else(|| own.clone());
        self.overlaps_any_case(other).then(|| Self {
            channel: part(&self.channel, &other.channel),
            topic: part(&self.topic, &other.topic),
            subtopic: part(&self.subtopic, &other.subtopic),
        })
    }

    fn pairs<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (Option<&'a str>, Option<&'a str>)> {
        [(&self.channel, &other.channel), (&self.topic, &other.topic), (&self.subtopic, &other.subtopic)]
            .into_iter()
            .map(|(own, others)| (own.as_deref(), others.as_deref()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: &'_ Option<Box<str>>| part.as_deref().unwrap_or(ANY).to_owned();
        write!(f, "{}/{}/{}", part(&self.channel), part(&self.topic), part(&self.subtopic))
    }
}

/// The reason why a written pattern cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    /// It does not have three parts.
    #[error("a pattern has three parts, channel/topic/subtopic, each a name or '*'")]
    Parts,
    /// A part is not a name.
    #[error("the {0} of a pattern {1}")]
    Name(&'static str, NameFault),
}

impl std::str::FromStr for Pattern {
    type Err = PatternFault;

    fn from_str(text: &str) -> Result<Self, PatternFault> {
        let mut parts = text.split('/');
        let (Some(channel), Some(topic), Some(subtopic), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(PatternFault::Parts);
        };
        Self::from_parts(Some(channel), Some(topic), Some(subtopic))
            .map_err(|(part, fault)| PatternFault::Name(part, fault))
    }
}
