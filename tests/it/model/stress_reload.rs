//! Many threads register sessions on one router while a reload takes proofs away, round after round. A session that was
//! verified before the reload ends with it if its proof is gone; it never begins after it.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use switchboard::auth::{Claim, Identity, Permissions, Principal, Proof, Proved, Review, Verification, Verifier};
use switchboard::config::Config;
use switchboard::router::{End, Outbox, Registration, Session};
use wire::CloseCode;

use crate::support::core::{Core, WIDE};

const TOKENS: u8 = 8;
const THREADS: usize = 3;
/// Sessions that a thread registers in a round.
const SESSIONS: usize = 12;
const ROUNDS: u64 = 300;

/// The tokens that are good, as the last reload has them.
#[derive(Default)]
struct Table(RwLock<BTreeSet<u8>>);

impl Verifier for Table {
    fn verify(&self, _claim: Claim) -> Verification<'_> {
        Box::pin(pending())
    }

    fn review(&self, proved: &Proved<'_>) -> Review {
        match proved.proof {
            Proof::Token([token, ..]) if self.0.read().contains(token) => Review::Same,
            _ => Review::End,
        }
    }
}

/// A registered session: its token, and the number of reloads that was read before the token was verified.
struct Registered {
    session: Arc<Session>,
    token: u8,
    reloads: u64,
}

/// What the threads share.
struct Stage {
    core: Core,
    table: Table,
    registered: Mutex<Vec<Registered>>,
    /// How many sessions were registered in this round.
    count: AtomicUsize,
    barrier: Barrier,
}

impl Stage {
    fn register(&self, random: &mut StdRng) {
        let token = random.random_range(0..TOKENS);
        let reloads = self.core.router.reloads();
        if self.table.0.read().contains(&token) {
            if random.random_range(0..2) == 0 {
                thread::yield_now();
            }
            let user = Principal::User(format!("user-{}", random.random_range(0..3)).into());
            let identity =
                Identity { proof: Proof::Token([token; 32]), ..Identity::unproved(user, Permissions::all()) };
            let outbox = Outbox::new(WIDE);
            let registration =
                Registration { source: "app".into(), identity, echo: false, address: None, outbox, will: None };
            let attached = self.core.router.attach_verified(self.core.now, registration, None, reloads).unwrap();
            self.registered.lock().extend(attached.map(|session| Registered { session, token, reloads }));
        }
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// Compares every session with the one reload of this round, and detaches it. Returns how many the reload ended. What is
    /// wrong is collected, because the other threads would wait for ever for one that panics.
    fn check(&self, reload: u64, wrong: &mut Vec<String>) -> usize {
        let good = self.table.0.read();
        let mut ended = 0;
        for Registered { session, token, reloads } in self.registered.lock().drain(..) {
            let removed = reloads < reload && !good.contains(&token);
            let end = End::Close(CloseCode::Unauthenticated, "the proof of identity was removed");
            if (session.is_revoked(), session.outbox().ended()) != (removed, removed.then_some(end)) {
                wrong.push(format!("token {token}, verified after reload {reloads} of {reload}, which has {good:?}"));
            }
            ended += usize::from(removed);
            self.core.router.detach(self.core.now, &session);
        }
        ended
    }
}

#[test]
fn a_reload_ends_every_session_whose_proof_it_removes_however_late_it_registers() {
    let stage = Stage {
        core: Core::new(&Config::default()),
        table: Table::default(),
        registered: Mutex::default(),
        count: AtomicUsize::new(0),
        barrier: Barrier::new(THREADS + 1),
    };
    let (mut random, mut ended, mut wrong) = (StdRng::seed_from_u64(0), 0, Vec::new());
    let mut tokens = move || -> (BTreeSet<u8>, usize) {
        ((0..TOKENS).filter(|_| random.random_range(0..2) == 0).collect(), random.random_range(0..THREADS * SESSIONS))
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let stage = &stage;
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(thread as u64 + 1);
                for _ in 0..ROUNDS {
                    stage.barrier.wait();
                    (0..SESSIONS).for_each(|_| stage.register(&mut random));
                    stage.barrier.wait();
                }
            });
        }
        for reload in 1..=ROUNDS {
            let (good, after) = tokens();
            stage.count.store(0, Ordering::SeqCst);
            stage.barrier.wait();
            while stage.count.load(Ordering::SeqCst) < after {
                thread::yield_now();
            }
            *stage.table.0.write() = good;
            stage.core.router.review(stage.core.now, &stage.table);
            stage.barrier.wait();
            ended += stage.check(reload, &mut wrong);
        }
    });
    assert!(wrong.is_empty() && ended > 0, "{wrong:?}");
    assert_eq!((stage.core.router.reloads(), stage.core.router.size().sessions), (ROUNDS, 0));
}
