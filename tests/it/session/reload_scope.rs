//! A reload that changes the scope of a channel: what ends, and what stays.

use serde_json::{Value, json};

use crate::support::{Broker, Peer, application, envelope};

fn toml(scope: &str) -> String {
    let rows = [
        application("alice-app", Some("alice"), ""),
        application("bob-app", Some("bob"), ""),
        application("cti", None, ""),
    ];
    format!("[channels.Queue]\nscope = '{scope}'\n{}", rows.concat())
}

async fn retain(app: &mut Peer, triple: &str, data: impl Into<Value>) {
    app.send(envelope(triple, json!({ "retain": true, "data": data.into() }))).await;
    app.fence().await;
}

#[tokio::test]
async fn subscriptions_that_name_the_channel_end_and_others_stay() {
    for (before, after, heard) in [("user", "shared", true), ("shared", "user", false)] {
        let broker = Broker::with_config(&toml(before)).await;
        let mut alice = broker.app_by_token("alice-app").await;
        let (mut bob, mut cti) = (broker.app_by_token("bob-app").await, broker.app_by_token("cti").await);
        let named = bob.subscribe("Queue/State/*").await;
        bob.subscribe("*/State/*").await;
        bob.subscribe("Desk/*/*").await;
        let handler = cti.handle("Queue/Job/*").await;
        retain(&mut alice, "Queue/Kept/Old", 1).await;
        retain(&mut alice, "Queues/Kept/Other", 2).await;

        broker.configure(&toml(after));
        let line = broker.reload().await;
        assert!(line.contains("changed=\"channels.Queue.scope\" ended=0 rights=0"), "{line}");
        for (app, id) in [(&mut bob, named), (&mut cti, handler)] {
            let ended = app.next_on("Broker/Subscription/Ended").await;
            assert_eq!(ended["data"], json!({ "SubscriptionIds": [id], "Narrowed": [], "Reason": "SCOPE" }));
        }
        alice.publish("Queue/State/Open", 3).await;
        alice.expect_nothing().await;
        if heard {
            assert_eq!(bob.next_on("Queue/State/Open").await["data"], 3);
        }
        bob.expect_nothing().await;
        alice.ask("Queue/Job/Next", "1").await;
        assert_eq!(alice.next_receipt("1").await, 0, "nobody handles it");
        cti.handle("Queue/Job/*").await;
        alice.ask("Queue/Job/Next", "2").await;
        let request = cti.next_on("Queue/Job/Next").await;
        cti.reply(&request, json!({ "data": { "Success": true } })).await;
        alice.next_answer("Queue/Job/Next", "2").await;

        let mut late = broker.app_by_token("alice-app").await;
        late.subscribe("*/Kept/*").await;
        assert_eq!(late.next_on("Queues/Kept/Other").await["data"], 2);
        late.expect_nothing().await;
        retain(&mut alice, "Queue/Kept/New", 4).await;
        bob.subscribe("Queue/Kept/*").await;
        if heard {
            assert_eq!(bob.next_on("Queue/Kept/New").await["data"], 4);
        }
        bob.expect_nothing().await;
    }
}

/// A handler that has a request when its subscription ends may still answer it.
#[tokio::test]
async fn a_request_under_way_is_answered() {
    let broker = Broker::with_config(&toml("user")).await;
    let (mut alice, mut cti) = (broker.app_by_token("alice-app").await, broker.app_by_token("cti").await);
    cti.handle("Queue/Job/*").await;
    alice.ask("Queue/Job/Next", "1").await;
    let request = cti.next_on("Queue/Job/Next").await;
    broker.configure(&toml("shared"));
    broker.reload().await;
    cti.next_on("Broker/Subscription/Ended").await;
    cti.reply(&request, json!({ "data": { "Success": true } })).await;
    alice.next_answer("Queue/Job/Next", "1").await;
}

/// What a channel with other folding has: subscriptions that name it end, those for all channels go by the new folding.
#[tokio::test]
async fn folding_that_changes_is_that_of_all_who_subscribe() {
    let toml = |fold_case: bool| {
        format!(
            "[auth]\nmode = 'open'\n[channels.Queue]\nfold_case = {fold_case}\nhistory = {{ size = 100, ttl = '1h' }}\n"
        )
    };
    for before in [false, true] {
        let broker = Broker::with_config(&toml(before)).await;
        let (mut phone, mut crm) = (broker.app("phone").await, broker.app("crm").await);
        let named = crm.subscribe("Queue/State/*").await;
        crm.subscribe("*/State/*").await;
        retain(&mut phone, "Queue/Kept/Old", 1).await;

        broker.configure(&toml(!before));
        let line = broker.reload().await;
        assert!(line.contains("changed=\"channels.Queue.fold_case\""), "{line}");
        let ended = crm.next_on("Broker/Subscription/Ended").await;
        assert_eq!(ended["data"], json!({ "SubscriptionIds": [named], "Narrowed": [], "Reason": "RELOADED" }));

        for (triple, is_folded) in [("Queue/State/Open", false), ("Queue/STATE/open", true)] {
            phone.publish(triple, 2).await;
            if !is_folded || !before {
                assert_eq!(crm.next_on(triple).await["data"], 2);
            }
            crm.expect_nothing().await;
        }
        crm.subscribe("Queue/Kept/*").await;
        crm.expect_nothing().await;
        retain(&mut phone, "Queue/kept/New", 3).await;
        if before {
            crm.expect_nothing().await;
        } else {
            assert_eq!(crm.next_on("Queue/kept/New").await["data"], 3);
        }
        // The log has what was sent before as it was written.
        let mut late = broker.app("late").await;
        late.send(envelope(
            "Broker/Subscription/Subscribe",
            json!({ "id": "s", "data": { "channel": "Queue", "topic": "Kept", "recover": { "last": 10 } } }),
        ))
        .await;
        late.next_on("Broker/Subscription/Subscribe").await;
        assert_eq!(late.next_on("Queue/Kept/Old").await["data"], 1);
    }
}
