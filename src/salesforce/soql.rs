//! SOQL with a user's name in it. Nothing in a name can end its literal. Identifiers come from the configuration, which
//! has checked them.

use crate::config::Lookup;

/// How many rows a query returns at most. Salesforce ignores case when it compares texts, so rows of other users may
/// match; they are sorted out here and must not fill the answer.
pub(super) const ROWS_MAX: usize = 50;

/// Writes the query for the rows of a key; `None` if no row can have the key.
pub(super) fn query(lookup: &Lookup, key: &str) -> Option<String> {
    let literal = quote(key)?;
    let fields = fields(lookup, &["Id"]).join(", ");
    Some(format!("SELECT {fields} FROM {} WHERE {} = {literal} LIMIT {ROWS_MAX}", lookup.object, lookup.key_field))
}

/// The fields that are read, each once.
pub(super) fn fields<'a>(lookup: &'a Lookup, first: &[&'a str]) -> Vec<&'a str> {
    let named = [
        &lookup.key_field,
        &lookup.fields.username,
        &lookup.fields.password,
        &lookup.fields.extension,
        &lookup.fields.adfs_username,
        &lookup.active_field,
    ];
    let mut fields: Vec<&str> = Vec::new();
    for name in first.iter().copied().chain(named.into_iter().map(String::as_str)) {
        // SOQL refuses a field that is named twice, in whatever case.
        if !name.is_empty() && !fields.iter().any(|it| it.eq_ignore_ascii_case(name)) {
            fields.push(name);
        }
    }
    fields
}

/// Writes a SOQL string literal; `None` for a control character that has no escape.
///
/// Both the quote and the backslash are escaped: escaping the quote alone lets `\'` end the literal.
pub(super) fn quote(value: &str) -> Option<String> {
    let mut literal = String::with_capacity(value.len() + 2);
    literal.push('\'');
    for character in value.chars() {
        match character {
            '\\' => literal.push_str("\\\\"),
            '\'' => literal.push_str("\\'"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            '\u{8}' => literal.push_str("\\b"),
            '\u{c}' => literal.push_str("\\f"),
            control if control.is_control() => return None,
            plain => literal.push(plain),
        }
    }
    literal.push('\'');
    Some(literal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads a literal as a SOQL parser does; `None` if it ends early or has an unknown escape.
    fn parse(literal: &str) -> Option<String> {
        let mut rest = literal.strip_prefix('\'')?.chars();
        let mut value = String::new();
        loop {
            match rest.next()? {
                '\'' => return rest.next().is_none().then_some(value),
                '\\' => value.push(match rest.next()?.to_ascii_lowercase() {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    same @ ('"' | '\'' | '\\') => same,
                    _ => return None,
                }),
                plain => value.push(plain),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_literal_reads_back_as_the_value(value in "[\\\\'\"a\\n%_ \\PC]{0,40}") {
            if let Some(literal) = quote(&value) {
                prop_assert_eq!(parse(&literal), Some(value));
            }
        }
    }

    #[test]
    fn the_known_injections_stay_inside_their_literal() {
        for value in ["' OR Id != '", "a\\' OR Name != '", "\\", "x' --", "a\\\\' OR '1'='1"] {
            assert_eq!(parse(&quote(value).unwrap()).as_deref(), Some(value));
        }
        assert_eq!(quote("a\\' OR").as_deref(), Some("'a\\\\\\' OR'"));
        assert_eq!(quote("a\0b"), None);
        assert_eq!(quote("a\u{85}b"), None);
    }

    #[test]
    fn the_query_asks_for_each_field_once() {
        let mut lookup = Lookup::default();
        assert_eq!(
            query(&lookup, "005000000000001AAA").unwrap(),
            "SELECT Id, User_Id__c, CTI_Username__c, CTI_Password__c, CTI_Extension__c, ADFS_Username__c, Active__c FROM \
             CTI_Login__c WHERE User_Id__c = '005000000000001AAA' LIMIT 50"
        );
        lookup.active_field = String::new();
        lookup.key_field = "id".to_owned();
        lookup.fields.extension = "cti_username__C".to_owned();
        lookup.fields.password = String::new();
        assert_eq!(
            query(&lookup, "x").unwrap(),
            "SELECT Id, CTI_Username__c, ADFS_Username__c FROM CTI_Login__c WHERE id = 'x' LIMIT 50"
        );
    }
}
