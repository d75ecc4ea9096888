//! A queue that gives nothing until other nodes know what its session did: the reply to a Subscribe says that it is in force
//! on all of them.

use super::Outbox;

impl Outbox {
    /// Nothing is taken before [`Outbox::stop_withholding`] was called as often as this.
    pub(in crate::router) fn withhold(&self) {
        self.state.lock().withheld += 1;
    }

    /// One node less has yet to know.
    pub(in crate::router) fn stop_withholding(&self) {
        self.change(|state| state.withheld = state.withheld.saturating_sub(1));
    }
}
