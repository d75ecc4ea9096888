//! [`Schema`]: the Avro schema of an event's payload, and decoding into JSON. [`Schemas`] caches them; the schema of an
//! id never changes.
//!
//! Unions and defaults are resolved, bytes become base64, and a number that the schema declares as date and time
//! becomes RFC 3339.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, Name, NamesRef, RecordSchema, ResolvedSchema};
use apache_avro::types::Value as Avro;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use super::bitmap;

/// The number of cached schemas. Each change of an event in the org costs one more call.
const KEPT: usize = 256;

/// The deepest nesting of a schema. Salesforce's are two levels deep.
const DEPTH_MAX: usize = 16;

/// The most fields and types in a schema, counted each time they are used. An object in Salesforce has about 900 fields
/// at most.
const EXTENT_MAX: usize = 20_000;

/// The same limit for the items of a list, which are texts in Salesforce.
const LISTED_MAX: usize = 16;

/// The largest allocation for one value. An event has at most 1 MiB.
const ALLOCATION_MAX: usize = 4 << 20;

/// The last point in time that RFC 3339 can express, in milliseconds.
const LAST_MS: u64 = 253_402_300_799_999;

/// The field of a change event that describes the change.
pub(super) const HEADER: &str = "ChangeEventHeader";

/// A schema that has been checked: a record of limited size.
pub(super) struct Schema {
    avro: apache_avro::Schema,
}

impl Schema {
    /// Parses a schema, or says why it cannot be used.
    pub(super) fn parse(json: &str) -> Result<Self, &'static str> {
        apache_avro::util::max_allocation_bytes(ALLOCATION_MAX);
        let avro = apache_avro::Schema::parse_str(json).map_err(|_| "it is not an Avro schema")?;
        let names = ResolvedSchema::new(&avro).map_err(|_| "it names what it does not define")?.get_names().clone();
        match &avro {
            _ if !(Extent { names, left: EXTENT_MAX }).covers(&avro, None, 0, false) => {
                Err("it refers to itself, or is larger than any event's")
            }
            apache_avro::Schema::Record(_) => Ok(Self { avro }),
            _ => Err("it is not a record"),
        }
    }

    /// The API name of the event.
    pub(super) fn name(&self) -> &str {
        self.record().map_or("", |record| record.name.name())
    }

    /// The names of the event's fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = &str> {
        self.record().into_iter().flat_map(|record| &record.fields).map(|field| field.name.as_str())
    }

    /// Returns whether the event describes a changed record.
    pub(super) fn is_change(&self) -> bool {
        self.record().is_some_and(|record| record.lookup.contains_key(HEADER))
    }

    /// Decodes a payload, which is one datum without a header.
    pub(super) fn read(&self, mut payload: &[u8]) -> Option<Map<String, Value>> {
        let reader = GenericDatumReader::builder(&self.avro).build().ok()?;
        let Avro::Record(fields) = reader.read_value(&mut payload).ok()? else { return None };
        let record = self.record()?;
        let mut read = Map::with_capacity(fields.len() + 3);
        for (name, value) in fields {
            let doc = record.fields.iter().find(|it| it.name == name).and_then(|it| it.doc.as_deref());
            read.insert(name, plain(value, doc.is_some_and(|doc| doc.contains(":DateTime"))));
        }
        if let Some(Value::Object(header)) = read.get_mut(HEADER) {
            bitmap::expand(header, record, &|name| self.named(name));
        }
        Some(read)
    }

    fn record(&self) -> Option<&RecordSchema> {
        match &self.avro {
            apache_avro::Schema::Record(record) => Some(record),
            _ => None,
        }
    }

    /// The record of this name, which a field refers to.
    fn named(&self, name: &Name) -> Option<&RecordSchema> {
        let mut open = vec![&self.avro];
        while let Some(schema) = open.pop() {
            match schema {
                apache_avro::Schema::Record(record) if record.name == *name => return Some(record),
                other => open.extend(inside(other)),
            }
        }
        None
    }
}

/// The schemas inside a schema.
fn inside(schema: &apache_avro::Schema) -> Vec<&apache_avro::Schema> {
    match schema {
        apache_avro::Schema::Record(record) => record.fields.iter().map(|field| &field.schema).collect(),
        apache_avro::Schema::Union(union) => union.variants().iter().collect(),
        apache_avro::Schema::Array(array) => vec![&*array.items],
        apache_avro::Schema::Map(map) => vec![&*map.types],
        _ => Vec::new(),
    }
}

/// The budget that is left while a schema is checked. Names are followed: a few bytes can describe chains of records
/// that contain each other, which would overflow the decoder's stack or memory.
struct Extent<'s> {
    names: NamesRef<'s>,
    left: usize,
}

