//! Reads answers of Salesforce: an array, an object, HTML or nothing. Values that may be secret are only copied into
//! memory that is erased, which the buffer of a parser would not be.

use std::borrow::Cow;
use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// A JSON object whose values have not been parsed.
pub(super) type Object<'a> = BTreeMap<String, &'a RawValue>;

/// One error in an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError<'a> {
    /// In capitals, digits and underscores; empty if there is no such code.
    pub(super) code: &'a str,
    /// May be searched, must not be shown: it may quote a row.
    pub(super) message: Cow<'a, str>,
    /// The API names of the fields concerned.
    pub(super) fields: Vec<String>,
}

#[derive(Deserialize)]
struct RawError<'a> {
    #[serde(borrow, rename = "errorCode")]
    code: Option<&'a str>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    fields: Option<&'a RawValue>,
}

/// Reads the errors of an answer, which contains them as an array or as one object. Returns none for anything else.
pub(super) fn error_codes(body: &[u8]) -> Vec<ApiError<'_>> {
    let errors: Vec<RawError<'_>> = serde_json::from_slice(body)
        .or_else(|_| serde_json::from_slice(body).map(|error| vec![error]))
        .unwrap_or_default();
    errors
        .into_iter()
        .map(|RawError { code, message, fields }| ApiError {
            code: code.filter(|code| is_code(code)).unwrap_or_default(),
            message: message.unwrap_or_default(),
            fields: fields.map_or_else(Vec::new, names),
        })
        .collect()
}

/// Reads an array of API names and leaves out everything else.
fn names(raw: &RawValue) -> Vec<String> {
    let named: Vec<String> = serde_json::from_str(raw.get()).unwrap_or_default();
    let is_name = |text: &String| text.len() <= 80 && text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
    named.into_iter().filter(is_name).collect()
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == b'_')
}

/// Why a login was refused: shortened, without control characters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LoginError {
    /// `error`
    pub(super) error: String,
    /// `error_description`
    pub(super) description: String,
}

impl LoginError {
    /// Reads the object; both texts are empty if there is none.
    pub(super) fn read(body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Raw {
            error: String,
            error_description: String,
        }
        let raw: Raw = serde_json::from_slice(body).unwrap_or_default();
        let short = |text: String| text.chars().filter(|it| !it.is_control()).take(120).collect();
        Self { error: short(raw.error), description: short(raw.error_description) }
    }
}

/// Reads `api-usage=10018/100000` from the header `Sforce-Limit-Info`: the used and the allowed requests of 24 hours.
pub(super) fn api_usage(header: &str) -> Option<(u64, u64)> {
    let (used, limit) =
        header.split([';', ',']).find_map(|part| part.trim().strip_prefix("api-usage="))?.split_once('/')?;
    Some((used.trim().parse().ok()?, limit.trim().parse().ok()?))
}

/// Reads the records of a query's answer.
pub(super) fn records(body: &[u8]) -> Option<Vec<Object<'_>>> {
    #[derive(Deserialize)]
    struct Query<'a> {
        #[serde(borrow)]
        records: Vec<Object<'a>>,
    }
    serde_json::from_slice(body).ok().map(|query: Query<'_>| query.records)
}

/// Reads one object or an array of objects; `null` and an empty body are none.
pub(super) fn objects(body: &[u8]) -> Option<Vec<Object<'_>>> {
    if body.trim_ascii().is_empty() {
        return Some(Vec::new());
    }
    match serde_json::from_slice::<Option<Object<'_>>>(body) {
        Ok(object) => Some(object.into_iter().collect()),
        Err(_) => serde_json::from_slice(body).ok(),
    }
}

/// The value of a field.
pub(super) enum Value {
    /// `null` or an empty text, between which Salesforce does not distinguish.
    Null,
    /// A text, or a number in digits.
    Text(SecretString),
    /// `true` or `false`.
    Switch(bool),
    /// Anything else; no field of credentials has such a value.
    Other,
}

/// Returns the value of a field; `Parent__r.Field__c` is read from the related record. `None`: there is no such field.
pub(super) fn value(object: &Object<'_>, path: &str) -> Option<Value> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    // Salesforce answers with its own spelling and accepts any.
    let raw = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, raw)| *raw)?;
    let Some(rest) = rest else { return Some(read(raw)) };
    match serde_json::from_str::<Option<Object<'_>>>(raw.get()) {
        Ok(Some(related)) => value(&related, rest),
        Ok(None) => Some(Value::Null),
        Err(_) => Some(Value::Other),
    }
}

