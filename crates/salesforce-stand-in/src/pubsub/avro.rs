//! [`Shape`]: the record of an event, that is its Avro schema and the encoding of values. Only the part of Avro that
//! events need.

use std::time::UNIX_EPOCH;

use serde_json::{Map, Value, json};

/// A record.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) name: String,
    pub(super) slots: Vec<Slot>,
}

/// A field of a record.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) form: Form,
    /// Whether it may be null.
    pub(super) optional: bool,
    pub(super) doc: String,
}

/// The type of a field.
#[derive(Clone, Debug)]
pub(super) enum Form {
    Boolean,
    Int,
    Long,
    Double,
    Text,
    /// Milliseconds since 1970; values are texts as in REST.
    Moment,
    Texts,
    Word(&'static [&'static str]),
    Record(Shape),
}

impl Slot {
    /// A field that may be null.
    pub(super) fn optional(name: &str, form: Form, doc: &str) -> Self {
        Self { name: name.to_owned(), form, optional: true, doc: doc.to_owned() }
    }

    /// A field that is never null.
    pub(super) fn required(name: &str, form: Form, doc: &str) -> Self {
        Self { optional: false, ..Self::optional(name, form, doc) }
    }
}

impl Shape {
    /// The schema.
    pub(super) fn schema(&self) -> Value {
        let fields = self.slots.iter().map(|slot| {
            let form = slot.form.schema();
            let mut field = match slot.optional {
                true => json!({ "name": slot.name, "type": ["null", form], "default": null }),
                false => json!({ "name": slot.name, "type": form }),
            };
            if let (Value::Object(field), false) = (&mut field, slot.doc.is_empty()) {
                field.insert("doc".to_owned(), json!(slot.doc));
            }
            field
        });
        json!({
            "type": "record", "name": self.name, "namespace": "com.sforce.eventbus",
            "fields": fields.collect::<Vec<_>>(),
        })
    }

    /// Encodes values as one datum, or names the one that does not fit.
    pub(super) fn written(&self, values: &Map<String, Value>) -> Result<Vec<u8>, String> {
        if let Some(unknown) = values.keys().find(|key| self.slots.iter().all(|slot| slot.name != **key)) {
            return Err(format!("{} has no field {unknown}", self.name));
        }
        let mut bytes = Vec::new();
        for slot in &self.slots {
            let value = values.get(&slot.name).unwrap_or(&Value::Null);
            match (slot.optional, value) {
                (true, Value::Null) => long(&mut bytes, 0),
                (true, _) => {
                    long(&mut bytes, 1);
                    slot.write(&mut bytes, value)?;
                }
                (false, _) => slot.write(&mut bytes, value)?,
            }
        }
        Ok(bytes)
    }
}

impl Form {
    fn schema(&self) -> Value {
        match self {
            Self::Boolean => json!("boolean"),
            Self::Int => json!("int"),
            Self::Long | Self::Moment => json!("long"),
            Self::Double => json!("double"),
            Self::Text => json!("string"),
            Self::Texts => json!({ "type": "array", "items": "string" }),
            Self::Word(words) => json!({ "type": "enum", "name": "ChangeType", "symbols": words }),
            Self::Record(shape) => shape.schema(),
        }
    }
}

impl Slot {
    fn write(&self, bytes: &mut Vec<u8>, value: &Value) -> Result<(), String> {
        let wrong = || format!("the value of {} does not fit", self.name);
        match (&self.form, value) {
            (Form::Boolean, Value::Bool(it)) => bytes.push(u8::from(*it)),
            (Form::Int | Form::Long | Form::Moment, Value::Number(it)) => long(bytes, it.as_i64().ok_or_else(wrong)?),
            (Form::Moment, Value::String(it)) => long(bytes, moment(it).ok_or_else(wrong)?),
            (Form::Double, Value::Number(it)) => bytes.extend(it.as_f64().ok_or_else(wrong)?.to_le_bytes()),
            (Form::Text, Value::String(it)) => text(bytes, it),
            (Form::Texts, Value::Array(items)) => {
                if !items.is_empty() {
                    long(bytes, length(items.len()));
                }
                for item in items {
                    text(bytes, item.as_str().ok_or_else(wrong)?);
                }
                long(bytes, 0);
            }
            (Form::Word(words), Value::String(it)) => {
                let at = words.iter().position(|word| word == it).ok_or_else(wrong)?;
                long(bytes, length(at));
            }
            (Form::Record(shape), Value::Object(it)) => bytes.extend(shape.written(it)?),
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

/// Encodes a number in zig-zag, seven bits per byte, lowest first.
fn long(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = (number << 1 ^ number >> 63).cast_unsigned();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    long(bytes, length(text.len()));
    bytes.extend_from_slice(text.as_bytes());
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Converts `2026-11-24T09:20:00.000+0000`, or a day, to milliseconds since 1970.
fn moment(text: &str) -> Option<i64> {
    let text = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.replace("+0000", "Z") };
    let since = humantime::parse_rfc3339(&text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_specification_has_them() {
        for (number, expected) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut bytes = Vec::new();
            long(&mut bytes, number);
            assert_eq!(bytes, expected, "{number}");
        }
    }
}
