//! The lists, their filters and pages, and the commands that show them.

use std::collections::BTreeSet;

use super::commands::{has, run, secret_file_in};
use super::*;
use crate::support::envelope;

/// The sources of the sessions of an answer.
fn sources(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|item| item["source"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn each_list_shows_what_is_there() {
    let site = Site::with_tokens("[channels.Queue]\nscope = 'shared'\nhistory = { size = 5, ttl = '1m' }").await;
    let mut phone = site.broker.app_of("softphone", "alice").await;
    let mut crm = site.broker.app_of("crm", "alice").await;
    phone.handle("Phone/Call/Dial").await;
    crm.subscribe("Phone/*/*").await;
    crm.send(envelope("Phone/Agent/State", json!({"retain": true, "data": "canary-payload"}))).await;
    crm.send(envelope("Queue/Calls/Waiting", json!({"data": 3}))).await;
    crm.ask("Phone/Call/Dial", "r1").await;
    phone.next_on("Phone/Call/Dial").await;

    let sessions = site.get("/v1/sessions").await;
    let node = sessions["node"].as_str().unwrap();
    assert!(!node.is_empty() && sessions["next"].is_null(), "{sessions}");
    let ids: Vec<_> = sessions["items"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert!(ids.len() == 2 && ids.is_sorted(), "{sessions}");
    let own = sessions["items"].as_array().unwrap().iter().find(|it| it["source"] == "softphone").unwrap();
    assert_eq!((&own["user"], &own["kind"], &own["state"]), (&json!("alice"), &json!("user"), &json!("active")));
    assert_eq!((&own["handlers"], &own["requestsGiven"]), (&json!(1), &json!(1)));
    let one = site.get(&format!("/v1/sessions/{}", own["id"].as_str().unwrap())).await;
    assert_eq!((&one["id"], &one["source"]), (&own["id"], &own["source"]));
    site.call("reader", "GET", "/v1/sessions/unknown", None).await.is_problem(404, "NOT_FOUND");

    assert_eq!(sources(&site.get("/v1/applications").await), ["crm", "softphone"]);
    let subscriptions = site.get("/v1/subscriptions?source=crm").await;
    let [subscription] = subscriptions["items"].as_array().unwrap().as_slice() else { panic!("{subscriptions}") };
    assert_eq!((&subscription["topic"], &subscription["role"]), (&json!("*"), &json!("subscriber")));
    let requests = site.get("/v1/requests").await;
    assert_eq!(
        (&requests["items"][0]["requestId"], &requests["items"][0]["handler"]),
        (&json!("r1"), &json!("softphone"))
    );
    let channels = site.get("/v1/channels?channel=Queue").await;
    assert_eq!(
        (&channels["items"][0]["scope"], &channels["items"][0]["history"]["size"]),
        (&json!("shared"), &json!(5))
    );
    let retained = site.get("/v1/retained").await;
    assert_eq!((&retained["items"][0]["source"], &retained["items"][0]["user"]), (&json!("crm"), &json!("alice")));
    assert!(!retained.to_string().contains("canary-payload"), "{retained}");
    let history = site.get("/v1/history").await;
    assert_eq!((&history["items"][0]["firstOffset"], &history["items"][0]["lastOffset"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn pages_follow_each_other_until_there_is_no_next() {
    let site = Site::with_tokens("").await;
    let mut apps = Vec::new();
    for number in 0..7 {
        apps.push(site.broker.app(&format!("app{number}")).await);
    }
    let (mut seen, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = site.get(&format!("/v1/sessions?limit=3{cursor}")).await;
        seen.extend(sources(&page).into_iter().map(str::to_owned));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let all: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!((seen.len(), all.len(), pages), (7, 7, 3));
    for wrong in ["limit=0", "limit=1001", "cursor=%25", "sort=size", "colour=red", "sort=rate&cursor=YQ"] {
        site.call("reader", "GET", &format!("/v1/sessions?{wrong}"), None).await.is_problem(400, "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn filters_leave_what_has_all_of_it() {
    let site = Site::with_tokens("").await;
    let mut phone = site.broker.app_of("softphone", "alice").await;
    let bobs = site.broker.app_of("softphone", "bob").await;
    let crm = site.broker.app_of("crm", "alice").await;
    phone.subscribe("Phone/*/*").await;
    assert_eq!(sources(&site.get("/v1/sessions?source=softphone&user=bob").await), ["softphone"]);
    assert_eq!(sources(&site.get("/v1/sessions?channel=Phone").await), ["softphone"]);
    assert_eq!(sources(&site.get("/v1/applications?channel=Phone&user=alice").await), ["softphone"]);
    assert_eq!(sources(&site.get("/v1/applications?state=asleep").await), Vec::<&str>::new());
    assert_eq!(sources(&site.get("/v1/sessions?sort=since&limit=1").await), ["softphone"]);
    drop((bobs, crm));
}

#[tokio::test]
async fn every_list_takes_every_sort() {
    let site = Site::with_tokens("").await;
    let mut phone = site.broker.app_of("softphone", "alice").await;
    let mut crm = site.broker.app_of("crm", "alice").await;
    phone.subscribe("Phone/*/*").await;
    crm.subscribe("Crm/*/*").await;
    crm.handle("Crm/Contact/Find").await;
    phone.ask("Crm/Contact/Find", "1").await;
    crm.next_on("Crm/Contact/Find").await;
    for list in ["applications", "sessions", "subscriptions", "requests", "channels", "retained", "history"] {
        for sort in ["since", "queue", "rate", "dropped"] {
            let answer = site.get(&format!("/v1/{list}?sort={sort}")).await;
            assert!(answer["next"].is_null(), "{list} by {sort}: {answer}");
            let path = format!("/v1/{list}?sort={sort}&cursor=YQ");
            site.call("reader", "GET", &path, None).await.is_problem(400, "INVALID_REQUEST");
        }
    }
    assert_eq!(sources(&site.get("/v1/applications?sort=since").await), ["softphone", "crm"]);
    assert_eq!(sources(&site.get("/v1/subscriptions?sort=since").await), ["softphone", "crm", "crm"]);
    drop((phone, crm));
}

#[tokio::test]
async fn a_retained_value_is_removed_and_nobody_is_told() {
    let site = Site::with_tokens("").await;
    let mut phone = site.broker.app_of("softphone", "alice").await;
    let mut crm = site.broker.app_of("crm", "alice").await;
    crm.subscribe("Phone/*/*").await;
    phone.send(envelope("Phone/Agent/State", json!({"retain": true, "data": 1}))).await;
    phone.fence().await;
    crm.next_on("Phone/Agent/State").await;
    let path = |user: &str| format!("/v1/retained?channel=Phone&topic=Agent&subtopic=State{user}");
    assert_eq!(site.call("actor", "DELETE", &path("&user=bob"), None).await.json(), json!({"removed": 0}));
    assert_eq!(site.call("actor", "DELETE", &path("&user=alice"), None).await.json(), json!({"removed": 1}));
    assert_eq!(site.get("/v1/retained").await["items"], json!([]));
    phone.expect_nothing().await;
    crm.expect_nothing().await;
    for wrong in ["?channel=Phone", "?channel=a%2Fb&topic=c&subtopic=d"] {
        let answer = site.call("actor", "DELETE", &format!("/v1/retained{wrong}"), None).await;
        answer.is_problem(400, "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn a_removed_durable_value_is_gone_after_a_restart() {
    let file = "[channels.Phone]\nretain = 'durable'";
    let site = Site::with_tokens(file).await;
    let mut phone = site.broker.app_of("softphone", "alice").await;
    for subtopic in ["State", "Kept"] {
        phone
            .send(envelope(&format!("Phone/Agent/{subtopic}"), json!({"id": subtopic, "retain": true, "data": 1})))
            .await;
        phone.next_on("Broker/Message/Receipt").await;
    }
    let path = "/v1/retained?channel=Phone&topic=Agent&subtopic=State&user=alice";
    assert_eq!(site.call("actor", "DELETE", path, None).await.json(), json!({"removed": 1}));
    let site = Site::of(site.broker.killed().await).await;
    let kept = site.get("/v1/retained").await;
    assert_eq!((kept["items"].as_array().unwrap().len(), &kept["items"][0]["subtopic"]), (1, &json!("Kept")));
}

#[tokio::test]
async fn sessions_are_shown_as_a_table_and_as_json() {
    let site = Site::with_tokens("").await;
    let app = site.broker.app_of("softphone", "alice").await;
    let (url, token) = (format!("http://{}/", site.address), secret_file_in(&site, "reader"));
    let to_admin = ["--admin", &url, "--admin-token-file", &token];
    let with = |own: &[&'static str]| [own, &to_admin].concat();
    has(&run(&with(&["sessions"]), &[]).await, 0, "softphone  alice  active", "");
    let json = run(&with(&["sessions", "--user", "alice", "--sort", "queue", "--json"]), &[]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.as_array().unwrap().len(), &json[0]["source"]), (1, &json!("softphone")));
    drop(app);
}

#[tokio::test]
async fn stats_have_the_counters_now_and_samples_of_the_last_minutes() {
    let site = Site::with_tokens("").await;
    let mut phone = site.broker.app_of("softphone", "alice").await;
    phone.subscribe("Phone/*/*").await;
    phone.handle("Phone/Call/Dial").await;
    let mut crm = site.broker.app_of("crm", "alice").await;
    crm.publish("Phone/Call/Ringing", 1).await;
    crm.ask("Phone/Call/Dial", "r").await;
    phone.next_on("Phone/Call/Ringing").await;
    let request = phone.next_on("Phone/Call/Dial").await;
    phone.reply(&request, json!({"data": 1})).await;
    crm.next_answer("Phone/Call/Dial", "r").await;
    crm.ask("Phone/Call/Unknown", "s").await;
    // Nothing waits in a queue any more.
    crm.next_on("Broker/Message/Receipt").await;
    phone.next_on("Phone/Call/Unknown").await;

    let stats = site.get("/v1/stats").await;
    let now = &stats["now"];
    assert_eq!((&now["sessions"], &now["requests"]["count"], &now["queue"]["max"]), (&json!(2), &json!(1), &json!(0)));
    assert!(now["requests"]["p50Ms"].as_f64().is_some_and(|ms| ms > 0.0), "{stats}");
    assert!(now["envelopes"].as_u64() >= Some(3) && now["deliveries"].as_u64() >= Some(3), "{stats}");
    let mut often = tokio::time::interval(std::time::Duration::from_millis(200));
    let sampled = async {
        loop {
            let stats = site.get("/v1/stats?window=10m").await;
            let samples = stats["samples"].as_array().unwrap();
            let requests = samples.iter().map(|sample| sample["requests"]["count"].as_u64().unwrap()).sum::<u64>();
            if requests > 0 {
                return (requests, samples.last().unwrap().clone());
            }
            often.tick().await;
        }
    };
    let (requests, sample) = within("a sample of the request", sampled).await;
    assert_eq!((requests, &sample["sessions"]), (1, &json!(2)), "{sample}");
    for wrong in ["window=1d", "window=soon", "windw=1m"] {
        site.call("reader", "GET", &format!("/v1/stats?{wrong}"), None).await.is_problem(400, "INVALID_REQUEST");
    }
}

#[tokio::test]
async fn top_draws_one_picture_into_a_pipe() {
    let site = Site::with_tokens("").await;
    let app = site.broker.app_of("softphone", "alice").await;
    let (url, token) = (format!("http://{}/", site.address), secret_file_in(&site, "reader"));
    let to_admin = ["--admin", &url, "--admin-token-file", &token];
    let with = |own: &[&'static str]| [own, &to_admin].concat();
    let top = run(&with(&["top"]), &[]).await;
    has(&top, 0, "refused in the last minute: nothing", "");
    has(&top, 0, "softphone  alice  active", "");
    has(&run(&with(&["top", "--every", "1ms"]), &[]).await, 2, "", "must be from 250ms to 1h");
    drop(app);
}
