//! Several frames in one syscall: small ones are copied one behind the other, others are passed as slices.

use std::io::IoSlice;

use crate::websocket::Frame;

/// How many frames one syscall may take by slices.
pub(super) const SLICES: usize = 64;

/// Frames up to this size are copied one behind the other for a syscall. By slices the kernel takes 16 frames of 360 bytes
/// in 2.0 µs, joined in 1.4, the copy included; from 2 KiB on there is no gain (Linux 6.18, loopback).
const JOINED_BYTES_MAX: usize = 1 << 10;

/// What is unwritten of the first few frames, one behind the other; `None` if they are not for that.
pub(super) fn join<'b>(frames: &[Frame], written: usize, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let (mut joined, mut end, mut start) = (0, 0, written);
    for frame in frames {
        let unwritten = frame.wire().get(start..).unwrap_or_default();
        let Some(place) = buffer.get_mut(end..end + unwritten.len()) else { break };
        if frame.wire().len() > JOINED_BYTES_MAX || frame.is_secret() {
            break;
        }
        place.copy_from_slice(unwritten);
        (joined, end, start) = (joined + 1, end + unwritten.len(), 0);
    }
    if joined > 1 { buffer.get(..end) } else { None }
}

/// What is unwritten of some frames, the first of which is written in part.
pub(super) fn slices<'s, 'f>(
    frames: &'f [Frame],
    written: usize,
    room: &'s mut [IoSlice<'f>; SLICES],
) -> &'s [IoSlice<'f>] {
    let mut start = written;
    for (slice, frame) in room.iter_mut().zip(frames) {
        *slice = IoSlice::new(frame.wire().get(start..).unwrap_or_default());
        start = 0;
    }
    room.get(..frames.len()).unwrap_or(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_copied() {
        let secret = Frame::join(&["secret"], true);
        let open = Frame::new("open");
        let mut buffer = [0; 1000];
        let joined = |frames: &[Frame], buffer: &mut [u8]| join(frames, 0, buffer).map(<[u8]>::len);
        assert_eq!(joined(&[open.clone(), open.clone(), secret.clone(), open.clone()], &mut buffer), Some(12));
        assert_eq!(joined(&[open.clone(), secret.clone(), open.clone()], &mut buffer), None);
        assert_eq!(joined(&[secret, open.clone(), open], &mut buffer), None);
    }
}
