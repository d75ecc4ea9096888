//! What an adapter announces: an event for one user or for all, never a request, to each session once.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};
use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::{Ids, Outbox, OutboxLimits, Policy, Registration, Router, Session};
use wire::command::{Role, Subscribe};
use wire::{DecodeLimits, decode};

const LIMITS: OutboxLimits = OutboxLimits { messages: 100, bytes: 1 << 20, refuses: false };

const EVENT: &str = r#"{"channel":"Salesforce","topic":"PlatformEvent","subtopic":"X__e","data":1}"#;

struct Stage {
    router: Router,
    now: Instant,
    adapter: Arc<Session>,
}

impl Stage {
    fn new(config: &Config) -> Self {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let router = Router::new(now, SystemTime::UNIX_EPOCH, Policy::new(config), Ids::seeded(1), Vec::new());
        let adapter = router.attach_adapter(now, Outbox::new(LIMITS));
        Self { router, now, adapter }
    }

    /// A session of a user, or a service.
    fn session(&self, source: &str, user: Option<&str>) -> Arc<Session> {
        let identity = Identity::unproved(
            user.map_or(Principal::Service, |user| Principal::User(user.into())),
            Permissions::all(),
        );
        let outbox = Outbox::new(LIMITS);
        let member = self.router.attach(
            self.now,
            Registration { source: source.into(), identity, echo: false, address: None, outbox, will: None },
        );
        member.unwrap()
    }

    fn subscribe(&self, member: &Arc<Session>, pattern: &str, more: &Value) {
        let text = |key: &str| more[key].as_str().map(ToOwned::to_owned);
        let role = match more["role"].as_str() {
            Some("handler") => Role::Handler { answers: true, ordered: false, replies: Vec::new() },
            _ => Role::Subscriber,
        };
        let (group, user) = (text("group"), text("user"));
        let wanted = Subscribe { group, user, ..Subscribe::new(pattern.parse().unwrap(), role) };
        self.router.subscribe(self.now, member, &wanted, |_| None).unwrap();
    }

    /// In how many queues it is; else the code.
    fn announce(&self, text: &str, user: Option<&str>) -> Result<usize, &'static str> {
        let envelope = decode(text, DecodeLimits::OWN).unwrap();
        let routed = self.router.announce(self.now, &self.adapter, &envelope, user);
        routed.map(|it| it.receipt.unwrap().receivers).map_err(|refusal| refusal.code.as_str())
    }
}

/// The events that a session has got, as `user/data`.
fn heard(now: Instant, member: &Session) -> Vec<String> {
    let mut frames = Vec::new();
    member.outbox().take(now, usize::MAX, &mut frames);
    let values = frames.iter().map(|frame| serde_json::from_str::<Value>(frame.text()).unwrap());
    let events = values.filter(|it| it["channel"] == "Salesforce");
    events
        .map(|it| format!("{}/{}/{}", it["source"].as_str().unwrap(), it["user"].as_str().unwrap_or("-"), it["data"]))
        .collect()
}

#[test]
fn one_users_event_goes_to_that_user_to_services_and_to_observers() {
    let stage = Stage::new(&Config::default());
    let sessions = [("a", Some("alice")), ("b", Some("bob")), ("c", None), ("o", Some("olga"))];
    let [alice, bob, cti, observer] = sessions.map(|(source, user)| stage.session(source, user));
    for member in [&alice, &bob, &cti] {
        stage.subscribe(member, "Salesforce/*/*", &json!({}));
        stage.subscribe(member, "*/*/*", &json!({}));
    }
    stage.subscribe(&observer, "*/*/*", &json!({ "user": "*" }));
    // An observer is not counted.
    assert_eq!(stage.announce(EVENT, Some("alice")), Ok(2));
    assert_eq!(heard(stage.now, &alice), ["switchboard/-/1"]);
    assert_eq!(heard(stage.now, &cti), ["switchboard/alice/1"]);
    assert_eq!(heard(stage.now, &observer), ["switchboard/alice/1"]);
    assert_eq!(stage.announce(EVENT, Some("nobody")), Ok(1), "the service");
    assert!(heard(stage.now, &bob).is_empty());
}

#[test]
fn an_event_for_all_goes_to_every_user_and_to_each_session_once() {
    let mut shared = Config::default();
    let channel = Channel { scope: Scope::Shared, ..Channel::default() };
    shared.channels.insert("Salesforce".to_owned(), channel);
    for config in [Config::default(), shared] {
        let stage = Stage::new(&config);
        let sessions = [("a", Some("alice")), ("b", Some("bob")), ("c", None), ("quiet", Some("bob"))];
        let [alice, bob, cti, quiet] = sessions.map(|(source, user)| stage.session(source, user));
        for member in [&alice, &bob, &cti] {
            stage.subscribe(member, "Salesforce/*/*", &json!({}));
            stage.subscribe(member, "Salesforce/PlatformEvent/X__e", &json!({}));
        }
        stage.subscribe(&quiet, "Other/*/*", &json!({}));
        assert_eq!(stage.announce(EVENT, None), Ok(3));
        for member in [&alice, &bob, &cti] {
            assert_eq!(heard(stage.now, member), ["switchboard/-/1"]);
        }
        stage.router.detach(stage.now, &bob);
        assert_eq!(stage.announce(EVENT, None), Ok(2));
    }
}

#[test]
fn an_event_for_all_goes_to_one_member_of_each_users_group() {
    let stage = Stage::new(&Config::default());
    let sessions = [("a", Some("alice")), ("a", Some("alice")), ("b", Some("bob")), ("c", None), ("c", None)];
    let sessions = sessions.map(|(source, user)| stage.session(source, user));
    for member in &sessions {
        stage.subscribe(member, "Salesforce/*/*", &json!({ "group": "g" }));
    }
    assert_eq!(stage.announce(EVENT, None), Ok(3));
    let counts: Vec<usize> = sessions.iter().map(|member| heard(stage.now, member).len()).collect();
    assert_eq!((counts[0] + counts[1], counts[2], counts[3] + counts[4]), (1, 1, 1));
}

#[test]
fn no_handler_takes_it_and_a_protected_triple_is_no_event() {
    let stage = Stage::new(&Config::default());
    let alice = stage.session("a", Some("alice"));
    stage.subscribe(&alice, "Salesforce/*/*", &json!({ "role": "handler" }));
    for user in [Some("alice"), None] {
        assert_eq!(stage.announce(EVENT, user), Ok(0));
    }
    assert!(heard(stage.now, &alice).is_empty() && !stage.router.is_in_flight(&alice));
    let protected = r#"{"channel":"Salesforce","topic":"User","subtopic":"FetchCredentials","data":1}"#;
    assert_eq!(stage.announce(protected, Some("alice")), Err("FORBIDDEN"));
    for user in ["", "a\u{7}", &"x".repeat(2000)] {
        assert_eq!(stage.announce(EVENT, Some(user)), Err("INVALID_ENVELOPE"));
    }
}
