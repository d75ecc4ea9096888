//! [`FetchedKeys`]: the key set of an issuer that is fetched again and again, and how sessions wait for it.
//!
//! Nothing here does I/O. One task of the server fetches when [`FetchedKeys::due`] is ready, between [`FetchedKeys::begin`]
//! and [`FetchedKeys::finish`]; all sessions that need a newer set await the same fetch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time;

use super::{Found, KeySet};
use crate::auth::AuthError;

/// How long a session waits for a fetch.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time between two fetches that unknown key ids cause.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// The wait after the first failed fetch. It doubles.
const RETRY_FIRST: Duration = Duration::from_secs(5);

/// How long keys stay in use while fetches fail.
const STALE_MAX: Duration = Duration::from_hours(24);

const NOT_FETCHED: &str = "the issuer's keys cannot be fetched; try again later";

/// The keys of an issuer that publishes them at an address.
pub struct FetchedKeys {
    issuer: Arc<str>,
    algorithms: Vec<Algorithm>,
    refresh: Duration,
    state: Mutex<State>,
    /// Wakes the task that fetches.
    wanted: Notify,
    /// Counts the fetches that have ended.
    ended: watch::Sender<u64>,
}

struct State {
    known: Option<Arc<KeySet>>,
    /// When they were fetched.
    fetched: Option<Instant>,
    /// Failed fetches since the last good one, and when the first of them ended.
    failures: u32,
    failing_since: Option<Instant>,
    /// When the next fetch begins, unless a session wants it earlier.
    due: Instant,
    /// A session wants a fetch at once.
    wanted: bool,
    in_progress: bool,
    /// When an unknown key id last caused a fetch.
    asked: Option<Instant>,
}

/// The result of looking up a session's key among the known ones.
enum Look {
    /// They decide about its token.
    Known(Arc<KeySet>),
    /// A fetch will bring others.
    Awaits,
    /// They lack the key, and no fetch may begin now.
    NotNow { has_keys: bool },
}

impl FetchedKeys {
    /// The name of the issuer's table.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The keys of the issuer with this table, of which none is known yet. The first fetch is due at once.
    #[must_use]
    pub fn new(now: Instant, issuer: Arc<str>, algorithms: Vec<Algorithm>, refresh: Duration) -> Self {
        let state = State {
            known: None,
            fetched: None,
            failures: 0,
            failing_since: None,
            due: now,
            wanted: false,
            in_progress: false,
            asked: None,
        };
        Self {
            issuer,
            algorithms,
            refresh,
            state: Mutex::new(state),
            wanted: Notify::new(),
            ended: watch::Sender::new(0),
        }
    }

    /// The same issuer's keys under other settings, until the next fetch those that are known. Other algorithms make it due at
    /// once, because a key set is read for its algorithms.
    #[must_use]
    pub fn continued(&self, now: Instant, algorithms: Vec<Algorithm>, refresh: Duration) -> Self {
        let state = self.state.lock();
        let due = if algorithms == self.algorithms { state.due.min(now + refresh) } else { now };
        let state = State {
            known: state.known.clone(),
            fetched: state.fetched,
            failures: state.failures,
            failing_since: state.failing_since,
            due,
            wanted: false,
            in_progress: false,
            asked: state.asked,
        };
        Self { state: Mutex::new(state), ..Self::new(now, Arc::clone(&self.issuer), algorithms, refresh) }
    }

    /// Returns whether it has these settings.
    #[must_use]
    pub fn has(&self, algorithms: &[Algorithm], refresh: Duration) -> bool {
        self.algorithms == algorithms && self.refresh == refresh
    }

    /// Returns when they were last fetched.
    #[must_use]
    pub fn fetched(&self) -> Option<Instant> {
        self.state.lock().fetched
    }

    /// Waits until a fetch is to begin.
    pub async fn due(&self) {
        loop {
            let due = {
                let state = self.state.lock();
                if state.wanted {
                    return;
                }
                state.due
            };
            tokio::select! {
                () = time::sleep_until(due.into()) => return,
                () = self.wanted.notified() => {}
            }
        }
    }

    /// Notes that a fetch begins.
    pub fn begin(&self) {
        let mut state = self.state.lock();
        state.in_progress = true;
        state.wanted = false;
    }

    /// Applies the result of a fetch: the bytes of a key set, or why there are none.
    pub fn finish(&self, now: Instant, outcome: Result<&[u8], String>) {
        let outcome = outcome.and_then(|json| KeySet::parse(json, &self.algorithms).map_err(str::to_owned));
        // Under the lock, so that a session which sees this outcome already is not woken by it.
        let mut state = self.state.lock();
        state.finish(now, &self.issuer, self.refresh, outcome);
        self.ended.send_modify(|fetches| *fetches += 1);
    }

    /// Notes that a fetch has ended without an outcome, because another task fetches from now on.
    pub fn abandon(&self) {
        self.state.lock().in_progress = false;
    }

