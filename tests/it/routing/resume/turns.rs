//! An ordered handler that loses its connection while it has a request, which another handler is given meanwhile.

use serde_json::{Value, json};
use switchboard::config::Config;

use crate::support::client::{Client, Desk};
use crate::support::core::event;

const STATE: &str = "Amazon/Agent/GetState";

fn handler(desk: &Desk, source: &'static str, is_ordered: bool) -> Client {
    let mut client = desk.begin(source);
    let mut data = json!({"channel": "Amazon", "topic": "Agent", "subtopic": "GetState", "role": "handler"});
    if is_ordered {
        data["ordered"] = true.into();
    }
    client.command(desk, "Subscription", "Subscribe", &data);
    assert_eq!(client.take(desk, 1)[0]["data"]["Success"], true);
    client
}

/// The requests among messages, by the requester's own ids.
fn requests(messages: &[Value]) -> Vec<&Value> {
    messages.iter().filter(|message| message["channel"] == "Amazon").map(|message| &message["requestId"]).collect()
}

#[test]
fn its_late_reply_is_not_taken_for_the_reply_to_the_next_request() {
    let desk = Desk::new(&Config::default());
    let (mut ordered, mut other) = (handler(&desk, "cti", true), handler(&desk, "other", false));
    let asker = desk.core.attach("asker", Some("alice"));
    desk.core.send(&asker, &event(STATE, r#","id":"a","idempotent":true"#)).unwrap();
    assert_eq!(requests(&ordered.take(&desk, 8)), ["a"]);
    ordered.lose(&desk);
    let given = other.take(&desk, 8);
    assert_eq!(requests(&given), ["a"]);
    other.say(&desk, &event(STATE, &format!(r#","inReplyTo":{},"data":"of a""#, given[0]["id"])));
    assert_eq!(desk.core.take(&asker)[0]["data"], "of a");
    other.command(&desk, "Application", "Unregister", &json!({}));

    assert_eq!(ordered.resume(&desk)["Resumed"], true);
    assert_eq!(ordered.take(&desk, 8)[0]["subtopic"], "Cancelled");
    desk.core.send(&asker, &event(STATE, r#","id":"b""#)).unwrap();
    assert!(ordered.take(&desk, 8).is_empty(), "it has to send the reply to the first request before");
    ordered.say(&desk, &event(STATE, r#","data":"late, of a""#));
    assert_eq!(requests(&ordered.take(&desk, 8)), ["b"]);
    assert!(desk.core.take(&asker).is_empty());
    ordered.say(&desk, &event(STATE, r#","data":"of b""#));
    let answers = desk.core.take(&asker);
    assert_eq!((answers.len(), &answers[0]["inReplyTo"], &answers[0]["data"]), (1, &json!("b"), &json!("of b")));
}
