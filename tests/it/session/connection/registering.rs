//! A connection before it is registered, and after it has unregistered.

use std::future::pending;
use std::sync::Arc;

use serde_json::json;
use switchboard::auth::{Claim, Verification, Verifier};
use tokio::time::Instant;

use super::{Broker, CLOSE, command, event, limits};

/// Never answers.
struct Silent;

impl Verifier for Silent {
    fn verify(&self, _claim: Claim) -> Verification<'_> {
        Box::pin(pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_verifier_that_never_answers_does_not_hold_the_session() {
    let broker = Broker::new(limits());
    let start = Instant::now();
    let mut app = broker.connect_with(1 << 16, Arc::new(Silent), Arc::default());
    let mut register = command("Application", "Register", &json!({"token": "t"}));
    register["source"] = "app".into();
    app.say(&register).await;
    app.say(&event(1, 1)).await;
    assert_eq!(app.frame().await.0, CLOSE, "nothing is read before the verifier has answered");
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_connection_counts_as_unregistered_until_it_registers_and_after_unregister() {
    let broker = Broker::new(limits());
    let unregistered = broker.settings.unregistered();
    let mut app = broker.connect(1 << 16);
    app.say(&command("Connection", "Ping", &json!({}))).await;
    app.next().await;
    assert_eq!(unregistered.count(), 1);
    app.register("app").await;
    assert_eq!(unregistered.count(), 0);
    app.say(&command("Application", "Unregister", &json!({}))).await;
    app.next().await;
    assert_eq!(unregistered.count(), 1);
    app.register("app").await;
    app.say(&command("Application", "Unregister", &json!({}))).await;
    drop(app.stream);
    app.task.unwrap().await.unwrap();
    assert_eq!(unregistered.count(), 0);
}
