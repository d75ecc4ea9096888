//! [`Object`]: a JSON object in which no key occurs twice, at any depth. Parsers disagree about which of two values counts,
//! and an attacker could use that. [`ClaimPath`] finds a value in it.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A JSON object without a repeated key.
#[derive(Clone, Debug)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    /// Returns the value of a key.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Unrepeated.deserialize(deserializer)? {
            Value::Object(object) => Ok(Self(object)),
            _ => Err(D::Error::custom("not an object")),
        }
    }
}

/// Reads a JSON text in which no key of an object occurs twice.
pub(in crate::auth) fn parse(json: &[u8]) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = Unrepeated.deserialize(&mut deserializer)?;
    deserializer.end().map(|()| value)
}

/// Reads a value and refuses repeated keys. `serde_json` bounds the depth.
struct Unrepeated;

impl<'de> DeserializeSeed<'de> for Unrepeated {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unrepeated {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if object.insert(key, members.next_value_seed(Self)?).is_some() {
                return Err(A::Error::custom("a key occurs twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Where a claim is: the keys that lead to it. It prints as it is configured, joined by dots.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimPath(Box<[Box<str>]>);

impl ClaimPath {
    /// Reads keys that are joined by dots. Returns `None` if one is empty.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let keys: Box<[Box<str>]> = text.split('.').map(Box::from).collect();
        keys.iter().all(|key| !key.is_empty()).then_some(Self(keys))
    }

    /// Returns the claim; `None` if it is absent, or if a step before the last is not an object.
    pub(super) fn find<'c>(&self, claims: &'c Object) -> Option<&'c Value> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(claims.get(first)?, |value, key| value.as_object()?.get(&**key))
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_key_is_refused_at_any_depth() {
        for json in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":1,"b":2}}"#, r#"{"a":[{"b":1,"\u0062":2}]}"#, "{} {}", "", "{"] {
            assert!(parse(json.as_bytes()).is_err(), "{json}");
        }
        let json = r#"{"a":{"b":[1,-1,1.5,"x",true,null]},"b":{}}"#;
        assert_eq!(parse(json.as_bytes()).unwrap().to_string(), json);
        for depth in [1000, 100_000] {
            assert!(parse("[".repeat(depth).as_bytes()).is_err());
        }
    }

    #[test]
    fn every_step_of_a_path_but_the_last_is_an_object() {
        let claims: Object = serde_json::from_str(r#"{"a":{"b":{"c":1}},"b":[{"c":1}],"a.b":2,"n":null}"#).unwrap();
        for (path, found) in [
            ("a.b.c", Some("1")),
            ("a.b", Some(r#"{"c":1}"#)),
            ("n", Some("null")),
            ("b.c", None),
            ("b.0.c", None),
            ("a.b.c.d", None),
            ("c", None),
        ] {
            let path = ClaimPath::parse(path).unwrap();
            assert_eq!(path.find(&claims).map(Value::to_string).as_deref(), found, "{path}");
        }
        assert!(["", ".", "a.", ".a", "a..b"].iter().all(|path| ClaimPath::parse(path).is_none()));
    }
}