fn read(raw: &RawValue) -> Value {
    let raw = raw.get();
    match raw.as_bytes().first() {
        Some(b'"') => match text(raw) {
            Some(text) if text.is_empty() => Value::Null,
            // Copied at its exact size: a buffer that shrinks would leave a copy behind.
            Some(text) => Value::Text(SecretString::from(text.as_str())),
            None => Value::Other,
        },
        Some(b'n') => Value::Null,
        Some(b't') => Value::Switch(true),
        Some(b'f') => Value::Switch(false),
        Some(b'0'..=b'9') => whole(raw).map_or(Value::Other, |digits| Value::Text(SecretString::from(digits.as_str()))),
        _ => Value::Other,
    }
}

/// Returns the digits of a whole number, which Salesforce may write as `5051.0` or, from ten million on, as `1.2345678E7`.
fn whole(raw: &str) -> Option<Zeroizing<String>> {
    /// Numbers in Salesforce have at most 18 digits.
    const DIGITS_MAX: usize = 32;
    let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shift = usize::try_from(exponent.parse::<i32>().ok()?).ok()?;
    let after = after.trim_end_matches('0');
    let zeros = shift.checked_sub(after.len())?;
    if before.len().saturating_add(shift) > DIGITS_MAX {
        return None;
    }
    let mut digits = Zeroizing::new(String::with_capacity(DIGITS_MAX));
    digits.push_str(before);
    digits.push_str(after);
    digits.extend(std::iter::repeat_n('0', zeros));
    // At least one digit stays.
    let leading = digits.len() - digits.trim_start_matches('0').len();
    let surplus = leading.min(digits.len().saturating_sub(1));
    digits.drain(..surplus);
    Some(digits)
}

/// Returns the text of a JSON string whose grammar has been checked.
fn text(raw: &str) -> Option<Zeroizing<String>> {
    let inside = raw.strip_prefix('"')?.strip_suffix('"')?;
    // The unescaped text is never longer, so the buffer never moves.
    let mut text = Zeroizing::new(String::with_capacity(inside.len()));
    let mut rest = inside;
    while let Some(at) = rest.find('\\') {
        let (plain, escape) = rest.split_at_checked(at)?;
        text.push_str(plain);
        let (character, length) = unescape(escape)?;
        text.push(character);
        rest = escape.get(length..)?;
    }
    text.push_str(rest);
    Some(text)
}

