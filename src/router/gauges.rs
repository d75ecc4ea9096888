//! [`Router::gauges`]: what metrics say of the router's present state.

use crate::router::session::{Role, Session};
use crate::router::{ApplicationState, Router};
use crate::telemetry::metrics::RouterGauges;

impl Router {
    /// Returns what the router has. Walks all sessions and logs: a shard of the map of sessions is held at a time, and the
    /// locks of one session or log.
    pub fn gauges(&self) -> RouterGauges {
        let (retained_values, retained_bytes) = self.retained.size();
        let (durable_logs, other_logs) = self.history.gauges(|channel| self.policy.is_durable(channel));
        let (known_ids, ids_forgotten) = self.history.ids();
        let mut gauges = RouterGauges {
            requests_pending: self.requests.len(),
            retained_values,
            retained_bytes,
            durable_logs,
            other_logs,
            known_ids,
            ids_forgotten,
            resume_kept_bytes: self.resumes.kept().bytes(),
            taps: self.taps(),
            tap_lines_skipped: self.tap_lines_skipped(),
            ..RouterGauges::default()
        };
        self.presence.each(|session| add(&mut gauges, session));
        gauges
    }
}

fn add(gauges: &mut RouterGauges, session: &Session) {
    let by_state = match session.role {
        Role::User(_) => &mut gauges.user_sessions,
        Role::Service | Role::Adapter => &mut gauges.service_sessions,
    };
    let [active, asleep, away] = by_state;
    *match ApplicationState::of_session(session) {
        ApplicationState::Active => active,
        ApplicationState::Asleep => asleep,
        ApplicationState::Away => away,
    } += 1;
    let (handlers, all) = {
        let holds = session.holds.lock();
        (holds.subscriptions.iter().filter(|it| it.is_handler()).count(), holds.subscriptions.len())
    };
    gauges.handlers += handlers;
    gauges.subscribers += all - handlers;
    gauges.unresponsive += usize::from(session.has_missed());
    let depth = session.outbox().depth();
    gauges.outbound_messages += depth.messages;
    gauges.outbound_messages_max = gauges.outbound_messages_max.max(depth.messages);
    gauges.outbound_bytes += depth.bytes;
    gauges.outbound_bytes_max = gauges.outbound_bytes_max.max(depth.bytes);
}
