//! Outbound HTTP: one client for every system that the broker calls. It knows none of them.
//!
//! [`Client`] trusts the system's TLS roots and a configured certificate authority, follows no redirects, and reads answers
//! of bounded size into memory that is erased afterwards. [`Breaker`] stops calling a system that keeps failing. [`BaseUrl`]
//! and [`encode`] write addresses that cannot be misread.

mod breaker;
mod client;
mod failure;
mod url;

pub use breaker::BreakerState;
pub(crate) use breaker::{Breaker, Outcome, Pass};
pub(crate) use client::{Answer, Client, Options, SetupError, send};
pub(crate) use failure::Failure;
pub use url::{BaseUrl, PageUrl};
pub(crate) use url::{encode, segment};
