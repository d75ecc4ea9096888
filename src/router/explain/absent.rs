//! A source that is not registered: the nearest one that is, and how its last session ended.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::About;
use super::answer::{Details, Differs, HasLeft, Nearest, Other, Reason, Who};
use super::asker::Asker;
use super::date_text;
use crate::router::hint::pattern::likeness_of_names;
use crate::router::session::Session;
use crate::router::{Router, Scope};

/// Why no session sends as a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoSender {
    /// None is registered; the nearest source that is.
    NotRegistered(Option<String>),
    /// Sessions of several users are.
    SeveralUsers,
}

impl Router {
    /// The session that an operator means as the sender: of this source, and of this user or a service. Of several, one of this
    /// user comes first (or a service, if no user is named), then the one that registered first.
    ///
    /// # Errors
    /// [`NoSender`].
    pub fn sender(&self, source: &str, user: Option<&str>) -> Result<Arc<Session>, NoSender> {
        let mut sessions = Vec::new();
        self.presence.each(|session| {
            let is_meant = session.user().is_none() || user.is_none_or(|user| session.user() == Some(user));
            if *session.source == *source && is_meant {
                sessions.push(Arc::clone(session));
            }
        });
        // Of the named user first, otherwise a service first.
        sessions.sort_by_key(|session| (session.user().is_none() == user.is_some(), session.number));
        let users: BTreeSet<_> = sessions.iter().map(|session| session.user()).collect();
        match sessions.first() {
            Some(first) if first.user().is_none() || user.is_some() || users.len() == 1 => Ok(Arc::clone(first)),
            Some(_) => Err(NoSender::SeveralUsers),
            None => {
                let nearest = self.nearest_source(source, |_| true);
                Err(NoSender::NotRegistered(nearest.map(|nearest| nearest.name)))
            }
        }
    }

    /// What there is to say of a source that has no session.
    pub(super) fn absent(&self, about: &About<'_>, scope: Scope<'_>, asker: &Asker<'_>) -> Other {
        let is_asked =
            |user: Option<&str>| asker.may_know_user_of(user) && about.user.is_none_or(|asked| user == Some(asked));
        // Without a user, one of the scope first.
        let of_scope = |user: Option<&str>| is_asked(user) && user.is_none_or(|user| scope.user() == Some(user));
        let last = self.ended.last(about.source, of_scope).or_else(|| self.ended.last(about.source, is_asked));
        let left = last.as_ref().map(|(_, ended)| HasLeft {
            at: date_text(ended.at),
            code: ended.ending.code(),
            reason: ended.ending.words().to_owned(),
        });
        let user =
            about.user.map(str::to_owned).or_else(|| last.and_then(|(user, _)| user).map(|user| user.to_string()));
        Other {
            who: Who { source: about.source.to_owned(), user, session: None },
            reason: Reason::NotRegistered,
            also: Vec::new(),
            details: Details {
                nearest: self.nearest_source(about.source, |session| {
                    asker.sees(session) && about.user.is_none_or(|user| session.user().is_none_or(|own| own == user))
                }),
                left,
                ..Details::default()
            },
        }
    }

    /// The nearest source among the sessions that `fits` accepts.
    fn nearest_source(&self, source: &str, fits: impl Fn(&Session) -> bool) -> Option<Nearest> {
        let mut nearest = None;
        self.presence.each(|session| {
            if *session.source == *source || !fits(session) {
                return;
            }
            let Some(likeness) = likeness_of_names(source, &session.source) else { return };
            let found = (likeness, Arc::clone(&session.source));
            if nearest.as_ref().is_none_or(|best| found < *best) {
                nearest = Some(found);
            }
        });
        nearest.map(|(likeness, name)| Nearest { name: name.to_string(), differs: Differs::of(likeness) })
    }
}
