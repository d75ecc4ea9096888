//! [`Conversation`]: who said what, in the order it was seen; printed when a test fails.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

/// Lines kept; a heavy test says much more, and its end is what matters.
const LINES_MAX: usize = 400;
/// Characters of a line kept.
const LINE_MAX: usize = 400;

/// The record that all connections of a test share.
#[derive(Clone, Default)]
pub(crate) struct Conversation {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Conversation {
    /// Adds a line: `mark` is `>` for what a peer sent, `<` for what it received.
    pub(crate) fn add(&self, peer: &str, mark: char, text: &str) {
        let mut lines = self.lines.lock().unwrap();
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        let shown: String = text.chars().take(LINE_MAX).collect();
        let rest = if shown.len() < text.len() { format!(" … ({} bytes)", text.len()) } else { String::new() };
        lines.push_back(format!("{peer}{mark} {shown}{rest}"));
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines.lock().unwrap().iter() {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}
