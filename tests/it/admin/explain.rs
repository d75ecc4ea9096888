//! `POST /v1/explain` and `switchboard explain`. The situations are those of the router's table: the command prints their answers, as
//! `explained.txt` has them. Each is asked of the same triple. A live broker is asked, too.

use std::fmt::Write as _;
use std::process::Output;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::routing::explain::situations::{Situation, situations};
use crate::support::within;

/// Runs `switchboard explain` with these arguments.
pub(super) async fn explain(admin: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    command.args(["explain", "--admin", admin, "--data-dir", "/nowhere"]).args(arguments);
    command.env("SWITCHBOARD_ADMIN_TOKEN", "reader").kill_on_drop(true);
    within("the command's end", command.output()).await.unwrap()
}

/// Answers one call with this body. Returns the body of the call.
async fn answer(listener: &TcpListener, body: &str) -> Value {
    let (mut stream, _) = within("a call", listener.accept()).await.unwrap();
    let mut read = Vec::new();
    let length = loop {
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the call has no end");
        let text = String::from_utf8_lossy(&read);
        let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if rest.len() >= length.unwrap() {
            break length.unwrap();
        }
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    serde_json::from_slice(&read[read.len() - length..]).unwrap()
}

#[tokio::test]
async fn every_situation_is_printed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    let mut all = String::new();
    for Situation { name, answer: explained, b, .. } in situations() {
        let body = serde_json::to_string(&explained).unwrap();
        let asking = ["Phone", "Call", "Ringing", "--source", "gadget", "--to", b];
        let (output, _) = tokio::join!(explain(&admin, &asking), answer(&listener, &body));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        write!(all, "# {name}\n{}\n", String::from_utf8(output.stdout).unwrap()).unwrap();
    }
    assert_eq!(all, include_str!("explained.txt"), "the command prints:\n{all}");
}

#[tokio::test]
async fn the_options_of_the_command_are_the_question() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    let body = serde_json::to_string(&situations()[0].answer).unwrap();
    let asking = [
        "Phone",
        "Call",
        "Dial",
        "--source",
        "gadget@desk",
        "--user",
        "alice",
        "--target",
        "softphone",
        "--id",
        "e1",
        "--timeout",
        "3s",
        "--gather",
        "--to",
        "screenpop",
        "--to-user",
        "bob",
        "--json",
    ];
    let (output, question) = tokio::join!(explain(&admin, &asking), answer(&listener, &body));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{body}\n"));
    let expected = serde_json::json!({
        "as": {"source": "gadget@desk", "user": "alice"},
        "envelope": {
            "channel": "Phone", "topic": "Call", "subtopic": "Dial", "user": "alice", "target": "softphone", "id": "e1",
            "gather": true, "timeout": 3000,
        },
        "to": {"source": "screenpop", "user": "bob"},
    });
    assert_eq!(question, expected);
    let event = ["Phone", "Call", "Ended", "--source", "gadget", "--id", "e1", "--retain", "--once"];
    let (_, question) = tokio::join!(explain(&admin, &event), answer(&listener, &body));
    let expected = serde_json::json!({
        "as": {"source": "gadget", "user": null},
        "envelope": {"channel": "Phone", "topic": "Call", "subtopic": "Ended", "id": "e1", "retain": true, "once": true},
    });
    assert_eq!(question, expected);
    for (arguments, what) in [
        (&["Phone", "Call", "*", "--source", "gadget"][..], "the subtopic"),
        (&["Broker", "Application", "List", "--source", "gadget"], "reserved"),
        (&["Phone", "Call", "Ring", "--source", "gadget", "--to-user", "bob"], "--to"),
        (&["Phone", "Call", "Ring"], "--source"),
    ] {
        let output = explain(&admin, arguments).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(what), "{error}");
    }
}

mod live {
    //! Asked of a live broker.

    use serde_json::{Value, json};

    use super::explain;
    use crate::admin::{Answer, Site};

    /// Asks as a reader.
    async fn ask(site: &Site, question: &Value) -> Answer {
        site.call("reader", "POST", "/v1/explain", Some(question)).await
    }

