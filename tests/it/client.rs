//! The Rust client against a broker that says only what a test has it say.

use std::future::IntoFuture;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use switchboard::client::{Builder, Client, Error, Failure, Gathered, Message, Payload, State, Subscription, Triple};
use switchboard::error::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::fake_broker::{FakeBroker, Peer, event, request, triple};

fn builder(broker: &FakeBroker) -> Builder {
    Client::builder(broker.url()).source("softphone").backoff(Duration::from_millis(1), Duration::from_millis(5))
}

/// A registered client and its broker's end.
async fn session() -> (FakeBroker, Client, Peer<TcpStream>) {
    let broker = FakeBroker::start().await;
    let (client, (peer, _)) = tokio::join!(builder(&broker).connect(), broker.session());
    (broker, client.unwrap(), peer)
}

async fn subscribe(client: &Client, peer: &mut Peer<TcpStream>, pattern: &str) -> Subscription {
    let (subscription, _) = tokio::join!(client.subscribe(pattern.parse().unwrap()).into_future(), peer.grant());
    subscription.unwrap()
}

fn find() -> Triple<'static> {
    Triple::new("Crm", "Contact", "Find")
}

async fn next(subscription: &mut Subscription) -> Value {
    let message = timeout(Duration::from_secs(5), subscription.next()).await.expect("no message");
    message.expect("the subscription has ended").data().unwrap()
}

async fn expect_state(states: &mut (impl Stream<Item = State> + Unpin), fits: impl Fn(&State) -> bool) -> State {
    let search = async {
        loop {
            let state = states.next().await.expect("the states have ended");
            if fits(&state) {
                return state;
            }
        }
    };
    timeout(Duration::from_hours(1), search).await.expect("the state never came")
}

fn is_connected(state: &State) -> bool {
    matches!(state, State::Connected(_))
}

mod connecting {
    use super::*;

    #[tokio::test]
    async fn registers_with_what_it_was_given() {
        let broker = FakeBroker::start().await;
        let connect = builder(&broker).user("alice").token("secret".into()).echo(true).connect();
        let (client, (_peer, register)) = tokio::join!(connect, broker.session());
        assert_eq!(register["source"], "softphone");
        assert_eq!(register["data"], json!({ "token": "secret", "user": "alice", "echo": true }));
        let State::Connected(session) = client.unwrap().state() else { panic!("not connected") };
        assert_eq!((session.id.as_str(), session.user.as_deref()), ("session-1", Some("local")));
    }

    #[tokio::test]
    async fn nothing_that_listens_is_unreachable() {
        let url = FakeBroker::start().await.url();
        let error = Client::builder(url).source("softphone").connect().await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { kind: io::ErrorKind::ConnectionRefused, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_handshake_that_is_refused_says_why() {
        let broker = FakeBroker::start().await;
        let refuse = async {
            let mut stream = broker.tcp().await;
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 21\r\n\r\norigin is not allowed";
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream
        };
        let (client, _stream) = tokio::join!(builder(&broker).connect(), refuse);
        let error = client.unwrap_err();
        assert_eq!(error.to_string(), "the handshake was refused with HTTP status 403: origin is not allowed");
    }

    #[tokio::test]
    async fn a_refused_registration_has_its_code() {
        let broker = FakeBroker::start().await;
        let refuse = async {
            let mut peer = broker.connection().await;
            let register = peer.next().await;
            let data = json!({ "Success": false, "ErrorCode": "UNAUTHENTICATED", "ErrorMessage": "no such token" });
            peer.answer(&register, data).await;
            peer.close(4401, "unauthenticated").await;
        };
        let (client, ()) = tokio::join!(builder(&broker).connect(), refuse);
        let error = client.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Unauthenticated));
        assert_eq!(error.to_string(), "UNAUTHENTICATED: no such token");
    }

    #[tokio::test]
    async fn addresses_and_names_are_checked_first() {
        for url in ["http://127.0.0.1/ws", "wss://127.0.0.1/ws", "127.0.0.1:7420", "ws://me:secret@127.0.0.1/ws"] {
            let error = Client::builder(url).source("softphone").connect().await.unwrap_err();
            assert!(matches!(&error, Error::Invalid(words) if !words.contains("secret")), "{url}: {error}");
        }
        let error = Client::builder("ws://127.0.0.1/ws").connect().await.unwrap_err();
        assert_eq!(error.to_string(), "the source must not be empty");
    }