impl Extent<'_> {
    /// Returns whether a schema is within the limits. `namespace` is that of the enclosing record; `listed` is whether
    /// it is inside a list.
    fn covers(&mut self, schema: &apache_avro::Schema, namespace: Option<&str>, depth: usize, listed: bool) -> bool {
        let Some(left) = self.left.checked_sub(1).filter(|_| depth <= DEPTH_MAX) else { return false };
        self.left = left;
        match schema {
            apache_avro::Schema::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                record.fields.iter().all(|it| self.covers(&it.schema, name.namespace(), depth + 1, listed))
            }
            apache_avro::Schema::Union(union) => {
                union.variants().iter().all(|it| self.covers(it, namespace, depth + 1, listed))
            }
            apache_avro::Schema::Array(array) => self.covers_listed(&array.items, namespace, depth, listed),
            apache_avro::Schema::Map(map) => self.covers_listed(&map.types, namespace, depth, listed),
            apache_avro::Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace);
                let named = self.names.get(name.as_ref()).copied();
                named.is_some_and(|it| self.covers(it, name.namespace(), depth + 1, listed))
            }
            apache_avro::Schema::Fixed(fixed)
            | apache_avro::Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => {
                fixed.size <= ALLOCATION_MAX
            }
            _ => true,
        }
    }

    /// The decoder limits each list by itself and does not count the bytes of an item, which may be zero.
    fn covers_listed(
        &mut self,
        item: &apache_avro::Schema,
        namespace: Option<&str>,
        depth: usize,
        listed: bool,
    ) -> bool {
        let rest = self.left.saturating_sub(LISTED_MAX);
        self.left -= rest;
        let covers = !listed && self.covers(item, namespace, depth + 1, true);
        self.left += rest;
        covers
    }
}

/// Writes a value in JSON. With `moment`, a long is milliseconds since 1970.
fn plain(value: Avro, moment: bool) -> Value {
    match value {
        Avro::Union(_, inner) => plain(*inner, moment),
        Avro::Boolean(it) => json!(it),
        Avro::Int(it) | Avro::TimeMillis(it) => json!(it),
        Avro::Date(days) => date(days),
        Avro::Long(it) if moment => rfc3339(it),
        Avro::TimestampMillis(it) | Avro::LocalTimestampMillis(it) => rfc3339(it),
        Avro::Long(it)
        | Avro::TimeMicros(it)
        | Avro::TimestampMicros(it)
        | Avro::TimestampNanos(it)
        | Avro::LocalTimestampMicros(it)
        | Avro::LocalTimestampNanos(it) => json!(it),
        // NaN and infinity become null.
        Avro::Float(it) => json!(it),
        Avro::Double(it) => json!(it),
        Avro::String(it) | Avro::Enum(_, it) => Value::String(it),
        Avro::Bytes(it) | Avro::Fixed(_, it) => Value::String(STANDARD.encode(it)),
        Avro::Array(items) => items.into_iter().map(|it| plain(it, moment)).collect(),
        Avro::Record(fields) => fields.into_iter().map(|(name, it)| (name, plain(it, false))).collect(),
        Avro::Map(entries) => {
            let mut entries: Vec<_> = entries.into_iter().map(|(name, it)| (name, plain(it, moment))).collect();
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            entries.into_iter().collect()
        }
        Avro::Uuid(it) => Value::String(it.to_string()),
        // Salesforce's events contain no such number, and a long one takes long to write.
        Avro::Null | Avro::Decimal(_) | Avro::BigDecimal(_) | Avro::Duration(_) => Value::Null,
    }
}

fn rfc3339(ms: i64) -> Value {
    match u64::try_from(ms).ok().filter(|ms| *ms <= LAST_MS) {
        Some(since) => json!(humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(since)).to_string()),
        None => json!(ms),
    }
}

fn date(days: i32) -> Value {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let moment = rfc3339(i64::from(days) * DAY_MS);
    moment.as_str().and_then(|text| text.get(..10)).map_or_else(|| json!(days), |day| json!(day))
}

/// The most recently used schemas.
#[derive(Default)]
pub(super) struct Schemas {
    kept: Mutex<VecDeque<(String, Arc<Schema>)>>,
}

