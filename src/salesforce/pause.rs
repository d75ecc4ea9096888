//! [`pause_after`]: how long Salesforce is left alone after an answer that asks for it. All requests follow this rule, those
//! that verify tokens too.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The longest pause that Salesforce can ask for with Retry-After.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// The shortest and the longest pause after too many concurrent calls.
const CROWDED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Returns how long no request is sent after an answer that is not a success; `None`: it does not ask for a pause.
/// `is_crowd` says that too many calls ran at once: without `retry_after`, the pause is then drawn.
pub(super) fn pause_after(
    status: u16,
    is_crowd: bool,
    retry_after: Option<Duration>,
    random: &mut impl Rng,
) -> Option<Duration> {
    let (least, most) = CROWDED;
    match status {
        _ if is_crowd => Some(retry_after.unwrap_or_else(|| random.random_range(least..=most)).clamp(least, most)),
        429 | 503 => retry_after.map(|asked| asked.min(PAUSE_MAX)).filter(|asked| !asked.is_zero()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_pause_is_as_long_as_salesforce_asks_within_bounds() {
        let random = &mut StdRng::seed_from_u64(1);
        let seconds = Duration::from_secs;
        for (status, is_crowd, asked, pause) in [
            (503, false, Some(7), Some(7)),
            (429, false, Some(300), Some(60)),
            (429, false, Some(0), None),
            (503, false, None, None),
            (500, false, Some(7), None),
            (403, false, Some(7), None),
            (403, true, Some(3), Some(3)),
            (403, true, Some(0), Some(1)),
            (503, true, Some(60), Some(5)),
        ] {
            let found = pause_after(status, is_crowd, asked.map(seconds), random);
            assert_eq!(found, pause.map(seconds), "{status} {is_crowd} {asked:?}");
        }
        for _ in 0..100 {
            let drawn = pause_after(403, true, None, random).unwrap();
            assert!((seconds(1)..=seconds(5)).contains(&drawn), "{drawn:?}");
        }
    }
}