    /// Returns a set that decides about a token with this algorithm and key id, for which it may wait for one fetch.
    pub(in crate::auth) async fn set_for(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Arc<KeySet>, AuthError> {
        let mut ended = self.ended.subscribe();
        match self.state.lock().look(now(), &self.issuer, algorithm, id) {
            Look::Known(set) => return Ok(set),
            Look::NotNow { has_keys: true } => {
                return Err(unavailable("the issuer's keys lack that of the JWT; try again later"));
            }
            Look::NotNow { has_keys: false } => return Err(unavailable(NOT_FETCHED)),
            Look::Awaits => self.wanted.notify_one(),
        }
        if time::timeout(PATIENCE, ended.changed()).await.is_err() {
            return Err(unavailable("the issuer's keys are not there yet; try again later"));
        }
        self.state.lock().after_fetch(now(), &self.issuer, algorithm, id)
    }
}

impl State {
    /// The keys that are still in use.
    fn keys(&mut self, now: Instant, issuer: &str) -> Option<Arc<KeySet>> {
        let failing = |since| now.saturating_duration_since(since) > STALE_MAX;
        if self.known.is_some() && self.failing_since.is_some_and(failing) {
            tracing::error!(issuer, "the keys of an issuer could not be fetched for 24 h and are not used any more");
            self.known = None;
        }
        self.known.clone()
    }

    fn look(&mut self, now: Instant, issuer: &str, algorithm: Algorithm, id: Option<&str>) -> Look {
        if let Some(set) = self.keys(now, issuer).filter(|set| set.decides(algorithm, id)) {
            return Look::Known(set);
        }
        if self.in_progress || self.wanted || self.due <= now {
            return Look::Awaits;
        }
        if self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < ASK_EVERY) {
            return Look::NotNow { has_keys: self.known.is_some() };
        }
        self.asked = Some(now);
        self.wanted = true;
        Look::Awaits
    }

    fn after_fetch(
        &mut self,
        now: Instant,
        issuer: &str,
        algorithm: Algorithm,
        id: Option<&str>,
    ) -> Result<Arc<KeySet>, AuthError> {
        let is_fresh = self.failures == 0;
        // A fresh set decides, also if it lacks the key.
        let set = self.keys(now, issuer).filter(|set| is_fresh || set.decides(algorithm, id));
        set.ok_or_else(|| unavailable(NOT_FETCHED))
    }

    fn finish(&mut self, now: Instant, issuer: &str, refresh: Duration, outcome: Result<KeySet, String>) {
        self.in_progress = false;
        self.wanted = false;
        let stays = self.keys(now, issuer).is_some();
        match outcome {
            Ok(set) => {
                if self.failures > 0 || !stays {
                    tracing::info!(issuer, keys = set.len(), "fetched the keys of an issuer");
                }
                (self.failures, self.failing_since) = (0, None);
                self.due = now + refresh;
                (self.known, self.fetched) = (Some(Arc::new(set)), Some(now));
            }
            Err(error) => {
                let doubled = RETRY_FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
                let retry_in = doubled.min(refresh);
                self.failures = self.failures.saturating_add(1);
                self.failing_since.get_or_insert(now);
                self.due = now + retry_in;
                match stays {
                    true => tracing::warn!(
                        issuer,
                        error,
                        ?retry_in,
                        "the keys of an issuer could not be fetched; the known ones stay in use"
                    ),
                    false => tracing::warn!(
                        issuer,
                        error,
                        ?retry_in,
                        "the keys of an issuer could not be fetched, and none is known"
                    ),
                }
            }
        }
    }
}

impl KeySet {
    /// Returns whether a newer set would hardly say anything else about such a token.
    fn decides(&self, algorithm: Algorithm, id: Option<&str>) -> bool {
        !matches!(self.find(algorithm, id), Found::UnknownId)
    }
}

fn unavailable(why: &'static str) -> AuthError {
    AuthError::Unavailable(why.into())
}

