//! The lists: who is connected, what they subscribe to, what is open, what is kept.
//!
//! `rows` has what JSON shows of each item. A page is sorted by the ids of its items. With `sort`, the answer has the first
//! items of another order instead, and no next page.

mod rows;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::SystemTime;

use axum::extract::{Path, State};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use self::rows::{Application, Channel, Log, Request, Retained, Session, Subscription};
use super::Shared;
use super::page::{Page, Paging};
use super::problem::{Code, Problem};
use super::request::{Answer, Query};
use crate::router::{ApplicationRow, Filter, Load, RetainedItem, SessionSort, SubscriptionItem};

/// Which items of a list are wanted: those that have all of this.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// The source, exactly.
    source: Option<String>,
    /// The user, exactly.
    user: Option<String>,
    /// The first part of the triple, or of the pattern as it was written. Of sessions and applications: of one of their
    /// subscriptions.
    channel: Option<String>,
    /// The second part.
    topic: Option<String>,
    /// The third part.
    subtopic: Option<String>,
    /// The state, as the items have it.
    state: Option<String>,
    /// Give the first items of this order, instead of a page by id: longest there first, or most first. `queue`, `rate` and
    /// `dropped` are a session's: of an application, the sum of its sessions'; of a subscription, its session's; of a request,
    /// its requester's. Items that have no such measure are in the order of their ids.
    #[param(inline)]
    sort: Option<Sort>,
    /// How many items.
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sort {
    Since,
    Queue,
    Rate,
    Dropped,
}

impl Wanted {
    fn filter(&self) -> Filter {
        let Self { source, user, channel, topic, subtopic, state, .. } = self;
        Filter {
            source: source.clone(),
            user: user.clone(),
            channel: channel.clone(),
            topic: topic.clone(),
            subtopic: subtopic.clone(),
            state: state.clone(),
        }
    }

    fn paging(&self) -> Paging {
        Paging::new(self.limit, self.cursor.clone())
    }

    /// Returns the page of rows with their ids; sorted, the first ones by `measure`, the largest first. Rows of the same
    /// measure are in the order of their ids.
    fn page_of<T>(
        &self,
        shared: &Shared,
        mut rows: Vec<(String, T)>,
        measure: impl Fn(Sort, &T) -> u64,
    ) -> Result<Page<T>, Problem> {
        let Some(sort) = self.sort else { return self.paging().page(&shared.node, rows) };
        if self.cursor.is_some() {
            return Err(one_page());
        }
        let limit = self.paging().limit()?;
        rows.sort_by_cached_key(|(id, row)| (Reverse(measure(sort, row)), id.clone()));
        Ok(Page::of_all(rows.into_iter().take(limit).map(|(_, row)| row).collect(), &shared.node))
    }
}

/// The measure of something that began at a time, or of a session that is this busy.
fn measure_of(sort: Sort, since: SystemTime, load: &Load) -> u64 {
    match sort {
        Sort::Since => oldest_first(since),
        Sort::Queue => load.queue,
        Sort::Rate => load.rate_millis,
        Sort::Dropped => load.dropped,
    }
}

