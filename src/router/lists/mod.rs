//! What an operator sees of the router: sessions, applications, subscriptions, requests, channels, retained values, logs.
//!
//! Each list is made anew when it is asked for, and in pages: what matches is collected by reference, one shard of a map
//! after the other, and only the rows of one page are made from it. So a list of a hundred thousand rows holds no lock for
//! long, and an item that appears or disappears between two pages is in one of them or in none, never in two.

mod applications;
mod channels;
mod kept;
mod requests;
mod sessions;
mod subscriptions;

pub use applications::ApplicationRow;
pub use channels::{ChannelHistory, ChannelRow};
pub use kept::{LogRow, RetainedRow};
pub use requests::{RequestRow, RequestState};
pub use sessions::{QueueDepth, SessionRow, SessionSort, SessionState};
pub use subscriptions::SubscriptionRow;

use wire::{Pattern, Triple};

/// Which rows of a list are wanted: those that have all of this.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The source, exactly.
    pub source: Option<String>,
    /// The user, exactly.
    pub user: Option<String>,
    /// The first part of the triple or pattern, as written; `*` is a wildcard of a pattern.
    pub channel: Option<String>,
    /// The second part.
    pub topic: Option<String>,
    /// The third part.
    pub subtopic: Option<String>,
    /// The state, as the row has it.
    pub state: Option<String>,
}

impl Filter {
    fn allows_source(&self, source: &str) -> bool {
        self.source.as_deref().is_none_or(|wanted| wanted == source)
    }

    fn allows_user(&self, user: Option<&str>) -> bool {
        self.user.as_deref().is_none_or(|wanted| Some(wanted) == user)
    }

    fn allows_state(&self, state: &str) -> bool {
        self.state.as_deref().is_none_or(|wanted| wanted == state)
    }

    fn allows_triple(&self, triple: &Triple<'_>) -> bool {
        let is = |wanted: &Option<String>, part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
        is(&self.channel, &triple.channel) && is(&self.topic, &triple.topic) && is(&self.subtopic, &triple.subtopic)
    }

    fn allows_pattern(&self, pattern: &Pattern) -> bool {
        let is = |wanted: &Option<String>, part: &Option<Box<str>>| {
            wanted.as_deref().is_none_or(|wanted| wanted == part_text(part))
        };
        is(&self.channel, &pattern.channel) && is(&self.topic, &pattern.topic) && is(&self.subtopic, &pattern.subtopic)
    }
}

/// Which page of a list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct PageOf<'a> {
    /// The id of the last row of the page before; `None` for the first page.
    pub after: Option<&'a str>,
    /// The most rows.
    pub limit: usize,
}

/// One page of a list, sorted by the ids of its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The id of the last row, if there are more.
    pub next: Option<String>,
}

/// Makes the rows of one page. `found` has everything that matches, with its id.
fn page<K: AsRef<str> + Ord, I, R>(wanted: PageOf<'_>, mut found: Vec<(K, I)>, row: impl Fn(&K, I) -> R) -> Page<R> {
    if let Some(after) = wanted.after {
        found.retain(|(id, _)| id.as_ref() > after);
    }
    let more = found.len() > wanted.limit;
    if more {
        // Only what is on the page has to be in order.
        found.select_nth_unstable_by(wanted.limit, |(one, _), (other, _)| one.cmp(other));
        found.truncate(wanted.limit);
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let next = if more { found.last().map(|(id, _)| id.as_ref().to_owned()) } else { None };
    Page { items: found.into_iter().map(|(id, item)| row(&id, item)).collect(), next }
}

/// A part of a pattern as it is written on the wire.
fn part_text(part: &Option<Box<str>>) -> &str {
    part.as_deref().unwrap_or("*")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(ids: &[&'static str], limit: usize) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let found = ids.iter().map(|id| (*id, ())).collect();
            let one = page(PageOf { after: after.as_deref(), limit }, found, |id, ()| (*id).to_owned());
            pages.push(one.items);
            match one.next {
                Some(next) => after = Some(next),
                None => return pages,
            }
        }
    }

    #[test]
    fn pages_are_sorted_by_id_and_have_each_row_once() {
        let ids = ["d", "a", "e", "c", "b"];
        assert_eq!(walk(&ids, 2), [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
        assert_eq!(walk(&ids, 5), [vec!["a", "b", "c", "d", "e"]]);
        assert_eq!(walk(&[], 5), [Vec::<String>::new()]);
    }
}
