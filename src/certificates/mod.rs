//! X.509 certificates: what a certificate says about itself.
//!
//! Nothing here knows a listener or a session.

mod leaf;
mod subject;

pub use leaf::{Leaf, LeafError};
pub use subject::subject;
