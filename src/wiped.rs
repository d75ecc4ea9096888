//! [`Wiped`]: bytes that may contain a secret and whose number is not known at first.

use std::ops::Deref;

use zeroize::Zeroizing;

/// A buffer that grows up to a limit. It is erased when it is dropped, and so is each smaller one that it outgrew: a `Vec`
/// that grows by itself leaves its old bytes in freed memory. Erasing writes the whole capacity, so that follows the length.
#[derive(Default)]
pub(crate) struct Wiped(Zeroizing<Vec<u8>>);

impl Wiped {
    /// An empty buffer.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(bytes)))
    }

    /// Appends bytes, and returns whether the buffer then has at most `bytes_max`. If not, it is unchanged.
    pub(crate) fn push(&mut self, bytes: &[u8], bytes_max: usize) -> bool {
        let fits = self.reserve(bytes.len(), bytes_max);
        if fits {
            self.0.extend_from_slice(bytes);
        }
        fits
    }

    /// Returns the buffer with free capacity to read into, or `None` if it has `bytes_max` bytes.
    pub(crate) fn with_room(&mut self, bytes_max: usize) -> Option<&mut Vec<u8>> {
        self.reserve(1, bytes_max).then_some(&mut *self.0)
    }

    /// Returns the bytes.
    pub(crate) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }

    /// Makes room for more bytes, unless there would be more than `bytes_max`.
    fn reserve(&mut self, more: usize, bytes_max: usize) -> bool {
        let needed = self.0.len().saturating_add(more);
        if needed > bytes_max {
            return false;
        }
        if needed > self.0.capacity() {
            let capacity = self.0.capacity().saturating_mul(2).clamp(needed, bytes_max);
            let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        true
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 10_000;

    #[test]
    fn a_buffer_grows_to_its_limit_and_no_further() {
        for capacity in [0, 1, 64, MAX] {
            let mut buffer = Wiped::with_capacity(capacity);
            let mut moves = 0;
            for length in 0..MAX {
                let before = buffer.0.capacity();
                assert!(buffer.push(&[1], MAX));
                moves += usize::from(buffer.0.capacity() != before);
                assert!(buffer.len() == length + 1 && buffer.0.capacity() <= MAX);
            }
            assert!(moves <= 15, "capacity {capacity}: moved {moves} times");
            assert!(!buffer.push(&[2], MAX) && buffer.with_room(MAX).is_none());
            assert_eq!(*buffer.into_bytes(), [1; MAX]);
        }
    }

    #[test]
    fn the_room_to_read_into_follows_the_length() {
        let mut buffer = Wiped::with_capacity(100);
        while let Some(room) = buffer.with_room(MAX) {
            assert!(room.len() < room.capacity() && room.capacity() <= (2 * room.len()).clamp(100, MAX));
            let free = room.capacity() - room.len();
            room.extend_from_slice(&vec![1; free]);
        }
        assert_eq!(*buffer, [1; MAX]);
    }
}
