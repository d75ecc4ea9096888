//! What a change of a login in the org does to credentials that brokers keep: one by itself, and the nodes of a cluster, on
//! real NATS servers.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use salesforce_stand_in::{Fault, Wrong};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use super::nodes::Site;
use super::{ALICE, Stage, listener};
use crate::support::{Broker, Peer, within};

const FETCH: &str = "Salesforce/User/FetchCredentials";
const LOGIN: &str = "Salesforce/ChangeEvent/CTI_Login__ChangeEvent";
const LOGINS: &str = "/data/CTI_Login__ChangeEvent";

/// The topic of changes of logins, and credentials that are kept for an hour.
const CACHED: &str = "[salesforce.events.topics.login]\ntopic = \"/data/CTI_Login__ChangeEvent\"\n\
                      [salesforce.credentials]\ncache = \"1h\"\n[credentials]\nstore = \"salesforce\"\n";

/// A password that must not cross NATS.
const CANARY: &str = "canary-91c4";

/// How long a link takes at most to begin anew once NATS is back.
const LINKED: Duration = Duration::from_secs(15);

/// Two nodes, of which the first one reads the topic, and an application of alice on each.
async fn two_nodes(site: &Site) -> ([Broker; 2], [Peer; 2]) {
    let one = Broker::with_config(&site.config("one", CACHED)).await;
    site.stage.streams(LOGINS, 1).await;
    let two = Broker::with_config(&site.config("two", CACHED)).await;
    two.log_until("the node that reads", |log| log.contains("another node reads the topic")).await;
    let peers = [listener(&one, "alice-desk", LOGIN).await, listener(&two, "alice-crm", LOGIN).await];
    ([one, two], peers)
}

/// Changes alice's login in the org.
async fn change(stage: &Stage, extension: &str) {
    let fields = json!({ "CTI_Extension__c": extension, "CTI_Password__c": format!("{CANARY}-{extension}") });
    stage.send("PATCH", &format!("CTI_Login__c/User_Id__c/{ALICE}"), &fields).await;
}

/// The extension and the password that an application fetches.
async fn fetched(peer: &mut Peer, id: &str) -> [Value; 2] {
    peer.ask(FETCH, id).await;
    login_in(&peer.next_answer(FETCH, id).await)
}

fn login_in(answer: &Value) -> [Value; 2] {
    [answer["data"]["Extension"].clone(), answer["data"]["Password"].clone()]
}

/// What is fetched after [`change`].
fn changed(extension: &str) -> [Value; 2] {
    [json!(extension), json!(format!("{CANARY}-{extension}"))]
}

/// How often the org was asked for a login.
fn queries(stage: &Stage) -> usize {
    stage.org.seen().iter().filter(|seen| seen.path.ends_with("/query")).count()
}

#[tokio::test]
async fn a_change_of_a_login_empties_the_caches_of_all_nodes() {
    let Some(site) = Site::start().await else { return };
    let stage = &site.stage;
    let client = async_nats::connect(site.servers.url(0)).await.unwrap();
    let mut everything = client.subscribe(">").await.unwrap();
    client.flush().await.unwrap();
    let (_nodes, mut peers) = two_nodes(&site).await;
    for round in 1..=3 {
        let extension = format!("77{round}");
        change(stage, &extension).await;
        for peer in &mut peers {
            // A node that is told forgets the old login before its applications learn of the change.
            peer.next_on(LOGIN).await;
            assert_eq!(fetched(peer, "first").await, changed(&extension), "round {round}");
        }
        let asked = queries(stage);
        for peer in &mut peers {
            assert_eq!(fetched(peer, "again").await, changed(&extension), "round {round}");
        }
        assert_eq!((asked, queries(stage)), (2 * round, 2 * round), "each node asks once for each login");
    }
    let mut seen = 0;
    while let Some(Some(message)) = everything.next().now_or_never() {
        let text = String::from_utf8_lossy(&message.payload);
        assert!(!text.contains(CANARY) && !text.contains("CTI_Login"), "{}: {text}", message.subject);
        seen += 1;
    }
    assert!(seen > 20, "only {seen} messages were seen");
}

#[tokio::test]
async fn a_fetch_that_began_before_a_change_is_not_shared_and_not_kept_on_any_node() {
    let Some(site) = Site::start().await else { return };
    let ([one, two], _) = two_nodes(&site).await;
    overtake(&site.stage, &[&one, &two]).await;
}