    #[tokio::test]
    async fn close_unregisters_first() {
        let (_broker, client, mut peer) = session().await;
        let work = async {
            peer.expect("Broker/Application/Unregister").await;
            assert!(peer.is_closed().await);
        };
        tokio::join!(client.close(), work);
        assert!(matches!(client.state(), State::Closed { code: None, .. }));
        let error = client.publish(find(), json!(1)).await.unwrap_err();
        assert!(matches!(error, Error::Closed { .. }), "{error}");
    }

    #[tokio::test]
    async fn the_last_drop_closes_after_what_was_published() {
        let (_broker, client, mut peer) = session().await;
        let clone = client.clone();
        drop(client);
        clone.publish(find(), json!("last words")).await.unwrap();
        drop(clone);
        assert_eq!(peer.expect("Crm/Contact/Find").await["data"], "last words");
        assert!(peer.is_closed().await);
    }
}

mod publishing {
    use super::*;

    #[tokio::test]
    async fn an_event_is_what_was_asked_for() {
        let (_broker, client, mut peer) = session().await;
        client.publish(find(), ()).await.unwrap();
        let bare = json!({ "channel": "Crm", "topic": "Contact", "subtopic": "Find", "source": "softphone" });
        assert_eq!(peer.next().await, bare);
        client.publish(find(), json!(null)).retain().target("crm").user("bob").await.unwrap();
        let mut full = bare;
        for (key, value) in [("retain", json!(true)), ("target", "crm".into()), ("user", "bob".into())] {
            full[key] = value;
        }
        full["data"] = Value::Null;
        assert_eq!(peer.next().await, full);
    }

    #[tokio::test]
    async fn a_receipt_tells_the_receivers() {
        let (_broker, client, mut peer) = session().await;
        let give = async {
            let event = peer.next().await;
            let mut receipt = super::event("Broker/Message/Receipt", json!({ "Success": true, "Receivers": 2 }));
            receipt["inReplyTo"] = event["id"].clone();
            peer.say(receipt).await;
        };
        let (receipt, ()) = tokio::join!(client.publish(find(), json!(1)).receipt().into_future(), give);
        assert_eq!(receipt.unwrap().receivers, 2);
    }

    #[tokio::test]
    async fn a_refusal_comes_in_place_of_the_receipt() {
        let (_broker, client, mut peer) = session().await;
        let refuse = async {
            let event = peer.next().await;
            let data = json!({ "Success": false, "ErrorCode": "USER_REQUIRED", "ErrorMessage": "name a user" });
            let mut error = super::event("Broker/Message/Error", data);
            error["inReplyTo"] = event["id"].clone();
            peer.say(error).await;
        };
        let (receipt, ()) = tokio::join!(client.publish(find(), json!(1)).receipt().into_future(), refuse);
        assert_eq!(receipt.unwrap_err().code(), Some(ErrorCode::UserRequired));
    }

    #[tokio::test]
    async fn what_the_broker_would_close_for_is_not_sent() {
        let (_broker, client, mut peer) = session().await;
        let error = client.publish(find(), json!("x".repeat(3000))).await.unwrap_err();
        assert!(matches!(&error, Error::Invalid(words) if words.contains("2048")), "{error}");
        for wrong in [Triple::new("Crm", "*", "Find"), Triple::new("Broker", "Contact", "Find")] {
            let error = client.publish(wrong, ()).await.unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{error}");
        }
        peer.hears_nothing().await;
    }
}

mod subscribing {
    use super::*;

    #[tokio::test]
    async fn an_event_reaches_every_matching_subscription_once() {
        let (_broker, client, mut peer) = session().await;
        let mut all = subscribe(&client, &mut peer, "*/*/*").await;
        let mut finds = subscribe(&client, &mut peer, "Crm/*/Find").await;
        let mut other = subscribe(&client, &mut peer, "Phone/*/*").await;
        peer.say(event("Crm/Contact/Find", json!(1))).await;
        peer.say(event("Phone/Call/Ringing", json!(2))).await;
        assert_eq!([next(&mut all).await, next(&mut all).await], [1, 2]);
        assert_eq!(next(&mut finds).await, 1);
        assert_eq!(next(&mut other).await, 2);
    }

