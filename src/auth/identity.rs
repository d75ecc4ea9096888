//! [`Identity`]: what was proved at registration.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{ClientCertificate, Permissions};

/// The user or service that a session belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// An agent, by the name that was proved.
    User(Arc<str>),
    /// A server-side application, which has no user.
    Service,
}

impl Principal {
    /// The user's name; `None` for a service.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::User(user) => Some(user),
            Self::Service => None,
        }
    }
}

/// What was proved at registration, and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A user's or a service's.
    pub principal: Principal,
    /// Only one session of a user may register the source.
    pub exclusive: bool,
    /// What a session of this identity may do.
    pub permissions: Permissions,
    /// What proved it.
    pub proof: Proof,
    /// When the proof has to be given anew.
    pub ends: Ends,
}

impl Identity {
    /// An identity that nothing proved and that does not end: in open mode, or inside the process.
    #[must_use]
    pub fn unproved(principal: Principal, permissions: Permissions) -> Self {
        Self { principal, exclusive: false, permissions, proof: Proof::Nothing, ends: Ends::Never }
    }
}

/// What proved an identity. A new proof of a live session has to be of the same kind, and a session whose kind of proof is
/// no longer configured ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Proof {
    /// Nothing: open mode, or a handler inside the process.
    Nothing,
    /// A row of `[[applications]]`, by the hash of its token.
    Token([u8; 32]),
    /// An issuer of JWTs, by the name of its table in the configuration.
    Issuer(Arc<str>),
    /// A row of `[[applications]]`, by a client certificate that it names.
    Certificate(Arc<ClientCertificate>),
    /// A Salesforce org, by the name of the table `[auth.salesforce_*]`.
    Salesforce(&'static str),
}

/// When a proof ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// With the session.
    Never,
    /// This long after the registration.
    After(Duration),
    /// By the time of day.
    At {
        /// When it ends for everybody else.
        expires: SystemTime,
        /// How much longer the broker accepts it, because clocks differ.
        leeway: Duration,
    },
}
