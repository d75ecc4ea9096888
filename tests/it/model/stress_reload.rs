//! Many threads register sessions on one router while reloads take proofs away and give them back. A session ends with the
//! first reload after its registration that does not have its proof, and with no other.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use parking_lot::RwLock;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use switchboard::auth::{Claim, Identity, Permissions, Principal, Proof, Proved, Review, Verification, Verifier};
use switchboard::config::Config;
use switchboard::router::{End, Outbox, Registration, Session};
use wire::CloseCode;

use crate::support::core::{Core, WIDE};

const TOKENS: u8 = 8;
const THREADS: u64 = 4;
const SESSIONS: usize = 400;
const RELOADS: u64 = 100;

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

/// A session that was never detached: its token, and the number of the reload under which it registered.
struct Kept {
    session: Arc<Session>,
    token: u8,
    reloads: u64,
}

/// How far the threads are.
#[derive(Default)]
struct Progress {
    registered: AtomicUsize,
    over: AtomicBool,
}

/// Registers sessions whose tokens are good, with the number that was read before; detaches some of them.
fn register(core: &Core, table: &Table, progress: &Progress, seed: u64) -> Vec<Kept> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut kept = Vec::new();
    while !progress.over.load(Ordering::SeqCst) {
        let token = random.random_range(0..TOKENS);
        let reloads = core.router.reloads();
        if !table.0.read().contains(&token) {
            thread::yield_now();
            continue;
        }
        if random.random_range(0..4) == 0 {
            thread::yield_now();
        }
        let user = Principal::User(format!("user-{}", random.random_range(0..3)).into());
        let identity = Identity { proof: Proof::Token([token; 32]), ..Identity::unproved(user, Permissions::all()) };
        let outbox = Outbox::new(WIDE);
        let registration = Registration { source: "app".into(), identity, echo: false, address: None, outbox };
        let Some(session) = core.router.attach_verified(core.now, registration, reloads).unwrap() else { continue };
        progress.registered.fetch_add(1, Ordering::SeqCst);
        match random.random_range(0..4) {
            0 => core.router.detach(core.now, &session),
            _ if kept.len() == SESSIONS => core.router.detach(core.now, &session),
            _ => kept.push(Kept { session, token, reloads }),
        }
    }
    kept
}

#[test]
fn a_session_ends_with_the_first_reload_that_removes_its_proof() {
    let (core, table, progress) = (Core::new(&Config::default()), Table::default(), Progress::default());
    let mut random = StdRng::seed_from_u64(0);
    // What each reload had; the first entry is for the time before.
    let mut history = vec![BTreeSet::new()];
    let kept: Vec<Kept> = thread::scope(|scope| {
        let threads: Vec<_> = (1..=THREADS)
            .map(|seed| {
                let (core, table, progress) = (&core, &table, &progress);
                scope.spawn(move || register(core, table, progress, seed))
            })
            .collect();
        for _ in 0..RELOADS {
            // One token stays good throughout.
            let good: BTreeSet<u8> =
                (0..TOKENS).filter(|token| *token == 0 || random.random_range(0..10) > 0).collect();
            *table.0.write() = good.clone();
            history.push(good);
            core.router.review(core.now, &table);
            let before = progress.registered.load(Ordering::SeqCst);
            while progress.registered.load(Ordering::SeqCst) < before + 4 {
                thread::yield_now();
            }
        }
        progress.over.store(true, Ordering::SeqCst);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(core.router.reloads(), RELOADS);
    let mut ended = 0;
    for Kept { session, token, reloads } in &kept {
        let since = &history[usize::try_from(*reloads).unwrap() + 1..];
        let removed = since.iter().any(|good| !good.contains(token));
        assert_eq!(session.is_revoked(), removed, "token {token}, registered under {reloads} of {}", history.len() - 1);
        let end = End::Close(CloseCode::Unauthenticated, "the proof of identity was removed");
        assert_eq!(session.outbox().ended(), removed.then_some(end));
        ended += usize::from(removed);
    }
    assert!(ended > 0 && ended < kept.len(), "{ended} of {}", kept.len());
    for kept in &kept {
        core.router.detach(core.now, &kept.session);
    }
    assert_eq!(core.router.size().sessions, 0);
}