    #[tokio::test]
    async fn options_reach_the_broker() {
        let (_broker, client, mut peer) = session().await;
        let pattern = || "Phone/*/*".parse().unwrap();
        let subscribing = client.subscribe(pattern()).group("pool").observe("*");
        let (subscription, data) = tokio::join!(subscribing.into_future(), peer.grant());
        subscription.unwrap();
        assert_eq!(data, json!({ "channel": "Phone", "topic": "*", "subtopic": "*", "group": "pool", "user": "*" }));
    }

    #[tokio::test]
    async fn a_refused_subscription_is_an_error() {
        let (_broker, client, mut peer) = session().await;
        let refuse = async {
            let subscribe = peer.next().await;
            let data = json!({ "Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "not yours" });
            peer.answer(&subscribe, data).await;
        };
        let subscribing = client.subscribe("Phone/*/*".parse().unwrap());
        let (subscription, ()) = tokio::join!(subscribing.into_future(), refuse);
        assert_eq!(subscription.unwrap_err().code(), Some(ErrorCode::Forbidden));
    }

    #[tokio::test]
    async fn the_last_of_equal_subscriptions_unsubscribes() {
        let (_broker, client, mut peer) = session().await;
        let first = subscribe(&client, &mut peer, "Phone/*/*").await;
        let mut second = subscribe(&client, &mut peer, "Phone/*/*").await;
        drop(first);
        peer.hears_nothing().await;
        peer.say(event("Phone/Call/Ringing", json!(1))).await;
        assert_eq!(next(&mut second).await, 1);
        drop(second);
        let unsubscribe = peer.expect("Broker/Subscription/Unsubscribe").await;
        assert_eq!(unsubscribe["data"], json!({ "channel": "Phone", "topic": "*", "subtopic": "*" }));
    }

    #[tokio::test]
    async fn kept_values_go_to_the_new_subscription_only() {
        let (_broker, client, mut peer) = session().await;
        let mut old = subscribe(&client, &mut peer, "Phone/*/*").await;
        let mut new = subscribe(&client, &mut peer, "Phone/Agent/*").await;
        let mut kept = event("Phone/Agent/State", json!("kept"));
        kept["retained"] = true.into();
        peer.say(kept).await;
        peer.say(event("Phone/Agent/State", json!("live"))).await;
        assert_eq!(next(&mut new).await, "kept");
        assert_eq!(next(&mut new).await, "live");
        assert_eq!(next(&mut old).await, "live");
    }

    #[tokio::test]
    async fn observed_users_are_told_apart() {
        let (_broker, client, mut peer) = session().await;
        let observe = async |peer: &mut Peer<TcpStream>, user| {
            let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).observe(user);
            tokio::join!(subscribing.into_future(), peer.grant()).0.unwrap()
        };
        let mut alice = observe(&mut peer, "alice").await;
        let mut bob = observe(&mut peer, "bob").await;
        for user in ["bob", "alice"] {
            let mut event = event("Phone/Call/Ringing", json!(user));
            event["user"] = user.into();
            peer.say(event).await;
        }
        assert_eq!(next(&mut alice).await, "alice");
        assert_eq!(next(&mut bob).await, "bob");
    }

    #[tokio::test]
    async fn a_channel_that_folds_case_is_heard() {
        let (_broker, client, mut peer) = session().await;
        let mut subscription = subscribe(&client, &mut peer, "Queue/stats/*").await;
        peer.say(event("Queue/Stats/Waiting", json!(3))).await;
        assert_eq!(next(&mut subscription).await, 3);
    }

    #[tokio::test]
    async fn a_busy_consumer_can_still_ask() {
        let (_broker, client, mut peer) = session().await;
        let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).queue(2);
        let (subscription, _) = tokio::join!(subscribing.into_future(), peer.grant());
        let mut subscription = subscription.unwrap();
        for number in 0..50 {
            peer.say(event("Phone/Call/Ringing", json!(number))).await;
        }
        // The answer stands behind more events than the queue takes.
        let give = async {
            let request = peer.next().await;
            peer.answer(&request, json!("found")).await;
        };
        let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), give);
        assert_eq!(reply.unwrap().payload(), Some("\"found\""));
        for number in 0..50 {
            assert_eq!(next(&mut subscription).await, number);
        }
    }

    #[tokio::test]
    async fn a_slow_consumer_stops_the_reading() {
        let (_broker, client, mut peer) = session().await;
        let subscribing = client.subscribe("Phone/*/*".parse().unwrap()).queue(1);
        let (subscription, _) = tokio::join!(subscribing.into_future(), peer.grant());
        let mut subscription = subscription.unwrap();
        let data = json!("x".repeat(100_000));
        let flood = async {
            for _ in 0..1000 {
                peer.say(event("Phone/Call/Ringing", data.clone())).await;
            }
        };
        let blocked = timeout(Duration::from_millis(300), flood).await;
        assert!(blocked.is_err(), "100 MB went somewhere");
        assert_eq!(next(&mut subscription).await, data);
    }

    #[tokio::test]
    async fn it_is_a_stream_that_ends_with_the_client() {
        let (_broker, client, mut peer) = session().await;
        let subscription = subscribe(&client, &mut peer, "Phone/*/*").await;
        peer.say(event("Phone/Call/Ringing", json!(1))).await;
        let mut taken = subscription.take(2);
        assert!(StreamExt::next(&mut taken).await.is_some());
        drop(peer);
        client.close().await;
        assert!(StreamExt::next(&mut taken).await.is_none());
    }
}

