//! [`Router::change_permissions`]: rights that change while a session lives.

use std::sync::Arc;

use crate::auth::Permissions;
use crate::router::Router;
use crate::router::session::Session;

impl Router {
    /// Gives a session these permissions in place of those that it has.
    pub fn change_permissions(&self, session: &Arc<Session>, permissions: Permissions) {
        session.set_permissions(Arc::new(permissions));
    }
}
