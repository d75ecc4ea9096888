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

    /// The lists with their keys, in the order of [`RIGHTS`].
    fn each(&self) -> [(&'static str, &List); 4] {
        let [publish, subscribe, request, handle] = RIGHTS;
        [(publish, &self.publish), (subscribe, &self.subscribe), (request, &self.request), (handle, &self.handle)]
    }

    /// Reads a table with a list for some of the rights. Returns whether all of it could be read.
    pub(super) fn read(&mut self, key: &str, item: &Item, report: &mut Report) -> bool {
        let Some(entries) = entries(key, item, report) else { return false };
        let mut good = true;
        for (name, item) in entries {
            match self.by_name(name) {
                Some(list) => good &= put(list, &format!("{key}.{name}"), item, report),
                None => report.push(unknown(item.place.clone(), name, &format!("{key}."), RIGHTS)),
            }
        }
        good
    }
}

/// The entries of a table; `None`, and a mistake, if it is not one.
fn entries<'i>(key: &str, item: &'i Item, report: &mut Report) -> Option<&'i [(String, Item)]> {
    if let Value::Table(entries) = &item.value {
        return Some(entries);
    }
    report.add(&item.place, key, "must be a table of lists of patterns: { publish = [\"channel/topic/subtopic\"] }");
    None
}

/// Reads a list. One that cannot be read is empty: it is not missing too.
fn put(list: &mut List, key: &str, item: &Item, report: &mut Report) -> bool {
    let (patterns, faults) = match read_patterns(item) {
        Ok(patterns) => (patterns, Vec::new()),
        Err(faults) => (Vec::new(), faults),
    };
    *list = Some(patterns);
    let good = faults.is_empty();
    for fault in faults {
        fault.tell(key, item, report);
    }
    good
}

/// Patterns that allow and patterns that deny.
#[derive(Clone, Debug, Default)]
pub(crate) struct RightsDraft {
    pub(super) allow: Lists,
    pub(super) deny: Lists,
}

impl RightsDraft {
    /// Reads a table with a list for some of the rights, and a table of those that deny. Returns whether all of it could be
    /// read. If it is not a table, `target` stays as it is.
    pub(crate) fn read(target: &mut Option<Self>, key: &str, item: &Item, report: &mut Report) -> bool {
        let Some(entries) = entries(key, item, report) else { return false };
        let draft = target.insert(Self::default());
        let mut good = true;
        for (name, item) in entries {
            let own = format!("{key}.{name}");
            match draft.allow.by_name(name) {
                Some(list) => good &= put(list, &own, item, report),
                None if name == DENY => good &= draft.deny.read(&own, item, report),
                None => {
                    let known = RIGHTS.into_iter().chain([DENY]);
                    report.push(unknown(item.place.clone(), name, &format!("{key}."), known));
                }
            }
        }
        good
    }

    /// Returns the rights that have no list.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        self.allow.each().into_iter().filter(|(_, list)| list.is_none()).map(|(key, _)| key).collect()
    }

    /// Returns the rights that these patterns make, configured in `from`. A list that was written replaces that of `base`,
    /// and denied patterns are added to its. A right with neither a list nor a base allows nothing.
    pub(crate) fn rights(&self, base: Option<&Rights>, from: &Arc<str>) -> Rights {
        let rule = |pattern: &Pattern| Rule { pattern: pattern.clone(), from: Arc::clone(from) };
        let right = |allow: &List, deny: &List, base: Option<&Right>| {
            let (allow, from) = match (allow, base) {
                (None, Some(base)) => (base.allow.clone(), Arc::clone(&base.from)),
                (own, _) => (own.iter().flatten().map(rule).collect(), Arc::clone(from)),
            };
            let inherited = base.into_iter().flat_map(|base| &*base.deny).cloned();
            let deny = inherited.chain(deny.iter().flatten().map(rule)).collect();
            Right { allow, deny, from }
        };
        Rights {
            publish: right(&self.allow.publish, &self.deny.publish, base.map(|it| &it.publish)),
            subscribe: right(&self.allow.subscribe, &self.deny.subscribe, base.map(|it| &it.subscribe)),
            request: right(&self.allow.request, &self.deny.request, base.map(|it| &it.request)),
            handle: right(&self.allow.handle, &self.deny.handle, base.map(|it| &it.handle)),
        }
    }
}