mod requesting {
    use super::*;

    #[tokio::test]
    async fn a_request_always_bears_its_timeout() {
        let (_broker, client, mut peer) = session().await;
        let answer = async {
            let request = peer.next().await;
            // As the vendor answers: on another topic.
            let mut reply = event("Crm/Contact/Found", json!({ "Name": "Ada" }));
            reply["inReplyTo"] = request["id"].clone();
            peer.say(reply).await;
            request
        };
        let asking = client.request(find(), json!(1)).timeout(Duration::from_secs(3)).idempotent().target("crm");
        let (reply, request) = tokio::join!(asking.into_future(), answer);
        assert_eq!(reply.unwrap().data::<Value>().unwrap()["Name"], "Ada");
        assert_eq!((&request["timeout"], &request["target"]), (&json!(3000), &json!("crm")));
        assert_eq!((&request["idempotent"], &request["gather"]), (&json!(true), &Value::Null));
    }

    #[tokio::test]
    async fn success_false_is_a_refusal_that_keeps_its_answer() {
        let (_broker, client, mut peer) = session().await;
        let refuse = async {
            let request = peer.next().await;
            let data = json!({ "Username": null, "Success": false, "ErrorMessage": "unknown agent" });
            peer.answer(&request, data).await;
        };
        let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), refuse);
        let Err(Error::Refused(failure)) = reply else { panic!("no refusal") };
        assert_eq!((failure.code(), failure.message()), (None, "unknown agent"));
        assert!(failure.reply().unwrap().payload().unwrap().contains("Username"));
    }

    #[tokio::test]
    async fn progressive_answers_come_one_by_one() {
        let (_broker, client, mut peer) = session().await;
        let answer = async {
            let request = peer.next().await;
            peer.answer_partly(&request, json!(1)).await;
            peer.answer_partly(&request, json!(2)).await;
            peer.answer(&request, json!(3)).await;
        };
        let ask = async {
            let answers = client.request(find(), ()).answers().await.unwrap().into_stream();
            answers.map(|answer| answer.unwrap().data::<u32>().unwrap()).collect::<Vec<_>>().await
        };
        assert_eq!(tokio::join!(ask, answer).0, [1, 2, 3]);
    }

    #[tokio::test]
    async fn gathered_answers_end_with_the_summary() {
        let (_broker, client, mut peer) = session().await;
        let answer = async {
            let request = peer.next().await;
            assert_eq!(request["gather"], true);
            peer.answer_partly(&request, json!("a")).await;
            let data = json!({
                "Success": true, "ErrorMessage": null, "Expected": 2, "Answered": 1,
                "Failed": [{ "Source": "crm", "ErrorCode": "HANDLER_GONE" }],
            });
            peer.answer(&request, data).await;
        };
        let ask = async {
            let gather = client.request(find(), ()).gather().await.unwrap().into_stream();
            gather.map(Result::unwrap).collect::<Vec<_>>().await
        };
        let (items, ()) = tokio::join!(ask, answer);
        let [Gathered::Answer(first), Gathered::End(summary)] = &items[..] else { panic!("{items:?}") };
        assert_eq!(first.payload(), Some("\"a\""));
        assert_eq!((summary.expected, summary.answered), (2, 1));
        assert_eq!(summary.failed[0].code(), Some(ErrorCode::HandlerGone));
    }

    #[tokio::test]
    async fn to_drop_is_to_cancel() {
        let (_broker, client, mut peer) = session().await;
        let asking = timeout(Duration::from_millis(50), client.request(find(), ()).into_future());
        assert!(asking.await.is_err());
        let request = peer.expect("Crm/Contact/Find").await;
        let cancel = peer.expect("Broker/Request/Cancel").await;
        assert_eq!(cancel["data"], json!({ "id": request["id"] }));
    }

    #[tokio::test]
    async fn what_is_answered_is_not_cancelled() {
        let (_broker, client, mut peer) = session().await;
        let answer = async {
            let request = peer.next().await;
            peer.answer(&request, json!(1)).await;
        };
        let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), answer);
        reply.unwrap();
        peer.hears_nothing().await;
    }

    #[tokio::test]
    async fn a_lost_connection_fails_what_is_pending() {
        let (_broker, client, mut peer) = session().await;
        let lose = async {
            peer.next().await;
            drop(peer);
        };
        let (reply, ()) = tokio::join!(client.request(find(), ()).into_future(), lose);
        assert!(matches!(reply, Err(Error::Disconnected)), "{reply:?}");
        // And what is asked meanwhile fails at once.
        let error = client.request(find(), ()).await.unwrap_err();
        assert!(matches!(error, Error::Disconnected), "{error}");
    }
}

