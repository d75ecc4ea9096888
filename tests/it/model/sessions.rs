//! The limits on sessions, met by many threads at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use switchboard::auth::{Identity, Permissions, Principal};
use switchboard::config::{Config, Limits};
use switchboard::router::{NotAttached, Outbox, Registration, Session, Size};
use wire::{ErrorCode, Refusal};

use crate::support::core::{Core, WIDE};

const PER_USER: usize = 7;
const PER_SOURCE: usize = 11;
const THREADS: usize = 8;
/// The sessions that each thread tries to register.
const TRIES: usize = 4;
const ROUNDS: usize = 100;

fn core() -> Core {
    let limits = Limits { sessions_per_user: PER_USER, sessions_per_source: PER_SOURCE, ..Limits::default() };
    Core::new(&Config { limits, ..Config::default() })
}

fn attach(core: &Core, source: &str, user: Option<&str>) -> Result<Arc<Session>, Refusal> {
    let principal = user.map_or(Principal::Service, |user| Principal::User(user.into()));
    let identity = Identity::unproved(principal, Permissions::default());
    let outbox = Outbox::new(WIDE);
    let registration = Registration { source: source.into(), identity, echo: false, address: None, outbox, will: None };
    core.router.attach(core.now, registration).map_err(|error| match error {
        NotAttached::Refused(refusal) | NotAttached::Will(refusal) => refusal,
        NotAttached::Leaseless => unreachable!("there is no cluster"),
    })
}

/// All threads register at once, each with its own source and user; exactly `most` of the sessions are accepted, and the
/// refusals of the others name the key. Then all leave at once, and nothing is left.
fn check(core: &Core, who: impl Fn(usize) -> (String, Option<String>) + Sync, most: usize, key: &str) {
    let (accepted, start) = (AtomicUsize::new(0), Barrier::new(THREADS));
    thread::scope(|scope| {
        for number in 0..THREADS {
            let (who, accepted, start) = (&who, &accepted, &start);
            scope.spawn(move || {
                let (source, user) = who(number);
                start.wait();
                let mut sessions = Vec::new();
                for _ in 0..TRIES {
                    match attach(core, &source, user.as_deref()) {
                        Ok(session) => sessions.push(session),
                        Err(refusal) => {
                            assert_eq!(refusal.code, ErrorCode::TooManySessions);
                            assert!(refusal.message.contains(key), "{refusal}");
                        }
                    }
                }
                accepted.fetch_add(sessions.len(), Ordering::SeqCst);
                start.wait();
                for session in &sessions {
                    core.router.detach(core.now, session);
                }
            });
        }
    });
    assert_eq!(accepted.into_inner(), most, "{key}");
    assert_eq!(core.router.size(), Size::default());
}

#[test]
fn many_threads_get_exactly_as_many_sessions_as_allowed() {
    let core = core();
    for _ in 0..ROUNDS {
        check(&core, |number| (format!("app-{number}"), Some("alice".into())), PER_USER, "limits.sessions_per_user");
        let users = |number| ("softphone".into(), (number > 0).then(|| format!("user-{number}")));
        check(&core, users, PER_SOURCE, "limits.sessions_per_source");
        // Services have no limit for each user.
        check(&core, |number| (format!("app-{number}"), None), THREADS * TRIES, "no limit");
    }
}

/// Sessions begin and end; at no time are there more than allowed, and afterwards there is room for all of them.
#[test]
fn there_are_never_more_sessions_than_allowed() {
    let (core, present) = (core(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..ROUNDS * 5 {
                    let Ok(session) = attach(&core, "softphone", Some("alice")) else { continue };
                    // Counted for a shorter time than the session exists.
                    assert!(present.fetch_add(1, Ordering::SeqCst) < PER_USER);
                    thread::yield_now();
                    present.fetch_sub(1, Ordering::SeqCst);
                    core.router.detach(core.now, &session);
                }
            });
        }
    });
    let sessions: Vec<_> = (0..PER_USER).map(|_| attach(&core, "softphone", Some("alice")).unwrap()).collect();
    assert!(attach(&core, "softphone", Some("alice")).is_err());
    for session in &sessions {
        core.router.detach(core.now, session);
    }
}
