//! [`Creations`]: the records that are being created or were created, so that a repeated request creates no second one.
//! A repetition joins the first request, or gets its outcome. Does no I/O.
//!
//! It is in memory, and outcomes expire. The External ID of a record in the org does not, so the org is searched whenever
//! a request might repeat one that is not remembered: after a start, and after an outcome was forgotten early.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use super::creation::{Before, Created, Creation, Failed, Outcome, Waiting};
use super::values::Values;
use crate::config::CreationBounds;
use crate::expiring::Expiring;
use wire::{ErrorCode, Refusal};

/// How long an outcome is remembered.
const KEEP: Duration = Duration::from_mins(10);

/// The most bytes of found values that are remembered. One record has at most as many as an answer that is read, 1 MiB.
const FOUND_BYTES_MAX: usize = 16 << 20;

/// What there is to do for a request.
pub(super) enum Begun {
    /// Create the record, and wait.
    New(Arc<Creation>, Before, Waiting),
    /// Wait for the same record.
    Running(Waiting),
    /// Nothing: it was created.
    Done(Created),
}

/// The creations of all users.
pub(super) struct Creations {
    state: Mutex<State>,
}

struct State {
    bounds: CreationBounds,
    running: HashMap<String, Arc<Creation>>,
    /// How many of `running` are of each user.
    of_user: HashMap<Arc<str>, usize>,
    over: Expiring<String, Over>,
    /// The bytes of found values in `over`.
    found_bytes: usize,
    /// Until then, a request may repeat one that is not in `over`.
    unknown_until: Instant,
}

/// A creation that has ended, as far as it concerns a repetition.
enum Over {
    /// The record is in the org.
    Created(Values, Created),
    /// The org may have created it with these values.
    AsAsked(Values),
    /// The org may have it, with values that are not known.
    Unknown,
}

impl Over {
    /// `None`: there is nothing to remember, because the org does not have the record.
    fn of(values: &Values, outcome: &Outcome) -> Option<Self> {
        match outcome {
            Ok(created) => Some(Self::Created(values.clone(), created.clone())),
            Err(Failed { before_next: Before::AsAsked, .. }) => Some(Self::AsAsked(values.clone())),
            Err(Failed { before_next: Before::Unknown, .. }) => Some(Self::Unknown),
            Err(Failed { before_next: Before::Absent, .. }) => None,
        }
    }

    fn found_bytes(&self) -> usize {
        match self {
            Self::Created(_, created) => created.found_bytes(),
            Self::AsAsked(_) | Self::Unknown => 0,
        }
    }
}

impl Creations {
    /// Knows nothing yet, so that until `KEEP` is over any request may repeat one of an earlier process.
    pub(super) fn new(now: Instant, bounds: &CreationBounds) -> Self {
        let state = State {
            bounds: bounds.clone(),
            running: HashMap::new(),
            of_user: HashMap::new(),
            // Limited by `bounds.remembered`: what is forgotten early has to be noted.
            over: Expiring::new(usize::MAX),
            found_bytes: 0,
            unknown_until: now + KEEP,
        };
        Self { state: Mutex::new(state) }
    }

    /// Changes the bounds. Creations in progress stay; outcomes beyond `remembered` are forgotten.
    pub(super) fn set_bounds(&self, bounds: &CreationBounds) {
        let mut state = self.state.lock();
        state.bounds = bounds.clone();
        let most = bounds.remembered;
        state.make_room(most, 0);
    }

    /// Begins a creation, which has to be ended with [`Creations::end`], unless it was begun before. A request that is not
    /// `repeatable` repeats none.
    pub(super) fn begin(
        &self,
        now: Instant,
        (key, user): (&str, &str),
        values: Values,
        repeatable: bool,
    ) -> Result<Begun, Refusal> {
        let mut state = self.state.lock();
        state.expire(now);
        if let Some(creation) = state.running.get(key) {
            creation.values.compare(&values)?;
            return Ok(Begun::Running(Waiting::new(creation)));
        }
        let before = match state.over.get(now, key) {
            Some(Over::Created(earlier, created)) => {
                earlier.compare(&values)?;
                return Ok(Begun::Done(created.clone()));
            }
            Some(Over::AsAsked(earlier)) => {
                earlier.compare(&values)?;
                Before::AsAsked
            }
            Some(Over::Unknown) => Before::Unknown,
            None if repeatable && now < state.unknown_until => Before::Unknown,
            None => Before::Absent,
        };
        let user: Arc<str> = Arc::from(user);
        let own = state.of_user.get(&user).copied().unwrap_or_default();
        let CreationBounds { in_progress, of_user, .. } = state.bounds;
        for (count, most, whose, setting) in
            [(state.running.len(), in_progress, "", "in_progress"), (own, of_user, " of this user", "of_user")]
        {
            if count >= most {
                return Err(Refusal::new(
                    ErrorCode::TooManyRequests,
                    format!(
                        "{most} records{whose} are being created already (salesforce.creations.{setting}); try again in a \
                         moment"
                    ),
                ));
            }
        }
        let creation = Arc::new(Creation::new(key, &user, values, repeatable));
        state.of_user.insert(user, own + 1);
        state.running.insert(key.to_owned(), Arc::clone(&creation));
        let waiting = Waiting::new(&creation);
        Ok(Begun::New(creation, before, waiting))
    }