mod serving {
    use super::*;

    #[tokio::test]
    async fn a_closure_answers_or_fails() {
        let (_broker, client, mut peer) = session().await;
        let serve = client.serve("Crm/Contact/*".parse().unwrap(), async |request| match request.payload() {
            Some("1") => Ok(json!({ "from": request.source() }).into()),
            _ => Err(Failure::new("NOT_FOUND", "nobody has this number")),
        });
        let (serving, wanted) = tokio::join!(serve.into_future(), peer.grant());
        let _serving = serving.unwrap();
        assert_eq!(wanted["role"], "handler");

        peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
        let answer = peer.expect("Crm/Contact/Find").await;
        assert_eq!((&answer["inReplyTo"], &answer["data"]), (&json!("r1"), &json!({ "from": "other" })));
        assert_eq!(answer["source"], "softphone");

        peer.say(request("Crm/Contact/Find", "r2", json!(2))).await;
        let failure = json!({ "Success": false, "ErrorCode": "NOT_FOUND", "ErrorMessage": "nobody has this number" });
        assert_eq!(peer.next().await["data"], failure);
    }

    #[tokio::test]
    async fn an_event_with_its_publishers_id_is_no_request() {
        let (_broker, client, mut peer) = session().await;
        let serve = client.serve("Crm/*/*".parse().unwrap(), async |_| Ok(Payload::default()));
        let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
        let _serving = serving.unwrap();
        let mut events = subscribe(&client, &mut peer, "Crm/*/*").await;
        let mut published = event("Crm/Contact/Changed", json!("event"));
        published["id"] = "theirs".into();
        peer.say(published).await;
        assert_eq!(next(&mut events).await, "event");
        peer.hears_nothing().await;
        peer.say(request("Crm/Contact/Find", "r1", json!("request"))).await;
        peer.say(event("Crm/Contact/Changed", json!("later"))).await;
        assert_eq!(peer.next().await["inReplyTo"], "r1");
        assert_eq!(next(&mut events).await, "later");
    }

    #[tokio::test]
    async fn the_narrowest_handler_answers() {
        let (_broker, client, mut peer) = session().await;
        let mut serving = Vec::new();
        for pattern in ["*/*/*", "Crm/Contact/Find", "Crm/*/*"] {
            let serve = client.serve(pattern.parse().unwrap(), move |_| async move { Ok(json!(pattern).into()) });
            serving.push(tokio::join!(serve.into_future(), peer.grant()).0.unwrap());
        }
        peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
        assert_eq!(peer.next().await["data"], "Crm/Contact/Find");
    }

