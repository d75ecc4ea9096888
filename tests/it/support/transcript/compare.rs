//! Compares messages with what a transcript expects.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Stands for further keys that an object may have.
const OTHERS: &str = "...";

/// The texts that the broker made and a transcript has named.
#[derive(Clone, Default)]
pub(crate) struct Names(HashMap<String, String>);

impl Names {
    /// Replaces every `$name` in a text by what it stands for.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut names: Vec<(&String, &String)> = self.0.iter().collect();
        // The longest first: $request2 is not $request followed by a 2.
        names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${name}"), value))
    }

    /// Compares a message with the expected one and remembers the names that it binds.
    ///
    /// The order of the envelope's own keys is not compared: the contract does not say where the broker puts a field.
    ///
    /// # Errors
    /// Says where the two differ.
    pub(crate) fn compare(&mut self, expected: &Value, found: &Value) -> Result<(), String> {
        let (Value::Object(expected), Value::Object(found)) = (expected, found) else {
            return Err("it is not an object".to_owned());
        };
        let mut names = self.clone();
        names.compare_object("", expected, found)?;
        *self = names;
        Ok(())
    }

    /// Finds the first of the expected messages that this one matches, and removes it from the list.
    ///
    /// # Errors
    /// Says where this message differs from each of them.
    pub(crate) fn compare_any(&mut self, expected: &mut Vec<Value>, found: &Value) -> Result<(), String> {
        let mut reasons = Vec::new();
        for at in 0..expected.len() {
            match self.compare(&expected[at], found) {
                Ok(()) => {
                    expected.remove(at);
                    return Ok(());
                }
                Err(why) => reasons.push(why),
            }
        }
        Err(reasons.join("; or "))
    }

    fn compare_value(&mut self, path: &str, expected: &Value, found: &Value) -> Result<(), String> {
        match (expected, found) {
            (Value::String(expected), found) if expected.starts_with('<') && expected.ends_with('>') => {
                self.compare_special(path, &expected[1..expected.len() - 1], found)
            }
            (Value::String(expected), Value::String(found)) if self.fill(expected) == *found => Ok(()),
            (Value::Array(expected), Value::Array(found)) if expected.len() == found.len() => {
                let mut pairs = expected.iter().zip(found).enumerate();
                pairs.try_for_each(|(at, (expected, found))| {
                    self.compare_value(&format!("{path}[{at}]"), expected, found)
                })
            }
            (Value::Object(expected), Value::Object(found)) => self.compare_object(path, expected, found),
            (expected, found) if expected == found => Ok(()),
            _ => Err(format!("'{path}' is {found}, not {expected}")),
        }
    }

    fn compare_object(
        &mut self,
        path: &str,
        expected: &Map<String, Value>,
        found: &Map<String, Value>,
    ) -> Result<(), String> {
        let path_of = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let is_open = expected.contains_key(OTHERS);
        let is_ordered = !path.is_empty() && !is_open && !expected.contains_key("Success");
        if let Some(key) = found.keys().find(|key| !is_open && !expected.contains_key(*key)) {
            return Err(format!("'{}' was not expected", path_of(key)));
        }
        for (key, value) in expected.iter().filter(|(key, _)| *key != OTHERS) {
            let path = path_of(key);
            match (value, found.get(key)) {
                (_, None) => return Err(format!("'{path}' is missing")),
                (Value::Array(expected), Some(Value::Array(found))) if !is_ordered && path.contains('.') => {
                    self.compare_list(&path, expected, found)?;
                }
                (value, Some(found)) => self.compare_value(&path, value, found)?,
            }
        }
        if is_ordered && !expected.keys().eq(found.keys()) {
            return Err(format!("the keys of '{path}' are in another order"));
        }
        Ok(())
    }

    /// Compares lists whose order the contract does not say.
    fn compare_list(&mut self, path: &str, expected: &[Value], found: &[Value]) -> Result<(), String> {
        let mut left = expected.to_vec();
        for found in found {
            let mut found_at = None;
            for (at, expected) in left.iter().enumerate() {
                let mut names = self.clone();
                if names.compare_value(path, expected, found).is_ok() {
                    *self = names;
                    found_at = Some(at);
                    break;
                }
            }
            left.remove(found_at.ok_or_else(|| format!("'{path}' has {found}, which was not expected"))?);
        }
        if left.is_empty() { Ok(()) } else { Err(format!("'{path}' lacks {}", Value::from(left))) }
    }

    /// Compares with what is written between `<` and `>`.
    fn compare_special(&mut self, path: &str, special: &str, found: &Value) -> Result<(), String> {
        let (kind, words) = special.split_once(':').unwrap_or((special, ""));
        let text = found.as_str();
        let matches = match kind {
            "any" => true,
            "uuid" => text.is_some_and(|text| uuid::Uuid::parse_str(text).is_ok()),
            "time" => text.is_some_and(|text| humantime::parse_rfc3339(text).is_ok()),
            "id" => match text {
                Some(text) => {
                    self.0.insert(words.to_owned(), text.to_owned());
                    true
                }
                None => false,
            },
            "has" => text.is_some_and(|text| text.contains(&self.fill(words))),
            "success" => found["Success"] == true && found["ErrorMessage"].is_null() && found.is_object(),
            "failure" => is_failure(words, found),
            _ => return Err(format!("'{path}': there is no <{special}>")),
        };
        if matches { Ok(()) } else { Err(format!("'{path}' is {found}, not <{special}>")) }
    }
}

/// Whether this is the data of a failure, written `CODE` or `CODE:words`.
fn is_failure(expected: &str, found: &Value) -> bool {
    let (code, words) = expected.split_once(':').unwrap_or((expected, ""));
    let message = found["ErrorMessage"].as_str().unwrap_or_default();
    found["Success"] == false && found["ErrorCode"] == code && !message.is_empty() && message.contains(words)
}
