//! [`Calls`]: the variables that applications have saved for a call, and the records that belong to a call. They are
//! kept per user, in memory, for a limited time and within limits. Does no I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::data::Variable;
use crate::config::CallVariables;
use crate::expiring::Expiring;
use wire::{ErrorCode, Refusal};

/// How many calls have known records. Beyond that, the oldest are forgotten.
const KNOWN_MAX: usize = 100_000;

/// What a variable costs besides its name and value, in bytes.
const VARIABLE_BYTES: usize = 64;

/// A call: its user and its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallKey {
    user: Arc<str>,
    call: Arc<str>,
}

impl CallKey {
    pub(super) fn new(user: &str, call: &str) -> Self {
        Self { user: Arc::from(user), call: Arc::from(call) }
    }

    /// The user that the call belongs to.
    pub(super) fn user(&self) -> &str {
        &self.user
    }
}

/// A saved variable.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The application's name for it.
    pub(super) name: String,
    /// Its value, unchanged.
    pub(super) value: Box<RawValue>,
    /// Changes each time the variable is saved.
    stamp: u64,
}

impl Kept {
    /// Returns whether it is the same variable, not saved again since.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.stamp == other.stamp
    }

    fn bytes(&self) -> usize {
        bytes_of(&self.name, &self.value)
    }
}

fn bytes_of(name: &str, value: &RawValue) -> usize {
    name.len() + value.get().len() + VARIABLE_BYTES
}

/// A record of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The NAME of its table `[salesforce.objects.NAME]`.
    pub(super) name: String,
    /// The record's id in Salesforce, of 18 characters.
    pub(super) id: String,
}

/// The variables and records of all calls.
pub(super) struct Calls {
    keep: Duration,
    bounds: CallVariables,
    state: Mutex<State>,
}

struct State {
    /// Limited by `bounds.total_bytes` instead of a number of entries, because every removed entry must be subtracted
    /// from `bytes`.
    variables: Expiring<CallKey, Vec<Kept>>,
    /// The number of calls with variables, per user.
    calls: HashMap<Arc<str>, usize>,
    bytes: usize,
    /// The records of each call, the one named last in front.
    records: Expiring<CallKey, Vec<Record>>,
    stamp: u64,
}

impl Calls {
    /// An empty store with these limits.
    pub(super) fn new(bounds: &CallVariables) -> Self {
        let state = State {
            variables: Expiring::new(usize::MAX),
            calls: HashMap::new(),
            bytes: 0,
            records: Expiring::new(KNOWN_MAX),
            stamp: 0,
        };
        Self { keep: bounds.keep, bounds: bounds.clone(), state: Mutex::new(state) }
    }