    #[tokio::test]
    async fn parts_come_before_the_answer() {
        let (_broker, client, mut peer) = session().await;
        let serve = client.serve("Crm/*/*".parse().unwrap(), async |request| {
            request.progress(json!("half")).await.map_err(|error| Failure::new("X", error.to_string()))?;
            Ok(json!("whole").into())
        });
        let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
        let _serving = serving.unwrap();
        peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
        let (half, whole) = (peer.next().await, peer.next().await);
        assert_eq!((&half["data"], &half["more"]), (&json!("half"), &json!(true)));
        assert_eq!((&whole["data"], &whole["more"]), (&json!("whole"), &Value::Null));
    }

    #[tokio::test]
    async fn a_cancelled_request_is_told_and_not_answered() {
        let (_broker, client, mut peer) = session().await;
        let (told, mut hears) = mpsc::channel(1);
        let serve = client.serve("Crm/*/*".parse().unwrap(), move |request| {
            let told = told.clone();
            async move {
                request.cancelled().await;
                told.send(()).await.unwrap();
                Ok(json!("too late").into())
            }
        });
        let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
        let _serving = serving.unwrap();
        peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
        let mut cancelled = event("Broker/Request/Cancelled", json!({}));
        cancelled["inReplyTo"] = "r1".into();
        peer.say(cancelled).await;
        timeout(Duration::from_secs(5), hears.recv()).await.unwrap();
        peer.hears_nothing().await;
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_too() {
        let (_broker, client, mut peer) = session().await;
        let serve = client.serve("Crm/*/*".parse().unwrap(), async |request| {
            let number: u32 = request.data().expect("a number");
            Ok(json!(number).into())
        });
        let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
        let _serving = serving.unwrap();
        peer.say(request("Crm/Contact/Find", "r1", json!("no number"))).await;
        assert_eq!(peer.next().await["data"]["ErrorCode"], "INTERNAL");
        peer.say(request("Crm/Contact/Find", "r2", json!(2))).await;
        assert_eq!(peer.next().await["data"], 2);
    }

    #[tokio::test]
    async fn to_stop_is_to_answer_what_was_begun() {
        let (_broker, client, mut peer) = session().await;
        let (begun, mut begins) = mpsc::channel(1);
        let release = Arc::new(Notify::new());
        let gate = Arc::clone(&release);
        let serve = client.serve("Crm/*/*".parse().unwrap(), move |_| {
            let (begun, gate) = (begun.clone(), Arc::clone(&gate));
            async move {
                begun.send(()).await.unwrap();
                gate.notified().await;
                Ok(json!("done").into())
            }
        });
        let (serving, _) = tokio::join!(serve.concurrency(1).into_future(), peer.grant());
        peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
        begins.recv().await.unwrap();
        peer.say(request("Crm/Contact/Find", "r2", json!(1))).await;
        let work = async {
            let heard = [peer.next().await, peer.next().await];
            assert!(heard.iter().any(|it| triple(it) == "Broker/Subscription/Unsubscribe"), "{heard:?}");
            let gone = heard.iter().find(|it| it["inReplyTo"] == "r2").expect("the second request is answered");
            assert_eq!(gone["data"]["ErrorCode"], "HANDLER_GONE");
            release.notify_one();
            assert_eq!(peer.next().await["data"], "done");
        };
        tokio::join!(serving.unwrap().stop(), work);
    }
}

mod reconnecting {
    use super::*;

