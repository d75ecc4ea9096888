//! [`Allowance`]: how many records unregistered connections can cause.

use std::time::{Duration, SystemTime};

/// Records at once.
const BURST: u32 = 60;

/// The time after which one more may be written: 14,400 a day, some 5 MB of the 48 MB that are kept.
const EVERY: Duration = Duration::from_secs(6);

/// Limits records to a burst, and then to one for each interval.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    /// When the burst is available again.
    full_at: Option<SystemTime>,
    /// Records that were not written since the last one that was.
    unrecorded: u64,
}

impl Allowance {
    /// Takes one. Returns how many were denied since the last one that was granted; `None` if this one is denied.
    pub(super) fn take(&mut self, now: SystemTime) -> Option<u64> {
        let latest = now + EVERY * BURST;
        // After the clock was set back, `full_at` is too far ahead.
        let full_at = self.full_at.unwrap_or(now).clamp(now, latest);
        let granted = full_at + EVERY <= latest;
        self.full_at = Some(if granted { full_at + EVERY } else { full_at });
        if granted {
            return Some(self.take_unrecorded());
        }
        self.unrecorded += 1;
        None
    }

    /// Returns how many were denied since the last one that was granted, and starts again from 0.
    pub(super) fn take_unrecorded(&mut self) -> u64 {
        std::mem::take(&mut self.unrecorded)
    }

    /// Adds those that a record would have counted that was lost.
    pub(super) fn give_back(&mut self, unrecorded: u64) {
        self.unrecorded = self.unrecorded.saturating_add(unrecorded);
    }

    /// Returns how many were denied since the last one that was granted.
    pub(super) fn unrecorded(&self) -> u64 {
        self.unrecorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_granted_then_one_for_each_interval() {
        let (mut allowance, now) = (Allowance::default(), SystemTime::UNIX_EPOCH + Duration::from_hours(1));
        let granted = (0..1000).filter(|_| allowance.take(now).is_some()).count();
        assert_eq!(granted, 60);
        assert_eq!(allowance.take(now + EVERY), Some(940));
        assert_eq!(allowance.take(now + EVERY), None);
        let day = (1..=86_400).filter(|second| allowance.take(now + EVERY + Duration::from_secs(*second)).is_some());
        assert_eq!(day.count(), 14_400);
    }

    #[test]
    fn a_clock_that_is_set_back_denies_nothing_for_long() {
        let (mut allowance, now) = (Allowance::default(), SystemTime::UNIX_EPOCH + Duration::from_hours(1000));
        for _ in 0..100 {
            allowance.take(now);
        }
        let before = now - Duration::from_hours(999);
        assert_eq!(allowance.take(before), None);
        assert_eq!(allowance.take(before + EVERY), Some(41));
    }
}