    /// Ends a creation, and remembers its outcome if it is `repeatable`. Returns whether nobody waits for it, so that the
    /// caller has to announce the record.
    pub(super) fn end(&self, now: Instant, creation: &Creation, outcome: Outcome) -> bool {
        let mut state = self.state.lock();
        state.expire(now);
        if state.running.remove(&creation.key).is_some() {
            state.count_out(&creation.user);
        }
        state.forget(&creation.key);
        if creation.repeatable
            && let Some(over) = Over::of(&creation.values, &outcome)
        {
            state.remember(now, creation.key.clone(), over);
        }
        // Under the lock of the state: a repetition joins before the outcome is there, or finds it remembered.
        creation.end(outcome)
    }
}

impl State {
    fn remember(&mut self, now: Instant, key: String, over: Over) {
        let bytes = over.found_bytes();
        self.make_room(self.bounds.remembered.saturating_sub(1), bytes);
        self.found_bytes += bytes;
        self.over.insert(now, key, over, KEEP);
    }

    /// Forgets outcomes until there are at most `most`, and room for `bytes` of found values.
    fn make_room(&mut self, most: usize, bytes: usize) {
        while (self.over.len() > most || self.found_bytes + bytes > FOUND_BYTES_MAX)
            && let Some(forgotten) = self.over.deadline()
        {
            self.expire(forgotten);
            self.unknown_until = self.unknown_until.max(forgotten);
        }
    }

    fn expire(&mut self, now: Instant) {
        let bytes: usize = self.over.expire(now).iter().map(|(_, over)| over.found_bytes()).sum();
        self.found_bytes -= bytes;
    }

    fn forget(&mut self, key: &str) {
        self.found_bytes -= self.over.remove(key).map_or(0, |over| over.found_bytes());
    }

    fn count_out(&mut self, user: &Arc<str>) {
        if let Some(count) = self.of_user.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.of_user.remove(user);
            }
        }
    }
}