    #[tokio::test]
    async fn a_live_broker_explains() {
        let site = Site::with_tokens("").await;
        let mut gadget = site.broker.app_of("gadget", "alice").await;
        let mut popup = site.broker.app_of("screenpop", "alice").await;
        popup.subscribe("Phone/call/*").await;
        // What the guide shows.
        let admin = format!("http://{}/", site.address);
        let line = "explain Phone Call Ringing --source gadget --user alice --to screenpop";
        let arguments: Vec<&str> = line.split(' ').skip(1).collect();
        let printed = String::from_utf8(explain(&admin, &arguments).await.stdout).unwrap();
        let guide = std::fs::read_to_string("docs/guides/it-does-not-arrive.md").unwrap();
        assert!(guide.contains(&format!("$ switchboard {line}\n{printed}```")), "{printed}");

        let mut board = site.broker.app_of("board", "alice").await;
        board.subscribe("Phone/*/*").await;
        let envelope = json!({"channel": "Phone", "topic": "Call", "subtopic": "Ringing"});
        let answer = ask(&site, &json!({"as": {"source": "gadget", "user": "alice"}, "envelope": envelope})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        assert_eq!((&answer["verdict"], &answer["rule"]), (&json!("EVENT"), &json!("4.1")), "{answer}");
        assert_eq!(answer["receives"][0]["source"], "board", "{answer}");
        let other = &answer["others"][1];
        assert_eq!((&other["source"], &other["reason"]), (&json!("screenpop"), &json!("NO_MATCH")), "{answer}");
        assert_eq!(other["nearest"], json!({"name": "Phone/call/*", "differs": "CASE"}));
        for peer in [&mut gadget, &mut popup, &mut board] {
            peer.expect_nothing().await;
        }
        // A source that has left is known with its close code.
        drop(popup);
        let left = || async {
            let to = json!({"source": "screenpop", "user": "alice"});
            let answer = ask(&site, &json!({"as": {"source": "gadget"}, "envelope": envelope, "to": to})).await.json();
            answer["others"][0]["left"]["code"].as_u64()
        };
        let gone = async { while left().await.is_none() {} };
        crate::support::within("the end of the session", gone).await;
        assert_eq!(left().await, Some(1006));
    }

    #[tokio::test]
    async fn a_question_that_cannot_be_read_is_a_problem() {
        let site = Site::with_tokens("").await;
        let _gadget = site.broker.app("gadget").await;
        let _others = [site.broker.app_of("desk", "alice").await, site.broker.app_of("desk", "bob").await];
        let envelope = json!({"channel": "Phone", "topic": "Call", "subtopic": "Ringing"});
        for (wrong, status, code, what) in [
            (json!({}), 400, "INVALID_REQUEST", "as"),
            (json!({"as": {"source": ""}, "envelope": envelope}), 400, "INVALID_REQUEST", "as.source"),
            (json!({"as": {"source": "gadgt"}, "envelope": envelope}), 400, "NOT_REGISTERED", "did you mean 'gadget'?"),
            (json!({"as": {"source": "desk"}, "envelope": envelope}), 400, "INVALID_REQUEST", "as.user"),
            (json!({"as": {"source": "gadget"}, "envelope": []}), 400, "INVALID_ENVELOPE", "envelope"),
            (json!({"as": {"source": "gadget"}, "envelope": {"channel": "A"}}), 400, "INVALID_ENVELOPE", "topic"),
            (json!({"as": {"source": "gadget"}, "envelope": envelope, "from": {}}), 400, "INVALID_REQUEST", "from"),
        ] {
            let answer = ask(&site, &wrong).await;
            answer.is_problem(status, code);
            assert!(answer.text.contains(what), "{what}: {answer:?}");
        }
        let payload =
            json!({"channel": "Phone", "topic": "Call", "subtopic": "Ringing", "data": {"password": "canary"}});
        let answer = ask(&site, &json!({"as": {"source": "gadget"}, "envelope": payload})).await;
        answer.is_problem(400, "INVALID_ENVELOPE");
        assert!(!answer.text.contains("canary"), "{answer:?}");
    }
}
