//! Salesforce's record ids: 15 case-sensitive characters, or 18, of which the last three encode the case of the others.

/// Returns a record id in its form of 18 characters; `None` if the text is not an id.
///
/// The last three characters encode which of the first fifteen are capitals, five to a character.
#[must_use]
pub fn record_id(text: &str) -> Option<String> {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
    if !text.bytes().all(|it| it.is_ascii_alphanumeric()) {
        return None;
    }
    match text.len() {
        18 => Some(text.to_owned()),
        15 => {
            let mut id = text.to_owned();
            for part in text.as_bytes().chunks(5) {
                let capitals = (0..5).filter(|&at| part.get(at).is_some_and(u8::is_ascii_uppercase));
                let index = capitals.fold(0_usize, |sum, at| sum | 1 << at);
                id.push(DIGITS.get(index).copied().map_or('A', char::from));
            }
            Some(id)
        }
        _ => None,
    }
}

/// The same, but each record has only one accepted spelling: the last three of 18 characters must fit the others.
#[must_use]
pub fn exact_record_id(text: &str) -> Option<String> {
    let id = record_id(text)?;
    let made = record_id(id.get(..15)?)?;
    (made == id).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_completed_to_18_characters() {
        for (text, id, exact) in [
            ("005000000000001", Some("005000000000001AAA"), true),
            ("005xx000001SwiU", Some("005xx000001SwiUAAS"), true),
            ("001D000000IqhSL", Some("001D000000IqhSLIAZ"), true),
            ("001D000000IqhSLIAZ", Some("001D000000IqhSLIAZ"), true),
            ("001D000000IqhSLIAY", Some("001D000000IqhSLIAY"), false),
            ("001D000000IqhSLiaz", Some("001D000000IqhSLiaz"), false),
            ("alice@example.com", None, false),
            ("00500000000000", None, false),
            ("0050000000000011", None, false),
            ("00500000000000'", None, false),
            ("00500000000000é", None, false),
            ("", None, false),
        ] {
            assert_eq!(record_id(text).as_deref(), id, "{text}");
            assert_eq!(exact_record_id(text).as_deref(), id.filter(|_| exact), "{text}");
        }
    }
}
