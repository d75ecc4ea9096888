//! `data` of these messages: [`Asked`] reads it field by field, so that an error can name the field; [`Told`] writes it
//! and passes values through unchanged. The documents spell `callId` in several cases, so case is ignored.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::adapter::{Data, Payload};
use crate::config::record_id;
use crate::salesforce::write::json_object;
use wire::check_name;
use wire::{ErrorCode, Refusal};

/// A variable of an application and its value in JSON.
pub(super) type Variable = (String, Box<RawValue>);

/// `data` whose values have not been parsed.
#[derive(Deserialize)]
pub(super) struct Asked<'a> {
    #[serde(borrow, rename = "callId", alias = "callid", alias = "callID", alias = "CallID", alias = "CallId")]
    call_id: Option<&'a RawValue>,
    #[serde(borrow, rename = "Name")]
    name: Option<&'a RawValue>,
    #[serde(borrow, rename = "OId")]
    oid: Option<&'a RawValue>,
    #[serde(borrow)]
    sfid: Option<&'a RawValue>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    /// The whole object.
    #[serde(skip)]
    text: &'a str,
}

impl<'a> Asked<'a> {
    /// Reads a payload.
    pub(super) fn read(payload: Option<&'a Payload>) -> Result<Self, Refusal> {
        let raw = payload.map(Payload::as_str).filter(|raw| raw.starts_with('{'));
        let raw = raw.ok_or_else(|| invalid("the field 'data' has to be an object with callId and params"))?;
        let asked: Self = serde_json::from_str(raw)
            .map_err(|_| invalid("a key occurs twice in 'data' (callId in whatever letter case)"))?;
        Ok(Self { text: raw, ..asked })
    }

    /// The refusal of `data` without a key. It names a key that differs only in letter case or white space.
    fn missing(&self, key: &str, what: &str) -> Refusal {
        let Members(members) = serde_json::from_str(self.text).unwrap_or(Members(Vec::new()));
        let similar = members.iter().any(|(name, _)| name.trim().eq_ignore_ascii_case(key));
        let hint = if similar { "; it is there in another letter case or with white space around it" } else { "" };
        invalid(format!("data.{key} is missing: {what}{hint}"))
    }

    /// `callId`: a string, or a number as in some documents.
    pub(super) fn call(&self) -> Result<Call<'a>, Refusal> {
        let raw = self.call_id.ok_or_else(|| self.missing("callId", "the id of the call"))?;
        let id = text_or_number(raw).ok_or_else(|| invalid("data.callId has to be a string"))?;
        check_name(&id).map_err(|fault| invalid(format!("data.callId {fault}")))?;
        Ok(Call { id, raw })
    }

    /// `Name`: the NAME of a table `[salesforce.objects.NAME]`.
    pub(super) fn name(&self) -> Result<String, Refusal> {
        let raw = self.name.ok_or_else(|| self.missing("Name", "the kind of record, such as Task"))?;
        let name: String = serde_json::from_str(raw.get()).map_err(|_| invalid("data.Name has to be a string"))?;
        check_name(&name).map_err(|fault| invalid(format!("data.Name {fault}")))?;
        Ok(name)
    }

    /// `OId`, which is passed through: the application's own name for the record, or null.
    pub(super) fn oid(&self) -> Result<&'a RawValue, Refusal> {
        const BYTES_MAX: usize = 1024;
        match self.oid {
            None => Ok(RawValue::NULL),
            Some(raw) if is_scalar(raw) && raw.get().len() <= BYTES_MAX => Ok(raw),
            Some(_) => Err(invalid("data.OId has to be a short string")),
        }
    }

    /// `sfid` unchanged, and in its form of 18 characters.
    pub(super) fn record(&self) -> Result<(&'a RawValue, String), Refusal> {
        let raw = self.sfid.ok_or_else(|| self.missing("sfid", "the id of the record in Salesforce"))?;
        let id = serde_json::from_str::<String>(raw.get()).ok().and_then(|text| record_id(&text));
        let id = id.ok_or_else(|| invalid("data.sfid has to be a record id of 15 or 18 letters and digits"))?;
        Ok((raw, id))
    }

    /// `params` as variables, in order.
    pub(super) fn params(&self) -> Result<Vec<Variable>, Refusal> {
        let raw = self.params.ok_or_else(|| self.missing("params", "an object of variables and their values"))?;
        let raw = Some(raw.get()).filter(|raw| raw.starts_with('{'));
        let raw = raw.ok_or_else(|| invalid("data.params has to be an object of variables and their values"))?;
        let Members(members) =
            serde_json::from_str(raw).map_err(|_| invalid("data.params has a name that is not a text"))?;
        let mut variables: Vec<Variable> = Vec::with_capacity(members.len());
        let mut seen = std::collections::HashSet::new();
        for (name, value) in members {
            check_name(&name).map_err(|fault| invalid(format!("a name in data.params {fault}")))?;
            if !is_scalar(value) {
                return Err(invalid(format!(
                    "data.params: '{name}' has to be a string, a number, true, false or null"
                )));
            }
            if !seen.insert(name.clone()) {
                return Err(invalid(format!("data.params: '{name}' occurs twice")));
            }
            variables.push((name, value.to_owned()));
        }
        Ok(variables)
    }

    /// `params` as names of variables: an array of names, or the keys of an object.
    pub(super) fn names(&self) -> Result<Vec<String>, Refusal> {
        let raw = self.raw_params().get();
        let names = match raw.starts_with('{') {
            true => {
                serde_json::from_str(raw).map(|Members(members)| members.into_iter().map(|(name, _)| name).collect())
            }
            false => serde_json::from_str::<Vec<String>>(raw),
        };
        names.map_err(|_| invalid("data.params has to be an array of names of variables"))
    }

    /// `params`, unchanged.
    pub(super) fn raw_params(&self) -> &'a RawValue {
        self.params.unwrap_or(RawValue::NULL)
    }
}

