//! Over a restart of the broker nothing is missed.

use std::fs;

use salesforce_stand_in::{Broken, Fault, Wrong};

use super::{ALICE, NOTICE, NOTICES, OWN, Stage, listener, next_message};

/// Keeps the broker from hearing until applications are back, as `settle` does with time.
fn closed(stage: &Stage) {
    stage.org.fault(Fault::new(Wrong::Events { error: Broken::Unavailable, after: 0 }));
}

#[tokio::test]
async fn a_broker_that_comes_back_goes_on_after_the_last_event() {
    let stage = Stage::start().await;
    let mut broker = stage.broker(OWN).await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.notice(ALICE, "before");
    assert_eq!(next_message(&mut desk).await, "before");
    broker.terminate().await;
    assert_eq!(broker.exit_code().await, Some(0));
    closed(&stage);
    stage.notice(ALICE, "meanwhile");
    let broker = broker.successor().await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.org.clear_faults();
    assert_eq!(next_message(&mut desk).await, "meanwhile");
    stage.notice(ALICE, "after");
    assert_eq!(next_message(&mut desk).await, "after");
}

#[tokio::test]
async fn a_keep_alive_is_a_place_to_go_on_from_too() {
    let stage = Stage::start().await;
    let mut broker = stage.broker(OWN).await;
    stage.org.keep_alive();
    let kept = broker.data_dir().join("salesforce-events.json");
    let mut often = tokio::time::interval(std::time::Duration::from_millis(10));
    crate::support::within("a kept replay id", async {
        while !fs::read_to_string(&kept).is_ok_and(|text| text.contains(NOTICES)) {
            often.tick().await;
        }
    })
    .await;
    // Not even time to write: at least what was written before counts.
    broker.signal("KILL").await;
    broker.exit_code().await;
    closed(&stage);
    stage.notice(ALICE, "meanwhile");
    let broker = broker.successor().await;
    let mut desk = listener(&broker, "alice-desk", NOTICE).await;
    stage.org.clear_faults();
    assert_eq!(next_message(&mut desk).await, "meanwhile");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&kept).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
}
