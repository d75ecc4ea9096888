//! Whose envelopes an observer or a service receives, and whom it may name.

use std::collections::BTreeSet;
use std::sync::Arc;

use switchboard::auth::{Permissions, Users};
use switchboard::config::{Channel, Config, Scope};
use switchboard::router::{Denied, Session};
use wire::ErrorCode;
use wire::command::{Role, Subscribe};

use crate::support::core::{Core, event};

const TEAM: [&str; 2] = ["*@a.example", "carol"];
const USERS: [&str; 4] = ["ann@a.example", "ben@b.example", "carol", "boss"];

/// A shared channel `Board`, one session of each user, a supervisor of a team, and a service for the same team.
struct Floor {
    core: Core,
    agents: [Arc<Session>; 3],
    boss: Arc<Session>,
    service: Arc<Session>,
}

impl Floor {
    fn new() -> Self {
        let mut config = Config::default();
        config.channels.insert("Board".into(), Channel { scope: Scope::Shared, ..Channel::default() });
        let core = Core::new(&config);
        let agents = [0, 1, 2].map(|at| core.attach_as("phone", Some(USERS[at]), Permissions::default()));
        let boss =
            core.attach_as("wall", Some("boss"), Permissions { observe: Users::of(TEAM), ..Permissions::default() });
        let service =
            core.attach_as("recorder", None, Permissions { users: Users::of(TEAM), ..Permissions::default() });
        Self { core, agents, boss, service }
    }

    fn subscribe(&self, session: &Arc<Session>, pattern: &str, user: Option<&str>) -> Result<(), ErrorCode> {
        let mut wanted = Subscribe::new(pattern.parse().unwrap(), Role::Subscriber);
        wanted.user = user.map(str::to_owned);
        self.core.router.subscribe(self.core.now, session, &wanted, |_| None).map_err(|refusal| refusal.code)
    }

    /// Every user sends on a triple.
    fn all_send(&self, triple: &str, more: &str) {
        for agent in &self.agents {
            self.core.send(agent, &event(triple, more)).unwrap();
        }
        self.core.send(&self.boss, &event(triple, more)).unwrap();
    }

    /// The users of what waits for a session; its own has no `user` on a user-scoped channel.
    fn users(&self, session: &Session) -> BTreeSet<String> {
        self.core.take(session).iter().map(|it| it["user"].as_str().unwrap_or("own").to_owned()).collect()
    }
}

fn set(users: &[&str]) -> BTreeSet<String> {
    users.iter().copied().map(str::to_owned).collect()
}

#[test]
fn an_observer_names_the_users_of_its_list_only() {
    let floor = Floor::new();
    let observed = |user| floor.subscribe(&floor.boss, "Phone/*/*", Some(user));
    assert_eq!(observed("ann@a.example"), Ok(()));
    assert_eq!(observed("carol"), Ok(()));
    assert_eq!(observed("boss"), Ok(()), "its own user needs no permission");
    assert_eq!(observed("*"), Ok(()));
    assert_eq!(observed("ben@b.example"), Err(ErrorCode::Forbidden));
    assert_eq!(floor.subscribe(&floor.agents[0], "Phone/*/*", Some("*")), Err(ErrorCode::Forbidden));
    assert_eq!(floor.subscribe(&floor.agents[0], "Phone/*/*", Some("carol")), Err(ErrorCode::Forbidden));
}

