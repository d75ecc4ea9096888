//! [`Mistakes`]: all that is wrong with a configuration, told together, each with its [`Place`].
//!
//! A mistake never quotes a value: what someone wrote into the wrong key may be a secret.

use std::fmt;
use std::path::PathBuf;

/// Where something was written. Ordered as mistakes are listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line and the column in characters, both from 1; `None` if it concerns the whole file.
        at: Option<(usize, usize)>,
    },
    /// In an environment variable.
    Variable(String),
    /// In a flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, at: Some((line, _)) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, at: None } => path.display().fmt(f),
            Self::Variable(name) => f.write_str(&printable(name)),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it was written.
    pub place: Place,
    /// The key, as in `limits.rate` or `applications[0].source`; `None` if it concerns the whole text.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The nearest known key, variable or word, for something unknown.
    pub nearest: Option<String>,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File { path, at: Some((line, _)) } => write!(f, "{}:{line}: ", path.display())?,
            Place::File { path, at: None } => write!(f, "{}: ", path.display())?,
            Place::Variable(_) => f.write_str("environment: ")?,
            Place::Flag(_) => f.write_str("command line: ")?,
        }
        match (&self.place, &self.key) {
            (Place::Variable(name), _) => write!(f, "{}: ", printable(name))?,
            (Place::Flag(name), _) => write!(f, "{name}: ")?,
            (Place::File { .. }, Some(key)) => write!(f, "{key}: ")?,
            (Place::File { .. }, None) => {}
        }
        f.write_str(&self.message)?;
        match &self.nearest {
            Some(nearest) => write!(f, "\n  hint: did you mean {nearest}?"),
            None => Ok(()),
        }
    }
}

/// Every mistake of a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// The mistakes, in the order of their places.
    #[must_use]
    pub fn list(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    /// One mistake after the other, each on lines of its own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, mistake) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "\n" };
            write!(f, "{separator}{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Collects mistakes while a configuration is read.
#[derive(Default)]
pub(crate) struct Report {
    mistakes: Vec<Mistake>,
}

impl Report {
    /// Notes a mistake about a key.
    pub(crate) fn add(&mut self, place: &Place, key: impl Into<String>, message: impl Into<String>) {
        self.push(Mistake { place: place.clone(), key: Some(key.into()), message: message.into(), nearest: None });
    }

    /// Notes a mistake.
    pub(crate) fn push(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// Whether something was noted about this key: what cannot be read is not missing too.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.mistakes.iter().any(|mistake| mistake.key.as_deref() == Some(key))
    }

    /// Whether something was noted about this key or an element of it.
    pub(crate) fn has_within(&self, key: &str) -> bool {
        let about =
            |noted: &str| noted.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']));
        self.mistakes.iter().any(|mistake| mistake.key.as_deref().is_some_and(about))
    }

    /// How many mistakes were noted so far.
    pub(crate) fn len(&self) -> usize {
        self.mistakes.len()
    }

    /// Whether nothing was noted so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.mistakes.is_empty()
    }

    /// Adds what another report found.
    pub(crate) fn extend(&mut self, other: impl IntoIterator<Item = Mistake>) {
        self.mistakes.extend(other);
    }

    /// The mistakes noted, in the order of their places; `Ok` if there is none.
    pub(crate) fn finish(mut self) -> Result<(), Mistakes> {
        if self.mistakes.is_empty() {
            return Ok(());
        }
        self.mistakes.sort_by(|a, b| a.place.cmp(&b.place));
        Err(Mistakes(self.mistakes))
    }

    /// Gives the mistakes back, unsorted.
    pub(crate) fn into_mistakes(self) -> Vec<Mistake> {
        self.mistakes
    }
}

/// A name from outside in one short line: control characters escaped (a terminal would obey them), the rest cut off.
pub(crate) fn printable(name: &str) -> String {
    const CHARACTERS_MAX: usize = 80;
    let mut text: String = name.chars().take(CHARACTERS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(CHARACTERS_MAX).is_some() {
        text.push('…');
    }
    text
}

/// The candidate that is most like a name, if one is like it at all.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    // The measure is quadratic in the length, and nothing longer is like any key.
    const BYTES_MAX: usize = 100;
    if name.len() > BYTES_MAX {
        return None;
    }
    let measured = candidates.into_iter().map(|candidate| (unlikeness(name, candidate), candidate));
    let (distance, candidate) = measured.min_by_key(|(distance, _)| *distance)?;
    (distance <= (candidate.len() / 3).max(1)).then(|| candidate.to_owned())
}

/// How many slips of the finger lie between a name and a candidate.
fn unlikeness(name: &str, candidate: &str) -> usize {
    strsim::damerau_levenshtein(&name.to_ascii_lowercase(), &candidate.to_ascii_lowercase())
}

/// What other programs call the key `listen`, or a part of it.
const LISTEN_ELSEWHERE: &[&str] = &[
    "port",
    "host",
    "hostname",
    "bind",
    "bind_address",
    "address",
    "addr",
    "interface",
    "listen_address",
    "listeners",
];

/// Tables in which such a name means the broker itself.
const SERVER_TABLES: &[Option<&str>] = &[None, Some("http"), Some("server")];

/// The known key that was probably meant by an unknown one: the most similar one of the same table. For a name outside
/// any table, also the only key of that name in a table; a key of a table that has nothing to do with it would mislead.
pub(crate) fn nearest_key<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let (table, own) = parts(name);
    let is_listen = LISTEN_ELSEWHERE.iter().any(|other| own.eq_ignore_ascii_case(other));
    if is_listen && SERVER_TABLES.contains(&table) && known.contains(&"listen") {
        return Some("listen".to_owned());
    }
    let beside = known.iter().filter(|key| parts(key).0 == table).map(|key| parts(key).1);
    if let Some(nearest) = nearest(own, beside) {
        return Some(table.map_or_else(|| nearest.clone(), |table| format!("{table}.{nearest}")));
    }
    let depth = |key: &str| key.matches('.').count();
    let of_that_name = || known.iter().filter(|key| table.is_none() && parts(key).1.eq_ignore_ascii_case(own));
    let least = of_that_name().map(|key| depth(key)).min()?;
    let mut shallow = of_that_name().filter(|key| depth(key) == least);
    shallow.next().filter(|_| shallow.next().is_none()).map(|key| (*key).to_owned())
}

/// The table and the last part of a key.
fn parts(key: &str) -> (Option<&str>, &str) {
    key.rsplit_once('.').map_or((None, key), |(table, own)| (Some(table), own))
}