impl Schemas {
    /// The schema of an id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Schema>> {
        self.kept.lock().iter().find(|(kept, _)| kept == id).map(|(_, schema)| Arc::clone(schema))
    }

    /// Adds a schema and, if the cache is full, removes the oldest.
    pub(super) fn keep(&self, id: &str, schema: Arc<Schema>) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back((id.to_owned(), schema));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: &str = r#"{"type":"record","name":"CTI_Notice__e","namespace":"com.sforce.eventbus","fields":[
        {"name":"CreatedDate","type":"long","doc":"CreatedDate:DateTime"},
        {"name":"Text","type":["null","string"],"default":null,"doc":"Data:Text:00N"},
        {"name":"When","type":["null","long"],"default":null,"doc":"Data:DateTime:00N"},
        {"name":"Number","type":["null","double"],"default":null,"doc":"Data:Double:00N"},
        {"name":"Whole","type":"long"},
        {"name":"Bytes","type":"bytes"},
        {"name":"Day","type":{"type":"int","logicalType":"date"}},
        {"name":"Names","type":{"type":"map","values":"string"}}]}"#;

    #[test]
    fn every_kind_of_value_has_a_form_in_json() {
        let schema = Schema::parse(SCHEMA).unwrap();
        assert_eq!((schema.name(), schema.is_change()), ("CTI_Notice__e", false));
        // 2026-11-24T09:20:00Z, in milliseconds.
        let moment = [0x80, 0xf8, 0xd6, 0xcd, 0xc1, 0x68];
        let mut payload = moment.to_vec();
        payload.extend([2, 4, b'h', b'i', 2]);
        payload.extend([3]);
        payload.extend([2]);
        payload.extend(f64::NAN.to_le_bytes());
        payload.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        payload.extend([4, 0xfb, 0xff]);
        payload.extend([2]);
        payload.extend([4, 2, b'b', 2, b'1', 2, b'a', 2, b'2', 0]);
        let read = schema.read(&payload).unwrap();
        assert_eq!(
            Value::Object(read),
            json!({
                "CreatedDate": "2026-11-24T09:20:00.000Z", "Text": "hi", "When": -2, "Number": null, "Whole": i64::MIN,
                "Bytes": "+/8=", "Day": "1970-01-02", "Names": { "a": "2", "b": "1" },
            })
        );
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused() {
        let nested = |depth: usize| {
            let open = |at| format!(r#"{{"type":"record","name":"R{at}","fields":[{{"name":"f","type":"#);
            (0..depth).map(open).collect::<String>() + "\"int\"" + &"}]}".repeat(depth)
        };
        // Each record contains the previous one several times, by its name.
        let chained = |length: usize, times: usize| {
            let first =
                r#"{"name":"r0","type":{"type":"record","name":"R0","fields":[{"name":"n","type":"boolean"}]}}"#;
            let next = |at: usize| {
                let field = |time| format!(r#"{{"name":"f{time}","type":"R{}"}}"#, at - 1);
                let fields = (0..times).map(field).collect::<Vec<_>>().join(",");
                format!(r#",{{"name":"r{at}","type":{{"type":"record","name":"R{at}","fields":[{fields}]}}}}"#)
            };
            let fields = (1..length).map(next).collect::<String>();
            format!(r#"{{"type":"record","name":"A","fields":[{first}{fields}]}}"#)
        };
        let listed = |kind: &str| format!(r#"{{"type":"record","name":"A","fields":[{{"name":"a","type":{kind}}}]}}"#);
        let wide = |width: usize| {
            let field = |at| format!(r#"{{"name":"f{at}","type":"boolean"}}"#);
            (0..width).map(field).collect::<Vec<_>>().join(",")
        };
        for (text, fits) in [
            ("", false),
            ("{}", false),
            ("\"string\"", false),
            (r#"{"type":"record","name":"A","fields":[{"name":"a","type":["null","A"]}]}"#, false),
            (
                r#"{"type":"record","name":"A","fields":[{"name":"a","type":{"type":"record","name":"B",
                    "fields":[{"name":"b","type":{"type":"array","items":"A"}}]}}]}"#,
                false,
            ),
            (r#"{"type":"record","name":"A","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#, false),
            (r#"{"type":"record","name":"A","fields":[{"name":"a","type":"Missing"}]}"#, false),
            (&nested(8), true),
            (&nested(40), false),
            (&chained(8, 1), true),
            (&chained(1000, 1), false),
            (&chained(14, 10), false),
            (&listed(r#"{"type":"array","items":"string"}"#), true),
            (&listed(r#"{"type":"array","items":{"type":"array","items":"null"}}"#), false),
            (&listed(&format!(r#"{{"type":"map","values":{}}}"#, nested(3))), true),
            (
                &listed(&format!(
                    r#"{{"type":"array","items":{{"type":"record","name":"W","fields":[{}]}}}}"#,
                    wide(1000)
                )),
                false,
            ),
            (&listed(r#"{"type":"fixed","name":"F","size":16}"#), true),
            (&listed(r#"{"type":"fixed","name":"F","size":1152921504606846976}"#), false),
            (
                &listed(
                    r#"{"type":"fixed","name":"F","size":1152921504606846976,"logicalType":"decimal","precision":4}"#,
                ),
                false,
            ),
        ] {
            assert_eq!(Schema::parse(text).is_ok(), fits, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_makes_it_fail_otherwise(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let schema = Schema::parse(SCHEMA).unwrap();
            if let Some(read) = schema.read(&payload) {
                serde_json::to_string(&read).unwrap();
            }
        }
    }
}
