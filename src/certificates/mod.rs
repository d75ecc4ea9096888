//! X.509 certificates: what a certificate says about itself ([`Leaf`]), and those that the broker makes itself: an
//! authority of this machine and a certificate that it signs, in a [`Folder`].
//!
//! Nothing here uses a listener or a session.

mod authority;
mod folder;
mod host;
mod leaf;
mod subject;

pub use folder::{Folder, FolderError, renew_if_due};
pub use host::{Host, HostError};
pub use leaf::{Leaf, LeafError};
pub use subject::subject;