#[tokio::test]
async fn a_fetch_that_began_before_a_change_is_not_shared_and_not_kept() {
    let stage = Stage::start().await;
    let broker = Broker::with_config(&stage.config(CACHED)).await;
    stage.streams(LOGINS, 1).await;
    overtake(&stage, &[&broker]).await;
}

/// A change overtakes the old login on its way to each of these brokers.
async fn overtake(stage: &Stage, brokers: &[&Broker]) {
    let count = brokers.len();
    let slow = Fault::new(Wrong::Slow { milliseconds: 4000 }).path("/query");
    stage.org.fault(slow.times(u32::try_from(count).unwrap()));
    // The requests of one session are answered one after the other.
    let mut pairs = Vec::new();
    for broker in brokers {
        let mut desk = broker.app_by_token("alice-desk").await;
        desk.ask(FETCH, "slow").await;
        pairs.push((desk, listener(broker, "alice-crm", LOGIN).await));
    }
    let mut often = interval(Duration::from_millis(5));
    within("the old logins to be read", async {
        while queries(stage) < count {
            often.tick().await;
        }
    })
    .await;
    change(stage, "778").await;
    for (_, crm) in &mut pairs {
        crm.next_on(LOGIN).await;
        assert_eq!(fetched(crm, "fast").await, changed("778"));
    }
    for (desk, crm) in &mut pairs {
        let slow = desk.next_answer(FETCH, "slow").await;
        assert_ne!(login_in(&slow), changed("778"), "it was read before the change: {slow}");
        assert_eq!(fetched(crm, "last").await, changed("778"));
    }
    assert_eq!(queries(stage), 2 * count, "the new login is kept");
}

/// The reader keeps its turn: no topic begins anew, which would empty all caches, too.
#[tokio::test]
async fn a_node_that_was_cut_off_forgets_what_it_may_have_missed_when_its_links_begin_anew() {
    let Some(mut site) = Site::start().await else { return };
    let ([one, two], mut peers) = two_nodes(&site).await;
    for peer in &mut peers {
        assert_ne!(fetched(peer, "before").await, changed("779"));
    }
    site.servers.kill(0).await;
    for node in [&one, &two] {
        node.log_until("the loss of the other", |log| log.contains("another node is lost")).await;
    }
    change(&site.stage, "779").await;
    let [desk, crm] = &mut peers;
    desk.next_on(LOGIN).await;
    assert_eq!(fetched(desk, "cut off").await, changed("779"));
    assert_ne!(fetched(crm, "cut off").await, changed("779"), "it was not told");
    site.servers.restart(0).await;
    let (since, mut often) = (Instant::now(), interval(Duration::from_millis(50)));
    while fetched(crm, "anew").await != changed("779") {
        assert!(since.elapsed() < LINKED, "the old login is still there after {:?}", since.elapsed());
        often.tick().await;
    }
    assert!(!two.log().contains("this node reads the topic"), "the first node kept its turn");
    assert!(!one.log().contains("the lease of a topic of Salesforce is lost"), "the first node kept its turn");
}

#[tokio::test]
async fn a_node_that_takes_a_topic_over_empties_the_caches_of_all_nodes() {
    let Some(site) = Site::start().await else { return };
    let ([one, two], mut peers) = two_nodes(&site).await;
    let [_, crm] = &mut peers;
    let three = Broker::with_config(&site.config("three", CACHED)).await;
    let mut bystander = listener(&three, "alice-desk", LOGIN).await;
    fetched(crm, "before").await;
    fetched(&mut bystander, "before").await;
    let asked = queries(&site.stage);
    one.terminate().await;
    let reads = |broker: &Broker| broker.log().contains("this node reads the topic");
    let mut often = interval(Duration::from_millis(20));
    within("a reader", async {
        while !reads(&two) && !reads(&three) {
            often.tick().await;
        }
    })
    .await;
    site.stage.streams(LOGINS, 1).await;
    // The login is the same: that the org is asked for it shows that it was forgotten.
    within("both caches to be empty", async {
        while queries(&site.stage) < asked + 2 {
            fetched(crm, "after").await;
            fetched(&mut bystander, "after").await;
            often.tick().await;
        }
    })
    .await;
}
