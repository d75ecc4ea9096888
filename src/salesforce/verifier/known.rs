//! [`Known`]: tokens that the org has confirmed, by their hash, for a limited time. It asks about each token only once
//! at a time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::Proven;
use crate::auth::AuthError;
use crate::expiring::Expiring;

/// The most answers that are kept at once.
const ANSWERS_MAX: usize = 10_000;

/// SHA-256 of a token.
type Hash = [u8; 32];

/// One question in progress; others who want its answer wait for it.
type Question = Arc<OnceCell<Result<Proven, AuthError>>>;

/// Known answers and questions in progress.
pub(super) struct Known {
    keep: Duration,
    answers: Mutex<Expiring<Hash, Proven>>,
    questions: Mutex<HashMap<Hash, Question>>,
}

impl Known {
    /// Keeps positive answers for `keep`.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, answers: Mutex::new(Expiring::new(ANSWERS_MAX)), questions: Mutex::default() }
    }

    /// Returns the known answer, or the one that `ask` gets. Concurrent callers share one question; if the caller that
    /// asks goes away, another one takes over.
    pub(super) async fn find(
        &self,
        hash: Hash,
        ask: impl Future<Output = Result<Proven, AuthError>>,
    ) -> Result<Proven, AuthError> {
        if let Some(proven) = self.answer(&hash) {
            return Ok(proven);
        }
        let waiting = Waiting { known: self, hash, question: self.join(hash) };
        waiting.question.get_or_init(|| ask).await.clone()
    }

    /// Keeps an answer, at most until the token expires. `now` counts from 1970.
    pub(super) fn keep(&self, now: Duration, hash: Hash, proven: &Proven) {
        let left = proven.ends.map_or(self.keep, |ends| ends.saturating_sub(now));
        if !self.keep.is_zero() {
            let now = Instant::now().into_std();
            let mut answers = self.answers.lock();
            answers.expire(now);
            answers.insert(now, hash, proven.clone(), left.min(self.keep));
        }
    }

    fn answer(&self, hash: &Hash) -> Option<Proven> {
        self.answers.lock().get(Instant::now().into_std(), hash).cloned()
    }

    fn join(&self, hash: Hash) -> Question {
        Arc::clone(self.questions.lock().entry(hash).or_default())
    }
}

/// A caller that waits. The question is removed by the first that has its answer, or by the last that goes away.
struct Waiting<'k> {
    known: &'k Known,
    hash: Hash,
    question: Question,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut questions = self.known.questions.lock();
        let ours = questions.get(&self.hash).is_some_and(|it| Arc::ptr_eq(it, &self.question));
        // The map's reference and this one. Nobody can join while the map is locked.
        if ours && (self.question.initialized() || Arc::strong_count(&self.question) == 2) {
            questions.remove(&self.hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::time::{advance, timeout};

    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn alice(ends: Option<Duration>) -> Proven {
        Proven { user_id: "005000000000002AAA".to_owned(), username: None, federation_id: None, ends }
    }

    /// Asks, and returns how often the org has been asked so far.
    async fn find(known: &Known, asked: &AtomicU32, ends: Option<Duration>) -> u32 {
        let ask = async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            known.keep(NOW, [1; 32], &alice(ends));
            Ok(alice(ends))
        };
        assert_eq!(known.find([1; 32], ask).await, Ok(alice(ends)));
        assert!(known.questions.lock().is_empty());
        asked.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_again_until_its_time_or_the_tokens_is_over() {
        let (known, asked) = (Known::new(Duration::from_mins(5)), AtomicU32::new(0));
        let ends = Some(NOW + Duration::from_secs(400));
        assert_eq!((find(&known, &asked, ends).await, find(&known, &asked, ends).await), (1, 1));
        advance(Duration::from_secs(299)).await;
        let soon = Some(NOW + Duration::from_secs(10));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        advance(Duration::from_secs(1)).await;
        assert_eq!((find(&known, &asked, soon).await, find(&known, &asked, soon).await), (2, 2));
        advance(Duration::from_secs(10)).await;
        assert_eq!(find(&known, &asked, None).await, 3);
        let never = Known::new(Duration::ZERO);
        assert_eq!((find(&never, &asked, None).await, find(&never, &asked, None).await), (4, 5));
    }

    #[tokio::test]
    async fn all_who_want_it_at_once_share_one_question_and_a_refusal_is_forgotten() {
        let known = Known::new(Duration::from_mins(5));
        let asked = AtomicU32::new(0);
        let refusal = || AuthError::Unauthenticated("no".into());
        let ask = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Err(refusal())
        };
        let outcomes = join_all((0..20).map(|_| known.find([1; 32], ask()))).await;
        assert!(outcomes.into_iter().all(|it| it == Err(refusal())));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        known.find([1; 32], ask()).await.unwrap_err();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(known.questions.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_may_go_away() {
        let known = Known::new(Duration::from_mins(5));
        let first = timeout(Duration::from_secs(1), known.find([1; 32], std::future::pending()));
        let second = known.find([1; 32], async { Ok(alice(None)) });
        let (first, second) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!(second, Ok(alice(None)));
        assert!(known.questions.lock().is_empty());
    }

    #[test]
    fn no_more_than_a_bound_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let known = Known::new(Duration::from_mins(5));
        for at in 0..=ANSWERS_MAX as u64 {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&at.to_be_bytes());
            known.keep(NOW, hash, &alice(None));
        }
        assert_eq!(known.answers.lock().len(), ANSWERS_MAX);
    }
}
