//! [`TraceParent`]: the field `traceparent` of W3C Trace Context.

use std::fmt;

/// The place of a message in a distributed trace: a well-formed `traceparent`.
///
/// It is not a field of the envelope: a broker passes it on as any other unknown field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent([u8; Self::BYTES]);

/// The length of a `traceparent` of version 0.
const TEXT_LEN: usize = 55;

impl TraceParent {
    /// Its length in bytes: version, trace, parent and flags.
    pub const BYTES: usize = 26;

    /// Reads a `traceparent`; `None` if it is malformed. Of a later version, reads the part that version 0 has.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (known, rest) = text.as_bytes().split_first_chunk::<TEXT_LEN>()?;
        let mut parts = known.split(|byte| *byte == b'-');
        let mut read = [0; Self::BYTES];
        let (version, others) = read.split_first_mut()?;
        let (trace, others) = others.split_first_chunk_mut::<16>()?;
        let (parent, flags) = others.split_first_chunk_mut::<8>()?;
        for place in [std::slice::from_mut(version), trace, parent, flags] {
            read_hex(parts.next()?, place)?;
        }
        let follows = match *version {
            0 => rest.is_empty(),
            0xff => false,
            _ => matches!(rest, [] | [b'-', ..]),
        };
        let is_valid = follows && parts.next().is_none() && *trace != [0; 16] && *parent != [0; 8];
        is_valid.then_some(Self(read))
    }

    /// Returns it as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Reads what [`TraceParent::as_bytes`] returned.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 1 | 17 | 25) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Reads lower-case digits into bytes, exactly as many as there are places.
fn read_hex(digits: &[u8], places: &mut [u8]) -> Option<()> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != places.len() {
        return None;
    }
    for ([high, low], place) in pairs.iter().zip(places) {
        *place = digit(*high)? << 4 | digit(*low)?;
    }
    Some(())
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_well_formed_traceparent_is_written_as_it_was_read() {
        let trace = TraceParent::read(GOOD).unwrap();
        assert_eq!(trace.to_string(), GOOD);
        assert_eq!(TraceParent::from_bytes(*trace.as_bytes()), trace);
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(TraceParent::read(&later).unwrap().to_string(), later);
        assert_eq!(TraceParent::read(&format!("{later}-what-is-new")).unwrap().to_string(), later);
    }

    #[test]
    fn a_malformed_traceparent_is_not_read() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let version_ff = GOOD.replacen("00", "ff", 1);
        let (upper, longer, shorter) = (GOOD.to_uppercase(), format!("{GOOD}-x"), &GOOD[..54]);
        let moved = "00-4bf92f3577b34da6a3ce929d0e0e47-36-00f067aa0ba902b701";
        let later = GOOD.replacen("00", "cc", 1) + "x";
        for text in ["", "00", &zero_trace, &zero_parent, &version_ff, &upper, &longer, shorter, moved, &later] {
            assert_eq!(TraceParent::read(text), None, "{text}");
        }
    }
}