    /// Saves all of these variables or, on an error, none. A variable of the same name is replaced.
    pub(super) fn save(&self, now: Instant, key: &CallKey, variables: &[Variable]) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        self.expire(now, &mut state);
        let old = state.variables.get(now, key).map_or(&[][..], Vec::as_slice);
        let is_new = |name: &str| !old.iter().any(|it| it.name == name);
        let count = old.len() + variables.iter().filter(|(name, _)| is_new(name)).count();
        let before: usize = old.iter().map(Kept::bytes).sum();
        let replaced = old.iter().filter(|it| variables.iter().any(|(name, _)| *name == it.name));
        let after = before - replaced.map(Kept::bytes).sum::<usize>()
            + variables.iter().map(|(name, value)| bytes_of(name, value)).sum::<usize>();
        let calls = state.calls.get(&key.user).copied().unwrap_or_default() + usize::from(old.is_empty());
        let CallVariables { variables: count_max, bytes, calls: calls_max, total_bytes, .. } = self.bounds;
        for (over, what, most, setting) in [
            (count > count_max, "variables of this call", count_max, "variables"),
            (after > bytes, "bytes of this call's variables", bytes, "bytes"),
            (calls > calls_max, "calls of this user that have variables", calls_max, "calls"),
            (state.bytes - before + after > total_bytes, "bytes of all variables", total_bytes, "total_bytes"),
        ] {
            if over {
                return Err(Refusal::new(
                    ErrorCode::TooLarge,
                    format!(
                        "more than {most} {what} are not kept (salesforce.variables.{setting}); remove some, or wait until they are written"
                    ),
                ));
            }
        }
        if variables.is_empty() {
            return Ok(());
        }
        state.put(now, key, variables, self.keep);
        state.bytes = state.bytes - before + after;
        state.calls.insert(Arc::clone(&key.user), calls);
        Ok(())
    }

    /// Removes variables of a call.
    pub(super) fn remove(&self, now: Instant, key: &CallKey, names: &[String]) {
        let mut state = self.state.lock();
        self.expire(now, &mut state);
        state.drop_variables(key, |kept| names.contains(&kept.name));
    }

    /// The variables of a call.
    pub(super) fn kept(&self, now: Instant, key: &CallKey) -> Vec<Kept> {
        let mut state = self.state.lock();
        self.expire(now, &mut state);
        state.variables.get(now, key).cloned().unwrap_or_default()
    }

    /// Removes the variables that were written, unless they were saved again meanwhile.
    pub(super) fn written(&self, key: &CallKey, written: &[Kept]) {
        let mut state = self.state.lock();
        state.drop_variables(key, |kept| written.iter().any(|it| it.is(kept)));
    }

    /// Remembers a record of a call, in place of an earlier one of the same NAME.
    pub(super) fn know(&self, now: Instant, key: &CallKey, record: Record) {
        let mut state = self.state.lock();
        self.expire(now, &mut state);
        let records = state.records.touch(now, key, self.keep, Vec::new);
        records.retain(|it| it.name != record.name);
        records.insert(0, record);
    }

    /// The records of a call, the one named last in front.
    pub(super) fn records(&self, now: Instant, key: &CallKey) -> Vec<Record> {
        let mut state = self.state.lock();
        self.expire(now, &mut state);
        state.records.get(now, key).cloned().unwrap_or_default()
    }

    fn expire(&self, now: Instant, state: &mut State) {
        let over = state.variables.expire(now);
        state.records.expire(now);
        for (key, variables) in &over {
            state.bytes -= variables.iter().map(Kept::bytes).sum::<usize>();
            state.count_out(&key.user);
        }
        if !over.is_empty() {
            let variables: usize = over.iter().map(|(_, variables)| variables.len()).sum();
            let (calls, keep) = (over.len(), self.keep);
            tracing::info!(
                calls,
                variables,
                ?keep,
                "variables expired unwritten: no event and no UpdateObject of their call arrived in time"
            );
        }
    }
}

impl State {
    fn put(&mut self, now: Instant, key: &CallKey, variables: &[Variable], keep: Duration) {
        let kept = self.variables.touch(now, key, keep, Vec::new);
        for (name, value) in variables {
            self.stamp += 1;
            let variable = Kept { name: name.clone(), value: value.clone(), stamp: self.stamp };
            match kept.iter_mut().find(|it| it.name == *name) {
                Some(old) => *old = variable,
                None => kept.push(variable),
            }
        }
    }

    fn drop_variables(&mut self, key: &CallKey, over: impl Fn(&Kept) -> bool) {
        let Some(kept) = self.variables.get_mut(key) else { return };
        self.bytes -= kept.iter().filter(|it| over(it)).map(Kept::bytes).sum::<usize>();
        kept.retain(|it| !over(it));
        if kept.is_empty() {
            self.variables.remove(key);
            self.count_out(&key.user);
        }
    }