    #[tokio::test]
    async fn it_registers_and_subscribes_again() {
        let (broker, client, mut peer) = session().await;
        let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
        let serve = client.serve("Crm/*/*".parse().unwrap(), async |_| Ok(json!("served").into()));
        let (serving, _) = tokio::join!(serve.into_future(), peer.grant());
        let _serving = serving.unwrap();
        let mut states = Box::pin(client.states());
        assert!(is_connected(&states.next().await.unwrap()));
        drop(peer);
        let lost = expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
        let State::Disconnected { reason, .. } = lost else { unreachable!() };
        assert_eq!(reason, "the connection to the broker was lost");

        let mut peer = broker.connection().await;
        let register = peer.register("session-2").await;
        assert_eq!(register["source"], "softphone");
        let mut granted = [peer.grant().await, peer.grant().await];
        granted.sort_by_key(|data| data["channel"].to_string());
        assert_eq!((&granted[0]["role"], &granted[1]["channel"]), (&json!("handler"), &json!("Phone")));
        let State::Connected(session) = expect_state(&mut states, is_connected).await else { unreachable!() };
        assert_eq!(session.id, "session-2");

        peer.say(event("Phone/Call/Ringing", json!("again"))).await;
        assert_eq!(next(&mut events).await, "again");
        peer.say(request("Crm/Contact/Find", "r1", json!(1))).await;
        assert_eq!(peer.next().await["data"], "served");
    }

    #[tokio::test]
    async fn what_was_dropped_meanwhile_is_not_subscribed_to_again() {
        let (broker, client, mut peer) = session().await;
        let dropped = subscribe(&client, &mut peer, "Phone/*/*").await;
        let mut states = Box::pin(client.states());
        drop(peer);
        expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
        drop(dropped);
        let (mut peer, _) = broker.session().await;
        peer.hears_nothing().await;
    }

    #[tokio::test]
    async fn a_subscription_that_is_refused_again_ends_with_the_reason() {
        let (broker, client, mut peer) = session().await;
        let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
        drop(peer);
        let (mut peer, _) = broker.session().await;
        let subscribe = peer.expect("Broker/Subscription/Subscribe").await;
        let data = json!({ "Success": false, "ErrorCode": "FORBIDDEN", "ErrorMessage": "no longer" });
        peer.answer(&subscribe, data).await;
        assert!(events.next().await.is_none());
        assert_eq!(events.error().unwrap().to_string(), "FORBIDDEN: no longer");
        drop(client);
    }

    #[tokio::test]
    async fn a_refused_registration_is_the_end() {
        let (broker, client, peer) = session().await;
        let mut states = Box::pin(client.states());
        drop(peer);
        let mut peer = broker.connection().await;
        let register = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": "UNAUTHENTICATED", "ErrorMessage": "revoked" });
        peer.answer(&register, data).await;
        let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
        assert_eq!(state, State::Closed { code: None, reason: "UNAUTHENTICATED: revoked".into() });
        assert!(states.next().await.is_none());
    }

    #[tokio::test]
    async fn close_codes_of_a_refusal_are_the_end() {
        for code in [4401, 4403, 4409] {
            let (_broker, client, peer) = session().await;
            let mut states = Box::pin(client.states());
            peer.close(code, "go away").await;
            let state = expect_state(&mut states, |state| matches!(state, State::Closed { .. })).await;
            assert_eq!(state, State::Closed { code: Some(code), reason: "go away".into() });
        }
    }
}

/// With a clock that the test moves: in memory only, for a paused runtime takes waiting on a socket for idleness.
mod in_its_own_time {
    use super::*;

