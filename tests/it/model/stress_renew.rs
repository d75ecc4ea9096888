//! Sessions renew between two roles while reloads change what both roles allow, round after round. Each session ends up with
//! the role of its last renewal, as the last reload has it.

use std::future::pending;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use switchboard::auth::{Claim, Permissions, Proved, Review, Verification, Verifier};
use switchboard::config::Config;
use switchboard::router::Session;

use crate::support::core::{Core, event};
use crate::support::rights::permissions;

const ROLES: [&str; 2] = ["admin", "agent"];
const SESSIONS: usize = 3;
/// Renewals of a session in a round.
const RENEWALS: usize = 8;
const ROUNDS: u64 = 300;

/// What a role allows: to publish on one triple, which is another one after each reload.
fn may_publish(role: &str, version: u64) -> Permissions {
    let roles = Arc::from([Box::from(role)]);
    Permissions { roles, ..permissions(&format!("publish Role/{role}/{version}")) }
}

/// How often the roles have been changed.
#[derive(Default)]
struct Roles(AtomicU64);

impl Roles {
    fn of(&self, role: &str) -> Permissions {
        may_publish(role, self.0.load(Ordering::SeqCst))
    }
}

impl Verifier for Roles {
    fn verify(&self, _claim: Claim) -> Verification<'_> {
        Box::pin(pending())
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        Review::Keep(self.of(&proved.permissions.roles[0]))
    }
}

/// What the threads share.
struct Stage {
    core: Core,
    roles: Roles,
    /// How many renewals there were in this round.
    renewals: AtomicUsize,
    barrier: Barrier,
}

impl Stage {
    /// Renews until the renewal is in force.
    fn renew(&self, session: &Arc<Session>, role: &str) {
        let Core { router, now } = &self.core;
        loop {
            let reloads = router.reloads();
            let verified = self.roles.of(role);
            if router.renew_permissions(*now, session, verified, reloads, || {}) {
                break;
            }
        }
        self.renewals.fetch_add(1, Ordering::SeqCst);
    }

    /// The triples, of these versions, that a session may publish on.
    fn published(&self, session: &Arc<Session>, versions: &[u64]) -> Vec<(&'static str, u64)> {
        let all = ROLES.iter().flat_map(|role| versions.iter().map(|version| (*role, *version)));
        all.filter(|(role, version)| self.core.send(session, &event(&format!("Role/{role}/{version}"), "")).is_ok())
            .collect()
    }
}

#[test]
fn a_renewal_and_a_reload_at_once_leave_the_renewed_role_as_it_is_after_the_reload() {
    let stage = Stage {
        core: Core::new(&Config::default()),
        roles: Roles::default(),
        renewals: AtomicUsize::new(0),
        barrier: Barrier::new(SESSIONS + 1),
    };
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|at| stage.core.attach_as(&format!("app-{at}"), Some("alice"), stage.roles.of(ROLES[0])))
        .collect();
    let last: Vec<_> = sessions.iter().map(|_| Mutex::new(ROLES[0])).collect();
    let (mut random, mut wrong) = (StdRng::seed_from_u64(0), Vec::new());
    thread::scope(|scope| {
        for (thread, (session, last)) in sessions.iter().zip(&last).enumerate() {
            let stage = &stage;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(thread as u64 + 1);
                for _ in 0..ROUNDS {
                    stage.barrier.wait();
                    for _ in 0..RENEWALS {
                        let role = ROLES[random.random_range(0..2)];
                        stage.renew(session, role);
                        *last.lock() = role;
                    }
                    stage.barrier.wait();
                }
            });
        }
        for reload in 1..=ROUNDS {
            let after = random.random_range(0..SESSIONS * RENEWALS);
            stage.renewals.store(0, Ordering::SeqCst);
            stage.barrier.wait();
            while stage.renewals.load(Ordering::SeqCst) < after {
                thread::yield_now();
            }
            stage.roles.0.store(reload, Ordering::SeqCst);
            stage.core.router.review(stage.core.now, &stage.roles);
            stage.barrier.wait();
            // What is wrong is collected, because the other threads would wait for ever for one that panics.
            for (session, last) in sessions.iter().zip(&last) {
                let (published, expected) = (stage.published(session, &[reload - 1, reload]), (*last.lock(), reload));
                if published != [expected] {
                    wrong.push((published, expected));
                }
                stage.core.take(session);
            }
        }
    });
    assert!(wrong.is_empty(), "{wrong:?}");
}