    fn count_out(&mut self, user: &Arc<str>) {
        if let Some(calls) = self.calls.get_mut(user) {
            *calls -= 1;
            if *calls == 0 {
                self.calls.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        Instant::now()
    }

    fn calls(change: impl FnOnce(&mut CallVariables)) -> Calls {
        let mut bounds = CallVariables { keep: 10 * S, ..CallVariables::default() };
        change(&mut bounds);
        Calls::new(&bounds)
    }

    fn variables(text: &str) -> Vec<Variable> {
        let raw = |value: &str| RawValue::from_string(value.to_owned()).unwrap();
        text.split_whitespace().filter_map(|it| it.split_once('=')).map(|(k, v)| (k.to_owned(), raw(v))).collect()
    }

    fn shown(calls: &Calls, now: Instant, key: &CallKey) -> String {
        let kept = calls.kept(now, key);
        kept.iter().map(|it| format!("{}={}", it.name, it.value)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn variables_are_kept_for_a_user_and_a_call_until_their_time_is_over() {
        let (calls, now) = (calls(|_| {}), start());
        let (a, b) = (CallKey::new("alice", "1"), CallKey::new("bob", "1"));
        calls.save(now, &a, &variables("x=1 y=2")).unwrap();
        calls.save(now + 5 * S, &a, &variables("x=3")).unwrap();
        calls.save(now, &b, &variables("x=9")).unwrap();
        assert_eq!(shown(&calls, now + 9 * S, &a), "x=3 y=2");
        assert_eq!(shown(&calls, now + 10 * S, &b), "");
        assert_eq!(shown(&calls, now + 14 * S, &a), "x=3 y=2", "it changed last at 5 s");
        calls.remove(now + 14 * S, &a, &["y".to_owned(), "none".to_owned()]);
        assert_eq!(shown(&calls, now + 14 * S, &a), "x=3");
        assert_eq!(shown(&calls, now + 15 * S, &a), "");
        let state = calls.state.lock();
        assert!(state.calls.is_empty() && state.bytes == 0);
    }

    #[test]
    fn what_was_saved_anew_while_it_was_written_stays() {
        let (calls, now) = (calls(|_| {}), start());
        let key = CallKey::new("alice", "1");
        calls.save(now, &key, &variables("x=1 y=2")).unwrap();
        let taken = calls.kept(now, &key);
        calls.save(now, &key, &variables("x=1")).unwrap();
        calls.written(&key, &taken);
        assert_eq!(shown(&calls, now, &key), "x=1");
        calls.written(&key, &calls.kept(now, &key));
        assert_eq!(shown(&calls, now, &key), "");
        assert_eq!(calls.state.lock().bytes, 0);
    }

    #[test]
    fn each_bound_refuses_and_keeps_what_was_there() {
        let now = start();
        let (one, two) = (CallKey::new("alice", "1"), CallKey::new("alice", "2"));
        let refused =
            |calls: &Calls, key, text| calls.save(now, key, &variables(text)).unwrap_err().message.into_owned();

        let few = calls(|it| it.variables = 2);
        few.save(now, &one, &variables("x=1 y=2")).unwrap();
        few.save(now, &one, &variables("x=5")).unwrap();
        assert!(refused(&few, &one, "z=3").contains("more than 2 variables of this call"));
        assert_eq!(shown(&few, now, &one), "x=5 y=2");

        let small = calls(|it| it.bytes = 2 * (VARIABLE_BYTES + 2));
        small.save(now, &one, &variables("x=1 y=2")).unwrap();
        assert!(refused(&small, &one, "x=11").contains("salesforce.variables.bytes"));

        let narrow = calls(|it| it.calls = 1);
        narrow.save(now, &one, &variables("x=1")).unwrap();
        assert!(refused(&narrow, &two, "x=1").contains("salesforce.variables.calls"));
        narrow.save(now, &CallKey::new("bob", "2"), &variables("x=1")).unwrap();
        narrow.remove(now, &one, &["x".to_owned()]);
        narrow.save(now, &two, &variables("x=1")).unwrap();

        let full = calls(|it| it.total_bytes = VARIABLE_BYTES + 2);
        full.save(now, &one, &variables("x=1")).unwrap();
        assert!(refused(&full, &two, "x=1").contains("salesforce.variables.total_bytes"));
        full.save(now + 10 * S, &two, &variables("x=1")).unwrap();
    }

    #[test]
    fn the_records_of_a_call_are_known_the_last_named_first() {
        let (calls, now) = (calls(|_| {}), start());
        let key = CallKey::new("alice", "1");
        for (name, id) in [("Task", "00T1"), ("Case", "5001"), ("Task", "00T2")] {
            calls.know(now, &key, Record { name: name.to_owned(), id: id.to_owned() });
        }
        let ids: Vec<_> = calls.records(now, &key).into_iter().map(|it| it.id).collect();
        assert_eq!(ids, ["00T2", "5001"]);
        assert!(calls.records(now, &CallKey::new("bob", "1")).is_empty());
        assert!(calls.records(now + 10 * S, &key).is_empty());
    }
}
