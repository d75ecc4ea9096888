//! The list of applications: the sessions of one source and user are one row.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::{Filter, Page, PageOf, page};
use crate::router::{Application, Router};

/// One application of a user, or one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationRow {
    /// Names the row: its source, and after a `/` its user. A source has no `/`.
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
    /// One page of the applications.
    pub fn list_applications(&self, filter: &Filter, wanted: PageOf<'_>) -> Page<ApplicationRow> {
        let mut rows: BTreeMap<String, Application> = BTreeMap::new();
        let mut listed = Vec::new();
        self.presence.list_all(&mut listed);
        for application in listed {
            let is_wanted = filter.allows_source(&application.source)
                && filter.allows_user(application.user.as_deref())
                && filter.allows_state(application.state.as_str());
            if is_wanted {
                let id = match &application.user {
                    Some(user) => format!("{}/{user}", application.source),
                    None => application.source.clone(),
                };
                rows.insert(id, application);
            }
        }
        page(wanted, rows.into_iter().collect(), |id, application| {
            let Application { source, user, since, sessions, state } = application;
            ApplicationRow { id: id.clone(), source, user, since, sessions, state: state.as_str() }
        })
    }
}
