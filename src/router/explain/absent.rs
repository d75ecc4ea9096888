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
    /// One is registered on this other node.
    Elsewhere(String),
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
            None => Err(self.sender_elsewhere(source, user).unwrap_or_else(|| {
                let nearest = self.nearest_source(source, |_| true);
                NoSender::NotRegistered(nearest.map(|nearest| nearest.name))
            })),
        }
    }

    fn sender_elsewhere(&self, source: &str, user: Option<&str>) -> Option<NoSender> {
        let is_meant = |own: Option<&str>| own.is_none() || user.is_none_or(|user| own == Some(user));
        let peers = self.all_peers();
        let peer = peers.iter().find(|peer| !peer.sessions_like(|it, own| it == source && is_meant(own)).is_empty());
        peer.map(|peer| NoSender::Elsewhere(peer.node().to_owned()))
    }

    /// What there is to say of a source that has no session.
    pub(super) fn absent(&self, about: &About<'_>, scope: Scope<'_>, asker: &Asker<'_>) -> Other {
        let is_asked =
            |user: Option<&str>| asker.may_know_user_of(user) && about.user.is_none_or(|asked| user == Some(asked));
        let last = self.last_left(about, scope, is_asked);
        let left = last.as_ref().map(|(_, left)| left.clone());
        let user = about.user.map(str::to_owned).or_else(|| last.and_then(|(user, _)| user));
        Other {
            who: Who { source: about.source.to_owned(), user, session: None },
            reason: Reason::NotRegistered,
            also: Vec::new(),
            details: Details {
                nearest: self.nearest_source(about.source, |user| {
                    asker.may_know_user_of(user) && about.user.is_none_or(|asked| user.is_none_or(|own| own == asked))
                }),
                left,
                ..Details::default()
            },
        }
    }

    /// How the last session of a source ended, of a user that `is_asked` accepts, and that user.
    pub(super) fn last_left(
        &self,
        about: &About<'_>,
        scope: Scope<'_>,
        is_asked: impl Fn(Option<&str>) -> bool,
    ) -> Option<(Option<String>, HasLeft)> {
        // Without a user, one of the scope first.
        let of_scope = |user: Option<&str>| is_asked(user) && user.is_none_or(|user| scope.user() == Some(user));
        let last = self.ended.last(about.source, of_scope).or_else(|| self.ended.last(about.source, is_asked));
        last.map(|(user, ended)| {
            let (code, reason) = (ended.ending.code(), ended.ending.words().to_owned());
            (user.map(|user| user.to_string()), HasLeft { at: date_text(ended.at), code, reason })
        })
    }

    /// The nearest source among the sessions of all nodes whose user `fits` accepts.
    fn nearest_source(&self, source: &str, fits: impl Fn(Option<&str>) -> bool) -> Option<Nearest> {
        let mut nearest = None;
        let mut look = |name: &Arc<str>| {
            let Some(likeness) = likeness_of_names(source, name) else { return };
            let found = (likeness, Arc::clone(name));
            if nearest.as_ref().is_none_or(|best| found < *best) {
                nearest = Some(found);
            }
        };
        self.presence.each(|session| {
            if *session.source != *source && fits(session.user()) {
                look(&session.source);
            }
        });
        for peer in self.all_peers() {
            for (_, name, _) in peer.sessions_like(|name, user| name != source && fits(user)) {
                look(&name);
            }
        }
        nearest.map(|(likeness, name)| Nearest { name: name.to_string(), differs: Differs::of(likeness) })
    }
}