/// Returns the character of an escape sequence and the length of the sequence.
fn unescape(escape: &str) -> Option<(char, usize)> {
    let short = |character| Some((character, 2));
    let unit = |at: usize| u16::from_str_radix(escape.get(at..at + 4)?, 16).ok();
    match escape.as_bytes().get(1)? {
        b'n' => short('\n'),
        b'r' => short('\r'),
        b't' => short('\t'),
        b'b' => short('\u{8}'),
        b'f' => short('\u{c}'),
        same @ (b'"' | b'\\' | b'/') => short(char::from(*same)),
        b'u' => {
            let first = unit(2)?;
            let pair = if escape.get(6..8) == Some("\\u") { unit(8) } else { None };
            let units = [Some(first), pair];
            let decoded = char::decode_utf16(units.into_iter().flatten()).next()?.ok()?;
            Some((decoded, if decoded.len_utf16() == 2 { 12 } else { 6 }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    use super::*;

    fn shown(value: Option<Value>) -> String {
        match value {
            None => "absent".to_owned(),
            Some(Value::Null) => "null".to_owned(),
            Some(Value::Text(text)) => format!("text {}", text.expose_secret()),
            Some(Value::Switch(switch)) => switch.to_string(),
            Some(Value::Other) => "other".to_owned(),
        }
    }

    #[test]
    fn errors_are_read_from_whatever_there_is() {
        let codes = |body: &str| error_codes(body.as_bytes()).iter().map(|it| it.code.to_owned()).collect::<Vec<_>>();
        assert_eq!(codes(r#"[{"errorCode":"A_B","message":"m"},{"errorCode":"C"}]"#), ["A_B", "C"]);
        assert_eq!(codes(r#"{"errorCode":"A"}"#), ["A"]);
        assert_eq!(codes(r#"[{"errorCode":"<script>"},{"message":null}]"#), ["", ""]);
        let fields = error_codes(br#"[{"errorCode":"A","fields":["Name","<b>"]},{"fields":null},{"fields":{"a":1}}]"#);
        assert_eq!(fields.iter().map(|it| it.fields.join(",")).collect::<Vec<_>>(), ["Name", "", ""]);
        for nothing in ["", "<html>", "null", "[1]", "3", "[[]]", "{\"errorCode\":5}"] {
            assert!(codes(nothing).iter().all(String::is_empty), "{nothing}");
        }
    }

    #[test]
    fn a_field_is_found_in_the_record_or_in_a_related_one() {
        let body = br#"{"records":[{"attributes":{"type":"X"},"Id":"1","User__r":{"Username":"al\"ice","Manager":null},
            "A__c":null,"B__c":"","C__c":true,"D__c":5051.0,"E__c":5.5,"F__c":["x"],"G__c":"\u00fc\ud83d\ude00\/\n"}]}"#;
        let records = records(body).unwrap();
        for (path, expected) in [
            ("id", "text 1"),
            ("User__r.Username", "text al\"ice"),
            ("user__r.username", "text al\"ice"),
            ("User__r.Manager.Name", "null"),
            ("User__r.Email", "absent"),
            ("A__c.Name", "null"),
            ("C__c.Name", "other"),
            ("A__c", "null"),
            ("B__c", "null"),
            ("C__c", "true"),
            ("D__c", "text 5051"),
            ("E__c", "other"),
            ("F__c", "other"),
            ("G__c", "text ü😀/\n"),
            ("H__c", "absent"),
        ] {
            assert_eq!(shown(value(&records[0], path)), expected, "{path}");
        }
        assert_eq!(objects(b"null").map(|it| it.len()), Some(0));
        assert_eq!(objects(b" ").map(|it| it.len()), Some(0));
        assert_eq!(objects(br#"{"a":1}"#).map(|it| it.len()), Some(1));
        assert_eq!(objects(br#"[{"a":1},{}]"#).map(|it| it.len()), Some(2));
        assert!(objects(b"<html>").is_none() && objects(b"[1]").is_none() && self::records(b"[]").is_none());
    }

    #[test]
    fn a_whole_number_is_text_however_it_is_written() {
        for (raw, digits) in [
            ("0", Some("0")),
            ("5051", Some("5051")),
            ("5051.0", Some("5051")),
            ("5051.000", Some("5051")),
            ("1.2345678E7", Some("12345678")),
            ("1.0E7", Some("10000000")),
            ("1E7", Some("10000000")),
            ("1.23e+9", Some("1230000000")),
            ("9.99999999999999999E17", Some("999999999999999999")),
            ("0.5E1", Some("5")),
            ("0.0E5", Some("0")),
            ("5.5", None),
            ("1.2345678E6", None),
            ("1E-7", None),
            ("1E400", None),
            ("1E99999999999", None),
        ] {
            assert_eq!(whole(raw).as_ref().map(|it| it.as_str()), digits, "{raw}");
        }
    }

    #[test]
    fn the_usage_of_the_limit_is_read() {
        for (header, usage) in [
            ("api-usage=10018/100000", Some((10018, 100_000))),
            ("api-bursts=1/750; api-usage=18/5000; per-app-api-usage=17/250(appName=x)", Some((18, 5000))),
            ("per-app-api-usage=17/250(appName=x)", None),
            ("api-usage=x/5", None),
            ("", None),
        ] {
            assert_eq!(api_usage(header), usage, "{header}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_text_reads_as_the_parser_reads_it(plain in "[\\PC\"\\\\\\n]{0,30}", pieces in prop::collection::vec(
            prop::sample::select(vec!["\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\\n", "\\/", "\\\"", "a", "\\u0041\\u0042"]), 0..6)) {
            let escaped = serde_json::to_string(&plain).unwrap();
            for raw in [escaped, format!("\"{}\"", pieces.concat())] {
                let expected: Option<String> = serde_json::from_str(&raw).ok();
                prop_assert_eq!(text(&raw).map(|it| it.to_string()), expected, "{}", raw);
            }
        }
    }
}
