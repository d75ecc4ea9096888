//! [`PauseFlag`]: why the connection of a session is not being read, as the connection says.

use std::sync::atomic::{AtomicU8, Ordering};

use super::answer::SenderPaused;
use crate::router::session::Session;

/// Set when a pause begins and when it ends.
#[derive(Default)]
pub(in crate::router) struct PauseFlag(AtomicU8);

const RATE: u8 = 1;
const PRESSURE: u8 = 2;

impl Session {
    /// Notes why the connection of this session is not being read, or that it is.
    pub fn set_paused(&self, paused: Option<SenderPaused>) {
        let flag = match paused {
            None => 0,
            Some(SenderPaused::Rate) => RATE,
            Some(SenderPaused::Pressure) => PRESSURE,
        };
        self.paused.0.store(flag, Ordering::Relaxed);
    }

    /// Returns why the connection of this session is not being read, if it is not.
    pub(in crate::router) fn paused(&self) -> Option<SenderPaused> {
        match self.paused.0.load(Ordering::Relaxed) {
            RATE => Some(SenderPaused::Rate),
            PRESSURE => Some(SenderPaused::Pressure),
            _ => None,
        }
    }
}
