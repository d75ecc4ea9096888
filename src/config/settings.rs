//! [`Setting`]: the value of a key that is in force, and where it was set.

use std::sync::Arc;

use serde_json::{Value, json};
use toml::de::DeValue;

use super::mistake::Place;
use super::reference::{Key, keys};
use super::rules::Places;
use super::value::Item;
use super::{AuthMode, Config};

/// A key, its value, and where that was set.
#[derive(Clone, Debug)]
pub struct Setting {
    /// As in the reference, with the names and numbers of tables that can be repeated: `channels.Queue.scope`.
    pub key: String,
    /// The value, or `"set"` for a secret. `null` for a default that is not a fixed value.
    pub value: Value,
    /// Where it was set; `None`: it is the default.
    pub place: Option<Place>,
}

/// The settings of a configuration. Two configurations with the same values are equal, wherever the values were set.
#[derive(Clone, Debug, Default)]
pub struct Settings(Arc<[Setting]>);

impl Settings {
    /// All of them: first the keys that are there once, in the order of the reference.
    pub fn list(&self) -> &[Setting] {
        &self.0
    }

    /// Finds the value of each key.
    pub(super) fn find(config: &mut Config, places: &Places) -> Self {
        let count = json!(config.applications.len());
        // A slot gives a place to write to, and one of a table that is off turns it on. So copies are read; the long list stays
        // behind.
        let applications = std::mem::take(&mut config.applications);
        let mut own = config.clone();
        config.applications = applications;
        let mut list: Vec<Setting> = keys().map(|key| setting(key, &mut own, places)).collect();
        list.push(Setting { key: "applications".to_owned(), value: count, place: None });
        let single = |name: &str| keys().any(|key| key.name == name);
        let repeated = places.values().iter().filter(|(key, _)| !single(key));
        list.extend(repeated.map(|(key, (value, place))| Setting {
            key: key.clone(),
            value: value.clone(),
            place: Some(place.clone()),
        }));
        Self(list.into())
    }

    /// Takes the settings of some keys from another configuration, the one in force.
    pub(super) fn keep(&mut self, old: &Self, is_kept: impl Fn(&str) -> bool) {
        let own = self.clone();
        let of = |settings: &Self, key: &str| settings.0.iter().find(|it| it.key == key).cloned();
        let present = own.0.iter().filter_map(|it| if is_kept(&it.key) { of(old, &it.key) } else { Some(it.clone()) });
        let gone = old.0.iter().filter(|it| is_kept(&it.key) && of(&own, &it.key).is_none()).cloned();
        self.0 = present.chain(gone).collect();
    }
}

impl Settings {
    /// Whether a key was set, in the file or elsewhere.
    pub(super) fn is_written(&self, key: &str) -> bool {
        self.0.iter().any(|it| it.key == key && it.place.is_some())
    }

    /// Sets the value of a key that was not written.
    pub(super) fn set_default(&mut self, key: &str, value: &Value) {
        let of = |it: &Setting| if it.key == key { Setting { value: value.clone(), ..it.clone() } } else { it.clone() };
        self.0 = self.0.iter().map(of).collect();
    }
}

impl PartialEq for Settings {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Settings {}

fn setting(key: &Key<Config>, config: &mut Config, places: &Places) -> Setting {
    let written = places.values().get(key.name);
    let value = match key.name {
        "data_dir" => json!(config.data_dir.to_string_lossy()),
        "auth.mode" => json!(match config.auth {
            AuthMode::Open => "open",
            AuthMode::Tokens => "tokens",
        }),
        _ => key.slot.read(config).or_else(|| written.map(|(value, _)| value.clone())).unwrap_or_else(|| default(key)),
    };
    Setting { key: key.name.to_owned(), value, place: places.written(key.name).cloned() }
}

/// The default, if it is a fixed value.
fn default(key: &Key<Config>) -> Value {
    let place = Place::Flag("");
    DeValue::parse(key.default).map_or(Value::Null, |value| Item::from_toml(&value, &|_| place.clone()).json())
}