/// The key that identifies a request, in 64 hex digits. It includes the call and the object because some applications
/// restart their ids with each page.
pub(super) fn key(parts: [&str; 5]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::value::RawValue;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        Instant::now()
    }

    fn values(text: &str) -> Values {
        let raw = |value: &str| RawValue::from_string(value.to_owned()).unwrap();
        let pairs = text.split_whitespace().filter_map(|it| it.split_once('='));
        Values::of(&pairs.map(|(name, value)| (name.to_owned(), raw(value))).collect::<Vec<_>>())
    }

    fn creations(now: Instant, change: impl FnOnce(&mut CreationBounds)) -> Creations {
        let mut bounds = CreationBounds::default();
        change(&mut bounds);
        Creations::new(now, &bounds)
    }

    fn created() -> Created {
        Created { id: "00T1".to_owned(), found: None }
    }

    /// A record that was found with a value of this length.
    fn found(bytes: usize) -> Created {
        let value = RawValue::from_string("1".repeat(bytes)).unwrap();
        Created { found: Some([("Subject".to_owned(), value)].into()), ..created() }
    }

    fn failed(before_next: Before) -> Failed {
        Failed { refusal: Refusal::new(ErrorCode::UpstreamUnavailable, ""), before_next }
    }

    fn begun(creations: &Creations, now: Instant, key: &str, text: &str) -> (Arc<Creation>, Before, Waiting) {
        match creations.begin(now, (key, "alice"), values(text), true) {
            Ok(Begun::New(creation, before, waiting)) => (creation, before, waiting),
            Ok(_) => panic!("{key} was begun before"),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    #[tokio::test]
    async fn a_repetition_joins_and_later_gets_the_outcome_and_one_of_all_announces_it() {
        let now = start();
        let creations = creations(now, |_| {});
        let (creation, _, first) = begun(&creations, now, "k", "a=1");
        let Ok(Begun::Running(second)) = creations.begin(now, ("k", "alice"), values("a=1"), true) else { panic!() };
        assert!(!creations.end(now, &creation, Ok(created())), "somebody waits");
        tokio::join!(first.ended(), second.ended());
        let announced = |waiting: Waiting| waiting.leave().map(|(outcome, announces)| (outcome.unwrap().id, announces));
        let expected = |announces| Some((created().id, announces));
        assert_eq!((announced(second), announced(first)), (expected(true), expected(false)));
        let Ok(Begun::Done(done)) = creations.begin(now + 599 * S, ("k", "alice"), values("a=1"), true) else {
            panic!()
        };
        assert_eq!(done.id, created().id);

        let (creation, _, gave_up) = begun(&creations, now, "l", "");
        assert!(gave_up.leave().is_none());
        assert!(creations.end(now, &creation, Ok(created())), "nobody waits any more");
        let (creation, _, late) = begun(&creations, now, "m", "");
        creations.end(now, &creation, Err(failed(Before::Absent)));
        assert!(late.leave().is_some_and(|(outcome, announces)| outcome.is_err() && !announces));
    }

    #[test]
    fn an_id_that_was_used_for_other_values_is_refused_until_the_values_are_known_not_to_be_written() {
        let now = start();
        let creations = creations(now, |_| {});
        let other =
            |text| creations.begin(now, ("k", "alice"), values(text), true).err().map(|it| it.message.into_owned());
        let differs = |names: &str| {
            format!(
                "this id was used for other values: data.params differs in {names}; give each record an id of its own"
            )
        };
        let (creation, _, _waiting) = begun(&creations, now, "k", r#"a="x" b=2 c="secret""#);
        assert_eq!(other(r#"a="\u0078" b=2 c="secret""#), None, "the same value in another notation");
        assert_eq!(other(r#"a="y" c="secret" d=1"#), Some(differs("'a', 'b', 'd'")));
        creations.end(now, &creation, Err(failed(Before::AsAsked)));
        assert_eq!(other("b=2"), Some(differs("'a', 'c'")));
        let (creation, before, _waiting) = begun(&creations, now, "k", r#"a="x" b=2 c="secret""#);
        assert_eq!(before, Before::AsAsked);
        creations.end(now, &creation, Ok(created()));
        assert_eq!(other("a=1"), Some(differs("'a', 'b', 'c'")));

        let (creation, _, _waiting) = begun(&creations, now, "l", "a=1");
        creations.end(now, &creation, Err(failed(Before::Absent)));
        begun(&creations, now, "l", "a=2");
    }

    #[test]
    fn a_record_whose_values_are_not_known_is_searched_for_again_whatever_the_request_wants() {
        let creations = creations(start(), |_| {});
        let now = start() + KEEP;
        let (creation, before, _waiting) = begun(&creations, now, "k", "a=1");
        assert_eq!(before, Before::Absent);
        creations.end(now, &creation, Err(failed(Before::Unknown)));
        let (creation, before, _waiting) = begun(&creations, now + S, "k", "a=2");
        assert_eq!(before, Before::Unknown);
        creations.end(now + S, &creation, Ok(found(1)));
        let Ok(Begun::Done(done)) = creations.begin(now + S, ("k", "alice"), values("a=2"), true) else { panic!() };
        assert_eq!(done.found.unwrap()[0].1.get(), "1");
    }

    #[test]
    fn the_bytes_of_found_values_are_bounded() {
        const MIB: usize = 1 << 20;
        let creations = creations(start(), |_| {});
        let now = start() + KEEP;
        for number in 0..40 {
            let (creation, _, _waiting) = begun(&creations, now + number * S, &number.to_string(), "");
            creations.end(now + number * S, &creation, Ok(found(MIB)));
            assert!(creations.state.lock().found_bytes <= FOUND_BYTES_MAX);
        }
        let done =
            |key: &str| matches!(creations.begin(now + 40 * S, (key, "alice"), values(""), true), Ok(Begun::Done(_)));
        assert!(done("39") && done("30"), "the newest are remembered");
        assert_eq!(begun(&creations, now + 40 * S, "0", "").1, Before::Unknown, "it was forgotten before its time");
        creations.state.lock().expire(now + 40 * S + KEEP);
        assert_eq!(creations.state.lock().found_bytes, 0);
    }

    #[test]
    fn the_org_is_searched_while_a_request_may_repeat_one_that_is_not_remembered() {
        let now = start();
        let creations = creations(now, |it| it.remembered = 2);
        let before = |now, key: &str| begun(&creations, now, key, "").1;
        assert_eq!((before(now, "a"), before(now + KEEP, "b")), (Before::Unknown, Before::Absent));
        let no_id = creations.begin(now, ("c", "alice"), Values::default(), false);
        assert!(matches!(no_id, Ok(Begun::New(_, Before::Absent, _))));

        let later = now + 2 * KEEP;
        for (seconds, key) in [(0, "d"), (1, "e"), (2, "f")] {
            let (creation, before, _waiting) = begun(&creations, later + seconds * S, key, "");
            assert_eq!(before, Before::Absent);
            creations.end(later + seconds * S, &creation, Ok(created()));
        }
        assert_eq!(before(later + 3 * S, "d"), Before::Unknown, "it was forgotten before its time");
        assert_eq!(before(later + KEEP, "g"), Before::Absent);
    }

    #[test]
    fn what_is_in_progress_is_bounded_in_all_and_for_each_user() {
        let now = start();
        let creations = creations(now, |it| (it.in_progress, it.of_user) = (3, 2));
        let begin = |key: &str, user: &str| match creations.begin(now, (key, user), Values::default(), true) {
            Ok(Begun::New(creation, ..)) => Ok(creation),
            Ok(_) => panic!("{key} was begun before"),
            Err(refusal) => Err((refusal.code, refusal.message.into_owned())),
        };
        let refused = |outcome: Result<Arc<Creation>, (ErrorCode, String)>, setting: &str| {
            let (code, message) = outcome.err().unwrap();
            assert!(code == ErrorCode::TooManyRequests && message.contains(setting), "{message}");
        };
        let first = begin("a", "alice").unwrap();
        begin("b", "alice").unwrap();
        refused(begin("c", "alice"), "salesforce.creations.of_user");
        begin("c", "bob").unwrap();
        refused(begin("d", "carol"), "salesforce.creations.in_progress");
        creations.end(now, &first, Err(failed(Before::AsAsked)));
        begin("d", "alice").unwrap();
        refused(begin("e", "alice"), "salesforce.creations");
    }

    #[test]
    fn other_bounds_hold_at_once_and_what_is_forgotten_early_is_searched_for() {
        let start = start();
        let creations = creations(start, |_| {});
        let now = start + KEEP;
        let (first, ..) = begun(&creations, now, "running", "");
        for (seconds, key) in [(0, "a"), (1, "b"), (2, "c")] {
            let (creation, before, _waiting) = begun(&creations, now + seconds * S, key, "");
            assert_eq!(before, Before::Absent);
            creations.end(now + seconds * S, &creation, Ok(created()));
        }
        let bounds = CreationBounds { remembered: 1, in_progress: 1, ..CreationBounds::default() };
        creations.set_bounds(&bounds);
        let begin = |now, key: &str| creations.begin(now, (key, "alice"), Values::default(), true);
        assert!(matches!(begin(now + 2 * S, "c"), Ok(Begun::Done(_))), "the newest is remembered");
        let refused = begin(now + 2 * S, "d").err().unwrap();
        assert!(refused.message.contains("1 records are being created"), "{refused}");
        creations.end(now + 2 * S, &first, Err(failed(Before::Absent)));
        assert_eq!(begun(&creations, now + 3 * S, "a", "").1, Before::Unknown, "it was forgotten early");
    }

    #[test]
    fn many_threads_create_each_record_once_and_leave_nothing_in_progress() {
        const THREADS: usize = 100;
        const KEYS: usize = 50;
        let now = start();
        let creations = creations(now, |it| (it.in_progress, it.of_user) = (KEYS, KEYS));
        let (made, announced, joined) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (creations, made, announced, joined) = (&creations, &made, &announced, &joined);
                scope.spawn(move || {
                    for number in 0..KEYS {
                        let number = (number + thread) % KEYS;
                        let key = number.to_string();
                        let user = format!("user {}", number % 7);
                        let begun = creations.begin(now, (&key, &user), values("a=1"), true).unwrap();
                        let waiting = match begun {
                            Begun::New(creation, _, waiting) => {
                                made.fetch_add(1, Ordering::Relaxed);
                                // Some requesters give up before the record is there.
                                let waiting = Some(waiting).filter(|_| !number.is_multiple_of(3));
                                if creations.end(now, &creation, Ok(created())) {
                                    announced.fetch_add(1, Ordering::Relaxed);
                                }
                                waiting
                            }
                            Begun::Running(waiting) => Some(waiting),
                            Begun::Done(_) => None,
                        };
                        joined.fetch_add(1, Ordering::Relaxed);
                        if waiting.and_then(Waiting::leave).is_some_and(|(_, announces)| announces) {
                            announced.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let count = |it: AtomicUsize| it.into_inner();
        assert_eq!((count(made), count(announced), count(joined)), (KEYS, KEYS, THREADS * KEYS));
        let state = creations.state.into_inner();
        assert_eq!((state.running.len(), state.of_user.len(), state.over.len()), (0, 0, KEYS));
    }

    #[test]
    fn a_key_is_of_one_request_alone() {
        let one = key(["a", "b", "c", "d", "e"]);
        assert_eq!(one.len(), 64);
        assert_ne!(one, key(["ab", "", "c", "d", "e"]));
        assert_eq!(one, key(["a", "b", "c", "d", "e"]));
    }
}
