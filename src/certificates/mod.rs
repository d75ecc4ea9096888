//! X.509 certificates: what a certificate says about itself.
//!
//! Nothing here knows a listener or a session.

mod leaf;

pub use leaf::{Leaf, LeafError};
