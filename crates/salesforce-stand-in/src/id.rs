//! Record ids: 15 case-sensitive characters, or 18, of which the last three encode the case of the others.

/// The letters of the last three characters.
const SUFFIX: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";

/// Completes an id to 18 characters; `None` if the text is not an id.
pub(super) fn complete(id: &str) -> Option<String> {
    if !id.bytes().all(|it| it.is_ascii_alphanumeric()) {
        return None;
    }
    match id.len() {
        15 => Some(format!("{id}{}", suffix(id))),
        18 => {
            let short = id.get(..15)?;
            let long = format!("{short}{}", suffix(short));
            long.eq_ignore_ascii_case(id).then_some(long)
        }
        _ => None,
    }
}

/// The n-th id of an object.
pub(super) fn made(prefix: &str, number: u64) -> String {
    let short = format!("{prefix}{number:012}");
    let suffix = suffix(&short);
    short + &suffix
}

fn suffix(short: &str) -> String {
    let letter = |five: &[u8]| {
        let capitals = five.iter().rev().fold(0, |bits, it| bits << 1 | usize::from(it.is_ascii_uppercase()));
        char::from(*SUFFIX.get(capitals).unwrap_or(&b'A'))
    };
    short.as_bytes().chunks(5).map(letter).collect()
}
