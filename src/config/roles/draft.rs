//! [`RightsDraft`]: the patterns of the four rights as they were written, and the [`Rights`] that they make.

use std::sync::Arc;

use crate::auth::{Right, Rights, Rule};
use crate::config::file::unknown;
use crate::config::mistake::Report;
use crate::config::value::{Item, Value, read_patterns};
use wire::Pattern;

/// The keys of the four rights.
pub(crate) const RIGHTS: [&str; 4] = ["publish", "subscribe", "request", "handle"];

/// The key of the patterns that deny.
pub(super) const DENY: &str = "deny";

/// A list of patterns; `None` if it was not written.
type List = Option<Vec<Pattern>>;

/// Four lists of patterns.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    pub(super) publish: List,
    pub(super) subscribe: List,
    pub(super) request: List,
    pub(super) handle: List,
}

impl Lists {
    fn by_name(&mut self, name: &str) -> Option<&mut List> {
        match name {
            "publish" => Some(&mut self.publish),
            "subscribe" => Some(&mut self.subscribe),
            "request" => Some(&mut self.request),
            "handle" => Some(&mut self.handle),
            _ => None,
        }
    }

    /// Reads a table with a list for some of the rights. Returns whether all of it could be read.
    pub(super) fn read(&mut self, key: &str, item: &Item, report: &mut Report) -> bool {
        let Value::Table(entries) = &item.value else {
            report.add(
                &item.place,
                key,
                "must be a table of lists of patterns: { publish = [\"channel/topic/subtopic\"] }",
            );
            return false;
        };
        let mut good = true;
        for (name, item) in entries {
            match self.by_name(name) {
                Some(list) => good &= put(list, &format!("{key}.{name}"), item, report),
                None => {
                    report.push(unknown(item.place.clone(), name, &format!("{key}."), RIGHTS));
                    good = false;
                }
            }
        }
        good
    }
}

fn put(list: &mut List, key: &str, item: &Item, report: &mut Report) -> bool {
    match read_patterns(item) {
        Ok(patterns) => *list = Some(patterns),
        Err(faults) => {
            faults.into_iter().for_each(|fault| fault.tell(key, item, report));
            return false;
        }
    }
    true
}

/// Patterns that allow and patterns that deny.
#[derive(Clone, Debug, Default)]
pub(crate) struct RightsDraft {
    pub(super) allow: Lists,
    pub(super) deny: Lists,
}

impl RightsDraft {
    /// Returns the rights that these patterns make, configured in `from`. A list that was written replaces that of `base`,
    /// and denied patterns are added to its. `None` if a right has neither a list nor a base.
    pub(crate) fn rights(&self, base: Option<&Rights>, from: &Arc<str>) -> Option<Rights> {
        let rule = |pattern: &Pattern| Rule { pattern: pattern.clone(), from: Arc::clone(from) };
        let right = |allow: &List, deny: &List, base: Option<&Right>| {
            let (allow, from) = match (allow, base) {
                (Some(allow), _) => (allow.iter().map(rule).collect(), Arc::clone(from)),
                (None, Some(base)) => (Arc::clone(&base.allow), Arc::clone(&base.from)),
                (None, None) => return None,
            };
            let inherited = base.into_iter().flat_map(|base| &*base.deny).cloned();
            let deny = inherited.chain(deny.iter().flatten().map(rule)).collect();
            Some(Right { allow, deny, from })
        };
        Some(Rights {
            publish: right(&self.allow.publish, &self.deny.publish, base.map(|it| &it.publish))?,
            subscribe: right(&self.allow.subscribe, &self.deny.subscribe, base.map(|it| &it.subscribe))?,
            request: right(&self.allow.request, &self.deny.request, base.map(|it| &it.request))?,
            handle: right(&self.allow.handle, &self.deny.handle, base.map(|it| &it.handle))?,
        })
    }
}
