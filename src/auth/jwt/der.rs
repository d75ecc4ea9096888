//! The two structures in DER that public keys are written in. Everything of another form is `None`.

/// The tags of what is read.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// Returns the algorithm's identifier and the key of a `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
pub(super) fn public_key(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (algorithm, rest) = value(SEQUENCE, whole(SEQUENCE, der)?)?;
    let key = whole(BIT_STRING, rest)?;
    // The number of unused bits in the last byte.
    key.split_first().filter(|(unused, _)| **unused == 0).map(|(_, key)| (algorithm, key))
}

/// Returns modulus and exponent of an `RSAPublicKey` (RFC 8017, appendix A.1.1).
pub(super) fn rsa_components(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (modulus, rest) = value(INTEGER, whole(SEQUENCE, der)?)?;
    whole(INTEGER, rest).map(|exponent| (modulus, exponent))
}

/// The content of a value behind which there is nothing.
fn whole(tag: u8, der: &[u8]) -> Option<&[u8]> {
    value(tag, der).filter(|(_, rest)| rest.is_empty()).map(|(content, _)| content)
}

/// The content of a value with this tag, and what is behind it.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = match der {
        [first, len @ 0..=0x7f, rest @ ..] if *first == tag => (usize::from(*len), rest),
        [first, 0x81, len, rest @ ..] if *first == tag => (usize::from(*len), rest),
        [first, 0x82, high, low, rest @ ..] if *first == tag => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    rest.split_at_checked(len)
}