    /// What dials: the broker's ends of the connections come out of the queue; the first of `refuse` dials after the
    /// first fail.
    fn dialled(builder: Builder, refuse: usize) -> (Builder, mpsc::Receiver<DuplexStream>) {
        let (ends, broker) = mpsc::channel(8);
        let dials = Arc::new(AtomicUsize::new(0));
        let builder = builder.dial(move || {
            let (ends, dial) = (ends.clone(), dials.fetch_add(1, Ordering::Relaxed));
            async move {
                if (1..=refuse).contains(&dial) {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (ours, theirs) = duplex(64 << 10);
                ends.send(theirs).await.unwrap();
                Ok(ours)
            }
        });
        (builder, broker)
    }

    fn builder() -> Builder {
        Client::builder("ws://broker.test/ws").source("softphone")
    }

    async fn accept(broker: &mut mpsc::Receiver<DuplexStream>) -> Peer<DuplexStream> {
        let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
        peer.register("session").await;
        peer
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_to_the_last_ceiling_and_no_further() {
        let attempts = 12;
        let (builder, mut broker) = dialled(builder(), attempts);
        let (client, peer) = tokio::join!(builder.connect(), accept(&mut broker));
        let client = client.unwrap();
        let mut states = Box::pin(client.states());
        drop(peer);
        let mut waits = Vec::new();
        let accepted = async { accept(&mut broker).await };
        tokio::pin!(accepted);
        loop {
            tokio::select! {
                state = states.next() => match state.unwrap() {
                    State::Disconnected { retry_in, .. } => waits.push(retry_in),
                    State::Connected(_) if waits.len() > attempts => break,
                    _ => {}
                },
                _peer = &mut accepted, if waits.len() > attempts => break,
            }
        }
        assert_eq!(waits.len(), attempts + 1);
        for (attempt, wait) in waits.iter().enumerate() {
            let ceiling = Duration::from_millis(100 << attempt.min(20)).min(Duration::from_secs(30));
            assert!(*wait <= ceiling, "attempt {attempt}: {wait:?} over {ceiling:?}");
        }
        // Full jitter: not all of the long waits are short by chance.
        assert!(waits.iter().max().unwrap() > &Duration::from_secs(1), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_says_when_to_come_back() {
        let (builder, mut broker) = dialled(builder(), 0);
        let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
        let client = client.unwrap();
        let mut states = Box::pin(client.states());
        peer.say(event("Broker/Connection/Draining", json!({ "ReconnectAfterMs": 4321 }))).await;
        peer.close(1012, "restarting").await;
        let state = expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
        let State::Disconnected { retry_in, .. } = state else { unreachable!() };
        assert_eq!(retry_in, Duration::from_millis(4321));
        let _peer = accept(&mut broker).await;
        expect_state(&mut states, is_connected).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_falls_silent_is_given_up() {
        let (builder, mut broker) = dialled(builder(), 0);
        let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
        let client = client.unwrap();
        let mut states = Box::pin(client.states());
        let start = tokio::time::Instant::now();
        tokio::time::sleep_until(start + Duration::from_mins(1)).await;
        peer.ping().await;
        expect_state(&mut states, |state| matches!(state, State::Disconnected { .. })).await;
        assert_eq!(start.elapsed().as_secs(), 60 + 75);
    }

    #[tokio::test(start_paused = true)]
    async fn a_registration_without_an_answer_ends() {
        let (builder, mut broker) = dialled(builder(), 0);
        let silent = async {
            let peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
            std::future::pending::<()>().await;
            drop(peer);
        };
        tokio::select! {
            client = builder.connect() => {
                let error = client.unwrap_err();
                assert!(matches!(error, Error::TimedOut("the registration")), "{error}");
            }
            () = silent => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_nobody_ends_times_out_and_is_cancelled() {
        let (builder, mut broker) = dialled(builder(), 0);
        let (client, mut peer) = tokio::join!(builder.connect(), accept(&mut broker));
        let client = client.unwrap();
        let error = client.request(find(), ()).timeout(Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut("the request")), "{error}");
        peer.expect("Crm/Contact/Find").await;
        peer.expect("Broker/Request/Cancel").await;
    }

    #[tokio::test(start_paused = true)]
    async fn its_own_ghost_is_waited_for() {
        let (builder, mut broker) = dialled(builder(), 0);
        let (client, peer) = tokio::join!(builder.connect(), accept(&mut broker));
        let client = client.unwrap();
        let mut states = Box::pin(client.states());
        drop(peer);
        let mut peer = Peer::shake_hands(broker.recv().await.unwrap()).await;
        let register = peer.next().await;
        let data = json!({ "Success": false, "ErrorCode": "SOURCE_IN_USE", "ErrorMessage": "registered before" });
        peer.answer(&register, data).await;
        let _peer = accept(&mut broker).await;
        expect_state(&mut states, is_connected).await;
    }
}

#[tokio::test]
async fn debug_shows_no_payload() {
    let (_broker, client, mut peer) = session().await;
    let mut events = subscribe(&client, &mut peer, "Phone/*/*").await;
    peer.say(event("Phone/Call/Ringing", json!({ "Success": false, "Password": "acq@123" }))).await;
    let message: Message = events.next().await.unwrap();
    let failure = message.failure().unwrap();
    let shown = format!("{message:?} {failure:?} {:?}", Error::from(failure.clone()));
    assert!(shown.contains("Phone/Call/Ringing") && !shown.contains("acq@123"), "{shown}");
}