/// The id of a call.
pub(super) struct Call<'a> {
    /// The id as text.
    pub(super) id: String,
    /// The id unchanged, as a string or a number.
    pub(super) raw: &'a RawValue,
}

/// The members of an object in order, including repeated keys.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// Returns the text under a path of keys in a payload. Case is ignored.
pub(super) fn text_at(payload: &RawValue, path: &str) -> Option<String> {
    let mut raw = payload;
    for key in path.split('.') {
        let Members(members) = serde_json::from_str(raw.get()).ok()?;
        raw = members.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?.1;
    }
    text_or_number(raw)
}

fn text_or_number(raw: &RawValue) -> Option<String> {
    match raw.get().as_bytes().first()? {
        b'"' => serde_json::from_str(raw.get()).ok(),
        b'-' | b'0'..=b'9' => Some(raw.get().to_owned()),
        _ => None,
    }
}

fn is_scalar(raw: &RawValue) -> bool {
    !raw.get().starts_with(['{', '['])
}

/// The refusal of `data` that does not follow the documentation.
pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::InvalidEnvelope, message)
}

/// `data` of an answer or an event, in the documented order.
#[derive(Clone, Default)]
pub(super) struct Told(Vec<Variable>);

impl Told {
    /// Adds a value unchanged.
    pub(super) fn raw(mut self, key: &str, value: &RawValue) -> Self {
        self.0.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Adds a value.
    pub(super) fn value(mut self, key: &str, value: impl Serialize) -> Self {
        // Strings, booleans and nulls can always be written as JSON.
        let raw = serde_json::value::to_raw_value(&value).unwrap_or_else(|_| RawValue::NULL.to_owned());
        self.0.push((key.to_owned(), raw));
        self
    }

    /// Adds fields of a record, except those with the name of a documented key.
    pub(super) fn fields(mut self, fields: &[Variable]) -> Self {
        for (name, value) in fields {
            if !self.0.iter().any(|(key, _)| key == name) {
                self.0.push((name.clone(), value.clone()));
            }
        }
        self
    }

    /// The `data` of an answer.
    pub(super) fn data(&self) -> Data {
        Data::new(self.payload())
    }

    /// The `data` of an event.
    pub(super) fn payload(&self) -> Option<Box<RawValue>> {
        RawValue::from_string(json_object(&self.0)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    /// What is read from a payload, or the error.
    fn read(payload: &str) -> String {
        let payload = Payload::new(payload);
        let read = || -> Result<String, Refusal> {
            let asked = Asked::read(Some(&payload))?;
            let (call, name, oid, (_, id)) = (asked.call()?, asked.name()?, asked.oid()?, asked.record()?);
            let params = asked.params()?;
            let params: Vec<_> = params.iter().map(|(name, value)| format!("{name}={value}")).collect();
            Ok(format!("{} {} {name} {oid} {id} {}", call.id, call.raw, params.join(",")))
        };
        read().unwrap_or_else(|refusal| refusal.message.into_owned())
    }

    #[test]
    fn data_is_read_as_documented_and_a_mistake_names_its_field() {
        let task = r#""Name":"Task","sfid":"00T7F000027L43n""#;
        for (payload, expected) in [
            (
                format!(r#"{{"callId":"1",{task},"OId":"SF1","params":{{"b":"x","a":1.50}}}}"#),
                r#"1 "1" Task "SF1" 00T7F000027L43nUAC b="x",a=1.50"#,
            ),
            (format!(r#"{{"callID":12,{task},"params":{{}},"other":[]}}"#), "12 12 Task null 00T7F000027L43nUAC "),
            (format!(r#"{{"callId":"1","callid":"1",{task},"params":{{}}}}"#), "a key occurs twice"),
            (format!(r#"{{{task},"params":{{}}}}"#), "data.callId is missing"),
            (format!(r#"{{"callId":"",{task},"params":{{}}}}"#), "data.callId must not be empty"),
            (format!(r#"{{"callId":["1"],{task},"params":{{}}}}"#), "data.callId has to be a string"),
            (format!(r#"{{"callId":"1",{task},"OId":{{}},"params":{{}}}}"#), "data.OId has to be"),
            (format!(r#"{{"callId":"1",{task},"params":["a"]}}"#), "data.params has to be an object"),
            (format!(r#"{{"callId":"1",{task}}}"#), "data.params is missing: an object of variables and their values"),
            (
                r#"{"callId":"1","name":"Task","sfid":"00T7F000027L43n","params":{}}"#.to_owned(),
                "data.Name is missing: the kind of record, such as Task; it is there in another letter case",
            ),
            (
                format!(r#"{{"callId ":"1",{task},"params":{{}}}}"#),
                "data.callId is missing: the id of the call; it is there",
            ),
            (format!(r#"{{"callId":"1",{task},"params":{{"a":{{}}}}}}"#), "data.params: 'a' has to be a string"),
            (format!(r#"{{"callId":"1",{task},"params":{{"a":1,"\u0061":2}}}}"#), "data.params: 'a' occurs twice"),
            (format!(r#"{{"callId":"1",{task},"params":{{"a\n":1}}}}"#), "a name in data.params must not"),
            (r#"{"callId":"1","Name":"Task","sfid":"../Account","params":{}}"#.to_owned(), "data.sfid has to be"),
            (r#"{"callId":"1","Name":7,"sfid":"x","params":{}}"#.to_owned(), "data.Name has to be"),
            ("[1,2,3,4,5]".to_owned(), "the field 'data' has to be an object"),
        ] {
            let read = read(&payload);
            assert!(read.starts_with(expected), "{payload}: {read}");
        }
        assert!(Asked::read(None).is_err());
    }

    #[test]
    fn names_come_as_an_array_or_as_an_objects_keys() {
        let names = |params: &str| {
            let payload = Payload::new(&format!(r#"{{"params":{params}}}"#));
            Asked::read(Some(&payload)).unwrap().names().map_err(|refusal| refusal.code)
        };
        assert_eq!(names(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(names(r#"{"a":"x","b":null}"#).unwrap(), ["a", "b"]);
        for wrong in ["3", "[3]", "\"a\"", "null"] {
            assert_eq!(names(wrong), Err(ErrorCode::InvalidEnvelope), "{wrong}");
        }
    }

    #[test]
    fn a_value_is_found_in_a_payload_whatever_the_case_of_its_keys() {
        let payload = raw(r#"{"call":{"ID":"16930408","Event":"Dropped","n":7,"x":[1]},"callID":5}"#);
        for (path, expected) in [
            ("callId", Some("5")),
            ("call.id", Some("16930408")),
            ("CALL.event", Some("Dropped")),
            ("call.n", Some("7")),
            ("call", None),
            ("call.x", None),
            ("call.x.0", None),
            ("call.id.more", None),
            ("nothing", None),
        ] {
            assert_eq!(text_at(&payload, path).as_deref(), expected, "{path}");
        }
        assert_eq!(text_at(&raw("\"12345\""), "callId"), None);
    }

    #[test]
    fn the_documented_keys_stand_before_fields_of_their_name() {
        let fields = [("Name".to_owned(), raw("\"x\"")), ("Subject".to_owned(), raw("\"y\""))];
        let told = Told::default().value("Name", "Task").value("Success", true).fields(&fields);
        assert_eq!(told.payload().unwrap().get(), r#"{"Name":"Task","Success":true,"Subject":"y"}"#);
    }
}