/// A number that is larger, the earlier a time is.
fn oldest_first(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::MAX - u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn one_page() -> Problem {
    Problem::invalid("a sorted list has one page: leave 'cursor' out")
}

/// List the applications
///
/// An application is all sessions of one source and user.
#[utoipa::path(
    get,
    path = "/v1/applications",
    params(Wanted),
    responses((status = 200, description = "A page of applications.", body = Page<Application>))
)]
pub(super) async fn applications(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Page<Application>>, Problem> {
    let rows = shared.broker.router.list_applications(&wanted.filter());
    let rows = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    let loads = match wanted.sort {
        Some(Sort::Queue | Sort::Rate | Sort::Dropped) => shared.broker.router.application_loads(),
        Some(Sort::Since) | None => HashMap::new(),
    };
    let measure =
        |sort, row: &ApplicationRow| measure_of(sort, row.since, &loads.get(&row.id).copied().unwrap_or_default());
    Ok(Answer(wanted.page_of(&shared, rows, measure)?.map(Application::from)))
}

/// List the sessions
#[utoipa::path(
    get,
    path = "/v1/sessions",
    params(Wanted),
    responses((status = 200, description = "A page of sessions.", body = Page<Session>))
)]
pub(super) async fn sessions(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Page<Session>>, Problem> {
    let router = &shared.broker.router;
    let row = |session: &_| Session::from(router.session_row(session));
    let Some(sort) = wanted.sort else {
        let found = router.list_sessions(&wanted.filter());
        let found = found.into_iter().map(|session| (session.id().to_string(), session));
        return Ok(Answer(wanted.paging().page(&shared.node, found)?.map(|session| row(&session))));
    };
    if wanted.cursor.is_some() {
        return Err(one_page());
    }
    let sort = match sort {
        Sort::Since => SessionSort::Since,
        Sort::Queue => SessionSort::Queue,
        Sort::Rate => SessionSort::Rate,
        Sort::Dropped => SessionSort::Dropped,
    };
    let found = router.top_sessions(&wanted.filter(), sort, wanted.paging().limit()?);
    Ok(Answer(Page::of_all(found.iter().map(|session| row(session)).collect(), &shared.node)))
}

/// Show one session
#[utoipa::path(
    get,
    path = "/v1/sessions/{id}",
    params(("id" = String, Path, description = "The session id, as the application knows it.")),
    responses((status = 200, description = "The session.", body = Session))
)]
pub(super) async fn session(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Answer<Session>, Problem> {
    let router = &shared.broker.router;
    let found = router.find_session(&id);
    let found = found.ok_or_else(|| Problem::new(Code::NotFound, "no session has this id; it may have ended"))?;
    Ok(Answer(router.session_row(&found).into()))
}

/// List the subscriptions
#[utoipa::path(
    get,
    path = "/v1/subscriptions",
    params(Wanted),
    responses((status = 200, description = "A page of subscriptions.", body = Page<Subscription>))
)]
pub(super) async fn subscriptions(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Page<Subscription>>, Problem> {
    let found = shared.broker.router.list_subscriptions(&wanted.filter());
    let found = found.into_iter().map(|item| (item.id().to_string(), item)).collect();
    let measure = |sort, item: &SubscriptionItem| measure_of(sort, item.since(), &item.load());
    Ok(Answer(wanted.page_of(&shared, found, measure)?.map(|item| item.row().into())))
}

/// List the pending requests
///
/// `source` and `user` are the requester's.
#[utoipa::path(
    get,
    path = "/v1/requests",
    params(Wanted),
    responses((status = 200, description = "A page of pending requests.", body = Page<Request>))
)]
pub(super) async fn requests(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Page<Request>>, Problem> {
    let rows = shared.broker.router.list_requests(Instant::now().into_std(), &wanted.filter());
    let rows = rows.into_iter().map(|row| (row.key.clone(), row)).collect();
    Ok(Answer(wanted.page_of(&shared, rows, |sort, row| measure_of(sort, row.since, &row.load))?.map(Request::from)))
}

/// List the channels
///
/// Those that the configuration has a table of, and those that a subscription names.
#[utoipa::path(
    get,
    path = "/v1/channels",
    params(Wanted),
    responses((status = 200, description = "A page of channels.", body = Page<Channel>))
)]
pub(super) async fn channels(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Page<Channel>>, Problem> {
    let rows = shared.broker.router.list_channels(&wanted.filter());
    let rows = rows.into_iter().map(|row| (row.name.clone(), row)).collect();
    Ok(Answer(wanted.page_of(&shared, rows, |_, _| 0)?.map(Channel::from)))
}

/// List the retained values, without their payloads
#[utoipa::path(
    get,
    path = "/v1/retained",
    params(Wanted),
    responses((status = 200, description = "A page of retained values.", body = Page<Retained>))
)]
pub(super) async fn retained(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Page<Retained>>, Problem> {
    let router = &shared.broker.router;
    let found = router.list_retained(&wanted.filter());
    let found = found.into_iter().map(|item| (item.id(), item)).collect();
    let measure = |sort, item: &RetainedItem| match sort {
        Sort::Since => oldest_first(router.retained_row(item).since),
        Sort::Queue | Sort::Rate | Sort::Dropped => 0,
    };
    let page = wanted.page_of(&shared, found, measure)?;
    Ok(Answer(page.map(|item| router.retained_row(&item).into())))
}

/// List the logs of channels with history
#[utoipa::path(
    get,
    path = "/v1/history",
    params(Wanted),
    responses((status = 200, description = "A page of logs.", body = Page<Log>))
)]
pub(super) async fn history(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
) -> Result<Answer<Page<Log>>, Problem> {
    let rows = shared.broker.router.list_logs(Instant::now().into_std(), &wanted.filter());
    let rows = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    Ok(Answer(wanted.page_of(&shared, rows, |_, _| 0)?.map(Log::from)))
}
