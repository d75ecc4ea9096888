//! [`Tls::watch`]: takes a renewed certificate into use while the broker runs, renews one of `switchboard cert new` itself,
//! and warns before one expires.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Files, Material, Tls, life};
use crate::certificates::renew_if_due;

/// How often the files are compared with what is in use.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How often the end of the certificate's life is logged.
const WARN_EVERY: Duration = Duration::from_hours(24);

/// What a comparison of the files found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// What is in use.
    Same,
    /// New files, which are in use now.
    Replaced,
    /// Files that cannot be used, and why. What is in use stays.
    KeptOut(String),
    /// The same as the last time, which could not be used.
    StillKeptOut,
}

/// What became of a certificate that the broker may renew itself.
#[derive(Debug, PartialEq, Eq)]
enum Renewal {
    /// There is nothing to renew.
    NotDue,
    /// The new certificate is on disk, and ends then.
    Done(SystemTime),
    /// It could not be renewed, and why.
    Failed(String),
}

/// When the end of the certificate's life was last logged.
#[derive(Default)]
struct Warned(Option<SystemTime>);

impl Warned {
    /// Returns whether it is to be logged now, and notes that: once a day, and for a new certificate at once.
    fn is_due(&mut self, now: SystemTime, look: &Look) -> bool {
        // `serve` has printed the first warning at start.
        let last = self.0.get_or_insert(now);
        let is_due = *look == Look::Replaced || now.duration_since(*last).is_ok_and(|passed| passed >= WARN_EVERY);
        if is_due {
            *last = now;
        }
        is_due
    }
}

impl Tls {
    /// Compares the files now and then until `stop`, or until a reload has put something else in its place. New sessions are
    /// served with new files; live ones notice nothing.
    pub(in crate::server) async fn watch(tls: Weak<Self>, stop: CancellationToken) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut warned, mut last_renewal) = (Warned::default(), Renewal::NotDue);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let Some(tls) = tls.upgrade() else { return };
            let own = Arc::clone(&tls);
            #[expect(clippy::disallowed_methods, reason = "the calendar, which has no argument to come from in a loop")]
            let calendar = SystemTime::now();
            // A file system that does not answer holds up neither a worker of the runtime nor a drain.
            let look = tokio::select! {
                () = stop.cancelled() => return,
                looked = spawn_blocking(move || (own.renew(calendar), own.look())) => {
                    let Ok((renewal, look)) = looked else { continue };
                    // A fault is logged once, not every time.
                    if renewal != last_renewal {
                        log_renewal(&renewal);
                        last_renewal = renewal;
                    }
                    log(&look);
                    look
                }
            };
            if warned.is_due(calendar, &look) {
                for warning in life::warnings(calendar, &tls.settings()) {
                    tracing::warn!("{warning}");
                }
            }
        }
    }

    /// Renews the certificate if its warning is due and the authority that signed it is beside it. Blocks on the disk.
    fn renew(&self, now: SystemTime) -> Renewal {
        let Some(path) = self.settings().certificate_file else { return Renewal::NotDue };
        match renew_if_due(now, &path) {
            Ok(None) => Renewal::NotDue,
            Ok(Some(leaf)) => Renewal::Done(leaf.not_after),
            Err(error) => Renewal::Failed(error.to_string()),
        }
    }

    /// Compares the files with what is in use, and uses them if they differ and can be used. Blocks on the disk.
    pub(super) fn look(&self) -> Look {
        let _turn = self.turn.lock();
        let settings = self.settings();
        let (digest, read) = match Files::read(&settings) {
            Ok(files) if self.uses(files.digest()) => {
                self.state.lock().kept_out = None;
                return Look::Same;
            }
            Ok(files) => (Some(files.digest()), Material::of(&files, &settings, self.clients())),
            Err(unusable) => (None, Err(unusable)),
        };
        match read {
            Ok(material) => {
                self.replace(settings, material);
                Look::Replaced
            }
            Err(unusable) => {
                let found = (digest, unusable.to_string());
                let mut state = self.state.lock();
                if state.kept_out.as_ref() == Some(&found) {
                    return Look::StillKeptOut;
                }
                state.kept_out = Some(found.clone());
                Look::KeptOut(found.1)
            }
        }
    }
}

fn log_renewal(renewal: &Renewal) {
    match renewal {
        Renewal::NotDue => {}
        Renewal::Done(end) => {
            let end = humantime::format_rfc3339_seconds(*end);
            tracing::info!(%end, "renewed the certificate of [tls] with the authority beside it");
        }
        Renewal::Failed(reason) => tracing::warn!(%reason, "the certificate of [tls] is due and cannot be renewed"),
    }
}

fn log(look: &Look) {
    match look {
        Look::Same | Look::StillKeptOut => {}
        Look::Replaced => tracing::info!("a new TLS certificate is in use"),
        Look::KeptOut(reason) => tracing::warn!(
            %reason,
            "the files of [tls] have changed and cannot be used; the broker keeps the certificate that it has"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_life_is_logged_once_a_day_and_for_a_new_certificate_at_once() {
        let mut warned = Warned::default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(20_000 * 24);
        for (hours, look, expected) in [
            (0, Look::Same, false),
            (23, Look::StillKeptOut, false),
            (24, Look::Same, true),
            (25, Look::Same, false),
            (26, Look::Replaced, true),
            (27, Look::Same, false),
            (49, Look::Same, false),
            (50, Look::Same, true),
        ] {
            let now = start + Duration::from_hours(hours);
            assert_eq!(warned.is_due(now, &look), expected, "after {hours} hours, {look:?}");
        }
        assert!(Warned::default().is_due(start, &Look::Replaced));
    }
}