fn now() -> Instant {
    time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const REFRESH: Duration = Duration::from_mins(10);
    const SECOND: Duration = Duration::from_secs(1);

    /// A set with a key of this id.
    fn set(id: &str) -> String {
        let key = URL_SAFE_NO_PAD.encode([7; 32]);
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{key}","kid":"{id}"}}]}}"#)
    }

    fn keys() -> Arc<FetchedKeys> {
        Arc::new(FetchedKeys::new(now(), Arc::from("idp"), vec![Algorithm::EdDSA], REFRESH))
    }

    /// Waits for the next fetch and lets it have this outcome. Returns how long it took to begin.
    async fn fetch(keys: &FetchedKeys, outcome: Result<&str, &str>) -> Duration {
        let start = now();
        keys.due().await;
        keys.begin();
        keys.finish(now(), outcome.map(str::as_bytes).map_err(str::to_owned));
        now() - start
    }

    /// What a token with this key id gets: "known", "unknown" or "unavailable"; and after how long.
    async fn ask(keys: &FetchedKeys, id: &str) -> (&'static str, Duration) {
        let start = now();
        let outcome = match keys.set_for(Algorithm::EdDSA, Some(id)).await {
            Ok(set) if set.decides(Algorithm::EdDSA, Some(id)) => "known",
            Ok(_) => "unknown",
            Err(AuthError::Unavailable(_)) => "unavailable",
            Err(error) => panic!("{error}"),
        };
        (outcome, now() - start)
    }

    #[tokio::test(start_paused = true)]
    async fn a_set_is_fetched_at_once_and_every_refresh() {
        let keys = keys();
        assert_eq!(fetch(&keys, Ok(&set("a"))).await, Duration::ZERO);
        assert_eq!(fetch(&keys, Ok(&set("a"))).await, REFRESH);
        assert_eq!(ask(&keys, "a").await, ("known", Duration::ZERO));
        assert_eq!(fetch(&keys, Ok(&set("b"))).await, REFRESH);
        assert_eq!(ask(&keys, "b").await, ("known", Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn failed_fetches_are_tried_again_after_a_time_that_doubles() {
        let keys = keys();
        let mut waits = Vec::new();
        for outcome in [Err("down"), Ok("<html>"), Ok(r#"{"keys":[]}"#), Err("down"), Err("down"), Err("down")] {
            waits.push(fetch(&keys, outcome).await.as_secs());
        }
        for _ in 0..4 {
            waits.push(fetch(&keys, Err("down")).await.as_secs());
        }
        assert_eq!(waits, [0, 5, 10, 20, 40, 80, 160, 320, 600, 600]);
        fetch(&keys, Ok(&set("a"))).await;
        assert_eq!(fetch(&keys, Err("down")).await, REFRESH);
        assert_eq!(fetch(&keys, Err("down")).await, RETRY_FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn without_keys_a_session_waits_for_the_fetch_and_at_most_5_s() {
        let keys = keys();
        let (asked, ()) = tokio::join!(ask(&keys, "a"), async {
            keys.due().await;
            keys.begin();
            time::sleep_until(time::Instant::now() + SECOND).await;
            keys.finish(now(), Ok(set("a").as_bytes()));
        });
        assert_eq!(asked, ("known", SECOND));
        let keys = self::keys();
        keys.begin();
        assert_eq!(ask(&keys, "a").await, ("unavailable", PATIENCE));
        keys.finish(now(), Err("down".to_owned()));
        let (asked, _) = tokio::join!(ask(&keys, "a"), fetch(&keys, Err("down")));
        assert_eq!(asked, ("unavailable", Duration::ZERO));
        assert_eq!(ask(&keys, "a").await, ("unavailable", Duration::ZERO), "no fetch is allowed so soon");
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_causes_one_fetch_in_30_s() {
        let keys = keys();
        fetch(&keys, Ok(&set("a"))).await;
        let newer = set("b");
        let (asked, waited) = tokio::join!(ask(&keys, "b"), fetch(&keys, Ok(&newer)));
        assert_eq!((asked, waited), (("known", Duration::ZERO), Duration::ZERO));
        assert_eq!(ask(&keys, "c").await, ("unavailable", Duration::ZERO));
        assert_eq!(ask(&keys, "b").await, ("known", Duration::ZERO), "others are not delayed");
        time::sleep_until(time::Instant::now() + ASK_EVERY).await;
        let (asked, other, _) = tokio::join!(ask(&keys, "c"), ask(&keys, "d"), fetch(&keys, Ok(&newer)));
        assert_eq!((asked.0, other.0), ("unknown", "unknown"));
        time::sleep_until(time::Instant::now() + ASK_EVERY).await;
        let (asked, _) = tokio::join!(ask(&keys, "c"), fetch(&keys, Err("down")));
        assert_eq!(asked.0, "unavailable");
        assert_eq!(ask(&keys, "b").await.0, "known", "after a failed fetch the known keys stay in use");
    }

    #[tokio::test(start_paused = true)]
    async fn known_keys_stay_in_use_for_24_h_of_failed_fetches() {
        let keys = keys();
        fetch(&keys, Ok(&set("a"))).await;
        // As long as no fetch fails, however rare they are.
        time::sleep_until(time::Instant::now() + STALE_MAX * 2).await;
        assert_eq!(ask(&keys, "a").await.0, "known");
        fetch(&keys, Err("down")).await;
        let failed = time::Instant::now();
        while failed.elapsed() + REFRESH < STALE_MAX {
            fetch(&keys, Err("down")).await;
            assert_eq!(ask(&keys, "a").await.0, "known");
        }
        time::sleep_until(failed + STALE_MAX + SECOND).await;
        let (asked, _) = tokio::join!(ask(&keys, "a"), fetch(&keys, Err("down")));
        assert_eq!(asked.0, "unavailable");
    }
}
