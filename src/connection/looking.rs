//! [`Looking`]: a Subscribe that waits until earlier events of its log were read from the disk.
//!
//! It is not taken in before that, and the connection is not read meanwhile. So if the connection is lost, the client of a
//! resumable session sends it again.

use std::task::{Context, Poll};
use std::time::Instant;

use zeroize::Zeroizing;

use super::{Connection, Effect};
use crate::router::{Found, LookTicket, Router};

/// A Subscribe that needs events from the disk.
pub(super) enum Looking {
    Waits(LookTicket, Zeroizing<String>),
    /// They were found, and it is to be handled.
    Found(Found, Zeroizing<String>),
    /// It is being handled.
    Handled(Found),
}

impl Connection {
    /// Ready when a Subscribe that waited for the disk can go on: then it wants [`super::Input::Looked`].
    pub fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(looking) = &mut self.looking else { return Poll::Pending };
        if let Looking::Waits(ticket, text) = &mut **looking {
            let Poll::Ready(found) = ticket.poll(cx) else { return Poll::Pending };
            **looking = Looking::Found(found, std::mem::take(text));
        }
        Poll::Ready(())
    }

    /// Lets a Subscribe wait.
    pub(super) fn look(&mut self, text: &str, ticket: LookTicket) {
        self.heartbeat.not_read();
        self.looking = Some(Box::new(Looking::Waits(ticket, Zeroizing::new(text.to_owned()))));
    }

    /// Goes on with a Subscribe.
    pub(super) fn looked(&mut self, now: Instant, router: &Router) -> Option<Effect> {
        let (found, text) = match self.looking.take().map(|looking| *looking) {
            Some(Looking::Found(found, text)) => (found, text),
            Some(Looking::Waits(..) | Looking::Handled(_)) | None => return None,
        };
        self.looking = Some(Box::new(Looking::Handled(found)));
        let effect = self.message(now, Some(&text), router);
        self.take_found();
        effect
    }

    /// Whether the message that is being handled waited for the disk: it was counted when it arrived.
    pub(super) fn is_handled_again(&self) -> bool {
        self.looking.is_some()
    }

    /// What the Subscribe that is being handled has found.
    pub(super) fn take_found(&mut self) -> Option<Found> {
        match self.looking.take().map(|looking| *looking) {
            Some(Looking::Handled(found)) => Some(found),
            None => None,
            // It waits again.
            Some(waits) => {
                self.looking = Some(Box::new(waits));
                None
            }
        }
    }
}
