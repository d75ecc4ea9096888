//! [`Body`]: the body of an answer while it is read. Every buffer that it outgrows is erased.

use zeroize::Zeroizing;

/// The capacity for an answer of unknown length.
const CAPACITY: usize = 4096;

/// The bytes read so far.
pub(super) struct Body {
    bytes: Zeroizing<Vec<u8>>,
    bytes_max: usize,
}

impl Body {
    /// An empty body with capacity for the announced length.
    pub(super) fn new(length: Option<u64>, bytes_max: usize) -> Self {
        let length = length.and_then(|it| usize::try_from(it).ok()).unwrap_or(CAPACITY);
        Self { bytes: Zeroizing::new(Vec::with_capacity(length.min(bytes_max))), bytes_max }
    }

    /// Appends, and returns whether the body is still within its limit. If not, it is unchanged.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let length = self.bytes.len() + bytes.len();
        if length > self.bytes_max {
            return false;
        }
        if length > self.bytes.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity((length * 2).min(self.bytes_max)));
            larger.extend_from_slice(&self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }

    /// The bytes.
    pub(super) fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_grows_to_its_limit_and_no_further() {
        const MAX: usize = 1 << 20;
        let mut body = Body::new(Some(u64::MAX), MAX);
        assert!(body.push(&[1; 5000]) && body.push(&vec![2; MAX - 5000]));
        assert!(!body.push(&[3]) && body.bytes.len() == MAX);
        let mut body = Body::new(None, MAX);
        assert!((0..100).all(|_| body.push(&[1; 100])) && *body.bytes == [1; 10_000]);
    }
}
