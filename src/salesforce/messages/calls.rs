//! [`Calls`]: the variables that applications have saved for a call. They are kept per user, in memory, for a limited time
//! and within limits. Does no I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::data::Variable;
use crate::config::CallVariables;
use crate::expiring::Expiring;
use wire::{ErrorCode, Refusal};

/// What a variable costs besides its name and value, in bytes.
pub(super) const VARIABLE_BYTES: usize = 64;

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

    /// The user.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The id of the call.
    pub(super) fn call(&self) -> &str {
        &self.call
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

/// The variables of all calls.
pub(super) struct Calls {
    state: Mutex<State>,
}

struct State {
    bounds: CallVariables,
    /// Limited by `bounds.total_bytes` instead of a number of entries, because every removed entry must be subtracted
    /// from `bytes`.
    variables: Expiring<CallKey, Vec<Kept>>,
    /// What the variables of each user take.
    shares: HashMap<Arc<str>, Share>,
    bytes: usize,
    stamp: u64,
}

/// What the variables of one user take.
#[derive(Clone, Copy, Default)]
struct Share {
    /// The number of calls with variables.
    calls: usize,
    bytes: usize,
}

impl Calls {
    /// An empty store with these limits.
    pub(super) fn new(bounds: &CallVariables) -> Self {
        let bounds = bounds.clone();
        let state = State { bounds, variables: Expiring::new(usize::MAX), shares: HashMap::new(), bytes: 0, stamp: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Changes the limits. Variables that are over a lower one stay. Each is kept for as long as if it had been saved under
    /// the new limits.
    pub(super) fn set_bounds(&self, now: Instant, bounds: &CallVariables) {
        let mut state = self.state.lock();
        state.expire(now);
        let before = std::mem::replace(&mut state.bounds, bounds.clone());
        state.variables.change_span(now, before.keep, bounds.keep);
    }

    /// Saves all of these variables or, on an error, none. A variable of the same name is replaced.
    pub(super) fn save(&self, now: Instant, key: &CallKey, variables: &[Variable]) -> Result<(), Refusal> {
        let mut state = self.state.lock();
        state.expire(now);
        let old = state.variables.get(now, key).map_or(&[][..], Vec::as_slice);
        let is_new = |name: &str| !old.iter().any(|it| it.name == name);
        let count = old.len() + variables.iter().filter(|(name, _)| is_new(name)).count();
        let before: usize = old.iter().map(Kept::bytes).sum();
        let replaced = old.iter().filter(|it| variables.iter().any(|(name, _)| *name == it.name));
        let after = before - replaced.map(Kept::bytes).sum::<usize>()
            + variables.iter().map(|(name, value)| bytes_of(name, value)).sum::<usize>();
        let own = state.shares.get(&key.user).copied().unwrap_or_default();
        let share = Share { calls: own.calls + usize::from(old.is_empty()), bytes: own.bytes - before + after };
        let CallVariables { variables: count_max, bytes, calls: calls_max, user_bytes, total_bytes, .. } = state.bounds;
        for (over, what, most, setting) in [
            (count > count_max, "variables of this call", count_max, "variables"),
            (after > bytes, "bytes of this call's variables", bytes, "bytes"),
            (share.calls > calls_max, "calls of this user that have variables", calls_max, "calls"),
            (share.bytes > user_bytes, "bytes of this user's variables", user_bytes, "user_bytes"),
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
        state.put(now, key, variables);
        state.bytes = state.bytes - before + after;
        state.shares.insert(Arc::clone(&key.user), share);
        Ok(())
    }

    /// Removes variables of a call.
    pub(super) fn remove(&self, now: Instant, key: &CallKey, names: &[String]) {
        let mut state = self.state.lock();
        state.expire(now);
        state.drop_variables(key, |kept| names.contains(&kept.name));
    }

    /// The variables of a call.
    pub(super) fn kept(&self, now: Instant, key: &CallKey) -> Vec<Kept> {
        let mut state = self.state.lock();
        state.expire(now);
        state.variables.get(now, key).cloned().unwrap_or_default()
    }

    /// Removes the variables that were written, unless they were saved again meanwhile.
    pub(super) fn written(&self, key: &CallKey, written: &[Kept]) {
        let mut state = self.state.lock();
        state.drop_variables(key, |kept| written.iter().any(|it| it.is(kept)));
    }
}

impl State {
    fn expire(&mut self, now: Instant) {
        let over = self.variables.expire(now);
        for (key, variables) in &over {
            self.give_back(&key.user, variables.iter().map(Kept::bytes).sum(), true);
        }
        if !over.is_empty() {
            let variables: usize = over.iter().map(|(_, variables)| variables.len()).sum();
            let (calls, keep) = (over.len(), self.bounds.keep);
            tracing::info!(
                calls,
                variables,
                ?keep,
                "variables expired unwritten: no event and no UpdateObject of their call arrived in time"
            );
        }
    }

    fn put(&mut self, now: Instant, key: &CallKey, variables: &[Variable]) {
        let kept = self.variables.touch(now, key, self.bounds.keep, Vec::new);
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
        let freed = kept.iter().filter(|it| over(it)).map(Kept::bytes).sum();
        kept.retain(|it| !over(it));
        let was_last = kept.is_empty();
        if was_last {
            self.variables.remove(key);
        }
        self.give_back(&key.user, freed, was_last);
    }

    /// Gives back what variables of a call took; `whole`: all of the call's.
    fn give_back(&mut self, user: &Arc<str>, bytes: usize, whole: bool) {
        self.bytes -= bytes;
        if let Some(share) = self.shares.get_mut(user) {
            share.bytes -= bytes;
            share.calls -= usize::from(whole);
            if share.calls == 0 {
                self.shares.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        assert!(state.shares.is_empty() && state.bytes == 0);
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

        let shared = calls(|it| it.user_bytes = 2 * (VARIABLE_BYTES + 2));
        shared.save(now, &one, &variables("x=1")).unwrap();
        shared.save(now, &two, &variables("x=1")).unwrap();
        shared.save(now, &two, &variables("x=2")).unwrap();
        assert!(refused(&shared, &two, "y=1").contains("salesforce.variables.user_bytes"));
        shared.save(now, &CallKey::new("bob", "2"), &variables("x=1 y=1")).unwrap();
        shared.written(&one, &shared.kept(now, &one));
        shared.save(now, &two, &variables("y=1")).unwrap();
        shared.save(now + 10 * S, &one, &variables("x=1 y=1")).unwrap();

        let full = calls(|it| it.total_bytes = VARIABLE_BYTES + 2);
        full.save(now, &one, &variables("x=1")).unwrap();
        assert!(refused(&full, &two, "x=1").contains("salesforce.variables.total_bytes"));
        full.save(now + 10 * S, &two, &variables("x=1")).unwrap();
    }

    #[test]
    fn other_bounds_hold_at_once_and_keep_what_is_there() {
        let (calls, now) = (calls(|_| {}), start());
        let (one, two) = (CallKey::new("alice", "1"), CallKey::new("alice", "2"));
        calls.save(now, &one, &variables("x=1 y=2")).unwrap();
        calls.save(now + 4 * S, &two, &variables("x=1")).unwrap();
        calls.set_bounds(now + 4 * S, &CallVariables { keep: 5 * S, variables: 1, ..CallVariables::default() });
        assert_eq!(shown(&calls, now + 4 * S, &one), "x=1 y=2");
        assert!(calls.save(now + 4 * S, &two, &variables("y=1")).is_err());
        assert_eq!((shown(&calls, now + 5 * S, &one), shown(&calls, now + 5 * S, &two)), (String::new(), "x=1".into()));
        assert_eq!(shown(&calls, now + 9 * S, &two), "");
        let state = calls.state.lock();
        assert!(state.shares.is_empty() && state.bytes == 0);
    }

    #[test]
    fn many_threads_leave_exactly_what_they_did_not_remove() {
        const THREADS: usize = 50;
        const CALLS: usize = 40;
        let now = start();
        let calls = calls(|_| {});
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let calls = &calls;
                scope.spawn(move || {
                    for number in 0..CALLS {
                        // Every two threads share a user, and each has calls of its own.
                        let key = CallKey::new(&format!("user {}", thread / 2), &format!("{thread}/{number}"));
                        calls.save(now, &key, &variables("x=1 y=2")).unwrap();
                        calls.written(&key, &calls.kept(now, &key).split_off(1));
                        if number.is_multiple_of(2) {
                            calls.remove(now, &key, &["x".to_owned()]);
                        }
                    }
                });
            }
        });
        let of_user = CALLS * (VARIABLE_BYTES + 2);
        let state = calls.state.lock();
        assert_eq!((state.bytes, state.shares.len(), state.variables.len()), (of_user * 25, 25, THREADS * CALLS / 2));
        assert!(state.shares.values().all(|it| (it.calls, it.bytes) == (CALLS, of_user)));
        drop(state);
        calls.state.lock().expire(now + 10 * S);
        let state = calls.state.lock();
        assert!(state.shares.is_empty() && state.bytes == 0);
    }
}
