//! The list of applications: the sessions of one source and user are one row.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::Filter;
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
}

fn row(application: Application) -> ApplicationRow {
    let Application { source, user, since, sessions, state } = application;
    let id = [&source, user.as_deref().unwrap_or_default()].join("\t");
    ApplicationRow { id, source, user, since, sessions, state: state.as_str() }
}
