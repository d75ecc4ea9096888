//! [`Window`]: how far a publisher may be ahead of its receivers if there is no fixed rate. A message is on its way until
//! the last of them has it, as in benches/yardstick.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Shared by a publisher and its receivers.
pub(super) struct Window {
    messages: usize,
    receivers: u32,
    books: Mutex<Books>,
    room: Notify,
}

#[derive(Default)]
struct Books {
    /// All receivers have the messages before this number.
    done: u64,
    /// How many receivers do not have each message from there on.
    lacking: VecDeque<u32>,
}

impl Window {
    pub(super) fn new(messages: usize, receivers: u32) -> Arc<Self> {
        Arc::new(Self { messages, receivers, books: Mutex::default(), room: Notify::new() })
    }

    /// Adds a message, if there is room.
    pub(super) fn try_enter(&self) -> bool {
        let mut books = self.books.lock();
        let room = books.lacking.len() < self.messages;
        if room {
            books.lacking.push_back(self.receivers);
        }
        room
    }

    /// Waits until there can be room.
    pub(super) async fn room(&self) {
        self.room.notified().await;
    }

    /// Notes that a receiver has these messages.
    pub(super) fn leave(&self, numbers: Range<u64>) {
        let mut books = self.books.lock();
        let first = books.done;
        for number in numbers {
            let place = number.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            if let Some(lacking) = place.and_then(|place| books.lacking.get_mut(place)) {
                *lacking = lacking.saturating_sub(1);
            }
        }
        while books.lacking.front() == Some(&0) {
            books.lacking.pop_front();
            books.done += 1;
        }
        if books.done > first {
            self.room.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_when_the_last_receiver_has_the_first_message() {
        let window = Window::new(2, 2);
        assert!(window.try_enter() && window.try_enter() && !window.try_enter());
        window.leave(0..2);
        assert!(!window.try_enter(), "the other receiver has none");
        window.leave(0..1);
        assert!(window.try_enter() && !window.try_enter());
        window.leave(1..2);
        assert!(window.try_enter() && !window.try_enter());
    }
}
