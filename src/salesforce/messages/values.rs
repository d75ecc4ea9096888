//! [`Values`]: tells whether a repeated request has the values of the first one, without keeping any value.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::data::Variable;
use wire::{ErrorCode, Refusal};

/// A hash of each value, by the name of its variable. Values themselves are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Values(BTreeMap<String, [u8; 16]>);

impl Values {
    /// Hashes the values of variables.
    pub(super) fn of(variables: &[Variable]) -> Self {
        let hash = |json: &str| {
            // Two notations of one text are the same value.
            let text = serde_json::from_str::<String>(json).ok();
            let digest = match &text {
                Some(text) => Sha256::new().chain_update("text").chain_update(text).finalize(),
                None => Sha256::new().chain_update("json").chain_update(json).finalize(),
            };
            let mut short = [0; 16];
            short.copy_from_slice(digest.split_at(16).0);
            short
        };
        Self(variables.iter().map(|(name, value)| (name.clone(), hash(value.get()))).collect())
    }

    /// Refuses other values than these.
    pub(super) fn compare(&self, other: &Self) -> Result<(), Refusal> {
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let differing: Vec<String> = names
            .into_iter()
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|it| format!("'{it}'"))
            .collect();
        match differing.as_slice() {
            [] => Ok(()),
            names => Err(Refusal::new(
                ErrorCode::InvalidEnvelope,
                format!(
                    "this id was used for other values: data.params differs in {}; give each record an id of its own",
                    names.join(", ")
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn values(text: &str) -> Values {
        let raw = |value: &str| RawValue::from_string(value.to_owned()).unwrap();
        let pairs = text.split_whitespace().filter_map(|it| it.split_once('='));
        Values::of(&pairs.map(|(name, value)| (name.to_owned(), raw(value))).collect::<Vec<_>>())
    }

    #[test]
    fn other_values_are_refused_by_the_names_of_their_variables() {
        let first = values(r#"a="x" b=2 c=null"#);
        let differing = |text: &str| first.compare(&values(text)).err().map(|it| it.message.into_owned());
        for same in [r#"a="x" b=2 c=null"#, r#"c=null b=2 a="\u0078""#] {
            assert_eq!(differing(same), None, "{same}");
        }
        for (other, names) in [
            (r#"a="secret" b=2 c=null"#, "'a'"),
            (r#"a="x" b="2" c="null""#, "'b', 'c'"),
            (r#"a="x" d=2"#, "'b', 'c', 'd'"),
            ("", "'a', 'b', 'c'"),
        ] {
            let message = differing(other).unwrap();
            assert!(message.contains(&format!("differs in {names};")) && !message.contains("secret"), "{message}");
        }
    }
}
