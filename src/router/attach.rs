//! How a session is made known: that of an application, and that of an adapter.

use std::sync::Arc;
use std::time::Instant;

use wire::{ErrorCode, Refusal};

use crate::auth::{Identity, Permission, Permissions, Principal};
use crate::router::Router;
use crate::router::leases::LeaseHold;
use crate::router::outbox::Outbox;
use crate::router::presence::{Change, Joined, Place};
use crate::router::request::door::Door;
use crate::router::session::{OWN_SOURCE, Registration, Role, Session};
use crate::telemetry::recorder::What;

/// How often a session that registers looks for room again, after sessions that were away have ended for it.
const DISPLACED_MAX: usize = 8;

/// Why a session was not made known.
#[derive(Debug)]
pub enum NotAttached {
    /// `FORBIDDEN` for the broker's own source, `SOURCE_IN_USE`, `TOO_MANY_SESSIONS`.
    Refused(Refusal),
    /// Its will is refused: any code of an event.
    Will(Refusal),
    /// Its source is exclusive in a cluster, and it has no lease of it: [`Router::seek_lease`].
    Leaseless,
}

impl From<Refusal> for NotAttached {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Router {
    /// Makes a session known.
    ///
    /// # Errors
    /// [`NotAttached`].
    pub fn attach(&self, now: Instant, registration: Registration) -> Result<Arc<Session>, NotAttached> {
        let attached = self.attach_if(now, registration, None, || true)?;
        attached.ok_or_else(|| Refusal::new(ErrorCode::Internal, "the broker failed; its log says more").into())
    }

    /// Makes a session known, unless `is_current` says that its identity has to be verified again.
    pub(super) fn attach_if(
        &self,
        now: Instant,
        registration: Registration,
        lease: Option<LeaseHold>,
        is_current: impl Fn() -> bool,
    ) -> Result<Option<Arc<Session>>, NotAttached> {
        let joined = self.join(now, (registration, lease), None, |_| (), is_current)?;
        Ok(joined.inspect(|session| self.tell_presence(now, session, Change::Joined)))
    }

    /// Lists a session, after `prepare` was called with it. Nobody is told yet. `except`: the number of a session that ends
    /// as soon as this one is listed.
    pub(super) fn join(
        &self,
        now: Instant,
        (registration, lease): (Registration, Option<LeaseHold>),
        except: Option<u64>,
        prepare: impl FnOnce(&mut Session),
        is_current: impl Fn() -> bool,
    ) -> Result<Option<Arc<Session>>, NotAttached> {
        check_not_own(&registration.source)?;
        let exclusive = registration.identity.exclusive;
        if exclusive && self.needs_leases() && lease.as_ref().is_none_or(LeaseHold::is_lost) {
            return Err(NotAttached::Leaseless);
        }
        let role = Role::of(&registration.identity.principal);
        let mut session = self.session(now, role, registration, None);
        self.check_will_of(&session).map_err(NotAttached::Will)?;
        prepare(&mut session);
        session.holds.lock().lease = lease.filter(|_| exclusive);
        let session = Arc::new(session);
        let place = Place { exclusive, except, longest_away: &|fits| self.longest_away(fits) };
        for _ in 0..DISPLACED_MAX {
            match self.presence.join(&session, &place, &self.policy.limits(), &is_current)? {
                Joined::Listed => {
                    self.note(now, &session, What::Registered);
                    self.note_lease(&session);
                    return Ok(Some(session));
                }
                Joined::Outdated => return Ok(None),
                Joined::Displaces(others) => others.iter().for_each(|other| self.displace(now, other)),
            }
        }
        Err(Refusal::new(ErrorCode::TooManySessions, "other sessions register at the same moment; try again").into())
    }

    /// Attaches an adapter, which sends events, and receives those that it subscribes to. It is not an application, so
    /// presence does not list it.
    pub fn attach_adapter(&self, now: Instant, outbox: Outbox) -> Arc<Session> {
        self.adapter(now, outbox, None)
    }

    /// Attaches an adapter that answers requests, which it gets through `door`.
    pub fn attach_handler(&self, now: Instant, door: Arc<dyn Door>) -> Arc<Session> {
        self.adapter(now, Outbox::refusing(), Some(door))
    }

    fn adapter(&self, now: Instant, outbox: Outbox, door: Option<Arc<dyn Door>>) -> Arc<Session> {
        let identity =
            Identity::unproved(Principal::Service, Permissions { handle: Permission::All, ..Permissions::default() });
        let source = OWN_SOURCE.to_owned();
        let registration = Registration { source, identity, echo: false, address: None, outbox, will: None };
        let adapter = Arc::new(self.session(now, Role::Adapter, registration, door));
        self.note_adapter(&adapter);
        adapter
    }

    pub(super) fn session(
        &self,
        now: Instant,
        role: Role,
        registration: Registration,
        door: Option<Arc<dyn Door>>,
    ) -> Session {
        let since = self.date(now);
        Session::new(self.ids.session(), self.ids.stamp(), role, since, registration, self.reloads(), door)
    }
}

/// Checks that an application registers another source than the broker's own.
///
/// # Errors
/// `FORBIDDEN`.
pub(super) fn check_not_own(source: &str) -> Result<(), Refusal> {
    if source == OWN_SOURCE {
        let words = "the source 'switchboard' is reserved for adapters in the broker; choose another name";
        return Err(Refusal::new(ErrorCode::Forbidden, words));
    }
    Ok(())
}
