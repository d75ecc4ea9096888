//! [`look_for`]: finds out whether a record was created by a request that was never answered. Its transaction may still
//! run, so one look is not enough.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::salesforce::fault::Fault;

/// The pauses before each look, two minutes in all: for as long as Salesforce lets a transaction wait and run.
const PAUSES: [Duration; 8] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(30),
    Duration::from_secs(30),
];

/// Looks with growing pauses until the record is found. `None`: it was not there for two minutes, or Salesforce could not
/// be asked.
pub(super) async fn look_for<F>(look: impl Fn() -> F) -> Result<Option<String>, Fault>
where
    F: Future<Output = Result<Option<String>, Fault>>,
{
    for pause in PAUSES {
        sleep_until(Instant::now() + pause).await;
        match look().await {
            Ok(None) => {}
            Err(fault) if fault.may_pass() => {}
            found @ (Ok(Some(_)) | Err(_)) => return found,
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// The seconds at which it looked, and what it found. `answers` are those of the looks; later ones find nothing.
    async fn looked(answers: Vec<Result<Option<&str>, Fault>>) -> (Vec<u64>, Result<Option<String>, Fault>) {
        let start = Instant::now();
        let times = RefCell::new(Vec::new());
        let answers = RefCell::new(answers.into_iter());
        let look = async || {
            times.borrow_mut().push(start.elapsed().as_secs());
            answers.borrow_mut().next().unwrap_or(Ok(None)).map(|id| id.map(str::to_owned))
        };
        let found = look_for(look).await;
        (times.into_inner(), found)
    }

    #[tokio::test(start_paused = true)]
    async fn it_looks_with_growing_pauses_for_two_minutes() {
        let down = || Err(Fault::unavailable("", ""));
        assert_eq!(looked(vec![]).await, (vec![1, 3, 7, 15, 30, 60, 90, 120], Ok(None)));
        assert_eq!(
            looked(vec![Ok(None), down(), Ok(Some("00T1"))]).await,
            (vec![1, 3, 7], Ok(Some("00T1".to_owned())))
        );
        let several = Fault::object("several", "");
        assert_eq!(looked(vec![Ok(None), Err(several.clone())]).await, (vec![1, 3], Err(several)));
    }
}
