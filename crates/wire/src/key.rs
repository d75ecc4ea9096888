//! [`Key`]: the top-level keys of an envelope that have a meaning.

macro_rules! keys {
    ($($len:literal: $($variant:ident = $name:literal),+;)+) => {
        /// A key of the table "Envelope" in docs/protocol.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Key { $($($variant,)+)+ }

        impl Key {
            const ALL: &'static [Self] = &[$($(Self::$variant,)+)+];

            /// Returns the key that is written exactly like this.
            #[inline]
            pub(super) fn of(text: &str) -> Option<Self> {
                // With the length known, a comparison is one or two instructions.
                match text.len() {
                    $($len => match text { $($name => Some(Self::$variant),)+ _ => None },)+
                    _ => None,
                }
            }

            /// Returns the key as it is written.
            pub(super) const fn name(self) -> &'static str {
                match self { $($(Self::$variant => $name,)+)+ }
            }
        }
    };
}

// Grouped by length.
keys! {
    2: Id = "id";
    3: Seq = "seq";
    4: Data = "data", User = "user", More = "more", Once = "once";
    5: Topic = "topic", Epoch = "epoch";
    6: Source = "source", Target = "target", Gather = "gather", Retain = "retain", Offset = "offset";
    7: Channel = "channel", Message = "message", Timeout = "timeout";
    8: Subtopic = "subtopic", Retained = "retained", Replayed = "replayed";
    9: InReplyTo = "inReplyTo", RequestId = "requestId";
    10: Idempotent = "idempotent";
}

impl Key {
    /// Returns a bit of its own for each key.
    #[inline]
    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Returns the key that an unknown key could be taken for: equal except for ASCII case, or for white space before or
    /// after it. A receiver whose parser ignores the difference would believe the sender.
    pub(super) fn resembled_by(unknown: &str) -> Option<Self> {
        let trimmed = unknown.trim();
        Self::ALL.iter().copied().find(|key| key.name().eq_ignore_ascii_case(trimmed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_found_by_its_name_and_has_a_bit_of_its_own() {
        let mut bits = 0_u32;
        for key in Key::ALL {
            assert_eq!(Key::of(key.name()), Some(*key));
            assert_eq!(Key::resembled_by(&format!(" {}", key.name().to_uppercase())), Some(*key));
            bits |= key.bit();
        }
        assert_eq!(bits.count_ones() as usize, Key::ALL.len());
        assert_eq!((Key::of("ids"), Key::resembled_by("ids")), (None, None));
    }
}
