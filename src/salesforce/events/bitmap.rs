//! Bitmaps in change events: which fields have changed, as bits that are counted along the schema.
//!
//! `0x…` is a number whose lowest bit is the first field; `4-0x…` is the same for the fields inside the fifth one
//! ("Event Deserialization Considerations" in the Pub/Sub API's guide).

use apache_avro::Schema;
use apache_avro::schema::{Name, RecordSchema};
use serde_json::{Map, Value};

/// The lists of a header that contain bitmaps.
const LISTS: [&str; 3] = ["changedFields", "nulledFields", "diffFields"];

/// Finds a record by name.
pub(super) type Named<'s> = dyn Fn(&Name) -> Option<&'s RecordSchema> + 's;

/// Replaces bits with names of fields. Entries that cannot be read stay unchanged.
pub(super) fn expand<'s>(header: &mut Map<String, Value>, record: &'s RecordSchema, named: &Named<'s>) {
    for list in LISTS {
        if let Some(Value::Array(entries)) = header.get_mut(list) {
            let names = std::mem::take(entries).into_iter().flat_map(|entry| match entry.as_str() {
                Some(text) => fields(text, record, named).unwrap_or_else(|| vec![text.to_owned()]),
                None => Vec::new(),
            });
            *entries = names.map(Value::String).collect();
        }
    }
}

/// The names that one entry means; `None` if it is not a bitmap of this record.
fn fields<'s>(entry: &str, record: &'s RecordSchema, named: &Named<'s>) -> Option<Vec<String>> {
    if let Some(bits) = entry.strip_prefix("0x") {
        return names(bits, record);
    }
    let (position, bits) = entry.split_once("-0x")?;
    let parent = record.fields.get(position.parse::<usize>().ok()?)?;
    let within = names(bits, compound(&parent.schema, named)?)?;
    Some(within.into_iter().map(|name| format!("{}.{name}", parent.name)).collect())
}

/// The record in a field, which may be optional.
fn compound<'s>(schema: &'s Schema, named: &Named<'s>) -> Option<&'s RecordSchema> {
    match schema {
        Schema::Record(record) => Some(record),
        Schema::Ref { name } => named(name),
        Schema::Union(union) => union.variants().iter().find_map(|variant| compound(variant, named)),
        _ => None,
    }
}

fn names(bits: &str, record: &RecordSchema) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for (place, digit) in bits.chars().rev().enumerate() {
        let digit = digit.to_digit(16)?;
        let set = (0..4).filter(|bit| digit & (1 << bit) != 0).map(|bit| place * 4 + bit);
        for at in set {
            // A schema older than the event lacks its newest fields.
            names.extend(record.fields.get(at).map(|field| field.name.clone()));
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use crate::salesforce::events::schema::Schema;

    #[test]
    fn bits_count_from_the_lowest_and_a_prefix_goes_into_a_compound_field() {
        let text = r#"{"type":"record","name":"XChangeEvent","fields":[
            {"name":"ChangeEventHeader","type":{"type":"record","name":"H","fields":[
                {"name":"changedFields","type":{"type":"array","items":"string"}}]}},
            {"name":"A","type":["null","string"],"default":null},
            {"name":"Name","type":["null",{"type":"record","name":"N","fields":[
                {"name":"First","type":["null","string"]},{"name":"Last","type":["null","string"]}]}],"default":null},
            {"name":"Other","type":["null","N"],"default":null},
            {"name":"B","type":["null","string"],"default":null}]}"#;
        let schema = Schema::parse(text).unwrap();
        for (entry, expected) in [
            ("0x2", &["A"][..]),
            ("0x12", &["A", "B"]),
            ("0x0000000012", &["A", "B"]),
            ("0xF2", &["A", "B"]),
            ("2-0x2", &["Name.Last"]),
            ("3-0x3", &["Other.First", "Other.Last"]),
            ("0x", &[]),
            ("0xZ", &["0xZ"]),
            ("9-0x1", &["9-0x1"]),
            ("1-0x1", &["1-0x1"]),
            ("-0x1", &["-0x1"]),
            ("Plain", &["Plain"]),
        ] {
            let mut payload = vec![2, u8::try_from(entry.len() * 2).unwrap()];
            payload.extend(entry.bytes());
            // The end of the list, then four nulls.
            payload.extend([0, 0, 0, 0, 0]);
            let read = schema.read(&payload).unwrap();
            assert_eq!(read["ChangeEventHeader"]["changedFields"], serde_json::json!(expected), "{entry}");
        }
    }
}
