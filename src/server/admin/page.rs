//! [`Page`]: a part of a list, in the order of its items' ids.
//!
//! A page begins after the id that its cursor names. So an item that appears or disappears between two pages can be missed
//! or seen, but none is seen twice.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;

/// The items of a page, if the caller does not say how many.
const LIMIT: usize = 200;

/// The most items of a page.
const LIMIT_MAX: usize = 1000;

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Paging {
    /// How many items.
    #[param(minimum = 1, maximum = 1000, default = 200)]
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The items, in the order of their ids.
    items: Vec<T>,
    /// The cursor of the next page; `null` after the last one.
    next: Option<String>,
    /// The broker whose list it is.
    node: String,
}

impl<T> Page<T> {
    /// Turns each item into another one.
    pub(super) fn map<U>(self, turn: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(turn).collect(), next: self.next, node: self.node }
    }
}

impl Paging {
    /// Returns the page of these items, in any order, each with its id. Keeps no more of them than the page has.
    ///
    /// # Errors
    /// A wrong limit or cursor.
    pub(super) fn page<T>(&self, node: &str, items: impl IntoIterator<Item = (String, T)>) -> Result<Page<T>, Problem> {
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Problem::invalid(format!("limit must be from 1 to {LIMIT_MAX}")));
        }
        let after = self.cursor.as_deref().map(read_cursor).transpose()?;
        // The largest id is on top, and makes room for a smaller one.
        let mut kept = BinaryHeap::with_capacity(limit + 2);
        for (id, item) in items {
            if after.as_ref().is_none_or(|after| id > *after) {
                kept.push(ById(id, item));
                if kept.len() > limit + 1 {
                    kept.pop();
                }
            }
        }
        let mut kept = kept.into_sorted_vec();
        let has_more = kept.len() > limit;
        kept.truncate(limit);
        let next = kept.last().filter(|_| has_more).map(|ById(id, _)| URL_SAFE_NO_PAD.encode(id));
        Ok(Page { items: kept.into_iter().map(|ById(_, item)| item).collect(), next, node: node.to_owned() })
    }
}

fn read_cursor(cursor: &str) -> Result<String, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    id.ok_or_else(|| Problem::invalid("cursor must be 'next' of a page of this list"))
}

/// An item that is compared by its id.
struct ById<T>(String, T);

impl<T> Ord for ById<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl<T> PartialOrd for ById<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Eq for ById<T> {}

impl<T> PartialEq for ById<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(range: std::ops::Range<u32>) -> impl Iterator<Item = (String, u32)> {
        range.rev().map(|number| (format!("{number:06}"), number))
    }

    fn paging(limit: usize, cursor: Option<String>) -> Paging {
        Paging { limit: Some(limit), cursor }
    }

    #[test]
    fn a_hundred_thousand_items_are_paged_and_none_is_seen_twice() {
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            // Half of the items disappear after the first ten pages.
            let items = numbers(0..100_000).filter(|(_, number)| pages < 10 || number % 2 == 0);
            let page = paging(1000, cursor).page("here", items).unwrap();
            seen.extend(page.items);
            pages += 1;
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<u32> = (0..100_000).filter(|number| *number < 10_000 || number % 2 == 0).collect();
        assert_eq!((seen == expected, pages), (true, 55));
    }

    #[test]
    fn a_full_last_page_has_no_next() {
        let page = paging(10, None).page("here", numbers(0..10)).unwrap();
        assert_eq!((page.items.len(), page.next), (10, None));
        let page = Paging::default().page("here", numbers(0..201)).unwrap().map(u64::from);
        assert_eq!((page.items.len(), page.next.is_some(), page.node.as_str()), (200, true, "here"));
        assert!(paging(1, None).page("here", numbers(0..0)).unwrap().items.is_empty());
    }

    #[test]
    fn a_wrong_limit_or_cursor_is_refused() {
        for wrong in [paging(0, None), paging(1001, None), paging(1, Some("%".into())), paging(1, Some("gA".into()))] {
            assert!(wrong.page("here", numbers(0..1)).is_err(), "{wrong:?}");
        }
    }
}
