//! What the broker tells requesters when a request fails: which handler, which limit, and what to do.

use std::time::{Duration, Instant, SystemTime};

use crate::router::request::pending::{Pending, State};
use wire::{Envelope, ErrorCode, Refusal};

/// Why the session of an ordered handler that does not answer is closed. A Close frame has fixed words, so they name the
/// default of `requests.blocked`; the log names the configured time.
pub(in crate::router) const BLOCKED: &str = "an ordered handler did not answer for 60 s";

/// A time limit in words: `3 s`, `50 ms`, `10 min`.
pub(in crate::router) fn span(duration: Duration) -> String {
    match duration.as_millis() {
        millis if millis % 60_000 == 0 && millis > 60_000 => format!("{} min", millis / 60_000),
        millis if millis % 1000 == 0 => format!("{} s", millis / 1000),
        millis => format!("{millis} ms"),
    }
}

/// The time of a request is over. `state`: where it was.
/// `away_since`: since when a handler has had no connection.
pub(in crate::router) fn timed_out(
    now: Instant,
    pending: &Pending,
    state: &State,
    away_since: Option<SystemTime>,
) -> Refusal {
    let limit = span(pending.timeout);
    // Only replies with `more` keep a request open beyond its time limit.
    let in_all = pending.more_max > pending.timeout && now >= pending.opened + pending.more_max;
    let words = match state {
        State::Given(handler) if in_all => {
            format!("'{}' replied, but did not finish within {}", handler.session.source, span(pending.more_max))
        }
        State::Given(handler) => format!("'{}' did not answer within {limit}", handler.session.source),
        State::Waiting(handlers) => match handlers.first() {
            Some(handler) => {
                format!("'{}' answers one request at a time, and was busy for {limit}", handler.session.source)
            }
            None => format!("no handler was free within {limit}"),
        },
        State::Seeking | State::Ended => format!("no handler was found within {limit}"),
    };
    let words = match away_since {
        Some(since) => format!("{words}; it has had no connection since {}", humantime::format_rfc3339_seconds(since)),
        None => words,
    };
    Refusal::new(ErrorCode::RequestTimeout, words)
}

pub(in crate::router) fn handler_gone(source: &str) -> Refusal {
    let words = format!("'{source}' left before it answered; send the request again when it is back");
    Refusal::new(ErrorCode::HandlerGone, words)
}

/// `secret`: the triple is protected. Handlers of other users may be connected, so the words do not deny that.
pub(in crate::router) fn no_handler(envelope: &Envelope<'_>, secret: bool) -> Refusal {
    let words = match envelope.target() {
        Some(_) => "no handler with the source that 'target' names is connected for this user",
        None if secret => "no handler that may answer this protected triple is connected for this user",
        None => "no handler of this triple is connected for this user; letter case counts",
    };
    Refusal::new(ErrorCode::NoHandler, words)
}

/// No handler takes a triple that an adapter would serve if this key switched it on.
pub(in crate::router) fn switched_off(key: &str) -> Refusal {
    let words = format!(
        "no handler of this triple is connected for this user; the key {key} would switch the broker's adapter on"
    );
    Refusal::new(ErrorCode::NoHandler, words)
}

pub(in crate::router) fn no_such_request(in_reply_to: Option<&str>) -> Refusal {
    let refusal = Refusal::new(
        ErrorCode::NoSuchRequest,
        "the field 'inReplyTo' names no open request that this session was given; it may have been answered, timed out \
         or been cancelled",
    );
    match in_reply_to {
        Some(id) => refusal.with("InReplyTo", id),
        None => refusal,
    }
}

pub(in crate::router) fn too_many_pending(most: usize) -> Refusal {
    Refusal::new(
        ErrorCode::TooManyRequests,
        format!("{most} requests of this session are pending, the limit; wait for answers, or cancel some"),
    )
}

pub(in crate::router) fn gather_too_wide(handlers: usize, most: usize) -> Refusal {
    Refusal::new(
        ErrorCode::TooManyRequests,
        format!("a request to each of {handlers} handlers would exceed the limit of {most} pending requests"),
    )
}

pub(in crate::router) fn too_many_bytes(most: usize) -> Refusal {
    Refusal::new(
        ErrorCode::TooManyRequests,
        format!(
            "the texts of this session's pending requests would exceed {most} bytes, the limit; wait for answers, or \
             cancel some"
        ),
    )
}

/// Something happened that cannot happen. Asserted where tests run; in service it costs the sender an `INTERNAL`.
pub(in crate::router) fn impossible(what: &'static str) -> Refusal {
    debug_assert!(false, "{what}");
    tracing::error!(what, "the broker is in a state that should be impossible");
    Refusal::new(ErrorCode::Internal, "the broker failed; its log says more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_the_unit_that_people_use() {
        for (millis, words) in [(1, "1 ms"), (1500, "1500 ms"), (3000, "3 s"), (60_000, "60 s"), (600_000, "10 min")] {
            assert_eq!(span(Duration::from_millis(millis)), words);
        }
    }
}
