//! The list of applications: the sessions of one source and user are one row.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use super::{Filter, Load};
use crate::router::{Application, Router};

/// One application of a user, or one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationRow {
    /// Names the row. No name has a tab.
    pub id: String,
    /// The registered name.
    pub source: String,
    /// `None` for a service.
    pub user: Option<String>,
    /// When the earliest of its sessions registered.
    pub since: SystemTime,
    /// How many sessions it has.
    pub sessions: usize,
    /// `active` if any session is; else `asleep`, or `away`.
    pub state: &'static str,
}

impl Router {
    /// The applications that a filter allows, in no order.
    pub fn list_applications(&self, filter: &Filter) -> Vec<ApplicationRow> {
        let mut listed = Vec::new();
        self.presence.list_all(&mut listed);
        listed.retain(|application| {
            filter.allows_source(&application.source)
                && filter.allows_user(application.user.as_deref())
                && filter.allows_state(application.state.as_str())
        });
        if filter.names_subscriptions() {
            let sessions = self.list_sessions(&Filter { state: None, ..filter.clone() });
            let named: BTreeSet<_> = sessions.iter().map(|session| (session.source(), session.user())).collect();
            listed.retain(|it| named.contains(&(it.source.as_str(), it.user.as_deref())));
        }
        listed.into_iter().map(row).collect()
    }

    /// How busy the applications are, by the ids of their rows.
    pub fn application_loads(&self) -> HashMap<String, Load> {
        let mut loads: HashMap<String, Load> = HashMap::new();
        for session in self.sessions_of(&Filter::default()) {
            loads.entry(id_of(&session.source, session.user())).or_default().add(Load::of(&session));
        }
        loads
    }
}

fn id_of(source: &str, user: Option<&str>) -> String {
    [source, user.unwrap_or_default()].join("\t")
}

fn row(application: Application) -> ApplicationRow {
    let Application { source, user, since, sessions, state } = application;
    let id = id_of(&source, user.as_deref());
    ApplicationRow { id, source, user, since, sessions, state: state.as_str() }
}
