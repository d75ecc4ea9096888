//! Fairness towards an org: one agent's thousand fetches delay no other agent's.

use salesforce_stand_in::{Fault, Wrong};
use tokio::time::Instant;

use super::{ALICE, ALICES, BOB, BOBS, Fixture, answers, ask, demo, fetched};

/// How many fetches one session keeps pending.
const PENDING: usize = 990;

#[tokio::test]
async fn an_agent_with_a_thousand_fetches_delays_no_other() {
    let fixture = Fixture::with("", demo(), &[]).await;
    let (mut alice, mut bob) = (fixture.gadget(ALICE).await, fixture.gadget(BOB).await);
    assert_eq!(fetched(&mut alice).await, ALICES);
    fixture.org.fault(Fault::new(Wrong::Slow { milliseconds: 150 }).path("/query"));
    let start = Instant::now();
    assert_eq!(fetched(&mut bob).await, BOBS);
    let alone = start.elapsed();

    // Those that may not wait are refused at once, the others are answered one after the other.
    ask(&mut alice, PENDING).await;
    let refused = answers(&mut alice, PENDING / 2).await;
    assert!(refused.iter().filter(|it| *it == "TOO_MANY_REQUESTS").count() > PENDING / 3, "{refused:?}");
    let start = Instant::now();
    assert_eq!(fetched(&mut bob).await, BOBS);
    let beside = start.elapsed();
    assert!(beside < alone * 2, "{beside:?} beside {PENDING} fetches, {alone:?} alone");
}

#[tokio::test]
async fn a_session_with_as_many_pending_as_it_may_have_delays_no_other() {
    let fixture = Fixture::with("[requests]\nadapter_waiting = 1000\n", demo(), &[]).await;
    let (mut alice, mut bob) = (fixture.gadget(ALICE).await, fixture.gadget(BOB).await);
    assert_eq!(fetched(&mut alice).await, ALICES);
    fixture.org.fault(Fault::new(Wrong::Slow { milliseconds: 150 }).path("/query"));
    let start = Instant::now();
    assert_eq!(fetched(&mut bob).await, BOBS);
    let alone = start.elapsed();

    ask(&mut alice, PENDING).await;
    alice.fence().await;
    for _ in 0..3 {
        let start = Instant::now();
        assert_eq!(fetched(&mut bob).await, BOBS);
        let beside = start.elapsed();
        assert!(beside < alone * 2, "{beside:?} beside {PENDING} fetches, {alone:?} alone");
    }
    assert_eq!(answers(&mut alice, 1).await, [ALICES]);
}