#[test]
fn an_observer_of_everybody_receives_from_the_users_of_its_list() {
    let floor = Floor::new();
    floor.all_send("Phone/Agent/State", r#","retain":true"#);
    floor.subscribe(&floor.boss, "*/*/*", Some("*")).unwrap();
    assert_eq!(floor.users(&floor.boss), set(&["ann@a.example", "boss", "carol"]), "retained values");
    floor.all_send("Phone/Call/Ring", "");
    assert_eq!(floor.users(&floor.boss), set(&["ann@a.example", "carol"]), "live events");
    floor.all_send("Board/Note/Added", "");
    assert_eq!(floor.users(&floor.boss), set(&["ann@a.example", "ben@b.example", "carol"]), "a shared channel");
}

#[test]
fn a_service_receives_from_its_users_and_names_no_others() {
    let floor = Floor::new();
    floor.all_send("Phone/Agent/State", r#","retain":true"#);
    // The last value of the shared channel is the boss's.
    floor.all_send("Board/Note/Last", r#","retain":true"#);
    floor.subscribe(&floor.service, "*/*/*", None).unwrap();
    let team = set(&["ann@a.example", "carol"]);
    assert_eq!(floor.users(&floor.service), set(&["ann@a.example", "boss", "carol"]), "retained values");
    for (triple, users) in [("Phone/Call/Ring", team), ("Board/Note/Added", set(&USERS))] {
        floor.all_send(triple, "");
        assert_eq!(floor.users(&floor.service), users, "{triple}");
    }
    assert_eq!(floor.subscribe(&floor.service, "Phone/*/*", Some("carol")), Ok(()));
    assert_eq!(floor.subscribe(&floor.service, "Phone/*/*", Some("ben@b.example")), Err(ErrorCode::Forbidden));
    let named = |triple: &str, user: &str| {
        let sent = floor.core.send(&floor.service, &event(triple, &format!(r#","user":"{user}""#)));
        sent.map(|_| ()).map_err(|Denied { refusal, .. }| refusal.code)
    };
    for triple in ["Phone/Call/Recorded", "Board/Note/Added"] {
        assert_eq!(named(triple, "carol"), Ok(()));
        assert_eq!(named(triple, "boss"), Err(ErrorCode::Forbidden), "{triple}");
    }
}

#[test]
fn a_service_handles_the_requests_of_its_users_and_on_a_shared_channel_those_of_all() {
    let floor = Floor::new();
    let role = Role::Handler { answers: true, ordered: false, replies: Vec::new() };
    for (pattern, is_handled) in [("Crm/Case/Get", [true, false, true]), ("Board/Case/Get", [true; 3])] {
        floor.core.subscribe_as(&floor.service, &Subscribe::new(pattern.parse().unwrap(), role.clone()));
        let mut handled = BTreeSet::new();
        for ((agent, user), is_handled) in floor.agents.iter().zip(USERS).zip(is_handled) {
            let sent = floor.core.send(agent, &event(pattern, r#","timeout":1000"#));
            let refused = sent.map_err(|it| it.refusal.code).err();
            assert_eq!(refused, (!is_handled).then_some(ErrorCode::NoHandler), "{pattern}");
            handled.extend(is_handled.then(|| user.to_owned()));
        }
        assert_eq!(floor.users(&floor.service), handled, "{pattern}");
    }
}

#[test]
fn applications_and_presence_show_the_users_of_the_list_only() {
    let floor = Floor::new();
    let listed = |session: &Session| -> Vec<_> {
        floor.core.router.applications(session).into_iter().map(|row| row.user.unwrap_or_default()).collect()
    };
    assert_eq!(listed(&floor.boss), ["ann@a.example", "boss", "carol", ""]);
    assert_eq!(listed(&floor.service), ["ann@a.example", "carol", ""]);
    assert_eq!(listed(&floor.agents[1]), ["ben@b.example", ""]);

    floor.subscribe(&floor.boss, "Broker/Application/*", Some("*")).unwrap();
    floor.subscribe(&floor.service, "Broker/Application/*", None).unwrap();
    let joined = USERS.map(|user| floor.core.attach("visitor", Some(user)));
    let another = floor.core.attach("another-service", None);
    for session in joined.iter().chain([&another]) {
        floor.core.router.detach(floor.core.now, session);
    }
    let told = |session| -> Vec<_> {
        let taken = floor.core.take(session);
        taken.iter().map(|it| it["data"]["User"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(told(&floor.boss), ["ann@a.example", "carol", "boss", ""].repeat(2));
    assert_eq!(told(&floor.service), ["ann@a.example", "carol", ""].repeat(2));
}
