//! Fairness towards an org: one agent's thousand fetches delay no other agent's.

use salesforce_stand_in::{Fault, Wrong};

use super::{ALICE, ALICES, BOB, BOBS, Fixture, answers, ask, demo, fetched};
use crate::support::Peer;

/// How many fetches one session keeps pending.
const PENDING: usize = 990;

/// The most queries that the org may get between a fetch and its answer: the fetch's own, and a few of others that are sent
/// meanwhile. If a fetch waited for those that came before it, there would be dozens.
const QUERIES_MAX: usize = 8;

/// A broker with an org that is slow to answer, and the gadgets of Alice and Bob.
async fn slow_org(more: &str) -> (Fixture, Peer, Peer) {
    let fixture = Fixture::with(more, demo(), &[]).await;
    let (mut alice, bob) = (fixture.gadget(ALICE).await, fixture.gadget(BOB).await);
    assert_eq!(fetched(&mut alice).await, ALICES);
    fixture.org.fault(Fault::new(Wrong::Slow { milliseconds: 150 }).path("/query"));
    (fixture, alice, bob)
}

/// Fetches for Bob, and counts the queries that the org gets until he has the answer.
async fn check_bob_is_not_delayed(fixture: &Fixture, bob: &mut Peer) {
    let queries = || fixture.org.seen().iter().filter(|seen| seen.path.contains("/query")).count();
    let before = queries();
    assert_eq!(fetched(bob).await, BOBS);
    let meanwhile = queries() - before;
    assert!((1..=QUERIES_MAX).contains(&meanwhile), "{meanwhile} queries until the answer, beside {PENDING} fetches");
}

#[tokio::test]
async fn an_agent_with_a_thousand_fetches_delays_no_other() {
    let (fixture, mut alice, mut bob) = slow_org("").await;
    // Those that may not wait are refused at once, the others are answered one after the other.
    ask(&mut alice, PENDING).await;
    let refused = answers(&mut alice, PENDING / 2).await;
    assert!(refused.iter().filter(|it| *it == "TOO_MANY_REQUESTS").count() > PENDING / 3, "{refused:?}");
    check_bob_is_not_delayed(&fixture, &mut bob).await;
}

#[tokio::test]
async fn a_session_with_as_many_pending_as_it_may_have_delays_no_other() {
    let (fixture, mut alice, mut bob) = slow_org("[requests]\nadapter_waiting = 1000\n").await;
    ask(&mut alice, PENDING).await;
    alice.fence().await;
    for _ in 0..3 {
        check_bob_is_not_delayed(&fixture, &mut bob).await;
    }
    assert_eq!(answers(&mut alice, 1).await, [ALICES]);
}
